"""What it costs to take an animal for one listener or another: the negative log-likelihood of θ."""

import dataclasses

import torch
from torch import Tensor

from icsim.channel_gains import Prior, broad, fit_gains, learn_prior, with_gains
from icsim.frames import Frames

from .facts import ModelFacts
from .readouts import Prediction, require_categorical
from .response import ResponseModel
from .subjects import Subjects

CORRELATED_S = 0.020
"""Time that counts as one observation [s]: predictions err in runs, not bin by bin. Chosen here,
so that a posterior is not narrower than repeated fits are spread."""


@dataclasses.dataclass(frozen=True, eq=False)
class ListenerCost:
    """The cost of candidate listeners for one animal's responses; made by `listener_cost`."""

    model: ResponseModel
    latent: Tensor
    """Of the sounds, `(B, Z, N)`."""
    counts: Tensor
    """What the animal answered, `(B, C, N)`."""
    matching: Tensor | None
    """Model channel of each of its channels, `(1, C)`; as the model's own if None."""
    context_bins: int
    """Bins at the start of a frame that `counts` does not cover."""

    def __call__(self, theta: Tensor, gains: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood [nats a bin and channel] of each candidate, `(n,)`.

        Args:
            theta: The candidates, `(n, P)`, or, by frame, `(B, n, P)`; gradients reach them.
            gains: Gains and offsets of the channels, `(C, K)`; see `icsim.channel_gains`.
        """
        prediction = self._predict(theta)
        if gains is not None:
            prediction = with_gains(prediction, gains)
        counts = self.counts[:, None].expand(-1, theta.shape[-2], -1, -1)
        weight = torch.ones(counts.shape[:3], device=self.latent.device)
        return prediction.nats(counts, weight) / self.counts.numel()

    @property
    def correlated_bins(self) -> float:
        """Bins that count as one observation."""
        return CORRELATED_S * self.model.clock.bin_rate_hz

    @property
    def observations(self) -> float:
        """Independent observations behind the cost."""
        return self.counts.numel() / self.correlated_bins

    @torch.no_grad()
    def fit_gains(
        self, theta: Tensor, prior: Prior, start: Tensor | None = None, iterations: int = 20
    ) -> tuple[Tensor, Tensor]:
        """The most probable gains and offsets of the channels for one listener, `(P,)` or `(B, P)`.

        Returns:
            `(C, K)`, and its covariance, `(C, K, K)`.
        """
        logits = require_categorical(self._predict(theta.unsqueeze(-2))).logits()[:, 0]
        return fit_gains(logits, self.counts, prior, self.correlated_bins, start, iterations)

    def profile(self, theta: Tensor, prior: Prior, start: Tensor | None = None) -> Tensor:
        """As a call, with gains that are fitted for each candidate, `(n,)`; differentiable.

        As they are the best for their candidate, slopes need not know that they move.
        """
        few = 20 if start is None else 4
        candidates = theta.unbind(-2)
        every = (self.fit_gains(one.detach(), prior, start, few)[0] for one in candidates)
        pairs = zip(candidates, every, strict=True)
        return torch.cat([self(one.unsqueeze(-2), gains) for one, gains in pairs])

    def _predict(self, theta: Tensor) -> Prediction:
        by_frame = theta.to(self.latent).view(-1, *theta.shape[-2:])
        candidates = Subjects(theta=by_frame, matching=self.matching)
        return self.model.predict(self.latent, candidates, self.context_bins)


def listener_cost(
    model: ResponseModel,
    sound: Tensor,
    counts: Tensor,
    matching: Tensor | None = None,
    context_bins: int | None = None,
) -> ListenerCost:
    """The cost of candidate listeners for one animal's responses; latents are computed once.

    Args:
        model: Conditioned on θ; its gradients are not needed, and switched off.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the animal answered, `(B, C, N)`.
        matching: Model channel of each of its channels, those below 0 left out, `(C,)`; as the
            model's own if None.
        context_bins: Bins at the start of a frame that `counts` does not cover; those of the
            model's training frames if not given.
    """
    model.requires_grad_(False).eval()
    with torch.no_grad():
        latent = model.latent(sound)
    if matching is not None:
        counts, matching = counts[:, matching >= 0], matching[matching >= 0][None]
    context_bins = model.context_bins if context_bins is None else context_bins
    return ListenerCost(model, latent, counts, matching, context_bins)


def channel_prior(model: ResponseModel, facts: ModelFacts, frames: Frames, most: int = 60) -> Prior:
    """How channels of the animals that a model was trained on differ from what it says of them.

    Args:
        model: The trained model, conditioned on θ.
        facts: Of its animals.
        frames: Of sounds that it was not trained on.
        most: Frames of each animal that are used.
    """
    every, covariances = [], []
    batch = frames.read(range(0, len(frames), -(-len(frames) // most)))
    for animal, matching in enumerate(facts.matching):
        here = batch["heard"][:, animal]
        sound, counts = batch["sound"][here], batch["counts"][here, animal]
        hours = batch["hours"][here, animal].mean()[None]
        theta = model.listeners.theta(hours, torch.tensor([animal]))[0].detach()
        cost = listener_cost(model, sound, counts, matching)
        gains, uncertain = cost.fit_gains(theta, broad(model.config.readout.classes))
        every.append(gains)
        covariances.append(uncertain)
    return learn_prior(every, covariances)
