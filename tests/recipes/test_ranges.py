"""Configurations hold what their fields' types allow, wherever they come from."""

import dataclasses
import importlib
import math
import pickle
import pkgutil
import typing

import pytest

import recipes
from recipes import train_compensation, train_ic
from recipes.running import ranges
from recipes.running.commands import parse

OUTSIDE = {
    "Count": (0, -1, 10**10, 1.5, math.nan, "many", True),
    "CountOrZero": (-1, 0.5, 10**30),
    "Seed": (-1, 2**31),
    "Port": (0, -1, 65536),
    "Positive": (0, -1, math.inf, math.nan),
    "NotNegative": (-0.1, math.inf, math.nan),
    "AtLeastOne": (0.99, math.inf),
    "Correlation": (-1.1, 1.1, math.nan),
    "Seconds": (0, -3, math.inf, math.nan, 1e9),
    "SecondsOrZero": (-1, math.inf),
    "Hours": (0, -2, math.nan),
    "LevelDbSpl": (-21, 131, 300, math.nan, -math.inf),
    "FullScaleDbSpl": (-20, 0, 300, math.nan),
    "UnitDbSpl": (-121, 300, math.nan),
    "MaximumDbSpl": (-10, 0, 300, math.inf),
    "RatioDb": (-101, 101, math.nan),
    "Exponent": (-3, 2.1, math.nan),
    "ClosedUnitInterval": (-0.1, 1.1, math.nan),
    "NotEmptyStr": ("", " "),
}


def configurations():
    """Every Config of the recipes, with its module."""
    for found in pkgutil.iter_modules(recipes.__path__, "recipes."):
        module = importlib.import_module(found.name)
        if dataclasses.is_dataclass(getattr(module, "Config", None)):
            yield pytest.param(module.Config, id=found.name.removeprefix("recipes."))


@pytest.mark.parametrize(("name", "values"), OUTSIDE.items())
def test_values_out_of_range_are_refused_and_named(name, values):
    made = dataclasses.make_dataclass(
        "Made", [("field", getattr(ranges, name))], namespace={"__post_init__": ranges._compare}
    )
    for value in values:
        with pytest.raises(ValueError, match="field") as refused:
            made(value)
        assert str(value) in str(refused.value) or "not match" in str(refused.value)


def test_ends_of_ranges_are_allowed():
    @dataclasses.dataclass(frozen=True)
    @ranges.checked
    class Made:
        levels: tuple[ranges.LevelDbSpl, ...] = (-20.0, 130)
        ports: list[ranges.Port] = dataclasses.field(default_factory=lambda: [1, 65535])
        nothing: ranges.Count | None = None
        share: ranges.ClosedUnitInterval = 1

    assert Made().levels == (-20.0, 130)
    with pytest.raises(ValueError, match=r"ports.*65536"):
        Made(ports=[1, 65536])


@pytest.mark.parametrize("config_class", configurations())
def test_every_number_of_a_recipe_has_a_range_and_every_configuration_is_checked(config_class):
    assert config_class.__post_init__ is ranges._compare
    for name, hint in typing.get_type_hints(config_class).items():
        assert not {int, float} & set(_parts(hint)), f"{name} may be any number"


def _parts(hint):
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def test_python_command_line_and_nested_configurations_are_held_to_the_same(capsys):
    for change in ({"batch": 0}, {"steps": -1}, {"excerpt_s": -1.0}, {"level_db_spl": (50, 300)}):
        with pytest.raises(ValueError, match=f"{next(iter(change))}.*does not conform"):
            train_compensation.Config("cohort", "model", "out", **change)
    with pytest.raises(ValueError, match=r"hiss.*-1"):
        train_compensation.Weights(hiss=-1.0)
    with pytest.raises(ValueError, match=r"encoder.*size.*Got value: big"):
        train_ic.Config("cohort", "out", encoder=dataclasses.make_dataclass("E", ["size"])("big"))
    with pytest.raises(SystemExit) as ended:
        parse(train_ic.Config, ["--cohort", "c", "--out", "o", "--epochs", "0"])
    assert ended.value.code == 2
    assert "0 does not conform" in capsys.readouterr().err


def test_what_was_parsed_is_plain():
    arguments = ["--cohort", "c", "--out", "o", "--seed", "3", "--rematch_epochs", "[1]"]
    config = parse(train_ic.Config, [*arguments, "--noise", "false"])
    parsed = (config.seed, config.learning_rate, config.cohort, *config.rematch_epochs)
    assert [type(value) for value in parsed] == [int, float, str, int]
    assert config.noise is False
    assert pickle.loads(pickle.dumps(config)) == config


def test_nothing_is_no_value_where_one_is_needed(capsys):
    with pytest.raises(ValueError, match=r"batch.*a value is needed"):
        train_ic.Config("cohort", "out", batch=None)
    with pytest.raises(SystemExit):
        parse(train_ic.Config, ["--cohort", "c", "--out", "o", "--batch", "null"])
    assert "batch" in capsys.readouterr().err
