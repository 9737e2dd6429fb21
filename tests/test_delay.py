"""Planted delays are found whatever else the device does; what cannot be found is said."""

import math

import pytest
import torch

from evaluation.delay import delay, in_time
from evaluation.quality import si_sdr

RATE = 16000


@pytest.fixture(scope="module")
def voice() -> torch.Tensor:
    """Syllables of a gliding voice, `(T,)`, 1.5 s."""
    time = torch.arange(int(1.5 * RATE)) / RATE
    phase = 2 * torch.pi * (120 * time + 5 * torch.sin(2 * torch.pi * 1.5 * time))
    tones = sum(torch.sin(n * phase) / n for n in range(1, 30))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    return (tones + 0.5 * noise) * torch.sin(2 * torch.pi * 2.3 * time).square()


def shifted(sound: torch.Tensor, late: int) -> torch.Tensor:
    """As long as before; silence where nothing is known."""
    empty = torch.zeros(abs(late))
    if late >= 0:
        return torch.cat([empty, sound])[: len(sound)]
    return torch.cat([sound[-late:], empty])


def noise(sound: torch.Tensor, seed: int) -> torch.Tensor:
    made = torch.randn(sound.shape, generator=torch.Generator().manual_seed(seed))
    return made * sound.square().mean().sqrt()


@pytest.mark.parametrize("late", [0, 1, 77, 128, 7999, -1, -480])
def test_a_planted_delay_is_found_to_the_sample(voice, late):
    found = delay(voice[None], shifted(voice, late)[None], RATE)
    assert found.reasons == (None,)
    assert found.values.item() == late / RATE


@pytest.mark.parametrize("snr_db", [-10, 0, 20])
def test_noise_hides_no_delay(voice, snr_db):
    noisy = voice + noise(voice, 2) * 10 ** (-snr_db / 20)
    assert delay([voice], [shifted(noisy, 200)], RATE).values.item() == 200 / RATE


def test_gain_by_frequency_inversion_and_length_change_no_delay(voice):
    steep = torch.zeros_like(voice)
    steep[1:] = voice[1:] - 0.9 * voice[:-1]  # zero phase but for half a sample
    longer = torch.cat([shifted(-30 * steep, 300), torch.zeros(2000)])
    assert delay([voice], [longer], RATE).values.item() == pytest.approx(300 / RATE, abs=1 / RATE)


def test_each_sound_of_a_batch_has_its_own(voice):
    found = delay(voice.expand(3, -1), torch.stack([shifted(voice, n) for n in (5, 50, 0)]), RATE)
    assert (found.values * RATE).round().tolist() == [5, 50, 0]


def test_what_cannot_be_believed_is_missing_with_its_reason(voice):
    time = torch.arange(len(voice)) / RATE
    tone = torch.sin(2 * torch.pi * 440 * time) * torch.hann_window(len(time))
    silence, broken = torch.zeros_like(voice), voice.clone()
    broken[5] = math.nan
    found = delay(
        [voice, tone, voice, voice, voice],
        [noise(voice, 3), tone + 1e-3 * noise(tone, 4), silence, broken, shifted(voice, 9000)],
        RATE,
    )
    reasons = ["clearly alike", "clearly alike", "is silent", "NaN", "+0.562 s, beyond 0.5 s"]
    for expected, reason in zip(reasons, found.reasons, strict=True):
        assert expected in reason
    assert "+0.562" in delay([voice], [shifted(voice, 9000)], RATE, longest_s=0.1).reasons[0]
    assert "too short" in delay([voice[4000:4100]], [voice[4000:4100]], RATE).reasons[0]


def test_sounds_in_time_are_scored_as_if_there_were_no_delay(voice):
    for late in (160, -160):
        clean, processed = in_time(voice, 2 * shifted(voice, late), late)
        assert len(clean) == len(processed) == len(voice) - 160
        assert si_sdr(clean[None], processed[None], RATE).values.item() == 100
    assert len(in_time(voice, torch.cat([voice, voice]), 0)[1]) == len(voice)


def test_impossible_questions_are_refused(voice):
    with pytest.raises(ValueError, match="match them"):
        delay([voice], [], RATE)
    with pytest.raises(ValueError, match="longest_s"):
        delay([voice], [voice], RATE, longest_s=math.inf)
