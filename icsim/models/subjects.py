"""Whose responses a model is asked for, and what is known of them."""

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Subjects:
    """A listeners, along the axis A; each condition of a model reads what it needs."""

    animals: Tensor | slice = dataclasses.field(default_factory=lambda: slice(None))
    """Places among the animals that the model was trained on; all of them, in their order."""
    hours: Tensor | None = None
    """When each heard each sound, since its recording began [h], `(B, A)`; see `known_hours`."""
    theta: Tensor | None = None
    """Parameters of listeners that are none of those animals, `(B or 1, A, P)`."""
    noise: Tensor | None = None
    """Of θ in training, standard normal, `(B, A, P)`; None for the mean listener."""
    thresholds_db_spl: Tensor | None = None
    """Brainstem thresholds [dB SPL], `(B or 1, A, F)`."""
    matching: Tensor | None = None
    """Model channel of each of their channels, negative for none, `(A or 1, C)`; all of the
    model's channels in their order if None."""

    @property
    def known_hours(self) -> Tensor:
        """`hours`; a ValueError if they are not given."""
        if self.hours is None:
            raise ValueError("these listeners change with time: say at which hours they hear")
        return self.hours
