"""Alignment of channels between brains: a permutation found by optimal transport."""

import numpy as np
import ot
import torch
from torch import Tensor
from torch.nn import functional


def smooth(counts: Tensor, bins: int) -> Tensor:
    """Average non-overlapping runs of bins, which leaves the sound and drops the noise.

    Args:
        counts: `(C, N)`.
        bins: Length of a run; a remainder is left out.
    """
    return functional.avg_pool1d(counts.float().unsqueeze(0), bins).squeeze(0)


def correlation_distance(reference: Tensor, other: Tensor) -> Tensor:
    """One minus the correlation of every pair of channels.

    Unlike a squared distance it does not mistake a quieter channel for another one.

    Args:
        reference: Responses to the same sounds in the same order, `(C, N)`.
        other: `(C, N)`.

    Returns:
        `(C, C)`, rows the reference's channels; 1 where a channel never changes.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape != other.shape:
        raise ValueError(
            f"both brains must answer the same sounds on as many channels, got "
            f"{tuple(reference.shape)} and {tuple(other.shape)}"
        )
    return 1 - _standardised(reference) @ _standardised(other).T


def squared_distance(reference: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of every pair of channels, `(C, C)`. Source: arXiv 2506.03088."""
    return torch.cdist(reference, other).square() / reference.shape[-1]


def permutation(cost: Tensor) -> Tensor:
    """The permutation of least total cost, by exact optimal transport.

    Args:
        cost: Of matching reference channel (row) with another brain's channel (column), `(C, C)`.

    Returns:
        For each reference channel the matched channel: `counts[permutation]` is aligned. `(C,)`

    Raises:
        ValueError: If the cost is not square or not finite.

    >>> permutation(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [1, 0]
    """
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or not bool(cost.isfinite().all()):
        raise ValueError(f"a square and finite cost is needed, got {tuple(cost.shape)}")
    weights = np.full(len(cost), 1 / len(cost))
    plan = ot.emd(weights, weights, cost.double().cpu().numpy(), numItermax=2_000_000)
    found = torch.from_numpy(plan.argmax(1))
    if len(found.unique()) != len(cost):
        raise RuntimeError("optimal transport gave no permutation: the costs are degenerate")
    return found


def octave_error(reference_hz: Tensor, matched_hz: Tensor) -> float:
    """Median distance of matched characteristic frequencies [octaves], where they are known."""
    return (reference_hz / matched_hz).log2().abs().median().item()


def _standardised(responses: Tensor) -> Tensor:
    centred = responses - responses.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-9)
