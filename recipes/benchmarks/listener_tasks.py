"""What θ knows of listeners whose truth is simulated: pieces of the benchmark of the model."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from evaluation.tidy import read, where
from icsim.channel_gains import broad
from icsim.metrics import expected_counts
from icsim.models.facts import ModelFacts
from icsim.models.listener_design import (
    most_informative,
    sound_information,
    unknown_listener,
)
from icsim.models.listener_fit import FittedListener, first_frames, fit_listener, stored_matching
from icsim.models.load import load_theta_model
from icsim.models.response import ResponseModel
from icsim.models.response_space import candidates, response_space
from icsim.models.scoring import Listener, encode, expect, score_animal
from icsim.recording import ALIGNMENT
from icsim.simulation.animal import animal_from
from icsim.simulation.cochlea import filter_sound
from icsim.store import Cohort
from recipes.benchmarks.ic_tasks import animal_columns, as_fitted, number_rows, write_rows
from recipes.reports.ic_figures import FITTED

DIMENSIONS = 6
"""Of the space of responses."""

EXCERPT_S = 3.0
"""Of each sound by which changes of responses are compared [s]."""

LATEST_H = 10
"""Until when changes are followed [h]."""

SETS, CALIBRATED_S = 4, 40.0
"""Disjoint sets of frames that one listener is fitted to, and how long they are in all [s]."""

EVENLY, CHOSEN = "evenly", "informative"
"""How frames are chosen: evenly from all sounds, or those that say most."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where listeners lie in the space of what they answer."""

    cohort: str
    model: str
    device: str
    tables: tuple[str, ...]
    """Files or folders of results that hold θ of seen and of fitted animals."""
    out: str


@dataclasses.dataclass(frozen=True)
class Changes:
    """How responses of the seen animals change through a recording, truly and as learned."""

    cohort: str
    model: str
    device: str
    sounds: int
    """How many test sounds are compared."""
    out: str


@dataclasses.dataclass(frozen=True)
class Precision:
    """How sure a fit is, and how it grows with the recording, of one unseen animal."""

    cohort: str
    model: str
    device: str
    animal: str
    out: str
    seconds: tuple[float, ...]
    """Of sound that it is fitted to, the most last [s]."""


def places(job: Places) -> None:
    """Rows of each animal's place, and of how listeners differ."""
    model, _ = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    rows = pd.concat([read(path) for path in job.tables], ignore_index=True)
    rows = where(rows, device=job.device, measure="theta", way=["", FITTED])
    wide = rows.pivot(index="listener", columns="sound", values="value")
    theta = torch.tensor(wide[sorted(wide, key=int)].to_numpy(), dtype=torch.float32)
    sounds = first_frames(cohort, cohort.animals()[0], model.context_bins, seconds=6.0)["sound"]
    space = response_space(model, sounds, candidates(model.listeners, 60), DIMENSIONS)
    shares = dict(enumerate((space.variance / space.variance.sum()).tolist(), 1))
    tables = [
        number_rows("space", {"dimensions": space.dimensions}),
        number_rows("variance", shares),
    ]
    for name, place in zip(wide.index, space.places(theta).tolist(), strict=True):
        numbers = dict(enumerate(place, 1))
        tables.append(number_rows("place", numbers, **animal_columns(cohort, name)))
    write_rows(job.out, [table.assign(device=job.device) for table in tables])


@torch.no_grad()
def changes(job: Changes) -> None:
    """Rows of rates and onsets by which responses change, and of what is explained at the end.

    What has changed by an hour is the share of the true change of the last hour, by projection on
    it; rate and onset are those of a line that begins to rise at the onset.
    """
    model, facts = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    hours = torch.arange(LATEST_H + 1.0)
    sounds = [sound for sound in cohort.sounds if sound.split == "test"][: job.sounds]
    samples = int(EXCERPT_S * cohort.clock.sample_rate_hz)
    excerpts = [cohort.pressure(sound.index)[None, :samples] for sound in sounds]
    context = (model.context_bins * model.clock.bin_samples, 0)
    latents = [model.latent(functional.pad(sound, context)) for sound in excerpts]
    filtered = [filter_sound(sound) for sound in excerpts]
    tables = []
    for place, name in enumerate(facts.animals):
        true = animal_from(cohort.truth(name))
        if not true.loss.drift_db_per_hour:
            continue
        matched = facts.matching[place] >= 0
        listener = Listener(facts.matching[place], place)
        truly, learned = [], []
        for sound, latent in zip(filtered, latents, strict=True):
            there = [true.expected_counts(sound, hour[None])[0, matched] for hour in hours]
            said = [expect(model, facts, listener, latent, hour[None])[matched] for hour in hours]
            truly.append(torch.stack(there).flatten(1))
            learned.append(torch.stack([expected_counts(one.log()) for one in said]).flatten(1))
        numbers = _course(hours, torch.cat(truly, 1), torch.cat(learned, 1))
        numbers["db_per_hour"] = true.loss.drift_db_per_hour
        tables.append(number_rows("drift", numbers, **animal_columns(cohort, name)))
    write_rows(job.out, [table.assign(device=job.device) for table in tables])


def _course(hours: Tensor, truly: Tensor, learned: Tensor) -> dict[str, float]:
    """Of expected counts at each hour, `(T, n)`."""
    change = truly[-1] - truly[0]
    by_hour = {
        name: ((counts - counts[0]) @ change / change.square().sum()).numpy()
        for name, counts in (("true", truly), ("learned", learned))
    }
    numbers = {}
    for name, course in by_hour.items():
        numbers[f"rate_{name}"], numbers[f"onset_{name}"] = _line(hours.numpy(), course)
        numbers |= {f"{name}_{hour:g}": share for hour, share in enumerate(course.tolist())}
    late, variance = truly[-1], (truly[-1] - truly[-1].mean()).square().sum()
    for name, said in (("with", learned[-1]), ("without", learned[0])):
        numbers[f"late_{name}"] = 1 - ((late - said).square().sum() / variance).item()
    moved = torch.stack([change, learned[-1] - learned[0]])
    numbers["correlation"] = torch.corrcoef(moved)[0, 1].item()
    return numbers


def _line(hours: np.ndarray, course: np.ndarray) -> tuple[float, float]:
    """Rate and onset of the line from zero that comes closest to a course."""
    onsets = np.linspace(0, 8, 81)
    rises = np.maximum(hours - onsets[:, None], 0)
    rates = (rises @ course) / (rises**2).sum(1)
    best = np.square(course - rates[:, None] * rises).sum(1).argmin()
    return float(rates[best]), float(onsets[best])


def precision(job: Precision) -> None:
    """Rows of how far fits to disjoint frames differ, and of FEVE and places by seconds."""
    model, facts = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    matching = stored_matching(cohort, job.animal, ALIGNMENT, model)
    prior = facts.channel_prior or broad(model.config.readout.classes)
    everything = first_frames(cohort, job.animal, model.context_bins, seconds=job.seconds[-1])
    frames = len(everything["sound"])

    def fit(taken: Sequence[int]) -> FittedListener:
        batch = {key: value[list(taken)] for key, value in everything.items()}
        return fit_listener(model, batch, matching, prior)

    each = max(1, round(frames * min(1.0, CALIBRATED_S / job.seconds[-1]) / SETS))
    spread = torch.randperm(frames, generator=torch.Generator().manual_seed(0)).tolist()
    fits = [fit(spread[n * each : (n + 1) * each]) for n in range(SETS)]
    tables = [number_rows("calibration", {"ratio": _disagreement(fits)})]
    space = response_space(
        model, everything["sound"][:8], candidates(model.listeners, 60), DIMENSIONS
    )
    latents, placed = encode(model, cohort), {}
    chosen = _informative(model, everything["sound"], job.seconds[-2] / job.seconds[-1])
    for seconds in job.seconds:
        count = max(1, round(frames * seconds / job.seconds[-1]))
        orders = {EVENLY: spread, CHOSEN: chosen}
        for way, order in orders.items():
            if count > len(order):
                continue
            fitted = fit(order[:count])
            placed[way, seconds] = space.places(fitted.theta[None])[0]
            feve = _score(model, facts, cohort, job.animal, fitted, latents)
            tables.append(number_rows("feve_by_seconds", {seconds: feve}, way=way))
    final = placed[EVENLY, job.seconds[-1]]
    for (way, seconds), place in placed.items():
        # What it would cost to take one for the other [nats a bin and channel].
        away = 0.5 * (place - final).square().sum().item()
        tables.append(number_rows("away_by_seconds", {seconds: away}, way=way))
    columns = animal_columns(cohort, job.animal) | {"device": job.device}
    write_rows(job.out, [table.assign(**columns) for table in tables])


def _disagreement(fits: Sequence[FittedListener]) -> float:
    """Mean squared difference of the logits of θ of pairs of fits a dimension, in units of what
    their covariances say: 1 if these are right."""
    values = []
    for n, first in enumerate(fits):
        for second in fits[n + 1 :]:
            size = len(first.theta)
            one, other = first.posterior, second.posterior
            away = (one.mean - other.mean)[:size].double()
            expected = (one.covariance + other.covariance)[:size, :size].double()
            values.append((away @ torch.linalg.solve(expected, away)).item() / size)
    return sum(values) / len(values)


def _informative(model: ResponseModel, sound: Tensor, share: float) -> list[int]:
    """The frames that say most of a listener nobody has recorded, best first."""
    theta, precision = unknown_listener(model)
    information = sound_information(model, sound, theta)
    return most_informative(information, precision, max(1, int(share * len(sound))))


def _score(
    model: ResponseModel,
    facts: ModelFacts,
    cohort: Cohort,
    animal: str,
    fitted: FittedListener,
    latents: dict[int, Tensor],
) -> float:
    """Mean FEVE of the test sounds."""
    listener = as_fitted(fitted)
    rows = score_animal(model, facts, cohort, animal, listener, latents)
    values = [row["feve"] for row in rows if row["feve"] is not None]
    return sum(values) / len(values)
