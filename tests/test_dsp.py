"""Scales, gammatone filters and convolutions by definition, and by torchaudio where it is."""

import numpy as np
import pytest
import torch
from scipy.signal import sosfreqz
from torch.autograd import gradcheck

from icsim import dsp
from icsim.recursive_filters import section


def test_scales_and_their_inverses_agree():
    hz = torch.tensor([20.0, 440, 1000, 8000], dtype=torch.float64)
    torch.testing.assert_close(dsp.erb_number_to_hz(dsp.erb_number(hz)), hz)
    torch.testing.assert_close(dsp.mel_to_hz(dsp.mel(hz)), hz)


def test_a_step_of_one_erb_number_is_as_wide_as_the_filter():
    hz = torch.tensor([100.0, 1000, 6000], dtype=torch.float64, requires_grad=True)
    (steps,) = torch.autograd.grad(dsp.erb_number(hz, 21.332).sum(), hz)
    torch.testing.assert_close(1 / steps, dsp.erb_hz(hz.detach()), rtol=1e-4, atol=0)


def test_erb_space_takes_equal_steps():
    number = dsp.erb_number(torch.from_numpy(dsp.erb_space(80, 8000, 12)))
    torch.testing.assert_close(number.diff(), number.diff().mean().expand(11), rtol=1e-4, atol=0)


@pytest.mark.parametrize("order", [2, 4])
def test_a_gammatone_filter_has_the_rectangular_bandwidth_wanted(order):
    away = torch.linspace(-2e4, 2e4, 400_001, dtype=torch.float64)
    b = dsp.gammatone_bandwidth(100.0, order)
    power = (1 + (away / b).square()) ** -order
    assert torch.trapezoid(power, away).item() == pytest.approx(100, rel=1e-4)
    if order == 4:
        response = dsp.gammatone_response(away, b)
        torch.testing.assert_close(response.abs().square(), power)


@pytest.mark.parametrize("zero", [False, True])
def test_sections_are_a_gammatone_filter_about_their_centre(zero):
    centre, b, rate = 2000.0, dsp.gammatone_bandwidth(dsp.erb_hz(2000.0)), 32000
    stage = dsp.gammatone_section(np.array([centre]), np.array([b]), rate, zero)
    hz = centre + np.linspace(-b, b, 21)
    response = sosfreqz(np.concatenate([stage] * 4), hz, fs=rate)[1]
    assert abs(response[10]) == pytest.approx(1)
    wanted = dsp.gammatone_response(torch.from_numpy(hz - centre), b).abs()
    np.testing.assert_allclose(abs(response), wanted, atol=0.12)
    taps = dsp.impulse_response([stage] * 4, rate)[0]
    by_taps = np.exp(-2j * np.pi / rate * np.outer(hz, np.arange(len(taps)))) @ taps
    np.testing.assert_allclose(by_taps, response, atol=1e-7)


def test_convolution_is_the_plain_one_and_sees_no_future():
    draw = torch.Generator().manual_seed(0)
    sound, taps = (torch.randn(40, generator=draw, dtype=torch.float64) for _ in range(2))
    expected = np.convolve(sound, taps)
    np.testing.assert_allclose(dsp.fft_convolve(sound, taps), expected[:40], atol=1e-12)
    np.testing.assert_allclose(dsp.fft_convolve(sound, taps, 19), expected[19:59], atol=1e-12)
    changed = sound.clone()
    changed[25:] = 0
    after = dsp.fft_convolve(changed, taps)[:25]
    np.testing.assert_allclose(after, expected[:25], atol=1e-12)


def test_gradients_of_convolution_are_right():
    sound = torch.randn(2, 1, 9, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(dsp.fft_convolve, (sound, taps))


def test_a_filter_has_the_gains_it_was_designed_for():
    places, gains = np.linspace(0, 1, 9), np.array([1.0, 1, 1, 2, 4, 2, 1, 1, 1])
    taps = dsp.fir_from_gains(places, gains, order=128, grid=513)
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-9)
    response = abs(np.exp(-1j * np.pi * np.outer(places, np.arange(129))) @ taps)
    np.testing.assert_allclose(response, gains, rtol=0.05)


def test_mels_are_those_of_torchaudio():
    functional = pytest.importorskip("torchaudio.functional", exc_type=ImportError)
    banks = functional.melscale_fbanks(40_001, 100.0, 8000.0, 6, 80_000, mel_scale="htk")
    low, high = dsp.mel(torch.tensor([100.0, 8000.0])).tolist()
    peaks_hz = dsp.mel_to_hz(torch.linspace(low, high, 8))[1:-1]
    torch.testing.assert_close(banks.argmax(0).float(), peaks_hz, atol=1, rtol=0)


def test_a_section_filters_as_lfilter_of_torchaudio():
    functional = pytest.importorskip("torchaudio.functional", exc_type=ImportError)
    sound = 0.1 * torch.randn(2, 500, dtype=torch.float64)
    b, a = np.array([0.2, 0.1, 0.05]), np.array([1, -0.9, 0.4])
    wanted = functional.lfilter(sound, torch.from_numpy(a), torch.from_numpy(b), clamp=False)
    torch.testing.assert_close(section(sound, b, a), wanted)
