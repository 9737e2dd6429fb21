"""BetaICNet: one network for all animals, conditioned on each listener's θ."""

import dataclasses
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .icnet import CLASSES, CONTEXT_BINS, Encoder, EncoderConfig
from .layers import CausalConv
from .sound import BIN_SAMPLES
from .theta import Listeners

FUSION_LAYERS = 4
FUSION_SIZE = 16
"""Layers and taps of the fusion. Source: arXiv 2506.03088."""


@dataclasses.dataclass(frozen=True)
class BetaICNetConfig:
    """What BetaICNet is made of; the defaults are the published sizes."""

    animals: int
    """Animals it is trained on, A."""
    channels: int = 512
    """Response channels, C."""
    parameters: int = 6
    """Dimensions of θ, P."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""
    shared_drift: bool = True
    """One time transfer for all animals, or one for each."""
    seed: int = 0
    """Of the listeners' starting means."""

    def __post_init__(self):
        if min(self.animals, self.channels, self.parameters) < 1:
            raise ValueError(f"animals, channels and parameters must be positive: {self}")


class Fusion(nn.Module):
    """Latent and θ to logits of spike counts.

    θ does not change within a frame, so its part of the first layer is a bias, and that layer's
    convolution of the latent serves all listeners at once.
    """

    def __init__(self, latent: int, parameters: int, channels: int):
        super().__init__()
        widths = torch.linspace(latent + 3 * parameters, latent, FUSION_LAYERS + 1)
        widths = [round(width) for width in widths.tolist()]
        steps = [parameters, parameters, 2 * parameters, 3 * parameters]
        self.embed = nn.Sequential(*(CausalConv(i, o, 1) for i, o in itertools.pairwise(steps)))
        self.layers = nn.ModuleList(
            CausalConv(i, o, FUSION_SIZE) for i, o in itertools.pairwise(widths)
        )
        self.decoder = CausalConv(latent, channels * CLASSES, 1, activate=False)
        self.latent = latent
        self.channels = channels

    @torch.no_grad()
    def start_at(self, frequency: Tensor) -> None:
        """Begin from each channel's own histogram of counts, `(C, K)`, rather than from chance."""
        if frequency.shape != (self.channels, CLASSES):
            raise ValueError(f"frequency must be ({self.channels}, {CLASSES}): {frequency.shape}")
        self.decoder.conv.bias.copy_(frequency.clamp(min=1e-4).log().flatten())

    def forward(self, latent: Tensor, theta: Tensor, crop: int = 0) -> Tensor:
        """Logits of every listener for every sound.

        Args:
            latent: `(B, latent, N)`.
            theta: `(B, A, P)`, or `(1, A, P)` for the same listeners throughout.
            crop: Bins left out at the start, whose context is incomplete.

        Returns:
            `(B, A, C, K, N − crop)`.
        """
        sounds, listeners, bins = len(latent), theta.shape[1], latent.shape[-1]
        first = self.layers[0]
        on_latent, on_theta = first.conv.weight.split(
            [self.latent, first.conv.weight.shape[1] - self.latent], dim=1
        )
        padded = functional.pad(latent, (first.padding, 0))
        from_latent = functional.conv1d(padded, on_latent, first.conv.bias)
        embedded = self.embed(theta.transpose(1, 2))
        from_theta = torch.einsum("ze,bea->baz", on_theta.sum(-1), embedded)
        x = from_latent.unsqueeze(1) + from_theta.unsqueeze(-1)
        x = first.activation(x.expand(sounds, -1, -1, -1).flatten(0, 1))
        for layer in self.layers[1:]:
            x = layer(x)
        logits = self.decoder(x[..., crop:])
        return logits.view(sounds, listeners, self.channels, CLASSES, bins - crop)


class BetaICNet(nn.Module):
    """Sound and θ to the distribution of spike counts, with the listeners it was trained on.

    `listeners` holds what was learned of each animal; `respond` takes any θ.
    """

    def __init__(self, config: BetaICNetConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.fusion = Fusion(config.encoder.bottleneck, config.parameters, config.channels)
        self.listeners = Listeners(
            config.animals, config.parameters, config.shared_drift, config.seed
        )

    @property
    def receptive_bins(self) -> int:
        """Bins of context that a bin can depend on, rounded up."""
        fusion = FUSION_LAYERS * (FUSION_SIZE - 1)
        return -(-self.encoder.receptive_samples // BIN_SAMPLES) + fusion

    def forward(self, sound: Tensor, hours: Tensor, noise: Tensor) -> Tensor:
        """Training: logits of each animal for frames with context.

        Args:
            sound: Pressure [Pa], `(B, T)`, the first 2048 samples context.
            hours: When each animal heard it [h], `(B, A)`.
            noise: Standard normal, `(B, A, P)`; zeros give the mean listener.

        Returns:
            `(B, A, C, K, T // 32 − 64)`.
        """
        theta = self.listeners.sample(hours, noise)
        return self.fusion(self.encoder(sound), theta, crop=CONTEXT_BINS)

    def latent(self, sound: Tensor) -> Tensor:
        """The part of a response that no listener changes: `(B, T)` to `(B, latent, N)`."""
        return self.encoder(sound)

    def decode(self, latent: Tensor, theta: Tensor) -> Tensor:
        """Log-probabilities of counts from latents: θ `(B or 1, A, P)` to `(B, A, C, K, N)`."""
        if theta.ndim != 3 or theta.shape[-1] != self.config.parameters:
            raise ValueError(
                f"theta must be (B, A, {self.config.parameters}) for this model, "
                f"got {tuple(theta.shape)}"
            )
        logits = self.fusion(latent, theta)
        return logits.log_softmax(-2, dtype=torch.promote_types(logits.dtype, torch.float32))

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


def listener_cost(
    model: BetaICNet, sound: Tensor, counts: Tensor, context_bins: int
) -> Callable[[Tensor], Tensor]:
    """The cost of candidate listeners for one animal's responses; latents are computed once.

    Args:
        model: Its gradients are not needed, and switched off.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the animal answered, aligned, `(B, C, N)`.
        context_bins: Bins at the start of a frame that `counts` does not cover.

    Returns:
        A function of θ `(n, P)`: mean cross-entropy [nats a bin and channel], `(n,)`;
        differentiable.
    """
    model.requires_grad_(False).eval()
    with torch.no_grad():
        latent = model.latent(sound)
    target = counts.long().clamp(max=CLASSES - 1)[:, None, :, None]

    def cost(theta: Tensor) -> Tensor:
        candidates = theta.to(latent).unsqueeze(0)
        logits = model.fusion(latent, candidates, crop=context_bins).float()
        chosen = logits.gather(-2, target.expand(-1, len(theta), -1, -1, -1)).squeeze(-2)
        return (logits.logsumexp(-2) - chosen).mean((0, 2, 3))

    return cost


def expected_counts(log_probability: Tensor) -> Tensor:
    """Mean count, the last class taken as 4: `(*, K, N)` to `(*, N)`."""
    counts = torch.arange(log_probability.shape[-2], device=log_probability.device)
    return (log_probability.exp() * counts.unsqueeze(-1)).sum(-2)
