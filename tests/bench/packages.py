"""Installs what is measured and what measures, by name, where it is missing."""

import os
import shutil
import subprocess
import sys

# program or file that shows it is there → Debian package
NEEDED = {
    "fio": "fio",
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "/usr/share/doc/qemu-block-extra": "qemu-block-extra",
    "nbdcopy": "libnbd-bin",
    "gnuplot": "gnuplot-nox",
    "fusermount3": "fuse3",
    "/usr/include/fuse3/fuse.h": "libfuse3-dev",
    "g++": "g++",
    "pkg-config": "pkg-config",
    "losetup": "mount",
    "ganesha.nfsd": "nfs-ganesha",
    "/usr/share/doc/nfs-ganesha-vfs": "nfs-ganesha-vfs",
    "rpcbind": "rpcbind",
    "tgtd": "tgt",
}


def there(sign):
    return os.path.exists(sign) if sign.startswith("/") else shutil.which(sign) is not None


def install():
    """What is still missing afterwards is told by the parts that need it."""
    missing = sorted({package for sign, package in NEEDED.items() if not there(sign)})
    if not missing or os.geteuid() != 0 or not shutil.which("apt-get"):
        return missing
    print("installing " + " ".join(missing), file=sys.stderr)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "check": False}
    subprocess.run(["apt-get", "-q", "update"], **quiet)
    install_these = ["apt-get", "-q", "install", "-y", "--no-install-recommends"]
    if subprocess.run(install_these + missing, **quiet).returncode:
        for package in missing:  # one that there is not must not keep the others away
            subprocess.run(install_these + [package], **quiet)
    return sorted({package for sign, package in NEEDED.items() if not there(sign)})


def from_backports(package, folder):
    """Unpacks Debian's newer package of that name into the folder, by lists of its own: the machine stays as it is."""
    os.makedirs(os.path.join(folder, "lists/partial"))
    with open("/etc/os-release", encoding="ascii") as lines:
        release = next(line.split("=")[1].strip() for line in lines if line.startswith("VERSION_CODENAME="))
    with open(os.path.join(folder, "sources.list"), "w", encoding="ascii") as out:
        out.write(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
            f"http://deb.debian.org/debian {release}-backports main\n"
        )
    apt = [
        "apt-get",
        "-q",
        "-o",
        f"Dir::Etc::SourceList={folder}/sources.list",
        "-o",
        "Dir::Etc::SourceParts=/dev/null",
        "-o",
        f"Dir::State::Lists={folder}/lists",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": folder}
    subprocess.run(apt + ["update"], **quiet)
    subprocess.run(apt + ["download", package], **quiet)
    archive = next(name for name in os.listdir(folder) if name.startswith(package) and name.endswith(".deb"))
    subprocess.run(["dpkg-deb", "-x", archive, "files"], **quiet)
    return os.path.join(folder, "files")
