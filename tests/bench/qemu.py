"""QEMU's side: qemu-storage-daemon with a FUSE export (plain requests), with an NBD export (plain requests, and the
guest of a moving disk) and with blockdev-mirror (moves). A node with a FUSE export cannot be mirrored, which is why
moves have NBD."""

import json
import os
import shutil
import socket
import subprocess
import time

import mounts
import packages
import processors
import report

PROGRAM = "qemu-storage-daemon"


def file_node(path):
    return {"driver": "file", "filename": path, "aio": "native", "cache": {"direct": True}}


def need():
    if not shutil.which(PROGRAM):
        raise mounts.Unavailable(f"there is no {PROGRAM} here")


def newer(folder):
    """(program, version) of Debian's backport, which need not be there, nor run here."""
    os.makedirs(folder)
    try:
        program = os.path.join(packages.from_backports("qemu-utils", folder), "usr/bin", PROGRAM)
    except (OSError, StopIteration, subprocess.CalledProcessError) as reason:
        raise mounts.Unavailable("a newer QEMU cannot be fetched from Debian's backports") from reason
    said = report.version(program, "--version")
    if not said:
        raise mounts.Unavailable("the newer QEMU of Debian's backports does not run here")
    return program, said.split("version ")[1].split()[0]


class Daemon:
    """qemu-storage-daemon with a monitor."""

    def __init__(self, scratch, program=PROGRAM):
        if program == PROGRAM:
            need()
        self.monitor, self.nbd = os.path.join(scratch, "qmp"), os.path.join(scratch, "nbd")
        self.events = []
        with open(os.path.join(scratch, "qemu.log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    "--chardev",
                    f"socket,id=monitor,path={self.monitor},server=on,wait=off",
                    "--monitor",
                    "chardev=monitor",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            mounts.wait_until(lambda: os.path.exists(self.monitor), 10, PROGRAM)
            self.socket.connect(self.monitor)
            self.socket.settimeout(600)
            self.lines = self.socket.makefile("r", encoding="utf-8")
            self.lines.readline()  # its greeting
            self.ask("qmp_capabilities")
        except BaseException:
            self.stop()
            raise

    def ask(self, command, **arguments):
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.socket.sendall(json.dumps({"execute": command, "arguments": names}).encode())
        while True:
            answer = self._read()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def _read(self):
        line = self.lines.readline()
        if not line:
            raise RuntimeError(f"{PROGRAM} is gone")
        return json.loads(line)

    def await_event(self, names, deadline=None):
        """The first of these; None when none comes in time. Asking makes the monitor speak, so that no read hangs."""
        while True:
            for event in self.events:
                if event["event"] in names:
                    self.events.remove(event)
                    return event
            if deadline is not None and time.monotonic() > deadline:
                return None
            if deadline is None:
                self.events.append(self._read())
            else:
                time.sleep(0.005)
                self.ask("query-block-jobs")

    def add(self, name, node):
        self.ask("blockdev-add", node_name=name, **node)

    def export_nbd(self, name):
        self.ask("nbd-server-start", addr={"type": "unix", "data": {"path": self.nbd}})
        self.ask("block-export-add", id="export", type="nbd", node_name=name, name="disk", writable=True)

    def export_fuse(self, name, file):
        self.ask("block-export-add", id="export", type="fuse", node_name=name, mountpoint=file, writable=True)

    def uri(self):
        return f"nbd+unix:///disk?socket={self.nbd}"

    def processor_seconds(self):
        return processors.seconds_of([self.process.pid])

    def begin_mirror(self, source, target, mode):
        self.events.clear()
        self.ask(
            "blockdev-mirror",
            job_id="move",
            device=source,
            target=target,
            sync="full",
            copy_mode=mode,
            filter_node_name="mirror",
        )

    def end_mirror(self, limit):
        """(when it began to switch, when it was done), in seconds since 1970; None when it is not ready or done in
        time."""
        deadline = time.monotonic() + limit
        event = self.await_event(("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED"), deadline)
        if event and event["event"] == "BLOCK_JOB_READY":
            switching = time.time()
            self.ask("job-complete", id="move")
            event = self.await_event(("BLOCK_JOB_COMPLETED",), deadline)
            if event and "error" not in event["data"]:
                return switching, time.time()
        if event is None:
            return None
        raise RuntimeError(f"blockdev-mirror: {event['data'].get('error', 'it ended without being ready')}")

    def mirror(self, source, target, mode="write-blocking"):
        """A quiet move: seconds from the command to its end, the switch included; seconds of processor."""
        before, begun = self.processor_seconds(), time.monotonic()
        self.begin_mirror(source, target, mode)
        if self.end_mirror(600) is None:
            raise RuntimeError("blockdev-mirror has no end")
        return time.monotonic() - begun, self.processor_seconds() - before

    def stop(self):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for path in (self.monitor, self.nbd):
            if os.path.exists(path):
                os.unlink(path)


class FuseExport:
    """A peer for plain requests: the same file behind qemu-storage-daemon's FUSE export."""

    def __init__(self, native, scratch, program=PROGRAM, version=""):
        if program == PROGRAM:
            need()
        if "type=]fuse" not in mounts.run(program, "--help"):
            raise mounts.Unavailable(f"this {PROGRAM} is built without FUSE exports")
        self.name = f"QEMU {version} FUSE".replace("  ", " ")
        self.program, self.store = program, native.store
        self.scratch = os.path.join(scratch, f"fuse{version}")
        self.file = os.path.join(self.scratch, "disk")
        self.daemon = None

    def start(self):
        os.makedirs(self.scratch, exist_ok=True)
        with open(self.file, "wb"):
            pass  # the export is mounted on a file
        self.daemon = Daemon(self.scratch, self.program)
        try:
            self.daemon.add("disk", file_node(os.path.join(self.store, "disk")))
            self.daemon.export_fuse("disk", self.file)
        except RuntimeError as reason:
            self.stop()
            raise mounts.Unavailable(f"{self.name}: {reason}") from reason

    def stop(self):
        if self.daemon:
            self.daemon.stop()
            self.daemon = None

    def path(self, name="disk"):
        assert name == "disk"
        return self.file

    def pids(self):
        return [self.daemon.process.pid]
