#!/bin/bash
# A real guest's disk moves across local directory, NFS export, volume on an iSCSI LUN and volume on a block device while the
# guest runs a load that checks what it reads. See tests/lib/guest.sh. Environment: LOAD_SECONDS (default 2).
. "$(dirname "$0")/../lib/functions.sh"
. "$ROOT/tests/lib/guest.sh"
. "$ROOT/tests/lib/servers.sh"
requires root fuse loop svmfs getfattr setfattr
scratch
requires_space 2500
four_kinds 512M
MNT=$SCRATCH/mnt DISK=$SCRATCH/mnt/disk.img
datastores=()
for name in {local,nfs,iscsi,device}1; do datastores+=("$name=${URL[$name]};quiet = 200ms"); done
write_config "$SCRATCH/svmfs.conf" "${datastores[@]}" -- "default = local1" "state = $SCRATCH/state"
start_mount "$SCRATCH/svmfs.conf" "$MNT" || { failed "the mount: $(cat "$SCRATCH/state/log" "$SCRATCH/svmfs.out")"; finish; }
prepare_guest
start_guest none threads || finish
before=$(open_disk "$QEMU")
check "QEMU holds the disk" test -n "$before"
for place in nfs1 iscsi1 device1 local1 device1 iscsi1 nfs1 local1 iscsi1; do
    check "moves from $(xget "$DISK" datastore) to $place under the running guest" move "$DISK" $place
done
same "QEMU holds what it opened at first" "$before" "$(open_disk "$QEMU")"
check "the load ran until the last move had ended" load_runs
sleep "${LOAD_SECONDS:-2}"
end_guest "the guest noticed nothing"
sum=$(sha256sum <"$DISK")
check "the mount ends cleanly" stop_mount "$MNT"
check "the disk can be read from the LUN" read_without_svmfs iscsi1 disk.img "$SCRATCH/bytes" $((192 << 20))
same "and is the same" "$sum" "$(sha256sum <"$SCRATCH/bytes")"
finish
