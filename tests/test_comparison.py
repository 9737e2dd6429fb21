"""Paired comparisons: intervals over seeds, listeners and sounds, and what they say."""

import numpy as np
import pytest
import torch

from evaluation.comparison import CANNOT_BE_TOLD, Comparison, difference, resample
from evaluation.neural import pooled_restoration


def crossed(seeds=1, listeners=6, sounds=12, generator=0, **effects):
    """Rows of two devices: scores `(2, n)` with normal effects, and their seeds, listeners, sounds.

    The second device is as good as the first; what they share is large.
    """
    draw = np.random.default_rng(generator)
    spread = {"seed": 0.0, "listener": 1.0, "sound": 0.7, "rest": 1.0} | effects
    shape = (seeds, listeners, sounds)
    difference = (
        spread["seed"] * draw.standard_normal((seeds, 1, 1))
        + spread["listener"] * draw.standard_normal((seeds, listeners, 1))
        + spread["sound"] * draw.standard_normal((seeds, 1, sounds))
        + spread["rest"] * draw.standard_normal(shape)
    )
    shared = 10 * draw.standard_normal(shape)
    scores = torch.from_numpy(np.stack([shared, shared + difference])).reshape(2, -1)
    return scores, *(place.ravel().tolist() for place in np.indices(shape))


def difference_of(scores, *places, **options):
    draws = resample(scores, torch.ones(scores.shape[1]), *places, **options)
    means = draws.mean()
    return draws.comparison(means[:, 1] - means[:, 0])


def test_the_difference_of_two_devices_is_pooled_over_the_same_sounds():
    generator = torch.Generator().manual_seed(0)
    unaided = 1 + 9 * torch.rand(30, generator=generator)
    first, second = 0.8 * unaided, (0.5 + 0.1 * torch.rand(30, generator=generator)) * unaided
    alone = [0] * 30
    amounts = unaided - torch.stack([first, second])
    between = difference(amounts, unaided, alone, alone, range(30))
    expected = pooled_restoration(second, unaided) - pooled_restoration(first, unaided)
    assert between.estimate == pytest.approx(expected)
    assert 0.2 < between.low < between.estimate < between.high < 0.3
    assert (between.verdict, between.listeners, between.sounds) == ("better", 1, 30)
    # Without single sounds, one listener says nothing of others.
    one = difference(amounts[:, :1], unaided[:1], [0], [0], None)
    assert np.isnan(one.low)
    assert one.verdict == CANNOT_BE_TOLD
    assert difference(amounts, unaided, alone, range(30), None).verdict == "better"


def test_estimate_is_the_mean_over_listeners_of_pooled_restorations():
    draw = torch.Generator().manual_seed(0)
    unaided = 1 + torch.rand(24, generator=draw)
    aided = torch.rand(24, generator=draw)
    listeners = [i // 8 for i in range(24)]
    draws = resample(
        (unaided - aided)[None], unaided, [0] * 24, listeners, [i % 8 for i in range(24)]
    )
    wanted = [pooled_restoration(aided[i : i + 8], unaided[i : i + 8]) for i in (0, 8, 16)]
    assert draws.values[0, 0].tolist() == pytest.approx(wanted)
    assert draws.mean()[0].item() == pytest.approx(sum(wanted) / 3)


@pytest.mark.parametrize(("seeds", "least"), [(1, 0.85), (3, 0.9)])
def test_interval_covers_no_difference_about_as_often_as_it_says(seeds, least):
    covered = 0
    for n in range(200):
        scores, *places = crossed(seeds, generator=n, seed=0.7 if seeds > 1 else 0.0)
        between = difference_of(scores, *places, resamples=300)
        covered += between.verdict == CANNOT_BE_TOLD
    assert covered / 200 >= least


def test_pairing_removes_what_devices_share():
    scores, *places = crossed(generator=1, rest=0.1, listener=0.1, sound=0.1)
    between = difference_of(scores, *places)
    assert between.high - between.low < 1
    alone = resample(scores, torch.ones(scores.shape[1]), *places)
    one = alone.comparison(alone.mean()[:, 0])
    assert one.high - one.low > 3


@pytest.mark.parametrize("cluster", ["seed", "listener", "sound"])
def test_an_effect_of_any_cluster_widens_the_interval(cluster):
    small = dict.fromkeys(("seed", "listener", "sound", "rest"), 0.05)
    narrow = difference_of(*crossed(4, generator=2, **small))
    wide = difference_of(*crossed(4, generator=2, **small | {cluster: 2.0}))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_listeners_of_one_name_in_two_seeds_are_two():
    scores, *places = crossed(2, 3, 4)
    between = difference_of(scores, *places)
    assert (between.seeds, between.listeners, between.sounds) == (2, 6, 8)


def test_listeners_are_drawn_within_their_seed():
    scores, *places = crossed(2, 5, 3)
    drawn = resample(scores, torch.ones(scores.shape[1]), *places, resamples=200).weights
    # A seed that is drawn once or twice has so often five listeners.
    assert set(drawn[:, :5].sum(1).tolist()) == {0.0, 5.0, 10.0}


def test_levels_of_a_sound_are_drawn_together():
    """Hearing each sound five times makes nothing more certain."""
    scores, *places = crossed()
    once = difference_of(scores, *places)
    five = difference_of(scores.repeat(1, 5), *(place * 5 for place in places))
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=1e-6)


@pytest.mark.parametrize("listeners", [1, 4, 5])
def test_median_is_that_of_the_listeners_who_were_drawn(listeners):
    scores = torch.randn(2, listeners, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(listeners)
    draws = resample(scores, ones, [0] * listeners, range(listeners), None, resamples=50)
    for drawn, weights, values in zip(draws.median(), draws.weights, draws.values, strict=True):
        repeated = values.repeat_interleave(weights.long(), -1)
        assert drawn.tolist() == pytest.approx(np.median(repeated, -1).tolist())


def test_mean_magnitude_does_not_cancel():
    scores = torch.tensor([[-0.2, -0.2, 0.2, 0.2]])
    draws = resample(scores, torch.ones(4), [0] * 4, [0, 0, 1, 1], [0, 1, 0, 1])
    assert draws.mean()[0].item() == pytest.approx(0)
    assert draws.mean_magnitude()[0].item() == pytest.approx(0.2)


def test_a_listener_whose_sounds_were_not_drawn_has_no_value_there():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    draws = resample(scores, torch.ones(4), [0] * 4, [0, 0, 1, 1], [0, 1, 2, 3])
    one = draws.comparison(draws.mean()[:, 0])
    assert 1 <= one.low < 2.5 < one.high <= 4


@pytest.mark.parametrize(
    ("low", "high", "bound", "listeners", "sounds", "verdict"),
    [
        (0.1, 0.2, 0.0, 6, 9, "better"),
        (-0.2, -0.1, 0.0, 6, 9, "worse"),
        (-0.1, 0.2, 0.0, 6, 9, CANNOT_BE_TOLD),
        (0.1, 0.2, 0.0, 2, 9, CANNOT_BE_TOLD),
        (0.1, 0.2, 0.0, 6, 3, CANNOT_BE_TOLD),
        (0.1, 0.2, 0.0, 1, 9, CANNOT_BE_TOLD),
        (0.1, 0.2, 0.0, 1, 10, "better"),
        (0.1, 0.2, 0.0, 6, 0, "better"),
        (0.75, 0.86, 0.8, 6, 9, CANNOT_BE_TOLD),
        (0.82, 0.86, 0.8, 6, 9, "better"),
    ],
)
def test_verdict(low, high, bound, listeners, sounds, verdict):
    middle = (low + high) / 2
    assert Comparison(middle, low, high, bound, 1, listeners, sounds).verdict == verdict


def test_sounds_of_several_seeds_may_be_few_in_each():
    assert Comparison(0.2, 0.1, 0.3, 0.0, 3, 18, 3).verdict == "better"


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3, 2 and 3"):
        resample(torch.ones(1, 3), torch.ones(3), [0] * 3, [0] * 2, [0] * 3)
    with pytest.raises(ValueError, match="not finite"):
        resample(torch.full((1, 2), float("nan")), torch.ones(2), [0] * 2, [0] * 2, [0, 1])
