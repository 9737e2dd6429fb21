"""Sound files through an aid: blocks in, blocks out, aligned, in bounded memory."""

import dataclasses
import errno
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from icsim.files import whole_file
from icsim.sound import REFERENCE_PA, SAMPLE_RATE

from .aid import Aid
from .streaming import LOUDEST_DB_SPL, Stream

LOWEST_RATE_HZ = 8000
"""Files of lower sample rates are refused: they hold too little of speech (chosen here)."""

BLOCK_S = 4.0
"""So much sound is in memory at a time [s]."""

MOST_BYTES = 2**32 - 2**16
"""What a WAV file can hold."""


@dataclasses.dataclass(frozen=True)
class Processing:
    """How sounds are processed, and how levels are written."""

    noise_reduction: float = 1.0
    """Exponent of the noise mask: 0 off, 1 as trained."""
    gain: float = 1.0
    """Exponent of the compensating mask: 0 off, 1 as trained."""
    full_scale_db_spl: float = 100.0
    """Level of a sound whose RMS is 1, going in and coming out [dB SPL]."""
    maximum_db_spl: float = 110.0
    """The highest magnitude of a sample that comes out [dB SPL]."""
    pcm_bits: Literal[16, 24] | None = None
    """Integers of so many bits in place of floats, lower by `headroom_db`."""

    @property
    def headroom_db(self) -> float:
        """By how much files of integers are lower: enough for the highest sample.

        An RMS of 1 in such a file is `full_scale_db_spl + headroom_db` [dB SPL].

        >>> Processing(pcm_bits=24).headroom_db
        10.0
        """
        return max(0.0, self.maximum_db_spl - self.full_scale_db_spl) if self.pcm_bits else 0.0

    def stream(self, aid: Aid, listener: Tensor) -> Stream:
        """The aid, ready for blocks of sound."""
        return Stream(aid, listener, self.noise_reduction, self.gain, self.maximum_db_spl)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    reason: str | None = None
    """Why there is no result, if there is none."""
    beyond: int = 0
    """Samples of the result beyond ±1."""
    peak: float = 0.0
    """Its largest magnitude."""


def process_file(
    sound: Path,
    target: Path,
    aid: Aid,
    listener: Tensor,
    processing: Processing | None = None,
    progress: Callable[[int], object] = lambda samples: None,
) -> Outcome:
    """Process one file, some seconds at a time; the result appears whole or not at all.

    Args:
        sound: What to process.
        target: The WAV file to be written.
        aid: The network.
        listener: Whom for, `(P,)`.
        processing: How.
        progress: Called with the number of samples just processed.

    Returns:
        How far the result leaves ±1.

    Raises:
        ValueError: If the file is no sound that an aid can take; the message names it.
        OSError: If the result cannot be written; the error names it.
    """
    how = processing or Processing()
    rate, channels, left = checked_sound(sound, how.full_scale_db_spl)
    stream = how.stream(aid, listener.expand(channels, -1))
    highest = 10 ** ((how.maximum_db_spl - how.full_scale_db_spl) / 20)
    lower = 10 ** (-how.headroom_db / 20)
    subtype = f"PCM_{how.pcm_bits}" if how.pcm_bits else "FLOAT"
    beyond, peak = 0, 0.0
    try:
        with (
            whole_file(target) as beside,
            soundfile.SoundFile(beside, "w", rate, channels, subtype, format="WAV") as file,
        ):
            for block in aided(blocks(sound), rate, channels, stream, how.full_scale_db_spl):
                # Between two samples that the limiter let pass, a peak may be higher.
                part = lower * block[:left].clip(-highest, highest)
                file.write(part)
                magnitude = np.abs(part)
                beyond += int((magnitude > 1).sum())
                peak = max(peak, float(magnitude.max(initial=0)))
                progress(len(part))
                left -= len(part)
    except soundfile.LibsndfileError as error:
        raise OSError(errno.EIO, f"cannot be written ({error})", str(target)) from error
    # Rounding at the very limit of integers is no clipping.
    return Outcome(beyond=0 if how.pcm_bits else beyond, peak=peak)


def aided(
    sound: Iterable[np.ndarray],
    rate: int,
    channels: int,
    stream: Stream,
    full_scale_db_spl: float,
) -> Iterator[np.ndarray]:
    """What the aid makes of blocks `(n, channels)` at any sample rate, aligned with them.

    Blocks that come out have other lengths; together they are a little longer, as the end is the
    aid falling silent.
    """
    unit_pa = REFERENCE_PA * 10 ** (full_scale_db_spl / 20)
    there = soxr.ResampleStream(rate, SAMPLE_RATE, channels, quality="VHQ")
    back = soxr.ResampleStream(SAMPLE_RATE, rate, channels, quality="VHQ")
    early = stream.latency_samples
    # More than the aid keeps back and than is lost by rounding lengths to samples.
    silence = np.zeros((math.ceil((early / SAMPLE_RATE + 0.1) * rate), channels), np.float32)
    for block, last in itertools.chain(zip(sound, itertools.repeat(False)), [(silence, True)]):
        resampled = torch.from_numpy(there.resample_chunk(block, last=last).T)
        out = stream(resampled * unit_pa) / unit_pa
        out, early = out[:, early:], max(0, early - out.shape[1])
        yield back.resample_chunk(out.T.contiguous().numpy(), last=last)


def checked_sound(sound: Path, full_scale_db_spl: float) -> tuple[int, int, int]:
    """Sample rate [Hz], channels and samples of a file, which is read once to the end.

    Raises:
        ValueError: If it is nothing that an aid can take; the message names it.
    """
    samples, peak = 0, 0.0
    for block in blocks(sound):
        samples += len(block)
        peak = float(np.maximum(peak, np.abs(block).max(initial=0)))
    file = soundfile.info(sound)
    if samples == 0:
        raise ValueError(f"{sound}: has no samples; remove it")
    if not math.isfinite(peak):
        raise ValueError(f"{sound}: samples are NaN or infinite; repair or remove the file")
    if file.samplerate < LOWEST_RATE_HZ:
        raise ValueError(
            f"{sound}: has {file.samplerate} samples a second, but at least {LOWEST_RATE_HZ} are "
            "needed; if its header is wrong, correct it"
        )
    if peak > 10 ** ((LOUDEST_DB_SPL - full_scale_db_spl) / 20):
        raise ValueError(
            f"{sound}: reaches {peak:.3g}, at a full_scale_db_spl of {full_scale_db_spl:g} "
            f"more than {LOUDEST_DB_SPL:g} dB SPL; correct one of the two"
        )
    if 4 * samples * file.channels > MOST_BYTES:
        raise ValueError(f"{sound}: is too long for a WAV file of floats; cut it into parts")
    return file.samplerate, file.channels, samples


def blocks(sound: Path) -> Iterator[np.ndarray]:
    """A file in blocks of some seconds, `(n, channels)`.

    Raises:
        ValueError: If it cannot be decoded; the message names it.
    """
    try:
        with soundfile.SoundFile(sound) as file:
            size = math.ceil(BLOCK_S * file.samplerate)
            yield from file.blocks(size, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"{sound}: cannot be read as audio ({error}); convert or remove it"
        ) from error
