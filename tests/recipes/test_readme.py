"""`recipes/README.md` says of everything that can be run what its docstring says."""

import ast
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"


def runnable() -> dict[str, str]:
    """The first line of the docstring of every module that can be run, by name."""
    about = {}
    for path in sorted(RECIPES.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in text:
            name = ".".join(path.relative_to(RECIPES.parent).with_suffix("").parts)
            line = ast.get_docstring(ast.parse(text)).partition("\n")[0]
            about[name] = line.partition(": `python")[0].rstrip(".")
    return about


def listed(about: dict[str, str]) -> str:
    return "".join(f"- `python -m {name}`: {line}\n" for name, line in about.items())


def test_everything_that_can_be_run_is_listed():
    assert listed(runnable()) in (RECIPES / "README.md").read_text(encoding="utf-8")
