"""Score sounds that any device made, beside the clean ones.

`python -m recipes.evaluate --clean FOLDER --processed FOLDER`; what the scores mean, the formats
and the exit codes are in `docs/evaluation.md`.

Run the same command again to go on: a file that was scored is scored anew only if it, or what
belongs to it, has changed.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

from tqdm import tqdm

from evaluation.delay import LONGEST_S
from evaluation.folders import FullScales, Pair, Reading, match, stamp
from evaluation.scores import (
    ALL_SCORES,
    EAR_SCORES,
    LEVELS,
    RESTORATION,
    SIGNAL_SCORES,
    failure,
    score_pair,
)
from evaluation.table import markdown
from icsim.audiogram import audiogram
from icsim.files import write_whole
from recipes.reports import scores as report
from recipes.running.commands import claim, run
from recipes.running.jobs import surviving
from recipes.running.ranges import (
    Count,
    CountOrZero,
    FullScaleDbSpl,
    LevelDbSpl,
    NotEmptyStr,
    SecondsOrZero,
    Seed,
    checked,
)

ROWS = "rows.jsonl"
"""A finished row a line."""

NOT_INSTALLED = "is not installed"
"""Rows with such a reason are tried again."""

CRASHED = "the process that scored it crashed"

MOST_LINES = 20
"""Of failures and of notes on the terminal; the report has more."""


@dataclasses.dataclass(frozen=True)
@checked
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


def folders(config: Config) -> list[str]:
    """Those of the processed sounds, one a device."""
    return [config.processed] if isinstance(config.processed, str) else list(config.processed)


def full_scales(config: Config) -> FullScales:
    """Level of a sound whose RMS is 1 in clean, noisy and each device's processed files.

    Raises:
        ValueError: If the processed folders are not as many as the levels given for them.
    """
    shared, of_devices = config.full_scale_db_spl, config.processed_full_scale_db_spl
    clean, noisy = (
        shared if value is None else value
        for value in (config.clean_full_scale_db_spl, config.noisy_full_scale_db_spl)
    )
    count = len(folders(config))
    if not isinstance(of_devices, list):
        of_devices = [shared if of_devices is None else of_devices] * count
    if len(of_devices) != count:
        raise ValueError(
            f"processed_full_scale_db_spl has {len(of_devices)} levels for {count} processed "
            "folders; give one for each, or a single one for all"
        )
    return FullScales(clean, noisy, tuple(of_devices))


def reading(config: Config) -> Reading:
    """How files are read."""
    return Reading(config.clean_db_spl, config.channel, config.max_delay_s)


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
    full_scales(config)


def evaluate(config: Config) -> dict:
    """Score every file that is not scored yet; write the tables and the report.

    Returns:
        What `report.write` returns: summary, differences, warnings, failures.

    Raises:
        ValueError: If settings, folders and listeners do not go together, before anything is done.
    """
    wanted_scores(config)
    if config.audiogram:
        audiogram(config.audiogram)
    scales = full_scales(config)
    pairs = match(config.clean, folders(config), scales, config.noisy)
    _midbrains(config)
    out = Path(config.out)
    # How many processes share the work, and what is shown, is no part of what is scored.
    claim(out, dataclasses.replace(config, workers=Config.workers, examples=Config.examples))
    listener = _listener(config)
    rows = finished_rows(out / ROWS, pairs, listener)
    left = [pair for pair in pairs if (pair.device, pair.name) not in rows]
    with (
        (out / ROWS).open("a", encoding="utf-8") as file,
        tqdm(total=len(pairs), initial=len(rows), desc="scoring", unit="file") as bar,
    ):
        work, after_a_crash = functools.partial(score, config), functools.partial(crashed, config)
        for scored in surviving(work, left, config.workers, after_a_crash):
            scored |= {"listener": listener}
            file.write(json.dumps(scored, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            rows[scored["device"], scored["file"]] = scored
            bar.update()
    ordered = [rows[pair.device, pair.name] for pair in pairs]
    return report.write(dataclasses.asdict(config), pairs, ordered, scales, reading(config))


def finished_rows(path: Path, pairs: list[Pair], listener: dict) -> dict[tuple[str, str], dict]:
    """Rows of an earlier run that still hold, by device and file; the file then has no others.

    A line that was cut off while it was written is none.
    """
    stamps = {(pair.device, pair.name): pair.stamps for pair in pairs}
    rows = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            row = json.loads(line)
            key = row["device"], row["file"]
        except (ValueError, KeyError, TypeError):
            continue
        same = stamps.get(key) == row.get("stamps") and row.get("listener") == listener
        if same and not any(NOT_INSTALLED in reason for reason in row["reasons"].values()):
            rows[key] = row
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows.values())
    write_whole(path, "".join(lines))
    return rows


def _listener(config: Config) -> dict[str, list[int] | None]:
    """The state of the files that say who listens."""
    paths = {"audiogram": config.audiogram, "theta": config.theta, "model": config.model}
    return {role: stamp(path) for role, path in paths.items()}


def _midbrains(config: Config) -> tuple | None:
    """The listener's midbrain and a normal one, if restoration can be asked for."""
    if config.theta is None:
        return None
    # Every process would pay for the import, and few runs need it.
    from evaluation.midbrains import model_midbrains

    return model_midbrains(config.model, config.theta)


def score(config: Config, pair: Pair) -> dict:
    """The row of a pair."""
    return score_pair(
        pair,
        wanted_scores(config),
        reading(config),
        audiogram(config.audiogram) if config.audiogram else None,
        _midbrains(config),
        config.seed,
    )


def crashed(config: Config, pair: Pair) -> dict:
    """The row of a pair whose process crashed."""
    labels = {"device": pair.device, "file": pair.name, "stamps": pair.stamps}
    return labels | failure(wanted_scores(config), CRASHED)


def joined(arguments: list[str]) -> list[str]:
    """An option `--processed` that is there more than once, as one list.

    >>> joined(["--processed", "A", "--clean", "C", "--processed=B"])
    ['--clean', 'C', '--processed', '["A", "B"]']
    """
    folders, others, waiting = [], [], False
    for argument in arguments:
        if waiting:
            folders.append(argument)
        elif argument.startswith("--processed="):
            folders.append(argument.removeprefix("--processed="))
        elif argument != "--processed":
            others.append(argument)
        waiting = argument == "--processed" and not waiting
    if len(folders) < 2:
        return arguments
    return [*others, "--processed", json.dumps(folders)]


def main() -> int:
    """The exit code: 0 if all is scored, 1 if anything is missing; others are those of `run`."""
    sys.argv[1:] = joined(sys.argv[1:])
    result = run(evaluate, Config)
    print(markdown(result["summary"]))
    print(result["report"])
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for title, lines in (("lack a score", result["failures"]), ("have a note", result["notes"])):
        if lines:
            print(f"{len(lines)} of {result['files']} files {title}:", file=sys.stderr)
            print(*(f"  {line}" for line in lines[:MOST_LINES]), sep="\n", file=sys.stderr)
        if len(lines) > MOST_LINES:
            print(f"  … and {len(lines) - MOST_LINES} more in the report", file=sys.stderr)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
