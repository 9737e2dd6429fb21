"""An aid's noise reduction beside a Wiener filter, spectral subtraction and RNNoise.

`python -m recipes.benchmarks.noise_reduction --aid A --sounds FOLDER --noise FILE --out FOLDER`

One excerpt of each voice, in a recorded noise, without any amplification: the aid is given a normal
listener and its compensation is off. ESTOI and PESQ are for normal ears. The aid is compared with
each other device on the same voices (`evaluation.comparison`).
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from compensation.devices import NOISE_REDUCTIONS, Device, noise_reduction_alone, without_rnnoise
from compensation.listener import from_audiogram
from compensation.load import AidFacts, load_aid
from evaluation.comparison import difference
from evaluation.intelligibility import estoi
from evaluation.quality import pesq
from evaluation.table import rows, summarise, write_csv
from icsim.audiogram import Audiogram
from icsim.catalogue import catalogue
from icsim.files import write_whole
from icsim.sound import SAMPLE_RATE, calibrate, level, mix, read_mono
from recipes.reports.judged import markdown
from recipes.running.commands import run
from recipes.running.ranges import LevelDbSpl, NotEmptyStr, RatioDb, Seconds, Seed, checked

SCORES = {"estoi": estoi, "pesq": pesq}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which aid, on which sounds."""

    aid: NotEmptyStr
    """A trained Masks or Waveform with noise reduction."""
    sounds: NotEmptyStr
    """Folder of speech, as `icsim.catalogue` reads it, whose voices the aid has never heard."""
    noise: NotEmptyStr
    """A recording of noise."""
    out: NotEmptyStr
    """Folder of `scores.csv` and `scores.md`."""
    voices: tuple[str, ...] = ()
    """Speakers by name; all if none is given."""
    level_db_spl: LevelDbSpl = 65.0
    """Of the speech [dB SPL]."""
    snr_db: tuple[RatioDb, ...] = (0.0, 5.0, 10.0)
    """Signal-to-noise ratios [dB]."""
    excerpt_s: Seconds = 4.0
    """Of each voice [s]."""
    seed: Seed = 0
    """Of excerpts."""

    __post_init__ = checked


def benchmark(config: Config) -> str:
    """Score every device at every signal-to-noise ratio; returns the table, in Markdown.

    Raises:
        ValueError: If the aid reduces no noise, or a voice or the noise is missing or too short.
    """
    devices = _devices(*load_aid(config.aid))
    clean, noise, voices = excerpts(config)
    table = []
    for snr_db in tqdm(config.snr_db, desc="reducing noise", unit="SNR"):
        noisy = mix(clean, noise, snr_db)
        for device in devices.values():
            after = device.process(noisy)
            scores = {name: score(clean, after, SAMPLE_RATE) for name, score in SCORES.items()}
            for row in rows(device.label, voices, scores):
                table.append({"snr_db": snr_db, **row})
    text = tabulate(table, list(devices.values()), config.snr_db)
    others = [device.label for name, device in devices.items() if name != "ours"]
    text += "\n" + compare(table, devices["ours"].label, others, config.snr_db)
    write_csv(Path(config.out) / "scores.csv", table)
    write_whole(Path(config.out) / "scores.md", text)
    return text


def excerpts(config: Config) -> tuple[Tensor, Tensor, list[str]]:
    """Speech [Pa] and noise, `(B, T)` each, and whose voice it is."""
    draw = np.random.default_rng(config.seed)
    samples = round(config.excerpt_s * SAMPLE_RATE)
    by_voice: dict[str, list[Path]] = {}
    for file in catalogue(config.sounds):
        if file.kind == "speech" and (not config.voices or file.source in config.voices):
            by_voice.setdefault(file.source, []).append(file.path)
    if lacking := [name for name in config.voices if name not in by_voice]:
        raise ValueError(f"{config.sounds}: no speech of {', '.join(lacking)}")
    speech = {}
    for voice, files in sorted(by_voice.items()):
        long = (s for s in map(read_mono, files) if len(s) >= samples)
        if (sound := next(long, None)) is not None:
            starts = draw.integers(len(sound) - samples + 1, size=4)
            parts = (sound[start : start + samples] for start in starts)
            speech[voice] = max(parts, key=lambda part: level(part).item())
    noise = read_mono(config.noise)
    if not speech or len(noise) < samples:
        raise ValueError(
            f"speech and noise of {config.excerpt_s:g} s are needed: {len(speech)} of "
            f"{len(by_voice)} voices have it, the noise lasts {len(noise) / SAMPLE_RATE:.1f} s"
        )
    starts = draw.integers(len(noise) - samples + 1, size=len(speech))
    noises = torch.stack([noise[start : start + samples] for start in starts])
    return calibrate(torch.stack(list(speech.values())), config.level_db_spl), noises, list(speech)


def tabulate(table: list[dict], devices: list[Device], ratios: tuple[float, ...]) -> str:
    """Means over voices: a device a line, a score and ratio a column."""
    names = {"estoi": "ESTOI", "pesq": "PESQ"}
    columns = [(score, snr_db) for score in SCORES for snr_db in ratios]
    lines = [["", "delay [ms]", *(f"{names[score]}, {snr_db:g} dB" for score, snr_db in columns)]]
    means = {}
    for snr_db in ratios:
        here = [
            {k: v for k, v in row.items() if k != "snr_db"}
            for row in table
            if row["snr_db"] == snr_db
        ]
        means |= {(s["device"], s["score"], snr_db): s["mean"] for s in summarise(here)}
    for device in devices:
        values = [(score, means[device.label, score, snr_db]) for score, snr_db in columns]
        shown = [
            "missing" if value is None else f"{value:.3f}" if score == "estoi" else f"{value:.2f}"
            for score, value in values
        ]
        lines.append([device.label, f"{device.delay_ms:.1f}", *shown])
    return markdown(lines)


def compare(
    table: Sequence[dict], ours: str, others: Sequence[str], ratios: Sequence[float]
) -> str:
    """The aid less each other device: difference, 95 % interval over voices, verdict."""
    columns = [(score, snr_db) for score in SCORES for snr_db in ratios]
    voices = list(dict.fromkeys(row["file"] for row in table))
    values = {
        (row["device"], row["snr_db"], row["file"], score): row[score]
        for row in table
        for score in SCORES
    }
    lines = [[f"{ours}, less", *(f"{score.upper()}, {snr_db:g} dB" for score, snr_db in columns)]]
    for other in others:
        line = [other]
        for score, snr_db in columns:
            both = [[values[name, snr_db, v, score] for v in voices] for name in (other, ours)]
            pairs = [pair for pair in zip(*both, strict=True) if None not in pair]
            if not pairs:
                line.append("missing")
                continue
            alone, digits = [0] * len(pairs), 3 if score == "estoi" else 2
            more = difference(torch.tensor(pairs).T, torch.ones(1), alone, alone, range(len(pairs)))
            interval = (
                "" if math.isnan(more.low) else f" [{more.low:.{digits}f}, {more.high:.{digits}f}]"
            )
            line.append(f"{more.estimate:+.{digits}f}{interval} {more.verdict} (n = {len(pairs)})")
        lines.append(line)
    return markdown(lines)


def _devices(aid: nn.Module, facts: AidFacts) -> dict[str, Device]:
    """Nothing, the aid's noise reduction alone, and what it is compared with."""
    if not facts.noise_reduction:
        raise ValueError("the aid was trained for compensation alone: it reduces no noise")
    normal = torch.tensor(facts.healthy).mean(0)
    if facts.listener == "audiogram":
        normal = from_audiogram(Audiogram((1000,), (0,)), facts.audiogram_hz)
    reductions = {name: Device(*found) for name, found in NOISE_REDUCTIONS.items()}
    if reason := without_rnnoise():
        print(f"without RNNoise: {reason}")
        del reductions["rnnoise"]
    return {
        "noisy": Device("noisy", lambda sound: sound, 0.0),
        "ours": noise_reduction_alone(aid, normal),
        **reductions,
    }


if __name__ == "__main__":
    print(run(benchmark, Config))
