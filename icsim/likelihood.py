"""How likely counts are by logits, and its slope, in as few passes over memory as possible."""

import math
import threading

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from .compiling import VECTORISED, compiled

CLASSES = 5
"""Classes that the compiled program is written out for; any other number goes through torch."""

FACTORS = 32
"""Sums of at most `CLASSES` whose product, as one logarithm is taken of it, single precision
holds."""

PARALLEL_FROM = 2**17
"""Logits from which on several threads share them: to wake them takes long (chosen here)."""

fast = compiled(**VECTORISED)
together = compiled(parallel=True, **VECTORISED)

_one_caller = threading.Lock()
"""Numba's plainest threads serve one caller at a time."""


def negative_log_likelihood(
    logits: Tensor, bias: Tensor, counts: Tensor, weight: Tensor, slopes: bool
) -> Tensor:
    """Negative log-likelihood of counts under a softmax, summed over channels and bins.

    Args:
        logits: Without their bias, float32, `(B, C · K, N)`; with `slopes` they are replaced by the
            gradient of the sum.
        bias: `(C · K,)`.
        counts: Spikes, any integer type, `(B, C, N)`; those above K − 1 are in its class.
        weight: Of each sound and channel, `(B, C)`.
        slopes: Whether gradients are wanted.

    Returns:
        Nats, a scalar.
    """
    classes = len(bias) // counts.shape[1]
    counts = counts.clamp(max=classes - 1)
    compiled_here = logits.device.type == "cpu" and classes == CLASSES
    compute = _compiled if compiled_here else _by_torch
    return compute(logits, bias.float(), counts, weight.float(), slopes)


def _by_torch(logits: Tensor, bias: Tensor, counts: Tensor, weight: Tensor, slopes: bool) -> Tensor:
    classes = logits.add_(bias[:, None]).unflatten(1, (counts.shape[1], -1))
    target, share = counts.long().unsqueeze(2), weight[..., None, None]
    largest = classes.amax(2, keepdim=True)
    chosen = classes.gather(2, target) - largest
    odds = classes.sub_(largest).exp_()
    norm = odds.sum(2, keepdim=True)
    total = ((norm.log() - chosen).sum(-1, keepdim=True) * share).sum()
    if slopes:
        odds.mul_(share / norm).scatter_add_(2, target, -share.expand_as(target))
    return total


def _compiled(logits: Tensor, bias: Tensor, counts: Tensor, weight: Tensor, slopes: bool) -> Tensor:
    channels, bins = weight.shape[1], logits.shape[-1]
    given = logits.view(-1, bins), counts.to(torch.uint8).reshape(-1, bins), weight.reshape(-1)
    rows, spikes, share = (tensor.numpy() for tensor in given)
    total = np.empty(len(share), np.float32)
    allowed = torch.get_num_threads()
    threads = allowed if logits.numel() >= PARALLEL_FROM else 1
    with _one_caller:
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set as it is imported
        numba.set_num_threads(min(threads, most))
        _channels(rows, bias.contiguous().numpy(), spikes, share, slopes, channels, total)
    # Numba's first threads change how many all of OpenMP has, torch's included.
    if torch.get_num_threads() != allowed:
        torch.set_num_threads(allowed)
    return torch.tensor(total.sum(dtype=np.float64), dtype=logits.dtype)


@together
def _channels(
    rows: np.ndarray,
    bias: np.ndarray,
    spikes: np.ndarray,
    share: np.ndarray,
    slopes: bool,
    channels: int,
    total: np.ndarray,
) -> None:
    """All channels of all sounds: `rows` `(B · C · K, N)`, the others `(B · C, …)`."""
    parts = min(len(share), 64)
    for part in prange(parts):
        largest = np.empty(rows.shape[1], np.float32)
        norm = np.empty(rows.shape[1], np.float32)
        for i in range(part * len(share) // parts, (part + 1) * len(share) // parts):
            row = bias[i % channels * CLASSES : (i % channels + 1) * CLASSES]
            logits = rows[i * CLASSES : (i + 1) * CLASSES]
            total[i] = _channel(logits, row, spikes[i], share[i], slopes, largest, norm)


@fast
def _channel(
    rows: np.ndarray,
    bias: np.ndarray,
    spikes: np.ndarray,
    share: np.float32,
    slopes: bool,
    largest: np.ndarray,
    norm: np.ndarray,
) -> np.float32:
    """One channel; `largest` and `norm` are space for a number a bin."""
    bins = rows.shape[1]
    bias0, bias1, bias2, bias3, bias4 = bias[0], bias[1], bias[2], bias[3], bias[4]
    chosen = np.float32(0)
    for n in range(bins):
        # Class by class: as a loop over classes it is not vectorised.
        x0, x1 = rows[0, n] + bias0, rows[1, n] + bias1
        x2, x3 = rows[2, n] + bias2, rows[3, n] + bias3
        x4 = rows[4, n] + bias4
        most = _larger(_larger(_larger(x0, x1), _larger(x2, x3)), x4)
        x = x4
        x = x3 if spikes[n] == 3 else x
        x = x2 if spikes[n] == 2 else x
        x = x1 if spikes[n] == 1 else x
        x = x0 if spikes[n] == 0 else x
        chosen += x - most
        largest[n] = most
        norm[n] = (
            _exp(x0 - most) + _exp(x1 - most) + _exp(x2 - most) + _exp(x3 - most) + _exp(x4 - most)
        )
    logarithm = np.float32(0)
    for start in range(0, bins, FACTORS):
        product = np.float32(1)
        for n in range(start, min(start + FACTORS, bins)):
            product *= norm[n]
        logarithm += np.log(product)
    if slopes:
        for n in range(bins):
            norm[n] = share / norm[n]
        for k in range(CLASSES):
            for n in range(bins):
                odds = _exp(rows[k, n] + bias[k] - largest[n]) * norm[n]
                rows[k, n] = odds - (share if spikes[n] == k else np.float32(0))
    return share * (logarithm - chosen)


@fast
def _larger(a: np.float32, b: np.float32) -> np.float32:
    return a if a > b else b


@fast
def _exp(x: np.float32) -> np.float32:
    """Of a number that is not positive, without branches, to two units of the last place.

    A power of two times the Taylor series of the rest; what is not a number stays so.
    """
    x = np.float32(-80) if x < -80 else x
    power = np.floor(x * np.float32(1 / math.log(2)) + np.float32(0.5))
    # The logarithm of 2 in two parts, the first of few digits: its product is exact.
    x = x - power * np.float32(0.693359375) - power * np.float32(math.log(2) - 0.693359375)
    y = np.float32(1 / 720)
    y = y * x + np.float32(1 / 120)
    y = y * x + np.float32(1 / 24)
    y = y * x + np.float32(1 / 6)
    y = y * x + np.float32(1 / 2)
    y = y * x + np.float32(1)
    y = y * x + np.float32(1)
    return y * np.int32((np.int32(power) + 127) << 23).view(np.float32)
