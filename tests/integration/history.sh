#!/bin/bash
# Linearizability: disks with many readers and writers in few places move between a local directory, an NFS export and a
# volume on iSCSI, and back by undo, while workers are killed and servers are cut off, crash and come back. What each block
# was read and written as is judged as a whole (tests/tools/linear.c); no request may fail.
#
# Environment: SECONDS_LOAD (default 25), SEED. With SVMFS_FIGURES=FILE the figures are appended there.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse svmfs getfattr setfattr
SEED=${SEED:-$RANDOM} LOAD=${SECONDS_LOAD:-25}
RANDOM=$SEED
scratch
MNT=$SCRATCH/mnt DISKS="one two three"
mkdir "$SCRATCH/local"
start_nfs nfs
start_proxy nfs-path "$(nfs get nfs NFS_PORT)" "$(nfs get nfs MOUNT_PORT)"
start_iscsi iscsi LUNS=1 LUN_SIZE=256M
start_proxy iscsi-path "$(iscsi get iscsi PORT)"
format_volume "$(iscsi_url iscsi 1)"
PLACES=(local nfs iscsi)
write_config "$SCRATCH/svmfs.conf" "local=local:$SCRATCH/local;timeout = 60s" "nfs=$(nfs_url nfs nfs-path);timeout = 60s;quiet = 1s" \
    "iscsi=volume:$(iscsi_url iscsi 1 iscsi-path);timeout = 60s" -- "default = local" "state = $SCRATCH/state" "jobs = 8" \
    "target-timeout = 1s" "reactors = 2"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount: $(tail -3 "$SCRATCH/state/log")"; finish; }
echo "seed $SEED"

declare -A DONE=()
count() { DONE[$1]=$((${DONE[$1]:-0} + 1)); }
pick() { eval "set -- $*"; shift $((RANDOM % $#)); echo "$1"; }
ended() { state_is "$1" "done" failed cancelled ""; }
kept() { [[ "$(xget "$1" control)$(xget "$1" progress)" == *kept* ]]; }

# A move to another place, now and then one whose old copy is kept.
begin_move() {
    local disk=$1 place keep=""
    place=$(pick "${PLACES[@]}")
    [ "$place" != "$(xget "$MNT/$disk" datastore)" ] || return
    [ $((RANDOM % 2)) = 0 ] || keep=,keep=10m
    if xset "$MNT/$disk" migrate "$place$keep" 2>/dev/null || xset "$MNT/$disk" migrate "$place" 2>/dev/null; then count moves; fi
}

steer() {
    local disk
    disk=$(pick $DISKS)
    case $((RANDOM % 8)) in
    0) xset "$MNT/$disk" control cancel 2>/dev/null && count cancels ;;
    1) xset "$MNT/$disk" control pause 2>/dev/null && sleep 0.2 && xset "$MNT/$disk" control resume 2>/dev/null && count pauses ;;
    2 | 3 | 4) xset "$MNT/$disk" control undo 2>/dev/null && count undos ;;
    5) xset "$MNT/$disk" control release 2>/dev/null && count releases ;;
    *) : ;;
    esac
    for disk in $DISKS; do ! ended "$MNT/$disk" || begin_move "$disk"; done
}

# When a worker and a server die at once, what was not flushed may be lost, and a flush says so (docs/NFS.md). So neither
# dies while what the other's death left is not yet durable.
DIED=
dies() {
    local disk
    [ -z "$DIED" ] || [ "$DIED" = "$1" ] || for disk in $DISKS; do sync "$MNT/$disk"; done
    DIED=$1
}

TURN=0
trouble() {
    local server
    server=$(pick nfs iscsi)
    local kind=$((TURN < 5 ? TURN : RANDOM % 5)) # each at least once
    TURN=$((TURN + 1))
    echo "$(date +%T.%3N) trouble $kind, $server" >>"$SCRATCH/troubles"
    case $kind in
    0 | 1) dies worker && kill_worker "$MNT" && count kills ;;
    2) fault "$server-path" "$(pick cut blackhole swallow)" && sleep 1.5 && fault "$server-path" ok && count outages ;;
    3) "$server" pause "$server" && sleep 1.5 && "$server" resume "$server" && count outages ;;
    4) dies server && "$server" crash "$server" && sleep 0.5 && "$server" start "$server" >/dev/null && count crashes ;;
    esac
}

for disk in $DISKS; do
    start_load "$disk" --size=4M --direct --writers=4 --readers=4 --largest=16K --think=3000 --flush=64 --seed=$((SEED + RANDOM)) \
        "$MNT/$disk"
done
end=$((SECONDS + LOAD))
while [ $SECONDS -lt $end ]; do
    steer
    sleep "0.$((RANDOM % 6))"
    trouble
    sleep "0.$((RANDOM % 9 + 1))"
done
for disk in $DISKS; do
    state_is "$MNT/$disk" paused && xset "$MNT/$disk" control resume
    check "$disk: its last job ends" wait_for 90 ended "$MNT/$disk"
done
for what in "${!DONE[@]}"; do echo "        $what: ${DONE[$what]}"; done
for what in moves kills outages crashes; do check "there were $what" test "${DONE[$what]:-0}" -gt 0; done
[ "${DONE[undos]:-0}" -gt 0 ] || skip "no move was undone"
operations=0 places=0
for disk in $DISKS; do
    end_load "$disk" "$disk: every read was right, and all of them in an order that can be"
    proven "$disk" "$MNT/$disk" "$disk: the content"
    operations=$((operations + $(sed -n 's/.* linear=\([0-9]*\) .*/\1/p' "$SCRATCH/$disk.load")))
    places=$((places + $(sed -n 's/.* places=\([0-9]*\).*/\1/p' "$SCRATCH/$disk.load")))
done
check "$operations reads and writes of $places blocks were judged" test $operations -gt 5000
[ -z "${SVMFS_FIGURES:-}" ] || echo "history seed=$SEED seconds=$LOAD operations=$operations blocks=$places failed=$FAILED $(for what in moves undos kills outages crashes cancels pauses; do echo -n "$what=${DONE[$what]:-0} "; done)" >>"$SVMFS_FIGURES"
check "the mount ends cleanly" stop_mount "$MNT"
[ "$FAILED" = 0 ] || { cat "$SCRATCH/troubles"; grep -v "migrate:\|control:" "$SCRATCH/state/log"; } >&2
finish
