"""The encoder and decoder that every network of this project shares, and ICNet, made of both."""

import dataclasses
import itertools

import torch
from torch import Tensor, nn

from .counts import CLASSES, Prediction
from .layers import CausalConv, SincFilters, symlog
from .sound import BIN_SAMPLES
from .theta import HOURS

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


class Decoder(nn.Module):
    """Pointwise convolution from features to logits of counts, channel by channel.

    Args:
        features: Z.
        slots: Channels that it has rows for.
    """

    def __init__(self, features: int, slots: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots * CLASSES, features))
        self.bias = nn.Parameter(torch.zeros(slots * CLASSES))
        nn.init.xavier_uniform_(self.weight)
        self.slots = slots

    @torch.no_grad()
    def start_at(self, frequency: Tensor) -> None:
        """Begin from each channel's own histogram of counts, `(slots, K)`, not from chance."""
        if frequency.shape != (self.slots, CLASSES):
            raise ValueError(f"frequency must be ({self.slots}, {CLASSES}): {frequency.shape}")
        self.bias.copy_(frequency.clamp(min=1e-4).log().flatten())

    def forward(self, features: Tensor, matching: Tensor | None = None) -> Prediction:
        """Predict the channels of each animal.

        Args:
            features: `(B, A, Z, N)`.
            matching: Slot of each channel of each animal, `(A or 1, C)`; negative numbers give any
                channel. All slots in their order if None.
        """
        if matching is None:
            return Prediction(features, self.weight[None], self.bias[None])
        slots = matching.clamp(min=0)
        weight = self.weight.unflatten(0, (self.slots, CLASSES))[slots]
        bias = self.bias.unflatten(0, (self.slots, CLASSES))[slots]
        return Prediction(features, weight.flatten(1, 2), bias.flatten(1, 2))


@dataclasses.dataclass(frozen=True)
class ICNetConfig:
    """What ICNet is made of. Source of its own encoder's sizes (128 kernels of 64): ICNet, 2023."""

    animals: int = 1
    """Branches: animals with a decoder of their own, A."""
    channels: int = 512
    """Response channels of each, C."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""

    def __post_init__(self):
        if min(self.animals, self.channels) < 1:
            raise ValueError(f"animals and channels must be positive: {self}")


class ICNet(nn.Module):
    """Sound and time to the counts of the animals it was trained on: one encoder, many decoders."""

    def __init__(self, config: ICNetConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        latent = config.encoder.bottleneck
        # A pointwise convolution of time, which multiplies: at the start it changes nothing.
        self.drift = nn.Parameter(torch.zeros(config.animals, latent))
        self.gain = nn.Parameter(torch.ones(config.animals, latent))
        self.decoder = Decoder(latent, config.animals * config.channels)
        rows = torch.arange(config.animals * config.channels).view(config.animals, -1)
        self.register_buffer("rows", rows, persistent=False)

    def forward(
        self, sound: Tensor, hours: Tensor, animals: Tensor | slice = slice(None)
    ) -> Prediction:
        """What branches predict for frames with context.

        Args:
            sound: Pressure [Pa], `(B, T)`, the first 2048 samples context.
            hours: When each animal heard it [h], `(B, A)`.
            animals: Which of the animals the axis A holds, if not all.

        Returns:
            Of `T // 32 − 64` bins, channels in the order recorded.
        """
        return self.predict(self.latent(sound), hours, animals, CONTEXT_BINS)

    def latent(self, sound: Tensor) -> Tensor:
        """What all branches share: `(B, T)` to `(B, latent, N)`."""
        return self.encoder(sound)

    def predict(
        self,
        latent: Tensor,
        hours: Tensor,
        animals: Tensor | slice = slice(None),
        crop: int = 0,
    ) -> Prediction:
        """What branches predict, from latents; the first `crop` bins are left out."""
        time = (hours / HOURS).unsqueeze(-1)
        factor = self.gain[animals] + self.drift[animals] * time
        features = latent[..., crop:].unsqueeze(1) * factor.unsqueeze(-1)
        return self.decoder(features, self.rows[animals])
