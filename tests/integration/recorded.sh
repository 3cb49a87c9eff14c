#!/bin/bash
# A power loss at every record of a write log: recorder (tests/power) holds the bytes of two real loop devices, an ext4 with the
# state directory and a datastore, and a volume, and writes down in one log, in one order, all that both are sent. One disk moves
# to the volume and one from it, compared before the switchover, while recorded-guest changes both.
#
# Then, for each number of records: both devices are made as they were then, and svmfs is started on them. Each disk is there
# once, and holds what a flush had made durable or what was written later; its move goes on and ends, finds no difference between
# its legs, and is on its target if it was once said to have begun; what is read does not change by that, and stands, read without
# svmfs, on the datastore that the disk is on; nothing else is there, and the volume is in order. Each number of records is tried
# with devices that keep all that they answered, and each of which the last is a flush also with devices that lose all that came
# after their last flush. What a power loss may do besides (any subset, torn sectors) is legs-power's and volume-power's.
#
# recorded.sh [--every | --runs N] [--seed N] [--log FOLDER] [--part N/M] [--only COUNT:answered|flushed]: every one, or so many drawn
# by the seed; of these each M-th from the N-th on. The log is what the load and the machine's pace made of it: with --log it is
# kept in FOLDER, or the one that is there is taken. With SVMFS_FIGURES=FILE the sum is appended there.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4
RUNS=54 SEED=$RANDOM EVERY='' ONLY='' LOG='' PART=1 PARTS=1
while [ $# -gt 0 ]; do
    case $1 in
    --every) EVERY=yes ;;
    --runs) RUNS=$2 && shift ;;
    --seed) SEED=$2 && shift ;;
    --log) LOG=$2/log && mkdir -p "$2" && shift ;;
    --only) ONLY=$2 && shift ;;
    --part) PART=${2%/*} PARTS=${2#*/} && shift ;;
    *) skip_all "no option $1" ;;
    esac
    shift
done
scratch
requires_space 300
RECORDER=$BUILD/tests/power/recorder GUEST=$BUILD/tests/power/recorded-guest
[ -x "$RECORDER" ] && [ -x "$GUEST" ] || skip_all "no programs in $BUILD/tests/power"
MNT=$SCRATCH/mnt HOST=$SCRATCH/host CONFIG=$SCRATCH/svmfs.conf LOG=${LOG:-$SCRATCH/log}
HISTORY=$LOG.history HOST_SIZE=24M VOLUME_SIZE=24M DISK_SIZE=4M
DISKS=(a b) TARGETS=(vol store)
mkdir -p "$HOST" "$MNT" "$SCRATCH/recorder" "$SCRATCH/now"

# attach FOLDER: loop devices HOST_LOOP and VOLUME_LOOP on its files, held open: no other test's losetup -d ends them; detach:
# nothing is mounted, no loop device is left
detach() {
    local status=0 file device
    stop_mount "$MNT" || status=1
    ! mountpoint -q "$HOST" || wait_for 20 umount "$HOST" || status=1
    exec 7<&- 8<&-
    for file in /sys/block/loop*/loop/backing_file; do # which is told of a dead recorder's file, too
        [[ $(cat "$file" 2>/dev/null) == "$SCRATCH"/* ]] || continue
        device=${file#/sys/block/}
        losetup -d "/dev/${device%%/*}" 2>/dev/null || status=1
    done
    return $status
}
loop_on() {
    losetup -f --show --direct-io=on "$1" 2>/dev/null || losetup -f --show "$1" || return 1
}
attach() {
    HOST_LOOP=$(loop_on "$1/host") && exec 7<"$HOST_LOOP" && VOLUME_LOOP=$(loop_on "$1/volume") && exec 8<"$VOLUME_LOOP" || return 1
    write_config "$CONFIG" "store=local:$HOST/store" "vol=volume:device:$VOLUME_LOOP" -- "default = store" "state = $HOST/state" \
        "epoch = 20ms" "jobs = 4" "reactors = 1"
}
at_end umount -l "$SCRATCH/recorder"
at_end detach
serve() { setsid -w "$SVMFS" "$CONFIG" "$MNT" </dev/null >>"$SCRATCH/svmfs.out" 2>&1 7<&- 8<&- && mountpoint -q "$MNT"; }
# await_it SECONDS COMMAND…: as wait_for, looking more often.
await_it() {
    local deadline=$((SECONDS + $1))
    until "${@:2}"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.02
    done
}
settled() { [[ " done failed cancelled rescued none  " == *" $(progress "$1" state) "* ]]; }
records() { od -An -t u8 -N 8 "$LOG.count" | tr -d ' '; }

# --- the log ---

give_up() { failed "$*: $(tail -3 "$HOST/state/log" "$SCRATCH/svmfs.out" "$SCRATCH/guest.out" 2>/dev/null)"; finish; }
both_moved() {
    local i
    for i in 0 1; do
        [ -n "${MOVED[i]:-}" ] || ! settled "$MNT/${DISKS[i]}" || MOVED[i]=$(records)
    done
    [ ${#MOVED[@]} = 2 ]
}
record_it() {
    local guest i
    "$RECORDER" serve "$SCRATCH/recorder" "$LOG" "host=$(numfmt --from=iec $HOST_SIZE)" "volume=$(numfmt --from=iec $VOLUME_SIZE)" \
        2>"$SCRATCH/recorder.out" &
    RECORDER_PID=$!
    wait_for 10 test -e "$SCRATCH/recorder/host" || skip_all "the recorder does not serve: $(cat "$SCRATCH/recorder.out")"
    attach "$SCRATCH/recorder" || skip_all "no loop devices on the recorder's files"
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$HOST_LOOP" && mount "$HOST_LOOP" "$HOST" || give_up "the filesystem"
    mkdir "$HOST/store"
    format_volume "device:$VOLUME_LOOP"
    serve || give_up "the mount"
    truncate -s $DISK_SIZE "$MNT/a" "$MNT/b"
    move "$MNT/b" vol || give_up "b is not put on the volume"
    "$GUEST" run "$LOG" "$HISTORY" "$SEED" 6000 "$MNT/a" "$MNT/b" >"$SCRATCH/guest.out" 2>&1 &
    guest=$!
    at_end end_process $guest
    wait_for 60 grep -qs START "$SCRATCH/guest.out" || give_up "the guest"
    for i in 0 1; do
        xset "$MNT/${DISKS[i]}" migrate "${TARGETS[i]},verify,rate=12M" || give_up "no move: $(xget "$MNT/${DISKS[i]}" error)"
        ASKED[i]=$(records)
    done
    await_it 60 both_moved || give_up "the moves do not end"
    for i in 0 1; do state_is "$MNT/${DISKS[i]}" "done" || give_up "no move: $(xget "$MNT/${DISKS[i]}" error)"; done
    kill -TERM $guest && wait $guest || give_up "the guest"
    FIRST=$(sed -n 's/^START //p' "$SCRATCH/guest.out") LAST=$(sed -n 's/^END \([0-9]*\):.*/\1/p' "$SCRATCH/guest.out")
    detach || give_up "the end"
    umount "$SCRATCH/recorder" && wait $RECORDER_PID || give_up "the recorder: $(cat "$SCRATCH/recorder.out")"
    echo "FIRST=$FIRST LAST=$LAST ASKED=(${ASKED[*]}) MOVED=(${MOVED[*]}) SEED=$SEED" >"$LOG.told"
    echo "        $(sed -n 's/^END [0-9]*: //p' "$SCRATCH/guest.out")"
}
ASKED=() MOVED=()
if [ -e "$LOG.told" ]; then . "$LOG.told"; else record_it; fi
"$RECORDER" list "$LOG" | sed -n "$((FIRST + 1)),${LAST}p" >"$SCRATCH/records"
echo "        seed $SEED: records $FIRST to $LAST, asked at ${ASKED[*]}, moved by ${MOVED[*]}:" \
    "$(cut -d' ' -f2,3 "$SCRATCH/records" | sort | uniq -c | tr -s ' \n' ' ')"

# --- a power loss ---

wrong() { echo "after $COUNT records, $AS: $*"; exit 1; }
on_which() { # on_which DISK: where its bytes are; all names, if they are not on one
    { sed -n "s/^$1$/vol/p" "$SCRATCH/listed"; [ ! -e "$HOST/store/$1" ] || echo store; } | paste -sd' '
}
look() { # look DISK OUT
    dd if="$MNT/$1" of="$2" bs=1M iflag=direct status=none || wrong "$1 cannot be read"
}
# Where the number of the recorded svmfs's process is somebody else's by now, its owner's record counts for ten seconds.
open_both() { { : <"$MNT/a" && : <"$MNT/b"; } 2>/dev/null; }
begins() { # what is there, and how far the move is
    local disk=${DISKS[$1]} got
    before[$1]=$(progress "$MNT/$disk" state)
    [[ ${before[$1]} != "done" || $(xget "$MNT/$disk" datastore) = "${TARGETS[$1]}" ]] || before[$1]=none # of the move before
    look "$disk" "$out.$disk"
    got=$("$GUEST" judge "$HISTORY" "$COUNT" "$1" "$out.$disk") || wrong "$got"
    choice=$((choice + $(sed -n 's/.*, \([0-9]*\) of them .*/\1/p' <<<"$got")))
}
ends() { # the move, and what is there then
    local disk=${DISKS[$1]} told kept differences
    await_it 60 settled "$MNT/$disk" || wrong "$disk: the job does not end: $(xget "$MNT/$disk" progress)"
    told=" $(xget "$MNT/$disk" progress) "
    [[ $told == "  " || $told == *" state=done "* || $told == *" state=none "* ]] || wrong "$disk:$told$(xget "$MNT/$disk" error)"
    differences=$(progress "$MNT/$disk" differences) kept=$(progress "$MNT/$disk" kept)
    [ "${differences:-0}" = 0 ] || wrong "$disk: the legs differed"
    where[$1]=$(xget "$MNT/$disk" datastore)
    [ "$COUNT" -lt "${ASKED[$1]}" ] || [ "${where[$1]}" = "${TARGETS[$1]}" ] || wrong "$disk is on ${where[$1]}"
    look "$disk" "$out.again"
    cmp "$out.$disk" "$out.again" || wrong "$disk: something else is read after the move"
    ! tail -c +$((logged + 1)) "$HOST/state/log" 2>/dev/null | grep -q "moving disk /$disk .*: queued -> switching" || before[$1]=committed
    echo "$disk=${before[$1]:-none}"
    [ "${kept:-0}" = 0 ] || [ "${before[$1]}" = "done" ] || echo kept
}
without_svmfs() {
    local disk=${DISKS[$1]} on=${where[$1]}
    [ "$(on_which "$disk")" = "$on" ] || wrong "$disk: it is on '$on' and its bytes are on '$(on_which "$disk")'"
    if [ "$on" = store ]; then
        cp "$HOST/store/$disk" "$out.bare"
    else
        read_without_svmfs "$on" "$disk" "$out.bare" "$(numfmt --from=iec $DISK_SIZE)"
    fi
    cmp "$out.$disk" "$out.bare" || wrong "$disk: its bytes on $on are others"
}
lose_power() { # lose_power COUNT HOW: in a shell of its own
    COUNT=$1 AS=$2
    local i before=() where=() choice=0 keeper logged out=$SCRATCH/disk rest
    BACKING[vol]=$SCRATCH/now/volume
    "$RECORDER" make "$LOG" "$COUNT" "$AS" "$SCRATCH/now" || wrong "no images"
    attach "$SCRATCH/now" && mount "$HOST_LOOP" "$HOST" || wrong "the filesystem"
    logged=$(stat -c %s "$HOST/state/log" 2>/dev/null || echo 0)
    serve || wrong "svmfs does not start: $(tail -3 "$SCRATCH/svmfs.out")"
    [ "$(ls "$MNT")" = "$(printf '%s\n' "${DISKS[@]}")" ] || wrong "there is $(ls "$MNT")"
    keeper=$(keeper_pid "$MNT")
    await_it 30 open_both || wrong "the disks cannot be opened"
    for i in 0 1; do begins $i; done
    for i in 0 1; do xset "$MNT/${DISKS[i]}" rate 0 2>/dev/null; done
    for i in 0 1; do ends $i; done
    umount "$MNT" && await_it 30 gone "$keeper" || wrong "svmfs does not end"
    "$VOLUME_TOOL" check "local:$SCRATCH/now/volume" >"$out" || wrong "the volume: $(cat "$out")"
    "$VOLUME_TOOL" list "local:$SCRATCH/now/volume" >"$SCRATCH/listed"
    for i in 0 1; do without_svmfs $i; done
    rest=$(find "$HOST/store/.svmfs" -type f ! -name owner; grep -Ev '^(a|b|\.svmfs)$' "$SCRATCH/listed")
    [ -z "$rest" ] || wrong "there is also $rest"
    detach || wrong "the devices are in use"
    echo "fine choice=$choice"
}

TRIED=0 WRONG=0
try() { # try COUNT HOW
    (trap - EXIT; lose_power "$1" "$2") >"$SCRATCH/said" 2>&1
    TRIED=$((TRIED + 1))
    if grep -q '^fine ' "$SCRATCH/said"; then
        sed "s/^/$2 /" "$SCRATCH/said" >>"$SCRATCH/sum"
        return
    fi
    WRONG=$((WRONG + 1))
    failed "$(grep -v ^fine "$SCRATCH/said" | tail -12 | cut -c1-600)"
    tail -20 "$HOST/state/log" 2>/dev/null | sed 's/^/        /'
    detach
}
# "COUNT HOW": all, or those that the seed draws: two of three as answered, what is near the switchovers more often
draw() {
    {
        seq "$FIRST" "$LAST" | sed 's/$/ answered/'
        sed -n 's/^\([0-9]*\) flush .*/\1/p' "$SCRATCH/records" | awk '{ print $1 + 1, "flushed" }'
    } | if [ -n "$EVERY" ]; then sort -n; else
        awk -v seed="$SEED" -v a="${MOVED[0]}" -v b="${MOVED[1]}" 'BEGIN { srand(seed) }
            function near(end) { return $1 > end - 100 && $1 <= end }
            { print rand() / (near(a) || near(b) ? 6 : 1), $0 }' | sort -g | cut -d' ' -f2- |
            awk -v runs="$RUNS" '{ n = $2 == "flushed" ? int(runs / 3) : runs - int(runs / 3) } got[$2]++ < n' | sort -n
    fi
}
: >"$SCRATCH/sum"
if [ -n "$ONLY" ]; then echo "${ONLY/:/ }"; else draw | awk "NR % $PARTS == $PART % $PARTS"; fi >"$SCRATCH/drawn"
while read -r count how <&3; do try "$count" "$how"; done 3<"$SCRATCH/drawn"

# --- the sum ---

how_many() { grep -Ec "$1" "$SCRATCH/sum"; }
sum="seed $SEED: $(wc -l <"$SCRATCH/records") records, $(cut -d' ' -f2 "$SCRATCH/records" | grep -c flush) of them flushes; \
$TRIED power losses ($(grep -c answered "$SCRATCH/drawn") as answered, $(grep -c flushed "$SCRATCH/drawn") as flushed) of two disks: \
$(how_many '=none') did not move yet, $(how_many '=(queued|opening|copying|verifying|mirrored|paused)') were before their commit \
($(how_many ' kept') kept a part), $(how_many '=(switching|committed)') between it and the end, $(how_many '=done') had moved; \
$(how_many 'choice=[1-9]') losses met writes that no flush had made durable; $WRONG wrong"
echo "        $sum"
if [ "$WRONG" != 0 ] && [ "${LOG#"$SCRATCH/"}" != "$LOG" ]; then # the next one will be another
    mkdir -p "$BUILD/recorded-$SEED" && cp "$LOG"* "$BUILD/recorded-$SEED" && echo "        the log: --log $BUILD/recorded-$SEED"
fi
[ "$WRONG" != 0 ] || ok "every power loss left each disk once, with all that was flushed, and its move went on to its end"
[ "$WRONG" != 0 ] || [ -n "$ONLY" ] || check "moves were met under way" test "$(how_many '=(queued|opening|copying|verifying|mirrored|switching|committed)')" -gt 0
[ -z "${SVMFS_FIGURES:-}" ] || [ "$WRONG" != 0 ] || echo "recorded $sum" >>"$SVMFS_FIGURES"
finish
