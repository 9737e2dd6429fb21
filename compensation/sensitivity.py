"""Which changes of θ a listener hears: how the midbrain's response moves with what the aid is told.

The search by ear starts from it, as a few dozen answers cannot say in which directions of θ
errors matter; a model of the listener can.
"""

import torch
from torch import Tensor

from icsim.metrics import expected_counts
from icsim.models.response import ResponseModel

from .aid import Aid

STEP = 0.15
"""Of θ, to either side; an error of a fit by ear is about as large (chosen here)."""


@torch.no_grad()
def sensitivity(
    aid: Aid,
    model: ResponseModel,
    sounds: Tensor,
    theta: Tensor,
    noise_reduction: float = 0.0,
    gain: float = 1.0,
) -> Tensor:
    """Squared change of the response over changes of θ in the aid: Gauss and Newton's matrix.

    For small `d`, an aid that is told `θ + d` in place of `θ` changes the response of the listener
    θ by `dᵀ M d`, summed over channels and bins.

    Args:
        aid: Whose processing is looked at.
        model: Of the listener.
        sounds: `(B, T)` [Pa].
        theta: The listener, `(P,)`.
        noise_reduction: Exponent of the aid's noise mask.
        gain: Exponent of its compensating mask.

    Returns:
        `M`, `(P, P)`, positive semidefinite, for each sample of sound.
    """

    def response(assumed: Tensor) -> Tensor:
        processed = aid.process(sounds, assumed.expand(len(sounds), -1), noise_reduction, gain)
        counts = model.respond(processed, theta.expand(len(sounds), -1))
        return expected_counts(counts).flatten()

    slopes = []
    for direction in torch.eye(len(theta)):
        after, before = ((theta + s * STEP * direction).clamp(0, 1) for s in (1, -1))
        moved = (after - before).sum()
        slopes.append((response(after) - response(before)) / moved)
    jacobian = torch.stack(slopes).double()
    return jacobian @ jacobian.T / sounds.numel()
