#!/bin/bash
# An open disk moves between two local datastores while it is written to; and everything that may happen to it meanwhile.
. "$(dirname "$0")/../lib/functions.sh"
two_datastores 640M "jobs = 1"
A=$SCRATCH/a B=$SCRATCH/b
D=$MNT/disk

# --- there and back, with every way of reading and writing ---

there_and_back() {
    local name=$1 before
    shift
    start_load "$name" --size=96M --think=200 --sparse=40 --punch=2 "$@" "$MNT/$name"
    before=$(stat -L -c '%d:%i' "/proc/${LOADS[$name]}/fd/3")
    same "$name: a new file is on the default datastore" a "$(xget "$MNT/$name" datastore)"
    check "$name: moves to b" move "$MNT/$name" b
    same "$name: is on b" b "$(xget "$MNT/$name" datastore)"
    check "$name: b's own file is there" test -f "$B/$name"
    check "$name: a's is gone" test ! -e "$A/$name"
    check "$name: moves back" move "$MNT/$name" a
    check "$name: once more" move "$MNT/$name" b
    same "$name: the descriptor was never reopened" "$before" "$(stat -L -c '%d:%i' "/proc/${LOADS[$name]}/fd/3")"
    end_load "$name" "$name: every read was right"
    proven "$name" "$MNT/$name" "$name: the content, through the mount"
    proven "$name" "$B/$name" "$name: the content, on the datastore"
    same "$name: no partial stays" "" "$(leftovers "$A" "$B")"
    check "$name: holes stayed holes" test "$(stat -c %b "$B/$name")" -lt $((90 * 2048))
    rm "$MNT/$name"
}
there_and_back direct --direct
there_and_back buffered
there_and_back mapped --map
there_and_back odd --odd --flush=8
there_and_back small --direct --largest=4K --think=0 --flush=1

# --- what progress and the control surface tell ---

dd if=/dev/urandom of="$D" bs=1M count=64 status=none
truncate -s 200M "$D"
chown 1234:2345 "$D" && chmod 640 "$D" && setfattr -n user.note -v kept "$D" && touch -d '2001-02-03 04:05:06.789' "$D"
attributes() { stat -c '%a %u:%g %s %.9Y' "$1"; }
before=$(attributes "$D") sum=$(sha256sum <"$D")
check "a closed disk moves too" move "$D" b
same "owner, mode, size and time are kept" "$before" "$(attributes "$D")"
same "on the datastore as well" "$before" "$(attributes "$B/disk")"
same "user xattrs are kept" kept "$(getfattr -n user.note --only-values --absolute-names "$D")"
same "the content" "$sum" "$(sha256sum <"$D")"
matches "only data was copied" '^[0-9]+$' "$(progress "$D" copied)"
check "not the holes" test "$(progress "$D" copied)" -le $((72 << 20))
same "100 percent at the end" 100.0 "$(progress "$D" percent)"
matches "progress tells the pause" '^[0-9]+$' "$(progress "$D" pause_us)"
same "the control names are not listed" user.note "$(getfattr --absolute-names "$D" | grep -v '^#' | tr -d '\n')"
same "no job, no progress" "" "$(touch "$MNT/fresh"; xget "$MNT/fresh" progress)"
sleep 1
same "the time does not drift after the move" "$before" "$(attributes "$D")"

# --- rate, pause, resume, cancel, manual switchover, the queue ---

check "a slow move starts" xset "$D" migrate "a,rate=4M"
check "it copies" wait_progress "$D" copying 20
same "the rate reads back" $((4 << 20)) "$(xget "$D" rate)"
check "pause" xset "$D" control pause
check "it is paused" wait_progress "$D" paused 20
echo changed | dd of="$D" bs=1 seek=0 conv=notrunc status=none
check "what was under way ends" wait_for 20 still "$D"
one=$(progress "$D" copied)
sleep 1
same "nothing is copied while it is paused" "$one" "$(progress "$D" copied)"
rate=$(xget "$D" rate)
kill -9 "$(xget "$MNT" worker)"
check "the worker that follows a killed one keeps the pause" wait_progress "$D" paused 20
same "and the rate" "$rate" "$(xget "$D" rate)"
check "resume" xset "$D" control resume
check "it copies again" wait_progress "$D" copying 20
same "a second job on the same disk is refused" "Operation already in progress" "$(xset_error "$D" migrate a)"
dd if=/dev/urandom of="$MNT/second" bs=1M count=8 status=none
xset "$MNT/second" migrate b
check "with jobs = 1 the next one waits" wait_progress "$MNT/second" queued 10
check "cancel of a waiting one" xset "$MNT/second" control cancel
check "it is cancelled" wait_progress "$MNT/second" cancelled 20
same "and stays" a "$(xget "$MNT/second" datastore)"
xset "$MNT/second" migrate b
check "cancel of the running one" xset "$D" control cancel
check "it is cancelled too" wait_progress "$D" cancelled 20
check "the one behind it runs" wait_progress "$MNT/second" "done" 60
same "a cancelled disk stays" b "$(xget "$D" datastore)"
same "nothing is left of it" "" "$(leftovers "$A" "$B")"
check "a write made while it was paused is there" grep -aq '^changed' <(head -c 8 "$D")

sum=$(sha256sum <"$D")
start_load manual --size=32M --direct --think=500 "$MNT/manual"
check "a manual switchover" xset "$MNT/manual" migrate "b,switchover=manual"
check "is mirrored and waits" wait_progress "$MNT/manual" mirrored 60
sleep 2
same "as long as nobody says so" mirrored "$(progress "$MNT/manual" state)"
same "on the source" a "$(xget "$MNT/manual" datastore)"
check "switchover" xset "$MNT/manual" control switchover
check "is done" wait_progress "$MNT/manual" "done" 60
end_load manual "its load"
proven manual "$B/manual" "its content on b"
check "a rate that is lifted" xset "$D" migrate "a,rate=1M"
check "copying" wait_progress "$D" copying 20
check "lifting it" xset "$D" rate 0
check "lets it end" wait_progress "$D" "done" 60
same "with the same content" "$sum" "$(sha256sum <"$D")"

# --- rename, truncate, punch, unlink of a disk that is moving ---

slow() { # slow FILE TARGET: a move that is in the middle of it
    xset "$1" migrate "$2,rate=8M" && wait_progress "$1" copying 20
}
hurry() { xset "$1" rate 0 && wait_progress "$1" "done" 60; }

dd if=/dev/urandom of="$D" bs=1M count=48 conv=notrunc status=none
cp --sparse=always "$D" "$SCRATCH/model"
check "rename: in the middle of a move" slow "$D" b
mkdir "$MNT/vm"
check "rename: to another directory" mv "$D" "$MNT/vm/renamed"
check "rename: the move goes on under the new name" hurry "$MNT/vm/renamed"
check "rename: its content" cmp "$MNT/vm/renamed" "$SCRATCH/model"
check "rename: stands there on the datastore" cmp "$B/vm/renamed" "$SCRATCH/model"
check "rename: and nowhere else" test ! -e "$A/disk" -a ! -e "$B/disk" -a ! -e "$A/vm/renamed"
mv "$MNT/vm/renamed" "$D"

both() { # both COMMAND…: on the disk and on a plain file; FILE stands for each
    "${@//FILE/$D}" && "${@//FILE/$SCRATCH/model}"
}
requires fallocate cmp
check "resize: in the middle of a move" slow "$D" a
check "grow" both truncate -s 201M FILE
check "write behind the old end" both dd if=/proc/self/exe of=FILE bs=64K count=1 seek=3210 conv=notrunc status=none
check "shrink into the copied part" both truncate -s 3M FILE
check "grow again" both truncate -s 64M FILE
check "write there" both dd if=/proc/self/exe of=FILE bs=4K count=5 seek=1000 conv=notrunc status=none
check "punch" both fallocate -p -o 123K -l 1M FILE
check "zero range" both fallocate -z -o 2M -l 100000 FILE
check "allocate" both fallocate -o 60M -l 8M FILE
check "and it ends" hurry "$D"
check "size and content are those of a plain file" cmp "$D" "$SCRATCH/model"
check "on the datastore too" cmp "$A/disk" "$SCRATCH/model"

check "unlink: in the middle of a move" slow "$D" b
exec 5<"$D"
check "unlink" rm "$D"
check "the open descriptor still reads" cmp "$SCRATCH/model" "/proc/self/fd/5"
exec 5<&-
empty_of_disk() { [ -z "$(leftovers "$A" "$B")" ] && [ ! -e "$A/disk" ] && [ ! -e "$B/disk" ]; }
check "nothing of it stays on any datastore" wait_for 30 empty_of_disk

# --- small things of a disk's life ---

: >"$MNT/empty"
check "an empty file moves" move "$MNT/empty" b
same "and is there" b "$(xget "$MNT/empty" datastore)"
printf x >"$MNT/byte"
check "one byte moves" move "$MNT/byte" b
same "and is there" x "$(cat "$B/byte")"
truncate -s 300G "$MNT/sparse" && printf end | dd of="$MNT/sparse" bs=1 seek=$((250 << 30)) conv=notrunc status=none
check "a sparse disk larger than the datastore moves" move "$MNT/sparse" b
same "with its data" end "$(dd if="$B/sparse" bs=1 skip=$((250 << 30)) count=3 status=none)"
check "and stays sparse" test "$(stat -c %b "$B/sparse")" -lt 4096
finish
