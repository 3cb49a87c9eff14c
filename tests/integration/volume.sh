#!/bin/bash
# A volume and svmfs-volume: what is refused, what is found, what is repaired, and that its files are read without svmfs.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr python3 mkfs.ext4 mkfs.xfs
[ -x "$VOLUME_TOOL" ] || skip_all "no program at '$VOLUME_TOOL'"
scratch
requires_space 600
MNT=$SCRATCH/mnt V=$SCRATCH/volume LOG=$SCRATCH/svmfs.log
page() { python3 "$ROOT/tests/lib/volume-page" "$@"; }

# tool STATUS "sentence" PATTERN ARGUMENT…: that exit status, and output that matches
volume_tool() {
    local wanted=$1 what=$2 pattern=$3 out status
    shift 3
    out=$("$VOLUME_TOOL" "$@" 2>&1)
    status=$?
    if [ "$status" = "$wanted" ]; then matches "$what" "$pattern" "$(tr '\n' ' ' <<<"$out" | sed 's/ $//')"; else
        failed "$what: status $status, not $wanted: $out"
    fi
}

# serve: mounts the volume at $V as datastore v, beside a directory
serve() {
    write_config "$SCRATCH/svmfs.conf" "plain=local:$SCRATCH/plain" "v=volume:local:$V;timeout = 5s" -- \
        "default = v" "state = $SCRATCH/state"
    : >"$LOG"
    mkdir -p "$MNT" "$SCRATCH/plain"
    "$SVMFS" -f "$SCRATCH/svmfs.conf" "$MNT" </dev/null >>"$LOG" 2>&1 &
    at_end end_process "$!"
    wait_for 30 mountpoint -q "$MNT" && wait_for 10 root_answers
}
root_answers() { ls "$MNT" >/dev/null 2>&1; }
at_end stop_mount "$MNT"
logged() { grep -Eiq -- "$1" "$LOG"; }

# --- the command line ---

volume_tool 0 "--help" 'usage: svmfs-volume' --help
volume_tool 0 "--version" '^svmfs-volume [0-9]' --version
volume_tool 4 "no command" 'format, check, list' 
volume_tool 4 "an unknown command" '"erase" is none of' erase "$V"
volume_tool 4 "no URL" 'Give its URL' check
volume_tool 4 "an option of another command" 'force is no option of it' check --force "$V"
volume_tool 4 "no path" 'Give its path' rm "$V"
volume_tool 4 "a label that is too long" 'at most 63' format --label "$(printf %064d 0)" "$V"
volume_tool 1 "no image" 'nosuch' format "$SCRATCH/nosuch"
volume_tool 1 "an unknown scheme" 'nosuch:' format nosuch:/x
volume_tool 1 "no datastore of files" 'nfs' format nfs://127.0.0.1/export
truncate -s 5M "$SCRATCH/small"
volume_tool 1 "an image that is too small" 'too few.*12 MiB' format "$SCRATCH/small"
volume_tool 3 "check of nothing that is one" 'too few|no volume' check "$SCRATCH/small"
truncate -s 20M "$SCRATCH/empty"
volume_tool 3 "check of an empty image" 'no volume.*svmfs-volume format' check "$SCRATCH/empty"
volume_tool 1 "list of an empty image" 'no volume' list "$SCRATCH/empty"

# --- what looks like somebody's data ---

# table KIND FILE: a partition table of one partition, DOS or GPT
table() {
    python3 - "$@" <<'PY'
import struct, sys, uuid, zlib
kind, path = sys.argv[1:]
file = open(path, 'r+b')
size = file.seek(0, 2)
last = size // 512 - 1
entry = struct.pack('<B3sB3sII', 0, b'\0\2\0', 0x83 if kind == 'dos' else 0xee, b'\xff\xff\xff', 2048 if kind == 'dos' else 1,
                    20000 if kind == 'dos' else last)
file.seek(446); file.write(entry)
file.seek(440); file.write(b'\x11\x22\x33\x44')
file.seek(510); file.write(b'\x55\xaa')
if kind == 'gpt':
    entries = (uuid.UUID('0fc63daf-8483-4772-8e79-3d69d8477de4').bytes_le + uuid.uuid4().bytes_le +
               struct.pack('<QQQ', 2048, 20000, 0) + 'one'.encode('utf-16-le').ljust(72, b'\0')).ljust(128 * 128, b'\0')
    disk = uuid.uuid4().bytes_le
    for own, other, at in ((1, last, 2), (last, 1, last - 32)):
        head = struct.pack('<8sIIIIQQQQ16sQIII', b'EFI PART', 0x10000, 92, 0, 0, own, other, 34, last - 33, disk, at, 128, 128,
                           zlib.crc32(entries))
        head = head[:16] + struct.pack('<I', zlib.crc32(head)) + head[20:]
        file.seek(own * 512); file.write(head)
        file.seek(at * 512); file.write(entries)
PY
}
# lvm FILE: a label of a physical volume, as pvcreate writes it
lvm() {
    python3 - "$1" <<'PY'
import struct, sys
def crc(data, crc=0xf597a6cf):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xedb88320 if crc & 1 else 0)
    return crc
rest = struct.pack('<I8s', 32, b'LVM2 001') + b'abcdefghijklmnopqrstuvwxyz012345' + struct.pack('<Q', 64 << 20)
rest = rest.ljust(512 - 20, b'\0')
with open(sys.argv[1], 'r+b') as file:
    file.seek(512)
    file.write(struct.pack('<8sQI', b'LABELONE', 1, crc(rest)) + rest)
PY
}
for kind in "ext4 filesystem \"home\"" "xfs filesystem" "dos partition table" "gpt partition table" "LVM2_member" "volume of svmfs \"first\""; do
    f=$SCRATCH/other
    rm -f "$f" && truncate -s $((64 * 1048576 + 512 * 300)) "$f"
    case $kind in
    ext4*) mkfs.ext4 -q -F -L home "$f" ;;
    xfs*) truncate -s 300M "$f" && mkfs.xfs -q "$f" ;;
    dos*) table dos "$f" ;;
    gpt*) table gpt "$f" ;;
    LVM*) lvm "$f" ;;
    *) "$VOLUME_TOOL" format --label first "$f" >/dev/null ;;
    esac
    sum=$(sha256sum <"$f")
    volume_tool 1 "format refuses: $kind" "holds an? $kind.*nothing was changed.*--force" format "$f"
    same "and changes nothing" "$sum" "$(sha256sum <"$f")"
    # the same by a device
    device=$(losetup -f --show "$f") && {
        volume_tool 1 "and on a block device" "holds an? $kind" format "device:$device"
        losetup -d "$device"
    }
    volume_tool 0 "--force formats" 'held an? .*gone' format --force --label second "$f"
    volume_tool 0 "and it is a volume" 'clean' check "$f"
    same "and nothing else any more" "" "$(blkid -p -o export "$f" 2>/dev/null | grep TYPE)"
done
# a table whose backup lies behind the last whole MiB
rm -f "$f" && truncate -s $((64 * 1048576 + 512 * 300)) "$f" && table gpt "$f"
dd if=/dev/zero of="$f" bs=1M count=1 conv=notrunc status=none && "$VOLUME_TOOL" format --force "$f" >/dev/null
same "what lay behind the volume is gone" "" "$(tail -c $((512 * 300)) "$f" | tr -d '\0')"

# --- a volume that is used ---

truncate -s 200M "$V"
volume_tool 0 "format" 'volume of 200 MiB "disks"' format --label disks "local:$V"
serve || { failed "the mount: $(cat "$LOG")"; finish; }
python3 - "$MNT" "$SCRATCH/sums" <<'PY' || failed "cannot make the files"
import hashlib, os, random, sys
mnt, sums = sys.argv[1:]
random.seed(1)
os.makedirs(mnt + '/vm one/deep')
def make(name, size, pieces):
    with open(f'{mnt}/{name}', 'wb') as file:
        for at, length in pieces:
            file.seek(at)
            file.write(random.randbytes(length))
        file.truncate(size)
M = 1 << 20
make('vm one/odd', 12345, [(0, 12345)])
make('empty', 0, [])
make('one', 1, [(0, 1)])
make('all holes', 5 * M + 7, [])
make("vm one/deep/quo'te", 9 * M + 511, [(4096, 100), (3 * M - 10, M), (9 * M, 511)])
make('big', 30 * M, [(0, 30 * M)])
make('sectors', 3 * M + 512, [(M + 512, 1024), (3 * M, 512)])
make('hidden', 6 * M, [(0, 6 * M)])
os.truncate(f'{mnt}/hidden', 2 * M + 100)
os.truncate(f'{mnt}/hidden', 6 * M)
make('gone', 10 * M, [(0, 10 * M)])
os.unlink(f'{mnt}/gone')
make('was', 5 * M, [(M, 2 * M)])
os.rename(f'{mnt}/was', f'{mnt}/is')
os.symlink('big', f'{mnt}/link')
os.chmod(f'{mnt}/one', 0o640)
os.chown(f'{mnt}/one', 12, 34)
os.setxattr(f'{mnt}/one', 'user.colour', b'blue')
fd = os.open(f'{mnt}/big', os.O_RDWR)
os.fsync(fd)
with open(sums, 'w') as out, open(sums + '.sizes', 'w') as sizes:
    for folder, _, names in os.walk(mnt):
        for name in names:
            path = f'{folder}/{name}'
            if not os.path.islink(path):
                print(hashlib.sha256(open(path, 'rb').read()).hexdigest(), os.path.relpath(path, mnt), file=out)
                print(os.path.getsize(path), os.path.relpath(path, mnt), file=sizes)
PY
same "so many files" 9 "$(wc -l <"$SCRATCH/sums")"
volume_tool 1 "format of a volume in use" 'in use' format --force "local:$V"
volume_tool 1 "grow of a volume in use" 'in use' grow "local:$V"
volume_tool 1 "rm in a volume in use" 'in use' rm "local:$V" big
volume_tool 0 "check of a volume in use says so" 'in use by .*motion' check "local:$V"
volume_tool 0 "list of a volume in use says so" 'in use by' list "local:$V"
stop_mount "$MNT" || failed "umount"

volume_tool 0 "check" 'clean' check "$V"
volume_tool 0 "a path with volume: before it" 'clean' check "volume:local:$V"
same "list" "all holes big empty hidden is link one sectors vm one vm one/deep vm one/deep/quo'te vm one/odd" \
    "$("$VOLUME_TOOL" list "$V" | grep -v '^\.svmfs' | tr '\n' ' ' | sed 's/ $//')"
volume_tool 0 "list -l: size, allocated, owner, mode" '-0640 +12 +34 +1 +4096 ' list -l "$V"
volume_tool 0 "list -l: a hole takes nothing" "$((5 * 1048576 + 7)) +0 .* all holes" list -l "$V"
volume_tool 0 "list -l: a symlink" 'link -> big' list -l "$V"

# proves that what is in the file of the mount's sums is what is read without svmfs
reads_back() {
    local sum name what=$1 volume=$2 wrong="" count=0
    shift 2
    while read -r sum name; do
        rm -rf "$SCRATCH/out" && mkdir "$SCRATCH/out"
        (cd "$SCRATCH/out" && "$VOLUME_TOOL" dmtable --dd "$@" "$volume" "$name" | bash -e) || wrong+=" $name(dd)"
        [ "$(sha256sum <"$SCRATCH/out/$(basename "$name")" | cut -d ' ' -f 1)" = "$sum" ] || wrong+=" $name"
        count=$((count + 1))
    done <"$SCRATCH/sums"
    same "$what" "9 files wrong:" "$count files wrong:$wrong"
}
# Once: the number may be another's by the end.
detach() {
    [ -z "$device" ] || losetup -d "$device"
    device=
}
reads_back "dmtable --dd puts every file together, byte for byte" "$V"
device=$(losetup -f --show "$V") && at_end detach
reads_back "and from a block device" "device:$device"
reads_back "with another name for the device" "$V" --device "$device"
detach

# the table itself: no gap, no overlap, sectors
wrong=
while read -r sum name; do
    "$VOLUME_TOOL" dmtable "$V" "$name" >"$SCRATCH/table" || wrong+=" $name"
    at=0
    while read -r start length kind rest; do
        [ "$start" != "#" ] || continue
        [ "$start" = "$at" ] || wrong+=" $name@$start"
        [[ "$kind $rest" =~ ^(linear\ $V\ [0-9]+|zero\ )$ ]] || wrong+=" $name:$kind"
        at=$((start + length))
    done <"$SCRATCH/table"
    size=$(grep -E "^[0-9]+ $name\$" "$SCRATCH/sums.sizes" | cut -d " " -f 1)
    [ "$at" = $(((size + 511) / 512)) ] || wrong+=" $name: $at sectors of $size bytes"
    grep -v '^#' "$SCRATCH/table" | read_table /dev/stdin "$V" "$SCRATCH/read" "$size" 2>/dev/null
    [ "$(sha256sum <"$SCRATCH/read" | cut -d ' ' -f 1)" = "$sum" ] || wrong+=" $name: other bytes"
done < <(grep -v ' empty$' "$SCRATCH/sums")
same "device-mapper tables cover each file without gaps and have its bytes" "" "$wrong"
matches "a last partial sector is said" '^# the file has 12345 bytes: the last 455' "$("$VOLUME_TOOL" dmtable "$V" 'vm one/odd')"
volume_tool 1 "dmtable of a directory" 'no regular file' dmtable "$V" "vm one"
volume_tool 1 "dmtable of nothing" 'no file nosuch.*list' dmtable "$V" nosuch
if dmsetup create svmfs-test-$$ --notable 2>/dev/null; then
    dmsetup remove svmfs-test-$$
    device=$(losetup -f --show "$V") && at_end detach
    "$VOLUME_TOOL" dmtable "device:$device" sectors | dmsetup create svmfs-test-$$ && at_end dmsetup remove svmfs-test-$$
    same "device-mapper takes it" "$(grep ' sectors$' "$SCRATCH/sums" | cut -d ' ' -f 1)" "$(sha256sum </dev/mapper/svmfs-test-$$ | cut -d ' ' -f 1)"
    dmsetup remove svmfs-test-$$
    detach
else
    skip "no device-mapper here"
fi

# --- rm ---

cp "$V" "$SCRATCH/kept"
volume_tool 1 "rm of nothing" 'No such file' rm "$V" nosuch
volume_tool 1 "rm of a directory with files" 'not empty' rm "$V" "vm one"
volume_tool 0 "rm" '^$' rm "$V" big
volume_tool 0 "and the volume is clean" 'clean' check "$V"
matches "and the file is gone" '^0$' "$("$VOLUME_TOOL" list "$V" | grep -c '^big$')"
cp "$SCRATCH/kept" "$V"
volume_mount_reads() {
    local wrong="" sum name
    serve || { failed "$1: no mount: $(cat "$LOG")"; return 1; }
    while read -r sum name; do
        [ "$(sha256sum <"$MNT/$name" | cut -d ' ' -f 1)" = "$sum" ] || wrong+=" $name"
    done <"$SCRATCH/sums"
    same "$1" "" "$wrong"
    stop_mount "$MNT"
}

# --- damage ---

# Unmounting left a checkpoint; a worker that is killed leaves a journal behind it.
serve && for n in 1 2 3; do dd if=/dev/urandom of="$MNT/late$n" bs=64K count=3 conv=fsync status=none; done && cp "$V" "$SCRATCH/kept" && stop_mount "$MNT"
cp "$SCRATCH/kept" "$V"
page "$V" owner "svmfs-owner 1;state free;mount 1;beat 1;keeper 0;worker 0;processes 0;boot ;machine ;host ;mountpoint "
cp "$V" "$SCRATCH/kept"
page "$V" places >"$SCRATCH/places"
same "there is a journal to damage, of more than one page" 2 "$(awk '/journal/ && $3 > 4096' "$SCRATCH/places" | wc -l)"
RANDOM=7
while read -r place at length; do
    cp "$SCRATCH/kept" "$V"
    for _ in 1 2 3; do
        printf '\xa5\x5a\xc3' | dd of="$V" bs=1 seek=$((at + (RANDOM * 32768 + RANDOM) % (length - 3))) conv=notrunc status=none
    done
    volume_tool 2 "check names damage in the $place" 'copy damaged: .*(superblock|anchor|checkpoint|journal).*nothing is lost' check "$V"
    volume_mount_reads "the mount reads it all with a damaged $place"
    case $place in secondary-checkpoint | secondary-journal) ;; # it did not need them
    *) check "and says so" logged 'damaged|another copy|other copy|the other' ;; esac
    cp "$SCRATCH/kept" "$V"
    printf '\xa5\x5a\xc3' | dd of="$V" bs=1 seek=$((at + 40)) conv=notrunc status=none
    volume_tool 0 "check --repair-copies mends the $place" 'written anew.*|clean' check --repair-copies "$V"
    volume_tool 0 "and it is clean" 'clean' check "$V"
done <"$SCRATCH/places"

for part in superblock anchor checkpoint journal end; do
    cp "$SCRATCH/kept" "$V"
    while read -r place at length; do
        if [ "$part" = end ]; then at=$((at + length - 4096)); fi
        printf '\xa5\x5a\xc3' | dd of="$V" bs=1 seek=$((at + 40)) conv=notrunc status=none
    done < <(grep "${part/#end/journal}" "$SCRATCH/places")
    if [ "$part" = end ]; then
        # the last commit in both copies is as if it had never been written: that is what a loss of power leaves
        volume_tool 0 "a journal that ends torn is none of damage" 'clean' check "$V"
        continue
    fi
    sum=$(sha256sum <"$V")
    volume_tool 1 "check of a volume without a whole $part" 'DAMAGED|all four copies|no copy' check "$V"
    volume_tool 1 "and nothing is repaired" 'damaged|no copy' check --repair-copies "$V"
    same "and nothing is changed" "$sum" "$(sha256sum <"$V")"
    : >"$SCRATCH/plain/there" 2>/dev/null
    serve
    check "the mount says it: $(grep -m 1 -o 'datastore v:.*' "$LOG" | cut -c 1-150)" logged 'datastore v: .*(damaged|no copy).*svmfs-volume'
    check "and goes on with its other datastores" bash -c 'ls "$1" && echo x >"$1/there"' - "$MNT"
    stop_mount "$MNT"
done

# --- features of later versions ---

for mask in 'compatible 0x8000' 'read-only 0x10' 'incompatible 0x1' 'incompatible 0x4000000000000000'; do
    cp "$SCRATCH/kept" "$V"
    # shellcheck disable=SC2086
    page "$V" features $mask
    case $mask in
    compatible*)
        volume_tool 0 "a compatible feature is ignored" 'clean' check "$V"
        volume_mount_reads "and the volume is served"
        volume_tool 0 "and written" 'clean' check "$V"
        ;;
    read-only*)
        volume_tool 0 "a read-only compatible feature: it can be read" 'big' list "$V"
        volume_tool 1 "and not be changed" 'only read.*later version' rm "$V" big
        serve
        check "and a mount refuses it by a sentence" logged 'datastore v: .*later version'
        stop_mount "$MNT"
        ;;
    *)
        volume_tool 3 "an incompatible feature is refused by check" 'does not know.*later version' check "$V"
        volume_tool 1 "and by list" 'does not know.*later version' list "$V"
        volume_tool 1 "and format takes care of it" 'volume of svmfs "disks"' format "$V"
        serve
        check "and by a mount" logged 'datastore v: .*does not know.*later version'
        stop_mount "$MNT"
        ;;
    esac
done

# --- sizes ---

cp "$SCRATCH/kept" "$V"
truncate -s 150M "$V"
volume_tool 1 "an image smaller than its volume" '157286400 bytes and its volume 209715200' check "$V"
serve
check "and a mount refuses it" logged 'datastore v: .*157286400 bytes and its volume 209715200'
stop_mount "$MNT"
cp "$SCRATCH/kept" "$V"
truncate -s +100M "$V"
volume_tool 0 "a larger image is no damage" '100 MiB more.*clean|clean' check "$V"
volume_tool 0 "grow" '100 MiB more, 300 MiB now' grow "$V"
volume_tool 0 "grow again" 'all of it already: 300' grow "$V"
volume_tool 0 "and it is clean" 'clean' check "$V"
volume_mount_reads "and everything is there"
truncate -s 8G "$V"
volume_tool 0 "grow to forty times its size" '8192 MiB now' grow "$V"
volume_tool 0 "and it is clean" 'clean' check "$V"
volume_mount_reads "and everything is there"
serve
check "and the room is there" bash -c '[ "$(df --output=size -BM "$1" | tail -1 | tr -dc 0-9)" -gt 8000 ]' - "$MNT"
stop_mount "$MNT"

# --- in use by another host: by the record alone ---

cp "$SCRATCH/kept" "$V"
page "$V" owner "svmfs-owner 1;state held;mount 00000000000000aa;beat 00000000000000000005;keeper 17;worker 18;processes 1;boot b;machine m;host otherhost;mountpoint /elsewhere"
volume_tool 0 "check names another owner" 'in use by .*otherhost|otherhost' check "$V"
(
    for beat in $(seq 6 60); do
        sleep 0.5
        page "$V" owner "svmfs-owner 1;state held;mount 00000000000000aa;beat $(printf %020d "$beat");keeper 17;worker 18;processes 1;boot b;machine m;host otherhost;mountpoint /elsewhere"
    done
) &
BEATING=$!
at_end end_process "$BEATING"
volume_tool 1 "rm while another host's heart beats" 'otherhost.*takeover' rm "$V" big
volume_tool 1 "grow while another host's heart beats" 'otherhost.*takeover' grow "$V"
volume_tool 1 "format --force while another host's heart beats" 'otherhost.*takeover' format --force "$V"
kill "$BEATING" && wait "$BEATING" 2>/dev/null
volume_tool 0 "--takeover takes it" '' rm --takeover "$V" big
volume_tool 0 "and it is clean" 'clean' check "$V"
matches "and nobody's" '^0$' "$("$VOLUME_TOOL" check "$V" 2>&1 | grep -c 'in use')"

# --- a LUN ---

if ! command -v tgtd >/dev/null || ! command -v tgtadm >/dev/null; then
    skip "no iSCSI target here"
    finish
fi
start_iscsi lun LUNS=2 LUN_SIZE=64M
start_iscsi chap LUNS=1 LUN_SIZE=64M USER_NAME=operator SECRET=not-for-the-log
printf %s not-for-the-log >"$SCRATCH/secret" && printf %s wrong-not-for-log >"$SCRATCH/wrong" && cp "$SCRATCH/secret" "$SCRATCH/readable"
chmod 600 "$SCRATCH/secret" "$SCRATCH/wrong" && chmod 644 "$SCRATCH/readable"
L=$(iscsi_url lun 1) CHAP=$(iscsi_url chap 1 | sed 's|//|//operator@|')
mkfs.ext4 -q -F -L home "$(iscsi file lun 1)"
volume_tool 1 "format refuses what a LUN holds" 'holds an ext4 filesystem "home"' format "$L"
volume_tool 0 "--force formats it" 'volume of 64 MiB' format --force "$L"
volume_tool 0 "and it is a volume" 'clean' check "$L"
volume_tool 1 "a LUN that is not there" 'LUN 99|lun 99' format "$(iscsi_url lun 99)"
volume_tool 3 "check of a LUN that is not there" 'LUN 99|lun 99' check "$(iscsi_url lun 99)"
volume_tool 1 "the controller" 'LUN 0|controller' format "$(iscsi_url lun 0)"
volume_tool 1 "a secret is needed" 'password|chap|login|user' format "$(iscsi_url chap 1)"
volume_tool 1 "a wrong secret" 'password|secret|chap|login' format --password-file "$SCRATCH/wrong" "$CHAP"
volume_tool 1 "a secret that others can read" '0600|read by|readable|rights|mode' format --password-file "$SCRATCH/readable" "$CHAP"
volume_tool 0 "the right secret" 'volume of 64 MiB' format --password-file "$SCRATCH/secret" "$CHAP"
volume_tool 0 "and with it it is clean" 'clean' check --password-file "$SCRATCH/secret" "$CHAP"

# in use by a mount: the reservation and the record say so
write_config "$SCRATCH/svmfs.conf" "plain=local:$SCRATCH/plain" "v=volume:$L;timeout = 5s" -- "default = v" "state = $SCRATCH/state2"
: >"$LOG"
"$SVMFS" -f "$SCRATCH/svmfs.conf" "$MNT" </dev/null >>"$LOG" 2>&1 &
at_end end_process "$!"
wait_for 30 mountpoint -q "$MNT" && wait_for 10 root_answers || failed "the mount on a LUN: $(cat "$LOG")"
dd if=/dev/urandom of="$MNT/disk" bs=1M count=5 conv=fsync status=none && sum=$(sha256sum <"$MNT/disk")
volume_tool 1 "format --force of a LUN in use" 'in use|takeover|reserv' format --force "$L"
volume_tool 1 "rm on a LUN in use" 'in use|takeover|reserv' rm "$L" disk
volume_tool 1 "grow of a LUN in use" 'in use|takeover|reserv' grow "$L"
volume_tool 0 "check of a LUN in use" 'in use by' check "$L"
volume_tool 1 "dmtable of a LUN needs a device's name" 'device' dmtable "$L" disk
volume_tool 0 "with one it prints the table" "linear $(iscsi file lun 1) " dmtable --device "$(iscsi file lun 1)" "$L" disk
stop_mount "$MNT" || failed "umount"
(cd "$SCRATCH" && "$VOLUME_TOOL" dmtable --dd --device "$(iscsi file lun 1)" "$L" disk | bash -e)
same "and the LUN is read without svmfs" "$sum" "$(sha256sum <"$SCRATCH/disk")"
volume_tool 0 "a LUN that is free again" '^$' rm "$L" disk
iscsi stop lun && truncate -s 100M "$(iscsi file lun 1)" && iscsi start lun >/dev/null
volume_tool 0 "a LUN that has grown" '36 MiB more, 100 MiB now' grow "$(iscsi_url lun 1)"
volume_tool 0 "and is clean" 'clean' check "$(iscsi_url lun 1)"
iscsi stop lun
volume_tool 3 "a target that is away" 'listens|connect|refused|answer' check --timeout 3s "$L"
finish
