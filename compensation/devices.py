"""An aid for one listener, and the devices that it is judged beside."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compensation import noise_reduction
from compensation.aid import Aid
from compensation.bands import HOP, WINDOW, BandLevels, Bands, ShortTime
from compensation.linear import (
    Response,
    apply,
    best_gain_db,
    best_gains_of_sound,
    best_linear_gain,
    level_match_db,
    nal_r_matched,
)
from compensation.objective import INAUDIBLE_DB_SPL, guards
from compensation.prescriptions import NAL_R_DELAY_MS, nal_r, nal_r_compressed, nal_r_gains_db
from icsim.audiogram import Audiogram
from icsim.sound import SAMPLE_RATE

FIXED_BANDS = 24
"""Gains of a fixed fitting."""

NOISE_REDUCTIONS = {
    "wiener": ("Wiener filter", noise_reduction.wiener, noise_reduction.SHORT_TIME_DELAY_MS),
    "spectral_subtraction": (
        "spectral subtraction",
        noise_reduction.spectral_subtraction,
        noise_reduction.SHORT_TIME_DELAY_MS,
    ),
    "rnnoise": ("RNNoise", noise_reduction.rnnoise, noise_reduction.RNNOISE_DELAY_MS),
}
"""What takes noise away without any midbrain: its name, what it does, and its delay [ms]."""


@dataclasses.dataclass(frozen=True)
class Device:
    """What is done to a sound for one listener."""

    label: str
    """As a reader calls it."""
    process: Callable[[Tensor], Tensor]
    """Pressure [Pa], `(B, T)` to `(B, T)`, aligned."""
    delay_ms: float
    """How late a sound would leave it [ms], but for the time that computing takes."""


def without_rnnoise() -> str | None:
    """Why RNNoise cannot be used here, if it cannot."""
    try:
        noise_reduction.rnnoise(torch.zeros(1, 480))
    except ImportError as error:
        return str(error)
    return None


def ours(
    aid: Aid, listener: Tensor, reduces_noise: bool, key: str | None = None
) -> dict[str, Device]:
    """An aid for a listener `(P,)`: without its noise reduction, and with it if it has any.

    They are called `<key>_nr_off` and `<key>_nr_on`, after the aid's class if no key is given.
    """
    name, delay_ms = type(aid).__name__, aid.latency_samples / SAMPLE_RATE * 1e3
    key = key or name.lower()

    def process(exponent: float, sound: Tensor) -> Tensor:
        with torch.no_grad():
            return aid.process(sound, listener.expand(len(sound), -1), exponent)

    exponents = {"off": 0.0, "on": 1.0} if reduces_noise else {"off": 0.0}
    return {
        f"{key}_nr_{state}": Device(
            f"{name}, noise reduction {state}", functools.partial(process, exponent), delay_ms
        )
        for state, exponent in exponents.items()
    }


def prescribed(
    ear: Audiogram | None, match_db: float | None, reductions: tuple[str, ...]
) -> dict[str, Device]:
    """No aid, NAL-R, NAL-R at the level of an aid, and NAL-R after some noise reductions.

    Args:
        ear: The listener's thresholds; without any, noise is reduced and nothing is amplified.
        match_db: How much louder than NAL-R the aid is [dB].
        reductions: Keys of `NOISE_REDUCTIONS`.

    Raises:
        ValueError: If there are thresholds, and it is not said how much louder the aid is.
    """
    devices = {"unprocessed": Device("no aid", lambda sound: sound, 0.0)}
    if ear is not None:
        if match_db is None:
            raise ValueError("NAL-R cannot be made as loud as an aid without match_db; give it")
        devices["nal_r"] = Device("NAL-R", lambda sound: nal_r(sound, ear), NAL_R_DELAY_MS)
        devices["nal_r_matched"] = Device(
            "NAL-R at the aid's level",
            lambda sound: nal_r_matched(sound, ear, match_db),
            NAL_R_DELAY_MS,
        )
    for key in reductions:
        label, reduce, delay_ms = NOISE_REDUCTIONS[key]
        if ear is None:
            devices[key] = Device(label, reduce, delay_ms)
        else:
            devices[f"{key}_nal_r"] = Device(
                f"{label}, then NAL-R",
                functools.partial(_then_nal_r, reduce, ear),
                delay_ms + NAL_R_DELAY_MS,
            )
    return devices


def _then_nal_r(reduce: Callable[[Tensor], Tensor], ear: Audiogram, sound: Tensor) -> Tensor:
    return nal_r(reduce(sound), ear)


def matched_db(aid: Device, ear: Audiogram, training: Tensor) -> float:
    """How much louder than NAL-R an aid is on training sounds `(B, T)` [dB]."""
    return level_match_db(aid.process, ear, training)


def louder(
    ear: Audiogram | None, impaired: Response, normal: Response, training: Tensor
) -> tuple[dict[str, Device], dict[str, float]]:
    """What more level can do: one gain for all frequencies, alone and after NAL-R.

    Each is the one that restores most of training sounds in the opinion of a model, which any
    laboratory can choose.

    Args:
        ear: The listener's thresholds, if there are any.
        impaired: The listener's midbrain as the model has it.
        normal: The normal one.
        training: Sounds to choose on, never those that are judged [Pa], `(B, T)`.

    Returns:
        The devices, and their gains [dB], by name.
    """
    with torch.no_grad():
        target = normal(training)
    flat_db = best_gain_db(impaired, target, training)
    devices = {
        "flat_model": Device(
            "flat gain, best in the model", lambda sound: sound * 10 ** (flat_db / 20), 0.0
        )
    }
    if ear is None:
        return devices, {"flat_model": flat_db}
    k_db = best_gain_db(impaired, target, nal_r(training, ear))
    devices["nal_r_best_model"] = Device(
        "NAL-R + k dB, best in the model",
        lambda sound: nal_r_matched(sound, ear, k_db),
        NAL_R_DELAY_MS,
    )
    return devices, {"flat_model": flat_db, "nal_r_best_model": k_db}


def noise_reduction_alone(aid: Aid, listener: Tensor) -> Device:
    """The noise reduction of an aid for a listener `(P,)`, without its compensation."""

    def process(sound: Tensor) -> Tensor:
        with torch.no_grad():
            return aid.process(sound, listener.expand(len(sound), -1), gain=0.0)

    delay_ms = aid.latency_samples / SAMPLE_RATE * 1e3
    return Device(f"{type(aid).__name__}, noise reduction alone", process, delay_ms)


def simple(
    ear: Audiogram,
    midbrains: Mapping[str, tuple[Response, Response]],
    aid: Device,
    training: Tensor,
) -> tuple[dict[str, Device], dict[str, float]]:
    """Devices that an aid has to beat, and the gains that were chosen for them on training sounds.

    NAL-R as it is, at the aid's level, compressed, and after a Wiener filter. By each of the
    midbrains also NAL-R and the best k, the best flat gain and the best gains in bands: in the
    model, as a laboratory could choose them, and on the true animal, which bounds what it can do.

    Args:
        ear: The listener's thresholds.
        midbrains: Impaired and normal, by name; none of a listener who hears normally.
        aid: What NAL-R is made as loud as.
        training: Sounds of the training split [Pa], `(B, T)`.

    Returns:
        The devices, and gains [dB], by name, which ends with that of the midbrains.
    """
    chosen = {"nal_r_matched": matched_db(aid, ear, training)}
    devices = prescribed(ear, chosen["nal_r_matched"], ("wiener",))
    devices["nal_r_compressed"] = Device(
        "NAL-R with compression", lambda sound: nal_r_compressed(sound, ear), 0.0
    )
    prescribed_db = nal_r_gains_db(ear, Bands(FIXED_BANDS, ShortTime(WINDOW, HOP)).centres_hz)
    for name, (impaired, normal) in midbrains.items():
        with torch.no_grad():
            target = normal(training)
        flat, gains_db = louder(ear, impaired, normal, training)
        # They begin where simpler gains end, and so restore no less on the training sounds.
        starts_db = torch.stack(
            [
                prescribed_db + gains_db["nal_r_best_model"],
                torch.full_like(prescribed_db, gains_db["flat_model"]),
            ]
        )
        fixed_db = best_linear_gain(impaired, target, training, FIXED_BANDS, starts_db=starts_db)
        flat["fixed_model"] = Device(
            "best fixed gains", functools.partial(apply, gains_db=fixed_db), 0.0
        )
        devices |= {key.replace("model", name): device for key, device in flat.items()}
        chosen |= {key.replace("model", name): gain for key, gain in gains_db.items()}
    return devices, chosen


def limit(impaired: Response, normal: Response, sound: Tensor, start: Tensor, steps: int) -> Tensor:
    """What any gains at any time could make of sounds for a midbrain [Pa], `(B, T)`.

    Args:
        impaired: The listener's midbrain.
        normal: The one to be matched.
        sound: What is heard [Pa], `(B, T)`.
        start: The same by an aid, with whose gains the descent begins.
        steps: The most steps.
    """
    levels = BandLevels()
    with torch.no_grad():
        target = normal(sound)
        start_db = levels(start) - levels(sound)
    return apply(sound, best_gains_of_sound(impaired, target, sound, start_db, steps))


def band_gains(
    sound: Tensor, processed: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Mean gain of each device in each band where something is to be heard [dB], and the bands.

    Args:
        sound: What is heard [Pa], `(B, T)`.
        processed: The same by each device.

    Returns:
        `(33,)` by device, and centres such as `"1000 Hz"`.
    """
    measure = BandLevels()
    levels = measure(sound)
    audible = (levels > INAUDIBLE_DB_SPL).float()
    total = audible.sum((0, 2)).clamp(min=1)
    gains = {
        name: ((measure(after) - levels) * audible).sum((0, 2)) / total
        for name, after in processed.items()
    }
    return gains, [f"{hz:.0f} Hz" for hz in measure.bands.centres_hz.tolist()]


def guarded(sound: Tensor, processed: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The terms that guard an aid's gains, `(B,)`, by term and device; arguments as above."""
    measure = BandLevels()
    levels = measure(sound)
    gains = {name: measure(after) - levels for name, after in processed.items()}
    return {
        name: {device: term(gain) for device, gain in gains.items()}
        for name, term in guards(levels).items()
    }
