"""Tables of the benchmarks, and how numbers are printed in them."""

import dataclasses
from collections.abc import Sequence

NOTHING = "–"
"""Where there is no number."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as they are printed."""

    title: str
    about: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table with its title and what it says."""
        return f"## {self.title}\n{self.about}\n\n{self.cells()}\n"

    def cells(self) -> str:
        """The table alone, as Markdown."""
        return markdown([self.header, *self.rows])


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


def number(value: float | None, digits: int) -> str:
    """With a minus that is one, and no negative zero.

    >>> number(-0.04, 1), number(-2.5, 1), number(None, 1)
    ('0.0', '−2.5', '–')
    """
    if value is None:
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A fraction in percent, without the sign.

    >>> percent(0.5)
    '50.0'
    """
    return NOTHING if value is None else number(100 * value, 1)


def plus_minus(found: dict | None, factor: float) -> str:
    """Median and MAD of a `spread`, each times a factor.

    >>> plus_minus({"median": 0.5, "mad": 0.1}, 100)
    '50.0 ± 10.0'
    """
    if found is None or found["median"] is None:
        return NOTHING
    return f"{number(factor * found['median'], 1)} ± {number(factor * found['mad'], 1)}"


def by_seed(found: dict, factor: float, digits: int = 1) -> str:
    """Medians of single seeds, each times a factor.

    >>> by_seed({"by_seed": [0.5, None]}, 100)
    '50.0 / –'
    """
    values = found["by_seed"]
    return " / ".join(number(None if v is None else factor * v, digits) for v in values)


def interval(found: dict | None, factor: float = 1.0, digits: int = 1) -> str:
    """A comparison with its interval, times a factor, and its verdict.

    >>> interval({"estimate": 0.077, "low": 0.021, "high": 0.129, "verdict": "better"}, 100)
    '7.7 [2.1, 12.9], better'
    """
    if found is None:
        return NOTHING
    keys = ("estimate", "low", "high")
    middle, low, high = (found[key] and factor * found[key] for key in keys)
    ends = f"[{number(low, digits)}, {number(high, digits)}]"
    return f"{number(middle, digits)} {ends}, {found['verdict']}"


def counted(found: dict | None) -> str:
    """Of how many seeds, animals and sounds a comparison is.

    >>> counted({"seeds": 3, "listeners": 12, "sounds": 36})
    '3 / 12 / 36'
    """
    if found is None:
        return NOTHING
    return " / ".join(str(found[key]) for key in ("seeds", "listeners", "sounds"))
