#!/bin/bash
# The tests' own tool is tested first: verify-load passes on a sound file and finds each way of losing data.
. "$(dirname "$0")/../lib/functions.sh"
requires dd cmp python3
scratch
LOAD=$(tool verify-load)
F=$SCRATCH/disk

for how in --direct "" --map "--odd --map --punch=5 --sparse=30" "--odd --writers=6 --size=2M"; do
    # shellcheck disable=SC2086
    check "a sound file passes with '${how:-the page cache}'" \
        "$LOAD" --size=16M --seconds=1 --readers=2 $how --save="$SCRATCH/h" "$F"
    check "and its history proves it later" "$LOAD" --check="$SCRATCH/h" "$F"
done

# damage "sentence" COMMAND…: the file as the load left it, then damaged, must be refused.
"$LOAD" --size=16M --seconds=1 --seed=7 --punch=2 --save="$SCRATCH/h" "$F" >/dev/null || failed "cannot make the file"
cp "$F" "$SCRATCH/sound"
damage() {
    local what=$1
    shift
    cp "$SCRATCH/sound" "$F"
    "$@" 2>/dev/null
    if "$LOAD" --check="$SCRATCH/h" "$F" >"$SCRATCH/out" 2>&1; then failed "$what is not found"; else ok "$what is found"; fi
}
DD="dd if=$SCRATCH/sound of=$F bs=512 conv=notrunc"
# shellcheck disable=SC2086
{
    damage "a block at another's place" $DD count=1 skip=5000 seek=9000
    damage "a block shifted by a byte" dd if="$SCRATCH/sound" of="$F" bs=1 skip=2560000 seek=2560001 count=511 conv=notrunc
    damage "zeroes in place of a block" dd if=/dev/zero of="$F" bs=512 count=1 seek=12000 conv=notrunc
    damage "foreign bytes" dd if=/dev/urandom of="$F" bs=512 count=1 seek=700 conv=notrunc
    damage "one wrong bit" bash -c 'printf "\x01" | dd of="$1" bs=1 seek=3000400 conv=notrunc' - "$F"
    damage "half of a block" $DD bs=256 count=1 skip=8002 seek=16000
}

# In the middle of a load: while it rests the file is what its history says, and not any more when it goes on.
start_load resting --size=16M --odd --punch=2 "$F"
sleep 1
rest_load resting
proven resting "$F" "a load that rests"
sleep 0.3
proven resting "$F" "goes on resting"
wake_load resting
sleep 1
check "and then goes on" bash -c '! "$@"' - "$LOAD" --check="$SCRATCH/resting.history" "$F"
end_load resting "all the while its reads were right"

# An older version of a range comes back while the load runs: a lost write, as a stale mirror would give it.
( "$LOAD" --size=4M --seconds=6 --think=500 --writers=1 "$F" >"$SCRATCH/out" 2>&1; echo $? >"$SCRATCH/status" ) &
sleep 2
cp "$F" "$SCRATCH/old"
sleep 2
dd if="$SCRATCH/old" of="$F" bs=1M conv=notrunc 2>/dev/null
wait
same "writes that were lost are found by the next reads" 1 "$(cat "$SCRATCH/status")"

# Two legs that took two overlapping writes in different order: one file answers now with the one, now with the other.
check "a file that answers two ways is found" "$(tool history-test)"

# The relay that misbehaves: what it holds lands late, though its client is gone.
check "the relay does what it is told" python3 "$ROOT/tests/integration/relay.py" "$(tool faultproxy)" "$SCRATCH"
finish
