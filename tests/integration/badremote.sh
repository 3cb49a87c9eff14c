#!/bin/bash
# Remote datastores that are wrong: wrong URLs, exports, rights, secrets, LUNs and volumes. Each is told in a sentence that
# names the datastore and what is wrong, at the start and at run time; the rest of the mount goes on; what is put right
# comes by itself.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr python3
scratch
MNT=$SCRATCH/mnt LOG=$SCRATCH/log SECRET=not-for-the-log WRONG=wrong-not-for-log
mkdir "$SCRATCH/good" "$SCRATCH/other"

# --- servers ---

start_nfs nfs
start_nfs readonly ACCESS=RO
printf theirs >"$SCRATCH/readonly/export/their-disk"
start_nfs squash SQUASH=Root_Squash
chmod 755 "$SCRATCH/squash/export" # root's: nobody may write there
start_iscsi plain LUNS=8 LUN_SIZE=64M READONLY=3
start_iscsi chap LUNS=7 LUN_SIZE=64M USER_NAME=operator SECRET=$SECRET MUTUAL_NAME=target MUTUAL_SECRET=its-own-secret
for lun in 1 4 5 6 8; do format_volume "$(iscsi_url plain $lun)"; done
format_volume "local:$(iscsi file plain 3)"
format_volume "local:$(iscsi file chap 4)"
format_volume "local:$(iscsi file chap 2)"
lun() { iscsi file plain "$1"; }
printf %s "$SECRET" >"$SCRATCH/secret" && chmod 600 "$SCRATCH/secret"
printf %s "$WRONG" >"$SCRATCH/wrong" && chmod 600 "$SCRATCH/wrong"
printf %s "$SECRET" >"$SCRATCH/readable" && chmod 644 "$SCRATCH/readable"
printf %s its-own-secret >"$SCRATCH/mutual" && chmod 600 "$SCRATCH/mutual"
NOBODY=$(free_port)
# a server of something else
python3 - "$SCRATCH/http.port" <<'PY' &
import socket, sys, threading
listener = socket.create_server(('127.0.0.1', 0))
open(sys.argv[1], 'w').write(str(listener.getsockname()[1]))
def serve(connection):
    connection.recv(1000)
    connection.sendall(b'HTTP/1.0 400 Bad Request\r\n\r\n')
    connection.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
PY
at_end end_process "$!"
wait_for 10 test -s "$SCRATCH/http.port"
HTTP=$(cat "$SCRATCH/http.port")
truncate -s 64M "$SCRATCH/file"
IQN=$(iscsi get plain IQN)
iscsi_at() { echo "volume:iscsi://${3:-}127.0.0.1:$1/$IQN/$2"; }
PLAIN=$(iscsi get plain PORT) CHAP=$(iscsi get chap PORT)

# --- disks on what is right, while all is right: a new name needs every datastore's word ---

GOOD=("good=local:$SCRATCH/good" "nfs=$(nfs_url nfs);timeout = 3s;quiet = 200ms" "volume=$(iscsi_at "$PLAIN" 1);timeout = 3s"
    "mended=$(iscsi_at "$PLAIN" 5);timeout = 3s"
    "chap=$(iscsi_at "$CHAP" 2 operator@);password-file = $SCRATCH/secret;mutual-user = target;mutual-password-file = $SCRATCH/mutual;timeout = 3s")
write_config "$SCRATCH/svmfs.conf" "${GOOD[@]}" -- "default = good" "state = $SCRATCH/state"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount"; finish; }
dd if=/dev/urandom of="$MNT/good-disk.2" bs=64k count=2 status=none
truncate -s 8M "$MNT/good-disk"
for name in nfs volume mended chap; do
    dd if=/dev/urandom of="$MNT/$name-disk" bs=1M count=4 conv=fsync status=none
    check "$name: takes a disk" move "$MNT/$name-disk" $name
done
check "the mount ends cleanly" stop_mount "$MNT"

# --- and now the damage ---

iscsi stop plain
end=$(($(stat -c %s "$(lun 1)") - 1048576))
garbage() { dd if=/dev/urandom of="$1" bs=4096 count=1 seek="$2" oflag=seek_bytes conv=notrunc status=none; }
garbage "$(lun 5)" 0                                                       # one superblock
for at in 0 524288 $end $((end + 524288)); do garbage "$(lun 6)" $at; done # all of them
truncate -s 32M "$(lun 4)"                                                 # cut off
iscsi start plain >/dev/null

# --- urls that say nothing: refused when the configuration is read, or named when the datastore is opened ---

BAD=() declare -A SAYS
# bad NAME PATTERN URL[;options]
bad() {
    local name=$1 out
    SAYS[$name]=$2
    write_config "$SCRATCH/one.conf" "good=local:$SCRATCH/good" "$name=$3" -- "state = $SCRATCH/one"
    if out=$("$SVMFS" --check-config "$SCRATCH/one.conf" 2>&1); then
        BAD+=("$name=$3;timeout = 3s")
    else
        matches "$name: refused when it is read" "$name.*($2)|($2).*$name" "$out"
    fi
}

bad no-host 'host|url|nfs://' "nfs://"
bad no-export 'export|path|nfs://' "nfs://127.0.0.1"
bad no-slashes 'nfs://|url|host' "nfs:/srv/disks"
bad nfs-option 'nosuch|option|parameter' "nfs://127.0.0.1/export?nosuch=1"
bad nfs-port 'port' "nfs://127.0.0.1/export?nfsport=99999"
bad no-iqn 'iqn|target|iscsi://' "volume:iscsi://127.0.0.1"
bad no-lun 'lun|iscsi://' "volume:iscsi://127.0.0.1/$IQN"
bad odd-lun 'lun|iscsi://' "volume:iscsi://127.0.0.1/$IQN/first"
bad password-in-url 'password' "volume:iscsi://operator:$WRONG@127.0.0.1/$IQN/1"
bad bare-lun 'volume' "iscsi://127.0.0.1:$PLAIN/$IQN/1"
bad bare-device 'volume' "device:/dev/loop0"
bad no-image 'volume|url|image' "volume:"
bad odd-image 'nosuch' "volume:nosuch:/dev/loop0"
bad volume-of-nfs 'nfs|raw|image' "volume:nfs://127.0.0.1/export"

# --- servers that refuse ---

bad no-server 'refused|connect' "nfs://127.0.0.1/export?nfsport=$NOBODY&mountport=$NOBODY"
bad no-nfs-server 'nfs|server|answer' "nfs://127.0.0.1/export?nfsport=$HTTP&mountport=$HTTP"
bad no-such-host 'nosuch.invalid' "nfs://nosuch.invalid/export"
bad wrong-export 'export|nosuch' "$(nfs_url nfs | sed 's|/export|/nosuch|')"
bad no-folder 'later|director|folder' "$(nfs_url nfs "" later)"
bad root-squash 'squash|permission|may not' "$(nfs_url squash)"
bad no-target 'listens' "$(iscsi_at "$NOBODY" 1)"
bad no-iscsi-target 'iscsi|login|target|connect' "$(iscsi_at "$HTTP" 1)"
bad wrong-iqn 'target|iqn|not found|login' "volume:iscsi://127.0.0.1:$PLAIN/iqn.2026-01.org.svmfs:other/1"
bad controller 'lun 0|controller|disk|block device' "$(iscsi_at "$PLAIN" 0)"
bad absent-lun 'lun 99|no such|not there|no lun' "$(iscsi_at "$PLAIN" 99)"
bad no-volume 'svmfs-volume|format|no volume' "$(iscsi_at "$PLAIN" 2)"
bad read-only-lun 'read-only|protected' "$(iscsi_at "$PLAIN" 3)"
bad small-lun 'bytes.*large' "$(iscsi_at "$PLAIN" 4)"
bad damaged-volume 'svmfs-volume|superblock|damaged|no volume' "$(iscsi_at "$PLAIN" 6)"
bad no-secret 'password|user|chap|authent|login' "$(iscsi_at "$CHAP" 3)"
bad wrong-secret 'password|secret|chap|authent|login' "$(iscsi_at "$CHAP" 4 operator@);password-file = $SCRATCH/wrong"
bad readable-secret 'readable|read by|0600|owner|mode' "$(iscsi_at "$CHAP" 5 operator@);password-file = $SCRATCH/readable"
bad absent-secret 'nowhere' "$(iscsi_at "$CHAP" 6 operator@);password-file = $SCRATCH/nowhere"
bad wrong-mutual 'mutual|target|password|secret|chap|authent|login' \
    "$(iscsi_at "$CHAP" 7 operator@);password-file = $SCRATCH/secret;mutual-user = target;mutual-password-file = $SCRATCH/wrong"
bad no-device '/dev/nosuch' "volume:device:/dev/nosuch"
bad no-block-device 'block device' "volume:device:$SCRATCH/file"
bad no-file 'nosuch' "volume:local:$SCRATCH/nosuch"

# --- all of them in one mount, with a few that are right ---

write_config "$SCRATCH/svmfs.conf" "${GOOD[@]}" "readonly=$(nfs_url readonly)" "${BAD[@]}" -- "default = good" "state = $SCRATCH/state"
at_end stop_mount "$MNT"
"$SVMFS" -f "$SCRATCH/svmfs.conf" "$MNT" </dev/null >"$LOG" 2>&1 &
at_end end_process "$!"
check "the mount is made with all of that" wait_for 60 mountpoint -q "$MNT" || { cat "$LOG"; finish; }
start_load good --keep --direct --think=2000 "$MNT/good-disk"
logged() { grep -Eiq -- "$1" "$LOG"; }
for item in "${BAD[@]}"; do
    name=${item%%=*}
    if wait_for 30 logged "datastore ${name}[ :,].*(${SAYS[$name]})"; then
        ok "$name: \"$(grep -E "datastore ${name}[ :,]" "$LOG" | head -1 | sed 's/.*\(datastore .*\)/\1/' | cut -c 1-200)\""
    else
        failed "$name: nothing that matches ${SAYS[$name]}: $(grep -E "$name" "$LOG" | head -3)"
    fi
    matches "$name: no disk moves there" 'No such device' "$(xset_error "$MNT/good-disk" migrate "$name")"
    [ -n "$(xget "$MNT/good-disk" error)" ] || failed "$name: no sentence"
done
check "a volume with one damaged superblock is served" grep -Eiq 'mended.*(superblock|copy|damaged)' "$LOG"
for name in nfs volume mended chap; do
    check "$name: is served" dd if="$MNT/$name-disk" of=/dev/null bs=1M iflag=direct status=none
done
same "an export that is read-only can be read" theirs "$(cat "$MNT/their-disk")"
check "and not be written" bash -c '! echo more >>"$1"' - "$MNT/their-disk"
xset "$MNT/good-disk.2" migrate readonly
wait_progress "$MNT/good-disk.2" failed 30 2>/dev/null
matches "a move there fails" 'readonly.*read-only' "$(xget "$MNT/good-disk.2" error)"
check "no secret stands in the log" bash -c '! grep -e "$1" -e "$2" "$3"' - "$SECRET" "$WRONG" "$LOG"
"$SVMFS" --dump-config "$SCRATCH/svmfs.conf" >"$SCRATCH/dump"
check "nor in the configuration's dump" bash -c '! grep -e "$1" -e "$2" "$3"' - "$SECRET" "$WRONG" "$SCRATCH/dump"
check "nor in a process's arguments" bash -c '! tr "\0" " " <"/proc/$1/cmdline" | grep -e "$2"' - "$(worker_pid "$MNT")" "$SECRET"

# --- at run time ---

reading() { timeout 20 dd if="$1" of=/dev/null bs=64k count=1 iflag=direct status=none 2>"$SCRATCH/error"; }
writing() { timeout 20 dd if=/dev/zero of="$1" bs=64k count=1 oflag=direct conv=notrunc,fsync status=none 2>"$SCRATCH/error"; }
lines() { wc -l <"$LOG"; }
fresh_lines() { tail -n +$((LINES_BEFORE + 1)) "$LOG"; }
freshly_logged() { fresh_lines | grep -Eiq "$1"; }
# broken NAME "what" PATTERN reading|writing: its disk answers with an error within its timeout, and the log says why
broken() {
    local name=$1 what=$2 pattern=$3 how=$4 status=0
    $how "$MNT/$name-disk" || status=$?
    case $status in
    0) failed "$what: no error" ;;
    124) failed "$what: no answer within its timeout" ;;
    *) ok "$what: $(tail -1 "$SCRATCH/error" | sed 's/.*: //')" ;;
    esac
    if wait_for 20 freshly_logged "$name.*($pattern)"; then
        ok "$what: \"$(fresh_lines | grep -E "$name" | head -1 | cut -c 1-200)\""
    else
        failed "$what: no sentence about $name with $pattern: $(fresh_lines | head -5)"
    fi
    check "$what: others go on" writing "$MNT/good-disk.2"
}
LINES_BEFORE=$(lines)
iscsi adm plain --lld iscsi --tid 1 --op delete --mode logicalunit --lun 1
broken volume "a LUN that is taken away" 'lun|there|gone' reading
iscsi adm plain --lld iscsi --tid 1 --op new --mode logicalunit --lun 1 --backing-store "$(lun 1)" --bstype rdwr --blocksize 512
check "and is back" wait_for 60 reading "$MNT/volume-disk"

LINES_BEFORE=$(lines)
iscsi adm plain --lld iscsi --tid 1 --op update --mode logicalunit --lun 5 --params readonly=1
broken mended "a LUN that becomes read-only" 'read-only|protected' writing
iscsi adm plain --lld iscsi --tid 1 --op update --mode logicalunit --lun 5 --params readonly=0
check "and may be written again" wait_for 60 writing "$MNT/mended-disk"

LINES_BEFORE=$(lines)
iscsi adm chap --lld iscsi --op unbind --mode account --tid 1 --user operator
iscsi adm chap --lld iscsi --op delete --mode account --user operator
iscsi adm chap --lld iscsi --op new --mode account --user operator --password another-secret
iscsi adm chap --lld iscsi --op bind --mode account --tid 1 --user operator
iscsi drop chap
broken chap "a secret that is changed" 'password|secret|chap|authent|login' reading
iscsi adm chap --lld iscsi --op unbind --mode account --tid 1 --user operator
iscsi adm chap --lld iscsi --op delete --mode account --user operator
iscsi adm chap --lld iscsi --op new --mode account --user operator --password "$SECRET"
iscsi adm chap --lld iscsi --op bind --mode account --tid 1 --user operator
check "and is right again" wait_for 60 reading "$MNT/chap-disk"

LINES_BEFORE=$(lines)
mv "$SCRATCH/nfs/export/nfs-disk" "$SCRATCH/other/"
broken nfs "a file that somebody takes away on the server" 'any more|stale' reading

# --- what is put right comes by itself ---

there() { logged "datastore $1 is there"; }
mkdir "$SCRATCH/nfs/export/later"
check "the folder of an export is made: it comes" wait_for 30 there no-folder
printf %s "$SECRET" >"$SCRATCH/wrong"
chmod 600 "$SCRATCH/readable"
check "a secret is put right: it comes" wait_for 30 there wrong-secret
format_volume "$(iscsi_url plain 2)"
check "a LUN is formatted: it comes" wait_for 30 there no-volume
check "a disk moves there" move "$MNT/good-disk" no-volume
end_load good "the good datastore's disk saw nothing of all that"
proven good "$MNT/good-disk" "its content"
check "the mount ends cleanly" stop_mount "$MNT"
finish
