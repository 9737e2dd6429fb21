"""Recursive filters that gradients pass through: real sections, and gammatone filters.

On a processor each row is one compiled loop over samples, and its adjoint is a loop backwards in
time. Elsewhere, spectra are multiplied by the filter's response, with room for it to die away;
that gives the same numbers to rounding, and the tests compare the two.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from icsim.compiling import compiled

DEAD_DB = -330.0
"""A response that has fallen this far is below the rounding of double precision [dB]."""

fast = compiled(nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
"""Products and sums may be fused and ordered anew, and threads run side by side."""


def section(sound: Tensor, numerator: np.ndarray, denominator: np.ndarray) -> Tensor:
    """Filter by a recursion of order two at most, from rest.

    Args:
        sound: `(*, T)` in double precision.
        numerator: Three coefficients, or two.
        denominator: As many, the first of them 1.

    Returns:
        `(*, T)`.

    >>> section(torch.tensor([1.0, 0, 0], dtype=torch.float64), [1, 0], [1, -0.5]).tolist()
    [1.0, 0.5, 0.25]
    """
    b = np.zeros(3)
    a = np.zeros(3)
    b[: len(numerator)], a[: len(denominator)] = numerator, denominator
    if sound.device.type == "cpu":
        return _Section.apply(sound, b, a, False)
    return section_by_spectra(sound, b, a)


def section_by_spectra(sound: Tensor, b: np.ndarray, a: np.ndarray) -> Tensor:
    """As `section`, on any device; all coefficients, `(3,)`."""
    slowest = np.abs(np.roots(a)).max()
    size = _room(sound.shape[-1], slowest, order=2)
    z = torch.exp(-1j * _frequencies(size // 2 + 1, size, sound))
    response = sum(c * z**n for n, c in enumerate(b)) / sum(c * z**n for n, c in enumerate(a))
    return torch.fft.irfft(torch.fft.rfft(sound, size) * response, size)[..., : sound.shape[-1]]


def gammatone(
    sound: Tensor, radius: Tensor, angle: Tensor, motion: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Gammatone filters of order four with two zeros; 2 at the peak for the analytic signal.

    `2 (1 − a)⁴ / (1 + 2 a)² · (1 + 2 p / z)² / (1 − p / z)⁴` with a pole `p = a exp(i ω)`.

    Args:
        sound: `(B, T)` in double precision.
        radius: a, of the poles, `(B, C)`; gradients reach it too.
        angle: ω, centre frequencies [radians a sample], `(C,)`.
        motion: Whether the real part is wanted.

    Returns:
        Envelope, and the filtered sound itself or None, each `(B, C, T)`.

    Source: Cooke 1993, as implemented by Ma et al. 2007, Speech Commun. 49:874-891.
    """
    if sound.device.type == "cpu":
        envelope, moved = _Gammatone.apply(sound, radius, angle, motion)
        return envelope, moved if motion else None
    analytic = analytic_by_spectra(sound, radius, angle)
    return analytic.abs(), analytic.real if motion else None


def analytic_by_spectra(sound: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """What `gammatone` gives the envelope and the real part of, on any device, `(B, C, T)`."""
    pole, numerator, _ = _coefficients(radius, angle)
    size = _room(sound.shape[-1], radius.detach().max().item(), order=4)
    z = torch.exp(-1j * _frequencies(size, size, sound))
    up = sum(c.unsqueeze(-1) * z**n for n, c in enumerate(numerator))
    spectrum = torch.fft.fft(sound, n=size).unsqueeze(1) * up / (1 - pole.unsqueeze(-1) * z) ** 4
    return torch.fft.ifft(spectrum)[..., : sound.shape[-1]]


def _room(samples: int, radius: float, order: int) -> int:
    """Length of a transform in which a response has died away."""
    decay = -math.log(radius) if radius > 0 else math.inf
    # Poles upon each other die away later than one alone: n³ aⁿ.
    tail = (-DEAD_DB / 20 * math.log(10) + 12 * (order - 1)) / decay
    return next_fast_len(samples + math.ceil(tail))


def _frequencies(count: int, size: int, like: Tensor) -> Tensor:
    return 2 * torch.pi / size * torch.arange(count, dtype=like.dtype, device=like.device)


def _coefficients(radius: Tensor, angle: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Poles `(B, C)`, the three coefficients of the numerator, and their slopes over the radius."""
    turn = torch.exp(1j * angle)
    pole = radius * turn
    gain = 2 * (1 - radius) ** 4 / (1 + 2 * radius) ** 2
    slope = -4 * gain * (1 / (1 - radius) + 1 / (1 + 2 * radius))
    numerator = [gain + 0j, 4 * gain * pole, 4 * gain * pole**2]
    slopes = [
        slope + 0j,
        4 * (slope * pole + gain * turn),
        4 * (slope * pole**2 + 2 * gain * pole * turn),
    ]
    return pole, numerator, slopes


class _Section(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sound, numerator, denominator, backwards):
        ctx.settings = numerator, denominator, backwards
        rows = sound.contiguous().view(-1, sound.shape[-1])
        filtered = torch.empty_like(rows)
        source, target = rows.numpy(), filtered.numpy()
        _share(
            lambda some: _filter_rows(source[some], target[some], *ctx.settings),
            len(rows),
        )
        return filtered.view_as(sound)

    @staticmethod
    def backward(ctx, gradient):
        numerator, denominator, backwards = ctx.settings
        adjoint = _Section.apply(gradient, numerator, denominator, not backwards)
        return adjoint, None, None, None


class _Gammatone(torch.autograd.Function):
    """Keeps the sound alone: what rings is computed again on the way back."""

    @staticmethod
    def forward(ctx, sound, radius, angle, motion):
        ctx.save_for_backward(sound, radius, angle)
        pole, numerator, _ = _arrays(radius, angle)
        shape = (*pole.shape, sound.shape[-1])
        envelope = sound.new_empty(shape)
        moved = sound.new_empty(shape if motion else (*pole.shape, 0))
        samples, out, out_moved = sound.contiguous().numpy(), envelope.numpy(), moved.numpy()

        def work(some: slice) -> None:
            for n in range(len(samples)):
                _ring(
                    samples[n],
                    pole[n, some],
                    numerator[:, n, some],
                    out[n, some],
                    out_moved[n, some],
                )

        _share(work, pole.shape[1])
        ctx.set_materialize_grads(False)
        return envelope, moved

    @staticmethod
    @once_differentiable
    def backward(ctx, of_envelope, of_motion):
        sound, radius, angle = ctx.saved_tensors
        pole, numerator, slopes = _arrays(radius, angle)
        turn = np.exp(1j * angle.numpy())
        samples = sound.contiguous().numpy()
        none = np.zeros((*pole.shape, 0))
        given, given_moved = (
            none if gradient is None else gradient.contiguous().numpy()
            for gradient in (of_envelope, of_motion)
        )
        of_radius = np.zeros(pole.shape)
        parts = []

        def work(some: slice) -> None:
            part = np.zeros_like(samples)
            parts.append(part)
            for n in range(len(samples)):
                _ring_back(
                    samples[n],
                    pole[n, some],
                    turn[some],
                    numerator[:, n, some],
                    slopes[:, n, some],
                    given[n, some],
                    given_moved[n, some],
                    part[n],
                    of_radius[n, some],
                )

        _share(work, pole.shape[1])
        return torch.from_numpy(sum(parts)), torch.from_numpy(of_radius), None, None


def _arrays(radius: Tensor, angle: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `_coefficients` says, as arrays; those of the numerator and its slopes `(3, B, C)`."""
    pole, numerator, slopes = _coefficients(radius.detach(), angle)
    return pole.numpy(), torch.stack(numerator).numpy(), torch.stack(slopes).numpy()


def _share(work: Callable[[slice], None], count: int) -> None:
    """Divide rows among as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads == 1:
        work(slice(0, count))
        return
    edges = [count * n // threads for n in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, map(slice, edges[:-1], edges[1:])))


@fast
def _filter_rows(rows, filtered, b, a, backwards):
    samples = rows.shape[1]
    for row in range(len(rows)):
        late = later = 0.0
        for n in range(samples):
            place = samples - 1 - n if backwards else n
            x = rows[row, place]
            y = b[0] * x + late
            late = b[1] * x - a[1] * y + later
            later = b[2] * x - a[2] * y
            filtered[row, place] = y


@fast
def _ring(sound, poles, numerators, envelope, motion):
    """All filters `(C,)` of one sound `(T,)`; the motion is left out where it has no room."""
    # Real numbers by hand, as compiled complex ones take half as long again.
    for c in range(len(poles)):
        p, q = poles[c].real, poles[c].imag
        b0, b1, b2 = numerators[0, c], numerators[1, c], numerators[2, c]
        x1 = x2 = 0.0
        one = two = three = four = one_i = two_i = three_i = four_i = 0.0
        for n in range(len(sound)):
            x = sound[n]
            into = b0.real * x + b1.real * x1 + b2.real * x2
            into_i = b1.imag * x1 + b2.imag * x2
            one, one_i = (into + p * one) - q * one_i, (into_i + p * one_i) + q * one
            two, two_i = (one + p * two) - q * two_i, (one_i + p * two_i) + q * two
            three, three_i = (two + p * three) - q * three_i, (two_i + p * three_i) + q * three
            four, four_i = (three + p * four) - q * four_i, (three_i + p * four_i) + q * four
            envelope[c, n] = math.sqrt(four * four + four_i * four_i)
            if motion.shape[1]:
                motion[c, n] = four
            x2, x1 = x1, x


@fast
def _ring_back(
    sound, poles, turns, numerators, slopes, of_envelope, of_motion, of_sound, of_radius
):
    """Adds to the gradients of the sound `(T,)` and of the radii `(C,)`."""
    wanted = np.empty(len(sound), np.complex128)
    for c in range(len(poles)):
        p, turn = poles[c], turns[c]
        b0, b1, b2 = numerators[0, c], numerators[1, c], numerators[2, c]
        d0, d1, d2 = slopes[0, c], slopes[1, c], slopes[2, c]
        one = two = three = four = 0j
        more1 = more2 = more3 = more4 = 0j  # how they grow with the radius
        x1 = x2 = slope = 0.0
        for n in range(len(sound)):
            x = sound[n]
            more1 = d0 * x + d1 * x1 + d2 * x2 + turn * one + p * more1
            one = b0 * x + b1 * x1 + b2 * x2 + p * one
            more2 = more1 + turn * two + p * more2
            two = one + p * two
            more3 = more2 + turn * three + p * more3
            three = two + p * three
            more4 = more3 + turn * four + p * more4
            four = three + p * four
            want = 0j
            size = math.sqrt(four.real * four.real + four.imag * four.imag)
            if of_envelope.shape[1] and size > 0:
                want += four * (of_envelope[c, n] / size)
            if of_motion.shape[1]:
                want += of_motion[c, n]
            wanted[n] = want
            slope += want.real * more4.real + want.imag * more4.imag
            x2, x1 = x1, x
        of_radius[c] += slope
        p, b0, b1, b2 = p.conjugate(), b0.conjugate(), b1.conjugate(), b2.conjugate()
        one = two = three = four = 0j
        last1 = last2 = 0j
        for n in range(len(sound) - 1, -1, -1):
            one = wanted[n] + p * one
            two = one + p * two
            three = two + p * three
            four = three + p * four
            of_sound[n] += (b0 * four + b1 * last1 + b2 * last2).real
            last2, last1 = last1, four
