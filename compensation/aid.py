"""The device that every aid is: it hears bands, sets a gain in each of them, and amplifies.

What sets the gains is a network, and is all in which aids differ. The device has the filters, the
bounds of gains, the listener's numbers, and the state of a stream.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .filters import FADE_HOPS, Filters
from .gains import Gains, bounded

State = dict[str, Any]
"""What is kept from one block to the next: tensors, by name."""


class Aid(nn.Module):
    """A hearing aid for every listener: sound and listener in, sound out, pascals throughout.

    A network that makes it whole gives `start` and `decide`.

    Args:
        config: Has `listener` (how many numbers describe one), `bands`, `window` and `hop` as
            `Filters`, and `deepest_cut_db`, `lowest_gain_db`, `highest_gain_db` as `bounded`.
        decide_hops: Hops from one decision of the network to the next.
    """

    def __init__(self, config, decide_hops: int = 1):
        super().__init__()
        self.config, self.decide_hops = config, decide_hops
        self.filters = Filters(config.bands, config.window, config.hop)
        self.embedding = 4 * config.listener
        self.embed = nn.Sequential(
            nn.Linear(config.listener, self.embedding),
            nn.SiLU(),
            nn.Linear(self.embedding, self.embedding),
        )

    def start(self, embedded: Tensor, stream: bool) -> State:
        """What the network keeps, before any sound.

        Args:
            embedded: The listeners, `(B, embedding)`.
            stream: Whether few hops will come at a time, for which compiled layers pay.
        """
        raise NotImplementedError

    def decide(self, levels: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Gains from levels, without bounds.

        Args:
            levels: Of each band, about −2 at silence and 2 at 100 dB SPL, `(B, L, bands)`.
            state: From `start`, or from the decision before.

        Returns:
            Against noise and for the loss, any real number, both `(B, bands, L)`, and the state.
        """
        raise NotImplementedError

    @property
    def latency_samples(self) -> int:
        """Algorithmic delay of a streaming device [samples]; off line it is taken out."""
        return self.filters.latency_samples

    @property
    def block_samples(self) -> int:
        """What `step` takes at a time [samples]."""
        return self.config.hop

    def forward(self, sound: Tensor, listener: Tensor) -> Gains:
        """Both gains for a sound, one decision every `decide_hops`, the first after one hop.

        The last decisions lie beyond the end of the sound, up to two hops.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            listener: θ or an audiogram, `(B, P)`.

        Raises:
            ValueError: If the listeners do not fit the sounds or this network.
        """
        state = self.start(self._embedded(listener, len(sound)), stream=False)
        return self._gains(self.filters.around(sound), self.filters.shapes()[0], state)[0]

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
        config, batch = self.config, len(listener)
        hearing, filtering = self.filters.shapes()
        return {
            "hearing": hearing,
            "filtering": filtering,
            "sound": listener.new_zeros(batch, config.window - config.hop),
            "factors": listener.new_ones(batch, config.bands, FADE_HOPS - 1),
            "wait_hops": 0,
            "network": self.start(self._embedded(listener, batch), stream=True),
        }

    def step(
        self,
        block: Tensor,
        state: State,
        noise_reduction: float | Tensor = 1.0,
        gain: float | Tensor = 1.0,
    ) -> tuple[Tensor, State]:
        """Take whole blocks as they arrive, and give as much.

        Args:
            block: Pressure [Pa], `(B, n · block_samples)`.
            state: From `begin`, or from the step before.
            noise_reduction: Exponent of the noise reduction; a change fades in.
            gain: Exponent of the compensation; a change fades in.

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
        wait, factors, network = (state[key] for key in ("wait_hops", "factors", "network"))
        parts = [factors, factors[..., -1:].expand(-1, -1, min(wait, hops))]
        if wait < hops:
            gains, network = self._gains(sound[:, wait * hop :], state["hearing"], network)
            decided = self._held(gains.factors(noise_reduction, gain))
            parts.append(decided[..., : hops - wait])
        factors = torch.cat(parts, -1)
        around = sound[:, -samples - 2 * self.filters.reach :]
        return self.filters.amplify(around, factors, state["filtering"]), state | {
            "sound": sound[:, samples:],
            "factors": factors[..., hops:],
            "wait_hops": (wait - hops) % self.decide_hops,
            "network": network,
        }

    def _embedded(self, listener: Tensor, sounds: int) -> Tensor:
        if listener.shape != (sounds, self.config.listener):
            raise ValueError(
                f"listener must be ({sounds}, {self.config.listener}) for this network, "
                f"got {tuple(listener.shape)}"
            )
        return self.embed(2 * listener - 1)

    def _gains(self, sound: Tensor, hearing: Tensor, state: State) -> tuple[Gains, State]:
        """Decisions about a sound as `Filters.levels` takes it."""
        levels = self.filters.levels(sound, hearing, self.decide_hops) / 6 - 2
        noise, loss, state = self.decide(levels, state)
        return bounded(noise, loss, self.config), state

    def _held(self, decided: Tensor) -> Tensor:
        """What was decided, for every hop until the next decision."""
        return decided.repeat_interleave(self.decide_hops, -1)
