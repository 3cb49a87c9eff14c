#!/bin/bash
# How a mount ends, and what the next one finds.
. "$(dirname "$0")/../lib/functions.sh"
two_datastores 512M
A=$SCRATCH/a B=$SCRATCH/b
DISK=$MNT/disk
again() { start_mount "$CONFIG" "$MNT" || { failed "$1: the next mount"; finish; }; }
not_mounted() { ! mountpoint -q "$MNT"; }
slow() { xset "$1" migrate "$2,rate=4M" && wait_progress "$1" copying 20; }

dd if=/dev/urandom of="$DISK" bs=1M count=48 status=none
mkdir -p "$MNT/vm/one" && printf note >"$MNT/vm/one/notes" && ln -s ../disk "$MNT/vm/link"
cp "$DISK" "$SCRATCH/model"
tree() { (cd "$MNT" && find . -printf '%p %y %m %s %l\n' | sort); }
TREE=$(tree)
same_tree() { same "$1: the same names" "$TREE" "$(tree)"; check "$1: the same content" cmp "$DISK" "$SCRATCH/model"; }

# --- umount ---

exec 5<"$DISK"
check "umount with an open file is refused" bash -c '! umount "$1" 2>/dev/null' - "$MNT"
check "and the mount goes on" cmp "$DISK" "$SCRATCH/model"
exec 5<&-
check "umount with idle files" stop_mount "$MNT"
check "the files stand on the datastore" cmp "$A/disk" "$SCRATCH/model"
again "idle"
same_tree "after an umount"

check "a move is in the middle of it" slow "$DISK" b
dd if=/proc/self/exe of="$DISK" bs=4K count=10 seek=100 conv=notrunc,fsync status=none
cp "$DISK" "$SCRATCH/model"
check "umount with a job running" stop_mount "$MNT"
check "what was written is on the source" cmp "$A/disk" "$SCRATCH/model"
again "a job was running"
same_tree "after an umount in a move"
check "the job goes on by itself" wait_progress "$DISK" "done" 60
same "and ends on its target" b "$(xget "$DISK" datastore)"
same "no partial stays" "" "$(leftovers "$A" "$B")"
check "the content moved" cmp "$B/disk" "$SCRATCH/model"

# --- SIGTERM ---

for how in idle moving; do
    [ $how = idle ] || check "SIGTERM: a move is in the middle of it" slow "$DISK" a
    keeper=$(keeper_pid "$MNT")
    kill -TERM "$keeper"
    check "SIGTERM, $how: the keeper ends" wait_for 30 gone "$keeper"
    check "SIGTERM, $how: nothing is mounted" not_mounted
    again "SIGTERM"
    same_tree "SIGTERM, $how"
    [ $how = idle ] || check "SIGTERM, $how: the job goes on by itself" wait_progress "$DISK" "done" 60
done

# --- twice ---

mkdir -p "$SCRATCH/other"
out=$("$SVMFS" "$CONFIG" "$SCRATCH/other" 2>&1 </dev/null)
status=$?
check "a second mount of the same configuration is refused" test "$status" != 0
matches "with a sentence" '.{15,}' "$out"
check "and is not there" bash -c '! mountpoint -q "$1"' - "$SCRATCH/other"
same_tree "the first one"

# --- the program dies as a whole ---

place=$(xget "$DISK" datastore)
if [ "$place" = a ]; then target=b; else target=a; fi
check "a move is in the middle of it" slow "$DISK" $target
keeper=$(keeper_pid "$MNT") worker=$(worker_pid "$MNT")
partials=$(leftovers "$A" "$B")
matches "there is a partial image" 'partial' "$partials"
kill -KILL "$keeper" "$worker"
wait_for 10 gone "$worker"
umount -l "$MNT"
check "nothing is mounted" not_mounted
stray=$SCRATCH/$target/.svmfs/partial-nobody-knows
printf precious >"$stray"
again "the program was killed"
same_tree "the program was killed"
check "the job starts over by itself" wait_progress "$DISK" "done" 60
same "and ends on its target" $target "$(xget "$DISK" datastore)"
check "the old partial is gone" test ! -e "$(head -1 <<<"$partials")"
check "a partial without a record is not where it was" test ! -e "$stray"
matches "it is set aside" precious "$(cat "$SCRATCH/$target"/.svmfs/stray* 2>/dev/null)"
check "none of this is shown" bash -c '! find "$1" -printf "%P\n" | grep -i "svmfs\|partial\|stray"' - "$MNT"
check "nor to be had by name" bash -c '! stat "$1/.svmfs" 2>/dev/null' - "$MNT"
check "nor to be made" bash -c '! mkdir "$1/.svmfs" 2>/dev/null' - "$MNT"

# --- what happens while nothing is mounted ---

check "umount" stop_mount "$MNT"
printf copied >"$B/copied-in"
rm "$B/vm/one/notes" "$A/vm/one/notes" 2>/dev/null
again "changes from outside"
same "a file that was copied in is found" copied "$(cat "$MNT/copied-in")"
check "one that was taken away is gone" test ! -e "$MNT/vm/one/notes"

exec 6<>"$MNT/orphan"
printf unlinked >&6
rm "$MNT/orphan"
exec 6<&-
check "umount" stop_mount "$MNT"
same "an unlinked file leaves nothing behind" "" "$(grep -rl unlinked "$A" "$B" 2>/dev/null)"
finish
