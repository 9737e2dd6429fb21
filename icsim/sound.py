"""Sound pressure: levels in dB SPL, sampling rates, files.

Everywhere in this project a sound is a float tensor in pascals, sampled at `SAMPLE_RATE`.
"""

import dataclasses
import errno
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from icsim.files import whole_file

SAMPLE_RATE = 24414.0625
"""Audio sample rate [Hz]. Source: arXiv 2506.03088."""

BIN_SAMPLES = 32
"""Audio samples in one response bin. Source: arXiv 2506.03088."""

RESPONSE_RATE = SAMPLE_RATE / BIN_SAMPLES
"""Response rate [Hz]: bins of 1.311 ms."""

REFERENCE_PA = 20e-6
"""0 dB SPL [Pa]."""

SPONTANEOUS = "spontaneous"
"""Kind of a sound that is silence: what is fired in it is spontaneous activity. No other sound may
be silent."""

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")


@dataclasses.dataclass(frozen=True)
class Sound:
    """One sound of a cohort.

    The split is decided by `source` (a voice, a piece, a seed), so that no source is heard in
    two splits.
    """

    name: str
    kind: str
    """Class: speech, processed, noisy, music, ripple, instrument, or `SPONTANEOUS`."""
    source: str
    """Who or what made it."""
    split: str
    """train, validation or test."""
    pressure: Tensor
    """Pressure [Pa] at `SAMPLE_RATE`, `(T,)`."""


def level(sound: Tensor) -> Tensor:
    """RMS level of each sound.

    Args:
        sound: Pressure [Pa], `(*, T)`.

    Returns:
        Level [dB SPL], `(*,)`; minus infinity for silence.

    >>> round(level(torch.full((24414,), 20e-6)).item(), 3)
    0.0
    """
    return 20 * torch.log10(sound.square().mean(-1).sqrt() / REFERENCE_PA)


def calibrate(sound: Tensor, level_db_spl: float | Tensor) -> Tensor:
    """Scale each sound to a level, keeping its waveform.

    Args:
        sound: Any linear amplitude, `(*, T)`.
        level_db_spl: Target RMS level [dB SPL], a scalar or `(*,)`.

    Returns:
        Pressure [Pa], `(*, T)`.

    Raises:
        ValueError: If a sound is silent or not finite: no gain can set its level.

    >>> calibrate(torch.randn(3, 24414), 65.0).shape
    torch.Size([3, 24414])
    """
    rms = sound.square().mean(-1, keepdim=True).sqrt()
    if sound.numel() == 0 or not bool(((rms > 0) & rms.isfinite()).all()):
        raise ValueError(
            "a sound is silent or not finite, so no gain can set its level; leave it out"
        )
    target = torch.as_tensor(level_db_spl, dtype=sound.dtype, device=sound.device)
    if target.ndim:
        target = target.unsqueeze(-1)
    return sound / rms * REFERENCE_PA * 10 ** (target / 20)


def mix(clean: Tensor, noise: Tensor, snr_db: float | Tensor) -> Tensor:
    """Add noise to each sound at a signal-to-noise ratio, keeping the sound's own level.

    Args:
        clean: Pressure [Pa], `(*, T)`.
        noise: Any linear amplitude, `(*, T)`.
        snr_db: RMS level of the sound over that of the noise [dB], a scalar or `(*,)`.

    Returns:
        Noisy sound, pressure [Pa], `(*, T)`.

    Raises:
        ValueError: If the two differ in length or either is silent.

    >>> clean = calibrate(torch.randn(24414), 65.0)
    >>> noisy = mix(clean, torch.randn(24414), 5.0)
    >>> round(level(noisy - clean).item(), 3)
    60.0
    """
    if clean.shape[-1] != noise.shape[-1]:
        raise ValueError(
            f"the sound has {clean.shape[-1]} samples and the noise {noise.shape[-1]}; cut one"
        )
    clean_level = level(clean)
    if not bool(clean_level.isfinite().all()):
        raise ValueError("the sound is silent or not finite, so it has no signal-to-noise ratio")
    return clean + calibrate(noise, clean_level - snr_db)


def resample(sound: Tensor, from_hz: float, to_hz: float = SAMPLE_RATE) -> Tensor:
    """Change the sample rate (soxr, very high quality, linear phase; not differentiable).

    Args:
        sound: `(T,)`.
        from_hz: Its sample rate [Hz].
        to_hz: The rate wanted [Hz]; neither needs to be whole.

    Returns:
        The sound, `(T · to_hz / from_hz,)`, in the precision it came in.

    >>> resample(torch.zeros(16000), 16000).shape
    torch.Size([24414])
    """
    if from_hz <= 0 or to_hz <= 0:
        raise ValueError(f"sample rates must be positive, got {from_hz} and {to_hz} Hz")
    if sound.ndim != 1:
        raise ValueError(
            f"resample takes one sound (T,), not {tuple(sound.shape)}; take each alone"
        )
    if from_hz == to_hz:
        return sound
    samples = soxr.resample(sound.detach().cpu().numpy(), from_hz, to_hz, quality="VHQ")
    return torch.from_numpy(np.ascontiguousarray(samples)).to(sound)


def validate(sound: Tensor, name: str) -> Tensor:
    """Return the sound if it can be heard and computed with.

    Raises:
        ValueError: If it is shorter than 10 ms at `SAMPLE_RATE`, has samples that are not finite,
            or is silent. The message starts with `name`.
    """
    if sound.shape[-1] < 244:
        raise ValueError(f"{name}: {sound.shape[-1]} samples; a sound of at least 10 ms is needed")
    if not bool(sound.isfinite().all()):
        bad = int((~sound.isfinite()).sum())
        raise ValueError(f"{name}: {bad} samples are NaN or infinite; repair or remove the file")
    if not bool(sound.any()):
        raise ValueError(f"{name}: every sample is zero; remove the file")
    return sound


def read(path: str | Path) -> tuple[Tensor, float]:
    """Read an audio file as it is: no clipping at ±1, no normalisation.

    Returns:
        Samples `(channels, T)` in float32, and the sample rate [Hz].

    Raises:
        ValueError: If the file is no audio or cannot be decoded. (A truncated FLAC file cannot; a
            truncated WAV or OGG file is the sound that is left of it.)
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path}: cannot be read as audio ({error}); convert or remove it"
        ) from error
    return torch.from_numpy(samples.T.copy()), float(rate)


def read_mono(path: str | Path, rate_hz: float = SAMPLE_RATE) -> Tensor:
    """Read a file, average its channels, resample it and check it.

    Returns:
        `(T,)` at `rate_hz`, in the file's own amplitude (not yet pascals).

    Raises:
        ValueError: As `read` and `validate` do, naming the file.
    """
    samples, from_hz = read(path)
    if not bool(samples.isfinite().all()):
        validate(samples, str(path))
    if samples.shape[-1] < 0.01 * from_hz:
        raise ValueError(
            f"{path}: {samples.shape[-1]} samples; a sound of at least 10 ms is needed"
        )
    return validate(resample(samples.mean(0), from_hz, rate_hz), str(path))


def write(path: str | Path, sound: Tensor, rate_hz: float) -> None:
    """Write 32-bit float WAV, so that samples beyond ±1 stay what they are.

    Args:
        path: Where to; the file appears whole or not at all.
        sound: `(T,)` or `(channels, T)`.
        rate_hz: Sample rate [Hz]; WAV stores whole numbers, so another rate is refused.

    Raises:
        OSError: If it cannot be written; the error names `path`.
    """
    if rate_hz != int(rate_hz):
        raise ValueError(f"WAV stores whole sample rates, not {rate_hz} Hz; resample first")
    samples = torch.atleast_2d(sound.detach().cpu().float()).T.numpy()
    try:
        with whole_file(path) as beside:
            soundfile.write(beside, samples, int(rate_hz), format="WAV", subtype="FLOAT")
    except soundfile.LibsndfileError as error:
        raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from error


def find_audio(folder: str | Path) -> list[Path]:
    """All WAV, FLAC and OGG files below a folder, sorted.

    Raises:
        ValueError: If the folder is missing or has none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of sounds")
    # Names with a dot in front are leftovers of file managers and of unfinished writing.
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    files = sorted(p for p in paths if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: no {', '.join(AUDIO_SUFFIXES)} file in it")
    return files
