"""The posterior of one listener: θ, how it drifts, and gains of channels, found together.

Fisher scoring: at each step responses are linearised in the logits of θ, in the shifts of the time
transfer, and in the gain and offsets of every channel, and the normal equations of all are solved.
Gains belong to one channel each, so that they are eliminated channel by channel. What remains is a
system of θ and drift alone, whose inverse is their covariance, whatever the gains are.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from icsim.channel_gains import Prior
from icsim.fitting import Progress
from icsim.theta import HOURS, Drift, Listeners, time_transfer

from .listener_cost import ListenerCost
from .subjects import Subjects

DIFFERENCE = 0.01
"""By which slopes are taken, in logits of θ (chosen here)."""

LONGEST = 1.5
"""A step moves no logit further (chosen here)."""

WORTH = 0.5
"""Nats that a step must promise to be taken, and bring to be followed by another: as many as one
standard deviation costs (chosen here)."""

FRAMES = 8
"""Frames that are linearised at a time: what bounds memory."""


@dataclasses.dataclass(frozen=True)
class ListenerPrior:
    """Normal density of the logits of θ and of the shifts of the time transfer."""

    mean: Tensor
    """Logits, then shifts, `(2 P,)`."""
    covariance: Tensor
    """`(2 P, 2 P)`."""
    rate: Tensor
    """Of the time transfer, `(P,)`."""
    onset: Tensor
    """Of the time transfer, `(P,)`."""

    @property
    def parameters(self) -> int:
        """P."""
        return len(self.rate)

    def moved(self, hours: Tensor) -> Tensor:
        """What share of its shift each logit has moved at times `(B,)` [h], `(B, P)`."""
        one, nothing = torch.ones_like(self.rate), torch.zeros_like(self.rate)
        time = (hours / HOURS).to(one)[:, None]
        return time_transfer(nothing, one, self.rate, self.onset, time)

    def theta(self, states: Tensor, hours: Tensor) -> Tensor:
        """θ of states `(A, 2 P)` at times `(B,)` [h], `(B, A, P)`."""
        logits, shifts = states.split(self.parameters, 1)
        return (logits + shifts * self.moved(hours)[:, None]).sigmoid()

    def drift(self, state: Tensor) -> Drift:
        """How a listener of a state `(2 P,)` moves."""
        return Drift(state[self.parameters :], self.rate, self.onset)


def listener_prior(listeners: Listeners) -> ListenerPrior:
    """How listeners are distributed, by those that a model was trained on.

    They are few, and a new one may lie outside: twice their variance, and no dimension narrower
    than half a logit (chosen here).
    """
    states = states_of(listeners)
    away = states - states.mean(0)
    covariance = 2 * away.T @ away / max(1, len(away) - 1)
    parameters = listeners.mean.shape[1]
    covariance[:parameters, parameters:] = 0
    covariance[parameters:, :parameters] = 0
    floor = torch.tensor([0.25, 0.01]).repeat_interleave(parameters).to(states)
    rate, onset = (getattr(listeners, n).detach().mean(0) for n in ("rate", "onset"))
    return ListenerPrior(states.mean(0), covariance + torch.diag(floor), rate, onset)


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Normal density around one mode."""

    prior: ListenerPrior
    """Of the listener."""
    mean: Tensor
    """Logits of θ when the recording began, then shifts of the time transfer, `(2 P,)`."""
    covariance: Tensor
    """`(2 P, 2 P)`, whatever the gains are."""
    gains: Tensor | None
    """Gains and offsets of the channels, `(C, K)`, if they were fitted."""
    gain_covariance: Tensor | None
    """Of the gains and offsets of each channel, the listener being given, `(C, K, K)`."""
    cost: float
    """Negative log-posterior at the mode [nats]."""
    course: tuple[float, ...]
    """Negative log-likelihood at each evaluation [nats a bin and channel]."""

    def theta(self, hours: float = 0.0) -> Tensor:
        """θ at a time since the recording began [h], `(P,)`."""
        return self.prior.theta(self.mean[None], torch.tensor([hours]))[0, 0]

    def drift(self) -> Drift:
        """How the listener moves."""
        return self.prior.drift(self.mean)

    def distance(self, other: "Posterior") -> float:
        """Of another mode, in standard deviations of this one."""
        away = (other.mean - self.mean).double()
        return (away @ self.covariance.double().inverse() @ away).sqrt().item()

    def theta_covariance(self) -> Tensor:
        """Of θ when the recording began, `(P, P)`, by the slope of the sigmoid there."""
        parameters = self.prior.parameters
        slope = self.theta() * (1 - self.theta())
        return slope[:, None] * self.covariance[:parameters, :parameters] * slope


def states_of(listeners: Listeners) -> Tensor:
    """Logits and shifts of the listeners that a model was trained on, `(A, 2 P)`."""
    return torch.cat([listeners.mean, listeners.shift.expand_as(listeners.mean)], 1).detach()


@torch.no_grad()
def known_states(
    cost: ListenerCost, hours: Tensor, prior: ListenerPrior, listeners: Listeners
) -> Tensor:
    """The prior's mean and the known listeners, those that cost least first, `(A + 1, 2 P)`."""
    states = torch.cat([prior.mean[None], states_of(listeners)])
    each = [cost(part) for part in prior.theta(states, hours).split(4, 1)]
    return states[torch.cat(each).argsort()]


@torch.no_grad()
def fisher_scoring(
    cost: ListenerCost,
    hours: Tensor,
    prior: ListenerPrior,
    gain_prior: Prior | None,
    state: Tensor,
    gains: Tensor | None = None,
    evaluations: int = 12,
    progress: Progress | None = None,
) -> Posterior:
    """The most probable listener near one, and how sure that is.

    Args:
        cost: Of the animal's responses.
        hours: When each frame was presented [h], `(B,)`.
        prior: Of listeners.
        gain_prior: Of gains and offsets of channels; None leaves channels as the model has them.
        state: Where to begin: logits and shifts, `(2 P,)`.
        gains: Gains and offsets to begin from, `(C, K)`; those of the prior's mean if not given.
        evaluations: At most so many, each of the likelihood, its slope and its information.
        progress: Called after each.
    """
    precision, course = prior.covariance.double().inverse(), []
    if gain_prior is not None and gains is None:
        gains = gain_prior.mean.repeat(cost.counts.shape[1], 1)

    def evaluate(state: Tensor, gains: Tensor | None) -> tuple[_Quadratic, float]:
        """The likelihood around a listener, and the negative log-posterior."""
        around = _around(cost, hours, prior, state, gains)
        course.append(around.nats * cost.correlated_bins / cost.counts.numel())
        if progress:
            progress(len(course), min(course))
        away = (state - prior.mean).double()
        value = around.nats + 0.5 * (away @ precision @ away).item()
        return around, value + _penalty(gains, gain_prior)

    around, value = evaluate(state, gains)
    solved = _solve(around, precision, (state - prior.mean).double(), gains, gain_prior)
    gained = math.inf
    while min(solved.promised, gained) > WORTH and len(course) < evaluations:
        share = min(1.0, LONGEST / solved.step.abs().max().item())
        for part in (share, share / 3, share / 9):
            moved = state + part * solved.step.to(state)
            gains_there = None if gains is None else gains + part * solved.gain_step.to(gains)
            there, value_there = evaluate(moved, gains_there)
            gained = value - value_there
            if gained > 0 or len(course) >= evaluations:
                break
        if gained <= 0:
            break
        state, gains, around, value = moved, gains_there, there, value_there
        solved = _solve(around, precision, (state - prior.mean).double(), gains, gain_prior)
    covariance = solved.covariance.to(state)
    return Posterior(prior, state, covariance, gains, solved.gain_covariance, value, tuple(course))


def modes(posteriors: Sequence[Posterior]) -> list[Posterior]:
    """Those that differ, best first: two are one mode within three standard deviations."""
    different: list[Posterior] = []
    for one in sorted(posteriors, key=lambda posterior: posterior.cost):
        if all(one.distance(other) > 3 for other in different):
            different.append(one)
    return different


def weights(posteriors: Sequence[Posterior]) -> Tensor:
    """How probable each mode is, `(n,)`, by its height and its width."""
    log_weights = [one.covariance.double().logdet() / 2 - one.cost for one in posteriors]
    return torch.stack(log_weights).softmax(0).float()


def _penalty(gains: Tensor | None, prior: Prior | None) -> float:
    """What gains and offsets cost by their prior [nats]."""
    if gains is None or prior is None:
        return 0.0
    away = (gains - prior.mean).double()
    return 0.5 * ((away @ prior.covariance.double().inverse()) * away).sum().item()


@dataclasses.dataclass(frozen=True)
class _Quadratic:
    """The likelihood around one state, in numbers of independent observations."""

    nats: float
    """Negative log-likelihood."""
    slope: Tensor
    """Of the log-likelihood along the state, `(D,)`."""
    gain_slope: Tensor
    """By channel along gain and offsets, `(C, K)`."""
    information: Tensor
    """Fisher's, `(C, D + K, D + K)`."""


@dataclasses.dataclass(frozen=True)
class _Solution:
    """The step to the top of a quadratic, and its width."""

    step: Tensor
    """Of the state, `(D,)`."""
    covariance: Tensor
    """`(D, D)`."""
    gain_step: Tensor
    """Of gains and offsets, `(C, K)`."""
    gain_covariance: Tensor | None
    """Of the gains and offsets of each channel, the state being given, `(C, K, K)`."""
    promised: float
    """Nats that the step gains."""


def _solve(
    around: _Quadratic,
    precision: Tensor,
    away: Tensor,
    gains: Tensor | None,
    gain_prior: Prior | None,
) -> _Solution:
    """Solve for state and gains; these are eliminated channel by channel."""
    size, information = len(away), around.information
    pull = around.slope - precision @ away
    matrix = information[:, :size, :size].sum(0) + precision
    if gains is None or gain_prior is None:
        covariance = torch.linalg.inv(matrix)
        step = covariance @ pull
        return _Solution(step, covariance, pull[:0], None, 0.5 * (pull @ step).item())
    gain_precision = gain_prior.covariance.double().inverse()
    gain_pull = around.gain_slope - (gains - gain_prior.mean).double() @ gain_precision
    gain_covariance = torch.linalg.inv(information[:, size:, size:] + gain_precision)
    shared = gain_covariance @ information[:, size:, :size]
    covariance = torch.linalg.inv(matrix - (information[:, :size, size:] @ shared).sum(0))
    step = covariance @ (pull - torch.einsum("ckd,ck->d", shared, gain_pull))
    gain_step = torch.einsum("ckl,cl->ck", gain_covariance, gain_pull) - shared @ step
    promised = 0.5 * (pull @ step + (gain_pull * gain_step).sum()).item()
    return _Solution(step, covariance, gain_step, gain_covariance, promised)


def _around(
    cost: ListenerCost, hours: Tensor, prior: ListenerPrior, state: Tensor, gains: Tensor | None
) -> _Quadratic:
    """The likelihood around a listener, by responses linearised there."""
    ways = torch.eye(prior.parameters, len(state)).to(state)
    states = torch.cat([state[None], state + DIFFERENCE * ways])
    parts = []
    for part in torch.arange(len(hours)).split(FRAMES):
        subjects = Subjects(theta=prior.theta(states, hours[part]), matching=cost.matching)
        predicted = cost.model.predict(cost.latent[part], subjects, cost.context_bins)
        logits = predicted.log_probabilities()
        odds = logits - logits[:, :, :, :1]
        along = (odds[:, 1:] - odds[:, :1]) / DIFFERENCE
        moved = prior.moved(hours[part])[:, :, None, None, None]
        slopes = torch.cat([along, along * moved], 1)
        statistics = _statistics(odds[:, 0], slopes, cost.counts[part], gains)
        # Differences are good enough for the information; where the summit is, the slope alone
        # says.
        frames = dataclasses.replace(cost, latent=cost.latent[part], counts=cost.counts[part])
        parts.append((*statistics, _exact_slope(frames, hours[part], prior, state, gains)))
    nats, gain_slope, information, slope = (sum(each) for each in zip(*parts, strict=True))
    scale = cost.correlated_bins
    return _Quadratic(nats.item() / scale, slope / scale, gain_slope / scale, information / scale)


def _exact_slope(
    cost: ListenerCost, hours: Tensor, prior: ListenerPrior, state: Tensor, gains: Tensor | None
) -> Tensor:
    """Of the log-likelihood along a listener's state, `(D,)`."""
    with torch.enable_grad():
        at = state.detach().requires_grad_()
        nats = cost(prior.theta(at[None], hours), gains).sum()
    (slope,) = torch.autograd.grad(nats, at)
    return -slope.double() * cost.counts.numel()


def _statistics(
    odds: Tensor, slopes: Tensor, counts: Tensor, gains: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Likelihood, its slope along gains, and its information of some frames, by channel.

    Args:
        odds: Logarithms of the odds of counts against silence, `(B, C, K, N)`.
        slopes: Of these along the state, `(B, D, C, K, N)`.
        counts: Spikes in each bin, `(B, C, N)`.
        gains: Of the channels, `(C, K)`.

    Returns:
        Nats, `()`; slope, `(C, K)`; information, `(C, D + K, D + K)`.
    """
    classes = odds.shape[2]
    odds, slopes = odds.permute(1, 2, 0, 3).flatten(2), slopes.permute(2, 1, 3, 0, 4).flatten(3)
    answers = counts.clamp(max=classes - 1).transpose(0, 1).flatten(1).long()
    directions = [slopes]
    if gains is not None:
        gain, offset = gains[:, :1, None], gains[:, 1:, None]
        each = torch.eye(classes)[1:].to(odds)[None, :, :, None]
        directions = [gain[..., None] * slopes, odds[:, None]]
        directions.append(each.expand(len(odds), -1, -1, odds.shape[-1]))
        odds = torch.cat(
            [
                torch.zeros_like(offset[:, :1]).expand(-1, -1, odds.shape[-1]),
                gain * odds[:, 1:] + offset,
            ],
            1,
        )
    log_probability = odds.log_softmax(1)
    probability = log_probability.exp()
    every = torch.cat(directions, 1)
    every = every - (every * probability[:, None]).sum(2, keepdim=True)
    answered = answers[:, None, None].expand(-1, every.shape[1], 1, -1)
    slope = every.gather(2, answered).sum((2, 3)).double()[:, slopes.shape[1] :]
    weighted = (every * probability.sqrt()[:, None]).flatten(2)
    information = (weighted @ weighted.transpose(1, 2)).double()
    nats = -log_probability.gather(1, answers[:, None]).double().sum()
    return nats, slope, information
