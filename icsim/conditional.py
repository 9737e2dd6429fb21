"""One network for all animals: BetaICNet, conditioned on θ, and ABRNet, on thresholds."""

import dataclasses
import itertools

import torch
from torch import Tensor, nn

from .channel_gains import Prior, fit_gains, with_gains
from .convolution import causal_convolution
from .counts import Prediction
from .icnet import CONTEXT_BINS, Decoder, Encoder, EncoderConfig
from .layers import CausalConv
from .objective import nats
from .sound import BIN_SAMPLES, SAMPLE_RATE
from .theta import Listeners

FUSION_LAYERS = 4
"""Layers of the fusion. Source: arXiv 2506.03088."""


CORRELATED_BINS = 0.020 * SAMPLE_RATE / BIN_SAMPLES
"""Bins that count as one observation: predictions err in runs, not bin by bin. Chosen here: 20 ms,
so that a posterior is not narrower than repeated fits are spread."""


@dataclasses.dataclass(frozen=True)
class BetaICNetConfig:
    """What BetaICNet is made of; the defaults are the published sizes."""

    animals: int
    """Animals it is trained on, A."""
    channels: int = 512
    """Response channels that it has for all brains: the slots of an alignment."""
    parameters: int = 6
    """Dimensions of θ, P."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""
    fusion_size: int = 16
    """Taps of the fusion's convolutions."""
    shared_drift: bool = True
    """One time transfer for all animals, or one for each."""
    seed: int = 0
    """Of the listeners' starting means."""

    def __post_init__(self):
        if min(self.animals, self.channels, self.parameters, self.fusion_size) < 1:
            raise ValueError(f"animals, channels, parameters and sizes must be positive: {self}")


@dataclasses.dataclass(frozen=True)
class ABRNetConfig:
    """What ABRNet is made of; the defaults are the published sizes."""

    channels: int = 512
    """Response channels that it has for all brains: the slots of an alignment."""
    frequencies: int = 5
    """Thresholds of a listener, F."""
    fusion_size: int = 16
    """Taps of the fusion's convolutions."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""

    def __post_init__(self):
        if min(self.channels, self.frequencies, self.fusion_size) < 1:
            raise ValueError(f"channels, frequencies and sizes must be positive: {self}")


class Fusion(nn.Module):
    """Latent and what is known of a listener to features of that listener's responses.

    Features are the latent and what the listener changes in it, little at the start: the network
    begins as one for all brains, and learns how they differ.

    The listener does not change within a frame, so its part of the first layer is a bias, and that
    layer's convolution of the latent serves all listeners at once.

    Args:
        latent: Channels of the latent.
        parameters: Numbers that describe a listener, P.
        size: Taps of the convolutions.
    """

    def __init__(self, latent: int, parameters: int, size: int = 16):
        super().__init__()
        widths = torch.linspace(latent + 3 * parameters, latent, FUSION_LAYERS + 1)
        widths = [round(width) for width in widths.tolist()]
        steps = [parameters, parameters, 2 * parameters, 3 * parameters]
        self.embed = nn.Sequential(*(CausalConv(i, o, 1) for i, o in itertools.pairwise(steps)))
        self.layers = nn.ModuleList(CausalConv(i, o, size) for i, o in itertools.pairwise(widths))
        with torch.no_grad():
            self.layers[-1].conv.weight.mul_(0.1)
        self.latent = latent

    def forward(self, latent: Tensor, listener: Tensor, crop: int = 0) -> Tensor:
        """Features of every listener for every sound.

        Args:
            latent: `(B, latent, N)`.
            listener: `(B, A, P)`, or `(1, A, P)` for the same listeners throughout.
            crop: Bins left out at the start, whose context is incomplete.

        Returns:
            `(B, A, latent, N − crop)`.
        """
        sounds, listeners = len(latent), listener.shape[1]
        first = self.layers[0]
        on_latent, on_listener = first.conv.weight.split(
            [self.latent, first.conv.weight.shape[1] - self.latent], dim=1
        )
        from_latent = causal_convolution(latent, on_latent, first.conv.bias, stride=1)
        embedded = self.embed(listener.transpose(1, 2))
        from_listener = torch.einsum("ze,bea->baz", on_listener.sum(-1), embedded)
        x = from_latent.unsqueeze(1) + from_listener.unsqueeze(-1)
        x = first.activation(x.expand(sounds, -1, -1, -1).flatten(0, 1))
        for layer in self.layers[1:]:
            x = layer(x)
        changed = x.unflatten(0, (sounds, listeners))
        return (latent.unsqueeze(1) + changed)[..., crop:]


class BetaICNet(nn.Module):
    """Sound and θ to the distribution of spike counts, with the listeners it was trained on.

    `listeners` holds what was learned of each animal; `respond` takes any θ.
    """

    def __init__(self, config: BetaICNetConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.fusion = Fusion(config.encoder.bottleneck, config.parameters, config.fusion_size)
        self.decoder = Decoder(config.encoder.bottleneck, config.channels)
        self.listeners = Listeners(
            config.animals, config.parameters, config.shared_drift, config.seed
        )

    @property
    def receptive_bins(self) -> int:
        """Bins of context that a bin can depend on, rounded up."""
        fusion = FUSION_LAYERS * (self.config.fusion_size - 1)
        return -(-self.encoder.receptive_samples // BIN_SAMPLES) + fusion

    def forward(
        self,
        sound: Tensor,
        hours: Tensor,
        noise: Tensor | None = None,
        matching: Tensor | None = None,
        animals: Tensor | slice = slice(None),
    ) -> Prediction:
        """Training: what animals answer to frames with context.

        Args:
            sound: Pressure [Pa], `(B, T)`, the first 2048 samples context.
            hours: When each animal heard it [h], `(B, A)`.
            noise: Standard normal, `(B, A, P)`; None for the mean listener.
            matching: Slot of each animal's channels, `(A, C)`; all slots if None.
            animals: Which of the animals the axis A holds, if not all.

        Returns:
            Of `T // 32 − 64` bins.
        """
        theta = self.listeners.theta(hours, animals)
        if noise is not None:
            theta = theta + self.listeners.deviation[animals] * noise
        return self.predict(self.encoder(sound), theta, matching, CONTEXT_BINS)

    def latent(self, sound: Tensor) -> Tensor:
        """The part of a response that no listener changes: `(B, T)` to `(B, latent, N)`."""
        return self.encoder(sound)

    def predict(
        self, latent: Tensor, theta: Tensor, matching: Tensor | None = None, crop: int = 0
    ) -> Prediction:
        """What listeners answer, from latents.

        Args:
            latent: `(B, latent, N)`.
            theta: `(B or 1, A, P)`.
            matching: Slot of each listener's channels, `(A or 1, C)`; all slots if None.
            crop: Bins left out at the start.
        """
        return self.decoder(self.fusion(latent, theta, crop), matching)

    def decode(self, latent: Tensor, theta: Tensor) -> Tensor:
        """Log-probabilities of counts from latents: θ `(B or 1, A, P)` to `(B, A, C, K, N)`."""
        if theta.ndim != 3 or theta.shape[-1] != self.config.parameters:
            raise ValueError(
                f"theta must be (B, A, {self.config.parameters}) for this model, "
                f"got {tuple(theta.shape)}"
            )
        return self.predict(latent, theta).log_probabilities()

    def respond(self, sound: Tensor, theta: Tensor) -> Tensor:
        """Log-probabilities of counts: `(B, T)` [Pa], θ `(B or 1, P)` to `(B, C, K, N)`."""
        return self.decode(self.latent(sound), theta.unsqueeze(1)).squeeze(1)

    def respond_in_chunks(self, sound: Tensor, theta: Tensor, chunk_bins: int = 4096) -> Tensor:
        """`respond` for sounds of any length in bounded memory, equal to the whole at once."""
        bins = sound.shape[-1] // BIN_SAMPLES
        pieces = []
        for start in range(0, max(bins, 1), chunk_bins):
            begin, stop = max(start - self.receptive_bins, 0), start + chunk_bins
            piece = self.respond(sound[:, begin * BIN_SAMPLES : stop * BIN_SAMPLES], theta)
            pieces.append(piece[..., start - begin :])
        return torch.cat(pieces, dim=-1)


class ABRNet(nn.Module):
    """BetaICNet with brainstem thresholds in place of θ: known, not learned, and without noise."""

    def __init__(self, config: ABRNetConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.fusion = Fusion(config.encoder.bottleneck, config.frequencies, config.fusion_size)
        self.decoder = Decoder(config.encoder.bottleneck, config.channels)

    def forward(
        self, sound: Tensor, thresholds_db_spl: Tensor, matching: Tensor | None = None
    ) -> Prediction:
        """Training: what each animal answers to frames with context.

        Args:
            sound: Pressure [Pa], `(B, T)`, the first 2048 samples context.
            thresholds_db_spl: Of each animal [dB SPL], `(B or 1, A, F)`.
            matching: Slot of each animal's channels, `(A, C)`; all slots if None.

        Raises:
            ValueError: If a listener has not as many thresholds as the network knows.
        """
        return self.predict(self.encoder(sound), thresholds_db_spl, matching, CONTEXT_BINS)

    def latent(self, sound: Tensor) -> Tensor:
        """The part of a response that no listener changes: `(B, T)` to `(B, latent, N)`."""
        return self.encoder(sound)

    def predict(
        self,
        latent: Tensor,
        thresholds_db_spl: Tensor,
        matching: Tensor | None = None,
        crop: int = 0,
    ) -> Prediction:
        """What listeners answer, from latents; thresholds `(B or 1, A, F)` [dB SPL]."""
        if thresholds_db_spl.shape[-1] != self.config.frequencies:
            raise ValueError(
                f"thresholds at {self.config.frequencies} frequencies are needed, "
                f"got {tuple(thresholds_db_spl.shape)}"
            )
        return self.decoder(self.fusion(latent, thresholds_db_spl / 100, crop), matching)


@dataclasses.dataclass(frozen=True, eq=False)
class ListenerCost:
    """The cost of candidate listeners for one animal's responses; made by `listener_cost`."""

    model: BetaICNet
    latent: Tensor
    """Of the sounds, `(B, latent, N)`."""
    counts: Tensor
    """What the animal answered, `(B, C, N)`."""
    matching: Tensor | None
    """Slot of each of its channels, `(1, C)`; as the model's own if None."""
    context_bins: int
    """Bins at the start of a frame that `counts` does not cover."""

    def __call__(self, theta: Tensor, gains: Tensor | None = None) -> Tensor:
        """Mean cross-entropy [nats a bin and channel] of each candidate, `(n,)`; differentiable.

        Args:
            theta: The candidates, `(n, P)`.
            gains: Gains and offsets of the channels, `(C, K)`; see `icsim.channel_gains`.
        """
        prediction = self._predict(theta)
        if gains is not None:
            prediction = with_gains(prediction, gains)
        counts = self.counts[:, None].expand(-1, len(theta), -1, -1)
        weight = torch.ones(counts.shape[:3], device=self.latent.device)
        return nats(prediction, counts, weight) / self.counts.numel()

    @property
    def observations(self) -> float:
        """Independent observations behind the cost."""
        return self.counts.numel() / CORRELATED_BINS

    @torch.no_grad()
    def fit_gains(
        self,
        theta: Tensor,
        prior: Prior,
        start: Tensor | None = None,
        iterations: int = 20,
    ) -> tuple[Tensor, Tensor]:
        """The most probable gains and offsets of the channels for one listener `(P,)`.

        Returns:
            `(C, K)`, and its covariance, `(C, K, K)`.
        """
        logits = self._predict(theta[None]).logits()[:, 0]
        return fit_gains(logits, self.counts, prior, CORRELATED_BINS, start, iterations)

    def profile(self, theta: Tensor, prior: Prior, start: Tensor | None = None) -> Tensor:
        """As a call, with gains that are fitted for each candidate, `(n,)`; differentiable.

        As they are the best for their candidate, slopes need not know that they move.
        """
        few = 20 if start is None else 4
        every = (self.fit_gains(one.detach(), prior, start, few)[0] for one in theta)
        pairs = zip(theta, every, strict=True)
        return torch.cat([self(one[None], gains) for one, gains in pairs])

    def _predict(self, theta: Tensor) -> Prediction:
        theta = theta.to(self.latent)[None]
        return self.model.predict(self.latent, theta, self.matching, self.context_bins)


def listener_cost(
    model: BetaICNet,
    sound: Tensor,
    counts: Tensor,
    context_bins: int,
    matching: Tensor | None = None,
) -> ListenerCost:
    """The cost of candidate listeners for one animal's responses; latents are computed once.

    Args:
        model: Its gradients are not needed, and switched off.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the animal answered, `(B, C, N)`.
        context_bins: Bins at the start of a frame that `counts` does not cover.
        matching: Slot of each of its channels, those below 0 left out, `(C,)`; as the model's
            own if None.
    """
    model.requires_grad_(False).eval()
    with torch.no_grad():
        latent = model.latent(sound)
    if matching is not None:
        counts, matching = counts[:, matching >= 0], matching[matching >= 0][None]
    return ListenerCost(model, latent, counts, matching, context_bins)
