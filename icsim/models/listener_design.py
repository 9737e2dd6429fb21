"""Which sounds say most of a listener: a laboratory's time with a new animal is short."""

import torch
from torch import Tensor

from .listener_cost import CORRELATED_S
from .listener_posterior import DIFFERENCE, listener_prior
from .response import ResponseModel
from .response_space import twice_roots
from .subjects import Subjects

LISTENERS = 4
"""Of those that the model was trained on, evenly from all, that a new one may be like (chosen
here)."""


@torch.no_grad()
def sound_information(model: ResponseModel, sound: Tensor, theta: Tensor) -> Tensor:
    """Fisher information about the logits of θ that answers to each frame would hold.

    Args:
        model: Conditioned on θ, with categorical counts.
        sound: Frames with context [Pa], `(B, T)`.
        theta: Listeners that it is asked for, `(n, P)`.

    Returns:
        `(n, B, P, P)`.
    """
    scale = CORRELATED_S * model.clock.bin_rate_hz
    ways = DIFFERENCE * torch.eye(theta.shape[1])
    every = []
    for latent in model.latent(sound).split(1):
        of_frame = []
        for one in theta.logit(eps=1e-3):
            steps = torch.cat([one[None], one + ways]).sigmoid()
            predicted = model.predict(latent, Subjects(theta=steps[None]), model.context_bins)
            # Twice the root of a probability moves as far as its information is large.
            roots = twice_roots(predicted)[0].flatten(1)
            slopes = ((roots[1:] - roots[:1]) / DIFFERENCE).double()
            of_frame.append(slopes @ slopes.T / scale)
        every.append(torch.stack(of_frame))
    return torch.stack(every, 1)


def unknown_listener(model: ResponseModel) -> tuple[Tensor, Tensor]:
    """Whom one of whom nothing was recorded may be like: some of the listeners that the model was
    trained on, `(n, P)`, and the precision of the logits of θ, `(P, P)`."""
    theta = model.listeners.at().detach()
    size = theta.shape[1]
    covariance = listener_prior(model.listeners).covariance[:size, :size]
    some = theta[torch.linspace(0, len(theta) - 1, LISTENERS).long()]
    return some, torch.linalg.inv(covariance.double())


def most_informative(information: Tensor, precision: Tensor, count: int) -> list[int]:
    """The frames that together leave least of what is not known of a listener, best first.

    One after the other is taken that shrinks the volume of the posterior most, on average over the
    listeners that it may be (D-optimal design, greedily).

    Args:
        information: Of each frame by listener, `(n, B, P, P)`.
        precision: Of the logits of θ before, `(P, P)`.
        count: How many to take.

    Raises:
        ValueError: If there are fewer.
    """
    frames = information.shape[1]
    if count > frames:
        raise ValueError(f"{count} sounds are to be chosen, and there are {frames}")
    sums = precision.double().expand(len(information), -1, -1)
    taken: list[int] = []
    for _ in range(count):
        gained = torch.logdet(sums[:, None] + information.double()).mean(0)
        gained[taken] = -torch.inf
        taken.append(int(gained.argmax()))
        sums = sums + information[:, taken[-1]]
    return taken
