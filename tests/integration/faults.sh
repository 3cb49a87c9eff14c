#!/bin/bash
# Targets that fail, fill up, hang or forget, and sources that cannot be read, in the middle of a move: the guest sees
# nothing, the disk stays, no partial stays, and the sentence names disk, datastore, leg and offset.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 cmp
scratch
make_fs ext4 512M a && make_fs ext4 512M b && make_fs ext4 64M small || skip_all "cannot make filesystems on loop devices"
A=$SCRATCH/a B=$SCRATCH/b SMALL=$SCRATCH/small RULES=$SCRATCH/rules MNT=$SCRATCH/mnt
: >"$RULES"
write_config "$SCRATCH/svmfs.conf" "a=local:$A" "bad=fault:local:$B;faults = $RULES" "small=local:$SMALL" -- \
    "default = a" "state = $SCRATCH/state" "target-timeout = 2s"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount"; finish; }
SIZE=$((24 << 20))
DISK=$MNT/disk

rules() { printf '%s\n' "$@" >"$RULES.new" && mv "$RULES.new" "$RULES" && sleep 0.2; }
no_rules() { rules ""; }
ended() { state_is "$1" "done" failed cancelled; }

# near OFFSET TEXT: the sentence names an offset whose request can have touched the byte.
near() {
    local named
    named=$(grep -Eo 'offset [0-9]+' <<<"$2" | tail -1 | tr -dc 0-9)
    [ -n "$named" ] && [ "$named" -le "$1" ] && [ "$1" -lt $((named + (2 << 20))) ]
}

# attempt "sentence" LEG OFFSET RULE: a move that must fail by this rule, under a load.
attempt() {
    local what=$1 leg=$2 offset=$3 rule=$4 from to why
    if [ "$leg" = target ]; then from=a to=bad; else from=bad to=a; fi
    rules "$rule"
    check "$what: the move starts" xset "$DISK" migrate "$to" || return
    wait_for 180 ended "$DISK"
    same "$what: it fails" failed "$(progress "$DISK" state)"
    why=$(xget "$DISK" error)
    no_rules
    matches "$what: the sentence names the disk" '(^|[^a-z])disk([^a-z]|$)' "$why"
    matches "$what: and the datastore" '(^|[^a-z])bad([^a-z]|$)' "$why"
    matches "$what: and the leg" "$leg" "$why"
    [ "$offset" = - ] || check "$what: and the offset ($offset)" near "$offset" "$why" || echo "        it says: $why"
    same "$what: the disk stays" "$from" "$(xget "$DISK" datastore)"
    same "$what: no partial stays" "" "$(leftovers "$A" "$B" "$SMALL")"
}

# outage "sentence" RULE: a target that does not answer: the move waits for it, and goes on when it does.
outage() {
    local what=$1 why
    rules "$2"
    check "$what: the move starts" xset "$DISK" migrate bad || return
    check "$what: it is paused" wait_for 60 state_is "$DISK" paused
    why=$(xget "$DISK" error)
    matches "$what: the sentence names the disk, the leg and the datastore" 'disk .*target.* bad' "$why"
    same "$what: the disk stays" a "$(xget "$DISK" datastore)"
    no_rules
    check "$what: it goes on when the target answers" wait_progress "$DISK" "done"
    check "$what: and back" move "$DISK" a
    same "$what: no partial stays" "" "$(leftovers "$A" "$B" "$SMALL")"
}

# --- the target ---

start_load target --size=$SIZE --fill --direct --think=1000 "$DISK"
for offset in 0 $((1048576 - 512)) $((5 * 1048576 + 4096)) $((SIZE - 1)); do
    attempt "a target that cannot be written at $offset" target $offset "write fail errno=EIO offset=$offset"
    attempt "a target that is full at $offset" target $offset "write enospc offset=$offset"
done
attempt "a target that cannot be flushed" target - "flush fail errno=EIO"
outage "a target that hangs" "write hang after=5"
outage "a target whose flush hangs" "flush hang"
end_load target "the guest saw nothing of all that"
proven target "$DISK" "its content"
proven target "$A/disk" "and on the source"

start_load brief --keep --load="$SCRATCH/target.history" --direct --think=1000 "$DISK"
rules "write fail errno=EIO after=3 count=2"
check "a target that fails twice and then works: the move starts" xset "$DISK" migrate bad
check "and is done" wait_progress "$DISK" "done" 120
no_rules
rules "read delay ms=5" "write delay ms=5"
check "from a slow source" xset "$DISK" migrate a
check "it moves too" wait_progress "$DISK" "done" 120
no_rules
end_load brief "the guest saw nothing of that either"
proven brief "$A/disk" "its content"

# --- a target that becomes full by others ---

start_load filling --size=40M --fill --direct --think=1000 "$MNT/filling"
check "a target with room: the move starts" xset "$MNT/filling" migrate "small,rate=8M,format=thin"
check "it copies" wait_progress "$MNT/filling" copying 20
fill_small() { dd if=/dev/zero of="$SMALL/ballast" bs=1M status=none 2>/dev/null; true; }
fill_small
xset "$MNT/filling" rate 0
wait_for 180 ended "$MNT/filling"
same "somebody fills it: the move fails" failed "$(progress "$MNT/filling" state)"
matches "with a sentence" 'small.*|space' "$(xget "$MNT/filling" error)"
same "no partial stays" "" "$(leftovers "$A" "$B" "$SMALL")"
rm -f "$SMALL/ballast"
check "room again: it moves" move "$MNT/filling" small
end_load filling "the guest saw nothing"
proven filling "$SMALL/filling" "its content"
rm "$MNT/filling"

# --- the source ---

check "to the datastore that will fail" move "$DISK" bad
dd if=/dev/urandom of="$DISK" bs=1M count=$((SIZE >> 20)) conv=notrunc,fsync status=none
head -c $((12 << 20)) "$DISK" >"$SCRATCH/first-half"
start_load source --keep --range=12M:12M --direct --think=1000 "$DISK"
for offset in 0 $((1048576 - 512)) $((5 * 1048576 + 4096)) $((11 << 20)); do
    attempt "a source that cannot be read at $offset" source $offset "read fail errno=EIO offset=$offset"
done
rules "read fail errno=EIO count=1 offset=4096"
check "a source that fails once: the move starts" xset "$DISK" migrate a
check "and is done" wait_progress "$DISK" "done" 120
no_rules
end_load source "the guest saw nothing"
proven source "$A/disk" "what it wrote"
check "what it did not write" cmp -n $((12 << 20)) "$A/disk" "$SCRATCH/first-half"

# --- a source that refuses the guest's writes: the error, as without a job, and never two answers ---

check "back to the datastore that will fail" move "$DISK" bad
start_load refused --keep --direct --think=500 --tolerate-errors "$DISK"
xset "$DISK" migrate "a,rate=8M"
wait_progress "$DISK" copying 20
rules "write fail errno=EIO after=10 count=20"
sleep 1
no_rules
xset "$DISK" rate 0
wait_for 120 ended "$DISK"
echo "        $(grep -c 'ERROR write' "$SCRATCH/refused.load") writes were refused; the job: $(xget "$DISK" progress)"
end_load refused "a write that failed is there or not there, and stays so"
check "at least one write was refused" grep -q 'ERROR write' "$SCRATCH/refused.load"
proven refused "$DISK" "the content after it"
same "no partial stays" "" "$(leftovers "$A" "$B" "$SMALL")"
check "the mount ends cleanly" stop_mount "$MNT"
# --- law 13: a target-timeout longer than the datastore's own timeout ---

SHORT=$SCRATCH/short
mkdir -p "$SHORT/a" "$SHORT/b"
: >"$SHORT/rules"
write_config "$SHORT/svmfs.conf" "a=local:$SHORT/a;timeout = 2s" "b=fault:local:$SHORT/b;faults = $SHORT/rules;timeout = 2s" \
    -- "state = $SHORT/state" "target-timeout = 30s"
if check "a mount with short timeouts" start_mount "$SHORT/svmfs.conf" "$SHORT/mnt"; then
    dd if=/dev/urandom of="$SHORT/mnt/disk" bs=1M count=4 oflag=direct status=none
    xset "$SHORT/mnt/disk" migrate "b,switchover=manual"
    check "it is mirrored" wait_progress "$SHORT/mnt/disk" mirrored 20
    echo "write hang" >"$SHORT/next" && mv "$SHORT/next" "$SHORT/rules"
    sleep 0.2
    check "a write beside a hung target is no error" \
        dd if=/dev/zero of="$SHORT/mnt/disk" bs=4k count=1 oflag=direct conv=notrunc status=none
    : >"$SHORT/next" && mv "$SHORT/next" "$SHORT/rules"
    wait_for 30 state_is "$SHORT/mnt/disk" mirrored "done"
    xset "$SHORT/mnt/disk" control cancel
    wait_for 30 ended "$SHORT/mnt/disk"
    echo "write hang" >"$SHORT/next" && mv "$SHORT/next" "$SHORT/rules"
    sleep 0.2
    xset "$SHORT/mnt/disk" migrate b
    wait_progress "$SHORT/mnt/disk" copying 20
    xset "$SHORT/mnt/disk" control pause
    check "nor one where a copy hangs in it that was paused" \
        dd if=/dev/zero of="$SHORT/mnt/disk" bs=4k count=1 oflag=direct conv=notrunc status=none
    : >"$SHORT/next" && mv "$SHORT/next" "$SHORT/rules"
    check "the mount ends cleanly" stop_mount "$SHORT/mnt"
fi
finish
