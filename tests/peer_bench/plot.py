#!/usr/bin/env python3
"""plot.py JSON FILE...: draws the results of `./x bench peers --json JSON` as SVG.

A panel for each path and operation: sizes against GB/s for each system, and the best limit. Needs matplotlib.
"""

import io
import json
import sys

try:
    import matplotlib
except ImportError as error:
    sys.exit(f"matplotlib is not installed: {error}")

from rows import OPERATIONS, USUAL
from systems import CROSS_MEMORY, OURS, SHARED, TCP

TITLES = {CROSS_MEMORY: "memory of the programs", TCP: "TCP", SHARED: "memory that both map"}
COLOURS = {OURS: "#cf222e", "ucx": "#0969da", "ucx-debian": "#54aeff", "nixl": "#8250df", "nixl-no-thread": "#c297ff",
           "mooncake": "#bf8700"}
LIMIT_COLOUR = "#57606a"


def points(entries, path, op):
    """For each system the rates of the plotted rows, None where one is missing; single blocks first."""
    rows = sorted((row for row in USUAL if row.op == op and row.is_plotted), key=lambda row: row.batch > 1)
    found = {}
    for entry in entries:
        if entry["path"] == path and entry["op"] == op and entry["sets"] == rows[0].sets and not entry["burners"]:
            found.setdefault(entry["system"], {})[entry["size"], entry["batch"]] = entry["gbps"]
    return rows, {name: [rates.get((row.size, row.batch)) for row in rows] for name, rates in found.items()
                  if len(rates) > 2}


def limit(rates):
    """The best limit of each row."""
    return [max(filter(None, column), default=None) for column in zip(*rates.values())]


def label(row):
    size = str(row).split(" x ")[1]
    return size if row.batch == 1 else f"{row.batch} x {size}"


def draw(results):
    """The figure."""
    matplotlib.use("Agg")
    # Text stays text, and ids are the same in each run.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "peers", "font.size": 8})
    from matplotlib import pyplot  # only after the choice of the back end

    paths = [path for path in TITLES if points(results["rows"], path, "put")[1]] or list(TITLES)
    figure, panels = pyplot.subplots(len(paths), 2, figsize=(11, 3.1 * len(paths)), sharey="row", squeeze=False)
    for line, path in zip(panels, paths):
        for panel, op in zip(line, OPERATIONS):
            draw_panel(panel, results, path, op)
        line[0].set_ylabel("GB/s")
    host = results["host"]
    figure.suptitle(f"{results['date']}, {host['cpu']}, {host['cores']} cores: one block at a time, and many at once")
    # One legend for all panels.
    lines = {line.get_label(): line for panel in panels.flat for line in panel.lines
             if not line.get_label().startswith("_")}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=len(lines), frameon=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return figure


def draw_panel(panel, results, path, op):
    rows, limits = points(results["limits"], path, op)
    _, systems = points(results["rows"], path, op)
    single = sum(row.batch == 1 for row in rows)
    # A gap between single blocks and many at once: no line joins them.
    places = [number if number < single else number + 0.7 for number in range(len(rows))]

    def line(rates, **style):
        for part, name in [(slice(0, single), style.pop("label")), (slice(single, None), None)]:
            panel.plot(places[part], [float("nan") if rate is None else rate for rate in rates[part]], label=name, **style)

    if limits:
        line(limit(limits), label="best limit", color=LIMIT_COLOUR, linestyle="--", linewidth=1.5)
    for name, rates in systems.items():
        line(rates, label=name, color=COLOURS.get(name), marker="o", markersize=3,
             linewidth=2.2 if name == OURS else 1, zorder=3 if name == OURS else 2)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.set_xticks(places, [label(row) for row in rows], rotation=30, ha="right")
    panel.set_title(f"{TITLES[path]}: {op}")
    panel.grid(alpha=0.4, linewidth=0.5)


def main():
    source, *files = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        results = json.load(file)
    out = io.StringIO()
    draw(results).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
    for name in files:
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
