"""The encoder: its shapes, its causality, and the published one's numbers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from icsim.clock import Clock
from icsim.layers import CausalConv
from icsim.models.encoders.sincnet import SincNet, SincNetConfig

REFERENCE = Path(__file__).parents[1] / "reference" / "icnet_layers.npz"
TINY = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=5, input_scale=1.0, sinc_size=12)


@pytest.fixture
def encoder() -> SincNet:
    torch.manual_seed(0)
    return SincNet(TINY).double()


def test_a_training_frame_becomes_320_latent_frames():
    frame = torch.randn(2, 2048 + 8192)
    latent = SincNet(TINY)(frame)
    assert latent.shape == (2, 5, 320)
    assert latent[..., SincNet(TINY).context_bins :].shape[-1] == 256


def test_the_published_sizes_are_the_defaults():
    weights = {name: tuple(p.shape) for name, p in SincNet(SincNetConfig()).named_parameters()}
    assert weights["sinc.lower"] == (48,)
    assert SincNet(SincNetConfig()).sinc.kernels().shape == (48, 61)
    assert weights["strided.0.conv.weight"] == (246, 48, 60)
    assert weights["strided.4.conv.weight"] == (246, 246, 60)
    assert weights["bottleneck.conv.weight"] == (64, 246, 60)
    assert "strided.5.conv.weight" not in weights


def test_a_remainder_shorter_than_a_bin_is_left_out(encoder):
    sound = torch.randn(1, 331, dtype=torch.float64)
    assert torch.equal(encoder(sound), encoder(sound[:, :320]))


def test_the_future_changes_no_bin(encoder):
    sound = torch.randn(1, 1280, dtype=torch.float64)
    latent = encoder(sound)
    for last in (0, 7, 20, 39):
        other = sound.clone()
        other[:, 32 * (last + 1) :] = 100 * torch.randn(1, 1280 - 32 * (last + 1))
        torch.testing.assert_close(
            encoder(other)[..., : last + 1], latent[..., : last + 1], rtol=0, atol=1e-12
        )


def test_a_bin_hears_up_to_its_own_last_sample(encoder):
    sound = torch.randn(1, 1280, dtype=torch.float64, requires_grad=True)
    latent = encoder(sound)
    for bin in (0, 13, 39):
        (reach,) = torch.autograd.grad(latent[..., bin].sum(), sound, retain_graph=True)
        assert reach.nonzero()[:, 1].max() == 32 * (bin + 1) - 1


def test_the_receptive_field_is_as_long_as_it_says(encoder):
    bins = encoder.receptive_samples // 32 + 2
    sound = torch.randn(1, 32 * bins, dtype=torch.float64, requires_grad=True)
    (reach,) = torch.autograd.grad(encoder(sound)[..., -1].sum(), sound)
    assert 32 * bins - reach.nonzero()[:, 1].min() == encoder.receptive_samples


def test_equal_sounds_at_another_level_give_another_latent(encoder):
    sound = torch.randn(1, 640, dtype=torch.float64)
    assert (encoder(10 * sound) - encoder(sound)).abs().max() > 0.1


def test_the_input_scale_multiplies_the_pressure(encoder):
    scaled = SincNet(dataclasses.replace(TINY, input_scale=0.04)).double()
    scaled.load_state_dict(encoder.state_dict())
    sound = torch.randn(1, 640, dtype=torch.float64)
    torch.testing.assert_close(scaled(25 * sound), encoder(sound))


@pytest.mark.parametrize("shape", [(640,), (1, 31), (1, 1, 640)])
def test_sounds_of_other_shapes_are_refused(encoder, shape):
    with pytest.raises(ValueError, match=r"sound must be \(B, T\) with T ≥ 32, got"):
        encoder(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [{"filters": 0}, {"kernels": -1}, {"bottleneck": 0}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must be positive"):
        SincNetConfig(**sizes)


@pytest.mark.parametrize("sizes", [{"size": 7}, {"sinc_size": 15}])
def test_odd_sizes_of_filters_are_refused(sizes):
    with pytest.raises(ValueError, match="must be even"):
        SincNetConfig(**sizes)


# --- numbers of the published layers ------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    with np.load(REFERENCE) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@torch.no_grad()
def copy(layer: CausalConv, published: dict, conv: str, slopes: str | None = None) -> CausalConv:
    """Give a layer published weights: kernels `(taps, in, out)` become `(out, in, taps)`."""
    layer.conv.weight.copy_(published[f"w/{conv}/kernel:0"].permute(2, 1, 0))
    layer.conv.bias.copy_(published[f"w/{conv}/bias:0"])
    if slopes:
        layer.activation.weight.copy_(published[f"w/{slopes}/alpha:0"][0])
    return layer


@torch.no_grad()
def test_the_encoder_is_the_published_one(published):
    encoder = SincNet(
        SincNetConfig(filters=8, kernels=8, size=16, bottleneck=6, input_scale=1.0, sinc_size=16)
    )
    encoder.sinc.lower.copy_(published["w/sinc/sinc_conv/filt_b1:0"][:, 0])
    encoder.sinc.band.copy_(published["w/sinc/sinc_conv/filt_band:0"][:, 0])
    for i, layer in enumerate(encoder.strided):
        copy(layer, published, f"e{i}/e{i}_conv", f"e{i}/e{i}_out/e{i}_out")
    copy(encoder.bottleneck, published, "b/b_conv", "b/b_out/b_out")
    # The published frame n ends with sample 32 n, ours with 32 n + 31. These weights have no
    # biases, so that zeros before the sound are the same as the layers' own padding.
    ours = encoder(functional.pad(published["sound"], (31, 0))).transpose(1, 2)
    for sound, latent in zip(ours, published["latent"], strict=True):
        assert (sound - latent).abs().max() / latent.abs().max() < 1e-4


@torch.no_grad()
def test_the_published_decoders_outputs_are_channels_times_classes(published):
    decoder = copy(CausalConv(6, 20, 1, activate=False), published, "dec")
    logits = decoder(published["latent"].transpose(1, 2)).view(2, 4, 5, -1)
    probability = logits.softmax(-2).permute(0, 3, 1, 2)
    torch.testing.assert_close(probability, published["probability"], rtol=1e-4, atol=1e-7)


# --- other clocks -------------------------------------------------------------------------------


def test_bins_of_any_width_are_causal_and_have_the_receptive_field_that_is_said():
    torch.manual_seed(0)
    encoder = SincNet(TINY, Clock(48000.0, 240)).double()
    assert [layer.conv.stride[0] for layer in encoder.strided] == [2, 2, 2, 2, 3, 5]
    bins = encoder.receptive_samples // 240 + 2
    sound = torch.randn(1, 240 * bins, dtype=torch.float64, requires_grad=True)
    latent = encoder(sound)
    assert latent.shape == (1, 5, bins)
    (reach,) = torch.autograd.grad(latent[..., -2].sum(), sound)
    places = reach.nonzero()[:, 1]
    assert places.max() == 240 * (bins - 1) - 1
    assert 240 * (bins - 1) - places.min() == encoder.receptive_samples


def test_sinc_filters_begin_below_the_nyquist_frequency_of_their_clock():
    encoder = SincNet(TINY, Clock(48000.0, 240))
    upper = (encoder.sinc.lower.abs() + encoder.sinc.band.abs()).max().item() * 48000
    assert 20000 < upper < 24000
