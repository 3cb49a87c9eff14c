#!/bin/bash
# The journal's disk fails, fills up, hangs; the journal is damaged, of a newer program, or gone; the state directory is lost: the
# guest sees nothing, the move ends well, and nothing is guessed.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 mkfs.xfs
scratch
JOURNAL_RULES=$SCRATCH/journal-rules
: >"$JOURNAL_RULES"
two_datastores 448M "epoch = 200ms" "target-timeout = 2s" "journal-faults = $JOURNAL_RULES"
A=$SCRATCH/a B=$SCRATCH/b DISK=$MNT/disk SIZE=48
HISTORY=
rules() { printf '%s\n' "$@" >"$JOURNAL_RULES.new" && mv "$JOURNAL_RULES.new" "$JOURNAL_RULES"; }
again() { start_mount "$CONFIG" "$MNT" || { failed "$1: the next mount: $(tail -3 "$SCRATCH/state/log")"; finish; }; }
elsewhere() { if [ "$(xget "$DISK" datastore)" = a ]; then echo b; else echo a; fi; }
copied_more_than() { [ "$(progress "$DISK" copied)" -gt "$1" ]; }
load_begin() { start_load "$1" --keep ${HISTORY:+--load="$HISTORY"} --range=0:8M --direct --writers=1 --readers=1 --largest=32K --think=2000 --flush=16 "$DISK"; }
load_end() { end_load "$1" "$1: the guest saw nothing wrong" && proven "$1" "$DISK" "$1: the content" && HISTORY=$SCRATCH/$1.history; }
part() { # part "sentence": a move that is half done, with a journal
    TARGET=$(elsewhere)
    check "$1: the move starts" xset "$DISK" migrate "$TARGET,rate=12M"
    check "$1: a part is copied" wait_for 60 copied_more_than $((16 << 20))
    check "$1: it goes on slowly" xset "$DISK" rate 1M
    sleep 1
}
ends() {
    xset "$DISK" rate 0
    check "$1: the move ends well" wait_progress "$DISK" "done" 90
    same "$1: the disk is on $TARGET" "$TARGET" "$(xget "$DISK" datastore)"
    same "$1: no partial stays" "" "$(leftovers "$A" "$B")"
}

dd if=/dev/urandom of="$DISK" bs=1M count=$SIZE status=none
cp "$DISK" "$SCRATCH/model"

# --- while it moves ---

for rule in "write error EIO" "write error ENOSPC" "sync error EIO" "sync hang" "write hang"; do
    load_begin "$rule"
    part "$rule"
    rules "$rule"
    ends "$rule"
    load_end "$rule"
    rules
    matches "$rule: the log says so" "journal" "$(grep -i "without a journal" "$SCRATCH/state/log" | tail -1)"
done

# --- between two mounts ---

journal() { ls "$SCRATCH"/state/jobs/*.journal; }
not_readable() { ! dd if="$1" of=/dev/null bs=4k count=1 2>/dev/null; }
between() { # between NAME COMMAND…: what becomes of the journal between two mounts
    local name=$1
    shift
    part "$name"
    check "$name: umount" stop_mount "$MNT"
    "$@"
    again "$name"
    ends "$name"
}
flip_bytes() { printf '\125\252\125' | dd of="$(journal)" bs=1 seek="$1" conv=notrunc status=none; }
remove_journal() { rm "$(journal)"; }
between "damaged head" flip_bytes 40
between "damaged version" flip_bytes 24
between "removed" remove_journal
check "what nobody wrote is the same" cmp -i $((8 << 20)) "$SCRATCH/model" "$DISK"

# --- the state directory is lost, and both copies are there ---

check "lost: umount" stop_mount "$MNT"
HERE=$([ -e "$A/disk" ] && echo "$A" || echo "$B") THERE=$([ -e "$A/disk" ] && echo "$B" || echo "$A")
cp "$HERE/disk" "$THERE/disk"
mv "$SCRATCH/state" "$SCRATCH/state.lost"
start_mount "$CONFIG" "$MNT" || { failed "lost: the mount"; finish; }
check "lost: the disk is refused" not_readable "$DISK"
matches "lost: and both are named, with the command" "datastore a and on datastore b.*mv '$A/disk'.*mv '$B/disk'" \
    "$(grep "stands on datastore" "$SCRATCH/state/log" | tail -1)"
check "lost: both copies are as they were" cmp "$HERE/disk" "$THERE/disk"
check "the mount ends cleanly" stop_mount "$MNT"
finish
