"""Aims, and what became of them, of invented samples."""

import json
import unittest

import table
from aims import AIMS, UCX, Aim, Bound, evaluate
from results import Results
from rows import KIB, MIB, ROWS, Row, Sample
from systems import OURS, OURS_RUST, TCP, System, all_systems

LARGE, SMALL = Row("put", MIB, 32), Row("get", 4 * KIB, 1)


def sample(gbps=1.0, p50=10.0, p99=30.0, cpu=0.25):
    return Sample(gbps, p50, p99, cpu, cpu)


def outcome(value, bounds, row=LARGE, system=OURS, **samples):
    """The outcome of one aim on TCP; keys are systems, with `_` for `-`."""
    results = Results([])
    for name, taken in samples.items():
        one = System(name.replace("_", "-"), TCP, [], [])
        results.systems.append(one)
        for each in taken:
            results.add(one, row, each)
    [made] = evaluate(results, [Aim(TCP, row, value, tuple(bounds), system=system)])
    return made


class Outcomes(unittest.TestCase):
    def test_a_rate_is_to_be_a_multiple_of_the_best(self):
        for rate, met in [(5.9, False), (6.1, True)]:
            made = outcome("rate", [Bound("UCX", UCX, factor=1.5)], ours=[sample(rate)], ucx=[sample(3)],
                           ucx_debian=[sample(4)])
            self.assertEqual((made.met, made.compared_with, made.ratio_asked, made.ratio),
                             (met, "ucx-debian", 1.5, rate / 4))

    def test_a_time_is_to_be_a_fraction_of_the_best(self):
        for p50, met in [(8.4, True), (8.6, False)]:
            made = outcome("p50", [Bound("UCX", UCX, factor=0.85)], SMALL, ours=[sample(p50=p50)],
                           ucx=[sample(p50=10)], ucx_debian=[sample(p50=12)])
            self.assertEqual((made.met, made.compared_with), (met, "ucx"))

    def test_of_two_bounds_one_has_to_be_kept(self):
        bounds = [Bound("UCX", UCX), Bound("copy", ("limit",), plus=0.5)]
        for p50, met in [(2.4, True), (2.6, False)]:
            made = outcome("p50", bounds, SMALL, ours=[sample(p50=p50)], ucx=[sample(p50=1)], limit=[sample(p50=2)])
            self.assertEqual((made.met, made.compared_with, made.ratio_asked), (met, "limit", 1.25))
            self.assertEqual(made.asked, "<= UCX or copy + 0.5 us")

    def test_a_bound_that_was_not_measured_might_have_been_kept(self):
        bounds = [Bound("UCX", UCX), Bound("copy", ("limit",), plus=0.5)]
        for p50, met in [(2.4, True), (2.6, None)]:
            self.assertEqual(outcome("p50", bounds, SMALL, ours=[sample(p50=p50)], limit=[sample(p50=2)]).met, met)

    def test_processor_time_of_both_sides_counts(self):
        made = outcome("cpu", [Bound("UCX", UCX)], ours=[sample(cpu=0.2)], ucx=[sample(cpu=0.1)])
        self.assertEqual((made.met, made.ours, made.theirs), (False, 0.4, 0.2))

    def test_the_tail_is_compared_with_its_own_median(self):
        for p99, met in [(99, True), (101, False)]:
            bound = Bound("its p50", (OURS,), factor=10, value="p50")
            made = outcome("p99", [bound], ours=[sample(p50=10, p99=p99)])
            self.assertEqual((made.met, made.ratio_asked, made.ratio), (met, 10, p99 / 10))

    def test_another_interface_is_compared_with_ours(self):
        made = outcome("p50", [Bound("C++ header", (OURS,), plus=1)], SMALL, system=OURS_RUST, ours=[sample(p50=2)],
                       ours_rust=[sample(p50=3.5)])
        self.assertEqual((made.met, made.ratio_asked, made.ratio), (False, 1.5, 1.75))

    def test_the_spread_is_that_of_the_rounds(self):
        made = outcome("rate", [Bound("UCX", UCX)], ours=[sample(2), sample(3), sample(4)],
                       ucx=[sample(2), sample(2), sample(1)])
        self.assertEqual((made.ratio, made.ratio_min, made.ratio_max), (1.5, 1, 4))

    def test_without_a_sample_nothing_is_said(self):
        self.assertIsNone(outcome("rate", [Bound("UCX", UCX)], ucx=[sample()]).met)
        self.assertIsNone(outcome("rate", [Bound("UCX", UCX)], ours=[sample()]).met)


class Shown(unittest.TestCase):
    def test_what_is_missed_is_bold_and_named(self):
        missed = outcome("rate", [Bound("UCX", UCX, factor=2)], ours=[sample(3)], ucx=[sample(2)])
        self.assertEqual(table.aims([missed]).splitlines()[-1], "| tcp: put 32 x 1 MiB | rate >= 2 x UCX | 3.00 GB/s | "
                         "2.00 (ucx) | 2.00 | **1.50 (1.50 to 1.50)** | **no** |")
        self.assertEqual(table.total([missed]), "Of 1 aims 0 are met, 0 not measured, and 1 missed: "
                         "tcp: put 32 x 1 MiB, rate.")

    def test_what_is_met_is_not(self):
        met = outcome("rate", [Bound("UCX", UCX)], ours=[sample(3)], ucx=[sample(2)])
        self.assertTrue(table.aims([met]).endswith("| 1.00 | 1.50 (1.50 to 1.50) | yes |"))
        self.assertEqual(json.loads(json.dumps(met.to_json()))["ratio"], 1.5)

    def test_what_was_not_measured_says_so(self):
        self.assertIn("| - | - | - | - | not measured |", table.aims([outcome("rate", [Bound("UCX", UCX)])]))


class Aims(unittest.TestCase):
    def test_each_one_is_about_a_row_that_is_measured_of_all_that_it_compares(self):
        measured = {(system.name, system.path, row) for system in all_systems("") for row in ROWS if row.is_for(system)}
        for aim in AIMS:
            names = {name for bound in aim.bounds for name in bound.systems}
            self.assertIn((aim.system, aim.path, aim.row), measured)
            self.assertTrue(any((name, aim.path, aim.row) in measured for name in names), f"{aim.path}, {aim.row}, {aim}")

    def test_none_is_there_twice(self):
        named = [(aim.path, aim.row, aim.value, aim.system) for aim in AIMS]
        self.assertEqual(len(set(named)), len(named))


if __name__ == "__main__":
    unittest.main()
