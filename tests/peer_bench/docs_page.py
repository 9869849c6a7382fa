"""The results as a section of docs/benchmarks.md, which a later run replaces."""

import os
import re
import textwrap

TITLE = "comparison with other engines"
# The section: its heading, up to the next one of that level or above.
SECTION = re.compile(rf"^### [^\n]*: {TITLE}\n.*?(?=^##?#? )", re.MULTILINE | re.DOTALL)
WIDTH = 125


def section(command, results, machine, date, done, tables):
    """Markdown: what was measured where, the plot, and the tables."""
    day, time = date.split(" ", 1)
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    text = (f"`{command}` at {time}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"{machine['system']}, kernel {machine['kernel']}; load {machine['load_before']} before, "
            f"{machine['load_after']} after, the run's own included; {done}. Versions: {versions or 'unknown'}.")
    plot = "![Size against GB/s of each system, with the best limit](benchmarks-peers.svg)"
    missing = [filled(f"Not measured: {name}: {reason}") for name, reason in results.not_measured.items()]
    return "\n\n".join([f"### {day}: {TITLE}", filled(text), plot, tables, *missing])


def filled(text):
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def plot_of(page):
    """Where the plot lies that a section shows."""
    return os.path.join(os.path.dirname(page), "benchmarks-peers.svg")


def reason_against(page):
    """Why a page cannot get the section, or None."""
    try:
        with open(page, encoding="utf-8") as file:
            found = len(SECTION.findall(file.read()))
    except OSError as error:
        return f"cannot read {page}: {error.strerror}"
    return None if found == 1 else f"{page} has {found} sections `### DATE: {TITLE}`, and one is to be replaced"


def replace(page, text):
    with open(page, encoding="utf-8") as file:
        old = file.read()
    with open(page, "w", encoding="utf-8") as file:
        file.write(SECTION.sub(lambda _: f"{text}\n\n", old))
