"""Medians, comparisons, the tables and the JSON, of invented samples."""

import json
import unittest

import table
from results import Results, to_json
from rows import KIB, MIB, ROWS, Row, Sample
from systems import CROSS_MEMORY, SHARED, TCP, System

LARGE, SMALL = Row("put", MIB, 32), Row("get", 4 * KIB, 1)


def sample(gbps, p50=10.0):
    return Sample(gbps, p50, 3 * p50, 0.25, 0.5)


def results(**systems):
    """The samples of each system, which is named as SYSTEM__PATH, for LARGE, or for the row that is given with them."""
    made = Results([])
    for key, samples in systems.items():
        name, path = key.split("__")
        path = {"cross": CROSS_MEMORY, "tcp": TCP, "shared": SHARED}[path]
        system = System(name, path, [], [], is_limit=name.startswith("limit"))
        made.systems.append(system)
        row = LARGE
        for one in samples:
            if isinstance(one, Row):
                row = one
            else:
                made.add(system, row, one)
    return made


class Comparisons(unittest.TestCase):
    def test_the_median_is_taken_of_each_value(self):
        made = results(ours__tcp=[sample(3, p50=1), sample(1, p50=2), sample(2, p50=9)])
        self.assertEqual(made.median("ours", TCP, LARGE), Sample(2, 2, 6, 0.25, 0.5))
        self.assertEqual(made.spread("ours", TCP, LARGE), (1, 3))
        self.assertIsNone(made.median("ours", TCP, SMALL))

    def test_rates_are_compared_with_the_fastest_peer_and_limit(self):
        made = results(ours__tcp=[sample(3)], slow__tcp=[sample(1)], fast__tcp=[sample(4)], limit_a__tcp=[sample(6)],
                       limit_b__tcp=[sample(5)])
        self.assertEqual(made.best_peer(TCP, LARGE)[0], "fast")
        self.assertEqual(made.comparisons(TCP, LARGE), [0.75, 0.5])

    def test_one_small_transfer_is_compared_by_its_time(self):
        made = results(ours__tcp=[SMALL, sample(9, p50=20)], peer__tcp=[SMALL, sample(1, p50=10)])
        self.assertEqual(made.comparisons(TCP, SMALL), [0.5, None])

    def test_paths_are_not_mixed(self):
        made = results(ours__tcp=[sample(1)], peer__cross=[sample(9)])
        self.assertEqual(made.comparisons(TCP, LARGE), [None, None])


class Table(unittest.TestCase):
    def test_a_row_where_a_peer_is_ahead_is_marked_and_named(self):
        text = table.render(results(ours__tcp=[sample(3)], peer__tcp=[sample(4)], limit__tcp=[sample(6)]))
        self.assertIn("| put 32 x 1 MiB | 3.00 | 4.00 | 6.00 | **0.75** | 0.50 | 3.00 to 3.00 GB/s |", text)
        self.assertIn("Slower in 1 of 1 rows that both have: put 32 x 1 MiB, tcp (0.75 of peer).", text)
        self.assertIn("| put 32 x 1 MiB | 0.250 + 0.500 | 0.250 + 0.500 | 0.250 + 0.500 |", text)

    def test_a_path_that_we_lack_is_named(self):
        text = table.render(results(ours__tcp=[sample(1)], peer__tcp=[sample(1)], peer__shared=[sample(4)]))
        self.assertIn("| put 32 x 1 MiB | not measured | 4.00 |  |  | - |", text)
        self.assertIn("Nothing of ours in 1 more: shared.", text)

    def test_a_system_without_a_sample_of_a_row_has_a_dash(self):
        text = table.render(results(ours__tcp=[sample(1), SMALL, sample(1, p50=12.34)], peer__tcp=[sample(1)]))
        self.assertIn("| get 1 x 4 KiB | 12.3 us (p99 37.0) | - | - | - |", text)

    def test_a_limit_that_is_beaten_by_the_whole_spread_is_named(self):
        for rates, beaten in [((5, 7), True), ((4, 7), False)]:
            made = results(ours__tcp=[sample(rate) for rate in rates], limit__tcp=[sample(4), sample(4.5)])
            made.add(System("peer", TCP, [], []), LARGE, sample(1))
            made.systems.append(System("peer", TCP, [], []))
            self.assertEqual("Faster than the best limit" in table.render(made), beaten)

    def test_without_peers_the_table_says_so(self):
        self.assertIn("No row was measured of both", table.render(results(ours__tcp=[sample(1)])))

    def test_figures_have_three_digits(self):
        self.assertEqual([table.figure(value) for value in (0, 0.01234, 1.234, 12.34, 1234.5)],
                         ["0", "0.012", "1.23", "12.3", "1234"])


    def test_under_burners_the_p99_is_compared(self):
        row = Row("put", 4 * KIB, 1, burners=2)
        made = results(ours__tcp=[row, sample(1, p50=2)], peer__tcp=[row, sample(1, p50=1)])
        self.assertEqual(made.comparisons(TCP, row), [0.5, None])
        self.assertIn("| put 1 x 4 KiB, 2 burners | 2.00 us (p99 6.00) | 1.00 us (p99 3.00) |", table.render(made))


class Rows(unittest.TestCase):
    def test_each_row_has_a_name_of_its_own(self):
        self.assertEqual(len({str(row) for row in ROWS}), len(ROWS))

    def test_a_limit_does_not_compete_with_burners(self):
        made = [System("name", TCP, [], [], is_limit=is_limit) for is_limit in [False, True]]
        self.assertEqual([Row("put", 4 * KIB, 1, burners=2).is_for(system) for system in made], [True, False])

    def test_another_interface_is_measured_by_small_transfers_alone(self):
        calls = System("name", TCP, [], [], is_for_calls=True)
        self.assertEqual([str(row) for row in ROWS if row.is_for(calls)], ["put 1 x 4 KiB", "get 1 x 4 KiB"])


class Json(unittest.TestCase):
    def test_its_shape(self):
        made = results(ours__tcp=[sample(1), sample(3), sample(2)], limit__tcp=[sample(6)])
        made.not_measured["peer, tcp"] = "not there"
        read = json.loads(json.dumps(to_json(made, [], {"cpu": "a"}, "2000-01-01")))
        self.assertEqual(read["host"], {"cpu": "a"})
        self.assertEqual(read["date"], "2000-01-01")
        self.assertEqual(read["not_measured"], {"peer, tcp": "not there"})
        self.assertEqual(read["rows"], [
            {"system": "ours", "path": "tcp", "op": "put", "size": MIB, "batch": 32, "gbps": 2, "p50_us": 10.0,
             "p99_us": 30.0, "cpu_initiator": 0.25, "cpu_target": 0.5, "sets": 16, "burners": 0, "gbps_min": 1,
             "gbps_max": 3, "samples": 3}])
        self.assertEqual([entry["system"] for entry in read["limits"]], ["limit"])


if __name__ == "__main__":
    unittest.main()
