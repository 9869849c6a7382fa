"""The two processes of one system: started together, stopped between their samples, killed at the end."""

import json
import os
import selectors
import signal
import subprocess
import time

from rows import Sample

# Starting takes seconds where a Python package loads large libraries; a sample takes its time and the check.
START_SECONDS, SAMPLE_SECONDS = 60, 30


class Failed(Exception):
    """A driver ended, or did not answer in time; the text has the reason."""


class Pair:
    """A target and an initiator that is connected to it."""

    def __init__(self, system, build, pools=()):
        """`pools`: file descriptors of the initiator's and the target's memory, unless they have memory of their own."""
        pools = () if system.has_own_memory else pools
        self.processes, self.pools = [], pools
        folder = os.path.join(build, "log")
        os.makedirs(folder, exist_ok=True)
        self.log = os.path.join(folder, f"{system.name}-{system.path}")
        self.environment = dict(os.environ, PEER_BENCH_BUILD=build, PYTHONDONTWRITEBYTECODE="1", **system.environment)
        if pools:
            self.environment["PEER_BENCH_POOLS"] = ",".join(map(str, pools))
        try:
            line = self.start("target", system.target).answer(START_SECONDS)
            self.initiator = self.start("initiator", [*system.initiator, line])
            self.version = self.initiator.answer(START_SECONDS)
            self.stop()
        except BaseException:
            self.close()
            raise

    def start(self, role, command):
        driver = Driver(role, command, self.environment, self.pools, f"{self.log}-{role}.log")
        self.processes.append(driver)
        return driver

    def sample(self, row, seconds, seed):
        """Measures a row."""
        self.signal(signal.SIGCONT)
        try:
            self.initiator.ask(f"{row.op} {row.size} {row.batch} {row.sets} {seconds} {seed}")
            answer = self.initiator.answer(seconds + SAMPLE_SECONDS)
        except Failed:
            self.close()
            raise
        self.stop()
        return Sample(**json.loads(answer))

    def stop(self):
        """Takes both off the processors, also those of their threads that poll."""
        self.signal(signal.SIGSTOP)

    def signal(self, number):
        for driver in self.processes:
            if driver.process.poll() is None:
                driver.process.send_signal(number)

    def close(self):
        for driver in reversed(self.processes):
            driver.kill()
        self.processes = []


class Driver:
    """One process. Its answers are lines of stdout; its stderr goes to a file."""

    def __init__(self, role, command, environment, files, log):
        self.role, self.log, self.text = role, log, b""
        with open(log, "wb") as errors:
            # In a session of its own, so that Ctrl-C reaches the runner alone, which then ends them all.
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=errors, bufsize=0, start_new_session=True, pass_fds=files)

    def ask(self, line):
        try:
            self.process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            raise self.failed("has ended") from None

    def answer(self, seconds):
        """The next line of stdout. Fails after so many seconds."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.text:
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise self.failed(f"did not answer within {seconds:g} s")
                read = os.read(self.process.stdout.fileno(), 1 << 16)
                if not read:
                    raise self.failed("has ended")
                self.text += read
        line, self.text = self.text.split(b"\n", 1)
        return line.decode()

    def failed(self, what):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log if line.strip()]
        return Failed(f"the {self.role} {what}{': ' + lines[-1] if lines else ''}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
