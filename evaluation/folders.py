"""Folders of sound files: which files belong together, and two of them made comparable."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from evaluation.delay import LONGEST_S, delay, in_time
from icsim.sound import REFERENCE_PA, calibrate, find_audio, level, read, resample

LOWEST_RATE_HZ = 8000
"""Files of lower sample rates are refused: they hold too little of speech (chosen here)."""

LOUDEST_DB_SPL = 140.0
"""Files that reach it are taken for files in other units (chosen here)."""

MISSING_S = 0.05
"""So much may be cut off at the end of a processed file beside its delay [s] (chosen here)."""

FARTHEST_S = 60.0
"""Delays are looked for so far, if only to say how long they are [s]."""


@dataclasses.dataclass(frozen=True)
class FullScales:
    """Level of a sound whose RMS is 1, in each folder [dB SPL]."""

    clean_db_spl: float
    noisy_db_spl: float
    processed_db_spl: tuple[float, ...]
    """One a device."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of one name, as one device made them; None where a file is missing."""

    device: str
    name: str
    """Path below its folder, without the suffix."""
    clean: Path | None
    processed: Path | None
    noisy: Path | None
    full_scales: FullScales
    """Of these files: one processed folder."""
    noisy_folder: bool = False
    """Whether there is a folder of noisy files: then one of this name is wanted."""

    @property
    def stamps(self) -> dict[str, list[int] | None]:
        """Size and time of each file: once one changes, scores no longer hold."""
        paths = {"clean": self.clean, "processed": self.processed, "noisy": self.noisy}
        return {role: stamp(path) for role, path in paths.items()}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Sounds of one name that can be compared moment by moment."""

    clean: Tensor
    """Pressure [Pa], `(T,)`."""
    processed: Tensor
    """`(T,)`."""
    noisy: Tensor | None
    """What went into the device, if there is a folder of it, `(T,)`."""
    without_noisy: str | None
    """Why `noisy` is missing although there is a folder of it."""
    rate_hz: float
    """That of the clean file [Hz]."""
    delay_s: float | None
    """By how much the processed file was late; it no longer is."""
    notes: tuple[str, ...]
    """What was done to the files or is odd about them."""


def stamp(path: Path | str | None) -> list[int] | None:
    """Size and time of a file, None if there is none."""
    if path is None or not Path(path).is_file():
        return None
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def match(
    clean_folder: str | Path,
    processed_folders: Sequence[str],
    full_scales: FullScales,
    noisy_folder: str | Path | None = None,
) -> list[Pair]:
    """All files of all devices, by device and name; also those that lack a partner.

    Args:
        clean_folder: The clean sounds.
        processed_folders: What devices made of them, under the same names.
        full_scales: Of all of them.
        noisy_folder: What went into the devices, if not the clean sounds.

    Raises:
        ValueError: If a folder is missing or empty, one name belongs to two files of a folder, or
            a device has no file in common with the clean folder.
    """
    clean, with_noisy = _by_name(clean_folder), noisy_folder is not None
    noisy = {} if noisy_folder is None else _by_name(noisy_folder)
    pairs = []
    for (device, folder), level_db_spl in zip(
        devices(processed_folders).items(), full_scales.processed_db_spl, strict=True
    ):
        files = _by_name(folder)
        if not clean.keys() & files.keys():
            raise ValueError(
                f"{folder}: no file is called as one in {clean_folder} "
                f"({min(files)}, but {min(clean)}); give both the same names"
            )
        scales = dataclasses.replace(full_scales, processed_db_spl=(level_db_spl,))
        pairs += [
            Pair(
                device, name, clean.get(name), files.get(name), noisy.get(name), scales, with_noisy
            )
            for name in sorted(clean.keys() | files.keys())
        ]
    return pairs


def devices(paths: Sequence[str]) -> dict[str, str]:
    """Folders by the shortest ends of their paths that tell them apart.

    Raises:
        ValueError: If one is there twice.

    >>> devices(["runs/a/out", "runs/b/out"])
    {'a/out': 'runs/a/out', 'b/out': 'runs/b/out'}
    """
    parts = [Path(path).resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise ValueError(f"{', '.join(paths)}: a folder is there twice; name each device once")
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, paths, strict=True))


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are read."""

    clean_db_spl: float | None = None
    """The clean sound is set to this level [dB SPL], and the others by the same factor; None for
    the level that the file has."""
    channel: int | None = None
    """Which channel of files with several; None: they are refused."""
    max_delay_s: float = LONGEST_S
    """Longer delays are refused [s]."""


def prepare(pair: Pair, reading: Reading | None = None) -> Prepared:
    """Read the files of a pair in pascals, at one rate, in time, equally long.

    Args:
        pair: The files.
        reading: How.

    Raises:
        ValueError: If they cannot be compared; the message says why.
    """
    if pair.clean is None or pair.processed is None:
        raise ValueError(f"no {'clean' if pair.clean is None else 'processed'} file of this name")
    reading, scales = reading or Reading(), pair.full_scales
    clean, rate = _read(pair.clean, "clean", reading, scales.clean_db_spl)
    processed, from_hz = _read(pair.processed, "processed", reading, *scales.processed_db_spl)
    notes = [*_clipped(clean, "clean"), *_clipped(processed, "processed")]
    if from_hz != rate:
        notes.append(f"processed: resampled from {from_hz:g} to {rate:g} Hz")
        processed = resample(processed, from_hz, rate)
    noisy, without_noisy = _noisy(pair, reading, rate, len(clean))
    late, reason = _late(clean, noisy, processed, rate, reading.max_delay_s)
    if reason:
        notes.append(f"delay taken as 0: {reason}")
    _check_end(clean, processed, late, rate)
    if (longer_s := (len(processed) - late - len(clean)) / rate) > MISSING_S:
        notes.append(f"processed: {longer_s:.2f} s longer than clean, cut")
    if noisy is not None:
        noisy, _ = in_time(noisy, processed, late)
    factor = 1.0
    if reading.clean_db_spl is not None:
        factor = (calibrate(clean, reading.clean_db_spl).norm() / clean.norm()).item()
    clean, processed = in_time(clean, processed, late)
    return Prepared(
        factor * clean,
        factor * processed,
        None if noisy is None else factor * noisy,
        without_noisy,
        rate,
        None if reason else late / rate,
        tuple(notes),
    )


def _by_name(folder: str | Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in find_audio(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in paths:
            raise ValueError(f"{paths[name]} and {path} have one name; keep one of them")
        paths[name] = path
    return paths


def _read(
    path: Path, role: str, reading: Reading, full_scale_db_spl: float
) -> tuple[Tensor, float]:
    """One channel of a file in pascals, `(T,)`, and its rate [Hz]."""
    try:
        samples, rate = read(path)
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from error
    channels = len(samples)
    channel = reading.channel if channels > 1 else 0
    if channel is None:
        raise ValueError(f"{role}: has {channels} channels; choose one with --channel 0")
    if channel >= channels:
        raise ValueError(f"{role}: has {channels} channels, so none is --channel {channel}")
    sound = samples[channel]
    if rate < LOWEST_RATE_HZ:
        raise ValueError(f"{role}: {rate:g} Hz; at least {LOWEST_RATE_HZ} Hz are needed")
    if len(sound) == 0:
        raise ValueError(f"{role}: has no samples")
    if not bool(sound.isfinite().all()):
        raise ValueError(f"{role}: samples are NaN or infinite")
    if not bool(sound.any()):
        raise ValueError(f"{role}: is silent")
    pressure = sound * REFERENCE_PA * 10 ** (full_scale_db_spl / 20)
    peak_db_spl = level(pressure.abs().max()[None]).item()
    if reading.clean_db_spl is None and peak_db_spl > LOUDEST_DB_SPL:
        raise ValueError(
            f"{role}: reaches {peak_db_spl:.0f} dB SPL, as an RMS of 1 is said to be "
            f"{full_scale_db_spl:g} dB SPL; correct the file or --{role}_full_scale_db_spl"
        )
    return pressure, rate


def _noisy(
    pair: Pair, reading: Reading, rate: float, samples: int
) -> tuple[Tensor | None, str | None]:
    """What went into the device, as long as the clean sound, or why it is missing."""
    if pair.noisy is None:
        return None, "no noisy file of this name" if pair.noisy_folder else None
    try:
        noisy, from_hz = _read(pair.noisy, "noisy", reading, pair.full_scales.noisy_db_spl)
    except ValueError as error:
        return None, str(error)
    noisy = resample(noisy, from_hz, rate)
    if len(noisy) < samples - MISSING_S * rate:
        return None, f"noisy: ends {(samples - len(noisy)) / rate:.2f} s before clean"
    missing = max(0, samples - len(noisy))
    return torch.nn.functional.pad(noisy, (0, missing))[:samples], None


def _late(
    clean: Tensor, noisy: Tensor | None, processed: Tensor, rate: float, longest_s: float
) -> tuple[int, str | None]:
    """Delay in samples, found by the clean sound or else the noisy one; 0 with a reason."""
    for reference in (clean, noisy):
        if reference is None:
            continue
        lateness = delay([reference], [processed], rate, FARTHEST_S)
        if lateness.reasons[0] is None:
            late_s = lateness.values.item()
            if abs(late_s) > longest_s:
                raise ValueError(
                    f"processed: {late_s:+.3f} s late, beyond --max_delay_s {longest_s:g}"
                )
            return round(late_s * rate), None
    return 0, lateness.reasons[0]


def _check_end(clean: Tensor, processed: Tensor, late: int, rate: float) -> None:
    missing_s = (len(clean) - (len(processed) - late)) / rate
    if missing_s > abs(late) / rate + MISSING_S:
        raise ValueError(f"processed: ends {missing_s:.2f} s before clean; is it truncated?")


def _clipped(sound: Tensor, role: str) -> list[str]:
    """A note if the sound stays at its peak, as only a clipped one does."""
    top = sound.abs() >= (1 - 1e-6) * sound.abs().max()
    flat = int((top[:-2] & top[1:-1] & top[2:]).sum())
    return [f"{role}: flat at its peak {flat} times, clipped"] if flat else []
