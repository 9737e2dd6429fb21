"""The simulated gerbil: ear, midbrain, thresholds."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from icsim.simulation import cochlea, midbrain
from icsim.simulation.abr import abr_thresholds
from icsim.simulation.animal import (
    QUARTILE_RANGES_HZ,
    Animal,
    Loss,
    animal_from,
    draw_anatomy,
    draw_loss,
)
from icsim.simulation.hearing import NORMAL_THRESHOLDS_DB_SPL, SHIFT_DB, split_shift
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, calibrate

LEVELS_DB_SPL = (40.0, 60.0, 80.0)


def tone(frequency_hz, levels_db_spl, duration_s=0.1, rate_hz=SAMPLE_RATE):
    time_s = torch.arange(round(duration_s * rate_hz), dtype=torch.float64) / rate_hz
    wave = torch.sin(2 * torch.pi * frequency_hz * time_s).float()
    return calibrate(wave.expand(len(levels_db_spl), -1), torch.tensor(levels_db_spl))


def babble(duration_s=2.0, seed=0):
    """Pink noise that swells and fades four times a second, as speech does."""
    generator = torch.Generator().manual_seed(seed)
    samples = round(duration_s * SAMPLE_RATE)
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    pink = torch.fft.irfft(spectrum / (1 + torch.arange(len(spectrum))).sqrt(), samples)
    phase = 8 * torch.pi * torch.arange(samples) / SAMPLE_RATE
    return pink * (1 - torch.cos(phase)) ** 2


@pytest.fixture(scope="module")
def heard():
    """Subbands of the same two seconds at three levels."""
    return cochlea.filter_sound(calibrate(babble().expand(3, -1), torch.tensor(LEVELS_DB_SPL)))


@pytest.fixture(scope="module")
def anatomy():
    return draw_anatomy(32, seed=3)


def change(one, other):
    """Mean squared difference of responses over the variance of the second, at each level."""
    return (one - other).square().mean((1, 2)) / other.var(-1).mean(-1)


def test_a_place_has_unit_gain_at_its_own_frequency_before_its_amplifier():
    subbands = cochlea.filter_sound(tone(4000.0, [60.0]), torch.tensor([1000.0, 4000.0]))
    level = 10 * torch.log10(subbands.sharp[0, :, 200:].mean(-1) / 2) + 94
    assert level[1] == pytest.approx(60, abs=0.3)
    assert level[0] < 10


def test_broad_filters_answer_farther_away():
    subbands = cochlea.filter_sound(tone(2000.0, [60.0]), torch.tensor([1500.0]))
    assert subbands.broad[0, 0, -100:].mean() > 10 * subbands.sharp[0, 0, -100:].mean()


def test_twice_the_sample_rate_hears_the_same():
    places_hz = torch.tensor([700.0, 3000.0])
    at = [
        cochlea.filter_sound(tone(1000.0, [70.0], rate_hz=rate), places_hz, rate).broad[..., 100:]
        for rate in (SAMPLE_RATE, 2 * SAMPLE_RATE)
    ]
    assert at[0].shape == at[1].shape
    torch.testing.assert_close(at[0].mean(-1), at[1].mean(-1), rtol=0.02, atol=0)


def test_outer_hair_cell_loss_recruits():
    """The shift is full near threshold, half at 60 dB and gone at 100 dB SPL."""
    levels = np.arange(0.0, 121.0)
    subbands = cochlea.filter_sound(tone(2000.0, levels, 0.03), torch.tensor([2000.0]))

    def output_db(gain_db):
        drive = cochlea.drive(subbands, torch.tensor([[gain_db]]), torch.zeros(1))
        return 20 * drive[:, 0, -40:].mean(-1).log10().numpy()

    healthy, impaired = output_db(55.0), output_db(55.0 - 24.0)
    same_at = np.interp(healthy[[28, 60, 100]], impaired, levels)
    near, middle, high = same_at - (28, 60, 100)
    assert 30 < near < 40
    assert 0.4 * near < middle < 0.6 * near
    assert high < 3
    assert (np.diff(healthy) > 0).all()


def test_inner_hair_cell_loss_is_the_same_at_all_levels(heard):
    gain_db, ihc_db = torch.full((1, 56), 55.0), torch.full((56,), 6.0)
    whole, attenuated = (cochlea.drive(heard, gain_db, loss) for loss in (0 * ihc_db, ihc_db))
    torch.testing.assert_close(attenuated, whole * 10 ** (-6 / 20))


def test_synaptopathy_spares_soft_sounds():
    drive = 10 ** (torch.tensor([60.0, 70.0, 76.9, 90.0]).repeat_interleave(2) / 20)
    healthy, hidden = cochlea.nerve(drive, 0.0), cochlea.nerve(drive, 0.8)
    assert torch.equal(healthy[:3], hidden[:3])
    assert hidden[3] < 0.8 * healthy[3]


def test_two_thirds_of_a_shift_come_from_outer_hair_cells_and_all_of_it_from_both():
    threshold, shift = np.array(NORMAL_THRESHOLDS_DB_SPL), np.full(7, 30.0)
    ohc_db, ihc_db = map(np.array, split_shift(shift))

    def output_db(level_db_spl, lost_db):
        control = cochlea.gain_control(torch.from_numpy(level_db_spl)).numpy()
        return level_db_spl + (cochlea.MAX_GAIN_DB - lost_db) * control

    healthy = output_db(threshold, 0)
    np.testing.assert_allclose(output_db(threshold + 20, ohc_db), healthy, atol=1e-3)
    np.testing.assert_allclose(output_db(threshold + 30, ohc_db) - ihc_db, healthy, atol=1e-3)


def test_adaptation_keeps_the_onset_and_a_part_of_the_rest():
    adapted = midbrain.adapt(torch.ones(1000))
    assert adapted[0] > 0.9
    assert adapted[-1] == pytest.approx(0.3, abs=0.01)
    assert (adapted.diff() < 1e-6).all()


@pytest.mark.parametrize("best_hz", [15.0, 60.0, 150.0])
def test_channels_prefer_their_own_modulation_rate(best_hz):
    one = torch.ones(1)
    kernel, _ = midbrain.temporal_kernels(best_hz * one, 0.9 * one, 0.1 * one, 7 * one)
    size = 8192
    frequency_hz = torch.fft.rfftfreq(size, 1 / midbrain.NERVE_RATE)
    peak = frequency_hz[torch.fft.rfft(kernel[0], size).abs().argmax()]
    assert peak == pytest.approx(best_hz, rel=0.15)


def test_count_probabilities_are_the_negative_binomial():
    mean, dispersion = 0.8, 0.5
    law = nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    expected = [*law.pmf(range(4)), law.sf(3)]
    got = midbrain.count_probabilities(torch.tensor([mean]), torch.tensor(dispersion))
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-6)


def test_counts_are_drawn_from_their_probabilities(anatomy, heard):
    animal = Animal(anatomy)
    generator = torch.Generator().manual_seed(0)
    counts = animal.sample_counts(heard, generator=generator)
    expected = animal.expected_counts(heard)
    assert counts.dtype == torch.uint8
    assert counts.shape == expected.shape == (3, 32, round(2 * SAMPLE_RATE) // BIN_SAMPLES)
    assert counts.max() == 4
    torch.testing.assert_close(
        counts.float().mean((1, 2)), expected.mean((1, 2)), rtol=0.03, atol=0
    )
    probabilities = animal.count_probabilities(heard)
    torch.testing.assert_close(probabilities.sum(2), torch.ones_like(expected))


def test_responses_are_as_lively_as_recordings(heard):
    """Below 1 count a bin, growing with level; entropy 0.7 nats or more; most channels repeat."""
    probabilities = Animal(draw_anatomy(64, seed=1)).count_probabilities(heard)
    counts = torch.arange(5.0)[:, None]
    mean = (probabilities * counts).sum(2)
    noise = (probabilities * counts**2).sum(2) - mean**2
    repeatable = mean.var(-1) / (mean.var(-1) + noise.mean(-1))
    by_level = mean.mean((1, 2))
    assert 0.3 < by_level.mean() < 0.8
    assert (by_level.diff() > 0.1).all()
    marginal = probabilities.mean((0, 3))
    assert 0.7 < torch.special.entr(marginal).sum(1).mean() < 1.2
    assert (repeatable[1] > 0.22).float().mean() > 0.8


def test_precomputed_subbands_are_the_sound(anatomy):
    sound = calibrate(babble(0.3)[None], 65.0)
    animal = Animal(anatomy, draw_loss("HI", 1.0, 0))
    assert torch.equal(animal(cochlea.filter_sound(sound)), animal(sound))


def test_sounds_in_a_batch_do_not_hear_each_other(anatomy):
    sounds = calibrate(torch.stack([babble(0.3, seed) for seed in (1, 2)]), 65.0)
    animal = Animal(anatomy, Loss(drift_db_per_hour=1.0))
    both = animal(sounds, torch.tensor([0.0, 8.0]))
    torch.testing.assert_close(both[1:], animal(sounds[1:], 8.0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kept", [100 * BIN_SAMPLES, 100 * BIN_SAMPLES + 7])
def test_the_future_does_not_change_the_past(anatomy, kept):
    sound = calibrate(babble(0.3)[None], 70.0)
    changed = sound.clone()
    changed[:, kept:] = calibrate(babble(0.3, seed=9)[None], 90.0)[:, kept:]
    animal = Animal(anatomy)
    one, other, alone = animal(sound), animal(changed), animal(sound[:, :kept])
    for same in (other[..., :100], alone):  # to rounding; responses are of the order of 1
        torch.testing.assert_close(one[..., :100], same, rtol=1e-3, atol=5e-4)
    assert (one[..., 106:] - other[..., 106:]).abs().mean() > 0.01


@pytest.mark.parametrize("silent", [False, True])
def test_gradients_reach_the_sound_and_are_finite(anatomy, silent):
    sound = calibrate(babble(0.2)[None], 60.0) * (not silent)
    sound.requires_grad_()
    Animal(anatomy, draw_loss("HI", 1.0, 0)).expected_counts(sound).sum().backward()
    assert sound.grad.isfinite().all()
    assert bool(sound.grad.any()) != silent


def test_silence_leaves_spontaneous_counts(anatomy):
    expected = Animal(anatomy)(torch.zeros(1, 3200))
    assert (expected > 0).all()
    assert expected.std(-1).max() < 1e-5


def test_normal_thresholds_are_the_published_ones():
    generator = torch.Generator().manual_seed(0)
    measured = torch.stack(
        [
            abr_thresholds(Animal(draw_anatomy(4, i), draw_loss("NH", 0.0, i)), generator)
            for i in range(100)
        ]
    )
    targets = torch.tensor(NORMAL_THRESHOLDS_DB_SPL[2:])
    torch.testing.assert_close(measured.mean(0), targets, rtol=0, atol=1.5)
    assert ((measured.std(0) > 3) & (measured.std(0) < 7)).all()


@pytest.mark.parametrize("severity", [0.4, 1.0, 1.6])
def test_loss_shifts_thresholds_as_designed(severity):
    shifts = []
    for i in range(40):
        anatomy = draw_anatomy(4, i)
        impaired = abr_thresholds(Animal(anatomy, draw_loss("HI", severity, i)))
        shifts.append(impaired - abr_thresholds(Animal(anatomy)))
    target = severity * torch.tensor(SHIFT_DB[2:])
    torch.testing.assert_close(torch.stack(shifts).mean(0), target, rtol=0.05, atol=2)


def test_hidden_loss_changes_responses_and_no_threshold(anatomy, heard):
    animal = Animal(anatomy, draw_loss("hidden", 1.0, 0))
    assert torch.equal(abr_thresholds(animal), abr_thresholds(animal.healthy()))
    assert change(animal(heard), animal.healthy()(heard))[2] > 0.05


def test_more_severe_losses_change_responses_more(anatomy, heard):
    healthy = Animal(anatomy)(heard)
    mild, severe = (
        change(Animal(anatomy, draw_loss("HI", severity, 0))(heard), healthy)
        for severity in (0.4, 1.8)
    )
    assert (mild > 0.03).all()
    assert (severe > 2 * mild).all()


def test_nothing_is_lost_at_500_hz():
    assert split_shift(np.array(SHIFT_DB))[0][:2] == (0.0, 0.0)
    loss = draw_loss("HI", 1.8, 5)
    assert max(loss.ohc_db[:2] + loss.ihc_db[:2]) == 0


def test_drift_spares_the_first_hour_and_then_grows(anatomy, heard):
    animal = Animal(anatomy, Loss(drift_db_per_hour=0.8))
    fresh = animal(heard, 0.0)
    assert torch.equal(animal(heard, 1.0), fresh)
    grown = [change(animal(heard, hours), fresh)[1] for hours in (2.0, 6.0, 11.0)]
    assert 0 < grown[0] < grown[1] < grown[2]
    steady = Animal(anatomy)
    assert torch.equal(steady(heard, 11.0), steady(heard, 0.0))


def test_healthy_is_the_same_animal_without_its_loss(anatomy, heard):
    animal = Animal(anatomy, draw_loss("HI", 1.0, 0))
    assert torch.equal(animal.healthy()(heard, 9.0), Animal(anatomy, Loss())(heard))


def test_central_gain_lifts_moderate_levels_more_than_high_ones(anatomy, heard):
    plain, lifted = (
        Animal(anatomy, Loss(central_gain=gain))(heard).mean((1, 2)) for gain in (1.0, 2.0)
    )
    ratio = lifted / plain
    assert ratio[0] > ratio[2] > 1


def test_the_same_seed_is_the_same_animal_and_another_is_not(heard):
    one, same, other = (
        Animal(draw_anatomy(16, seed), draw_loss("HI", 1.0, seed))(heard) for seed in (4, 4, 5)
    )
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("status", ["NH", "HI", "hidden"])
def test_truth_makes_the_same_animal_again(heard, status):
    animal = Animal(draw_anatomy(16, 8), draw_loss(status, 1.3, 8))
    again = animal_from(json.loads(json.dumps(animal.truth())))
    assert again.loss == animal.loss
    assert again.anatomy == animal.anatomy
    assert torch.equal(again(heard, 5.0), animal(heard, 5.0))


def test_coverage_stays_within_what_was_measured():
    for seed in range(50):
        animal = Animal(draw_anatomy(128, seed))
        quartiles = np.quantile(animal.cf_hz.numpy(), [0.25, 0.5, 0.75])
        for value, (low, high) in zip(quartiles, QUARTILE_RANGES_HZ, strict=True):
            assert 0.95 * low < value < 1.05 * high
        assert animal.cf_hz.min() > 290
        assert animal.cf_hz.max() <= 16000


def test_dead_channels_hear_nothing(heard):
    anatomy = next(a for seed in range(20) if (a := draw_anatomy(64, seed)).dead)
    spread = Animal(anatomy)(heard).std(-1).amax(0)
    assert spread[list(anatomy.dead)].max() < 1e-6
    assert (spread > 0.01).sum() == 64 - len(anatomy.dead)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="resample"):
        cochlea.filter_sound(torch.zeros(1, 4000), rate_hz=16000.0)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        cochlea.filter_sound(torch.zeros(4000))
    with pytest.raises(ValueError, match="channels"):
        draw_anatomy(2, 0)
    with pytest.raises(ValueError, match="deaf"):
        draw_loss("deaf", 1.0, 0)
