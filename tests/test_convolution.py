"""Convolutions by blocks in the frequency domain are those tap by tap."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, pad

from icsim import convolution
from icsim.convolution import causal_convolution, overlap_save


def made(batch, inputs, outputs, size, samples, dtype=torch.float64):
    generator = torch.Generator().manual_seed(size + samples)
    shapes = (batch, inputs, samples), (outputs, inputs, size), (outputs,)
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def tap_by_tap(x, weight, bias, stride):
    return conv1d(pad(x, (weight.shape[-1] - stride, 0)), weight, bias, stride)


@pytest.mark.parametrize(
    ("batch", "inputs", "outputs", "size", "samples", "stride"),
    [
        (1, 1, 1, 2, 5, 1),
        (2, 3, 4, 6, 47, 2),
        (1, 2, 3, 60, 1001, 2),
        (3, 2, 2, 60, 200, 1),
        (1, 2, 2, 60, 30, 2),
        (1, 1, 2, 12, 333, 3),
    ],
)
def test_both_ways_give_the_same_outputs_and_gradients(
    batch, inputs, outputs, size, samples, stride
):
    given = made(batch, inputs, outputs, size, samples)
    expected, found = (way(*given, stride) for way in (tap_by_tap, overlap_save))
    assert found.shape == (batch, outputs, samples // stride)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).double()
    for one, other in zip(
        torch.autograd.grad(found, given, upstream),
        torch.autograd.grad(expected, given, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_large_filters_go_by_blocks_and_small_ones_do_not(monkeypatch):
    asked = []

    def noted(*given):
        asked.append(given[1].shape)
        return overlap_save(*given)

    monkeypatch.setattr(convolution, "overlap_save", noted)
    x, weight, bias = (t.detach() for t in made(2, 96, 96, 60, 1000, torch.float32))
    found = causal_convolution(x, weight, bias, 2)
    assert len(asked) == 1
    assert (found - tap_by_tap(x, weight, bias, 2)).abs().max() < 1e-4 * found.abs().max()
    for fewer, samples, size in ((16, 1000, 60), (96, 900, 60), (96, 1000, 59)):
        part = x[:, :fewer, :samples], weight[:fewer, :fewer, :size], bias[:fewer]
        torch.testing.assert_close(causal_convolution(*part, 2), tap_by_tap(*part, 2))
    causal_convolution(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), 2)
    assert len(asked) == 1
    learned = nn.Parameter(weight)
    causal_convolution(x[..., :200], learned, bias, 2)
    assert len(asked) == 1
    with torch.no_grad():  # where spectra are kept, short sounds are enough
        causal_convolution(x[..., :200], learned, bias, 2)
    assert len(asked) == 2


def test_spectra_of_filters_are_kept_until_the_filters_change_or_learn(monkeypatch):
    made_again = []
    transformed = convolution._transformed
    monkeypatch.setattr(
        convolution, "_transformed", lambda *given: made_again.append(1) or transformed(*given)
    )
    x, weight, bias = (t.detach() for t in made(1, 2, 3, 6, 50))
    weight = nn.Parameter(weight)

    def agreeing(weight):
        found = overlap_save(x, weight, bias, 2)
        torch.testing.assert_close(found, tap_by_tap(x, weight, bias, 2))
        return found

    with torch.no_grad():
        agreeing(weight), agreeing(weight)
        assert len(made_again) == 1
        weight.mul_(2)
        agreeing(weight)
        assert len(made_again) == 2
    agreeing(weight).sum().backward()
    assert len(made_again) == 3
    assert weight.grad.abs().min() > 0
    frozen = weight.requires_grad_(False)
    sound = x.clone().requires_grad_()
    overlap_save(sound, frozen, bias, 2).sum().backward()
    assert len(made_again) == 3
    assert sound.grad.abs().max() > 0
    kept = len(convolution._spectra_of)
    del weight, frozen
    assert len(convolution._spectra_of) == kept - 1


def test_long_sounds_in_pieces_are_the_whole(monkeypatch):
    monkeypatch.setattr(convolution, "BLOCK_NUMBERS", 2000)
    x, weight, bias = (t.detach() for t in made(2, 3, 4, 6, 250))
    sound, kept = x.requires_grad_(), nn.Parameter(weight, requires_grad=False)
    found, expected = (way(sound, kept, bias, 2) for way in (overlap_save, tap_by_tap))
    torch.testing.assert_close(found, expected)
    slopes = (torch.autograd.grad(each.square().sum(), sound)[0] for each in (found, expected))
    torch.testing.assert_close(*slopes)
