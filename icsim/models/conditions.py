"""Conditions of a response model: what makes one listener's responses differ from another's.

Every condition turns the latent of a sound into features of listeners, and says what training adds
for it: penalties, and parameters that learn at rates of their own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from icsim.objective import listener_divergence, threshold_penalty
from icsim.theta import HOURS, Listeners, movement, separation

from .fusion import Fusion
from .subjects import Subjects

THRESHOLD_UNIT_DB = 100.0
"""Thresholds enter a network in units of it [dB]. Source: arXiv 2506.03088."""


@dataclasses.dataclass(frozen=True)
class NoCondition:
    """All listeners answer alike: a model of one brain."""

    kind: Literal["none"] = "none"


@dataclasses.dataclass(frozen=True)
class BranchesConfig:
    """Each animal has a readout of its own. Source: ICNet."""

    kind: Literal["branches"] = "branches"
    animals: int = 1
    """A."""

    def __post_init__(self):
        if self.animals < 1:
            raise ValueError(f"animals must be positive: {self}")


@dataclasses.dataclass(frozen=True)
class ThetaConfig:
    """Listeners are points θ of a learned space. Source: arXiv 2506.03088."""

    kind: Literal["theta"] = "theta"
    animals: int = 1
    """Animals that it is trained on, A."""
    parameters: int = 6
    """Dimensions of θ, P."""
    fusion_size: int = 16
    """Taps of the fusion's convolutions."""
    shared_drift: bool = True
    """One time transfer for all animals, or one for each."""
    seed: int = 0
    """Of the listeners' starting means."""
    spread: float = 1.5
    """Standard deviation of these, before the sigmoid. Near zero, animals begin alike, and what
    they answer tells them apart; wide apart, they keep much of their random places."""
    modulated: bool = False
    """Whether θ also scales and shifts the latent and every layer of the fusion (FiLM), beside
    joining its first layer, as published."""

    def __post_init__(self):
        if min(self.animals, self.parameters, self.fusion_size) < 1:
            raise ValueError(f"animals, parameters and fusion_size must be positive: {self}")
        if not self.spread > 0:
            raise ValueError(
                f"spread must be positive, for animals that are all alike stay so: {self}"
            )


@dataclasses.dataclass(frozen=True)
class ThresholdsConfig:
    """Listeners are their brainstem thresholds. Source: arXiv 2506.03088."""

    kind: Literal["thresholds"] = "thresholds"
    frequencies: int = 5
    """Thresholds of a listener, F."""
    fusion_size: int = 16
    """Taps of the fusion's convolutions."""
    modulated: bool = False
    """As of `ThetaConfig`."""

    def __post_init__(self):
        if min(self.frequencies, self.fusion_size) < 1:
            raise ValueError(f"frequencies and fusion_size must be positive: {self}")


ConditionConfig = NoCondition | BranchesConfig | ThetaConfig | ThresholdsConfig
"""Configurations of all conditions, told apart by `kind`."""


class Condition(nn.Module):
    """What a response model asks of every condition; as it is, all listeners answer alike."""

    receptive_bins = 0
    """Bins before a bin that its features can depend on, beyond those of the latent."""
    shares_channels = True
    """Whether all listeners are read from the same channels, to which theirs are matched."""
    noise_size = 0
    """Normal numbers that training draws for each listener and sound, P."""

    def features(self, latent: Tensor, subjects: Subjects, crop: int = 0) -> Tensor:
        """Features of each listener for each sound.

        Args:
            latent: `(B, Z, N)`.
            subjects: A listeners.
            crop: Bins left out at the start, whose context is incomplete.

        Returns:
            `(B, A, Z, N − crop)`, or `(B, 1, …)` where all answer alike.
        """
        return latent[..., crop:].unsqueeze(1)

    def slots(self, subjects: Subjects) -> Tensor | None:
        """Which of the readout's channels are the listeners', `(A or 1, C)`; all if None."""
        return subjects.matching

    def penalties(self, thresholds_db_spl: Tensor | None) -> dict[str, Tensor]:
        """Terms that training adds to the likelihood, by name, not weighted.

        Args:
            thresholds_db_spl: Of the animals that it is trained on, `(A, F)`, if they are known.
        """
        return {}

    def parameters_apart(self) -> dict[str, list[nn.Parameter]]:
        """Parameters whose learning rates are set apart from those of the network, by name."""
        return {}

    def project(self) -> None:
        """Bring parameters back into their ranges, after an optimiser's step."""

    def learned(self) -> dict[str, Tensor] | None:
        """What it has learned of listeners, a copy; None where nothing is learned of them."""
        return None

    def measures(self, start: Mapping[str, Tensor] | None) -> dict[str, Any]:
        """Numbers that say how far learning has come with listeners, by name.

        Args:
            start: What `learned` returned before the first step.
        """
        return {}


class Branches(Condition):
    """Each animal's latent with gains that change with time, and its own part of the readout."""

    shares_channels = False
    rows: Tensor

    def __init__(self, config: BranchesConfig, latent: int, channels: int):
        super().__init__()
        # A pointwise convolution of time, which multiplies: at the start it changes nothing.
        self.drift = nn.Parameter(torch.zeros(config.animals, latent))
        self.gain = nn.Parameter(torch.ones(config.animals, latent))
        rows = torch.arange(config.animals * channels).view(config.animals, -1)
        self.register_buffer("rows", rows, persistent=False)

    def features(self, latent: Tensor, subjects: Subjects, crop: int = 0) -> Tensor:
        """See `Condition.features`; needs `hours`."""
        time = (subjects.known_hours / HOURS).unsqueeze(-1)
        factor = self.gain[subjects.animals] + self.drift[subjects.animals] * time
        return latent[..., crop:].unsqueeze(1) * factor.unsqueeze(-1)

    def slots(self, subjects: Subjects) -> Tensor:
        """The animals' own channels, in the order recorded."""
        return self.rows[subjects.animals]


class Theta(Condition):
    """Listeners by θ: the learned ones of the animals, or any other."""

    def __init__(self, config: ThetaConfig, latent: int):
        super().__init__()
        self.config = config
        self.fusion = Fusion(latent, config.parameters, config.fusion_size, config.modulated)
        self.listeners = Listeners(
            config.animals, config.parameters, config.shared_drift, config.seed, config.spread
        )
        self.receptive_bins, self.noise_size = self.fusion.receptive_bins, config.parameters

    def theta(self, subjects: Subjects) -> Tensor:
        """θ of each listener, `(B or 1, A, P)`: as given, or as learned of the animals.

        Raises:
            ValueError: If θ has another number of parameters than the model.
        """
        theta = subjects.theta
        if theta is None:
            theta = self.listeners.theta(subjects.known_hours, subjects.animals)
            if subjects.noise is not None:
                deviation = self.listeners.deviation[subjects.animals]
                theta = theta + deviation * subjects.noise
        if theta.ndim != 3 or theta.shape[-1] != self.config.parameters:
            raise ValueError(
                f"theta must be (B, A, {self.config.parameters}) for this model, "
                f"got {tuple(theta.shape)}"
            )
        return theta

    def features(self, latent: Tensor, subjects: Subjects, crop: int = 0) -> Tensor:
        """See `Condition.features`; needs `theta`, or `hours` of the model's own animals."""
        return self.fusion(latent, self.theta(subjects), crop)

    def penalties(self, thresholds_db_spl: Tensor | None) -> dict[str, Tensor]:
        """Divergence of θ from its prior, and listeners closer in θ than in thresholds."""
        terms = {"divergence": listener_divergence(self.listeners.deviation)}
        if thresholds_db_spl is not None and len(thresholds_db_spl) > 1:
            means = self.listeners.at()
            terms["thresholds"] = threshold_penalty(means, thresholds_db_spl.to(means.device))
        return terms

    def parameters_apart(self) -> dict[str, list[nn.Parameter]]:
        """Means, deviations and time transfer of the listeners."""
        names = {"mean": "mean", "deviation": "log_deviation"}
        names |= {name: name for name in ("shift", "rate", "onset")}
        return {name: [getattr(self.listeners, stored)] for name, stored in names.items()}

    def project(self) -> None:
        """Keep the listeners within their bounds."""
        self.listeners.project()

    def learned(self) -> dict[str, Tensor]:
        """Means, deviations and time transfer of the listeners."""
        return {n: value.detach().clone() for n, value in self.listeners.state_dict().items()}

    def measures(self, start: Mapping[str, Tensor] | None) -> dict[str, Any]:
        """How far apart listeners are, and how far they have moved; nothing of a single one."""
        listeners = self.listeners
        if len(listeners.mean) < 2 or start is None:
            return {}
        apart = separation(listeners.at(), listeners.deviation).item()
        return {"separation": apart, "movement": movement(listeners, start)}


class Thresholds(Condition):
    """Listeners by brainstem thresholds: measured, not learned, and without noise."""

    def __init__(self, config: ThresholdsConfig, latent: int):
        super().__init__()
        self.config = config
        self.fusion = Fusion(latent, config.frequencies, config.fusion_size, config.modulated)
        self.receptive_bins = self.fusion.receptive_bins

    def features(self, latent: Tensor, subjects: Subjects, crop: int = 0) -> Tensor:
        """See `Condition.features`; needs `thresholds_db_spl`.

        Raises:
            ValueError: If a listener has not as many thresholds as the model takes.
        """
        thresholds = subjects.thresholds_db_spl
        if thresholds is None or thresholds.shape[-1] != self.config.frequencies:
            shape = None if thresholds is None else tuple(thresholds.shape)
            raise ValueError(
                f"thresholds at {self.config.frequencies} frequencies are needed, got {shape}"
            )
        return self.fusion(latent, thresholds / THRESHOLD_UNIT_DB, crop)


def sized(
    config: ConditionConfig, animals: int, frequencies: int | None, seed: int
) -> ConditionConfig:
    """The same condition for a cohort.

    Args:
        config: Which, with the sizes that do not follow from the cohort.
        animals: That the model is trained on, A.
        frequencies: At which all of them have thresholds, F; None if they do not.
        seed: Of what is drawn for listeners.
    """
    if isinstance(config, BranchesConfig):
        return dataclasses.replace(config, animals=animals)
    if isinstance(config, ThetaConfig):
        return dataclasses.replace(config, animals=animals, seed=seed)
    if isinstance(config, ThresholdsConfig) and frequencies is not None:
        return dataclasses.replace(config, frequencies=frequencies)
    return config


def make_condition(config: ConditionConfig, latent: int, channels: int) -> Condition:
    """An untrained condition.

    Args:
        config: Which, and of what size.
        latent: Channels of the latent, Z.
        channels: Response channels of the model.
    """
    if isinstance(config, ThetaConfig):
        return Theta(config, latent)
    if isinstance(config, ThresholdsConfig):
        return Thresholds(config, latent)
    if isinstance(config, BranchesConfig):
        return Branches(config, latent, channels)
    return Condition()
