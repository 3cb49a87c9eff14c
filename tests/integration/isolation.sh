#!/bin/bash
# One datastore hangs, and requests of every kind pile up on it: nothing else of the mount waits for it, each of them ends
# by itself, and the datastore's disks work again when it does.
. "$(dirname "$0")/../lib/functions.sh"
requires root fuse loop svmfs getfattr setfattr mkfs.ext4 python3 fio
scratch
make_fs ext4 384M good && make_fs ext4 384M hung || skip_all "cannot make filesystems on loop devices"
RULES=$SCRATCH/rules MNT=$SCRATCH/mnt
: >"$RULES"
mkdir -p "$SCRATCH/hung/vm" "$SCRATCH/good/ok"
dd if=/dev/urandom of="$SCRATCH/hung/vm/disk" bs=1M count=64 status=none
for i in $(seq 0 255); do mkdir "$SCRATCH/hung/vm/own$i" && head -c 8192 /dev/urandom >"$SCRATCH/hung/vm/own$i/file"; done
write_config "$SCRATCH/svmfs.conf" "good=local:$SCRATCH/good;timeout = 5s" \
    "hung=fault:local:$SCRATCH/hung;faults = $RULES;timeout = 5s" -- "default = good" "state = $SCRATCH/state"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount"; finish; }
same "the disk that will hang is on its datastore" hung "$(xget "$MNT/vm/disk" datastore)"
sum=$(sha256sum <"$MNT/vm/disk")

# requests made by the load so far
done_so_far() { tail -1 "$SCRATCH/status" | sed -En 's/.*writes=([0-9]+) reads=([0-9]+).*/\1 + \2/p' | sed 's/^$/0/'; }
start_load other --size=64M --direct --status=3 "$MNT/ok/disk" 3>"$SCRATCH/status"
sleep 2
begin=$(($(done_so_far)))
sleep 4
before=$(($(done_so_far) - begin))

mkfifo "$SCRATCH/go"
exec 8<>"$SCRATCH/go"
PATIENCE=120 python3 "$ROOT/tests/integration/pile.py" "$MNT/vm" 256 <"$SCRATCH/go" >"$SCRATCH/pile" 2>&1 &
PILE=$!
at_end end_process "$PILE"
fio --name=asynchronous --filename="$MNT/vm/disk" --ioengine=libaio --direct=1 --iodepth=128 --rw=randrw --bs=4k --size=32m \
    --time_based --runtime=12 --continue_on_error=all --output="$SCRATCH/fio" >"$SCRATCH/fio.err" 2>&1 &
FIO=$!
at_end end_process "$FIO"
says() { grep -q "$1" "$SCRATCH/pile"; }
wait_for 20 says opened || failed "the disk cannot be opened: $(cat "$SCRATCH/pile")"
sleep 1
echo "any hang" >"$RULES"
sleep 0.5
echo go >&8
check "256 requests of all kinds pile up, and 128 asynchronous ones" wait_for 20 says piled
begin=$(($(done_so_far)))
check "ls answers" ls -l "$MNT" "$MNT/ok"
check "ls of the directory that hangs answers, from the catalog" ls "$MNT/vm"
check "df answers" df "$MNT"
check "stat of a disk that hangs answers" stat "$MNT/vm/disk"
check "a file on the good datastore is made" bash -c 'echo fresh >"$1" && sync "$1" && mv "$1" "$1.moved" && rm "$1.moved"' - "$MNT/ok/fresh"
same "the control surface answers" hung "$(xget "$MNT/vm/disk" datastore)"
check "all that while the pile still waited" kill -0 "$PILE"
sleep 4
during=$(($(done_so_far) - begin))
echo "        the other disk: $before requests in 4 s before, $during during"
check "the other disk keeps a rate of its own" test $((during * 4)) -gt "$before"

wait "$PILE"
same "each of the 256 ends by itself" 0 "$?"
sed 's/^/        /' "$SCRATCH/pile"
ended_with_errors() { ! grep -E '^(direct write|fsync|create|rename):.*done' "$SCRATCH/pile"; }
check "none that needs the datastore says that it was done" ended_with_errors
check "the asynchronous ones end too" wait_for 120 gone "$FIO"
: >"$RULES"
readable() { dd if="$MNT/vm/disk" of=/dev/null bs=1M count=1 iflag=direct status=none 2>/dev/null; }
check "the datastore is back, and so is its disk" wait_for 60 readable
check "it can be written" dd if=/dev/zero of="$MNT/vm/after" bs=64K count=4 oflag=direct status=none
head -c $((60 << 20)) "$MNT/vm/disk" | tail -c $((20 << 20)) >"$SCRATCH/part"
check "it reads what it held" test "$(stat -c %s "$SCRATCH/part")" = $((20 << 20))
[ -n "$sum" ] || failed "the disk could not be read at first"
end_load other "the other disk's reads were all right"
check "the mount ends cleanly" stop_mount "$MNT"

echo "any hang" >"$RULES"
check "a mount is made while a datastore hangs" start_mount "$SCRATCH/svmfs.conf" "$MNT"
check "the other datastore is served" dd if="$MNT/ok/disk" of=/dev/null bs=1M count=1 iflag=direct status=none
same "the names of the one that hangs are known" disk "$(ls "$MNT/vm" | grep -x disk)"
: >"$RULES"
check "when it answers it is served by itself" wait_for 60 readable
check "the mount ends cleanly after that" stop_mount "$MNT"
finish
