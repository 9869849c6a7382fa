"""One file copied from the page cache to tmpfs: by `flagcx-p2p put` to a server, and by `cp`."""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
import time

from pair import START_SECONDS, Driver, Failed
from rows import MIB, Sample

TMPFS = "/dev/shm"
PREFIX = "peer_bench-"
CHUNK = 16 * MIB
TRANSFER_SECONDS = 120


class FileCopy:
    """Has the interface of a Pair. Without a command for a target a file is copied within one process, as by cp."""

    def __init__(self, system, build, _pools=()):
        self.system, self.version, self.server, self.warm_size = system, "", None, None
        self.build, self.source = build, None
        self.log = os.path.join(build, "log")
        os.makedirs(self.log, exist_ok=True)
        remove_left_over()
        self.folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=TMPFS)
        self.copy = os.path.join(self.folder, "copy")
        try:
            if system.target:
                self.serve()
        except BaseException:
            self.close()
            raise

    def serve(self):
        # Its standard input ends with the runner.
        self.server = Driver("server", [*self.system.target, self.folder, "--port", "0", "--until-stdin-closes"],
                             dict(os.environ, **self.system.environment), (), os.path.join(self.log, "file-server.log"))
        line = self.server.answer(START_SECONDS)
        found = re.search(r"listening on (\S+)", line)
        if found is None:
            raise Failed(f"the server printed {line!r} instead of its address")
        self.address = found[1]

    def command(self):
        if self.server is None:
            return [*self.system.initiator, self.source, self.copy]
        return [*self.system.initiator, self.source, self.address, "--name", os.path.basename(self.copy)]

    def sample(self, row, _seconds, _seed):
        """Copies the file once, and before the first measurement once more: all its pages are in memory then."""
        if self.warm_size != row.size:
            if shutil.disk_usage(self.folder).free < row.size + CHUNK:
                raise Failed(f"no room in {TMPFS} for a file of {row.size} bytes")
            self.source = source_of(self.build, row.size)
            self.transfer(row.size)
            self.warm_size = row.size
        sample = self.transfer(row.size)
        if not same_bytes(self.source, self.copy):
            raise Failed("THE BYTES DIFFER")
        os.unlink(self.copy)
        return sample

    def transfer(self, size):
        if os.path.exists(self.copy):
            os.unlink(self.copy)
        of_server = processor_time(self.server.process.pid) if self.server else 0
        with open(os.path.join(self.log, f"file-{self.system.name}.log"), "w+b") as log:
            begin = time.monotonic()
            process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise Failed(f"{self.command()[0]} ended with status {process.returncode}: {said[-300:]}")
        of_server = processor_time(self.server.process.pid) - of_server if self.server else 0
        gib = size / 2**30
        return Sample(size / seconds / 1e9, seconds * 1e6, seconds * 1e6, (usage.ru_utime + usage.ru_stime) / gib,
                      of_server / gib)

    def stop(self):
        """Nothing runs between two copies."""

    def close(self):
        if self.server is not None:
            self.server.kill()
            self.server = None
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_left_over():
    """What runners have left in memory that were killed."""
    for name in os.listdir(TMPFS):
        found = re.match(rf"{PREFIX}(\d+)-", name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            shutil.rmtree(os.path.join(TMPFS, name), ignore_errors=True)


def source_of(build, size):
    """A file of that size in the folder `build`, where it stays for later runs."""
    source = os.path.join(build, f"source-{size}")
    if os.path.exists(source):
        return source
    if shutil.disk_usage(build).free < size + CHUNK:
        raise Failed(f"no room in {build} for a file of {size} bytes")
    block = os.urandom(CHUNK)
    with tempfile.NamedTemporaryFile(dir=build) as file:
        for number in range(0, size, CHUNK):
            # No two chunks are equal.
            at = number // CHUNK * 4099 % CHUNK
            file.write((block[at:] + block[:at])[:size - number])
        file.flush()
        os.fsync(file.fileno())  # written back now, and not while others are measured
        os.link(file.name, source)
    return source


def same_bytes(one, other):
    if os.path.getsize(one) != os.path.getsize(other):
        return False
    with open(one, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
        while chunk := left.read(CHUNK):
            if chunk != right.read(CHUNK):
                return False
    return True


def processor_time(process):
    """Seconds that a process has used."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(process, ctypes.byref(clock)) != 0:
        raise Failed("the server has ended")
    return time.clock_gettime(clock.value)
