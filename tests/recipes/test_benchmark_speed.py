"""The benchmark of speed at the smallest sizes: that all is measured, not how fast it is."""

import json
import sys

import pytest
import torch

from compensation.learned_filters import LearnedFiltersConfig
from compensation.masks import MasksConfig
from icsim import convolution
from icsim.models.encoders import SincNetConfig
from recipes.benchmarks import speed as recipe

SMALL = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("speed")
    # Two processes are compared in test_chain, where there is a demo; compiling takes a minute.
    left_out = {"two_process_difference", "compile"}
    config = recipe.Config(
        str(out),
        encoder=SMALL,
        channels=4,
        animals=[1, 3],
        batch=2,
        rounds=2,
        seconds=[0.1, 0.2],
        fit_seconds=0.5,
        masks=MasksConfig(bands=8, width=4, layers=1),
        waveform=LearnedFiltersConfig(bands=8, width=4),
        stream_seconds=0.2,
        parts=[part for part in recipe.PARTS if part not in left_out],
    )
    return out, recipe.benchmark(config)


def test_everything_is_measured_and_kept(made):
    out, found = made
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(found))
    assert found["step"]["ratio"][1] == 1
    assert set(found["inference"]["speedup"]) == {"0.1", "0.2"}
    assert found["inference"]["largest_difference"] < 1e-4
    numbers = json.loads((out / "headline.json").read_text())
    assert numbers["fit_over_plain"] == found["fit"]["speedup"] > 0
    assert numbers["step_3_over_1"] == found["step"]["ratio"][3]
    assert {"stream_masks", "loader_wait", "inference_over_torch_0.2s"} <= set(numbers)
    assert 0 <= found["loader_wait_fraction"] < 1
    assert set(found["stream"]) == {"masks", "waveform"}
    assert set(found["memory"]) == {1, 3}
    assert all(gigabytes > 0 for gigabytes in found["memory"].values())
    assert (out / "table.md").read_text().count("\n| ") > 10


def test_the_cost_model_is_a_line_through_what_was_measured():
    model = recipe.cost_model({1: 2.0, 9: 6.0, 20: 11.5}, {1: 1.0, 9: 1.0, 20: 1.0})
    assert model["seconds"]["an_animal"] == pytest.approx(0.5)
    assert model["seconds"]["predicted"][100] == pytest.approx(51.5)
    assert model["memory_gb"]["predicted"][1000] == pytest.approx(1.0)


def test_torchs_convolutions_are_used_for_the_comparison_alone():
    before = convolution.LARGE
    with recipe.tap_by_tap():
        assert sys.maxsize == convolution.LARGE
    assert before == convolution.LARGE
    weight = torch.randn(2, 3, 8)
    counted = recipe.operations(
        lambda: convolution.causal_convolution(torch.randn(1, 3, 100), weight, torch.zeros(2), 2)
    )
    assert counted == 2 * 50 * weight.numel()
