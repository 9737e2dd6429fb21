"""The papers keep their word: the tutorial runs, and the commands exist."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PAPERS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"\.venv/bin/python -m (recipes(?:\.\w+)+)((?: (?:[^`\n\\]|\\\n)*)?)")


def commands() -> list[tuple[str, str]]:
    """Every recipe called in the papers, and its arguments."""
    text = "\n".join(paper.read_text(encoding="utf-8") for paper in PAPERS)
    return COMMAND.findall(text)


def test_the_tutorial_runs_from_top_to_bottom():
    blocks = re.findall(r"^```python\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 4
    names: dict = {}
    with torch.random.fork_rng():
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"docs/tutorial.md, block {number}", "exec"), names)


def test_the_papers_name_commands():
    assert len(commands()) > 4


@pytest.mark.parametrize(("module", "arguments"), commands())
def test_commands_of_the_papers_exist_and_take_their_arguments(module, arguments, monkeypatch):
    pytest.importorskip("jsonargparse")
    from recipes.running.commands import parse

    monkeypatch.chdir(ROOT)
    recipe = importlib.import_module(module)
    parse(recipe.Config, shlex.split(arguments.replace("\\\n", " "), comments=True))


def test_the_core_is_read_in_fewer_than_1500_lines():
    section = (ROOT / "docs" / "index.md").read_text().partition("## The core in an hour")[2]
    rows = re.findall(r"^\| `(icsim/\S+\.py)` \| (?:`(\S+)` )?\|", section, re.MULTILINE)
    assert len(rows) > 10
    lines = [last_line((ROOT / file).read_text(encoding="utf-8"), name) for file, name in rows]
    assert sum(lines) <= 1500


def last_line(source: str, name: str) -> int:
    """Where a function, a class or a method ends; of no name, where the file does."""
    nodes = ast.parse(source).body
    line = len(source.splitlines())
    for part in filter(None, name.split(".")):
        (node,) = [node for node in nodes if getattr(node, "name", None) == part]
        nodes, line = node.body, node.end_lineno
    return line


def test_the_glossary_has_at_most_sixty_words():
    section = (ROOT / "docs" / "notation.md").read_text().partition("## Glossary")[2]
    words = re.findall(r"^\| (?!word|---)([^|]+) \|", section, re.MULTILINE)
    assert 40 < len(words) <= 60
    assert words == sorted(words, key=str.lower)
