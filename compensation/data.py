"""What an aid hears while it learns: speech and music, in quiet and in noise, at many levels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from icsim.simulation.noises import NOISES, noise
from icsim.sound import calibrate, level, mix


class Mixtures(Dataset):
    """Endless excerpts, clean and with noise; item `i` depends on the seed and `i` alone.

    Args:
        speech: Sounds that noise is added to, `(T,)` each, any amplitude.
        others: Sounds that stay in quiet (music, instruments); may be empty.
        samples: Length of an excerpt.
        count: How many items there are.
        seed: Of everything.
        level_db_spl: Range of the clean sound's level [dB SPL].
        snr_db: Range of signal-to-noise ratios [dB].
        quiet: Share of items without noise.

    Raises:
        ValueError: If there is no speech, or none as long as an excerpt.
    """

    def __init__(
        self,
        speech: Sequence[Tensor],
        others: Sequence[Tensor],
        samples: int,
        count: int,
        seed: int,
        level_db_spl: tuple[float, float] = (45.0, 85.0),
        snr_db: tuple[float, float] = (-5.0, 20.0),
        quiet: float = 0.4,
    ):
        self.speech = [s for s in speech if len(s) >= samples]
        self.others = [s for s in others if len(s) >= samples]
        if not self.speech:
            raise ValueError(
                f"none of {len(speech)} speech sounds has {samples} samples: give longer ones"
            )
        self.samples, self.count, self.seed = samples, count, seed
        self.level_db_spl, self.snr_db, self.quiet = level_db_spl, snr_db, quiet

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`clean` and `noisy` `(T,)` [Pa], the same where `in_noise` is False."""
        if not 0 <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")
        draw = np.random.default_rng([self.seed, index])
        quiet = draw.random() < self.quiet
        kind = self.others if quiet and self.others and draw.random() < 0.5 else self.speech
        clean = calibrate(excerpt(kind, self.samples, draw), draw.uniform(*self.level_db_spl))
        if quiet:
            return {"clean": clean, "noisy": clean, "in_noise": torch.tensor(False)}
        talkers = [excerpt(self.speech, self.samples, draw) for _ in range(4)]
        masker = noise(str(draw.choice(NOISES)), self.samples, draw, talkers)
        noisy = mix(clean, masker, draw.uniform(*self.snr_db))
        return {"clean": clean, "noisy": noisy, "in_noise": torch.tensor(True)}


def excerpt(sounds: Sequence[Tensor], samples: int, draw: np.random.Generator) -> Tensor:
    """A random excerpt that is not a pause, `(samples,)`."""
    sound = sounds[draw.integers(len(sounds))]
    starts = draw.integers(len(sound) - samples + 1, size=8)
    loudness = [level(sound[start : start + samples]).item() for start in starts]
    enough = level(sound).item() - 10
    which = next((i for i, here in enumerate(loudness) if here > enough), int(np.argmax(loudness)))
    return sound[starts[which] : starts[which] + samples]
