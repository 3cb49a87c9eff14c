#!/bin/bash
# The failure table of docs/DESIGN.md, row by row, from every kind of datastore to every kind: local, NFS, a volume on iSCSI,
# a volume on a block device, each behind the datastore of faults. Under a load that must see nothing wrong.
# (What a server's death, a host's and a worker's do is outage.sh, crash-kinds.sh, and the power tests.)
#
# failures.sh [FROM TO]: this pair alone. One run takes a few pairs, others with another seed. Environment: PAIRS (default 4;
# 16 is all), SEED. With SVMFS_FIGURES=FILE the figures are appended there.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr
SEED=${SEED:-$RANDOM} PAIRS=${PAIRS:-4}
scratch
requires_space 500
MNT=$SCRATCH/mnt
four_kinds 96M
CONFIGURED=()
for kind in $KINDS; do
    for n in 1 2; do
        echo >"$SCRATCH/$kind$n.rules"
        CONFIGURED+=("$kind$n=fault:${URL[$kind$n]};faults = $SCRATCH/$kind$n.rules;timeout = 30s;quiet = 200ms")
    done
done
write_config "$SCRATCH/svmfs.conf" "${CONFIGURED[@]}" -- "default = local1" "state = $SCRATCH/state" "jobs = 4" "reactors = 2" \
    "target-timeout = 500ms"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount: $(tail -3 "$SCRATCH/state/log")"; finish; }
echo "seed $SEED"
DISK=$MNT/disk

rules() { # rules DATASTORE RULE…
    printf '%s\n' "${@:2}" >"$SCRATCH/$1.rules.new" && mv "$SCRATCH/$1.rules.new" "$SCRATCH/$1.rules"
}
ended() { state_is "$1" "done" failed cancelled; }
end_job() { # whatever it is doing
    rules "$FROM" "" && rules "$TO" ""
    wait_for 5 ended "$DISK" || xset "$DISK" control cancel 2>/dev/null
    wait_for 60 ended "$DISK"
    [ "$(xget "$DISK" datastore)" = "$FROM" ] || move "$DISK" "$FROM"
}
ROWS=0
row() { ROWS=$((ROWS + 1)) NAME="$FROM to $TO: $1"; }

target_fails() { # target_fails "sentence" RULE
    row "$1"
    rules "$TO" "$2"
    check "$NAME: the move starts" xset "$DISK" migrate "$TO" || return
    rules_wait ended || failed "$NAME: the job does not end: $(xget "$DISK" progress)"
    same "$NAME: the job" failed "$(progress "$DISK" state)"
    matches "$NAME: names leg and datastore" "target.*$TO" "$(xget "$DISK" error)"
    same "$NAME: the disk stays" "$FROM" "$(xget "$DISK" datastore)"
    end_job
}
rules_wait() { wait_for 60 "$1" "$DISK"; }

target_recovers() { # target_recovers "sentence" STATE RULE: the job comes to this state; without the rule it goes on
    row "$1"
    rules "$TO" "$3"
    check "$NAME: the move starts" xset "$DISK" migrate "$TO" || return
    [ -z "$2" ] || check "$NAME: it is $2" wait_for 60 state_is "$DISK" "$2"
    [ -z "$2" ] || rules "$TO" ""
    check "$NAME: the move is done" wait_progress "$DISK" "done" 90
    end_job
}

source_fails() {
    row "a source that cannot be read"
    rules "$FROM" "read fail errno=EIO offset=6300000"
    check "$NAME: the move starts" xset "$DISK" migrate "$TO" || return
    rules_wait ended || failed "$NAME: the job does not end: $(xget "$DISK" progress)"
    same "$NAME: the job" failed "$(progress "$DISK" state)"
    matches "$NAME: names leg, datastore, offset" "source.*$FROM.*offset [0-9]+|offset [0-9]+.*source.*$FROM" "$(xget "$DISK" error)"
    same "$NAME: the disk stays" "$FROM" "$(xget "$DISK" datastore)"
    end_job
    row "a source that cannot be read once"
    rules "$FROM" "read fail errno=EIO count=1 offset=6300000"
    check "$NAME: the move" move "$DISK" "$TO"
    end_job
}

# Of the guest's own reads and writes: the load keeps to the first 4 MiB, these are behind it.
source_fails_the_guest() {
    row "a read error of the source where it was copied"
    check "$NAME: a move that waits" xset "$DISK" migrate "$TO,switchover=manual"
    check "$NAME: it is mirrored" wait_progress "$DISK" mirrored 60
    rules "$FROM" "read fail errno=EIO offset=6300000"
    check "$NAME: the guest reads it from the target" cmp <(dd if="$DISK" bs=1M skip=6 count=1 iflag=direct status=none) "$SCRATCH/part"
    row "a write error of the source"
    rules "$FROM" "write fail errno=EIO offset=6300000"
    check "$NAME: the guest is told" bash -c '! dd if="$1" of="$2" bs=1M seek=6 count=1 oflag=direct conv=notrunc status=none 2>/dev/null' - "$SCRATCH/part" "$DISK"
    rules "$FROM" ""
    check "$NAME: it writes again" dd if="$SCRATCH/part" of="$DISK" bs=1M seek=6 count=1 oflag=direct conv=notrunc status=none
    check "$NAME: the job goes on to mirrored" wait_progress "$DISK" mirrored 60
    xset "$DISK" control switchover
    check "$NAME: and to done" wait_progress "$DISK" "done" 60
    check "$NAME: what was written is there" cmp <(dd if="$DISK" bs=1M skip=6 count=1 iflag=direct status=none) "$SCRATCH/part"
    end_job
}

one_pair() {
    FROM=$1 TO=$2
    rm -f "$DISK" && truncate -s 8M "$DISK" && move "$DISK" "$FROM" || { [ "$FROM" = local1 ] || failed "$FROM: the disk's way there"; }
    dd if=/dev/urandom of="$DISK" bs=1M count=8 conv=notrunc oflag=direct status=none
    dd if="$DISK" of="$SCRATCH/part" bs=1M skip=6 count=1 iflag=direct status=none
    dd if=/dev/zero of="$DISK" bs=1M count=4 conv=notrunc oflag=direct status=none
    start_load "$FROM-$TO" --keep --range=0:4M --direct --think=4000 --largest=32K --writers=1 --readers=1 "$DISK"
    target_fails "a target that cannot be written" "write fail errno=EIO path=partial"
    target_fails "a target without space" "write enospc path=partial"
    target_fails "a target that cannot be flushed" "flush fail errno=EIO path=partial"
    target_recovers "a target that fails once" "" "write fail errno=EIO count=1 after=2 path=partial"
    target_recovers "a target that hangs" paused "write hang after=2 path=partial"
    target_recovers "a target whose flush hangs" paused "flush hang path=partial"
    source_fails
    source_fails_the_guest
    end_load "$FROM-$TO" "$FROM to $TO: the guest saw nothing wrong"
    proven "$FROM-$TO" "$DISK" "$FROM to $TO: the content"
}

ALL=()
for from in $KINDS; do for to in $KINDS; do ALL+=("${from}1 ${to}2"); done; done
if [ $# = 2 ]; then
    one_pair "$1" "$2"
    DONE=1
else
    DONE=0
    for ((i = 0; i < PAIRS && i < 16; i++)); do # 5 is no divisor of 16: four in a row have each kind on each side
        # shellcheck disable=SC2086
        one_pair ${ALL[((SEED + i * 5) % 16)]}
        DONE=$((DONE + 1))
    done
fi
[ -z "${SVMFS_FIGURES:-}" ] || echo "failures seed=$SEED pairs=$DONE rows=$ROWS failed=$FAILED" >>"$SVMFS_FIGURES"
rm "$DISK"
check "the mount ends cleanly" stop_mount "$MNT"
for n in 1 2; do
    for kind in iscsi device; do check "$kind$n: the volume is in order" "$VOLUME_TOOL" check "local:${BACKING[$kind$n]}"; done
done
finish
