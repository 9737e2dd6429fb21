"""Measurements on simulated animals find what the animals were made with."""

import dataclasses

import pytest
import torch

from compensation.linear import apply
from evaluation.neural import discrepancies, pooled_restoration
from icsim.simulation import measurements as animal_measurements
from icsim.simulation.animal import Animal, Loss, draw_anatomy, draw_loss
from icsim.simulation.cochlea import filter_sound
from icsim.sound import SAMPLE_RATE, calibrate
from recipes import describe_gains as animal_gains
from recipes.describe_animals import Config, describe
from recipes.reports import animals as animal_figures

CHANNELS = 16
LEVELS_DB_SPL = torch.arange(0.0, 101.0, 10.0)
FREQUENCIES_HZ = 2 ** torch.arange(9.0, 13.4, 0.5)


@pytest.fixture(scope="module")
def anatomy():
    return dataclasses.replace(draw_anatomy(CHANNELS, 0, coverage_spread=0.0), dead=())


@pytest.fixture(scope="module")
def tones(anatomy):
    """Responses to tones: NH, HI, HI without central gain, hidden without it; `(4, F, L, C)`."""
    loss = draw_loss("HI", 1.0, 0)
    plain = dataclasses.replace(loss, central_gain=1.0)
    animals = [Animal(anatomy, other) for other in (Loss(), loss, plain, Loss(synaptopathy=0.8))]
    return animal_measurements.tone_responses(animals, FREQUENCIES_HZ, LEVELS_DB_SPL)


@pytest.fixture(scope="module")
def sounds():
    """Six noises of half a second that swell and fade at other rates."""
    generator = torch.Generator().manual_seed(0)
    time_s = torch.arange(round(0.5 * SAMPLE_RATE)) / SAMPLE_RATE
    swell = torch.sin(2 * torch.pi * torch.arange(3.0, 40.0, 6.5)[:, None] * time_s) ** 2
    return swell * torch.randn(len(swell), len(time_s), generator=generator)


def test_audiograms_show_severity_and_no_hidden_loss():
    normal, mild, severe, hidden = (
        animal_measurements.audiograms(hearing, severity, 4, 0)
        for hearing, severity in (("NH", 0.0), ("HI", 0.4), ("HI", 1.8), ("hidden", 0.0))
    )
    assert normal.shape == (4, 5)
    assert torch.equal(hidden, normal)
    assert (mild.mean(0) > normal.mean(0)).all()
    assert (severe.mean(0) > mild.mean(0) + 10).all()


def test_louder_tones_are_answered_more_and_silence_not_at_all(tones):
    normal = tones[0].mean((0, 2))
    assert normal[0].abs() < 1e-3
    assert (normal.diff()[1:] > 0).all()


def test_loss_moves_rate_levels_to_the_right_and_strong_tones_catch_up(anatomy, tones):
    cf_hz = Animal(anatomy).cf_hz
    high = cf_hz > 1500
    grown = animal_measurements.rate_levels(tones, FREQUENCIES_HZ, cf_hz)[..., high].mean(-1)
    normal, impaired, plain, _ = grown
    assert grown.shape == (4, len(LEVELS_DB_SPL))
    assert impaired[5] < 0.3 * normal[5]
    assert impaired[-1] > 0.9 * normal[-1]
    assert (impaired[5:] > plain[5:]).all()  # central gain


def test_a_rate_level_is_that_of_the_channels_own_tone():
    frequencies_hz, cf_hz = torch.tensor([500.0, 1000.0, 2000.0]), torch.tensor([1900.0, 520.0])
    increase = torch.rand(3, 4, 2)
    found = animal_measurements.rate_levels(increase, frequencies_hz, cf_hz)
    assert torch.equal(found, torch.stack([increase[2, :, 0], increase[0, :, 1]], -1))


def test_synapses_lost_leave_thresholds_and_weaken_strong_responses(tones):
    thresholds = animal_measurements.criterion_levels(tones, LEVELS_DB_SPL, 0.02).amin(1)
    normal, impaired, _, hidden = thresholds
    torch.testing.assert_close(hidden, normal, rtol=0, atol=2)
    assert (impaired - normal).mean() > 10
    assert tones[3][:, 7:].mean() < 0.8 * tones[0][:, 7:].mean()


def test_criterion_levels_lie_where_a_ramp_crosses():
    ramp = torch.stack([0.02 * LEVELS_DB_SPL, 0.01 * LEVELS_DB_SPL, 0 * LEVELS_DB_SPL], -1)
    found = animal_measurements.criterion_levels(ramp, LEVELS_DB_SPL, 0.5)
    torch.testing.assert_close(found, torch.tensor([25.0, 50.0, 110.0]))


def test_sharpness_of_a_straight_sided_curve_is_known():
    """40 dB an octave on both sides of 2048 Hz: 10 dB above the tip it is half an octave wide."""
    octaves = FREQUENCIES_HZ.log2()
    curve = 20 + 40 * (octaves - 11).abs()
    flat = torch.full_like(curve, 50.0)
    best_hz, q10 = animal_measurements.sharpness(torch.stack([curve, flat], -1), FREQUENCIES_HZ)
    assert best_hz[0] == 2048
    assert q10[0] == pytest.approx(1 / (2**0.25 - 2**-0.25), rel=1e-4)
    assert q10[1].isnan()


def test_channels_are_best_near_their_own_frequency(anatomy, tones):
    cf_hz = Animal(anatomy).cf_hz
    thresholds = animal_measurements.criterion_levels(tones[0], LEVELS_DB_SPL)
    best_hz, _ = animal_measurements.sharpness(thresholds, FREQUENCIES_HZ)
    within = (cf_hz > 500) & (cf_hz < 8000)
    assert (best_hz / cf_hz).log2().abs()[within].max() < 0.8


def test_modulation_transfer_peaks_near_the_best_rate(anatomy):
    animal = Animal(anatomy)
    rates_hz = 8 * 2.0 ** torch.arange(6)
    locked, mean = animal_measurements.modulation_transfer(animal, rates_hz, 65.0, 0.5, 1)
    assert locked.shape == mean.shape == (6, CHANNELS)
    off = (rates_hz[locked.argmax(0)] / animal.best_modulation_hz).log2()
    assert off.abs().median() < 0.75
    assert off.abs().max() < 2


def test_speech_grows_with_level_and_loss_takes_some(anatomy, sounds):
    animals = [Animal(anatomy), Animal(anatomy, draw_loss("HI", 1.0, 0))]
    images = animal_measurements.speech_responses(animals, sounds[0], torch.tensor([40.0, 80.0]))
    loud = images.mean((2, 3))
    assert images.shape[:3] == (2, 2, CHANNELS)
    assert (loud[:, 1] > loud[:, 0]).all()
    assert (loud[1] < loud[0]).all()


def test_thresholds_drift_after_the_first_hour_and_faster_with_more_drift(anatomy):
    hours = torch.tensor([0.0, 1.0, 2.0, 5.0, 10.0])
    slow, fast = (
        animal_measurements.threshold_shifts(Animal(anatomy, Loss(drift_db_per_hour=rate)), hours)
        for rate in (0.2, 0.8)
    )
    assert slow[:2].tolist() == fast[:2].tolist() == [0, 0]
    assert (slow[1:].diff() > 0).all()
    assert (fast[2:] > 2 * slow[2:]).all()


def test_what_brains_share_falls_with_scatter(sounds):
    heard = filter_sound(calibrate(sounds, 65.0))
    without, with_scatter = (
        animal_measurements.shared_variance(
            [Animal(draw_anatomy(24, seed, scatter)) for seed in range(2)], heard
        )
        for scatter in (0.0, 0.8)
    )
    assert without.shape == (2, 4)
    torch.testing.assert_close(without[:, 3], torch.ones(2))
    assert (with_scatter.mean(0) < without.mean(0)).all()


def test_a_brain_explains_its_twin(sounds):
    twins = [Animal(draw_anatomy(CHANNELS, 1)) for _ in range(2)]
    heard = filter_sound(calibrate(sounds, 65.0))
    found = animal_measurements.shared_variance(twins, heard)
    torch.testing.assert_close(found[:, :3], torch.ones(2, 3))
    alike = animal_measurements.likeness(twins, filter_sound(calibrate(sounds[:1], 65.0)))
    torch.testing.assert_close(alike[:, 0], torch.ones(2))


def test_the_command_prints_tables_and_draws_small_figures(tmp_path, monkeypatch):
    def quick(animals, frequencies_hz, levels_db_spl):
        shape = len(animals), len(frequencies_hz), len(levels_db_spl), animals[0].anatomy.channels
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)).cumsum(2) / 10

    monkeypatch.setattr(animal_measurements, "tone_responses", quick)
    config = Config(
        out=str(tmp_path / "images"),
        listeners=2,
        brains=2,
        channels=8,
        seconds=1.2,
        scatters=(0.1,),
        scatter_channels=(8,),
        scatter_brains=2,
        scatter_seconds=6.0,
        figure_channels=8,
        drifting=1,
    )
    text = describe(config)
    drawn = sorted(path.name for path in (tmp_path / "images").iterdir())
    names = ["audiograms", "drift", "modulation", "rate_levels", "speech", "tuning"]
    assert drawn == [f"{name}.png" for name in names]
    assert all(path.stat().st_size < 120_000 for path in (tmp_path / "images").iterdir())
    tables = text.split("\n\n")
    assert len(tables) == 7
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_drift_costs_those_who_drift(anatomy, sounds):
    heard = [calibrate(sound, 55.0) for sound in sounds[:2]]
    still, slow, fast = (
        animal_measurements.drift_costs(
            Animal(anatomy, Loss(drift_db_per_hour=rate)), heard, 11.0, 0
        )
        for rate in (0.0, 1.0, 3.0)
    )
    assert still.abs().max() < 1e-6
    assert bool((slow > 0).all())
    assert slow.mean() < fast.mean()


def test_tinted_colours_are_lighter():
    dark, light = (sum(animal_figures._tint("#d62728", share)) for share in (1.0, 0.4))
    assert light > dark


def test_gains_undo_an_attenuation_and_low_ones_can_be_left_out(anatomy, sounds):
    deaf, sound = Animal(anatomy, Loss(ihc_db=(12.0,) * 7)), sounds[:2, : 32 * 192]
    found = animal_gains.wanted(deaf, sound, 60.0, 4)
    assert found.restored > 0.9
    kept = torch.where(animal_gains.low_bands(), 0.0, torch.tensor(found.gains_db))
    assert kept.count_nonzero() < len(kept)
    sound = calibrate(sound, 60.0)
    left = discrepancies(deaf, deaf.healthy(), sound, apply(sound, kept))
    assert found.restored_without_low == pytest.approx(pooled_restoration(*left), abs=1e-6)


def test_variants_lack_what_they_are_called_by(anatomy):
    loss = draw_loss("HI", 1.0, 0)
    made = animal_gains.variants(anatomy, loss)
    whole = made["whole loss"]
    assert made["no synapses lost"].loss == dataclasses.replace(loss, synaptopathy=0.0)
    assert made["no central gain"].loss == dataclasses.replace(loss, central_gain=1.0)
    assert not torch.equal(whole.excited_by, whole.healthy().excited_by)
    for name in ("no low-frequency drive", "hair cells alone"):
        assert torch.equal(made[name].excited_by, whole.healthy().excited_by)
    for name in ("synapses alone", "central gain alone"):
        assert max(made[name].loss.ohc_db) == max(made[name].loss.ihc_db) == 0
    low, high = made["channels below 0.7 kHz"], made["channels above 1.5 kHz"]
    assert torch.equal(low.alive > 0, whole.cf_hz < 700)
    assert torch.equal(high.healthy().alive > 0, whole.cf_hz > 1500)


def test_the_command_finds_gains_when_asked(tmp_path, monkeypatch):
    asked = []

    def quick(animal, sound, level_db_spl, steps):
        asked.append((level_db_spl, sound.shape))
        gains = torch.where(animal_gains.low_bands(), level_db_spl / 10, 0.0)
        return animal_gains.Wanted(tuple(gains.tolist()), 0.5, 0.4)

    monkeypatch.setattr(animal_gains, "wanted", quick)
    text = animal_gains.describe(animal_gains.Config(out=str(tmp_path), channels=8, animals=2))
    assert [path.name for path in tmp_path.iterdir()] == ["gains.png"]
    assert len(asked) == 2 * 3 * len(animal_gains.PARTS)
    assert {shape for _, shape in asked} == {(3, 762 * 32)}
    whole = "| whole loss | +5.0 (+5.0 to +5.0) | +6.5 (+6.5 to +6.5) | +8.0 (+8.0 to +8.0) "
    assert f"{whole}| 0.50 | 0.40 |" in text
