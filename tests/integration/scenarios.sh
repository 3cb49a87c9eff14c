#!/bin/bash
# What users of QEMU's mirror job test, as far as no other test does (tests/lib/scenarios.md says which test covers which):
# several disks at once, a disk that is closed in the middle, one that is only read, a rate that holds, a source without
# space, a ready and a failing job that are cancelled, completing by hand before it is ready, what is forbidden; and a guest
# that stops, goes on, is reset and powered down in the middle of moves.
. "$(dirname "$0")/../lib/functions.sh"
two_datastores 512M "jobs = 8"
requires cmp
A=$SCRATCH/a B=$SCRATCH/b
nothing_left() { same "$1: no partial stays" "" "$(leftovers "$A" "$B")"; }

# --- several disks at once ---

DISKS="d1 d2 d3 d4 d5 d6"
for disk in $DISKS; do start_load $disk --size=16M --fill --direct --think=3000 --writers=1 --readers=1 "$MNT/$disk"; done
for target in b a; do
    for disk in $DISKS; do check "several at once: $disk starts to $target" xset "$MNT/$disk" migrate $target; done
    for disk in $DISKS; do check "several at once: $disk is on $target" wait_progress "$MNT/$disk" "done" 120; done
done
for disk in $DISKS; do end_load $disk "several at once: $disk" && proven $disk "$A/$disk" "several at once: the content of $disk"; done
nothing_left "several at once"
for disk in $DISKS; do rm "$MNT/$disk"; done

# --- closed by its guest in the middle ---

start_load closed --size=32M --fill --direct --think=1000 "$MNT/closed"
check "closed: the move starts" xset "$MNT/closed" migrate "b,rate=16M"
check "closed: it copies" wait_progress "$MNT/closed" copying 20
end_load closed "closed: the guest ends"
state_is "$MNT/closed" copying queued opening || echo "        (the move had ended before)"
xset "$MNT/closed" rate 0
check "closed: the move is done all the same" wait_progress "$MNT/closed" "done" 60
proven closed "$B/closed" "closed: the content"
nothing_left "closed"

# --- a disk that is only read ---

chmod 444 "$MNT/closed"
exec 5<"$MNT/closed"
before=$(sha256sum <"$MNT/closed")
check "read-only: it moves" move "$MNT/closed" a
same "read-only: its mode is the same" 444 "$(stat -c %a "$A/closed")"
same "read-only: what holds it open reads the same" "$before" "$(sha256sum <&5)"
exec 5<&-
nothing_left "read-only"
chmod 644 "$MNT/closed"

# --- a rate holds, and is changed ---

begun=$(date +%s%N)
check "rate: a move at 8 MiB a second" move "$MNT/closed" "b,rate=8M"
took=$((($(date +%s%N) - begun) / 1000000))
check "rate: 32 MiB take 2 s at least ($took ms)" test "$took" -ge 2000
check "rate: a move at 1 MiB a second" xset "$MNT/closed" migrate "a,rate=1M"
check "rate: it copies" wait_progress "$MNT/closed" copying 20
one=$(progress "$MNT/closed" copied)
sleep 2
two=$(progress "$MNT/closed" copied)
check "rate: 2 s bring 8 MiB at most ($((two - one)))" test $((two - one)) -le $((8 << 20))
same "rate: another one is taken" 2097152 "$(xset "$MNT/closed" rate 2M && xget "$MNT/closed" rate)"
xset "$MNT/closed" rate 0
check "rate: without one it ends" wait_progress "$MNT/closed" "done" 60
proven closed "$A/closed" "rate: the content"

# --- a ready job is cancelled; completing by hand before it is ready ---

check "ready: a move that waits" xset "$MNT/closed" migrate "b,switchover=manual,rate=16M"
check "ready: it copies" wait_progress "$MNT/closed" copying 20
out=$(xset_error "$MNT/closed" control switchover)
echo "        completing a job that is not ready: ${out:-it switches over when it is}"
xset "$MNT/closed" rate 0
if [ -n "$out" ]; then
    check "ready: it is mirrored" wait_progress "$MNT/closed" mirrored 60
    check "ready: cancel" xset "$MNT/closed" control cancel
    check "ready: it is cancelled" wait_progress "$MNT/closed" cancelled 20
    same "ready: the disk stays" a "$(xget "$MNT/closed" datastore)"
else
    check "ready: it is done" wait_progress "$MNT/closed" "done" 60
    check "ready: and back, to wait" xset "$MNT/closed" migrate "a,switchover=manual"
    check "ready: it is mirrored" wait_progress "$MNT/closed" mirrored 60
    check "ready: cancel" xset "$MNT/closed" control cancel
    check "ready: it is cancelled" wait_progress "$MNT/closed" cancelled 20
    same "ready: the disk stays" b "$(xget "$MNT/closed" datastore)"
    check "ready: back for good" move "$MNT/closed" a
fi
proven closed "$A/closed" "ready: the content"
nothing_left "ready"

# --- forbidden ---

for verb in cancel pause resume switchover undo release; do
    check "forbidden: $verb of a job that has ended" test -n "$(xset_error "$MNT/closed" control $verb)"
done
check "forbidden: a move to where it is" test -n "$(xset_error "$MNT/closed" migrate a)"
check "forbidden: pause" xset "$MNT/closed" migrate "b,rate=4M"
check "forbidden: it copies" wait_progress "$MNT/closed" copying 20
check "forbidden: resume of what is not paused is an error or nothing" state_is "$MNT/closed" copying
xset_error "$MNT/closed" control resume >/dev/null
check "forbidden: it copies still" state_is "$MNT/closed" copying
check "forbidden: undo of what has not switched" test -n "$(xset_error "$MNT/closed" control undo)"
check "forbidden: another move" test -n "$(xset_error "$MNT/closed" migrate b)"
check "forbidden: cancel" xset "$MNT/closed" control cancel
check "forbidden: it is cancelled" wait_progress "$MNT/closed" cancelled 20
check "forbidden: cancel twice" test -n "$(xset_error "$MNT/closed" control cancel)"
proven closed "$A/closed" "forbidden: the content"
rm "$MNT/closed"

# --- a source without space: the guest's error, as without a job; the job goes on ---

truncate -s 64M "$MNT/thin" && dd if=/dev/urandom of="$MNT/thin" bs=1M count=16 conv=notrunc status=none
check "no space on the source: the move starts" xset "$MNT/thin" migrate "b,rate=4M"
check "no space on the source: it copies" wait_progress "$MNT/thin" copying 20
check "no space on the source: it pauses" xset "$MNT/thin" control pause
check "no space on the source: it is paused" wait_progress "$MNT/thin" paused 20
dd if=/dev/zero of="$A/ballast" bs=1M status=none 2>/dev/null
dd if=/dev/zero of="$A/ballast2" bs=4K status=none 2>/dev/null
sync -f "$A/ballast"
out=$(dd if=/dev/urandom of="$MNT/thin" bs=1M count=16 seek=32 oflag=direct conv=notrunc 2>&1)
matches "no space on the source: the guest is told" 'No space left on device' "$out"
head -c 16M "$A/thin" >"$SCRATCH/first" 2>/dev/null
rm "$A/ballast" "$A/ballast2"
xset "$MNT/thin" control resume
xset "$MNT/thin" rate 0
check "no space on the source: the move is done" wait_progress "$MNT/thin" "done" 60
check "no space on the source: what was there moved" cmp -n $((16 << 20)) "$SCRATCH/first" "$B/thin"
nothing_left "no space on the source"
rm "$MNT/thin"

# --- a failing job is cancelled ---

check "the mount ends cleanly" stop_mount "$MNT"
echo >"$SCRATCH/rules"
write_config "$CONFIG" "a=local:$A" "b=fault:local:$B;faults = $SCRATCH/rules" -- "default = a" "state = $SCRATCH/state"
check "a mount with a target that fails" start_mount "$CONFIG" "$MNT"
start_load failing --size=16M --fill --direct --think=1000 "$MNT/failing"
echo "write hang after=3" >"$SCRATCH/rules.new" && mv "$SCRATCH/rules.new" "$SCRATCH/rules"
check "failing: the move starts" xset "$MNT/failing" migrate b
check "failing: it is paused by its target" wait_for 60 state_is "$MNT/failing" paused
check "failing: cancel" xset "$MNT/failing" control cancel
echo >"$SCRATCH/rules.new" && mv "$SCRATCH/rules.new" "$SCRATCH/rules"
check "failing: it is cancelled" wait_progress "$MNT/failing" cancelled 60
end_load failing "failing: the guest saw nothing"
proven failing "$A/failing" "failing: the content"
tidy() { [ -z "$(leftovers "$A" "$B")" ]; }
check "failing: no partial stays" wait_for 30 tidy
rm "$MNT/failing"
finish
