"""Train an aid through a frozen BetaICNet, for every listener of its learned space.

`python -m recipes.train_compensation --config recipes/configs/train_compensation/NAME.yaml`; run
the same command again to go on.
"""

import dataclasses
import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from compensation.data import Mixtures
from compensation.masks import Gains, Masks, MasksConfig
from compensation.objective import TaskWeights, compensation, denoising, flutter, roughness
from icsim.conditional import BetaICNet
from icsim.counts import expected_counts
from icsim.icnet import CONTEXT_BINS
from icsim.loss import ResponseLoss
from icsim.optimiser import Muon, split_parameters
from icsim.sound import SAMPLE_RATE
from icsim.store import Cohort
from icsim.theta import sample_listeners
from icsim.weights import load_network, save_network
from recipes import figures
from recipes.state import claim, everywhere, load_state, run, save_state, seeded


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run of an aid."""

    cohort: str
    """Whose training sounds the aid hears."""
    model: str
    """The trained BetaICNet."""
    out: str
    """Folder of the run."""
    aid: MasksConfig = dataclasses.field(default_factory=MasksConfig)
    """The network."""
    steps: int = 20_000
    """Training steps."""
    batch: int = 8
    """Excerpts a step, over all processes."""
    excerpt_s: float = 1.0
    """Length of an excerpt [s]."""
    learning_rate: float = 1e-3
    """Of Adam; rates warm up over 20 steps and fall to zero along a cosine."""
    matrix_rate: float | None = None
    """Of Muon for all matrices; Adam for them too if not given."""
    widening: float = 0.05
    """Spread of sampled listeners around and between the animals, in units of θ."""
    roughness_weight: float = 0.05
    """Of the gain's second difference over bands."""
    flutter_weight: float = 0.05
    """Of the gain's change from hop to hop."""
    save_every_s: float = 120.0
    """Longest time of work that a killed run loses [s]."""
    workers: int = 0
    """Processes that mix sounds ahead; 0 mixes in this one."""
    seed: int = 0
    """Of weights, sounds and listeners."""


def train(config: Config) -> Path:
    """Train, or go on training; returns the path of the aid."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    out = Path(config.out)
    model, facts = load_network(config.model, BetaICNet)
    parameters = model.config.parameters
    if config.aid.listener != parameters:
        raise ValueError(
            f"aid.listener is {config.aid.listener}, but {config.model} has {parameters} parameters"
        )
    cohort = Cohort.open(config.cohort)
    sounds = mixtures(config, cohort)
    if accelerator.is_main_process:
        claim(out, config)
    listeners = model.listeners
    theta = listeners.at().detach()
    deviation = listeners.deviation.detach()
    healthy = normal_listeners(cohort, facts["animals"], theta).to(accelerator.device)
    loss = ResponseLoss(model).to(accelerator.device)
    torch.manual_seed(config.seed)
    aid, weights = Masks(config.aid), TaskWeights(2)
    matrices, vectors = split_parameters(aid, config.learning_rate, config.matrix_rate)
    vectors["params"].append(weights.log_variance)
    optimiser = Muon([matrices, vectors])
    aid, weights, optimiser = accelerator.prepare(aid, weights, optimiser)
    modules = {"aid": accelerator.unwrap_model(aid), "weights": accelerator.unwrap_model(weights)}
    state = out / "state.safetensors"
    progress = load_state(state, modules, optimiser) or {"step": 0, "history": []}
    writer = SummaryWriter(out) if accelerator.is_main_process else None
    bar = tqdm(
        total=config.steps,
        initial=progress["step"],
        desc="training aid",
        unit="step",
        disable=not accelerator.is_main_process,
    )
    saved = time.monotonic()
    loader = _loader(sounds, config, progress["step"], accelerator)
    for step, batch in enumerate(loader, progress["step"]):
        draw = seeded(config.seed, step)
        drawn = sample_listeners(theta, deviation, config.batch, config.widening, draw)
        # Healthy brains differ too: each is the reference in turn.
        chosen = torch.randint(len(healthy), (config.batch,), generator=draw)
        rank = slice(accelerator.process_index, None, accelerator.num_processes)
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        listener = drawn[rank].to(accelerator.device)
        normal = healthy[chosen[rank].to(accelerator.device)]
        gains = aid(batch["noisy"], listener)
        terms = training_terms(loss, modules["aid"], gains, batch, listener, normal)
        total = (
            weights(torch.stack([terms["compensation"], terms["denoising"]]))
            + config.roughness_weight * terms["roughness"]
            + config.flutter_weight * terms["flutter"]
        )
        if not bool(total.isfinite()):
            raise RuntimeError(
                f"the loss became {total.item()} at step {step}; the last state is in {out}"
            )
        decay = _rate_decay(config, step)
        for group in optimiser.param_groups:
            group["lr"] = decay * group["rate"]
        optimiser.zero_grad()
        accelerator.backward(total)
        accelerator.clip_grad_norm_(aid.parameters(), 1.0)
        optimiser.step()
        record = everywhere(terms, accelerator)
        progress["history"].append(record)
        progress["step"] = step + 1
        bar.update()
        if writer:
            for name, value in record.items():
                writer.add_scalar(f"aid/{name}", value, step)
            if step % 10 == 0:
                recent = progress["history"][-30:]
                left = sum(r["compensation"] for r in recent) / len(recent)
                bar.set_postfix(discrepancy_left=f"{left:.2f}")
            done = progress["step"] == config.steps
            if done or time.monotonic() - saved > config.save_every_s:
                save_state(state, modules, optimiser, progress)
                _log(writer, modules["aid"], loss, batch, listener, normal, step)
                saved = time.monotonic()
    bar.close()
    if writer:
        save_network(out / "aid.safetensors", modules["aid"], healthy=healthy.tolist())
        writer.close()
    accelerator.wait_for_everyone()
    return out / "aid.safetensors"


def training_terms(
    loss: ResponseLoss,
    aid: Masks,
    gains: Gains,
    batch: dict[str, Tensor],
    listener: Tensor,
    normal: Tensor,
) -> dict[str, Tensor]:
    """Every term of the objective on one batch."""
    noisy, clean, in_noise = batch["noisy"], batch["clean"], batch["in_noise"]
    compensated = aid.render(noisy, gains, noise_reduction=0)
    denoised = aid.render(noisy, gains, gain=0)[in_noise]
    noisy_only, clean_only = noisy[in_noise], clean[in_noise]
    return {
        "compensation": compensation(loss, compensated, noisy, listener, normal, CONTEXT_BINS),
        "denoising": denoising(
            loss, denoised, noisy_only, clean_only, normal[in_noise], CONTEXT_BINS
        ),
        "roughness": roughness(gains),
        "flutter": flutter(gains),
    }


def mixtures(config: Config, cohort: Cohort) -> Mixtures:
    """Excerpts of the cohort's training sounds, with noise."""
    by_kind: dict[str, list[Tensor]] = {"speech": [], "others": []}
    for sound in cohort.sounds:
        if sound.split == "train" and sound.kind in ("speech", "music", "instrument"):
            kind = "speech" if sound.kind == "speech" else "others"
            by_kind[kind].append(cohort.pressure(sound.index))
    samples = round(config.excerpt_s * SAMPLE_RATE)
    count = config.steps * config.batch
    return Mixtures(by_kind["speech"], by_kind["others"], samples, count, config.seed)


def normal_listeners(cohort: Cohort, names: list[str], theta: Tensor) -> Tensor:
    """θ of the animals with normal hearing, `(n, P)`.

    Raises:
        ValueError: If there is none: an aid needs to know what to restore.
    """
    healthy = [cohort.animal(name).status == "NH" for name in names]
    if not any(healthy):
        raise ValueError("the model knows no animal with normal hearing to restore others to")
    return theta[torch.tensor(healthy)]


def _loader(sounds: Mixtures, config: Config, first: int, accelerator: Accelerator) -> DataLoader:
    """This process's excerpts of every step from `first` on."""
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = [
        list(range(step * config.batch + rank, (step + 1) * config.batch, world))
        for step in range(first, config.steps)
    ]
    return DataLoader(sounds, batch_sampler=batches, num_workers=config.workers)


def _rate_decay(config: Config, step: int) -> float:
    """Factor on all learning rates at a step."""
    warm = min(1.0, (step + 1) / 20)
    return warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


@torch.no_grad()
def _log(
    writer: SummaryWriter,
    aid: Masks,
    loss: ResponseLoss,
    batch: dict[str, Tensor],
    listener: Tensor,
    normal: Tensor,
    step: int,
) -> None:
    """One excerpt before and after, as sound, spectrogram and response, to TensorBoard."""
    noisy, who, normal = batch["noisy"][:1], listener[:1], normal[:1]
    after = aid.process(noisy, who, noise_reduction=0)
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
    images = [expected_counts(response)[0].cpu() for response in heard.values()]
    writer.add_figure("responses", figures.responses(images, list(heard)), step)
    writer.flush()


if __name__ == "__main__":
    print(run(train, Config))
