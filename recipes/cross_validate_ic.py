"""Fit an ICNet to one animal and few sounds, and predict each part of them from the others.

`python -m recipes.cross_validate_ic --config recipes/configs/cross_validate_ic/starling.yaml`

For recordings too short to be split by sounds: the time of every sound is cut into blocks. For each
block a network is trained on the others, and on a further one it is stopped.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.alignment import smooth
from icsim.checks import SPLITS
from icsim.counts import expected_counts
from icsim.frames import recording_pairs
from icsim.icnet import CONTEXT_BINS, EncoderConfig, ICNet, ICNetConfig
from icsim.metrics import repeatability
from icsim.objective import cross_entropy
from icsim.optimiser import Muon, split_parameters
from icsim.sound import BIN_SAMPLES, RESPONSE_RATE
from icsim.store import Cohort
from recipes import figures, networks
from recipes.ranges import Count, NotEmptyStr, Positive, Seed, checked
from recipes.state import claim, run, write_json

WINDOWS_BINS = (1, 8, 38)
"""Bins that are averaged before predictions are compared with trials: 1.3, 10 and 50 ms."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One cross-validation."""

    cohort: NotEmptyStr
    """The recording."""
    animal: NotEmptyStr
    """Who; each of its sounds is used that was heard at least twice."""
    out: NotEmptyStr
    """Folder of `summary.json` and the figure."""
    blocks: Count = 5
    """Parts that the time is cut into."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""
    window_bins: Count = 128
    """Bins of a training window."""
    steps: Count = 120
    """At most so many steps, each of all training windows."""
    learning_rate: Positive = 3e-3
    """Of Adam for vectors; it falls to zero."""
    kernel_rate: Positive = 0.01
    """Of Muon for kernels."""
    seed: Seed = 0
    """Of the networks."""

    __post_init__ = checked


def cross_validate(config: Config) -> dict:
    """Predict every block; returns FEVE at three time scales, of all blocks together."""
    cohort = Cohort.open(config.cohort)
    heard = _heard(cohort, config)
    out = Path(config.out)
    claim(out, config)
    predicted: list[Tensor] = []
    recorded: list[Tensor] = []
    for sound, trials in heard:
        counts = torch.stack([cohort.animal(config.animal).counts(t).T for t in trials])
        expected = torch.zeros(counts.shape[1:])
        for block in tqdm(range(config.blocks), desc=f"{cohort.sounds[sound].name}, block"):
            train, stop, test = _blocks(counts.shape[-1], block, config)
            network = _fit(config, cohort.pressure(sound), counts, train, stop)
            expected[:, test] = _predict(network, cohort.pressure(sound))[:, test]
        predicted.append(expected)
        recorded.append(counts.float())
    summary = {"animal": config.animal, "trials": len(heard[0][1]), "blocks": config.blocks}
    summary["scales"] = [
        _explained(predicted, recorded, bins) | {"ms": round(1000 * bins / RESPONSE_RATE, 1)}
        for bins in WINDOWS_BINS
    ]
    write_json(out / "summary.json", summary)
    _figure(predicted[0], recorded[0]).savefig(out / "prediction.png", dpi=110)
    return summary


def _heard(cohort: Cohort, config: Config) -> list[tuple[int, list[int]]]:
    """The sounds that came at least twice, and their presentations."""
    heard = recording_pairs(cohort, config.animal, SPLITS)
    if not heard:
        raise ValueError(f"{config.animal} heard no sound twice: its predictability is unknown")
    if config.blocks < 3:
        raise ValueError(f"at least 3 blocks are needed to train, stop and test: {config.blocks}")
    for sound, _ in heard:
        entry = cohort.sounds[sound]
        for block in range(config.blocks):
            train, *_ = _blocks(entry.bins, block, config)
            if not len(_whole_windows(train, config.window_bins)):
                raise ValueError(
                    f"{entry.name}: {entry.bins} bins in {config.blocks} blocks hold no training "
                    f"window of {config.window_bins}; lower --window_bins or --blocks"
                )
    return heard


def _blocks(bins: int, block: int, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Bins to train on, to stop by, and to predict."""
    of_bin = torch.arange(bins) * config.blocks // bins
    stop = (block + 1) % config.blocks
    train = (of_bin != block) & (of_bin != stop)
    return tuple(mask.nonzero().flatten() for mask in (train, of_bin == stop, of_bin == block))


def _fit(config: Config, sound: Tensor, counts: Tensor, train: Tensor, stop: Tensor) -> ICNet:
    """The network that predicts the block to stop by best, among those of all steps."""
    torch.manual_seed(config.seed)
    channels = counts.shape[1]
    network = ICNet(ICNetConfig(1, channels, config.encoder))
    network.decoder.start_at(networks.histograms(counts[..., train]))
    starts = _whole_windows(train, config.window_bins)
    audio, answers = _windows(sound, counts, starts, config.window_bins)
    held_out = _windows(sound, counts, stop[:1], len(stop))
    groups = split_parameters(network, config.learning_rate, config.kernel_rate)
    optimiser = Muon(groups)
    best, kept = torch.inf, None
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * (1 - step / config.steps)
        loss = _loss(network, audio, answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            found = _loss(network, *held_out).item()
        if found < best:
            best = found
            kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    return network.eval()


def _loss(network: ICNet, audio: Tensor, answers: Tensor) -> Tensor:
    """Of all trials, which share their prediction."""
    trials = answers.shape[1]
    same = torch.zeros(trials, dtype=torch.long)
    predicted = network(audio, torch.zeros(len(audio), trials), same)
    return cross_entropy(predicted, answers, torch.ones(answers.shape[:3]))


def _whole_windows(bins: Tensor, length: int) -> Tensor:
    """First bins of windows that lie one after another within runs of bins."""
    runs = torch.tensor_split(bins, (bins.diff() > 1).nonzero().flatten() + 1)
    return torch.cat([run[: len(run) - length + 1 : length] for run in runs])


def _windows(sound: Tensor, counts: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Sound with context `(B, T)` and counts `(B, trials, C, N)` from these bins on."""
    padded = torch.nn.functional.pad(sound, (CONTEXT_BINS * BIN_SAMPLES, 0))
    samples = (CONTEXT_BINS + length) * BIN_SAMPLES
    audio = [padded[s * BIN_SAMPLES :][:samples] for s in starts.tolist()]
    return torch.stack(audio), torch.stack([counts[..., s : s + length] for s in starts.tolist()])


@torch.no_grad()
def _predict(network: ICNet, sound: Tensor) -> Tensor:
    """Expected counts for the whole sound, `(C, N)`."""
    padded = torch.nn.functional.pad(sound, (CONTEXT_BINS * BIN_SAMPLES, 0))
    return expected_counts(network(padded[None], torch.zeros(1, 1)).log_probabilities())[0, 0]


def _explained(predicted: list[Tensor], recorded: list[Tensor], bins: int) -> dict:
    """FEVE of each channel, and of all, over all trials, smoothed over some bins."""
    signal, unexplained, correlation = 0.0, 0.0, []
    for expected, trials in zip(predicted, recorded, strict=True):
        smoothed = torch.stack([smooth(trial, bins) for trial in trials])
        shared = repeatability(smoothed)
        error = (smooth(expected, bins) - smoothed).square().mean((0, -1))
        signal = signal + shared.signal
        unexplained = unexplained + error - shared.noise
        correlation.append(shared.correlation)
    use = signal > 0
    each = torch.where(use, 1 - unexplained / signal.clamp(min=1e-12), torch.nan)
    return {
        "feve": (1 - unexplained[use].sum() / signal[use].sum()).item() if use.any() else None,
        "feve_of_channels": [None if v != v else v for v in each.tolist()],
        "trial_correlation_of_channels": torch.stack(correlation).mean(0).tolist(),
    }


def _figure(predicted: Tensor, recorded: Tensor):
    """Mean of the trials and prediction, smoothed over 10 ms, channel by channel."""
    bins = WINDOWS_BINS[1]
    courses = {
        "mean of the trials": smooth(recorded.mean(0), bins) * RESPONSE_RATE,
        "predicted from the other blocks": smooth(predicted, bins) * RESPONSE_RATE,
    }
    return figures.courses(courses, bins / RESPONSE_RATE, "spikes a second")


if __name__ == "__main__":
    for scale in run(cross_validate, Config)["scales"]:
        print(f"{scale['ms']:6.1f} ms: FEVE {scale['feve']}, channels {scale['feve_of_channels']}")
