#!/bin/bash
# verify: the legs of a move are compared before the switchover, so a target that lies is caught; and a disk at rest is
# read whole. Everything that may happen meanwhile.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 fallocate cmp
scratch
make_fs ext4 640M a && make_fs ext4 640M b || skip_all "cannot make filesystems on loop devices"
rmdir "$SCRATCH/a/lost+found" "$SCRATCH/b/lost+found"
A=$SCRATCH/a B=$SCRATCH/b RULES=$SCRATCH/rules MNT=$SCRATCH/mnt LOG=$SCRATCH/svmfs.log
: >"$RULES"
write_config "$SCRATCH/svmfs.conf" "a=local:$A" "bad=fault:local:$B;faults = $RULES;timeout = 5s" -- \
    "default = a" "state = $SCRATCH/state" "target-timeout = 2s" "jobs = 2"
mkdir -p "$MNT"
"$SVMFS" "$SCRATCH/svmfs.conf" "$MNT" -f >"$LOG" 2>&1 & # in the foreground, so that the log can be read
at_end stop_mount "$MNT"
wait_for 20 mountpoint -q "$MNT" || { failed "the mount: $(tail -3 "$LOG")"; finish; }
D=$MNT/disk
MIB=$((1 << 20))

rules() { printf '%s\n' "$@" >"$RULES.new" && mv "$RULES.new" "$RULES" && sleep 0.2; }
no_rules() { rules ""; }
ended() { state_is "$1" "done" failed cancelled verified; }
at_least() { [ "$(progress "$1" "$2")" -ge "$3" ]; }
no_partial() { same "$1: no partial stays" "" "$(leftovers "$A" "$B")"; }

# --- under load: what is equal is found equal, and nothing else is seen of it ---

under_load() {
    local name=$1
    shift
    start_load "$name" --size=48M --think=200 --sparse=40 --punch=2 "$@" "$MNT/$name"
    for target in bad a bad; do
        check "$name: moves to $target, compared" move "$MNT/$name" "$target,verify"
        same "$name: no difference" 0 "$(progress "$MNT/$name" differences)"
        check "$name: all of it was compared" at_least "$MNT/$name" verified $((48 * MIB))
    done
    end_load "$name" "$name: every read was right"
    proven "$name" "$B/$name" "$name: the content, on the datastore"
    rm "$MNT/$name"
}
under_load direct --direct
under_load buffered --odd
under_load mapped --map
no_partial "after them"

# --- a target that lies: caught, copied again, told ---

start_load lie --size=32M --fill --direct --range=0:16M --think=500 "$D"
dd if=/dev/urandom of="$D" bs=1M count=16 seek=16 conv=notrunc,fsync status=none
rules "write corrupt offset=20000000 count=2"
check "a target that changes a byte twice: the move is done" move "$D" bad,verify
same "both were seen" 2 "$(progress "$D" differences)"
check "and the log names the region" grep -q 'differs from the source at offset 19922944' "$LOG"
no_rules
check "and back" move "$D" a,verify
rules "read corrupt offset=30000000 count=1"
check "a target that once reads another byte than it has: done" move "$D" bad,verify
same "that was seen, too" 1 "$(progress "$D" differences)"
no_rules
check "and back again" move "$D" a
same "without verify nothing is compared" "" "$(progress "$D" verified)"
rules "write corrupt offset=20000000" "write corrupt offset=25000000"
check "a target that always lies: the move ends" xset "$D" migrate bad,verify
check "but not as done" wait_for 120 ended "$D"
same "it fails" failed "$(progress "$D" state)"
matches "with the sentence" 'target on datastore bad returns other bytes than were written at offset (19922944|24117248), 3 times' \
    "$(xget "$D" error)"
same "the source stays" a "$(xget "$D" datastore)"
check "there" test -f "$A/disk"
no_partial "a target that always lies"
rules "write corrupt offset=20000000"
xset "$D" migrate bad,verify,switchover=manual
wait_for 120 ended "$D"
same "a manual switchover is not offered by a target that lies" failed "$(progress "$D" state)"
no_rules
end_load lie "the guest saw nothing of all that"
proven lie "$A/disk" "its content"

# --- states and steering while it compares ---

slowly() { # slowly FILE TARGET[,options]: copied fast, in the middle of a slow comparison
    rules "read delay ms=150"
    xset "$1" migrate "$2" && wait_progress "$1" verifying 60
}
start_load steer --keep --load="$SCRATCH/lie.history" --direct --range=0:16M --think=500 "$D"
check "it is verifying" slowly "$D" bad,verify,switchover=manual
same "on the source still" a "$(xget "$D" datastore)"
same "a second move is refused" "Operation already in progress" "$(xset_error "$D" migrate bad)"
same "so is a verify of the disk" "Operation already in progress" "$(xset_error "$D" control verify)"
check "pause" xset "$D" control pause
check "it is paused" wait_progress "$D" paused 20
check "what was under way ends" wait_for 20 still "$D" verified
one=$(progress "$D" verified)
sleep 1
same "nothing is compared while it is paused" "$one" "$(progress "$D" verified)"
check "resume" xset "$D" control resume
check "it verifies again" wait_progress "$D" verifying 20
xset "$D" rate 1M
one=$(progress "$D" verified)
no_rules
sleep 2
check "a rate holds for the comparison" test $(($(progress "$D" verified) - one)) -le $((12 * MIB))
xset "$D" rate 0
check "then it is mirrored, and waits" wait_progress "$D" mirrored 60
check "all was compared" at_least "$D" verified $((32 * MIB))
check "switchover" xset "$D" control switchover
check "done" wait_progress "$D" "done" 60
check "and back" move "$D" a
check "cancel in the middle of a comparison" slowly "$D" bad,verify
xset "$D" control cancel
check "it is cancelled" wait_progress "$D" cancelled 30
no_rules
no_partial "cancelled"
check "the worker dies in the middle of a comparison" slowly "$D" bad,verify
kill_worker "$MNT"
no_rules
check "the next one compares from the start and ends it" wait_progress "$D" "done" 120
check "all of it was compared then" at_least "$D" verified $((32 * MIB))
end_load steer "the guest saw nothing of that"
proven steer "$B/disk" "its content"
check "back to a" move "$D" a

# --- a target that has bytes where the source has a hole ---

truncate -s 100M "$MNT/holes"
dd if=/dev/urandom of="$MNT/holes" bs=1M count=30 conv=notrunc status=none
cp --sparse=always "$MNT/holes" "$SCRATCH/model"
check "a disk that ends in a hole" slowly "$MNT/holes" bad,verify
check "pause" xset "$MNT/holes" control pause
sleep 0.5
partial=$(leftovers "$B")
for at in 60 61 99; do dd if=/proc/self/exe of="$partial" bs=4K count=1 seek=$((at << 8)) conv=notrunc,fsync status=none; done
check "resume" xset "$MNT/holes" control resume
no_rules
check "it is done" wait_progress "$MNT/holes" "done" 60
same "what does not belong there was found" 3 "$(progress "$MNT/holes" differences)"
check "and zeroed" cmp "$B/holes" "$SCRATCH/model"
rm "$MNT/holes"

# --- sizes that change meanwhile ---

cp --sparse=always "$D" "$SCRATCH/model"
both() { "${@//FILE/$D}" && "${@//FILE/$SCRATCH/model}"; }
check "resize: in the middle of a comparison" slowly "$D" bad,verify
check "grow" both truncate -s 50000001 FILE
check "write there" both dd if=/proc/self/exe of=FILE bs=64K count=1 seek=600 conv=notrunc status=none
check "shrink" both truncate -s 9M FILE
check "grow again" both truncate -s 70M FILE
check "punch" both fallocate -p -o 123K -l 1M FILE
check "zero range" both fallocate -z -o 2M -l 100000 FILE
check "allocate" both fallocate -o 60M -l 4M FILE
no_rules
check "and it ends" wait_progress "$D" "done" 60
same "without a difference" 0 "$(progress "$D" differences)"
check "size and content are those of a plain file" cmp "$B/disk" "$SCRATCH/model"
check "a thick target of it, from one with holes" move "$D" a,format=thick,verify
same "is equal as well" 0 "$(progress "$D" differences)"
check "byte by byte" cmp "$A/disk" "$SCRATCH/model"

# --- legs that fail while they are compared ---

check "a target that cannot be read once" slowly "$D" bad,verify
rules "read fail count=1 path=partial"
check "is tried again, from the start or not, and done" wait_progress "$D" "done" 120
no_rules
check "a verified copy of what will rot" move "$D" a,verify
dd if=/dev/urandom of="$MNT/rot" bs=1M count=40 status=none
check "to the datastore that will fail" move "$MNT/rot" bad,verify
check "there in the middle of a comparison" slowly "$MNT/rot" a,verify
rules "read delay ms=150 count=1" "read fail offset=39000000"
wait_for 60 ended "$MNT/rot"
same "a source that cannot be read any more: failed" failed "$(progress "$MNT/rot" state)"
matches "with datastore, leg and offset" 'source on datastore bad failed at offset 3899[0-9]{4}' "$(xget "$MNT/rot" error)"
same "the disk stays" bad "$(xget "$MNT/rot" datastore)"
no_rules
no_partial "a source that cannot be read"
check "once it can" move "$MNT/rot" a,verify
rm "$MNT/rot"
start_load hang --size=24M --fill --direct --think=500 "$MNT/hang"
check "a target that hangs" slowly "$MNT/hang" bad,verify
rules "read hang path=partial"
check "is given up, paused" wait_for 60 state_is "$MNT/hang" paused
no_rules
check "and goes on when it answers" wait_progress "$MNT/hang" "done" 120
end_load hang "the guest saw nothing of it"
proven hang "$B/hang" "its content"

# --- a terabyte of nothing: questions for runs, not for regions (a million of them at this delay would take half an hour) ---

truncate -s 1T "$MNT/sparse"
for at in 0 300 900; do
    dd if=/proc/self/exe of="$MNT/sparse" bs=64K count=1 seek=$((at << 14)) conv=notrunc status=none
done
rules "map delay ms=20"
check "a sparse terabyte" move "$MNT/sparse" bad,verify "done" 120
same "all of it is verified" $((1 << 40)) "$(progress "$MNT/sparse" verified)"
check "and back" move "$MNT/sparse" a,verify "done" 120
no_rules
check "still sparse" test "$(stat -c %b "$A/sparse")" -lt 8192
rm "$MNT/sparse"

# --- a directory: one member's lie keeps all of them ---

mkdir -p "$MNT/vm/sub"
for name in one sub/two three; do dd if=/dev/urandom of="$MNT/vm/$name" bs=1M count=6 status=none; done
sum() { (cd "$1" && find . -type f -exec sha256sum {} + | sort); }
before=$(sum "$MNT/vm")
rules "write corrupt offset=3000000 count=1"
check "a directory with a target that lies once" move "$MNT/vm" bad,verify
same "one difference in the sum" 1 "$(progress "$MNT/vm" differences)"
check "all of it was compared" at_least "$MNT/vm" verified $((18 * MIB))
same "its content" "$before" "$(sum "$B/vm")"
no_rules
check "and back" move "$MNT/vm" a,verify
mv "$MNT/vm/three" "$MNT/vm/liar"
truncate -s 8M "$MNT/vm/liar"
before=$(sum "$MNT/vm")
rules "write corrupt offset=7000000"
dd if=/dev/urandom of="$MNT/vm/liar" bs=1M seek=6 count=2 conv=notrunc status=none
before=$(sum "$MNT/vm")
check "with one that always lies in one file" xset "$MNT/vm" migrate bad,verify
wait_for 120 ended "$MNT/vm"
same "it fails" failed "$(progress "$MNT/vm" state)"
matches "and names the file" 'vm/liar.*returns other bytes' "$(xget "$MNT/vm" error)"
same "all of it stays" a "$(xget "$MNT/vm/one" datastore)"
same "as it was" "$before" "$(sum "$A/vm")"
no_rules
no_partial "the directory"

# --- a disk at rest: what of it cannot be read? ---

check "a disk on the datastore that will fail" move "$D" bad
rules "read fail offset=5000000" "read fail offset=5004096" "read fail offset=70000000"
check "verify" xset "$D" control verify
check "is done" wait_for 60 ended "$D"
same "as verified" verified "$(progress "$D" state)"
same "so many bytes cannot be read" 12288 "$(progress "$D" unreadable)"
same "in so many ranges" 2 "$(progress "$D" ranges)"
same "the others can" $((70 * MIB - 12288)) "$(progress "$D" verified)"
matches "the sentence names them" 'disk /disk on datastore bad.*offset 4997120 \(8192 bytes\), offset 69996544 \(4096 bytes\)' \
    "$(xget "$D" error)"
check "the log, too" grep -q '4096 bytes at offset 69996544 cannot be read' "$LOG"
rules "read fail offset=5000000 count=1"
xset "$D" control verify
wait_for 60 ended "$D"
same "what fails once and is read then is no loss" 0 "$(progress "$D" unreadable)"
same "and no sentence" "" "$(xget "$D" error)"
start_load scrub --keep --direct --think=300 "$D"
rules "read delay ms=100"
check "a slow one" xset "$D" control verify
check "is under way" wait_for 20 state_is "$D" verifying
same "a second is refused" "Operation already in progress" "$(xset_error "$D" control verify)"
same "a pause is no word to it" "Invalid argument" "$(xset_error "$D" control pause)"
check "cancel" xset "$D" control cancel
check "it is cancelled" wait_progress "$D" cancelled 20
check "a slow one again" xset "$D" control verify
wait_for 20 state_is "$D" verifying
check "a move ends it" xset "$D" migrate a,verify
check "at once" wait_for 20 state_is "$D" opening copying verifying mirrored switching "done"
no_rules
check "and is done" wait_progress "$D" "done" 60
check "back" move "$D" bad
rules "read delay ms=100"
one=$(xget "$D" progress)
xset "$D" control verify
wait_for 20 state_is "$D" verifying
kill_worker "$MNT"
check "a worker's death ends it: progress tells of what was before" wait_for 30 state_is "$D" "done"
no_rules
end_load scrub "a load beside all that"
rules "read hang"
xset "$MNT/hang" control verify
check "a datastore that does not answer" wait_for 60 ended "$MNT/hang"
same "says nothing about the disk: failed" failed "$(progress "$MNT/hang" state)"
matches "with the sentence" 'disk /hang on datastore bad.*does not answer' "$(xget "$MNT/hang" error)"
no_rules
rules "read delay ms=100"
xset "$D" control verify
wait_for 20 state_is "$D" verifying
check "it is unlinked in the middle of it" rm "$D"
gone_from_b() { [ ! -e "$B/disk" ] && [ -z "$(leftovers "$B")" ]; }
check "and gone" wait_for 20 gone_from_b
same "a directory cannot be read so" "Invalid argument" "$(xset_error "$MNT/vm" control verify)"
xset "$MNT/hang" control verify
xset "$MNT/vm/one" control verify
wait_for 20 state_is "$MNT/hang" verifying
check "the mount ends in the middle of one" stop_mount "$MNT"
no_rules
finish
