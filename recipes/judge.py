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

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from compensation import hearing
from compensation.aid import Aid
from compensation.devices import Device, louder, matched_db, ours, prescribed, without_rnnoise
from compensation.listener import from_audiogram
from compensation.load import AidFacts, load_aid
from evaluation import tidy
from evaluation.devices import level_rows, missing, restoration_rows, score_rows, scores
from evaluation.midbrains import mean_response
from evaluation.neural import Midbrain
from icsim.audiogram import Audiogram
from icsim.excerpts import Condition, in_quiet, speech_in_noise
from icsim.fits import Fit, read_fit
from icsim.models.response import ResponseModel
from icsim.simulation.animal import Animal, animal_from
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of
from icsim.weights import fingerprint
from recipes.reports.judged import JUDGES, report, write
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
@checked
class Config:
    """What to judge, and on what."""

    cohort: NotEmptyStr
    """A cohort with the listeners and with test sounds. Of real recordings, without truth, the
    model's opinion is all there is."""
    model: NotEmptyStr
    """The model that the aid was trained through."""
    aid: NotEmptyStr
    """A trained Masks or LearnedFilters."""
    fits: NotEmptyStr
    """Folder of `<animal>.json` from `recipes.fit_theta`; these animals are the listeners."""
    out: NotEmptyStr
    """Folder for `results.csv`, `headline.json`, tables, figures and `judged.json`."""
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
    aid: Aid
    reduces_noise: bool
    listeners: list[Listener]
    quiet: Condition
    """Test sounds of several kinds."""
    kinds: list[str]
    """Their classes."""
    training: Tensor
    """Training sounds of these kinds [Pa], `(B, T)`; never judged on."""
    noise: Condition | None
    """Test speech in noise, if it is wanted."""
    left_out: dict[str, str]
    """What cannot be given, and why."""

    @property
    def judges(self) -> list[str]:
        """Who judges: the true midbrains if there are any, and the model."""
        return list(JUDGES) if any(one.animal for one in self.listeners) else ["model"]


def judge(config: Config) -> dict:
    """Restoration and scores of every device for every listener; also written to `out`.

    Returns:
        What was judged: the `judges`, `devices` and `listeners`, and what is `left_out` and why.

    Raises:
        ValueError: If something does not fit, before any work and before anything is written.
    """
    task = ready(config)
    for what, reason in task.left_out.items():
        tqdm.write(f"without {what}: {reason}")
    begin()
    about: dict = {
        "out": config.out,
        "judges": task.judges,
        "level_db_spl": config.level_db_spl,
        "snr_db": None if task.noise is None else config.snr_db,
        "kinds": task.kinds,
        "devices": {},
        "listeners": {},
        "left_out": task.left_out,
        "missing": {},
    }
    tables = []
    # One pool for all listeners: a new process imports and compiles before it scores.
    alone = contextlib.nullcontext(None)
    with (
        killed_named("scores", "--workers"),
        alone if config.workers == 1 else processes(config.workers) as pool,
    ):
        for listener in tqdm(task.listeners, desc=f"judging by {task.judges[0]}", unit="listener"):
            devices, gains_db = equipped(config, task, listener)
            about["devices"] |= {
                name: {"label": device.label, "delay_ms": round(device.delay_ms, 1)}
                for name, device in devices.items()
            }
            about["listeners"][listener.name] = {
                "status": listener.status,
                "audiogram": listener.ear and dataclasses.asdict(listener.ear),
                "gains_db": gains_db,
            }
            rows, reasons = measured(task, listener, devices, config.scores, pool)
            columns = {"listener": listener.name, "group": listener.status}
            tables.append(tidy.complete(rows, (*tidy.COLUMNS, "excerpt"), **columns))
            about["missing"] = reasons | about["missing"]
    about["ours"] = list(ours(task.aid, task.listeners[0].condition, task.reduces_noise))
    write(Path(config.out), pd.concat(tables, ignore_index=True), about)
    return about


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
    cohort, space = Cohort.open(config.cohort), hearing.space_of(config.model)
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
        if len(one.condition) != aid.config.listener or len(one.theta) != space.normal.shape[1]:
            raise ValueError(
                f"{one.name}: θ has {len(one.theta)} numbers; the model takes "
                f"{space.normal.shape[1]} and {config.aid} {aid.config.listener} of "
                f"{facts.listener}; fit the listener to this model"
            )
    if "rnnoise" in config.noise_reductions and (reason := without_rnnoise()):
        left_out["RNNoise"] = reason
    length_s, level = config.excerpt_s, config.level_db_spl
    quiet, kinds = in_quiet(cohort, "test", config.excerpts, length_s, level, config.seed)
    training, _ = in_quiet(cohort, "train", config.excerpts, length_s, level, config.seed)
    noise = None
    if config.speech:
        try:
            noise = speech_in_noise(
                cohort, config.speech, length_s, level, config.snr_db, config.seed
            )
        except ValueError as error:
            raise ValueError(f"{error}, or --speech 0 to judge in quiet alone") from error
    else:
        left_out["noise"] = "--speech 0"
    return Task(
        model=space.model,
        normal=space.normal,
        aid=aid,
        reduces_noise=facts.noise_reduction,
        listeners=listeners,
        quiet=quiet,
        kinds=kinds,
        training=training.clean,
        noise=noise,
        left_out=left_out,
    )


def equipped(
    config: Config, task: Task, listener: Listener
) -> tuple[dict[str, Device], dict[str, float]]:
    """All devices for a listener, and the gains that were chosen for some on training sounds."""
    settings = ours(task.aid, listener.condition, task.reduces_noise)
    midbrains = in_the_model(task, listener)
    more, gains_db = louder(listener.ear, *midbrains, task.training[:CHOSEN_ON])
    match_db = None
    if listener.ear:
        match_db = matched_db(next(iter(settings.values())), listener.ear, task.training)
        gains_db |= {"nal_r_matched": match_db}
    reductions = tuple(
        name
        for name in config.noise_reductions
        if name != "rnnoise" or "RNNoise" not in task.left_out
    )
    return prescribed(listener.ear, match_db, reductions) | more | settings, gains_db


def measured(
    task: Task,
    listener: Listener,
    devices: Mapping[str, Device],
    names: Sequence[str],
    pool: ProcessPoolExecutor | None = None,
) -> tuple[list[pd.DataFrame], dict[str, str]]:
    """Restoration by each judge, added level, and scores of noisy speech.

    Returns:
        Tables of `evaluation.devices`, and why some scores are missing.
    """
    midbrains = {"model": in_the_model(task, listener)}
    if listener.animal:
        pair = listener.animal.expected_counts, listener.animal.healthy().expected_counts
        midbrains = {"truth": pair} | midbrains
    tables, reasons = [], {}
    for condition in filter(None, (task.quiet, task.noise)):
        processed = {name: device.process(condition.noisy) for name, device in devices.items()}
        tables += restoration_rows(midbrains, condition, processed)
        tables.append(level_rows(condition, processed))
        if condition is task.noise:
            each = pool.map if pool else map
            scored = scores(condition, processed, names, listener.ear, each)
            tables += score_rows(condition, scored)
            reasons = missing(scored)
    return tables, reasons


def in_the_model(task: Task, listener: Listener) -> tuple[Midbrain, Midbrain]:
    """What the model says of a listener, and of its normal animals on average."""
    model = task.model
    return mean_response(model, listener.theta[None]), mean_response(model, task.normal)


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
    status, condition, reason, ear = cohort.animal(fit.name).status, fit.theta, None, None
    try:
        ear = audiogram_of(cohort, fit.name)
        if facts.listener == "audiogram":
            condition = from_audiogram(ear, facts.audiogram_hz)
    except ValueError as error:
        if facts.listener == "audiogram":
            raise
        reason = str(error)
    simulated = cohort.simulated(fit.name)
    return Listener(
        name=fit.name,
        theta=fit.theta,
        condition=condition,
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
    if deaf := {one.name: one.without_ear for one in listeners if one.without_ear}:
        reasons = "; ".join(dict.fromkeys(deaf.values()))
        missing[f"NAL-R, HASPI and HASQI of {', '.join(deaf)}"] = reasons
    return missing


if __name__ == "__main__":
    judged = run(judge, Config)
    print(report(tidy.read(Path(judged["out"]) / "results.csv"), judged))
