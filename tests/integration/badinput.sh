#!/bin/bash
# What is asked for wrongly: each an errno and a sentence, and nothing changed.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 mkfifo
scratch
make_fs ext4 256M a && make_fs ext4 64M small || skip_all "cannot make filesystems on loop devices"
A=$SCRATCH/a B=$SCRATCH/b SMALL=$SCRATCH/small MNT=$SCRATCH/mnt
mkdir "$B" && chmod 755 "$B"
write_config "$SCRATCH/svmfs.conf" "a=local:$A" "b=local:$B" "small=local:$SMALL" "away=local:$SCRATCH/nowhere" -- \
    "default = a" "state = $SCRATCH/state"
# A datastore that was never seen could hold any name; this one was, and then goes away.
mkdir "$SCRATCH/nowhere"
start_mount "$SCRATCH/svmfs.conf" "$MNT" && stop_mount "$MNT" && mv "$SCRATCH/nowhere" "$SCRATCH/elsewhere"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount"; finish; }
DISK=$MNT/disk
dd if=/dev/urandom of="$DISK" bs=1M count=80 status=none
chmod 644 "$DISK"

everything() {
    (cd "$SCRATCH" && find a b small mnt \( -name lost+found -o -path '*/.svmfs' -empty \) -prune -o ! -name .svmfs -printf '%p %y %m %U %G %s %l\n' | sort
        sha256sum "$DISK" "$A/disk"; xget "$DISK" datastore; getfattr -d --absolute-names "$DISK")
}

# refused "sentence" "errno's words, an expression" FILE NAME VALUE
refused() {
    local what=$1 wanted=$2 file=$3 got why
    got=$(xset_error "$file" "$4" "$5")
    why=$(xget "$file" error)
    if [ -z "$got" ]; then
        failed "$what: it is accepted"
        wait_for 30 state_is "$file" "done" failed cancelled ""
        return
    fi
    matches "$what: $got" "^($wanted)\$" "$got"
    if [ "${#why}" -lt 10 ] || [ "${#why}" -gt 2000 ]; then failed "$what: no proper sentence: '${why:0:200}'"; else ok "$what: \"${why:0:160}\""; fi
    [ "$(everything)" = "$BEFORE" ] && ok "$what: nothing changed" ||
        failed "$what: $(diff <(echo "$BEFORE") <(everything) | head -5)"
}
INVALID="Invalid argument"
BEFORE=$(everything)

# --- the target ---

refused "no such datastore" "No such device" "$DISK" migrate nosuch
refused "a datastore that is away" "No such device|Input/output error|Transport endpoint is not connected|Resource temporarily unavailable|Host is down|No such file or directory|No such device or address" \
    "$DISK" migrate away
refused "where it is already" "File exists|$INVALID|Operation already in progress" "$DISK" migrate a
refused "a target with too little space" "No space left on device" "$DISK" migrate small
echo theirs >"$B/disk"
BEFORE=$(everything)
refused "a target that has the name" "File exists" "$DISK" migrate b
rm "$B/disk" && mkdir "$B/disk"
BEFORE=$(everything)
refused "a directory in the way" "File exists|Is a directory" "$DISK" migrate b
rmdir "$B/disk"
mkdir "$MNT/folder" && dd if=/dev/urandom of="$MNT/folder/inner" bs=64K count=1 status=none
echo file >"$B/folder"
BEFORE=$(everything)
refused "a file where the disk's directory would be" "Not a directory|File exists" "$MNT/folder/inner" migrate b
rm "$B/folder"
BEFORE=$(everything)

# --- garbage ---

for value in "" " " "," ",," ",rate=1M" "b," "b,," " b" "b " $'b\n' "b,rate" "b,rate=" "b,rate=fast" "b,rate=-1" "b,rate=1e3" \
    "b,rate=99999999999999999999999" "b,rate=1M,rate=2M,x" "b,nosuch=1" "b,nosuch" "b,switchover=sometimes" "b,switchover" \
    "b,format=qcow2" "b,format=" "b;rate=1M" "../b" "/b" "b/.." "local:/tmp" "%s%s%n" "b,verify=maybe" "b,keep=never" "b,latency" \
    "b,latency=0" "b,latency=2" "b,latency=-1ms" "b,latency=soon" "b,deadline=soon" "b,deadline=10ms" "b,deadline" "b,until=x"; do
    refused "garbage $(printf %q "$value")" "$INVALID|No such device|Operation not supported" "$DISK" migrate "$value"
done
refused "a target name of almost 64 KiB" "$INVALID|No such device|File name too long|Argument list too long" "$DISK" migrate \
    "$(head -c 65000 /dev/zero | tr '\0' x)"
refused "a value that is not text" "$INVALID|No such device" "$DISK" migrate 0xff00fe0080c1
refused "a name with a zero byte in it" "$INVALID|No such device" "$DISK" migrate 0x6200
refused "escape sequences" "$INVALID|No such device" "$DISK" migrate $'\e[2J\e[31mb'
why=$(xget "$DISK" error)
check "the sentence about them is printable" test "$(printf %s "$why" | tr -d '[:print:]' | wc -c)" = 0

# --- control without a job, and names that are only read ---

for verb in cancel pause resume switchover; do
    refused "$verb without a job" ".+" "$DISK" control "$verb"
done
for verb in "" nonsense "pause " PAUSE "pause,resume"; do
    refused "control '$verb'" "$INVALID|Operation not supported" "$DISK" control "$verb"
done
for name in progress datastore error worker nosuch; do
    refused "setting user.svmfs.$name" ".+" "$DISK" "$name" x
done
for rate in "" x -1 1.5.2 "1M " 0x10; do
    refused "rate '$rate'" "$INVALID|No data available" "$DISK" rate "$rate"
done
removal=$(LC_ALL=C setfattr -x user.svmfs.datastore "$DISK" 2>&1)
matches "removing a control name is refused" ': ' "$removal"

# --- what is no disk ---

mkdir "$B/folder" && echo theirs >"$B/folder/inner"
BEFORE=$(everything)
refused "a directory in which a name is taken" "File exists" "$MNT/folder" migrate b
rm -r "$B/folder"
BEFORE=$(everything)
mkfifo "$MNT/fifo" && ln -s disk "$MNT/link"
check "a fifo is refused" bash -c '! setfattr -n user.svmfs.migrate -v b "$1" 2>/dev/null' - "$MNT/fifo"
check "a symlink is refused" bash -c '! setfattr -h -n user.svmfs.migrate -v b "$1" 2>/dev/null' - "$MNT/link"
BEFORE=$(everything)

# --- permission ---

if command -v setpriv >/dev/null; then
    chmod 755 "$MNT"
    as_nobody() { LC_ALL=C setpriv --reuid=65534 --regid=65534 --clear-groups "$@" 2>&1; }
    BEFORE=$(everything)
    matches "without write permission: migrate" 'Permission denied|Operation not permitted' "$(as_nobody setfattr -n user.svmfs.migrate -v b "$DISK")"
    matches "without write permission: control" 'Permission denied|Operation not permitted' "$(as_nobody setfattr -n user.svmfs.control -v cancel "$DISK")"
    matches "without write permission: rate" 'Permission denied|Operation not permitted' "$(as_nobody setfattr -n user.svmfs.rate -v 1M "$DISK")"
    same "reading is allowed to whoever may read" a "$(as_nobody getfattr -n user.svmfs.datastore --only-values --absolute-names "$DISK")"
    same "nothing changed by any of them" "$BEFORE" "$(everything)"
    printf owned >"$MNT/owned" && chown 65534:65534 "$MNT/owned" && chmod 444 "$MNT/owned"
    matches "a read-only file of one's own" 'Permission denied|Operation not permitted' "$(as_nobody setfattr -n user.svmfs.migrate -v b "$MNT/owned")"
    chmod 644 "$MNT/owned"
    same "a writable file of one's own moves" "" "$(as_nobody setfattr -n user.svmfs.migrate -v b "$MNT/owned")"
    check "and arrives" wait_progress "$MNT/owned" "done" 30
else
    skip "permissions: no setpriv"
fi

# --- a disk that is moving already ---

check "a slow move" xset "$DISK" migrate "b,rate=2M"
check "is copying" wait_progress "$DISK" copying 20
for target in b a small nosuch; do
    matches "a second move to $target" 'Operation already in progress|No such device' "$(xset_error "$DISK" migrate $target)"
done
matches "garbage beside it" "$INVALID|Operation already in progress" "$(xset_error "$DISK" migrate "b,,")"
same "the first one goes on" copying "$(progress "$DISK" state)"
xset "$DISK" rate 0
check "and ends well" wait_progress "$DISK" "done" 60
check "with the content" cmp "$B/disk" "$DISK"
check "the mount ends cleanly" stop_mount "$MNT"
finish
