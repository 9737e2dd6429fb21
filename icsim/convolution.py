"""Causal convolutions with long filters, on processors in the frequency domain.

The published encoder's filters have 60 taps for each of 246 × 246 channels. By overlap and save, a
block of outputs takes one product of matrices a frequency, and several times fewer operations than
tap by tap. Graphics processors multiply so fast that nothing is gained there.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad
from torch.utils.weak import WeakTensorKeyDictionary

LARGE = 50_000
"""Weights from which on blocks pay (measured, as the next two)."""

FRAMES_LEARNED = 1_000
"""Output frames, of all sounds together, from which on they do while filters are learned."""

FRAMES_FIXED = 64
"""The same for filters whose spectra are kept."""

BLOCK_NUMBERS = 2**23
"""Numbers that are transformed at a time: few enough for memory that is at hand (measured)."""


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolve without seeing the future, whichever way is faster.

    Args:
        x: `(B, inputs, T)`.
        weight: `(outputs, inputs, size)`.
        bias: `(outputs,)`.
        stride: Of the output frames.

    Returns:
        `(B, outputs, T // stride)`; frame `j` ends with input sample `stride · (j + 1) − 1`.
    """
    size, frames = weight.shape[-1], len(x) * (x.shape[-1] // stride)
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    large = weight.numel() >= LARGE and frames >= (
        FRAMES_FIXED if _fixed(weight) else FRAMES_LEARNED
    )
    if x.device.type == "cpu" and single and large and size % stride == 0:
        return overlap_save(x, weight, bias, stride)
    return conv1d(pad(x, (size - stride, 0)), weight, bias, stride)


def overlap_save(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """The same in the frequency domain; `size` must be a multiple of `stride`.

    A strided convolution is the sum of ordinary ones, one for each phase of input and filter.
    """
    taps, frames = weight.shape[-1] // stride, x.shape[-1] // stride
    length = 1 << (4 * taps - 1).bit_length()
    phases = x[..., : frames * stride].unflatten(-1, (frames, stride)).transpose(2, 3).flatten(1, 2)
    filters = _filter_spectra(weight, stride, length)
    return _Blocks.apply(phases, weight, filters, taps) + bias[:, None]


class _Blocks(torch.autograd.Function):
    """Convolve phases `(B, inputs · stride, frames)` with filters whose spectra are known.

    For gradients, spectra of sounds are made again rather than kept, and they alone are conjugated,
    as they are copied: torch would keep all of them, and conjugate those of the filters.
    """

    @staticmethod
    def forward(ctx, phases, weight, filters, taps):
        ctx.save_for_backward(phases, filters)
        ctx.shape, ctx.taps = weight.shape, taps
        # Gradients of filters would have to be added up over pieces.
        ctx.at_once = math.inf if ctx.needs_input_grad[1] else BLOCK_NUMBERS
        length, pieces = 2 * len(filters) - 2, []
        for windows in _windows(phases, taps, length, ctx.at_once):
            product = (filters @ _spectra(windows)).unflatten(2, (len(windows), -1))
            pieces.append(torch.fft.irfft(product.permute(2, 1, 3, 0), length)[..., taps - 1 :])
        return torch.cat(pieces, 2).flatten(2)[..., : phases.shape[-1]]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        phases, filters = ctx.saved_tensors
        taps, length = ctx.taps, 2 * len(filters) - 2
        valid, frames = length - taps + 1, phases.shape[-1]
        inputs = _windows(phases, taps, length, ctx.at_once)
        blocks = pad(upstream, (0, -frames % valid)).unflatten(-1, (-1, valid))
        by_weight, by_phases = None, []
        for windows, slopes in zip(inputs, blocks.split(inputs[0].shape[2], 2), strict=True):
            slopes = _spectra(pad(slopes, (taps - 1, 0)), conjugated=True)
            if ctx.needs_input_grad[1]:
                by_weight = _taps(slopes @ _spectra(windows).mT, taps)
            product = (filters.mT @ slopes).unflatten(2, (len(windows), -1))
            by_phases.append(torch.fft.irfft(product.conj().permute(2, 1, 3, 0), length))
        if by_weight is not None:
            by_weight = by_weight.unflatten(1, (*ctx.shape[:2], -1)).permute(1, 2, 0, 3)
            by_weight = by_weight.flip(2).flatten(2)
        sounds = _overlapped(torch.cat(by_phases, 2), valid)
        return sounds[..., taps - 1 : taps - 1 + frames], by_weight, None, None


def _windows(phases: Tensor, taps: int, length: int, at_once: float) -> tuple[Tensor, ...]:
    """Overlapping blocks, `(B, channels, blocks, length)`, so many numbers at a time."""
    valid = length - taps + 1
    windows = pad(phases, (taps - 1, -phases.shape[-1] % valid)).unfold(-1, length, valid)
    pieces = max(1, windows.numel() / at_once)
    return windows.split(math.ceil(windows.shape[2] / pieces), 2)


def _overlapped(windows: Tensor, valid: int) -> Tensor:
    """Sum of blocks where they overlap, the reverse of `_windows`: `(B, channels, samples)`."""
    over = windows.shape[-1] - valid
    sounds = windows[..., :valid].clone()
    sounds[:, :, 1:, :over] += windows[:, :, :-1, valid:]
    return torch.cat([sounds.flatten(2), windows[:, :, -1, valid:]], 2)


def _spectra(windows: Tensor, conjugated: bool = False) -> Tensor:
    """`(B, channels, blocks, length)` to `(length / 2 + 1, channels, B · blocks)`."""
    spectra = torch.fft.rfft(windows)
    spectra = spectra.conj() if conjugated else spectra
    return spectra.permute(3, 1, 0, 2).flatten(2)


_spectra_of = WeakTensorKeyDictionary()
"""Spectra of filters that nothing is learned about, with the version of the filters."""


def _filter_spectra(weight: Tensor, stride: int, length: int) -> Tensor:
    """Spectra of each frequency, `(length / 2 + 1, outputs, inputs · stride)`.

    Those of a network that is not being trained are made once: they take as long as the convolution
    of a second of sound, and four times the memory of its weights.
    """
    if not _fixed(weight):
        return _transformed(weight.detach(), stride, length)
    version = (weight._version, weight.data_ptr(), stride)
    if _spectra_of.get(weight, (None,))[0] != version:
        _spectra_of[weight] = version, _transformed(weight.detach(), stride, length)
    return _spectra_of[weight][1]


def _fixed(weight: Tensor) -> bool:
    learns = torch.is_grad_enabled() and weight.requires_grad
    return isinstance(weight, nn.Parameter) and not learns and not weight.is_inference()


def _transformed(weight: Tensor, stride: int, length: int) -> Tensor:
    outputs, inputs, taps = *weight.shape[:2], weight.shape[-1] // stride
    # As a product with the transform's matrix: most of a padded filter is zero.
    by_tap = weight.unflatten(-1, (taps, stride)).flip(2).permute(2, 0, 1, 3).flatten(1)
    real, imaginary = (part.to(weight.dtype) @ by_tap for part in _transform(taps, length))
    return torch.complex(real, imaginary).unflatten(1, (outputs, inputs * stride))


def _taps(conjugated: Tensor, taps: int) -> Tensor:
    """The first samples of what has these spectra, `(length / 2 + 1, …)` to `(taps, …)`."""
    length = 2 * len(conjugated) - 2
    weight = torch.full((len(conjugated), 1), 2 / length, dtype=torch.float64)
    weight[[0, -1]] /= 2  # all others stand for negative frequencies, too
    real, imaginary = ((weight * part).T.to(conjugated.real) for part in _transform(taps, length))
    flat = conjugated.flatten(1)
    return real @ flat.real - imaginary @ flat.imag


@functools.cache
def _transform(taps: int, length: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the Fourier transform's matrix, `(length / 2 + 1, taps)`."""
    frequency = torch.arange(length // 2 + 1, dtype=torch.float64)
    phase = 2 * math.pi / length * torch.outer(frequency, torch.arange(taps).double())
    return phase.cos(), -phase.sin()
