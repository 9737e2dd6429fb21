"""Gains to compare aids with: NAL-R at an aid's level, the best fixed ones, the best of all.

`nal_r_matched` tells whether an aid does more than to be louder. Three searches through a midbrain
say what other devices could reach: `best_gain_db` with one gain for all frequencies, alone or after
NAL-R; `best_linear_gain` with one for each band, as a perfect linear fitting; and
`best_gains_of_sound` with any gain at any time, as no device can, for it knows what comes.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.audiogram import Audiogram
from icsim.sound import level

from .bands import HOP, WINDOW, Bands, ShortTime
from .masks import MasksConfig
from .prescriptions import nal_r

Response = Callable[[Tensor], Tensor]
"""From sounds [Pa] `(B, T)` to expected counts `(B, C, N)`, differentiable."""

Aid = Callable[[Tensor], Tensor]
"""From sounds to sounds as one listener gets them [Pa], `(B, T)` each."""

ENDS_DB = (0.0, 15.0, 30.0)
"""The first candidates are straight lines over bands between any two of these (chosen here)."""

STEPS_DB = (4.0, 2.0, 1.0)
"""Of the search for one gain: over all the range, then to both sides of the best (chosen here)."""

GAINED = 1e-3
"""Share of a sound's first error by which descent must lower it to go on (chosen here)."""


def level_match_db(aid: Aid, audiogram: Audiogram, training: Tensor) -> float:
    """How much louder than NAL-R an aid is: the k of NAL-R + k dB.

    One number for a listener, the mean over sounds of the difference in RMS level.

    Args:
        aid: What is compared with NAL-R, for this listener.
        audiogram: The listener's thresholds.
        training: Sounds at the level at which the two are going to be compared [Pa], `(B, T)`.
            Never those that they are compared on: k would then know the answer.

    Returns:
        k [dB]; negative if NAL-R is louder.

    Raises:
        ValueError: If the sounds are not `(B, T)`, or what either gives back is silent or not
            finite.
    """
    with torch.no_grad():
        apart_db = level(aid(training)) - level(nal_r(training, audiogram))
    if not len(apart_db) or not bool(apart_db.isfinite().all()):
        raise ValueError(
            f"levels differ by {apart_db.tolist()} dB; give sounds that are not silent, and an aid "
            "that leaves them so"
        )
    return apart_db.mean().item()


def nal_r_matched(sound: Tensor, audiogram: Audiogram, gain_db: float) -> Tensor:
    """NAL-R and one more gain for all frequencies, `level_match_db`'s for the same listener.

    Args:
        sound: Pressure [Pa], `(B, T)`.
        audiogram: The listener's thresholds.
        gain_db: k [dB].

    Returns:
        Pressure [Pa], `(B, T)`, aligned as `nal_r` is.
    """
    return nal_r(sound, audiogram) * 10 ** (gain_db / 20)


def apply(sound: Tensor, gains_db: Tensor) -> Tensor:
    """Amplify each band by its own gain, aligned with the input.

    Args:
        sound: Pressure [Pa], `(B, T)`.
        gains_db: Of bands equally wide in ERBs from 100 Hz to 11 kHz [dB], `(bands,)`, or of each
            sound at every hop, `(B, bands, L)`.

    Returns:
        Pressure [Pa], `(B, T)`.

    Raises:
        ValueError: If shapes are others.

    >>> apply(torch.ones(1, 1000), torch.zeros(24)).shape
    torch.Size([1, 1000])
    """
    hops = -(-sound.shape[-1] // HOP) + 1
    varying = gains_db.ndim == 3 and gains_db.shape[::2] == (len(sound), hops)
    if sound.ndim != 2 or not (gains_db.ndim == 1 or varying):
        raise ValueError(
            f"sound must be (B, T) and gains_db (bands,) or (B, bands, {hops}), got "
            f"{tuple(sound.shape)} and {tuple(gains_db.shape)}"
        )
    short_time = ShortTime(WINDOW, HOP)
    bands = Bands(gains_db.shape[1 if varying else 0], short_time).to(sound)
    short_time = short_time.to(sound)
    gains_db = gains_db if varying else gains_db.view(1, -1, 1)
    factor = 10 ** (bands.spread(gains_db.to(sound)) / 20)
    return short_time.sound(short_time.spectra(sound) * factor, sound.shape[-1])


def best_gain_db(
    response: Response,
    target: Tensor,
    sound: Tensor,
    batch: int = 4,
    bounds_db: tuple[float, float] = (-8.0, 32.0),
) -> float:
    """The one gain for all frequencies of least squared error of expected counts.

    Given the sounds themselves, it is what a volume control can do; given what NAL-R made of them,
    it is a listener's best k of NAL-R + k dB.

    Args:
        response: The impaired listener: a learned model at its θ, or a simulated animal.
        target: What the normal listener answers to the sounds before any device, `(B, C, N)`.
        sound: Pressure [Pa], `(B, T)`.
        batch: Sounds given to `response` at a time: memory grows with it.
        bounds_db: Lowest and highest gain [dB].

    Returns:
        The gain [dB], to 1 dB.

    Raises:
        ValueError: If there is not one target a sound, or an error is not finite.

    >>> quiet = torch.rand(1, 320)
    >>> best_gain_db(lambda sound: sound.view(1, 1, -1), 10 * quiet.view(1, 1, -1), quiet)
    20.0
    """
    if not len(sound) or len(sound) != len(target):
        raise ValueError(f"{len(sound)} sounds and {len(target)} targets; give one for each")

    @torch.no_grad()
    def error(gain_db: float) -> float:
        louder = sound * 10 ** (gain_db / 20)
        parts = zip(louder.split(batch), target.split(batch), strict=True)
        return sum((response(x) - wanted).double().square().sum().item() for x, wanted in parts)

    lowest, highest = bounds_db
    tried: dict[float, float] = {}
    gains_db = torch.arange(lowest, highest + 1e-6, STEPS_DB[0]).tolist()
    for step_db in STEPS_DB:
        tried |= {db: error(db) for db in gains_db if lowest <= db <= highest}
        if not all(map(math.isfinite, tried.values())):
            raise ValueError(f"squared errors by gain are {tried}; check the sounds")
        best_db = min(tried, key=tried.__getitem__)
        gains_db = [best_db - step_db / 2, best_db + step_db / 2]
    return best_db


def best_linear_gain(
    response: Response,
    target: Tensor,
    sound: Tensor,
    bands: int = 24,
    steps: int = 30,
    batch: int = 4,
    bounds_db: tuple[float, float] = (MasksConfig.lowest_gain_db, MasksConfig.highest_gain_db),
    starts_db: Tensor | None = None,
    progress: bool = False,
) -> Tensor:
    """The gains of least squared error of expected counts, over all sounds together.

    Descent (L-BFGS) from the best of a few candidates, of which one is no gain at all. What comes
    back is the best of everything tried, so on these sounds it is no worse than any candidate.

    Args:
        response: The impaired listener: a learned model at its θ, or a simulated animal.
        target: What the normal listener answers to these sounds, `(B, C, N)`.
        sound: Pressure [Pa], `(B, T)`.
        bands: How many gains.
        steps: Gradients computed, about; each takes all sounds.
        batch: Sounds given to `response` at a time: memory grows with it.
        bounds_db: Lowest and highest gain [dB].
        starts_db: More candidates, such as prescribed gains, cut at the bounds, `(n, bands)`.
        progress: Show a progress bar.

    Returns:
        Gains [dB], `(bands,)`.

    Raises:
        ValueError: If shapes do not fit, 0 dB is out of bounds, or no gain gives no finite answer.
    """
    _check(target, sound, bands, steps, batch, bounds_db, starts_db)
    lowest, highest = bounds_db
    candidates = _candidates(bands, starts_db).to(sound.device)
    parts = [slice(first, first + batch) for first in range(0, len(sound), batch)]
    tried: list[tuple[float, Tensor]] = []

    def error(gains_db: Tensor, part: slice) -> Tensor:
        return _squared_error(response(apply(sound[part], gains_db)), target[part])

    def gradient() -> float:
        logits.grad, total = torch.zeros_like(logits), 0.0
        for part in parts:
            gains_db = lowest + (highest - lowest) * logits.sigmoid()
            # Relative to no gain, so that the descent's tolerances mean the same for any response.
            part_error = error(gains_db, part) / unaided
            logits.grad += torch.autograd.grad(part_error, logits)[0]
            total += part_error.item()
        tried.append((total, gains_db.detach()))
        bar.update()
        bar.set_postfix(error_left=f"{total:.3f}")
        return total

    with tqdm(total=len(candidates) + steps, desc="linear gains", disable=not progress) as bar:
        with torch.no_grad():
            for gains_db in candidates.clamp(lowest, highest):
                tried.append((sum(error(gains_db, part).item() for part in parts), gains_db))
                bar.update()
        unaided = tried[0][0]
        if _finite(unaided) == 0:
            return tried[0][1].to(sound)
        tried = [(total / unaided, gains_db) for total, gains_db in tried]
        where = (_best(tried) - lowest) / (highest - lowest)
        logits = where.clamp(0.01, 0.99).logit().requires_grad_()
        torch.optim.LBFGS(
            [logits], 1.0, steps, steps, tolerance_change=1e-5, line_search_fn="strong_wolfe"
        ).step(gradient)
    return _best(tried).to(sound)


def _candidates(bands: int, starts_db: Tensor | None) -> Tensor:
    """Straight lines over bands, the first without gain, and what else is given, `(n, bands)`."""
    ends = itertools.product(ENDS_DB, repeat=2)
    lines = torch.stack([torch.linspace(first, last, bands) for first, last in ends]).double()
    return lines if starts_db is None else torch.cat([lines, starts_db.to(lines)])


def _finite(unaided: float) -> float:
    if not math.isfinite(unaided):
        raise ValueError(f"the squared error without gain is {unaided}; check the sounds")
    return unaided


def _squared_error(aided: Tensor, target: Tensor) -> Tensor:
    if aided.shape != target.shape:
        raise ValueError(
            f"the response is {tuple(aided.shape)} and its target {tuple(target.shape)}; "
            "give both the same channels and bins"
        )
    return (aided - target).double().square().sum()


def best_gains_of_sound(
    response: Response,
    target: Tensor,
    sound: Tensor,
    start_db: Tensor,
    steps: int = 400,
    patience: int = 5,
    rate_db: float = 1.0,
    bounds_db: tuple[float, float] = (MasksConfig.lowest_gain_db, MasksConfig.highest_gain_db),
    progress: bool = False,
) -> Tensor:
    """The gains in bands at every hop of least squared error, of each sound by itself.

    Descent (Adam) from given gains until for some steps no sound's error has fallen by a thousandth
    of its first, then again at a quarter of the rate. What comes back is the best of everything
    tried, so that it is no worse than where it began. The gains know each sound beforehand.

    Args:
        response: The impaired listener, differentiable.
        target: What the normal listener answers to these sounds, `(B, C, N)`.
        sound: Pressure [Pa], `(B, T)`.
        start_db: Gains to begin from [dB], `(B, bands, L)`, as an aid's are measured.
        steps: The most steps of descent; each takes all sounds.
        patience: Steps without a gain after which the rate falls, and then descent ends.
        rate_db: Of Adam [dB].
        bounds_db: Lowest and highest gain [dB].
        progress: Show a progress bar.

    Returns:
        Gains [dB], `(B, bands, L)`.

    Raises:
        ValueError: If shapes do not fit.
    """
    _check(target, sound, start_db.shape[1], steps, 1, bounds_db, None)
    gains_db = start_db.clamp(*bounds_db).detach().clone().requires_grad_()
    best_db, least = gains_db.detach().clone(), torch.full((len(sound),), math.inf).double()
    optimiser = torch.optim.Adam([gains_db], lr=rate_db)
    for step in tqdm(range(steps), desc="gains of sounds", disable=not progress):
        errors = (response(apply(sound, gains_db)) - target).double().square().sum((1, 2))
        if step == 0:
            at_first, marked, since = errors.detach().clamp(min=1e-12), least, 0
        with torch.no_grad():
            lower = errors < least
            least = torch.where(lower, errors, least)
            best_db[lower] = gains_db[lower]
        gained = bool((least < marked - GAINED * at_first).any())
        marked, since = (least, 0) if gained else (marked, since + 1)
        if since == patience:
            if optimiser.param_groups[0]["lr"] < rate_db:
                break
            since, optimiser.param_groups[0]["lr"] = 0, rate_db / 4
        (gains_db.grad,) = torch.autograd.grad((errors / at_first).sum(), gains_db)
        optimiser.step()
        with torch.no_grad():
            gains_db.clamp_(*bounds_db)
    return best_db


def _best(tried: list[tuple[float, Tensor]]) -> Tensor:
    """The gains of the smallest error; an error that is NaN is never the smallest."""
    return min(tried, key=lambda one: one[0])[1]


def _check(
    target: Tensor,
    sound: Tensor,
    bands: int,
    steps: int,
    batch: int,
    bounds_db: tuple[float, float],
    starts_db: Tensor | None,
) -> None:
    if sound.ndim != 2 or target.ndim != 3 or len(sound) != len(target) or not len(sound):
        raise ValueError(
            f"sound must be (B, T) and target (B, C, N) with one answer a sound, got "
            f"{tuple(sound.shape)} and {tuple(target.shape)}"
        )
    if min(steps, batch) < 1 or bands < 2:
        raise ValueError(
            f"steps and batch must be positive and bands 2 or more, got {steps}, {batch}, {bands}"
        )
    if not bounds_db[0] < 0 < bounds_db[1]:
        raise ValueError(f"bounds_db must leave gains both ways from 0 dB, got {bounds_db}")
    if starts_db is not None and (starts_db.ndim != 2 or starts_db.shape[1] != bands):
        raise ValueError(f"starts_db must be (n, {bands}), got {tuple(starts_db.shape)}")
