"""Noise reduction to compare aids with: what is done without any midbrain.

All are causal but for a stated delay, which is taken out: what comes back is aligned with what went
in. None compensates for a loss of hearing; an amplification such as NAL-R comes after.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from icsim.sound import REFERENCE_PA, SAMPLE_RATE, resample

from .bands import HOP, WINDOW, ShortTime

FLOOR_DB = -15.0
"""No component of a sound is made softer by more [dB] (chosen here)."""

SHIFT_S = 0.016
"""From frame to frame in the publication whose constants of time these are [s]."""

NOISE_KEPT, PRESENCE_KEPT = (factor ** (HOP / SAMPLE_RATE / SHIFT_S) for factor in (0.9, 0.9))
"""Of the noise's power, and of the probability of speech, from hop to hop. The published first one
is 0.8; 0.9 gave more ESTOI and PESQ on other voices than those of the published table."""

PRESENT_DB = 15.0
"""Signal-to-noise ratio of a component that is speech [dB]. Source: Gerkmann & Hendriks 2012."""

STUCK = 0.99
"""Speech that is so probable for so long is noise that has risen. Source: the same."""

FIRST_HOPS = 20
"""So many hops, 80 ms, are taken for noise at first (chosen here; published: 5 of 16 ms)."""

SNR_KEPT = 0.9
"""Share of the component just heard in the decision-directed signal-to-noise ratio (chosen here;
0.98 is usual with longer hops)."""

LEAST_SNR = 10 ** (-25 / 10)
"""Of a component. Source: Cappé 1994."""

SUBTRACTED = 4.0
"""Times the noise's power that is subtracted. Source: Berouti et al. 1979, at 0 dB."""

SHORT_TIME_DELAY_MS = 2 * HOP / SAMPLE_RATE * 1e3
"""Delay of `wiener` and of `spectral_subtraction` [ms]."""

RNNOISE_HZ, RNNOISE_FRAME, RNNOISE_LAG = 48000, 480, 960
"""Sample rate [Hz], block, and how late a click comes out of it [samples] (measured)."""

RNNOISE_DELAY_MS = (RNNOISE_FRAME + RNNOISE_LAG) / RNNOISE_HZ * 1e3
"""Delay of `rnnoise` [ms]: what it looks ahead, and the block that has to be there."""

RNNOISE_FULL_SCALE_DB_SPL = 100.0
"""Level of a sound whose RMS is 1 for it [dB SPL]."""


def wiener(sound: Tensor) -> Tensor:
    """Wiener filter of short-time spectra, with decision-directed signal-to-noise ratios.

    Args:
        sound: Pressure [Pa], `(B, T)`.

    Returns:
        Pressure [Pa], `(B, T)`.

    Source: Scalart & Vieira Filho 1996 (the gain); Ephraim & Malah 1984 (decision-directed).
    """
    before = torch.zeros(())

    def gain(power: Tensor, noise: Tensor) -> Tensor:
        nonlocal before
        snr = SNR_KEPT * before / noise + (1 - SNR_KEPT) * (power / noise - 1).clamp(min=0)
        snr = snr.clamp(min=LEAST_SNR)
        gains = (snr / (1 + snr)).clamp(min=10 ** (FLOOR_DB / 20))
        before = gains.square() * power
        return gains

    return _filtered(sound, gain)


def spectral_subtraction(sound: Tensor) -> Tensor:
    """Subtract the noise's power, several times over, from that of short-time spectra.

    Args:
        sound: Pressure [Pa], `(B, T)`.

    Returns:
        Pressure [Pa], `(B, T)`.

    Source: Berouti, Schwartz & Makhoul 1979.
    """

    def gain(power: Tensor, noise: Tensor) -> Tensor:
        left = (1 - SUBTRACTED * noise / power.clamp(min=SILENT)).clamp(min=0)
        return left.sqrt().clamp(min=10 ** (FLOOR_DB / 20))

    return _filtered(sound, gain)


def rnnoise(sound: Tensor) -> Tensor:
    """RNNoise, a recurrent network trained on many hours of speech and noise, at 48 kHz.

    Args:
        sound: Pressure [Pa], `(B, T)`. Samples above 117 dB SPL are cut.

    Returns:
        Pressure [Pa], `(B, T)`.

    Raises:
        ImportError: If pyrnnoise is missing.

    Source: Valin 2018 (arXiv 1709.08243), by the network that pyrnnoise brings along.
    """
    unit = REFERENCE_PA * 10 ** (RNNOISE_FULL_SCALE_DB_SPL / 20)
    reduced = [_through_rnnoise(resample(one / unit, SAMPLE_RATE, RNNOISE_HZ)) for one in sound]
    back = [resample(one, RNNOISE_HZ, SAMPLE_RATE)[: sound.shape[-1]] for one in reduced]
    return unit * torch.stack(back).to(sound)


def noise_powers(powers: Tensor) -> Iterator[Tensor]:
    """Follow the power of noise under speech, component by component and hop by hop.

    As far as a component is speech, by its probability, what was known of the noise stays; as far
    as it is noise, its power is taken in.

    Args:
        powers: Of short-time spectra, hops last, `(B, bins, L)`.

    Yields:
        `(B, bins)` for each hop, from it and those before.

    Source: Gerkmann & Hendriks 2012, IEEE Trans. Audio Speech Lang. Process. 20(4):1383-1393.
    """
    snr = 10 ** (PRESENT_DB / 10)
    smooth = torch.full_like(powers[..., 0], 0.5)
    noise = torch.zeros_like(smooth)
    for hop, power in enumerate(powers.unbind(-1)):
        if hop < FIRST_HOPS:
            noise = noise + (power - noise) / (hop + 1)
        else:
            ratio = power / noise.clamp(min=SILENT)
            presence = 1 / (1 + (1 + snr) * torch.exp(-ratio * snr / (1 + snr)))
            smooth = PRESENCE_KEPT * smooth + (1 - PRESENCE_KEPT) * presence
            presence = torch.where(smooth > STUCK, presence.clamp(max=STUCK), presence)
            expected = presence * noise + (1 - presence) * power
            noise = NOISE_KEPT * noise + (1 - NOISE_KEPT) * expected
        yield noise.clamp(min=SILENT)


SILENT = 1e-20
"""Power of a component of silence [Pa²]: what is divided by is not zero."""


@torch.no_grad()
def _filtered(sound: Tensor, gain: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Give each component of short-time spectra a gain by its power and the noise's."""
    if sound.ndim != 2:
        raise ValueError(f"sound must be (B, T), got {tuple(sound.shape)}; add or merge dimensions")
    short_time = ShortTime(WINDOW, HOP).to(sound)
    spectra = short_time.spectra(sound)
    powers = spectra.abs().square()
    gains = [
        gain(power, noise)
        for power, noise in zip(powers.unbind(-1), noise_powers(powers), strict=True)
    ]
    return short_time.sound(spectra * torch.stack(gains, -1), sound.shape[-1])


def _through_rnnoise(sound: Tensor) -> Tensor:
    """A sound within ±1 at 48 kHz, `(T,)`, its lag taken out."""
    try:
        from pyrnnoise.rnnoise import create, destroy, process_mono_frame
    except (ImportError, OSError) as error:
        raise ImportError(f'RNNoise is missing ({error}): pip install "icsim[rnnoise]"') from error
    samples = len(sound) + RNNOISE_LAG
    frames = np.zeros(-(-samples // RNNOISE_FRAME) * RNNOISE_FRAME, np.float32)
    frames[: len(sound)] = sound.clamp(-1, 1).numpy()
    state = create()
    with contextlib.ExitStack() as stack:
        stack.callback(destroy, state)
        out = [process_mono_frame(state, frame)[0] for frame in frames.reshape(-1, RNNOISE_FRAME)]
    whole = np.concatenate(out).astype(np.float32) / np.iinfo(np.int16).max
    return torch.from_numpy(whole[RNNOISE_LAG:samples])
