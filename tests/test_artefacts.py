"""What devices add is measured as what it is; what filters and slow gains do is not counted."""

import math

import pytest
import torch

from evaluation.artefacts import artefacts, beside_chirp_db, beside_tone_db
from icsim.sound import REFERENCE_PA, SAMPLE_RATE


def times(sound: torch.Tensor) -> torch.Tensor:
    return torch.arange(sound.shape[-1], dtype=torch.float64) / SAMPLE_RATE


def sine(hz: float, sound: torch.Tensor) -> torch.Tensor:
    """As long as the sound, with a mean power of one."""
    return math.sqrt(2) * torch.sin(2 * torch.pi * hz * times(sound)).float()


def add_tone(sound: torch.Tensor) -> torch.Tensor:
    power = sound[:, sound.shape[-1] // 2 :].square().mean(-1, keepdim=True)
    return sound + power.sqrt() * 10 ** (-50 / 20) * sine(1000.0, sound)


def hold(sound: torch.Tensor) -> torch.Tensor:
    """A rate of a quarter, and back without any filter."""
    return sound[:, ::4].repeat_interleave(4, -1)[:, : sound.shape[-1]]


def test_a_linear_filter_adds_nothing():
    generator = torch.Generator().manual_seed(0)
    taps = torch.randn(1, 1, 200, generator=generator) * torch.exp(-torch.arange(200) / 30)

    def filtered(sound):
        padded = torch.nn.functional.pad(sound.unsqueeze(1), (199, 0))
        return torch.nn.functional.conv1d(padded, taps).squeeze(1)

    found = artefacts(filtered)
    assert found.spur_db < -100
    assert found.silence_db == -math.inf
    assert len(found.tones_db) == 18
    assert len(found.chirps_db) == 3


def test_late_output_is_no_artefact():
    late = artefacts(lambda sound: torch.nn.functional.pad(sound, (400, -400)))
    assert late.spur_db < -100


def test_an_added_tone_measures_what_it_is():
    found = artefacts(add_tone, tones_hz=[233.0, 4321.0], levels_db_spl=[50.0, 80.0])
    for spur_db in found.tones_db.values():
        assert spur_db == pytest.approx(-50, abs=0.01)
    for spur_db in found.chirps_db.values():
        assert spur_db == pytest.approx(-50, abs=1)  # the chirp itself passes 1 kHz


def test_hum_is_heard_in_silence_and_under_soft_tones():
    hum = 10 ** (13 / 20) * REFERENCE_PA
    found = artefacts(lambda sound: sound + hum * sine(1000.0, sound), tones_hz=[487.0])
    assert found.silence_db == pytest.approx(13, abs=0.01)
    assert found.tones_db[487.0, 40.0] == pytest.approx(13 - 40, abs=0.01)
    assert found.tones_db[487.0, 90.0] == pytest.approx(13 - 90, abs=0.01)
    assert found.spur_db == max(*found.tones_db.values(), *found.chirps_db.values())


def test_images_of_sample_and_hold_are_caught():
    found = artefacts(hold)
    assert min(found.tones_db.values()) > -40
    assert min(found.chirps_db.values()) > -10


def test_a_gain_that_changes_slowly_is_no_artefact():
    compressed = artefacts(lambda sound: (sound * 10 ** (-10 * times(sound) / 20)).float())
    assert compressed.spur_db < -100


@pytest.mark.parametrize(
    ("device", "expected_db"),
    [
        # All but the fundamental of a square wave, of which 8 / π² is the fundamental.
        (torch.sign, 10 * math.log10(math.pi**2 / 8 - 1)),
        # cos³ = ¾ cos + ¼ cos 3
        (lambda sound: sound**3, 20 * math.log10(1 / 3)),
        # Two sidebands of half the depth each.
        (lambda sound: sound * (1 + 0.01 * sine(100.0, sound) / math.sqrt(2)), -43.01),
    ],
    ids=["square", "cube", "modulation"],
)
def test_distortion_of_known_size_is_measured(device, expected_db):
    for spur_db in artefacts(device, levels_db_spl=[65.0]).tones_db.values():
        assert spur_db == pytest.approx(expected_db, abs=0.05)


def test_what_follows_a_chirp_from_afar_is_measured():
    found = artefacts(lambda sound: sound * (1 + 0.001 * sine(3000.0, sound)))
    for spur_db in [*found.tones_db.values(), *found.chirps_db.values()]:
        assert spur_db == pytest.approx(-60, abs=0.3)


def test_a_device_that_falls_silent_adds_nothing():
    found = artefacts(torch.zeros_like)
    assert found.spur_db == found.silence_db == -math.inf
    assert beside_tone_db(torch.zeros(1, 20_000), [1000.0]) == [-math.inf]


def test_something_in_place_of_the_tone_is_endlessly_worse():
    dead = torch.zeros(1, 50_000)
    dead[0, 49_000] = 1.0
    assert beside_tone_db(dead, [1000.0])[0] > 20
    assert beside_chirp_db(torch.ones(1, 50_000))[0] > 60


def test_other_sample_rates():
    assert artefacts(lambda sound: sound, 16_000.0, [7000.0]).spur_db < -100


@pytest.mark.parametrize("hz", [0.0, 30.0, 12_190.0, 20_000.0])
def test_tones_that_cannot_be_judged_are_refused(hz):
    with pytest.raises(ValueError, match=r"cannot be judged at 24414.0625 Hz; use 40 to 12167 Hz"):
        artefacts(lambda sound: sound, tones_hz=[hz])


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (lambda sound: sound[:, 1:], "must return every sound at its length"),
        (lambda sound: sound / 0, "returned NaN or infinity"),
    ],
)
def test_devices_that_cannot_be_measured_are_refused(device, message):
    with pytest.raises(ValueError, match=message):
        artefacts(device)
