"""How many answers fitting by ear needs: `python -m recipes.benchmarks.listening`.

Simulated listeners compare two θ by what each is worth to them, with choice noise, lapses, a
drifting criterion, and "same" where they hear no difference. Pairs are proposed by
`compensation.preference` (ours), which knows from a model which errors are heard; without that
(shapeless), or with a guess from the listener's audiogram too (audiogram), both where animals are
measured; or drawn at random, or found by BoTorch as it comes (PairwiseGP, expected utility of the
best option). Random pairs are judged by our estimate, so that pairs alone differ.

What a θ is worth is the restoration that the aid told this θ gives on a true simulated animal:
`measured` names a finished seed of `recipes.benchmarks.aids`, whose aid is measured at many
θ and interpolated between them. The animals are drawn anew, one a listener: none is of that seed's
cohort, and no network has met any. Without it there is a stand-in: a bowl (`surface: bowl`), or one
that levels off far from its best (`surface: dome`); its best is 1, and another listener's θ is
worth 0.2 on average. `summary.json` says which was used.

Methods are compared on the same listeners, who are drawn again for the intervals
(`evaluation.comparison`); they speak of other listeners, not of another aid or model. Seed 0 is for
choices (`recipes/configs/benchmarks/listening/development.yaml`), others are reported.

Run the same command again to go on: listeners that were finished are kept.
"""

import dataclasses
import json
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from botorch import fit_gpytorch_mll
from botorch.acquisition import PosteriorMean
from botorch.acquisition.preference import AnalyticExpectedUtilityOfBestOption
from botorch.models.pairwise_gp import PairwiseGP, PairwiseLaplaceMarginalLogLikelihood
from botorch.optim import optimize_acqf
from matplotlib.figure import Figure
from scipy.interpolate import RBFInterpolator
from scipy.optimize import minimize
from torch import Tensor, nn

from compensation.listener import theta_like
from compensation.load import load_aid
from compensation.preference import (
    LEAST_ANSWERS,
    NEGLIGIBLE,
    Comparison,
    Course,
    answered,
    estimate,
    propose,
)
from compensation.sensitivity import sensitivity
from evaluation import comparison
from evaluation.comparison import resample
from evaluation.neural import discrepancy
from icsim.excerpts import excerpts
from icsim.files import write_json, write_whole
from icsim.fitting import sobol
from icsim.models.listener_space import listener_space
from icsim.models.response import ResponseModel
from icsim.seeds import seeded
from icsim.simulation.abr import ABR_FREQUENCIES_HZ, abr_thresholds
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.cochlea import filter_sound
from icsim.sound import calibrate
from icsim.store import Cohort
from icsim.theta import between_animals, sample_listeners
from icsim.threshold_shifts import audiogram_of, shift_from_normal
from recipes.reports.page import png
from recipes.reports.tables import Table, number
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

KINDS = ("speech", "noisy", "music", "instrument")
"""Classes of test sounds that a θ is judged on."""

NEAR = 0.05
"""Part of the best worth that may be missing where a search has arrived."""

DRIFT_ANSWERS = 20.0
"""Over which the criterion drifts (chosen here)."""

BETWEEN = {"kernel": "multiquadric", "epsilon": 2.0, "degree": 1}
"""How restoration is interpolated between measured θ: left-out points of six animals were met best
so, to 0.03 of the best in the median, linear interpolation to 0.05."""

STARTS = 12
"""Measured θ from which the best between them is sought."""

LOOKS, KNOWN = 16, 0.05
"""Where interpolation promises the best, it is measured, at most so often, until that was measured
as near: few points lie in corners."""

CHUNKS = 8
"""Jobs among which the common θ are dealt."""

CHANNELS = 32
"""Of a new animal; restoration is a ratio of sums over them, and hardly moves with more."""

NEW_SEEDS = 1_000_000
"""Seeds of new animals begin here: those of a cohort are far below."""

HIDDEN_EVERY = 3
"""Every third new animal has a hidden loss, as among a cohort's unseen ones with a loss."""

SEVERITY = (0.4, 1.8)
"""Of the others, uniform, in units of a typical loss."""

LEASTS = (8, 12, 16, 20, 24, 30, 40)
"""Minimum numbers of answers that the stopping rule is tried with."""

Theta = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Who listens, and how well."""

    out: NotEmptyStr = "runs/benchmarks/listening"
    """Folder: a file for each listener and method, `summary.json`, a table and a figure."""
    parameters: list[Count] = dataclasses.field(default_factory=lambda: [3, 6])
    """Sizes of θ, P."""
    methods: list[str] = dataclasses.field(default_factory=lambda: ["ours", "random", "botorch"])
    """Which of these propose pairs."""
    listeners: Count = 20
    """For each size of θ; where an aid is measured, each is an animal of its own."""
    answers: Count = 60
    """That each gives at most."""
    measured: NotEmptyStr | None = None
    """Folder of a finished seed of `recipes.benchmarks.aids`, whose aid is told θ; a
    stand-in without it. `parameters` must be those of its model."""
    points: Count = 256
    """θ at which restoration is measured on every animal."""
    excerpts: Count = 4
    """Test sounds for that."""
    excerpt_s: Seconds = 2.0
    """Their length [s]."""
    surface: Literal["bowl", "dome"] = "bowl"
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
    """Known listeners."""
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
    """An aid that is told some of the common θ, on all animals."""

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


@dataclasses.dataclass(frozen=True)
class Listener:
    """Someone whose taste is known."""

    known: np.ndarray
    """θ of other listeners, `(A, P)`."""
    best: np.ndarray
    """`(P,)`."""
    worth: Callable[[Sequence[float]], float]
    """Of a θ; 1 at the best."""
    shape: tuple[Theta, ...] | None = None
    """In which directions of θ errors are heard, in the opinion of a model."""
    guess: Theta | None = None
    """What the audiogram says, where there is one."""


def benchmark(config: Config) -> dict:
    """Fit everyone who was not fitted; write the summary."""
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
    jobs = []
    for parameters in config.parameters:
        for index in range(config.listeners):
            for method in config.methods:
                name = f"{method}-{parameters}-{index:02d}"
                path = out / "listeners" / f"{name}.json"
                wanted = Fitting(config, method, parameters, index, str(path))
                jobs.append(Job(name, fit, wanted, path.with_suffix(".seconds")))
    side_by_side("listeners", jobs, config.jobs, out)
    found = [json.loads(Path(job.config.out).read_text()) for job in jobs]
    summary = summarise(config, found)
    write_json(out / "summary.json", summary)
    write_whole(out / "table.md", "\n".join(table.markdown() for table in tables(summary)))
    write_whole(out / "regret.png", png(draw(summary)))
    return summary


def fit(job: Fitting) -> None:
    """Ask one listener until the answers are used up, and note what is missing after each."""
    config, listener = job.config, listener_of(job.config, job.parameters, job.index)
    generator = np.random.default_rng([config.seed, job.parameters, job.index, 1])
    known = tuple(map(tuple, listener.known.tolist()))
    shape = None if job.method == "shapeless" else listener.shape
    start = listener.guess if job.method == "audiogram" else None
    course = Course(known, config.seed + job.index, start, shape)
    proposed, estimated = METHODS[job.method]
    regret, gains, bias = [], [], config.drift * generator.standard_normal()
    for _ in range(config.answers):
        pair = proposed(course)
        bias = _drifted(bias, config.drift, generator)
        answer = listen(config, listener, pair, bias, generator)
        course = answered(course, pair, answer)
        theta, gain = estimated(course)
        regret.append(1 - listener.worth(theta))
        gains.append(gain)
    write_json(
        Path(job.out),
        {
            "method": job.method,
            "parameters": job.parameters,
            "listener": job.index,
            "regret": regret,
            "gains": gains,
        },
    )


def _measurings(config: Config, out: Path) -> list[Job]:
    """Jobs by part of the common θ: what an aid makes of a sound is the same for every animal."""
    (out / "measured").mkdir(exist_ok=True)
    jobs = []
    for chunk in range(min(CHUNKS, config.points)):
        path = out / "measured" / f"points-{chunk}.json"
        wanted = Measuring(config, chunk, str(path))
        jobs.append(Job(f"points {chunk + 1}", measure, wanted, path.with_suffix(".seconds")))
    return jobs


def _findings(config: Config, out: Path) -> list[Job]:
    parts = tuple(job.config.out for job in _measurings(config, out))
    jobs = []
    for index in range(config.listeners):
        path = out / "measured" / f"listener-{index:02d}.json"
        wanted = Finding(config, index, parts, str(path))
        jobs.append(Job(f"listener {index}", find, wanted, path.with_suffix(".seconds")))
    return jobs


def measure(job: Measuring) -> None:
    """What the aid restores on each animal, by the θ that it is told, for some of the θ."""
    task = _task(job.config)
    points = task.points[job.chunk :: CHUNKS]
    animals = [new_animal(job.config.seed, index)[0] for index in range(job.config.listeners)]
    found = restorations(task.aid, animals, task.sound, points)
    write_json(Path(job.out), {"points": points.tolist(), "restoration": found})


def find(job: Finding) -> None:
    """An animal's best θ between those measured, and what a laboratory knows of the animal."""
    config, task = job.config, _task(job.config)
    animal, truth = new_animal(config.seed, job.index)
    parts = [json.loads(Path(part).read_text()) for part in job.parts]
    points = torch.tensor([theta for part in parts for theta in part["points"]])
    found = [worth for part in parts for worth in part["restoration"][job.index]]
    for _ in range(LOOKS):
        best = torch.from_numpy(summit(points.numpy(), np.array(found))).to(points)[None]
        if torch.cdist(points, best).min() < KNOWN:
            break
        points = torch.cat([points, best])
        found += restorations(task.aid, [animal], task.sound, best)[0]
    name = f"listener {job.index}"
    thresholds = abr_thresholds(animal, seeded(config.seed, job.index))
    ear = shift_from_normal(task.cohort, name, thresholds, ABR_FREQUENCIES_HZ)
    alike = [audiogram_of(task.cohort, seen) for seen in task.names]
    content = {
        **truth,
        "known": task.known.tolist(),
        "guess": theta_like(ear, alike, task.known).tolist(),
        "points": points.tolist(),
        "restoration": found,
        "shape": task.shape().tolist(),
    }
    write_json(Path(job.out), content)


@dataclasses.dataclass(frozen=True)
class Task:
    """An aid that is told θ, and what it is measured on."""

    cohort: Cohort
    aid: nn.Module
    model: ResponseModel
    names: list[str]
    """Animals that the model knows."""
    known: Tensor
    """Their θ, `(A, P)`."""
    sound: Tensor
    """Test sounds [Pa], `(B, T)`."""
    points: Tensor
    """θ that the aid is told for every animal, `(n, P)`."""

    def shape(self) -> Tensor:
        """What the model says is heard of errors of θ, `(P, P)`; no animal is asked."""
        each = [sensitivity(self.aid, self.model, self.sound, theta) for theta in self.known]
        return torch.stack(each).sum(0)


def _task(config: Config) -> Task:
    folder = Path(config.measured)
    cohort = Cohort.open(folder / "cohort" / "cohort.zarr")
    space = listener_space(folder / "model" / "model.safetensors")
    aid, facts = load_aid(folder / "aids" / "masks" / "aid.safetensors")
    if facts.listener != "theta":
        raise ValueError(f"{folder}: its aid is told {facts.listener}; one told theta is needed")
    known = space.theta
    generator = seeded(config.seed)
    half = config.points // 2
    weights = between_animals(len(known), half, generator)
    near = sample_listeners(weights, known, space.deviation, 0.1, generator)
    far = sobol(config.points - half, known.shape[1], config.seed)
    draw = np.random.default_rng([config.seed, 1])
    sound, _ = excerpts(cohort, KINDS, "test", config.excerpts, config.excerpt_s, draw)
    return Task(
        cohort=cohort,
        aid=aid,
        model=space.model,
        names=list(space.names),
        known=known,
        sound=calibrate(sound, 65.0),
        points=torch.cat([known, near, far]),
    )


def new_animal(seed: int, index: int) -> tuple[Animal, dict]:
    """An animal with a loss that is of no cohort, and what its loss is."""
    own = NEW_SEEDS + 1000 * seed + index
    hearing = "hidden" if index % HIDDEN_EVERY == HIDDEN_EVERY - 1 else "HI"
    severity = float(np.random.default_rng(own).uniform(*SEVERITY)) if hearing == "HI" else 1.0
    animal = Animal(draw_anatomy(CHANNELS, own), draw_loss(hearing, severity, own))
    return animal, {"hearing": hearing, "severity": severity}


@torch.no_grad()
def restorations(
    aid: nn.Module, animals: Sequence[Animal], sound: Tensor, points: Tensor
) -> list[list[float]]:
    """Of sounds `(B, T)` by the aid told each θ `(n, P)`: a row an animal, a number a θ."""
    heard = filter_sound(sound)
    targets = [animal.healthy().expected_counts(heard) for animal in animals]
    unaided = [
        discrepancy(animal.expected_counts(heard), target).sum()
        for animal, target in zip(animals, targets, strict=True)
    ]
    found: list[list[float]] = [[] for _ in animals]
    for theta in points:
        # The ear's filters are the same for all animals, and most of the work.
        heard = filter_sound(aid.process(sound, theta.expand(len(sound), -1), 0.0, 1.0))
        for one, animal, target, before in zip(found, animals, targets, unaided, strict=True):
            aided = discrepancy(animal.expected_counts(heard), target).sum()
            one.append(1 - (aided / before).item())
    return found


def listener_of(config: Config, parameters: int, index: int) -> Listener:
    """A measured animal, or a listener whose worth is a stand-in."""
    if config.measured:
        return _measured(config, parameters, index)
    return _stand_in(config, parameters, index)


def _measured(config: Config, parameters: int, index: int) -> Listener:
    path = Path(config.out) / "measured" / f"listener-{index:02d}.json"
    found = json.loads(path.read_text())
    points, restoration = np.array(found["points"]), np.array(found["restoration"])
    if points.shape[1] != parameters:
        raise ValueError(
            f"{config.measured}: its model has {points.shape[1]} parameters, got {parameters}; "
            f"set parameters to [{points.shape[1]}]"
        )
    between = RBFInterpolator(points, restoration, **BETWEEN)
    best = summit(points, restoration)
    highest = between(best[None])[0]

    def worth(theta: Sequence[float]) -> float:
        return float(between(np.asarray(theta)[None])[0] / highest)

    shape = tuple(map(tuple, found["shape"]))
    return Listener(np.array(found["known"]), best, worth, shape, tuple(found["guess"]))


def summit(points: np.ndarray, restoration: np.ndarray) -> np.ndarray:
    """Where restoration, interpolated between points `(n, P)` of the unit box, is best, `(P,)`."""
    between = RBFInterpolator(points, restoration, **BETWEEN)
    found = [
        minimize(lambda theta: -between(theta[None])[0], start, bounds=[(0, 1)] * points.shape[1])
        for start in points[restoration.argsort()[-STARTS:]]
    ]
    return min(found, key=lambda one: one.fun).x.clip(0, 1)


def _stand_in(config: Config, parameters: int, index: int) -> Listener:
    """Near or between others, preferring some directions of θ to others."""
    draw = np.random.default_rng([config.seed, parameters, index, 0])
    known = 1 / (1 + np.exp(-1.3 * draw.standard_normal((config.animals, parameters))))
    one, other = draw.integers(len(known), size=2)
    between = draw.uniform()
    best = between * known[one] + (1 - between) * known[other]
    best = (best + 0.1 * draw.standard_normal(parameters)).clip(0.02, 0.98)
    axes, _ = np.linalg.qr(draw.standard_normal((parameters, parameters)))
    steepness = np.exp(draw.uniform(np.log(0.3), np.log(3), parameters))
    shape = axes @ np.diag(steepness) @ axes.T

    def fall(points: np.ndarray) -> np.ndarray:
        away = points - best
        return (away @ shape * away).sum(-1)

    size = 0.8 / fall(known).mean()

    def worth(theta: Sequence[float]) -> float:
        missing = size * float(fall(np.asarray(theta)))
        return 1 - missing if config.surface == "bowl" else 1.6 * np.exp(-missing / 1.6) - 0.6

    return Listener(known, best, worth)


def listen(
    config: Config, listener: Listener, pair: Comparison, bias: float, draw: np.random.Generator
) -> str:
    """What the listener answers."""
    noise, lapse, guess = draw.standard_normal(), draw.uniform(), draw.integers(3)
    if lapse < config.lapses:
        return ("first", "second", "same")[guess]
    difference = listener.worth(pair.first) - listener.worth(pair.second)
    difference += bias + config.noise * noise
    if abs(difference) < config.same:
        return "same"
    return "first" if difference > 0 else "second"


def _drifted(bias: float, deviation: float, draw: np.random.Generator) -> float:
    kept = np.exp(-1 / DRIFT_ANSWERS)
    return kept * bias + np.sqrt(1 - kept**2) * deviation * draw.standard_normal()


def _estimated(course: Course) -> tuple[Theta, float]:
    found = estimate(course)
    return found.theta, found.gain


def _random_pair(course: Course) -> Comparison:
    draw = np.random.default_rng([course.seed, len(course.comparisons), 5])
    return Comparison(*(tuple(draw.uniform(size=len(course.known[0])).tolist()) for _ in range(2)))


def _botorch_pair(course: Course) -> Comparison:
    """By expected utility of the best option."""
    seed, parameters = course.seed + len(course.comparisons), len(course.known[0])
    if not course.comparisons:
        return _pair(sobol(2, parameters, seed).double())
    model = _pairwise(course)
    return _pair(_optimum(AnalyticExpectedUtilityOfBestOption(model), parameters, 2, seed))


def _botorch_estimate(course: Course) -> tuple[Theta, None]:
    parameters, seed = len(course.known[0]), course.seed + len(course.comparisons)
    found = _optimum(PosteriorMean(_pairwise(course)), parameters, 1, seed)
    return tuple(found[0].tolist()), None


def _pairwise(course: Course) -> PairwiseGP:
    points, choices = [], []
    for index, one in enumerate(course.comparisons):
        points += [one.first, one.second]
        first = one.answer == "first"
        if one.answer == "same":  # which this model does not know: a coin decides
            first = bool(np.random.default_rng([course.seed, index]).integers(2))
        choices.append([2 * index, 2 * index + 1] if first else [2 * index + 1, 2 * index])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PairwiseGP(torch.tensor(points, dtype=torch.float64), torch.tensor(choices))
        fit_gpytorch_mll(PairwiseLaplaceMarginalLogLikelihood(model.likelihood, model))
    return model


def _optimum(acquisition, parameters: int, points: int, seed: int) -> torch.Tensor:
    bounds = torch.stack([torch.zeros(parameters), torch.ones(parameters)]).double()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        found, _ = optimize_acqf(acquisition, bounds, q=points, num_restarts=4, raw_samples=64)
    return found.detach()


def _pair(points: torch.Tensor) -> Comparison:
    return Comparison(*(tuple(point) for point in points.tolist()))


METHODS = {
    "ours": (propose, _estimated),
    "shapeless": (propose, _estimated),
    "audiogram": (propose, _estimated),
    "random": (_random_pair, _estimated),
    "botorch": (_botorch_pair, _botorch_estimate),
}
"""What proposes a pair, and what says the best θ and the gain that is left, if it does."""


def arrived(regret: Sequence[float]) -> int:
    """The answer from which on no more than `NEAR` is missing; one more than all if never.

    >>> arrived([0.2, 0.04, 0.1, 0.03, 0.02]), arrived([0.2, 0.1])
    (4, 3)
    """
    return max((n + 2 for n, missing in enumerate(regret) if missing > NEAR), default=1)


def stopped(gains: Sequence[float | None], least: int = LEAST_ANSWERS) -> int | None:
    """The answer after which a search ends by itself; None if it does not.

    >>> stopped([0.5, 3.0, 0.5], least=2), stopped([None, None], least=2)
    (3, None)
    """
    enough = (n for n, gain in enumerate(gains, 1) if gain is not None and gain < NEGLIGIBLE)
    return next((n for n in enough if n >= least), None)


def summarise(config: Config, found: list[dict]) -> dict:
    """Medians over listeners with intervals, and comparisons, by size of θ and method."""
    summary: dict = {"rows": [], "comparisons": [], "stopping": [], "each": []}
    for parameters in config.parameters:
        by_method = {
            method: [f for f in found if (f["method"], f["parameters"]) == (method, parameters)]
            for method in config.methods
        }
        needed = [[arrived(one["regret"]) for one in mine] for mine in by_method.values()]
        count = len(needed[0])
        draws = resample(torch.tensor(needed), torch.ones(count), [0] * count, range(count), None)
        medians = draws.median()
        for place, (method, mine) in enumerate(by_method.items()):
            answers = draws.comparison(medians[:, place])
            stops = [(one["regret"], stopped(one["gains"])) for one in mine]
            ended = [(regret[stop - 1], stop) for regret, stop in stops if stop]
            labels = {"method": method, "parameters": parameters}
            summary["rows"].append(
                {
                    **labels,
                    "answers": answers.estimate,
                    "interval": _interval(answers),
                    "arrived": sum(one <= config.answers for one in needed[place]) / count,
                    "finished": _median([stop for _, stop in ended]),
                    "regret_when_finished": _median([regret for regret, _ in ended]),
                    "regret": np.median([one["regret"] for one in mine], 0).tolist(),
                }
            )
            if place:
                fewer = draws.comparison(medians[:, place] - medians[:, 0])
                summary["comparisons"].append(
                    {
                        **labels,
                        "fewer": config.methods[0],
                        "difference": fewer.estimate,
                        "interval": _interval(fewer),
                        "listeners": fewer.listeners,
                        "verdict": fewer.verdict,
                    }
                )
            summary["stopping"] += [labels | _stopping(mine, least) for least in LEASTS]
            summary["each"] += [
                labels
                | {"listener": one["listener"], "answers": answers, "stopped": stop}
                | {"regret_when_stopped": regret[stop - 1] if stop else None}
                for one, answers, (regret, stop) in zip(mine, needed[place], stops, strict=True)
            ]
    utility = f"stand-in ({config.surface}), no restoration of a true animal"
    if config.measured:
        utility = (
            f"restoration on true animals, one a listener, at {config.points} θ and interpolated"
        )
    about = {"utility": utility, "listeners": config.listeners, "seed": config.seed}
    return about | {"at_most": config.answers, "least_answers": LEAST_ANSWERS} | summary


def _stopping(mine: list[dict], least: int) -> dict:
    """What is missing where searches end by themselves, if they may not before so many answers."""
    stops = [(one["regret"], stopped(one["gains"], least)) for one in mine]
    regrets = [regret[stop - 1] for regret, stop in stops if stop]
    return {
        "least": least,
        "stopped": len(regrets) / len(mine),
        "answers": _median([stop for _, stop in stops if stop]),
        "missing": _median(regrets),
        "within": sum(r <= NEAR for r in regrets) / len(regrets) if regrets else None,
    }


def _interval(one: comparison.Comparison) -> list[float] | None:
    return None if math.isnan(one.low) else [one.low, one.high]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def tables(summary: dict) -> list[Table]:
    """Answers needed, methods compared, and the stopping rule."""
    most = summary["at_most"]

    def count(value: float) -> str:
        return f"> {most}" if value > most else number(value, 1)

    about = (
        f"Answers until at most {100 * NEAR:g} % of the best worth is missing, for good: median of "
        f"{summary['listeners']} simulated listeners (seed {summary['seed']}) and 95 % interval "
        f"over listeners. Worth: {summary['utility']}."
    )
    header = ["P", "pairs", "answers", "interval", "arrived [%]", "stops after", "missing then"]
    needed = [
        [
            str(row["parameters"]),
            row["method"],
            count(row["answers"]),
            "–" if row["interval"] is None else " to ".join(map(count, row["interval"])),
            number(100 * row["arrived"], 0),
            number(row["finished"], 1),
            number(row["regret_when_finished"], 3),
        ]
        for row in summary["rows"]
    ]
    compared = [
        [
            str(row["parameters"]),
            f"{row['fewer']} than {row['method']}",
            number(row["difference"], 1),
            "–" if row["interval"] is None else " to ".join(number(v, 1) for v in row["interval"]),
            str(row["listeners"]),
            row["verdict"],
        ]
        for row in summary["comparisons"]
    ]
    stopping = [
        [
            str(row["parameters"]),
            row["method"],
            str(row["least"]),
            number(100 * row["stopped"], 0),
            number(row["answers"], 1),
            number(row["missing"], 3),
            number(None if row["within"] is None else 100 * row["within"], 0),
        ]
        for row in summary["stopping"]
        if row["stopped"]
    ]
    return [
        Table("Fitting by ear", about, header, needed),
        Table(
            "Fewer answers",
            "Difference of the medians on the same listeners, and 95 % interval; who has not "
            f"arrived counts as {most + 1}.",
            ["P", "fewer answers", "difference", "interval", "n", "verdict"],
            compared,
        ),
        Table(
            "Where a search ends by itself",
            f"If it may not before some answers ({summary['least_answers']} are asked). Medians of "
            f"those that end, and the share of them in which at most {NEAR:g} is missing.",
            ["P", "pairs", "at least", "ends [%]", "after", "missing then", "near enough [%]"],
            stopping,
        ),
    ]


def draw(summary: dict) -> Figure:
    """What is missing after each answer, by method."""
    sizes = list(dict.fromkeys(row["parameters"] for row in summary["rows"]))
    figure = Figure(figsize=(6.0, 3.0 * len(sizes)), layout="constrained")
    axes = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
    for axis, parameters in zip(axes, sizes, strict=True):
        for row in summary["rows"]:
            if row["parameters"] == parameters:
                axis.semilogy(
                    range(1, 1 + len(row["regret"])),
                    np.maximum(row["regret"], 1e-4),
                    label=row["method"],
                )
        axis.axhline(NEAR, color="grey", linestyle=":")
        axis.set(xlabel="answers", ylabel="missing worth, median", title=f"P = {parameters}")
        axis.legend()
    return figure


if __name__ == "__main__":
    print(*(table.markdown() for table in tables(run(benchmark, Config))), sep="\n")
