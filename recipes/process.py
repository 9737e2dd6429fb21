"""Process sound files with a trained aid for one listener.

`python -m recipes.process --aid AID --sounds FILE_OR_FOLDER --out FOLDER --theta FIT.json`, or
`--audiogram FILE` for an aid that was trained with audiograms; the same command goes on where it
was stopped.

WAV, FLAC and OGG files of 8 kHz and more, of any number of channels, become 32-bit float WAV files
of the same rate and length, aligned with what went in; each channel is an ear of its own with the
same listener. The aid hears up to 12 kHz: what a file holds above is lost. A level needs a
convention: `full_scale_db_spl` is the level of a sound whose RMS is 1, going in and coming out.
Samples beyond ±1 stay what they are, and are told of, as players and other programs clip them.
`pcm_bits` writes integers instead, all files lower by one and the same `headroom_db`, so that no
sample is clipped and levels can still be compared.
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import Literal

import soundfile
from torch import Tensor
from tqdm import tqdm

from compensation.aid import Aid
from compensation.files import Outcome, Processing, process_file
from compensation.listener import from_audiogram
from compensation.load import load_aid
from icsim.audiogram import Audiogram
from icsim.fits import read_fit
from icsim.sound import find_audio
from recipes.running.commands import claim, run
from recipes.running.jobs import killed_named, processes
from recipes.running.ranges import (
    Count,
    Exponent,
    FullScaleDbSpl,
    MaximumDbSpl,
    NotEmptyStr,
    checked,
)


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What to process, with which aid, for whom."""

    aid: NotEmptyStr
    """A trained aid."""
    sounds: NotEmptyStr
    """A sound file, or a folder of them, whatever its depth."""
    out: NotEmptyStr
    """Folder of the processed sounds, named as the sounds are, and of `config.json`."""
    theta: NotEmptyStr | None = None
    """The listener: the JSON that `recipes.fit_theta` wrote."""
    audiogram: NotEmptyStr | None = None
    """The listener, for an aid that takes audiograms: see `Audiogram.read`."""
    noise_reduction: Exponent = 1.0
    """Exponent of the noise mask: 0 off, 1 as trained."""
    gain: Exponent = 1.0
    """Exponent of the compensating mask: 0 off, 1 as trained."""
    full_scale_db_spl: FullScaleDbSpl = 100.0
    """Level of a sound whose RMS is 1 [dB SPL]."""
    maximum_db_spl: MaximumDbSpl = 110.0
    """The highest magnitude of a sample that comes out [dB SPL]."""
    pcm_bits: Literal[16, 24] | None = None
    """Write integers of so many bits in place of floats, lower by `headroom_db`."""
    workers: Count = 2
    """Processes, each with a file at a time."""


def process(config: Config) -> Path:
    """Process every sound that is not there yet or is older than what it is made of.

    Returns:
        The folder of the processed sounds.

    Raises:
        ValueError: If aid, listener and settings do not go together, before anything is done; or
            if sounds cannot be processed: after all others are done, each with its reason.
    """
    aid, listener = equipped(config)
    processing(config).stream(aid, listener)  # refuses settings before any file is touched
    files = targets(config)
    # How many processes share the work is no part of what is made.
    claim(Path(config.out), dataclasses.replace(config, workers=Config.workers))
    made_of = [Path(path) for path in (config.aid, config.theta, config.audiogram) if path]
    left = {s: t for s, t in files.items() if not _newer(t, [s, *made_of])}
    total = sum(map(_samples, left))
    with tqdm(total=total, desc="processing", unit=" samples", unit_scale=True) as bar:
        outcomes = _side_by_side(config, aid, listener, left, bar.update)
    written = {left[sound]: done for sound, done in outcomes.items() if done.reason is None}
    for line in remarks(config, written):
        print(line, file=sys.stderr)
    reasons = [outcome.reason for outcome in outcomes.values() if outcome.reason]
    if reasons:
        listed = "".join(f"\n  {reason}" for reason in reasons)
        raise ValueError(f"{len(reasons)} of {len(files)} sounds were not processed:{listed}")
    return Path(config.out)


def processing(config: Config) -> Processing:
    """How sounds are processed."""
    fields = dataclasses.fields(Processing)
    return Processing(**{field.name: getattr(config, field.name) for field in fields})


def remarks(config: Config, outcomes: dict[Path, Outcome]) -> list[str]:
    """What a user should know of the level of the files that were just written."""
    lines = []
    if config.pcm_bits and outcomes:
        low_db = processing(config).headroom_db
        lines.append(
            f"note: the files are lower by {low_db:g} dB, so that nothing is clipped: an RMS of 1 "
            f"in them is {config.full_scale_db_spl + low_db:g} dB SPL"
        )
    loud = {target: outcome for target, outcome in outcomes.items() if outcome.beyond}
    if loud:
        most_db = 20 * math.log10(max(outcome.peak for outcome in loud.values()))
        lines.append(
            f"warning: {len(loud)} of {len(outcomes)} files leave ±1, where players and programs "
            f"that write integers clip them; lower all files by {most_db:.1f} dB before that, or "
            "add --pcm_bits 24 and another --out, which does so for you:"
        )
    lines += [
        f"  {target}: {outcome.beyond} samples, up to {outcome.peak:.3g} "
        f"({20 * math.log10(outcome.peak):+.1f} dB)"
        for target, outcome in loud.items()
    ]
    return lines


def equipped(config: Config) -> tuple[Aid, Tensor]:
    """The aid, and its listener as it takes them, `(P,)`.

    Raises:
        ValueError: If the two do not go together.
    """
    file = config.theta or config.audiogram
    if file is None or (config.theta and config.audiogram):
        raise ValueError("an aid needs one listener: give --theta or --audiogram, and not both")
    aid, facts = load_aid(config.aid)
    given = "theta" if config.theta else "audiogram"
    if given != facts.listener:
        raise ValueError(
            f"{config.aid}: was trained with --{facts.listener}, so --{given} says it nothing"
        )
    if config.noise_reduction and not facts.noise_reduction:
        raise ValueError(
            f"{config.aid}: was trained for compensation alone: add --noise_reduction 0"
        )
    if config.theta:
        listener = read_fit(file, facts.model).theta
    else:
        listener = from_audiogram(Audiogram.read(file), facts.audiogram_hz)
    if len(listener) != aid.config.listener:
        raise ValueError(
            f"{file}: {len(listener)} numbers, but {config.aid} takes "
            f"{aid.config.listener}; take the listener that belongs to it"
        )
    return aid, listener


def targets(config: Config) -> dict[Path, Path]:
    """Where each sound goes.

    Raises:
        ValueError: If there is no sound, two would become one file, or the results would lie
            among the sounds.
    """
    source, out = Path(config.sounds), Path(config.out)
    among = source.is_dir() and out.resolve().is_relative_to(source.resolve())
    if among or out.resolve() == source.resolve().parent:
        raise ValueError(f"{out}: is where the sounds are; choose another --out")
    files = [source] if source.is_file() else find_audio(source)
    folder = source.parent if source.is_file() else source
    paths: dict[Path, Path] = {}
    for sound in files:
        target = out / sound.relative_to(folder).with_suffix(".wav")
        if target in paths:
            raise ValueError(f"{paths[target]} and {sound} would both become {target}; rename one")
        paths[target] = sound
    return {sound: target for target, sound in paths.items()}


def _side_by_side(
    config: Config,
    aid: Aid,
    listener: Tensor,
    files: dict[Path, Path],
    progress: Callable[[int], object],
) -> dict[Path, Outcome]:
    """Process files side by side; what became of each."""
    workers = min(config.workers, len(files))
    if workers < 2:
        return {
            each[0]: _attempt(config, *each, aid, listener, progress=progress)
            for each in files.items()
        }
    with killed_named("processing", "--workers"), processes(workers) as pool:
        jobs = {pool.submit(_alone, config, *each): each[0] for each in files.items()}
        try:
            for job in as_completed(jobs):
                job.result()
                progress(_samples(jobs[job]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {sound: job.result() for job, sound in jobs.items()}


def _alone(config: Config, sound: Path, target: Path) -> Outcome:
    """In a process of its own."""
    return _attempt(config, sound, target, *equipped(config))


def _attempt(
    config: Config, sound: Path, target: Path, aid: Aid, listener: Tensor, **options
) -> Outcome:
    """Process one file, or say why not."""
    try:
        return process_file(sound, target, aid, listener, processing(config), **options)
    except OSError as error:
        return Outcome(f"{error.filename or target}: {error.strerror or error}")
    except (ValueError, RuntimeError) as error:
        return Outcome(str(error) if str(sound) in str(error) else f"{sound}: {error}")


def _newer(target: Path, sources: list[Path]) -> bool:
    """Whether a file is there and no older than what it was made of."""
    if not target.is_file():
        return False
    return target.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def _samples(sound: Path) -> int:
    """As a file's header says; none if it has no such header."""
    try:
        return soundfile.info(sound).frames
    except (RuntimeError, OSError):
        return 0


if __name__ == "__main__":
    print(run(process, Config))
