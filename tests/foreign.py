"""A cohort of another laboratory: NWB files written with pynwb alone, by a generator of its own.

    python -m tests.foreign FOLDER --seed 0

Nothing here comes from `icsim`. Sounds are modulated harmonic complexes and noises.
A channel is a tuning curve over the decibels of a short-time spectrum, an onset filter, a soft-plus
and over-dispersed counts. What animals of `icsim.simulation` have in common is missing here:
channels of an animal differ at random in gain, offset, width and time constant, and their log gain
drifts through the session.
"""

import argparse
import dataclasses
import datetime
from pathlib import Path

import numpy as np
import pynwb
from pynwb.core import DynamicTable, VectorData
from pynwb.file import Subject
from scipy.signal import lfilter

STIMULUS_RATE = 48_828.125
"""Samples a second of a stimulus [Hz]."""

BIN = 64
"""Samples of a stimulus in a bin of counts: 1.311 ms."""

BANDS_HZ = np.geomspace(250, 11_000, 40)
"""Centres of the bands in which channels listen [Hz]."""

ABR_HZ = np.array([1e3, 2e3, 4e3, 8e3, 16e3])
"""Frequencies at which thresholds are measured [Hz]."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a cohort is."""

    channels: int = 64
    seen: int = 9
    unseen: int = 4
    sound_s: float = 6.0
    train: int = 48
    validation: int = 4
    test: int = 8
    hours: float = 10.0
    """Length of a session [h]."""
    fewer: int = 0
    """Channels that each animal lacks beside the one before."""


TINY = Size(
    channels=14, seen=3, unseen=1, sound_s=1.5, train=14, validation=3, test=3, hours=3.0, fewer=1
)
"""For tests: seconds, and animals of different channels."""


def write_cohort(folder: Path, size: Size, seed: int = 0) -> None:
    """Write an NWB file an animal."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sounds = {}
    for split in ("train", "validation", "test"):
        for number in range(getattr(size, split)):
            sounds[f"{split}-{number:02d}"] = (split, make_sound(rng, size.sound_s))
    spectra = {name: decibels(pressure) for name, (_, pressure) in sounds.items()}
    for number in range(size.seen + size.unseen):
        seen = number < size.seen
        # Every third animal hears normally, the first one of the unseen too.
        normal = number % 3 == 0 if seen else number == size.seen
        name = f"{'subject' if seen else 'stranger'}{number:02d}"
        own = dataclasses.replace(size, channels=size.channels - size.fewer * number)
        write_animal(folder / f"{name}.nwb", name, seen, normal, sounds, spectra, own, rng)


def make_sound(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Syllables, half of them voiced and half of them noise, at a level of 45–80 dB SPL [Pa]."""
    samples = int(duration_s * STIMULUS_RATE)
    sound, start = np.zeros(samples), 0
    while start < samples:
        length = min(int(rng.uniform(0.08, 0.4) * STIMULUS_RATE), samples - start)
        if length < 16:
            break
        t = np.arange(length) / STIMULUS_RATE
        frequency = np.fft.rfftfreq(length, 1 / STIMULUS_RATE)
        if rng.random() < 0.5:
            pitch = rng.uniform(90, 300) * (1 + 0.15 * rng.standard_normal() * t / t[-1])
            phase = 2 * np.pi * np.cumsum(pitch) / STIMULUS_RATE
            syllable = sum(np.sin(k * phase) for k in range(1, int(9000 / pitch.max())))
        else:
            syllable = rng.standard_normal(length)
        shape = np.zeros_like(frequency)
        for centre in np.exp(rng.uniform(np.log(300), np.log(9000), 3)):
            width = np.log2(np.maximum(frequency, 1) / centre) / rng.uniform(0.15, 0.5)
            shape += np.exp(-0.5 * width**2)
        syllable = np.fft.irfft(np.fft.rfft(syllable) * shape, length)
        envelope = np.hanning(length) ** rng.uniform(0.2, 2)
        envelope *= 1 + rng.uniform(0, 0.9) * np.sin(2 * np.pi * rng.uniform(4, 80) * t)
        syllable *= envelope / (np.sqrt(np.mean((syllable * envelope) ** 2)) + 1e-12)
        sound[start : start + length] = syllable * 10 ** (rng.uniform(-20, 0) / 20)
        start += length + int(rng.uniform(0, 0.1) * STIMULUS_RATE)
    rms = np.sqrt(np.mean(sound**2))
    return 20e-6 * 10 ** (rng.uniform(45, 80) / 20) * sound / rms


def decibels(pressure: np.ndarray) -> np.ndarray:
    """Level in each band of the 10 ms before a bin's end [dB SPL], `(N, bands)`."""
    window = np.hanning(512)
    padded = np.concatenate([np.zeros(512 - BIN), pressure])
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::BIN][: len(pressure) // BIN]
    power = np.abs(np.fft.rfft(frames * window)) ** 2 * 2 / window.sum() ** 2
    frequency = np.fft.rfftfreq(512, 1 / STIMULUS_RATE)
    octaves = np.log2(np.maximum(frequency, 1)[:, None] / BANDS_HZ)
    level = power @ np.exp(-0.5 * (octaves / 0.12) ** 2)
    return 10 * np.log10(level / (20e-6) ** 2 + 1e-2)


def write_animal(path, name, seen, normal, sounds, spectra, size, rng) -> None:
    """Let an animal hear all sounds, the test sounds twice, and write what it answered."""
    loss = np.zeros(len(BANDS_HZ))
    if not normal:
        octaves = np.log2(BANDS_HZ / rng.uniform(1000, 2500))
        loss = rng.uniform(25, 50) / (1 + np.exp(-2 * octaves))
    order = rng.permutation(list(sounds)).tolist()
    order += rng.permutation([n for n in sounds if sounds[n][0] == "test"]).tolist()
    starts_s = np.sort(rng.uniform(0, size.hours * 3600, len(order)))
    starts_s += np.arange(len(order)) * (size.sound_s + 0.5)
    channels = make_channels(rng, size.channels)
    walk = rng.standard_normal((len(order), size.channels)) * 0.35 / np.sqrt(len(order))
    log_gain = np.cumsum(walk, 0)
    blocks = [
        counts(spectra[sound], loss, channels, log_gain[turn], rng)
        for turn, sound in enumerate(order)
    ]
    begun = datetime.datetime(2025, 3, 1, tzinfo=datetime.UTC)
    file = pynwb.NWBFile(f"recordings of {name}", name, begun)
    file.subject = Subject(subject_id=name, species="Meriones unguiculatus", age="P90D", sex="U")
    for sound, (_, pressure) in sounds.items():
        series = pynwb.TimeSeries(
            name=sound, data=pressure, unit="Pa", rate=STIMULUS_RATE, starting_time=0.0
        )
        file.add_stimulus_template(series)
    table = pynwb.epoch.TimeIntervals(name="presentations", description="which sound began when")
    table.add_column("stimulus_name", "name of the stimulus")
    for sound, start_s in zip(order, starts_s, strict=True):
        table.add_row(start_time=start_s, stop_time=start_s + size.sound_s, stimulus_name=sound)
    file.add_time_intervals(table)
    bins_s = [
        start_s + np.arange(len(block)) * BIN / STIMULUS_RATE
        for start_s, block in zip(starts_s, blocks, strict=True)
    ]
    activity = pynwb.TimeSeries(
        name="multi_unit_activity",
        data=np.concatenate(blocks),
        unit="spikes",
        timestamps=np.concatenate(bins_s),
    )
    file.create_processing_module("ecephys", "multi-unit activity").add(activity)
    hearing = file.create_processing_module("hearing", "hearing and sounds")
    shift = np.interp(np.log(ABR_HZ), np.log(BANDS_HZ), loss)
    thresholds = np.array([30.0, 28, 30, 45, 45]) + shift + rng.normal(0, 3, len(ABR_HZ))
    status, role = "NH" if normal else "HI", "seen" if seen else "unseen"
    splits = [split for split, _ in sounds.values()]
    for table_name, columns in (
        ("animal", {"status": [status], "role": [role]}),
        ("abr_thresholds", {"frequency_hz": ABR_HZ, "threshold_db_spl": thresholds}),
        ("sounds", {"stimulus_name": list(sounds), "kind": ["syllables"] * len(sounds),
                    "source": list(sounds), "split": splits}),
    ):  # fmt: skip
        made = [VectorData(name=k, description=k, data=list(v)) for k, v in columns.items()]
        hearing.add(DynamicTable(name=table_name, description=table_name, columns=made))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)


def make_channels(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Tuning and properties of an animal's channels, independent of one another."""
    centre = np.exp(rng.uniform(np.log(400), np.log(10_000), count))
    octaves = np.log2(BANDS_HZ / centre[:, None])
    width = rng.uniform(0.2, 0.6, (count, 1))
    tuning = np.exp(-0.5 * (octaves / width) ** 2)
    tuning /= tuning.sum(1, keepdims=True)
    side = np.exp(-0.5 * ((octaves - rng.choice([-1, 1], (count, 1))) / width) ** 2)
    side /= side.sum(1, keepdims=True)
    return {
        "tuning": tuning - rng.uniform(0, 0.5, (count, 1)) * side,
        "memory": np.exp(-1.311 / rng.uniform(8, 60, count)),
        "onset": rng.uniform(0.4, 0.9, count),
        "latency": rng.integers(4, 9, count),
        "gain": 0.6 * np.exp(0.5 * rng.standard_normal(count)),
        "offset": rng.normal(-2.2, 0.7, count),
        "dispersion": rng.uniform(3, 12, count),
    }


def counts(
    spectrum: np.ndarray,
    loss: np.ndarray,
    channels: dict[str, np.ndarray],
    log_gain: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Spikes of all channels in each bin, `(N, C)`."""
    # Loudness grows faster after a loss, and is as before at 100 dB SPL.
    audible = np.maximum(spectrum - 15 - loss, 0) * 85 / np.maximum(85 - loss, 20)
    drive = audible @ channels["tuning"].T / 3
    answers = np.empty(drive.shape, np.uint8)
    for channel in range(drive.shape[1]):
        memory = channels["memory"][channel]
        background = lfilter([1 - memory], [1, -memory], drive[:, channel])
        x = drive[:, channel] - channels["onset"][channel] * background
        delay = channels["latency"][channel]
        x = np.concatenate([np.zeros(delay), x[:-delay]])
        gain = channels["gain"][channel] * np.exp(log_gain[channel])
        rate = 1.2 * np.logaddexp(0, channels["offset"][channel] + gain * x)
        shape = channels["dispersion"][channel]
        answers[:, channel] = np.minimum(
            rng.poisson(rate * rng.gamma(shape, 1 / shape, len(x))), 20
        )
    return answers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_cohort(arguments.folder, Size(), arguments.seed)
