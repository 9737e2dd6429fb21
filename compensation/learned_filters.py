"""Gains of learned filters, which a causal encoder-decoder over time decides hop by hop."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import compiled
from .aid import Aid, State


@dataclasses.dataclass(frozen=True)
class LearnedFiltersConfig:
    """Sizes of `LearnedFilters`."""

    listener: int = 6
    """Numbers that describe a listener: P for θ, F for an audiogram."""
    bands: int = 48
    """Learned bands that are heard and amplified."""
    width: int = 96
    """Channels of the encoder and the decoder."""
    halvings: int = 4
    """Times that the encoder halves its rate."""
    taps: int = 5
    """Length of each convolution [frames]."""
    window: int = 1024
    """What the encoder hears at once [samples]."""
    hop: int = 64
    """Step [samples]; the delay is three hops, 7.9 ms."""
    deepest_cut_db: float = 25.0
    """Largest attenuation of noise [dB]."""
    lowest_gain_db: float = -15.0
    """Lower bound of the compensating gain [dB]."""
    highest_gain_db: float = 45.0
    """Upper bound of the compensating gain [dB]."""

    def __post_init__(self):
        if min(self.listener, self.bands, self.width, self.taps, self.hop) < 1 or self.halvings < 0:
            raise ValueError(f"sizes must be positive: {self}")
        if not self.lowest_gain_db < 0 < self.highest_gain_db or self.deepest_cut_db <= 1:
            raise ValueError(f"gains must be able to go both ways, and noise to be cut: {self}")


class Block(nn.Module):
    """The listener's modulation, a causal convolution over time, one over channels; added."""

    def __init__(self, width: int, taps: int, embedding: int):
        super().__init__()
        self.modulate = nn.Linear(embedding, 2 * width)
        nn.init.ones_(self.modulate.bias.data[:width])
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.over_time = nn.Linear(width * taps, width)
        self.over_channels = nn.Linear(width, width)
        self.taps = taps

    def begin(self, listener: Tensor) -> dict:
        """The state before any frame, for embedded listeners `(B, E)`."""
        factor, shift = self.modulate(listener).unsqueeze(1).chunk(2, -1)
        past = functional.pad(torch.zeros_like(shift), (0, 0, self.taps - 2, 0))
        return {"factor": factor, "shift": shift, "past": past}

    def forward(self, x: Tensor, state: dict) -> tuple[Tensor, dict]:
        """Any number of frames `(B, L, width)`, to as many, and the state after them."""
        hidden = torch.addcmul(state["shift"], self.norm(x), state["factor"])
        hidden = torch.cat([state["past"], hidden], 1)
        windows = hidden.unfold(1, self.taps, 1).flatten(2)
        after = state | {"past": hidden[:, x.shape[1] :]}
        return x + self.over_channels(functional.silu(self.over_time(windows))), after


class Scale(nn.Module):
    """One rate of the encoder-decoder and, inside, all slower ones, with a connection past them.

    Frames are halved by windows that overlap and come back by interpolation: what is steady stays
    steady, which transposed convolutions do not keep.
    """

    def __init__(self, width: int, taps: int, halvings: int, embedding: int):
        super().__init__()
        self.encode = Block(width, taps, embedding)
        self.halvings = halvings
        if halvings:
            self.halve = nn.Linear(4 * width, width)
            self.slower = Scale(width, taps, halvings - 1, embedding)
            self.decode = Block(width, taps, embedding)

    def chain(self) -> list["Scale"]:
        """This scale and all slower ones."""
        return [self, *(self.slower.chain() if self.halvings else [])]

    def blocks(self) -> list[Block]:
        """Those that encode, scale by scale, and those that decode."""
        scales = self.chain()
        return [each.encode for each in scales] + [each.decode for each in scales[:-1]]

    def begin(self, listener: Tensor) -> dict:
        """The state before any frame, for embedded listeners `(B, E)`."""
        encode = self.encode.begin(listener)
        if not self.halvings:
            return {"encode": encode}
        none = torch.zeros_like(encode["shift"])
        return {
            "encode": encode,
            "waiting": torch.cat([none, none], 1),
            "held": none,
            "slower": self.slower.begin(listener),
            "decode": self.decode.begin(listener),
        }

    def forward(self, x: Tensor, state: dict) -> tuple[Tensor, dict]:
        """Any number of frames `(B, L, width)`, to as many, and the state after them."""
        x, encode = self.encode(x, state["encode"])
        if not self.halvings:
            return x, {"encode": encode}
        slower, held = state["slower"], state["held"]
        waiting = torch.cat([state["waiting"], x], 1)
        odd, pairs = state["waiting"].shape[1] - 2, waiting.shape[1] // 2 - 1
        if pairs:
            halved, slower = self.slower(self.halve(waiting.unfold(1, 4, 2).flatten(2)), slower)
            held = torch.cat([held, halved], 1)
        twice = held.repeat_interleave(2, 1)[:, odd : odd + x.shape[1] + 1]
        x, decode = self.decode(x + (twice[:, 1:] + twice[:, :-1]) / 2, state["decode"])
        return x, {
            "encode": encode,
            "waiting": waiting[:, 2 * pairs :],
            "held": held[:, -1:],
            "slower": slower,
            "decode": decode,
        }


class LearnedFilters(Aid):
    """An aid whose network is a causal encoder-decoder over time."""

    def __init__(self, config: LearnedFiltersConfig):
        super().__init__(config)
        self.enter = nn.Linear(config.bands, config.width)
        self.scale = Scale(config.width, config.taps, config.halvings, self.embedding)
        self.leave = nn.Linear(config.width, 2 * config.bands)
        nn.init.normal_(self.leave.weight, std=0.01)
        nn.init.zeros_(self.leave.bias)

    def start(self, embedded: Tensor, stream: bool) -> State:
        """The state of all scales, of compiled ones where a stream can have them."""
        if not (stream and compiled.usable(embedded)):
            return self.scale.begin(embedded)
        modulations = torch.stack(
            [block.modulate(embedded).unflatten(-1, (2, -1)) for block in self.scale.blocks()]
        )
        return {
            "modulations": modulations,
            "frames": compiled.begin_scales(modulations, self.config.taps),
            "weights": compiled.gather_scales(self.scale),
        }

    def decide(self, levels: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As `Aid.decide`."""
        x = self.enter(levels)
        if "frames" in state:
            x, frames = compiled.frames(x, state["modulations"], state["frames"], state["weights"])
            state = state | {"frames": frames}
        else:
            x, state = self.scale(x, state)
        noise, loss = self.leave(x).transpose(1, 2).chunk(2, 1)
        return noise, loss, state
