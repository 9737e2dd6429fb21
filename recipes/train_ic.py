"""Train a response model: `python -m recipes.train_ic --config CONFIG.yaml`.

Configurations are in `recipes/configs/train_ic`: BetaICNet, ABRNet and ICNet are choices of
`condition`.

Run the same command again to go on; start it with `accelerate launch -m` for several processes.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from icsim.frames import Frames
from icsim.metrics import expected_counts
from icsim.models.conditions import ConditionConfig, Theta
from icsim.models.encoders import EncoderConfig
from icsim.models.facts import ModelFacts, cohort_facts
from icsim.models.listener_cost import channel_prior
from icsim.models.load import load_model, save_model
from icsim.models.matching import rematch_animals
from icsim.models.readouts import Categorical, ReadoutConfig
from icsim.models.response import ResponseModel
from icsim.models.start import begin_from, config_for, count_histogram
from icsim.objective import cross_entropy
from icsim.optimiser import Muon, split_parameters
from icsim.recording import ALIGNMENT
from icsim.seeds import seeded
from icsim.store import Cohort
from icsim.theta import BOUNDS
from recipes.reports import figures
from recipes.running.commands import claim, run
from recipes.running.ranges import (
    Count,
    CountOrZero,
    NotEmptyStr,
    NotNegative,
    Positive,
    Seed,
    checked,
)
from recipes.running.training import (
    autocast,
    diverged,
    everywhere,
    in_parts,
    load_state,
    read_ahead,
    save_state,
)


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """One training run; the defaults are the published settings, but for the `listener_rate` and
    the `clip`, of which the paper says nothing."""

    cohort: NotEmptyStr
    """Cohort to learn from."""
    out: NotEmptyStr
    """Folder of the run."""
    animals: list[NotEmptyStr] | None = None
    """Animals to learn from; by default all that are `seen`."""
    alignment: NotEmptyStr = ALIGNMENT
    """Which alignment of the cohort; branches need none."""
    encoder: EncoderConfig | None = None
    """Sound to what all listeners share; the published `sincnet` if not given."""
    condition: ConditionConfig | None = None
    """What makes listeners differ: `theta` is BetaICNet, and what is taken if none is given,
    `thresholds` ABRNet, `branches` ICNet. How many animals and thresholds there are follows from
    the cohort, its seed is this run's."""
    readout: ReadoutConfig | None = None
    """How counts are distributed: `categorical`, as published and if none is given, or
    `poisson`."""
    channel_gains: bool = False
    """Learn a gain and offsets of each channel of each animal, centred within the animal, so that θ
    need not say what belongs to electrodes."""
    begin_from: NotEmptyStr | None = None
    """Checkpoint to begin from: as published, of an ICNet of normal animals."""
    rematch_epochs: list[CountOrZero] = dataclasses.field(default_factory=list)
    """Epochs before which channels are matched again by likelihood: for better prediction at the
    cost of what θ says."""
    animals_a_step: Count | None = None
    """Animals that answer in a step, drawn anew for each; all if not given. Their answers to the
    same sounds say much the same, so that a few make steps cheaper and hardly worse."""
    noise: bool = True
    """Draw θ with its uncertainty; without, its mean is used."""
    batch: Count = 32
    """Frames a step, over all processes."""
    micro_batch: Count | None = None
    """Frames that a process works on at a time, whose gradients add up to the step's, where memory
    does not hold its share at once."""
    epochs: Count = 120
    """At most so many passes over the training sounds."""
    learning_rate: Positive = 4e-4
    """Of Adam."""
    listener_rate: NotNegative = 10.0
    """Factor on it for the means of θ."""
    deviation_rate: NotNegative = 10.0
    """The same for the logarithms of the deviations of θ."""
    drift_rate: NotNegative = 10.0
    """The same for shift, rate and onset of the time transfer, each in twentieths of the largest
    value that it can take."""
    muon_rate: Positive | None = None
    """Of Muon for all kernels; Adam, as published, if not given."""
    weight_decay: NotNegative = 0.0
    """Share of its rate by which each step shrinks kernels and matrices: against learning the noise
    of few sounds that were heard many times."""
    clip: Positive | None = 1.0
    """Largest norm of all gradients of a step together, which are scaled down to it: one unlucky
    batch moves Adam's averages no further than a usual one. The paper names none; no bound if
    null."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Halve after 4 epochs without gain and stop after 10, or fall to zero over all epochs."""
    kl_weight: NotNegative = 1e-3
    """Of the listeners' divergence from their prior."""
    gain_weight: NotNegative = 5e-5
    """Of half the squares of channels' log-gains and offsets: a prior of deviation one, as strong
    as it is beside seven minutes of sound, of which 20 ms count as one observation."""
    threshold_weight: NotNegative = 0.02
    """Of the threshold penalty."""
    threshold_epochs: CountOrZero = 10
    """Epochs with the threshold penalty."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of the convolutions; losses and filters stay in float32."""
    save_every_s: NotNegative = 120.0
    """Longest time of work that a killed run loses [s]."""
    workers: CountOrZero = 0
    """Processes that read frames ahead; 0 reads in this one."""
    seed: Seed = 0
    """Of weights, order and noise."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What every epoch of a run needs."""

    config: Config
    accelerator: Accelerator
    model: nn.Module
    """To be trained, possibly wrapped for several processes."""
    plain: ResponseModel
    """The same, not wrapped."""
    optimiser: torch.optim.Optimizer
    frames: Frames
    """Of training."""
    validation: Frames
    writer: SummaryWriter | None
    """Of the main process alone, as are files."""

    @property
    def out(self) -> Path:
        """Its folder."""
        return Path(self.config.out)

    @property
    def steps_an_epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.frames) / self.config.batch)

    def save(self, progress: dict) -> None:
        """What it needs to go on from here."""
        state = self.out / "state.safetensors"
        save_state(state, {"model": self.plain}, self.optimiser, progress)


def train(config: Config) -> Path:
    """Train, or go on training; returns the path of the best model so far."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    cohort = Cohort.open(config.cohort)
    names = config.animals or cohort.animals("seen")
    facts = cohort_facts(cohort, names, config.alignment)
    torch.manual_seed(config.seed)
    parts = config.encoder, config.condition, config.readout
    sizes = config_for(cohort, facts, *parts, config.seed, config.channel_gains)
    model = ResponseModel(sizes)
    frames = Frames(cohort, names, "train", model.context_bins)
    validation = Frames(cohort, names, "validation", model.context_bins)
    model.readout.start_at(count_histogram(model, facts, frames))
    if config.begin_from:
        begin_from(model, facts, *load_model(config.begin_from))
    if accelerator.is_main_process:
        claim(Path(config.out), config)
    optimiser = Muon(parameter_groups(model, config))
    model, optimiser = accelerator.prepare(model, optimiser)
    plain = accelerator.unwrap_model(model)
    writer = SummaryWriter(config.out) if accelerator.is_main_process else None
    training = Run(config, accelerator, model, plain, optimiser, frames, validation, writer)
    # A run that goes on has moved already, but began where its state says.
    facts = dataclasses.replace(facts, start=plain.condition.learned())
    state = Path(config.out) / "state.safetensors"
    progress = load_state(state, {"model": plain}, optimiser) or {
        "step": 0,
        "sums": {},
        "history": [],
        "start": facts.to_json().get("start"),
    }
    _run_epochs(training, _gone_on(facts, progress), progress)
    if writer:
        writer.close()
        note_channel_prior(training.out / "model.safetensors", validation)
    return training.out / "model.safetensors"


def _gone_on(facts: ModelFacts, progress: dict) -> ModelFacts:
    """What is known of the animals, as a run that goes on has it."""
    start = progress["start"] and {k: torch.tensor(v) for k, v in progress["start"].items()}
    facts = dataclasses.replace(facts, start=start)
    if "matching" in progress:
        facts = dataclasses.replace(facts, matching=torch.tensor(progress["matching"]))
    return facts


def _run_epochs(training: Run, facts: ModelFacts, progress: dict) -> None:
    """All epochs that are left."""
    config, condition = training.config, training.plain.condition
    with tqdm(
        total=config.epochs * training.steps_an_epoch,
        initial=progress["step"],
        desc="training response model",
        unit="step",
        disable=not training.accelerator.is_main_process,
    ) as bar:
        while not _finished(progress, config, training.steps_an_epoch):
            epoch, first = divmod(progress["step"], training.steps_an_epoch)
            training.frames.epoch = epoch
            if first == 0 and epoch in config.rematch_epochs and condition.shares_channels:
                facts = rematch_animals(training.plain, facts, training.frames)
                progress["matching"] = facts.matching.tolist()
            _run_steps(training, facts, progress, bar)
            record = _record(training, facts, progress)
            bar.set_postfix(nats=f"{record['validation']:.4f}")
            best = min((r["validation"] for r in progress["history"]), default=math.inf)
            progress["history"].append(record)
            progress["sums"] = {}
            if training.writer:
                if record["validation"] < best:
                    save_model(training.out / "model.safetensors", training.plain, facts)
                training.save(progress)
                _log(training.writer, training.plain, facts, record, training.validation, epoch)
            training.accelerator.wait_for_everyone()


def _run_steps(training: Run, facts: ModelFacts, progress: dict, bar: tqdm) -> None:
    """What is left of an epoch's steps; their losses add up in the progress's `sums`."""
    config, accelerator, saved = training.config, training.accelerator, time.monotonic()
    per_epoch = training.steps_an_epoch
    epoch, first = divmod(progress["step"], per_epoch)
    for step, batch in _batches(training.frames, config, epoch, first, accelerator):
        decay = rate_decay(config, progress["history"], progress["step"], per_epoch)
        for group in training.optimiser.param_groups:
            group["lr"] = decay * group["rate"]
        losses = _step(training, facts, batch, epoch, step)
        progress["step"] += 1
        for name, loss in everywhere(losses, accelerator).items():
            progress["sums"][name] = progress["sums"].get(name, 0.0) + loss
        bar.update()
        last = step + 1 == per_epoch
        if training.writer and not last and time.monotonic() - saved > config.save_every_s:
            training.save(progress)
            saved = time.monotonic()


def _step(
    training: Run, facts: ModelFacts, batch: dict[str, Any], epoch: int, step: int
) -> dict[str, Tensor]:
    """Learn from a batch; returns the terms of its loss."""
    config, accelerator, model = training.config, training.accelerator, training.model
    training.optimiser.zero_grad()
    weight = facts.weight[batch["animals"]].to(batch["sound"]) * batch["heard"][..., None]
    mine = weight.sum() * batch["counts"].shape[-1]
    batch = batch | {"weight": weight, "observations": accelerator.reduce(mine, "mean")}
    losses: dict[str, Tensor] = {}
    for rows in in_parts(len(weight), config.micro_batch, accelerator, model):
        terms = training_losses(training, facts, batch, rows, epoch, step)
        total = torch.stack(list(terms.values())).sum()
        if not bool(total.isfinite()):
            raise diverged("the loss", f"step {epoch * training.steps_an_epoch + step}")
        accelerator.backward(total)
        losses = {name: losses.get(name, 0) + term.detach() for name, term in terms.items()}
    if config.clip is not None:
        accelerator.clip_grad_norm_(model.parameters(), config.clip)
    training.optimiser.step()
    training.plain.condition.project()
    if training.plain.channel_gains:
        training.plain.channel_gains.centre(facts.weight.to(losses["cross_entropy"].device))
    return losses


def _record(training: Run, facts: ModelFacts, progress: dict) -> dict[str, Any]:
    """What is noted of an epoch that has ended."""
    config, per_epoch = training.config, training.steps_an_epoch
    last = rate_decay(config, progress["history"], progress["step"] - 1, per_epoch)
    return {
        **{name: value / per_epoch for name, value in progress["sums"].items()},
        "learning_rate": last * config.learning_rate,
        "validation": validate(training, facts),
        **training.plain.condition.measures(facts.start),
    }


def note_channel_prior(path: Path, frames: Frames) -> None:
    """Keep with a finished model of θ how channels differ from what it says of them.

    New listeners are fitted with it. It comes from validation sounds, which trained nothing.
    """
    model, facts = load_model(path)
    gains_are_known = isinstance(model.readout, Categorical) and facts.channel_prior is None
    if isinstance(model.condition, Theta) and gains_are_known:
        prior = channel_prior(model, facts, frames)
        save_model(path, model, dataclasses.replace(facts, channel_prior=prior))


def training_losses(
    training: Run, facts: ModelFacts, batch: dict[str, Any], rows: slice, epoch: int, step: int
) -> dict[str, Tensor]:
    """What some rows of a batch add to the weighted terms of the objective.

    Args:
        training: The run.
        facts: Of the animals.
        batch: Of this process, with the `weight` of each answer and the mean over processes of how
            many `observations` they have.
        rows: Which of its frames.
        epoch: With the step, it seeds the noise of listeners.
        step: Of the epoch.
    """
    config, condition = training.config, training.plain.condition
    chosen, noise = batch["animals"], None
    sound, hours, counts, weight = (
        batch[name][rows] for name in ("sound", "hours", "counts", "weight")
    )
    if config.noise and condition.noise_size:
        shape = (batch["frames"], len(chosen), condition.noise_size)
        drawn = torch.randn(shape, generator=seeded(config.seed, epoch, step))
        noise = drawn[batch["rows"][rows]].to(sound)
    with autocast(config.precision, sound.device):
        predicted = training.model(sound, facts.subjects(chosen, hours, noise, sound.device))
    losses = {"cross_entropy": cross_entropy(predicted, counts, weight, batch["observations"])}
    share = len(sound) / len(batch["sound"])
    weights = {"divergence": config.kl_weight, "thresholds": config.threshold_weight}
    penalties = condition.penalties(facts.thresholds_db_spl)
    if training.plain.channel_gains:
        weights["channel_gains"] = config.gain_weight
        penalties["channel_gains"] = training.plain.channel_gains.penalty(facts.weight.to(sound))
    if epoch >= config.threshold_epochs:
        penalties.pop("thresholds", None)
    return losses | {name: share * weights[name] * term for name, term in penalties.items()}


@torch.no_grad()
def validate(training: Run, facts: ModelFacts) -> float:
    """Cross-entropy of all validation frames at the listeners' means [nats a bin and channel].

    Of sounds that were heard several times every presentation counts.
    """
    model, frames, accelerator = training.model, training.validation, training.accelerator
    model.eval()
    total = torch.zeros(2, device=accelerator.device)
    everyone = range(len(facts.animals))
    for turn in range(frames.repeats):
        frames.epoch = turn
        for _, batch in _batches(frames, training.config, None, 0, accelerator):
            sound = batch["sound"]
            subjects = facts.subjects(everyone, batch["hours"], device=sound.device)
            with autocast(training.config.precision, accelerator.device):
                predicted = model(sound, subjects)
            weight = facts.weight.to(sound) * batch["heard"].unsqueeze(-1)
            loss = cross_entropy(predicted, batch["counts"], weight)
            total += torch.stack([loss * weight.sum(), weight.sum()])
    frames.epoch = None
    model.train()
    total = accelerator.reduce(total, reduction="sum")
    return (total[0] / total[1]).item()


def rate_decay(config: Config, history: list[dict], step: int, per_epoch: int) -> float:
    """Factor on all learning rates at a step, from what validation has shown so far."""
    if config.schedule == "cosine":
        warm = min(1.0, (step + 1) / 20)
        fraction = step / (config.epochs * per_epoch)
        return warm * 0.5 * (1 + math.cos(math.pi * fraction))
    return 0.5 ** _epochs_without_gain(history, every=4)[1]


def _batches(
    frames: Frames, config: Config, epoch: int | None, first: int, accelerator: Accelerator
) -> Iterator[tuple[int, dict]]:
    """Batches of this process, from batch `first` on; the order depends on seed and epoch alone.

    Each also says how many frames the whole batch has, which of them are this process's rows, and
    which animals answer.
    """
    everyone = list(range(len(frames.animals)))
    order = torch.arange(len(frames))
    if epoch is not None:
        order = torch.randperm(len(frames), generator=seeded(config.seed, epoch))
    whole = order.split(config.batch)[first:]
    rank, world = accelerator.process_index, accelerator.num_processes
    # A short last batch begins again from the start, so that no process is left without work.
    rows = [torch.arange(max(len(b), world))[rank::world] for b in whole]
    mine = [b[r % len(b)].tolist() for b, r in zip(whole, rows, strict=True)]
    answering = [everyone] * len(mine)
    if epoch is not None and config.animals_a_step:
        draws = (seeded(config.seed, epoch, first + n, 7) for n in range(len(mine)))
        picked = (torch.randperm(len(everyone), generator=draw) for draw in draws)
        answering = [sorted(order[: config.animals_a_step].tolist()) for order in picked]
    loader: DataLoader = DataLoader(
        list(zip(mine, answering, strict=True)),  # type: ignore[arg-type]  # it takes any sequence
        batch_size=None,
        collate_fn=functools.partial(_read, frames),
        num_workers=config.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    for index, batch in enumerate(read_ahead(loader)):
        sent = {k: v.to(accelerator.device, non_blocking=True) for k, v in batch.items()}
        sent |= {"frames": max(len(whole[index]), world), "rows": rows[index]}
        yield first + index, sent | {"animals": torch.tensor(answering[index])}


def _read(frames: Frames, job: tuple[list[int], list[int]]) -> dict[str, Tensor]:
    return frames.read(*job)


def parameter_groups(model: ResponseModel, config: Config) -> list[dict]:
    """Kernels, vectors, and what is learned of listeners, each with its rate; kernels alone decay.

    Tables of listeners and of channels are no matrices, which map one space to another, but a
    vector an animal: they are for Adam.
    """
    apart = model.condition.parameters_apart()
    if model.channel_gains:
        apart["channel_gains"] = list(model.channel_gains.parameters())
    listeners = [parameter for group in apart.values() for parameter in group]
    kernels, vectors = split_parameters(
        model, config.learning_rate, config.muon_rate, apart=listeners
    )
    kernels["weight_decay"] = config.weight_decay
    twentieths = {name: high / 20 for name, (_, high) in BOUNDS.items()}
    factors = {
        "mean": config.listener_rate,
        "deviation": config.deviation_rate,
        **{n: config.drift_rate * twentieths[n] for n in ("shift", "rate", "onset")},
    }
    rates = {name: config.learning_rate * factors.get(name, 1.0) for name in apart}
    tables = [
        {"params": group, "orthogonal": False, "rate": rates[name]} for name, group in apart.items()
    ]
    return [group for group in (kernels, vectors, *tables) if group["params"]]


def _finished(progress: dict, config: Config, per_epoch: int) -> bool:
    if progress["step"] >= config.epochs * per_epoch:
        return True
    return config.schedule == "plateau" and _epochs_without_gain(progress["history"], 10)[1] > 0


def _epochs_without_gain(history: list[dict], every: int) -> tuple[int, int]:
    """Epochs since the best validation, and how often `every` of them have passed in all."""
    best, since, times = math.inf, 0, 0
    for record in history:
        since = 0 if record["validation"] < best else since + 1
        best = min(best, record["validation"])
        times += since > 0 and since % every == 0
    return since, times


@torch.no_grad()
def _log(
    writer: SummaryWriter,
    model: ResponseModel,
    facts: ModelFacts,
    record: dict[str, Any],
    frames: Frames,
    epoch: int,
) -> None:
    """Scalars, the θ-space, how far listeners have moved, and one frame's responses."""
    for name, value in record.items():
        for part, number in value.items() if isinstance(value, dict) else [(name, value)]:
            writer.add_scalar(f"model/{part}", number, epoch)
    if isinstance(model.condition, Theta):
        listeners = model.condition.listeners
        theta, deviation = listeners.at().cpu(), listeners.deviation.cpu()
        statuses = [animal.status for animal in frames.animals]
        spaces = figures.theta_space(theta, deviation, facts.animals, statuses)
        writer.add_figure("theta", spaces, epoch)
        now = {name: value.cpu() for name, value in model.condition.learned().items()}
        if facts.start is not None:
            moved = figures.listener_movement(facts.start, now, statuses)
            writer.add_figure("movement", moved, epoch)
    some = list(range(min(4, len(facts.animals))))
    batch = frames.read([0], some)
    device = next(model.parameters()).device
    sound, hours = batch["sound"].to(device), batch["hours"].to(device)
    predicted = model(sound, facts.subjects(some, hours, device=device)).log_probabilities()
    expected = expected_counts(predicted[0].cpu())
    images, titles = [], []
    for animal, recorded, meant in zip(some, batch["counts"][0], expected, strict=True):
        matched = facts.matching[animal] >= 0
        images += [recorded[matched].float(), meant[matched]]
        titles += [f"{facts.animals[animal]} {what}" for what in ("recorded", "predicted")]
    shown = figures.responses(images, titles, bin_rate_hz=model.clock.bin_rate_hz)
    writer.add_figure("responses", shown, epoch)
    writer.flush()


if __name__ == "__main__":
    print(run(train, Config))
