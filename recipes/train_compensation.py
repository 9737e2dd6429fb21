"""Train an aid through a frozen model of hearing, for every listener of its learned space.

`python -m recipes.train_compensation --config recipes/configs/train_compensation/NAME.yaml`; run
the same command again to go on.
"""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from compensation import hearing
from compensation.auditory import AuditoryModel
from compensation.data import PAUSE_DEPTH_DB, Mixtures, read_folder, require_clean
from compensation.hearing import HearingModel
from compensation.learned_filters import LearnedFilters, LearnedFiltersConfig
from compensation.listener import AUDIOGRAM_HZ, from_audiogram
from compensation.load import AidFacts, load_aid, save_aid
from compensation.masks import Masks, MasksConfig
from compensation.objective import (
    TaskWeights,
)
from compensation.training import (
    BandLevels,
    Batch,
    Drawn,
    Tasks,
    discrepancy_left_over,
    draw_listeners,
    plateaus,
    rows_of,
    tasks,
    totals,
    training_terms,
)
from evaluation.haspi_hasqi import SHORTEST_S, haspi
from icsim.audiogram import Audiogram
from icsim.fits import read_fit
from icsim.loss import ResponseLoss
from icsim.metrics import expected_counts
from icsim.optimiser import Muon, split_parameters
from icsim.seeds import seeded
from icsim.sound import SAMPLE_RATE, SPONTANEOUS
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of
from icsim.weights import fingerprint
from recipes.reports import figures
from recipes.running.commands import claim, run
from recipes.running.ranges import (
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
from recipes.running.training import (
    diverged,
    everywhere,
    in_parts,
    load_state,
    read_ahead,
    save_state,
)


@dataclasses.dataclass(frozen=True)
@checked
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


@dataclasses.dataclass(frozen=True)
@checked
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


@dataclasses.dataclass(frozen=True)
@checked
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
    listener: Literal["theta", "audiogram"] = "theta"
    """What the aid is told of its listener."""
    only: NotEmptyStr | None = None
    """A fit of `recipes.fit_theta`: the aid is for this listener alone."""
    begin_from: NotEmptyStr | None = None
    """Another aid of the same sizes to begin from."""
    network: Literal["masks", "waveform"] = "masks"
    """Which aid."""
    masks: MasksConfig = dataclasses.field(default_factory=MasksConfig)
    """Its sizes; `listener` follows from what the aid is told."""
    waveform: LearnedFiltersConfig = dataclasses.field(default_factory=LearnedFiltersConfig)
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
    muon_rate: Positive | None = None
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


@dataclasses.dataclass(frozen=True)
class Listeners:
    """Whom an aid is trained for, and the models of hearing that say what it is worth to them."""

    models: list[HearingModel]
    known: Tensor
    """What an aid is given of each known listener, `(A, n)`."""
    healthy: Tensor
    """θ of the model's animals with normal hearing, `(n, P)`."""
    thresholds_db_hl: Tensor | None
    """Of the known listeners at `AUDIOGRAM_HZ`, `(A, F)`, if a term needs them."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What every step of a run needs."""

    config: Config
    accelerator: Accelerator
    models: list[ResponseLoss]
    """Frozen models of hearing that judge."""
    aid: nn.Module
    """To be trained, possibly wrapped for several processes."""
    weights: nn.Module
    """Of the kinds of task, learned; possibly wrapped."""
    modules: dict[str, nn.Module]
    """Aid and weights, not wrapped, and the `best` aid so far where training ends at a plateau."""
    optimiser: torch.optim.Optimizer
    held_out: list[tuple[Batch, Tasks]]
    """Excerpts of the validation split; none where training ends after all steps."""
    writer: SummaryWriter | None
    """Of the main process alone, as are files."""

    @property
    def plain(self) -> Masks | LearnedFilters:
        """The aid, not wrapped."""
        return cast(Masks | LearnedFilters, self.modules["aid"])

    @property
    def mine(self) -> slice:
        """Rows of a batch that this process works on."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def mean(self, values: Tensor) -> Tensor:
        """Over processes."""
        return self.accelerator.reduce(values, "mean")

    def save(self, progress: dict) -> None:
        """What it needs to go on from here."""
        save_state(state_of(self.config), self.modules, self.optimiser, progress)


def train(config: Config) -> Path:
    """Train, or go on training; returns the path of the aid."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if config.batch % accelerator.num_processes:
        raise ValueError(
            f"batch {config.batch} cannot be shared evenly by {accelerator.num_processes} "
            "processes; choose a multiple"
        )
    out, cohort = Path(config.out), Cohort.open(config.cohort)
    listeners = open_listeners(config, cohort)
    sounds, held_out = mixtures(config, cohort), []
    if config.plateau:
        held_out = validation(config, cohort, listeners, accelerator.device)
    torch.manual_seed(config.seed)
    aid = make(config, listeners.known.shape[1])
    weights = TaskWeights(1 + config.noise_reduction)
    if accelerator.is_main_process:
        claim(out, config)
    matrices, vectors = split_parameters(aid, config.learning_rate, config.muon_rate)
    vectors["params"].append(weights.log_variance)
    optimiser = Muon([matrices, vectors])
    aid, weights, optimiser = accelerator.prepare(aid, weights, optimiser)
    modules = {"aid": accelerator.unwrap_model(aid), "weights": accelerator.unwrap_model(weights)}
    if held_out:
        modules["best"] = copy.deepcopy(modules["aid"])
    models = [one.loss.to(accelerator.device) for one in listeners.models]
    writer = SummaryWriter(out) if accelerator.is_main_process else None
    training = Run(config, accelerator, models, aid, weights, modules, optimiser, held_out, writer)
    progress = load_state(state_of(config), modules, optimiser) or {"step": 0, "history": []}
    if held_out and not progress["step"]:
        progress["validation"] = [validate(training, [])]
    _run_steps(training, listeners, sounds, progress)
    if writer:
        facts = AidFacts(
            **trained(config, progress),
            healthy=tuple(map(tuple, listeners.healthy.tolist())),
            listener=config.listener,
            audiogram_hz=AUDIOGRAM_HZ,
            noise_reduction=config.noise_reduction,
            model=fingerprint(config.model),
        )
        save_aid(out / "aid.safetensors", modules.get("best", modules["aid"]), facts)
        writer.close()
    accelerator.wait_for_everyone()
    return out / "aid.safetensors"


def state_of(config: Config) -> Path:
    """The file from which a run goes on."""
    return Path(config.out) / "state.safetensors"


def _run_steps(training: Run, listeners: Listeners, sounds: Mixtures, progress: dict) -> None:
    """All steps that are left."""
    config, accelerator, saved = training.config, training.accelerator, time.monotonic()
    first = config.steps if stopped(config, progress) else progress["step"]
    loader = _loader(sounds, config, first, accelerator)
    gauge = BandLevels().to(accelerator.device)
    with tqdm(
        total=config.steps,
        initial=progress["step"],
        desc="training aid",
        unit="step",
        disable=not accelerator.is_main_process,
    ) as bar:
        for step, batch in enumerate(read_ahead(loader), progress["step"]):
            drawn = _with_listeners(training, listeners, batch, step)
            record = _step(training, batch, drawn, gauge, step, progress)
            progress["history"].append(record)
            progress["step"] = step + 1
            if config.plateau and progress["step"] % config.plateau.every == 0:
                progress["validation"].append(validate(training, progress["validation"]))
            bar.update()
            done = progress["step"] == config.steps or stopped(config, progress)
            if training.writer:
                for name, value in record.items():
                    training.writer.add_scalar(f"aid/{name}", value, step)
                if step % 10 == 0:
                    recent = progress["history"][-30:]
                    left = sum(r["compensation"] for r in recent) / len(recent)
                    bar.set_postfix(discrepancy_left=f"{left:.2f}")
                if done or time.monotonic() - saved > config.save_every_s:
                    training.save(progress)
                    _log(training.writer, training, batch, *drawn[0], step)
                    saved = time.monotonic()
            if done:
                break


def _with_listeners(training: Run, listeners: Listeners, batch: Batch, step: int) -> Drawn:
    """Put what the aid is given of each listener into a batch; returns the listeners, by model."""
    config, device, mine = training.config, training.accelerator.device, training.mine
    mixture, seen, drawn = draw(config, listeners, seeded(config.seed, step))
    batch["known"] = seen[mine]
    if config.weights.intelligibility and listeners.thresholds_db_hl is not None:
        batch["thresholds"] = (mixture @ listeners.thresholds_db_hl)[mine]
    for name, value in batch.items():
        batch[name] = value.to(device)
    return [(who[mine].to(device), normal[mine].to(device)) for who, normal in drawn]


def _step(
    training: Run, batch: Batch, drawn: Drawn, gauge: BandLevels, step: int, progress: dict
) -> dict[str, float]:
    """Learn from a batch; returns the terms of its loss, means over processes."""
    config, accelerator, models = training.config, training.accelerator, training.models
    size = len(batch["noisy"])
    parts = size, config.micro_batch, accelerator, training.aid, training.weights
    asked = [
        tasks(models, *rows_of(batch, drawn, rows), config.noise_reduction)
        for rows in in_parts(*parts)
    ]
    count, usual = totals(batch, asked, training.mean)
    training.optimiser.zero_grad()
    terms: dict[str, Tensor] = {}
    for rows, wanted in zip(in_parts(*parts), asked, strict=True):
        part, _ = rows_of(batch, drawn, rows)
        networks = training.aid, training.plain
        understood = unintelligible if config.weights.intelligibility else None
        try:
            values = training_terms(models, *networks, part, wanted, usual, gauge, understood)
        except FloatingPointError as error:
            raise diverged("the aid's output") from error
        means = {name: each.sum() / count[name] for name, each in values.items()}
        share = len(part["noisy"]) / size
        total = training.weights(torch.stack([means[name] for name in wanted]), share) + sum(
            weight * means[name]
            for name, weight in dataclasses.asdict(config.weights).items()
            if name in means
        )
        if not bool(total.isfinite()):
            raise diverged("the loss", f"step {step}")
        accelerator.backward(total)
        terms = {name: terms.get(name, 0) + each.detach() for name, each in means.items()}
    decay = rate_decay(config, step, progress.get("validation", []))
    for group in training.optimiser.param_groups:
        group["lr"] = decay * group["rate"]
    accelerator.clip_grad_norm_(training.aid.parameters(), 1.0)
    training.optimiser.step()
    return everywhere(terms, accelerator)


def validate(training: Run, before: Sequence[float]) -> float:
    """Share of the discrepancies that the aid leaves; the best aid is kept.

    Args:
        training: Its `best` becomes the aid of today if that leaves less than ever.
        before: What earlier validations gave.
    """
    left = discrepancy_left_over(training.models, training.plain, training.held_out)
    error = training.mean(left).item()  # processes must agree on when to stop
    if error < min(before, default=math.inf):
        training.modules["best"].load_state_dict(training.plain.state_dict())
    return error


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


def make(config: Config, numbers: int) -> Masks | LearnedFilters:
    """An aid that is told so many numbers of its listener, untrained or begun from another.

    Raises:
        ValueError: If the other has other sizes.
    """
    sizes: MasksConfig | LearnedFiltersConfig
    sizes = config.masks if config.network == "masks" else config.waveform
    sizes = dataclasses.replace(sizes, listener=numbers)
    if config.begin_from is None:
        return Masks(sizes) if isinstance(sizes, MasksConfig) else LearnedFilters(sizes)
    aid, _ = load_aid(config.begin_from)
    if aid.config != sizes:
        raise ValueError(f"{config.begin_from}: is of other sizes: {aid.config}")
    return aid.train()


def open_listeners(config: Config, cohort: Cohort) -> Listeners:
    """The models of hearing, and their listeners.

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
    first, names = hearing.learned(config.model, fit)
    if config.through == "model":
        models = [first]
        for path in config.more_models:
            other, others = hearing.learned(path)
            if others != names:
                raise ValueError(f"{path}: knows {others}, but {config.model} knows {names}")
            models.append(other)
    elif config.through == "auditory":
        models = [hearing.modelled([audiogram_of(cohort, name) for name in names])]
    elif fit:
        models = [hearing.true(cohort, fit.name)]
    else:
        raise ValueError("through: animal needs the fit of that animal in `only`")
    if config.listener == "theta" and not config.weights.intelligibility:
        return Listeners(models, first.listeners, first.normal, None)
    audiograms = [audiogram_of(cohort, name) for name in names]
    thresholds = torch.stack([audiogram.at(AUDIOGRAM_HZ) for audiogram in audiograms]).float()
    seen = first.listeners
    if config.listener == "audiogram":
        seen = torch.stack([from_audiogram(audiogram) for audiogram in audiograms])
    return Listeners(models, seen, first.normal, thresholds)


def draw(
    config: Config, listeners: Listeners, generator: torch.Generator
) -> tuple[Tensor, Tensor, Drawn]:
    """Listeners of one batch, as `draw_listeners` gives them."""
    return draw_listeners(
        listeners.models,
        listeners.known,
        config.batch,
        generator,
        theta=config.through == "model" and config.listener == "theta",
        widening=0.0 if config.only else config.widening,
        misfit=config.misfit,
    )


def validation(
    config: Config, cohort: Cohort, listeners: Listeners, device: torch.device
) -> list[tuple[Batch, Tasks]]:
    """Excerpts of the validation split with the listeners of each, and what these should answer."""
    sounds, parts = mixtures(config, cohort, "validation"), []
    models = [one.loss.to(device) for one in listeners.models]
    for first in range(0, len(sounds), config.batch):
        places = range(first, min(first + config.batch, len(sounds)))
        batch = torch.utils.data.default_collate([sounds[place] for place in places])
        # Training draws by seed and step alone.
        _, batch["known"], drawn = draw(config, listeners, seeded(config.seed, 0, first))
        batch = {name: value[: len(places)].to(device) for name, value in batch.items()}
        here = len(places)
        drawn = [(who[:here].to(device), normal[:here].to(device)) for who, normal in drawn]
        parts.append((batch, tasks(models, batch, drawn, config.noise_reduction)))
    return parts


def unintelligible(clean: Tensor, processed: Tensor, thresholds_db_hl: Tensor) -> Tensor:
    """1 − HASPI of each sound, `(B,)`; 0 where there is none.

    Args:
        clean: `(B, T)` [Pa].
        processed: What the aid makes of it in noise.
        thresholds_db_hl: Of each listener at `AUDIOGRAM_HZ`, `(B, F)`.
    """
    missing, audiograms = [], [Audiogram(AUDIOGRAM_HZ, row) for row in thresholds_db_hl]
    pairs = zip(clean.split(1), processed.split(1), audiograms, strict=True)
    for first, second, audiogram in pairs:
        # Where nothing of the clean sound is heard there is nothing to understand.
        value = 0 * second.sum(1)
        with contextlib.suppress(ValueError):
            value = 1 - haspi(first, second, SAMPLE_RATE, audiogram, noise=None)
        missing.append(value.reshape(1))
    return torch.cat(missing)


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
        sounds_of = {
            sound: cohort.pressure(sound.index)
            for sound in cohort.sounds
            # Nobody will listen to ripples, and there is nothing to hear in silence.
            if sound.split == split and sound.kind not in ("ripple", SPONTANEOUS)
        }
        speech = {sound.name: p for sound, p in sounds_of.items() if sound.kind == "speech"}
        if split == "train":
            require_clean(speech, config.pause_depth_db)
        sounds = {
            "speech": list(speech.values()),
            "others": [p for sound, p in sounds_of.items() if sound.kind != "speech"],
        }
    validated = config.plateau if split != "train" else None
    return Mixtures(
        speech=sounds["speech"],
        others=sounds["others"],
        noises=sounds.get("noises", ()),
        samples=round(config.excerpt_s * SAMPLE_RATE),
        count=validated.excerpts if validated else config.steps * config.batch,
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


def rate_decay(config: Config, step: int, validation: Sequence[float] = ()) -> float:
    """Factor on all learning rates at a step."""
    warm = min(1.0, (step + 1) / 20)
    if config.plateau:
        return warm * 0.25 ** plateaus(validation, config.plateau.patience)
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


@torch.no_grad()
def _log(
    writer: SummaryWriter, training: Run, batch: Batch, listener: Tensor, normal: Tensor, step: int
) -> None:
    """One excerpt before and after, as sound, spectrogram and response, to TensorBoard."""
    aid, loss = training.plain, training.models[0]
    noisy, who, normal = batch["noisy"][:1], listener[:1], normal[:1]
    after = aid.process(noisy, batch["known"][:1], noise_reduction=0)
    loudest = max(noisy.abs().max(), after.abs().max())
    for name, sound in {"before": noisy, "after": after}.items():
        audible = 0.9 * (sound[0] / loudest).cpu()
        writer.add_audio(name, audible, step, sample_rate=round(SAMPLE_RATE))
    pictures = {"before": noisy[0].cpu(), "after": after[0].cpu()}
    writer.add_figure("spectrograms", figures.spectrograms(pictures), step)
    examples = {
        "normal, before": loss.respond(noisy, normal),
        "impaired, before": loss.respond(noisy, who),
        "impaired, after": loss.respond(after, who),
    }
    # The auditory model answers with samples where a midbrain has probabilities of counts.
    image = _mean_of_bins if isinstance(loss.model, AuditoryModel) else expected_counts
    images = [image(response)[0].cpu() for response in examples.values()]
    writer.add_figure("responses", figures.responses(images, list(examples)), step)
    writer.flush()


def _mean_of_bins(response: Tensor) -> Tensor:
    return response.mean(2)


if __name__ == "__main__":
    print(run(train, Config))
