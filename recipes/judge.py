"""Judge an aid on listeners that it has never met.

`python -m recipes.judge --cohort C --model M --aid A --fits FOLDER --out FOLDER`

Of simulated animals the true midbrains judge, and the model that the aid was trained through says
what it thinks of itself. Of real recordings there is no truth: the model judges alone, and its
opinion is all that is written. What is measured is in `docs/notation.md`, fidelity and clarity.

Devices are compared on the same listeners and sounds, with intervals over both and a verdict
(`evaluation.comparison`); of one aid and one cohort they say nothing of another training.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from compensation import hearing
from compensation.devices import Device, louder, matched_db, ours, prescribed, without_rnnoise
from compensation.listener import from_audiogram
from compensation.load import AidFacts, load_aid
from evaluation.devices import score as devices_score
from evaluation.midbrains import mean_response
from evaluation.neural import Midbrain, fidelity_and_clarity
from evaluation.quality import level_change
from evaluation.scores import EAR_METRICS
from evaluation.table import LABELS, Score, rows
from icsim.audiogram import Audiogram
from icsim.excerpts import excerpts
from icsim.fits import Fit, read_fit
from icsim.models.response import ResponseModel
from icsim.recording import SoundEntry
from icsim.simulation.animal import Animal, animal_from
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import SAMPLE_RATE, SPONTANEOUS, calibrate, mix
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of
from icsim.weights import fingerprint
from recipes.reports.judge_summary import ALL, Row, comparisons, gaps, means
from recipes.reports.judged import JUDGES, LEVEL_QUIET, LEVELS, MEASURES, report, write
from recipes.running.commands import begin, run
from recipes.running.jobs import killed_named, processes
from recipes.running.ranges import (
    Count,
    CountOrZero,
    LevelDbSpl,
    NotEmptyStr,
    RatioDb,
    Seconds,
    Seed,
    checked,
)

ScoreName = Literal["stoi", "estoi", "pesq", "si_sdr_db", "haspi", "hasqi"]

Reduction = Literal["wiener", "spectral_subtraction", "rnnoise"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to judge, and on what."""

    cohort: NotEmptyStr
    """A cohort with the listeners and with test sounds. Of real recordings, without truth, the
    model's opinion is all there is."""
    model: NotEmptyStr
    """The model that the aid was trained through."""
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

CHOSEN_ON = 4
"""Training sounds, one of each usual kind, on which the model chooses a gain: it takes some thirty
passes through the model."""

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

    model: ResponseModel
    normal: Tensor
    """θ of the model's animals with normal hearing, `(n, P)`."""
    aid: nn.Module
    reduces_noise: bool
    listeners: list[Listener]
    quiet: Tensor
    """Test sounds of several kinds [Pa], `(B, T)`."""
    quiet_of: list[SoundEntry]
    """Where they were cut from."""
    training: Tensor
    """Training sounds of these kinds [Pa], `(B, T)`; never judged on."""
    clean: Tensor | None
    """Test speech [Pa], `(B, T)`, if noise is wanted."""
    noisy: Tensor | None
    """The same in noise."""
    speech_of: list[SoundEntry]
    """Where that was cut from."""
    left_out: dict[str, str]
    """What cannot be given, and why."""

    @property
    def judges(self) -> list[str]:
        """Who judges: the true midbrains if there are any, and the model."""
        return list(JUDGES) if any(one.animal for one in self.listeners) else ["model"]


def judge(config: Config) -> dict:
    """Restoration and scores of every device for every listener; also written to `out`.

    Means and comparisons are those of listeners with a loss, and of each listener alone.

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
        "kinds": [sound.kind for sound in task.quiet_of],
        "left_out": task.left_out,
        "devices": {},
        "listeners": {},
    }
    measured: list[Row] = []
    table: list[Row] = []
    # One pool for all listeners: a new process imports and compiles before it scores.
    alone = contextlib.nullcontext(None)
    with (
        killed_named("scores", "--workers"),
        alone if config.workers == 1 else processes(config.workers) as pool,
    ):
        for listener in tqdm(task.listeners, desc=f"judging by {task.judges[0]}", unit="listener"):
            devices, gains_db = equipped(config, task, listener)
            for name, device in devices.items():
                judged["devices"].setdefault(
                    name, {"label": device.label, "delay_ms": round(device.delay_ms, 1)}
                )
            judged["listeners"][listener.name] = {
                "status": listener.status,
                "audiogram": listener.ear and dataclasses.asdict(listener.ear),
                "gains_db": gains_db,
            }
            measured += restorations(task, listener, devices)
            if task.noisy is not None:
                scored = score(pool, task, listener, devices, config.scores)
                measured += _values(listener, "noise", scored, task.speech_of)
                table += scored
    statuses = {name: one["status"] for name, one in judged["listeners"].items()}
    aids = list(ours(task.aid, task.listeners[0].condition, task.reduces_noise))
    judged["means"] = means(measured, statuses)
    judged["comparisons"] = comparisons(measured, statuses, aids, LEVELS)
    judged["gaps"] = gaps(measured, statuses, aids)
    judged["restoration"] = {judge: {} for judge in task.judges}
    for row in judged["means"]:
        if row["listener"] == ALL and row["judge"]:
            by_device = judged["restoration"][row["judge"]].setdefault(row["measure"], {})
            by_device[row["device"]] = row["mean"]
    write(Path(config.out), judged, measured, table)
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
    cohort, animals = Cohort.open(config.cohort), hearing.learned(config.model)[0]
    aid, facts = load_aid(config.aid)
    model = fingerprint(config.model)
    if facts.listener == "theta" and facts.model != model:
        raise ValueError(
            f"{config.aid}: was trained through another model ({facts.model}) than the one here "
            f"({model}), so that θ says it nothing; give --model of that training"
        )
    listeners = [_listener(cohort, fit, facts) for fit in _fits(config, model)]
    left_out = _missing(listeners)
    for one in listeners:
        if len(one.condition) != aid.config.listener or len(one.theta) != animals.normal.shape[1]:
            raise ValueError(
                f"{one.name}: θ has {len(one.theta)} numbers; the model takes "
                f"{animals.normal.shape[1]} and {config.aid} {aid.config.listener} of "
                f"{facts.listener}; fit the listener to this model"
            )
    if "rnnoise" in config.noise_reductions and (reason := without_rnnoise()):
        left_out["RNNoise"] = reason
    quiet, quiet_of = quiet_sounds(cohort, config, "test")
    training, _ = quiet_sounds(cohort, config, "train")
    noisy, clean, speech_of = noisy_speech(cohort, config) if config.speech else (None, None, [])
    if not config.speech:
        left_out["noise"] = "--speech 0"
    return Task(
        model=animals.loss.model,
        normal=animals.normal,
        aid=aid,
        reduces_noise=facts.noise_reduction,
        listeners=listeners,
        quiet=quiet,
        quiet_of=quiet_of,
        training=training,
        clean=clean,
        noisy=noisy,
        speech_of=speech_of,
        left_out=left_out,
    )


def equipped(
    config: Config, task: Task, listener: Listener
) -> tuple[dict[str, Device], dict[str, float]]:
    """All devices for a listener, and the gains that were chosen for some on training sounds."""
    own = ours(task.aid, listener.condition, task.reduces_noise)
    midbrains = in_the_model(task, listener)
    more, gains_db = louder(listener.ear, *midbrains, task.training[:CHOSEN_ON])
    match_db = None
    if listener.ear:
        match_db = matched_db(next(iter(own.values())), listener.ear, task.training)
        gains_db |= {"nal_r_matched": match_db}
    reductions = tuple(
        name
        for name in config.noise_reductions
        if name != "rnnoise" or "RNNoise" not in task.left_out
    )
    return prescribed(listener.ear, match_db, reductions) | more | own, gains_db


def restorations(task: Task, listener: Listener, devices: Mapping[str, Device]) -> list[Row]:
    """Discrepancies of fidelity and clarity of every device on every sound, by each judge.

    With them the level that each adds in quiet; in noise it is among the scores.
    """
    midbrains = {"model": in_the_model(task, listener)}
    if listener.animal:
        pair = listener.animal.expected_counts, listener.animal.healthy().expected_counts
        midbrains = {"truth": pair} | midbrains
    processed = {name: device.process(task.quiet) for name, device in devices.items()}
    names = [str(i) for i in range(len(task.quiet))]
    found: list[Row] = []
    for device, after in processed.items():
        added = {LEVEL_QUIET: level_change(task.quiet, after, SAMPLE_RATE)}
        found += _values(listener, "quiet", rows(device, names, added), task.quiet_of)
    for judge, pair in midbrains.items():
        both = fidelity_and_clarity(*pair, task.quiet, task.quiet, processed)
        found += _discrepancies(listener, judge, "fidelity", "quiet", both, task.quiet_of)
    if task.noisy is not None and task.clean is not None:
        processed = {name: device.process(task.noisy) for name, device in devices.items()}
        for judge, pair in midbrains.items():
            both = fidelity_and_clarity(*pair, task.clean, task.noisy, processed)
            for measure in ("fidelity", "clarity"):
                found += _discrepancies(listener, judge, measure, "noise", both, task.speech_of)
    return found


def in_the_model(task: Task, listener: Listener) -> tuple[Midbrain, Midbrain]:
    """What the model says of a listener, and of its normal animals on average."""

    model = task.model
    return mean_response(model, listener.theta[None]), mean_response(model, task.normal)


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
    wanted = [name for name in names if listener.ear or name not in EAR_METRICS]
    wanted.append("level_change_db")
    after = {name: device.process(task.noisy) for name, device in devices.items()}
    jobs = [
        (name, task.clean, task.noisy, sound, listener.ear)
        for sound in after.values()
        for name in wanted
    ]
    each = pool.map if pool else map
    values = iter(list(each(_score, *zip(*jobs, strict=True))))
    files = [f"{listener.name}, noise {i + 1}" for i in range(len(task.clean))]
    table = []
    for device in devices:
        table += rows(device, files, {name: next(values) for name in wanted})
    return table


def quiet_sounds(
    cohort: Cohort, config: Config, split: str = "test"
) -> tuple[Tensor, list[SoundEntry]]:
    """Excerpts of all kinds that an aid may meet, `(B, T)` [Pa], and the sounds they are from.

    Raises:
        ValueError: If there is none as long.
    """
    there = {sound.kind for sound in cohort.sounds if sound.split == split}
    kinds = [kind for kind in KINDS if kind in there] or sorted(there - {"ripple", SPONTANEOUS})
    draw = np.random.default_rng([config.seed, {"test": 1, "train": 3}[split]])
    sounds, entries = excerpts(cohort, kinds, split, config.excerpts, config.excerpt_s, draw)
    return calibrate(sounds, config.level_db_spl), entries


def noisy_speech(cohort: Cohort, config: Config) -> tuple[Tensor, Tensor, list[SoundEntry]]:
    """Test speech in speech-shaped noise, and without, `(B, T)` [Pa] each; the sounds it is from.

    Raises:
        ValueError: If there is none as long.
    """
    draw = np.random.default_rng([config.seed, 2])
    try:
        sounds, entries = excerpts(
            cohort, ("speech",), "test", config.speech, config.excerpt_s, draw
        )
    except ValueError as error:
        raise ValueError(f"{error}, or --speech 0 to judge in quiet alone") from error
    clean = calibrate(sounds, config.level_db_spl)
    noise = torch.stack([speech_shaped_noise(clean.shape[1], draw) for _ in entries])
    return mix(clean, noise, config.snr_db), clean, entries


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


def _listener(cohort: Cohort, fit: Fit, facts: AidFacts) -> Listener:
    """A fitted animal of the cohort.

    Raises:
        ValueError: If there is no such animal, or the aid takes thresholds that it has not.
    """
    status, reason, ear = cohort.animal(fit.name).status, None, None
    try:
        ear = audiogram_of(cohort, fit.name)
    except ValueError as error:
        if facts.listener == "audiogram":
            raise
        reason = str(error)
    simulated = cohort.simulated(fit.name)
    by_theta = facts.listener == "theta"
    return Listener(
        name=fit.name,
        theta=fit.theta,
        condition=fit.theta if by_theta else from_audiogram(ear, facts.audiogram_hz),
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


def _discrepancies(
    listener: Listener,
    judge: str,
    measure: str,
    condition: str,
    both: Mapping[str, dict],
    sounds: Sequence[SoundEntry],
) -> list[Row]:
    """A row a device and sound, from `fidelity_and_clarity`."""
    found = []
    for device, measures in both.items():
        pairs = zip(*(one.tolist() for one in measures[measure]), strict=True)
        for i, ((aided, unaided), sound) in enumerate(zip(pairs, sounds, strict=True)):
            place = _place(listener, device, f"{condition} {i + 1}", sound)
            numbers = {"aided": aided, "unaided": unaided, "value": None}
            found.append(place | {"judge": judge, "measure": f"{measure}_{condition}"} | numbers)
    return found


def _values(
    listener: Listener, condition: str, table: Sequence[Row], sounds: Sequence[SoundEntry]
) -> list[Row]:
    """A row a device, sound and score, from a table in which the sounds take turns."""
    found = []
    for n, row in enumerate(table):
        i = n % len(sounds)
        place = _place(listener, str(row["device"]), f"{condition} {i + 1}", sounds[i])
        for name in [key for key in row if key not in LABELS]:
            numbers = {"aided": None, "unaided": None, "value": row[name]}
            found.append(place | {"judge": "", "measure": name} | numbers)
    return found


def _place(listener: Listener, device: str, excerpt: str, sound: SoundEntry) -> Row:
    return {
        "listener": listener.name,
        "status": listener.status,
        "device": device,
        "excerpt": excerpt,
        "source": sound.source,
    }


def _score(name: str, clean: Tensor, noisy: Tensor, after: Tensor, ear: Audiogram | None) -> Score:
    if name == "level_change_db":
        return level_change(noisy, after, SAMPLE_RATE)
    return devices_score(name, clean, after, ear)


if __name__ == "__main__":
    judged = run(judge, Config)
    for what, reason in judged["left_out"].items():
        print(f"without {what}: {reason}")
    print(report(judged))
