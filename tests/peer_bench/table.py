"""The results as tables in Markdown, as docs/benchmarks.md keeps them."""

from aims import VALUES
from docs_page import filled
from rows import ROWS
from systems import OURS, PATHS, TITLES


def render(results, outcomes=()):
    """All tables, a paragraph with the rows in which a peer is faster, and what became of the aims."""
    parts = []
    for path in PATHS:
        if results.names(path, limits=False) or results.names(path, limits=True):
            parts += [f"{TITLES[path]}:", rates(results, path), "Processor time, seconds a GiB, initiator + target:",
                      processor_time(results, path)]
    parts += [filled(paragraph) for paragraph in summary(results).split("\n\n")]
    if outcomes:
        parts += ["Aims: what is asked of this engine, and the ratio in this run with its spread over the rounds:",
                  aims(outcomes), filled(total(outcomes))]
    return "\n\n".join(parts)


def rates(results, path):
    """GB/s of every system and limit; microseconds where one transfer is small."""
    systems, limits = results.names(path, limits=False), results.names(path, limits=True)
    header = ["GB/s (or us)", *columns(systems), *limits, "ours to best peer", "ours to best limit", "spread of ours"]
    lines = []
    for row in measured_rows(results, path):
        ratios = results.comparisons(path, row)
        cells = [rate(results.median(name, path, row), row) for name in [*columns(systems), *limits]]
        if OURS not in systems:
            cells[0], shown = "not measured", ["", ""]
        else:
            shown = [ratio(value, bold_below_one=True) for value in ratios[:1]] + [ratio(ratios[1])]
        lines.append([str(row), *cells, *shown, spread(results, path, row)])
    return markdown(header, lines)


def processor_time(results, path):
    """Seconds a GiB of both sides."""
    names = [*results.names(path, limits=False), *results.names(path, limits=True)]
    lines = []
    for row in measured_rows(results, path):
        samples = [results.median(name, path, row) for name in names]
        lines.append([str(row)] + ["-" if sample is None else f"{figure(sample.cpu_initiator)} + "
                                   f"{figure(sample.cpu_target)}" for sample in samples])
    return markdown(["", *names], lines)


def summary(results):
    """Names the rows in which a peer is faster, and those in which a system is faster than a limit."""
    slower, missing, wrong, compared = [], [], [], 0
    for path in PATHS:
        for row in measured_rows(results, path):
            peer, limit = results.best_peer(path, row), results.best_limit(path, row)
            to_peer, _ = results.comparisons(path, row)
            if peer is not None and OURS not in results.names(path, limits=False):
                missing.append(path)
            elif to_peer is not None:
                compared += 1
                if to_peer < 1:
                    slower.append(f"{row}, {path} ({to_peer:.2f} of {peer[0]})")
            fastest = results.best(results.names(path, limits=False), path, row)
            if fastest is not None and limit is not None and faster(results, path, row, fastest[0], limit[0]):
                wrong.append(f"{row}, {path} ({fastest[0]})")
    if compared == 0:
        return "No row was measured of both this engine and a peer."
    text = f"Slower in {len(slower)} of {compared} rows that both have"
    text += f": {'; '.join(slower)}." if slower else "."
    if missing:
        text += f" Nothing of ours in {len(missing)} more: {', '.join(dict.fromkeys(missing))}."
    if wrong:
        text += "\n\nFaster than the best limit, by the whole spread, so that the limit is too low: " + "; ".join(wrong)
        text += "."
    return text


def aims(outcomes):
    """A line for each aim; what was missed is bold."""
    lines = []
    for outcome in outcomes:
        met = {True: "yes", False: "**no**", None: "not measured"}[outcome.met]
        unit = VALUES[outcome.value][1]
        ours = "-" if outcome.ours is None else f"{figure(outcome.ours)} {unit}"
        theirs = "-" if outcome.theirs is None else f"{figure(outcome.theirs)} ({outcome.compared_with})"
        lines.append([f"{outcome.path}: {outcome.row}", f"{outcome.value} {outcome.asked}", ours, theirs,
                      "-" if outcome.ratio_asked is None else f"{outcome.ratio_asked:.2f}", measured(outcome), met])
    return markdown(["row", "asked", "ours", "compared with", "ratio asked", "ratio measured", "met"], lines)


def measured(outcome):
    if outcome.ratio is None:
        return "-"
    text = f"{outcome.ratio:.2f} ({outcome.ratio_min:.2f} to {outcome.ratio_max:.2f})"
    return f"**{text}**" if outcome.met is False else text


def total(outcomes):
    count = {met: sum(outcome.met is met for outcome in outcomes) for met in [True, False, None]}
    missed = "; ".join(f"{outcome.path}: {outcome.row}, {outcome.value}" for outcome in outcomes if outcome.met is False)
    return (f"Of {len(outcomes)} aims {count[True]} are met, {count[None]} not measured, and {count[False]} missed"
            f"{': ' + missed if missed else ''}.")


def faster(results, path, row, name, limit):
    """Whether the slowest sample of a system is faster than the fastest one of a limit, of several each."""
    return results.rounds > 1 and results.spread(name, path, row)[0] > results.spread(limit, path, row)[1]


def measured_rows(results, path):
    return [row for row in ROWS if any((system.name, path, row) in results.samples for system in results.systems)]


def columns(systems):
    """Ours has a column even where it has no such path."""
    return systems if OURS in systems else [OURS, *systems]


def rate(sample, row):
    if sample is None:
        return "-"
    if row.by_latency:
        return f"{figure(sample.p50_us)} us (p99 {figure(sample.p99_us)})"
    return figure(sample.gbps)


def ratio(value, bold_below_one=False):
    if value is None:
        return "-"
    return f"**{value:.2f}**" if bold_below_one and value < 1 else f"{value:.2f}"


def spread(results, path, row):
    if (OURS, path, row) not in results.samples:
        return "-"
    low, high = results.spread(OURS, path, row)
    return f"{figure(low)} to {figure(high)} GB/s"


def figure(value):
    """Three digits that count, without an exponent."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def markdown(header, lines):
    return "\n".join("| " + " | ".join(line) + " |" if line != "rule" else "|" + "---|" * len(header)
                     for line in [header, "rule", *lines])
