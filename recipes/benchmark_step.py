"""What a training step costs by the number of animals: `python -m recipes.benchmark_step`.

Sounds are encoded once for all animals that heard them. Steps of BetaICNet at the published sizes,
forward and backward on the same sounds, for one animal and for more, in turns and side by side.
"""

import dataclasses
import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from icsim.conditional import BetaICNet, BetaICNetConfig
from icsim.icnet import CONTEXT_BINS, EncoderConfig
from icsim.objective import cross_entropy
from icsim.sound import BIN_SAMPLES
from recipes.state import autocast, run, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """What is timed; the sizes are the published ones."""

    out: str = "runs/benchmark_step"
    """Folder of `summary.json`."""
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    """Sizes of the encoder."""
    channels: int = 512
    """Response channels."""
    animals: list[int] = dataclasses.field(default_factory=lambda: [1, 9, 20])
    """Numbers of animals; the first is what the others are compared with."""
    batch: int = 4
    """Frames a step."""
    rounds: int = 7
    """Steps of each, of which the median counts."""
    precision: str = "auto"
    """auto, no or bf16."""


def benchmark(config: Config) -> dict:
    """Seconds of a step by number of animals, and the ratios to the first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = {count: _step(config, count, device) for count in config.animals}
    seconds: dict[int, list[float]] = {count: [] for count in config.animals}
    for turn in tqdm(range(config.rounds + 1), desc="steps", unit="round"):
        for count, step in steps.items():
            found = _timed(step, device)
            if turn > 0:  # the first warms up
                seconds[count].append(found)
    least = config.animals[0]
    summary = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "seconds": {count: statistics.median(found) for count, found in seconds.items()},
        "ratio": {
            count: statistics.median(
                more / one for more, one in zip(found, seconds[least], strict=True)
            )
            for count, found in seconds.items()
        },
    }
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "summary.json", summary)
    return summary


def _step(config: Config, animals: int, device: torch.device):
    """One training step on sounds of noise, forward and backward."""
    torch.manual_seed(0)
    sizes = {"animals": animals, "channels": config.channels, "encoder": config.encoder}
    model = BetaICNet(BetaICNetConfig(**sizes)).to(device)
    bins = 256
    sound = torch.randn(config.batch, (CONTEXT_BINS + bins) * BIN_SAMPLES, device=device)
    hours = torch.zeros(config.batch, animals, device=device)
    shape = (config.batch, animals, config.channels)
    counts = torch.randint(0, 5, (*shape, bins), dtype=torch.uint8, device=device)
    weight = torch.ones(shape, device=device)

    def step() -> None:
        with autocast(config.precision, device):
            predicted = model(sound, hours)
        cross_entropy(predicted, counts, weight).backward()
        model.zero_grad()

    return step


def _timed(step, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    found = run(benchmark, Config)
    for count, ratio in found["ratio"].items():
        print(f"{count:3d} animals: {found['seconds'][count]:.2f} s a step, ratio {ratio:.2f}")
