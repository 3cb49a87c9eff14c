#!/bin/bash
# The program's shell: what it answers to its arguments, when it returns, and how a mount begins and ends.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse svmfs mount mount.fuse3
scratch
mkdir "$SCRATCH/a" "$SCRATCH/b" "$SCRATCH/mnt"
C=$SCRATCH/good.conf M=$SCRATCH/mnt
write_config "$C" "a=local:$SCRATCH/a" "b=local:$SCRATCH/b" -- "state = $SCRATCH/state"
at_end stop_mount "$M"

# says "sentence" STATUS PATTERN COMMAND…: exit status, and what it prints on stdout and stderr.
says() {
    local what=$1 wanted=$2 pattern=$3 out status=0
    shift 3
    out=$("$@" 2>&1 </dev/null) || status=$?
    if [ "$status" != "$wanted" ]; then failed "$what: exit status $status, not $wanted: $out"; return 1; fi
    matches "$what" "$pattern" "$out"
}
not_mounted() { ! mountpoint -q "$M"; }

# --- arguments ---

says "--version" 0 '^svmfs [0-9]+\.[0-9]+\.[0-9]+$' "$SVMFS" --version
says "--help" 0 '^usage: svmfs CONFIG MOUNTPOINT' "$SVMFS" --help
says "no arguments" 2 'usage:' "$SVMFS"
says "one argument" 2 'usage:' "$SVMFS" "$C"
says "three arguments" 2 'usage:' "$SVMFS" "$C" "$M" more
says "an unknown option" 2 '\-\-bogus' "$SVMFS" --bogus
says "-o without a value" 2 'no value after -o' "$SVMFS" "$C" "$M" -o
says "two things at a time" 2 'one thing' "$SVMFS" --check-config "$C" --dump-config "$C"

# --- the configuration ---

says "--check-config of a good one" 0 'good: 2 datastores' "$SVMFS" --check-config "$C"
printf '[datastore a]\nurl = local:/a\ntimeout = soon\n' >"$SCRATCH/bad.conf"
says "--check-config names file, line and key" 1 'bad.conf:3: .*timeout' "$SVMFS" --check-config "$SCRATCH/bad.conf"
says "a mount names file, line and key" 1 'bad.conf:3: .*timeout' "$SVMFS" "$SCRATCH/bad.conf" "$M"
says "a configuration that is not there" 1 'none.conf: No such file' "$SVMFS" "$SCRATCH/none.conf" "$M"
"$SVMFS" --dump-config "$C" >"$SCRATCH/dump.conf" && "$SVMFS" --dump-config "$SCRATCH/dump.conf" >"$SCRATCH/again.conf"
check "--dump-config of a dump is the same" cmp "$SCRATCH/dump.conf" "$SCRATCH/again.conf"
matches "and says what was left out" '^timeout = 30s$' "$(cat "$SCRATCH/dump.conf")"

# --- what refuses a mount ---

says "a mountpoint that is not there" 1 'No such file' "$SVMFS" "$C" "$SCRATCH/nowhere"
says "a mountpoint that is a file" 1 'not a directory' "$SVMFS" "$C" "$C"
says "an unknown option of its own" 1 'job=3' "$SVMFS" "$C" "$M" -o rw,job=3
says "a bad value" 1 'jobs' "$SVMFS" "$C" "$M" -o jobs=0
says "a default that is no datastore" 1 'no datastore c' "$SVMFS" "$C" "$M" -o default=c
says "a mountpoint over a datastore" 1 'datastore a .*mountpoint' "$SVMFS" "$C" "$SCRATCH/a"
says "a mountpoint over the state" 1 'state directory' "$SVMFS" "$C" "$M" -o "state=$M/state"
check "none of them left a mount" not_mounted
if command -v setpriv >/dev/null; then
    chmod -R a+rX "$SCRATCH"
    says "not root" 1 'root' setpriv --reuid=65534 --regid=65534 --clear-groups "$SVMFS" "$C" "$M"
else
    skip "not root: no setpriv"
fi

# --- served when it returns ---

# mount(8) gives its helper an empty environment, and the shell then looks where it always does.
LINK=/usr/local/sbin/svmfs
ln -s "$SVMFS" "$LINK" 2>/dev/null && at_end rm -f "$LINK"

for how in plain options mount fstab; do
    if [[ $how = [mf]* ]] && [ ! "$LINK" -ef "$SVMFS" ]; then
        skip "$how: another svmfs is installed at $LINK"
        continue
    fi
    case $how in
    plain) "$SVMFS" "$C" "$M" ;;
    options) "$SVMFS" "$C" "$M" -o "default=b,jobs=1" -o rw,nosuid,x-test,nofail,_netdev ;;
    mount) mount -t fuse.svmfs "$C" "$M" -o noatime ;;
    fstab)
        echo "$C $M fuse.svmfs defaults,nofail,jobs=1 0 0" >"$SCRATCH/fstab"
        mount -T "$SCRATCH/fstab" "$M"
        ;;
    esac >"$SCRATCH/out" 2>&1 </dev/null
    same "$how: exit status" 0 $?
    check "$how: is served at once" sh -c "echo hello >'$M/$how' && rm '$M/$how'" || cat "$SCRATCH/out"
    matches "$how: /proc/mounts tells" "^$C $M fuse.svmfs " "$(grep " $M " /proc/mounts)"
    if [ "$how" = options ]; then
        echo hello >"$M/new"
        check "options: default=b counts" test -f "$SCRATCH/b/new"
        matches "options: nosuid counts" nosuid "$(grep " $M " /proc/mounts)"
        rm "$M/new"
    fi
    if [ "$how" = plain ]; then
        mkdir "$SCRATCH/mnt2"
        says "a second mount of the same state" 1 "$(keeper_pid "$M")" "$SVMFS" "$C" "$SCRATCH/mnt2"
        check "and the first goes on" sh -c "echo hello >'$M/f' && rm '$M/f'"
        echo found >"$SCRATCH/a/copied"
        says "--rescan tells what it found" 0 "^$M: rescan: 1 files found, 0 gone$" "$SVMFS" --rescan "$M"
        same "--rescan finds what was copied into a datastore" found "$(cat "$M/copied" 2>&1)"
        rm "$SCRATCH/a/copied"
        says "--rescan tells what is gone" 0 "^$M: rescan: 0 files found, 1 gone$" "$SVMFS" --rescan "$M"
        check "and it is" test ! -e "$M/copied"
    fi
    check "$how: unmounts" stop_mount "$M"
done
says "--rescan of what is no mount" 1 "$SCRATCH/a: " "$SVMFS" --rescan "$SCRATCH/a"

# --- the foreground, and SIGTERM ---

"$SVMFS" "$C" "$M" -f </dev/null >"$SCRATCH/out" 2>&1 &
PID=$!
at_end end_process "$PID"
check "-f: is served" wait_for 20 mountpoint -q "$M"
kill -TERM "$PID"
wait "$PID"
same "-f: SIGTERM ends it with status 0" 0 $?
check "and the mount is gone" not_mounted

# --- a datastore that is away ---

write_config "$SCRATCH/away.conf" "a=local:$SCRATCH/a" "away=local:$SCRATCH/not-there" -- "state = $SCRATCH/state-away"
echo here >"$SCRATCH/a/here"
check "a datastore that is away refuses no mount" "$SVMFS" "$SCRATCH/away.conf" "$M"
same "what the others hold is served" here "$(cat "$M/here" 2>&1)"
says "a name that only it could tell is no ENOENT" 1 'Input/output error' cat "$M/not-here"
check "it unmounts" stop_mount "$M"
finish
