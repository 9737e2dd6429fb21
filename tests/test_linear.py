"""Fixed gains in bands: applied as they are said to be, and found where they are known."""

import pytest
import torch
from torch import Tensor

from compensation.bands import HOP
from compensation.linear import (
    apply,
    best_gain_db,
    best_gains_of_sound,
    best_linear_gain,
    level_match_db,
    nal_r_matched,
)
from compensation.prescriptions import nal_r
from icsim.audiogram import Audiogram
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.sound import SAMPLE_RATE, calibrate, level

BANDS = 8
ATTENUATION_DB = torch.tensor([0.0, 0.0, 0.0, 0.0, -20.0, -20.0, -20.0, -20.0])


def noise(count: int, samples: int = 6000, level_db_spl: float = 60.0) -> Tensor:
    """Noise that comes and goes, as a midbrain adapts to what is steady."""
    generator = torch.Generator().manual_seed(0)
    envelope = 1 - (torch.arange(samples) // 1000) % 2
    return calibrate(torch.randn(count, samples, generator=generator) * envelope, level_db_spl)


def powers(sound: Tensor) -> Tensor:
    """Compressed power in 64 equal parts of the spectrum, every 128 samples: `(B, 64, N)`."""
    spectra = torch.fft.rfft(sound.unfold(-1, 128, 128)).abs().square()[..., 1:]
    return (spectra + 1e-12).pow(0.2).transpose(1, 2)


def error(response: Tensor, target: Tensor) -> float:
    return (response - target).square().sum().item()


# --- applied ------------------------------------------------------------------------------------


def test_flat_gains_are_a_factor():
    sound = noise(2)
    torch.testing.assert_close(apply(sound, torch.full((24,), 20.0)), 10 * sound)
    torch.testing.assert_close(apply(sound, torch.zeros(24)), sound, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("frequency_hz", "gain_db"), [(300.0, 0.0), (6000.0, -20.0)])
def test_a_tone_gets_the_gain_of_its_band(frequency_hz, gain_db):
    time = torch.arange(8000) / SAMPLE_RATE
    sound = calibrate(torch.sin(2 * torch.pi * frequency_hz * time), 60.0).unsqueeze(0)
    heard = apply(sound, ATTENUATION_DB)[0, 2000:6000]
    assert level(heard).item() == pytest.approx(60 + gain_db, abs=0.3)


# --- NAL-R at an aid's level --------------------------------------------------------------------

SLOPING = Audiogram((250, 500, 1000, 2000, 4000, 6000), (10, 15, 25, 45, 60, 65))


def test_nal_r_is_brought_to_the_level_of_an_aid_by_one_number():

    def aid(sound):
        return apply(sound, torch.linspace(0, 30, 24))

    training, others = noise(3), noise(3, 9000)
    gain_db = level_match_db(aid, SLOPING, training)
    apart = level(aid(training)) - level(nal_r_matched(training, SLOPING, gain_db))
    assert apart.mean().item() == pytest.approx(0, abs=1e-4)
    assert level_match_db(lambda sound: nal_r(sound, SLOPING), SLOPING, training) == 0
    # One number: what NAL-R does to the spectrum stays.
    louder = nal_r(others, SLOPING) * 10 ** (gain_db / 20)
    torch.testing.assert_close(nal_r_matched(others, SLOPING, gain_db), louder)


def test_no_level_is_matched_to_silence():
    with pytest.raises(ValueError, match="not silent"):
        level_match_db(torch.zeros_like, SLOPING, noise(2))
    with pytest.raises(ValueError, match="not silent"):
        level_match_db(lambda sound: sound, SLOPING, torch.zeros(0, 4000))


# --- found --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted_db", [-7.0, 0.0, 9.0, 32.0])
def test_the_one_gain_that_mends_everything_is_found(wanted_db):
    sound = noise(3, 2000)
    target = powers(sound * 10 ** (wanted_db / 20))
    asked = []
    found_db = best_gain_db(lambda x: asked.append(len(x)) or powers(x), target, sound, batch=2)
    assert found_db == wanted_db
    # All sounds, at no more than fifteen gains.
    assert sum(asked) <= 15 * len(sound)
    assert max(asked) == 2


def test_one_gain_needs_targets_that_fit_and_answers_that_are_numbers():
    sound = noise(2, 2000)
    with pytest.raises(ValueError, match="2 sounds and 1 targets"):
        best_gain_db(powers, powers(sound)[:1], sound)
    with pytest.raises(ValueError, match="check the sounds"):
        best_gain_db(lambda x: powers(x) * torch.nan, powers(sound), sound)


def test_gains_that_mend_everything_are_found_exactly():
    sound, wanted_db = noise(1, 4000), torch.tensor([-10.0, 0.0, 5.0, 12.0, 20.0, 30.0, 35.0, 40.0])
    with torch.no_grad():
        target = powers(apply(sound, wanted_db))
    found_db = best_linear_gain(powers, target, sound, BANDS)
    # Parts of 190 Hz tell the lowest bands hardly apart.
    torch.testing.assert_close(found_db[3:], wanted_db[3:], atol=1.0, rtol=0)
    assert error(powers(apply(sound, found_db)), target) < 1e-3 * error(powers(sound), target)


@pytest.fixture(scope="module")
def healthy() -> Animal:
    return Animal(draw_anatomy(16, 5))


@pytest.fixture(scope="module")
def attenuated(healthy) -> tuple[Tensor, Tensor, Tensor]:
    """Sounds, what a healthy animal answers, and the gains found for it behind an attenuation."""
    sound = noise(2)
    with torch.no_grad():
        target = healthy(sound)
    found_db = best_linear_gain(
        lambda x: healthy(apply(x, ATTENUATION_DB)), target, sound, BANDS, steps=25
    )
    return sound, target, found_db


def test_an_attenuation_before_a_healthy_ear_is_undone(healthy, attenuated):
    sound, target, found_db = attenuated
    with torch.no_grad():
        before = error(healthy(apply(sound, ATTENUATION_DB)), target)
        after = error(healthy(apply(apply(sound, found_db), ATTENUATION_DB)), target)
    assert after < 0.05 * before
    # Channels do not reach below 300 Hz: what happens in the lowest band is not heard.
    torch.testing.assert_close(found_db[1:-1], -ATTENUATION_DB[1:-1], atol=3.0, rtol=0)


@pytest.mark.parametrize("status", ["HI", "hidden"])
def test_it_is_never_worse_than_no_gain_or_a_prescription(status):
    animal = Animal(draw_anatomy(16, 3), draw_loss(status, 1.0, 3))
    sound, prescribed_db = noise(1, 4000), torch.linspace(0, 50, BANDS)
    with torch.no_grad():
        target = animal.healthy()(sound)
        others = [
            error(animal(apply(sound, gains)), target)
            for gains in (torch.zeros(BANDS), prescribed_db.clamp(max=45))
        ]
        found_db = best_linear_gain(
            animal, target, sound, BANDS, steps=1, starts_db=prescribed_db[None]
        )
        assert error(animal(apply(sound, found_db)), target) <= min(others)


def test_gains_at_every_hop_undo_a_modulation_that_no_fixed_gain_can():
    sound = noise(2, 4000)
    hops = -(-4000 // HOP) + 1
    swell_db = 10 * torch.sin(torch.arange(hops) / 5).expand(2, BANDS, hops)
    target = powers(apply(sound, swell_db))
    fixed_db = best_linear_gain(powers, target, sound, BANDS)
    start_db = fixed_db.view(1, -1, 1).expand(2, BANDS, hops)
    found_db = best_gains_of_sound(powers, target, sound, start_db)
    errors = [
        (powers(apply(sound, gains)) - target).square().sum((1, 2))
        for gains in (start_db, found_db)
    ]
    # Of each sound by itself.
    assert bool((errors[1] < 0.1 * errors[0]).all())


def test_descent_comes_back_with_the_best_it_has_met_and_ends_when_nothing_is_gained():
    sound, asked = noise(2, 2000), []
    hops = -(-2000 // HOP) + 1
    start_db = torch.full((2, BANDS, hops), 3.0)
    target = powers(apply(sound, start_db))

    def response(x: Tensor) -> Tensor:
        asked.append(len(x))
        return powers(x)

    found_db = best_gains_of_sound(response, target, sound, start_db, patience=3)
    assert torch.equal(found_db, start_db)
    # The first error is the least; so many steps without a gain end either rate.
    assert len(asked) == 1 + 2 * 3


def test_gains_of_a_sound_stay_within_bounds():
    sound = noise(1, 2000)
    start_db = torch.zeros(1, BANDS, -(-2000 // HOP) + 1)
    found_db = best_gains_of_sound(
        powers, powers(1000 * sound), sound, start_db, steps=40, bounds_db=(-5.0, 25.0)
    )
    assert found_db.max() <= 25
    assert found_db.mean() > 10


def test_batches_change_nothing(healthy):
    sound = noise(3, 2000)
    target = powers(10 * sound)
    whole, parts = (
        best_linear_gain(powers, target, sound, BANDS, steps=5, batch=batch) for batch in (3, 2)
    )
    torch.testing.assert_close(parts, whole, atol=1e-2, rtol=0)


def test_no_more_sounds_than_a_batch_are_heard_at_once():
    sizes = set()

    def response(sound: Tensor) -> Tensor:
        sizes.add(len(sound))
        return powers(sound)

    sound = noise(5, 1000)
    best_linear_gain(response, powers(3 * sound), sound, BANDS, steps=2, batch=2)
    assert sizes == {1, 2}


def test_gains_stay_within_bounds():
    sound = noise(1, 2000)
    found_db = best_linear_gain(
        powers, powers(1000 * sound), sound, BANDS, steps=20, bounds_db=(-5.0, 25.0)
    )
    assert found_db.max() <= 25
    assert found_db.min() >= -5
    assert found_db.mean() > 20


def test_the_best_gains_are_the_best_tried_and_not_the_last():
    sound, loudest = noise(1, 2000), torch.full((BANDS,), 45.0)
    with torch.no_grad():
        target = powers(apply(sound, loudest))
    # Descent begins a little below the bound, and its one step does not reach it.
    best = best_linear_gain(powers, target, sound, BANDS, steps=1, starts_db=loudest[None])
    assert torch.equal(best, loudest)


def test_an_ear_without_loss_gets_no_gain():
    sound = noise(1, 2000)
    target = powers(apply(sound, torch.zeros(BANDS)))
    assert torch.equal(best_linear_gain(powers, target, sound, BANDS), torch.zeros(BANDS))


def test_no_gradient_stays_in_the_response():
    weight = torch.ones(64, 1, requires_grad=True)
    sound = noise(1, 2000)
    best_linear_gain(lambda x: weight * powers(x), powers(3 * sound), sound, BANDS, steps=2)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sound": torch.ones(2000)}, r"sound must be \(B, T\)"),
        ({"target": torch.ones(3, 64, 15)}, "one answer a sound"),
        ({"target": torch.ones(2, 64, 14)}, "same channels and bins"),
        ({"bounds_db": (5.0, 20.0)}, "bounds_db must"),
        ({"bands": 1}, "bands 2 or more"),
        ({"starts_db": torch.ones(BANDS)}, r"starts_db must be \(n, 8\)"),
        ({"response": lambda x: powers(x) * torch.nan}, "without gain is nan"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    sound = noise(2, 2000)
    given = {"response": powers, "target": powers(3 * sound), "sound": sound, "bands": BANDS}
    with pytest.raises(ValueError, match=message):
        best_linear_gain(**given | changed)


def test_gains_and_sounds_of_other_shapes_are_refused():
    for gains_db in (torch.zeros(1, 24), torch.zeros(1, 24, 11), torch.zeros(2, 24, 12)):
        with pytest.raises(ValueError, match=r"gains_db \(bands,\) or \(B, bands, 12\)"):
            apply(torch.ones(1, 1000), gains_db)
