"""Train an aid through a frozen model of hearing, for every listener of its learned space.

`python -m recipes.train_compensation --config recipes/configs/train_compensation/NAME.yaml`; run
the same command again to go on.
"""

import collections
import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from compensation.auditory import AuditoryModel
from compensation.bands import HOP, WINDOW, Bands, ShortTime
from compensation.data import PAUSE_DEPTH_DB, Mixtures, read_folder, require_clean
from compensation.listener import AUDIOGRAM_HZ, from_audiogram
from compensation.load import AidFacts, save_aid
from compensation.masks import Masks, MasksConfig
from compensation.objective import (
    Task,
    TaskWeights,
    compensation,
    contrast,
    denoising,
    discrepancy_left,
    distortion,
    effort,
    flutter,
    hiss,
    roughness,
)
from compensation.waveform import Waveform, WaveformConfig
from evaluation.kates import SHORTEST_S, haspi
from icsim.audiogram import Audiogram
from icsim.loss import ResponseLoss
from icsim.metrics import expected_counts
from icsim.optimiser import Muon, split_parameters
from icsim.seeds import seeded
from icsim.sound import SAMPLE_RATE, SPONTANEOUS
from icsim.store import Cohort
from icsim.theta import between_animals
from icsim.weights import fingerprint, load_network
from recipes import ears, figures
from recipes.ears import Ears
from recipes.fits import read_fit
from recipes.ranges import (
    ClosedUnitInterval,
    Count,
    CountOrZero,
    LevelDbSpl,
    NotEmptyStr,
    NotNegative,
    Positive,
    RatioDb,
    Seconds,
    Seed,
    checked,
)
from recipes.state import (
    claim,
    diverged,
    everywhere,
    in_parts,
    load_state,
    read_ahead,
    run,
    save_state,
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Of terms that guard against what the objective alone lets pass."""

    roughness: NotNegative = 0.05
    """Of the gain's second difference over bands."""
    flutter: NotNegative = 0.05
    """Of the gain's change from hop to hop."""
    effort: NotNegative = 0.002
    """Of the gain itself."""
    hiss: NotNegative = 0.05
    """Of gain for what nobody hears."""
    contrast: NotNegative = 0.2
    """Of compression beyond 3:1, and of expansion."""
    distortion: NotNegative = 0.5
    """Of what noise reduction leaves or makes that is not the clean sound."""
    intelligibility: NotNegative = 0.0
    """Of 1 − HASPI with both masks on; needs excerpts of 1 s, and time."""

    __post_init__ = checked


@dataclasses.dataclass(frozen=True)
class Plateau:
    """When a training no longer gains, judged on excerpts of the cohort's validation split."""

    every: Count = 20
    """Steps from one validation to the next; the first is before any step."""
    patience: Count = 2
    """Validations in a row without a gain that are a plateau."""
    drops: CountOrZero = 1
    """Plateaus after which learning rates fall to a quarter; at the next one training stops."""
    excerpts: Count = 24
    """Of the validation, in quiet and in noise as those of training."""

    __post_init__ = checked


CONTEXT_BINS = 64
"""Bins at the start of an excerpt that are context and not compared, as of a training frame of the
model. Source: arXiv 2506.03088."""

GAIN = 0.001
"""Share of the discrepancy by which a validation must be better than the best before it to count as
a gain (chosen here)."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run of an aid."""

    cohort: NotEmptyStr
    """Whose training sounds the aid hears, and which says who hears normally."""
    model: NotEmptyStr
    """The trained model, with condition `theta`."""
    out: NotEmptyStr
    """Folder of the run."""
    more_models: list[NotEmptyStr] = dataclasses.field(default_factory=list)
    """Others of the same animals: what all of them say is harder to exploit than what one says."""
    through: Literal["model", "auditory", "animal"] = "model"
    """What judges the sound: that model, the auditory model of human ears by audiogram, or the
    simulated animal of `only` itself, which no laboratory can do."""
    told: Literal["theta", "audiogram"] = "theta"
    """What the aid is told of its listener."""
    only: NotEmptyStr | None = None
    """A fit of `recipes.fit_theta`: the aid is for this listener alone."""
    begin_from: NotEmptyStr | None = None
    """Another aid of the same sizes to begin from."""
    network: Literal["masks", "waveform"] = "masks"
    """Which aid."""
    masks: MasksConfig = dataclasses.field(default_factory=MasksConfig)
    """Its sizes; `listener` follows from what the aid is told."""
    waveform: WaveformConfig = dataclasses.field(default_factory=WaveformConfig)
    """Its sizes; `listener` follows from what the aid is told."""
    steps: Count = 20_000
    """Training steps, the most of them where training ends at a plateau."""
    plateau: Plateau | None = None
    """Train until the aid stops gaining, and keep the best; None trains all steps and keeps the
    last."""
    batch: Count = 8
    """Excerpts a step, over all processes."""
    micro_batch: Count | None = None
    """Excerpts that a process works on at a time, whose gradients add up to the step's, where
    memory does not hold its share at once."""
    excerpt_s: Seconds = 1.0
    """Length of an excerpt [s]."""
    sounds: NotEmptyStr | None = None
    """Folder of sound files in place of the cohort's; `icsim.catalogue` says what is what."""
    pause_depth_db: NotNegative = PAUSE_DEPTH_DB
    """How far pauses must lie below speech for it to be taken as clean [dB]; where more than a
    tenth of the speech is noisier, training is refused. 0 takes everything."""
    reverberant: ClosedUnitInterval = 0.0
    """Share of excerpts heard in a room."""
    level_db_spl: tuple[LevelDbSpl, LevelDbSpl] = (45.0, 85.0)
    """Range of the excerpts' levels [dB SPL]."""
    snr_db: tuple[RatioDb, RatioDb] = (-5.0, 20.0)
    """Range of the signal-to-noise ratios of those with noise [dB]."""
    learning_rate: Positive = 1e-3
    """Of Adam; rates warm up over 20 steps and fall to zero along a cosine, or stay until a
    plateau."""
    matrix_rate: Positive | None = None
    """Of Muon for all matrices; Adam for them too if not given."""
    widening: NotNegative = 0.05
    """Spread of sampled listeners around and between the animals, in units of θ."""
    misfit: NotNegative = 0.0
    """Spread of what the aid is told around the listener that judges it, in units of θ: a fit is
    never exact."""
    noise_reduction: bool = True
    """Train the gains against noise too, or compensation alone."""
    weights: Weights = dataclasses.field(default_factory=Weights)
    """Of the terms that guard."""
    save_every_s: NotNegative = 120.0
    """Longest time of work that a killed run loses [s]."""
    workers: CountOrZero = 0
    """Processes that mix sounds ahead; 0 mixes in this one."""
    seed: Seed = 0
    """Of weights, sounds and listeners."""

    __post_init__ = checked


def train(config: Config) -> Path:
    """Train, or go on training; returns the path of the aid."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if config.batch % accelerator.num_processes:
        raise ValueError(
            f"batch {config.batch} cannot be shared evenly by {accelerator.num_processes} "
            "processes; choose a multiple"
        )
    out = Path(config.out)
    cohort = Cohort.open(config.cohort)
    heard_by, told, healthy, thresholds = listeners(config, cohort)
    sounds, held_out = mixtures(config, cohort), None
    if config.plateau:
        held_out = validation(config, cohort, heard_by, told, accelerator.device)
    torch.manual_seed(config.seed)
    aid, weights = make(config, told.shape[1]), TaskWeights(1 + config.noise_reduction)
    if accelerator.is_main_process:
        claim(out, config)
    losses = [one.loss.to(accelerator.device) for one in heard_by]
    matrices, vectors = split_parameters(aid, config.learning_rate, config.matrix_rate)
    vectors["params"].append(weights.log_variance)
    optimiser = Muon([matrices, vectors])
    aid, weights, optimiser = accelerator.prepare(aid, weights, optimiser)
    modules = {"aid": accelerator.unwrap_model(aid), "weights": accelerator.unwrap_model(weights)}
    if held_out:
        modules["best"] = copy.deepcopy(modules["aid"])
    gauge = Gauge().to(accelerator.device)
    state = out / "state.safetensors"
    progress = load_state(state, modules, optimiser) or {"step": 0, "history": []}
    if held_out and not progress["step"]:
        progress["validation"] = [validate(losses, modules, held_out, [], accelerator)]
    writer = SummaryWriter(out) if accelerator.is_main_process else None
    bar = tqdm(
        total=config.steps,
        initial=progress["step"],
        desc="training aid",
        unit="step",
        disable=not accelerator.is_main_process,
    )
    saved = time.monotonic()
    first = config.steps if stopped(config, progress) else progress["step"]
    loader = _loader(sounds, config, first, accelerator)
    for step, batch in enumerate(read_ahead(loader), progress["step"]):
        mixture, known, drawn = draw(config, heard_by, told, seeded(config.seed, step))
        rank = slice(accelerator.process_index, None, accelerator.num_processes)
        batch["known"] = known[rank]
        if config.weights.intelligibility:
            batch["thresholds"] = (mixture @ thresholds)[rank]
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        drawn = [tuple(who[rank].to(accelerator.device) for who in pair) for pair in drawn]
        split = len(batch["noisy"]), config.micro_batch, accelerator, aid, weights
        asked = [
            tasks(losses, *_rows(batch, drawn, rows), config.noise_reduction)
            for rows in in_parts(*split)
        ]
        count, usual = totals(batch, asked, accelerator)
        optimiser.zero_grad()
        terms: dict[str, Tensor] = {}
        for rows, wanted in zip(in_parts(*split), asked, strict=True):
            part, _ = _rows(batch, drawn, rows)
            values = training_terms(losses, aid, modules["aid"], part, wanted, usual, gauge, config)
            found = {name: each.sum() / count[name] for name, each in values.items()}
            share = len(part["noisy"]) / len(batch["noisy"])
            total = weights(torch.stack([found[name] for name in wanted]), share) + sum(
                weight * found[name]
                for name, weight in dataclasses.asdict(config.weights).items()
                if name in found
            )
            if not bool(total.isfinite()):
                raise diverged("the loss", f"step {step}")
            accelerator.backward(total)
            terms = {name: terms.get(name, 0) + each.detach() for name, each in found.items()}
        decay = rate_decay(config, step, progress.get("validation", []))
        for group in optimiser.param_groups:
            group["lr"] = decay * group["rate"]
        accelerator.clip_grad_norm_(aid.parameters(), 1.0)
        optimiser.step()
        record = everywhere(terms, accelerator)
        progress["history"].append(record)
        progress["step"] = step + 1
        if held_out and progress["step"] % config.plateau.every == 0:
            before = progress["validation"]
            before.append(validate(losses, modules, held_out, before, accelerator))
        bar.update()
        if writer:
            for name, value in record.items():
                writer.add_scalar(f"aid/{name}", value, step)
            if step % 10 == 0:
                recent = progress["history"][-30:]
                left = sum(r["compensation"] for r in recent) / len(recent)
                bar.set_postfix(discrepancy_left=f"{left:.2f}")
            done = progress["step"] == config.steps or stopped(config, progress)
            if done or time.monotonic() - saved > config.save_every_s:
                save_state(state, modules, optimiser, progress)
                _log(writer, modules["aid"], losses[0], batch, *drawn[0], step)
                saved = time.monotonic()
        if stopped(config, progress):
            break
    bar.close()
    if writer:
        facts = AidFacts(
            **trained(config, progress),
            healthy=tuple(map(tuple, healthy.tolist())),
            listener=config.told,
            audiogram_hz=AUDIOGRAM_HZ,
            noise_reduction=config.noise_reduction,
            model=fingerprint(config.model),
        )
        save_aid(out / "aid.safetensors", modules.get("best", modules["aid"]), facts)
        writer.close()
    accelerator.wait_for_everyone()
    return out / "aid.safetensors"


def plateaus(errors: Sequence[float], patience: int) -> int:
    """How often an error stayed for some validations without falling by `GAIN` below its best.

    After each plateau the next one is waited for anew.

    >>> plateaus([1.0, 0.8, 0.8, 0.9, 0.7, 0.7, 0.7], patience=2)
    2
    """
    best, since, count = math.inf, 0, 0
    for error in errors:
        since += 1
        if error < best - GAIN:
            best, since = error, 0
        elif since == patience:
            count, since = count + 1, 0
    return count


def stopped(config: Config, progress: dict) -> bool:
    """Whether training has come to its last plateau."""
    if config.plateau is None:
        return False
    return plateaus(progress["validation"], config.plateau.patience) > config.plateau.drops


def trained(config: Config, progress: dict) -> dict:
    """What is kept with an aid of its training: steps, and those up to the weights kept."""
    if config.plateau is None:
        return {"steps": progress["step"], "best_step": progress["step"]}
    errors = progress["validation"]
    return {
        "steps": progress["step"],
        "best_step": config.plateau.every * errors.index(min(errors)),
        "stopped_gaining": stopped(config, progress),
    }


class Gauge(nn.Module):
    """Measures levels in bands, and so what any aid adds to a sound."""

    def __init__(self):
        super().__init__()
        self.short_time = ShortTime(WINDOW, HOP)
        self.bands = Bands(33, self.short_time)

    def forward(self, sound: Tensor) -> Tensor:
        """`(B, T)` [Pa] to levels [dB SPL], `(B, bands, L)`."""
        return self.bands.levels(self.short_time.spectra(sound))


def make(config: Config, numbers: int) -> Masks | Waveform:
    """An aid that is told so many numbers of its listener, untrained or begun from another.

    Raises:
        ValueError: If the other has other sizes.
    """
    constructor, sizes = (
        (Masks, config.masks) if config.network == "masks" else (Waveform, config.waveform)
    )
    sizes = dataclasses.replace(sizes, listener=numbers)
    if config.begin_from is None:
        return constructor(sizes)
    aid, _ = load_network(config.begin_from, constructor)
    if aid.config != sizes:
        raise ValueError(f"{config.begin_from}: is of other sizes: {aid.config}")
    return aid.train()


def listeners(config: Config, cohort: Cohort) -> tuple[list[Ears], Tensor, Tensor, Tensor | None]:
    """Who judges, and who is to be helped.

    Returns:
        Ears that judge; what an aid is told of the same listeners, `(A, n)`; θ of the animals
        with normal hearing, `(n, P)`; and thresholds of the listeners at `AUDIOGRAM_HZ` [dB HL],
        `(A, F)`, if a term needs them.

    Raises:
        ValueError: If models know different animals, the fit is of another model, or excerpts are
            too short for a term.
    """
    if config.weights.intelligibility and config.excerpt_s < SHORTEST_S:
        raise ValueError(
            f"excerpts of {config.excerpt_s} s are too short for HASPI: give --excerpt_s "
            f"{SHORTEST_S:g} or more, or --weights.intelligibility 0"
        )
    fit = read_fit(config.only, fingerprint(config.model)) if config.only else None
    if fit and fit.model is None:
        raise ValueError(f"{config.only}: does not say to which model it was fitted; fit it again")
    if fit and config.more_models:
        raise ValueError(f"{config.only}: is no fit to the others of more_models; leave them out")
    if config.through == "animal" and not fit:
        raise ValueError("through: animal needs the fit of that animal in `only`")
    first, names = ears.learned(config.model, fit)
    if config.through == "model":
        heard_by = [first]
        for path in config.more_models:
            other, others = ears.learned(path)
            if others != names:
                raise ValueError(f"{path}: knows {others}, but {config.model} knows {names}")
            heard_by.append(other)
    elif config.through == "auditory":
        heard_by = [ears.modelled([ears.audiogram(cohort, name) for name in names])]
    else:
        heard_by = [ears.true(cohort, fit.name)]
    if config.told == "theta" and not config.weights.intelligibility:
        return heard_by, first.listeners, first.normal, None
    audiograms = [ears.audiogram(cohort, name) for name in names]
    thresholds = torch.stack([audiogram.at(AUDIOGRAM_HZ) for audiogram in audiograms]).float()
    if config.told == "theta":
        return heard_by, first.listeners, first.normal, thresholds
    told = torch.stack([from_audiogram(audiogram) for audiogram in audiograms])
    return heard_by, told, first.normal, thresholds


def draw(
    config: Config, heard_by: list[Ears], told: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """One batch of listeners.

    Returns:
        How much of each known one is in them `(B, A)`, what the aid is told `(B, n)`, and for each
        of the ears the listeners and the normal ones that they are restored to, `(B, F)` each.
    """
    mixture = between_animals(len(told), config.batch, generator)
    widening = 0.0 if config.only else config.widening
    drawn = [one.draw(mixture, widening, generator) for one in heard_by]
    same = config.through == "model" and config.told == "theta"
    known = drawn[0][0] if same else mixture @ told
    noise = config.misfit * torch.randn(known.shape, generator=generator)
    return mixture, (known + noise).clamp(0, 1), drawn


def tasks(
    losses: list[nn.Module],
    batch: dict[str, Tensor],
    drawn: list[tuple[Tensor, Tensor]],
    noise_reduction: bool = True,
) -> dict[str, list[Task]]:
    """What listeners should answer to some excerpts.

    Args:
        losses: Ears that judge.
        batch: Of `Mixtures`.
        drawn: For each of the ears its listeners and their references, as `draw` gives them.
        noise_reduction: With what normal ears should answer to noise.

    Returns:
        For each kind of task one of each of the ears.
    """
    noisy, in_noise = batch["noisy"], batch["in_noise"]
    judges = [(loss, *pair) for loss, pair in zip(losses, drawn, strict=True)]
    found = {
        "compensation": [
            compensation(loss, noisy, listener, normal, CONTEXT_BINS)
            for loss, listener, normal in judges
        ]
    }
    if noise_reduction:
        in_and_without = noisy[in_noise], batch["clean"][in_noise]
        found["denoising"] = [
            denoising(loss, *in_and_without, normal[in_noise], CONTEXT_BINS, task.wanted[in_noise])
            for (loss, _, normal), task in zip(judges, found["compensation"], strict=True)
        ]
    return found


def validation(
    config: Config,
    cohort: Cohort,
    heard_by: list[Ears],
    told: Tensor,
    device: torch.device,
) -> list[tuple[dict[str, Tensor], dict[str, list[Task]]]]:
    """Excerpts of the validation split with the listeners of each, and what these should answer."""
    sounds, parts = mixtures(config, cohort, "validation"), []
    for first in range(0, len(sounds), config.batch):
        places = range(first, min(first + config.batch, len(sounds)))
        batch = torch.utils.data.default_collate([sounds[place] for place in places])
        # Training draws by seed and step alone.
        _, batch["known"], drawn = draw(config, heard_by, told, seeded(config.seed, 0, first))
        batch = {name: value[: len(places)].to(device) for name, value in batch.items()}
        drawn = [tuple(who[: len(places)].to(device) for who in pair) for pair in drawn]
        losses = [one.loss.to(device) for one in heard_by]
        parts.append((batch, tasks(losses, batch, drawn, config.noise_reduction)))
    return parts


@torch.no_grad()
def validate(
    losses: list[nn.Module],
    modules: dict[str, nn.Module],
    held_out: list[tuple[dict[str, Tensor], dict[str, list[Task]]]],
    before: Sequence[float],
    accelerator: Accelerator,
) -> float:
    """Share of the discrepancies that the aid leaves, mean over tasks; the best aid is kept.

    Args:
        losses: Ears that judge.
        modules: The aid, and the `best` so far, which becomes this one if it leaves less.
        held_out: Of `validation`.
        before: What earlier validations gave.
        accelerator: Processes must agree on when to stop.
    """
    aid, left = modules["aid"], collections.defaultdict(list)
    for batch, asked in held_out:
        noisy = batch["noisy"]
        parts = aid(noisy, batch["known"])
        for name, by_ears in asked.items():
            if name == "compensation":
                processed = aid.render(noisy, parts, noise_reduction=0)
            else:
                processed = aid.render(noisy, parts, gain=0)[batch["in_noise"]]
            for loss, task in zip(losses, by_ears, strict=True):
                if len(processed):
                    after = loss(processed, task.listener, task.wanted, task.skip_bins)
                    left[name].append(torch.stack([after.sum(), task.unaided.sum()]))
    sums = torch.stack([torch.stack(pairs).sum(0) for pairs in left.values()])
    error = accelerator.reduce((sums[:, 0] / sums[:, 1]).mean(), "mean").item()
    if error < min(before, default=math.inf):
        modules["best"].load_state_dict(modules["aid"].state_dict())
    return error


def totals(
    batch: dict[str, Tensor], asked: list[dict[str, list[Task]]], accelerator: Accelerator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What parts of a batch must know of the whole.

    Args:
        batch: Of this process.
        asked: Tasks of each of its parts.
        accelerator: Of all processes.

    Returns:
        By term, how many excerpts have it, mean over processes; and by kind of task, how far each
        of the ears is from it without an aid, mean over all excerpts.
    """
    in_noise = batch["in_noise"]
    both = torch.stack([torch.ones_like(in_noise).sum(), in_noise.sum()]).to(batch["noisy"])
    # Where no process has noise, sums are zero whatever they are divided by.
    every, some = accelerator.reduce(both, "mean").clamp(min=1e-6)
    count = collections.defaultdict(lambda: every, denoising=some, distortion=some)
    usual = {}
    for name in asked[0]:
        by_ears = zip(*(part[name] for part in asked), strict=True)
        sums = torch.stack([sum(task.unaided.sum() for task in parts) for parts in by_ears])
        usual[name] = accelerator.reduce(sums, "mean") / count[name]
    return count, usual


def training_terms(
    losses: list[nn.Module],
    aid: nn.Module,
    plain: Masks | Waveform,
    batch: dict[str, Tensor],
    asked: dict[str, list[Task]],
    usual: dict[str, Tensor],
    gauge: Gauge,
    config: Config,
) -> dict[str, Tensor]:
    """Every term of the objective on some excerpts, one number for each that has it.

    Args:
        losses: Ears that judge.
        aid: To be trained, possibly wrapped for several processes.
        plain: The same, not wrapped.
        batch: Of `Mixtures`, with what the aid is told of each listener as `known`, and their
            `thresholds` if a term needs them.
        asked: Of `tasks`.
        usual: Of `totals`.
        gauge: Measures levels.
        config: Of the run.

    Raises:
        FloatingPointError: If what the aid makes of the sounds is not finite.
    """
    noisy, clean, in_noise = batch["noisy"], batch["clean"], batch["in_noise"]
    parts = aid(noisy, batch["known"])
    processed = {"compensation": plain.render(noisy, parts, noise_reduction=0)}
    if not bool(processed["compensation"].isfinite().all()):
        raise diverged("the aid's output")
    if "denoising" in asked:
        processed["denoising"] = plain.render(noisy, parts, gain=0)[in_noise]
    terms = {}
    for name, by_ears in asked.items():
        judges = zip(losses, by_ears, usual[name], strict=True)
        left = [discrepancy_left(loss, processed[name], *of_ears) for loss, *of_ears in judges]
        terms[name] = torch.stack(left).mean(0)
    if "denoising" in asked:
        terms["distortion"] = distortion(processed["denoising"], noisy[in_noise], clean[in_noise])
    levels = gauge(noisy)
    gains = gauge(processed["compensation"]) - levels
    terms |= {
        "roughness": roughness(gains),
        "flutter": flutter(gains),
        "effort": effort(gains),
        "hiss": hiss(gains, levels),
        "contrast": contrast(gains, levels),
    }
    if config.weights.intelligibility:
        heard = plain.render(noisy, parts)
        terms["intelligibility"] = unintelligible(clean, heard, batch["thresholds"])
    return terms


def unintelligible(clean: Tensor, heard: Tensor, thresholds_db_hl: Tensor) -> Tensor:
    """1 − HASPI of each sound, `(B,)`; 0 where there is none.

    Args:
        clean: `(B, T)` [Pa].
        heard: The same, processed.
        thresholds_db_hl: Of each listener at `AUDIOGRAM_HZ`, `(B, F)`.
    """
    found, ears_db_hl = [], [Audiogram(AUDIOGRAM_HZ, row) for row in thresholds_db_hl]
    for first, second, ear in zip(clean.split(1), heard.split(1), ears_db_hl, strict=True):
        # Where nothing of the clean sound is heard there is nothing to understand.
        value = 0 * second.sum(1)
        with contextlib.suppress(ValueError):
            value = 1 - haspi(first, second, SAMPLE_RATE, ear, noise=None)
        found.append(value.reshape(1))
    return torch.cat(found)


def mixtures(config: Config, cohort: Cohort, split: str = "train") -> Mixtures:
    """Excerpts of a folder's sounds, or of a split of the cohort's, alone and with noise.

    Raises:
        ValueError: If validation is wanted on sounds of a folder, which has no splits.
    """
    if config.sounds and config.plateau:
        raise ValueError(
            f"{config.sounds}: a folder has no validation split to find a plateau on; leave "
            "--plateau out, or --sounds"
        )
    if config.sounds:
        sounds = read_folder(config.sounds, progress=True, depth_db=config.pause_depth_db)
    else:
        heard = {
            sound: cohort.pressure(sound.index)
            for sound in cohort.sounds
            # Nobody will listen to ripples, and there is nothing to hear in silence.
            if sound.split == split and sound.kind not in ("ripple", SPONTANEOUS)
        }
        speech = {sound.name: p for sound, p in heard.items() if sound.kind == "speech"}
        if split == "train":
            require_clean(speech, config.pause_depth_db)
        sounds = {
            "speech": list(speech.values()),
            "others": [p for sound, p in heard.items() if sound.kind != "speech"],
        }
    return Mixtures(
        **sounds,
        samples=round(config.excerpt_s * SAMPLE_RATE),
        count=config.steps * config.batch if split == "train" else config.plateau.excerpts,
        seed=config.seed,
        level_db_spl=config.level_db_spl,
        snr_db=config.snr_db,
        reverberant=config.reverberant,
    )


def _loader(sounds: Mixtures, config: Config, first: int, accelerator: Accelerator) -> DataLoader:
    """This process's excerpts of every step from `first` on."""
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = [
        list(range(step * config.batch + rank, (step + 1) * config.batch, world))
        for step in range(first, config.steps)
    ]
    return DataLoader(sounds, batch_sampler=batches, num_workers=config.workers)


def _rows(
    batch: dict[str, Tensor], drawn: list[tuple[Tensor, Tensor]], rows: slice
) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """Some excerpts of a batch and their listeners."""
    part = {name: value[rows] for name, value in batch.items()}
    return part, [(listener[rows], normal[rows]) for listener, normal in drawn]


def rate_decay(config: Config, step: int, validation: Sequence[float] = ()) -> float:
    """Factor on all learning rates at a step."""
    warm = min(1.0, (step + 1) / 20)
    if config.plateau:
        return warm * 0.25 ** plateaus(validation, config.plateau.patience)
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


@torch.no_grad()
def _log(
    writer: SummaryWriter,
    aid: Masks | Waveform,
    loss: ResponseLoss,
    batch: dict[str, Tensor],
    listener: Tensor,
    normal: Tensor,
    step: int,
) -> None:
    """One excerpt before and after, as sound, spectrogram and response, to TensorBoard."""
    noisy, who, normal = batch["noisy"][:1], listener[:1], normal[:1]
    after = aid.process(noisy, batch["known"][:1], noise_reduction=0)
    loudest = max(noisy.abs().max(), after.abs().max())
    for name, sound in {"before": noisy, "after": after}.items():
        audible = 0.9 * (sound[0] / loudest).cpu()
        writer.add_audio(name, audible, step, sample_rate=round(SAMPLE_RATE))
    pictures = {"before": noisy[0].cpu(), "after": after[0].cpu()}
    writer.add_figure("spectrograms", figures.spectrograms(pictures), step)
    heard = {
        "normal, before": loss.respond(noisy, normal),
        "impaired, before": loss.respond(noisy, who),
        "impaired, after": loss.respond(after, who),
    }
    # The auditory model answers with samples where a midbrain has probabilities of counts.
    image = _mean_of_bins if isinstance(loss.model, AuditoryModel) else expected_counts
    images = [image(response)[0].cpu() for response in heard.values()]
    writer.add_figure("responses", figures.responses(images, list(heard)), step)
    writer.flush()


def _mean_of_bins(response: Tensor) -> Tensor:
    return response.mean(2)


if __name__ == "__main__":
    print(run(train, Config))
