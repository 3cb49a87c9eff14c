#!/bin/bash
# svmfs --upgrade: another program serves the mount, under load and during a move; one that cannot is refused, or taken
# back.
. "$(dirname "$0")/../lib/functions.sh"
requires python3
two_datastores 1G "jobs = 2"
STATE=$SCRATCH/state A=$SCRATCH/a B=$SCRATCH/b
[ -e /dev/log ] && skip_all "the log goes to syslog"
NEW=$SCRATCH/bin/svmfs-new
mkdir -p "$SCRATCH/bin" && cp "$SVMFS" "$NEW"

program_of() { readlink "/proc/$(worker_pid "$MNT")/exe"; }
# upgrades "sentence" STATUS PATTERN PROGRAM [MOUNTPOINT]
upgrades() {
    local out status=0
    out=$(timeout 120 "$4" --upgrade "${5:-$MNT}" 2>&1) || status=$?
    if [ "$status" != "$2" ]; then failed "$1: exit status $status, not $2: $out"; return 1; fi
    matches "$1" "$3" "$out"
}

KEEPER=$(keeper_pid "$MNT")
OLD=$(program_of)
start_load plain --size=48M --direct --odd --punch=1 --think=500 "$MNT/plain"
start_load buffered --size=16M --think=1000 "$MNT/buffered"

# --- to and fro, while a disk moves ---

xset "$MNT/plain" migrate b,rate=20M
for ((i = 1; i <= 6; i++)); do
    if [ $((i % 2)) = 1 ]; then program=$NEW; else program=$SVMFS; fi
    worker=$(worker_pid "$MNT")
    upgrades "upgrade $i" 0 "^$MNT is served by $program \(svmfs [0-9.]+\), after a pause of [0-9]+ ms$" "$program"
    check "by another process" test "$worker" != "$(worker_pid "$MNT")"
    same "which runs that program" "$program" "$(program_of)"
done
check "the move that ran through them ends" wait_progress "$MNT/plain" "done" 120
same "the keeper is the same" "$KEEPER" "$(keeper_pid "$MNT")"

# --- the program stays, whatever becomes of its name ---

upgrades "to the new one" 0 "served by $NEW" "$NEW"
check "a worker that is killed" kill_worker "$MNT"
wait_for 10 test -n "$(worker_pid "$MNT")"
same "is followed by one of the new program" "$NEW" "$(program_of)"
rm "$NEW"
check "a worker that is killed when the program's file is gone" kill_worker "$MNT"
same "is followed by one all the same" "$NEW (deleted)" "$(program_of)"
cp "$SVMFS" "$NEW"

# --- one after the other ---

timeout 120 "$SVMFS" --upgrade "$MNT" >"$SCRATCH/one" 2>&1 &
ONE=$!
timeout 120 "$NEW" --upgrade "$MNT" >"$SCRATCH/two" 2>&1
TWO=$?
wait "$ONE"
case "$?$TWO" in
00 | 01 | 10) ok "two at once: one after the other, or one is refused: $(cat "$SCRATCH/one" "$SCRATCH/two")" ;;
*) failed "two at once: $(cat "$SCRATCH/one" "$SCRATCH/two")" ;;
esac

# --- refused ---

before=$(worker_pid "$MNT")
upgrades "another user's datastore is no mount" 1 "is no mount of svmfs" "$NEW" "$A"
OTHER=$BUILD/tests/svmfs-other-session
if [ -x "$OTHER" ]; then
    upgrades "a program with another session is refused with a sentence" 1 \
        "cannot take this mount: .*session is of version [0-9]+, this program's of version 9999: umount" "$OTHER"
else
    skip "a program with another session: it was not built"
fi
if command -v setpriv >/dev/null; then
    chmod 755 "$SCRATCH" "$SCRATCH/bin"
    out=$(setpriv --reuid=65534 --regid=65534 --clear-groups "$NEW" --upgrade "$MNT" 2>&1)
    matches "who is not root is refused" "only root may upgrade" "$out"
else
    skip "not root: no setpriv"
fi
same "none of them cost a worker" "$before" "$(worker_pid "$MNT")"

# --- taken back ---

for name in svmfs-dying svmfs-hanging; do
    bad=$BUILD/tests/$name
    [ -x "$bad" ] || { skip "$name was not built"; continue; }
    program=$(program_of)
    upgrades "$name, whose worker never serves, is taken back" 1 "$bad cannot serve $MNT.*: .* serves on" "$bad"
    same "and the old one serves" "$program" "$(program_of)"
    matches "the log says so" "$bad cannot serve $MNT.*: back to" "$(tail -20 "$STATE/log")"
    check "a worker that is killed after that" kill_worker "$MNT"
    same "is followed by one of the old program" "$program" "$(program_of)"
done

end_load plain "every read was right through all of it"
end_load buffered "and of the buffered load"
proven plain "$MNT/plain" "the load's content"
proven plain "$B/plain" "and on its datastore"
same "the keeper is still the same" "$KEEPER" "$(keeper_pid "$MNT")"
echo "        programs: $OLD and $NEW"
check "the mount ends cleanly after all that" stop_mount "$MNT"
upgrades "a mount that is gone" 1 "is no mount of svmfs" "$NEW"
finish
