#!/bin/bash
# A job that goes on after a restart may have to wait for its turn; the disk is served meanwhile, and its copied regions are
# marked before they are written. When the journal fails or hangs then, the guest is not held until the turn comes.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 mkfs.xfs
scratch
JOURNAL_RULES=$SCRATCH/journal-rules
: >"$JOURNAL_RULES"
two_datastores 320M "epoch = 200ms" "target-timeout = 2s" "journal-faults = $JOURNAL_RULES" "jobs = 2"
A=$SCRATCH/a B=$SCRATCH/b FIRST=$MNT/first
rules() { printf '%s\n' "$@" >"$JOURNAL_RULES.new" && mv "$JOURNAL_RULES.new" "$JOURNAL_RULES"; }
again() { start_mount "$CONFIG" "$MNT" || { failed "$1: the next mount: $(tail -3 "$SCRATCH/state/log")"; finish; }; }
jobs_at_once() { sed -i "s/^jobs = .*/jobs = $1/" "$CONFIG"; }
copied_more_than() { [ "$(progress "$1" copied)" -gt "$2" ]; }
writes() { sed -n 's/^syscw: //p' "/proc/${LOADS[$1]}/io"; }
wrote_more_than() { [ "$(writes "$1")" -gt "$2" ]; }

waits() { # waits "sentence" "RULE" WHAT DISK: WHAT, the disk or a directory above it, waits for its turn
    local name=$1 rule=$2 what=$3 disk=$4 target=b begun
    [ "$(xget "$disk" datastore)" = a ] || target=a
    cp "$disk" "$SCRATCH/model"
    check "$name: a first move" xset "$FIRST" migrate "$target,rate=8M"
    check "$name: and a second" xset "$what" migrate "$target,rate=8M"
    check "$name: parts are copied" wait_for 60 copied_more_than "$FIRST" $((8 << 20))
    check "$name: of both" wait_for 60 copied_more_than "$disk" $((8 << 20))
    xset "$FIRST" rate 1M
    xset "$what" rate 1M
    check "$name: the first is paused, and stays the one that has its turn" xset "$FIRST" control pause
    sleep 1
    check "$name: umount" stop_mount "$MNT"
    jobs_at_once 1
    again "$name"
    rules "$rule"
    start_load "$name" --keep --range=0:4M --direct --writers=2 --readers=1 --largest=32K --think=2000 --flush=16 "$disk"
    begun=$(writes "$name")
    check "$name: what was copied is written" wait_for 60 wrote_more_than "$name" $((begun + 500))
    same "$name: and the job still waits" queued "$(progress "$what" state)"
    end_load "$name" "$name: the guest saw nothing wrong"
    matches "$name: the log says so" "without a journal" "$(cat "$SCRATCH/state/log")"
    rules
    xset "$FIRST" control resume
    xset "$FIRST" rate 0
    xset "$what" rate 0
    check "$name: the first move ends well" wait_progress "$FIRST" "done" 90
    check "$name: and the second" wait_progress "$what" "done" 90
    same "$name: the disk is on $target" "$target" "$(xget "$disk" datastore)"
    same "$name: no partial stays" "" "$(leftovers "$A" "$B")"
    proven "$name" "$disk" "$name: the content"
    check "$name: what nobody wrote is the same" cmp -i $((4 << 20)) "$SCRATCH/model" "$disk"
    check "$name: umount at the end" stop_mount "$MNT"
    jobs_at_once 2
    again "$name"
}

mkdir "$MNT/vm"
for file in "$FIRST" "$MNT/second" "$MNT/vm/disk"; do
    dd if=/dev/urandom of="$file" bs=1M count=24 status=none
done
waits "error" "write error EIO" "$MNT/second" "$MNT/second"
waits "hang" "sync hang" "$MNT/second" "$MNT/second"
waits "directory" "sync error EIO" "$MNT/vm" "$MNT/vm/disk"
check "the mount ends cleanly" stop_mount "$MNT"
finish
