"""Everything that the benchmark of aids measures of one unseen listener, or of streams, as rows."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import Tensor

from compensation import hearing
from compensation.aid import Aid as HearingAid
from compensation.devices import (
    Device,
    band_gains,
    guarded,
    limit,
    noise_reduction_alone,
    ours,
    simple,
)
from compensation.listener import from_audiogram
from compensation.load import AidFacts, load_aid
from compensation.noise_reduction import SHORT_TIME_DELAY_MS, wiener
from compensation.streaming import impulse_delay_ms, pace
from evaluation import tidy
from evaluation.artefacts import artefacts
from evaluation.devices import in_parts, level_rows, restoration_rows, score_rows, scores
from evaluation.midbrains import mean_response
from evaluation.neural import Midbrain
from icsim.audiogram import Audiogram
from icsim.excerpts import KINDS, NOISE, QUIET, Condition, excerpts
from icsim.files import write_whole
from icsim.fits import read_fit
from icsim.simulation.animal import Animal, animal_from
from icsim.simulation.material import SHORT, Material, conditions
from icsim.sound import SAMPLE_RATE, calibrate
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of
from icsim.weights import fingerprint
from recipes.reports import figures
from recipes.reports.aids import label

SILENT_DB_SPL = -200.0
"""Stands for silence, as no table holds infinity."""

OF_TRAINING = ("steps", "best_step", "stopped_gaining")
"""What is kept of what an aid's checkpoint says of its training."""

EXAMPLES = (
    *("unprocessed", "nal_r", "nal_r_matched", "wiener_nal_r", "masks_nr_off", "masks_nr_on"),
    *("masks_audiogram_nr_on", "waveform_nr_on", "ceiling_nr_off"),
)
"""Devices whose sounds and pictures are kept."""

TRAINING, TONES, STREAM = "training", "tones", "stream"
"""Conditions of numbers that are of no sound: how a device was made, what it does to tones and to
silence, how it runs."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What to measure of one listener's devices."""

    cohort: str
    model: str
    """The BetaICNet that the aids were trained through."""
    fit: str
    """Of this listener, by `recipes.fit_theta`."""
    aids: dict[str, str]
    """Checkpoints by name of the device; `masks` is what NAL-R is made as loud as."""
    out: str
    """Folder for `<animal>.csv` and sounds."""
    material: Material
    """What is heard."""
    training_excerpts: int
    """Training sounds that gains of baselines are chosen on."""
    training_s: float
    """Their length [s]."""
    limit_steps: int
    """Steps of descent for the limit."""
    seed: int


@dataclasses.dataclass(frozen=True)
class Streaming:
    """Aids to be run as streams."""

    aids: dict[str, str]
    out: str


@dataclasses.dataclass(frozen=True)
class Listener:
    """One whom devices are judged for."""

    name: str
    group: str
    """Of `group`."""
    ear: Audiogram
    theta: Tensor
    """As fitted, `(P,)`."""
    animal: Animal
    midbrains: dict[str, tuple[Midbrain, Midbrain]]
    """Impaired and normal: the animal and its healthy twin as `truth`, and as the `model` has
    them."""

    @property
    def impaired(self) -> bool:
        """Whether there is something to be restored."""
        return self.group != "normal"


@dataclasses.dataclass(frozen=True)
class Aid:
    """A trained aid with what it is given of the listener, `(n,)`."""

    network: HearingAid
    given: Tensor
    facts: AidFacts


def judge(job: Judgement) -> None:
    """Everything about one listener, whom no aid was trained for but those of its own.

    Normal listeners have nothing to be restored: of them it is measured in quiet what is left of
    their responses.
    """
    cohort = Cohort.open(job.cohort)
    listener = _listener(job, cohort)
    aids = {name: _aid(path, listener) for name, path in job.aids.items()}
    trained: dict[str, Device] = {}
    for name, aid in aids.items():
        trained |= ours(aid.network, aid.given, aid.facts.noise_reduction, name)
    midbrains = listener.midbrains if listener.impaired else {}
    training = training_sounds(cohort, job)
    others, gains_db = simple(listener.ear, midbrains, trained["masks_nr_off"], training)
    devices = others | trained
    parts = [tidy.facts(name, _of_training(aid.facts), TRAINING) for name, aid in aids.items()]
    parts += [tidy.facts(name, {"chosen_db": db}, TRAINING) for name, db in gains_db.items()]
    for condition in _conditions(job, listener):
        processed = {name: device.process(condition.noisy) for name, device in devices.items()}
        if condition.name == SHORT:
            pair, start = listener.midbrains["truth"], processed["ceiling_nr_off"]
            processed["limit"] = limit(*pair, condition.noisy, start, job.limit_steps)
        parts += restored(listener, condition, processed)
        parts.append(level_rows(condition, processed))
        if condition.name == QUIET:
            gains, bands = band_gains(condition.noisy, processed)
            columns = {"condition": QUIET, "level_db_spl": condition.level_db_spl}
            parts.append(tidy.table(gains, measure="gain_db", sound=bands, **columns))
        if condition.name == NOISE:
            parts += scored(listener, condition, devices, job.material)
            reducing = {name: aid for name, aid in aids.items() if aid.facts.noise_reduction}
            parts += denoised(condition, reducing)
            _write_examples(Path(job.out) / listener.name, devices, condition, listener.animal)
    for name in aids:
        setting = f"{name}_nr_on" if f"{name}_nr_on" in devices else f"{name}_nr_off"
        parts.append(spurs(setting, devices[setting]))
    _write(job, listener, parts)


def judge_ablations(job: Judgement) -> None:
    """Restoration by aids, and the terms that guard them, in quiet and in noise."""
    listener = _listener(job, Cohort.open(job.cohort))
    aids = {name: _aid(path, listener) for name, path in job.aids.items()}
    devices: dict[str, Device] = {}
    for name, aid in aids.items():
        devices |= ours(aid.network, aid.given, reduces_noise=False, key=name)
    parts = []
    for condition in _conditions(job, listener):
        processed = {name: device.process(condition.noisy) for name, device in devices.items()}
        if condition.name in (QUIET, NOISE):
            parts += restored(listener, condition, processed)
            parts.append(level_rows(condition, processed))
        if condition.name == QUIET:
            for term, values in guarded(condition.noisy, processed).items():
                parts.append(tidy.table(values, measure=term, **condition.columns))
        if condition.name == NOISE:
            parts += denoised(condition, aids, baselines=False)
    _write(job, listener, parts)


def group(truth: dict) -> str:
    """Of a simulated animal: normal, hidden, mild or severe; severe is the typical loss or more."""
    if truth["hearing"] != "HI":
        return {"NH": "normal", "hidden": "hidden"}[truth["hearing"]]
    return "severe" if truth["severity"] >= 1 else "mild"


def training_sounds(cohort: Cohort, job: Judgement) -> Tensor:
    """Excerpts of training sounds of each class at each level [Pa], `(B, T)`."""
    draw = np.random.default_rng([job.seed, 3])
    count, seconds = job.training_excerpts, job.training_s
    sounds, _ = excerpts(cohort, KINDS, "train", count, seconds, draw)
    levels = job.material.levels_db_spl
    turns = [levels[i // len(KINDS) % len(levels)] for i in range(job.training_excerpts)]
    return calibrate(sounds, torch.tensor(turns))


def restored(
    listener: Listener, condition: Condition, processed: Mapping[str, Tensor]
) -> list[pd.DataFrame]:
    """Discrepancies with each device and without; the truth alone judges normal and short ones."""
    alone = not listener.impaired or condition.name == SHORT
    judges = {n: pair for n, pair in listener.midbrains.items() if n == "truth" or not alone}
    return restoration_rows(judges, condition, processed)


def scored(
    listener: Listener, noise: Condition, devices: Mapping[str, Device], material: Material
) -> list[pd.DataFrame]:
    """HASPI of noisy speech, and HASQI of the same speech in quiet."""
    few = noise.first(-(-material.scored // 2))
    quiet = dataclasses.replace(few, name=QUIET, noises=[""] * len(few.sounds), noisy=few.clean)
    parts = []
    for condition, measure in ((noise.first(material.scored), "haspi"), (quiet, "hasqi")):
        processed = {name: device.process(condition.noisy) for name, device in devices.items()}
        parts += score_rows(condition, scores(condition, processed, [measure], listener.ear))
    return parts


def denoised(
    noise: Condition, aids: Mapping[str, Aid], baselines: bool = True
) -> list[pd.DataFrame]:
    """What noise reduction does by itself, without compensation."""
    devices = {
        f"{name}_nr_alone": noise_reduction_alone(aid.network, aid.given)
        for name, aid in aids.items()
    }
    if baselines:
        devices["unprocessed"] = Device("no aid", lambda sound: sound, 0.0)
        devices["wiener"] = Device("Wiener filter", wiener, SHORT_TIME_DELAY_MS)
    processed = {name: device.process(noise.noisy) for name, device in devices.items()}
    return score_rows(noise, scores(noise, processed, ["estoi", "pesq", "si_sdr_db"]))


def spurs(name: str, device: Device) -> pd.DataFrame:
    """What an aid adds to tones, chirps and silence."""
    added = artefacts(device.process)
    silence_db = max(added.silence_db, SILENT_DB_SPL)
    return tidy.facts(name, {"spur_db": added.spur_db, "silence_db": silence_db}, TONES)


def stream(job: Streaming) -> None:
    """Delay of an impulse and real-time factor on one core, of each aid."""
    parts, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    for name, path in job.aids.items():
        aid, _ = load_aid(path)
        listener = torch.full((aid.config.listener,), 0.5)
        running = {"latency_ms": impulse_delay_ms(aid, listener), **pace(aid, listener)}
        parts.append(tidy.facts(name, running, STREAM))
    torch.set_num_threads(threads)
    write_whole(Path(job.out), tidy.complete(parts).to_csv(index=False, float_format="%.6g"))


def _conditions(job: Judgement, listener: Listener) -> list[Condition]:
    """What a listener hears: one with normal hearing only sounds in quiet."""
    every = conditions(job.material, job.seed)
    return [one for one in every if listener.impaired or one.name == QUIET]


def _listener(job: Judgement, cohort: Cohort) -> Listener:
    fit = read_fit(job.fit, fingerprint(job.model))
    animal = animal_from(cohort.truth(fit.name))
    space = hearing.space_of(job.model)
    respond = functools.partial(mean_response, space.model)
    pairs = {
        "truth": (animal.expected_counts, animal.healthy().expected_counts),
        "model": (respond(fit.theta[None]), respond(space.normal)),
    }
    return Listener(
        name=fit.name,
        group=group(cohort.truth(fit.name)),
        ear=audiogram_of(cohort, fit.name),
        theta=fit.theta,
        animal=animal,
        midbrains={name: (in_parts(one), in_parts(two)) for name, (one, two) in pairs.items()},
    )


def _aid(path: str, listener: Listener) -> Aid:
    network, facts = load_aid(path)
    if facts.listener == "theta":
        return Aid(network, listener.theta, facts)
    return Aid(network, from_audiogram(listener.ear, facts.audiogram_hz), facts)


def _of_training(facts: AidFacts) -> dict[str, float]:
    said = {name: getattr(facts, name) for name in OF_TRAINING}
    return {name: value for name, value in said.items() if value is not None}


def _write(job: Judgement, listener: Listener, parts: list[pd.DataFrame]) -> None:
    """Tables of one listener as one CSV that appears whole."""
    rows = tidy.complete(parts, listener=listener.name, group=listener.group)
    path = Path(job.out) / f"{listener.name}.csv"
    write_whole(path, rows.to_csv(index=False, float_format="%.6g"))


def _write_examples(
    folder: Path, devices: Mapping[str, Device], noise: Condition, animal: Animal
) -> None:
    """One noisy sentence by every device: to listen to, as spectrograms and as responses."""
    folder.mkdir(parents=True, exist_ok=True)
    noisy = noise.noisy[:1]
    sounds = {name: devices[name].process(noisy)[0] for name in EXAMPLES if name in devices}
    with torch.no_grad():
        shown = {"healthy twin, no aid": animal.healthy().expected_counts(noisy)[0]}
        for name, sound in sounds.items():
            shown[label(name)] = animal.expected_counts(sound[None])[0]
    drawn = figures.responses(list(shown.values()), list(shown), cf_hz=animal.cf_hz)
    drawn.savefig(folder / "responses.png", dpi=110)
    named = {label(name): sound for name, sound in sounds.items()}
    figures.spectrograms(named).savefig(folder / "spectrograms.png", dpi=110)
    loudest = max(sound.abs().max() for sound in sounds.values())
    for name, sound in sounds.items():
        # 0.06 Hz off in 24 kHz is not heard, and files hold whole rates.
        scaled = (0.9 * sound / loudest).numpy()
        soundfile.write(folder / f"{name}.flac", scaled, round(SAMPLE_RATE))
