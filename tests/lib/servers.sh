# shellcheck shell=bash
# Test servers and the datastores on them; sourced after functions.sh. A NAME is a folder of $SCRATCH.
. "$ROOT/tests/lib/processes.sh"
VOLUME_TOOL=${VOLUME_TOOL:-$(dirname "$SVMFS")/svmfs-volume}

# nfs VERB NAME [ARGUMENT…], iscsi VERB NAME [ARGUMENT…]: see tests/lib/nfs-server, tests/lib/iscsi-target
nfs() { "$ROOT/tests/lib/nfs-server" "$1" "$SCRATCH/$2" "${@:3}"; }
iscsi() { "$ROOT/tests/lib/iscsi-target" "$1" "$SCRATCH/$2" "${@:3}"; }

# start_nfs NAME [SETTING=VALUE…]
start_nfs() {
    local name=$1
    requires root ganesha.nfsd rpcbind unshare
    at_end nfs stop "$name"
    nfs start "$@" >"$SCRATCH/$name.start" 2>&1 || skip_all "no NFS server: $(tail -3 "$SCRATCH/$name.start")"
    chmod 755 "$SCRATCH/$name"
}

# start_iscsi NAME [SETTING=VALUE…]
start_iscsi() {
    local name=$1
    requires tgtd tgtadm
    at_end iscsi stop "$name"
    iscsi start "$@" >"$SCRATCH/$name.start" 2>&1 || skip_all "no iSCSI target: $(tail -3 "$SCRATCH/$name.start")"
}

# start_loop NAME SIZE [BLOCK]: a block device on a file $SCRATCH/NAME.img; LOOP[NAME] is its node.
declare -A LOOP
start_loop() {
    local name=$1
    requires root loop
    truncate -s "$2" "$SCRATCH/$name.img"
    LOOP[$name]=$(losetup -f --show --sector-size "${3:-512}" "$SCRATCH/$name.img") ||
        skip_all "no loop device of blocks of ${3:-512}"
    at_end losetup -d "${LOOP[$name]}"
}

# start_proxy NAME PORT…: relays before these ports; PROXY[NAME,PORT] is the port of each.
declare -A PROXY PROXY_FILES
start_proxy() {
    local name=$1 program port relay control attempt
    shift
    program=$(tool faultproxy) || exit
    mkdir -p "$SCRATCH/$name"
    for port; do
        control=$SCRATCH/$name/$port
        echo ok >"$control"
        for attempt in 1 2 3; do
            relay=$(free_port) || skip_all "no free port"
            "$program" "$relay" "$port" "$control" >>"$control.log" 2>&1 &
            if await 50 test -e "$control.now" && kill -0 "$!" 2>/dev/null; then break; fi
            [ "$attempt" != 3 ] || skip_all "faultproxy does not start: $(cat "$control.log")"
        done
        at_end end_process "$!"
        PROXY[$name,$port]=$relay
        PROXY_FILES[$name]="${PROXY_FILES[$name]:-} $control"
    done
}

# fault NAME MODE [NUMBER]: returns when it is in force on all of the relays of that name.
FAULTS=0
fault() {
    local control
    FAULTS=$((FAULTS + 1))
    for control in ${PROXY_FILES[$1]}; do
        echo "$2 ${3:-0} $FAULTS.$BASHPID" >"$control.write" && mv "$control.write" "$control"
    done
    for control in ${PROXY_FILES[$1]}; do
        await 50 cmp -s "$control" "$control.now" || failed "faultproxy does not obey: $2"
    done
}

# What the relays of that name did.
proxy_log() {
    local control
    for control in ${PROXY_FILES[$1]}; do cat "$control.log"; done
}

# nfs_url NAME [PROXY [PATH]], iscsi_url NAME LUN [PROXY]: through the relays of PROXY, if it is named
nfs_url() {
    local port mount_port
    port=$(nfs get "$1" NFS_PORT) mount_port=$(nfs get "$1" MOUNT_PORT)
    [ -z "${2:-}" ] || port=${PROXY[$2,$port]} mount_port=${PROXY[$2,$mount_port]}
    echo "nfs://127.0.0.1/export${3:+/$3}?nfsport=$port&mountport=$mount_port"
}

iscsi_url() {
    local port
    port=$(iscsi get "$1" PORT)
    [ -z "${3:-}" ] || port=${PROXY[$3,$port]}
    echo "iscsi://127.0.0.1:$port/$(iscsi get "$1" IQN)/$2"
}

# format_volume URL [OPTION…]: URL of a raw image
format_volume() {
    local out
    [ -x "$VOLUME_TOOL" ] || skip_all "no program at '$VOLUME_TOOL'"
    if ! out=$("$VOLUME_TOOL" format "${@:2}" "$1" 2>&1); then
        failed "svmfs-volume format $1: $out"
        finish
    fi
}

# four_kinds SIZE: two datastores of each kind, each of SIZE; URL[local1] … URL[device2]. iscsi2 and device2 have
# blocks of 4096. What holds a volume is BACKING[iscsi1] …: a file with its bytes.
# shellcheck disable=SC2034
KINDS="local nfs iscsi device"
declare -A URL BACKING
# shellcheck disable=SC2034
four_kinds() {
    local size=$1 n block
    for n in 1 2; do
        block=$((n == 1 ? 512 : 4096))
        mkdir -p "$SCRATCH/local$n"
        URL[local$n]=local:$SCRATCH/local$n
        start_nfs "nfs$n"
        URL[nfs$n]=$(nfs_url "nfs$n")
        start_iscsi "iscsi$n" LUNS=1 LUN_SIZE="$size" BLOCK=$block
        format_volume "$(iscsi_url "iscsi$n" 1)"
        URL[iscsi$n]=volume:$(iscsi_url "iscsi$n" 1)
        BACKING[iscsi$n]=$(iscsi file "iscsi$n" 1)
        start_loop "device$n" "$size" $block
        format_volume "device:${LOOP[device$n]}"
        URL[device$n]=volume:device:${LOOP[device$n]}
        BACKING[device$n]=$SCRATCH/device$n.img
    done
}

# read_table TABLE RAW OUT SIZE: what a device-mapper table of linear and zero targets shows of the bytes of RAW
read_table() {
    local start length kind device first
    rm -f "$3"
    while read -r start length kind device first; do
        [ "$start" != '#' ] || continue
        case $kind in
        linear) dd if="$2" of="$3" bs=64K iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc,sparse status=none \
            skip=$((first * 512)) count=$((length * 512)) seek=$((start * 512)) || return ;;
        zero) ;;
        *) echo "no line of a table: $start $length $kind $device $first" >&2 && return 1 ;;
        esac
    done <"$1"
    truncate -s "$4" "$3"
}

# read_without_svmfs DATASTORE PATH OUT SIZE: a disk's bytes, by what holds them
read_without_svmfs() {
    case $1 in
    local*) cp "$SCRATCH/$1/$2" "$3" ;;
    nfs*) cp "$(nfs get "$1" EXPORT)/$2" "$3" ;;
    *)
        sync "${BACKING[$1]}"
        "$VOLUME_TOOL" dmtable "local:${BACKING[$1]}" "$2" >"$3.table" && read_table "$3.table" "${BACKING[$1]}" "$3" "$4"
        ;;
    esac
}

# --- processor time ---

# busiest PID SECONDS: the percentage of that time that the busiest thread of the process used, a whole number
busiest() {
    local before
    before=$(thread_ticks "$1")
    sleep "$2"
    { echo "$before"; thread_ticks "$1"; } | awk -v seconds="$2" -v hertz="$(getconf CLK_TCK)" '
        $1 in seen { used = $2 - seen[$1]; if (used > most) most = used }
        { seen[$1] = $2 }
        END { printf "%d\n", most * 100 / hertz / seconds }'
}

# thread_ticks PID: lines "thread ticks"
thread_ticks() {
    local stat fields
    for stat in "/proc/$1/task/"*/stat; do
        stat=$(cat "$stat" 2>/dev/null) || continue
        read -ra fields <<<"${stat##*) }"
        echo "${stat%% *} $((fields[11] + fields[12]))"
    done
}

# Gives a script time to undo what it did.
end_script() { kill -TERM "$1" && wait_for 90 gone "$1"; }

# side_by_side COUNT SCRIPT "ARGUMENTS"…: runs the script once for each, so many at a time, and counts what they found.
side_by_side() {
    local count=$1 script=$2 arguments out
    shift 2
    for arguments; do
        while [ "$(jobs -rp | wc -l)" -ge "$count" ]; do wait -n; done
        # shellcheck disable=SC2086
        bash "$script" $arguments >"$SCRATCH/${arguments// /-}.out" 2>&1 &
        at_end end_script "$!"
    done
    wait
    for arguments; do
        out=$SCRATCH/${arguments// /-}.out
        echo "-- $arguments"
        cat "$out"
        PASSED=$((PASSED + $(grep -c '^ok ' "$out"))) SKIPPED=$((SKIPPED + $(grep -c '^skipped ' "$out")))
        FAILED=$((FAILED + $(grep -c '^FAILED ' "$out")))
        tail -1 "$out" | grep -q ' passed, .* failed, ' || failed "$arguments: it did not end"
    done
}
