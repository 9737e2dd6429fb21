"""Make the tables and figures of a page of the documentation anew, from results that were kept.

`python -m recipes.reports.documents` makes those of `docs/aids.md` from the tidy tables in
`docs/results` that it names. With `--folder RUN` the rows of a finished benchmark are kept there
first. Nothing is simulated and nothing is trained.
"""

import dataclasses
import functools
import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from evaluation.tidy import read
from icsim.files import write_whole
from recipes.reports import aids
from recipes.reports.page import png
from recipes.reports.tables import Table
from recipes.running.commands import begin, run
from recipes.running.ranges import NotEmptyStr, Seed, checked

MARKED = re.compile(r"<!-- table (\S+) (\S+) -->\n.*?<!-- end of table -->", re.DOTALL)
"""Where a page wants a table: the file of its rows, and its name."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Which page, and what it is made of."""

    page: NotEmptyStr = "docs/aids.md"
    """Markdown with tables between `<!-- table FILE NAME -->` and `<!-- end of table -->`."""
    results: NotEmptyStr = "docs/results"
    """Folder of the files."""
    images: NotEmptyStr = "docs/images"
    """Folder for `aids-restoration.png` and `aids-groups.png`."""
    drawn: NotEmptyStr = "aids.csv.gz"
    """The file that figures are drawn of."""
    folder: NotEmptyStr | None = None
    """Of a finished benchmark, whose rows are kept as `drawn` first."""
    development_seed: Seed = 0
    """Of that benchmark."""


def document(config: Config) -> list[str]:
    """Keep rows if asked to, and make the page's tables and figures.

    Returns:
        What was written.

    Raises:
        ValueError: If a file or a table that the page names is not there.
    """
    results, page = Path(config.results), Path(config.page)
    files: dict[Path, bytes] = {}
    new: dict[str, pd.DataFrame] = {}
    if config.folder:
        rows = aids.gather(Path(config.folder), config.development_seed)
        csv = rows.to_csv(index=False, float_format="%.5g").encode()
        files[results / config.drawn] = gzip.compress(csv, mtime=0)
        # As they will be read again, to so many digits.
        new[config.drawn] = read(io.BytesIO(csv))

    @functools.cache
    def tables(file: str) -> dict[str, Table]:
        return aids.tables(new[file] if file in new else read(results / file))

    def table(file: str, name: str) -> Table:
        of_file = tables(file)
        if name not in of_file:
            raise ValueError(f"{page}: no table is called {name}; there are {', '.join(of_file)}")
        return of_file[name]

    files[page] = fill(page.read_text(encoding="utf-8"), table).encode()
    figures = aids.draw(tables(config.drawn))
    for name, figure in (("restoration", "restoration"), ("groups", "by_hearing")):
        files[Path(config.images) / f"aids-{name}.png"] = png(figures[figure])
    begin()
    for path, content in files.items():
        write_whole(path, content)
    return [str(path) for path in files]


def fill(text: str, table: Callable[[str, str], Table]) -> str:
    """A page with every marked table made anew.

    Args:
        text: The page.
        table: Gives one by the file of its rows and its name.
    """

    def of_mark(mark: re.Match) -> str:
        one = table(mark[1], mark[2])
        first = f"<!-- table {mark[1]} {mark[2]} -->"
        return f"{first}\n{one.cells()}\n\n{one.about}\n<!-- end of table -->"

    return MARKED.sub(of_mark, text)


if __name__ == "__main__":
    print("\n".join(run(document, Config)))
