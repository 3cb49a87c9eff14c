#!/bin/bash
# The worker is killed at random, again and again, while disks are written, read and moved: nobody notices.
# Environment: KILLS (how many at least, default 100), SEED.
. "$(dirname "$0")/../lib/functions.sh"
KILLS=${KILLS:-100}
SEED=${SEED:-$RANDOM}
RANDOM=$SEED
requires fio python3
two_datastores 1G "jobs = 2"
A=$SCRATCH/a B=$SCRATCH/b
echo "seed $SEED"

KEEPER=$(keeper_pid "$MNT")
check "the worker can be named" kill -0 "$(worker_pid "$MNT")"
check "and its keeper" kill -0 "$KEEPER"

# kill_while PID FILE…: kills every 50 to 500 ms until the process has ended, and keeps the files moving; leaves KILLED, MOVED.
kill_while() {
    local until=$1 pid last="" file state
    shift
    KILLED=0 MOVED=0
    while ! gone "$until"; do
        sleep "0.$(printf '%03d' $((50 + RANDOM % 450)))"
        pid=$(worker_pid "$MNT")
        if [ -z "$pid" ] || [ "$pid" = "$last" ]; then
            failed "no new worker: '$pid' after '$last'"
            return 1
        fi
        kill -KILL "$pid" && KILLED=$((KILLED + 1)) last=$pid
        for file; do
            state=$(progress "$file" state)
            [ "$state" = "done" ] && MOVED=$((MOVED + 1))
            case $state in
            "" | "done" | failed | cancelled)
                [ "$state" = failed ] && failed "a job failed: $(xget "$file" progress): $(xget "$file" error)"
                if [ "$(xget "$file" datastore)" = a ]; then xset "$file" migrate b; else xset "$file" migrate a; fi
                ;;
            esac
        done 2>>"$SCRATCH/kill.err"
    done
}

# --- data ---

seconds=$((KILLS * 7 / 10 + 10))
cat >"$SCRATCH/fio.job" <<JOBS
[global]
directory=$MNT
verify=crc32c
verify_fatal=1
verify_backlog=512
time_based=1
runtime=$seconds
randseed=$SEED
fallocate=none
group_reporting=0
[direct]
ioengine=libaio
direct=1
iodepth=16
numjobs=3
rw=randrw
rwmixread=30
bsrange=4k-64k
size=48m
[buffered]
ioengine=psync
rw=randwrite
bsrange=4k-128k
size=48m
fsync=64
[mapped]
ioengine=mmap
rw=randwrite
bs=4k
size=16m
JOBS
start_load modelled --size=32M --direct --odd --punch=1 --think=1000 "$MNT/modelled"
fio --output="$SCRATCH/fio.out" "$SCRATCH/fio.job" 2>"$SCRATCH/fio.err" &
FIO=$!
at_end end_process "$FIO"
all_laid_out() { [ "$(find "$MNT" -name '*.[0-9]*.0' | wc -l)" -ge 5 ]; }
wait_for 60 all_laid_out || failed "fio did not begin: $(cat "$SCRATCH/fio.err")"
kill_while "$FIO" "$MNT/direct.0.0" "$MNT/direct.1.0" "$MNT/buffered.0.0" "$MNT/modelled"
check "at least $KILLS kills ($KILLED), each of a new worker" test "$KILLED" -ge "$KILLS"
wait "$FIO"
same "fio finished with nothing wrong" 0 "$?"
check "and named no error" bash -c '! grep -Eiq "verify:|error=|err=[^ 0]|bad " "$1" "$2"' - "$SCRATCH/fio.out" "$SCRATCH/fio.err" ||
    grep -Ei 'verify:|error|bad ' "$SCRATCH/fio.out" "$SCRATCH/fio.err" | head -5
end_load modelled "every read of the modelled load was right through all of it"
echo "        $MOVED moves ended while the worker was being killed"
same "the keeper is the same" "$KEEPER" "$(keeper_pid "$MNT")"
for file in "$MNT/direct.0.0" "$MNT/direct.1.0" "$MNT/buffered.0.0" "$MNT/modelled"; do
    [ -z "$(progress "$file" state)" ] && continue
    check "${file##*/}: what was left of its job ends by itself" wait_progress "$file" "done" 120
done
proven modelled "$MNT/modelled" "the modelled load's content"
proven modelled "$SCRATCH/$(xget "$MNT/modelled" datastore)/modelled" "and on its datastore"
same "no partial stays" "" "$(leftovers "$A" "$B")"

# --- names ---

STORM=$ROOT/tests/fs/storm.py
if [ -f "$STORM" ]; then
    mkdir "$MNT/storm"
    seconds=$((KILLS / 4 + 5))
    python3 "$STORM" "$MNT/storm" "$seconds" "$SEED" >"$SCRATCH/storm.out" 2>&1 &
    STORM_PID=$!
    at_end end_process "$STORM_PID"
    kill_while "$STORM_PID"
    wait "$STORM_PID"
    status=$?
    same "creates, renames and unlinks through $KILLED kills: $(tail -1 "$SCRATCH/storm.out")" 0 $status ||
        grep -v "^ok" "$SCRATCH/storm.out" | head -12
else
    skip "no tests/fs/storm.py"
fi
check "the mount ends cleanly after all that" stop_mount "$MNT"
finish
