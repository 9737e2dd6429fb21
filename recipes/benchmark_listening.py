"""How many answers fitting by ear needs: `python -m recipes.benchmark_listening`.

Simulated listeners compare two θ by what each is worth to them, with choice noise, lapses, a
drifting criterion, and "same" where they hear no difference. Pairs are proposed by
`compensation.preference` (ours), which knows from a model which errors are heard; without that
(shapeless), or with a guess from the listener's audiogram too (audiogram), both where animals are
measured; or drawn at random, or found by BoTorch as it comes (PairwiseGP, expected utility of the
best option). Random pairs are judged by our estimate, so that pairs alone differ.

What a θ is worth is the restoration that the aid told this θ gives on a true simulated animal:
`measured` names a finished seed of `recipes.benchmark_compensation`, whose aid is measured at many
θ, once for each animal, and interpolated between them. Without it there is a stand-in: a bowl
(`surface: bowl`), or one that levels off far from its best (`surface: dome`); its best is 1, and
another listener's θ is worth 0.2 on average. `summary.json` says which was used.

Run the same command again to go on: listeners that were finished are kept.
"""

import dataclasses
import json
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
from compensation.masks import Masks
from compensation.preference import Comparison, Course, answered, estimate, propose
from compensation.sensitivity import sensitivity
from compensation.waveform import Waveform
from evaluation.neural import discrepancy
from icsim.conditional import BetaICNet
from icsim.fitting import sobol
from icsim.simulation.animal import Animal, animal_from
from icsim.sound import calibrate
from icsim.store import Cohort
from icsim.theta import between_animals, sample_listeners
from icsim.weights import load_network
from recipes import ears
from recipes.benchmark_compensation.tasks import KINDS, excerpts
from recipes.cells import Table, number
from recipes.jobs import Job, side_by_side
from recipes.pages import png
from recipes.ranges import (
    ClosedUnitInterval,
    Count,
    NotEmptyStr,
    NotNegative,
    Seconds,
    Seed,
    checked,
)
from recipes.state import claim, run, seeded, write_json, write_whole

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

Theta = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """Who listens, and how well."""

    out: NotEmptyStr = "runs/benchmark_listening"
    """Folder: a file for each listener and method, `summary.json`, a table and a figure."""
    parameters: list[Count] = dataclasses.field(default_factory=lambda: [3, 6])
    """Sizes of θ, P."""
    methods: list[str] = dataclasses.field(default_factory=lambda: ["ours", "random", "botorch"])
    """Which of these propose pairs."""
    listeners: Count = 20
    """For each size of θ."""
    answers: Count = 60
    """That each gives at most."""
    measured: NotEmptyStr | None = None
    """Folder of a finished seed of `recipes.benchmark_compensation`, whose aid is told θ and whose
    unseen animals listen; a stand-in without it. `parameters` must be those of its model."""
    points: Count = 256
    """θ at which restoration is measured on each animal."""
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
    seed: Seed = 0
    """Of listeners."""

    __post_init__ = checked


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
    """One animal, on which an aid is measured that is told many θ."""

    config: Config
    animal: str
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
    write_whole(out / "table.md", table(summary).markdown())
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
    regret, finished, bias = [], None, config.drift * generator.standard_normal()
    for count in range(1, config.answers + 1):
        pair = proposed(course)
        bias = _drifted(bias, config.drift, generator)
        answer = listen(config, listener, pair, bias, generator)
        course = answered(course, pair, answer)
        theta, done = estimated(course)
        regret.append(1 - listener.worth(theta))
        if done and finished is None:
            finished = count
    write_json(
        Path(job.out),
        {
            "method": job.method,
            "parameters": job.parameters,
            "listener": job.index,
            "regret": regret,
            "finished": finished,
        },
    )


def _measurings(config: Config, out: Path) -> list[Job]:
    cohort = Cohort.open(Path(config.measured) / "cohort" / "cohort.zarr")
    (out / "measured").mkdir(exist_ok=True)
    jobs = []
    for animal in cohort.animals("unseen"):
        if cohort.truth(animal)["hearing"] != "NH":  # else there is nothing to restore
            path = out / "measured" / f"{animal}.json"
            wanted = Measuring(config, animal, str(path))
            jobs.append(Job(animal, measure, wanted, path.with_suffix(".seconds")))
    return jobs


def measure(job: Measuring) -> None:
    """What the aid restores on a true animal, by the θ that it is told."""
    config, folder = job.config, Path(job.config.measured)
    cohort = Cohort.open(folder / "cohort" / "cohort.zarr")
    model, learned = load_network(folder / "model" / "model.safetensors", BetaICNet)
    aid, facts = load_network(folder / "aids" / "masks" / "aid.safetensors", Masks, Waveform)
    if facts["listener"] != "theta":
        raise ValueError(f"{folder}: its aid is told {facts['listener']}; one told theta is needed")
    known, deviation = model.listeners.at().detach(), model.listeners.deviation.detach()
    generator = seeded(config.seed)
    half = config.points // 2
    weights = between_animals(len(known), half, generator)
    near = sample_listeners(weights, known, deviation, 0.1, generator)
    far = sobol(config.points - half, known.shape[1], config.seed)
    points = torch.cat([known, near, far])
    sound = calibrate(excerpts(cohort, KINDS, config, 1), 65.0)
    animal = animal_from(cohort.truth(job.animal))
    found = restorations(aid, animal, sound, points)
    for _ in range(LOOKS):
        best = torch.from_numpy(summit(points.numpy(), np.array(found))).to(points)[None]
        if torch.cdist(points, best).min() < KNOWN:
            break
        points, found = torch.cat([points, best]), found + restorations(aid, animal, sound, best)
    # What the model says is heard; the animal itself is not asked.
    shape = sum(sensitivity(aid, model, sound, theta) for theta in known)
    alike = [ears.audiogram(cohort, name) for name in learned["animals"]]
    content = {
        "known": known.tolist(),
        "guess": theta_like(ears.audiogram(cohort, job.animal), alike, known).tolist(),
        "points": points.tolist(),
        "restoration": found,
        "shape": shape.tolist(),
    }
    write_json(Path(job.out), content)


@torch.no_grad()
def restorations(aid: nn.Module, animal: Animal, sound: Tensor, points: Tensor) -> list[float]:
    """On the animal, of sounds `(B, T)` by the aid told each θ `(n, P)`."""
    target = animal.healthy().expected_counts(sound)
    unaided = discrepancy(animal.expected_counts(sound), target).sum()
    found = []
    for theta in points:
        processed = aid.process(sound, theta.expand(len(sound), -1), 0.0, 1.0)
        aided = discrepancy(animal.expected_counts(processed), target).sum()
        found.append(1 - (aided / unaided).item())
    return found


def listener_of(config: Config, parameters: int, index: int) -> Listener:
    """One of the measured animals in turn, or a listener whose worth is a stand-in."""
    if config.measured:
        return _measured(config, parameters, index)
    return _stand_in(config, parameters, index)


def _measured(config: Config, parameters: int, index: int) -> Listener:
    paths = sorted((Path(config.out) / "measured").glob("*.json"))
    found = json.loads(paths[index % len(paths)].read_text())
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


def _estimated(course: Course) -> tuple[Theta, bool]:
    found = estimate(course)
    return found.theta, found.finished


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


def _botorch_estimate(course: Course) -> tuple[Theta, bool]:
    parameters, seed = len(course.known[0]), course.seed + len(course.comparisons)
    found = _optimum(PosteriorMean(_pairwise(course)), parameters, 1, seed)
    return tuple(found[0].tolist()), False


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
"""What proposes a pair, and what says the best θ and whether to stop."""


def arrived(regret: Sequence[float]) -> int:
    """The answer from which on no more than `NEAR` is missing; one more than all if never.

    >>> arrived([0.2, 0.04, 0.1, 0.03, 0.02]), arrived([0.2, 0.1])
    (4, 3)
    """
    return max((n + 2 for n, missing in enumerate(regret) if missing > NEAR), default=1)


def summarise(config: Config, found: list[dict]) -> dict:
    """Medians over listeners, with intervals, by size of θ and method."""
    rows = []
    for parameters in config.parameters:
        for method in config.methods:
            mine = [f for f in found if (f["method"], f["parameters"]) == (method, parameters)]
            needed = [arrived(one["regret"]) for one in mine]
            stops = [one["finished"] for one in mine if one["finished"]]
            regret = np.array([one["regret"] for one in mine])
            rows.append(
                {
                    "method": method,
                    "parameters": parameters,
                    "answers": statistics.median(needed),
                    "interval": _interval(needed),
                    "arrived": sum(one <= config.answers for one in needed) / len(needed),
                    "finished": statistics.median(stops) if stops else None,
                    "regret_when_finished": statistics.median(
                        one["regret"][one["finished"] - 1] for one in mine if one["finished"]
                    )
                    if stops
                    else None,
                    "regret": np.median(regret, 0).tolist(),
                }
            )
    utility = f"stand-in ({config.surface}), no restoration of a true animal"
    if config.measured:
        utility = f"restoration on true animals, at {config.points} θ and interpolated"
    return {"utility": utility, "listeners": config.listeners, "at_most": config.answers} | {
        "rows": rows
    }


def _interval(values: Sequence[float], draws: int = 1000) -> list[float]:
    """Of the median, 95 %, by bootstrap over listeners."""
    draw = np.random.default_rng(0)
    chosen = np.asarray(values)[draw.integers(len(values), size=(draws, len(values)))]
    return np.quantile(np.median(chosen, 1), [0.025, 0.975]).tolist()


def table(summary: dict) -> Table:
    """Answers needed."""
    most = summary["at_most"]

    def count(value: float) -> str:
        return f"> {most}" if value > most else number(value, 1)

    rows = [
        [
            str(row["parameters"]),
            row["method"],
            count(row["answers"]),
            " to ".join(count(value) for value in row["interval"]),
            number(100 * row["arrived"], 0),
            number(row["finished"], 1),
            number(row["regret_when_finished"], 3),
        ]
        for row in summary["rows"]
    ]
    about = (
        f"Answers until at most {100 * NEAR:g} % of the best worth is missing, for good: median of "
        f"{summary['listeners']} simulated listeners and 95 % interval. "
        f"Worth: {summary['utility']}."
    )
    header = ["P", "pairs", "answers", "interval", "arrived [%]", "stops after", "missing then"]
    return Table("Fitting by ear", about, header, rows)


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
    print(table(run(benchmark, Config)).markdown())
