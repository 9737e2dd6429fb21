"""HASPI and HASQI in PyTorch beside pyclarity's: `python -m recipes.benchmarks.scores`.

Speech in noise, amplified by NAL-R or clipped, is scored for three listeners by both programs, in
turns: ours a batch at a time with all threads, pyclarity's in as many processes as there are cores.
Reported are the differences of their scores and the ratio of their times. Files may come from a
folder; without one, sentences are synthesised.
"""

import dataclasses
import math
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from compensation.prescriptions import nal_r
from evaluation import haspi_hasqi
from icsim.audiogram import Audiogram
from icsim.files import write_json
from icsim.simulation.noises import speech_shaped_noise
from icsim.simulation.sounds import speakers
from icsim.simulation.speech import sentences, speak
from icsim.sound import REFERENCE_PA, SAMPLE_RATE, calibrate, find_audio, mix, read_mono, resample
from recipes.running.commands import begin, run
from recipes.running.jobs import processes
from recipes.running.ranges import Count, NotEmptyStr, Seconds, Seed, checked

LISTENERS = {
    "normal": Audiogram((1000,), (0,)),
    "sloping": Audiogram((250, 500, 1000, 2000, 4000, 6000), (5, 10, 20, 40, 60, 65)),
    "severe": Audiogram((250, 500, 1000, 2000, 4000, 6000), (45, 45, 55, 65, 75, 80)),
}
"""Whose scores are compared (chosen here)."""

SCORES = {"haspi": haspi_hasqi.haspi, "hasqi": haspi_hasqi.hasqi}

SNR_DB = (-5.0, 15.0)
"""Signal-to-noise ratios are spread over this range [dB] (chosen here)."""

CLIPPED_DB = -12.0
"""Every other sound is clipped, so far below its peak [dB] (chosen here)."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What is scored."""

    out: NotEmptyStr = "runs/benchmarks/scores"
    """Folder of `summary.json` and `headline.json`."""
    sounds: NotEmptyStr | None = None
    """Folder of speech files in place of synthesised sentences."""
    files: Count = 50
    """How many sounds."""
    longest_s: Seconds = 3.0
    """Of each file, so much is taken [s]."""
    batch: Count = 8
    """Sounds scored at a time, by either program."""
    processes: Count = os.cpu_count() or 1
    """Of pyclarity."""
    seed: Seed = 0
    """Of sentences and noises."""


def benchmark(config: Config) -> dict:
    """Differences and times, by score and listener."""
    clean, noisy = _speech(config)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    begin()
    rows = []
    with processes(config.processes) as pool:
        warm = slice(0, min(config.processes, len(clean)))
        for score in SCORES:  # compiled and imported before anything is timed
            _both(score, pool, clean[warm], noisy[warm], LISTENERS["normal"])
        starts = range(0, len(clean), config.batch)
        with tqdm(total=len(LISTENERS) * len(SCORES) * len(starts), unit="batch") as bar:
            for listener, ear in LISTENERS.items():
                processed = _processed(noisy, ear)
                for score in SCORES:
                    turns = []
                    for start in starts:
                        part = slice(start, start + config.batch)
                        turns.append(_both(score, pool, clean[part], processed[part], ear))
                        bar.update()
                    rows.append({"score": score, "listener": listener, **_compared(turns)})
    summary = {
        "files": len(clean),
        "duration_s": clean.numel() / SAMPLE_RATE,
        "threads": torch.get_num_threads(),
        "processes": config.processes,
        "largest_difference": max(row["largest_difference"] for row in rows),
        "rows": rows,
    }
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summary.json", summary)
    write_json(out / "headline.json", headlines(summary))
    return summary


def headlines(summary: dict) -> dict[str, float]:
    """How much faster and how different, `<score>/<listener>/<number>`."""
    numbers = ("times_as_fast", "largest_difference", "missing")
    return {
        f"{row['score']}/{row['listener']}/{name}": float(row[name])
        for row in summary["rows"]
        for name in numbers
    }


def _both(
    score: str, pool: ProcessPoolExecutor, clean: Tensor, processed: Tensor, ear: Audiogram
) -> dict:
    """Scores of one batch by both programs and their seconds, one after the other."""
    started = time.perf_counter()
    with torch.no_grad():
        scores = SCORES[score](clean, processed, SAMPLE_RATE, ear)
    between = time.perf_counter()
    jobs = [
        pool.submit(by_pyclarity, score, clean[n], processed[n], SAMPLE_RATE, ear)
        for n in range(len(clean))
    ]
    expected = torch.tensor([job.result() for job in jobs], dtype=torch.float64)
    ended = time.perf_counter()
    differences = (scores - expected).abs()
    scored = differences.isfinite()
    return {
        "differences": differences[scored].tolist(),
        "missing": int((~scored).sum()),
        "ours_s": between - started,
        "pyclarity_s": ended - between,
    }


def by_pyclarity(
    score: str,
    clean: Tensor,
    processed: Tensor,
    sample_rate: float,
    audiogram: Audiogram,
    seed: int = 0,
) -> float:
    """HASPI or HASQI of one pair by the reference program; NaN where it has no result.

    Args:
        score: `haspi` or `hasqi`.
        clean: Pressure [Pa], `(T,)`.
        processed: Pressure [Pa], `(T,)`.
        sample_rate: Of both [Hz].
        audiogram: The listener's thresholds.
        seed: Of the noise in the model's nerve.

    Raises:
        ImportError: If pyclarity is missing.
    """
    from clarity.evaluator.haspi import haspi_v2
    from clarity.evaluator.hasqi import hasqi_v2
    from clarity.utils.audiogram import Audiogram as ClarityAudiogram

    rate = haspi_hasqi.RATE_HZ  # pyclarity's own resampling takes 24 414 Hz for 24 000
    pair = [resample(sound.double(), sample_rate, rate).numpy() for sound in (clean, processed)]
    thresholds = audiogram.at(haspi_hasqi.AUDIOMETRIC_HZ).double().numpy()
    ear = ClarityAudiogram(thresholds, haspi_hasqi.AUDIOMETRIC_HZ)
    level_db_spl = -20 * math.log10(REFERENCE_PA)  # of an RMS of one pascal
    np.random.seed(seed)  # noqa: NPY002, from which pyclarity draws
    metric = {"haspi": haspi_v2, "hasqi": hasqi_v2}[score]
    value, *_, parts = metric(pair[0], rate, pair[1], rate, ear, level1=level_db_spl)
    # An envelope or a fine structure of zero is HASQI's way of saying that it has no result.
    return value if score == "haspi" or (parts[0] and parts[1]) else math.nan


def _compared(turns: list[dict]) -> dict:
    differences = [difference for turn in turns for difference in turn["differences"]]
    if not differences:
        raise ValueError("pyclarity scored none of the sounds; take speech of a second and more")
    ours_s, pyclarity_s = (sum(turn[key] for turn in turns) for key in ("ours_s", "pyclarity_s"))
    return {
        "largest_difference": max(differences),
        "median_difference": statistics.median(differences),
        "missing": sum(turn["missing"] for turn in turns),
        "ours_s": ours_s,
        "pyclarity_s": pyclarity_s,
        "times_as_fast": pyclarity_s / ours_s,
    }


def _speech(config: Config) -> tuple[Tensor, Tensor]:
    """Clean speech at 65 dB SPL and the same in noise [Pa], `(B, T)` each."""
    if config.longest_s < 1:
        raise ValueError(f"longest_s must be at least 1 s, as HASPI needs, got {config.longest_s}")
    length = round(config.longest_s * SAMPLE_RATE)
    sounds = _read(config.sounds, config, length) if config.sounds else _synthesised(config, length)
    clean = calibrate(torch.stack(sounds), 65.0)
    generator = np.random.default_rng(config.seed)
    noise = torch.stack([speech_shaped_noise(length, generator) for _ in sounds]).to(clean)
    return clean, mix(clean, noise, torch.linspace(*SNR_DB, len(sounds)))


def _read(folder: str, config: Config, length: int) -> list[Tensor]:
    sounds = []
    for file in find_audio(folder):
        sound = read_mono(file)
        if len(sound) >= length:  # shorter files are left out, so that a batch is a tensor
            sounds.append(sound[:length])
        if len(sounds) == config.files:
            return sounds
    if not sounds:
        raise ValueError(f"{folder}: no file of {config.longest_s:g} s; lower --longest_s")
    return sounds


def _synthesised(config: Config, length: int) -> list[Tensor]:
    voices = speakers("test", config.seed)
    english = sentences("en", np.random.default_rng(config.seed))
    sounds = []
    for n in range(config.files):
        voice = voices[n % len(voices)].partition("+")[2]
        sound = torch.zeros(0)
        while len(sound) < length:
            sound = torch.cat([sound, resample(*speak(next(english), f"en-us+{voice}"))])
        sounds.append(sound[:length])
    return sounds


def _processed(noisy: Tensor, ear: Audiogram) -> Tensor:
    """Amplified by NAL-R; every other sound is clipped as well."""
    amplified = nal_r(noisy, ear)
    ceiling = amplified[::2].abs().amax(1, keepdim=True) * 10 ** (CLIPPED_DB / 20)
    amplified[::2] = amplified[::2].clamp(-ceiling, ceiling)
    return amplified


if __name__ == "__main__":
    found = run(benchmark, Config)
    for row in found["rows"]:
        print(
            f"{row['score']} {row['listener']:8s} difference {row['median_difference']:.1e}, "
            f"{row['largest_difference']:.1e} at most; {row['times_as_fast']:.1f} times as fast"
        )
