"""Fitting by ear: a listener answers "A or B?", and θ is found in few answers.

`propose` asks, `answered` notes, `estimate` says what is known. A `Course` is plain data and all
there is: the same course gives the same proposal, so the next pair can be computed for every
possible answer while the listener listens.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from compensation.utility import ANSWERS, Deadline, Prior, Utility, posterior

Answer = Literal["first", "second", "same"]

CATCH_FIRST, CATCH_EVERY = 9, 10
"""Answers before the first catch trial, and from one to the next (chosen here)."""

LEAST_ANSWERS = 20
"""Before a course may be finished (chosen on listeners who are not reported, docs/listening.md)."""

NEGLIGIBLE = 1.0
"""Gain that is not worth another question, in units of the choice noise: one that is not surely
heard (chosen here)."""

PAIRS = 256
"""Looked at for each proposal (chosen here)."""

STRETCHES = (1.0, 1.0, 1.5, 2.0)
"""How much further apart these are than two θ that may be best (chosen here)."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two θ to be heard, and which was better."""

    first: tuple[float, ...]
    """`(P,)`, in the unit box."""
    second: tuple[float, ...]
    """`(P,)`, in the unit box."""
    answer: Answer | None = None
    """Which was better; None until it is answered."""
    catch: bool = False
    """An earlier pair again, the other way round, to see whether it is answered alike."""


@dataclasses.dataclass(frozen=True)
class Course:
    """Everything about one fitting."""

    others: tuple[tuple[float, ...], ...]
    """θ of listeners that the aid was trained for, `(A, P)`."""
    seed: int
    """Of everything random."""
    start: tuple[float, ...] | None = None
    """A guess of this listener's θ, for instance from an audiogram, `(P,)`."""
    curvature: tuple[tuple[float, ...], ...] | None = None
    """How much errors of θ matter by direction: a matrix as `compensation.sensitivity` gives it,
    `(P, P)`; its size does not matter."""
    comparisons: tuple[Comparison, ...] = ()
    """All answered ones, in order."""
    covariance: tuple[tuple[float, ...], ...] | None = None
    """How sure the guess is, of θ, `(P, P)`; if not given, half as wide as known listeners are."""

    def __post_init__(self):
        if not self.others:
            raise ValueError("others is empty; give θ of listeners that the aid was trained for")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number from 0, got {self.seed!r}")
        parameters = len(self.others[0])
        for theta in self.others:
            _check(theta, parameters, "others")
        if self.start is not None:
            _check(self.start, parameters, "start")
        if self.curvature is not None:
            _check_symmetric("curvature", np.array(self.curvature, dtype=float), parameters)
        if self.covariance is not None:
            if self.start is None:
                raise ValueError("a covariance says how sure a start is; give the start too")
            _check_symmetric("covariance", np.array(self.covariance, dtype=float), parameters)
        for comparison in self.comparisons:
            _check(comparison.first, parameters, "first")
            _check(comparison.second, parameters, "second")
            if comparison.answer not in get_args(Answer):
                raise ValueError(
                    f"comparisons of a course must be answered, got {comparison.answer!r}; "
                    f"answer with one of {', '.join(get_args(Answer))}"
                )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is known of the best θ."""

    theta: tuple[float, ...]
    """The best, `(P,)`."""
    deviation: tuple[float, ...]
    """Standard deviations of where the best may be, `(P,)`."""
    gain: float
    """Utility that the best θ is expected to have over this one, in units of the choice noise."""
    finished: bool
    """Whether that is too little to ask on."""


def propose(course: Course, limit_s: float | None = None) -> Comparison:
    """The next pair, unanswered; the same for the same course.

    Args:
        course: What was answered so far.
        limit_s: When this time is over, a pair of well-spread points is proposed instead [s].
    """
    deadline = Deadline(np.inf if limit_s is None else time.monotonic() + limit_s)
    catch = _catch(course)
    if catch:
        return catch
    try:
        utility = _utility(course, deadline)
    except TimeoutError:
        return _spread(course)
    return _informative(utility, np.random.default_rng([course.seed, len(course.comparisons), 1]))


def answered(course: Course, comparison: Comparison, answer: Answer) -> Course:
    """The course with one more answer.

    Raises:
        ValueError: If the answer is none of "first", "second", "same".
    """
    if answer not in get_args(Answer):
        raise ValueError(f"answer must be one of {', '.join(get_args(Answer))}, got {answer!r}")
    noted = dataclasses.replace(comparison, answer=answer)
    return dataclasses.replace(course, comparisons=(*course.comparisons, noted))


def estimate(course: Course) -> Estimate:
    """The best θ so far, how certain it is, and whether to go on."""
    utility = _utility(course, Deadline())
    theta = utility.favourite()
    reached = utility.utilities(theta[None])[:, 0]
    utilities = -(((utility.best - utility.centre)[:, None] @ utility.root) ** 2).sum((1, 2))
    gain = float(np.maximum(utilities - reached, 0).mean())
    return Estimate(
        tuple(theta.tolist()),
        tuple(utility.best.std(0).tolist()),
        gain,
        gain < NEGLIGIBLE and len(course.comparisons) >= LEAST_ANSWERS,
    )


def catch_trials(comparisons: Sequence[Comparison]) -> tuple[int, int]:
    """How many catch trials were answered as the pair was before, and how many there were."""
    before: dict[tuple[tuple[float, ...], ...], Answer | None] = {}
    alike = []
    swapped: dict[Answer | None, Answer] = {"first": "second", "second": "first", "same": "same"}
    for one in comparisons:
        if one.catch and (one.second, one.first) in before:
            alike.append(swapped[one.answer] == before[one.second, one.first])
        before[one.first, one.second] = one.answer
    return sum(alike), len(alike)


def to_dict(course: Course) -> dict:
    """The course as JSON holds it."""
    return dataclasses.asdict(course)


def _check(theta: tuple[float, ...], parameters: int, name: str) -> None:
    if len(theta) != parameters or not parameters:
        raise ValueError(
            f"{name} has {len(theta)} numbers where θ of the first listener has "
            f"{parameters}; all must be of one model"
        )
    if not all(0 <= value <= 1 for value in theta):
        raise ValueError(f"{name} must lie in the unit box, got {theta}; clip it to 0…1")


def _check_symmetric(name: str, matrix: np.ndarray, parameters: int) -> None:
    if matrix.shape != (parameters, parameters) or not np.isfinite(matrix).all():
        raise ValueError(
            f"{name} must be a matrix ({parameters}, {parameters}) of finite numbers, got {matrix}"
        )
    lowest, highest = np.linalg.eigvalsh(matrix)[[0, -1]]
    symmetric = np.allclose(matrix, matrix.T, rtol=1e-3)
    if not symmetric or highest <= 0 or lowest < -1e-3 * highest:
        raise ValueError(f"{name} must be symmetric, without negative eigenvalues, got {matrix}")


@functools.lru_cache(maxsize=4)  # a proposal and the estimate beside it ask for the same
def _utility(course: Course, deadline: Deadline) -> Utility:
    shape = len(course.comparisons), len(course.others[0])
    first = np.array([one.first for one in course.comparisons]).reshape(shape)
    second = np.array([one.second for one in course.comparisons]).reshape(shape)
    answers = np.array([ANSWERS.index(one.answer) for one in course.comparisons], dtype=int)
    generator = np.random.default_rng([course.seed, len(course.comparisons), 0])
    return posterior(_prior(course), first, second, answers, generator, deadline)


def _informative(utility: Utility, generator: np.random.Generator) -> Comparison:
    """The pair after whose answer the favourite is expected to be best."""
    best, favourite = utility.best, utility.favourite()
    ends = best[generator.integers(len(best), size=(2, PAIRS))]
    ends[0, : PAIRS // 4] = favourite
    middle, half = ends.mean(0), (ends[0] - ends[1]) / 2
    # Further apart a pair is told apart more surely, and asks the same.
    half = half * generator.choice(STRETCHES, size=(PAIRS, 1))
    first, second = (middle + half).clip(0, 1), (middle - half).clip(0, 1)
    probability = utility.answers(first, second)
    utilities = utility.utilities(np.concatenate([best, favourite[None]]))
    # By pair and answer: utilities of all candidates, weighted by how well each utility foresaw it.
    weighted = (probability.reshape(len(best), -1).T @ utilities).reshape(PAIRS, len(ANSWERS), -1)
    score = weighted.max(-1).sum(-1)
    chosen = score.argmax()
    return Comparison(tuple(first[chosen].tolist()), tuple(second[chosen].tolist()))


def _spread(course: Course) -> Comparison:
    """A pair of well-spread points near and between the known listeners."""
    prior, parameters = _prior(course), len(course.others[0])
    # An additive recurrence: as even as a Sobol sequence, and without its tables.
    golden = 2.0
    for _ in range(30):
        golden = (1 + golden) ** (1 / (parameters + 1))
    steps = golden ** -np.arange(1.0, parameters + 1)
    shift = np.random.default_rng([course.seed, 3]).uniform(size=parameters)
    numbers = 2 * len(course.comparisons) + np.arange(2)[:, None]
    points = prior.centre + (2 * ((shift + numbers * steps) % 1) - 1) @ prior.root.T
    first, second = points.clip(0, 1).tolist()
    return Comparison(tuple(first), tuple(second))


def _prior(course: Course) -> Prior:
    start = None if course.start is None else np.array(course.start)
    curvature = None if course.curvature is None else np.array(course.curvature)
    covariance = None if course.covariance is None else np.array(course.covariance)
    return Prior.around(np.array(course.others), start, curvature, covariance)


def _catch(course: Course) -> Comparison | None:
    """If it is time, the clearest earlier pair that was not repeated, the other way round."""
    count = len(course.comparisons)
    if count < CATCH_FIRST or (count - CATCH_FIRST) % CATCH_EVERY:
        return None
    clear = [one for one in course.comparisons if one.answer != "same" and not one.catch]
    if not clear:
        return None
    repeated = {(one.second, one.first) for one in course.comparisons if one.catch}
    fresh = [one for one in clear if (one.first, one.second) not in repeated] or clear
    apart = [np.subtract(one.first, one.second) for one in fresh]
    one = fresh[int(np.argmax([difference @ difference for difference in apart]))]
    return Comparison(one.second, one.first, catch=True)
