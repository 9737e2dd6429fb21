"""HASPI and HASQI, version 2, for batches and as training losses: gradients reach the sound.

They agree with pyclarity and are several times as fast. `evaluation.intelligibility.haspi` and
`evaluation.quality.hasqi` score files with them, each with its reason if it has no score.
`1 - haspi(…).mean()` is a loss to descend:

>>> from icsim.audiogram import Audiogram
>>> clean = 0.02 * torch.randn(1, 24000)
>>> processed = clean.clone().requires_grad_()
>>> (1 - haspi(clean, processed, 24000, Audiogram((1000,), (30,)), noise=None).mean()).backward()
>>> bool(processed.grad.isfinite().all())
True

Lags, and which parts of the clean sound are heard, are constants to the gradient. Both scores have
flaws as losses: HASPI saturates for mild losses and rises under plain distortions, HASQI favours
NAL-R by construction. Judge what was trained on them by something else.

Source: Kates & Arehart 2014, JAES 62:99-117 (HASQI) and 2021, Speech Commun. 131:35-46 (HASPI), as
implemented by pyclarity 0.9.0.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from evaluation.ear_model import AUDIOMETRIC_HZ, BANDS, RATE_HZ
from evaluation.ear_pair import Normals, together
from evaluation.haspi_pair import intelligibility
from evaluation.hasqi_pair import quality
from icsim.audiogram import Audiogram
from icsim.sound import resample

SHORTEST_S = 1.0
"""Shorter sounds are refused: HASPI rises on them without reason [s] (measured)."""


def haspi(
    clean: Tensor,
    processed: Tensor,
    sample_rate: float,
    audiogram: Audiogram | Sequence[Audiogram],
    noise: int | torch.Generator | None = 0,
) -> Tensor:
    """Hearing-aid speech perception index, version 2: 0 to 1.

    Args:
        clean: Clean speech as it reaches the unaided ear [Pa], `(B, T)`, at least 1 s; no gradient.
        processed: What the listener hears [Pa], `(B, T)`.
        sample_rate: Of both [Hz].
        audiogram: The listener's thresholds, or those of each sound's listener.
        noise: Of the nerve: the seed of pyclarity's noise, a generator on the sounds' device, or
            None for a nerve without noise, for gradients that do not depend on it.

    Returns:
        Scores, `(B,)`.

    Raises:
        ValueError: If the sounds cannot be scored; the message says why.
    """
    return _scores(intelligibility, clean, processed, sample_rate, audiogram, noise)


def hasqi(
    clean: Tensor,
    processed: Tensor,
    sample_rate: float,
    audiogram: Audiogram | Sequence[Audiogram],
    noise: int | torch.Generator | None = 0,
) -> Tensor:
    """Hearing-aid speech quality index, version 2: 0 to 1; as `haspi`.

    The reference is the clean sound amplified by NAL-R and heard by the listener's own ear.
    """
    return _scores(quality, clean, processed, sample_rate, audiogram, noise)


def _scores(
    score: Callable[..., Tensor],
    clean: Tensor,
    processed: Tensor,
    sample_rate: float,
    audiogram: Audiogram | Sequence[Audiogram],
    noise: int | torch.Generator | None,
) -> Tensor:
    """Each pair by itself, as each is cut to what is heard of its clean sound."""
    _check(clean, processed, sample_rate)
    listeners = [audiogram] * len(clean) if isinstance(audiogram, Audiogram) else [*audiogram]
    if len(listeners) != len(clean):
        raise ValueError(
            f"{len(listeners)} audiograms for {len(clean)} sounds; give one, or one for each"
        )
    thresholds = [listener.at(torch.tensor(AUDIOMETRIC_HZ).double()) for listener in listeners]
    sounds = zip(clean.detach().double(), processed.double(), strict=True)
    pairs = [together(*(_Resample.apply(one, sample_rate) for one in pair)) for pair in sounds]
    draws = _noise(noise, max(len(first) for first, _ in pairs), clean.device)
    scores = []
    for index, (pair, loss) in enumerate(zip(pairs, thresholds, strict=True)):
        try:
            scores.append(score(*pair, loss.to(clean.device), draws()))
        except ValueError as error:
            raise ValueError(f"sound {index}: {error}") from error
    return torch.stack(scores).to(processed.dtype)


def _check(clean: Tensor, processed: Tensor, sample_rate: float) -> None:
    if clean.ndim != 2 or clean.shape != processed.shape or not len(clean):
        raise ValueError(
            f"clean and processed must be (B, T) and alike, got {tuple(clean.shape)} and "
            f"{tuple(processed.shape)}; cut both to the same length, add a dimension to one sound"
        )
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate} Hz")
    # A fraction of a sample does not decide: 24414 samples at 24414.0625 Hz are a second.
    if clean.shape[1] + 1 <= SHORTEST_S * sample_rate:
        raise ValueError(
            f"sounds last {clean.shape[1] / sample_rate:.3g} s; take {SHORTEST_S:g} s or more"
        )
    for name, sounds in (("clean", clean), ("processed", processed)):
        for index in (~sounds.isfinite().all(1)).nonzero():
            raise ValueError(
                f"{name} sound {int(index)} has samples that are NaN or infinite; repair it"
            )
    for index in (~clean.any(1)).nonzero():
        raise ValueError(f"clean sound {int(index)} is silent; leave the pair out")


def _noise(
    noise: int | torch.Generator | None, longest: int, device: torch.device
) -> Callable[[], Normals]:
    """A source of noise for each pair; pairs share pyclarity's, as each begins with the seed."""
    if noise is None:
        return lambda: lambda rows, columns: None
    if isinstance(noise, torch.Generator):
        draw = functools.partial(torch.randn, generator=noise, dtype=torch.float64, device=device)
        return lambda: draw
    stream = _stream(noise, math.ceil(longest / RATE_HZ))

    def begin() -> Normals:
        place = 0

        def normals(rows: int, columns: int) -> Tensor:
            nonlocal place
            place += rows * columns
            part = stream[place - rows * columns : place].reshape(rows, columns)
            return torch.from_numpy(part).to(device)

        return normals

    return begin


@functools.lru_cache(maxsize=1)
def _stream(seed: int, seconds: int) -> np.ndarray:
    """pyclarity's noise for a pair so long; kept, as drawing takes as long as scoring."""
    samples = seconds * RATE_HZ
    # Two ears' motion in full, and envelopes of every ninth sample at most.
    return np.random.RandomState(seed).standard_normal(2 * BANDS * (samples + samples // 9 + 1))


class _Resample(torch.autograd.Function):
    """soxr, as for every other score; its adjoint is soxr the other way."""

    @staticmethod
    def forward(ctx, sound, rate_hz):
        ctx.rate_hz, ctx.samples = rate_hz, len(sound)
        return resample(sound, rate_hz, RATE_HZ)

    @staticmethod
    def backward(ctx, gradient):
        back = resample(gradient, RATE_HZ, ctx.rate_hz) * (RATE_HZ / ctx.rate_hz)
        return pad(back, (0, ctx.samples - len(back))), None
