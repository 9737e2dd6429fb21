"""Train BetaICNet, ABRNet or ICNet: `python -m recipes.train_ic --config CONFIG.yaml`.

Configurations are in `recipes/configs/train_ic`.

Run the same command again to go on; start it with `accelerate launch -m` for several processes.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from icsim.conditional import BetaICNet
from icsim.counts import expected_counts
from icsim.frames import Frames
from icsim.icnet import EncoderConfig
from icsim.objective import cross_entropy, listener_divergence, threshold_penalty
from icsim.optimiser import Muon, split_parameters
from icsim.recording import ALIGNMENT
from icsim.seeds import seeded
from icsim.store import Cohort
from icsim.theta import movement, separation
from icsim.weights import save_network
from recipes import figures, networks
from recipes.ranges import Count, CountOrZero, NotEmptyStr, NotNegative, Positive, Seed, checked
from recipes.state import (
    autocast,
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
class Config:
    """One training run; the defaults are the published settings, but for the `listener_rate` and
    the `clip`, of which the paper says nothing."""

    cohort: NotEmptyStr
    """Cohort to learn from."""
    out: NotEmptyStr
    """Folder of the run."""
    network: networks.Kind = "beta"
    """BetaICNet, ABRNet, or ICNet with a branch an animal."""
    animals: list[NotEmptyStr] | None = None
    """Animals to learn from; by default all that are `seen`."""
    alignment: NotEmptyStr = ALIGNMENT
    """Which alignment of the cohort; ICNet needs none."""
    parameters: Count = 6
    """Dimensions of θ."""
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
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""
    fusion_size: Count = 16
    """Taps of the fusion's convolutions."""
    shared_drift: bool = True
    """One time transfer for all animals, or one for each."""
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
    """Factor on it for the listeners' means."""
    kernel_rate: Positive | None = None
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

    __post_init__ = checked


def train(config: Config) -> Path:
    """Train, or go on training; returns the path of the best network so far."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    out = Path(config.out)
    cohort = Cohort.open(config.cohort)
    names = config.animals or cohort.animals("seen")
    normal = [name for name in names if cohort.animal(name).status == "NH"]
    frames = {split: Frames(cohort, names, split) for split in ("train", "validation")}
    known = networks.brains(cohort, names, config.alignment, config.network)
    torch.manual_seed(config.seed)
    drift, size = config.shared_drift, config.fusion_size
    model = networks.make(
        config.network, known, config.encoder, config.parameters, drift, config.seed, size
    )
    networks.start(model, known, frames["train"], config.begin_from)
    if accelerator.is_main_process:
        claim(out, config)
    optimiser = Muon(_parameter_groups(model, config))
    model, optimiser = accelerator.prepare(model, optimiser)
    plain = accelerator.unwrap_model(model)
    progress = load_state(out / "state.safetensors", {"model": plain}, optimiser) or {
        "step": 0,
        "sums": {},
        "history": [],
        "start": networks.listener_values(plain),
    }
    # A run that goes on has moved already, but began where its state says.
    start = progress["start"] and {k: torch.tensor(v) for k, v in progress["start"].items()}
    if "matching" in progress:
        known = dataclasses.replace(known, matching=torch.tensor(progress["matching"]))
    per_epoch = math.ceil(len(frames["train"]) / config.batch)
    writer = SummaryWriter(out) if accelerator.is_main_process else None
    bar = tqdm(
        total=config.epochs * per_epoch,
        initial=progress["step"],
        desc="training IC model",
        unit="step",
        disable=not accelerator.is_main_process,
    )
    saved = time.monotonic()
    while not _finished(progress, config, per_epoch):
        epoch, first = divmod(progress["step"], per_epoch)
        frames["train"].epoch = epoch
        if first == 0 and epoch in config.rematch_epochs and config.network != "icnet":
            known = networks.rematch_known(plain, known, frames["train"])
            progress["matching"] = known.matching.tolist()
        for step, batch in _batches(frames["train"], config, epoch, first, accelerator):
            decay = rate_decay(config, progress["history"], epoch * per_epoch + step, per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = decay * group["rate"]
            optimiser.zero_grad()
            weight = known.weight[batch["animals"]].to(batch["sound"]) * batch["heard"][..., None]
            mine = weight.sum() * batch["counts"].shape[-1]
            batch |= {"weight": weight, "observations": accelerator.reduce(mine, "mean")}
            losses: dict[str, Tensor] = {}
            for rows in in_parts(len(weight), config.micro_batch, accelerator, model):
                terms = training_losses(model, plain, batch, rows, known, config, epoch, step)
                total = sum(terms.values())
                if not bool(total.isfinite()):
                    raise diverged("the loss", f"step {progress['step']}")
                accelerator.backward(total)
                losses = {name: losses.get(name, 0) + term.detach() for name, term in terms.items()}
            if config.clip is not None:
                accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            if config.network == "beta":
                plain.listeners.project()
            progress["step"] += 1
            for name, loss in everywhere(losses, accelerator).items():
                progress["sums"][name] = progress["sums"].get(name, 0.0) + loss
            bar.update()
            last = step + 1 == per_epoch
            if writer and not last and time.monotonic() - saved > config.save_every_s:
                save_state(out / "state.safetensors", {"model": plain}, optimiser, progress)
                saved = time.monotonic()
        record = {name: value / per_epoch for name, value in progress["sums"].items()}
        record["learning_rate"] = decay * config.learning_rate
        record["validation"] = validate(model, frames["validation"], known, config, accelerator)
        if config.network == "beta" and len(names) > 1:
            listeners = plain.listeners
            record["separation"] = separation(listeners.at(), listeners.deviation).item()
            record["movement"] = movement(listeners, start)
        best = min((r["validation"] for r in progress["history"]), default=math.inf)
        progress["history"].append(record)
        progress["sums"] = {}
        bar.set_postfix(nats=f"{record['validation']:.4f}")
        if writer:
            if record["validation"] < best:
                facts = networks.brain_facts(known) | {"start": progress["start"]}
                save_network(out / "model.safetensors", plain, normal=normal, **facts)
            save_state(out / "state.safetensors", {"model": plain}, optimiser, progress)
            saved = time.monotonic()
            _log(writer, plain, start, record, known, frames["validation"], epoch)
        accelerator.wait_for_everyone()
    bar.close()
    if writer:
        writer.close()
        note_channel_prior(out / "model.safetensors", frames["validation"])
    return out / "model.safetensors"


def note_channel_prior(path: Path, frames: Frames) -> None:
    """Keep with a finished BetaICNet how channels differ from what it says of them.

    New listeners are fitted with it. It comes from validation sounds, which trained nothing.
    """
    network, facts = networks.load(path)
    if isinstance(network, BetaICNet) and "channel_prior" not in facts:
        prior = networks.channel_prior(network, networks.known_brains(facts), frames)
        stored = {"mean": prior.mean.tolist(), "covariance": prior.covariance.tolist()}
        save_network(path, network, **facts, channel_prior=stored)


def training_losses(
    model,
    plain: nn.Module,
    batch: dict,
    rows: slice,
    known: networks.Brains,
    config: Config,
    *when: int,
) -> dict[str, Tensor]:
    """What some rows of a batch add to the weighted terms of the objective.

    Args:
        model: To be trained, possibly wrapped for several processes.
        plain: The same, not wrapped.
        batch: Of this process, with the `weight` of each answer and the mean over processes of how
            many `observations` they have.
        rows: Which of its frames.
        known: The animals.
        config: Of the run.
        when: Seeds the noise of θ.
    """
    chosen, noise = batch["animals"], None
    sound, hours, counts, weight = (
        batch[name][rows] for name in ("sound", "hours", "counts", "weight")
    )
    if config.network == "beta" and config.noise:
        shape = (batch["frames"], len(chosen), config.parameters)
        noise = torch.randn(shape, generator=seeded(config.seed, *when))[batch["rows"][rows]]
        noise = noise.to(sound)
    with autocast(config.precision, sound.device):
        predicted = networks.predict(model, known, sound, hours, chosen, noise)
    losses = {"cross_entropy": cross_entropy(predicted, counts, weight, batch["observations"])}
    if config.network != "beta":
        return losses
    listeners, thresholds = plain.listeners, known.thresholds_db_spl
    share = len(sound) / len(batch["sound"])
    divergence = listener_divergence(listeners.deviation)
    losses["divergence"] = share * config.kl_weight * divergence
    if thresholds is not None and len(thresholds) > 1 and when[0] < config.threshold_epochs:
        start = listeners.at()
        penalty = threshold_penalty(start, thresholds.to(start.device))
        losses["thresholds"] = share * config.threshold_weight * penalty
    return losses


@torch.no_grad()
def validate(
    model, frames: Frames, known: networks.Brains, config: Config, accelerator: Accelerator
) -> float:
    """Cross-entropy of all frames at the listeners' means [nats a bin and channel].

    Of sounds that were heard several times every presentation counts.
    """
    model.eval()
    total = torch.zeros(2, device=accelerator.device)
    for turn in range(frames.repeats):
        frames.epoch = turn
        for _, batch in _batches(frames, config, None, 0, accelerator):
            with autocast(config.precision, accelerator.device):
                predicted = networks.predict(model, known, batch["sound"], batch["hours"])
            weight = known.weight.to(batch["sound"]) * batch["heard"].unsqueeze(-1)
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
    loader = DataLoader(
        list(zip(mine, answering, strict=True)),
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


def _parameter_groups(model: nn.Module, config: Config) -> list[dict]:
    """Kernels, vectors and listeners' means, each with its rate; kernels alone decay.

    Tables of listeners are no matrices, which map one space to another, but a vector an animal:
    they are for Adam.
    """
    listeners = list(model.listeners.parameters()) if config.network == "beta" else []
    kernels, vectors = split_parameters(
        model, config.learning_rate, config.kernel_rate, apart=listeners
    )
    kernels["weight_decay"] = config.weight_decay
    if not listeners:
        return [kernels, vectors]
    means = model.listeners.mean
    vectors["params"] += [parameter for parameter in listeners if parameter is not means]
    rate = config.learning_rate * config.listener_rate
    return [kernels, vectors, {"params": [means], "orthogonal": False, "rate": rate}]


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
    model: nn.Module,
    start: dict[str, Tensor] | None,
    record: dict,
    known: networks.Brains,
    frames: Frames,
    epoch: int,
) -> None:
    """Scalars, the θ-space, how far listeners have moved, and one frame's responses."""
    for name, value in record.items():
        for part, number in value.items() if name == "movement" else [(name, value)]:
            writer.add_scalar(f"model/{part}", number, epoch)
    if isinstance(model, BetaICNet):
        theta, deviation = model.listeners.at().cpu(), model.listeners.deviation.cpu()
        statuses = [animal.status for animal in frames.animals]
        spaces = figures.theta_space(theta, deviation, known.names, statuses)
        writer.add_figure("theta", spaces, epoch)
        now = {name: value.cpu() for name, value in model.listeners.state_dict().items()}
        writer.add_figure("movement", figures.listener_movement(start, now, statuses), epoch)
    some = torch.arange(min(4, len(known.names)))
    batch = frames.read([0], some.tolist())
    device = next(model.parameters()).device
    sound, hours = batch["sound"].to(device), batch["hours"].to(device)
    predicted = networks.predict(model, known, sound, hours, some).log_probabilities()
    expected = expected_counts(predicted[0].cpu())
    images, titles = [], []
    for animal, recorded, meant in zip(some.tolist(), batch["counts"][0], expected, strict=True):
        kept = known.matching[animal] >= 0
        images += [recorded[kept].float(), meant[kept]]
        titles += [f"{known.names[animal]} {what}" for what in ("recorded", "predicted")]
    writer.add_figure("responses", figures.responses(images, titles), epoch)
    writer.flush()


if __name__ == "__main__":
    print(run(train, Config))
