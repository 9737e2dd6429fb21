"""How many answers fitting by ear needs: `python -m recipes.benchmarks.listening`.

Simulated listeners (`compensation.simulated_listeners`) compare two θ by what each is worth to
them. Pairs are proposed by `compensation.preference` (ours), which takes from a model which errors
of θ matter; without that (isotropic), or with a guess from the listener's audiogram too
(audiogram), both where animals are measured; or drawn at random, or by BoTorch as it comes. Random
pairs are judged by our estimate, so that pairs alone differ.

What a θ is worth is the restoration that an aid with this θ gives on a simulated animal:
`measured` names a finished seed of `recipes.benchmarks.aids`, whose aid is measured at many θ. The
animals are drawn anew, one a listener: none is of that seed's cohort, and no network has met any.
Without it there is a stand-in. The tables say which was used.

Methods are compared on the same listeners, who are drawn again for the intervals
(`evaluation.comparison`); they speak of other listeners, not of another aid or model. Seed 0 is for
choices (`recipes/configs/benchmarks/listening/development.yaml`), others are reported.

Run the same command again to go on: listeners that were finished are kept.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from compensation import simulated_listeners as simulated
from compensation.aid import Aid
from compensation.listener import theta_like
from compensation.load import load_aid
from compensation.preference import Course, answered, estimate, propose
from compensation.sensitivity import sensitivity
from compensation.simulated_listeners import Answering, Listener
from evaluation.midbrains import restorations
from icsim.excerpts import KINDS, excerpts
from icsim.files import write_json
from icsim.fitting import sobol
from icsim.models.listener_space import ListenerSpace, listener_space
from icsim.seeds import seeded
from icsim.simulation.abr import ABR_FREQUENCIES_HZ, abr_thresholds
from icsim.sound import calibrate
from icsim.store import Cohort
from icsim.theta import between_animals, sample_listeners
from icsim.threshold_shifts import audiogram_of, shift_from_normal
from recipes.reports import listening as report
from recipes.reports.tables import Table
from recipes.running.commands import claim, run
from recipes.running.jobs import Job, side_by_side
from recipes.running.ranges import (
    ClosedUnitInterval,
    Count,
    NotEmptyStr,
    NotNegative,
    Seconds,
    Seed,
    checked,
)

LOOKS, CLOSE = 16, 0.05
"""Where interpolation promises the best, it is measured, at most so often, until that was measured
as near: few points lie in corners."""

CHUNKS = 8
"""Jobs among which the common θ are dealt."""

METHODS = {
    "ours": propose,
    "isotropic": propose,
    "audiogram": propose,
    "random": simulated.random_pair,
    "botorch": simulated.botorch_pair,
}
"""What proposes a pair."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Who listens, and how well."""

    out: NotEmptyStr = "runs/benchmarks/listening"
    """Folder: a file for each listener and method, `results.csv`, `headline.json`, tables and a
    figure."""
    parameters: list[Count] = dataclasses.field(default_factory=lambda: [3, 6])
    """Sizes of θ, P."""
    methods: list[str] = dataclasses.field(default_factory=lambda: ["ours", "random", "botorch"])
    """Which of these propose pairs."""
    listeners: Count = 20
    """For each size of θ; where an aid is measured, each is an animal of its own."""
    answers: Count = 60
    """That each gives at most."""
    measured: NotEmptyStr | None = None
    """Folder of a finished seed of `recipes.benchmarks.aids`, whose aid takes θ; a
    stand-in without it. `parameters` must be those of its model."""
    points: Count = 256
    """θ at which restoration is measured on every animal."""
    excerpts: Count = 4
    """Test sounds for that."""
    excerpt_s: Seconds = 2.0
    """Their length [s]."""
    surface: Literal["quadratic", "saturating"] = "quadratic"
    """What θ is worth where nothing was measured."""
    noise: NotNegative = 0.05
    """Standard deviation of choice noise, in units of the best worth."""
    same: NotNegative = 0.03
    """Difference below which "same" is answered, in the same units."""
    lapses: ClosedUnitInterval = 0.05
    """Share of answers that are given at random."""
    drift: NotNegative = 0.02
    """Standard deviation of the slowly changing preference for the first, in the same units."""
    animals: Count = 9
    """Other listeners that stand-ins lie among."""
    jobs: Count = 2
    """Processes side by side."""
    seed: Seed = 1
    """Of listeners, and of their animals; 0 is for choices, and is not reported."""


@dataclasses.dataclass(frozen=True)
class Fitting:
    """One listener fitted by one method."""

    config: Config
    method: str
    parameters: int
    index: int
    """Of the listener."""
    out: str
    """Where to, as JSON."""


@dataclasses.dataclass(frozen=True)
class Measuring:
    """An aid with some of the common θ, on all animals."""

    config: Config
    chunk: int
    """Which of `CHUNKS` parts of the θ."""
    out: str
    """Where to, as JSON."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One animal, whose best θ is looked for between those that were measured."""

    config: Config
    index: int
    """Of the listener."""
    parts: tuple[str, ...]
    """Files of what was measured."""
    out: str
    """Where to, as JSON."""


def benchmark(config: Config) -> list[Table]:
    """Fit everyone who was not fitted; returns the tables."""
    unknown = set(config.methods) - set(METHODS)
    if unknown or not config.methods:
        raise ValueError(f"methods must be some of {', '.join(METHODS)}, got {config.methods}")
    if "audiogram" in config.methods and not config.measured:
        raise ValueError("stand-ins have no audiogram: leave the method out, or give --measured")
    out = Path(config.out)
    claim(out, config)
    (out / "listeners").mkdir(exist_ok=True)
    if config.measured:
        side_by_side("restoration", _measurings(config, out), config.jobs, out)
        side_by_side("best θ", _findings(config, out), config.jobs, out)
    jobs, fittings = [], []
    for parameters in config.parameters:
        for index in range(config.listeners):
            for method in config.methods:
                name = f"{method}-{parameters}-{index:02d}"
                path = out / "listeners" / f"{name}.json"
                wanted = Fitting(config, method, parameters, index, str(path))
                fittings.append(wanted)
                jobs.append(Job(name, fit, wanted, path.with_suffix(".seconds")))
    side_by_side("listeners", jobs, config.jobs, out)
    rows = [
        report.rows_of(one.method, one.parameters, one.index, json.loads(Path(one.out).read_text()))
        for one in fittings
    ]
    utility = f"stand-in ({config.surface}), no restoration of a true animal"
    if config.measured:
        utility = (
            f"restoration on true animals, one a listener, at {config.points} θ and interpolated"
        )
    about = {
        "methods": config.methods,
        "parameters": config.parameters,
        "listeners": config.listeners,
        "seed": config.seed,
        "at_most": config.answers,
        "utility": utility,
    }
    return report.write(out, pd.concat(rows, ignore_index=True), about)


def fit(job: Fitting) -> None:
    """Ask one listener until the answers are used up, and note what is missing after each."""
    config, listener = job.config, listener_of(job.config, job.parameters, job.index)
    generator = np.random.default_rng([config.seed, job.parameters, job.index, 1])
    answering = Answering(config.noise, config.same, config.lapses, config.drift)
    others = tuple(map(tuple, listener.others.tolist()))
    curvature = None if job.method == "isotropic" else listener.curvature
    start = listener.guess if job.method == "audiogram" else None
    course = Course(others, config.seed + job.index, start, curvature)
    regret, gains, bias = [], [], config.drift * generator.standard_normal()
    for _ in range(config.answers):
        pair = METHODS[job.method](course)
        bias = answering.drifted(bias, generator)
        course = answered(course, pair, answering.answer(listener, pair, bias, generator))
        if job.method == "botorch":
            theta = simulated.botorch_estimate(course)
        else:
            estimated = estimate(course)
            theta = estimated.theta
            gains.append(estimated.gain)
        regret.append(1 - listener.worth(theta))
    write_json(Path(job.out), {"regret": regret, "gain": gains})


def _measurings(config: Config, out: Path) -> list[Job]:
    """Jobs by part of the common θ: what an aid makes of a sound is the same for every animal."""
    (out / "measured").mkdir(exist_ok=True)
    jobs = []
    for chunk in range(min(CHUNKS, config.points)):
        path = _points(out, chunk)
        wanted = Measuring(config, chunk, str(path))
        jobs.append(Job(f"points {chunk + 1}", measure, wanted, path.with_suffix(".seconds")))
    return jobs


def _points(out: Path, chunk: int) -> Path:
    return out / "measured" / f"points-{chunk}.json"


def _findings(config: Config, out: Path) -> list[Job]:
    parts = tuple(str(_points(out, chunk)) for chunk in range(min(CHUNKS, config.points)))
    jobs = []
    for index in range(config.listeners):
        path = out / "measured" / f"listener-{index:02d}.json"
        wanted = Finding(config, index, parts, str(path))
        jobs.append(Job(f"listener {index}", find, wanted, path.with_suffix(".seconds")))
    return jobs


def measure(job: Measuring) -> None:
    """What the aid restores on each animal with each of some θ."""
    config, task = job.config, _task(job.config)
    points = task.points[job.chunk :: CHUNKS]
    animals = [simulated.new_animal(config.seed, n)[0] for n in range(config.listeners)]
    restored = restorations(task.process, animals, task.sound, points)
    write_json(Path(job.out), {"points": points.tolist(), "restoration": restored})


def find(job: Finding) -> None:
    """An animal's best θ between those measured, and what a laboratory learns of the animal."""
    config, task = job.config, _task(job.config)
    animal, truth = simulated.new_animal(config.seed, job.index)
    parts = [json.loads(Path(part).read_text()) for part in job.parts]
    points = torch.tensor([theta for part in parts for theta in part["points"]])
    restored = [worth for part in parts for worth in part["restoration"][job.index]]
    for _ in range(LOOKS):
        best = simulated.best_between(points.numpy(), np.array(restored))
        place = torch.from_numpy(best).to(points)[None]
        if torch.cdist(points, place).min() < CLOSE:
            break
        points = torch.cat([points, place])
        restored += restorations(task.process, [animal], task.sound, place)[0]
    name = f"listener {job.index}"
    thresholds = abr_thresholds(animal, seeded(config.seed, job.index))
    ear = shift_from_normal(task.cohort, name, thresholds, ABR_FREQUENCIES_HZ)
    alike = [audiogram_of(task.cohort, seen) for seen in task.space.names]
    content = {
        **truth,
        "others": task.space.theta.tolist(),
        "guess": theta_like(ear, alike, task.space.theta).tolist(),
        "points": points.tolist(),
        "restoration": restored,
        "curvature": task.curvature().tolist(),
    }
    write_json(Path(job.out), content)


@dataclasses.dataclass(frozen=True)
class Task:
    """An aid that takes θ, and what it is measured on."""

    cohort: Cohort
    aid: Aid
    space: ListenerSpace
    """The model, and the animals that it was trained on."""
    sound: Tensor
    """Test sounds [Pa], `(B, T)`."""
    points: Tensor
    """θ that the aid is given for every animal, `(n, P)`."""

    def process(self, sound: Tensor, listener: Tensor) -> Tensor:
        """Sounds by the aid, without noise reduction."""
        return self.aid.process(sound, listener, 0.0, 1.0)

    def curvature(self) -> Tensor:
        """How much errors of θ matter in the model, `(P, P)`; no animal is asked."""
        model, sound = self.space.model, self.sound
        each = [sensitivity(self.aid, model, sound, theta) for theta in self.space.theta]
        return torch.stack(each).sum(0)


def _task(config: Config) -> Task:
    if config.measured is None:
        raise ValueError("measured: a finished seed of recipes.benchmarks.aids is needed")
    folder = Path(config.measured)
    cohort = Cohort.open(folder / "cohort" / "cohort.zarr")
    space = listener_space(folder / "model" / "model.safetensors")
    aid, facts = load_aid(folder / "aids" / "masks" / "aid.safetensors")
    if facts.listener != "theta":
        raise ValueError(f"{folder}: its aid takes {facts.listener}; one that takes θ is needed")
    generator = seeded(config.seed)
    half = config.points // 2
    weights = between_animals(len(space.theta), half, generator)
    near = sample_listeners(weights, space.theta, space.deviation, 0.1, generator)
    far = sobol(config.points - half, space.theta.shape[1], config.seed)
    draw = np.random.default_rng([config.seed, 1])
    sound, _ = excerpts(cohort, KINDS, "test", config.excerpts, config.excerpt_s, draw)
    points = torch.cat([space.theta, near, far])
    return Task(cohort, aid, space, calibrate(sound, 65.0), points)


def listener_of(config: Config, parameters: int, index: int) -> Listener:
    """A measured animal, or a listener whose worth is a stand-in."""
    if not config.measured:
        draw = np.random.default_rng([config.seed, parameters, index, 0])
        saturating = config.surface == "saturating"
        return simulated.stand_in(config.animals, parameters, draw, saturating)
    path = Path(config.out) / "measured" / f"listener-{index:02d}.json"
    content = json.loads(path.read_text())
    guess = tuple(content.pop("guess"))
    names = ("others", "points", "restoration", "curvature")
    arrays = {name: np.array(content[name]) for name in names}
    size = arrays["points"].shape[1]
    if size != parameters:
        raise ValueError(
            f"{config.measured}: its model has {size} parameters, got {parameters}; "
            f"set parameters to [{size}]"
        )
    return simulated.measured(guess=guess, **arrays)


if __name__ == "__main__":
    print(*(table.markdown() for table in run(benchmark, Config)), sep="\n")
