"""A limiter that nothing can pass, that lets the rest pass untouched, and that keeps its time."""

import pytest
import torch

from compensation.limiter import HOLD_S, limit
from evaluation.artefacts import artefacts
from icsim.sound import SAMPLE_RATE

MAXIMUM_PA = 2.0
"""100 dB SPL."""


def noise(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def in_blocks(sound: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    state, parts = None, []
    for part in sound.split(lengths, -1):
        limited, state = limit(part, 100.0, state)
        parts.append(limited)
    return torch.cat(parts, -1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e9, 1e38])
def test_nothing_passes(scale):
    sound = noise(3, 20_000, scale=scale)
    sound[1, 5000:5003] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    limited = limit(sound, 100.0)[0]
    assert limited.isfinite().all()
    assert limited.double().abs().max() <= MAXIMUM_PA


@pytest.mark.parametrize("maximum_db_spl", [60.0, 93.7, 110.0, 121.3])
def test_rounding_does_not_pass_either(maximum_db_spl):
    limited = limit(noise(20_000, scale=100.0), maximum_db_spl)[0].double()
    assert limited.abs().max() <= 20e-6 * 10 ** (maximum_db_spl / 20)
    assert limited.abs().max() == pytest.approx(20e-6 * 10 ** (maximum_db_spl / 20), rel=1e-6)


def test_what_is_below_the_maximum_is_untouched():
    sound = noise(2, 20_000).clamp(-1.99, 1.99)
    assert torch.equal(limit(sound, 100.0)[0], sound)


def test_attenuation_comes_at_once_and_goes_in_decibels_a_second():
    sound = torch.full((24_414,), 0.01)
    sound[1000] = 200.0  # 40 dB above the maximum
    gain_db = 20 * (limit(sound, 100.0)[0] / sound).log10()
    assert gain_db[:1000].abs().max() < 1e-5
    assert gain_db[1000].item() == pytest.approx(-40, abs=1e-4)
    held = round(HOLD_S * SAMPLE_RATE)
    assert gain_db[1000 : 1000 + held].tolist() == pytest.approx([-40] * held, abs=1e-4)
    later = [3441 + held, 5883 + held]
    assert gain_db[later].tolist() == pytest.approx([-30, -20], abs=0.01)
    assert gain_db[1000 + round(0.42 * SAMPLE_RATE) :].abs().max() < 1e-5


def test_a_held_tone_keeps_its_shape():
    time = torch.arange(12_000) / SAMPLE_RATE
    sound = 20 * torch.sin(2 * torch.pi * 1000 * time)
    limited = limit(sound, 100.0)[0][1000:]
    expected = sound[1000:] / 10
    # It is held from peak to peak, which are sampled to 0.07 dB.
    assert (limited - expected).abs().max() < 0.009 * MAXIMUM_PA


def test_tones_and_chirps_that_are_limited_get_no_spurs():
    """Without a hold, attenuation falls between two peaks: a chirp's spurs are 50 dB down."""

    def louder(sound):
        return limit(10 * sound, 110.0)[0]

    found = artefacts(louder, tones_hz=[233.0, 3989.0], levels_db_spl=[95.0])
    assert louder(torch.full((1, 1), 1e3)).item() < 1e3
    assert max(found.tones_db.values()) < -100
    assert max(found.chirps_db.values()) < -100


def test_the_future_is_not_heard():
    sound = noise(4000, scale=3.0)
    limited = limit(sound, 100.0)[0]
    other = sound.clone()
    other[2000:] *= -7
    assert torch.equal(limit(other, 100.0)[0][:2000], limited[:2000])


@pytest.mark.parametrize("fault", [torch.nan, torch.inf, 1e30])
def test_a_fault_is_muted_and_the_sound_comes_back_along_a_ramp(fault):
    sound = torch.ones(2000)
    sound[500:503] = fault
    limited = limit(sound, 100.0)[0]
    assert torch.equal(limited[:500], sound[:500])
    assert not limited[500:503].any()
    ramp = limited[502:].diff()
    assert ramp.max() < 0.01
    assert ramp.min() >= 0
    assert torch.equal(limited[502 + 123 :], sound[502 + 123 :])


@pytest.mark.parametrize("lengths", [[1] * 60 + [3940], [96] * 41 + [64], [500] * 8, [0, 4000, 0]])
def test_blocks_give_what_the_whole_gives(lengths):
    sound = noise(2, 4000, scale=2.0)
    sound[0, 700:3000] *= 0.1
    sound[1, [30, 40, 1000]] = torch.nan
    whole = limit(sound, 100.0)[0]
    torch.testing.assert_close(in_blocks(sound, lengths), whole, rtol=1e-6, atol=1e-7)


def test_minutes_later_blocks_still_give_what_the_whole_gives():
    sound = noise(2_000_000, scale=1.0)
    whole = limit(sound, 100.0)[0]
    parts = in_blocks(sound, [1_990_000, 5000, 5000])
    assert (whole[-5000:] != sound[-5000:]).any()
    torch.testing.assert_close(parts[-5000:], whole[-5000:], rtol=1e-6, atol=0)


def test_sounds_are_limited_each_alone():
    sound = noise(2, 3000)
    sound[0] *= 100
    limited = limit(sound, 100.0)[0]
    for one, alone in zip(limited, sound, strict=True):
        assert torch.equal(one, limit(alone, 100.0)[0])
