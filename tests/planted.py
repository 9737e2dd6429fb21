"""A cohort of which everything is planted: what channels follow, in which order, and who is normal.

Every sound is four noises, each in a band of its own and with an envelope of its own. A channel
follows one of the envelopes, in every animal in another order; one channel of each follows nothing.
Nothing here comes from `icsim.simulation`, and an answer takes no time to compute.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from icsim.recording import Recording
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, SPONTANEOUS, Sound, calibrate
from icsim.store import Cohort, create

BANDS_HZ = ((300, 700), (1000, 2000), (2800, 5000), (6500, 10500))
"""Of the four noises [Hz]."""

FOLLOWED = {
    "aged": (2, 3, None, 1, 0),
    "fresh": (1, 2, 3, 0, None),
    "loud": (None, 3, 0, 2, 1),
    "young": (0, 3, 1, None, 2),
    "stranger": (3, None, 2, 0, 1),
    "visitor": (0, 1, 3, 2, None),
}
"""Which envelope each channel of an animal follows, if any."""

NORMAL, UNSEEN = ("fresh", "visitor", "young"), ("stranger", "visitor")
"""Who hears normally, and whom no network is trained on."""

THRESHOLDS_DB_SPL = {"aged": 70.0, "fresh": 24.0, "loud": 50.0, "young": 20.0, "stranger": 60.0,
                     "visitor": 5.0}  # fmt: skip
"""The same at all frequencies."""

ABR_HZ = (1e3, 2e3, 4e3)

SPLITS = ("train",) * 7 + ("validation",) * 2 + ("test",) * 3
"""Of the sounds, in order; validation and test sounds are heard twice, the last one three times."""

SILENCE, MISSED = 0, ("loud", 3)
"""A training sound that is none, and an animal with the training sound that it did not hear."""

BINS = 512
"""Of a sound: two frames of the published length."""


def planted_cohort(path: Path, seed: int = 0) -> Cohort:
    """Write the cohort."""
    draw = np.random.default_rng(seed)
    shape = len(BANDS_HZ), BINS // 16
    envelopes = [draw.gamma(0.5, 2.0, shape).repeat(16, 1) for _ in SPLITS]
    sounds = []
    for n, split in enumerate(SPLITS):
        kind, pressure = "speech" if n % 2 else "music", _sound(envelopes[n], draw)
        if n == SILENCE:
            kind, pressure = SPONTANEOUS, torch.zeros_like(pressure)
        sounds.append(Sound(f"sound {n}", kind, f"source {n}", split, pressure))
    cohort = create(path, sounds)
    for name, followed in FOLLOWED.items():
        order = [
            n
            for n, split in enumerate(SPLITS)
            for _ in range(1 if split == "train" else 2)
            if (name, n) != MISSED
        ]
        order = draw.permutation([*order, len(SPLITS) - 1]).tolist()
        hours = np.linspace(0, 10, len(order)).tolist()
        status = "NH" if name in NORMAL else "HI"
        recording = Recording(
            status=status,
            role="unseen" if name in UNSEEN else "seen",
            thresholds_db_spl=[THRESHOLDS_DB_SPL[name]] * len(ABR_HZ),
            abr_frequencies_hz=ABR_HZ,
            channels=len(followed),
            presentations=list(zip(order, hours, strict=True)),
            counts=_answers([envelopes[n] for n in order], followed, status, draw),
        )
        places_hz = [200.0 if k is None else float(np.mean(BANDS_HZ[k])) for k in followed]
        truth = {"cf_hz": places_hz, "best_modulation_hz": [30.0] * len(followed)}
        cohort.add_animal(name, recording, truth | {"hearing": status, "severity": 1.0})
    return cohort


def _sound(envelopes: np.ndarray, draw: np.random.Generator) -> torch.Tensor:
    samples = BINS * BIN_SAMPLES
    hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    total = np.zeros(samples)
    for (low, high), envelope in zip(BANDS_HZ, envelopes, strict=True):
        spectrum = np.fft.rfft(draw.standard_normal(samples)) * ((hz > low) & (hz < high))
        total += envelope.repeat(BIN_SAMPLES) * np.fft.irfft(spectrum, samples)
    return calibrate(torch.from_numpy(total).float(), float(draw.uniform(55, 75)))


def _answers(
    envelopes: list[np.ndarray],
    followed: tuple[int | None, ...],
    status: str,
    draw: np.random.Generator,
) -> Iterator[np.ndarray]:
    gain = 1.0 if status == "NH" else 0.6
    for envelope in envelopes:
        rates = [np.full(BINS, 0.5) if k is None else gain * envelope[k] for k in followed]
        yield draw.poisson(np.stack(rates)).clip(max=20).astype(np.uint8).T
