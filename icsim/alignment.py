"""Alignment of channels between brains, by optimal transport.

As published, a permutation makes each brain's channels those of one reference brain. Electrodes
cover other parts of each brain, though, and a permutation is then forced to match unlike
channels. So, instead: a template that holds the channels of several brains as slots. Channels of
another brain are brought to them at the least cost, and no slot takes much more than its share: a
brain may cover a part more densely than others do, but a loss that makes its channels answer
alike makes them not one.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from icsim.extras import extra

with extra("fitting"):
    import ot

TAKEN = 1e-6
"""Share of a channel that is more than rounding of a transport plan (chosen here)."""


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
        other: `(C', N)`.

    Returns:
        `(C, C')`, rows the reference's channels; 1 where a channel never changes.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape[-1] != other.shape[-1] or reference.ndim != 2 or other.ndim != 2:
        raise ValueError(
            f"both brains must answer the same sounds, (C, N), got "
            f"{tuple(reference.shape)} and {tuple(other.shape)}"
        )
    return 1 - _standardised(reference) @ _standardised(other).T


def squared_distance(reference: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of every pair of channels, `(C, C)`. Source: arXiv 2506.03088."""
    return torch.cdist(reference, other).square() / reference.shape[-1]


def permutation(cost: Tensor) -> Tensor:
    """The permutation of least total cost.

    Exact transport between brains whose channels all weigh the same is the assignment problem. If
    one brain has fewer channels, each of them is matched with another one of the larger brain.

    Args:
        cost: Of matching reference channel (row) with another brain's channel (column), `(C, C')`.

    Returns:
        For each reference channel the matched channel, or −1 if none is left for it:
        `counts[permutation]` is aligned where brains have equally many. `(C,)`

    Raises:
        ValueError: If the cost is not a finite matrix.

    >>> permutation(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [1, 0]
    >>> permutation(torch.tensor([[1.0], [0.0]])).tolist()
    [-1, 0]
    """
    if cost.ndim != 2 or not bool(cost.isfinite().all()):
        raise ValueError(f"a finite matrix of costs is needed, got {tuple(cost.shape)}")
    rows, columns = linear_sum_assignment(cost.double().cpu().numpy())
    matched = torch.full((len(cost),), -1)
    matched[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return matched


def neutral(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Make unreliable channels equally costly to match with anything: they disturb no other match.

    Args:
        cost: `(C, C')`.
        rows: Which of the reference's channels are reliable, bool `(C,)`.
        columns: Which of the other brain's, bool `(C',)`.
    """
    return cost.where(rows[:, None] & columns, cost.max())


def transport(cost: Tensor, capacity: float = 1.5) -> Tensor:
    """Bring each channel to a slot of a template at the least total cost.

    Args:
        cost: Of bringing a channel (row) to a slot (column), `(C, slots)`.
        capacity: How much of the channels a slot can take, in units of its fair share, at least 1:
            there every slot takes the same; without bound each channel takes the cheapest slot.

    Returns:
        Slot of each channel, the cheapest of those that take a part of it; several channels may
        share one. Where there are more slots than channels, a plan divides many channels equally,
        so that the part which a slot takes does not tell which is best. `(C,)`

    Raises:
        ValueError: If the cost is not a finite matrix, or the capacity less than 1.

    >>> cost = torch.tensor([[0.0, 0.1], [0.0, 0.5], [0.0, 0.9], [0.0, 0.2]])
    >>> transport(cost, capacity=1.0).tolist()
    [1, 0, 0, 1]
    >>> transport(cost, capacity=2.0).tolist()
    [0, 0, 0, 0]
    """
    if cost.ndim != 2 or not bool(cost.isfinite().all()) or capacity < 1:
        raise ValueError(
            f"a finite matrix of costs and a capacity of at least 1 are needed, "
            f"got {tuple(cost.shape)} and {capacity}"
        )
    channels, slots = cost.shape
    # What slots could take and do not is brought from nowhere, for nothing.
    everything = np.vstack([cost.double().cpu().numpy(), np.zeros(slots)])
    sources = np.append(np.full(channels, 1 / channels), capacity - 1)
    plan = ot.emd(sources, np.full(slots, sources.sum() / slots), everything, numItermax=5_000_000)
    takes = plan[:channels] > TAKEN / channels
    return torch.from_numpy(np.where(takes, everything[:channels], np.inf).argmin(1))


def negative_log_likelihood(log_probability: Tensor, counts: Tensor) -> Tensor:
    """How badly each slot's predicted distribution fits each channel's counts.

    Args:
        log_probability: Predicted for every slot, `(B, slots, K, N)`.
        counts: Spikes in each bin, any integer type, below K, `(B, C, N)`.

    Returns:
        Mean nats a bin, `(C, slots)`.
    """
    classes = log_probability.shape[-2]
    happened = functional.one_hot(counts.long(), classes).movedim(-1, -2).to(log_probability)
    total = torch.einsum("bckn,bskn->cs", happened, log_probability)
    return -total / (counts.shape[0] * counts.shape[-1])


def octave_error(reference_hz: Tensor, matched_hz: Tensor) -> float:
    """Median distance of matched characteristic frequencies [octaves], where they are known."""
    return (reference_hz / matched_hz).log2().abs().median().item()


def _standardised(responses: Tensor) -> Tensor:
    centred = responses - responses.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-9)
