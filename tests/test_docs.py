"""The papers keep their word: the tutorial runs, and the commands exist."""

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
