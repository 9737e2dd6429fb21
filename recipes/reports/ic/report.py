"""Summary, tables, figures and a page of the benchmark of the model of the midbrain.

`python -m recipes.reports.ic.report --out runs/benchmarks/ic/small` writes them again.
"""

import dataclasses
import json
import sys
from pathlib import Path

from icsim.files import write_json, write_whole
from recipes.reports.ic import figures as drawing
from recipes.reports.ic.results import Results, read
from recipes.reports.ic.summary import summarise
from recipes.reports.ic.tables import tables
from recipes.reports.page import inline, png, template
from recipes.reports.tables import Table
from recipes.running.commands import run
from recipes.running.ranges import NotEmptyStr, checked


@dataclasses.dataclass(frozen=True)
class Config:
    """Which report to write again."""

    out: NotEmptyStr
    """Folder of a benchmark, of which one seed is complete at least."""

    __post_init__ = checked


def write(out: Path) -> dict:
    """Write `summary.json`, `tables.md`, `figures` and `report.html` from all complete seeds.

    Returns:
        The summary.

    Raises:
        ValueError: If no seed is complete.
    """
    results = read(out)
    for folder, why in results.skipped.items():
        print(f"{out / folder} is left out: {why}", file=sys.stderr)
    summary = summarise(results)
    write_json(out / "summary.json", summary)
    made = tables(summary)
    write_whole(out / "tables.md", markdown(summary, made))
    drawn = {name: png(figure) for name, figure in drawing.draw(results, summary).items()}
    (out / "figures").mkdir(exist_ok=True)
    for name, image in drawn.items():
        write_whole(out / "figures" / f"{name}.png", image)
    write_whole(out / "report.html", page(results, summary, made, drawn))
    return summary


def markdown(summary: dict, made: dict[str, Table]) -> str:
    """All tables as Markdown."""
    seeds = ", ".join(map(str, summary["seeds"]))
    title = f"# Benchmark of the model of the midbrain, seeds {seeds}\n"
    return "\n".join([title, *(table.markdown() for table in made.values() if table.rows)])


def page(results: Results, summary: dict, made: dict[str, Table], drawn: dict[str, bytes]) -> str:
    """One HTML page with everything in it; figures that were not drawn are left out."""
    images = {name: inline("image/png", image) for name, image in drawn.items()}
    return template("ic.html").render(
        summary=summary, tables=made, images=images, config=results.config
    )


if __name__ == "__main__":
    print(json.dumps(run(lambda config: write(Path(config.out)), Config), indent=2))
