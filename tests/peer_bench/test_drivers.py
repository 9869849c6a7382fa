"""Drivers that report wrong results, end or are silent: none of that becomes a result."""

import os
import sys
import tempfile
import unittest

import pair
from pair import Failed, Pair
from rows import ALL_BLOCKS, KIB, ONE_SET, Row
from systems import TCP, System

HERE = os.path.dirname(os.path.abspath(__file__))


def system(mode):
    driver = [sys.executable, os.path.join(HERE, "drivers", "fake_driver.py")]
    return System(f"fake-{mode}", TCP, [*driver, "target"], [*driver, mode])


class Drivers(unittest.TestCase):
    def outcome(self, mode, op="put", sets=16):
        """The sample of a row, or the reason why there is none."""
        made = Pair(system(mode), os.environ["PEER_BENCH_BUILD"])
        self.addCleanup(made.close)
        try:
            return made.sample(Row(op, 4 * KIB, 2, sets), seconds=0.02, seed=7)
        except Failed as error:
            return str(error)

    def test_an_honest_driver_is_measured(self):
        for op in ["put", "get"]:
            sample = self.outcome("honest", op)
            self.assertGreater(sample.gbps, 0, sample)
            self.assertGreater(sample.cpu_initiator, 0)

    def test_one_block_again_and_again_and_all_blocks_in_turn(self):
        for sets in [ONE_SET, ALL_BLOCKS]:
            self.assertGreater(self.outcome("honest", sets=sets).gbps, 0)
            self.assertIn("THE BYTES DIFFER", str(self.outcome("nothing", sets=sets)))

    def test_bytes_that_did_not_arrive_are_found(self):
        for mode in ["nothing", "short", "stale"]:
            for op in ["put", "get"]:
                self.assertIn("THE BYTES DIFFER", str(self.outcome(mode, op)), f"{mode}, {op}")

    def test_a_driver_that_ends_is_reported_with_its_last_words(self):
        self.assertEqual(self.outcome("ends"), "the initiator has ended: RuntimeError: a reason")

    def test_a_silent_driver_is_killed(self):
        self.addCleanup(setattr, pair, "SAMPLE_SECONDS", pair.SAMPLE_SECONDS)
        pair.SAMPLE_SECONDS = 1
        made = Pair(system("silent"), os.environ["PEER_BENCH_BUILD"])
        processes = [driver.process for driver in made.processes]
        with self.assertRaisesRegex(Failed, "did not answer within"):
            made.sample(Row("put", 4 * KIB, 1), seconds=0.01, seed=1)
        self.assertTrue(all(process.returncode is not None for process in processes))

    def test_a_program_that_is_not_there_leaves_no_process(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(OSError):
            Pair(System("gone", TCP, [os.path.join(folder, "gone")], []), os.environ["PEER_BENCH_BUILD"])


if __name__ == "__main__":
    unittest.main()
