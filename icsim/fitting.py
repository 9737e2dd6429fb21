"""Search for a listener's θ: any cost over the unit box."""

import dataclasses
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from icsim.extras import extra

with extra("fitting"):
    from botorch import fit_gpytorch_mll
    from botorch.acquisition import LogExpectedImprovement
    from botorch.exceptions import BotorchWarning
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from botorch.optim import optimize_acqf
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.priors import GammaPrior
    from linear_operator.utils.warnings import NumericalWarning

Cost = Callable[[Tensor], Tensor]
"""`(n, P)` candidates in the unit box to `(n,)` costs, in nats a bin and channel."""

Progress = Callable[[int, float], None]
"""Called with the number of evaluations so far and the best cost."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A listener found, and how."""

    theta: Tensor
    """The best candidate, `(P,)`."""
    loss: float
    """Its cost."""
    candidates: Tensor
    """Everything evaluated, in order, `(n, P)`."""
    losses: Tensor
    """The costs, `(n,)`."""

    @property
    def evaluations(self) -> int:
        """How many candidates were evaluated."""
        return len(self.losses)

    def course(self) -> Tensor:
        """Best cost so far after each evaluation, `(n,)`."""
        return self.losses.cummin(0).values


def sobol(count: int, parameters: int, seed: int) -> Tensor:
    """Well-spread points of the unit box, `(count, P)`."""
    engine = torch.quasirandom.SobolEngine(parameters, scramble=True, seed=seed)
    return engine.draw(count, dtype=torch.float32)


def dense_search(cost: Cost, starts: Tensor, points: int = 1024, seed: int = 0) -> Fit:
    """The reference that other searches are measured against: many points, then descent.

    Args:
        cost: Differentiable.
        starts: Points to try beside the Sobol points, such as the training animals, `(n, P)`.
        points: Sobol points.
        seed: Of the Sobol sequence.
    """
    candidates = torch.cat([starts, sobol(points, starts.shape[-1], seed).to(starts)])
    with torch.no_grad():
        losses = evaluate(cost, candidates)
    best = descend(cost, candidates[losses.argsort()[:4]])
    return _fit(torch.cat([candidates, best.candidates]), torch.cat([losses, best.losses]))


def warm_descent(
    cost: Cost,
    others: Tensor,
    steps: int = 30,
    rate: float = 0.15,
    progress: Progress | None = None,
) -> Fit:
    """Try the mean of the known listeners and each of them, and descend from the best.

    Args:
        cost: Differentiable.
        others: Listeners that the model was trained on, `(n, P)`.
        steps: Of the descent.
        rate: Its step, in logits.
        progress: Called after each step of the descent.
    """
    candidates = torch.cat([others.mean(0, keepdim=True), others])
    with torch.no_grad():
        losses = evaluate(cost, candidates)
    best = descend(cost, candidates[losses.argmin()][None], steps, rate, progress)
    return _fit(torch.cat([candidates, best.candidates]), torch.cat([losses, best.losses]))


def descend(
    cost: Cost,
    starts: Tensor,
    steps: int = 60,
    rate: float = 0.1,
    progress: Progress | None = None,
) -> Fit:
    """Gradient descent from several starts at once, in the logits of θ.

    Args:
        cost: Differentiable.
        starts: `(n, P)` in the unit box.
        steps: Of Adam.
        rate: Its step, in logits.
        progress: Called after each step.
    """
    logits = starts.clamp(0.02, 0.98).logit().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=rate)
    candidates, losses = [], []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        theta = logits.sigmoid()
        loss = _checked(cost(theta), theta)
        candidates.append(theta.detach().clone())
        losses.append(loss.detach())
        if progress:
            progress(sum(map(len, losses)), min(each.min().item() for each in losses))
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    return _fit(torch.cat(candidates), torch.cat(losses))


def bayesian_search(
    cost: Cost,
    starts: Tensor,
    evaluations: int,
    target: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit:
    """Bayesian optimisation: a Gaussian process of the cost and its expected improvement.

    Args:
        cost: Need not be differentiable; costs must be positive.
        starts: First candidates, `(n, P)`, from `sobol` or a warm start.
        evaluations: At most so many candidates in all.
        target: Stop once a cost is at most this.
        seed: Of the acquisition's optimiser.
        progress: Called with the number of evaluations and the best cost so far.

    Source: arXiv 2506.03088 (Matérn 5/2 with a length a dimension, log expected improvement).
    """
    candidates = starts.double()
    with torch.no_grad():
        losses = evaluate(cost, candidates.float()).double()
    while len(candidates) < evaluations and (target is None or losses.min() > target):
        if losses.min() <= 0:
            raise ValueError(f"costs must be positive, got {losses.min():.3g}; add a constant")
        proposal = _propose(candidates, losses, seed + len(candidates))
        with torch.no_grad():
            loss = evaluate(cost, proposal.float()).double()
        candidates, losses = torch.cat([candidates, proposal]), torch.cat([losses, loss])
        if progress:
            progress(len(candidates), losses.min().item())
    return _fit(candidates.float(), losses.float())


def laplace(cost: Cost, theta: Tensor, observations: float, step: float = 0.01) -> Tensor:
    """Posterior covariance of θ at a minimum, by the curvature of the cost.

    Args:
        cost: Differentiable, in nats an observation; its slopes are compared across the minimum.
        theta: The minimum, `(P,)`.
        observations: Independent observations behind the cost: bins times channels, fewer if they
            are correlated.
        step: How far from the minimum, in units of θ.

    Returns:
        `(P, P)`, positive definite; no direction is less certain than a uniform box.
    """
    steps = torch.eye(len(theta)).to(theta) * step
    points = torch.cat([theta.detach() + steps, theta.detach() - steps]).requires_grad_()
    (slopes,) = torch.autograd.grad(cost(points).sum(), points)
    hessian = (slopes[: len(theta)] - slopes[len(theta) :]) / (2 * step)
    values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2 * observations)
    uniform = 12.0  # one over the variance of a uniform density on [0, 1]
    return vectors @ torch.diag(1 / values.clamp(min=uniform)) @ vectors.T


def _propose(candidates: Tensor, losses: Tensor, seed: int) -> Tensor:
    """The point of largest expected improvement, `(1, P)`."""
    parameters = candidates.shape[-1]
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, ard_num_dims=parameters, lengthscale_prior=GammaPrior(3.0, 6.0)),
        outputscale_prior=GammaPrior(2.0, 0.15),
    )
    # Costs span decades far from the optimum: their logarithm is closer to a Gaussian process.
    value = -losses.log().unsqueeze(-1)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        torch.manual_seed(seed)
        model = SingleTaskGP(
            candidates, value, covar_module=kernel, outcome_transform=Standardize(1)
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        improvement = LogExpectedImprovement(model, best_f=value.max())
        bounds = torch.stack([torch.zeros(parameters), torch.ones(parameters)]).double()
        proposal, _ = optimize_acqf(improvement, bounds, q=1, num_restarts=4, raw_samples=128)
    return proposal.detach()


def evaluate(cost: Cost, candidates: Tensor, batch: int = 8) -> Tensor:
    """Costs of candidates `(n, P)`, some at a time, `(n,)`.

    Raises:
        ValueError: If they are no finite numbers.
    """
    parts = [_checked(cost(part), part) for part in candidates.split(batch)]
    return torch.cat(parts).to(candidates.device)


def _checked(losses: Tensor, candidates: Tensor) -> Tensor:
    if losses.shape != candidates.shape[:1] or not bool(losses.isfinite().all()):
        raise ValueError(
            f"the cost of {tuple(candidates.shape)} candidates must be as many finite numbers, "
            f"got {losses.detach()}"
        )
    return losses


def _fit(candidates: Tensor, losses: Tensor) -> Fit:
    best = losses.argmin()
    return Fit(candidates[best].clone(), losses[best].item(), candidates, losses)
