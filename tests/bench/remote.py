"""Remote datastores and moves between all kinds, beside QEMU's own drivers on the same servers.

QEMU's side is qemu-storage-daemon: an idle disk by its NBD export and fio's nbd engine, a move by blockdev-mirror. Its NFS
driver takes no ports, so the server also answers a portmapper's questions, on port 111 of 127.0.0.1."""

import json
import os
import shutil
import socket
import subprocess
import time

import mounts
import report

KINDS = ("local", "nfs", "iscsi", "device")
JOBS = [
    ("4 KiB random read QD16", "randread", "4k", 16),
    ("4 KiB random write QD16", "randwrite", "4k", 16),
    ("1 MiB sequential read QD4", "read", "1m", 4),
    ("1 MiB sequential write QD4", "write", "1m", 4),
]
MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid):
    """Of all its threads, in the program and in the kernel."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def loop_device(path):
    return mounts.run("losetup", "-f", "--show", "--direct-io=on", path).strip()


class Servers:
    """An NFS server and an iSCSI target, with a folder or LUN for each of those who are compared, and loop devices.

    LUN and device 1 and 2 are svmfs's, formatted as volumes; 3 and 4 are QEMU's, of exactly the disk's size."""

    def __init__(self, scratch, root, volume_tool, size):
        for program in ("ganesha.nfsd", "rpcbind", "tgtd", "qemu-storage-daemon", "losetup"):
            if not shutil.which(program):
                raise mounts.Unavailable(f"remote datastores: there is no {program} here")
        if not os.access(volume_tool, os.X_OK):
            raise mounts.Unavailable("remote datastores: there is no svmfs-volume beside svmfs")
        self.lib = os.path.join(root, "tests/lib")
        self.nfs, self.iscsi = os.path.join(scratch, "nfs"), os.path.join(scratch, "iscsi")
        self.loops, self.size, self.scratch = [], size, scratch
        room = size + size // 8 + 64 * MIB
        try:
            self.tell("nfs", "start", "PORTMAP=yes")
            os.makedirs(self.iscsi)
            devices = []
            for number in (1, 2, 3, 4):
                for path in (os.path.join(self.iscsi, f"lun{number}"), os.path.join(scratch, f"device{number}")):
                    with open(path, "wb") as out:
                        out.truncate(room if number < 3 else size)
                devices.append(os.path.join(scratch, f"device{number}"))
            self.tell("iscsi", "start", "LUNS=4")
            for path in devices:
                self.loops.append(loop_device(path))
            for number in (1, 2):
                mounts.run(volume_tool, "format", self.tell("iscsi", "url", str(number)))
                mounts.run(volume_tool, "format", f"device:{self.loops[number - 1]}")
        except subprocess.CalledProcessError as error:
            self.stop()
            raise mounts.Unavailable(f"remote datastores: {error.output.strip()[-200:]}") from error

    def tell(self, kind, verb, *arguments):
        script = {"nfs": "nfs-server", "iscsi": "iscsi-target"}[kind]
        return mounts.run(os.path.join(self.lib, script), verb, getattr(self, kind), *arguments).strip()

    def stop(self):
        for kind in ("nfs", "iscsi"):
            self.tell(kind, "stop")
        for loop in self.loops:
            subprocess.run(["losetup", "-d", loop], check=False)
        self.loops = []

    def datastores(self):
        """name → url, two of each kind."""
        urls = {}
        for number in (1, 2):
            for folder in (os.path.join(self.scratch, f"local{number}"), os.path.join(self.nfs, "export", f"svmfs{number}")):
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
            return {"driver": "file", "filename": path, "aio": "native", **direct}
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
    def __init__(self, program, servers, scratch):  # pylint: disable=super-init-not-called
        self.program = program
        self.mount = os.path.join(scratch, "remote-mount")
        self.config = os.path.join(scratch, "remote.conf")
        os.mkdir(self.mount)
        with open(self.config, "w", encoding="utf-8") as out:
            for name, url in servers.datastores().items():
                out.write(f"[datastore {name}]\nurl = {url}\n\n")
            out.write(f"[mount]\ndefault = local1\nstate = {scratch}/remote-state\n")

    def place(self, name):
        return os.getxattr(os.path.join(self.mount, name), "user.svmfs.datastore").decode()


class QemuStorage:
    """qemu-storage-daemon with a monitor."""

    def __init__(self, scratch):
        self.monitor, self.nbd = os.path.join(scratch, "qmp"), os.path.join(scratch, "nbd")
        self.log = open(os.path.join(scratch, "qemu.log"), "a", encoding="utf-8")
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", f"socket,id=monitor,path={self.monitor},server=on,wait=off",
             "--monitor", "chardev=monitor"], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        mounts.wait_until(lambda: os.path.exists(self.monitor), 10, "qemu-storage-daemon")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(600)
        self.socket.connect(self.monitor)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        if command == "qmp_capabilities":
            names = {}
        self.socket.sendall(json.dumps({"execute": command, "arguments": names}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def await_event(self, name):
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event["data"]
            answer = json.loads(self.lines.readline())
            self.events.append(answer)

    def export(self, name):
        self.ask("nbd-server-start", addr={"type": "unix", "data": {"path": self.nbd}})
        self.ask("block-export-add", id="export", type="nbd", node_name=name, name="disk", writable=True)

    def uri(self):
        return f"nbd+unix:///disk?socket={self.nbd}"

    def mirror(self, source, target):
        """Seconds from the command to its end, the switch to the target included; seconds of processor time."""
        self.events.clear()
        before, begun = processor_seconds(self.process.pid), time.monotonic()
        self.ask("blockdev-mirror", job_id="move", device=source, target=target, sync="full", copy_mode="write-blocking",
                 filter_node_name="mirror")
        self.await_event("BLOCK_JOB_READY")
        self.ask("job-complete", id="move")
        done = self.await_event("BLOCK_JOB_COMPLETED")
        seconds = time.monotonic() - begun
        if "error" in done:
            raise RuntimeError(f"blockdev-mirror: {done['error']}")
        return seconds, processor_seconds(self.process.pid) - before

    def stop(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        for path in (self.monitor, self.nbd):
            if os.path.exists(path):
                os.unlink(path)


def side_of(output, rw):
    job = json.loads(output[output.index("{"):])["jobs"][0]
    return job["read" if "read" in rw else "write"]["iops"]


def fio_svmfs(command, path, job, seconds):
    return side_of(mounts.run(*command(path, *job[1:], seconds)), job[1])


def fio_qemu(command, uri, size, job, seconds):
    native = ("--direct=1", "--overwrite=1", "--fallocate=none")
    words = [word.replace("=libaio", "=nbd") for word in command("", *job[1:], seconds)
             if word not in native and not word.startswith("--filename=")]
    words += [f"--uri={uri}", f"--size={size}"]  # which the engine's name must come before
    return side_of(mounts.run(*words), job[1])


def fill_qemu(uri, size):
    mounts.run("fio", "--name=fill", "--ioengine=nbd", f"--uri={uri}", "--rw=write", "--bs=1m", "--iodepth=4", f"--size={size}",
               "--refill_buffers", "--end_fsync=1")


def measure_idle(servers, svmfs, args, command, page):
    """4 KiB and 1 MiB requests to a disk on each remote datastore."""
    rows = []
    for kind in ("nfs", "iscsi"):
        qemu = QemuStorage(servers.scratch)
        try:
            qemu.ask("blockdev-add", node_name="disk", **servers.qemu_node(kind, 1, True))
            qemu.export("disk")
            fill_qemu(qemu.uri(), servers.size)
            svmfs.start()
            path = os.path.join(svmfs.mount, "disk")
            if svmfs.place("disk") != f"{kind}1":
                svmfs.move("disk", f"{kind}1")
            for job in JOBS:
                ours, theirs = [], []
                for _ in range(args.rounds):
                    theirs.append(fio_qemu(command, qemu.uri(), servers.size, job, args.seconds))
                    ours.append(fio_svmfs(command, path, job, args.seconds))
                rows.append([kind, job[0], report.spread(theirs, report.rate), report.spread(ours, report.rate),
                             report.ratio(ours, theirs)])
        finally:
            svmfs.stop()
            qemu.stop()
    page.add("## An idle disk on a remote datastore\n")
    page.add("QEMU: its own driver in qemu-storage-daemon, by NBD. svmfs: a file of the mount. The same server; for iSCSI two "
             "LUNs of one target, svmfs's is a volume.\n")
    page.add(report.table(["", "requests a second", "QEMU", "svmfs", "svmfs / QEMU"], rows))
    page.add()


def qemu_pair(servers, source, target):
    """QEMU's move from kind to kind. Each end is new, the source filled."""
    qemu = QemuStorage(servers.scratch)
    try:
        qemu.ask("blockdev-add", node_name="source", **servers.qemu_node(source, 1, False))
        qemu.ask("blockdev-add", node_name="target", **servers.qemu_node(target, 2, True))
        return qemu.mirror("source", "target")
    finally:
        qemu.stop()


def fill_sources(servers):
    """What QEMU moves: as random as what svmfs moves."""
    for kind in KINDS:
        qemu = QemuStorage(servers.scratch)
        try:
            qemu.ask("blockdev-add", node_name="disk", **servers.qemu_node(kind, 1, True))
            qemu.export("disk")
            fill_qemu(qemu.uri(), servers.size)
        finally:
            qemu.stop()


def svmfs_pair(svmfs, target):
    worker = svmfs.worker()
    before = processor_seconds(worker)
    seconds, _ = svmfs.move("disk", target)
    return seconds, processor_seconds(worker) - before


def measure_pairs(servers, svmfs, args, drop_caches, page):
    """A quiet move from each kind to each kind."""
    gib = servers.size / 2**30
    rows = []
    fill_sources(servers)
    for source in KINDS:
        for target in KINDS:
            theirs, ours = [], []
            for _ in range(args.rounds):
                drop_caches()
                theirs.append(qemu_pair(servers, source, target))
                svmfs.start()
                if svmfs.place("disk") != f"{source}1":
                    svmfs.move("disk", f"{source}1")
                drop_caches()
                ours.append(svmfs_pair(svmfs, f"{target}2"))
                svmfs.stop()
            speed = [report.spread([servers.size / seconds / 1e6 for seconds, _ in side], lambda x: f"{x:.0f}")
                     for side in (theirs, ours)]
            processor = [report.spread([used / gib for _, used in side], lambda x: f"{x:.2f}") for side in (theirs, ours)]
            rows.append([f"{source} → {target}", *speed,
                         report.ratio([seconds for seconds, _ in theirs], [seconds for seconds, _ in ours]), *processor])
    page.add("## A quiet move, of all pairs\n")
    page.add(f"{servers.size // MIB} MiB of random data. QEMU: blockdev-mirror in qemu-storage-daemon, to its end. svmfs: to "
             "state=done, when all is durable and the source removed. Processor time is the moving process's own, without the "
             "servers'.\n")
    page.add(report.table(["", "QEMU, MB/s", "svmfs, MB/s", "svmfs / QEMU", "QEMU, processor s/GiB", "svmfs, processor s/GiB"],
                          rows))
    page.add()


def measure_rest(servers, svmfs, args, page):
    """Processor time of a worker whose remote datastores have nothing to do, and whose servers are gone."""
    svmfs.start()
    rows = []
    try:
        for label, prepare in (("idle", lambda: None), ("its servers dead", lambda: crash(servers))):
            prepare()
            time.sleep(2)
            before = processor_seconds(svmfs.worker())
            time.sleep(2 * args.seconds)
            used = processor_seconds(svmfs.worker()) - before
            rows.append([label, f"{used * 1000 / (2 * args.seconds):.1f} ms"])
    finally:
        for kind in ("nfs", "iscsi"):
            subprocess.run([os.path.join(servers.lib, {"nfs": "nfs-server", "iscsi": "iscsi-target"}[kind]), "start",
                            getattr(servers, kind)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        svmfs.stop()
    page.add("## Eight datastores at rest\n")
    page.add(report.table(["", "processor time of the worker, a second"], rows))
    page.add()


def crash(servers):
    for kind in ("nfs", "iscsi"):
        servers.tell(kind, "crash")


def measure(args, command, drop_caches, fill, scratch, root, page, wanted):
    """All of that which is wanted; what cannot be had is said on the page."""
    volume_tool = os.path.join(os.path.dirname(args.svmfs), "svmfs-volume")
    try:
        servers = Servers(scratch, root, volume_tool, args.pair_size)
    except mounts.Unavailable as reason:
        page.add(f"Left out: {reason}.\n")
        return
    try:
        svmfs = RemoteSvmfs(args.svmfs, servers, scratch)
        try:
            svmfs.start()
            fill(os.path.join(svmfs.mount, "disk"), servers.size)
            svmfs.stop()
            if "remote" in wanted:
                measure_idle(servers, svmfs, args, command, page)
                measure_rest(servers, svmfs, args, page)
            if "pairs" in wanted:
                measure_pairs(servers, svmfs, args, drop_caches, page)
        finally:
            svmfs.stop()
    finally:
        servers.stop()
