"""The objective of a hearing-aid network, and the validation by which its training ends.

Listeners are drawn for every excerpt. A frozen model of hearing says what each should answer, and
terms guard against what that alone lets pass.
"""

import collections
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from icsim.loss import ResponseLoss
from icsim.theta import between_animals

from .bands import BandLevels
from .hearing import HearingModel
from .learned_filters import LearnedFilters
from .masks import Masks
from .objective import (
    Task,
    compensation,
    denoising,
    discrepancy_left,
    distortion,
    guards,
)

CONTEXT_BINS = 64
"""Bins at the start of an excerpt that are context and not compared, as of a training frame of the
model. Source: arXiv 2506.03088."""


GAIN = 0.001
"""Share of the discrepancy by which a validation must be better than the best before it to count as
a gain (chosen here)."""


def plateaus(errors: Sequence[float], patience: int) -> int:
    """How often an error stayed for some validations without falling by `GAIN` below its best.

    After each plateau the next one is waited for anew.

    >>> plateaus([1.0, 0.8, 0.8, 0.9, 0.7, 0.7, 0.7], patience=2)
    2
    """
    best, since, count = math.inf, 0, 0
    for error in errors:
        since += 1
        if error < best - GAIN:
            best, since = error, 0
        elif since == patience:
            count, since = count + 1, 0
    return count


def draw_listeners(
    models: Sequence[HearingModel],
    seen: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    theta: bool,
    widening: float = 0.0,
    misfit: float = 0.0,
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Listeners of a batch, near mixtures of the known ones.

    Args:
        models: Models of hearing that judge.
        seen: What an aid is given of each known listener, `(A, n)`.
        count: How many listeners, B.
        generator: Of all draws.
        theta: Whether aids are given the very listener that the first model has, θ, and no
            mixture of `known`.
        widening: Spread around and between the known listeners, in units of θ.
        misfit: Spread of what an aid is given around the listener: a fit is never exact.

    Returns:
        How much of each known one is in them, `(B, A)`; what the aid is given, `(B, n)`; and for
        each model the listeners and the normal ones that they are restored to, `(B, F)` each.
    """
    mixture = between_animals(len(seen), count, generator)
    drawn = [one.draw(mixture, widening, generator) for one in models]
    given = drawn[0][0] if theta else mixture @ seen
    noise = misfit * torch.randn(given.shape, generator=generator)
    return mixture, (given + noise).clamp(0, 1), drawn


Batch = dict[str, Tensor]
"""Excerpts as `Mixtures` gives them, with what an aid is given of each listener as `known`."""

Drawn = Sequence[tuple[Tensor, Tensor]]
"""For each model the listeners and the normal ones that they are restored to, `(B, F)` each."""

Tasks = dict[str, list[Task]]
"""By kind of task, one of each model."""


def tasks(
    models: Sequence[ResponseLoss], batch: Batch, drawn: Drawn, noise_reduction: bool = True
) -> Tasks:
    """What listeners should answer to some excerpts.

    Args:
        models: Frozen models of hearing, M of them.
        batch: Of `Mixtures`.
        drawn: For each model its listeners and their references, `(B, F)` each.
        noise_reduction: With what normal ears should answer to noise.

    Returns:
        By kind of task, one of each model.
    """
    noisy, in_noise = batch["noisy"], batch["in_noise"]
    judges = [(loss, *pair) for loss, pair in zip(models, drawn, strict=True)]
    terms = {
        "compensation": [
            compensation(loss, noisy, listener, normal, CONTEXT_BINS)
            for loss, listener, normal in judges
        ]
    }
    if noise_reduction:
        in_and_without = noisy[in_noise], batch["clean"][in_noise]
        terms["denoising"] = [
            denoising(loss, *in_and_without, normal[in_noise], CONTEXT_BINS, task.wanted[in_noise])
            for (loss, _, normal), task in zip(judges, terms["compensation"], strict=True)
        ]
    return terms


@torch.no_grad()
def discrepancy_left_over(
    models: Sequence[ResponseLoss],
    aid: Masks | LearnedFilters,
    held_out: Sequence[tuple[Batch, Tasks]],
) -> Tensor:
    """Share of the discrepancies that an aid leaves, mean over kinds of task.

    Args:
        models: Frozen models of hearing, M of them.
        aid: The network.
        held_out: Batches with their tasks.
    """
    left = collections.defaultdict(list)
    for batch, asked in held_out:
        noisy = batch["noisy"]
        parts = aid(noisy, batch["known"])
        for name, by_model in asked.items():
            if name == "compensation":
                processed = aid.render(noisy, parts, noise_reduction=0)
            else:
                processed = aid.render(noisy, parts, gain=0)[batch["in_noise"]]
            for loss, task in zip(models, by_model, strict=True):
                if len(processed):
                    after = loss(processed, task.listener, task.wanted, task.skip_bins)
                    left[name].append(torch.stack([after.sum(), task.unaided.sum()]))
    sums = torch.stack([torch.stack(pairs).sum(0) for pairs in left.values()])
    return (sums[:, 0] / sums[:, 1]).mean()


def totals(
    batch: Batch, asked: Sequence[Tasks], mean: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
    """What parts of a batch must know of the whole.

    Args:
        batch: Of this process.
        asked: Tasks of each of its parts.
        mean: Over processes.

    Returns:
        By term, how many excerpts have it, mean over processes; and by kind of task, how far each
        model is from it without an aid, mean over all excerpts.
    """
    in_noise = batch["in_noise"]
    both = torch.stack([torch.ones_like(in_noise).sum(), in_noise.sum()]).to(batch["noisy"])
    # Where no process has noise, sums are zero whatever they are divided by.
    every, some = mean(both).clamp(min=1e-6)
    count = collections.defaultdict(lambda: every, denoising=some, distortion=some)
    usual = {}
    for name in asked[0]:
        by_model = zip(*(part[name] for part in asked), strict=True)
        sums = torch.stack([sum(task.unaided.sum() for task in parts) for parts in by_model])
        usual[name] = mean(sums) / count[name]
    return count, usual


def training_terms(
    models: Sequence[ResponseLoss],
    aid: nn.Module,
    plain: Masks | LearnedFilters,
    batch: Batch,
    asked: Tasks,
    usual: dict[str, Tensor],
    gauge: BandLevels,
    intelligibility: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Every term of the objective on some excerpts, one number for each that has it.

    Args:
        models: Frozen models of hearing, M of them.
        aid: To be trained, possibly wrapped for several processes.
        plain: The same, not wrapped.
        batch: Of `Mixtures`, with what the aid is told of each listener as `known`, and their
            `thresholds` if a term needs them.
        asked: Of `tasks`.
        usual: Of `totals`.
        gauge: Measures levels.
        intelligibility: What is missing of it, `(B,)`, by clean speech, by what the aid makes of
            the noisy one and by the listeners' thresholds; this costs time.

    Raises:
        FloatingPointError: If what the aid makes of the sounds is not finite.
    """
    noisy, clean, in_noise = batch["noisy"], batch["clean"], batch["in_noise"]
    parts = aid(noisy, batch["known"])
    processed = {"compensation": plain.render(noisy, parts, noise_reduction=0)}
    if not bool(processed["compensation"].isfinite().all()):
        raise FloatingPointError("the aid's output is no longer finite")
    if "denoising" in asked:
        processed["denoising"] = plain.render(noisy, parts, gain=0)[in_noise]
    terms = {}
    for name, by_model in asked.items():
        judges = zip(models, by_model, usual[name], strict=True)
        left = [discrepancy_left(loss, processed[name], *of_model) for loss, *of_model in judges]
        terms[name] = torch.stack(left).mean(0)
    if "denoising" in asked:
        terms["distortion"] = distortion(processed["denoising"], noisy[in_noise], clean[in_noise])
    levels = gauge(noisy)
    gains = gauge(processed["compensation"]) - levels
    terms |= {name: term(gains) for name, term in guards(levels).items()}
    if intelligibility:
        rendered = plain.render(noisy, parts)
        terms["intelligibility"] = intelligibility(clean, rendered, batch["thresholds"])
    return terms


def rows_of(batch: Batch, drawn: Drawn, rows: slice) -> tuple[Batch, Drawn]:
    """Some excerpts of a batch and their listeners."""
    part = {name: value[rows] for name, value in batch.items()}
    return part, [(listener[rows], normal[rows]) for listener, normal in drawn]
