"""Train BetaICNet: `python -m recipes.train_ic --config recipes/configs/train_ic/NAME.yaml`.

Run the same command again to go on; start it with `accelerate launch -m` for several processes.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from icsim.conditional import BetaICNet, BetaICNetConfig
from icsim.frames import Frames
from icsim.icnet import CLASSES, EncoderConfig
from icsim.objective import cross_entropy, listener_divergence, threshold_penalty
from icsim.optimiser import Muon, split_parameters
from icsim.store import Cohort
from icsim.theta import separation
from icsim.weights import save_network
from recipes import figures
from recipes.state import autocast, claim, everywhere, load_state, run, save_state, seeded


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run; the defaults are the published settings."""

    cohort: str
    """Cohort to learn from; its animals that are `seen`, aligned before."""
    out: str
    """Folder of the run."""
    parameters: int = 6
    """Dimensions of θ."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""
    shared_drift: bool = True
    """One time transfer for all animals, or one for each."""
    batch: int = 32
    """Frames a step, over all processes."""
    epochs: int = 120
    """At most so many passes over the training sounds."""
    learning_rate: float = 4e-4
    """Of Adam."""
    listener_rate: float = 10.0
    """Factor on it for the listeners' means."""
    kernel_rate: float | None = None
    """Of Muon for all kernels; Adam, as published, if not given."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """Halve after 4 epochs without gain and stop after 10, or fall to zero over all epochs."""
    kl_weight: float = 1e-3
    """Of the listeners' divergence from their prior."""
    threshold_weight: float = 0.02
    """Of the threshold penalty."""
    threshold_epochs: int = 10
    """Epochs with the threshold penalty."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of the convolutions; losses and filters stay in float32."""
    save_every_s: float = 120.0
    """Longest time of work that a killed run loses [s]."""
    workers: int = 0
    """Processes that read frames ahead; 0 reads in this one."""
    seed: int = 0
    """Of weights, order and noise."""


def train(config: Config) -> Path:
    """Train, or go on training; returns the path of the best network so far."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    out = Path(config.out)
    if accelerator.is_main_process:
        claim(out, config)
    cohort = Cohort.open(config.cohort)
    names = cohort.animals("seen")
    frames = {split: Frames(cohort, names, split) for split in ("train", "validation")}
    thresholds = _thresholds(cohort, names)
    torch.manual_seed(config.seed)
    model = BetaICNet(
        BetaICNetConfig(
            animals=len(names),
            channels=frames["train"].channels,
            parameters=config.parameters,
            encoder=config.encoder,
            shared_drift=config.shared_drift,
            seed=config.seed,
        )
    )
    model.fusion.start_at(count_frequencies(frames["train"]))
    optimiser = Muon(_parameter_groups(model, config))
    model, optimiser = accelerator.prepare(model, optimiser)
    plain = accelerator.unwrap_model(model)
    progress = load_state(out / "state.safetensors", {"model": plain}, optimiser) or {
        "step": 0,
        "sums": {},
        "history": [],
    }
    facts = {"animals": names, "cohort": config.cohort}
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
        for step, batch in _batches(frames["train"], config, epoch, first, accelerator):
            decay = rate_decay(config, progress["history"], epoch * per_epoch + step, per_epoch)
            for group in optimiser.param_groups:
                group["lr"] = decay * group["rate"]
            losses = training_losses(model, plain, batch, thresholds, config, epoch, step)
            total = sum(losses.values())
            if not bool(total.isfinite()):
                raise RuntimeError(
                    f"the loss became {total.item()} at step {progress['step']}; the state before "
                    f"it is in {out}; lower --learning_rate and start in another folder"
                )
            optimiser.zero_grad()
            accelerator.backward(total)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
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
        record["validation"] = validate(model, frames["validation"], config, accelerator)
        record["separation"] = _separation(plain)
        best = min((r["validation"] for r in progress["history"]), default=math.inf)
        progress["history"].append(record)
        progress["sums"] = {}
        bar.set_postfix(nats=f"{record['validation']:.4f}")
        if writer:
            if record["validation"] < best:
                save_network(out / "model.safetensors", plain, **facts)
            save_state(out / "state.safetensors", {"model": plain}, optimiser, progress)
            saved = time.monotonic()
            _log(writer, plain, record, names, frames["validation"], epoch)
        accelerator.wait_for_everyone()
    bar.close()
    if writer:
        writer.close()
    return out / "model.safetensors"


def training_losses(
    model, plain: BetaICNet, batch: dict, thresholds: Tensor | None, config: Config, *when: int
) -> dict[str, Tensor]:
    """The weighted terms of the objective on one batch; `when` seeds the noise of θ."""
    noise_shape = (batch["frames"], *batch["hours"].shape[1:], config.parameters)
    noise = torch.randn(noise_shape, generator=seeded(config.seed, *when))[batch["rows"]]
    with autocast(config.precision, batch["sound"].device):
        logits = model(batch["sound"], batch["hours"], noise.to(batch["sound"]))
    listeners = plain.listeners
    losses = {
        "cross_entropy": cross_entropy(logits, batch["counts"], batch["heard"]),
        "divergence": config.kl_weight * listener_divergence(listeners.deviation),
    }
    if thresholds is not None and when[0] < config.threshold_epochs:
        start = listeners.at()
        penalty = threshold_penalty(start, thresholds.to(start.device))
        losses["thresholds"] = config.threshold_weight * penalty
    return losses


@torch.no_grad()
def validate(model, frames: Frames, config: Config, accelerator: Accelerator) -> float:
    """Cross-entropy of all frames at the listeners' means [nats a bin and channel]."""
    model.eval()
    total = torch.zeros(2, device=accelerator.device)
    for _, batch in _batches(frames, config, None, 0, accelerator):
        noise = batch["sound"].new_zeros(*batch["hours"].shape, config.parameters)
        with autocast(config.precision, accelerator.device):
            logits = model(batch["sound"], batch["hours"], noise)
        heard = batch["heard"].sum()
        loss = cross_entropy(logits, batch["counts"], batch["heard"])
        total += torch.stack([loss * heard, heard.to(loss)])
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


def count_frequencies(frames: Frames, most: int = 256) -> Tensor:
    """How often each channel gives each count, over animals and some frames, `(C, K)`."""
    chosen = range(0, len(frames), max(1, len(frames) // most))
    batch = frames.read(chosen)
    counts = batch["counts"][batch["heard"]].long().clamp(max=CLASSES - 1)
    return torch.stack([(counts == k).float().mean((0, 2)) for k in range(CLASSES)], dim=-1)


def _batches(
    frames: Frames, config: Config, epoch: int | None, first: int, accelerator: Accelerator
) -> Iterator[tuple[int, dict]]:
    """Batches of this process, from batch `first` on; the order depends on seed and epoch alone.

    Each also says how many frames the whole batch has and which of them are this process's rows.
    """
    order = torch.arange(len(frames))
    if epoch is not None:
        order = torch.randperm(len(frames), generator=seeded(config.seed, epoch))
    whole = order.split(config.batch)[first:]
    rank, world = accelerator.process_index, accelerator.num_processes
    # A short last batch begins again from the start, so that no process is left without work.
    rows = [torch.arange(max(len(b), world))[rank::world] for b in whole]
    mine = [b[r % len(b)].tolist() for b, r in zip(whole, rows, strict=True)]
    loader = DataLoader(
        range(len(frames)),
        batch_sampler=mine,
        collate_fn=frames.read,
        num_workers=config.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    for index, batch in enumerate(loader):
        sent = {k: v.to(accelerator.device, non_blocking=True) for k, v in batch.items()}
        sent |= {"frames": max(len(whole[index]), world), "rows": rows[index]}
        yield first + index, sent


def _parameter_groups(model: BetaICNet, config: Config) -> list[dict]:
    """Kernels, vectors and listeners' means, each with its rate."""
    means, deviation = model.listeners.mean, model.listeners.log_deviation
    kernels, vectors = split_parameters(
        model, config.learning_rate, config.kernel_rate, apart=[means, deviation]
    )
    vectors["params"].append(deviation)
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


def _thresholds(cohort: Cohort, names: list[str]) -> Tensor | None:
    """ABR thresholds `(A, F)`, or None unless every animal has them."""
    thresholds = [cohort.animal(name).thresholds_db_spl for name in names]
    if len(names) < 2 or any(t is None for t in thresholds):
        return None
    return torch.stack(thresholds).float()


def _separation(model: BetaICNet) -> float:
    animals = len(model.listeners.mean)
    if animals < 2:
        return 0.0
    return separation(model.listeners.at(), model.listeners.deviation).item()


@torch.no_grad()
def _log(
    writer: SummaryWriter,
    model: BetaICNet,
    record: dict,
    names: list[str],
    frames: Frames,
    epoch: int,
) -> None:
    """Scalars, the θ-space and one frame's responses, to TensorBoard."""
    for name, value in record.items():
        writer.add_scalar(f"model/{name}", value, epoch)
    listeners = model.listeners
    theta = listeners.at()
    statuses = [frames.cohort.animal(name).status for name in names]
    spaces = figures.theta_space(theta.cpu(), listeners.deviation.cpu(), names, statuses)
    writer.add_figure("theta", spaces, epoch)
    batch = frames.read([0])
    hours = batch["hours"].to(theta)
    logits = model(batch["sound"].to(theta), hours, theta.new_zeros(*hours.shape, theta.shape[-1]))
    probability = logits[0].float().softmax(-2).cpu()
    counts = torch.arange(CLASSES, dtype=torch.float32)
    expected = torch.einsum("ackn,k->acn", probability, counts)
    pairs = list(itertools.chain(*zip(batch["counts"][0].float(), expected, strict=True)))[:8]
    titles = [f"{name} {what}" for name in names for what in ("recorded", "predicted")][:8]
    writer.add_figure("responses", figures.responses(pairs, titles), epoch)
    writer.flush()


if __name__ == "__main__":
    print(run(train, Config))
