#!/bin/bash
# A directory moves as one job: its files switch over together or not at all.
. "$(dirname "$0")/../lib/functions.sh"
two_datastores 512M "jobs = 2"
requires python3
A=$SCRATCH/a B=$SCRATCH/b VM=$MNT/vm

# Which datastores the regular files below the directory live on, as the mount says.
homes() { find "$1" -type f | while read -r file; do xget "$file" datastore && echo; done | sort | uniq -c | tr -s ' \n' ' '; }
state() { progress "$VM" state; }

make_vm() {
    mkdir -p "$VM/sub/empty" && chmod 2750 "$VM" && chmod 700 "$VM/sub"
    setfattr -n user.note -v kept "$VM/sub"
    truncate -s 40000001 "$VM/odd.img"
    dd if=/dev/urandom of="$VM/odd.img" bs=1M count=20 seek=3 conv=notrunc status=none
    dd if=/dev/urandom of="$VM/sub/data.img" bs=1M count=64 status=none
    setfattr -n user.mark -v x "$VM/sub/data.img"
    echo settings >"$VM/vm.conf" && : >"$VM/empty.file" && chmod 600 "$VM/vm.conf"
    mkfifo -m 640 "$VM/console" && ln -s ../somewhere "$VM/link"
    python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$VM/monitor.sock"
}

listing() { (cd "$VM" && find . \( -type d -printf '%p d %m %U %G\n' -o -printf '%p %y %m %U %G %s %l\n' \) | sort; find . -type f -exec sha256sum {} + | sort -k2; getfattr -Rd --absolute-names . 2>/dev/null); }

# --- there and back, under load on two of its disks ---

make_vm
BEFORE=$(listing)
truncate -s 64M "$VM/one.img" "$VM/sub/two.img"
start_load one --size=64M --seconds=600 "$VM/one.img"
start_load two --size=64M --seconds=600 "$VM/sub/two.img"
check "the directory moves" move "$VM" b
same "all of its files live on b" " 6 b " "$(homes "$VM")"
matches "progress of the directory" "^state=done percent=100.0 .*files=9 .*pause_us=[0-9]+ source=a target=b" "$(xget "$VM" progress)"
matches "progress of a file in it" "^state=done " "$(xget "$VM/vm.conf" progress)"
check "nothing of it stays on a" test ! -e "$A/vm"
same "the directory's home is b" b "$(xget "$VM" datastore)"
echo new >"$VM/sub/new" && same "what is made in it now is made on b" b "$(xget "$VM/sub/new" datastore)" && rm "$VM/sub/new"
check "and back" move "$VM" a
check "nothing of it stays on b" test ! -e "$B/vm"
end_load one "the disk one under load"
end_load two "the disk two under load"
proven one "$VM/one.img" "the disk one is what was written"
proven two "$VM/sub/two.img" "the disk two is what was written"
rm "$VM/one.img" "$VM/sub/two.img"
same "names, owners, modes, contents, attributes are as before" "$BEFORE" "$(listing)"
check "no partial stays" test -z "$(leftovers "$A" "$B")"
check "the monitor's socket is one still" test -S "$VM/monitor.sock"

# --- what changes while it moves ---

xset "$VM" migrate b,switchover=manual
check "it waits for its switchover" wait_progress "$VM" mirrored
same "nothing has switched yet" " 4 a " "$(homes "$VM")"
same "its files say so: the move is its directory's" "Device or resource busy" "$(xset_error "$VM/vm.conf" control cancel)"
same "a file of it cannot be moved alone" "Operation already in progress" "$(xset_error "$VM/vm.conf" migrate b)"
same "nor a directory of it" "Operation already in progress" "$(xset_error "$VM/sub" migrate b)"
same "nor the directory twice" "Operation already in progress" "$(xset_error "$VM" migrate b)"
dd if=/dev/urandom of="$VM/sub/born" bs=1M count=3 status=none
mkdir "$VM/later" && echo inside >"$VM/later/file"
rm "$VM/odd.img" && mv "$VM/vm.conf" "$VM/renamed.conf" && mv "$VM/sub/data.img" "$MNT/outside.img"
echo rewritten >"$VM/empty.file" && chmod 640 "$VM/empty.file"
SUM=$(sha256sum <"$VM/sub/born")
sleep 1.5
check "what was made becomes part of it" wait_progress "$VM" mirrored
xset "$VM" control switchover
check "it switches" wait_progress "$VM" "done"
same "what was made, renamed, rewritten in it is on b" " 4 b " "$(homes "$VM")"
same "what was made has its content" "$SUM" "$(sha256sum <"$VM/sub/born")"
same "what was rewritten, too" "rewritten 640" "$(cat "$VM/empty.file") $(stat -c %a "$VM/empty.file")"
check "what was unlinked is gone from both" test ! -e "$A/vm/odd.img" -a ! -e "$B/vm/odd.img"
same "what was renamed out of it went with it" b "$(xget "$MNT/outside.img" datastore)"
check "nothing of it stays on a" test ! -e "$A/vm"
check "no partial stays" test -z "$(leftovers "$A" "$B")"
mv "$MNT/outside.img" "$VM/sub/data.img"

# --- not at all ---

BEFORE=$(listing)
xset "$VM" migrate a,rate=4M
wait_for 20 state_is "$VM" copying && xset "$VM" control pause
check "pause" wait_for 20 state_is "$VM" paused
check "what was under way ends" wait_for 20 still "$VM"
COPIED=$(progress "$VM" copied) && sleep 1
same "nothing is copied meanwhile" "$COPIED" "$(progress "$VM" copied)"
xset "$VM" control resume && check "resume" wait_for 20 state_is "$VM" copying mirrored
xset "$VM" control cancel
check "cancel" wait_progress "$VM" cancelled
same "all is on b as before" "$BEFORE b" "$(listing) $(xget "$VM" datastore)"
check "no partial stays" wait_for 10 test -z "$(leftovers "$A" "$B")"
mkdir -p "$A/vm/sub" && echo theirs >"$A/vm/sub/born"
same "a name that is taken on the target" "File exists" "$(xset_error "$VM" migrate a)"
matches "and its sentence" "vm/sub/born already" "$(xget "$VM" error)"
rm -r "$A/vm"
xset "$VM" migrate a,switchover=manual && wait_progress "$VM" mirrored
mkdir -p "$A/vm/sub" && echo theirs >"$A/vm/sub/intruder" # appears behind our back: the names of files are free still
xset "$VM" control switchover
check "a stranger's file beside them keeps nothing" wait_progress "$VM" "done"
rm -f "$A/vm/sub/intruder"
check "back" move "$VM" b
mkdir "$VM/hollow" && check "an empty directory moves" move "$VM/hollow" a
same "and is at home there" "a" "$(xget "$VM/hollow" datastore)"
rmdir "$VM/hollow"
same "where it is already" "File exists" "$(xset_error "$VM" migrate b)"

# --- deaths ---

for round in 1 2 3 4 5 6; do
    target=$([ "$(xget "$VM" datastore)" = a ] && echo b || echo a)
    [ "$round" = 1 ] && start_load storm --size=64M --seconds=600 "$VM/sub/data.img"
    xset "$VM" migrate "$target,rate=60M"
    sleep "0.$((round * 17 % 10))"
    kill_worker "$MNT"
    check "killed in a move, round $round: it goes on by itself" wait_progress "$VM" "done" 30
    same "round $round: all of it is there" "1 $target" "$(homes "$VM" | wc -w | awk '{print $1/2}') $(homes "$VM" | tr -d ' 0-9')"
done
end_load storm "the disk under load through the deaths"
proven storm "$VM/sub/data.img" "and is what was written"
for name in family-commit job-commit job-committed family-committed family-flipped job-renamed job-named job-source-removed family-left; do
    stop_mount "$MNT"
    SVMFS_DIE_AT=$name:1 start_mount "$CONFIG" "$MNT" || { failed "mount for $name"; continue; }
    from=$(xget "$VM" datastore) target=$([ "$(xget "$VM" datastore)" = a ] && echo b || echo a)
    BEFORE=$(listing) first=$(worker_pid "$MNT")
    xset "$VM" migrate "$target"
    check "death at $name: it goes on" wait_progress "$VM" "done" 30
    if [ "$(worker_pid "$MNT")" = "$first" ]; then failed "death at $name: nothing died"; fi
    same "death at $name: all of it is the same" "$BEFORE" "$(listing)"
    same "death at $name: on one datastore" "1 $target" "$(homes "$VM" | wc -w | awk '{print $1/2}') $(homes "$VM" | tr -d ' 0-9')"
    wait_for 10 test ! -e "$SCRATCH/$from/vm"
    check "death at $name: nothing of it stays on $from" test ! -e "$SCRATCH/$from/vm"
    check "death at $name: no partial stays" wait_for 10 test -z "$(leftovers "$A" "$B")"
done
finish
