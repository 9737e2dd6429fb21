"""Every configuration that is shipped can be run as it is written."""

import importlib
from pathlib import Path

import pytest

from icsim.seeds import seeded
from recipes.running.commands import claim, parse

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_configuration_is_parsed(path):
    name = ".".join(path.parent.relative_to(CONFIGS).parts)
    recipe = importlib.import_module(f"recipes.{name}")
    parse(recipe.Config, ["--config", str(path)])


def test_a_misspelt_key_is_refused_by_name(tmp_path, capsys):
    from recipes.train_ic import Config

    path = tmp_path / "wrong.yaml"
    path.write_text("cohort: a\nout: b\nlearning_rat: 1.0\n")
    with pytest.raises(SystemExit):
        parse(Config, ["--config", str(path)])
    assert "learning_rat" in capsys.readouterr().err


def test_a_folder_of_another_run_is_refused_and_the_difference_named(tmp_path):
    from recipes.align import Config

    claim(tmp_path / "run", Config("a"))
    (tmp_path / "run" / "state.safetensors").touch()
    with pytest.raises(ValueError, match="smooth_bins"):
        claim(tmp_path / "run", Config("a", smooth_bins=4))


def test_generators_depend_on_every_number():
    first = [seeded(*numbers).initial_seed() for numbers in ((0,), (1,), (0, 0), (0, 1), (1, 0))]
    assert len(set(first)) == len(first)
