"""Broadband recordings: a file a trial, whose channels are electrodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from icsim.mua import count_spikes, multi_unit_activity
from icsim.recording import Recording
from icsim.sound import BIN_SAMPLES, Sound, calibrate, find_audio, read, read_mono

from .frames import numeric_order


def read_broadband(
    path: str | Path,
    stimulus: str | Path,
    *,
    onset_s: float,
    level_db_spl: float,
    status: str,
    role: str = "seen",
    kind: str = "unknown",
    split: str = "train",
    interval_s: float = 20.0,
    polarity: Literal["positive", "negative"] = "positive",
    spikes: str | Path | None = None,
    spike_lines: Sequence[int] | None = None,
) -> tuple[list[Sound], Recording]:
    """A folder of trials as an animal that heard one sound several times.

    Args:
        path: Folder of sound files, a trial each, whose channels are electrodes.
        stimulus: The sound that was played in each, a sound file.
        onset_s: When it began, since the trial's file began [s].
        level_db_spl: Its RMS level [dB SPL].
        status: NH or HI.
        role: seen or unseen.
        kind: Class of the sound.
        split: Of the sound.
        interval_s: From the beginning of a presentation to that of the next [s].
        polarity: Which crossings are counted; positive ones are the published.
        spikes: Folder of a sorted unit, another channel: of its text file with the stimulus's name
            each line is a trial, spike times since the onset [ms].
        spike_lines: Which line, counted from 1, belongs to each trial; by default in order.

    Raises:
        ValueError: If a file cannot be used; the message names it.
    """
    stimulus, trials = Path(stimulus), sorted(find_audio(path), key=numeric_order)
    pressure = calibrate(read_mono(stimulus), level_db_spl)
    sound = Sound(stimulus.stem, kind, stimulus.stem, split, pressure)
    bins = len(pressure) // BIN_SAMPLES
    counts = [_crossings(trial, polarity, onset_s, bins) for trial in trials]
    if spikes is not None:
        units = _sorted_spikes(Path(spikes), spike_lines, stimulus.stem, len(trials), bins)
        counts = [torch.cat(pair) for pair in zip(counts, units, strict=True)]
    recording = Recording(
        status=status,
        role=role,
        thresholds_db_spl=None,
        abr_frequencies_hz=None,
        channels=len(counts[0]),
        presentations=[(0, n * interval_s / 3600) for n in range(len(trials))],
        counts=[block.T for block in counts],
    )
    return [sound], recording


def _crossings(trial: Path, polarity: str, onset_s: float, bins: int) -> Tensor:
    """Multi-unit activity of a file's channels, `(C, N)`."""
    trace, sample_rate = read(trial)
    sign = -1 if polarity == "negative" else 1
    try:
        return multi_unit_activity(sign * trace, sample_rate, onset_s, bins)
    except ValueError as error:
        raise ValueError(f"{trial}: {error}") from error


def _sorted_spikes(
    folder: Path, spike_lines: Sequence[int] | None, stimulus: str, trials: int, bins: int
) -> list[Tensor]:
    """Counts of a sorted unit in each trial, `(1, N)`."""
    path = folder / f"{stimulus}.txt"
    if not path.is_file():
        raise ValueError(f"{path}: no such file of spike times; check --spikes and the stimulus")
    lines = path.read_text().splitlines()
    order = list(spike_lines or range(1, len(lines) + 1))
    if len(order) != trials or not all(1 <= line <= len(lines) for line in order):
        raise ValueError(
            f"{path}: {len(lines)} lines, of which {order} for {trials} trials; "
            "say with --spike_lines which line belongs to each trial"
        )
    try:
        times_s = [np.array(lines[line - 1].split(), float) / 1e3 for line in order]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; a line holds times [ms] between spaces") from error
    return [count_spikes(times, 0.0, bins).unsqueeze(0) for times in times_s]
