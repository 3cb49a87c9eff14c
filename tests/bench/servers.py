"""The servers of the remote parts, and a mount over datastores of all kinds on them.

QEMU's NFS driver takes no ports, so the NFS server also answers a portmapper's questions, on port 111 of 127.0.0.1."""

import os
import shutil
import subprocess

import mounts
import qemu

KINDS = ("local", "nfs", "iscsi", "device")
MIB = 2**20


def loop_device(path):
    return mounts.run("losetup", "-f", "--show", "--direct-io=on", path).strip()


class Servers:
    """An NFS server and an iSCSI target, with a folder or LUN for each of those who are compared, and loop devices.

    LUN and device 1 and 2 are svmfs's, formatted as volumes; 3 and 4 are QEMU's, of exactly the disk's size."""

    def __init__(self, scratch, root, volume_tool, size):
        for program in ("ganesha.nfsd", "rpcbind", "tgtd", "losetup"):
            if not shutil.which(program):
                raise mounts.Unavailable(f"remote datastores: there is no {program} here")
        if not os.access(volume_tool, os.X_OK):
            raise mounts.Unavailable("remote datastores: there is no svmfs-volume beside svmfs")
        self.lib = os.path.join(root, "tests/lib")
        self.scratch = os.path.join(scratch, "servers")
        os.makedirs(self.scratch)
        self.nfs, self.iscsi = os.path.join(self.scratch, "nfs"), os.path.join(self.scratch, "iscsi")
        self.loops, self.size = [], size
        try:
            self._start(volume_tool, size + size // 8 + 64 * MIB)
        except subprocess.CalledProcessError as error:
            self.stop()
            raise mounts.Unavailable(f"remote datastores: {error.output.strip()[-200:]}") from error

    def _start(self, volume_tool, room):
        self.tell("nfs", "start", "PORTMAP=yes")
        os.makedirs(self.iscsi)
        devices = []
        for number in (1, 2, 3, 4):
            for path in (os.path.join(self.iscsi, f"lun{number}"), os.path.join(self.scratch, f"device{number}")):
                with open(path, "wb") as out:
                    out.truncate(room if number < 3 else self.size)
            devices.append(os.path.join(self.scratch, f"device{number}"))
        self.tell("iscsi", "start", "LUNS=4")
        for path in devices:
            self.loops.append(loop_device(path))
        for number in (1, 2):
            mounts.run(volume_tool, "format", self.tell("iscsi", "url", str(number)))
            mounts.run(volume_tool, "format", f"device:{self.loops[number - 1]}")

    def script(self, kind):
        return os.path.join(self.lib, {"nfs": "nfs-server", "iscsi": "iscsi-target"}[kind])

    def tell(self, kind, verb, *arguments):
        return mounts.run(self.script(kind), verb, getattr(self, kind), *arguments).strip()

    def start_again(self):
        for kind in ("nfs", "iscsi"):
            subprocess.run(
                [self.script(kind), "start", getattr(self, kind)],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def stop(self):
        for kind in ("nfs", "iscsi"):
            if os.path.isdir(getattr(self, kind)):
                subprocess.run(
                    [self.script(kind), "stop", getattr(self, kind)],
                    check=False,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        for loop in self.loops:
            subprocess.run(["losetup", "-d", loop], check=False)
        self.loops = []

    def datastores(self):
        """name → url, two of each kind."""
        urls = {}
        for number in (1, 2):
            for folder in (
                os.path.join(self.scratch, f"local{number}"),
                os.path.join(self.nfs, "export", f"svmfs{number}"),
            ):
                os.makedirs(folder, exist_ok=True)
            urls[f"local{number}"] = f"local:{self.scratch}/local{number}"
            urls[f"nfs{number}"] = self.tell("nfs", "url", f"svmfs{number}")
            urls[f"iscsi{number}"] = "volume:" + self.tell("iscsi", "url", str(number))
            urls[f"device{number}"] = f"volume:device:{self.loops[number - 1]}"
        return urls

    def qemu_node(self, kind, number, fresh):
        """The blockdev of one of QEMU's ends; number is 1 or 2."""
        direct = {"cache": {"direct": True}}
        if kind == "local":
            path = os.path.join(self.scratch, f"qemu{number}")
            self.make(path, fresh)
            return qemu.file_node(path)
        if kind == "nfs":
            self.make(os.path.join(self.nfs, "export", f"qemu{number}"), fresh)
            return {"driver": "nfs", "server": {"type": "inet", "host": "127.0.0.1"}, "path": f"/export/qemu{number}"}
        if kind == "iscsi":
            _, _, portal, iqn, lun = self.tell("iscsi", "url", str(2 + number)).split("/")
            return {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": iqn, "lun": int(lun), **direct}
        return {"driver": "host_device", "filename": self.loops[1 + number], "aio": "native", **direct}

    def make(self, path, fresh):
        if fresh or not os.path.exists(path):
            if os.path.exists(path):
                os.unlink(path)
            with open(path, "wb") as out:
                out.truncate(self.size)


class RemoteSvmfs(mounts.Svmfs):
    """A mount of two datastores of each kind, the first "local1"."""

    def __init__(self, program, servers):  # pylint: disable=super-init-not-called
        self.state = os.path.join(servers.scratch, "state")
        self.prepare(program, servers.scratch, "remote", servers.datastores(), {})

    def ensure(self, name, datastore):
        if self.place(name) != datastore:
            self.move(name, datastore)
