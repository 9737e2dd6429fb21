import sys

import pytest
import torch

from compensation import prescriptions
from compensation.prescriptions import NAL_R_HZ, nal_r, nal_r_gains_db
from icsim.audiogram import Audiogram
from icsim.sound import SAMPLE_RATE

pytest.importorskip("clarity.enhancer.nalr", reason="pyclarity is not installed")

SLOPING = Audiogram(NAL_R_HZ, (45, 45, 35, 45, 60, 65))


@pytest.fixture
def noise():
    return 0.02 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


def test_the_filter_is_the_published_one():
    # From pyclarity's own tests: the sum of the magnitudes of the taps.
    assert prescriptions._taps(SLOPING, 44100).abs().sum().item() == pytest.approx(
        28.846583644263408
    )


def test_without_a_loss_the_sound_is_unchanged(noise):
    assert torch.equal(nal_r(noise, Audiogram((1000,), (0,))), noise)


@pytest.mark.parametrize("sample_rate", [16000, SAMPLE_RATE, 44100])
def test_the_output_is_aligned_with_the_input(noise, sample_rate):
    amplified = nal_r(noise, SLOPING, sample_rate)
    spectrum = torch.fft.rfft(amplified, 16000) * torch.fft.rfft(noise, 16000).conj()
    assert torch.fft.irfft(spectrum).argmax(-1).tolist() == [0, 0]
    assert amplified.shape == noise.shape


@pytest.mark.parametrize("frequency_hz", [250.0, 1000.0, 4000.0])
def test_a_tone_grows_by_the_gain_of_the_curve(frequency_hz):
    time = torch.arange(24414, dtype=torch.float64) / SAMPLE_RATE
    tone = torch.sin(2 * torch.pi * frequency_hz * time)[None]
    middle = slice(5000, 5000 + 15625)  # whole periods, far from both ends
    grown = nal_r(tone, SLOPING)[:, middle].square().mean() / tone[:, middle].square().mean()
    curve = nal_r_gains_db(SLOPING, [frequency_hz]).item()
    assert 10 * grown.log10().item() == pytest.approx(curve, abs=0.02)


def test_gains_follow_the_rule_of_byrne_and_dillon():
    # 0.05 × (45 + 35 + 45) + 0.31 × loss + (-17, -8, 1, -1, -2, -2) dB, smoothed by the filter.
    rule = torch.tensor([3.2, 12.2, 18.1, 19.2, 22.85, 24.4])
    gains = nal_r_gains_db(SLOPING, NAL_R_HZ)
    # The filter is too short to be as steep as the rule at 250 Hz.
    torch.testing.assert_close(gains[1:], rule[1:], atol=0.5, rtol=0)
    assert rule[0] < gains[0] < rule[1]


def test_gradient_reaches_the_sound(noise):
    noise.requires_grad_()
    nal_r(noise, SLOPING).sum().backward()
    assert noise.grad.abs().min() > 0


def test_a_rate_without_6_khz_and_a_sound_without_a_batch_are_refused(noise):
    with pytest.raises(ValueError, match="above 12000 Hz"):
        nal_r(noise, SLOPING, 8000)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        nal_r(noise[0], SLOPING)


def test_without_pyclarity_the_remedy_is_named(noise, monkeypatch):
    monkeypatch.setitem(sys.modules, "clarity.enhancer.nalr", None)
    with pytest.raises(ImportError, match="pip install --no-deps pyclarity"):
        nal_r(noise, SLOPING)
