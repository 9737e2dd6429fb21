"""What to score, for whom, and how."""

import dataclasses

from evaluation.delay import LONGEST_S
from recipes.ranges import (
    Count,
    CountOrZero,
    FullScaleDbSpl,
    LevelDbSpl,
    NotEmptyStr,
    SecondsOrZero,
    Seed,
    checked,
)

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

    clean: NotEmptyStr
    """Folder of clean speech: WAV, FLAC or OGG files of one channel, at any depth."""
    processed: list[NotEmptyStr] | NotEmptyStr
    """Folder of what a device made of it, under the same names; or several, one a device:
    `--processed '[A, B]'`, or the option more than once."""
    noisy: NotEmptyStr | None = None
    """Folder of what went into the device, under the same names, if that was not the clean
    speech."""
    audiogram: NotEmptyStr | None = None
    """The listener of HASPI and HASQI: `N1` to `N7`, `S1` to `S3`, `normal`, or a CSV or JSON
    file; see `docs/evaluation.md`."""
    theta: NotEmptyStr | None = None
    """The listener of neural restoration: the JSON that `recipes.fit_theta` wrote. Needs
    `model`."""
    model: NotEmptyStr | None = None
    """The BetaICNet that θ belongs to."""
    out: NotEmptyStr = "runs/evaluated"
    """Folder of `report.html`, `scores.csv`, `scores.json` and what a resumed run needs."""
    scores: list[str] | None = None
    """Which scores; by default all that the listener allows. HASPI and HASQI take most of the
    time."""
    full_scale_db_spl: FullScaleDbSpl = 100.0
    """Level of a sound whose RMS is 1 [dB SPL], as in `recipes.process`; in every folder for which
    none of the next three says otherwise."""
    clean_full_scale_db_spl: FullScaleDbSpl | None = None
    """The same of the clean files, if theirs is another [dB SPL]."""
    noisy_full_scale_db_spl: FullScaleDbSpl | None = None
    """The same of the noisy files [dB SPL]."""
    processed_full_scale_db_spl: list[FullScaleDbSpl] | FullScaleDbSpl | None = None
    """The same of the processed files [dB SPL]: one number for all devices, or a list with one for
    each, in the order of `processed`."""
    clean_db_spl: LevelDbSpl | None = None
    """Set each clean sound to this level [dB SPL], and whatever was made of it by the same
    factor; for files whose level means nothing."""
    channel: CountOrZero | None = None
    """Which channel of files with several, from 0; without it they are refused."""
    max_delay_s: SecondsOrZero = LONGEST_S
    """Files that are later or earlier than this are not scored [s]."""
    examples: CountOrZero = 6
    """Files to hear in the report, the worst ones."""
    workers: Count = 2
    """Processes, each with a file at a time."""
    seed: Seed = 0
    """Of the noise within HASPI and HASQI and of bootstrap intervals."""

    __post_init__ = checked


def folders(config: Config) -> list[str]:
    """Those of the processed sounds, one a device."""
    return [config.processed] if isinstance(config.processed, str) else list(config.processed)


def full_scales_db_spl(config: Config) -> tuple[float, float, list[float]]:
    """Level of a sound whose RMS is 1 in clean, noisy and each device's processed files [dB SPL].

    Raises:
        ValueError: If the processed folders are not as many as the levels given for them.
    """
    shared, own = config.full_scale_db_spl, config.processed_full_scale_db_spl
    clean, noisy = (
        shared if value is None else value
        for value in (config.clean_full_scale_db_spl, config.noisy_full_scale_db_spl)
    )
    count = len(folders(config))
    if not isinstance(own, list):
        return clean, noisy, [shared if own is None else own] * count
    if len(own) != count:
        raise ValueError(
            f"processed_full_scale_db_spl has {len(own)} levels for {count} processed folders; "
            "give one for each, or a single one for all"
        )
    return clean, noisy, own


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
    full_scales_db_spl(config)
