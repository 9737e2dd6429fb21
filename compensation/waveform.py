"""Waveform: a causal encoder-decoder over time sets the gains of learned filters, hop by hop."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import compiled
from .filters import FADE_HOPS, Filters
from .gains import Gains, bounded


@dataclasses.dataclass(frozen=True)
class WaveformConfig:
    """What Waveform is made of."""

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


class Waveform(nn.Module):
    """A hearing aid for every listener: sound and listener in, sound out, pascals throughout."""

    def __init__(self, config: WaveformConfig):
        super().__init__()
        self.config = config
        self.filters = Filters(config.bands, config.window, config.hop)
        embedding = 4 * config.listener
        self.embed = nn.Sequential(
            nn.Linear(config.listener, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.enter = nn.Linear(config.bands, config.width)
        self.scale = Scale(config.width, config.taps, config.halvings, embedding)
        self.leave = nn.Linear(config.width, 2 * config.bands)
        nn.init.normal_(self.leave.weight, std=0.01)
        nn.init.zeros_(self.leave.bias)

    @property
    def block_samples(self) -> int:
        """Samples that one streaming step takes."""
        return self.config.hop

    @property
    def latency_samples(self) -> int:
        """Delay between a sample's arrival and its departure, when hops are processed as blocks."""
        return self.filters.latency_samples

    def forward(self, sound: Tensor, listener: Tensor) -> Gains:
        """Gains for a sound, in frames that end with each hop; the last two lie beyond its end.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            listener: θ or an audiogram, `(B, P)`.

        Raises:
            ValueError: If the listeners do not fit the sounds or this network.
        """
        state = self.scale.begin(self._embedded(listener, len(sound)))
        return self._decide(self.filters.around(sound), self.filters.shapes()[0], state)[0]

    def _embedded(self, listener: Tensor, sounds: int) -> Tensor:
        if listener.shape != (sounds, self.config.listener):
            raise ValueError(
                f"listener must be ({sounds}, {self.config.listener}) for this network, "
                f"got {tuple(listener.shape)}"
            )
        return self.embed(2 * listener - 1)

    def _compiled(self, embedded: Tensor) -> dict:
        """The state before any frame as compiled scales take it."""
        found = [block.modulate(embedded).unflatten(-1, (2, -1)) for block in self.scale.blocks()]
        modulations = torch.stack(found)
        return {
            "modulations": modulations,
            "frames": compiled.begin_scales(modulations, self.config.taps),
            "weights": compiled.gather_scales(self.scale),
        }

    def _decide(self, sound: Tensor, heard: Tensor, state: dict) -> tuple[Gains, dict]:
        x = self.enter(self.filters.levels(sound, heard) / 6 - 2)
        if "frames" in state:
            known = state["modulations"], state["frames"], state["weights"]
            x, after = compiled.frames(x, *known)
            state = state | {"frames": after}
        else:
            x, state = self.scale(x, state)
        noise, loss = self.leave(x).transpose(1, 2).chunk(2, 1)
        gains = bounded(noise, loss, self.config)
        return gains, state

    def render(
        self, sound: Tensor, gains: Gains, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> Tensor:
        """Give a sound gains that were computed for it, aligned with the input.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            gains: From `forward`.
            noise_reduction: Exponent of the noise reduction: 0 off, 1 as trained.
            gain: Exponent of the compensation: 0 off, 1 as trained.

        Returns:
            Pressure [Pa], `(B, T)`.
        """
        return self.filters.render(sound, gains.factors(noise_reduction, gain))

    def process(
        self, sound: Tensor, listener: Tensor, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> Tensor:
        """`forward`, then `render`: what a listener hears, `(B, T)` to `(B, T)` [Pa]."""
        return self.render(sound, self(sound, listener), noise_reduction, gain)

    def begin(self, listener: Tensor) -> dict:
        """The state before any sound, for θ or audiograms `(B, P)`.

        Raises:
            ValueError: If the listeners do not fit this network.
        """
        config, batch = self.config, len(listener)
        embedded = self._embedded(listener, batch)
        usable = compiled.usable(listener)
        scale = self._compiled(embedded) if usable else self.scale.begin(embedded)
        heard, filtering = self.filters.shapes()
        return {
            "heard": heard,
            "filtering": filtering,
            "sound": listener.new_zeros(batch, config.window - config.hop),
            "factors": listener.new_ones(batch, config.bands, FADE_HOPS - 1),
            "scale": scale,
        }

    def step(
        self, block: Tensor, state: dict, noise_reduction: float = 1.0, gain: float = 1.0
    ) -> tuple[Tensor, dict]:
        """Take whole hops as they arrive, and give as much.

        Args:
            block: Pressure [Pa], `(B, n · block_samples)`.
            state: From `begin`, or from the step before.
            noise_reduction: Exponent of the noise reduction; a change fades in.
            gain: Exponent of the compensation; a change fades in.

        Returns:
            What `process` gives, `latency_samples - block_samples` late [Pa], and the state after.

        Raises:
            ValueError: If the block is not as many sounds as the state is for, or not whole hops.
        """
        hop, streams = self.config.hop, len(state["sound"])
        samples = block.shape[-1]
        if len(block) != streams or samples == 0 or samples % hop:
            raise ValueError(
                f"a block must be ({streams}, n · {hop}) here, got {tuple(block.shape)}; "
                "Stream takes blocks of any length"
            )
        sound = torch.cat([state["sound"], block], -1)
        gains, scale = self._decide(sound, state["heard"], state["scale"])
        factors = torch.cat([state["factors"], gains.factors(noise_reduction, gain)], -1)
        around = sound[:, -samples - 2 * self.filters.reach :]
        return self.filters.amplify(around, factors, state["filtering"]), state | {
            "sound": sound[:, samples:],
            "factors": factors[..., samples // hop :],
            "scale": scale,
        }
