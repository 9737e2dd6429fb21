"""Simulated listeners who compare two θ by ear, and other ways of asking them.

A listener is worth asking where the answer is known: what a θ is worth to it is either the
restoration that an aid with this θ gives on a simulated animal, interpolated between θ at which it
was measured, or a stand-in of simple form. Answers come with choice noise, lapses, a drifting
preference for the first sound, and "same" where no difference is heard.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from scipy.optimize import minimize
from torch import Tensor

from compensation.preference import Comparison, Course
from icsim.fitting import sobol
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss

DRIFT_ANSWERS = 20.0
"""Answers over which the preference for the first sound drifts (chosen here)."""

INTERPOLATION = {"kernel": "multiquadric", "epsilon": 2.0, "degree": 1}
"""Of restoration between measured θ: left-out points of six animals were met best so, to 0.03 of
the best in the median, linear interpolation to 0.05."""

STARTS = 12
"""Measured θ from which the best between them is sought."""

CHANNELS = 32
"""Of a new animal; restoration is a ratio of sums over them, and hardly moves with more."""

NEW_SEEDS = 1_000_000
"""Seeds of new animals begin here: those of a cohort are far below."""

HIDDEN_EVERY = 3
"""Every third new animal has a hidden loss, as among a cohort's unseen ones with a loss."""

SEVERITY = (0.4, 1.8)
"""Of the others, uniform, in units of a typical loss."""

Theta = tuple[float, ...]

Answer = Literal["first", "second", "same"]


@dataclasses.dataclass(frozen=True)
class Listener:
    """Someone to whom it is known what every θ is worth."""

    others: np.ndarray
    """θ of other listeners, `(A, P)`."""
    best: np.ndarray
    """`(P,)`."""
    worth: Callable[[Sequence[float]], float]
    """Of a θ; 1 at the best."""
    curvature: tuple[Theta, ...] | None = None
    """Second derivatives of the worth in θ that a model expects, `(P, P)`, of any size."""
    guess: Theta | None = None
    """θ by the audiogram, where there is one."""


@dataclasses.dataclass(frozen=True)
class Answering:
    """How well a listener compares; all in units of the best worth."""

    noise: float = 0.05
    """Standard deviation of choice noise."""
    same: float = 0.03
    """Difference below which "same" is answered."""
    lapses: float = 0.05
    """Share of answers that are given at random."""
    drift: float = 0.02
    """Standard deviation of the slowly changing preference for the first sound."""

    def answer(
        self, listener: Listener, pair: Comparison, bias: float, draw: np.random.Generator
    ) -> Answer:
        """What a listener says of a pair, with such a preference for the first."""
        noise, lapse, guess = draw.standard_normal(), draw.uniform(), draw.integers(3)
        answers: tuple[Answer, ...] = ("first", "second", "same")
        if lapse < self.lapses:
            return answers[int(guess)]
        difference = listener.worth(pair.first) - listener.worth(pair.second)
        difference += bias + self.noise * noise
        if abs(difference) < self.same:
            return "same"
        return "first" if difference > 0 else "second"

    def drifted(self, bias: float, draw: np.random.Generator) -> float:
        """The preference for the first sound one answer later: a stationary AR(1) process."""
        correlation = float(np.exp(-1 / DRIFT_ANSWERS))
        step = float(np.sqrt(1 - correlation**2)) * self.drift * draw.standard_normal()
        return correlation * bias + step


def stand_in(
    animals: int, parameters: int, draw: np.random.Generator, saturating: bool = False
) -> Listener:
    """A listener near or between others, to whom some directions of θ matter more than others.

    Args:
        animals: Others, A.
        parameters: Of θ, P.
        draw: Of all of it.
        saturating: The worth levels off far from its best, where a quadratic one falls on. Another
            listener's θ is worth 0.2 on average by the quadratic one.
    """
    others = 1 / (1 + np.exp(-1.3 * draw.standard_normal((animals, parameters))))
    one, other = draw.integers(len(others), size=2)
    between = draw.uniform()
    best = between * others[one] + (1 - between) * others[other]
    best = (best + 0.1 * draw.standard_normal(parameters)).clip(0.02, 0.98)
    axes, _ = np.linalg.qr(draw.standard_normal((parameters, parameters)))
    steepness = np.exp(draw.uniform(np.log(0.3), np.log(3), parameters))
    curvature = axes @ np.diag(steepness) @ axes.T

    def fall(points: np.ndarray) -> np.ndarray:
        away = points - best
        return (away @ curvature * away).sum(-1)

    size = 0.8 / fall(others).mean()

    def worth(theta: Sequence[float]) -> float:
        missing = size * float(fall(np.asarray(theta)))
        return 1.6 * float(np.exp(-missing / 1.6)) - 0.6 if saturating else 1 - missing

    return Listener(others, best, worth)


def measured(
    others: np.ndarray,
    points: np.ndarray,
    restoration: np.ndarray,
    curvature: np.ndarray,
    guess: Theta,
) -> Listener:
    """A listener to whom a θ is worth the restoration that was measured at it, as a share.

    Args:
        others: θ of other listeners, `(A, P)`.
        points: θ at which restoration was measured, `(n, P)`.
        restoration: There, `(n,)`.
        curvature: As a model expects it, `(P, P)`.
        guess: θ by the audiogram, `(P,)`.
    """
    between = RBFInterpolator(points, restoration, **INTERPOLATION)
    best = best_between(points, restoration)
    highest = between(best[None])[0]

    def worth(theta: Sequence[float]) -> float:
        return float(between(np.asarray(theta)[None])[0] / highest)

    return Listener(others, best, worth, tuple(map(tuple, curvature.tolist())), guess)


def best_between(points: np.ndarray, restoration: np.ndarray) -> np.ndarray:
    """Where restoration, interpolated between points `(n, P)` of the unit box, is best, `(P,)`."""
    between = RBFInterpolator(points, restoration, **INTERPOLATION)
    ends = [
        minimize(lambda theta: -between(theta[None])[0], start, bounds=[(0, 1)] * points.shape[1])
        for start in points[restoration.argsort()[-STARTS:]]
    ]
    return min(ends, key=lambda end: end.fun).x.clip(0, 1)


def new_animal(seed: int, index: int) -> tuple[Animal, dict]:
    """An animal with a loss that is of no cohort, and what its loss is."""
    of_animal = NEW_SEEDS + 1000 * seed + index
    hearing = "hidden" if index % HIDDEN_EVERY == HIDDEN_EVERY - 1 else "HI"
    severity = (
        float(np.random.default_rng(of_animal).uniform(*SEVERITY)) if hearing == "HI" else 1.0
    )
    animal = Animal(draw_anatomy(CHANNELS, of_animal), draw_loss(hearing, severity, of_animal))
    return animal, {"hearing": hearing, "severity": severity}


def random_pair(course: Course) -> Comparison:
    """Two θ drawn at random from the unit box."""
    draw = np.random.default_rng([course.seed, len(course.comparisons), 5])
    first, second = (tuple(draw.uniform(size=len(course.others[0])).tolist()) for _ in range(2))
    return Comparison(first, second)


def botorch_pair(course: Course) -> Comparison:
    """Two θ by BoTorch as it comes: PairwiseGP, and the expected utility of the best option."""
    from botorch.acquisition.preference import AnalyticExpectedUtilityOfBestOption

    seed, parameters = course.seed + len(course.comparisons), len(course.others[0])
    if course.comparisons:
        acquisition = AnalyticExpectedUtilityOfBestOption(_pairwise(course))
        points = _optimum(acquisition, parameters, 2, seed)
    else:
        points = sobol(2, parameters, seed).double()
    first, second = (tuple(point) for point in points.tolist())
    return Comparison(first, second)


def botorch_estimate(course: Course) -> Theta:
    """The θ of highest posterior mean by BoTorch's PairwiseGP."""
    from botorch.acquisition import PosteriorMean

    parameters, seed = len(course.others[0]), course.seed + len(course.comparisons)
    return tuple(_optimum(PosteriorMean(_pairwise(course)), parameters, 1, seed)[0].tolist())


def _pairwise(course: Course):
    """BoTorch's model of the answers so far."""
    from botorch import fit_gpytorch_mll
    from botorch.models.pairwise_gp import PairwiseGP, PairwiseLaplaceMarginalLogLikelihood

    points, choices = [], []
    for index, one in enumerate(course.comparisons):
        points += [one.first, one.second]
        first = one.answer == "first"
        if one.answer == "same":  # which this model cannot take: a coin decides
            first = bool(np.random.default_rng([course.seed, index]).integers(2))
        choices.append([2 * index, 2 * index + 1] if first else [2 * index + 1, 2 * index])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PairwiseGP(torch.tensor(points, dtype=torch.float64), torch.tensor(choices))
        fit_gpytorch_mll(PairwiseLaplaceMarginalLogLikelihood(model.likelihood, model))
    return model


def _optimum(acquisition, parameters: int, points: int, seed: int) -> Tensor:
    from botorch.optim import optimize_acqf

    bounds = torch.stack([torch.zeros(parameters), torch.ones(parameters)]).double()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        best, _ = optimize_acqf(acquisition, bounds, q=points, num_restarts=4, raw_samples=64)
    return best.detach()
