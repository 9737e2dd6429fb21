"""The response model: sound to the spike counts of listeners.

A response model is an encoder, a condition and a readout, on a clock. The encoder turns sound into
a latent that all listeners share; the condition turns that into features of each listener; the
readout turns those into distributions of counts. ICNet, BetaICNet and ABRNet are three of them.
"""

import dataclasses
from collections.abc import Iterator

from torch import Tensor, nn

from icsim.channel_gains import ChannelGainsConfig, LearnedGains, with_gains
from icsim.clock import Clock
from icsim.theta import Listeners

from .conditions import (
    BranchesConfig,
    ConditionConfig,
    NoCondition,
    Theta,
    ThetaConfig,
    ThresholdsConfig,
    make_condition,
)
from .encoders import EncoderConfig, SincNetConfig, make_encoder
from .readouts import CategoricalConfig, Prediction, ReadoutConfig, make_readout
from .subjects import Subjects


@dataclasses.dataclass(frozen=True)
class ResponseModelConfig:
    """What a response model is made of."""

    channels: int = 512
    """Response channels: of each branch, or those that the model has for all brains."""
    encoder: EncoderConfig = dataclasses.field(default_factory=SincNetConfig)
    condition: ConditionConfig = dataclasses.field(default_factory=NoCondition)
    readout: ReadoutConfig = dataclasses.field(default_factory=CategoricalConfig)
    clock: Clock = dataclasses.field(default_factory=Clock)
    channel_gains: ChannelGainsConfig | None = None
    """Gains and offsets that each channel of each animal has beside what the model says of it."""

    def __post_init__(self):
        if self.channels < 1:
            raise ValueError(f"channels must be positive: {self}")
        if self.channel_gains and isinstance(self.condition, BranchesConfig):
            raise ValueError("channels of a branch are an animal's own: leave channel_gains out")
        if self.channel_gains and not isinstance(self.readout, CategoricalConfig):
            raise ValueError(
                "gains of channels belong to categorical counts: leave channel_gains out, or take "
                "readout categorical"
            )


class ResponseModel(nn.Module):
    """Sound and listeners to distributions of spike counts.

    Args:
        config: Of its parts.
    """

    def __init__(self, config: ResponseModelConfig):
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config.encoder, config.clock)
        features, branches = self.encoder.features, 1
        if isinstance(config.condition, BranchesConfig):
            branches = config.condition.animals
        self.condition = make_condition(config.condition, features, config.channels)
        self.readout = make_readout(config.readout, features, branches * config.channels)
        self.channel_gains = None
        if config.channel_gains and isinstance(config.readout, CategoricalConfig):
            self.channel_gains = LearnedGains(config.channel_gains, config.readout.classes)

    @property
    def clock(self) -> Clock:
        """Of the sounds that it takes and the bins that it gives."""
        return self.config.clock

    @property
    def context_bins(self) -> int:
        """Bins at the start of a training frame that are not compared with what was recorded."""
        return self.encoder.context_bins

    @property
    def receptive_bins(self) -> int:
        """Bins of context that a bin can depend on, rounded up."""
        encoder = -(-self.encoder.receptive_samples // self.clock.bin_samples)
        return encoder + self.condition.receptive_bins

    def forward(self, sound: Tensor, subjects: Subjects) -> Prediction:
        """What listeners answer to frames with context.

        Args:
            sound: Pressure [Pa], `(B, T)`; the first `context_bins` are context.
            subjects: A listeners.

        Returns:
            Of the bins that follow the context.
        """
        return self.predict(self.latent(sound), subjects, self.context_bins)

    def latent(self, sound: Tensor) -> Tensor:
        """The part of a response that no listener changes: `(B, T)` [Pa] to `(B, Z, N)`."""
        return self.encoder(sound)

    def predict(self, latent: Tensor, subjects: Subjects, crop: int = 0) -> Prediction:
        """What listeners answer, from latents `(B, Z, N)`; the first `crop` bins are left out.

        Animals that the model was trained on answer with the gains that were learned of their
        channels, if they are named, and their channels matched.
        """
        features = self.condition.features(latent, subjects, crop)
        predicted = self.readout(features, self.condition.slots(subjects))
        named = isinstance(subjects.animals, Tensor) and subjects.matching is not None
        if self.channel_gains is None or not named:
            return predicted
        return with_gains(predicted, self.channel_gains(subjects.animals))

    def decode(self, latent: Tensor, theta: Tensor) -> Tensor:
        """Log-probabilities of counts from latents: θ `(B or 1, A, P)` to `(B, A, C, K, N)`."""
        self._require_theta()
        return self.predict(latent, Subjects(theta=theta)).log_probabilities()

    def respond(self, sound: Tensor, theta: Tensor) -> Tensor:
        """Log-probabilities of counts: `(B, T)` [Pa], θ `(B or 1, P)` to `(B, C, K, N)`."""
        return self.decode(self.latent(sound), theta.unsqueeze(1)).squeeze(1)

    def decode_in_chunks(
        self, sound: Tensor, theta: Tensor, chunk_bins: int = 4096
    ) -> Iterator[Tensor]:
        """Log-probabilities of counts, some bins at a time: sounds of any length fit into memory.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            theta: Of the listeners, `(B or 1, A, P)`.
            chunk_bins: Bins at a time.

        Yields:
            `(B, A, C, K, n)`; one after the other they equal `decode` of the whole.
        """
        width = self.clock.bin_samples
        for start in range(0, max(sound.shape[-1] // width, 1), chunk_bins):
            begin, stop = max(start - self.receptive_bins, 0), start + chunk_bins
            latent = self.latent(sound[:, begin * width : stop * width])
            yield self.decode(latent, theta)[..., start - begin :]

    @property
    def listeners(self) -> Listeners:
        """What was learned of θ of the animals.

        Raises:
            ValueError: If the model is not conditioned on θ.
        """
        return self._require_theta().listeners

    def _require_theta(self) -> Theta:
        if not isinstance(self.condition, Theta):
            raise ValueError(
                f"a model with condition {self.config.condition.kind!r} knows no θ; train one "
                "with condition theta"
            )
        return self.condition


def icnet(
    animals: int = 1,
    channels: int = 512,
    encoder: EncoderConfig | None = None,
    clock: Clock | None = None,
) -> ResponseModelConfig:
    """ICNet: a readout of its own for each animal. Source: ICNet, 2023."""
    return ResponseModelConfig(
        channels,
        encoder or SincNetConfig(),
        BranchesConfig(animals=animals),
        clock=clock or Clock(),
    )


def beta_icnet(
    animals: int,
    channels: int = 512,
    parameters: int = 6,
    encoder: EncoderConfig | None = None,
    clock: Clock | None = None,
    **condition,
) -> ResponseModelConfig:
    """BetaICNet: one network for all animals, conditioned on θ; published as ψ-ICNet.

    Args:
        animals: A.
        channels: Response channels that it has for all brains.
        parameters: P.
        encoder: Of the published sizes if not given.
        clock: The published one if not given.
        condition: Other fields of `ThetaConfig`.
    """
    return ResponseModelConfig(
        channels,
        encoder or SincNetConfig(),
        ThetaConfig(animals=animals, parameters=parameters, **condition),
        clock=clock or Clock(),
    )


def abrnet(
    channels: int = 512,
    frequencies: int = 5,
    fusion_size: int = 16,
    encoder: EncoderConfig | None = None,
    clock: Clock | None = None,
) -> ResponseModelConfig:
    """ABRNet: BetaICNet with brainstem thresholds in place of θ."""
    return ResponseModelConfig(
        channels,
        encoder or SincNetConfig(),
        ThresholdsConfig(frequencies=frequencies, fusion_size=fusion_size),
        clock=clock or Clock(),
    )
