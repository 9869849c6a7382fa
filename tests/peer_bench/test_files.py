"""Copies of a file that fail or are wrong, and burners that end."""

import os
import select
import signal
import sys
import tempfile
import time
import unittest

import files
from burners import Burners, start
from pair import Failed
from rows import MIB, Row
from systems import FILE, System

ROW = Row("put", 5 * MIB + 4096, 1, paths=(FILE,))


def outcome(*command):
    """The sample, or the reason why there is none; the second value is whether files were left in tmpfs."""
    with tempfile.TemporaryDirectory() as build:
        copier = files.FileCopy(System("copy", FILE, [], list(command)), build)
        try:
            answer = copier.sample(ROW, 0, 0)
        except Failed as error:
            answer = str(error)
        finally:
            copier.close()
        return answer, os.path.exists(copier.folder)


class Copies(unittest.TestCase):
    def test_cp_is_measured_and_leaves_nothing(self):
        sample, left = outcome("cp")
        self.assertGreater(sample.gbps, 0)
        self.assertGreater(sample.cpu_initiator, 0)
        self.assertFalse(left)

    def test_other_bytes_are_found(self):
        for change in ["f.seek(9); other = f.read(1)[0] ^ 1; f.seek(9); f.write(bytes([other]))", "f.seek(0, 2); f.write(b'x')", "f.truncate(4096)"]:
            script = f"import shutil, sys; shutil.copy(*sys.argv[1:]); f = open(sys.argv[2], 'r+b'); {change}"
            self.assertEqual(outcome(sys.executable, "-c", script), ("THE BYTES DIFFER", False))

    def test_a_command_that_fails_is_reported_with_its_last_words(self):
        answer, left = outcome(sys.executable, "-c", "import sys; sys.exit('a reason')")
        self.assertIn("ended with status 1: a reason", answer)
        self.assertFalse(left)

    def test_the_source_stays_for_later_runs(self):
        with tempfile.TemporaryDirectory() as build:
            made = files.source_of(build, ROW.size)
            self.assertEqual((os.path.getsize(made), os.listdir(build)), (ROW.size, [os.path.basename(made)]))
            number = os.stat(made).st_ino
            self.assertEqual(os.stat(files.source_of(build, ROW.size)).st_ino, number)

    def test_what_a_killed_runner_left_is_removed(self):
        ended = os.fork()
        if ended == 0:
            os._exit(0)
        os.waitpid(ended, 0)
        folders = [os.path.join(files.TMPFS, f"{files.PREFIX}{process}-test") for process in [ended, os.getpid()]]
        for folder in folders:
            os.mkdir(folder)
        files.remove_left_over()
        self.assertEqual([os.path.exists(folder) for folder in folders], [False, True])
        os.rmdir(folders[1])

    def test_a_file_without_room_is_refused(self):
        self.addCleanup(setattr, files.shutil, "disk_usage", files.shutil.disk_usage)
        files.shutil.disk_usage = lambda _: type("Usage", (), {"free": 0})
        self.assertIn("no room in", outcome("cp")[0])


def state(process):
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]


class Burning(unittest.TestCase):
    def test_they_run_between_their_start_and_stop_only(self):
        burners = Burners()
        self.addCleanup(burners.close)
        with burners.running(1):
            [process] = burners.processes
            self.assertEqual(os.getpriority(os.PRIO_PROCESS, process.pid), 19)
            used, end = files.processor_time(process.pid), time.monotonic() + 30
            while files.processor_time(process.pid) == used and time.monotonic() < end:
                time.sleep(0.01)
            self.assertGreater(files.processor_time(process.pid), used)
        while state(process) != "T":
            time.sleep(0.01)
        used = files.processor_time(process.pid)
        time.sleep(0.1)
        self.assertEqual(files.processor_time(process.pid), used)
        burners.close()
        self.assertIsNotNone(process.returncode)

    def test_none_is_started_where_none_is_wanted(self):
        burners = Burners()
        with burners.running(0):
            self.assertEqual(burners.processes, [])

    def test_one_ends_with_the_runner(self):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            process = start()
            process.send_signal(signal.SIGCONT)
            os.write(write, str(process.pid).encode())
            os._exit(0)
        os.waitpid(child, 0)
        burner = os.pidfd_open(int(os.read(read, 20)))
        self.addCleanup(os.close, burner)
        ended, _, _ = select.select([burner], [], [], 30)
        if not ended:
            signal.pidfd_send_signal(burner, signal.SIGKILL)
        self.assertTrue(ended)


if __name__ == "__main__":
    unittest.main()
