#!/bin/bash
# The iscsi backend alone, on a real target: the cases of raw images on LUNs of several kinds, and what raw-driver finds
# while the target is killed, stopped, cut, or loses its write cache.
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/servers.sh"
DRIVER=$BUILD/tests/contract/raw-driver RAWS=$BUILD/tests/contract/raws
[ -x "$DRIVER" ] && [ -x "$RAWS" ] || skip_all "no raw-driver in $BUILD/tests/contract"
scratch

# --- a driver that is spoken to ---

# driver NAME: starts one; say NAME WORD…: its answer is in ANSWER; true when it begins with ok
declare -A TO FROM DRIVERS
driver() {
    local name=$1 in out
    coproc COPROC { exec "$DRIVER" 2>>"$SCRATCH/$name.log"; }
    exec {in}>&"${COPROC[1]}" {out}<&"${COPROC[0]}"
    TO[$name]=$in FROM[$name]=$out DRIVERS[$name]=$COPROC_PID
    at_end end_process "$COPROC_PID"
} 2>/dev/null
say() {
    ask "$@"
    hear "$1"
}
ask() { echo "${*:2}" >&"${TO[$1]}"; }
hear() { IFS= read -r -t 100 -u "${FROM[$1]}" ANSWER && [[ $ANSWER == ok* ]] || { echo "${ANSWER:-no answer}"; return 1; }; }
bye() {
    ask "$1" end
    wait_for 20 gone "${DRIVERS[$1]}"
}
refuses() { # "sentence" PATTERN URL
    driver odd
    say odd open "$3" 0 >/dev/null && failed "$1: it was opened" || matches "$1" "$2" "$ANSWER"
    bye odd
}

# --- the cases ---

cases() { # "sentence" URL
    local out
    if out=$(SVMFS_RAW_KIND=iscsi SVMFS_TEST_ISCSI=$2 "$RAWS" 2>&1); then
        ok "$1: $(tail -1 <<<"$out")"
    else
        failed "$1: $(tail -20 <<<"$out")"
    fi
}
# tgt's memory is filled when it is freed: what a target keeps of a preempted registration must not matter.
GLIBC_TUNABLES=glibc.malloc.tcache_count=0 MALLOC_PERTURB_=165 start_iscsi thin LUNS=2 LUN_SIZE=160M READONLY=2
cases "a thin LUN" "$(iscsi_url thin 1)"
cases "with header digests" "$(iscsi_url thin 1)?header_digest=yes"
start_iscsi large LUNS=1 LUN_SIZE=160M BLOCK=4096
cases "blocks of 4096 bytes" "$(iscsi_url large 1)"
start_iscsi thick LUNS=1 LUN_SIZE=160M THIN=0
cases "a thick LUN" "$(iscsi_url thick 1)"

# --- CHAP ---

start_iscsi chap LUNS=1 LUN_SIZE=160M USER_NAME=joe SECRET=twelvechars1 MUTUAL_NAME=san MUTUAL_SECRET=otherchars22
url=$(iscsi_url chap 1)
mine=${url/\/\///joe@}
mine=${mine/:\/joe/://joe}
(umask 077 && echo twelvechars1 >"$SCRATCH/right" && echo wrongchars33 >"$SCRATCH/wrong" && echo otherchars22 >"$SCRATCH/mutual")
refuses "CHAP without a user" "wants CHAP" "$url"
refuses "CHAP without a secret" "password-file" "$mine"
export SVMFS_TEST_ISCSI_PASSWORD_FILE=$SCRATCH/wrong
refuses "a wrong secret" "does not accept the CHAP user joe" "$mine"
export SVMFS_TEST_ISCSI_PASSWORD_FILE=$SCRATCH/right
cases "CHAP" "$mine"
export SVMFS_TEST_MUTUAL_USER=san SVMFS_TEST_MUTUAL_PASSWORD_FILE=$SCRATCH/mutual
driver mutual
check "mutual CHAP" say mutual open "$mine" 5
bye mutual
export SVMFS_TEST_MUTUAL_PASSWORD_FILE=$SCRATCH/wrong
refuses "mutual CHAP with a wrong secret" "mutual-password-file" "$mine"
unset SVMFS_TEST_MUTUAL_USER SVMFS_TEST_MUTUAL_PASSWORD_FILE
chmod 640 "$SCRATCH/right"
refuses "a secret that others may read" "chmod 600" "$mine"
unset SVMFS_TEST_ISCSI_PASSWORD_FILE
if grep -rlE 'twelvechars1|wrongchars33|otherchars22' "$SCRATCH"/*.log; then failed "a secret stands in a log"; else ok "no secret in a log"; fi

# --- what is not there ---

url=$(iscsi_url thin 1)
refuses "a wrong name" "has no target" "${url/:test/:nothing}"
refuses "a controller" "is no disk but" "$(iscsi_url thin 0)"
refuses "a LUN that is not there" "has no LUN 9" "$(iscsi_url thin 9)"
refuses "a read-only LUN" "is read-only" "$(iscsi_url thin 2)"
refuses "nobody listens" "nothing listens" "iscsi://127.0.0.1:9/iqn.a/1"

# --- two that are one: the later login ends the earlier session ---

driver one
driver two
check "one mount" say one open "$url" 42
check "it writes" say one fill 1 0 8
check "… and flushes" say one flush
logged_in() { iscsi sessions thin | grep -c Connection; }
same "it has one session" 1 "$(logged_in)"
check "the same mount again" say two open "$url" 42
same "its logins ended the session of the first one" 0 "$(logged_in)"
check "the second one writes" say two fill 2 4 8
check "the first one logs in again and reads" say one check 2 4 8
check "… what it wrote itself, too" say one check 1 0 4
check "the second one goes on" say two check 1 0 4
bye two

# --- the LUN grows ---

grows() { iscsi crash thin && truncate -s 192M "$(iscsi file thin 1)" && iscsi start thin >/dev/null; }
check "the LUN grows" grows
check "that is asked for" say one refresh
say one size
same "it is the new one" "ok $((192 << 20))" "${ANSWER% }"

# --- outages ---

outage() { # "sentence" COMMAND…: beside a load of small and one of large writes, both verified
    local depth
    for depth in "128 4" "12 1024"; do
        ask one load 6 "$depth"
        sleep 1.5
        "${@:2}" || failed "$1: the fault"
        check "$1: a load of $depth KiB" hear one
    done
}
dies() { iscsi crash thin && sleep 0.7 && iscsi start thin >/dev/null; }
stops() { iscsi pause thin && sleep 3 && iscsi resume thin; }
drops() { iscsi drop thin && sleep 0.5 && iscsi drop thin; }
outage "killed" dies
outage "stopped" stops
outage "connections ended" drops
check "a fence" say one fence
bye one

start_proxy path "$(iscsi get thin PORT)"
far=$(iscsi_url thin 1 path)
driver one
check "through a relay" say one open "$far" 43
through() { fault path "$1" && sleep "$2" && fault path ok; }
outage "black-holed" through stall 3
outage "replies swallowed" through swallow 3
outage "requests held" through hold 4
matches "they went with their session" "held bytes lost: [1-9]" "$(proxy_log path)"
outage "requests held, let through late" through holdall 4
matches "they were late" "late bytes sent: [1-9]" "$(proxy_log path)"
outage "cut" through cut 1

# --- nothing is done while nothing is wanted, or cannot be had ---

used() { say one cpu >/dev/null && echo "${ANSWER#ok }"; }
before=$(used)
sleep 2
after=$(used)
check "an idle LUN costs no CPU ($((after - before)) ms in 2 s)" test $((after - before)) -lt 20
fault path cut
ask one fill 7 0 1
sleep 5
fault path ok
check "a LUN that was away is written" hear one
now=$(used)
check "waiting for it cost next to none ($((now - after)) ms in 5 s)" test $((now - after)) -lt 250
bye one

# --- the target loses its write cache (law 10) ---

lun=$(iscsi file thin 1)
driver one
lose() { iscsi crash thin && cp --sparse=always "$SCRATCH/durable" "$lun" && iscsi start thin >/dev/null; }
check "open" say one open "$url" 44
check "zeroes" say one zero 0 160
check "bytes" say one fill 1 0 40
check "flushed" say one flush
cp --sparse=always "$lun" "$SCRATCH/durable"
check "newer bytes" say one fill 2 10 30
check "and zeroes" say one zero 5 8
check "the cache is lost" lose
check "newer bytes are there" say one check 2 10 30
check "older ones below are" say one check 1 0 5
check "older ones above are" say one check 1 30 40
check "flushed" say one flush
cp --sparse=always "$lun" "$SCRATCH/durable"
check "zeroes are there" cmp -n $((3 << 20)) -i $((5 << 20)):0 "$lun" /dev/zero
check "small newer ones" say one fill 3 0 5
check "the cache is lost" lose
check "a flush comes first" say one flush
check "they are in the LUN's file" say one check 3 0 5
check "the others too" say one check 2 10 30
cp --sparse=always "$lun" "$SCRATCH/durable"
check "lost after the flush" lose
check "nothing was" say one check 3 0 5
check "beyond the budget" say one fill 4 0 150
check "flushed" say one flush
check "all there" say one check 4 0 150
bye one
finish
