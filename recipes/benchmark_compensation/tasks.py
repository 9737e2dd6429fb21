"""The pieces of the benchmark of aids: each reads files and writes others."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import Tensor, nn

from compensation.bands import HOP, WINDOW, Bands, ShortTime
from compensation.linear import apply, best_gains_of_sound, best_linear_gain
from compensation.listener import from_audiogram
from compensation.load import AidFacts, load_aid
from compensation.noise_reduction import SHORT_TIME_DELAY_MS, wiener
from compensation.objective import (
    INAUDIBLE_DB_SPL,
    contrast,
    effort,
    flutter,
    hiss,
    roughness,
)
from compensation.prescriptions import nal_r_compressed, nal_r_gains_db
from compensation.streaming import Stream
from evaluation.artefacts import artefacts
from evaluation.intelligibility import estoi, haspi
from evaluation.neural import Midbrain, fidelity_and_clarity
from evaluation.quality import hasqi, level_change, pesq, si_sdr
from icsim.audiogram import Audiogram
from icsim.simulation.animal import Animal, animal_from
from icsim.sound import SAMPLE_RATE, calibrate
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes import ears, figures
from recipes.benchmark_compensation.material import (
    KINDS,
    NOISE,
    QUIET,
    SHORT,
    Condition,
    Material,
    conditions,
)
from recipes.benchmark_compensation.tables import label
from recipes.devices import Device, louder, matched_db, ours, prescribed
from recipes.excerpts import excerpts
from recipes.fits import read_fit
from recipes.midbrain import mean_response
from recipes.state import write_json, write_whole
from recipes.train_compensation import Gauge

SILENT_DB_SPL = -200.0
"""Stands for silence, as JSON holds no infinity."""

FIXED_BANDS = 24
"""Gains of a fixed fitting."""

OF_TRAINING = ("steps", "best_step", "stopped_gaining")
"""What is kept of what an aid's checkpoint says of its training."""

TO_HEAR = (
    *("unprocessed", "nal_r", "nal_r_matched", "wiener_nal_r", "masks_nr_off", "masks_nr_on"),
    *("masks_audiogram_nr_on", "waveform_nr_on", "ceiling_nr_off"),
)
"""Devices whose sounds and pictures are kept."""

COLUMNS = (
    *("listener", "group", "device", "judge", "condition", "level_db_spl", "noise", "sound"),
    *("measure", "value", "unaided"),
)
"""Of a table of judgements, a row for each number.

`judge` is truth or model of fidelity and clarity, and empty for what sounds alone say. `value` is
the discrepancy with the device, of fidelity and clarity, beside `unaided`, without it; of all other
measures it is the score. Of a `gain_db` the sound is the centre of a band.
"""

TRAINING, TONES = "training", "tones"
"""Conditions of what says how a device was made, and of what is measured with tones and silence."""


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
    whole: bool
    """Everything, or restoration by aids alone and what their guards are worth."""
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


def judge(job: Judgement) -> None:
    """Everything about one listener, whom no aid was trained for but those of its own.

    Normal listeners have nothing to be restored: of them it is measured in quiet what is left of
    their responses.
    """
    cohort = Cohort.open(job.cohort)
    listener = _listener(job, cohort)
    loaded = [(name, *_load(path, listener)) for name, path in job.aids.items()]
    devices: dict[str, Device] = {}
    for name, aid, told, facts in loaded:
        devices |= ours(aid, told, job.whole and facts.noise_reduction, name)
    parts = [_facts(name, _of_training(facts)) for name, *_, facts in loaded]
    if job.whole:
        training = training_sounds(cohort, job)
        others, chosen_db = baselines(listener, devices["masks_nr_off"], training)
        devices = others | devices
        parts += [_facts(name, {"chosen_db": gain}) for name, gain in chosen_db.items()]
    heard = conditions(job.material, job.seed)
    if listener.group == "normal":
        heard = [one for one in heard if one.name == QUIET]
    for condition in heard if job.whole else [c for c in heard if c.name in (QUIET, NOISE)]:
        processed = {name: device.process(condition.noisy) for name, device in devices.items()}
        if condition.name == SHORT:
            processed["limit"] = limit(listener, condition, processed, job.limit_steps)
        parts += restored(listener, condition, processed)
        parts.append(added(condition, processed))
        if condition.name == QUIET and job.whole:
            parts.append(band_gains(condition, processed))
        if condition.name == QUIET and not job.whole:
            parts += guards(condition, processed)
    if listener.group != "normal":
        (noise,) = (one for one in heard if one.name == NOISE)
        alone = {f"{name}_nr_alone": _alone(aid, told) for name, aid, told, _ in loaded}
        if job.whole:
            parts += scores(noise, devices, listener.ear, job.material)
            alone = {
                name: device
                for name, device in alone.items()
                if name.replace("_nr_alone", "_nr_on") in devices
            }
            alone |= {
                "unprocessed": devices["unprocessed"],
                "wiener": Device("Wiener filter", wiener, SHORT_TIME_DELAY_MS),
            }
        parts += denoised(noise, alone)
    if job.whole:
        everything_on = [
            f"{name}_nr_{'on' if f'{name}_nr_on' in devices else 'off'}" for name in job.aids
        ]
        parts += [spurs(name, devices[name]) for name in everything_on]
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    if job.whole and listener.group != "normal":
        _keep(out / listener.name, devices, noise.noisy[0], listener.animal)
    write_rows(out / f"{listener.name}.csv", listener, parts)


def group(truth: dict) -> str:
    """Of a simulated animal: normal, hidden, mild or severe; severe is the typical loss or more."""
    if truth["hearing"] != "HI":
        return {"NH": "normal", "hidden": "hidden"}[truth["hearing"]]
    return "severe" if truth["severity"] >= 1 else "mild"


def baselines(
    listener: Listener, aid: Device, training: Tensor
) -> tuple[dict[str, Device], dict[str, float]]:
    """Devices that an aid has to beat, and the gains that were chosen for them on training sounds.

    NAL-R as it is, at the aid's level, compressed, and after a Wiener filter. For listeners with a
    loss also NAL-R and the best k, the best flat gain and the best gains in bands: each chosen in
    the model, as a laboratory could, and on the true animal, which bounds what it can do.

    Args:
        listener: Whose.
        aid: What NAL-R is made as loud as.
        training: Sounds of the training split [Pa], `(B, T)`.
    """
    ear = listener.ear
    chosen = {"nal_r_matched": matched_db(aid, ear, training)}
    devices = prescribed(ear, chosen["nal_r_matched"], ("wiener",))

    def device(process: Callable[[Tensor], Tensor], delay_ms: float = 0.0) -> Device:
        return Device("", process, delay_ms)

    devices["nal_r_compressed"] = device(lambda sound: nal_r_compressed(sound, ear))
    if listener.group == "normal":
        return devices, chosen
    short_time = ShortTime(WINDOW, HOP)
    prescribed_db = nal_r_gains_db(ear, Bands(FIXED_BANDS, short_time).centres_hz)
    for judge, (impaired, normal) in listener.midbrains.items():
        with torch.no_grad():
            target = normal(training)
        flat, gains_db = louder(ear, impaired, normal, training)
        # They begin where simpler gains end, and so restore no less on the training sounds.
        starts_db = torch.stack(
            [
                prescribed_db + gains_db["nal_r_best_model"],
                torch.full_like(prescribed_db, gains_db["flat_model"]),
            ]
        )
        fixed_db = best_linear_gain(impaired, target, training, FIXED_BANDS, starts_db=starts_db)
        fixed = {
            "fixed_model": device(lambda sound, gains_db=fixed_db: apply(sound, gains_db)),
        }
        for name, one in (flat | fixed).items():
            devices[name.replace("model", judge)] = one
        chosen |= {name.replace("model", judge): gain for name, gain in gains_db.items()}
    return devices, chosen


def training_sounds(cohort: Cohort, job: Judgement) -> Tensor:
    """Excerpts of training sounds of each class at each level [Pa], `(B, T)`."""
    draw = np.random.default_rng([job.seed, 3])
    count, seconds = job.training_excerpts, job.training_s
    sounds, _ = excerpts(cohort, KINDS, "train", count, seconds, draw)
    levels = job.material.levels_db_spl
    turns = [levels[i // len(KINDS) % len(levels)] for i in range(job.training_excerpts)]
    return calibrate(sounds, torch.tensor(turns))


def limit(
    listener: Listener, condition: Condition, processed: Mapping[str, Tensor], steps: int
) -> Tensor:
    """What any gains at any time could make of sounds for the true animal [Pa], `(B, T)`.

    The search begins with the gains of the aid that was trained through it.
    """
    sound, gauge = condition.noisy, Gauge()
    impaired, normal = listener.midbrains["truth"]
    with torch.no_grad():
        target = normal(sound)
        start_db = gauge(processed["ceiling_nr_off"]) - gauge(sound)
    return apply(sound, best_gains_of_sound(impaired, target, sound, start_db, steps))


def restored(
    listener: Listener, condition: Condition, processed: Mapping[str, Tensor]
) -> list[pd.DataFrame]:
    """Discrepancies with each device and without, by judge; the truth alone judges normal ears."""
    parts = []
    for judge, pair in listener.midbrains.items():
        if judge == "model" and (listener.group == "normal" or condition.name == SHORT):
            continue
        both = fidelity_and_clarity(*pair, condition.clean, condition.noisy, processed)
        for measure in ("fidelity", "clarity"):
            if measure == "clarity" and condition.clean is condition.noisy:
                continue
            by_device = {name: found[measure] for name, found in both.items()}
            parts.append(_table(condition, measure, by_device, judge))
    return parts


def added(condition: Condition, processed: Mapping[str, Tensor]) -> pd.DataFrame:
    """How much louder each device makes each sound [dB]."""
    changes = {
        name: level_change(condition.noisy, after, SAMPLE_RATE).values
        for name, after in processed.items()
    }
    return _table(condition, "added_db", changes)


def scores(
    noise: Condition, devices: Mapping[str, Device], ear: Audiogram, material: Material
) -> list[pd.DataFrame]:
    """HASPI of noisy speech, and HASQI of the same speech in quiet."""
    in_noise = _first(noise, material.scored)
    few = _first(noise, -(-material.scored // 2))
    quiet = dataclasses.replace(few, name=QUIET, noises=[""] * len(few.sounds), noisy=few.clean)
    return [
        _table(
            condition,
            measure,
            {
                name: score(
                    condition.clean, device.process(condition.noisy), SAMPLE_RATE, ear
                ).values
                for name, device in devices.items()
            },
        )
        for condition, measure, score in ((in_noise, "haspi", haspi), (quiet, "hasqi", hasqi))
    ]


def denoised(noise: Condition, devices: Mapping[str, Device]) -> list[pd.DataFrame]:
    """What noise reduction does by itself, without compensation."""
    after = {name: device.process(noise.noisy) for name, device in devices.items()}
    return [
        _table(
            noise,
            measure,
            {name: score(noise.clean, sound, SAMPLE_RATE).values for name, sound in after.items()},
        )
        for measure, score in (("estoi", estoi), ("pesq", pesq), ("si_sdr_db", si_sdr))
    ]


def band_gains(condition: Condition, processed: Mapping[str, Tensor]) -> pd.DataFrame:
    """Mean gain of each device in each band where something is to be heard [dB]."""
    gauge = Gauge()
    levels = gauge(condition.noisy)
    audible = (levels > INAUDIBLE_DB_SPL).float()
    total = audible.sum((0, 2)).clamp(min=1)
    centres = [f"{hz:.0f} Hz" for hz in gauge.bands.centres_hz.tolist()]
    bands = dataclasses.replace(condition, sounds=centres, noises=[""] * len(centres))
    gains = {
        name: ((gauge(after) - levels) * audible).sum((0, 2)) / total
        for name, after in processed.items()
    }
    return _table(bands, "gain_db", gains)


def guards(condition: Condition, processed: Mapping[str, Tensor]) -> list[pd.DataFrame]:
    """The terms that guard, as they are after training."""
    gauge = Gauge()
    levels = gauge(condition.noisy)
    gains = {name: gauge(after) - levels for name, after in processed.items()}
    terms: dict[str, Callable[[Tensor], Tensor]] = {
        "roughness": roughness,
        "flutter": flutter,
        "effort": effort,
        "hiss": lambda gain: hiss(gain, levels),
        "contrast": lambda gain: contrast(gain, levels),
    }
    return [
        _table(condition, name, {device: term(gain) for device, gain in gains.items()})
        for name, term in terms.items()
    ]


def spurs(name: str, device: Device) -> pd.DataFrame:
    """What an aid adds to tones, chirps and silence."""
    found = artefacts(device.process)
    silence_db = max(found.silence_db, SILENT_DB_SPL)
    return _facts(name, {"spur_db": found.spur_db, "silence_db": silence_db}, TONES)


def write_rows(path: Path, listener: Listener, parts: list[pd.DataFrame]) -> None:
    """Tables of one listener as one CSV that appears whole; numbers that are missing are left out.

    Columns are `COLUMNS`.
    """
    rows = pd.concat(parts).dropna(subset="value")
    rows = rows.assign(listener=listener.name, group=listener.group)[list(COLUMNS)]
    write_whole(path, rows.to_csv(index=False, float_format="%.6g"))


def stream(job: Streaming) -> None:
    """Delay of an impulse and real-time factor on one core, of each aid."""
    found, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    for name, path in job.aids.items():
        aid, _ = load_aid(path)
        listener = torch.full((aid.config.listener,), 0.5)
        found[name] = {"latency_ms": impulse_ms(aid, listener), **pace(aid, listener)}
    torch.set_num_threads(threads)
    write_json(Path(job.out), found)


def impulse_ms(aid: nn.Module, listener: Tensor) -> float:
    """From a click in to the peak that comes out of a stream, in steps of one sample [ms]."""
    samples, at = 4096, 2000
    click = 1e-9 * torch.randn(samples, generator=torch.Generator().manual_seed(0))
    click[at] = 0.1
    running = Stream(aid, listener)
    out = torch.cat([running(part) for part in click.split(1)])
    return (out.abs().argmax().item() - at) / SAMPLE_RATE * 1e3


def pace(aid: nn.Module, listener: Tensor, seconds: float = 4.0) -> dict[str, float]:
    """Time to process over time processed, and the longest block, in blocks of the aid's own."""
    running, blocks = Stream(aid, listener), []
    sound = 0.02 * torch.randn(round(seconds * SAMPLE_RATE))
    for part in sound[: len(sound) // 4].split(aid.block_samples):
        running(part)
    for part in sound.split(aid.block_samples):
        started = time.perf_counter()
        running(part)
        blocks.append(time.perf_counter() - started)
    return {"real_time_factor": sum(blocks) / seconds, "worst_block_ms": 1e3 * max(blocks)}


def _listener(job: Judgement, cohort: Cohort) -> Listener:
    fit = read_fit(job.fit, fingerprint(job.model))
    animal = animal_from(cohort.truth(fit.name))
    known, _ = ears.learned(job.model)
    respond = functools.partial(mean_response, known.loss.model)
    pairs = {
        "truth": (animal.expected_counts, animal.healthy().expected_counts),
        "model": (respond(fit.theta[None]), respond(known.normal)),
    }
    return Listener(
        name=fit.name,
        group=group(cohort.truth(fit.name)),
        ear=ears.audiogram(cohort, fit.name),
        theta=fit.theta,
        animal=animal,
        midbrains={name: (_in_parts(one), _in_parts(two)) for name, (one, two) in pairs.items()},
    )


def _in_parts(midbrain: Midbrain, batch: int = 4) -> Midbrain:
    """The same with no more than a few sounds at once: memory grows with them."""
    return lambda sound: torch.cat([midbrain(part) for part in sound.split(batch)])


def _load(path: str, listener: Listener) -> tuple[nn.Module, Tensor, AidFacts]:
    """An aid, what it is told of the listener, and what its checkpoint says."""
    aid, facts = load_aid(path)
    if facts.listener == "theta":
        return aid, listener.theta, facts
    return aid, from_audiogram(listener.ear, facts.audiogram_hz), facts


def _of_training(facts: AidFacts) -> dict[str, float]:
    said = {name: getattr(facts, name) for name in OF_TRAINING}
    return {name: value for name, value in said.items() if value is not None}


def _alone(aid: nn.Module, told: Tensor) -> Device:
    """The noise reduction of an aid without its compensation."""

    def process(sound: Tensor) -> Tensor:
        with torch.no_grad():
            return aid.process(sound, told.expand(len(sound), -1), gain=0.0)

    return Device("", process, aid.latency_samples / SAMPLE_RATE * 1e3)


def _table(
    condition: Condition,
    measure: str,
    by_device: Mapping[str, Tensor | tuple[Tensor, Tensor]],
    judge: str = "",
) -> pd.DataFrame:
    """A row for each device and sound: a value, or one with the device and one without."""
    tables = []
    for device, values in by_device.items():
        value, unaided = values if isinstance(values, tuple) else (values, None)
        tables.append(
            pd.DataFrame(
                {
                    "device": device,
                    "judge": judge,
                    "condition": condition.name,
                    "level_db_spl": condition.level_db_spl,
                    "noise": condition.noises,
                    "sound": condition.sounds,
                    "measure": measure,
                    "value": value.double().numpy(),
                    "unaided": np.nan if unaided is None else unaided.double().numpy(),
                }
            )
        )
    return pd.concat(tables)


def _facts(device: str, values: Mapping[str, float], condition: str = TRAINING) -> pd.DataFrame:
    """Numbers of a device that are of no sound and no judge."""
    rows = [{"device": device, "measure": name, "value": float(x)} for name, x in values.items()]
    return pd.DataFrame(rows, columns=["device", "measure", "value"]).assign(
        judge="", condition=condition, level_db_spl=np.nan, noise="", sound="", unaided=np.nan
    )


def _first(condition: Condition, count: int) -> Condition:
    """Its first sounds."""
    return dataclasses.replace(
        condition,
        sounds=condition.sounds[:count],
        noises=condition.noises[:count],
        clean=condition.clean[:count],
        noisy=condition.noisy[:count],
    )


def _keep(folder: Path, devices: Mapping[str, Device], noisy: Tensor, animal: Animal) -> None:
    """One noisy sentence by every device: to listen to, as spectrograms and as responses."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        heard = {name: devices[name].process(noisy[None])[0] for name in TO_HEAR if name in devices}
        shown = {"healthy twin, no aid": animal.healthy().expected_counts(noisy[None])[0]}
        for name, sound in heard.items():
            shown[label(name)] = animal.expected_counts(sound[None])[0]
    drawn = figures.responses(list(shown.values()), list(shown), cf_hz=animal.cf_hz)
    drawn.savefig(folder / "responses.png", dpi=110)
    named = {label(name): sound for name, sound in heard.items()}
    figures.spectrograms(named).savefig(folder / "spectrograms.png", dpi=110)
    loudest = max(sound.abs().max() for sound in heard.values())
    for name, sound in heard.items():
        # 0.06 Hz off in 24 kHz is not heard, and files hold whole rates.
        soundfile.write(
            folder / f"{name}.flac", (0.9 * sound / loudest).numpy(), round(SAMPLE_RATE)
        )
