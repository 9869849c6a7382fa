"""The medians of the samples as tables."""

import statistics

#: What is measured: the key of a sample, the heading, digits after the point.
COLUMNS = [
    ("write_us", "write 4 KiB, us", 1),
    ("submit_ms", "4,096 pieces submitted, ms", 2),
    ("scattered_ms", "4,096 pieces there, ms", 2),
    ("gib_gbps", "write 1 GiB, GB/s", 2),
]


def print_table(samples, missing, versions, rounds):
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "C++")
    print(f"\nTwo processes, medians of {rounds} rounds in turn; {told}\n")
    print("| Path | Engine | " + " | ".join(heading for _, heading, _ in COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for path, name in samples:
        cells = [f"{statistics.median(sample[key] for sample in samples[path, name]):.{digits}f}" for key, _, digits in COLUMNS]
        print(f"| {path} | {name} | " + " | ".join(cells) + " |")
    if found := samples.get(("tcp", "Python")):
        names = ("await_block_us", "await_together_us", "wait_block_us", "asyncio_woken_us")
        figures = "; ".join(f"{statistics.median(sample[name] for sample in found):.1f}" for name in names)
        what = "`await` of a write of 4 KiB; of a hundred, each; `wait` of one; an await of asyncio that another thread ends"
        print(f"tcp: {what}: {figures} us")
    for (path, name), reason in missing.items():
        print(f"not measured: {name}, {path}: {reason}")


def print_alone(alone):
    if alone is None:
        print("\nnot measured: one process: the package is not installed")
        return
    print("\nBoth ends in one process\n\n| What | |\n|---|---|")
    print(f"| write 4 KiB | {alone['write_us']:.2f} us |")
    print(f"| 4,096 scattered pieces submitted | {alone['submit_ms']:.3f} ms |")
    print(f"| `await` of a write of 64 KiB; `wait` of it; an await of asyncio alone | {alone['await_us']:.1f}; "
          f"{alone['wait_us']:.1f}; {alone['asyncio_us']:.1f} us |")
