"""Masks: a causal network, with memory in time and over bands, that sets two gains in every band.

One gain takes noise away, the other makes up for a hearing loss. Both are real, both are bounded,
and a listener can turn each up or down while listening.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from . import compiled
from .aid import Aid, State

FEW_HOPS = 8
"""Up to so many hops at a time, of all sounds, compiled layers are faster than torch's."""

HOPS_AVERAGED = 1.5, 200.0
"""Decisions that averages reach back at the start, from the fastest to the slowest: with the
published hop 8 ms to 1 s (chosen here)."""


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
    """Layers, each over time and over bands."""
    window: int = 1024
    """What the network hears at once [samples]."""
    hop: int = 64
    """Step of the filters [samples]; the delay is three hops, 7.9 ms."""
    decide_hops: int = 2
    """Hops from one decision of the network to the next."""
    deepest_cut_db: float = 25.0
    """Largest attenuation of noise [dB]."""
    lowest_gain_db: float = -15.0
    """Lower bound of the compensating gain [dB]."""
    highest_gain_db: float = 45.0
    """Upper bound of the compensating gain [dB]."""

    def __post_init__(self):
        if min(self.listener, self.bands, self.width, self.layers, self.decide_hops) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if not self.lowest_gain_db < 0 < self.highest_gain_db or self.deepest_cut_db <= 0:
            raise ValueError(f"gains must be able to go both ways, and noise to be cut: {self}")


class Averages(nn.Module):
    """Running averages of what is found in a sound, as fast or slow as the sound itself says.

    Whatever the weights, they settle where the input stands still, without ever swinging: a steady
    tone gets a steady gain. Other recurrences may go on for ever, and are heard as hum. They are
    also computed for all hops at once.

    Source: Feng et al. 2024, arXiv 2410.01201 (minGRU), with a bounded candidate.
    """

    def __init__(self, width: int):
        super().__init__()
        self.own = nn.Linear(width, 2 * width)
        hops = torch.exp(torch.empty(width).uniform_(*(math.log(n) for n in HOPS_AVERAGED)))
        with torch.no_grad():
            self.own.bias[:width] = -(hops - 1).log()

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """`(R, L, width)` and the averages before, `(R, width)`, to the same after each hop."""
        rate, new = self.own(x).chunk(2, -1)
        rate = rate.sigmoid()
        average, decays, step = rate * new.tanh(), 1 - rate, 1
        while step < x.shape[1]:  # each sum takes in twice as many hops as the one before
            further = average[:, step:] + decays[:, step:] * average[:, :-step]
            average = torch.cat([average[:, :step], further], 1)
            decays = torch.cat([decays[:, :step], decays[:, step:] * decays[:, :-step]], 1)
            step *= 2
        average = average + decays * before.unsqueeze(1)
        return average, average[:, -1]


class Layer(nn.Module):
    """The listener's modulation, averages over time, a recurrence over bands."""

    def __init__(self, config: MasksConfig, embedding: int):
        super().__init__()
        self.width = width = config.width
        self.modulate = nn.Linear(embedding, config.bands * 2 * width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.over_time = Averages(width)
        self.over_bands = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def modulation(self, listener: Tensor) -> Tensor:
        """Factor and shift for an embedding `(B, E)`, `(2, B, bands, 1, width)`."""
        scale, shift = self.modulate(listener).unflatten(-1, (-1, 1, 2 * self.width)).chunk(2, -1)
        return torch.stack([1 + scale, shift])

    def forward(self, x: Tensor, modulation: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, bands, L, width)` to the same, and the averages over time.

        Args:
            x: What the layer before found.
            modulation: Of the listeners.
            hidden: Averages after the hop before, `(B · bands, width)`.
        """
        batch, bands, frames, width = x.shape
        factor, shift = modulation
        modulated = self.norms[0](x) * factor + shift
        over_time, hidden = self.over_time(modulated.flatten(0, 1), hidden)
        x = x + over_time.view(x.shape)
        across = self.norms[1](x).transpose(1, 2).flatten(0, 1)
        across = self.over_bands(across)[0].view(batch, frames, bands, width)
        return x + across.transpose(1, 2), hidden


class Masks(Aid):
    """An aid whose network remembers over time and looks over bands."""

    def __init__(self, config: MasksConfig):
        if config.width % 2:
            raise ValueError(f"width must be even, got {config.width}")
        super().__init__(config, config.decide_hops)
        self.enter = nn.Linear(1, config.width)
        self.place = nn.Parameter(0.1 * torch.randn(config.bands, 1, config.width))
        self.layers = nn.ModuleList(Layer(config, self.embedding) for _ in range(config.layers))
        self.leave = nn.Linear(config.width, 2)
        nn.init.normal_(self.leave.weight, std=0.01)
        nn.init.zeros_(self.leave.bias)

    def start(self, embedded: Tensor, stream: bool) -> State:
        """The listeners' modulations and averages over time; weights for compiled layers."""
        config, layers = self.config, cast(Sequence[Layer], self.layers)
        return {
            "modulations": torch.stack([layer.modulation(embedded) for layer in layers]),
            "averages": embedded.new_zeros(
                config.layers, len(embedded) * config.bands, config.width
            ),
            "weights": compiled.gather(layers) if stream and compiled.usable(embedded) else (),
        }

    def decide(self, levels: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As `Aid.decide`."""
        x = self.enter(levels.transpose(1, 2).unsqueeze(-1)) + self.place
        few = len(x) * x.shape[2] <= FEW_HOPS and not torch.is_grad_enabled()
        through = self._compiled if state["weights"] and few else self._by_torch
        x, averages = through(x, **state)
        noise, loss = self.leave(x).unbind(-1)
        return noise, loss, state | {"averages": averages}

    def _compiled(
        self, x: Tensor, modulations: Tensor, averages: Tensor, weights: compiled.Arrays
    ) -> tuple[Tensor, Tensor]:
        """All layers on some hops `(B, bands, L, width)`, and their averages after."""
        hops = []
        for hop in x.unbind(2):
            hop, averages = compiled.hop(hop, modulations, averages, weights)
            hops.append(hop)
        return torch.stack(hops, 2), averages

    def _by_torch(
        self, x: Tensor, modulations: Tensor, averages: Tensor, weights: compiled.Arrays
    ) -> tuple[Tensor, Tensor]:
        """The same, for any number of hops and with gradients."""
        after = []
        for layer, modulation, before in zip(self.layers, modulations, averages, strict=True):
            x, latest = layer(x, modulation, before)
            after.append(latest)
        return x, torch.stack(after)
