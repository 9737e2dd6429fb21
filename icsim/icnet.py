"""The encoder of sounds that every network of this project shares."""

import dataclasses
import itertools

from torch import Tensor, nn

from .layers import CausalConv, SincFilters, symlog
from .sound import BIN_SAMPLES

CLASSES = 5
"""Count classes: 0, 1, 2, 3 and at least 4 spikes a bin. Source: arXiv 2506.03088."""

CONTEXT_BINS = 64
"""Response bins cropped from the start of a training frame. Source: arXiv 2506.03088."""

STRIDES = 5
"""Convolutions of stride 2: together they take 32 samples to one bin."""


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder; the defaults are the published ones."""

    filters: int = 48
    """Sinc filters."""
    kernels: int = 246
    """Kernels of each strided convolution."""
    size: int = 60
    """Taps of each convolution."""
    bottleneck: int = 64
    """Channels of the latent that the encoder returns."""
    input_scale: float = 0.04
    """Factor on the pressure [1/Pa] before the symmetric logarithm."""
    sinc_size: int = 60
    """Taps of the sinc filters, less one; long ones tell low frequencies apart from the start."""

    def __post_init__(self):
        if min(self.filters, self.kernels, self.size, self.sinc_size, self.bottleneck) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if self.size % 2 or self.sinc_size % 2:
            raise ValueError(f"sizes of filters must be even: {self}")


class Encoder(nn.Module):
    """Sound to latent: sinc filters, symmetric log, five strided convolutions, bottleneck."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.sinc = SincFilters(config.filters, config.sinc_size + 1)
        widths = [config.filters] + [config.kernels] * STRIDES
        self.strided = nn.Sequential(
            *(CausalConv(i, o, config.size, stride=2) for i, o in itertools.pairwise(widths))
        )
        self.bottleneck = CausalConv(config.kernels, config.bottleneck, config.size)

    @property
    def receptive_samples(self) -> int:
        """Samples before a bin's end that the bin can depend on."""
        size = self.config.size
        strided = sum((size - 1) * 2**layer for layer in range(STRIDES))
        return self.config.sinc_size + 1 + strided + (size - 1) * BIN_SAMPLES

    def forward(self, sound: Tensor) -> Tensor:
        """Encode a sound.

        Args:
            sound: Pressure [Pa], `(B, T)`; a remainder of `T` modulo 32 is left out.

        Returns:
            Latent, `(B, bottleneck, T // 32)`; bin `n` depends on no sample after `32 (n + 1) − 1`.

        Raises:
            ValueError: If the sound is not `(B, T)` or shorter than a bin.
        """
        if sound.ndim != 2 or sound.shape[-1] < BIN_SAMPLES:
            raise ValueError(
                f"sound must be (B, T) with T ≥ {BIN_SAMPLES}, got {tuple(sound.shape)}"
            )
        whole = sound.shape[-1] // BIN_SAMPLES * BIN_SAMPLES
        filtered = symlog(self.sinc(self.config.input_scale * sound[:, :whole]))
        return self.bottleneck(self.strided(filtered))
