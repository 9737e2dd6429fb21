"""θ from what a clinic measures: a posterior learned on simulated listeners.

Each simulated listener has tests, a θ that was fitted to its responses, and a truth. A new one is
taken for those whose tests are alike, and θ is corrected for what tests still differ by
(approximate Bayesian computation with regression adjustment: Beaumont, Zhang & Balding 2002).
Tests that were not made are left out, and what they would have said stays open.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icsim.files import write_json

ALIKE = 1.5
"""How far tests of listeners may differ that are taken for alike, in units of their errors and
roots of their number (chosen here)."""

FEWEST = 20
"""Listeners that are taken for alike at the least, by their weights (chosen here)."""

OPEN = 0.7
"""Share of what was not known of a quantity before, from which on tests leave it open (chosen
here)."""


@dataclasses.dataclass(frozen=True)
class ClinicalPrior:
    """n simulated listeners, of whom everything is known."""

    model: str
    """Fingerprint of the model whose θ it is."""
    tests: dict[str, Tensor]
    """By name, `(n,)` each, with a clinic's errors."""
    errors: dict[str, float]
    """Standard deviation of each test around what is true."""
    logits: Tensor
    """Of θ, `(n, P)`."""
    covariance: Tensor
    """Of the logits of each, as it was fitted, `(n, P, P)`."""
    truth: dict[str, Tensor]
    """What is true of them, by name, `(n,)` each."""


@dataclasses.dataclass(frozen=True)
class ClinicalPosterior:
    """What tests say of one listener."""

    theta: Tensor
    """Mean θ, `(P,)`."""
    covariance: Tensor
    """Of θ, `(P, P)`."""
    quantities: dict[str, tuple[float, float, float]]
    """By name of what is true: mean, standard deviation, and the share of what was not known of it
    before that is left."""

    @property
    def open(self) -> list[str]:
        """Quantities of which the tests say next to nothing."""
        return [name for name, (_, _, left) in self.quantities.items() if left > OPEN]


def posterior(prior: ClinicalPrior, measured: Mapping[str, float]) -> ClinicalPosterior:
    """What is known of a listener by some of the tests.

    Raises:
        ValueError: If a test has another name, or none was made.
    """
    unknown = sorted(set(measured) - set(prior.tests))
    if unknown or not measured:
        raise ValueError(
            f"tests {', '.join(unknown) or 'are none'}; those that say something: "
            f"{', '.join(prior.tests)}"
        )
    units = torch.tensor([prior.errors[name] for name in measured]).double()
    rows = torch.stack([prior.tests[name] for name in measured], 1).double() / units
    away = rows - torch.tensor(list(measured.values())).double() / units
    weights = _weights(away.square().sum(1))
    described = torch.cat([prior.logits, torch.stack(list(prior.truth.values()), 1)], 1).double()
    slopes, freedom = _regression(away, described, weights)
    adjusted = described - away @ slopes
    mean = weights @ adjusted
    # A regression lies closer to those it was fitted to than to another one.
    count = 1 / weights.square().sum().item()
    adjusted = mean + (adjusted - mean) / max(0.1, 1 - freedom / count) ** 0.5
    spread = adjusted - mean
    size = prior.logits.shape[1]
    every = spread.T @ (weights[:, None] * spread)
    fits = torch.einsum("n,nij->ij", weights, prior.covariance.double())
    theta = mean[:size].sigmoid()
    # By the slope of the sigmoid at every listener, not at the mean: there it may be flat.
    through = (adjusted[:, :size].sigmoid() - theta) * weights.sqrt()[:, None]
    slope = weights[:, None] * adjusted[:, :size].sigmoid() * (1 - adjusted[:, :size].sigmoid())
    slope = slope.sum(0)
    covariance = through.T @ through + slope[:, None] * fits * slope
    before = described[:, size:].std(0)
    quantities = {
        name: (
            mean[size + place].item(),
            every[size + place, size + place].sqrt().item(),
            (every[size + place, size + place].sqrt() / before[place]).item(),
        )
        for place, name in enumerate(prior.truth)
    }
    return ClinicalPosterior(theta.float(), covariance.float(), quantities)


def held_out(prior: ClinicalPrior, tests: Sequence[str]) -> dict[str, tuple[float, float]]:
    """How well tests say what is true, each listener left out in turn.

    Returns:
        By quantity, and of θ: the share of its variance that is explained, and the root mean
        square of errors in units of what was said (of θ by the posterior's covariance).
    """
    count = len(prior.logits)
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in (*prior.truth, "θ")}
    for left_out in range(count):
        others = torch.arange(count) != left_out
        rest = dataclasses.replace(
            prior,
            tests={name: values[others] for name, values in prior.tests.items()},
            truth={name: values[others] for name, values in prior.truth.items()},
            logits=prior.logits[others],
            covariance=prior.covariance[others],
        )
        said = posterior(rest, {name: prior.tests[name][left_out].item() for name in tests})
        for name, (mean, deviation, _) in said.quantities.items():
            error = prior.truth[name][left_out].item() - mean
            errors[name].append((error, error / deviation))
        away = prior.logits[left_out].sigmoid() - said.theta
        inside = torch.linalg.solve(said.covariance + 1e-6 * torch.eye(len(away)), away)
        scaled = (away @ inside / len(away)).clamp(min=0).sqrt().item()
        errors["θ"].append((away.norm().item(), scaled))
    variances = {name: values.var(correction=0).item() for name, values in prior.truth.items()}
    variances["θ"] = prior.logits.sigmoid().var(0, correction=0).sum().item()
    squares = {name: torch.tensor(pairs).square().mean(0) for name, pairs in errors.items()}
    return {
        name: (1 - square.item() / variances[name], scaled.sqrt().item())
        for name, (square, scaled) in squares.items()
    }


def _weights(squares: Tensor) -> Tensor:
    """How much each listener counts, by the squared distance of its tests, `(n,)`."""
    width = ALIKE
    while True:
        weights = torch.softmax(-0.5 * squares / width**2, 0)
        if 1 / weights.square().sum() >= min(FEWEST, len(squares) / 2):
            return weights
        width *= 1.2


def _regression(away: Tensor, described: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """By how much what is known grows with each test, `(T, P + Q)`, and the degrees of freedom that
    this takes: a weighted ridge regression."""
    x = away - weights @ away
    y = described - weights @ described
    moments = x.T @ (weights[:, None] * x)
    ridge = moments + (2 / FEWEST) * torch.eye(len(moments)).to(away)
    slopes = torch.linalg.solve(ridge, x.T @ (weights[:, None] * y))
    return slopes, 1 + torch.linalg.solve(ridge, moments).trace().item()


def save(path: str | Path, prior: ClinicalPrior) -> None:
    """Write it as JSON."""
    content = dataclasses.asdict(prior)

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.tolist()
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    write_json(Path(path), plain(content))


def read(path: str | Path, model: str | None = None) -> ClinicalPrior:
    """Read what `save` wrote.

    Args:
        path: The file.
        model: Fingerprint of the model whose θ is wanted, if it is known.

    Raises:
        ValueError: If the file is no such table, or of another model.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        columns = {
            key: {name: torch.tensor(values) for name, values in content[key].items()}
            for key in ("tests", "truth")
        }
        prior = ClinicalPrior(
            model=content["model"],
            tests=columns["tests"],
            errors=content["errors"],
            logits=torch.tensor(content["logits"]),
            covariance=torch.tensor(content["covariance"]),
            truth=columns["truth"],
        )
        if prior.logits.ndim != 2 or set(prior.errors) != set(prior.tests):
            raise ValueError("logits must be (n, P), and every test have its error")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: no table of simulated listeners ({error!r}); make one with "
            "recipes.learn_clinical_prior"
        ) from error
    if model and prior.model != model:
        raise ValueError(
            f"{path}: is of another model ({prior.model}) than the one here ({model}); make one "
            "of this model with recipes.learn_clinical_prior"
        )
    return prior
