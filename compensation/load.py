"""Hearing-aid networks on disk, and what a checkpoint says of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from icsim.weights import load_network, require_facts, save_network

from .learned_filters import LearnedFilters
from .listener import EIGHT_HZ
from .masks import Masks

NEEDED = ("listener", "model", "noise_reduction")
"""What every checkpoint says."""


@dataclasses.dataclass(frozen=True)
class AidFacts:
    """Whom a hearing-aid network was trained for, and through which model."""

    listener: Literal["theta", "audiogram"]
    """What it is told of a listener."""
    model: str
    """Fingerprint of the response model that it was trained through."""
    noise_reduction: bool
    """Whether it was trained to reduce noise."""
    healthy: tuple[tuple[float, ...], ...] = ()
    """θ of the model's animals with normal hearing."""
    audiogram_hz: tuple[float, ...] = EIGHT_HZ
    """Frequencies of the audiogram that it is told [Hz]; the default is of checkpoints that do not
    say it."""
    steps: int | None = None
    """Steps of its training."""
    best_step: int | None = None
    """The step whose weights were kept."""
    stopped_gaining: bool | None = None
    """Whether training went on until nothing was gained; None where nobody looked."""


def save_aid(path: str | Path, aid: Masks | LearnedFilters, facts: AidFacts) -> None:
    """Write an aid and what is known of its training as one file."""
    save_network(path, aid, **dataclasses.asdict(facts))


def load_aid(path: str | Path) -> tuple[Masks | LearnedFilters, AidFacts]:
    """Read an aid.

    Returns:
        The network in evaluation mode, and what its checkpoint says.

    Raises:
        ValueError: If the file is damaged, holds something else, or does not say enough.
    """
    aid, stored = load_network(path, Masks, LearnedFilters, former={"Waveform": LearnedFilters})
    return cast(Masks | LearnedFilters, aid), aid_facts(stored, path)


def aid_facts(stored: Mapping[str, Any], path: str | Path) -> AidFacts:
    """Facts of an aid from a checkpoint's JSON.

    Raises:
        ValueError: If something is missing; the message names it and the file.
    """
    require_facts(stored, NEEDED, path, "aids as recipes.train_compensation writes them")
    said = {f.name: stored[f.name] for f in dataclasses.fields(AidFacts) if f.name in stored}
    healthy = tuple(map(tuple, stored.get("healthy") or ()))
    frequencies = tuple(stored.get("audiogram_hz") or EIGHT_HZ)
    return AidFacts(**said | {"healthy": healthy, "audiogram_hz": frequencies})
