#!/bin/bash
# A guest is stopped and goes on, is reset, and is powered down in the middle of moves of its disk.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/guest.sh"
requires python3
two_datastores 640M
A=$SCRATCH/a B=$SCRATCH/b DISK=$MNT/disk.img
prepare_guest
GUEST_LOAD=--keep # after a reset the disk is not empty
QEMU_MORE=(-qmp "unix:$SCRATCH/qmp,server=on,wait=off" -action reboot=reset)

# qmp COMMAND: prints the status after it
qmp() {
    python3 - "$SCRATCH/qmp" "$1" <<'PYTHON'
import json, socket, sys
link = socket.socket(socket.AF_UNIX)
link.settimeout(20)
link.connect(sys.argv[1])
lines = link.makefile("rw")
def ask(command):
    lines.write(json.dumps({"execute": command}) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            sys.exit(answer["error"]["desc"])
lines.readline()
ask("qmp_capabilities")
ask(sys.argv[2])
if sys.argv[2] != "quit":
    print(ask("query-status")["status"])
PYTHON
}
starts() { grep -c 'LOAD START' "$SCRATCH/console"; }
started_again() { [ "$(starts)" -gt "$1" ]; }
elsewhere() { if [ "$(xget "$DISK" datastore)" = a ]; then echo b; else echo a; fi; }
slow_move() {
    TARGET=$(elsewhere)
    check "$1: a slow move" xset "$DISK" migrate "$TARGET,rate=16M"
    check "$1: it copies" wait_progress "$DISK" copying 30
}
# (It may be over by itself: a rate cannot be set then.)
hurry() { xset "$DISK" rate 0 2>/dev/null; wait_progress "$DISK" "done" 90; }

start_guest none threads || finish
slow_move stop
same "stop: the guest stands" paused "$(qmp stop)"
check "stop: the move is done meanwhile" hurry
slow_move cont
same "cont: the guest runs" running "$(qmp cont)"
check "cont: the move is done" hurry
check "cont: the load never ended" load_runs
slow_move reset
before=$(starts)
same "reset: the guest begins anew" running "$(qmp system_reset)"
check "reset: the move is done" hurry
check "reset: the guest's load runs again on the same disk" wait_for 120 started_again "$before"
slow_move "after the reset"
check "after the reset: the move is done" hurry
slow_move quit
qmp quit
check "quit: QEMU ends" wait_for 30 gone "$QEMU"
check "quit: the move is done all the same" hurry
same "quit: the disk is there" "$TARGET" "$(xget "$DISK" datastore)"
check "quit: the guest's load found nothing wrong" bash -c '! grep -aq "WRONG\|LOAD FAIL\|ERROR\|I/O error" "$1"' - "$SCRATCH/console"
check "quit: the disk is whole" cmp "$DISK" "$SCRATCH/$TARGET/disk.img"
same "no partial stays" "" "$(leftovers "$A" "$B")"
finish
