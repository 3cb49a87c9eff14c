#!/bin/bash
# A server of a datastore is killed and started again, stopped, cut off, black-holed, its replies are swallowed, or it is
# stopped and then the worker is killed as well, while
# disks on it are idle but for their guests' load, copied to it, copied from it, mirrored, and switched over: all of it in
# one outage, for NFS and for a volume on iSCSI.
#
# In each case two datastores lie on the server: `patient` has a timeout longer than the outage, its disks see no error;
# `hasty` has a shorter one, its disk sees EIO and works again by itself; a move to it (`stubborn`) goes on all the same.
# `beside` is a disk of a local datastore.
#
# outage.sh [KIND FAULT]: one case alone. Environment: TOGETHER (cases at a time, default 2), SECONDS_OUT (default 6).
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse svmfs getfattr setfattr
OUT=${SECONDS_OUT:-6}
BUSY=40 # percent of a core that no thread of the worker may use while its server is away and its guests do little

if [ $# = 0 ]; then
    scratch
    side_by_side "${TOGETHER:-2}" "$0" {nfs,iscsi}\ {crash,pause,cut,blackhole,swallow,worker}
    finish
fi
KIND=$1 FAULT=$2 MNT=
scratch
MNT=$SCRATCH/mnt
mkdir "$SCRATCH/local"

begin_outage() {
    case $FAULT in
    crash | pause) "$KIND" "$FAULT" server ;;
    worker)
        "$KIND" pause server
        sleep 1
        kill_worker "$MNT"
        wait_for 10 worker_pid "$MNT" >/dev/null
        ;;
    *) fault path "$FAULT" ;;
    esac
}

end_outage() {
    case $FAULT in
    crash) "$KIND" start server >/dev/null ;;
    pause | worker) "$KIND" resume server ;;
    *) fault path ok ;;
    esac
}

case $KIND in
nfs)
    start_nfs server
    start_proxy path "$(nfs get server NFS_PORT)" "$(nfs get server MOUNT_PORT)"
    mkdir "$SCRATCH/server/export/patient" "$SCRATCH/server/export/hasty"
    PATIENT=$(nfs_url server path patient) HASTY=$(nfs_url server path hasty)
    ;;
iscsi)
    start_iscsi server LUNS=2 LUN_SIZE=512M
    start_proxy path "$(iscsi get server PORT)"
    for lun in 1 2; do format_volume "$(iscsi_url server $lun)"; done
    PATIENT=volume:$(iscsi_url server 1 path) HASTY=volume:$(iscsi_url server 2 path)
    ;;
esac
write_config "$SCRATCH/svmfs.conf" "local=local:$SCRATCH/local" "patient=$PATIENT;timeout = 60s;quiet = 1s" \
    "hasty=$HASTY;timeout = 2s;quiet = 1s" -- "default = local" "state = $SCRATCH/state" "target-timeout = 1s" "jobs = 8" "reactors = 2"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount: $(cat "$SCRATCH/state/log")"; finish; }

load() {
    start_load "$1" --direct --writers=1 --readers=1 --think=8000 --largest=256K --flush=32 --status=3 "${@:2}" "$MNT/$1" \
        3>"$SCRATCH/$1.status"
}

# Requests that this load has made.
made() { tail -1 "$SCRATCH/$1.status" | sed -En 's/.*writes=([0-9]+) reads=([0-9]+).*/\1 + \2/p' | sed 's/^$/0/'; }
more_than() { [ $(($(made "$1"))) -gt "$2" ]; }
ended() { state_is "$1" "done" failed cancelled; }

# Nobody can end a command that waits for the mount: it is left behind.
answers_soon() {
    "$@" >/dev/null 2>&1 &
    wait_for 3 gone "$!" && wait "$!"
}

# --- before ---

load beside --size=8M
load idle --size=8M
load hasty --size=8M --tolerate-errors
load into --size=16M --fill
load from --size=16M --fill
load mirrored --size=8M
load switching --size=8M
load stubborn --size=8M
for disk in idle from; do check "$disk: to the server first" move "$MNT/$disk" patient || finish; done
check "hasty: to the server first" move "$MNT/hasty" hasty || finish
check "into: is copied" xset "$MNT/into" migrate "patient,rate=1M"
check "from: is copied" xset "$MNT/from" migrate "local,rate=1M"
for disk in mirrored switching; do
    check "$disk: a move that waits" xset "$MNT/$disk" migrate "patient,switchover=manual"
    check "$disk: is mirrored" wait_progress "$MNT/$disk" mirrored 60
done
check "stubborn: a move that waits" xset "$MNT/stubborn" migrate "hasty,switchover=manual"
check "stubborn: is mirrored" wait_progress "$MNT/stubborn" mirrored 60
for disk in into from; do check "$disk: is being copied" wait_progress "$MNT/$disk" copying 20; done

# --- the outage ---

begun=$(($(made beside)))
begin_outage
xset "$MNT/switching" control switchover &
SWITCH=$!
usage=$(busiest "$(worker_pid "$MNT")" $((OUT - 1)))
check "ls answers" answers_soon ls -l "$MNT"
check "a file of another datastore is made" answers_soon dd if=/dev/zero of="$MNT/fresh" bs=4k count=1 oflag=direct status=none
sleep 1
during=$(($(made beside) - begun))
for disk in into from mirrored switching stubborn; do
    answers_soon getfattr -n user.svmfs.progress "$MNT/$disk" || echo "        $disk: its progress is not told in the outage"
done
counts=" "
for disk in beside idle hasty; do counts+="$disk $(($(made $disk))) "; done
end_outage
wait "$SWITCH"
check "the other datastore's disk went on: $during requests in the outage" test "$during" -gt $((OUT * 10))
check "no thread spins: the busiest used $usage % of its time" test "$usage" -le $BUSY
check "idle: it goes on" wait_for 40 more_than idle "$(sed 's/.* idle \([0-9]*\) .*/\1/' <<<"$counts")"
check "hasty: it works again by itself" wait_for 40 more_than hasty "$(sed 's/.* hasty \([0-9]*\) .*/\1/' <<<"$counts")"
check "hasty: and told its guest of errors meanwhile" grep -q ERROR "$SCRATCH/hasty.load"

# --- after ---

for disk in into from; do xset "$MNT/$disk" rate 0; done
for disk in mirrored stubborn; do
    check "$disk: it still waits for its switchover" wait_progress "$MNT/$disk" mirrored 60
    xset "$MNT/$disk" control switchover
done
for disk in into from mirrored switching stubborn; do
    check "$disk: the move is done" wait_progress "$MNT/$disk" "done" 60
done
for disk in beside idle hasty into from mirrored switching stubborn; do
    end_load $disk "$disk: the guest saw nothing wrong"
    proven $disk "$MNT/$disk" "$disk: the content"
done
for disk in idle into mirrored switching; do same "$disk: is where it should be" patient "$(xget "$MNT/$disk" datastore)"; done
check "the mount ends cleanly" stop_mount "$MNT"
if [ "$KIND" = nfs ]; then
    for disk in idle into mirrored switching; do
        proven $disk "$SCRATCH/server/export/patient/$disk" "$disk: the content on the server"
    done
    same "no partial stays" "" "$(leftovers "$SCRATCH/local" "$SCRATCH/server/export/patient")"
else
    check "the volume is in order" "$VOLUME_TOOL" check "local:$(iscsi file server 1)"
    # shellcheck disable=SC2034
    BACKING[patient]=$(iscsi file server 1)
    for disk in idle into mirrored switching; do
        size=$(stat -c %s "$SCRATCH/$disk.history") # of an 8 MiB disk 131112: a number of eight bytes a block of 512
        check "$disk: can be read from the LUN" read_without_svmfs patient $disk "$SCRATCH/bytes" $(((size - 40) * 64))
        proven $disk "$SCRATCH/bytes" "$disk: the content on the LUN"
    done
    same "no partial stays" "" "$("$VOLUME_TOOL" list "local:$(iscsi file server 1)" | grep partial)"
fi
finish
