"""An aid's noise reduction beside a Wiener filter, spectral subtraction and RNNoise.

`python -m recipes.benchmarks.noise_reduction --aid A --sounds FOLDER --noise FILE --out FOLDER`

One excerpt of each voice, in a recorded noise, without any amplification: the aid is given a normal
listener and its compensation is off. ESTOI and PESQ are for normal ears. The aid is compared with
each other device on the same voices (`evaluation.comparison`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from compensation.aid import Aid
from compensation.devices import NOISE_REDUCTIONS, Device, noise_reduction_alone, without_rnnoise
from compensation.listener import from_audiogram
from compensation.load import AidFacts, load_aid
from evaluation import tidy
from evaluation.comparison import Comparison
from evaluation.devices import score_rows, scores
from icsim.audiogram import Audiogram
from icsim.catalogue import catalogue
from icsim.excerpts import Condition
from icsim.files import write_json, write_whole
from icsim.sound import SAMPLE_RATE, calibrate, level, mix, read_mono
from recipes.reports.tables import Table, grid, headline
from recipes.running.commands import run
from recipes.running.ranges import LevelDbSpl, NotEmptyStr, RatioDb, Seconds, Seed, checked

SCORES = ("estoi", "pesq")


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Which aid, on which sounds."""

    aid: NotEmptyStr
    """A trained Masks or LearnedFilters with noise reduction."""
    sounds: NotEmptyStr
    """Folder of speech, as `icsim.catalogue` reads it, whose voices the aid has never heard."""
    noise: NotEmptyStr
    """A recording of noise."""
    out: NotEmptyStr
    """Folder of `results.csv`, `tables.md` and `headline.json`."""
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


def benchmark(config: Config) -> str:
    """Score every device at every signal-to-noise ratio; returns the tables, in Markdown.

    Raises:
        ValueError: If the aid reduces no noise, or a voice or the noise is missing or too short.
    """
    devices = _devices(*load_aid(config.aid))
    clean, noise, voices = excerpts(config)
    parts = []
    for snr_db in tqdm(config.snr_db, desc="reducing noise", unit="SNR"):
        noisy, names = mix(clean, noise, snr_db), [Path(config.noise).stem] * len(voices)
        condition = Condition(f"{snr_db:g} dB", config.level_db_spl, voices, names, clean, noisy)
        processed = {name: device.process(noisy) for name, device in devices.items()}
        # Nobody's ears are asked: what is heard is one listener to all voices.
        scored = score_rows(condition, scores(condition, processed, SCORES))
        parts.append(tidy.complete(scored, listener="normal", group="NH"))
    rows = pd.concat(parts, ignore_index=True)
    both = tables(rows, devices)
    text = "\n".join(table.markdown() for table in both)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "results.csv", rows.to_csv(index=False, float_format="%.6g"))
    write_whole(out / "tables.md", text)
    write_json(out / "headline.json", headlines(rows, list(devices)))
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


def tables(rows: pd.DataFrame, devices: Mapping[str, Device]) -> list[Table]:
    """Means over voices, and the aid less each other device."""
    columns = {
        f"{name.upper()}, {condition}": {"measure": name, "condition": condition}
        for name in SCORES
        for condition in dict.fromkeys(rows.condition)
    }

    def named(device: object) -> list[str]:
        one = devices[str(device)]
        return [one.label, f"{one.delay_ms:.1f}"]

    def less(part: pd.DataFrame, device: object) -> Comparison | None:
        return tidy.difference(part, "ours", str(device))

    first, others = ("device", "delay [ms]"), [name for name in devices if name != "ours"]
    ours = f"{devices['ours'].label}, less"
    return [
        grid("Noise reduction", "Means.", rows, devices, columns, tidy.mean, named, first, 3),
        grid(ours, "Differences.", rows, others, columns, less, named, first, 3),
    ]


def headlines(rows: pd.DataFrame, devices: Sequence[str]) -> dict[str, float]:
    """Means as `<device>/<score>/<ratio>`, and what the aid has more as `ours-<device>/…`."""
    numbers = {}
    for (name, condition), part in rows.groupby(["measure", "condition"], sort=False):
        for device in devices:
            numbers[f"{device}/{name}/{condition}"] = tidy.mean(part, device)
            if device != "ours":
                more = tidy.difference(part, "ours", device)
                numbers[f"ours-{device}/{name}/{condition}"] = more
    return headline(numbers)


def _devices(aid: Aid, facts: AidFacts) -> dict[str, Device]:
    """Nothing, the aid's noise reduction alone, and what it is compared with."""
    if not facts.noise_reduction:
        raise ValueError("the aid was trained for compensation alone: it reduces no noise")
    normal = torch.tensor(facts.healthy).mean(0)
    if facts.listener == "audiogram":
        normal = from_audiogram(Audiogram((1000,), (0,)), facts.audiogram_hz)
    reductions = {name: Device(*fields) for name, fields in NOISE_REDUCTIONS.items()}
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
