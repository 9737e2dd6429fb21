"""Judge an aid on listeners that it has never met, through their true simulated midbrains.

`python -m recipes.judge --cohort C --model M --aid A --fits FOLDER --out FOLDER`
"""

import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from compensation.masks import Masks
from compensation.prescriptions import nal_r
from evaluation.intelligibility import estoi, haspi, stoi
from evaluation.neural import discrepancies, pooled_interval, pooled_restoration
from evaluation.quality import hasqi, level_change, pesq, si_sdr
from evaluation.table import Score, markdown, rows, summarise, write_csv
from icsim.audiogram import Audiogram
from icsim.conditional import BetaICNet
from icsim.counts import expected_counts
from icsim.simulation.animal import Animal, animal_from
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, calibrate, level, mix
from icsim.store import Cohort
from icsim.weights import load_network
from recipes.ears import audiogram
from recipes.jobs import killed_named, processes
from recipes.ranges import Count, LevelDbSpl, NotEmptyStr, RatioDb, Seconds, Seed, checked
from recipes.state import run, write_json, write_whole


@dataclasses.dataclass(frozen=True)
class Config:
    """What to judge, and on what."""

    cohort: NotEmptyStr
    """A simulated cohort: the truth is needed."""
    model: NotEmptyStr
    """The BetaICNet that the aid was trained through."""
    aid: NotEmptyStr
    """A trained Masks."""
    fits: NotEmptyStr
    """Folder of `<animal>.json` from `recipes.fit_theta`; these animals are the listeners."""
    out: NotEmptyStr
    """Folder for `judged.json`, `scores.csv` and `scores.md`."""
    excerpts: Count = 9
    """Test sounds that restoration is measured on, of all classes that an aid may meet."""
    excerpt_s: Seconds = 4.0
    """Their length [s]."""
    level_db_spl: LevelDbSpl = 65.0
    """Their level [dB SPL]."""
    speech: Count = 4
    """Speech excerpts that intelligibility and quality are scored on."""
    scores: tuple[str, ...] = ("stoi", "estoi", "pesq", "si_sdr_db", "haspi", "hasqi")
    """Which scores; HASPI and HASQI take most of the time."""
    snr_db: RatioDb = 5.0
    """Their signal-to-noise ratio [dB]."""
    workers: Count = 2
    """Processes that compute scores."""
    seed: Seed = 0
    """Of excerpts and noise."""

    __post_init__ = checked


KINDS = ("speech", "noisy", "music", "instrument")
"""Classes that restoration is measured on, if the cohort has them."""


def judge(config: Config) -> dict:
    """Restoration and scores of every device for every listener; also written to `out`.

    Mean restorations are those of listeners with a loss.
    """
    cohort = Cohort.open(config.cohort)
    model, _ = load_network(config.model, BetaICNet)
    aid, facts = load_network(config.aid, Masks)
    healthy = torch.tensor(facts["healthy"])
    fits = sorted(Path(config.fits).glob("*.json"))
    if not fits:
        raise ValueError(f"{config.fits}: no fitted listener; run recipes.fit_theta first")
    sounds, kinds = test_excerpts(cohort, config)
    noisy, clean = noisy_speech(cohort, config)
    judged, table = {"kinds": kinds, "listeners": {}}, []
    # One pool for all listeners: a new process imports and compiles before it scores.
    with killed_named("scores", "--workers"), processes(config.workers) as pool:
        for path in tqdm(fits, desc="judging on true midbrains", unit="listener"):
            name, theta = path.stem, torch.tensor(json.loads(path.read_text())["theta"])
            animal = animal_from(cohort.truth(name))
            ear = audiogram(cohort, name)
            heard = processed(aid, theta, ear, sounds, noise_reduction=0)
            judged["listeners"][name] = {
                "audiogram": dataclasses.asdict(ear),
                "truth": through_truth(animal, sounds, heard),
                "model": through_model(model, theta, healthy, sounds, heard),
            }
            devices = processed(aid, theta, ear, noisy, noise_reduction=1)
            table += score(pool, devices, clean, noisy, ear, name, config)
    devices = list(heard)
    # To those who hear normally there is nothing to be restored.
    impaired = [n for n in judged["listeners"] if cohort.truth(n)["hearing"] != "NH"]
    listeners = [judged["listeners"][name] for name in impaired or judged["listeners"]]
    judged["restoration"] = {
        device: float(np.mean([one["truth"][device]["restoration"] for one in listeners]))
        for device in devices
    }
    judged["restoration_in_model"] = {
        device: float(np.mean([one["model"][device]["restoration"] for one in listeners]))
        for device in devices
    }
    summary = summarise(table)
    judged["scores"] = summary
    out = Path(config.out)
    write_csv(out / "scores.csv", table)
    write_whole(out / "scores.md", markdown(summary))
    write_json(out / "judged.json", judged)
    return judged


def processed(
    aid: Masks, theta: Tensor, ear: Audiogram, sounds: Tensor, noise_reduction: float
) -> dict[str, Tensor]:
    """The sounds as every device gives them to one listener, `(B, T)` [Pa] each."""
    with torch.no_grad():
        ours = aid.process(sounds, theta.expand(len(sounds), -1), noise_reduction)
    return {"unprocessed": sounds, "nal_r": nal_r(sounds, ear), "masks": ours}


def through_truth(animal: Animal, sounds: Tensor, heard: dict[str, Tensor]) -> dict[str, dict]:
    """Restoration of each device through the true midbrain and its healthy twin."""
    healthy = animal.healthy()
    return _restorations(animal.expected_counts, healthy.expected_counts, sounds, heard)


def through_model(
    model: BetaICNet, theta: Tensor, healthy: Tensor, sounds: Tensor, heard: dict[str, Tensor]
) -> dict[str, dict]:
    """The same through the model that the aid was trained with: its own opinion of itself.

    Its normal response is the mean of the healthy listeners' `(n, P)`.
    """

    def respond(sound: Tensor, listeners: Tensor) -> Tensor:
        """Expected counts, averaged over listeners `(n, P)`: `(B, T)` to `(B, C, N)`."""
        decoded = model.decode(model.latent(sound), listeners.unsqueeze(0))
        return expected_counts(decoded).mean(1)

    return _restorations(
        lambda sound: respond(sound, theta.unsqueeze(0)),
        lambda sound: respond(sound, healthy),
        sounds,
        heard,
    )


def score(
    pool: ProcessPoolExecutor,
    devices: dict[str, Tensor],
    clean: Tensor,
    noisy: Tensor,
    ear: Audiogram,
    listener: str,
    config: Config,
) -> list[dict]:
    """Intelligibility and quality of every device on noisy speech, a row a sound."""
    jobs = [
        (name, clean, noisy, after, ear)
        for after in devices.values()
        for name in (*config.scores, "level_change_db")
    ]
    found = iter(list(pool.map(_score, *zip(*jobs, strict=True))))
    files = [f"{listener}, speech {i + 1}" for i in range(len(clean))]
    table = []
    for device in devices:
        scores = {name: next(found) for name in (*config.scores, "level_change_db")}
        table += rows(device, files, scores)
    return table


def _score(name: str, clean: Tensor, noisy: Tensor, after: Tensor, ear: Audiogram) -> Score:
    if name in ("haspi", "hasqi"):
        return {"haspi": haspi, "hasqi": hasqi}[name](clean, after, SAMPLE_RATE, ear)
    if name == "level_change_db":
        return level_change(noisy, after, SAMPLE_RATE)
    metric = {"stoi": stoi, "estoi": estoi, "pesq": pesq, "si_sdr_db": si_sdr}[name]
    return metric(clean, after, SAMPLE_RATE)


def test_excerpts(cohort: Cohort, config: Config) -> tuple[Tensor, list[str]]:
    """Excerpts of test sounds at one level, `(B, T)` [Pa], and their classes."""
    draw = np.random.default_rng([config.seed, 1])
    samples = round(config.excerpt_s * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    by_kind = {kind: _long_enough(cohort, (kind,), samples) for kind in KINDS}
    by_kind = {kind: sounds for kind, sounds in by_kind.items() if sounds}
    if not by_kind:
        raise ValueError(f"no test sound of {', '.join(KINDS)} has {config.excerpt_s} s")
    kinds = [list(by_kind)[i % len(by_kind)] for i in range(config.excerpts)]
    chosen = [_excerpt(by_kind[kind], samples, draw) for kind in kinds]
    return calibrate(torch.stack(chosen), config.level_db_spl), kinds


def noisy_speech(cohort: Cohort, config: Config) -> tuple[Tensor, Tensor]:
    """Test speech in speech-shaped noise, and without, `(B, T)` [Pa] each."""
    draw = np.random.default_rng([config.seed, 2])
    samples = round(config.excerpt_s * SAMPLE_RATE)
    speech = _long_enough(cohort, ("speech",), samples)
    if not speech:
        raise ValueError(f"no test speech of {config.excerpt_s} s")
    chosen = [_excerpt(speech, samples, draw) for _ in range(config.speech)]
    clean = calibrate(torch.stack(chosen), config.level_db_spl)
    noise = torch.stack([speech_shaped_noise(samples, draw) for _ in chosen])
    return mix(clean, noise, config.snr_db), clean


def _long_enough(cohort: Cohort, kinds: tuple[str, ...], samples: int) -> list[Tensor]:
    return [
        cohort.pressure(sound.index)
        for sound in cohort.sounds
        if sound.split == "test" and sound.kind in kinds and sound.samples >= samples
    ]


def _excerpt(sounds: list[Tensor], samples: int, draw: np.random.Generator) -> Tensor:
    """The loudest of a few random excerpts, so that no pause is judged."""
    sound = sounds[draw.integers(len(sounds))]
    starts = draw.integers(len(sound) - samples + 1, size=4)
    return max((sound[s : s + samples] for s in starts), key=lambda part: level(part).item())


def _restorations(impaired, normal, sounds: Tensor, heard: dict[str, Tensor]) -> dict[str, dict]:
    found = {}
    with torch.no_grad():
        for device, after in heard.items():
            aided, unaided = discrepancies(impaired, normal, sounds, after)
            low, high = pooled_interval(aided, unaided)
            found[device] = {
                "restoration": pooled_restoration(aided, unaided),
                "interval": [low, high],
            }
    return found


if __name__ == "__main__":
    judged = run(judge, Config)
    for device, value in judged["restoration"].items():
        inside = judged["restoration_in_model"][device]
        print(
            f"{device:12s} restoration {value:+.3f} on true midbrains, {inside:+.3f} in the model"
        )
