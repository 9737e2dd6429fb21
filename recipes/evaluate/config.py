"""What to score, for whom, and how."""

import dataclasses
import math

from evaluation.delay import LONGEST_S

SIGNAL_SCORES = ("stoi", "estoi", "pesq", "pesq_narrow", "si_sdr_db")
"""What needs no listener and no level."""

EAR_SCORES = ("haspi", "hasqi")
"""What needs an audiogram."""

LEVELS = ("output_db_spl", "level_change_db")

RESTORATION = "restoration"
"""What needs θ and a model."""

ALL_SCORES = (*SIGNAL_SCORES, *EAR_SCORES, RESTORATION, *LEVELS)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is scored, for whom."""

    clean: str
    """Folder of clean speech: WAV, FLAC or OGG files of one channel, at any depth."""
    processed: list[str] | str
    """Folder of what a device made of it, under the same names; or several, one a device:
    `--processed '[A, B]'`, or the option more than once."""
    noisy: str | None = None
    """Folder of what went into the device, under the same names, if that was not the clean
    speech."""
    audiogram: str | None = None
    """The listener of HASPI and HASQI: `N1` to `N7`, `S1` to `S3`, `normal`, or a CSV or JSON
    file; see `docs/evaluation.md`."""
    theta: str | None = None
    """The listener of neural restoration: the JSON that `recipes.fit_theta` wrote. Needs
    `model`."""
    model: str | None = None
    """The BetaICNet that θ belongs to."""
    out: str = "runs/evaluated"
    """Folder of `report.html`, `scores.csv`, `scores.json` and what a resumed run needs."""
    scores: list[str] | None = None
    """Which scores; by default all that the listener allows. HASPI and HASQI take most of the
    time."""
    pyclarity: bool = False
    """HASPI and HASQI by the reference program, slower, to check those of this project."""
    full_scale_db_spl: float = 100.0
    """Level of a sound whose RMS is 1 [dB SPL], in all folders, as in `recipes.process`."""
    clean_db_spl: float | None = None
    """Set each clean sound to this level [dB SPL], and whatever was made of it by the same
    factor; for files whose level means nothing."""
    channel: int | None = None
    """Which channel of files with several, from 0; without it they are refused."""
    max_delay_s: float = LONGEST_S
    """Files that are later or earlier than this are not scored [s]."""
    examples: int = 6
    """Files to hear in the report, the worst ones."""
    workers: int = 2
    """Processes, each with a file at a time."""
    seed: int = 0
    """Of the noise within HASPI and HASQI and of bootstrap intervals."""


def folders(config: Config) -> list[str]:
    """Those of the processed sounds, one a device."""
    return [config.processed] if isinstance(config.processed, str) else list(config.processed)


def wanted_scores(config: Config) -> tuple[str, ...]:
    """The scores to compute, in the order in which they are shown.

    Raises:
        ValueError: If a setting is impossible, a score is unknown, or its listener is missing.
    """
    _check(config)
    possible = {
        **dict.fromkeys((*SIGNAL_SCORES, *LEVELS), True),
        **dict.fromkeys(EAR_SCORES, config.audiogram is not None),
        RESTORATION: config.theta is not None,
    }
    if config.scores is None:
        return tuple(name for name in ALL_SCORES if possible[name])
    for name in config.scores:
        if name not in possible:
            raise ValueError(f"{name}: no such score; there are {', '.join(ALL_SCORES)}")
        if not possible[name]:
            listener = "--audiogram" if name in EAR_SCORES else "--theta and --model"
            raise ValueError(f"{name} needs a listener: give {listener}")
    if not config.scores:
        raise ValueError("no score is asked for; leave --scores out for all of them")
    return tuple(name for name in ALL_SCORES if name in config.scores)


def _check(config: Config) -> None:
    if (config.theta is None) != (config.model is None):
        raise ValueError("θ says nothing without its model: give --theta and --model together")
    if not folders(config):
        raise ValueError("no folder of processed sounds; give --processed FOLDER")
    for name, lowest in (("workers", 1), ("examples", 0), ("max_delay_s", 0), ("channel", 0)):
        value = getattr(config, name)
        if value is not None and not lowest <= value < math.inf:
            raise ValueError(f"{name} must be at least {lowest}, got {value}")
    for name in ("full_scale_db_spl", "clean_db_spl"):
        value = getattr(config, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
