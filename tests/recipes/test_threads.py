"""How threads of a recipe wait for one another, which is settled before torch loads OpenMP."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RECIPES = sorted(
    [
        *(p.stem for p in (ROOT / "recipes").glob("*.py") if '"__main__"' in p.read_text()),
        *(p.parent.name for p in (ROOT / "recipes").glob("*/__main__.py")),
    ]
)

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")

IN_PLACE_OF_TORCH = f"""
import json, os, sys
print(json.dumps({{name: os.environ.get(name) for name in {WAITING}}}))
sys.exit(0)
"""


def met_by_torch(recipe: str, folder: Path, **given: str) -> dict[str, str | None]:
    """What the settings are once a recipe imports torch, in whose place another module stands."""
    (folder / "torch.py").write_text(IN_PLACE_OF_TORCH)
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    run = subprocess.run(
        [sys.executable, "-m", f"recipes.{recipe}"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(folder)} | given,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("recipe", RECIPES)
def test_threads_sleep_while_they_wait(recipe, tmp_path):
    assert met_by_torch(recipe, tmp_path) == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def test_what_the_user_set_stays(tmp_path):
    given = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "1000"}
    assert met_by_torch("demo", tmp_path, **given) == given
