#!/bin/bash
# A real guest's disk moves three times while it runs. QEMU never reopens it and the guest never notices.
#
# Environment: SVMFS= (empty: on a native file, no moves), LOAD_SECONDS (default 4: so long the load goes on after the last
# move), ONLY (a pattern for "cache/aio"); see tests/lib/guest.sh.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/guest.sh"
LOAD_SECONDS=${LOAD_SECONDS:-4}
ONLY=${ONLY:-}

run_guest() {
    local cache=$1 aio=$2 name="cache=$1 aio=$2" before place target
    [[ "$cache/$aio" == *$ONLY* ]] || return 0
    start_guest "$cache" "$aio" || return 0
    before=$(open_disk "$QEMU")
    check "$name: QEMU holds the disk" test -n "$before"
    if [ -n "$SVMFS" ]; then
        place=$(xget "$DISK" datastore)
        for _ in 1 2 3; do
            if [ "$place" = a ]; then target=b; else target=a; fi
            check "$name: moves to $target under the running guest" move "$DISK" "$target"
            place=$(xget "$DISK" datastore)
        done
        same "$name: QEMU holds what it opened at first" "$before" "$(open_disk "$QEMU")"
        check "$name: the load ran until the last move had ended" load_runs
    fi
    sleep "$LOAD_SECONDS"
    end_guest "$name"
}

if [ -n "$SVMFS" ]; then
    two_datastores 640M
    DISK=$MNT/disk.img
else
    scratch
    DISK=$SCRATCH/disk.img
    echo "        SVMFS is empty: a native file, no moves"
fi
prepare_guest
for aio in native threads io_uring; do run_guest none "$aio"; done
for aio in threads io_uring; do run_guest writeback "$aio"; done
finish
