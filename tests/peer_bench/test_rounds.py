"""The order of the samples, and systems that start anew or fail, over invented pairs of processes."""

import unittest

import rounds
from pair import Failed
from quiet import Quiet
from results import Results
from rows import BURNING, KIB, Row, Sample
from systems import TCP, System

ROWS = (Row("put", 4 * KIB, 1), Row("get", 4 * KIB, 1))


class Measured(unittest.TestCase):
    def setUp(self):
        self.log, self.broken = [], None
        self.addCleanup(setattr, rounds, "Pair", rounds.Pair)
        rounds.Pair = self.pair

    def pair(self, system, _build, _pools):
        test = self

        class Invented:
            version = "1"

            def sample(self, row, seconds, _seed):
                test.log.append(f"{system.name} {row.op}")
                if test.broken == (system.name, row.op):
                    raise Failed("a reason")
                return Sample(1, seconds * 1e6, 3, 4, 5)

            def close(self):
                test.log.append(f"close {system.name}")

        self.log.append(f"start {system.name}")
        return Invented()

    def run_rounds(self, *systems, count=1, rows=ROWS, seconds=0.1):
        results = Results(list(systems))
        effort = rounds.Effort(count, seconds, 0, 60, rows)
        self.assertEqual(rounds.Rounds("", results, Quiet(0, lambda: True), effort).run(), count)
        return results

    def test_all_systems_take_turns_in_each_row_and_each_begins_a_round(self):
        self.run_rounds(System("a", TCP, [], []), System("b", TCP, [], []), count=2)
        samples = [entry for entry in self.log if not entry.startswith(("start", "close"))]
        self.assertEqual(samples, ["a put", "b put", "a get", "b get", "b put", "a put", "b get", "a get"])
        self.assertEqual(self.log[-2:], ["close a", "close b"])

    def test_a_system_with_memory_of_its_own_starts_anew_in_each_round(self):
        self.run_rounds(System("a", TCP, [], []), System("b", TCP, [], [], has_own_memory=True), count=3)
        self.assertEqual([self.log.count(f"start {name}") for name in "ab"], [1, 3])
        self.assertEqual([self.log.count(f"close {name}") for name in "ab"], [1, 3])

    def test_one_that_fails_is_left_out_with_the_reason_and_the_others_go_on(self):
        self.broken = ("a", "get")
        results = self.run_rounds(System("a", TCP, [], []), System("b", TCP, [], []), count=2)
        self.assertEqual(results.not_measured, {"a, tcp": "from get 1 x 4 KiB in round 1: a reason"})
        self.assertEqual(len(results.samples["b", TCP, ROWS[1]]), 2)
        self.assertEqual(self.log.count("close a"), 1)

    def test_one_that_is_not_there_is_named(self):
        results = self.run_rounds(System("a", TCP, [], [], needs="/nowhere/a", advice="install it"))
        self.assertEqual(results.not_measured, {"a, tcp": "install it"})
        self.assertEqual(self.log, [])

    def test_burners_run_in_their_rows_alone(self):
        made = rounds.Burners.running
        self.addCleanup(setattr, rounds.Burners, "running", made)
        counts = []
        rounds.Burners.running = lambda burners, count: counts.append(count) or made(burners, 0)
        results = self.run_rounds(System("a", TCP, [], []), rows=(ROWS[0], BURNING[0]))
        self.assertEqual(counts, [0, 2])
        # These samples are longer.
        times = [results.median("a", TCP, row).p50_us for row in [ROWS[0], BURNING[0]]]
        self.assertAlmostEqual(times[1] / times[0], rounds.BURNING_FACTOR)


if __name__ == "__main__":
    unittest.main()
