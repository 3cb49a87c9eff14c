"""What is measured: a native folder, libfuse's passthrough_hp over one, and svmfs over one."""

import glob
import gzip
import os
import shutil
import subprocess
import sys
import time


# What Debian 12's compiler and cxxopts call otherwise than the example, of the same release, expects.
LATER_NAMES = ["-include", "iostream", "-Doption_not_exists_exception=exceptions::no_such_option"]


class Unavailable(Exception):
    """This peer cannot be had here; the message says why."""


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options).stdout


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
        # Direct writes need its splice, splice needs pipes of 2 MiB, and where root has no CAP_SYS_RESOURCE so does the limit.
        with open(self.PIPE_LIMIT, encoding="ascii") as limit:
            self.pipe_limit = int(limit.read())
        if self.pipe_limit < 4 << 20:
            self.set_pipe_limit(4 << 20)
        # No options: with Debian's cxxopts it counts them as folders. It goes to the background before it is mounted.
        with open(self.program + ".log", "w+", encoding="utf-8") as log:
            done = subprocess.run([self.program, self.store, self.mount], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                  check=False)
        try:
            wait_until(lambda: done.returncode or os.path.ismount(self.mount), 5, "passthrough_hp")
        except TimeoutError:
            pass
        if not os.path.ismount(self.mount):
            print(open(log.name, encoding="utf-8").read(), file=sys.stderr)
            raise Unavailable("passthrough_hp does not start")

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
    release = next(line.split("=")[1].strip() for line in open("/etc/os-release", encoding="ascii")
                   if line.startswith("VERSION_CODENAME="))
    with open(os.path.join(folder, "sources.list"), "w", encoding="ascii") as out:
        out.write("deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
                  f"http://deb.debian.org/debian {release} main\n")
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::SourceList={folder}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
           "-o", f"Dir::State::Lists={folder}/lists"]
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
    name = "svmfs"

    def __init__(self, program, folder, target, scratch):
        if not os.access(program, os.X_OK):
            raise Unavailable(f"no program {os.path.basename(program)}: build it first")
        super().__init__(folder)
        self.target = os.path.join(target, self.name + "-target")
        os.mkdir(self.target)
        self.program = program
        self.mount = os.path.join(scratch, "svmfs-mount")
        self.config = os.path.join(scratch, "svmfs.conf")
        os.mkdir(self.mount)
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(f"[datastore source]\nurl = local:{self.store}\n\n[datastore target]\nurl = local:{self.target}\n\n"
                      f"[mount]\ndefault = source\nstate = {scratch}/svmfs-state\n")

    def start(self):
        log = open(self.config + ".log", "a", encoding="utf-8")
        subprocess.run([self.program, self.config, self.mount], check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self):
        if not os.path.ismount(self.mount):
            return
        keeper = self.parent_of(self.worker())
        subprocess.run(["umount", self.mount], check=False)
        wait_until(lambda: not os.path.exists(f"/proc/{keeper}"), 30, "the end of svmfs")

    @staticmethod
    def parent_of(pid):
        return int(open(f"/proc/{pid}/stat", encoding="ascii", errors="replace").read().rsplit(")", 1)[1].split()[1])

    def worker(self):
        return int(os.getxattr(self.mount, "user.svmfs.worker"))

    def memory(self):
        """Of the worker, in bytes: what is resident, of that shared (request buffers), and the most it ever was."""
        fields = dict(line.split(":", 1) for line in open(f"/proc/{self.worker()}/status", encoding="utf-8"))
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssShmem", "RssAnon", "VmHWM")}

    def move(self, name, target):
        """Seconds from the command to state=done, and the last progress."""
        path = os.path.join(self.mount, name)
        begun = time.monotonic()
        os.setxattr(path, "user.svmfs.migrate", target.encode())
        while True:
            fields = dict(item.split("=", 1) for item in os.getxattr(path, "user.svmfs.progress").decode().split() if "=" in item)
            if fields["state"] == "done":
                return time.monotonic() - begun, fields
            if fields["state"] in ("failed", "cancelled"):
                raise RuntimeError(os.getxattr(path, "user.svmfs.error").decode())
            time.sleep(0.005)
