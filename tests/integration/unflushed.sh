#!/bin/bash
# What was written to a volume and not flushed is there after the mount's end, however that comes: beside a datastore that
# hangs, and with a worker that dies in it.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse svmfs
scratch
CONFIG=$SCRATCH/svmfs.conf MNT=$SCRATCH/mnt RULES=$SCRATCH/rules DISK=$MNT/disk MODEL=$SCRATCH/model
truncate -s 128M "$SCRATCH/volume"
format_volume "$SCRATCH/volume"
mkdir "$SCRATCH/slow"
truncate -s 1M "$SCRATCH/slow/hangs"
: >"$RULES"
write_config "$CONFIG" "slow=fault:local:$SCRATCH/slow;faults = $RULES;timeout = 1s" "v=volume:local:$SCRATCH/volume;timeout = 1s" \
    -- "default = v" "state = $SCRATCH/state"
again() {
    start_mount "$CONFIG" "$MNT" || { failed "$1: the mount: $(tail -3 "$SCRATCH/state/log")"; finish; }
    check "$1: what was written is there" cmp "$MODEL" "$DISK"
}
# Into blocks that were never written; no flush.
PLACE=0
writes() {
    check "$1: a write" dd if=/dev/urandom of="$DISK" bs=4K seek=$PLACE count=3 conv=notrunc oflag=direct status=none
    dd if="$DISK" of="$MODEL" bs=4K skip=$PLACE seek=$PLACE count=3 conv=notrunc iflag=direct status=none
    PLACE=$((PLACE + 5))
}
not_mounted() { ! mountpoint -q "$MNT"; }
ended() { # ended KEEPER
    check "$2: the keeper ends" wait_for 60 gone "$1"
    check "$2: nothing is mounted" not_mounted
}

start_mount "$CONFIG" "$MNT" || { failed "the mount"; finish; }
truncate -s 1M "$MODEL"
truncate -s 1M "$DISK"
sync -f "$DISK"

keeper=$(keeper_pid "$MNT")
printf 'write hang path=hangs\n' >"$RULES"
dd if=/dev/zero of="$MNT/hangs" bs=4K count=1 conv=notrunc oflag=direct status=none 2>/dev/null &
writer=$!
writes "beside a hang"
umount -l "$MNT"
wait $writer
check "beside a hang: the other write fails" test $? != 0
ended "$keeper" "beside a hang"
: >"$RULES"
again "beside a hang"

# It is stopped, so that it cannot have ended before.
how="it dies at its end"
keeper=$(keeper_pid "$MNT") worker=$(worker_pid "$MNT")
writes "$how"
kill -STOP "$worker"
umount -l "$MNT"
check "$how: the worker is killed" kill -KILL "$worker"
ended "$keeper" "$how"
again "$how"
check "the mount ends cleanly" stop_mount "$MNT"
finish
