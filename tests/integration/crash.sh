#!/bin/bash
# Death at each named event of the program. Once only the worker dies: whoever uses the mount must not notice. Once all of
# svmfs dies there: the next mount finds every disk whole, in one place, with nothing left over.
# The events are taken from the source: a new one is tested without being listed here.
#
# All of them take minutes, so one run takes half of them, others with another seed.
# Environment: ROUNDS (quarters, default 2, 4 is all), SEED, ONLY (all events with this in their names).
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse svmfs getfattr setfattr python3 cmp
scratch
EVENTS=$(grep -rhoE 'event\("[a-z-]+"' "$ROOT/src" "$ROOT/fs" "$ROOT/backends" --include=*.c | cut -d'"' -f2 | sort -u)
[ -n "$EVENTS" ] || skip_all "the source names no events"
SEED=${SEED:-$RANDOM} ROUNDS=${ROUNDS:-2} QUARTERS=4
echo "seed $SEED"
MNT=$SCRATCH/mnt A=$SCRATCH/a B=$SCRATCH/b CONFIG=$SCRATCH/svmfs.conf
write_config "$CONFIG" "a=local:$A" "b=local:$B" -- "default = a" "reactors = 2" "state = $SCRATCH/state"
dd if=/dev/urandom of="$SCRATCH/model" bs=1M count=6 status=none

# What passes every event: names on one and on both datastores, attributes, a move, a directory's move.
cat >"$SCRATCH/story.sh" <<'STORY'
set -e
cd "$1"
arrive() { # arrive FILE: until its move is done
    for i in $(seq 400); do
        case $(getfattr -n user.svmfs.progress --only-values "$1" 2>&1) in
        *state=done*) return 0 ;;
        *state=failed* | *state=cancelled*) break ;;
        *"not connected"*) exit 6 ;;
        esac
        sleep 0.05
    done
    echo "$1 does not arrive: $(getfattr -n user.svmfs.progress --only-values "$1" 2>&1)"
    exit 5
}
mkdir dir && printf old >dir/one && setfattr -n user.note -v kept dir/one && printf new >dir/two
ln -s one dir/link && mv dir/link dir/other-link && truncate -s 5000 dir/three && rm dir/three
setfattr -n user.svmfs.migrate -v b dir/one
arrive dir/one
mv dir/two dir/one # over a file of another datastore
mkdir -p dir/deep/er && printf x >dir/deep/er/x && rm dir/deep/er/x && rmdir dir/deep/er && rmdir dir/deep
setfattr -n user.svmfs.migrate -v b disk
arrive disk
mkdir -p vm/in && printf a >vm/a && printf b >vm/in/b && mkfifo vm/pipe
setfattr -n user.svmfs.migrate -v b vm
arrive vm
rm dir/one dir/other-link
rmdir dir
rm -r vm
touch finished
STORY

fresh() { # fresh EVENT[:how]: an empty pair of datastores with one disk, mounted
    rm -rf "$A" "$B" "$SCRATCH/state"
    mkdir "$A" "$B"
    chmod 755 "$A" "$B"
    cp "$SCRATCH/model" "$A/disk"
    SVMFS_DIE_AT=$1 start_mount "$CONFIG" "$MNT" || { failed "$1: the mount"; finish; }
}

# Every file of the mount is on one datastore under its own name, and nothing else is on any.
consistent() {
    local shown there
    shown=$(cd "$MNT" && find . -type f | sort)
    there=$(for store in "$A" "$B"; do (cd "$store" && find . -name .svmfs -prune -o -type f -print); done | sort)
    [ "$shown" = "$there" ] && [ -z "$(find "$A/.svmfs" "$B/.svmfs" -type f ! -name owner 2>/dev/null)" ] && (cd "$MNT" && find . -type f -exec cat {} + >/dev/null)
}
differences() {
    (cd "$MNT" && find . -type f | sed 's/^/mount /')
    find "$A" "$B" -type f -printf '%P on %H\n' | sed "s|$SCRATCH/||"
    tail -4 "$SCRATCH/state/log" 2>/dev/null
}

worker_dies() {
    local event=$1 first status
    fresh "$event"
    first=$(worker_pid "$MNT")
    start_load "load" --size=8M --direct --think=500 --writers=2 --readers=1 "$MNT/load"
    timeout 90 bash "$SCRATCH/story.sh" "$MNT" >"$SCRATCH/story.out" 2>&1
    status=$?
    if [ "$first" = "$(worker_pid "$MNT")" ]; then
        end_load "load" "$event: the load (the event was not passed)"
        skip "$event: never passed"
        stop_mount "$MNT"
        return 1
    fi
    same "$event: the worker dies, every call succeeds" 0 $status || tail -3 "$SCRATCH/story.out"
    end_load "load" "$event: the load"
    check "$event: the disk moved" cmp "$B/disk" "$SCRATCH/model"
    wait_for 20 consistent && ok "$event: mount and datastores agree" || failed "$event: $(differences)"
    stop_mount "$MNT" && start_mount "$CONFIG" "$MNT"
    consistent && ok "$event: as does the next one" || failed "$event: the next mount: $(differences)"
    stop_mount "$MNT"
}

is_stopped() { [ "$(ps -o stat= -p "$1" | cut -c1)" = T ]; }

everything_dies() {
    local event=$1 keeper worker story
    fresh "$event:1:stop"
    keeper=$(keeper_pid "$MNT")
    bash "$SCRATCH/story.sh" "$MNT" >"$SCRATCH/story.out" 2>&1 &
    story=$!
    worker=$(pgrep -P "$keeper")
    ended_or_stopped() { is_stopped "$worker" || gone "$story"; }
    wait_for 60 ended_or_stopped
    kill -KILL "$keeper" "$worker"
    umount -l "$MNT" 2>/dev/null
    wait_for 20 gone "$story" || { kill -KILL "$story"; wait "$story"; } 2>/dev/null
    start_mount "$CONFIG" "$MNT" || { failed "$event: the mount after everything died"; return; }
    settled() { [[ " $(progress "$MNT/disk" state) " =~ ^\ (done)?\ $ ]] && consistent; }
    wait_for 60 settled && ok "$event: everything dies, the next mount is whole" || failed "$event, everything dies: $(differences)"
    check "$event: the disk's content" cmp "$MNT/disk" "$SCRATCH/model"
    if [ -e "$MNT/dir/one" ]; then
        matches "$event: a file is the old or the new one" '^(old|new|)$' "$(cat "$MNT/dir/one")"
    fi
    stop_mount "$MNT"
}

number=$SEED
for event in $EVENTS; do
    number=$((number + 1))
    if [ -n "${ONLY:-}" ]; then
        [[ $event == *$ONLY* ]] || continue
    else
        [ $((number % QUARTERS)) -lt "$ROUNDS" ] || continue
    fi
    case $event in slot-*) counts="7 30 61" ;; *) counts=1 ;; esac
    for count in $counts; do worker_dies "$event:$count" && passed=yes || passed=no; done
    [ $passed = no ] || [[ $event == slot-* ]] || everything_dies "$event"
done

# --- law 9: a request that was answered is never executed again, not even over a newer one ---

# It keeps the file open: to a closed one an old write could not come back.
cat >"$SCRATCH/overwrite.py" <<'PYTHON'
import mmap, os, sys
page = mmap.mmap(-1, 4096)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
for number in range(1, 401):
    page[:] = number.to_bytes(8, "little") * 512
    assert os.pwritev(fd, [page], 0) == 4096
print("written", flush=True)
sys.stdin.readline()
PYTHON
mkfifo "$SCRATCH/go"
exec 8<>"$SCRATCH/go"
written() { grep -q written "$SCRATCH/story.out"; }
newest() { od -An -tu8 -N8 "$A/disk" | tr -d ' '; }
for count in 40 41 90; do
    fresh "slot-answered:$count:hold"
    python3 "$SCRATCH/overwrite.py" "$MNT/disk" <"$SCRATCH/go" >"$SCRATCH/story.out" 2>&1 &
    writer=$!
    at_end end_process $writer
    check "400 writes to one place, number $count of the answered held before its slot is free: they go on" wait_for 30 written
    kill_worker "$MNT"
    check "the next worker serves" stat "$MNT/disk"
    sleep 0.5
    same "after the worker's death the newest is there" 400 "$(newest)"
    echo >&8
    wait $writer
    stop_mount "$MNT"
done
finish
