"""A diagram of box-drawing characters as SVG: `docs/data-path.txt` becomes `docs/data-path.svg`.

Lines, corners and arrow heads are drawn, everything else is text on the same grid. Written here because the text stays
readable without a tool, and the result is the same on every machine, which that of a layout program is not.
"""

import re
from html import escape
from typing import Iterator, List, Tuple

WIDTH, HEIGHT = 8, 18
#: Of each character, the sides that its line reaches: up, down, left, right.
SIDES = {
    "─": "lr", "│": "ud", "┌": "dr", "┐": "dl", "└": "ur", "┘": "ul",
    "├": "udr", "┤": "udl", "┬": "dlr", "┴": "ulr", "┼": "udlr", "▲": "d", "▼": "u",
}
HEADS = {"▲": "M-4 4 0-5 4 4z", "▼": "M-4-4 0 5 4-4z"}
STYLE = """  <style>
    path { stroke: #57606a; stroke-width: 1.5; fill: none }
    .head { fill: #0969da; stroke: none }
    text { fill: #1f2328 }
    @media (prefers-color-scheme: dark) {
      path { stroke: #8b949e }
      .head { fill: #58a6ff }
      text { fill: #e6edf3 }
    }
  </style>"""


def svg(text: str, title: str) -> str:
    """The picture of a diagram."""
    rows = text.splitlines()
    width, height = WIDTH * (max(map(len, rows)) + 1), HEIGHT * (len(rows) + 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"',
        '     font-family="ui-monospace, monospace" font-size="13">',
        f"  <title>{escape(title)}</title>",
        STYLE,
        f'  <path d="{" ".join([*horizontal(rows), *vertical(rows)])}"/>',
    ]
    lines += [f'  <path class="head" transform="translate({x} {y})" d="{shape}"/>' for x, y, shape in heads(rows)]
    lines += [
        f'  <text x="{x}" y="{y}" textLength="{WIDTH * len(words)}">{escape(words)}</text>' for x, y, words in texts(rows)
    ]
    return "\n".join([*lines, "</svg>", ""])


def center(column: int, row: int) -> Tuple[int, int]:
    return WIDTH * column + WIDTH // 2, HEIGHT * row + HEIGHT


def horizontal(rows: List[str]) -> Iterator[str]:
    for row, line in enumerate(rows):
        reached = ["".join(SIDES.get(character, "")) for character in line]
        for begin, end in runs([("l" in sides, "r" in sides) for sides in reached]):
            x, y = center(0, row)
            yield f"M{x + begin} {y}H{x + end}"


def vertical(rows: List[str]) -> Iterator[str]:
    for column in range(max(map(len, rows))):
        sides = [SIDES.get(line[column : column + 1], "") for line in rows]
        for begin, end in runs([("u" in side, "d" in side) for side in sides]):
            x, y = center(column, 0)
            scale = HEIGHT / WIDTH
            yield f"M{x} {y + int(begin * scale)}V{y + int(end * scale)}"


def runs(cells: List[Tuple[bool, bool]]) -> Iterator[Tuple[int, int]]:
    """Begin and end of each unbroken line, as offsets from the first cell's center, by whether it reaches either side."""
    half, begin = WIDTH // 2, None
    for index, (before, after) in enumerate(cells):
        at = WIDTH * index
        if before and begin is None:
            begin = at - half
        if after and begin is None:
            begin = at
        if begin is not None and not after:
            yield begin, at if before else at - half
            begin = None


def heads(rows: List[str]) -> Iterator[Tuple[int, int, str]]:
    for row, line in enumerate(rows):
        for column, character in enumerate(line):
            if character in HEADS:
                yield (*center(column, row), HEADS[character])


def texts(rows: List[str]) -> Iterator[Tuple[int, int, str]]:
    """Words with at most one space between them."""
    drawn = "".join(SIDES)
    for row, line in enumerate(rows):
        for found in re.finditer(rf"[^\s{drawn}]+(?: [^\s{drawn}]+)*", line):
            x, y = center(found.start(), row)
            yield x - WIDTH // 2, y + 4, found[0]
