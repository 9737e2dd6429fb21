"""Muon for kernels and matrices, Adam for the rest, as one optimiser."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration. Source: Jordan et al. 2024 (Muon)."""


class Muon(torch.optim.Optimizer):
    """Steps of equal size in every direction of a matrix, whatever the gradient's condition.

    A momentum of gradients is made orthogonal before the step. Parameters of groups with
    `orthogonal` False get Adam.

    Args:
        groups: Dictionaries with `params`, `orthogonal` and whatever else the caller keeps there;
            the caller sets `lr` before every step.
        momentum: Of the orthogonal groups.
        betas: Of Adam.
        weight_decay: Share of its rate by which a step shrinks what it moves; a group may have its
            own.

    Source: Jordan et al. 2024 (Muon); Kingma & Ba 2015 (Adam); Loshchilov & Hutter 2019 (decay).
    """

    def __init__(
        self,
        groups: Iterable[dict],
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": 0.0, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]  # it evaluates nothing again
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            move = _orthogonal_step if group["orthogonal"] else _adam_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move(parameter, parameter.grad, self.state[parameter], group)


def split_parameters(
    module: nn.Module,
    rate: float,
    muon_rate: float | None = None,
    apart: Iterable[nn.Parameter] = (),
) -> list[dict]:
    """The groups that `Muon` wants: kernels and matrices, then vectors.

    Args:
        module: Whose parameters.
        rate: Of Adam, kept as `rate` in its groups.
        muon_rate: Of Muon for kernels and matrices; Adam for them too if not given.
        apart: Parameters to leave out.

    Source: Jordan et al. 2024: what has fewer than two dimensions is for Adam.
    """
    left_out = {id(parameter) for parameter in apart}
    trained = [p for p in module.parameters() if id(p) not in left_out]
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    orthogonal = muon_rate is not None
    return [
        {"params": matrices, "orthogonal": orthogonal, "rate": muon_rate or rate},
        {"params": vectors, "orthogonal": False, "rate": rate},
    ]


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix with singular values near one, `(m, n)`, by iteration.

    >>> values = torch.linalg.svdvals(orthogonalise(torch.randn(8, 20)))
    >>> bool((values > 0.6).all() and (values < 1.3).all())
    True
    """
    first, second, third = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = first * x + (second * square + third * square @ square) @ x
    return x.T if tall else x


def _orthogonal_step(parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
    momentum = state.setdefault("momentum", torch.zeros_like(parameter))
    momentum.lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(momentum, group["momentum"]).flatten(1)
    scale = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
    step = orthogonalise(ahead.float()).view_as(parameter)
    parameter.add_(step.to(parameter.dtype), alpha=-group["lr"] * scale)


def _adam_step(parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
    if not state:
        state["step"] = torch.zeros(())
        state["first"] = torch.zeros_like(parameter)
        state["second"] = torch.zeros_like(parameter)
    state["step"] += 1
    count = state["step"].item()
    beta1, beta2 = group["betas"]
    state["first"].lerp_(gradient, 1 - beta1)
    state["second"].lerp_(gradient.square(), 1 - beta2)
    first = state["first"] / (1 - beta1**count)
    second = state["second"] / (1 - beta2**count)
    parameter.addcdiv_(first, second.sqrt() + 1e-8, value=-group["lr"])
