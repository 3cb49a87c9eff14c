# shellcheck shell=bash
# A real guest: QEMU boots Debian's cloud kernel, whose only program is verify-load on a disk; sourced after functions.sh.
#
# The kernel is Debian's newest linux-image-6.1.0-*-cloud-amd64, downloaded by apt-get and unpacked, not installed.
# GUEST_LOAD: an option more of its verify-load; QEMU_MORE: options more of QEMU.
# Environment: KERNEL_DIR (a folder that keeps the unpacked kernel for the next run).

requires qemu-system-x86_64 busybox cpio gzip dpkg-deb
busybox | grep -q 'insmod' || skip_all "busybox has no insmod"
ldd "$(command -v busybox)" >/dev/null 2>&1 && skip_all "busybox is not static (package busybox-static)"
QEMU_MORE=()
MODULES="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk"

# get_kernel DIRECTORY: DIRECTORY/vmlinuz and the modules.
get_kernel() {
    local into=$1 name deb module
    [ -f "$into/vmlinuz" ] && return
    mkdir -p "$into" "$SCRATCH/deb"
    name=$(apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$' | cut -d' ' -f1 | sort -V | tail -1)
    [ -n "$name" ] || skip_all "apt knows no linux-image-6.1.0-*-cloud-amd64"
    (cd "$SCRATCH/deb" && apt-get -q download "$name") >"$SCRATCH/apt" 2>&1 || skip_all "$name cannot be downloaded"
    deb=$(echo "$SCRATCH"/deb/*.deb)
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$SCRATCH/deb" --wildcards './boot/vmlinuz-*' \
        './lib/modules/*/kernel/drivers/virtio/*' './lib/modules/*/kernel/drivers/block/virtio_blk.ko' ||
        skip_all "$name cannot be unpacked"
    for module in $MODULES; do
        find "$SCRATCH/deb" -name "$module.ko" -exec cp {} "$into/" \;
        [ -f "$into/$module.ko" ] || skip_all "$name has no module $module"
    done
    cp "$SCRATCH"/deb/boot/vmlinuz-* "$into/vmlinuz"
    rm -rf "$SCRATCH/deb"
    echo "        the guest runs $name"
}

make_initramfs() {
    local root=$SCRATCH/initramfs module
    mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/lib"
    cp -L "$(command -v busybox)" "$root/bin/busybox"
    for module in $MODULES; do cp "$KERNEL/$module.ko" "$root/lib/"; done
    # shellcheck disable=SC2086
    (cd "$ROOT/tests/tools" && ${CC:-cc} -std=gnu11 -O2 -static -pthread verify-load.c options.c trace.c $HISTORY_SOURCES \
        -o "$root/bin/verify-load") || skip_all "verify-load cannot be built static"
    strip "$root/bin/verify-load"
    {
        printf '#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs none /dev\n/bin/busybox mount -t proc none /proc\n'
        for module in $MODULES; do echo "/bin/busybox insmod /lib/$module.ko"; done
        cat <<'INIT'
echo GUEST UP
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in load=*) more=${word#load=} ;; esac
done
/bin/verify-load $more --direct --writers=2 --readers=1 --flush=32 --status=1 --until-eof /dev/vda
echo "GUEST EXIT $?"
/bin/busybox poweroff -f
INIT
    } >"$root/init"
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$SCRATCH/initrd.gz"
}

# open_disk PID: which file the process holds, as device:inode of the descriptor on the disk.
open_disk() {
    local fd
    for fd in "/proc/$1"/fd/*; do
        [ "$(readlink "$fd")" = "$DISK" ] && echo "${fd##*/}=$(stat -L -c '%d:%i' "$fd")"
    done
}

# prepare_guest: kernel and initramfs; the guest's console is $SCRATCH/console, descriptor 7 its input.
prepare_guest() {
    KERNEL=${KERNEL_DIR:-$SCRATCH/kernel}
    get_kernel "$KERNEL"
    make_initramfs
    mkfifo "$SCRATCH/input"
    exec 7<>"$SCRATCH/input"
}

# start_guest CACHE AIO: on a fresh $DISK; QEMU is its process. Returns when its load runs; false: it does not, and a
# check has said so.
start_guest() {
    local name="cache=$1 aio=$2"
    rm -f "$DISK" "$SCRATCH/console"
    truncate -s 192M "$DISK"
    qemu-system-x86_64 -accel tcg -M q35 -cpu max -m 192 -smp 1 -kernel "$KERNEL/vmlinuz" -initrd "$SCRATCH/initrd.gz" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on ${GUEST_LOAD:+load=$GUEST_LOAD}" \
        -drive "file=$DISK,format=raw,if=virtio,cache=$1,aio=$2,discard=unmap,werror=report,rerror=report" \
        -nodefaults -no-user-config -display none -no-reboot -monitor none -serial stdio "${QEMU_MORE[@]}" \
        <"$SCRATCH/input" >"$SCRATCH/console" 2>"$SCRATCH/qemu" &
    QEMU=$!
    at_end end_process "$QEMU"
    started() { grep -q 'LOAD START' "$SCRATCH/console" 2>/dev/null || gone "$QEMU"; }
    if ! wait_for 120 started || gone "$QEMU"; then
        if grep -q 'aio=\|io_uring\|Unable to use' "$SCRATCH/qemu"; then
            skip "$name: $(tail -1 "$SCRATCH/qemu")"
        else
            failed "$name: the guest does not start: $(tail -3 "$SCRATCH/qemu" "$SCRATCH/console" 2>/dev/null)"
        fi
        end_process "$QEMU"
        return 1
    fi
}

load_runs() { ! grep -q 'LOAD PASS\|LOAD FAIL' "$SCRATCH/console"; }

# end_guest NAME: its load ends, and must have found nothing wrong.
end_guest() {
    printf '\004' >&7 # end of file on the guest's console: the load ends
    if ! wait_for 180 gone "$QEMU"; then
        failed "$1: the guest does not end: $(tail -3 "$SCRATCH/console")"
        end_process "$QEMU"
        return 1
    fi
    wait "$QEMU"
    if grep -q 'LOAD PASS' "$SCRATCH/console" && grep -q 'GUEST EXIT 0' "$SCRATCH/console"; then
        ok "$1: $(grep -Eo 'writes=[0-9]+ reads=[0-9]+|worst_us=[0-9]+' <(grep 'LOAD PASS' "$SCRATCH/console") | tr '\n' ' ')"
    else
        failed "$1: $(grep -a 'LOAD\|WRONG\|ERROR\|I/O error\|GUEST' "$SCRATCH/console" | tail -8)"
    fi
}
