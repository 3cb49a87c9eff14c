"""What is measured: a native folder, libfuse's passthrough_hp over one, and svmfs over one. (QEMU's: qemu.py.)"""

import glob
import gzip
import os
import shutil
import subprocess
import sys
import time

import processors

# What Debian 12's compiler and cxxopts call otherwise than the example, of the same release, expects.
LATER_NAMES = ["-include", "iostream", "-Doption_not_exists_exception=exceptions::no_such_option"]


class Unavailable(Exception):
    """This peer cannot be had here; the message says why."""


def run(*command, **options):
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    ).stdout


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Native:
    name = "native"

    def __init__(self, folder):
        # The same file for all: where a file lies on the disk makes a larger difference than what serves it.
        self.store = os.path.join(folder, "files")
        os.makedirs(self.store, exist_ok=True)
        self.mount = self.store

    def start(self):
        pass

    def stop(self):
        pass

    def path(self, name="disk"):
        return os.path.join(self.mount, name)

    def pids(self):
        """The processes that serve it."""
        return []


class PassthroughHp(Native):
    name = "passthrough_hp"

    def __init__(self, folder, scratch):
        self.program = build_passthrough_hp(os.path.join(scratch, "passthrough_hp"))
        super().__init__(folder)
        self.mount = os.path.join(scratch, "hp-mount")
        self.pipe_limit = None
        os.mkdir(self.mount)

    PIPE_LIMIT = "/proc/sys/fs/pipe-max-size"

    def start(self):
        # Direct writes need its splice, splice needs pipes of 2 MiB, and where
        # root has no CAP_SYS_RESOURCE so does the limit.
        with open(self.PIPE_LIMIT, encoding="ascii") as limit:
            self.pipe_limit = int(limit.read())
        if self.pipe_limit < 4 << 20:
            self.set_pipe_limit(4 << 20)
        # No options: with Debian's cxxopts it counts them as folders. It goes to the background before it is mounted.
        with open(self.program + ".log", "w+", encoding="utf-8") as log:
            done = subprocess.run(
                [self.program, self.store, self.mount], stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=False
            )
        try:
            wait_until(lambda: done.returncode or os.path.ismount(self.mount), 5, "passthrough_hp")
        except TimeoutError:
            pass
        if not os.path.ismount(self.mount):
            print(open(log.name, encoding="utf-8").read(), file=sys.stderr)
            raise Unavailable("passthrough_hp does not start")

    def pids(self):
        return processors.processes_that_serve(self.mount)

    def set_pipe_limit(self, value):
        with open(self.PIPE_LIMIT, "w", encoding="ascii") as limit:
            limit.write(str(value))

    def stop(self):
        if self.pipe_limit:
            self.set_pipe_limit(self.pipe_limit)
            self.pipe_limit = None
        if os.path.ismount(self.mount):
            subprocess.run(["umount", self.mount], check=False)


def build_passthrough_hp(folder):
    """Its source is an example of libfuse; Debian's package may or may not carry it, Debian's source does."""
    os.mkdir(folder)
    source = os.path.join(folder, "passthrough_hp.cc")
    program = os.path.join(folder, "passthrough_hp")
    given = os.environ.get("PASSTHROUGH_HP_CC")
    found = [given] if given else glob.glob("/usr/share/doc/libfuse3-dev/examples/passthrough_hp.cc*")
    try:
        if found:
            opener = gzip.open if found[0].endswith(".gz") else open
            with opener(found[0], "rb") as original, open(source, "wb") as copy:
                shutil.copyfileobj(original, copy)
        else:
            fetch_debian_source(folder)
        include = fetch_cxxopts(folder)
        flags = run("pkg-config", "--cflags", "--libs", "fuse3").split()
        run("g++", "-O2", "-std=gnu++17", *LATER_NAMES, *include, source, "-o", program, *flags, "-pthread")
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        print(getattr(error, "output", error), file=sys.stderr)
        raise Unavailable("passthrough_hp cannot be built") from error
    return program


def fetch_debian_source(folder):
    """apt-get source with lists of its own: the machine's sources are left as they are."""
    os.makedirs(os.path.join(folder, "lists/partial"))
    release = next(
        line.split("=")[1].strip()
        for line in open("/etc/os-release", encoding="ascii")
        if line.startswith("VERSION_CODENAME=")
    )
    with open(os.path.join(folder, "sources.list"), "w", encoding="ascii") as out:
        out.write(
            "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
            f"http://deb.debian.org/debian {release} main\n"
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
    run(*apt, "update")
    run(*apt, "source", "--download-only", "fuse3", cwd=folder)
    archive = glob.glob(f"{folder}/fuse3_*.orig.tar.[gx]z")[0]
    run("tar", "-x", "-f", archive, "-C", folder, "--wildcards", "*/example/passthrough_hp.cc", "--strip-components=2")


def fetch_cxxopts(folder):
    if os.path.exists("/usr/include/cxxopts.hpp"):
        return []
    run("apt-get", "-q", "download", "libcxxopts-dev", cwd=folder)
    run("dpkg-deb", "-x", glob.glob(f"{folder}/libcxxopts-dev_*.deb")[0], f"{folder}/cxxopts")
    return ["-I" + os.path.join(folder, "cxxopts/usr/include")]


class Svmfs(Native):
    """A mount of the folder, its datastore "source", and of another one, "target"."""

    name = "svmfs"

    def __init__(
        self, program, folder, target, scratch, label="svmfs", state=None, **options
    ):  # pylint: disable=too-many-arguments
        if not os.access(program, os.X_OK):
            raise Unavailable(f"no program {os.path.basename(program)}: build it first")
        super().__init__(folder)
        self.target = os.path.join(target, "svmfs-target")
        os.makedirs(self.target, exist_ok=True)
        # beside the source: that is the disk which the journal's goals speak of
        self.state = state or os.path.join(folder, label + "-state")
        self.prepare(
            program, scratch, label, {"source": f"local:{self.store}", "target": f"local:{self.target}"}, options
        )

    def prepare(self, program, scratch, label, datastores, options):
        self.program = program
        self.mount = os.path.join(scratch, label + "-mount")
        self.config = os.path.join(scratch, label + ".conf")
        self.keeper = None
        os.makedirs(self.mount, exist_ok=True)
        with open(self.config, "w", encoding="utf-8") as out:
            for name, url in datastores.items():
                out.write(f"[datastore {name}]\nurl = {url}\n\n")
            out.write(f"[mount]\ndefault = {next(iter(datastores))}\nstate = {self.state}\n")
            for name, value in options.items():
                out.write(f"{name.replace('_', '-')} = {value}\n")

    def start(self):
        with open(self.config + ".log", "a", encoding="utf-8") as log:
            done = subprocess.run(
                [self.program, self.config, self.mount], check=False, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        if done.returncode:
            with open(self.config + ".log", encoding="utf-8") as log:
                raise Unavailable("svmfs does not mount: " + log.read().strip()[-300:])
        self.keeper = self.parent_of(self.worker())

    def stop(self):
        if not os.path.ismount(self.mount):
            return
        if subprocess.run(["umount", self.mount], check=False).returncode:
            subprocess.run(["umount", "-l", self.mount], check=False)
        wait_until(lambda: not os.path.exists(f"/proc/{self.keeper}"), 60, "the end of svmfs")

    @staticmethod
    def parent_of(pid):
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return int(stat.read().rsplit(")", 1)[1].split()[1])

    def worker(self):
        return int(os.getxattr(self.mount, "user.svmfs.worker"))

    def pids(self):
        return [self.worker(), self.keeper]

    def memory(self):
        """Of the worker, in bytes: what is resident, of that shared (request buffers), and the most it ever was."""
        with open(f"/proc/{self.worker()}/status", encoding="utf-8") as status:
            fields = dict(line.split(":", 1) for line in status)
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssShmem", "RssAnon", "VmHWM")}

    def place(self, name):
        return os.getxattr(self.path(name), "user.svmfs.datastore").decode()

    def other(self, name):
        return "target" if self.place(name) == "source" else "source"

    def migrate(self, name, text):
        os.setxattr(self.path(name), "user.svmfs.migrate", text.encode())

    def control(self, name, text):
        os.setxattr(self.path(name), "user.svmfs.control", text.encode())

    def error(self, name):
        return os.getxattr(self.path(name), "user.svmfs.error").decode()

    def progress(self, name):
        line = os.getxattr(self.path(name), "user.svmfs.progress").decode()
        return dict(item.split("=", 1) for item in line.split() if "=" in item)

    def wait(self, name, state="done", limit=600):
        """The progress when the job is in that state; None when it is not within the limit."""
        deadline = time.monotonic() + limit
        while True:
            fields = self.progress(name)
            if fields["state"] == state:
                return fields
            if fields["state"] in ("failed", "cancelled"):
                raise RuntimeError(f"the move of {name}: {self.error(name)}")
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)

    def cancel(self, name):
        """And until it has ended; a move that came first is none the worse for it."""
        try:
            self.control(name, "cancel")
        except OSError:
            pass
        wait_until(
            lambda: self.progress(name)["state"] in ("done", "failed", "cancelled"),
            60,
            f"the end of the move of {name}",
        )

    def move(self, name, target):
        """Seconds from the command to state=done, and the last progress."""
        begun = time.monotonic()
        self.migrate(name, target)
        fields = self.wait(name)
        if fields is None:
            raise RuntimeError(f"the move of {name} has no end")
        return time.monotonic() - begun, fields
