#!/bin/bash
# Each call on a plain directory and on the mount: same result, same errno. Both lie on filesystems of the same kind.
. "$(dirname "$0")/../lib/functions.sh"
requires python3
two_datastores 512M
make_fs ext4 512M plain || skip_all "cannot make a filesystem on a loop device"
out=$SCRATCH/parity.out
python3 "$ROOT/tests/fs/parity.py" "$SCRATCH/plain" "$MNT" | tee "$out"
read -r PASSED FAILED SKIPPED < <(tail -1 "$out" | tr -dc '0-9 \n')
[ -n "${SKIPPED:-}" ] || { PASSED=0 FAILED=0 SKIPPED=0; failed "parity.py ended early"; }
finish
