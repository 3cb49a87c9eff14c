"""What the parts share: the folders, the subjects, the servers (started for the first part that asks), the page."""

import os
import subprocess
import sys
import tempfile

import guest
import mounts
import plots
import qemu
import servers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Bench:
    def __init__(self, args, page, goals):
        self.args, self.page, self.goals = args, page, goals
        self.scratch = tempfile.mkdtemp(prefix="svmfs-bench.", dir=args.dir)
        os.chmod(self.scratch, 0o755)  # servers look into it as other users
        self.folder = os.path.join(self.scratch, "source")
        self.target = tempfile.mkdtemp(prefix="svmfs-bench.", dir=args.target or args.dir)
        os.makedirs(self.folder)
        self.native = mounts.Native(self.folder)
        self.subjects, self.servers_reason, self._servers, self._newer_qemu = [], None, None, None
        self.plots = plots.Plots(args.plots, page)

    def say(self, text):
        print(f"  {text}", file=sys.stderr, flush=True)

    def left_out(self, reason):
        self.say(f"left out: {reason}")
        self.page.add(f"Left out: {reason}.\n")

    def peer(self, make):
        """A peer that is started, or None, which the page then says."""
        try:
            subject = make()
            subject.start()
        except mounts.Unavailable as reason:
            self.left_out(str(reason))
            return None
        self.subjects.append(subject)
        return subject

    def passthrough_hp(self):
        return self.peer(lambda: mounts.PassthroughHp(self.folder, self.scratch))

    def newer_qemu(self):
        """(program, version), fetched once; None, which the page then says, when there is none."""
        if self._newer_qemu is None and not self.args.no_install:
            try:
                self._newer_qemu = qemu.newer(os.path.join(self.scratch, "newer-qemu"))
            except mounts.Unavailable as reason:
                self.left_out(str(reason))
                self._newer_qemu = False
        return self._newer_qemu or None

    def qemu_fuse(self):
        peers = [self.peer(lambda: qemu.FuseExport(self.native, self.scratch))]
        if self.newer_qemu():
            peers.append(self.peer(lambda: qemu.FuseExport(self.native, self.scratch, *self.newer_qemu())))
        return [peer for peer in peers if peer]

    def svmfs(self, **options):
        """Started; the part cannot be without it."""
        subject = mounts.Svmfs(self.args.svmfs, self.folder, self.target, self.scratch, **options)
        self.subjects.append(subject)
        subject.start()
        return subject

    def stop_subjects(self):
        while self.subjects:
            subject = self.subjects.pop()
            try:
                subject.stop()
            except TimeoutError as reason:
                self.say(str(reason))

    def disk(self, name="disk", size=None):
        """The source's file of that name, full of random data, not seen through a mount."""
        path = os.path.join(self.native.store, name)
        if not os.path.exists(path) or os.stat(path).st_size != (size or self.args.size):
            self.remove(name)
            guest.fill(path, size or self.args.size)
        return path

    def remove(self, name):
        for store in (self.native.store, os.path.join(self.target, "svmfs-target")):
            if os.path.exists(os.path.join(store, name)):
                os.unlink(os.path.join(store, name))

    def shared_disk(self):
        """The legs are on one disk."""
        return os.stat(self.folder).st_dev == os.stat(self.target).st_dev

    def legs(self):
        return "The two legs share a disk." if self.shared_disk() else "The two legs are on two disks."

    def servers(self):
        if self.servers_reason:
            raise mounts.Unavailable(self.servers_reason)
        if self._servers is None:
            tool = os.path.join(os.path.dirname(self.args.svmfs), "svmfs-volume")
            try:
                self._servers = servers.Servers(self.scratch, ROOT, tool, self.args.pair_size)
            except mounts.Unavailable as reason:
                self.servers_reason = str(reason)
                raise
        return self._servers

    def remote_svmfs(self):
        """Started, with a full disk "disk" somewhere on it."""
        subject = servers.RemoteSvmfs(self.args.svmfs, self.servers())
        self.subjects.append(subject)
        subject.start()
        if not os.path.exists(subject.path()):
            guest.fill(subject.path(), self.args.pair_size)
        return subject

    def close(self):
        try:
            self.stop_subjects()
        finally:
            if self._servers:
                self._servers.stop()
            subprocess.run(["rm", "-rf", "--one-file-system", self.scratch, self.target], check=False)
