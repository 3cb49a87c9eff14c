#!/bin/bash
# latency= and deadline= of a move: under load, after a worker's death, refused for a directory (how the pace is found:
# tests/unit/test_pace.c).
. "$(dirname "$0")/../lib/functions.sh"
two_datastores 512M
A=$SCRATCH/a B=$SCRATCH/b DISK=$MNT/disk
recorded() { # the requests of the jobs on record
    python3 -c 'import sqlite3, sys
for (text,) in sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True).execute("select request from jobs"): print(text)' \
        "$SCRATCH"/state/*.db 2>&1
}

dd if=/dev/urandom of="$DISK" bs=1M count=96 status=none
cp "$DISK" "$SCRATCH/model"
HISTORY=
for option in latency=2ms deadline=3s latency=100us,deadline=4s latency=2ms,deadline=1h,verify; do
    target=$([ "$(xget "$DISK" datastore)" = a ] && echo b || echo a)
    start_load "$option" --keep ${HISTORY:+--load="$HISTORY"} --range=0:8M --direct --writers=2 --readers=1 --largest=16K --think=500 --flush=64 "$DISK"
    check "$option: the move starts" xset "$DISK" migrate "$target,$option"
    check "$option: and is done" wait_progress "$DISK" "done" 120
    same "$option: it is there" $target "$(xget "$DISK" datastore)"
    end_load "$option" "$option: the guest saw nothing wrong" && HISTORY=$SCRATCH/$option.history
    proven "$option" "$DISK" "$option: the content"
    check "$option: the rest" cmp -i 8M "$SCRATCH/model" "$DISK"
done

# --- what is recorded ---

check "a move with both" xset "$DISK" migrate "b,latency=2ms,deadline=2h,rate=4M"
before=$(recorded)
matches "the deadline is recorded as a time" 'until=[0-9]{10}' "$before"
matches "the latency, too" 'latency=2000us' "$before"
check "the worker is killed" kill_worker "$MNT"
check "it goes on" wait_progress "$DISK" copying 60
check "with another rate" xset "$DISK" rate 5M
same "the deadline is the same" "$(grep -o 'until=[0-9]*' <<<"$before")" "$(recorded | grep -o 'until=[0-9]*')"
check "it is cancelled" xset "$DISK" control cancel
check "and ends" wait_progress "$DISK" cancelled 60

mkdir "$MNT/vm"
dd if=/dev/urandom of="$MNT/vm/disk" bs=1M count=8 status=none
same "a directory has no deadline" "Operation not supported" "$(xset_error "$MNT/vm" migrate b,deadline=1h)"
matches "with a sentence" 'deadline' "$(xget "$MNT/vm" error)"
check "but a latency" xset "$MNT/vm" migrate b,latency=2ms
check "with which it moves" wait_progress "$MNT/vm" "done" 60
same "no partial stays" "" "$(leftovers "$A" "$B")"
check "the mount ends cleanly" stop_mount "$MNT"
finish
