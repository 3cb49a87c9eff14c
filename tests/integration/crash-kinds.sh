#!/bin/bash
# Death in the middle of moves between datastores of all kinds (see tests/crash/crash-kinds.c): at least as many moves as
# --runs says are caught by the death of the worker, of everything, or by umount -l. Then everything is looked at without
# svmfs: each disk is whole where it should be, and no volume or folder holds anything else.
#
# crash-kinds.sh [--runs N] [--seed N] [-- OPTION… of crash-kinds]; with SVMFS_FIGURES=FILE its figures are appended there.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr
RUNS=1000 SEED=$RANDOM
while [ $# -gt 0 ]; do
    case $1 in
    --runs) RUNS=$2 && shift ;;
    --seed) SEED=$2 && shift ;;
    --) shift && break ;;
    *) skip_all "no option $1" ;;
    esac
    shift
done
scratch
requires_space 800
PROGRAM=$BUILD/tests/crash/crash-kinds MNT=$SCRATCH/mnt CONFIG=$SCRATCH/svmfs.conf PAGE=$SCRATCH/page
SIZE=${SIZE:-16} VOLUME_SIZE=400M
[ -x "$PROGRAM" ] || skip_all "no program at $PROGRAM"

# --- two datastores of each kind ---

STORES=() CONFIGURED=() # NAME:KIND[:FOLDER]; NAME=URL
add() { # add NAME KIND URL [FOLDER]
    STORES+=("$1:$2${4:+:$4}")
    CONFIGURED+=("$1=$3;timeout = 60s;quiet = 100ms")
}
mkdir "$SCRATCH/local1" "$SCRATCH/local2"
for n in 1 2; do add local$n local "local:$SCRATCH/local$n" "$SCRATCH/local$n"; done
start_nfs server
for n in 1 2; do
    mkdir "$SCRATCH/server/export/nfs$n"
    add nfs$n nfs "$(nfs_url server '' nfs$n)" "$SCRATCH/server/export/nfs$n"
done
start_iscsi target LUNS=2 LUN_SIZE=$VOLUME_SIZE
for n in 1 2; do
    format_volume "$(iscsi_url target $n)"
    add iscsi$n iscsi-volume "volume:$(iscsi_url target $n)"
    BACKING[iscsi$n]=$(iscsi file target $n)
    start_loop device$n $VOLUME_SIZE $((n == 1 ? 512 : 4096))
    format_volume "device:${LOOP[device$n]}"
    add device$n device-volume "volume:device:${LOOP[device$n]}"
    BACKING[device$n]=$SCRATCH/device$n.img
    truncate -s $VOLUME_SIZE "$SCRATCH/file$n.img"
    format_volume "$SCRATCH/file$n.img"
    add file$n file-volume "volume:local:$SCRATCH/file$n.img"
    BACKING[file$n]=$SCRATCH/file$n.img
done
write_config "$CONFIG" "${CONFIGURED[@]}" -- "default = local1" "state = $SCRATCH/state" "jobs = 8" "reactors = 2" \
    "target-timeout = 20s" "epoch = 20ms"

# --- the deaths ---

# What a move of a disk passes; a directory's and the names' events are crash.sh's and family.sh's.
EVENTS=$(grep -rhoE 'event\("[a-z-]+"' "$ROOT/src" "$ROOT/fs" "$ROOT/backends" --include=*.c | cut -d'"' -f2 | sort -u |
    grep -Ev '^(names|intent|rmdir|family)-' | tr '\n' ',')
truncate -s 4096 "$PAGE"
export SVMFS_DIE_PAGE=$PAGE
start_mount "$CONFIG" "$MNT" || { failed "the mount: $(tail -3 "$SCRATCH/state/log")"; finish; }
START="SVMFS_DIE_PAGE=$PAGE setsid -w '$SVMFS' '$CONFIG' '$MNT' </dev/null >>'$SCRATCH/svmfs.out' 2>&1"
begun=$(date +%s.%N)
"$PROGRAM" --start="$START" --datastores="$(IFS=, && echo "${STORES[*]}")" --events="${EVENTS%,}" --page="$PAGE" \
    --runs="$RUNS" --seed="$SEED" --size="$SIZE" --save="$SCRATCH" --disks=8 --think=3000 --keep "$@" "$MNT" >"$SCRATCH/out" 2>&1
status=$?
awk -v begun="$begun" -v ended="$(date +%s.%N)" '/^seed / { print "        in " int(ended - begun) " s" }' "$SCRATCH/out"
grep -v '^PLACE' "$SCRATCH/out" | sed 's/^/        /' | cut -c1-400
sum=$(tail -1 "$SCRATCH/out")
[ -z "${SVMFS_FIGURES:-}" ] || [ $status != 0 ] || sed -n 's/^\(seed\|DEATHS\|EVENT\|PAIR\|LINEAR\) /crash-kinds \1 /p' "$SCRATCH/out" >>"$SVMFS_FIGURES"
same "$sum" 0 $status || tail -5 "$SCRATCH/state/log"
if [ $status = 0 ]; then
    check "at least $RUNS moves met a death" test "$(sed -n 's/^seed [0-9]*: \([0-9]*\) .*/\1/p' "$SCRATCH/out")" -ge "$RUNS"
fi

# --- what is there without svmfs ---

read_from() { # read_from DATASTORE DISK OUT
    case $1 in
    nfs*) cp "$SCRATCH/server/export/$1/$2" "$3" ;;
    *) read_without_svmfs "$1" "$2" "$3" $((SIZE << 20)) ;;
    esac
}
check "the mount ends cleanly" stop_mount "$MNT"
while read -r _ disk store; do
    check "$disk: can be read from $store" read_from "$store" "$disk" "$SCRATCH/bytes"
    proven "$disk" "$SCRATCH/bytes" "$disk: the content on $store"
done < <(sed -n '/^PLACE/p' "$SCRATCH/out")
for store in "${!BACKING[@]}"; do
    check "$store: the volume is in order" "$VOLUME_TOOL" check "local:${BACKING[$store]}"
    same "$store: it holds its disks and nothing else" "$(sed -n "s/^PLACE \(.*\) $store$/\1/p" "$SCRATCH/out" | sort)" \
        "$("$VOLUME_TOOL" list "local:${BACKING[$store]}" | grep -Eo 'disk[0-9]+$|.*partial.*' | sort)"
done
finish
