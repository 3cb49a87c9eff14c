#!/bin/bash
# A request that kills the worker: after three deaths it is answered with an error, and nobody else notices. What kills a
# worker from outside never counts against a request.
. "$(dirname "$0")/../lib/functions.sh"
requires python3

# mounted SIGNAL EVENT:NUMBER: a mount whose workers die of one certain request.
mounted() {
    export SVMFS_CRASH_AT=$2:$1
    start_mount "$CONFIG" "$MNT" || { failed "the mount"; finish; }
    unset SVMFS_CRASH_AT
}
deaths() { grep -c 'the worker (process [0-9]*) was ended by signal '"${1:-}" "$STATE/log"; }

# write_at FILE OFFSET BYTES [direct]: prints the error's name, "ok" without one.
write_at() {
    python3 - "$@" <<'PYTHON'
import errno, mmap, os, sys
name, offset, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = mmap.mmap(-1, length)
data.write(b'P' * length)
f = os.open(name, os.O_RDWR | (os.O_DIRECT if 'direct' in sys.argv else os.O_SYNC))
try:
    os.pwrite(f, data, offset)
    print('ok')
except OSError as e:
    print(errno.errorcode[e.errno])
PYTHON
}

OFFSET=41947136 # where the loads never write

two_datastores 512M "jobs = 2"
STATE=$SCRATCH/state
[ -e /dev/log ] && skip_all "the log goes to syslog"
stop_mount "$MNT"

# --- a write, by each of the five signals, beside others ---

for number in 11 7 4 8 6; do
    mounted "$number" "write:$OFFSET"
    truncate -s 64M "$MNT/poison"
    before=$(deaths)
    start_load "other$number" --size=16M --direct --odd --think=1000 "$MNT/load"
    xset "$MNT/load" migrate b
    same "signal $number: the write that kills is answered with an I/O error" EIO "$(write_at "$MNT/poison" $OFFSET 4096 direct)"
    same "after three deaths" 3 $(($(deaths) - before))
    matches "and is named" "WRITE of poison \(node [0-9]+\), 4096 bytes at offset $OFFSET, has crashed the worker 3 times" \
        "$(tail -30 "$STATE/log")"
    same "the next write of that disk is done" ok "$(write_at "$MNT/poison" 4096 4096 direct)"
    check "and all of it can be read" cmp -n 4096 -i 4096:0 "$MNT/poison" <(head -c 4096 /dev/zero | tr '\0' P)
    check "a job that ran goes on" wait_progress "$MNT/load" "done" 60
    sleep 1
    end_load "other$number" "the others saw nothing"
    same "and no worker died since" 3 $(($(deaths) - before))
    check "it unmounts" stop_mount "$MNT"
    rm -f "$SCRATCH"/[ab]/{poison,load}
done

# --- in a thread of a pool: SETXATTR ---

mounted 11 call:21
echo hello >"$MNT/file"
before=$(deaths)
same "a call that kills the pool's thread is answered with an I/O error" "Input/output error" \
    "$(LC_ALL=C setfattr -n user.test -v 1 "$MNT/file" 2>&1 | sed 's/.*: //')"
same "after three deaths" 3 $(($(deaths) - before))
same "the mount goes on" hello "$(cat "$MNT/file")"
check "it unmounts" stop_mount "$MNT"

# --- what comes from outside counts for nobody ---

write_config "$SCRATCH/hung.conf" "a=local:$SCRATCH/a" "h=fault:local:$SCRATCH/b;faults = $SCRATCH/faults;timeout = 10m" \
    -- "default = a" "state = $STATE"
: >"$SCRATCH/rules" && mv "$SCRATCH/rules" "$SCRATCH/faults"
start_mount "$SCRATCH/hung.conf" "$MNT" -o default=h || { failed "the mount"; finish; }
truncate -s 1M "$MNT/hung"
xget "$MNT/hung" datastore >/dev/null
echo "write hang" >"$SCRATCH/rules" && mv "$SCRATCH/rules" "$SCRATCH/faults"
write_at "$MNT/hung" 0 4096 direct >"$SCRATCH/hung.out" 2>&1 &
WRITER=$!
at_end end_process "$WRITER"
sleep 1
for ((i = 0; i < 20; i++)); do
    wait_for 10 kill_worker "$MNT" || failed "no worker to kill"
    sleep 0.3
done
check "20 kills later the hung request still waits" kill -0 "$WRITER"
same "and no request was given up" 0 "$(tail -100 "$STATE/log" | grep -c 'hung.*has crashed')"
: >"$SCRATCH/rules" && mv "$SCRATCH/rules" "$SCRATCH/faults"
wait_for 30 gone "$WRITER"
same "it is answered when its datastore is well again" ok "$(cat "$SCRATCH/hung.out")"
check "it unmounts" stop_mount "$MNT"
finish
