"""What devices do to sounds, for one listener, as rows of a tidy table (`evaluation.tidy`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from evaluation import tidy
from evaluation.neural import Midbrain, fidelity_and_clarity
from evaluation.quality import level_change
from evaluation.scores import EAR_METRICS, METRICS
from evaluation.table import Score
from icsim.audiogram import Audiogram
from icsim.excerpts import Condition
from icsim.sound import SAMPLE_RATE

Processed = Mapping[str, Tensor]
"""What each device made of the noisy sounds of a condition [Pa], `(B, T)`, aligned."""


def restoration_rows(
    midbrains: Mapping[str, tuple[Midbrain, Midbrain]], condition: Condition, processed: Processed
) -> list[pd.DataFrame]:
    """Discrepancies of fidelity, and in noise of clarity, with each device and without.

    Args:
        midbrains: The impaired and the normal one, by who judges.
        condition: The sounds.
        processed: By device.
    """
    tables = []
    for judge, pair in midbrains.items():
        both = fidelity_and_clarity(*pair, condition.clean, condition.noisy, processed)
        measures = ["fidelity"] if condition.clean is condition.noisy else ["fidelity", "clarity"]
        for measure in measures:
            by_device = {device: measured[measure] for device, measured in both.items()}
            tables.append(tidy.table(by_device, judge=judge, measure=measure, **condition.columns))
    return tables


def level_rows(condition: Condition, processed: Processed) -> pd.DataFrame:
    """How much louder each device makes each sound [dB]."""
    added = {
        device: level_change(condition.noisy, after, SAMPLE_RATE).values
        for device, after in processed.items()
    }
    return tidy.table(added, measure="added_db", **condition.columns)


def scores(
    condition: Condition,
    processed: Processed,
    names: Sequence[str],
    ear: Audiogram | None = None,
    each: Callable[..., Iterable[Score]] = map,
) -> dict[str, dict[str, Score]]:
    """Scores of what each device made, beside the clean sounds, by name and device.

    Args:
        condition: The sounds.
        processed: By device.
        names: Scores of `evaluation.scores`; those of ears are left out without one.
        ear: The listener's thresholds.
        each: `map`, or that of a pool of processes.
    """
    wanted = [name for name in names if ear or name not in EAR_METRICS]
    jobs = [(name, condition.clean, after, ear) for name in wanted for after in processed.values()]
    values = iter(list(each(score, *zip(*jobs, strict=True))) if jobs else [])
    return {name: {device: next(values) for device in processed} for name in wanted}


def score_rows(
    condition: Condition, scored: Mapping[str, Mapping[str, Score]]
) -> list[pd.DataFrame]:
    """Scores as rows; those that could not be computed have none."""
    return [
        tidy.table(
            {device: one.values for device, one in by_device.items()},
            measure=name,
            **condition.columns,
        )
        for name, by_device in scored.items()
    ]


def missing(scored: Mapping[str, Mapping[str, Score]]) -> dict[str, str]:
    """Why a score could not be computed of some sound, the first reason of each."""
    reasons = {
        name: next((r for one in by_device.values() for r in one.reasons if r), None)
        for name, by_device in scored.items()
    }
    return {name: reason for name, reason in reasons.items() if reason}


def in_parts(midbrain: Midbrain, batch: int = 4) -> Midbrain:
    """The same with no more than a few sounds at once: memory grows with them."""
    return lambda sound: torch.cat([midbrain(part) for part in sound.split(batch)])


def score(name: str, clean: Tensor, after: Tensor, ear: Audiogram | None = None) -> Score:
    """One score by its name in `evaluation.scores`, of sounds `(B, T)` [Pa]."""
    if name in EAR_METRICS:
        if ear is None:
            raise ValueError(f"{name} needs the listener's audiogram")
        return EAR_METRICS[name](clean, after, SAMPLE_RATE, ear)
    return METRICS[name](clean, after, SAMPLE_RATE)
