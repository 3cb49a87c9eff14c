#!/bin/bash
# Writes that land late (law 6): a relay holds what was sent, its sender is killed, gives up or is dropped, newer writes
# go to the same places, and then the relay lets the old ones through. None may be found over a newer one.
#
# late.sh [KIND CASE]: one case alone. Environment: TOGETHER (cases at a time, default 3).
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse svmfs getfattr setfattr
QUIET=5 # seconds; what an NFS server is given for writes of an old connection, longer than they are held after it

if [ $# = 0 ]; then
    scratch
    side_by_side "${TOGETHER:-3}" "$0" {nfs,iscsi}\ {worker,timeout,target}
    finish
fi
KIND=$1 CASE=$2
scratch
MNT=$SCRATCH/mnt DISK=$SCRATCH/mnt/disk
mkdir "$SCRATCH/local"
case $KIND in
nfs)
    start_nfs server
    start_proxy path "$(nfs get server NFS_PORT)" "$(nfs get server MOUNT_PORT)"
    FAR=$(nfs_url server path)
    ;;
iscsi)
    start_iscsi server LUNS=1 LUN_SIZE=256M
    start_proxy path "$(iscsi get server PORT)"
    format_volume "$(iscsi_url server 1)"
    FAR=volume:$(iscsi_url server 1 path)
    ;;
esac
case $CASE in timeout) patience=2s tolerate=--tolerate-errors ;; *) patience=60s tolerate="" ;; esac
write_config "$SCRATCH/svmfs.conf" "local=local:$SCRATCH/local" "far=$FAR;timeout = $patience;quiet = ${QUIET}s" \
    -- "default = local" "state = $SCRATCH/state" "target-timeout = 1s" "reactors = 2"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount: $(cat "$SCRATCH/state/log")"; finish; }

# Small and crowded: whatever is held has newer writes over it soon.
start_load disk --size=2M --direct --writers=6 --readers=2 --largest=64K --think=200 --flush=64 --status=3 $tolerate "$DISK" \
    3>"$SCRATCH/status"
made() { tail -1 "$SCRATCH/status" | sed -En 's/.*writes=([0-9]+).*/\1/p' | sed 's/^$/0/'; }
more_than() { [ "$(made)" -gt "$1" ]; }

if [ "$CASE" = target ]; then
    check "a move that waits" xset "$DISK" migrate "far,switchover=manual"
    check "it is mirrored" wait_progress "$DISK" mirrored 60
else
    check "to the server" move "$DISK" far || finish
fi
sleep 1
fault path hold
sleep 0.5
case $CASE in
worker) check "the worker is killed" kill_worker "$MNT" ;;
timeout) sleep 2 ;;   # the connection is given up, and the guest's requests if no other comes in time
target) sleep 1.5 ;;  # the target is given up, the job comes back to it
esac
before=$(made)
sleep 2
fault path ok # the old writes set out
matches "old writes were on their way" 'held bytes (let go|lost)' "$(sleep 1; proxy_log path)"
check "the guest goes on writing" wait_for 60 more_than "$((before + 500))"
sleep 1
if [ "$CASE" = target ]; then
    check "the move comes back to its target" wait_progress "$DISK" mirrored 60
    sleep 1
    xset "$DISK" control switchover
    check "it is done" wait_progress "$DISK" "done" 60
fi
[ "$CASE" != timeout ] || echo "        requests that ended in an error: $(grep -c ERROR "$SCRATCH/disk.load")"
end_load disk "every read was right"
proven disk "$DISK" "the content"
echo "        $(proxy_log path | grep -E 'late|held' | sort | uniq -c | tr '\n' ' ')"
check "the mount ends cleanly" stop_mount "$MNT"
[ "$KIND" != nfs ] || proven disk "$SCRATCH/server/export/disk" "the content on the server"
finish
