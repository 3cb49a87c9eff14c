# shellcheck shell=bash
# Helpers of the shell tests; a test sources this file first.
#
# A check prints "ok …", "FAILED …" or "skipped …"; `finish` prints the sum and exits 0, 1 or 77 (nothing could run).
# Everything made here is undone in reverse order when the test ends, however it ends.
#
# Environment: SVMFS (the program; default build/svmfs), BUILD (the build folder), KEEP=1 (leave the scratch folder).

set -u
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$ROOT/build}
SVMFS=${SVMFS-$BUILD/svmfs}
PASSED=0 FAILED=0 SKIPPED=0
CLEANUP=()
SCRATCH=

# --- results ---

ok() { PASSED=$((PASSED + 1)); echo "ok      $*"; }
failed() { FAILED=$((FAILED + 1)); echo "FAILED  $*"; }
skip() { SKIPPED=$((SKIPPED + 1)); echo "skipped $*"; }

# check "sentence" COMMAND…: passes if the command does. Its output is shown when it fails.
check() {
    local what=$1 out
    shift
    if out=$("$@" 2>&1); then
        ok "$what"
    else
        failed "$what${out:+: ${out:0:2000}}"
        return 1
    fi
}

# same "sentence" EXPECTED GOT
same() {
    if [ "$2" = "$3" ]; then ok "$1"; else failed "$1: expected '$2', got '$3'"; return 1; fi
}

# matches "sentence" PATTERN TEXT (extended regular expression, any case)
matches() {
    if grep -Eqi -- "$2" <<<"$3"; then ok "$1"; else failed "$1: '$3' does not match '$2'"; return 1; fi
}

finish() {
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ] || exit 1
    [ "$PASSED" != 0 ] || exit 77
    exit 0
}

# The whole test cannot run here.
skip_all() {
    skip "$(basename "$0"): $*"
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    exit 77
}

# requires root | fuse | loop | svmfs | COMMAND…
requires() {
    local what
    for what; do
        case $what in
        root) [ "$(id -u)" = 0 ] || skip_all "needs root" ;;
        fuse) [ -w /dev/fuse ] || skip_all "/dev/fuse cannot be opened" ;;
        loop) losetup -f >/dev/null 2>&1 || skip_all "no free loop device" ;;
        svmfs) [ -n "$SVMFS" ] && [ -x "$SVMFS" ] || skip_all "no svmfs program at '$SVMFS'" ;;
        *) command -v "$what" >/dev/null || skip_all "needs the program $what" ;;
        esac
    done
}

# --- cleanup ---

# at_end COMMAND…: run at the end, last registered first.
at_end() { CLEANUP+=("$(printf '%q ' "$@")"); }

run_cleanup() {
    local status=$? i
    trap - EXIT
    trap '' INT TERM HUP
    for ((i = ${#CLEANUP[@]} - 1; i >= 0; i--)); do
        eval "${CLEANUP[i]}" >/dev/null 2>&1
    done
    exit "$status"
}
trap run_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

scratch() {
    [ -n "$SCRATCH" ] && return
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/svmfs-test.XXXXXX")
    chmod 755 "$SCRATCH"
    [ -n "${KEEP:-}" ] || at_end rm -rf --one-file-system "$SCRATCH"
}

# end_process PID: TERM, and KILL when that does not do.
end_process() {
    local pid=$1 i
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((i = 0; i < 100; i++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null
}

# wait_for SECONDS COMMAND…: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# A process that only waits for its parent to hear of its end is gone, too.
gone() { ! kill -0 "$1" 2>/dev/null || grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"; }

# --- tools and filesystems ---

HISTORY_SOURCES="history.c history_power.c history_record.c history_saved.c linear.c pattern.c"
# tool NAME: prints the path of a program of tests/tools; takes the one of the build, or compiles it.
tool() {
    local name=$1
    local built=$BUILD/tests/$name out=$SCRATCH/bin/$name sources
    case $name in
    verify-load) sources="verify-load.c options.c trace.c $HISTORY_SOURCES" ;;
    history-test) sources="history-test.c $HISTORY_SOURCES" ;;
    *) sources=$name.c ;;
    esac
    if [ ! -x "$built" ]; then
        built=$out
        mkdir -p "$SCRATCH/bin"
        # shellcheck disable=SC2086
        [ -x "$out" ] || (cd "$ROOT/tests/tools" && ${CC:-cc} -std=gnu11 -O2 ${TOOL_CFLAGS:-} -pthread $sources -o "$out") >&2 ||
            skip_all "no C compiler for tests/tools/$name"
    fi
    echo "$built"
}

# make_fs ext4|xfs SIZE NAME: a filesystem of its own in a file, mounted at $SCRATCH/NAME.
make_fs() {
    local type=$1 size=$2 name=$3 device
    truncate -s "$size" "$SCRATCH/$name.img" && mkdir -p "$SCRATCH/$name" || return 1
    case $type in
    ext4) mkfs.ext4 -q -F -E lazy_itable_init=0 "$SCRATCH/$name.img" ;;
    xfs) mkfs.xfs -q "$SCRATCH/$name.img" ;;
    esac || return 1
    device=$(losetup -f --show --direct-io=on "$SCRATCH/$name.img" 2>/dev/null || losetup -f --show "$SCRATCH/$name.img") || return 1
    at_end losetup -d "$device"
    at_end umount "$SCRATCH/$name"
    mount "$device" "$SCRATCH/$name"
}

# So many MiB must be free where the scratch folder is.
requires_space() {
    local free
    free=$(df --output=avail -BM "$SCRATCH" | tail -1 | tr -dc 0-9)
    [ "$free" -ge "$1" ] || skip_all "needs $1 MiB in $SCRATCH, has $free"
}

# --- the mount ---

# write_config FILE [NAME=URL[;option = value…]…] [-- "key = value"…]: what follows -- goes to [mount].
write_config() {
    local file=$1 item name rest
    shift
    : >"$file"
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        item=$1 name=${1%%=*} rest=${item#*=}
        printf '[datastore %s]\nurl = %s\n\n' "$name" "${rest//;/$'\n'}" >>"$file"
        shift
    done
    [ $# -eq 0 ] || shift
    printf '[mount]\n' >>"$file"
    [ $# -eq 0 ] || printf '%s\n' "$@" >>"$file"
}

# start_mount CONFIG MNT [OPTION…]
start_mount() {
    local config=$1 mnt=$2
    shift 2
    mkdir -p "$mnt"
    at_end stop_mount "$mnt"
    # in a session of its own: a Ctrl-C that ended the command alone would leave what it started
    setsid -w "$SVMFS" "$config" "$mnt" "$@" </dev/null >>"$SCRATCH/svmfs.out" 2>&1 || {
        tail -5 "$SCRATCH/svmfs.out" >&2
        return 1
    }
    mountpoint -q "$mnt"
}

xget() { getfattr -n "user.svmfs.$2" --only-values --absolute-names -- "$1" 2>/dev/null; }
xset() { setfattr -n "user.svmfs.$2" -v "$3" -- "$1"; }
worker_pid() { xget "$1" worker; }
keeper_pid() { ps -o ppid= -p "$(worker_pid "$1")" 2>/dev/null | tr -d ' '; }

# The error's name as setfattr prints it: "Operation not supported" and so on; empty when it succeeded.
xset_error() {
    local out
    out=$(LC_ALL=C setfattr -n "user.svmfs.$2" -v "$3" -- "$1" 2>&1) && return 0
    echo "${out##*: }"
}

# stop_mount MNT: umount, and wait until its keeper is gone.
stop_mount() {
    local mnt=$1 keeper
    mountpoint -q "$mnt" || return 0
    keeper=$(keeper_pid "$mnt")
    if ! wait_for 20 umount "$mnt" 2>/dev/null; then
        echo "umount: $(umount "$mnt" 2>&1); in use by: $(fuser -m "$mnt" 2>&1)"
        umount -l "$mnt"
        [ -z "$keeper" ] || end_process "$keeper"
        return 1
    fi
    [ -z "$keeper" ] || wait_for 30 gone "$keeper" ||
        { echo "30 s after the umount: $(ps -o pid,ppid,stat,wchan:20,args --pid "$keeper" --ppid "$keeper")"; return 1; }
}

# progress FILE FIELD
progress() { xget "$1" progress | tr ' ' '\n' | sed -n "s/^$2=//p"; }

# still FILE [FIELD]: nothing is copied
still() { local before && before=$(progress "$1" "${2:-copied}") && sleep 0.5 && [ "$before" = "$(progress "$1" "${2:-copied}")" ]; }
state_is() { [[ " ${*:2} " == *" $(progress "$1" state) "* ]]; }

# wait_progress FILE STATE [SECONDS]: false when the job ends otherwise or the time is over.
wait_progress() {
    local file=$1 wanted=$2 deadline=$((SECONDS + ${3:-120})) now
    while :; do
        now=$(progress "$file" state)
        [ "$now" = "$wanted" ] && return 0
        case $now in done | failed | cancelled | rescued)
            echo "state is $now, not $wanted: $(xget "$file" error)" >&2
            return 1
            ;;
        esac
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "still '$(xget "$file" progress)', not $wanted" >&2
            return 1
        fi
        sleep 0.05
    done
}

# move FILE TARGET[,options]: and wait for its end.
move() {
    xset "$1" migrate "$2" && wait_progress "$1" "${3:-done}" "${4:-180}"
}

# Partial images that stay on these datastores, one a line.
leftovers() {
    local folder
    for folder; do find "$folder/.svmfs" -type f -name 'partial*' 2>/dev/null; done
}

# kill_worker MNT: kill -9; 1 when there was none to kill.
kill_worker() {
    local pid
    pid=$(worker_pid "$1")
    [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
}

# two_datastores [SIZE] [DIRECTORY OPTION…]: datastores a (ext4) and b (xfs), each on a filesystem of its own, as
# $SCRATCH/a and $SCRATCH/b; mounts them at $MNT with $CONFIG. What follows SIZE are lines of [mount].
two_datastores() {
    local size=${1:-512M}
    [ $# -eq 0 ] || shift
    requires root fuse loop svmfs getfattr setfattr mkfs.ext4 mkfs.xfs
    scratch
    make_fs ext4 "$size" a && make_fs xfs "$size" b || skip_all "cannot make filesystems on loop devices"
    rmdir "$SCRATCH/a/lost+found"
    MNT=$SCRATCH/mnt CONFIG=$SCRATCH/svmfs.conf
    write_config "$CONFIG" "a=local:$SCRATCH/a" "b=local:$SCRATCH/b" -- "default = a" "state = $SCRATCH/state" "$@"
    start_mount "$CONFIG" "$MNT" || { failed "the mount"; finish; }
}

# start_load NAME OPTION…: verify-load in the background; the last option is the file. end_load NAME "sentence".
declare -A LOADS
start_load() {
    local name=$1 program
    shift
    program=$(tool verify-load) || exit
    "$program" "$@" --save="$SCRATCH/$name.history" >"$SCRATCH/$name.load" 2>&1 &
    LOADS[$name]=$!
    at_end end_process "$!"
    wait_for 60 grep -qs 'LOAD START' "$SCRATCH/$name.load" || failed "the load $name did not start: $(cat "$SCRATCH/$name.load")"
}

end_load() {
    local name=$1 what=$2
    kill -TERM "${LOADS[$name]}" 2>/dev/null
    wait "${LOADS[$name]}"
    if [ $? = 0 ] && grep -q 'LOAD PASS' "$SCRATCH/$name.load"; then
        ok "$what ($(grep -Eo 'writes=[0-9]+ reads=[0-9]+|worst_us=[0-9]+' "$SCRATCH/$name.load" | tail -2 | tr '\n' ' '))"
    else
        failed "$what: $(tail -5 "$SCRATCH/$name.load")"
    fi
}

# rest_load NAME: nothing is written until wake_load; what `proven` then takes is the history of this moment.
rests() { grep -c '^LOAD RESTS Success' "$SCRATCH/$1.load"; }
rested_again() { [ "$(rests "$1")" -gt "$2" ]; }
rest_load() {
    local before
    before=$(rests "$1")
    kill -USR1 "${LOADS[$1]}" && wait_for 60 rested_again "$1" "$before" || failed "the load $1 does not rest"
}
wake_load() { kill -USR2 "${LOADS[$1]}"; }

# proven NAME FILE "sentence": the file holds what the ended load says.
proven() { check "$3" "$(tool verify-load)" --check="$SCRATCH/$1.history" "$2"; }
