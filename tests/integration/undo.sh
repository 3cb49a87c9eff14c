#!/bin/bash
# keep=TIME and undo: the old disk is kept as the target of a reverse job; undo switches back at once and nothing is lost; what
# fails there, the guest does not see.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 mkfs.xfs
scratch
make_fs ext4 448M a && make_fs xfs 448M b || skip_all "cannot make filesystems on loop devices"
rmdir "$SCRATCH/a/lost+found"
MNT=$SCRATCH/mnt CONFIG=$SCRATCH/svmfs.conf RULES=$SCRATCH/rules A=$SCRATCH/a B=$SCRATCH/b DISK=$MNT/disk
: >"$RULES"
write_config "$CONFIG" "a=fault:local:$A;faults = $RULES;timeout = 8s" "b=local:$B;timeout = 8s" -- "default = a" \
    "state = $SCRATCH/state" "epoch = 200ms" "target-timeout = 1s"
start_mount "$CONFIG" "$MNT" || { failed "the mount"; finish; }
HISTORY=
rules() { printf '%s\n' "$@" >"$RULES.new" && mv "$RULES.new" "$RULES"; }
load_begin() { start_load "$1" --keep ${HISTORY:+--load="$HISTORY"} --range=0:8M --direct --writers=1 --readers=1 --largest=32K --think=2000 --flush=16 "$DISK"; }
load_end() { end_load "$1" "$1: the guest saw nothing wrong" && proven "$1" "$DISK" "$1: the content" && HISTORY=$SCRATCH/$1.history; }
on() { [ "$(xget "$DISK" datastore)" = "$1" ]; }
kept_files() { leftovers "$A" "$B" | wc -l; }
kept_is() { [ "$(kept_files)" = "$1" ]; }
undone() { # undone "sentence" DATASTORE
    check "$1: undo is taken" wait_for 30 xset "$DISK" control undo
    check "$1: the disk is on $2 again" wait_for 60 on "$2"
    check "$1: nothing is kept any more" wait_for 30 kept_is 0
}
keep_move() { # keep_move "sentence" TARGET [TIME]
    check "$1: the move" move "$DISK" "$2,keep=${3:-1h}"
    check "$1: the old disk is kept" wait_for 20 kept_is 1
}

dd if=/dev/urandom of="$DISK" bs=1M count=48 status=none
cp "$DISK" "$SCRATCH/model"
same "undo without keep is refused" "Invalid argument" "$(xset_error "$DISK" control undo)"
matches "and says why" "no old disk is kept" "$(xget "$DISK" error)"
mkdir "$MNT/home" && echo 1 >"$MNT/home/file"
same "keep on a directory is refused" "Operation not supported" "$(xset_error "$MNT/home" migrate b,keep=1h)"

# --- there and back, under load ---

load_begin there
for turn in 1 2 3; do
    keep_move "there $turn" b
    sleep 0.5
    undone "there $turn" a
done
keep_move "busy" b
same "busy: a second move is refused" "Device or resource busy" "$(xset_error "$DISK" migrate a)"
matches "busy: and says why" "kept" "$(xget "$DISK" error)"
check "busy: release" xset "$DISK" control release
check "busy: the old disk goes" wait_for 30 kept_is 0
check "busy: the disk stays" on b
keep_move "over" a 2s
check "over: it is removed when its time is over" wait_for 30 kept_is 0
check "over: the disk stays" on a
load_end there
check "what nobody wrote is the same" cmp -i $((8 << 20)) "$SCRATCH/model" "$DISK"

# --- the kept leg fails: the guest sees nothing ---

load_begin failing
for rule in "write error EIO path=partial" "write hang path=partial" "flush error EIO path=partial"; do
    keep_move "$rule" b
    rules "$rule"
    sleep 4
    rules
    undone "$rule" a
done
load_end failing

# --- the worker dies while it is kept, and about the flip ---

load_begin deaths
keep_move "killed" b
check "killed: the worker" kill_worker "$MNT"
undone "killed" a
for turn in 1 2 3 4 5; do
    xset "$DISK" migrate b,keep=1h
    sleep "0.$((RANDOM % 9))"
    kill_worker "$MNT"
    check "deaths $turn: the move" wait_for 60 on b
    check "deaths $turn: the old disk is kept" wait_for 30 kept_is 1
    xset "$DISK" control undo || wait_for 10 xset "$DISK" control undo
    sleep "0.0$((RANDOM % 9))"
    kill_worker "$MNT"
    wait_for 20 on a || wait_for 10 xset "$DISK" control undo
    check "deaths $turn: it is undone" wait_for 60 on a
    check "deaths $turn: nothing is kept" wait_for 30 kept_is 0
done
load_end deaths

# --- unmounted, grown, renamed, shortened, removed while it is kept ---

keep_move "unmounted" b
check "unmounted: umount" stop_mount "$MNT"
start_mount "$CONFIG" "$MNT" || { failed "the next mount"; finish; }
dd if=/dev/urandom of="$DISK" bs=1M seek=50 count=2 conv=notrunc status=none
check "grown" test "$(stat -c %s "$DISK")" = $((52 << 20))
fallocate -p -o $((20 << 20)) -l $((1 << 20)) "$DISK"
mv "$DISK" "$MNT/moved" && mv "$MNT/moved" "$DISK"
truncate -s 51M "$DISK"
cp "$DISK" "$SCRATCH/model"
undone "unmounted" a
check "unmounted: the content" cmp "$SCRATCH/model" "$DISK"
check "unmounted: where it lies" cmp "$SCRATCH/model" "$A/disk"
keep_move "removed" b
rm "$DISK"
check "removed: with what was kept" wait_for 30 kept_is 0
check "the mount ends cleanly" stop_mount "$MNT"
finish
