"""Noise reduction to compare aids with: it takes noise away, keeps speech, and keeps its delay."""

import sys

import pytest
import torch
from torch import Tensor

from compensation.noise_reduction import (
    FLOOR_DB,
    RNNOISE_DELAY_MS,
    SHORT_TIME_DELAY_MS,
    noise_powers,
    rnnoise,
    spectral_subtraction,
    wiener,
)
from evaluation.quality import si_sdr
from icsim.sound import SAMPLE_RATE, calibrate, level, mix

METHODS = [wiener, spectral_subtraction]


def noise(count: int, seconds: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return calibrate(torch.randn(count, round(seconds * SAMPLE_RATE), generator=generator), 60.0)


def tones(seconds: float = 1.5) -> Tensor:
    """Three gliding tones that come and go, as voices do, `(1, T)`."""
    time = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * torch.pi * (200 * time + 10 * torch.sin(2 * torch.pi * time))
    voice = sum(torch.sin(n * phase) for n in (1, 3, 7))
    return calibrate((voice * (torch.sin(2 * torch.pi * 2 * time) > 0))[None], 65.0)


@pytest.mark.parametrize("method", METHODS)
def test_steady_noise_is_brought_to_the_floor(method):
    left = level(method(noise(2))[:, round(0.3 * SAMPLE_RATE) :]) - 60
    assert bool((left > FLOOR_DB - 0.5).all())
    assert bool((left < -9).all())


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_and_goes_stays_and_gets_clearer(method):
    clean = tones()
    noisy = mix(clean, noise(1), 5.0)
    before, after = (si_sdr(clean, x, SAMPLE_RATE).values.item() for x in (noisy, method(noisy)))
    assert after > before + 2
    assert level(method(clean)).item() == pytest.approx(65, abs=2)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_depends_on_what_comes_after_the_delay(method):
    sound, at = noise(1, 0.5), 8000
    other = sound.clone()
    other[:, at:] = 5.0
    early = at - round(SHORT_TIME_DELAY_MS / 1e3 * SAMPLE_RATE)
    first, second = method(sound), method(other)
    torch.testing.assert_close(first[:, :early], second[:, :early], atol=1e-8, rtol=1e-5)
    assert not torch.allclose(first[:, early:at], second[:, early:at], rtol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_level_does_not_matter_and_silence_stays_silent(method):
    sound = mix(tones(0.6), noise(1, 0.6), 0.0)
    torch.testing.assert_close(method(100 * sound), 100 * method(sound), atol=1e-5, rtol=1e-3)
    assert not bool(method(torch.zeros(1, 9000)).any())
    with pytest.raises(ValueError, match="B, T"):
        method(sound[0])


def test_power_of_noise_is_followed_when_it_rises():
    generator = torch.Generator().manual_seed(0)
    level = torch.where(torch.arange(1500) < 500, 1.0, 10.0)
    powers = level * torch.randn(4, 50, 1500, 2, generator=generator).square().mean(-1)
    found = torch.stack(list(noise_powers(powers)), -1).mean((0, 1))
    assert found[400].item() == pytest.approx(1, rel=0.2)
    assert found[-1].item() == pytest.approx(10, rel=0.2)


def test_rnnoise_is_late_by_what_is_taken_out():
    pytest.importorskip("pyrnnoise", reason="pyrnnoise is not installed")
    clean = tones()
    noisy = mix(clean, noise(1), 20.0)
    after = rnnoise(noisy)
    assert after.shape == noisy.shape
    spectrum = torch.fft.rfft(after).conj() * torch.fft.rfft(noisy)
    lag = torch.fft.irfft(spectrum).argmax().item()
    assert min(lag, noisy.shape[-1] - lag) < 0.002 * SAMPLE_RATE
    assert RNNOISE_DELAY_MS == 30


def test_rnnoise_that_is_missing_says_what_to_install(monkeypatch):
    for name in ("pyrnnoise", "pyrnnoise.rnnoise"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "icsim\[rnnoise\]"'):
        rnnoise(noise(1, 0.1))
