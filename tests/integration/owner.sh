#!/usr/bin/env bash
# Who may use a datastore: two mounts with state directories of their own on one directory, as two hosts that share it
# would be. What only another host can do is done to the record by hand.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse svmfs getfattr setfattr
scratch

mkdir -p "$SCRATCH/shared" "$SCRATCH/own1" "$SCRATCH/own2"
RECORD=$SCRATCH/shared/.svmfs/owner
for n in 1 2; do
    echo mine >"$SCRATCH/own$n/mine"
    write_config "$SCRATCH/$n.conf" "own=local:$SCRATCH/own$n" "shared=local:$SCRATCH/shared;timeout = 3s" -- \
        "default = own" "state = $SCRATCH/state$n"
done

field() { sed -n "s/^$1 //p" "$RECORD"; }
new_log() { tail -c +"$((MARK + 1))" "$SCRATCH/state$1/log" 2>/dev/null; }
mark_log() { MARK=$(stat -c %s "$SCRATCH/state$1/log" 2>/dev/null || echo 0); }
has_new() { new_log "$1" | grep -Eq "$2"; }
mounted() { start_mount "$SCRATCH/$1.conf" "$SCRATCH/mnt$1" "${@:2}"; }
has_not() { ! has_new "$@"; }
seen() { cat "$SCRATCH/mnt$1/file"; }
unseen() { ! seen "$@"; }
pids_of() { echo "$(keeper_pid "$SCRATCH/mnt$1") $(worker_pid "$SCRATCH/mnt$1")"; }
died() { for pid in "$@"; do gone "$pid" || return 1; done; }

# The mount dies as with its host: both processes at once, the kernel's end is taken away.
kill_mount() {
    local pids
    pids=$(pids_of "$1")
    # shellcheck disable=SC2086
    kill -KILL $pids
    # shellcheck disable=SC2086
    wait_for 20 died $pids
    umount -l "$SCRATCH/mnt$1"
}

# Makes the record one of another machine that holds the datastore: rewrite_record BEAT
rewrite_record() {
    local text
    text=$(sed -e "s/^state .*/state held/; s/^mount .*/mount 00000000deadbeef/; s/^boot .*/boot 99999999-0000-0000-0000-000000000000/" \
        -e "s/^machine .*/machine 99999999999999999999999999999999/; s/^host .*/host faraway/" \
        -e "s/^mountpoint .*/mountpoint \/their\/place/; s/^beat .*/beat $(printf %020d "$1")/" "$RECORD")
    printf '%s\n' "$text" >"$RECORD.edit" && mv "$RECORD.edit" "$RECORD"
}

beat_for_ever() {
    local beat=1000
    while :; do
        rewrite_record $((beat++))
        sleep 0.3
    done
}

# --- a claim, and who it is shown to ---

mounted 1 || { failed "the first mount"; finish; }
check "a file is made on the shared datastore" sh -c "echo hello >'$SCRATCH/shared/file' && '$SVMFS' --rescan '$SCRATCH/mnt1' && grep -q hello '$SCRATCH/mnt1/file'"
same "the record is held" held "$(field state)"
same "by this mount" "$SCRATCH/mnt1" "$(field mountpoint)"
same "its keeper stands in it" "$(keeper_pid "$SCRATCH/mnt1")" "$(field keeper)"
before=$(field beat)
beaten() { [ "$((10#$(field beat)))" -gt "$((10#$before + 2))" ]; }
check "it beats" wait_for 30 beaten
same "the record has its size" 512 "$(stat -c %s "$RECORD")"
check "it is not shown" sh -c "! [ -e '$SCRATCH/mnt1/.svmfs' ]"

mark_log 2
mounted 2 || failed "a mount with one datastore away"
check "the second mount says who has it" wait_for 30 has_new 2 "datastore shared is in use.*mounted at $SCRATCH/mnt1"
check "its own datastore works" sh -c "echo x >>'$SCRATCH/mnt2/mine'"
check "the other's file is not served" unseen 2

# --- the worker's death is no change of owner ---

identity=$(field mount) worker=$(worker_pid "$SCRATCH/mnt1")
mark_log 1
kill_worker "$SCRATCH/mnt1"
check "after the worker's death the datastore is served" wait_for 20 sh -c "echo again >'$SCRATCH/mnt1/file'"
new_worker() { [ "$(field worker)" = "$(worker_pid "$SCRATCH/mnt1")" ]; }
check "the next worker beats" wait_for 30 new_worker
same "the record is the same mount's" "$identity" "$(field mount)"
check "the worker is another" [ "$worker" != "$(worker_pid "$SCRATCH/mnt1")" ]
check "nothing was away meanwhile" has_not 1 "datastore shared.*tried again"

# --- both processes die: the other mount has it, without waiting for the record to become stale ---

mark_log 2
kill_mount 1
check "the second mount takes over" wait_for 30 seen 2
check "and says whom it put aside" has_new 2 "datastore shared was in use by.*mnt1.*is gone"
same "the record is the second's" "$SCRATCH/mnt2" "$(field mountpoint)"
check "the second writes" sh -c "echo two >'$SCRATCH/mnt2/file'"

# --- a clean end and a new mount ---

stop_mount "$SCRATCH/mnt2"
same "unmounted, it is free" free "$(field state)"
mark_log 2
mounted 2 && check "mounted again, it is there at once" seen 2
check "nobody was put aside" has_not 2 "was in use"
stop_mount "$SCRATCH/mnt2"

# --- another machine ---

beat_for_ever &
BEATER=$!
at_end kill "$BEATER"
wait_for 20 grep -q faraway "$RECORD"
mark_log 2
mounted 2 || failed "a mount beside another machine's"
check "another machine that beats is left" wait_for 30 has_new 2 "datastore shared is in use.*faraway.*their/place.*--takeover"
check "its file is not served" unseen 2
same "its record stays" faraway "$(field host)"
kill "$BEATER"
wait "$BEATER" 2>/dev/null
rewrite_record 5000 # were it killed in the middle of a change
check "when it stands still it is taken over" wait_for 60 seen 2
check "and is named" has_new 2 "datastore shared was in use.*faraway.*is gone"
same "the record is ours then" "$SCRATCH/mnt2" "$(field mountpoint)"
stop_mount "$SCRATCH/mnt2"

beat_for_ever &
BEATER=$!
at_end kill "$BEATER"
wait_for 20 grep -q faraway "$RECORD"
kill "$BEATER"
wait "$BEATER" 2>/dev/null
rewrite_record 9000
mark_log 2
mounted 2 --takeover || failed "a mount that takes over"
check "--takeover does not wait for it" seen 2
check "and says so" has_new 2 "faraway.*taken over as asked"

# --- taken over while alive: the first writes no more ---

exec 7<>"$SCRATCH/mnt2/file"
echo before >&7
mark_log 2
mounted 1 -o takeover || failed "the mount that takes over from a living one"
check "the living one's datastore is there for the other" cat "$SCRATCH/mnt1/file"
check "the one that lost it says so" wait_for 30 has_new 2 "datastore shared was taken over: it is in use by.*mnt1"
refused() { ! { echo after >&7; } 2>/dev/null || ! sync -d "$SCRATCH/mnt2/file" 2>/dev/null; }
check "its writes to an open file fail" wait_for 20 refused
sum=$(sha256sum <"$SCRATCH/shared/file")
out=$(LC_ALL=C dd if=/dev/zero of="$SCRATCH/mnt2/file" bs=4096 count=1 oflag=direct conv=notrunc 2>&1)
matches "its direct writes fail with EIO" "input/output error" "$out"
out=$(LC_ALL=C mv "$SCRATCH/mnt2/file" "$SCRATCH/mnt2/renamed" 2>&1)
matches "so do its names" "input/output error" "$out"
same "nothing of it arrives" "$sum" "$(sha256sum <"$SCRATCH/shared/file")"
check "its other datastore goes on" sh -c "echo x >'$SCRATCH/mnt2/mine'"
check "the new owner writes" sh -c "echo new >'$SCRATCH/mnt1/file'"
exec 7>&-
same "said once" 1 "$(new_log 2 | grep -c 'was taken over')"
stop_mount "$SCRATCH/mnt2"
same "the loser frees nothing" held "$(field state)"
same "of the other" "$SCRATCH/mnt1" "$(field mountpoint)"
mark_log 1
kill_worker "$SCRATCH/mnt1"
check "the winner's next worker has it" wait_for 20 sh -c "echo more >'$SCRATCH/mnt1/file'"
check "and takes nothing over a second time" has_not 1 "as asked"
stop_mount "$SCRATCH/mnt1"
same "then it is free" free "$(field state)"

# --- where nothing can be written ---

if mkdir -p "$SCRATCH/frozen" && mount --bind "$SCRATCH/shared" "$SCRATCH/frozen" && mount -o remount,bind,ro "$SCRATCH/frozen"; then
    at_end umount "$SCRATCH/frozen"
    write_config "$SCRATCH/3.conf" "frozen=local:$SCRATCH/frozen" -- "state = $SCRATCH/state3"
    mark_log 3
    mounted 3 || failed "a mount of a read-only directory"
    check "a read-only directory is served" cat "$SCRATCH/mnt3/file"
    check "without a record, which is said" has_new 3 "no owner's record"
    stop_mount "$SCRATCH/mnt3"
else
    skip "a read-only directory: no bind mounts here"
fi
finish
