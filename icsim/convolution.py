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

MANY = 1_000
"""Output frames, of all sounds together, from which on they do while filters are learned."""

FEW = 64
"""The same for filters whose spectra are kept."""

AT_ONCE = 128
"""Blocks, of all sounds together, that are transformed at a time: few enough for memory that is at
hand (measured)."""


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
    large = weight.numel() >= LARGE and frames >= (FEW if _fixed(weight) else MANY)
    if x.device.type == "cpu" and single and large and size % stride == 0:
        return overlap_save(x, weight, bias, stride)
    return conv1d(pad(x, (size - stride, 0)), weight, bias, stride)


def overlap_save(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """The same in the frequency domain; `size` must be a multiple of `stride`.

    A strided convolution is the sum of ordinary ones, one for each phase of input and filter.
    """
    batch, taps, frames = len(x), weight.shape[-1] // stride, x.shape[-1] // stride
    length = 1 << (4 * taps - 1).bit_length()
    kept = length - taps + 1
    blocks = -(-frames // kept)
    phases = x[..., : frames * stride].unflatten(-1, (frames, stride)).transpose(2, 3).flatten(1, 2)
    padded = pad(phases, (taps - 1, blocks * kept - frames))
    # Gradients of filters would have to be added up over pieces.
    at_once = max(1, AT_ONCE // batch) if _fixed(weight) else blocks
    windows = padded.unfold(-1, length, kept).split(at_once, 2)
    filters = _filter_spectra(weight, stride, length)
    filtered = torch.cat([_filtered(some, filters)[..., taps - 1 :] for some in windows], 2)
    return filtered.flatten(2)[..., :frames] + bias[:, None]


def _filtered(windows: Tensor, filters: Tensor) -> Tensor:
    """Circular convolutions: `(B, inputs, blocks, length)` to `(B, outputs, blocks, length)`."""
    batch, _, blocks, length = windows.shape
    spectra = torch.fft.rfft(windows).permute(3, 1, 0, 2).flatten(2)
    found = (filters @ spectra).unflatten(2, (batch, blocks))
    return torch.fft.irfft(found.permute(2, 1, 3, 0), length)


_kept = WeakTensorKeyDictionary()
"""Spectra of filters that nothing is learned about, with the version of the filters."""


def _filter_spectra(weight: Tensor, stride: int, length: int) -> Tensor:
    """Spectra of each frequency, `(length / 2 + 1, outputs, inputs · stride)`.

    Those of a network that is not being trained are made once: they take as long as the convolution
    of a second of sound, and four times the memory of its weights.
    """
    if not _fixed(weight):
        return _transformed(weight, stride, length)
    version = (weight._version, weight.data_ptr(), stride)
    if _kept.get(weight, (None,))[0] != version:
        with torch.no_grad():
            _kept[weight] = version, _transformed(weight, stride, length)
    return _kept[weight][1]


def _fixed(weight: Tensor) -> bool:
    learns = torch.is_grad_enabled() and weight.requires_grad
    return isinstance(weight, nn.Parameter) and not learns and not weight.is_inference()


def _transformed(weight: Tensor, stride: int, length: int) -> Tensor:
    outputs, inputs, taps = *weight.shape[:2], weight.shape[-1] // stride
    # As a product with the transform's matrix: most of a padded filter is zero.
    by_tap = weight.unflatten(-1, (taps, stride)).flip(2).permute(2, 0, 1, 3).flatten(1)
    real, imaginary = (part.to(weight.dtype) @ by_tap for part in _transform(taps, length))
    return torch.complex(real, imaginary).unflatten(1, (outputs, inputs * stride))


@functools.cache
def _transform(taps: int, length: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the Fourier transform's matrix, `(length / 2 + 1, taps)`."""
    frequency = torch.arange(length // 2 + 1, dtype=torch.float64)
    phase = 2 * math.pi / length * torch.outer(frequency, torch.arange(taps).double())
    return phase.cos(), -phase.sin()
