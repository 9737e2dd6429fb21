"""The networks of aids hop by hop, compiled: what a device needs.

Off line, thousands of hops share each step of a layer. A device has one hop at a time, and then
torch takes several times as long to dispatch these steps as to compute them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from icsim.compiling import VECTORISED, compiled

if TYPE_CHECKING:
    from .learned_filters import Scale
    from .masks import Layer

Arrays = tuple[Tensor, ...]

fast = compiled(**VECTORISED)


def usable(listener: Tensor) -> bool:
    """Whether a stream for these listeners can run here: single, on a processor, no gradients."""
    single = listener.device.type == "cpu" and listener.dtype == torch.float32
    return single and not torch.is_grad_enabled()


# Masks --------------------------------------------------------------------------------------------


def gather(layers: Iterable["Layer"]) -> Arrays:
    """The weights of all layers as `hop` takes them, without gradients."""
    weights = []
    for layer in layers:
        time = layer.over_time.own
        into, again, bias_into, bias_again = zip(*layer.over_bands.all_weights, strict=True)
        weights.append(
            (
                torch.stack([torch.stack([*norm.parameters()]) for norm in layer.norms]),
                time.weight.t(),
                time.bias,
                torch.cat(into).t(),
                torch.stack(again).transpose(1, 2),
                torch.stack([torch.cat(bias_into), torch.cat(bias_again)]),
            )
        )
    return tuple(torch.stack(parts).detach() for parts in zip(*weights, strict=True))


def hop(x: Tensor, modulations: Tensor, hidden: Tensor, weights: Arrays) -> tuple[Tensor, Tensor]:
    """All layers, one hop.

    Args:
        x: `(B, bands, width)`.
        modulations: Factor and shift of each layer, `(layers, 2, B, bands, 1, width)`.
        hidden: Averages over time, `(layers, B · bands, width)`.
        weights: From `gather`.

    Returns:
        `(B, bands, width)`, and the state after.
    """
    x, hidden = x.contiguous().clone(), hidden.clone()
    arrays = (tensor.numpy() for tensor in (x, modulations, hidden, *weights))
    _layers(*arrays)
    return x, hidden


@fast
def _tanh(x: np.float32) -> np.float32:
    """Without branches, so that a loop of it is vectorised; errs by two units of the last place.

    The continued fraction at a quarter of the argument, doubled twice.
    """
    x = np.float32(10) if x > 10 else (np.float32(-10) if x < -10 else x)
    y = x * np.float32(0.25)
    q = y * y
    over = y * (np.float32(105) + np.float32(10) * q)
    under = np.float32(105) + q * (np.float32(45) + q)
    over, under = np.float32(2) * over * under, over * over + under * under
    return np.float32(2) * over * under / (over * over + under * under)


@fast
def _sigmoid(x: np.float32) -> np.float32:
    half = np.float32(0.5)
    return half + half * _tanh(half * x)


@fast
def _cell(inputs: np.ndarray, again: np.ndarray, hidden: np.ndarray) -> None:
    """Gated recurrent unit: gates `(3H,)` of input and of state; the state `(H,)` is changed."""
    size = len(hidden)
    for i in range(size):
        reset = _sigmoid(inputs[i] + again[i])
        keep = _sigmoid(inputs[size + i] + again[size + i])
        new = _tanh(inputs[2 * size + i] + reset * again[2 * size + i])
        hidden[i] = new + keep * (hidden[i] - new)


@fast
def _average(values: np.ndarray, average: np.ndarray) -> None:
    """One step of running averages: rates and candidates `(2H,)`; averages `(H,)` are changed."""
    size = len(average)
    for i in range(size):
        average[i] += _sigmoid(values[i]) * (_tanh(values[size + i]) - average[i])


@fast
def _normalise(rows: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """Layer norm of each row, `(R, width)`; weight and bias `(2, width)`."""
    width = rows.shape[1]
    for row in range(len(rows)):
        mean = np.float32(0)
        for i in range(width):
            mean += rows[row, i]
        mean /= np.float32(width)
        variance = np.float32(0)
        for i in range(width):
            variance += (rows[row, i] - mean) ** 2
        scale = np.float32(1) / np.sqrt(variance / np.float32(width) + np.float32(1e-5))
        for i in range(width):
            out[row, i] = (rows[row, i] - mean) * scale * weight[0, i] + weight[1, i]


@fast
def _times(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """`rows @ weight + bias`, `(R, N)`."""
    for row in range(len(rows)):
        for j in range(len(bias)):
            out[row, j] = bias[j]
        for i in range(0, len(weight) - 3, 4):
            a, b, c, d = rows[row, i], rows[row, i + 1], rows[row, i + 2], rows[row, i + 3]
            for j in range(len(bias)):
                out[row, j] += (a * weight[i, j] + b * weight[i + 1, j]) + (
                    c * weight[i + 2, j] + d * weight[i + 3, j]
                )
        for i in range(len(weight) // 4 * 4, len(weight)):
            for j in range(len(bias)):
                out[row, j] += rows[row, i] * weight[i, j]


@fast
def _layers(x, modulations, hidden, norms, time_into, time_bias, into, again, bias):
    sounds, bands, width = x.shape
    half = width // 2
    rows = x.reshape(sounds * bands, width)
    normed = np.empty((len(rows), width), np.float32)
    gates = np.empty((len(rows), 3 * width), np.float32)
    inputs = np.empty((len(rows), 2 * width), np.float32)
    state, step = np.empty((1, half), np.float32), np.empty((1, 3 * half), np.float32)
    for layer in range(len(hidden)):
        _normalise(rows, norms[layer, 0], normed)
        for row in range(len(rows)):
            factor = modulations[layer, 0, row // bands, row % bands, 0]
            shift = modulations[layer, 1, row // bands, row % bands, 0]
            for i in range(width):
                normed[row, i] = normed[row, i] * factor[i] + shift[i]
        _times(normed, time_into[layer], time_bias[layer], inputs)
        for row in range(len(rows)):
            _average(inputs[row], hidden[layer, row])
            for i in range(width):
                rows[row, i] += hidden[layer, row, i]
        _normalise(rows, norms[layer, 1], normed)
        _times(normed, into[layer], bias[layer, 0], gates)
        for sound in range(sounds):
            for way in range(2):
                first = 3 * half * way
                for i in range(half):
                    state[0, i] = 0
                for n in range(bands):
                    row = sound * bands + (bands - 1 - n if way else n)
                    _times(state, again[layer, way], bias[layer, 1, first : first + 3 * half], step)
                    _cell(gates[row, first : first + 3 * half], step[0], state[0])
                    for i in range(half):
                        rows[row, half * way + i] += state[0, i]


# Learned filters -----------------------------------------------------------------------


def gather_scales(scale: "Scale") -> Arrays:
    """The weights of a `Scale` and all inside as `frames` takes them, without gradients.

    Blocks come in the order of `Scale.blocks`.
    """
    blocks, halves = scale.blocks(), [each.halve for each in scale.chain()[:-1]]
    width, taps = blocks[0].over_channels.in_features, blocks[0].taps
    parts = [
        _stacked([_by_tap(block.over_time.weight, taps) for block in blocks], taps * width, width),
        _stacked([block.over_time.bias for block in blocks], width),
        _stacked([block.over_channels.weight.t() for block in blocks], width, width),
        _stacked([block.over_channels.bias for block in blocks], width),
        _stacked([_by_tap(halve.weight, 4) for halve in halves], 4 * width, width),
        _stacked([halve.bias for halve in halves], width),
    ]
    return tuple(part.detach().contiguous() for part in parts)


def _by_tap(weight: Tensor, taps: int) -> Tensor:
    """Weights `(N, width · taps)` for windows whose channels come tap by tap."""
    return weight.unflatten(1, (-1, taps)).permute(2, 1, 0).flatten(0, 1)


def _stacked(parts: list[Tensor], *shape: int) -> Tensor:
    return torch.stack(parts) if parts else torch.empty(0, *shape)


def begin_scales(modulations: Tensor, taps: int) -> Arrays:
    """The state before any frame, for modulations `(blocks, B, 2, width)`.

    Returns:
        Past frames of each block, `(B, blocks, taps, width)`, the last place for the present one;
        frames that wait to be halved, `(B, halvings, 4, width)`, likewise; slower frames that are
        held, `(B, halvings, width)`; frames so far, `(1,)`.
    """
    blocks, sounds, _, width = modulations.shape
    none = modulations.new_zeros
    return (
        none(sounds, blocks, taps, width),
        none(sounds, blocks // 2, 4, width),
        none(sounds, blocks // 2, width),
        torch.zeros(1, dtype=torch.int64),
    )


def frames(x: Tensor, modulations: Tensor, state: Arrays, weights: Arrays) -> tuple[Tensor, Arrays]:
    """A `Scale` on some frames.

    Args:
        x: `(B, L, width)`.
        modulations: Factor and shift of each block, `(blocks, B, 2, width)`.
        state: From `begin_scales`, or from the frames before.
        weights: From `gather_scales`.

    Returns:
        `(B, L, width)`, and the state after.
    """
    x, state = x.contiguous().clone(), tuple(part.clone() for part in state)
    arrays = (tensor.numpy() for tensor in (x, modulations, *state, *weights))
    _scales(*arrays)
    return x, state


@fast
def _scales(
    x, modulations, past, waiting, held, count,
    over_time, time_bias, over_channels, channels_bias, halve, halve_bias,
):  # fmt: skip
    sounds, length, width = x.shape
    halvings = len(halve)
    averages = np.empty((halvings + 1, 1, width), np.float32)
    one = np.empty((1, width), np.float32)
    two = np.empty((1, width), np.float32)
    for sound in range(sounds):
        for frame in range(length):
            now = count[0] + frame
            averages[0, 0] = x[sound, frame]
            deepest = 0
            while True:  # a scale passes every second of its frames on
                _block(
                    averages[deepest], modulations[deepest, sound], past[sound, deepest],
                    over_time[deepest], time_bias[deepest],
                    over_channels[deepest], channels_bias[deepest], one, two,
                )  # fmt: skip
                if deepest == halvings:
                    break
                _shift(waiting[sound, deepest], averages[deepest, 0])
                if (now >> deepest) % 2 == 0:
                    break
                window = waiting[sound, deepest].reshape(1, 4 * width)
                _times(window, halve[deepest], halve_bias[deepest], averages[deepest + 1])
                deepest += 1
            for level in range(min(deepest, halvings - 1), -1, -1):
                for i in range(width):
                    slower = held[sound, level, i]
                    if level < deepest:
                        slower = (slower + averages[level + 1, 0, i]) * np.float32(0.5)
                        held[sound, level, i] = averages[level + 1, 0, i]
                    averages[level, 0, i] += slower
                block = halvings + 1 + level
                _block(
                    averages[level], modulations[block, sound], past[sound, block],
                    over_time[block], time_bias[block],
                    over_channels[block], channels_bias[block], one, two,
                )  # fmt: skip
            x[sound, frame] = averages[0, 0]
    count[0] += length


@fast
def _block(x, modulation, past, over_time, time_bias, over_channels, channels_bias, one, two):
    """One frame `(1, width)` in place; `past` `(taps, width)` moves on."""
    _normalise(x, modulation, one)
    _shift(past, one[0])
    _times(past.reshape(1, past.size), over_time, time_bias, two)
    for i in range(two.shape[1]):
        two[0, i] *= _sigmoid(two[0, i])
    _times(two, over_channels, channels_bias, one)
    for i in range(x.shape[1]):
        x[0, i] += one[0, i]


@fast
def _shift(rows, last):
    """Rows move up by one, and the last is new."""
    for row in range(len(rows) - 1):
        rows[row] = rows[row + 1]
    rows[len(rows) - 1] = last
