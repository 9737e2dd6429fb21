"""What `make` hands to the recipes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def made(folder: Path, *arguments: str) -> list[str]:
    """What `make demo` calls Python with, in whose place a script stands."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / "ready").touch()
    environment = {name: value for name, value in os.environ.items() if name != "SOUNDS"}
    run = subprocess.run(
        ["make", "--silent", "demo", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()


@pytest.mark.parametrize("folder", ["/sounds", "/my sounds", '/it\'s "theirs" (1)'])
def test_a_folder_of_sounds_may_be_called_anything(tmp_path, folder):
    assert made(tmp_path, f"SOUNDS={folder}") == ["-m", "recipes.demo", "--sounds", folder]


def test_without_a_folder_the_demo_makes_its_sounds(tmp_path):
    assert made(tmp_path) == ["-m", "recipes.demo"]


def test_every_installation_of_the_project_is_editable():
    lines = (ROOT / "Makefile").read_text().splitlines()
    own = [line for line in lines if "$(UV)" in line and '".[' in line]
    assert len(own) >= 3
    assert all('-e ".[' in line for line in own)
