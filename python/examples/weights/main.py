#!/usr/bin/env python3
"""A trainer's weights at N receivers, version after version, while receivers come and go.

    python3 python/examples/weights/main.py

The tensors are those of GPT-2 in bfloat16, 237 MiB in 148 tensors. One receiver is killed while it reads, another one joins
late, and one is so slow that the trainer overtakes it. Every receiver compares every byte of each version that it has.
"""

import argparse
import sys

from processes import Failed, Processes
from state import KIND, new_state, rows_of, shapes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--receivers", type=int, default=3, help="how many follow from the first version on, at least 2 (3)")
    with Processes() as processes:
        try:
            return follow(processes, parser.parse_args().receivers)
        except Failed as error:
            print(f"main.py: {error}", file=sys.stderr)
            return 1


def follow(processes: Processes, count: int) -> int:
    """What happens, and what is seen of it. Answers the exit status."""
    size = sum(rows_of(tensor).nbytes for tensor in new_state().values())
    print(f"{len(shapes())} tensors, {size / 2**20:.0f} MiB, {KIND}")
    trainer = processes.start("trainer.py")
    catalogue = trainer.text()
    receivers = [processes.start("receiver.py", catalogue) for _ in range(count)]
    for receiver in receivers:
        receiver.line("ready")

    wrong = 0

    def publish(what: str) -> None:
        """One version, to all receivers that there are."""
        nonlocal wrong
        trainer.tell("train")
        published = trainer.line("version")
        answers = [receiver.version(published["version"]) for receiver in receivers]
        wrong += sum(answer["wrong"] for answer in answers)
        seconds = max(answer["at"] for answer in answers) - published["at"]
        rate = size * len(answers) / seconds / 1e9
        print(
            f"version {published['version']}: at all {len(answers)} receivers {seconds * 1e3:.0f} ms after it was published, "
            f"{rate:.2f} GB/s in total, path {answers[0]['path']}{what}"
        )

    publish("")
    trainer.tell("train")
    published = trainer.line("version")
    victim = receivers.pop()
    victim.line("reading")
    victim.kill()
    wrong += sum(receiver.version(published["version"])["wrong"] for receiver in receivers)
    print(f"version {published['version']}: one receiver was killed while it read; the other {len(receivers)} have it")

    late = processes.start("receiver.py", catalogue)
    late.line("ready")
    wrong += late.version(published["version"])["wrong"]
    receivers.append(late)
    print(f"version {published['version']}: a receiver that joined later has it, and the trainer did nothing for that")
    publish("")

    trainer.tell("train")
    trainer.line("version")
    slow = receivers[0]
    slow.line("reading")
    slow.stop()
    for _ in range(2):
        trainer.tell("train")
    newest = [trainer.line("version") for _ in range(2)][-1]["version"]
    slow.resume()
    answers = [receiver.version(newest) for receiver in receivers]
    wrong += sum(answer["wrong"] for answer in answers)
    print(
        f"version {newest}: one receiver was stopped while it read, and the trainer made two versions meanwhile; "
        f"{answers[0]['torn']} read was overtaken and done again"
    )
    print(f"every byte compared: {wrong} wrong tensors")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
