"""The layers do what their names say, and what the published ones did."""

from pathlib import Path

import numpy as np
import pytest
import torch

from icsim.layers import MINIMUM_EDGE_HZ, CausalConv, SincFilters, symlog
from icsim.sound import SAMPLE_RATE

REFERENCE = Path(__file__).parent / "reference" / "icnet_layers.npz"


def edges_hz(filters: SincFilters) -> tuple[torch.Tensor, torch.Tensor]:
    lower = filters.lower.detach().abs() * SAMPLE_RATE + MINIMUM_EDGE_HZ
    return lower, lower + filters.band.detach().abs() * SAMPLE_RATE + MINIMUM_EDGE_HZ


def spectra(filters: SincFilters, points: int = 8192) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies [Hz] and magnitudes `(filters, frequencies)`."""
    gains = torch.fft.rfft(filters.kernels().detach(), points).abs()
    return torch.linspace(0, SAMPLE_RATE / 2, points // 2 + 1), gains


def test_the_symmetric_logarithm_is_odd_linear_near_zero_and_logarithmic_far_from_it():
    x = torch.linspace(-300, 300, 101, dtype=torch.float64)
    assert torch.equal(symlog(-x), -symlog(x))
    assert symlog(torch.tensor(1e-6)).item() == pytest.approx(1e-6, rel=1e-5)
    assert symlog(torch.tensor(np.e**3 - 1)).item() == pytest.approx(3)
    assert (symlog(x).diff() > 0).all()


def test_the_largest_tap_is_one_before_the_window_and_in_the_middle():
    filters = SincFilters(12, 61)
    bare = filters.kernels() / filters.window
    assert torch.allclose(bare.amax(1), torch.ones(12))
    assert (bare.argmax(1) == 30).all()


def test_kernels_are_symmetric_before_the_window():
    filters = SincFilters(12, 61)
    bare = (filters.kernels() / filters.window).detach()
    torch.testing.assert_close(bare, bare.flip(1), atol=1e-5, rtol=0)


def test_filters_start_with_rising_edges_up_to_the_nyquist_frequency():
    lower, upper = edges_hz(SincFilters(48, 61))
    assert lower[0].item() == pytest.approx(80 + MINIMUM_EDGE_HZ, rel=1e-4)
    assert (lower.diff() > 0).all()
    assert upper[-1].item() == pytest.approx(SAMPLE_RATE / 2, rel=1e-4)


def test_filters_pass_their_band_and_stop_the_rest():
    filters = SincFilters(10, 241)
    hz, gains = spectra(filters)
    for lower, upper, gain in zip(*edges_hz(filters), gains, strict=True):
        assert lower - 100 < hz[gain.argmax()] < upper + 100
        # A Hamming window of 241 taps needs 200 Hz from a band's edge to the stop band.
        outside = (hz < lower - 250) | (hz > upper + 250)
        assert gain[outside].max() < 0.01 * gain.max()


def test_a_constant_pressure_is_stopped_by_filters_that_begin_high_enough():
    filters = SincFilters(16, 61)
    high = edges_hz(filters)[0] > 1000
    settled = filters(torch.ones(1, 200))[0, :, 60:]
    largest = spectra(filters)[1].amax(1)
    assert high.sum() > 5
    assert (settled.abs().amax(1) < 0.01 * largest)[high].all()


def test_edges_keep_their_floors_whatever_the_parameters():
    filters = SincFilters(2, 101)
    with torch.no_grad():
        filters.lower.copy_(torch.tensor([0.0, -0.1]))
        filters.band.copy_(torch.tensor([0.0, -0.05]))
    assert filters.kernels().isfinite().all()
    hz, gains = spectra(filters)
    peak_hz = hz[gains.argmax(1)]
    assert peak_hz[0] < 300
    assert 0.1 * SAMPLE_RATE < peak_hz[1] < 0.15 * SAMPLE_RATE + 100


def test_filters_see_no_future_and_keep_the_length():
    filters = SincFilters(3, 17)
    sound = torch.zeros(1, 64)
    sound[0, 20] = 1.0
    filtered = filters(sound)
    assert filtered.shape == (1, 3, 64)
    assert not filtered[..., :20].any()
    # Cross-correlation, as convolutions are in deep learning: the last tap meets the newest sample.
    torch.testing.assert_close(filtered[0, :, 20:37], filters.kernels().flip(1))


def test_filters_stay_in_float32_under_autocast():
    filters, sound = SincFilters(3, 17), torch.randn(1, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = filters(sound)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, filters(sound))


def test_gradients_reach_both_edges():
    filters = SincFilters(3, 17)
    filters(torch.randn(1, 64)).square().sum().backward()
    assert (filters.lower.grad != 0).all()
    assert (filters.band.grad != 0).all()


def test_an_even_number_of_taps_is_refused():
    with pytest.raises(ValueError, match="odd number of taps, got 16"):
        SincFilters(3, 16)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_frame_ends_with_its_own_last_sample(stride):
    layer = CausalConv(2, 3, 6, stride).double()
    x = torch.randn(1, 2, 24, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (1, 3, 24 // stride)
    for frame in range(y.shape[-1]):
        (reach,) = torch.autograd.grad(y[..., frame].sum(), x, retain_graph=True)
        seen = reach.abs().sum((0, 1)).nonzero().flatten()
        assert seen.max() == stride * (frame + 1) - 1
        assert seen.min() == max(stride * (frame + 1) - 6, 0)


def test_a_causal_convolution_has_a_slope_a_channel_or_none():
    with_slope, without = CausalConv(2, 3, 4), CausalConv(2, 3, 4, activate=False)
    assert with_slope.activation.weight.shape == (3,)
    x = torch.randn(1, 2, 40)
    torch.testing.assert_close(without(2 * x), 2 * without(x))
    without.load_state_dict(with_slope.state_dict(), strict=False)
    linear = without(x)
    torch.testing.assert_close(with_slope(x), torch.where(linear > 0, linear, 0.25 * linear))


def test_the_filters_are_the_published_ones():
    with np.load(REFERENCE) as file:
        published = {name: torch.from_numpy(file[name]) for name in file.files}
    filters = SincFilters(8, 17)
    with torch.no_grad():
        filters.lower.copy_(published["w/sinc/sinc_conv/filt_b1:0"][:, 0])
        filters.band.copy_(published["w/sinc/sinc_conv/filt_band:0"][:, 0])
        ours = symlog(filters(published["sound"])).transpose(1, 2)[:, ::4]
    largest = published["sinc"].abs().max()
    assert ((ours - published["sinc"]).abs().max() / largest) < 1e-4
