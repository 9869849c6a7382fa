"""Waiting for a quiet machine, over a simulated machine."""

import unittest

from quiet import Quiet


class Machine:
    """Is quiet as the list of answers says, then as its last element; counts the samples."""

    def __init__(self, *answers):
        self.answers, self.samples = list(answers), 0

    def has_room(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def sample(self):
        self.samples += 1
        return self.samples


class Waiting(unittest.TestCase):
    def test_a_quiet_machine_is_measured_once(self):
        machine = Machine(True)
        quiet = Quiet(10, machine.has_room)
        self.assertEqual(quiet.take(machine.sample), 1)
        self.assertEqual((quiet.taken, quiet.disturbed), (1, 0))

    def test_a_sample_begins_when_there_is_room(self):
        machine = Machine(False, False, True)
        quiet = Quiet(10, machine.has_room)
        self.assertEqual(quiet.take(machine.sample), 1)
        self.assertLess(quiet.patience, 10)

    def test_a_disturbed_sample_is_taken_again(self):
        machine = Machine(True, False, True)
        quiet = Quiet(10, machine.has_room)
        self.assertEqual(quiet.take(machine.sample), 2)
        self.assertEqual((quiet.taken, quiet.disturbed), (1, 0))

    def test_patience_ends_and_what_was_disturbed_is_counted(self):
        machine = Machine(False)
        quiet = Quiet(0.01, machine.has_room)
        for _ in range(3):
            quiet.take(machine.sample)
        self.assertEqual((quiet.taken, quiet.disturbed), (3, 3))
        self.assertEqual(machine.samples, 3)


if __name__ == "__main__":
    unittest.main()
