"""Devices and models compared on the same listeners and sounds, with intervals and verdicts.

A result of some listeners and sounds is asked to hold for others, and for networks that were
trained anew. So all three are drawn again: seeds, and within each seed its listeners and its
sounds, whole, each with replacement and independently of the other, as every listener hears every
sound (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1, 386-411). All devices
share the draws, so that what makes one listener harder than another drops out of a difference.

With one seed the interval speaks for that seed's networks alone; its coverage is then .89 to .92
for six listeners, and .93 to .99 with three seeds (simulated normal effects of listeners, sounds,
seeds and their interactions; 95 % is meant).
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

FEWEST_LISTENERS = 4
"""Fewer do not say what holds for others: coverage of two is below .8, of four .9."""

FEWEST_SOUNDS = 4
"""The same of the sounds of a single seed, where several listeners hear them."""

FEWEST_SOUNDS_OF_ONE = 10
"""The same where one listener, or none, hears them: where there is no difference, intervals leave
out zero in 51 % of cases with 2 sounds, 16 % with 5, 11 % with 8, 9 % with 10 and 7 % with 20, and
5 % are meant (1500 draws of normal differences each)."""

CANNOT_BE_TOLD = "cannot be told"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One number about two devices, or about one and a bound, with its interval."""

    estimate: float
    low: float
    high: float
    """Ends of its interval; NaN where nothing was drawn."""
    bound: float | None
    """What it is held against: 0 of a difference, the share that is wanted of a ratio; None of a
    number that is held against nothing."""
    seeds: int
    listeners: int
    """Of all seeds together."""
    sounds: int
    """Of all seeds together; 0 where values are of no single sounds."""

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the interval lies on one side of the bound, and n suffices.

        Empty without a bound.
        """
        if self.bound is None:
            return ""
        alone = self.listeners == 1
        fewest = FEWEST_SOUNDS_OF_ONE if alone else FEWEST_SOUNDS
        few_sounds = self.seeds == 1 and 0 < self.sounds < fewest
        if few_sounds or (self.listeners < FEWEST_LISTENERS and not alone):
            return CANNOT_BE_TOLD
        if self.low > self.bound:
            return "better"
        return "worse" if self.high < self.bound else CANNOT_BE_TOLD

    def to_json(self) -> dict[str, float | str | None]:
        """All fields and the verdict; None for what is not finite, which JSON does not know."""
        numbers = dataclasses.asdict(self)
        finite = {
            name: x if x is not None and math.isfinite(x) else None for name, x in numbers.items()
        }
        return finite | {"verdict": self.verdict or None}


@dataclasses.dataclass(frozen=True)
class Resampled:
    """Values of listeners as they are, and as each draw has them.

    One listener alone is judged on drawn sounds; a single seed is taken as it is.
    """

    values: Tensor
    """The first of the draws is the sample itself, `(1 + R, D, L)`."""
    weights: Tensor
    """How often each draw has each listener, `(1 + R, L)`."""
    seeds: int
    sounds: int

    def mean(self) -> Tensor:
        """Over listeners, `(1 + R, D)`."""
        weights = self.weights.unsqueeze(1)
        # A listener that a draw does not have may have no value there.
        total = (self.values.where(weights > 0, 0) * weights).sum(-1)
        return total / weights.sum(-1)

    def median(self) -> Tensor:
        """Over listeners, `(1 + R, D)`."""
        order = self.values.argsort(-1)
        ascending = self.values.gather(-1, order)
        passed = self.weights.unsqueeze(1).expand_as(self.values).gather(-1, order).cumsum(-1)
        half = passed[..., -1:] / 2
        # The listener in the middle, or the two of whom it lies between.
        middle = [(passed < half).sum(-1, True), (passed <= half).sum(-1, True)]
        lower, upper = (ascending.gather(-1, place) for place in middle)
        return (lower + upper).squeeze(-1) / 2

    def mean_magnitude(self) -> Tensor:
        """Of each listener's value, `(1 + R, D)`: errors of either sign do not cancel."""
        return dataclasses.replace(self, values=self.values.abs()).mean()

    def comparison(
        self, draws: Tensor, bound: float | None = 0.0, confidence: float = 0.95
    ) -> Comparison:
        """Estimate and percentile interval of a quantity that was computed for each draw.

        Args:
            draws: Of the sample itself, and of each draw, `(1 + R,)`.
            bound: See `Comparison`.
            confidence: Coverage wanted.
        """
        tail = (1 - confidence) / 2
        # Draws in which nobody has a value say nothing.
        low, high = draws[1:].nanquantile(draws.new_tensor([tail, 1 - tail])).tolist()
        listeners = self.weights.shape[1]
        if self.seeds == listeners == 1 and self.sounds < 2:
            low = high = math.nan
        return Comparison(draws[0].item(), low, high, bound, self.seeds, listeners, self.sounds)


def resample(
    amounts: Tensor,
    totals: Tensor,
    seeds: Sequence[Hashable],
    listeners: Sequence[Hashable],
    sounds: Sequence[Hashable] | None,
    resamples: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Draw seeds, listeners and sounds again; a listener's value is a ratio of sums over sounds.

    For restoration the amounts are unaided less aided discrepancies and the totals unaided ones;
    for the mean of a score they are the scores and ones.

    Args:
        amounts: Of each device on each row, `(D, n)`.
        totals: `(n,)` or `(D, n)`.
        seeds: Of each row: which training, cohort and sounds it is of, n of them.
        listeners: Of each row; of one name in two seeds are two listeners.
        sounds: Of each row, the same. Rows of one listener and sound (levels, say) are drawn
            together. None if values are of no single sounds, so that none can be drawn.
        resamples: R.
        seed: Of the draws.

    Raises:
        ValueError: If shapes differ, there is no row, or a number is not finite.

    >>> draws = resample(torch.tensor([[1.0, 1.0], [2.0, 2.0]]), torch.ones(2), [0, 0], "ab", "xx")
    >>> draws.mean()[0]
    tensor([1., 2.], dtype=torch.float64)
    """
    named = sounds is not None
    sounds = sounds if sounds is not None else [None] * len(seeds)
    amounts, totals = amounts.double(), totals.double().expand(amounts.shape)
    if amounts.ndim != 2 or not amounts.shape[1] == len(seeds) == len(listeners) == len(sounds):
        raise ValueError(
            f"amounts must be (D, n) with n seeds, listeners and sounds, got "
            f"{tuple(amounts.shape)}, {len(seeds)}, {len(listeners)} and {len(sounds)}"
        )
    if not len(seeds) or not bool((amounts.isfinite() & totals.isfinite()).all()):
        raise ValueError(f"{amounts.shape[1]} rows, of which some are not finite; leave those out")
    draw = np.random.default_rng(seed)
    trainings = list(dict.fromkeys(seeds))
    people = list(dict.fromkeys(zip(seeds, listeners, strict=True)))
    stimuli = list(dict.fromkeys(zip(seeds, sounds, strict=True)))
    by_training = _drawn(draw, [0] * len(trainings), resamples, fixed=len(trainings) == 1)
    of_listener = _drawn(draw, [s for s, _ in people], resamples, fixed=len(people) == 1)
    of_sound = _drawn(draw, [s for s, _ in stimuli], resamples)
    listener = torch.tensor([people.index(x) for x in zip(seeds, listeners, strict=True)])
    sound = torch.tensor([stimuli.index(x) for x in zip(seeds, sounds, strict=True)])
    training = torch.tensor([trainings.index(s) for s, _ in people])
    weights = of_sound[:, sound].unsqueeze(1)
    shape = (1 + resamples, len(amounts), len(people))
    sums = [
        torch.zeros(shape, dtype=torch.float64).index_add(2, listener, weights * each)
        for each in (amounts, totals)
    ]
    drawn = by_training[:, training] * of_listener
    # Whoever heard none of the drawn sounds has no value in that draw.
    drawn = drawn * (of_sound.new_zeros(shape[::2]).index_add(1, listener, of_sound[:, sound]) > 0)
    count = len(stimuli) if named else 0
    return Resampled(sums[0] / sums[1], drawn, len(trainings), count)


def difference(
    amounts: Tensor,
    totals: Tensor,
    seeds: Sequence[Hashable],
    listeners: Sequence[Hashable],
    sounds: Sequence[Hashable] | None,
    seed: int = 0,
    bound: float = 0.0,
) -> Comparison:
    """How much more the second of two devices has than the first, mean over listeners.

    Arguments as of `resample`, with two devices; `bound` as of `Comparison`.

    >>> scores = torch.tensor([[0.5, 0.6], [0.7, 0.8]])
    >>> difference(scores, torch.ones(2), [0, 0], ["anna", "anna"], ["a", "b"]).verdict
    'cannot be told'
    """
    draws = resample(amounts, totals, seeds, listeners, sounds, seed=seed)
    means = draws.mean()
    return draws.comparison(means[:, 1] - means[:, 0], bound)


def _drawn(
    draw: np.random.Generator, strata: Sequence[Hashable], resamples: int, fixed: bool = False
) -> Tensor:
    """How often each member is drawn from its stratum, `(1 + R, n)`; once each in the first row."""
    counts = np.ones((1 + resamples, len(strata)))
    if not fixed:
        for stratum in dict.fromkeys(strata):
            members = [i for i, s in enumerate(strata) if s == stratum]
            share = [1 / len(members)] * len(members)
            counts[1:, members] = draw.multinomial(len(members), share, resamples)
    return torch.from_numpy(counts)
