"""Masks: a causal recurrent network that sets two gains in every band.

One gain takes noise away, the other makes up for a hearing loss. Both are real, both are bounded,
and a listener can turn each up or down while listening.
"""

import dataclasses

import torch
from torch import Tensor, nn

from .bands import Bands, ShortTime


@dataclasses.dataclass(frozen=True)
class MasksConfig:
    """What Masks is made of."""

    listener: int = 6
    """Numbers that describe a listener: P for θ, F for an audiogram."""
    bands: int = 33
    """Auditory bands."""
    width: int = 64
    """Channels in each band."""
    layers: int = 6
    """Recurrent layers, each over time and over bands."""
    window: int = 512
    """Analysis window [samples]."""
    hop: int = 96
    """Step [samples]; the delay is two hops, 7.9 ms."""
    deepest_cut_db: float = 25.0
    """Largest attenuation of noise [dB]."""
    lowest_gain_db: float = -15.0
    """Lower bound of the compensating gain [dB]."""
    highest_gain_db: float = 45.0
    """Upper bound of the compensating gain [dB]."""

    def __post_init__(self):
        if min(self.listener, self.bands, self.width, self.layers) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if not self.lowest_gain_db < 0 < self.highest_gain_db or self.deepest_cut_db <= 0:
            raise ValueError(f"gains must be able to go both ways, and noise to be cut: {self}")


@dataclasses.dataclass(frozen=True)
class Gains:
    """The two masks, in dB, so that exponents are factors."""

    noise_db: Tensor
    """Noise reduction, never above 0, `(B, bands, L)`."""
    loss_db: Tensor
    """Compensation of the hearing loss, `(B, bands, L)`."""


class Layer(nn.Module):
    """The listener's modulation, a recurrence over time, a recurrence over bands."""

    def __init__(self, config: MasksConfig, embedding: int):
        super().__init__()
        width = config.width
        self.modulate = nn.Linear(embedding, config.bands * 2 * width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.over_time = nn.GRU(width, width, batch_first=True)
        self.over_bands = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, listener: Tensor) -> Tensor:
        """`(B, bands, L, width)` and an embedding `(B, E)` to `(B, bands, L, width)`."""
        batch, bands, frames, width = x.shape
        scale, shift = self.modulate(listener).view(batch, bands, 1, 2 * width).chunk(2, -1)
        hidden = self.norms[0](x) * (1 + scale) + shift
        x = x + self.over_time(hidden.flatten(0, 1))[0].view(x.shape)
        across = self.norms[1](x).transpose(1, 2).flatten(0, 1)
        across = self.over_bands(across)[0].view(batch, frames, bands, width)
        return x + across.transpose(1, 2)


class Masks(nn.Module):
    """A hearing aid for every listener: sound and listener in, sound out, pascals throughout."""

    def __init__(self, config: MasksConfig):
        super().__init__()
        if config.width % 2:
            raise ValueError(f"width must be even, got {config.width}")
        self.config = config
        self.short_time = ShortTime(config.window, config.hop)
        self.bands = Bands(config.bands, self.short_time)
        embedding = 4 * config.listener
        self.embed = nn.Sequential(
            nn.Linear(config.listener, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.enter = nn.Linear(1, config.width)
        self.place = nn.Parameter(0.1 * torch.randn(config.bands, 1, config.width))
        self.layers = nn.ModuleList(Layer(config, embedding) for _ in range(config.layers))
        self.leave = nn.Linear(config.width, 2)
        nn.init.normal_(self.leave.weight, std=0.01)
        nn.init.zeros_(self.leave.bias)

    @property
    def latency_samples(self) -> int:
        """Algorithmic delay of a streaming device [samples]; off line it is taken out."""
        return self.short_time.latency_samples

    def forward(self, sound: Tensor, listener: Tensor) -> Gains:
        """Both masks for a sound.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            listener: θ or an audiogram, `(B, P)`.

        Raises:
            ValueError: If the listeners do not fit the sounds or this network.
        """
        if listener.shape != (len(sound), self.config.listener):
            raise ValueError(
                f"listener must be ({len(sound)}, {self.config.listener}) for this network, "
                f"got {tuple(listener.shape)}"
            )
        levels = self.bands.levels(self.short_time.spectra(sound)).unsqueeze(-1)
        x = self.enter((levels - 50) / 25) + self.place
        embedded = self.embed(2 * listener - 1)
        for layer in self.layers:
            x = layer(x, embedded)
        noise, loss = self.leave(x).unbind(-1)
        config = self.config
        return Gains(
            _between(noise, -config.deepest_cut_db, 0.0, start=-1.0),
            _between(loss, config.lowest_gain_db, config.highest_gain_db, start=0.0),
        )

    def render(
        self, sound: Tensor, gains: Gains, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> Tensor:
        """Give a sound gains that were computed for it, aligned with the input.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            gains: From `forward`.
            noise_reduction: Exponent of the noise mask: 0 off, 1 as trained.
            gain: Exponent of the compensating mask: 0 off, 1 as trained.

        Returns:
            Pressure [Pa], `(B, T)`.
        """
        total_db = noise_reduction * gains.noise_db + gain * gains.loss_db
        spectra = self.short_time.spectra(sound) * 10 ** (self.bands.spread(total_db) / 20)
        return self.short_time.sound(spectra, sound.shape[-1])

    def process(
        self, sound: Tensor, listener: Tensor, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> Tensor:
        """`forward`, then `render`: what a listener hears, `(B, T)` to `(B, T)` [Pa]."""
        return self.render(sound, self(sound, listener), noise_reduction, gain)


def _between(raw: Tensor, low: float, high: float, start: float) -> Tensor:
    """A number between two bounds, `start` where `raw` is zero."""
    offset = torch.logit(torch.tensor((start - low) / (high - low))).item()
    return low + (high - low) * torch.sigmoid(raw + offset)
