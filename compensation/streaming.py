"""An aid that runs: blocks of any length in, as much out, a limiter at the end."""

import math
import time

import torch
from torch import Tensor

from icsim.sound import REFERENCE_PA, SAMPLE_RATE

from .aid import Aid
from .limiter import State, limit

LOUDEST_DB_SPL = 140.0
"""Input is clipped at this magnitude [dB SPL], far above what a hearing aid's microphone takes
(chosen here)."""

HIGHEST_EXPONENT = 2.0
"""How far beyond 1, as trained, both masks may be turned up (chosen here)."""


class Stream:
    """An aid that hears a sound block by block; a sound comes out `aid.latency_samples` later.

    What comes out does not depend on how the sound was cut into blocks: it is what `aid.process`
    gives, held below the maximum. Samples that are not finite are heard as silence. The first
    blocks take longer, as code is compiled and memory found: run some silence through before what
    counts.

    Args:
        aid: A network with `begin` and `step`: Masks or LearnedFilters.
        listener: θ or an audiogram in [0, 1], `(*, P)`; each of several gets a sound of its own.
        noise_reduction: Exponent of the noise mask: 0 off, 1 as trained.
        gain: Exponent of the compensating mask: 0 off, 1 as trained.
        maximum_db_spl: The highest magnitude of a sample that may come out [dB SPL].

    Raises:
        ValueError: If the listener does not fit the aid or is outside [0, 1], an exponent is not
            within 0 and 2, or the maximum is not finite.
    """

    def __init__(
        self,
        aid: Aid,
        listener: Tensor,
        noise_reduction: float = 1.0,
        gain: float = 1.0,
        maximum_db_spl: float = 110.0,
    ):
        if not bool(((listener >= 0) & (listener <= 1)).all()):
            raise ValueError(f"numbers of a listener are within 0 and 1, got {listener.tolist()}")
        if not math.isfinite(maximum_db_spl):
            raise ValueError(f"maximum_db_spl must be finite, got {maximum_db_spl}")
        self.aid, self.maximum_db_spl = aid, maximum_db_spl
        self.turn(noise_reduction, gain)
        self._several = listener.shape[:-1]
        listener = listener.reshape(-1, listener.shape[-1])
        with torch.no_grad():
            self._state = aid.begin(listener)
        self._limiter: State | None = None
        # Until its first block is whole, an aid has nothing to say.
        self._ready = listener.new_zeros(len(listener), aid.block_samples)
        self._waiting = self._ready[:, :0]

    @property
    def latency_samples(self) -> int:
        """From a sample's arrival to its departure [samples]."""
        return self.aid.latency_samples

    def turn(self, noise_reduction: float, gain: float) -> None:
        """Turn both masks up or down, from the next block on."""
        for name, exponent in {"noise_reduction": noise_reduction, "gain": gain}.items():
            if not 0 <= exponent <= HIGHEST_EXPONENT:
                raise ValueError(f"{name} must be 0 to {HIGHEST_EXPONENT:g}, got {exponent}")
        self.noise_reduction, self.gain = noise_reduction, gain

    @torch.no_grad()
    def __call__(self, sound: Tensor) -> Tensor:
        """The next block, of any length: pressure [Pa] `(*, T)` to `(*, T)`.

        Raises:
            ValueError: If there are not as many sounds as listeners.
        """
        if sound.shape[:-1] != self._several:
            raise ValueError(
                f"sound must be {(*self._several, 'T')} as the listener is, got "
                f"{tuple(sound.shape)}"
            )
        loudest = REFERENCE_PA * 10 ** (LOUDEST_DB_SPL / 20)
        sound = sound.nan_to_num(0, 0, 0).clamp(-loudest, loudest)
        block = torch.cat([self._waiting, sound.reshape(len(self._waiting), -1)], -1)
        size = self.aid.block_samples
        whole = block.shape[-1] // size * size
        if whole:
            out, self._state = self.aid.step(
                block[:, :whole], self._state, self.noise_reduction, self.gain
            )
            out, self._limiter = limit(out, self.maximum_db_spl, self._limiter)
            self._ready = torch.cat([self._ready, out], -1)
        self._waiting = block[:, whole:].clone()
        samples = sound.shape[-1]
        out, self._ready = self._ready[:, :samples], self._ready[:, samples:]
        return out.reshape(sound.shape)

    def flush(self) -> Tensor:
        """What is still to come of the sounds heard, `(*, latency_samples)`; silence follows."""
        return self(self._ready.new_zeros(*self._several, self.latency_samples))


def impulse_delay_ms(aid: Aid, listener: Tensor) -> float:
    """From a click in to the peak that comes out of a stream, in steps of one sample [ms]."""
    samples, at = 4096, 2000
    click = 1e-9 * torch.randn(samples, generator=torch.Generator().manual_seed(0))
    click[at] = 0.1
    running = Stream(aid, listener)
    out = torch.cat([running(part) for part in click.split(1)])
    return (out.abs().argmax().item() - at) / SAMPLE_RATE * 1e3


def pace(aid: Aid, listener: Tensor, seconds: float = 4.0) -> dict[str, float]:
    """Time to process over time processed, and the longest block, in blocks of the aid's own."""
    running, blocks = Stream(aid, listener), []
    sound = 0.02 * torch.randn(round(seconds * SAMPLE_RATE))
    for part in sound[: len(sound) // 4].split(aid.block_samples):
        running(part)
    for part in sound.split(aid.block_samples):
        started = time.perf_counter()
        running(part)
        blocks.append(time.perf_counter() - started)
    return {"real_time_factor": sum(blocks) / seconds, "worst_block_ms": 1e3 * max(blocks)}
