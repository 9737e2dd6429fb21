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
from icsim.clock import Clock
from icsim.files import write_json
from icsim.frames import recording_pairs
from icsim.metrics import expected_counts, repeatability
from icsim.models.encoders import EncoderConfig, SincNetConfig
from icsim.models.response import ResponseModel, icnet
from icsim.models.start import histograms
from icsim.models.subjects import Subjects
from icsim.objective import cross_entropy
from icsim.optimiser import Muon, split_parameters
from icsim.store import Cohort
from icsim.validation import SPLITS
from recipes.reports import figures
from recipes.running.commands import claim, run
from recipes.running.ranges import Count, NotEmptyStr, Positive, Seed, checked

WINDOWS_S = (0.0, 0.0105, 0.05)
"""Time that is averaged before predictions are compared with trials [s], at least a bin."""


@dataclasses.dataclass(frozen=True)
@checked
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
    encoder: EncoderConfig = dataclasses.field(default_factory=SincNetConfig)
    """Sizes of the encoder."""
    window_bins: Count = 128
    """Bins of a training window."""
    steps: Count = 120
    """At most so many steps, each of all training windows."""
    learning_rate: Positive = 3e-3
    """Of Adam for vectors; it falls to zero."""
    muon_rate: Positive = 0.01
    """Of Muon for kernels."""
    seed: Seed = 0
    """Of the networks."""


def cross_validate(config: Config) -> dict:
    """Predict every block; returns FEVE at three time scales, of all blocks together."""
    cohort = Cohort.open(config.cohort)
    pairs = _pairs(cohort, config)
    out = Path(config.out)
    claim(out, config)
    predicted: list[Tensor] = []
    recorded: list[Tensor] = []
    for sound, trials in pairs:
        counts = torch.stack([cohort.animal(config.animal).counts(t).T for t in trials])
        expected = torch.zeros(counts.shape[1:])
        for block in tqdm(range(config.blocks), desc=f"{cohort.sounds[sound].name}, block"):
            train, stop, test = _blocks(counts.shape[-1], block, config)
            model = _fit(config, cohort.clock, cohort.pressure(sound), counts, train, stop)
            expected[:, test] = _predict(model, cohort.pressure(sound))[:, test]
        predicted.append(expected)
        recorded.append(counts.clamp(max=model.readout.classes - 1).float())
    summary = {"animal": config.animal, "trials": len(pairs[0][1]), "blocks": config.blocks}
    summary["scales"] = [
        _explained(predicted, recorded, bins) | {"ms": round(bins * cohort.clock.bin_ms, 1)}
        for bins in _windows_bins(cohort.clock)
    ]
    write_json(out / "summary.json", summary)
    _figure(predicted[0], recorded[0], cohort.clock).savefig(out / "prediction.png", dpi=110)
    return summary


def _windows_bins(clock: Clock) -> list[int]:
    """`WINDOWS_S` in bins.

    >>> _windows_bins(Clock())
    [1, 8, 38]
    """
    return [max(1, round(seconds * clock.bin_rate_hz)) for seconds in WINDOWS_S]


def _pairs(cohort: Cohort, config: Config) -> list[tuple[int, list[int]]]:
    """The sounds that came at least twice, and their presentations."""
    pairs = recording_pairs(cohort, config.animal, SPLITS)
    if not pairs:
        raise ValueError(f"{config.animal} heard no sound twice: its predictability is unknown")
    if config.blocks < 3:
        raise ValueError(f"at least 3 blocks are needed to train, stop and test: {config.blocks}")
    for sound, _ in pairs:
        entry = cohort.sounds[sound]
        for block in range(config.blocks):
            train, *_ = _blocks(entry.bins, block, config)
            if not len(_whole_windows(train, config.window_bins)):
                raise ValueError(
                    f"{entry.name}: {entry.bins} bins in {config.blocks} blocks hold no training "
                    f"window of {config.window_bins}; lower --window_bins or --blocks"
                )
    return pairs


def _blocks(bins: int, block: int, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Bins to train on, to stop by, and to predict."""
    of_bin = torch.arange(bins) * config.blocks // bins
    stop = (block + 1) % config.blocks
    train = (of_bin != block) & (of_bin != stop)
    return tuple(mask.nonzero().flatten() for mask in (train, of_bin == stop, of_bin == block))


def _fit(
    config: Config, clock: Clock, sound: Tensor, counts: Tensor, train: Tensor, stop: Tensor
) -> ResponseModel:
    """The model that predicts the block to stop by best, among those of all steps."""
    torch.manual_seed(config.seed)
    channels = counts.shape[1]
    model = ResponseModel(icnet(1, channels, config.encoder, clock))
    model.readout.start_at(histograms(counts[..., train]))
    starts = _whole_windows(train, config.window_bins)
    audio, answers = _windows(model, sound, counts, starts, config.window_bins)
    held_out = _windows(model, sound, counts, stop[:1], len(stop))
    groups = split_parameters(model, config.learning_rate, config.muon_rate)
    optimiser = Muon(groups)
    best, weights = torch.inf, model.state_dict()
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * (1 - step / config.steps)
        loss = _loss(model, audio, answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            now = _loss(model, *held_out).item()
        if now < best:
            best = now
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)
    return model.eval()


def _loss(model: ResponseModel, audio: Tensor, answers: Tensor) -> Tensor:
    """Of all trials, which share their prediction."""
    trials = answers.shape[1]
    same = torch.zeros(trials, dtype=torch.long)
    predicted = model(audio, Subjects(same, hours=torch.zeros(len(audio), trials)))
    return cross_entropy(predicted, answers, torch.ones(answers.shape[:3]))


def _whole_windows(bins: Tensor, length: int) -> Tensor:
    """First bins of windows that lie one after another within runs of bins."""
    runs = torch.tensor_split(bins, (bins.diff() > 1).nonzero().flatten() + 1)
    return torch.cat([run[: len(run) - length + 1 : length] for run in runs])


def _windows(
    model: ResponseModel, sound: Tensor, counts: Tensor, starts: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Sound with context `(B, T)` and counts `(B, trials, C, N)` from these bins on."""
    width, padded = model.clock.bin_samples, _with_context(model, sound)
    samples = (model.context_bins + length) * width
    audio = [padded[s * width :][:samples] for s in starts.tolist()]
    return torch.stack(audio), torch.stack([counts[..., s : s + length] for s in starts.tolist()])


def _with_context(model: ResponseModel, sound: Tensor) -> Tensor:
    context = model.context_bins * model.clock.bin_samples
    return torch.nn.functional.pad(sound, (context, 0))


@torch.no_grad()
def _predict(model: ResponseModel, sound: Tensor) -> Tensor:
    """Expected counts for the whole sound, `(C, N)`."""
    animal = Subjects(torch.zeros(1, dtype=torch.long), hours=torch.zeros(1, 1))
    predicted = model(_with_context(model, sound)[None], animal)
    return expected_counts(predicted.log_probabilities())[0, 0]


def _explained(predicted: list[Tensor], recorded: list[Tensor], bins: int) -> dict:
    """FEVE of each channel, and of all, over all trials, smoothed over some bins."""
    channels = recorded[0].shape[1]
    signal, unexplained, correlation = torch.zeros(channels), torch.zeros(channels), []
    for expected, trials in zip(predicted, recorded, strict=True):
        smoothed = torch.stack([smooth(trial, bins) for trial in trials])
        shared = repeatability(smoothed)
        error = (smooth(expected, bins) - smoothed).square().mean((0, -1))
        signal += shared.signal
        unexplained += error - shared.noise
        correlation.append(shared.correlation)
    use = signal > 0
    each = torch.where(use, 1 - unexplained / signal.clamp(min=1e-12), torch.nan)
    return {
        "feve": (1 - unexplained[use].sum() / signal[use].sum()).item() if use.any() else None,
        "feve_of_channels": [None if v != v else v for v in each.tolist()],
        "trial_correlation_of_channels": torch.stack(correlation).mean(0).tolist(),
    }


def _figure(predicted: Tensor, recorded: Tensor, clock: Clock):
    """Mean of the trials and prediction, smoothed over 10 ms, channel by channel."""
    bins, rate_hz = _windows_bins(clock)[1], clock.bin_rate_hz
    courses = {
        "mean of the trials": smooth(recorded.mean(0), bins) * rate_hz,
        "predicted from the other blocks": smooth(predicted, bins) * rate_hz,
    }
    return figures.courses(courses, bins / rate_hz, "spikes a second")


if __name__ == "__main__":
    for scale in run(cross_validate, Config)["scales"]:
        print(f"{scale['ms']:6.1f} ms: FEVE {scale['feve']}, channels {scale['feve_of_channels']}")
