"""What the checkpoint of a response model says beside its weights: of its animals."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from icsim.channel_gains import Prior
from icsim.recording import ALIGNMENT, UNMATCHED
from icsim.weights import require_facts

from .subjects import Subjects

if TYPE_CHECKING:
    from icsim.store import Cohort

NEEDED = ("animals", "normal", "matching", "slots")
"""What every checkpoint says."""


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """The animals that a response model was trained on."""

    animals: tuple[str, ...]
    """Their names, A of them."""
    normal: tuple[str, ...]
    """Those with normal hearing."""
    matching: Tensor
    """Model channel of each of their channels, −1 for none, `(A, C)`."""
    slots: int
    """Channels that the model has for all brains."""
    thresholds_db_spl: Tensor | None = None
    """Of their brainstem responses [dB SPL], `(A, F)`, if all have them."""
    abr_frequencies_hz: tuple[float, ...] | None = None
    """Where these were measured [Hz], F."""
    channel_prior: Prior | None = None
    """How channels differ from what the model says of them."""
    start: dict[str, Tensor] | None = None
    """What the model had of its listeners before the first step of training."""

    @property
    def weight(self) -> Tensor:
        """One for each channel that counts, zero for those set apart, `(A, C)`."""
        return (self.matching != UNMATCHED).float()

    def subjects(
        self,
        animals: Sequence[int] | Tensor,
        hours: Tensor | None = None,
        noise: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Subjects:
        """Some of the animals as a model is asked for them.

        Args:
            animals: Their places, A of them.
            hours: When each heard each sound [h], `(B, A)`.
            noise: Of θ, standard normal, `(B, A, P)`.
            device: Where the model is.
        """
        which = torch.as_tensor(animals)
        thresholds = self.thresholds_db_spl
        return Subjects(
            animals=which.to(device),
            hours=hours,
            noise=noise,
            thresholds_db_spl=None if thresholds is None else thresholds[which][None].to(device),
            matching=self.matching[which].to(device),
        )

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None}


def cohort_facts(cohort: "Cohort", names: Sequence[str], alignment: str = ALIGNMENT) -> ModelFacts:
    """What a cohort says of the animals that a model is to be trained on.

    Animals that were never aligned keep their channels in the order recorded.

    Raises:
        ValueError: If only some are aligned, or alignments do not go together; the message names
            the animals.
    """
    if not names:
        raise ValueError("the cohort has no animal to learn from; name some, or make others `seen`")
    animals = [cohort.animal(name) for name in names]
    stored = [animal.alignment(alignment) for animal in animals]
    alignments = [one for one in stored if one is not None]
    without = [a.name for a, one in zip(animals, stored, strict=True) if one is None]
    if 0 < len(without) < len(names) or (without and alignment != ALIGNMENT):
        raise ValueError(
            f"not aligned as {alignment!r}: {', '.join(without)}; run recipes.align for all animals"
        )
    if without:
        slots = max(animal.channels for animal in animals)
        rows = [torch.arange(animal.channels) for animal in animals]
    else:
        slots, rows = alignments[0].slots, [one.matching for one in alignments]
        if any(one.slots != slots for one in alignments):
            raise ValueError(f"{alignment!r} is of several alignments: run recipes.align again")
    every = [animal.thresholds_db_spl for animal in animals]
    measured = [one for one in every if one is not None]
    frequencies = {animal.abr_frequencies_hz for animal in animals}
    complete = len(measured) == len(every) and len(frequencies) == 1
    return ModelFacts(
        animals=tuple(names),
        normal=tuple(animal.name for animal in animals if animal.status == "NH"),
        matching=pad_sequence(rows, batch_first=True, padding_value=UNMATCHED),
        slots=slots,
        thresholds_db_spl=torch.stack(measured).float() if complete else None,
        abr_frequencies_hz=frequencies.pop() if complete else None,
    )


def require_thresholds(cohort: "Cohort", names: Sequence[str]) -> None:
    """Raise a ValueError unless all animals have thresholds, at the same frequencies."""
    animals = [cohort.animal(name) for name in names]
    unmeasured = [animal.name for animal in animals if animal.thresholds_db_spl is None]
    if unmeasured:
        raise ValueError(
            f"condition thresholds needs thresholds, which {', '.join(unmeasured)} lacks"
        )
    frequencies = {animal.abr_frequencies_hz for animal in animals}
    if len(frequencies) > 1:
        raise ValueError(
            f"condition thresholds needs them at the same frequencies, got {frequencies} Hz"
        )


def model_facts(stored: Mapping[str, Any], path: str | Path) -> ModelFacts:
    """Facts of a response model from a checkpoint's JSON.

    Raises:
        ValueError: If something is missing; the message names it and the file.
    """
    require_facts(stored, NEEDED, path, "models as recipes.train_ic writes them")
    prior, thresholds = stored.get("channel_prior"), stored.get("thresholds_db_spl")
    frequencies, start = stored.get("abr_frequencies_hz"), stored.get("start")
    return ModelFacts(
        tuple(stored["animals"]),
        tuple(stored["normal"]),
        torch.tensor(stored["matching"]),
        stored["slots"],
        None if thresholds is None else torch.tensor(thresholds),
        None if frequencies is None else tuple(frequencies),
        prior and Prior(torch.tensor(prior["mean"]), torch.tensor(prior["covariance"])),
        start and {name: torch.tensor(values) for name, values in start.items()},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Prior):
        return {"mean": value.mean.tolist(), "covariance": value.covariance.tolist()}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value
