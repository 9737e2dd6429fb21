"""The strided SincNet: sinc filters, symmetric logarithm, five convolutions of stride 2."""

import dataclasses
import itertools
from typing import Literal

from torch import Tensor, nn

from icsim.clock import Clock
from icsim.layers import CausalConv, SincFilters, symlog


@dataclasses.dataclass(frozen=True)
class SincNetConfig:
    """Sizes of the encoder; the defaults are the published ones (arXiv 2506.03088)."""

    kind: Literal["sincnet"] = "sincnet"
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
    context_bins: int = 64
    """Bins that precede a training frame, and are not compared with what was recorded."""

    def __post_init__(self):
        if min(self.filters, self.kernels, self.size, self.sinc_size, self.bottleneck) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if self.size % 2 or self.sinc_size % 2:
            raise ValueError(f"sizes of filters must be even: {self}")
        if self.context_bins < 0:
            raise ValueError(f"context_bins must not be negative: {self}")


class SincNet(nn.Module):
    """Sound to latent: sinc filters, symmetric logarithm, strided convolutions, bottleneck.

    The convolutions' strides are the prime factors of the samples of a bin, smallest first: five
    of 2 at the published 32.
    """

    def __init__(self, config: SincNetConfig, clock: Clock | None = None):
        super().__init__()
        self.config, self.clock = config, clock or Clock()
        self.sinc = SincFilters(config.filters, config.sinc_size + 1, self.clock.sample_rate_hz)
        self.strides = prime_factors(self.clock.bin_samples)
        # At least one tap for each sample that a stride passes over.
        self.sizes = [-(-config.size // stride) * stride for stride in self.strides]
        widths = itertools.pairwise([config.filters] + [config.kernels] * len(self.strides))
        self.strided = nn.Sequential(
            *(
                CausalConv(*width, size, stride)
                for width, size, stride in zip(widths, self.sizes, self.strides, strict=True)
            )
        )
        last = config.kernels if self.strides else config.filters
        self.bottleneck = CausalConv(last, config.bottleneck, config.size)

    @property
    def features(self) -> int:
        """Channels of the latent, Z."""
        return self.config.bottleneck

    @property
    def context_bins(self) -> int:
        """Bins of context that training frames have."""
        return self.config.context_bins

    @property
    def receptive_samples(self) -> int:
        """Samples before a bin's end that the bin can depend on."""
        passed, samples = 1, self.config.sinc_size + 1
        for size, stride in zip(self.sizes, self.strides, strict=True):
            samples += (size - 1) * passed
            passed *= stride
        return samples + (self.config.size - 1) * self.clock.bin_samples

    def forward(self, sound: Tensor) -> Tensor:
        """Encode a sound.

        Args:
            sound: Pressure [Pa], `(B, T)`; a remainder of `T` modulo a bin's samples is left out.

        Returns:
            Latent, `(B, bottleneck, N)`; a bin depends on no sample after its own last one.

        Raises:
            ValueError: If the sound is not `(B, T)` or shorter than a bin.
        """
        bin_samples = self.clock.bin_samples
        if sound.ndim != 2 or sound.shape[-1] < bin_samples:
            raise ValueError(
                f"sound must be (B, T) with T ≥ {bin_samples}, got {tuple(sound.shape)}"
            )
        whole = sound.shape[-1] // bin_samples * bin_samples
        filtered = symlog(self.sinc(self.config.input_scale * sound[:, :whole]))
        return self.bottleneck(self.strided(filtered))


def prime_factors(number: int) -> list[int]:
    """Smallest first.

    >>> prime_factors(240)
    [2, 2, 2, 2, 3, 5]
    """
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
