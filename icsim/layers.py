"""Layers of the response networks: sinc filters, symmetric logarithm, causal convolutions."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .convolution import causal_convolution
from .dsp import mel, mel_to_hz
from .sound import SAMPLE_RATE

MINIMUM_EDGE_HZ = 50.0
"""Floor of a filter's lower edge and of its bandwidth [Hz]."""


BLOCK = 32
"""Samples that the sinc filters make at a time, as one product of matrices (chosen here)."""


def symlog(x: Tensor) -> Tensor:
    """Symmetric logarithm `sign(x) · ln(1 + |x|)`: odd, linear near zero.

    >>> symlog(torch.tensor([-1.0, 0.0, 1.0])).tolist()
    [-0.6931471824645996, 0.0, 0.6931471824645996]
    """
    return _SymmetricLog.apply(x)


class _SymmetricLog(torch.autograd.Function):
    """In few passes over memory, and with its true slope of one at silence, where sign has none."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs().log1p_().copysign_(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream / x.abs().add_(1)


class SincFilters(nn.Module):
    """Band-pass filters of which only the two edges are learned, in the time domain.

    Args:
        filters: How many; they start evenly spaced in mel between 80 Hz and the Nyquist frequency.
        taps: Length of each [samples], odd.
        sample_rate_hz: Of the sounds [Hz].

    Source: Ravanelli & Bengio 2018 (SincNet); window and floors as in the published ICNet layers.
    """

    window: Tensor
    time: Tensor

    def __init__(self, filters: int, taps: int, sample_rate_hz: float = SAMPLE_RATE):
        super().__init__()
        if taps % 2 == 0:
            raise ValueError(f"sinc filters need an odd number of taps, got {taps}")
        highest = sample_rate_hz / 2 - 2 * MINIMUM_EDGE_HZ
        lowest_mel, highest_mel = mel(torch.tensor([80.0, highest])).tolist()
        edges = mel_to_hz(torch.linspace(lowest_mel, highest_mel, filters + 1))
        # In cycles a sample, so that the parameters are of the size that optimisers expect.
        self.lower = nn.Parameter(edges[:-1] / sample_rate_hz)
        self.band = nn.Parameter(edges.diff() / sample_rate_hz)
        self.floor = MINIMUM_EDGE_HZ / sample_rate_hz
        self.register_buffer("window", torch.hamming_window(taps), persistent=False)
        time = torch.arange(taps, dtype=torch.float32) - taps // 2
        self.register_buffer("time", time, persistent=False)

    def kernels(self) -> Tensor:
        """Impulse responses, `(filters, taps)`; the largest tap of each is 1 before the window."""
        lower = (self.lower.abs() + self.floor).unsqueeze(1)
        upper = lower + self.band.abs().unsqueeze(1) + self.floor
        lowpass_upper = 2 * upper * torch.sinc(2 * upper * self.time)
        lowpass_lower = 2 * lower * torch.sinc(2 * lower * self.time)
        bandpass = lowpass_upper - lowpass_lower
        return bandpass / bandpass.amax(1, keepdim=True) * self.window

    def forward(self, sound: Tensor) -> Tensor:
        """Filter causally: `(B, T)` to `(B, filters, T)`, in float32 whatever the autocast."""
        with torch.autocast(sound.device.type, enabled=False):
            kernels = self.kernels()
            filters, taps = kernels.shape
            samples = sound.shape[-1]
            blocks = -(-samples // BLOCK)
            # One input channel makes convolutions slow. As a product of matrices: all windows of
            # the sound with all filters at all their places in a block.
            around = (taps - 1, blocks * BLOCK - samples)
            windows = functional.pad(sound.to(kernels.dtype), around)
            windows = windows.unfold(-1, BLOCK + taps - 1, BLOCK)
            placed = functional.pad(kernels, (0, BLOCK)).repeat(1, BLOCK)
            placed = placed[:, : BLOCK * (BLOCK + taps - 1)].reshape(filters * BLOCK, -1)
            filtered = (windows @ placed.T).unflatten(-1, (filters, BLOCK))
            return filtered.transpose(1, 2).flatten(2)[..., :samples]


class CausalConv(nn.Module):
    """Convolution that sees no future, then (unless told not to) a PReLU with a slope a channel.

    Output frame `j` ends with input sample `stride · (j + 1) − 1`: a frame may use every sample
    that it covers and none after it.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, activate: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, size, stride)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.bias)
        self.activation = nn.PReLU(outputs, init=0.25) if activate else nn.Identity()

    @property
    def bias(self) -> Tensor:
        """Of the convolution, `(outputs,)`."""
        return cast(Tensor, self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, L)` to `(B, outputs, L // stride)`."""
        if torch.is_autocast_enabled(x.device.type):  # before padding: half the memory to move
            x = x.to(torch.get_autocast_dtype(x.device.type))
        (stride,) = self.conv.stride
        return self.activation(causal_convolution(x, self.conv.weight, self.bias, stride))
