"""What a cohort holds at a glance, and what is unusual about it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from icsim.frames import recording_pairs
from icsim.recording import AnimalRecording, SoundEntry
from icsim.sound import RESPONSE_RATE, SAMPLE_RATE
from icsim.store import Cohort
from icsim.validation import SPLITS

WINDOWS_MS = (1.31, 10.0, 50.0)
"""Time scales at which trials are compared [ms] (chosen here)."""


LEVELS_DB_SPL = (20.0, 110.0)
"""Sounds outside are named: softer than a library, louder than a pneumatic hammer (chosen here)."""


ENOUGH_S = 30.0
"""Training sounds to which `recipes.fit_theta` fits a listener [s]."""


def summary(cohort: Cohort) -> dict:
    """What tells at a glance whether an import went well; JSON can hold it."""
    return {
        "sounds": {
            split: _of_sounds([s for s in cohort.sounds if s.split == split]) for split in SPLITS
        },
        "animals": {name: of_animal(cohort, name) for name in cohort.animals()},
        "warnings": warnings(cohort),
    }


def _of_sounds(sounds: Sequence[SoundEntry]) -> dict:
    levels = [s.level_db_spl for s in sounds if s.level_db_spl is not None]
    return {
        "sounds": len(sounds),
        "seconds": round(sum(s.samples for s in sounds) / SAMPLE_RATE, 3),
        "kinds": dict(sorted(Counter(s.kind for s in sounds).items())),
        "sources": sorted({s.source for s in sounds}),
        "level_db_spl": _spread(torch.tensor(levels) if levels else None),
    }


def of_animal(cohort: Cohort, name: str) -> dict:
    """Hearing, what was heard, rates, and how alike trials are."""
    animal = cohort.animal(name)
    bins = sum(p.bins for p in animal.presentations)
    every = (animal.counts(n).long().sum(0) for n in range(len(animal.presentations)))
    spikes = sum(every, start=torch.tensor(0))
    measured, frequencies_hz, thresholds = animal.thresholds_db_spl, animal.abr_frequencies_hz, None
    if measured is not None and frequencies_hz is not None:
        named = zip(frequencies_hz, measured.tolist(), strict=True)
        thresholds = {f"{hz:g} Hz": threshold for hz, threshold in named}
    return {
        "status": animal.status,
        "role": animal.role,
        "thresholds_db_spl": thresholds,
        "channels": animal.channels,
        "presentations": len(animal.presentations),
        "seconds": round(bins / RESPONSE_RATE, 3),
        "hours": round(
            max(p.time_h + p.bins / RESPONSE_RATE / 3600 for p in animal.presentations), 3
        ),
        "splits": {split: _presented(cohort, animal, split) for split in SPLITS},
        "spikes_a_second": _spread(spikes * RESPONSE_RATE / bins),
        "trial_correlation": {
            f"{window_ms:g} ms": _spread(_mean_correlation(cohort, name, window_ms))
            for window_ms in WINDOWS_MS
        },
    }


def _presented(cohort: Cohort, animal: AnimalRecording, split: str) -> dict:
    """How much of a split an animal heard."""
    shown = [p for p in animal.presentations if cohort.sounds[p.sound].split == split]
    times = Counter(p.sound for p in shown)
    return {
        "sounds": len(times),
        "sounds_heard_twice": sum(count > 1 for count in times.values()),
        "presentations": len(shown),
        "seconds": round(sum(p.bins for p in shown) / RESPONSE_RATE, 3),
    }


def warnings(cohort: Cohort) -> list[str]:
    """What is unusual about a cohort or will fail later, each with its remedy."""
    texts = _unusual_levels(cohort.sounds)
    splits = {s.split for s in cohort.sounds}
    remedy = "--split auto, in another --out, deals the sounds by source"
    if len({s.source for s in cohort.sounds if s.level_db_spl is not None}) < len(SPLITS):
        remedy = f"sounds of at least {len(SPLITS)} sources are needed"
    if "train" not in splits:
        texts.append(f"no training sounds: recipes.train_ic will refuse the cohort; {remedy}")
    if "validation" not in splits:
        texts.append(
            f"no validation sounds: recipes.train_ic, which stops by them, will refuse the cohort; "
            f"{remedy}"
        )
    if "test" not in splits:
        texts.append(
            f"no test sounds: recipes.score_ic and recipes.judge have nothing to judge by; {remedy}"
        )
    animals = [cohort.animal(name) for name in cohort.animals()]
    tested = animals if "test" in splits else []
    once = [a.name for a in tested if not recording_pairs(cohort, a.name, "test")]
    if once:
        texts.append(
            f"{_some(once)} heard no test sound twice: what of the answers can be predicted is "
            "unknown, and recipes.score_ic leaves them out"
        )
    short = {a.name: _presented(cohort, a, "train")["seconds"] for a in animals}
    few = [name for name, seconds in short.items() if seconds < ENOUGH_S]
    if few and "train" in splits:
        texts.append(
            f"{_some(few)} heard less than the {ENOUGH_S:g} s of training sounds to which "
            "recipes.fit_theta fits a listener; the fit will be less certain"
        )
    if not any(a.status == "NH" and a.role == "seen" for a in animals):
        texts.append(
            "no seen animal with normal hearing: recipes.align needs a --reference, and no aid "
            "knows what to restore"
        )
    if not any(s.kind == "speech" and s.split == "train" for s in cohort.sounds):
        texts.append(
            "no training sound of the kind speech: recipes.train_compensation needs a folder of "
            "--sounds"
        )
    return texts


def _unusual_levels(sounds: Sequence[SoundEntry]) -> list[str]:
    lowest, highest = LEVELS_DB_SPL
    levels = {s.name: s.level_db_spl for s in sounds if s.level_db_spl is not None}
    soft = {name: level for name, level in levels.items() if level < lowest}
    loud = {name: level for name, level in levels.items() if level > highest}
    cause = {
        f"softer than {lowest:g}": (soft, "millipascals or volts taken for pascals"),
        f"louder than {highest:g}": (loud, "samples of whole numbers, or volts, taken for pascals"),
    }
    return [
        f"{len(some)} of {len(levels)} sounds are {what} dB SPL: "
        f"{_some([f'{name} at {level:.0f} dB SPL' for name, level in some.items()])}. Probably the "
        f"unit is wrong ({why}) or the full scale: a factor of 1000 is 60 dB. Mend the unit in the "
        "files, or give --full_scale_db_spl, and import again"
        for what, (some, why) in cause.items()
        if some
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def trial_correlation(trials: Tensor, bins: int) -> Tensor:
    """Mean correlation of pairs of trials in windows of some bins, `(R, N, C)` to `(C,)`.

    A trial without any change correlates with nothing: 0.

    >>> trial_correlation(torch.arange(24.0).repeat(3, 1).unsqueeze(-1), 4)
    tensor([1.0000])
    """
    windows = trials.shape[1] // bins
    sums = trials[:, : windows * bins].float().unflatten(1, (windows, bins)).sum(2)
    centred = sums - sums.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    power = unit.square().sum((0, 1))
    return (unit.sum(0).square().sum(0) - power) / (len(trials) * (len(trials) - 1))


def _mean_correlation(cohort: Cohort, name: str, window_ms: float) -> Tensor | None:
    """Of each channel, mean over sounds heard more than once `(C,)`; None if there are none."""
    animal = cohort.animal(name)
    bins = max(1, round(window_ms * RESPONSE_RATE / 1e3))
    correlations = [
        trial_correlation(torch.stack([animal.counts(n) for n in numbers]), bins)
        for _, numbers in recording_pairs(cohort, name, SPLITS)
    ]
    return torch.stack(correlations).mean(0) if correlations else None


def _spread(values: Tensor | None) -> dict[str, float] | None:
    """Lowest, median and highest."""
    if values is None:
        return None
    spread = np.quantile(values.double().numpy(), (0.0, 0.5, 1.0)).round(4).tolist()
    return dict(zip(("lowest", "median", "highest"), spread, strict=True))
