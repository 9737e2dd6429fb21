"""Listeners placed by what they answer.

Two θ can be far apart and answer alike: a network leaves directions in which nothing changes. Here
a listener's place is what a model predicts of it, in coordinates in which half the squared distance
of two places is what it costs to take one for the other [nats a bin and channel]. Its dimensions
are as many as listeners differ in, and what they cost can be searched as a quadratic.
"""

import dataclasses
import math

import torch
from torch import Tensor

from icsim.fitting import Cost, Fit, Progress, evaluate
from icsim.seeds import seeded
from icsim.theta import Listeners, between_animals, sample_listeners

from .listener_posterior import DIFFERENCE
from .readouts import Prediction, require_categorical
from .response import ResponseModel
from .subjects import Subjects

WIDENING = 0.1
"""Standard deviation of candidates around and between the known listeners, in units of θ."""

TRUST = 0.1
"""How far costs are from a quadratic, as a share of it (chosen here)."""

AT_ONCE = 8
"""Candidates that are predicted at a time: what bounds memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class ResponseSpace:
    """Places of listeners for some sounds; made by `response_space`."""

    model: ResponseModel
    latent: Tensor
    """Of the sounds, `(B, Z, N)`."""
    sampled: Tensor
    """Bins and channels that are compared, of `(B, C, N)` flattened, `(n,)`."""
    centre: Tensor
    """Mean of the known listeners' coordinates, `(n K,)`."""
    axes: Tensor
    """Directions in which they differ most, `(n K, D)`."""
    variance: Tensor
    """Of the known listeners along each of them, `(D,)`, and what is left over last, `(D + 1,)`."""

    @torch.no_grad()
    def places(self, theta: Tensor) -> Tensor:
        """Places of listeners, `(n, P)` to `(n, D)`."""
        coordinates = _coordinates(self.model, self.latent, self.sampled, theta)
        return (coordinates - self.centre) @ self.axes

    @property
    def dimensions(self) -> float:
        """In how many dimensions listeners differ: of their variances, the squared sum over the sum
        of squares."""
        return (self.variance.sum() ** 2 / self.variance.square().sum()).item()


@torch.no_grad()
def response_space(
    model: ResponseModel,
    sound: Tensor,
    theta: Tensor,
    dimensions: int = 8,
    samples: int = 8192,
    seed: int = 0,
) -> ResponseSpace:
    """The space that known listeners span.

    Args:
        model: Conditioned on θ, with categorical counts.
        sound: Frames with context [Pa], `(B, T)`.
        theta: Of the listeners, `(n, P)`.
        dimensions: D, at most.
        samples: Bins and channels that are compared, at most.
        seed: Of their choice.
    """
    latent = model.latent(sound)
    bins = latent.shape[-1] - model.context_bins
    size = len(sound) * model.config.channels * bins
    sampled = torch.randperm(size, generator=seeded(seed))[:samples].sort().values
    coordinates = _coordinates(model, latent, sampled, theta)
    centre = coordinates.mean(0)
    away = (coordinates - centre).double()
    values, vectors = torch.linalg.eigh(away @ away.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = min(dimensions, len(theta) - 1)
    axes = away.T @ vectors[:, :kept] / values[:kept].sqrt().clamp(min=1e-12)
    variance = torch.cat([values[:kept], values[kept:].sum()[None]]) / len(theta)
    return ResponseSpace(model, latent, sampled, centre, axes.float(), variance.float())


def _coordinates(model: ResponseModel, latent: Tensor, sampled: Tensor, theta: Tensor) -> Tensor:
    """Twice the square roots of the probabilities of counts, `(n, samples K)`, so scaled that half
    a squared distance is, to second order, the divergence a bin and channel."""
    parts = []
    for part in theta.split(AT_ONCE):
        predicted = model.predict(latent, Subjects(theta=part[None]), model.context_bins)
        roots = twice_roots(predicted).movedim(3, -1).transpose(0, 1).flatten(1, 3)
        parts.append(roots[:, sampled].flatten(1))
    return torch.cat(parts) / math.sqrt(len(sampled))


def twice_roots(predicted: Prediction) -> Tensor:
    """Twice the square roots of the probabilities of counts, `(B, A, C, K, N)`."""
    return 2 * (require_categorical(predicted).logits().log_softmax(3) / 2).exp()


def candidates(listeners: Listeners, count: int, seed: int = 0) -> Tensor:
    """The mean of the known listeners, each of them, and others around and between, `(n, P)`."""
    generator, animals = seeded(seed), listeners.at().detach()
    between = between_animals(len(animals), count, generator)
    deviation = listeners.deviation.detach()
    drawn = sample_listeners(between, animals, deviation, WIDENING, generator)
    return torch.cat([animals.mean(0, keepdim=True), animals, drawn])


def search_responses(
    cost: Cost,
    space: ResponseSpace,
    theta: Tensor,
    evaluations: int = 12,
    slopes: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit:
    """Search θ among candidates whose answers are known beforehand.

    What a candidate costs is a constant and half its squared distance from the listener sought, of
    which the place alone is unknown: each evaluation says more of it, and the next candidate is
    that of most expected improvement, as in Bayesian optimisation. From the fifth on, candidates
    closer and closer to the best are drawn.

    Args:
        cost: Differentiable if slopes are asked for.
        space: In which candidates are placed.
        theta: First candidates, `(n, P)`; the first of them is evaluated first.
        evaluations: How many candidates are evaluated.
        slopes: Whether each evaluation is of the cost and its slope.
        seed: Of the candidates that are drawn.
        progress: Called with the number of evaluations and the best cost so far.
    """
    generator, places = seeded(seed), space.places(theta)
    # A new listener may lie outside those that are known: twice their variance.
    sought = _PlaceSought(2 * space.variance[:-1].double())
    tried = [0]
    while True:
        chosen = tried[-1]
        sought.learn(*_evaluated(cost, space, theta[chosen], places[chosen], slopes))
        losses = sought.losses
        if progress:
            progress(len(losses), min(losses))
        if len(losses) == evaluations:
            break
        best = tried[losses.index(min(losses))]
        if len(losses) > 3:
            near = _near(theta[best], 2.0 / (len(losses) - 2), generator)
            theta, places = torch.cat([theta, near]), torch.cat([places, space.places(near)])
        gain = sought.expected_improvement(places.double())
        gain[tried] = -1
        tried.append(int(gain.argmax()))
    return Fit(theta[best], min(losses), theta[tried], torch.tensor(losses))


def _evaluated(
    cost: Cost, space: ResponseSpace, theta: Tensor, place: Tensor, slopes: bool
) -> tuple[float, Tensor, Tensor, Tensor]:
    """What one candidate costs, its place, and by logits of θ the slope of both, if asked for."""
    if not slopes:
        loss = evaluate(cost, theta[None]).item()
        return loss, place.double(), torch.zeros(0).double(), torch.zeros(0, len(place)).double()
    logits = theta.logit(eps=1e-3).requires_grad_()
    value = evaluate(cost, logits.sigmoid()[None])
    (slope,) = torch.autograd.grad(value.sum(), logits)
    steps = logits.detach() + DIFFERENCE * torch.eye(len(theta))
    moved = (space.places(steps.sigmoid()) - place) / DIFFERENCE
    return value.item(), place.double(), slope.double(), moved.double()


def _near(theta: Tensor, spread: float, draw: torch.Generator) -> Tensor:
    """Candidates around one, `(n, P)`, half of which differ in one dimension each."""
    noise = torch.randn(4 * AT_ONCE, len(theta), generator=draw)
    single = torch.rand(noise.shape, generator=draw).argsort(1) == 0
    noise[::2] *= single[::2]
    return (theta.logit(eps=1e-3) + spread * noise).sigmoid()


class _PlaceSought:
    """What evaluations say of the place of the listener sought: a normal density.

    Args:
        variance: Of listeners along each dimension, `(D,)`; their mean is 0.
    """

    def __init__(self, variance: Tensor):
        self.prior = variance.diag()
        self.losses: list[float] = []
        self.places: list[Tensor] = []
        self.slopes: list[tuple[Tensor, Tensor]] = []

    def learn(self, loss: float, place: Tensor, slope: Tensor, moved: Tensor) -> None:
        """Add an evaluation: its cost and place, and by logits the slopes of both."""
        self.losses.append(loss)
        self.places.append(place)
        self.slopes.append((slope, moved))

    def expected_improvement(self, places: Tensor) -> Tensor:
        """Of candidates at places `(n, D)` on the best evaluated, `(n,)`.

        Cost less that of the best is half a squared distance from the best, less the product with
        the place sought; so that this place is a linear regression of costs, and of slopes.
        """
        best = min(range(len(self.losses)), key=self.losses.__getitem__)
        here = torch.stack(self.places) - self.places[best]
        half = 0.5 * here.square().sum(1)
        ways, seen = [-here], [torch.tensor(self.losses).double() - self.losses[best] - half]
        noise = [1e-12 + (TRUST * half) ** 2]
        for (slope, moved), place in zip(self.slopes, here, strict=True):
            ways.append(-moved)
            seen.append(slope - moved @ place)
            far = (place.square().sum() + self.prior.diagonal().sum() / 100).sqrt()
            noise.append((TRUST * far * moved.norm(dim=1)) ** 2 + 1e-12)
        matrix, start = torch.cat(ways), -self.places[best]
        uncertain = matrix @ self.prior @ matrix.T + torch.cat(noise).diag()
        gain = self.prior @ matrix.T @ torch.linalg.inv(uncertain)
        sought = start + gain @ (torch.cat(seen) - matrix @ start)
        covariance = self.prior - gain @ matrix @ self.prior
        away = places - self.places[best]
        half = 0.5 * away.square().sum(1)
        variance = ((away @ covariance) * away).sum(1) + (TRUST * half) ** 2
        deviation = variance.clamp(min=1e-16).sqrt()
        normal = torch.distributions.Normal(0.0, 1.0)
        score = (away @ sought - half) / deviation
        return deviation * (score * normal.cdf(score) + normal.log_prob(score).exp())
