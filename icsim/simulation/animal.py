"""A simulated gerbil: an ear and a midbrain with their anatomy and their loss, all known.

Sound in, spike counts out, differentiable: the truth that a laboratory never has.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from icsim.simulation import midbrain
from icsim.simulation.cochlea import (
    MAX_GAIN_DB,
    Subbands,
    cochlear_places,
    drive,
    filter_sound,
    nerve,
)
from icsim.simulation.hearing import (
    FREQUENCIES_HZ,
    LARGEST_OHC_DB,
    SHIFT_DB,
    at_frequencies,
    smooth_deviations,
    split_shift,
)

DRIFT_SHAPE = (0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0)
"""What share of the drift reaches each frequency. Chosen here."""

QUARTILE_RANGES_HZ = ((1200.0, 2400.0), (1800.0, 5400.0), (4100.0, 14300.0))
"""Over which each quartile of an animal's characteristic frequencies ranges [Hz], as measured in
nine gerbils. Source: arXiv 2506.03088."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """What an animal is born with, and where the electrodes lie."""

    channels: int
    """Number of channels C."""
    quartiles_hz: tuple[float, float, float]
    """Quartiles of the channels' characteristic frequencies [Hz]."""
    dead: tuple[int, ...]
    """Channels that hear nothing, and fire spontaneously."""
    gain_db: tuple[float, ...]
    """Gain of the healthy outer hair cells less `MAX_GAIN_DB` [dB], at `FREQUENCIES_HZ`."""
    scatter: float
    """Private deviation of each channel, in units of the spread over the map."""
    seed: int
    """Draws the channels' places on the map, their deviations and their order."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """What an animal has lost; the default is nothing."""

    ohc_db: tuple[float, ...] = (0.0,) * len(FREQUENCIES_HZ)
    """Gain that the outer hair cells have lost at low levels [dB], at `FREQUENCIES_HZ`."""
    ihc_db: tuple[float, ...] = (0.0,) * len(FREQUENCIES_HZ)
    """Attenuation by loss of inner hair cells [dB], at `FREQUENCIES_HZ`."""
    synaptopathy: float = 0.0
    """Fraction of low-spontaneous nerve fibres that is lost."""
    central_gain: float = 1.0
    """Gain of the midbrain for weak input, 1 if nothing has changed."""
    drift_db_per_hour: float = 0.0
    """Growth of the outer hair cells' loss after the first hour [dB/h]."""


class Animal(nn.Module):
    """One animal: `(sound, hours) → responses`.

    Args:
        anatomy: See `draw_anatomy`.
        loss: See `draw_loss`; by default none.
    """

    cf_hz: Tensor
    best_modulation_hz: Tensor
    alive: Tensor
    threshold: Tensor
    sensitivity: Tensor
    ceiling: Tensor
    spontaneous: Tensor
    dispersion: Tensor
    excited_by: Tensor
    inhibited_by: Tensor
    excite_kernel: Tensor
    inhibit_kernel: Tensor

    def __init__(self, anatomy: Anatomy, loss: Loss | None = None):
        super().__init__()
        self.anatomy, self.loss = anatomy, loss or Loss()
        cf_hz, best_modulation_hz, properties = midbrain.lay_out(
            anatomy.channels, anatomy.quartiles_hz, anatomy.scatter, anatomy.seed
        )
        places_hz = cochlear_places()
        self.register_buffer("cf_hz", cf_hz)
        self.register_buffer("best_modulation_hz", best_modulation_hz)
        self.register_buffer("alive", torch.ones(anatomy.channels))
        self.alive[list(anatomy.dead)] = 0
        for name in ("threshold", "sensitivity", "ceiling", "spontaneous", "dispersion"):
            self.register_buffer(name, properties[name][:, None])
        self.dispersion *= 1 + 2 * self.loss.synaptopathy
        width = properties["tuning_octaves"]
        tuning = midbrain.tuning(cf_hz, width, places_hz)
        self.register_buffer("excited_by", tuning + self._low_frequency_drive(places_hz))
        self.register_buffer("inhibited_by", midbrain.tuning(cf_hz, 3 * width, places_hz))
        kernels = midbrain.temporal_kernels(
            best_modulation_hz, *(properties[n] for n in ("inhibition", "sideband", "latency_ms"))
        )
        self.register_buffer("excite_kernel", kernels[0])
        self.register_buffer("inhibit_kernel", kernels[1])

    def forward(self, sound: Tensor, hours: float | Tensor = 0.0) -> Tensor:
        """As `expected_counts`."""
        return self.expected_counts(sound, hours)

    def expected_counts(self, sound: Tensor | Subbands, hours: float | Tensor = 0.0) -> Tensor:
        """Mean of the clipped counts.

        Args:
            sound: Pressure [Pa], `(B, T)`, or the subbands of such a sound, which many animals
                can share.
            hours: Time since the recording began [h], a scalar or `(B,)`.

        Returns:
            `(B, C, N)` with N = T // 32, in 0 to 4.
        """
        return midbrain.expected_count(self.count_probabilities(sound, hours))

    def count_probabilities(self, sound: Tensor | Subbands, hours: float | Tensor = 0.0) -> Tensor:
        """Probabilities of 0, 1, 2, 3 and 4 or more spikes, `(B, C, 5, N)`; as above."""
        return midbrain.count_probabilities(self._mean_counts(sound, hours), self.dispersion)

    def sample_counts(
        self,
        sound: Tensor | Subbands,
        hours: float | Tensor = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """One trial: uint8 counts from 0 to 4, `(B, C, N)`; as above."""
        with torch.no_grad():
            return midbrain.draw_counts(self.count_probabilities(sound, hours), generator)

    def healthy(self) -> "Animal":
        """The same animal before its loss: same anatomy, no loss, no drift."""
        return Animal(self.anatomy).to(self.cf_hz.device)

    def truth(self) -> dict:
        """Everything about the animal, for JSON; `animal_from` makes it again."""
        return {
            "anatomy": dataclasses.asdict(self.anatomy),
            "loss": dataclasses.asdict(self.loss),
            "cf_hz": self.cf_hz.tolist(),
            "best_modulation_hz": self.best_modulation_hz.tolist(),
        }

    def hair_cells(
        self, frequency_hz: Tensor, hours: float | Tensor = 0.0
    ) -> tuple[Tensor, Tensor]:
        """What the hair cells at any place of the cochlea still do.

        Args:
            frequency_hz: Characteristic frequencies [Hz], `(K,)`.
            hours: Time since the recording began [h], a scalar or `(B,)`.

        Returns:
            Low-level gain of the outer hair cells [dB], `(B or 1, K)`, and attenuation by loss of
            inner ones [dB], `(K,)`, on the animal's device.
        """
        device = self.cf_hz.device
        anatomy, loss = self.anatomy, self.loss
        gain_db, ohc_db, ihc_db, drift_shape = (
            at_frequencies(values, frequency_hz).to(device)
            for values in (anatomy.gain_db, loss.ohc_db, loss.ihc_db, DRIFT_SHAPE)
        )
        time_h = torch.as_tensor(hours, dtype=torch.float32, device=device).reshape(-1, 1)
        drift_db = loss.drift_db_per_hour * (time_h - 1).relu() * drift_shape
        return MAX_GAIN_DB + gain_db - (ohc_db + drift_db).clamp_max(LARGEST_OHC_DB), ihc_db

    def _mean_counts(self, sound: Tensor | Subbands, hours: float | Tensor) -> Tensor:
        subbands = sound if isinstance(sound, Subbands) else filter_sound(sound)
        output = drive(subbands, *self.hair_cells(cochlear_places(), hours))
        rate = midbrain.adapt(nerve(output, self.loss.synaptopathy))
        current = midbrain.mix_and_convolve(
            rate,
            (self.excited_by, self.excite_kernel),
            (self.inhibited_by, -self.inhibit_kernel),
        )
        above = self.sensitivity * (current - self.threshold).relu() * self.alive[:, None]
        # Central gain lifts weak and moderate input, and leaves strong input as it is.
        lifted = above * (1 + (self.loss.central_gain - 1) / (1 + above / 2))
        mean = self.spontaneous + self.ceiling * lifted / (1 + lifted)
        return mean.unflatten(-1, (-1, 2)).mean(-1)

    def _low_frequency_drive(self, places_hz: Tensor) -> Tensor:
        """With loss at their own place, high channels listen to 0.5-1.5 kHz, `(C, K)`."""
        lost_db = np.add(self.loss.ohc_db, self.loss.ihc_db)
        there = at_frequencies(lost_db, self.cf_hz).clamp_min(0)
        share = 0.5 * there / (there + 20) * torch.sigmoid((self.cf_hz / 2000).log2() * 6)
        low = midbrain.tuning(torch.full((1,), 870.0), torch.full((1,), 0.5), places_hz)
        return share[:, None] * low


def draw_anatomy(
    channels: int, seed: int, scatter: float = 0.1, coverage_spread: float = 1.0
) -> Anatomy:
    """Anatomy of one animal.

    Args:
        channels: Number of channels C.
        seed: Every seed is another animal.
        scatter: Private deviation of each channel, in units of the spread over the map.
        coverage_spread: 1 draws the quartiles from all of `QUARTILE_RANGES_HZ`, 0 puts every
            animal's into the middle.

    Raises:
        ValueError: If there are fewer than 4 channels.
    """
    if channels < 4:
        raise ValueError(f"channels must be at least 4 to have quartiles, got {channels}")
    draw = np.random.default_rng([seed, 1])
    # A shared draw keeps the quartiles in order: the ranges overlap.
    where = 0.5 + coverage_spread * (0.6 * draw.random() + 0.4 * draw.random(3) - 0.5)
    first, second, third = (
        float(low * (high / low) ** w)
        for (low, high), w in zip(QUARTILE_RANGES_HZ, where, strict=True)
    )
    dead = draw.choice(channels, draw.binomial(channels, 0.02), replace=False)
    return Anatomy(
        channels=channels,
        quartiles_hz=(first, second, third),
        dead=tuple(sorted(dead.tolist())),
        gain_db=tuple((1.2 * smooth_deviations(draw)).tolist()),
        scatter=scatter,
        seed=seed,
    )


def draw_loss(status: str, severity: float, seed: int) -> Loss:
    """Loss of one animal.

    Two thirds of a threshold shift come from the outer hair cells as far as they go, the rest from
    the inner ones. All shares and ranges are chosen here.

    Args:
        status: "NH", "HI" or "hidden" (synapses alone: normal thresholds).
        severity: Of "HI": threshold shift over `SHIFT_DB`; the others ignore it.
        seed: Every seed is another animal.

    Raises:
        ValueError: If the status is none of these, or the severity negative.
    """
    if status not in ("NH", "HI", "hidden") or severity < 0:
        raise ValueError(
            f"status must be NH, HI or hidden and severity >= 0, got {status!r}, {severity}"
        )
    draw = np.random.default_rng([seed, 2])
    synapses, central, drift = draw.random(3).tolist()
    steady = draw.random() < 0.5
    if status == "NH":
        drift = 0.0 if steady else 0.5 * drift
        return Loss(synaptopathy=0.1 * synapses, drift_db_per_hour=drift)
    if status == "hidden":
        return Loss(
            synaptopathy=0.5 + 0.3 * synapses,
            central_gain=1.1 + 0.2 * central,
            drift_db_per_hour=0.5 * drift,
        )
    shift_db = severity * np.array(SHIFT_DB) * np.exp(0.15 * smooth_deviations(draw))
    ohc_db, ihc_db = split_shift(shift_db)
    return Loss(
        ohc_db=ohc_db,
        ihc_db=ihc_db,
        synaptopathy=min(0.9, (0.1 + 0.3 * synapses) * severity),
        central_gain=1 + (0.5 + central) * min(severity, 1.5),
        drift_db_per_hour=1 + 2 * drift,
    )


def animal_from(truth: dict) -> Animal:
    """The animal whose `truth()` this is, exactly."""
    parts: list[dict] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()}
        for part in (truth["anatomy"], truth["loss"])
    ]
    anatomy, loss = parts
    return Animal(Anatomy(**anatomy), Loss(**loss))
