"""Masks: a causal network, with memory in time and over bands, that sets two gains in every band.

One gain takes noise away, the other makes up for a hearing loss. Both are real, both are bounded,
and a listener can turn each up or down while listening.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from . import compiled
from .filters import FADE_HOPS, Filters
from .gains import Gains, bounded

FEW_HOPS = 8
"""Up to so many hops at a time, of all sounds, compiled layers are faster than torch's."""

HOPS_AVERAGED = 1.5, 200.0
"""Decisions that averages reach back at the start, from the fastest to the slowest: with the
published hop 8 ms to 1 s (chosen here)."""

State = dict[str, Any]
"""What an aid keeps from one block to the next: tensors, by name."""


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
        average, kept, step = rate * new.tanh(), 1 - rate, 1
        while step < x.shape[1]:  # each sum takes in twice as many hops as the one before
            further = average[:, step:] + kept[:, step:] * average[:, :-step]
            average = torch.cat([average[:, :step], further], 1)
            kept = torch.cat([kept[:, :step], kept[:, step:] * kept[:, :-step]], 1)
            step *= 2
        average = average + kept * before.unsqueeze(1)
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


class Masks(nn.Module):
    """A hearing aid for every listener: sound and listener in, sound out, pascals throughout."""

    def __init__(self, config: MasksConfig):
        super().__init__()
        if config.width % 2:
            raise ValueError(f"width must be even, got {config.width}")
        self.config = config
        self.filters = Filters(config.bands, config.window, config.hop)
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
        return self.filters.latency_samples

    @property
    def block_samples(self) -> int:
        """What `step` takes at a time [samples]."""
        return self.config.hop

    def forward(self, sound: Tensor, listener: Tensor) -> Gains:
        """Both masks for a sound, one decision every `decide_hops`, the first after one hop.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            listener: θ or an audiogram, `(B, P)`.

        Raises:
            ValueError: If the listeners do not fit the sounds or this network.
        """
        self._check(listener, len(sound))
        x = self._enter(self.filters.around(sound), self.filters.shapes()[0])
        x, _ = self._through(x, self._modulations(listener), self._start(listener))
        return self._leave(x)

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
        factors = self._held(gains.factors(noise_reduction, gain))
        hops = -(-sound.shape[-1] // self.config.hop)
        return self.filters.render(sound, factors[..., : hops + 2])

    def process(
        self, sound: Tensor, listener: Tensor, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> Tensor:
        """`forward`, then `render`: what a listener hears, `(B, T)` to `(B, T)` [Pa]."""
        return self.render(sound, self(sound, listener), noise_reduction, gain)

    def begin(self, listener: Tensor) -> State:
        """The state before any sound, for θ or audiograms `(B, P)`.

        Raises:
            ValueError: If the listeners do not fit this network.
        """
        self._check(listener, len(listener))
        config, batch = self.config, len(listener)
        heard, filtering = self.filters.shapes()
        return {
            "heard": heard,
            "filtering": filtering,
            "sound": listener.new_zeros(batch, config.window - config.hop),
            "factors": listener.new_ones(batch, config.bands, FADE_HOPS - 1),
            "wait_hops": 0,
            "modulations": self._modulations(listener),
            "hidden": self._start(listener),
            "weights": compiled.gather(self.layers) if compiled.usable(listener) else (),
        }

    def step(
        self, block: Tensor, state: State, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> tuple[Tensor, State]:
        """Take whole blocks as they arrive, and give as much.

        Args:
            block: Pressure [Pa], `(B, n · block_samples)`.
            state: From `begin`, or from the step before.
            noise_reduction: Exponent of the noise mask; a change fades in.
            gain: Exponent of the compensating mask; a change fades in.

        Returns:
            What `process` gives, `latency_samples - block_samples` late [Pa], and the state after.

        Raises:
            ValueError: If the block is not as many sounds as the state is for, or not whole blocks.
        """
        sounds, hop = len(state["sound"]), self.config.hop
        samples = block.shape[-1]
        if len(block) != sounds or samples % hop or not block.numel():
            raise ValueError(
                f"a block must be ({sounds}, n · {hop}) here, got {tuple(block.shape)}; "
                "Stream takes blocks of any length"
            )
        sound, hops = torch.cat([state["sound"], block], -1), samples // hop
        wait, factors, hidden = (state[key] for key in ("wait_hops", "factors", "hidden"))
        parts = [factors, factors[..., -1:].expand(-1, -1, min(wait, hops))]
        if wait < hops:
            x, hidden = self._advance(self._enter(sound[:, wait * hop :], state["heard"]), state)
            decided = self._held(self._leave(x).factors(noise_reduction, gain))
            parts.append(decided[..., : hops - wait])
        factors = torch.cat(parts, -1)
        around = sound[:, -samples - 2 * self.filters.reach :]
        return self.filters.amplify(around, factors, state["filtering"]), state | {
            "sound": sound[:, samples:],
            "factors": factors[..., hops:],
            "wait_hops": (wait - hops) % self.config.decide_hops,
            "hidden": hidden,
        }

    def _advance(self, x: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """All layers on some hops `(B, bands, L, width)`, and their states after."""
        modulations, hidden, weights = (state[key] for key in ("modulations", "hidden", "weights"))
        if weights and len(x) * x.shape[2] <= FEW_HOPS and not torch.is_grad_enabled():
            hops = []
            for hop in x.unbind(2):
                hop, hidden = compiled.hop(hop, modulations, hidden, weights)
                hops.append(hop)
            return torch.stack(hops, 2), hidden
        return self._through(x, modulations, hidden)

    def _through(self, x: Tensor, modulations: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same in torch, for any number of hops."""
        after = []
        for layer, modulation, before in zip(self.layers, modulations, hidden, strict=True):
            x, latest = layer(x, modulation, before)
            after.append(latest)
        return x, torch.stack(after)

    def _start(self, listener: Tensor) -> Tensor:
        """Averages over time before any sound, `(layers, B · bands, width)`."""
        config = self.config
        return listener.new_zeros(config.layers, len(listener) * config.bands, config.width)

    def _check(self, listener: Tensor, sounds: int) -> None:
        if listener.shape != (sounds, self.config.listener):
            raise ValueError(
                f"listener must be ({sounds}, {self.config.listener}) for this network, "
                f"got {tuple(listener.shape)}"
            )

    def _modulations(self, listener: Tensor) -> Tensor:
        """Of every layer, `(layers, 2, B, bands, 1, width)`."""
        embedded = self.embed(2 * listener - 1)
        return torch.stack([layer.modulation(embedded) for layer in self.layers])

    def _enter(self, sound: Tensor, heard: Tensor) -> Tensor:
        """What the first layer takes of a sound as `Filters.levels` wants it."""
        levels = self.filters.levels(sound, heard, self.config.decide_hops).transpose(1, 2)
        return self.enter((levels / 6 - 2).unsqueeze(-1)) + self.place

    def _leave(self, x: Tensor) -> Gains:
        noise, loss = self.leave(x).unbind(-1)
        return bounded(noise, loss, self.config)

    def _held(self, decided: Tensor) -> Tensor:
        """What was decided, for every hop until the next decision."""
        return decided.repeat_interleave(self.config.decide_hops, -1)
