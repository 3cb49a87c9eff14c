# shellcheck shell=bash
# Processes that outlive the command which started them, and free ports: what the test servers have in common.
#
# A record is a file "PID STARTTIME": the start time tells a process from a later one with the same number, so nothing
# that is not ours is ever signalled.

# The start time of a process, in clock ticks since boot; fails when there is none, or only its corpse.
started_at() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -ra fields <<<"${stat##*) }"
    [ "${fields[0]}" != Z ] && echo "${fields[19]}"
}

# record FILE PID
record() { echo "$2 $(started_at "$2")" >"$1"; }

# recorded FILE: its pid, if the process that was recorded lives.
recorded() {
    local pid start
    [ -s "$1" ] && read -r pid start <"$1" && [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

alive() { recorded "$1" >/dev/null; }

# signal_recorded FILE SIGNAL
signal_recorded() {
    local pid
    pid=$(recorded "$1") && kill "-$2" "$pid"
}

# await TENTHS COMMAND…: until it succeeds, looking every 50 ms.
await() {
    local left=$(($1 * 2))
    shift
    until "$@"; do
        [ $((left -= 1)) -gt 0 ] || return 1
        sleep 0.05
    done
}

not_alive() { ! alive "$1"; }

# end_recorded FILE TENTHS: TERM, and KILL when that does not do.
end_recorded() {
    if alive "$1"; then
        signal_recorded "$1" CONT
        signal_recorded "$1" TERM
        await "$2" not_alive "$1" || signal_recorded "$1" KILL
        await 50 not_alive "$1"
    fi
    rm -f "$1"
}

# Does anything listen on this port of 127.0.0.1?
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Takes the port for an hour: a server that was killed on purpose listens no more, and still comes back to its port.
take_port() {
    local claims=${TMPDIR:-/tmp}/svmfs-ports
    mkdir -p "$claims"
    [ -z "$(find "$claims/$1" -maxdepth 0 -mmin +60 2>/dev/null)" ] || rmdir "$claims/$1" 2>/dev/null
    mkdir "$claims/$1" 2>/dev/null
}

# A port of 127.0.0.1 on which nothing listens, outside of the range that the kernel gives to clients, and that no other
# test was given. TEST_PORTS ("22000-31999") says where to look.
free_port() {
    local range=${TEST_PORTS:-22000-31999} port i
    for ((i = 0; i < 200; i++)); do
        port=$((${range%-*} + (RANDOM * 32768 + RANDOM) % (${range#*-} - ${range%-*} + 1)))
        if ! answers "$port" && take_port "$port"; then
            echo "$port"
            return
        fi
    done
    return 1
}
