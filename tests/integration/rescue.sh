#!/bin/bash
# A source that starts to fail: reads of what has been copied are answered by the target, pages that cannot be read are
# given up only with rescue=yes, listed, zeroed and never called done; the old file is kept. A source that does not answer
# at all is no disk with bad pages.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse svmfs getfattr setfattr cmp python3
scratch
A=$SCRATCH/a B=$SCRATCH/b RULES=$SCRATCH/rules MNT=$SCRATCH/mnt CONFIG=$SCRATCH/svmfs.conf STATE=$SCRATCH/state
mkdir -p "$A" "$B"
: >"$RULES"
write_config "$CONFIG" "bad=fault:local:$A;faults = $RULES;timeout = 4s" "b=local:$B" -- "default = bad" "state = $STATE" \
    "target-timeout = 2s"
start_mount "$CONFIG" "$MNT" || { failed "the mount"; finish; }
MIB=1048576

rules() { printf '%s\n' "$@" >"$RULES.new" && mv "$RULES.new" "$RULES" && sleep 0.2; }
no_rules() { rules ""; }
kept() { find "$A/.svmfs" -name 'rescued-*' 2>/dev/null; }
rescued() { move "$1" "$2" rescued; }
log_has() { grep -Eq "$1" "$STATE/log"; }

# bad OFFSET LENGTH…: a rule for each page that the ranges touch.
bad() {
    local offset
    while [ $# -gt 0 ]; do
        for ((offset = $1 / 4096 * 4096; offset < $1 + $2; offset += 4096)); do
            echo "read fail errno=EIO offset=$offset"
        done
        shift 2
    done
}

# fresh NAME BYTES: a disk of noise on datastore bad, and the same bytes as $SCRATCH/NAME.
fresh() {
    head -c "$2" /dev/urandom >"$SCRATCH/$1"
    cp "$SCRATCH/$1" "$MNT/$1"
}

# zeroed NAME OFFSET LENGTH…: $SCRATCH/NAME with zeroes in the pages that the ranges touch, on standard output.
zeroed() {
    python3 - "$SCRATCH/$1" "${@:2}" <<'PYTHON'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
size = len(data)
ranges = list(map(int, sys.argv[2:]))
for offset, length in zip(ranges[::2], ranges[1::2]):
    start, end = offset // 4096 * 4096, min(-(-(offset + length) // 4096) * 4096, size)
    data[start:end] = bytes(end - start)
sys.stdout.buffer.write(data)
PYTHON
}
is_zeroed() { zeroed "$@" | cmp - "$B/$1"; }

# --- reads of what has been copied ---

SIZE=$((16 * MIB + 1000))
fresh disk $SIZE
check "a move that stays mirrored" xset "$MNT/disk" migrate "b,switchover=manual"
check "it is mirrored" wait_progress "$MNT/disk" mirrored
rules "read fail errno=EREMOTEIO"
check "the source fails every read: the guest's are answered by the target" cmp "$SCRATCH/disk" "$MNT/disk"
check "and those that bypass the cache" cmp -n $((16 * MIB)) "$SCRATCH/disk" \
    <(dd if="$MNT/disk" bs=1M count=16 iflag=direct status=none)
matches "progress counts them" 'target_reads=[1-9]' "$(xget "$MNT/disk" progress)"
check "the log tells the first" log_has 'a read at offset [0-9]+ failed on the source, datastore bad: .*answered from the target, datastore b'
dd if=/dev/zero of="$MNT/disk" bs=4096 seek=5 count=2 oflag=direct conv=notrunc status=none
zeroed disk $((5 * 4096)) 8192 >"$SCRATCH/now"
check "what is written meanwhile is read back" cmp "$SCRATCH/now" "$MNT/disk"
check "the move is completed by hand" xset "$MNT/disk" control switchover
check "it is done: nothing was lost" wait_progress "$MNT/disk" "done"
no_rules
check "its content" cmp "$SCRATCH/now" "$B/disk"
rm "$MNT/disk"

fresh half $((8 * MIB))
check "a move that is slow" xset "$MNT/half" migrate "b,rate=1M"
check "copies" wait_for 20 eval '[ "$(progress "$MNT/half" copied)" -ge $((2 * MIB)) ]'
rules "read fail errno=EIO offset=$((7 * MIB))" "read fail errno=EIO offset=0"
check "a read of what has been copied" cmp -n 4096 "$SCRATCH/half" <(dd if="$MNT/half" bs=4096 count=1 iflag=direct status=none)
check "a read of what has not is an error" eval \
    '! dd if="$MNT/half" bs=4096 skip=1792 count=1 iflag=direct of=/dev/null status=none 2>/dev/null'
xset "$MNT/half" rate 0
wait_for 60 state_is "$MNT/half" failed "done" rescued
same "without rescue=yes the move fails" failed "$(progress "$MNT/half" state)"
matches "with the offset" "read of the source on datastore bad failed at offset $((7 * MIB))" "$(xget "$MNT/half" error)"
same "the disk stays" bad "$(xget "$MNT/half" datastore)"
same "nothing is kept or left" "" "$(kept; leftovers "$A" "$B")"
no_rules
check "all of it is there" cmp "$SCRATCH/half" "$MNT/half"
rm "$MNT/half"

# --- rescue: at the start, in the middle, at the end, odd sizes, many ---

# rescue "sentence" BYTES OFFSET LENGTH…: a move with rescue=yes of a disk with these bad ranges, under a load elsewhere.
rescue() {
    local what=$1 size=$2 why list lost=0 source_file
    shift 2
    fresh torn "$size"
    mapfile -t lines < <(bad "$@")
    rules "${lines[@]}"
    start_load torn --keep --range="$((size / MIB - 2))M:1M" --direct --think=500 "$MNT/torn"
    rescued "$MNT/torn" "b,rescue=yes" || failed "$what: $(xget "$MNT/torn" progress)"
    why=$(xget "$MNT/torn" error)
    end_load torn "$what: the guest saw nothing elsewhere"
    no_rules
    same "$what: it ends as rescued" rescued "$(progress "$MNT/torn" state)"
    same "$what: the disk has moved" b "$(xget "$MNT/torn" datastore)"
    proven torn "$B/torn" "$what: what the load wrote"
    head -c $(((size / MIB - 2) * MIB)) "$B/torn" >"$SCRATCH/got"
    zeroed torn "$@" | head -c $(((size / MIB - 2) * MIB)) >"$SCRATCH/wanted"
    check "$what: all else is there, the lost pages are zeroes" cmp "$SCRATCH/wanted" "$SCRATCH/got"
    cmp <(zeroed torn "$@" | tail -c +$(((size / MIB - 1) * MIB + 1))) <(tail -c +$(((size / MIB - 1) * MIB + 1)) "$B/torn") ||
        failed "$what: the end"
    list=$(find "$STATE/jobs" -name '*.lost' | sort -V | tail -1)
    same "$what: the list has every range" "$(python3 - "$size" "$@" <<'PYTHON'
import sys
size, *ranges = map(int, sys.argv[1:])
pages = sorted({p for o, n in zip(ranges[::2], ranges[1::2]) for p in range(o // 4096, -(-(o + n) // 4096))})
runs = []
for p in pages:
    if runs and runs[-1][1] == p:
        runs[-1][1] = p + 1
    else:
        runs.append([p, p + 1])
print("\n".join(f"{a * 4096} {min(b * 4096, size) - a * 4096}" for a, b in runs))
PYTHON
)" "$(grep -v '^#' "$list")"
    lost=$(grep -v '^#' "$list" | awk '{ sum += $2 } END { print sum }')
    same "$what: progress has the sum" "$lost" "$(progress "$MNT/torn" lost)"
    matches "$what: the sentence tells how much" "disk /torn: $lost bytes at $(grep -vc '^#' "$list") places" "$why"
    matches "$what: and where" "$(grep -v '^#' "$list" | head -1 | tr ' ' '+' | sed 's/+/\\+/')" "$why"
    check "$what: the log has it" log_has "bytes at offset $(grep -v '^#' "$list" | tail -1 | cut -d' ' -f1) cannot be read"
    source_file=$(kept)
    matches "$what: the sentence names the old file" "${source_file#"$A/"}" "$why"
    check "$what: which is whole" cmp -n $(((size / MIB - 2) * MIB)) "$SCRATCH/torn" "$source_file"
    same "$what: no partial stays" "" "$(leftovers "$A" "$B")"
    same "$what: the old file is not shown" torn "$(ls -A "$MNT")"
    "$SVMFS" --rescan "$MNT" >/dev/null 2>&1
    same "$what: nor after a rescan" "torn $source_file" "$(ls -A "$MNT") $(kept)"
    rm -f "$source_file" "$list"
    rm "$MNT/torn"
}

rescue "the first page" $((6 * MIB)) 0 4096
rescue "a byte in the middle" $((6 * MIB)) $((2 * MIB + 5000)) 1
rescue "over a border of regions" $((6 * MIB + 8192)) $((2 * MIB - 512)) 1536
rescue "the last bytes of an odd size" $((6 * MIB + 777)) $((6 * MIB)) 777
rescue "a whole region" $((6 * MIB)) $((3 * MIB)) $MIB
rescue "many" $((8 * MIB)) 0 1 8192 4096 $((MIB - 1)) 2 $((MIB + 12288)) 20000 $((3 * MIB)) 4096 $((3 * MIB + 8192)) 4096 \
    $((3 * MIB + 16384)) 4096 $((5 * MIB)) 100000

# --- the mount in between ---

fresh disk $((4 * MIB))
rules "read fail errno=EIO offset=$((MIB + 4096))"
rescued "$MNT/disk" "b,rescue=yes" || failed "a rescue"
WHY=$(xget "$MNT/disk" error)
KEPT=$(kept)
no_rules
stop_mount "$MNT" && start_mount "$CONFIG" "$MNT" || failed "mounting again"
same "after a mount the result is still rescued" rescued "$(progress "$MNT/disk" state)"
same "and tells the same" "$WHY" "$(xget "$MNT/disk" error)"
same "the old file is where it was" "$KEPT" "$(kept)"
rm -f "$KEPT"
check "back to the datastore that fails" move "$MNT/disk" bad
rules "read fail errno=EIO offset=$((2 * MIB))"
rescued "$MNT/disk" "b,rescue=yes" || failed "a second rescue"
check "rescued twice: both are zeroes" is_zeroed disk $((MIB + 4096)) 1 $((2 * MIB)) 1
same "the second lost its own alone" 4096 "$(progress "$MNT/disk" lost)"
no_rules
rm -f "$(kept)"
rm "$MNT/disk"

# --- what is lost and then written is not lost; what can be read after all is not, either ---

fresh disk $((4 * MIB))
rules "read fail errno=EIO offset=$((MIB + 4096))" "read fail errno=EIO offset=$((2 * MIB))"
xset "$MNT/disk" migrate "b,rescue=yes,switchover=manual"
check "a rescue that waits for its switchover" wait_progress "$MNT/disk" mirrored
check "a lost page is an error as long as the source is the truth" eval \
    '! dd if="$MNT/disk" bs=4096 skip=257 count=1 iflag=direct of=/dev/null status=none 2>/dev/null'
check "beside it nothing is" cmp -n 4096 <(tail -c +$((MIB + 1)) "$SCRATCH/disk") \
    <(dd if="$MNT/disk" bs=4096 skip=256 count=1 iflag=direct status=none)
dd if="$SCRATCH/disk" of="$MNT/disk" bs=4096 skip=256 seek=256 count=3 oflag=direct conv=notrunc status=none
xset "$MNT/disk" control switchover
wait_progress "$MNT/disk" rescued || failed "its switchover"
same "what was written since is not lost" 4096 "$(progress "$MNT/disk" lost)"
check "and is there" is_zeroed disk $((2 * MIB)) 1
no_rules
rm -f "$(kept)"
rm "$MNT/disk"

fresh disk $((4 * MIB))
rules "read fail errno=EIO offset=$((MIB + 4096))"
xset "$MNT/disk" migrate "b,rescue=yes,switchover=manual"
check "a rescue whose mount ends when it is mirrored" wait_progress "$MNT/disk" mirrored
stop_mount "$MNT" && start_mount "$CONFIG" "$MNT" || failed "mounting again"
check "goes on" wait_progress "$MNT/disk" mirrored
check "with what it had copied" [ "$(progress "$MNT/disk" kept)" -ge $((2 * MIB)) ]
kill_worker "$MNT"
check "and after its worker's death" wait_progress "$MNT/disk" mirrored
xset "$MNT/disk" control switchover
wait_progress "$MNT/disk" rescued || failed "its switchover"
same "and still knows what is lost" 4096 "$(progress "$MNT/disk" lost)"
check "which is zeroes" is_zeroed disk $((MIB + 4096)) 1
no_rules
rm -f "$(kept)"
rm "$MNT/disk"

fresh disk $((4 * MIB))
rules "read fail errno=EIO offset=$((MIB + 4096)) count=2"
check "a page that can be read when all else has been copied" move "$MNT/disk" "b,rescue=yes"
same "is not lost" "0" "$(progress "$MNT/disk" lost)"
check "its content" cmp "$SCRATCH/disk" "$B/disk"
same "nothing is kept" "" "$(kept)"
no_rules
check "and back" move "$MNT/disk" bad
check "rescue=yes of a sound disk is done" move "$MNT/disk" "b,rescue=yes"
same "and nothing is kept" "" "$(kept)"
check "and back again" move "$MNT/disk" bad

# --- a medium that takes its time for each page: longer in all than a write of the guest may wait ---

slow() { # slow OFFSET LENGTH: the pages fail, each after 300 ms
    local offset
    for ((offset = $1; offset < $1 + $2; offset += 4096)); do
        echo "read fail errno=EIO offset=$offset ms=300"
    done
}
fresh slow $((3 * MIB))
mapfile -t lines < <(slow $((MIB + 8192)) 98304)
rules "${lines[@]}"
start_load slow --keep --range=1M:4096 --direct --think=500 "$MNT/slow"
rescued "$MNT/slow" "b,rescue=yes" || failed "a rescue of a slow region"
end_load slow "the guest writes to the region meanwhile"
no_rules
same "all bad pages of it are lost" 98304 "$(progress "$MNT/slow" lost)"
proven slow "$B/slow" "what the load wrote"
check "the rest" cmp <(zeroed slow $((MIB + 8192)) 98304 | tail -c +$((MIB + 4097))) <(tail -c +$((MIB + 4097)) "$B/slow")
rm -f "$(kept)"
rm "$MNT/slow"

# --- a source that is gone is no disk with bad pages ---

rules "read fail errno=EIO offset=$((MIB + 4096))" "read fail errno=EIO after=6"
xset "$MNT/disk" migrate "b,rescue=yes"
check "a source that fails every read is waited for" wait_for 60 state_is "$MNT/disk" paused
matches "the sentence says why" 'source on datastore bad cannot be read at all any more' "$(xget "$MNT/disk" error)"
rules "read fail errno=EIO offset=$((MIB + 4096))"
check "when it is back the rest is copied" wait_progress "$MNT/disk" rescued
check "all of it" is_zeroed disk $((MIB + 4096)) 1
no_rules
rm -f "$(kept)"
check "back" move "$MNT/disk" bad
zeroed disk $((MIB + 4096)) 1 >"$SCRATCH/now" && mv "$SCRATCH/now" "$SCRATCH/disk"
rules "read hang after=3"
xset "$MNT/disk" migrate "b,rescue=yes"
check "a source that hangs is waited for" wait_for 60 state_is "$MNT/disk" paused
no_rules
check "and then nothing is lost" wait_progress "$MNT/disk" "done"
check "its content" cmp "$SCRATCH/disk" "$B/disk"
check "back" move "$MNT/disk" bad
rules "read fail errno=ETIMEDOUT after=2"
xset "$MNT/disk" migrate "b,rescue=yes"
check "so is one that says that it timed out" wait_for 60 state_is "$MNT/disk" paused
no_rules
check "and nothing is lost" wait_progress "$MNT/disk" "done"
check "its content" cmp "$SCRATCH/disk" "$B/disk"
rm "$MNT/disk"

# --- the worker dies in the midst ---

fresh disk $((24 * MIB))
mapfile -t lines < <(bad 0 4096 $((9 * MIB + 100)) 9000 $((24 * MIB - 1)) 1)
rules "${lines[@]}"
start_load killed --keep --range=12M:4M --direct --think=300 "$MNT/disk"
xset "$MNT/disk" migrate "b,rescue=yes,rate=12M"
for i in 1 2 3; do
    sleep 0.7
    kill_worker "$MNT" || failed "no worker to kill"
    wait_for 20 worker_pid "$MNT" >/dev/null
done
xset "$MNT/disk" rate 0
check "a worker killed three times in the midst of a rescue" wait_progress "$MNT/disk" rescued
end_load killed "the guest saw nothing of it"
no_rules
proven killed "$B/disk" "what the load wrote"
zeroed disk 0 1 $((9 * MIB + 100)) 9000 $((24 * MIB - 1)) 1 >"$SCRATCH/wanted"
check "the first part" cmp -n $((12 * MIB)) "$SCRATCH/wanted" "$B/disk"
check "the last part" cmp <(tail -c $((8 * MIB)) "$SCRATCH/wanted") <(tail -c $((8 * MIB)) "$B/disk")
same "what is lost" $((5 * 4096)) "$(progress "$MNT/disk" lost)"
rm -f "$(kept)"
rm "$MNT/disk"
check "the mount ends cleanly" stop_mount "$MNT"

# dies EVENT: all of svmfs dies at the event of a rescue's switchover; the next mount completes it.
dies() {
    rm -rf "$A" "$B" "$STATE"
    mkdir -p "$A" "$B"
    head -c $((2 * MIB)) /dev/urandom >"$SCRATCH/disk"
    cp "$SCRATCH/disk" "$A/disk"
    rules "read fail errno=EIO offset=$((MIB + 4096))"
    SVMFS_DIE_AT=$1:1 start_mount "$CONFIG" "$MNT" || { failed "$1: the mount"; return; }
    xset "$MNT/disk" migrate "b,rescue=yes"
    wait_for 60 eval 'kill -0 "$(worker_pid "$MNT")" 2>/dev/null && state_is "$MNT/disk" rescued "done" failed'
    same "a worker that dies at $1: rescued all the same" rescued "$(progress "$MNT/disk" state)"
    matches "a worker that dies at $1: it tells what" "disk /disk: 4096 bytes at 1 places \($((MIB + 4096))\+4096\)" "$(xget "$MNT/disk" error)"
    same "a worker that dies at $1: how much" 4096 "$(progress "$MNT/disk" lost)"
    check "a worker that dies at $1: the content" is_zeroed disk $((MIB + 4096)) 1
    check "a worker that dies at $1: the old file" cmp "$SCRATCH/disk" "$(kept)"
    stop_mount "$MNT" || failed "$1: umount"
}
for event in switch-commit job-committed switch-flipped job-renamed job-source-removed job-dropped; do
    dies "$event"
done

# --- a directory ---

rm -rf "$A" "$B" "$STATE"
mkdir -p "$A/vm" "$B"
for name in one two; do
    head -c $((2 * MIB)) /dev/urandom >"$SCRATCH/$name"
    cp "$SCRATCH/$name" "$A/vm/$name"
done
rules "read fail errno=EIO offset=8192 path=two"
if check "a mount for a directory" start_mount "$CONFIG" "$MNT"; then
    rescued "$MNT/vm" "b,rescue=yes" || failed "the move of a directory"
    same "a directory with a file that is rescued is rescued" "rescued 4096" \
        "$(progress "$MNT/vm" state) $(progress "$MNT/vm" lost)"
    same "the sound file is done, the other one rescued" "done rescued" \
        "$(progress "$MNT/vm/one" state) $(progress "$MNT/vm/two" state)"
    check "the sound file" cmp "$SCRATCH/one" "$B/vm/one"
    check "the other one's old file" cmp "$SCRATCH/two" "$(kept)"
    check "the mount ends cleanly" stop_mount "$MNT"
fi
skip "a block device with bad sectors: no device mapper here"
finish
