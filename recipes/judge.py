"""Judge an aid on listeners that it has never met.

`python -m recipes.judge --cohort C --model M --aid A --fits FOLDER --out FOLDER`

Of simulated animals the true midbrains judge, and the model that the aid was trained through says
what it thinks of itself. Of real recordings there is no truth: the model judges alone, and its
opinion is all that is written. What is measured is in `docs/notation.md`, fidelity and clarity.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from compensation.listener import audiogram_hz, from_audiogram
from compensation.masks import Masks
from compensation.waveform import Waveform
from evaluation.intelligibility import estoi, haspi, stoi
from evaluation.neural import (
    Midbrain,
    fidelity_and_clarity,
    pooled_interval,
    pooled_restoration,
)
from evaluation.quality import hasqi, level_change, pesq, si_sdr
from evaluation.table import Score, rows, summarise
from icsim.audiogram import Audiogram
from icsim.conditional import BetaICNet
from icsim.counts import expected_counts
from icsim.simulation.animal import Animal, animal_from
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, SPONTANEOUS, calibrate, level, mix
from icsim.store import Cohort
from icsim.weights import fingerprint, load_network
from recipes import ears
from recipes.devices import Device, matched_db, ours, prescribed, without_rnnoise
from recipes.ears import audiogram
from recipes.fits import Fit, read_fit
from recipes.jobs import killed_named, processes
from recipes.judge_report import JUDGES, MEASURES, report, write
from recipes.ranges import (
    Count,
    CountOrZero,
    LevelDbSpl,
    NotEmptyStr,
    RatioDb,
    Seconds,
    Seed,
    checked,
)
from recipes.state import begin, run

ScoreName = Literal["stoi", "estoi", "pesq", "si_sdr_db", "haspi", "hasqi"]

Reduction = Literal["wiener", "spectral_subtraction", "rnnoise"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to judge, and on what."""

    cohort: NotEmptyStr
    """A cohort with the listeners and with test sounds. Of real recordings, without truth, the
    model's opinion is all there is."""
    model: NotEmptyStr
    """The BetaICNet that the aid was trained through."""
    aid: NotEmptyStr
    """A trained Masks or Waveform."""
    fits: NotEmptyStr
    """Folder of `<animal>.json` from `recipes.fit_theta`; these animals are the listeners."""
    out: NotEmptyStr
    """Folder for `judged.json`, tables and figures."""
    excerpts: Count = 9
    """Test sounds that restoration in quiet is measured on, of all classes that an aid may meet."""
    excerpt_s: Seconds = 4.0
    """Their length [s]."""
    level_db_spl: LevelDbSpl = 65.0
    """Their level [dB SPL]."""
    speech: CountOrZero = 4
    """Speech excerpts in noise: for fidelity and clarity there, intelligibility and quality; 0
    leaves all of this out."""
    scores: tuple[ScoreName, ...] = ("stoi", "estoi", "pesq", "si_sdr_db", "haspi", "hasqi")
    """Which scores; HASPI and HASQI take most of the time."""
    noise_reductions: tuple[Reduction, ...] = ("wiener", "spectral_subtraction", "rnnoise")
    """What the aid's noise reduction is compared with; NAL-R comes after each. RNNoise is left out
    where pyrnnoise is not installed."""
    snr_db: RatioDb = 5.0
    """Signal-to-noise ratio of the noisy speech [dB]."""
    workers: Count = 2
    """Processes that compute scores; 1 does all in this one."""
    seed: Seed = 0
    """Of excerpts and noise."""

    __post_init__ = checked


KINDS = ("speech", "noisy", "music", "instrument")
"""Classes that restoration is measured on; where a cohort has none, all but what no aid hears."""

EAR_SCORES = ("haspi", "hasqi")
"""What needs an audiogram."""


SHORTEST_S = 0.1
"""Of an excerpt [s] (chosen here): less is no sound that an aid could follow."""


@dataclasses.dataclass(frozen=True)
class Listener:
    """One whom the aid is judged for."""

    name: str
    theta: Tensor
    """`(P,)`."""
    condition: Tensor
    """The same as the aid takes it: θ, or a scaled audiogram."""
    status: str
    """NH or HI."""
    ear: Audiogram | None
    """None if its thresholds were not measured."""
    without_ear: str | None
    """Why not."""
    animal: Animal | None
    """None if it is a real one."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that a judgement needs, checked."""

    model: BetaICNet
    normal: Tensor
    """θ of the model's animals with normal hearing, `(n, P)`."""
    aid: nn.Module
    reduces_noise: bool
    listeners: list[Listener]
    quiet: Tensor
    """Test sounds of several kinds [Pa], `(B, T)`."""
    kinds: list[str]
    training: Tensor
    """Training sounds of these kinds [Pa], `(B, T)`; never judged on."""
    clean: Tensor | None
    """Test speech [Pa], `(B, T)`, if noise is wanted."""
    noisy: Tensor | None
    """The same in noise."""
    left_out: dict[str, str]
    """What cannot be given, and why."""

    @property
    def judges(self) -> list[str]:
        """Who judges: the true midbrains if there are any, and the model."""
        return list(JUDGES) if any(one.animal for one in self.listeners) else ["model"]


def judge(config: Config) -> dict:
    """Restoration and scores of every device for every listener; also written to `out`.

    Mean restorations are those of listeners with a loss.

    Raises:
        ValueError: If something does not fit, before any work and before anything is written.
    """
    task = ready(config)
    for what, reason in task.left_out.items():
        tqdm.write(f"without {what}: {reason}")
    begin()
    judged: dict = {
        "judges": task.judges,
        "measures": MEASURES,
        "level_db_spl": config.level_db_spl,
        "snr_db": None if task.noisy is None else config.snr_db,
        "kinds": task.kinds,
        "left_out": task.left_out,
        "devices": {},
        "listeners": {},
    }
    table: list = []
    # One pool for all listeners: a new process imports and compiles before it scores.
    alone = contextlib.nullcontext(None)
    with (
        killed_named("scores", "--workers"),
        alone if config.workers == 1 else processes(config.workers) as pool,
    ):
        for listener in tqdm(task.listeners, desc=f"judging by {task.judges[0]}", unit="listener"):
            devices, match_db = equipped(config, task, listener)
            for name, device in devices.items():
                judged["devices"].setdefault(
                    name, {"label": device.label, "delay_ms": round(device.delay_ms, 1)}
                )
            judged["listeners"][listener.name] = {
                "status": listener.status,
                "audiogram": listener.ear and dataclasses.asdict(listener.ear),
                "nal_r_matched_db": match_db,
                **restorations(task, listener, devices),
            }
            if task.noisy is not None:
                table += score(pool, task, listener, devices, config.scores)
    judged["restoration"] = means(judged["listeners"], task.judges)
    judged["scores"] = summarise(table)
    write(Path(config.out), judged, table)
    return judged


def ready(config: Config) -> Task:
    """Open and check everything that a judgement needs; nothing is written.

    Raises:
        ValueError: If anything does not fit.
    """
    if config.excerpt_s < SHORTEST_S:
        raise ValueError(
            f"excerpt_s must be {SHORTEST_S:g} s or more, got {config.excerpt_s:g}; HASPI needs 1 s"
        )
    if Path(config.out).exists() and not Path(config.out).is_dir():
        raise ValueError(f"{config.out}: is a file; choose another --out")
    cohort, animals = Cohort.open(config.cohort), ears.learned(config.model)[0]
    aid, facts = load_network(config.aid, Masks, Waveform)
    unsaid = [name for name in ("listener", "noise_reduction", "model") if name not in facts]
    if unsaid:
        raise ValueError(
            f"{config.aid}: does not say its {', '.join(unsaid)}; an aid as "
            "recipes.train_compensation writes it is needed"
        )
    model = fingerprint(config.model)
    if facts["listener"] == "theta" and facts["model"] != model:
        raise ValueError(
            f"{config.aid}: was trained through another model ({facts['model']}) than the one here "
            f"({model}), so that θ says it nothing; give --model of that training"
        )
    listeners = [_listener(cohort, fit, facts) for fit in _fits(config, model)]
    left_out = _missing(listeners)
    for one in listeners:
        if len(one.condition) != aid.config.listener or len(one.theta) != animals.normal.shape[1]:
            raise ValueError(
                f"{one.name}: θ has {len(one.theta)} numbers; the model takes "
                f"{animals.normal.shape[1]} and {config.aid} {aid.config.listener} of "
                f"{facts['listener']}; fit the listener to this model"
            )
    if "rnnoise" in config.noise_reductions and (reason := without_rnnoise()):
        left_out["RNNoise"] = reason
    quiet, kinds = excerpts(cohort, config, "test")
    training, _ = excerpts(cohort, config, "train")
    noisy, clean = noisy_speech(cohort, config) if config.speech else (None, None)
    if not config.speech:
        left_out["noise"] = "--speech 0"
    return Task(
        model=animals.loss.model,
        normal=animals.normal,
        aid=aid,
        reduces_noise=bool(facts["noise_reduction"]),
        listeners=listeners,
        quiet=quiet,
        kinds=kinds,
        training=training,
        clean=clean,
        noisy=noisy,
        left_out=left_out,
    )


def equipped(
    config: Config, task: Task, listener: Listener
) -> tuple[dict[str, Device], float | None]:
    """All devices for a listener, and how much louder than NAL-R the aid is [dB]."""
    own = ours(task.aid, listener.condition, task.reduces_noise)
    match_db = None
    if listener.ear:
        match_db = matched_db(next(iter(own.values())), listener.ear, task.training)
    reductions = tuple(
        name
        for name in config.noise_reductions
        if name != "rnnoise" or "RNNoise" not in task.left_out
    )
    return prescribed(listener.ear, match_db, reductions) | own, match_db


def restorations(task: Task, listener: Listener, devices: Mapping[str, Device]) -> dict[str, dict]:
    """Fidelity and clarity of every device for one listener, by judge, measure and device."""
    midbrains = {"model": in_the_model(task, listener)}
    if listener.animal:
        pair = listener.animal.expected_counts, listener.animal.healthy().expected_counts
        midbrains = {"truth": pair} | midbrains
    processed = {name: device.process(task.quiet) for name, device in devices.items()}
    by_judge: dict[str, dict] = {judge: {} for judge in midbrains}
    for judge, pair in midbrains.items():
        both = fidelity_and_clarity(*pair, task.quiet, task.quiet, processed)
        by_judge[judge]["fidelity_quiet"] = _pooled(both, "fidelity")
    if task.noisy is not None and task.clean is not None:
        processed = {name: device.process(task.noisy) for name, device in devices.items()}
        for judge, pair in midbrains.items():
            both = fidelity_and_clarity(*pair, task.clean, task.noisy, processed)
            for measure in ("fidelity", "clarity"):
                by_judge[judge][f"{measure}_noise"] = _pooled(both, measure)
    return by_judge


def in_the_model(task: Task, listener: Listener) -> tuple[Midbrain, Midbrain]:
    """What the model says of a listener, and of its normal animals on average."""

    def responses(theta: Tensor) -> Midbrain:
        return lambda sound: expected_counts(
            task.model.decode(task.model.latent(sound), theta.unsqueeze(0))
        ).mean(1)

    return responses(listener.theta[None]), responses(task.normal)


def means(listeners: Mapping[str, dict], judges: Iterable[str]) -> dict[str, dict]:
    """Mean restoration over listeners with a loss, by judge, measure and device.

    To those who hear normally there is nothing to be restored; it is theirs if there are no others.
    A device that some of them lack, for want of thresholds, has none.
    """
    impaired = [one for one in listeners.values() if one["status"] != "NH"]
    by_judge: dict[str, dict] = {}
    for judge in judges:
        judged = [one[judge] for one in impaired or listeners.values() if judge in one]
        by_judge[judge] = {
            measure: {
                device: _mean(one[measure][device]["restoration"] for one in judged)
                for device in judged[0][measure]
                if all(device in one[measure] for one in judged)
            }
            for measure in (judged[0] if judged else ())
        }
    return by_judge


def score(
    pool: ProcessPoolExecutor | None,
    task: Task,
    listener: Listener,
    devices: Mapping[str, Device],
    names: Iterable[str],
) -> list[dict]:
    """Intelligibility and quality of every device on noisy speech, a row a sound.

    Without a pool it is done in this process.
    """
    wanted = [name for name in names if listener.ear or name not in EAR_SCORES]
    wanted.append("level_change_db")
    after = {name: device.process(task.noisy) for name, device in devices.items()}
    jobs = [
        (name, task.clean, task.noisy, sound, listener.ear)
        for sound in after.values()
        for name in wanted
    ]
    each = pool.map if pool else map
    values = iter(list(each(_score, *zip(*jobs, strict=True))))
    files = [f"{listener.name}, speech {i + 1}" for i in range(len(task.clean))]
    table = []
    for device in devices:
        table += rows(device, files, {name: next(values) for name in wanted})
    return table


def excerpts(cohort: Cohort, config: Config, split: str = "test") -> tuple[Tensor, list[str]]:
    """Excerpts of sounds of a split at one level, `(B, T)` [Pa], and their classes.

    Raises:
        ValueError: If there is none as long.
    """
    draw = np.random.default_rng([config.seed, {"test": 1, "train": 3}[split]])
    samples = round(config.excerpt_s * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    there = {sound.kind for sound in cohort.sounds if sound.split == split}
    wanted = [kind for kind in KINDS if kind in there]
    wanted = wanted or sorted(there - {"ripple", SPONTANEOUS})
    by_kind = {kind: _long_enough(cohort, kind, samples, split) for kind in wanted}
    by_kind = {kind: sounds for kind, sounds in by_kind.items() if sounds}
    if not by_kind:
        raise ValueError(
            f"{config.cohort}: no {split} sound of {', '.join(wanted) or 'a class that aids hear'} "
            f"has {config.excerpt_s:g} s; give a smaller --excerpt_s"
        )
    kinds = [list(by_kind)[i % len(by_kind)] for i in range(config.excerpts)]
    chosen = [_excerpt(cohort, by_kind[kind], samples, draw) for kind in kinds]
    return calibrate(torch.stack(chosen), config.level_db_spl), kinds


def noisy_speech(cohort: Cohort, config: Config) -> tuple[Tensor, Tensor]:
    """Test speech in speech-shaped noise, and without, `(B, T)` [Pa] each.

    Raises:
        ValueError: If there is none as long.
    """
    draw = np.random.default_rng([config.seed, 2])
    samples = round(config.excerpt_s * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    speech = _long_enough(cohort, "speech", samples, "test")
    if not speech:
        raise ValueError(
            f"{config.cohort}: no test speech has {config.excerpt_s:g} s; give a smaller "
            "--excerpt_s, or --speech 0 to judge in quiet alone"
        )
    chosen = [_excerpt(cohort, speech, samples, draw) for _ in range(config.speech)]
    clean = calibrate(torch.stack(chosen), config.level_db_spl)
    noise = torch.stack([speech_shaped_noise(samples, draw) for _ in chosen])
    return mix(clean, noise, config.snr_db), clean


def _fits(config: Config, model: str) -> list[Fit]:
    """Fits to this model of different animals, by name."""
    fits: dict[str, Fit] = {}
    for path in sorted(Path(config.fits).glob("*.json")):
        fit = read_fit(path, model)
        if fit.name in fits:
            raise ValueError(f"{config.fits}: holds two fits of {fit.name}; keep one")
        fits[fit.name] = fit
    if not fits:
        raise ValueError(f"{config.fits}: no fitted listener; run recipes.fit_theta first")
    return list(fits.values())


def _listener(cohort: Cohort, fit: Fit, facts: dict) -> Listener:
    """A fitted animal of the cohort.

    Raises:
        ValueError: If there is no such animal, or the aid takes thresholds that it has not.
    """
    status, reason, ear = cohort.animal(fit.name).status, None, None
    try:
        ear = audiogram(cohort, fit.name)
    except ValueError as error:
        if facts["listener"] == "audiogram":
            raise
        reason = str(error)
    simulated = cohort.simulated(fit.name)
    by_theta = facts["listener"] == "theta"
    return Listener(
        name=fit.name,
        theta=fit.theta,
        condition=fit.theta if by_theta else from_audiogram(ear, audiogram_hz(facts)),
        status=status,
        ear=ear,
        without_ear=reason,
        animal=animal_from(cohort.truth(fit.name)) if simulated else None,
    )


def _missing(listeners: Iterable[Listener]) -> dict[str, str]:
    """What cannot be given for these listeners, and why."""
    missing = {}
    if real := [one.name for one in listeners if one.animal is None]:
        missing["true midbrains"] = (
            f"{', '.join(real)}: real recordings, and nobody knows what they would have answered "
            "with an aid; the model judges alone"
        )
    if deaf := [one for one in listeners if one.without_ear]:
        missing[f"NAL-R, HASPI and HASQI of {', '.join(one.name for one in deaf)}"] = "; ".join(
            dict.fromkeys(one.without_ear for one in deaf)
        )
    return missing


def _pooled(both: Mapping[str, dict], measure: str) -> dict[str, dict]:
    """Restoration of each device with its bootstrap interval, from discrepancies.

    It is None for a listener whose midbrain answers as the normal one does: nothing is lost.
    """
    restored = {}
    for device, measures in both.items():
        aided, unaided = measures[measure]
        value, interval = None, [math.nan, math.nan]
        if unaided.sum() != 0:
            value = pooled_restoration(aided, unaided)
            interval = pooled_interval(aided, unaided)
        restored[device] = {
            "restoration": value,
            "interval": [None if math.isnan(end) else end for end in interval],
        }
    return restored


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _score(name: str, clean: Tensor, noisy: Tensor, after: Tensor, ear: Audiogram | None) -> Score:
    if name in EAR_SCORES:
        return {"haspi": haspi, "hasqi": hasqi}[name](clean, after, SAMPLE_RATE, ear)
    if name == "level_change_db":
        return level_change(noisy, after, SAMPLE_RATE)
    metric = {"stoi": stoi, "estoi": estoi, "pesq": pesq, "si_sdr_db": si_sdr}[name]
    return metric(clean, after, SAMPLE_RATE)


def _long_enough(cohort: Cohort, kind: str, samples: int, split: str) -> list[int]:
    """Sounds of a class and split that an excerpt fits into, by index."""
    return [
        sound.index
        for sound in cohort.sounds
        if sound.split == split and sound.kind == kind and sound.samples >= samples
    ]


def _excerpt(cohort: Cohort, sounds: list[int], samples: int, draw: np.random.Generator) -> Tensor:
    """The loudest of a few random excerpts, so that no pause is judged."""
    sound = cohort.pressure(sounds[draw.integers(len(sounds))])
    starts = draw.integers(len(sound) - samples + 1, size=4)
    return max((sound[s : s + samples] for s in starts), key=lambda part: level(part).item())


if __name__ == "__main__":
    judged = run(judge, Config)
    for what, reason in judged["left_out"].items():
        print(f"without {what}: {reason}")
    print(f"restoration, mean of listeners with a loss\n{report(judged)}")
