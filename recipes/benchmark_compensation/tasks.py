"""The pieces of the benchmark of aids: each reads files and writes others."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from compensation.linear import apply, best_linear_gain
from compensation.listener import audiogram_hz, from_audiogram
from compensation.masks import Masks
from compensation.objective import contrast, effort, flutter, hiss, roughness
from compensation.prescriptions import nal_r, nal_r_compressed
from compensation.streaming import Stream
from compensation.waveform import Waveform
from evaluation.artefacts import artefacts
from evaluation.intelligibility import estoi, haspi
from evaluation.neural import discrepancy
from evaluation.quality import hasqi, pesq, si_sdr
from evaluation.table import Score
from icsim.audiogram import Audiogram
from icsim.counts import expected_counts
from icsim.simulation.animal import Animal, animal_from
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, calibrate, level, mix
from icsim.store import Cohort
from icsim.weights import load_network
from recipes import ears, figures
from recipes.benchmark_compensation.tables import LABELS
from recipes.fits import read_fit
from recipes.state import write_json
from recipes.train_compensation import Gauge

KINDS = ("speech", "noisy", "music", "instrument")
"""Classes of test sounds that an aid may meet."""

SILENT_DB_SPL = -200.0
"""Stands for silence, as JSON holds no infinity."""

Device = Callable[[Tensor, float, float], Tensor]
"""`(sound (B, T) [Pa], noise_reduction, gain) -> (B, T)`."""

Midbrain = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What to measure of one listener's devices."""

    cohort: str
    model: str
    """The BetaICNet that the aids were trained through."""
    fit: str
    """Of this listener, by `recipes.fit_theta`."""
    aids: dict[str, str]
    """Checkpoints by name of the device."""
    for_all: list[str]
    """Those of them that are for every listener, and reduce noise."""
    out: str
    """Where to, as JSON; sounds go beside it."""
    whole: bool
    """Prescriptions, best linear gains, scores, artefacts and sounds too, or restoration alone."""
    levels_db_spl: tuple[float, ...]
    snr_db: float
    excerpts: int
    excerpt_s: float
    speech: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Streaming:
    """Aids to be run as streams."""

    aids: dict[str, str]
    out: str


def judge(job: Judgement) -> None:
    """Everything about one listener, whom no aid was trained for but those of its own."""
    cohort, fit = Cohort.open(job.cohort), read_fit(job.fit)
    name, theta = fit.name, fit.theta
    animal, ear = animal_from(cohort.truth(name)), ears.audiogram(cohort, name)
    healthy_twin = animal.healthy()
    quiet = excerpts(cohort, KINDS, job, 1)
    impaired, normal = midbrains(job, theta)
    devices = aids(job.aids, theta, ear)
    middle = job.levels_db_spl[len(job.levels_db_spl) // 2]
    if job.whole:
        prescribed: dict[str, Device] = {
            "unprocessed": lambda sound, a, b: sound,
            "nal_r": lambda sound, a, b: nal_r(sound, ear),
            "nal_r_compressed": lambda sound, a, b: nal_r_compressed(sound, ear),
        }
        if group(cohort.truth(name)) != "normal":
            training = dataclasses.replace(job, excerpt_s=job.excerpt_s / 2)
            heard = calibrate(excerpts(cohort, KINDS, training, 3, split="train"), middle)
            true_pair = animal.expected_counts, healthy_twin.expected_counts
            prescribed["linear"] = _linear(impaired, normal, heard)
            prescribed["linear_truth"] = _linear(*true_pair, heard)
        devices = prescribed | devices
    speech = calibrate(excerpts(cohort, ("speech",), job, 2), middle)
    noise = noises(speech.shape, job.seed)
    noisy = mix(speech, noise, job.snr_db)
    conditions = {f"quiet, {db:g} dB SPL": calibrate(quiet, db) for db in job.levels_db_spl}
    conditions["noise"] = noisy
    found: dict = {"animal": name, "group": group(cohort.truth(name)), "restoration": {}}
    gauge = Gauge()
    gains_of: dict[str, list[Tensor]] = {device: [] for device in devices}
    pairs = {
        "truth": (animal.expected_counts, healthy_twin.expected_counts),
        "model": (impaired, normal),
    }
    for condition, sound in conditions.items():
        levels = gauge(sound)
        with torch.no_grad():
            processed = {name: process(sound, 0.0, 1.0) for name, process in devices.items()}
            gains = {name: gauge(after) - levels for name, after in processed.items()}
        found["restoration"][condition] = restored(pairs, processed, sound)
        for device, added in gains.items():
            gains_of[device].append(added)
            found["restoration"][condition][device]["gain_db"] = _by_level(added, levels)
    # Of the conditions in quiet, which come first and are of one length.
    quiet_levels = torch.cat([gauge(sound) for sound in list(conditions.values())[:-1]])
    found["guards"] = {
        device: guards(torch.cat(gains[:-1]), quiet_levels) for device, gains in gains_of.items()
    }
    if not job.whole:
        found["si_sdr_db"] = {}
        for device in job.aids:
            with torch.no_grad():
                denoised = devices[device](noisy, 1.0, 0.0)
            found["si_sdr_db"][device] = _mean(si_sdr(speech, denoised, SAMPLE_RATE))
    else:
        found["scores"] = scores(devices, speech, noisy, ear)
        found["noise_reduction"] = noise_reduction(devices, job.for_all, speech, noisy)
        found["artefacts"] = {}
        for device in job.aids:
            process = devices[device]
            with torch.no_grad():
                spurs = artefacts(lambda sound, process=process: process(sound, 1.0, 1.0))
            silence_db = max(spurs.silence_db, SILENT_DB_SPL)
            found["artefacts"][device] = {"spur_db": spurs.spur_db, "silence_db": silence_db}
        _keep(Path(job.out), devices, noisy[0], animal, healthy_twin)
    path = Path(job.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)


def group(truth: dict) -> str:
    """Of a simulated animal: normal, hidden, mild or severe; severe is the typical loss or more."""
    if truth["hearing"] != "HI":
        return {"NH": "normal", "hidden": "hidden"}[truth["hearing"]]
    return "severe" if truth["severity"] >= 1 else "mild"


def stream(job: Streaming) -> None:
    """Delay of an impulse and real-time factor on one core, of each aid."""
    found, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    for name, path in job.aids.items():
        aid, _ = load_network(path, Masks, Waveform)
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


def aids(paths: dict[str, str], theta: Tensor, ear: Audiogram) -> dict[str, Device]:
    """Trained aids, each told of the listener what it wants to know."""

    def device(path: str) -> Device:
        aid, facts = load_network(path, Masks, Waveform)
        by_theta = facts["listener"] == "theta"
        told = theta if by_theta else from_audiogram(ear, audiogram_hz(facts))
        most = float(facts["noise_reduction"])
        return lambda sound, a, b: aid.process(sound, told.expand(len(sound), -1), most * a, b)

    return {name: device(path) for name, path in paths.items()}


def midbrains(job: Judgement, theta: Tensor) -> tuple[Midbrain, Midbrain]:
    """What the learned model says of the listener, and of normal animals on average."""
    known, _ = ears.learned(job.model)
    model, normal = known.loss.model, known.normal

    def respond(listeners: Tensor) -> Midbrain:
        return lambda sound: expected_counts(
            model.decode(model.latent(sound), listeners.unsqueeze(0))
        ).mean(1)

    return respond(theta[None]), respond(normal)


def excerpts(
    cohort: Cohort, kinds: tuple[str, ...], job: Judgement, stream: int, split: str = "test"
) -> Tensor:
    """Excerpts of the loudest parts of sounds of each kind in turn, `(B, T)`, any amplitude."""
    draw = np.random.default_rng([job.seed, stream])
    samples = round(job.excerpt_s * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    by_kind = {
        kind: [
            sound
            for sound in cohort.sounds
            if sound.split == split and sound.kind == kind and sound.samples >= samples
        ]
        for kind in kinds
    }
    present = [kind for kind in kinds if by_kind[kind]]
    if not present:
        raise ValueError(f"no {split} sound of {', '.join(kinds)} has {job.excerpt_s} s")
    chosen = []
    for i in range(job.speech if kinds == ("speech",) else job.excerpts):
        sounds = by_kind[present[i % len(present)]]
        sound = cohort.pressure(sounds[draw.integers(len(sounds))].index)
        starts = draw.integers(len(sound) - samples + 1, size=4)
        chosen.append(max((sound[s : s + samples] for s in starts), key=lambda x: level(x).item()))
    return torch.stack(chosen)


def noises(shape: torch.Size, seed: int) -> Tensor:
    """Speech-shaped noise, `(B, T)`."""
    draw = np.random.default_rng([seed, 4])
    return torch.stack([speech_shaped_noise(shape[1], draw) for _ in range(shape[0])])


@torch.no_grad()
def restored(
    pairs: dict[str, tuple[Midbrain, Midbrain]], processed: dict[str, Tensor], sound: Tensor
) -> dict[str, dict]:
    """Discrepancies with each device and without, summed over sounds.

    Args:
        pairs: An impaired and a normal midbrain, by name.
        processed: What each device makes of the sound, `(B, T)`.
        sound: What the normal midbrain hears, `(B, T)`.

    Returns:
        By device and pair.
    """
    found: dict[str, dict] = {device: {} for device in processed}
    for name, (impaired, normal) in pairs.items():
        target = normal(sound)
        unaided = discrepancy(impaired(sound), target).sum().item()
        for device, after in processed.items():
            aided = discrepancy(impaired(after), target).sum().item()
            found[device][name] = [aided, unaided]
    return found


def guards(gains: Tensor, levels: Tensor) -> dict[str, float]:
    """The terms that guard, as they are after training, of gains and levels `(B, bands, L)`."""
    return {
        "roughness": roughness(gains).mean().item(),
        "flutter": flutter(gains).mean().item(),
        "effort": effort(gains).mean().item(),
        "hiss": hiss(gains, levels).mean().item(),
        "contrast": contrast(gains, levels).mean().item(),
    }


def scores(
    devices: dict[str, Device], speech: Tensor, noisy: Tensor, ear: Audiogram
) -> dict[str, dict[str, float | None]]:
    """HASPI in noise and HASQI in quiet, means over sounds."""
    found = {}
    for device, process in devices.items():
        with torch.no_grad():
            in_noise, in_quiet = process(noisy, 1.0, 1.0), process(speech, 1.0, 1.0)
        found[device] = {
            "haspi": _mean(haspi(speech, in_noise, SAMPLE_RATE, ear)),
            "haspi_quiet": _mean(haspi(speech, in_quiet, SAMPLE_RATE, ear)),
            "hasqi": _mean(hasqi(speech, in_quiet, SAMPLE_RATE, ear)),
        }
    return found


def noise_reduction(
    devices: dict[str, Device], names: list[str], speech: Tensor, noisy: Tensor
) -> dict[str, dict[str, dict[str, float | None]]]:
    """What turning up the noise mask does, without compensation: scores by device and exponent."""
    metrics = {"estoi": estoi, "pesq": pesq, "si_sdr_db": si_sdr}
    found: dict = {}
    for device in names:
        found[device] = {}
        for a in (0.0, 0.5, 1.0):
            with torch.no_grad():
                after = devices[device](noisy, a, 0.0)
            found[device][f"{a:g}"] = {
                name: _mean(metric(speech, after, SAMPLE_RATE)) for name, metric in metrics.items()
            }
    return found


def _linear(impaired: Midbrain, normal: Midbrain, sound: Tensor) -> Device:
    with torch.no_grad():
        target = normal(sound)
    gains_db = best_linear_gain(impaired, target, sound)
    return lambda sound, a, b: apply(sound, gains_db)


def _by_level(gains_db: Tensor, levels_db: Tensor) -> list[float]:
    """Mean gain of each band where something is to be heard [dB], `(bands,)`."""
    audible = (levels_db > 20).float()
    return ((gains_db * audible).sum((0, 2)) / audible.sum((0, 2)).clamp(min=1)).tolist()


def _mean(score: Score) -> float | None:
    values = score.values[~score.values.isnan()]
    return values.mean().item() if len(values) else None


def _keep(
    path: Path, devices: dict[str, Device], noisy: Tensor, animal: Animal, twin: Animal
) -> None:
    """One noisy sentence by every device: to listen to, as spectrograms and as responses."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        heard = {name: process(noisy[None], 1.0, 1.0)[0] for name, process in devices.items()}
        shown = {"healthy twin, no aid": twin.expected_counts(noisy[None])[0]}
        for name, sound in heard.items():
            shown[LABELS[name]] = animal.expected_counts(sound[None])[0]
    drawn = figures.responses(list(shown.values()), list(shown), cf_hz=animal.cf_hz)
    drawn.savefig(folder / "responses.png", dpi=110)
    named = {LABELS[name]: sound for name, sound in heard.items()}
    figures.spectrograms(named).savefig(folder / "spectrograms.png", dpi=110)
    loudest = max(sound.abs().max() for sound in heard.values())
    for name, sound in heard.items():
        # 0.06 Hz off in 24 kHz is not heard, and files hold whole rates.
        soundfile.write(
            folder / f"{name}.flac", (0.9 * sound / loudest).numpy(), round(SAMPLE_RATE)
        )
