#!/bin/bash
# The commit of a move fails or hangs at its sync, with the record on the disk or without, while the guest goes on writing:
# - the fault passes: it is committed after all
# - the worker is killed meanwhile, or everything is, and mounted again: the record decides, and both legs hold all that
#   was acknowledged, so that either answer is right (law 1)
# - the mount ends meanwhile
# - the record is found by one who cannot make it durable: then it does not count
# commit-fault.sh "all, hang" runs those with this in their names.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 mkfs.xfs python3
scratch
FAULT=$BUILD/tests/libcommit-fault.so
if [ ! -e "$FAULT" ]; then
    FAULT=$SCRATCH/libcommit-fault.so
    ${CC:-cc} -std=gnu11 -O2 -shared -fPIC -pthread "$ROOT/tests/tools/commit-fault.c" -o "$FAULT" || skip_all "no C compiler"
fi
! nm -D "$SVMFS" 2>/dev/null | grep -q '__[at]san_init' || skip_all "nothing can be loaded before a sanitizer"
RULE=$SCRATCH/rule
printf '#!/bin/sh\nLD_PRELOAD=%s COMMIT_FAULT=%s exec %s "$@"\n' "$FAULT" "$RULE" "$SVMFS" >"$SCRATCH/svmfs"
chmod +x "$SCRATCH/svmfs"
SVMFS=$SCRATCH/svmfs
two_datastores 320M "epoch = 500ms"
DISK=$MNT/disk SIZE=24 RANGE=8
HISTORY= ONLY=${1:-}

rule() { printf '%s\n' "$1" >"$RULE.new" && mv "$RULE.new" "$RULE"; }
acted() { [ "$(grep -cs "$1" "$RULE.log")" -ge "${2:-1}" ]; }
just_acted() { # between two attempts: what is on the disk is what the rule says
    [[ $1 != fail* ]] || wait_for 60 acted "$1" $(($(grep -c "$1" "$RULE.log") + 1))
}
passes() { rm -f "$RULE" "$RULE.hangs"; }
writes() { sed -n 's/^syscw: //p' "/proc/${LOADS[$1]}/io"; }
wrote_more_than() { [ "$(writes "$1")" -gt "$2" ]; }
kill_all() {
    local keeper worker
    keeper=$(keeper_pid "$MNT") worker=$(worker_pid "$MNT")
    kill -KILL "$keeper" "$worker"
    wait_for 20 gone "$worker" && umount -l "$MNT"
}
again() { start_mount "$CONFIG" "$MNT" || { failed "$1: the next mount: $(tail -3 "$SCRATCH/state/log")"; finish; }; }
# What the catalog's files say of the disk's move: 0, it goes on; 1, it is committed.
recorded() {
    rm -rf "$SCRATCH/copy" && mkdir "$SCRATCH/copy" && cp "$SCRATCH"/state/catalog.db "$SCRATCH"/state/catalog.db-wal "$SCRATCH/copy"
    python3 -c 'import sqlite3, sys; print(*[row[0] for row in sqlite3.connect(sys.argv[1]).execute("SELECT state FROM jobs")])' \
        "$SCRATCH/copy/catalog.db"
}

wanted() { [[ $1 == *$ONLY* ]]; }
faulty() { # faulty "name" "rule": the disk moves under load, and its commit meets the rule; then the guest goes on
    local name=$1 before
    HERE=$(xget "$DISK" datastore)
    [ "$HERE" = a ] && THERE=b || THERE=a
    rm -f "$RULE.log"
    start_load "$name" --keep ${HISTORY:+--load="$HISTORY"} --range=0:${RANGE}M --direct --writers=2 --readers=1 --largest=32K --think=2000 --flush=16 "$DISK"
    check "$name: the move starts" xset "$DISK" migrate "$THERE,rate=8M"
    check "$name: it copies" wait_for 60 state_is "$DISK" copying
    rule "$2"
    same "$name: and does not commit yet" copying "$(progress "$DISK" state)"
    check "$name: the commit meets the fault" wait_for 60 acted "$2"
    PARTIAL=$SCRATCH/$THERE/.svmfs/$(ls "$SCRATCH/$THERE/.svmfs" | grep '^partial-')
    before=$(writes "$name")
    check "$name: the guest goes on writing" wait_for 60 wrote_more_than "$name" $((before + 300))
    [[ $2 != fail* ]] || check "$name: it is committed again and again" wait_for 60 acted "$2" 3
    same "$name: the outcome is unknown" switching "$(progress "$DISK" state)"
    same "$name: the source is the truth" "$HERE" "$(xget "$DISK" datastore)"
}
load_ends() { end_load "$1" "$1: the guest saw nothing wrong" && HISTORY=$SCRATCH/$1.history; }
moved() { # moved "name": one whole disk is there, on the target
    check "$1: the move ends well" wait_progress "$DISK" "done" 90
    [ -z "${LOADS[$1]:-}" ] || [ "$HISTORY" = "$SCRATCH/$1.history" ] || load_ends "$1"
    same "$1: the disk is on $THERE" "$THERE" "$(xget "$DISK" datastore)"
    check "$1: its file is there" test -e "$SCRATCH/$THERE/disk"
    check "$1: and not on $HERE" test ! -e "$SCRATCH/$HERE/disk"
    same "$1: no partial stays" "" "$(leftovers "$SCRATCH/a" "$SCRATCH/b")"
    proven "$1" "$SCRATCH/$THERE/disk" "$1: the content"
    check "$1: what nobody wrote is the same" cmp -i $((RANGE << 20)) "$SCRATCH/model" "$SCRATCH/$THERE/disk"
}
both_legs() { # both_legs "name": the load has ended
    proven "$1" "$SCRATCH/$HERE/disk" "$1: the source holds all that was acknowledged"
    proven "$1" "$PARTIAL" "$1: and so does the target"
}
said() { sed "1,$1d" "$SCRATCH/state/log" | grep -o 'queued -> .*' | head -1; }
lines() { wc -l <"$SCRATCH/state/log"; }
way() { if [ "$1" = 1 ]; then echo "queued -> switching"; else echo "queued -> opening"; fi; }

dd if=/dev/urandom of="$DISK" bs=1M count=$SIZE status=none
cp "$DISK" "$SCRATCH/model"

# --- the fault passes ---

for what in "fail kept" "fail lost" "hang kept" "hang lost" "hang kept error" "hang lost error"; do
    name="passes, $what"
    wanted "$name" || continue
    faulty "$name" "$what"
    passes
    moved "$name"
done

# --- the worker is killed ---

for what in "fail kept" "fail lost" "hang kept" "hang lost"; do
    name="worker, $what"
    wanted "$name" || continue
    faulty "$name" "$what"
    from=$(lines)
    just_acted "$what"
    kill_worker "$MNT"
    passes
    moved "$name"
    case $what in
    "hang kept") same "$name: the record was found" "$(way 1)" "$(said "$from")" ;;
    *lost) same "$name: no record was found" "$(way 0)" "$(said "$from")" ;;
    esac
done

# --- everything is killed ---

for what in "fail kept" "fail lost" "hang kept" "hang lost"; do
    name="all, $what"
    wanted "$name" || continue
    faulty "$name" "$what"
    load_ends "$name"
    just_acted "$what"
    check "$name: everything is killed" kill_all
    both_legs "$name"
    found=$(recorded) from=$(lines)
    case $what in
    "hang kept") same "$name: the record is there" 1 "$found" ;;
    *lost) same "$name: the record is not there" 0 "$found" ;;
    esac
    passes
    if [ "$found" = 1 ]; then
        rule every
        ! start_mount "$CONFIG" "$MNT" 2>/dev/null && ok "$name: a record that cannot be made durable does not count" ||
            failed "$name: a record that cannot be made durable is taken for one"
        both_legs "$name"
        passes
    fi
    again "$name"
    moved "$name"
    same "$name: the record decides" "$(way "$found")" "$(said "$from")"
done

# --- the mount ends ---

name="umount"
if wanted "$name"; then
    faulty "$name" "fail kept"
    load_ends "$name"
    check "$name: while it fails" stop_mount "$MNT"
    both_legs "$name"
    passes
    again "$name"
    moved "$name"
fi
check "the mount ends cleanly" stop_mount "$MNT"
finish
