"""Prescribed linear gains: what a clinic would fit from the audiogram alone."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from icsim.audiogram import Audiogram
from icsim.sound import SAMPLE_RATE

NAL_R_HZ = (250, 500, 1000, 2000, 4000, 6000)
"""Where NAL-R is defined [Hz]. Source: Byrne & Dillon 1986, Ear Hear. 7:257-265."""

NAL_R_ORDER, NAL_R_RATE_HZ = 220, 44100.0
"""Order of the filter at a sample rate [Hz]; at other rates it lasts as long (5 ms).

Source: the baseline of the Clarity challenges (pyclarity).
"""


def nal_r(sound: Tensor, audiogram: Audiogram, sample_rate: float = SAMPLE_RATE) -> Tensor:
    """Amplify by NAL-R: one linear-phase filter, its delay compensated to the sample.

    The output is aligned with the input, which takes the future of the sound (half the filter's
    length, 2.5 ms); an ear without any loss gets its sound unchanged.

    Args:
        sound: Pressure [Pa], `(B, T)`.
        audiogram: The listener's thresholds.
        sample_rate: Of the sound [Hz], above 12 kHz.

    Returns:
        Pressure [Pa], `(B, T)`.

    Raises:
        ImportError: If pyclarity is missing.
        ValueError: If the sound is not `(B, T)` or the sample rate too low for the gain at 6 kHz.

    Source: Byrne & Dillon 1986, Ear Hear. 7:257-265, as implemented by pyclarity.
    """
    if sound.ndim != 2:
        raise ValueError(f"sound must be (B, T), got {tuple(sound.shape)}; add or merge dimensions")
    # The taps are symmetric, so the correlation that conv1d computes is the convolution wanted.
    taps = _taps(audiogram, sample_rate).to(sound)
    return conv1d(sound.unsqueeze(1), taps.view(1, 1, -1), padding=len(taps) // 2).squeeze(1)


def nal_r_gains_db(
    audiogram: Audiogram,
    frequencies_hz: Sequence[float] | Tensor,
    sample_rate: float = SAMPLE_RATE,
) -> Tensor:
    """Gains that `nal_r` applies: the filter's own response, for gain curves.

    Args:
        audiogram: The listener's thresholds.
        frequencies_hz: Where [Hz], `(K,)`.
        sample_rate: Of the sounds to be amplified [Hz].

    Returns:
        Gains [dB], `(K,)`.
    """
    taps = _taps(audiogram, sample_rate)
    frequencies = torch.as_tensor(frequencies_hz, dtype=taps.dtype)
    phase = -2j * torch.pi * torch.outer(frequencies / sample_rate, torch.arange(len(taps)))
    return 20 * torch.log10((taps * phase.exp()).sum(-1).abs()).to(torch.get_default_dtype())


def _taps(audiogram: Audiogram, sample_rate: float) -> Tensor:
    """The NAL-R filter: an odd number of symmetric taps, so that its delay is a whole number."""
    if sample_rate <= 2 * NAL_R_HZ[-1]:
        raise ValueError(
            f"NAL-R needs a sample rate above {2 * NAL_R_HZ[-1]} Hz, got {sample_rate}; resample"
        )
    try:
        from clarity.enhancer.nalr import NALR
        from clarity.utils import audiogram as clarity_audiogram
    except ImportError as error:
        raise ImportError(
            f"NAL-R needs pyclarity ({error}): pip install --no-deps pyclarity"
        ) from error
    order = 2 * round(NAL_R_ORDER / 2 * sample_rate / NAL_R_RATE_HZ)
    listener = clarity_audiogram.Audiogram(audiogram.at(NAL_R_HZ).double().numpy(), NAL_R_HZ)
    taps, _ = NALR(order, sample_rate).build(listener)
    return torch.from_numpy(taps)
