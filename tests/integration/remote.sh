#!/bin/bash
# Disks move between local directories, NFS exports, volumes on iSCSI LUNs and volumes on block devices: all sixteen pairs,
# under a load that knows what every read must return; their sizes, holes and attributes; pause, cancel and unlink with a
# remote leg; and the death of the worker in each of these moves. There are two datastores of each kind, the second
# volumes have blocks of 4096.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr
scratch
requires_space 1500
four_kinds 256M
MNT=$SCRATCH/mnt
datastores=()
for name in {local,nfs,iscsi,device}{1,2}; do datastores+=("$name=${URL[$name]};quiet = 200ms"); done
write_config "$SCRATCH/svmfs.conf" "${datastores[@]}" -- "default = local1" "state = $SCRATCH/state" "jobs = 8" "reactors = 2"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount: $(cat "$SCRATCH/state/log" "$SCRATCH/svmfs.out")"; finish; }

# without DATASTORE FILE: its bytes there, in $SCRATCH/bytes
without() { read_without_svmfs "$1" "$2" "$SCRATCH/bytes" "$3"; }

# The files that are there besides those named, a line each; by what holds them.
others() {
    local place=$1 list
    shift
    case $place in
    local*) list=$(cd "$SCRATCH/$place" && find . -type f -path './.svmfs/*partial*') ;;
    nfs*) list=$(cd "$SCRATCH/$place/export" && find . -type f -path './.svmfs/*partial*') ;;
    *) sync "${BACKING[$place]}" && list=$("$VOLUME_TOOL" list "local:${BACKING[$place]}" 2>&1 | grep partial) ;;
    esac
    [ -z "$list" ] || echo "$place: $list"
}
all_others() { for place in {local,nfs,iscsi,device}{1,2}; do others $place; done; }

# --- one tour through all sixteen pairs, its disks written and read all the while ---

TOUR="local2 nfs1 nfs2 iscsi1 iscsi2 device1 device2 local1 iscsi2 nfs1 device2 iscsi1 local2 device1 nfs2 local1"
SIZE=$((16 * 1048576 + 3 * 512))
start_load direct --size=$SIZE --direct --sparse=40 --punch=2 --think=1000 --flush=32 "$MNT/direct"
start_load odd --size=$SIZE --odd --sparse=40 --think=1000 --flush=64 "$MNT/odd"
at=local1
pairs=" "
for next in $TOUR; do
    for disk in direct odd; do xset "$MNT/$disk" migrate "$next" || failed "$disk: $(xget "$MNT/$disk" error)"; done
    for disk in direct odd; do check "$at → $next, $disk" wait_progress "$MNT/$disk" "done" 60; done
    same "it is there" "$next $next" "$(xget "$MNT/direct" datastore) $(xget "$MNT/odd" datastore)"
    same "its size" "$SIZE $SIZE" "$(stat -c %s "$MNT/direct") $(stat -c %s "$MNT/odd")"
    for disk in direct odd; do
        rest_load $disk
        check "$disk can be read without svmfs" without "$next" $disk $SIZE
        proven $disk "$SCRATCH/bytes" "$disk: and holds what was written, on $next"
        wake_load $disk
    done
    pairs+="${at%?}-${next%?} "
    at=$next
done
same "these were all of the pairs" 16 "$(tr ' ' '\n' <<<"$pairs" | grep . | sort -u | wc -l)"
for disk in direct odd; do
    end_load $disk "$disk: every read was right"
    proven $disk "$MNT/$disk" "$disk: the content"
    proven $disk "$SCRATCH/local1/$disk" "$disk: the content on the datastore"
    check "$disk: what was a hole is one" test "$(stat -c %b "$SCRATCH/local1/$disk")" -lt $((SIZE / 512 * 8 / 10))
    rm "$MNT/$disk"
done

# --- a file for each pair: exact size, bytes, holes, attributes, seen without svmfs ---

PAIRS=$(for from in $KINDS; do for to in $KINDS; do echo "$from-$to"; done; done)
n=0
for pair in $PAIRS; do
    n=$((n + 1)) file=$MNT/$pair
    head -c $((700000 + n * 4099)) /dev/urandom >"$file"
    truncate -s $((6 * 1048576 + n * 1021)) "$file"
    printf 'the end' >>"$file"
    chmod $((600 + n % 8 * 10)) "$file" && chown $((1000 + n)):$((2000 + n)) "$file"
    setfattr -n user.note -v "$pair" "$file" && touch -d "2001-02-03 04:05:$((10 + n))" "$file"
done
sum_of() { sha256sum <"$1" | cut -d' ' -f1; }
described() { echo "$(stat -c '%s %a %u:%g %Y' "$1") $(getfattr -n user.note --only-values --absolute-names "$1") $(sum_of "$1")"; }
declare -A BEFORE
for pair in $PAIRS; do BEFORE[$pair]=$(described "$MNT/$pair"); done
for pair in $PAIRS; do [ "${pair%-*}" = local ] || xset "$MNT/$pair" migrate "${pair%-*}1"; done
for pair in $PAIRS; do [ "${pair%-*}" = local ] || check "$pair: at its source" wait_progress "$MNT/$pair" "done" 60; done
for pair in $PAIRS; do xset "$MNT/$pair" migrate "${pair#*-}2"; done
for pair in $PAIRS; do check "$pair: moves" wait_progress "$MNT/$pair" "done" 60; done
for pair in $PAIRS; do
    to=${pair#*-}2
    same "$pair: size, attributes and bytes" "${BEFORE[$pair]}" "$(described "$MNT/$pair")"
    size=$(stat -c %s "$MNT/$pair")
    check "$pair: thin" test "$(stat -c %b "$MNT/$pair")" -le $((6 * 2048))
    check "$pair: can be read without svmfs" without "$to" "$pair" "$size"
    same "$pair: and is the same" "${BEFORE[$pair]##* }" "$(sum_of "$SCRATCH/bytes")"
done
rm -f "$MNT"/*-*
same "no partial stays" "" "$(all_others)"

# --- pause, resume, cancel, unlink with a remote leg ---

D=$MNT/disk
fresh() { dd if=/dev/urandom of="$D" bs=1M count=12 conv=fsync status=none && sum=$(sha256sum <"$D"); }
unlinked() { rm "$D" && check "$1: the file can be removed" test ! -e "$D" && wait_for 20 no_others; }
no_others() { [ -z "$(all_others)" ]; }
for far in nfs1 iscsi1 device1; do
    fresh
    check "→ $far: a slow move" xset "$D" migrate "$far,rate=2M"
    check "→ $far: it copies" wait_progress "$D" copying 20
    xset "$D" control pause
    check "→ $far: it pauses" wait_progress "$D" paused 20
    echo changed | dd of="$D" bs=1 conv=notrunc status=none && sum=$(sha256sum <"$D")
    check "→ $far: what was under way ends" wait_for 20 still "$D"
    one=$(progress "$D" copied)
    sleep 1
    same "→ $far: nothing is copied meanwhile" "$one" "$(progress "$D" copied)"
    xset "$D" control resume
    check "→ $far: it goes on" wait_progress "$D" copying 20
    xset "$D" control cancel
    wait_progress "$D" cancelled 20 2>/dev/null
    same "→ $far: it is cancelled" "cancelled local1" "$(progress "$D" state) $(xget "$D" datastore)"
    check "→ $far: no partial stays" wait_for 20 no_others
    same "→ $far: the content" "$sum" "$(sha256sum <"$D")"
    check "→ $far: it moves after all" move "$D" "$far"
    same "→ $far: with its content" "$sum" "$(sha256sum <"$D")"
    check "$far →: a slow move back" xset "$D" migrate "local1,rate=2M"
    check "$far →: it copies" wait_progress "$D" copying 20
    xset "$D" control cancel
    wait_progress "$D" cancelled 20 2>/dev/null
    same "$far →: it is cancelled" "cancelled $far" "$(progress "$D" state) $(xget "$D" datastore)"
    xset "$D" migrate "local1,rate=2M" && wait_progress "$D" copying 20
    check "$far →: unlinked in the middle" unlinked "$far →"
    same "$far →: nothing stays" "" "$(all_others)"
    fresh
    xset "$D" migrate "$far,rate=2M" && wait_progress "$D" copying 20
    check "→ $far: unlinked in the middle" unlinked "→ $far"
    same "→ $far: nothing stays" "" "$(all_others)"
done

# --- the worker dies in the middle of each kind of move ---

start_load killed --size=16M --fill --direct --think=1000 --flush=32 "$MNT/killed"
at=local1
for next in nfs1 nfs2 iscsi1 iscsi2 device1 device2 local1; do
    xset "$MNT/killed" migrate "$next,rate=12M" || failed "$at → $next: $(xget "$MNT/killed" error)"
    for _ in 1 2 3; do
        sleep "0.$((RANDOM % 6 + 1))"
        kill_worker "$MNT"
    done
    wait_for 20 xset "$MNT/killed" rate 0 2>/dev/null
    check "$at → $next: done, though the worker died three times" wait_progress "$MNT/killed" "done" 90
    at=$next
done
end_load killed "every read was right"
proven killed "$MNT/killed" "the content"
same "no partial stays" "" "$(all_others)"
check "to a volume, to end with" move "$MNT/killed" iscsi2
check "the mount ends cleanly" stop_mount "$MNT"

# --- afterwards, without svmfs ---

check "its bytes can be read from the LUN" without iscsi2 killed $((16 << 20))
proven killed "$SCRATCH/bytes" "and are what they should be"
for volume in iscsi1 iscsi2 device1 device2; do
    check "$volume: its volume is in order" "$VOLUME_TOOL" check "local:${BACKING[$volume]}"
done
finish
