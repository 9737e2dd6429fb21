"""What an aid restores to unseen animals, by what it is told of them."""

import dataclasses

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compensation import hearing
from compensation.aid import Aid
from compensation.devices import ours
from compensation.listener import from_audiogram
from compensation.load import load_aid
from evaluation.devices import in_parts
from evaluation.neural import Midbrain, fidelity_and_clarity
from evaluation.tidy import read, where
from icsim.excerpts import KINDS, QUIET, excerpts
from icsim.simulation.animal import animal_from
from icsim.simulation.material import Material, conditions
from icsim.sound import calibrate
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of
from recipes.benchmarks.ic_tasks import animal_columns, number_rows, write_rows
from recipes.reports.ic_figures import FITTED
from recipes.reports.ic_listeners import AUDIOGRAM, BEST, FIT

MATERIAL = Material(excerpts=8, excerpt_s=1.0, speakers=1, pieces=1, short=1)
"""Sounds by which restoration is measured."""

CHOOSING, CHOOSING_S = 4, 0.6
"""Training sounds by which the best θ is chosen, and their length [s]."""


@dataclasses.dataclass(frozen=True)
class Restoration:
    """Aids for one unseen animal."""

    cohort: str
    model: str
    """The BetaICNet that both aids were trained through."""
    device: str
    fit: str
    """Table of the animal's fits."""
    animal: str
    aids: tuple[str, str]
    """Checkpoints: of one that takes θ, and one that takes audiograms."""
    out: str


def restore(job: Restoration) -> None:
    """Rows of discrepancies with each aid and without, summed over sounds, by level."""
    cohort = Cohort.open(job.cohort)
    animal = animal_from(cohort.truth(job.animal))
    impaired, healthy = in_parts(animal.expected_counts), in_parts(animal.healthy().expected_counts)
    (by_theta, _), (by_audiogram, facts) = map(load_aid, job.aids)
    rows = where(read(job.fit), measure="theta", way=FITTED).sort_values("sound")
    fit = torch.tensor(rows.value.to_numpy(), dtype=torch.float32)
    seen = hearing.space_of(job.model).theta
    ear = from_audiogram(audiogram_of(cohort, job.animal), facts.audiogram_hz)
    draw = np.random.default_rng(0)
    sounds, _ = excerpts(cohort, KINDS, "train", CHOOSING, CHOOSING_S, draw)
    sounds = calibrate(sounds, 65.0)
    among = torch.cat([fit[None], seen])
    tried = {str(place): _processed(by_theta, theta, sounds) for place, theta in enumerate(among)}
    left = _discrepancies(impaired, healthy, sounds, tried)
    best = among[min(range(len(among)), key=lambda place: left[str(place)][0])]
    listeners = {FIT: (by_theta, fit), BEST: (by_theta, best), AUDIOGRAM: (by_audiogram, ear)}
    columns = animal_columns(cohort, job.animal) | {"device": job.device}
    tables: list[pd.DataFrame] = []
    for condition in conditions(MATERIAL, cohort.description["seed"]):
        if condition.name != QUIET:
            continue
        level, sound = f"{condition.level_db_spl:g}", condition.noisy
        processed = {way: _processed(*aid, sound) for way, aid in listeners.items()}
        left = _discrepancies(impaired, healthy, sound, processed)
        tables.append(number_rows("unaided", {level: left[FIT][1]}, **columns))
        for way, (aided, _) in left.items():
            tables.append(number_rows("aided", {level: aided}, way=way, **columns))
    write_rows(job.out, tables)


def _processed(aid: Aid, listener: Tensor, sound: Tensor) -> Tensor:
    """What an aid makes of sounds for a listener, its noise reduction off."""
    (device,) = ours(aid, listener, reduces_noise=False).values()
    return device.process(sound)


def _discrepancies(
    impaired: Midbrain, healthy: Midbrain, sound: Tensor, processed: dict[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """With each device and without, in quiet, summed over sounds."""
    both = fidelity_and_clarity(impaired, healthy, sound, sound, processed)
    return {
        name: (measured["fidelity"][0].sum().item(), measured["fidelity"][1].sum().item())
        for name, measured in both.items()
    }
