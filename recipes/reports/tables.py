"""Tables of results: cells are numbers until they are printed."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import pandas as pd

from evaluation.comparison import Comparison
from evaluation.tidy import Spread, where

NOTHING = "–"
"""Where there is no number."""

Cell = str | float | Comparison | Spread | None

N = TypeVar("N")


@dataclasses.dataclass(frozen=True)
class Table:
    """One table, as data."""

    title: str
    about: str
    """What a reader must know of it."""
    header: list[str]
    rows: Sequence[Sequence[Cell]]
    digits: int | Sequence[int] = 2
    """Of numbers, or of the numbers of each column."""

    def markdown(self) -> str:
        """The table with its title and what it says."""
        return f"## {self.title}\n{self.about}\n\n{self.cells()}\n"

    def cells(self) -> str:
        """The table alone, as Markdown."""
        return markdown([self.header, *self.texts()])

    def texts(self) -> list[list[str]]:
        """Its rows as they are printed."""
        width = len(self.header)
        digits = [self.digits] * width if isinstance(self.digits, int) else self.digits
        return [
            [text(cell, places) for cell, places in zip(row, digits, strict=True)]
            for row in self.rows
        ]


def grid(
    title: str,
    about: str,
    rows: pd.DataFrame,
    names: Iterable[N],
    columns: Mapping[str, Mapping],
    cell: Callable[[pd.DataFrame, N], Cell],
    label: Callable[[N], str | list[str]] = str,
    first: Sequence[str] = ("device",),
    digits: int | Sequence[int] = 2,
) -> Table:
    """A name a row, a part of the results a column.

    Args:
        title: Of the table.
        about: What it shows; how many seeds, listeners and sounds there are is added.
        rows: Results.
        names: Of the lines.
        columns: By header, which of the results (`evaluation.tidy.where`).
        cell: A number by some of the results and a name.
        label: A name as a reader calls it: one cell, or several.
        first: Headers of the labels.
        digits: As of `Table`.
    """
    parts = [where(rows, **wanted) for wanted in columns.values()]
    lines: list[list[Cell]] = []
    for name in names:
        shown = label(name)
        line = [cell(part, name) for part in parts]
        if any(one is not None for one in line):
            lines.append([*([shown] if isinstance(shown, str) else shown), *line])
    return counted(Table(title, about, [*first, *columns], lines, digits))


def counted(table: Table) -> Table:
    """The same, which says of its intervals over what they are, and how many there are of it."""
    cells = [cell for row in table.rows for cell in row if isinstance(cell, Comparison)]
    if not cells:
        return table

    def span(name: str) -> str:
        counts = sorted({getattr(cell, name) for cell in cells})
        return f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else str(counts[0])

    # A single seed is not drawn again, and sounds that were summed over cannot be.
    drawn = [name for name in ("seeds", "listeners", "sounds") if span(name) not in ("0", "1")]
    n = ", ".join(f"{name} {span(name)}" for name in ("seeds", "listeners", "sounds"))
    pooled = " (summed over)" if span("sounds") == "0" else ""
    over = f"In brackets 95 % intervals over {' and '.join(drawn)}; n" if drawn else "n"
    intervals = f"{over}: {n}{pooled}."
    return dataclasses.replace(table, about=f"{table.about} {intervals}")


def markdown(lines: Sequence[Sequence[str]], rule: str = "---") -> str:
    """Cells as a Markdown table; the first line is its header.

    Args:
        lines: Of the table.
        rule: Below the headers of all columns but the first: `---:` has numbers on the right.

    >>> print(markdown([["a", "b"], ["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    ruled = [lines[0], ["---", *[rule] * (len(lines[0]) - 1)], *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def text(cell: Cell, digits: int = 2) -> str:
    """A cell as it is printed; a difference has its sign, and what is held against a bound its
    verdict.

    >>> text(Comparison(0.25, 0.125, 0.5, 0.0, 2, 8, 12), 2)
    '+0.25 [+0.12, +0.50] better'
    >>> text(Comparison(0.25, 0.125, 0.5, None, 2, 8, 12), 2), text(None), text("words")
    ('0.25 [0.12, 0.50]', '–', 'words')
    >>> text(Spread(0.5, 0.125, 7))
    '0.50 ± 0.12'
    """
    if isinstance(cell, Spread):
        return f"{number(cell.median, digits)} ± {number(cell.mad, digits)}"
    if not isinstance(cell, Comparison):
        return cell if isinstance(cell, str) else number(cell, digits)
    shown = [number(x, digits) for x in (cell.estimate, cell.low, cell.high)]
    if cell.bound == 0:
        shown = [f"+{x}" if x[0].isdigit() and float(x) else x for x in shown]
    ends = "" if math.isnan(cell.low) else f"[{shown[1]}, {shown[2]}]"
    return " ".join(filter(None, (shown[0], ends, cell.verdict)))


def number(value: float | None, digits: int) -> str:
    """With a minus that is one, and no negative zero.

    >>> number(-0.04, 1), number(-2.5, 1), number(None, 1)
    ('0.0', '−2.5', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def headline(numbers: Mapping[str, Cell]) -> dict[str, float]:
    """A flat list of numbers for programs: of a comparison its estimate and the ends of it."""
    flat: dict[str, float] = {}
    for name, cell in numbers.items():
        if isinstance(cell, Comparison):
            ends = {"": cell.estimate, "_low": cell.low, "_high": cell.high}
            flat |= {f"{name}{end}": x for end, x in ends.items() if math.isfinite(x)}
        elif isinstance(cell, int | float) and math.isfinite(cell):
            flat[name] = float(cell)
    return flat
