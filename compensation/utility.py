"""What θ is worth to a listener, learned from answers to "A or B?".

The utility of θ is quadratic, `−|Lᵀ(θ − best)|²`, of unknown maximum and curvature. Two θ far apart
then ask on which side of their middle the best one lies, and a clear answer halves what is left,
where a free-form process would learn something about two points alone. Utilities are in units of
the choice noise: a difference of 1 is chosen rightly in 84 % of answers.

Utilities that agree with the answers are drawn by Hamiltonian Monte Carlo: many short chains at
once, from the prior to the posterior while the answers are given weight.
"""

import dataclasses
import time

import numpy as np
from scipy.special import ndtr

LAPSE = 0.06
"""Share of answers that are given at random (chosen here)."""

WIDENING = 0.12
"""Standard deviation of best θ around and between the known listeners (chosen here)."""

GUESSED = 0.5
"""What is left of the prior's width where a guess is its centre (chosen here)."""

SCALE, SCALE_SPREAD = 8.0, 1.0
"""Loss of utility at a typical distance from the best: median and deviation of its logarithm
(chosen here)."""

STRETCH, SHEAR = 0.4, 0.25
"""Deviations of the curvature root's logarithmic diagonal, and of the rest of it (chosen here)."""

THRESHOLD, THRESHOLD_SPREAD = 0.6, 0.7
"""Difference below which none is heard: median and deviation of its logarithm (chosen here)."""

BIAS = 0.3
"""Standard deviation of a preference for the first of two (chosen here)."""

UNSURE = 0.1
"""Share of a steepness that is the same in all directions, where a model says which are steep
(chosen here)."""

CHAINS = 128
WARMING, MIXING, LEAPS = 12, 20, 6
"""Steps of the chains while answers gain weight and after, and leaps in each."""

SHRUNK = 0.3
"""Of covariances of the chains, towards none (chosen here)."""

ANSWERS = ("first", "same", "second")


@dataclasses.dataclass(frozen=True)
class Deadline:
    """When chains have to end; all are equal, as it does not change what is drawn."""

    at: float = dataclasses.field(default=np.inf, compare=False)
    """By `time.monotonic` [s]."""

    def check(self) -> None:
        """Raise `TimeoutError` if it is over."""
        if time.monotonic() >= self.at:
            raise TimeoutError("the time for drawing utilities is over")


@dataclasses.dataclass(frozen=True)
class Prior:
    """Where the best θ may lie before anything was asked."""

    centre: np.ndarray
    """`(P,)`."""
    root: np.ndarray
    """Lower root of the covariance, `(P, P)`."""
    steepness: np.ndarray
    """Lower root of the expected curvature, `(P, P)`: a listener loses 1 at the best of another on
    average."""

    @classmethod
    def around(
        cls,
        others: np.ndarray,
        start: np.ndarray | None = None,
        curvature: np.ndarray | None = None,
        sure: np.ndarray | None = None,
    ) -> "Prior":
        """Near and between listeners.

        Args:
            others: Those listeners, `(A, P)`.
            start: A guess of this one, `(P,)`: the prior is closer about it.
            curvature: Of the utility, `(P, P)`, of any size; None if no direction is known to
                matter more than others.
            sure: Covariance of the guess, `(P, P)`; half as wide as the listeners if None.
        """
        spread = others - others.mean(0)
        covariance = spread.T @ spread / len(others) + WIDENING**2 * np.eye(others.shape[1])
        root = np.linalg.cholesky(covariance)
        flat = np.eye(len(root))
        expected = flat / np.trace(covariance)
        if curvature is not None:
            modelled = curvature / np.trace(curvature @ covariance)
            expected = UNSURE * expected + (1 - UNSURE) * modelled
        steepness = np.linalg.cholesky(expected)
        if start is None:
            return cls(others.mean(0), root, steepness)
        if sure is not None:
            # What is best for a listener is near what describes it, not the same.
            near = (GUESSED * WIDENING) ** 2 * np.eye(len(root))
            return cls(start, np.linalg.cholesky(sure + near), steepness)
        return cls(start, GUESSED * root, steepness)

    @property
    def dimensions(self) -> int:
        """Independent normal numbers that make a utility and a listener."""
        parameters = len(self.centre)
        return parameters + 1 + parameters * (parameters + 1) // 2 + 2


@dataclasses.dataclass(frozen=True)
class Utility:
    """Quadratic utilities that agree with the answers, K of them."""

    best: np.ndarray
    """θ of the maximum, in the box, `(K, P)`."""
    centre: np.ndarray
    """The same before it was kept in the box, `(K, P)`."""
    root: np.ndarray
    """`L`, `(K, P, P)`."""
    threshold: np.ndarray
    """Difference below which none is heard, `(K,)`."""
    bias: np.ndarray
    """Preference for the first of two, `(K,)`."""

    def utilities(self, points: np.ndarray) -> np.ndarray:
        """Of θ `(n, P)`, `(K, n)`."""
        scaled = points @ self.root - (self.centre[:, None] @ self.root)
        return -(scaled**2).sum(-1)

    def answers(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Probabilities of "first", "same", "second" to pairs `(n, P)`, `(K, n, 3)`."""
        difference = self.utilities(first) - self.utilities(second) + self.bias[:, None]
        return _probabilities(difference, self.threshold[:, None])

    def favourite(self) -> np.ndarray:
        """θ of the largest mean utility, `(P,)`."""
        each = self.root @ self.root.transpose(0, 2, 1)
        pull = (each @ self.centre[:, :, None]).mean(0)[:, 0]
        curvature = each.mean(0)
        theta = self.best.mean(0)
        rate = 1 / np.linalg.eigvalsh(curvature)[-1]
        for _ in range(100):  # up the slope, inside the box
            theta = np.clip(theta + rate * (pull - curvature @ theta), 0, 1)
        return theta


def posterior(
    prior: Prior,
    first: np.ndarray,
    second: np.ndarray,
    answers: np.ndarray,
    generator: np.random.Generator,
    deadline: Deadline | None = None,
) -> Utility:
    """Draw utilities.

    Args:
        prior: Of the best θ.
        first: `(n, P)`.
        second: `(n, P)`.
        answers: Indices into `ANSWERS`, `(n,)`.
        generator: Of the chains.
        deadline: Of the drawing.

    Raises:
        TimeoutError: If the deadline passes.
    """
    deadline = deadline or Deadline()
    deadline.check()
    likelihood = _Heard(prior, first - second, first + second, answers)
    z = generator.standard_normal((CHAINS, prior.dimensions))
    if len(answers) == 0:
        return _utility(prior, z)
    with np.errstate(over="ignore", invalid="ignore"):  # of steps too long, which are not kept
        return _utility(prior, _chains(z, likelihood, generator, deadline))


def _chains(
    z: np.ndarray, likelihood_of: "_Heard", generator: np.random.Generator, deadline: Deadline
) -> np.ndarray:
    """Move chains from the prior to the posterior, `(K, dimensions)`."""
    likelihood, slope = likelihood_of(z)
    step = 0.6
    for turn in range(WARMING + MIXING):
        deadline.check()
        weight = min(1.0, ((turn + 1) / WARMING) ** 2)
        covariance = np.cov(z.T)
        # Few chains know it badly.
        covariance += SHRUNK * (np.diag(np.diag(covariance)) - covariance)
        spread = np.linalg.cholesky(covariance)
        momentum = generator.standard_normal(z.shape)
        moved, speed, value = z, momentum, (likelihood, slope)
        before = weight * likelihood - 0.5 * (z**2).sum(1) - 0.5 * (momentum**2).sum(1)
        length = step * generator.uniform(0.5, 1.2, (len(z), 1))
        for _ in range(LEAPS):
            speed = speed + 0.5 * length * ((weight * value[1] - moved) @ spread)
            moved = moved + length * (speed @ spread.T)
            value = likelihood_of(moved)
            speed = speed + 0.5 * length * ((weight * value[1] - moved) @ spread)
        after = weight * value[0] - 0.5 * (moved**2).sum(1) - 0.5 * (speed**2).sum(1)
        accepted = np.log(generator.uniform(size=len(z))) < after - before
        z = np.where(accepted[:, None], moved, z)
        likelihood = np.where(accepted, value[0], likelihood)
        slope = np.where(accepted[:, None], value[1], slope)
        step *= np.exp(0.5 * (accepted.mean() - 0.7))
    return z


class _Heard:
    """Log-likelihood of all answers, and its slope."""

    def __init__(self, prior, apart, together, answers):
        self.prior, self.apart, self.together = prior, apart, together
        self.sign = 1.0 - answers

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prior = self.prior
        utility = _utility(prior, z)
        root, parameters = utility.root, len(prior.centre)
        across = self.apart @ root
        along = self.together @ root - 2 * utility.centre[:, None] @ root
        difference = utility.bias[:, None] - (across * along).sum(-1)
        threshold = utility.threshold[:, None]
        chosen, by_difference, by_threshold = _slopes(difference, threshold, self.sign)
        weight = by_difference[:, :, None]
        in_across, in_along = weight * across, weight * along
        in_root = -(self.apart.T @ in_along)
        sums = in_across.sum(1)[:, None]
        in_root -= self.together.T @ in_across - 2 * utility.centre[:, :, None] * sums
        in_centre = 2 * (root * sums).sum(-1)
        i, j = _triangle(parameters)
        size = _size(z[:, parameters])
        in_shape = size[:, None] * (prior.steepness.T @ in_root)[:, i, j]
        stretched = np.exp(STRETCH * z[:, parameters + 1 : -2])
        slope = np.concatenate(
            [
                in_centre @ prior.root,
                0.5 * SCALE_SPREAD * (in_root * root).sum((1, 2))[:, None],
                in_shape * np.where(i == j, STRETCH * stretched, SHEAR),
                (by_threshold.sum(1) * THRESHOLD_SPREAD * utility.threshold)[:, None],
                BIAS * by_difference.sum(1, keepdims=True),
            ],
            axis=1,
        )
        return np.log(chosen).sum(1), slope


def _utility(prior: Prior, z: np.ndarray) -> Utility:
    """From independent normal numbers, `(K, dimensions)`."""
    parameters = len(prior.centre)
    centre = prior.centre + z[:, :parameters] @ prior.root.T
    i, j = _triangle(parameters)
    shape = z[:, parameters + 1 : -2]
    change = np.zeros((len(z), parameters, parameters))
    change[:, i, j] = np.where(i == j, np.exp(STRETCH * shape), SHEAR * shape)
    root = _size(z[:, parameters])[:, None, None] * (prior.steepness @ change)
    threshold = THRESHOLD * np.exp(THRESHOLD_SPREAD * z[:, -2])
    return Utility(centre.clip(0, 1), centre, root, threshold, BIAS * z[:, -1])


def _size(z: np.ndarray) -> np.ndarray:
    """Square root of the loss of utility at a typical distance, from its normal number, `(K,)`."""
    return np.exp(0.5 * SCALE_SPREAD * z) * np.sqrt(SCALE)


def _triangle(parameters: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tril_indices(parameters)


def _probabilities(difference: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    first, second = ndtr(difference - threshold), ndtr(-difference - threshold)
    clear = np.stack([first, 1 - first - second, second], axis=-1)
    return (1 - LAPSE) * clear + LAPSE / 3


def _slopes(difference: np.ndarray, threshold: np.ndarray, sign: np.ndarray):
    """Probability of what was answered, and slopes of its logarithm, `(K, n)` each."""
    factor = (1 - LAPSE) / np.sqrt(2 * np.pi)
    above = factor * np.exp(-0.5 * (difference - threshold) ** 2)
    below = factor * np.exp(-0.5 * (difference + threshold) ** 2)
    clear = ndtr(np.where(sign == 0, threshold - difference, sign * difference - threshold))
    clear = clear - np.where(sign == 0, ndtr(-threshold - difference), 0)
    probability = (1 - LAPSE) * clear + LAPSE / 3
    by_difference = np.where(sign == 0, below - above, np.where(sign > 0, above, -below))
    by_threshold = np.where(sign == 0, below + above, np.where(sign > 0, -above, -below))
    return probability, by_difference / probability, by_threshold / probability
