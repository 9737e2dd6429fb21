"""Learned filters that shape a sound with little delay, and hear what is in it.

What is heard is the sound through filters that change smoothly, never a waveform made anew; and
what sets the filters stands still while a tone does. So, whatever the weights of the network that
sets the gains, a steady tone leaves as a steady tone, without harmonics, images or hum.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from icsim.sound import REFERENCE_PA, SAMPLE_RATE

from .bands import Bands, ShortTime

WINDOW_HZ = 50.0
"""Decay of the window through which the encoder listens, a gammatone's envelope [Hz].

A window without edges keeps a tone's power free of the ripple that would modulate its gain: the
mirror image at twice the frequency is 63 dB down at 125 Hz and 89 dB at 350 Hz (chosen here).
"""

UNHEARD = 1e-5
"""Share of the whole power below which bands are not told apart (chosen here)."""

FADE_HOPS = 4
"""Hops for which each filter sounds, faded in and out by a cubic B-spline."""


class Filters(nn.Module):
    """Learned bands that add up to one at every frequency, heard at each hop and filtered by.

    As every response is real, positive and part of one, no gains of bands, whatever the weights,
    amplify any frequency by more than the largest of them.

    Args:
        bands: How many.
        window: What is heard at once [samples], even.
        hop: Step from frame to frame [samples].

    Raises:
        ValueError: If the window is odd or covers no five hops.
    """

    analysis: Tensor
    shorten: Tensor
    fade: Tensor

    def __init__(self, bands: int, window: int, hop: int):
        super().__init__()
        if window % 2 or window < 5 * hop:
            raise ValueError(f"window must be even and cover five hops of {hop}, got {window}")
        self.window, self.hop, self.reach = window, hop, 2 * hop
        triangles = Bands(bands, ShortTime(window, hop)).shape
        self.shape = nn.Parameter(triangles.clamp(min=1e-6).log())
        age = torch.arange(self.window, 0, -1) - 0.5
        analysis = age**3 * torch.exp(-2 * torch.pi * WINDOW_HZ / SAMPLE_RATE * age)
        analysis *= torch.cos(torch.pi / 2 * age / self.window) ** 2
        analysis *= (2 / self.window / analysis.square().sum()).sqrt()
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("shorten", self._shorten(), persistent=False)
        self.register_buffer("fade", _spline(self.hop), persistent=False)

    def _shorten(self) -> Tensor:
        """From responses at the window's bins to those of filters that reach two hops each way."""
        bins = self.window // 2 + 1
        taps = torch.fft.irfft(torch.eye(bins)).roll(self.reach, -1)[:, : 2 * self.reach + 1]
        distance = torch.linspace(-1, 1, 2 * self.reach + 1).abs()
        # Parzen's window has a positive transform, so responses stay positive.
        inner, outer = 1 - 6 * distance**2 * (1 - distance), 2 * (1 - distance) ** 3
        taps = taps * torch.where(distance < 0.5, inner, outer)
        filters = functional.pad(taps, (0, self.hop - 1)).roll(-self.reach, -1)
        return torch.fft.rfft(filters).real.contiguous()

    def shapes(self) -> tuple[Tensor, Tensor]:
        """Responses of the bands when hearing and when filtering, each `(bands, bins)`."""
        weights = self.shape.softmax(0)
        return weights, weights @ self.shorten

    @property
    def latency_samples(self) -> int:
        """Delay between a sample's arrival and its departure, when hops are processed as blocks."""
        return 3 * self.hop

    def around(self, sound: Tensor) -> Tensor:
        """A sound as `levels` wants it: silence before it, and two hops beyond its end.

        `(B, T)` to `(B, window − hop + L · hop)`, with `L` the hops of the sound and two more.
        """
        ahead = 2 * self.hop + -sound.shape[-1] % self.hop
        return functional.pad(sound, (self.window - self.hop, ahead))

    def levels(self, sound: Tensor, weights: Tensor, every: int = 1) -> Tensor:
        """`ln(1 + power)` of each band, re 0 dB SPL: smooth at silence.

        Args:
            sound: `(B, window − hop + L · hop)`.
            weights: From `shapes`.
            every: Frames are `every` hops apart.

        Returns:
            `(B, ⌈L / every⌉, bands)`; the first frame ends with the first hop.
        """
        spectra = torch.fft.rfft(sound.unfold(-1, self.window, every * self.hop) * self.analysis)
        power = torch.view_as_real(spectra).square().sum(-1) @ weights.T / REFERENCE_PA**2
        return torch.log1p(power + UNHEARD * power.sum(-1, keepdim=True))

    def render(self, sound: Tensor, factors: Tensor) -> Tensor:
        """Filter a whole sound, aligned with the input.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            factors: Gains in frames that end with each hop, the last two beyond the end of the
                sound, `(B, bands, ⌈T / hop⌉ + 2)`.

        Returns:
            Pressure [Pa], `(B, T)`.
        """
        samples = sound.shape[-1]
        sound = functional.pad(sound, (self.reach, self.reach + -samples % self.hop))
        factors = functional.pad(factors, (1, 0), value=1.0)
        return self.amplify(sound, factors, self.shapes()[1])[:, :samples]

    def amplify(self, sound: Tensor, gains: Tensor, filtering: Tensor) -> Tensor:
        """Filter with gains that fade from frame to frame.

        Args:
            sound: `(B, (L + 4) · hop)`.
            gains: Factors, `(B, bands, L + 3)`; hop `l` hears frames `l` to `l + 3`.
            filtering: From `shapes`.

        Returns:
            All but the first and last two hops, `(B, L · hop)`.
        """
        around = sound.unfold(-1, self.hop + 2 * self.reach, self.hop)
        responses = (gains.transpose(1, 2) @ filtering).unfold(1, FADE_HOPS, 1).transpose(2, 3)
        each = torch.fft.irfft(torch.fft.rfft(around).unsqueeze(2) * responses, n=around.shape[-1])
        return (each[..., self.reach : self.reach + self.hop] * self.fade).sum(2).flatten(1)


def _spline(hop: int) -> Tensor:
    """Weights of four filters, the oldest first, through a hop, `(4, hop)`; they add up to one."""
    late = (torch.arange(hop) + 0.5) / hop
    early = 1 - late
    inner = [3 * t**3 - 6 * t**2 + 4 for t in (late, early)]
    return torch.stack([early**3, *inner, late**3]) / 6
