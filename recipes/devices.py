"""The devices that an aid is judged beside, for one listener."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compensation import noise_reduction
from compensation.linear import best_gain_db, level_match_db, nal_r_matched
from compensation.prescriptions import NAL_R_DELAY_MS, nal_r
from evaluation.neural import Midbrain
from icsim.audiogram import Audiogram
from icsim.sound import SAMPLE_RATE

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
    aid: nn.Module, listener: Tensor, reduces_noise: bool, key: str | None = None
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
    """
    devices = {"unprocessed": Device("no aid", lambda sound: sound, 0.0)}
    if ear is not None:
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
                lambda sound, reduce=reduce: nal_r(reduce(sound), ear),
                delay_ms + NAL_R_DELAY_MS,
            )
    return devices


def matched_db(aid: Device, ear: Audiogram, training: Tensor) -> float:
    """How much louder than NAL-R an aid is on training sounds `(B, T)` [dB]."""
    return level_match_db(aid.process, ear, training)


def louder(
    ear: Audiogram | None, impaired: Midbrain, normal: Midbrain, training: Tensor
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
