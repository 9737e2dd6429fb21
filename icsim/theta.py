"""The space of listeners: each animal is a Gaussian of θ in the unit box, moving with time."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

HOURS = 10.0
"""Unit of time inside the time transfer [h]. Source: arXiv 2506.03088."""

BOUNDS = {"mean": (-10.0, 10.0), "shift": (-20.0, 20.0), "rate": (0.0, 50.0), "onset": (0.05, 0.5)}
"""Ranges of the learned parameters. Source: arXiv 2506.03088, but for negative shifts: which way a
dimension of θ points is arbitrary, so that a loss may grow along it or against it."""


def time_transfer(mean: Tensor, shift: Tensor, rate: Tensor, onset: Tensor, time: Tensor) -> Tensor:
    """Move a listener's mean, before its sigmoid, by what the recording's hours did.

    Nothing happens before the onset; the function is continuous there, and never turns back.

    Args:
        mean: `μ`, any shape that broadcasts with the others.
        shift: `s`, in units of `μ`.
        rate: `W`, per `HOURS`.
        onset: `o` [`HOURS`].
        time: Time since the recording began [`HOURS`].
    """
    start = torch.sigmoid(torch.as_tensor(-6.0))
    moved = torch.sigmoid(rate * (time - onset).clamp(min=0) - 6) - start
    return mean + shift * moved


@dataclasses.dataclass(frozen=True)
class Drift:
    """How one listener moves through a recording."""

    shift: Tensor
    """`s`, `(P,)`."""
    rate: Tensor
    """`W` [per `HOURS`], `(P,)`."""
    onset: Tensor
    """`o` [`HOURS`], `(P,)`."""

    def theta(self, theta: Tensor, hours: Tensor) -> Tensor:
        """Where one that was at θ `(P,)` in the beginning is at times `(B,)` [h], `(B, P)`."""
        time = (hours / HOURS)[:, None]
        mean = theta.logit(eps=1e-6)
        return torch.sigmoid(time_transfer(mean, self.shift, self.rate, self.onset, time))


class Listeners(nn.Module):
    """Learned Gaussians over θ, one an animal.

    Args:
        animals: How many, A.
        parameters: Dimensions of θ, P.
        shared_drift: One time transfer for all animals, or one for each.
        seed: Of the starting means.
        spread: Standard deviation of the starting means, before the sigmoid. Near zero, animals
            begin alike and are told apart by what they answer; wide apart, they keep much of the
            places that chance gave them (see docs/decisions.md).
    """

    def __init__(
        self,
        animals: int,
        parameters: int,
        shared_drift: bool = True,
        seed: int = 0,
        spread: float = 1.5,
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows = 1 if shared_drift else animals
        self.mean = nn.Parameter(spread * torch.randn(animals, parameters, generator=generator))
        self.log_deviation = nn.Parameter(torch.full((animals, parameters), 0.03).log())
        self.shift = nn.Parameter(torch.full((rows, parameters), 0.2))
        self.rate = nn.Parameter(torch.full((rows, parameters), 15.0))
        self.onset = nn.Parameter(torch.full((rows, parameters), 0.1))

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of θ, `(A, P)`."""
        return self.log_deviation.exp()

    def theta(self, hours: Tensor, animals: Tensor | slice = slice(None)) -> Tensor:
        """Mean θ of each animal at a time since its recording began.

        Args:
            hours: `(*, A)` [h].
            animals: Which of the animals the axis A holds, if not all.

        Returns:
            `(*, A, P)` in the open unit box.
        """
        time = (hours / HOURS).unsqueeze(-1)
        drift: list[Tensor] = [self.shift, self.rate, self.onset]
        if len(self.shift) > 1:
            drift = [each[animals] for each in drift]
        shift, rate, onset = drift
        return torch.sigmoid(time_transfer(self.mean[animals], shift, rate, onset, time))

    def at(self, hours: float = 0.0) -> Tensor:
        """Mean θ of every animal at one time since its recording began [h], `(A, P)`."""
        return self.theta(self.mean.new_full((len(self.mean),), hours))

    @torch.no_grad()
    def project(self) -> None:
        """Bring every parameter back into its range, after an optimiser's step."""
        for name, (low, high) in BOUNDS.items():
            getattr(self, name).clamp_(low, high)


def separation(theta: Tensor, deviation: Tensor) -> Tensor:
    """How far apart animals are: median distance of pairs, in units of their noise.

    Args:
        theta: Means, `(A, P)`.
        deviation: Standard deviations, `(A, P)`.

    Raises:
        ValueError: With fewer than two animals.
    """
    if len(theta) < 2:
        raise ValueError("separation needs at least two animals")
    first, second = torch.triu_indices(len(theta), len(theta), 1)
    noise = (deviation[first] ** 2 + deviation[second] ** 2).sqrt()
    return ((theta[first] - theta[second]) / noise).square().sum(-1).sqrt().median()


@torch.no_grad()
def movement(listeners: Listeners, start: Mapping[str, Tensor]) -> dict[str, float]:
    """How far learning has moved listeners from where they began.

    What stays where it began was not learned, whatever a network predicts with it: an ablation of
    such a part says nothing of the part.

    Args:
        listeners: As they are now, of two animals at least.
        start: Their `state_dict` before the first step.

    Returns:
        `mean_correlation` of the means, before their sigmoid, with those at the start, over animals
        and dimensions (1: nothing was learned; means drawn anew would have 0); `mean_moved`, the
        root mean square of their movement, in units of μ; of the standard deviation of θ
        (`deviation`) and of the time transfer's `shift`, `rate` and `onset` the mean at the start
        and the range today, as `rate_start`, `rate_least` and `rate_most`; `deviation_prior`.
    """
    means = torch.stack([start["mean"].to(listeners.mean), listeners.mean]).flatten(1)
    ranges = {"deviation": (start["log_deviation"].exp(), listeners.deviation)}
    ranges |= {n: (start[n], getattr(listeners, n)) for n in ("shift", "rate", "onset")}
    return {
        "mean_correlation": torch.corrcoef(means)[0, 1].item(),
        "mean_moved": (means[1] - means[0]).square().mean().sqrt().item(),
        **{f"{name}_start": begun.mean().item() for name, (begun, _) in ranges.items()},
        **{f"{name}_least": now.min().item() for name, (_, now) in ranges.items()},
        **{f"{name}_most": now.max().item() for name, (_, now) in ranges.items()},
        "deviation_prior": len(listeners.mean) ** -0.5,
    }


def between_animals(animals: int, count: int, generator: torch.Generator) -> Tensor:
    """Weights of random points on the lines between random pairs of animals.

    Args:
        animals: How many, A.
        count: How many points, n.

    Returns:
        `(n, A)`; each row adds up to one.
    """
    pairs = torch.randint(animals, (2, count), generator=generator)
    weight = torch.rand(count, 1, generator=generator)
    ends = torch.nn.functional.one_hot(pairs, animals).float()
    return weight * ends[0] + (1 - weight) * ends[1]


def sample_listeners(
    weights: Tensor,
    theta: Tensor,
    deviation: Tensor,
    widening: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw listeners that nobody recorded, near and between those who were.

    Each is blurred by the animals' own uncertainty and by `widening`, and kept in the box.

    Args:
        weights: How much of each animal is in it, `(n, A)`, for instance of `between_animals`.
        theta: Means, `(A, P)`.
        deviation: Standard deviations, `(A, P)`.
        widening: Standard deviation added around the animals, in units of θ.

    Returns:
        `(n, P)`.
    """
    spread = (weights @ deviation**2 + widening**2).sqrt()
    noise = torch.randn(spread.shape, generator=generator)
    return (weights @ theta + spread * noise).clamp(0, 1)
