"""How medians and comparisons are printed in the tables of the benchmark of the model."""

from recipes.reports.tables import NOTHING, number


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
