"""Short-time spectra with little delay, and the auditory bands that gains are set in."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from icsim.dsp import erb_number, erb_number_to_hz
from icsim.sound import REFERENCE_PA, SAMPLE_RATE

WINDOW, HOP = 512, 96
"""Of what measures levels in bands and what sets fixed gains [samples] (chosen here)."""


class ShortTime(nn.Module):
    """Analysis with a long window and synthesis with a short one, from one hop to the next.

    The long window resolves frequencies; only its last two hops are synthesised, so that the
    delay is two hops and not the window. Unchanged spectra give back the sound exactly.

    Args:
        window: Length of the analysis [samples].
        hop: Step [samples].

    Source: Mauler & Martin 2007 (asymmetric windows for low delay).
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(self, window: int, hop: int):
        super().__init__()
        if window < 2 * hop:
            raise ValueError(f"the window must cover two hops, got {window} and {hop}")
        rising = torch.hann_window(2 * (window - hop))[: window - hop].sqrt()
        short = torch.hann_window(2 * hop)
        analysis = torch.cat([rising, short[hop:].sqrt()])
        synthesis = torch.zeros(window)
        synthesis[-2 * hop :] = short / analysis[-2 * hop :].clamp(min=1e-6)
        self.window, self.hop = window, hop
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis[-2 * hop :], persistent=False)

    @property
    def latency_samples(self) -> int:
        """Delay between a sample's arrival and its departure, when hops are processed as blocks."""
        return 2 * self.hop

    def spectra(self, sound: Tensor) -> Tensor:
        """`(B, T)` to complex `(B, window // 2 + 1, L)`; frame `l` ends with sample `hop·(l+1)`."""
        hops = -(-sound.shape[-1] // self.hop) + 1
        ahead = hops * self.hop - sound.shape[-1]
        return self.analyse(functional.pad(sound, (self.window - self.hop, ahead)))

    def sound(self, spectra: Tensor, samples: int) -> Tensor:
        """Back to `(B, samples)`, aligned with the sound that was analysed."""
        begun = spectra.real.new_zeros(len(spectra), self.hop)
        return self.synthesise(spectra, begun)[0][:, self.hop :][:, :samples]

    def analyse(self, sound: Tensor) -> Tensor:
        """Spectra of L hops after `window - hop` samples of the past, `(B, window + (L - 1)·hop)`.

        Returns:
            Complex `(B, window // 2 + 1, L)`.
        """
        frames = sound.unfold(-1, self.window, self.hop)
        return torch.fft.rfft(frames * self.analysis).transpose(1, 2)

    def synthesise(self, spectra: Tensor, begun: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra of L hops to `(B, L·hop)`, one hop late, and the hop begun `(B, hop)`.

        Args:
            spectra: `(B, window // 2 + 1, L)`.
            begun: What the spectra before gave of the first hop, `(B, hop)`; zeros at the start.
        """
        frames = torch.fft.irfft(spectra.transpose(1, 2), n=self.window)
        first, second = (frames[..., -2 * self.hop :] * self.synthesis).split(self.hop, -1)
        parts = torch.cat([begun.unsqueeze(1), second], 1)
        return (first + parts[:, :-1]).flatten(1), parts[:, -1]


class Bands(nn.Module):
    """Overlapping triangular bands, equally wide in ERBs, that add up to one at every frequency.

    Args:
        bands: How many, between 100 Hz and 11 kHz.
        short_time: The spectra that they divide.

    Source: Glasberg & Moore 1990 (ERB-number scale).
    """

    shape: Tensor
    centres_hz: Tensor

    def __init__(self, bands: int, short_time: ShortTime):
        super().__init__()
        bins_hz = torch.linspace(0, SAMPLE_RATE / 2, short_time.window // 2 + 1)
        low, high = erb_number(torch.tensor([100.0, 11000.0]))
        centres = torch.linspace(low, high, bands)
        position = (erb_number(bins_hz) - low) / (high - low) * (bands - 1)
        position = position.clamp(0, bands - 1)
        shape = (1 - (position - torch.arange(bands).unsqueeze(1)).abs()).clamp(min=0)
        self.register_buffer("shape", shape, persistent=False)
        self.register_buffer("centres_hz", erb_number_to_hz(centres), persistent=False)
        scale = 2 / (short_time.window * short_time.analysis.square().sum())
        self.scale = scale.item()

    def levels(self, spectra: Tensor, floor_db_spl: float = 0.0) -> Tensor:
        """Level in each band [dB SPL]: `(B, bins, L)` to `(B, bands, L)`; smooth at silence."""
        power = self.shape @ (spectra.abs().square() * self.scale)
        floor = REFERENCE_PA**2 * 10 ** (floor_db_spl / 10)
        return 10 * torch.log10((power + floor) / REFERENCE_PA**2)

    def spread(self, gains_db: Tensor) -> Tensor:
        """Interpolate gains [dB] of bands at every bin: `(B, bands, L)` to `(B, bins, L)`."""
        return self.shape.t() @ gains_db


class BandLevels(nn.Module):
    """Levels of a sound in 33 bands, equally wide in ERBs; their change is what an aid adds."""

    def __init__(self):
        super().__init__()
        self.short_time = ShortTime(WINDOW, HOP)
        self.bands = Bands(33, self.short_time)

    def forward(self, sound: Tensor) -> Tensor:
        """`(B, T)` [Pa] to levels [dB SPL], `(B, bands, L)`."""
        return self.bands.levels(self.short_time.spectra(sound))
