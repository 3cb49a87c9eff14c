#!/bin/bash
# The keeper's cares: a worker that hangs, one that cannot start, and its own death, which a service manager that keeps its
# descriptors makes good.
# Environment: DEATHS (of keeper and worker together, default 10), SEED.
. "$(dirname "$0")/../lib/functions.sh"
DEATHS=${DEATHS:-10}
SEED=${SEED:-$RANDOM}
RANDOM=$SEED
requires python3
echo "seed $SEED"
two_datastores 1G "jobs = 2"
STATE=$SCRATCH/state B=$SCRATCH/b
[ -e /dev/log ] && skip_all "the log goes to syslog"
log_since() { tail -n +"$1" "$STATE/log"; }
log_lines() { echo $(($(wc -l <"$STATE/log") + 1)); }
another_worker() { local now; now=$(worker_pid "$MNT") && [ -n "$now" ] && [ "$now" != "$1" ]; }

# --- a worker that is stopped ---

start_load load --size=16M --direct --odd --think=1000 "$MNT/load"
pid=$(worker_pid "$MNT") mark=$(log_lines)
kill -STOP "$pid"
check "a worker that is stopped is ended" wait_for 60 gone "$pid"
check "and another serves" wait_for 20 another_worker "$pid"
matches "the log says why" "process $pid\) does not beat any more" "$(log_since "$mark")"
end_load load "a load saw a pause, no error"
proven load "$MNT/load" "and its content is right"
check "it unmounts" stop_mount "$MNT"

# --- one reactor that does not turn any more ---

export SVMFS_DIE_AT=slot-read:2000:hold
start_mount "$CONFIG" "$MNT" || { failed "the mount"; finish; }
unset SVMFS_DIE_AT
pid=$(worker_pid "$MNT") mark=$(log_lines)
start_load load --size=16M --direct --odd --think=100 "$MNT/load2"
check "a worker one of whose reactors stands still is ended" wait_for 90 gone "$pid"
check "and another serves" wait_for 20 another_worker "$pid"
matches "the log says why" "process $pid\) does not beat any more" "$(log_since "$mark")"
end_load load "a load saw a pause, no error"
proven load "$MNT/load2" "and its content is right"

# --- one that cannot start ---

start_load load --size=16M --direct --odd --think=1000 "$MNT/load3"
pid=$(worker_pid "$MNT") mark=$(log_lines)
echo before >"$MNT/note"
mv "$STATE/catalog.db" "$SCRATCH/catalog.db" && mkdir "$STATE/catalog.db"
kill_worker "$MNT"
sleep 6
tries=$(log_since "$mark" | grep -c 'the next worker cannot serve')
check "without its catalog no worker can start: it is tried, ever more slowly ($tries times in 6 s)" \
    test "$tries" -ge 5 -a "$tries" -le 16
matches "the log says why" "the next worker cannot serve: .*catalog" "$(log_since "$mark")"
timeout 60 cat "$MNT/note" >"$SCRATCH/note.out" &
READER=$!
sleep 1
check "who asks waits" kill -0 "$READER"
rmdir "$STATE/catalog.db" && mv "$SCRATCH/catalog.db" "$STATE/catalog.db"
wait "$READER"
same "and is answered when it is back" before "$(cat "$SCRATCH/note.out")"
end_load load "a load saw a pause, no error"
proven load "$MNT/load3" "and its content is right"
check "it unmounts" stop_mount "$MNT"

# --- the keeper's own death, under a service manager ---

MANAGER=$SCRATCH/manager
"$ROOT/tests/lib/service-manager" "$MANAGER" "$SVMFS" "$CONFIG" "$MNT" -f </dev/null >"$SCRATCH/manager.log" 2>&1 &
MANAGER_PID=$!
at_end end_process "$MANAGER_PID"
at_end stop_mount "$MNT"
check "a service manager starts it" wait_for 20 grep -qs ready "$MANAGER/ready"
stored() { sort "$MANAGER/store" | tr '\n' ' '; }
reactors=$(grep -c clone "$MANAGER/store")
matches "and keeps what the mount needs" \
    "^(svmfs-clone-[0-9]+ ){$reactors}svmfs-config svmfs-fuse svmfs-lock svmfs-session $" "$(stored)"
start_load direct --size=48M --direct --odd --punch=1 --think=500 "$MNT/direct"
start_load buffered --size=16M --think=1000 "$MNT/cached"
exec 7<>"$MNT/held" && echo first >&7
rm "$MNT/held"
cp "$CONFIG" "$SCRATCH/good.conf" && echo "nonsense" >"$CONFIG"
for ((i = 1; i <= DEATHS; i++)); do
    keeper=$(cat "$MANAGER/pid") worker=$(worker_pid "$MNT")
    [ -n "$worker" ] || failed "death $i: no worker"
    case $((i % 3)) in
    0) kill -KILL "$keeper" ;; # the worker serves on, until the next keeper ends it
    1) kill -KILL "$keeper" "$worker" ;;
    2) kill -KILL "$worker" "$keeper" ;;
    esac
    wait_for 20 another_worker "$worker" || failed "death $i: no other worker serves"
    # its lock goes a moment before it
    wait_for 5 gone "$worker" || failed "death $i: the old worker lives beside the new one"
    case $((i % 4)) in
    1) state_is "$MNT/direct" queued opening copying mirrored switching ||
        xset "$MNT/direct" migrate "$([ "$(xget "$MNT/direct" datastore)" = a ] && echo b || echo a),rate=30M" 2>>"$SCRATCH/set.err" ;;
    esac
    sleep "0.$(printf '%03d' $((100 + RANDOM % 700)))"
done
same "$DEATHS deaths, as many starts" $((DEATHS + 1)) "$(wc -l <"$MANAGER/starts")"
matches "the keeper's descriptors are the same" \
    "^(svmfs-clone-[0-9]+ ){$reactors}svmfs-config svmfs-fuse svmfs-lock svmfs-session $" "$(stored)"
cp "$SCRATCH/good.conf" "$CONFIG"
echo second >&7
same "a file that was deleted while open has all that was written" "first second" \
    "$(python3 -c 'import os; print(*os.pread(7, 100, 0).decode().split())')"
exec 7>&-
[ -z "$(progress "$MNT/direct" state)" ] || check "a move ends" wait_progress "$MNT/direct" "done" 120
end_load direct "no read or write failed, every read was right"
end_load buffered "nor of the buffered load"
proven direct "$MNT/direct" "its content is right"
proven direct "$SCRATCH/$(xget "$MNT/direct" datastore)/direct" "and on its datastore"
proven buffered "$MNT/cached" "and the buffered load's"

# --- a keeper of another program, an upgraded worker ---

mkdir -p "$SCRATCH/bin" && cp "$SVMFS" "$SCRATCH/bin/svmfs-new"
check "an upgrade" "$SCRATCH/bin/svmfs-new" --upgrade "$MNT"
keeper=$(cat "$MANAGER/pid") worker=$(worker_pid "$MNT")
kill -KILL "$keeper" "$worker"
check "another serves" wait_for 20 another_worker "$worker"
same "by the program that it was upgraded to" "$SCRATCH/bin/svmfs-new" "$(readlink "/proc/$(worker_pid "$MNT")/exe")"

# --- the end ---

kill -TERM "$(cat "$MANAGER/pid")"
wait "$MANAGER_PID"
same "it ends by SIGTERM with status 0" 0 $?
check "the mount is gone" bash -c '! mountpoint -q "$1"' - "$MNT"
same "nothing is kept" "" "$(cat "$MANAGER/store")"
finish
