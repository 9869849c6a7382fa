"""Waits, up to a time limit, until other programs leave two processors to the two measured processes."""

import os
import time

# How often to look; also how long a process that was just stopped may still count as one that runs.
GLANCE_SECONDS = 0.003


class Quiet:
    """Patience is a time limit in seconds for the whole run. Counts the samples that were disturbed nevertheless."""

    def __init__(self, patience, has_room=None):
        self.patience = patience
        self.has_room = has_room or has_room_now
        self.taken = self.disturbed = 0

    def take(self, sample):
        """The result of sample(), which is repeated if another program began to run during it."""
        while True:
            began = time.monotonic()
            calm = self.wait()
            answer = sample()
            time.sleep(GLANCE_SECONDS)
            calm = calm and self.has_room()
            if calm or self.patience <= 0:
                self.taken += 1
                self.disturbed += not calm
                return answer
            self.patience -= time.monotonic() - began

    def wait(self):
        """Whether two processors are free, now or within the time limit."""
        while not self.has_room():
            if self.patience <= 0:
                return False
            time.sleep(GLANCE_SECONDS)
            self.patience -= GLANCE_SECONDS
        return True

    def __str__(self):
        return f"other programs ran during {self.disturbed} of {self.taken} samples"


def has_room_now():
    """Whether two processors are free. The fourth word of the file: threads that run or want to, this one included."""
    with open("/proc/loadavg", encoding="ascii") as file:
        running = int(file.read().split()[3].split("/")[0])
    return running - 1 <= max(0, len(os.sched_getaffinity(0)) - 2)
