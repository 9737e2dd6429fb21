"""`python -m recipes.evaluate --clean FOLDER --processed FOLDER`."""

import json
import sys

from evaluation.table import markdown
from recipes.evaluate import Config
from recipes.evaluate.work import evaluate
from recipes.state import run

MOST_LINES = 20
"""Of failures and of notes on the terminal; the report has more."""


def gathered(arguments: list[str]) -> list[str]:
    """An option `--processed` that is there more than once, as one list.

    >>> gathered(["--processed", "A", "--clean", "C", "--processed=B"])
    ['--clean', 'C', '--processed', '["A", "B"]']
    """
    folders, others, waiting = [], [], False
    for argument in arguments:
        if waiting:
            folders.append(argument)
        elif argument.startswith("--processed="):
            folders.append(argument.removeprefix("--processed="))
        elif argument != "--processed":
            others.append(argument)
        waiting = argument == "--processed" and not waiting
    if len(folders) < 2:
        return arguments
    return [*others, "--processed", json.dumps(folders)]


def main() -> int:
    """The exit code: 0 if all is scored, 1 if anything is missing; others are those of `run`."""
    sys.argv[1:] = gathered(sys.argv[1:])
    found = run(evaluate, Config)
    print(markdown(found["summary"]))
    print(found["report"])
    for warning in found["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for title, lines in (("lack a score", found["failures"]), ("have a note", found["notes"])):
        if lines:
            print(f"{len(lines)} of {found['files']} files {title}:", file=sys.stderr)
            print(*(f"  {line}" for line in lines[:MOST_LINES]), sep="\n", file=sys.stderr)
        if len(lines) > MOST_LINES:
            print(f"  … and {len(lines) - MOST_LINES} more in the report", file=sys.stderr)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
