#!/bin/bash
# A job goes on from what it had copied: after a kill -9 of the worker, an unmount, the death of everything, and when its
# target was away; only a part is copied again, and nothing is wrong.
. "$(dirname "$0")/../lib/functions.sh"
two_datastores 640M "epoch = 500ms"
A=$SCRATCH/a B=$SCRATCH/b DISK=$MNT/disk
MIB=$((1 << 20)) SIZE=96
again() { start_mount "$CONFIG" "$MNT" || { failed "$1: the next mount: $(tail -3 "$SCRATCH/state/log")"; finish; }; }
elsewhere() { if [ "$(xget "$DISK" datastore)" = a ]; then echo b; else echo a; fi; }
copied_more_than() { [ "$(progress "$DISK" copied)" -gt "$1" ]; }

# An epoch makes durable what was copied: one is due every half second.
half_way() { # half_way "sentence": a move of which a half is copied, and known to be
    TARGET=$(elsewhere)
    check "$1: the move starts" xset "$DISK" migrate "$TARGET,rate=16M"
    check "$1: a part is copied" wait_for 60 copied_more_than $((32 * MIB))
    check "$1: and the rest not yet" xset "$DISK" rate 2M
    sleep 2
    BEFORE=$(progress "$DISK" copied)
}
resumed() { # resumed "sentence": it goes on, keeps most, and ends well
    local kept copied
    check "$1: the job goes on" wait_for 30 state_is "$DISK" copying mirrored switching "done"
    xset "$DISK" rate 0
    check "$1: and is done" wait_progress "$DISK" "done" 90
    kept=$(progress "$DISK" kept) copied=$(progress "$DISK" copied)
    echo "        $1: $((BEFORE / MIB)) MiB were copied before, $((${kept:-0} / MIB)) kept, $((copied / MIB)) copied"
    check "$1: it kept what it had" test "${kept:-0}" -ge $((16 * MIB))
    check "$1: and copied the rest alone" test $((${kept:-0} + copied)) -le $(((SIZE + 48) * MIB))
    same "$1: the disk is on $TARGET" "$TARGET" "$(xget "$DISK" datastore)"
    same "$1: no partial stays" "" "$(leftovers "$A" "$B")"
}
load_begin() { start_load "$1" --keep ${HISTORY:+--load="$HISTORY"} --range=0:8M --direct --writers=1 --readers=1 --largest=32K --think=4000 --flush=16 "${@:2}" "$DISK"; }
load_end() { end_load "$1" "$1: the guest saw nothing wrong" && proven "$1" "$DISK" "$1: the content" && HISTORY=$SCRATCH/$1.history; }
rest_as_it_was() { check "$1: what nobody wrote is the same" cmp -i $((8 * MIB)) "$SCRATCH/model" "$DISK"; }

dd if=/dev/urandom of="$DISK" bs=1M count=$SIZE status=none
cp "$DISK" "$SCRATCH/model"
HISTORY=

# --- the worker is killed ---

load_begin killed
half_way killed
check "killed: the worker" kill_worker "$MNT"
resumed killed
load_end killed
rest_as_it_was killed

load_begin often
half_way often
for _ in 1 2 3; do
    check "often: the worker is killed" kill_worker "$MNT"
    sleep 0.7
done
resumed often
load_end often
rest_as_it_was often

# --- an unmount ---

load_begin unmounted
half_way unmounted
load_end unmounted
check "unmounted: umount" stop_mount "$MNT"
again unmounted
resumed unmounted
proven unmounted "$DISK" "unmounted: the content after it"
rest_as_it_was unmounted

# --- everything dies ---

load_begin everything
half_way everything
load_end everything
keeper=$(keeper_pid "$MNT") worker=$(worker_pid "$MNT")
kill -KILL "$keeper" "$worker"
wait_for 10 gone "$worker"
umount -l "$MNT"
again everything
resumed everything
proven everything "$DISK" "everything: the content after it"
rest_as_it_was everything

# --- the target is away at the next mount: the job waits, the disk is served ---

cp "$DISK" "$SCRATCH/model.now"
half_way away
check "away: umount" stop_mount "$MNT"
loop=$(findmnt -no SOURCE "$SCRATCH/$TARGET")
check "away: the target's filesystem is unmounted" umount "$SCRATCH/$TARGET"
mv "$SCRATCH/$TARGET" "$SCRATCH/gone"
again away
check "away: the job waits" wait_for 30 state_is "$DISK" paused opening queued
check "away: the disk is served" cmp "$SCRATCH/model.now" <(dd if="$DISK" bs=1M iflag=direct status=none)
mv "$SCRATCH/gone" "$SCRATCH/$TARGET" && mount "$loop" "$SCRATCH/$TARGET"
resumed away
check "away: the content" cmp "$SCRATCH/model.now" "$DISK"
check "the mount ends cleanly" stop_mount "$MNT"
finish
