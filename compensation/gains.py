"""The two gains that an aid sets in every band: against noise, and for the hearing loss."""

import dataclasses
import math

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Gains:
    """The two masks, in dB, so that exponents are factors."""

    noise_db: Tensor
    """Noise reduction, never above 0, `(B, bands, L)`."""
    loss_db: Tensor
    """Compensation of the hearing loss, `(B, bands, L)`."""

    def factors(self, noise_reduction: float | Tensor, gain: float | Tensor) -> Tensor:
        """Both together as factors on pressure, with exponents: 0 off, 1 as trained."""
        return 10 ** ((noise_reduction * self.noise_db + gain * self.loss_db) / 20)


def bounded(noise: Tensor, loss: Tensor, config) -> Gains:
    """Gains within the bounds of an aid's `config`; hardly any where a network says zero.

    Args:
        noise: What a network says of noise reduction, `(*,)`.
        loss: What it says of compensation, `(*,)`.
        config: With `deepest_cut_db`, `lowest_gain_db` and `highest_gain_db`.
    """
    return Gains(
        _between(noise, -config.deepest_cut_db, 0.0, start=-1.0),
        _between(loss, config.lowest_gain_db, config.highest_gain_db, start=0.0),
    )


def _between(raw: Tensor, low: float, high: float, start: float) -> Tensor:
    """A number between two bounds, `start` where `raw` is zero."""
    offset = math.log((start - low) / (high - start))
    return low + (high - low) * torch.sigmoid(raw + offset)
