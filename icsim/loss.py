"""The frozen model of the midbrain as a differentiable objective."""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from .metrics import expected_counts

Distance = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`(log-probabilities, target log-probabilities, channel weights) -> (B,)`."""


class Responder(Protocol):
    """What can stand in `ResponseLoss`; it is a module too."""

    def respond(self, sound: Tensor, theta: Tensor, /) -> Tensor:
        """Log-probabilities of counts: `(B, T)` [Pa], θ `(B or 1, P)` to `(B, C, K, N)`."""
        ...


def squared_error(response: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of expected counts.

    Args:
        response: Log-probabilities of counts, `(B, C, K, N)`.
        target: The same of the response wanted.
        weight: Of each channel, with a mean of one, `(C,)`.

    Returns:
        `(B,)`.
    """
    difference = expected_counts(response) - expected_counts(target)
    return _over_channels(difference.square(), weight)


class ResponseLoss(nn.Module):
    """Distance of one listener's response to a sound from another's to the sound meant.

    The model is frozen, stays in evaluation mode and in float32 whatever surrounds it; gradients
    reach the sound and θ and nothing else.

    Args:
        model: Anything with `respond(sound (B, T), theta (B, P)) -> (B, C, K, N)`.
        distance: How responses are compared.
        weight: Of each channel, for instance its reliability, `(C,)`; scaled to a mean of one.
    """

    weight: Tensor | None

    def __init__(
        self, model: nn.Module, distance: Distance = squared_error, weight: Tensor | None = None
    ):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.distance = distance
        if weight is not None:
            if bool((weight < 0).any()) or not bool(weight.isfinite().all()) or weight.sum() == 0:
                raise ValueError("channel weights must be finite, not negative and not all zero")
            weight = weight / weight.mean()
        self.register_buffer("weight", weight, persistent=False)

    def train(self, mode: bool = True) -> "ResponseLoss":
        """Stay in evaluation mode: a trainer's `.train()` must not thaw the model."""
        return super().train(False)

    def respond(self, sound: Tensor, theta: Tensor) -> Tensor:
        """Log-probabilities of counts, `(B, C, K, N)`, in the sound's own precision.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            theta: Listener, `(B, P)` or `(1, P)`.

        Raises:
            ValueError: If shapes are others or a sample is not finite.
        """
        if sound.ndim != 2 or theta.ndim != 2 or theta.shape[0] not in (1, sound.shape[0]):
            raise ValueError(
                f"sound must be (B, T) and theta (B, P), got {tuple(sound.shape)} "
                f"and {tuple(theta.shape)}"
            )
        if not bool(sound.isfinite().all()):
            raise ValueError("the sound has samples that are NaN or infinite")
        with torch.autocast(sound.device.type, enabled=False):
            precise = sound if sound.dtype == torch.float64 else sound.float()
            return cast(Responder, self.model).respond(precise, theta.to(precise.dtype))

    def forward(self, sound: Tensor, theta: Tensor, target: Tensor, skip_bins: int = 0) -> Tensor:
        """Distance of the response to `sound` from `target`.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            theta: Listener, `(B, P)` or `(1, P)`.
            target: Log-probabilities wanted, `(B, C, K, N)`, from `respond`.
            skip_bins: Bins at the start that are context and not compared.

        Returns:
            `(B,)`.
        """
        return self.between(self.respond(sound, theta), target, skip_bins)

    def between(self, response: Tensor, target: Tensor, skip_bins: int = 0) -> Tensor:
        """Distance of a response from a target, both of `respond`; else as `forward`."""
        with torch.autocast(response.device.type, enabled=False):
            return self.distance(response[..., skip_bins:], target[..., skip_bins:], self.weight)


def _over_channels(errors: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over bins, then weighted mean over channels: `(B, C, N)` to `(B,)`."""
    by_channel = errors.mean(-1)
    return by_channel.mean(-1) if weight is None else (by_channel * weight).mean(-1)
