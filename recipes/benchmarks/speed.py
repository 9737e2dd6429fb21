"""What training, inference, fitting and streams cost: `python -m recipes.benchmarks.speed`.

Everything that is compared is timed in turns, in one run, on the machine at hand; seconds alone say
little. At the published sizes, without a cohort: sounds and counts are noise.

- A training step of BetaICNet for one animal and for more, forward and backward on the same sounds.
- The same step with its encoder compiled by torch, against the step as it is; only if asked for.
- Inference of the encoder by `icsim.convolution`, against torch's convolutions.
- Candidates of a fit with cached latents, against a plain forward pass for each.
- How long a training step waits for its data, read from a store ahead of time.
- Both aids as streams on one core.
- Memory of a training step, in a process of its own for each number of animals.
- How far losses of two processes are from those of one, for the model and for the aid.
"""

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from compensation.learned_filters import LearnedFilters, LearnedFiltersConfig
from compensation.masks import Masks, MasksConfig
from compensation.streaming import pace
from icsim import convolution, store
from icsim.clock import Clock
from icsim.files import write_json, write_whole
from icsim.frames import Frames
from icsim.models.encoders import EncoderConfig, SincNetConfig, make_encoder
from icsim.models.listener_cost import listener_cost
from icsim.models.response import ResponseModel, beta_icnet
from icsim.models.subjects import Subjects
from icsim.objective import cross_entropy
from icsim.recording import Recording
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, Sound
from icsim.weights import load_tensors
from recipes import demo
from recipes.reports.tables import Cell, Table, headline, number
from recipes.running.commands import begin, run
from recipes.running.jobs import BY_TWO
from recipes.running.ranges import Count, NotEmptyStr, Seconds, checked
from recipes.running.training import autocast

FRAME_BINS = 256
"""Bins of a training frame beside its context."""

PREDICTED = (9, 20, 100, 1000)
"""Numbers of animals that the cost model is asked about."""


Part = Literal[
    "step",
    "compile",
    "inference",
    "fit",
    "loader_wait_fraction",
    "stream",
    "memory",
    "two_process_difference",
]
"""What can be measured."""

PARTS: tuple[Part, ...] = get_args(Part)


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What is timed; the sizes are the published ones."""

    out: NotEmptyStr = "runs/benchmarks/speed"
    """Folder of `summary.json`, `headline.json` and `table.md`."""
    parts: list[Part] = dataclasses.field(
        default_factory=lambda: [part for part in PARTS if part != "compile"]
    )
    """What is measured; `compile`, too, where there is a C++ compiler."""
    encoder: EncoderConfig = dataclasses.field(default_factory=SincNetConfig)
    """Sizes of the encoder."""
    channels: Count = 512
    """Response channels."""
    animals: list[Count] = dataclasses.field(default_factory=lambda: [1, 9, 20])
    """Numbers of animals; the first is what the others are compared with."""
    batch: Count = 4
    """Frames a step."""
    rounds: Count = 5
    """Turns, of which the median counts."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of the convolutions, as in training."""
    seconds: list[Seconds] = dataclasses.field(default_factory=lambda: [1.0, 2.0, 4.0, 16.0])
    """Lengths of sounds whose inference is timed [s]."""
    fit_seconds: Seconds = 10.0
    """Sound that a candidate is judged on [s]."""
    masks: MasksConfig = dataclasses.field(default_factory=MasksConfig)
    """Sizes of one stream."""
    waveform: LearnedFiltersConfig = dataclasses.field(default_factory=LearnedFiltersConfig)
    """Sizes of the other."""
    stream_seconds: Seconds = 8.0
    """Sound that streams process [s]."""


def benchmark(config: Config) -> dict:
    """All figures; also written to `out`."""
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    begin()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = muon_rate(device, config.precision)
    works = {
        "step": lambda: steps(config, device, rate),
        "compile": lambda: compiling(config, device),
        "inference": lambda: inference(config, device, rate),
        "fit": lambda: fitting(config, device),
        "loader_wait_fraction": lambda: waiting(config, device),
        "stream": lambda: streams(config),
        "memory": lambda: memory(config),
        "two_process_difference": two_processes_of_a_new_demo,
    }
    measured: dict = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "matrix_gflops": rate / 1e9,
    }
    for name in (bar := tqdm(config.parts, desc="benchmark", unit="part")):
        bar.set_postfix_str(name)
        measured[name] = works[name]()
    if {"step", "memory"} <= set(measured):
        measured["cost_model"] = cost_model(measured["step"]["seconds"], measured["memory"])
    write_json(out / "summary.json", measured)
    write_json(out / "headline.json", headlines(measured))
    write_whole(out / "table.md", table(measured).markdown())
    return measured


def headlines(measured: dict) -> dict[str, float]:
    """What is aimed at, by plain names, of what was measured."""
    numbers: dict[str, Cell] = {}
    if "step" in measured:
        first, *others = measured["step"]["ratio"]
        numbers = {f"step_{n}_over_{first}": measured["step"]["ratio"][n] for n in others}
        numbers["train_share_of_peak"] = measured["step"]["nominal_fraction_of_matrix_rate"]
    if "fit" in measured:
        numbers["fit_over_plain"] = measured["fit"]["speedup"]
        numbers["fit_candidate_ms"] = 1000 * measured["fit"]["seconds_a_candidate"]["cached"]
    if "inference" in measured:
        for length, speedup in measured["inference"]["speedup"].items():
            numbers[f"inference_over_torch_{length}s"] = speedup
        numbers["inference_share_of_peak"] = measured["inference"][
            "nominal_fraction_of_matrix_rate"
        ]
    if "loader_wait_fraction" in measured:
        numbers["loader_wait"] = measured["loader_wait_fraction"]
    for name, stream in measured.get("stream", {}).items():
        numbers[f"stream_{name}"] = stream["real_time_factor"]
    differences = measured.get("two_process_difference", {}).values()
    numbers["two_process_difference"] = max(differences, default=None)
    return headline(numbers)


def muon_rate(device: torch.device, precision: str, size: int = 2048) -> float:
    """Operations a second of a product of large matrices, at the precision of training."""
    with autocast(precision, device):
        low = torch.is_autocast_enabled(device.type)
    kind = torch.bfloat16 if low else torch.float32
    a, b = torch.randn(2, size, size, device=device).to(kind)
    best = min(timed(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / best


def steps(config: Config, device: torch.device, rate: float) -> dict:
    """Seconds of a training step by number of animals, ratios, and the share of the matrix rate."""
    works = {count: step(config, count, device) for count in config.animals}
    seconds = in_turns(works, config.rounds, device)
    most = config.animals[-1]
    nominal = operations(works[most])
    return {
        "seconds": medians(seconds),
        "ratio": ratios(seconds, config.animals[0]),
        "nominal_fraction_of_matrix_rate": nominal / statistics.median(seconds[most]) / rate,
    }


def compiling(config: Config, device: torch.device) -> dict:
    """Seconds of a first step, compiled by torch, and how much faster later ones are for it."""
    animals = config.animals[-1]
    works = {
        "as_it_is": step(config, animals, device),
        "compiled": step(config, animals, device, compiled=True),
    }
    first = timed(works["compiled"], device)
    seconds = in_turns(works, config.rounds, device)
    return {
        "seconds": medians(seconds),
        "first_s": first,
        "speedup": ratios(seconds, "compiled")["as_it_is"],
    }


def step(
    config: Config, animals: int, device: torch.device, compiled: bool = False
) -> Callable[[], None]:
    """One training step on sounds of noise, forward and backward."""
    torch.manual_seed(0)
    sizes = beta_icnet(animals, config.channels, encoder=config.encoder)
    model = ResponseModel(sizes).to(device)
    if compiled:
        model.encoder.compile()
    sound = torch.randn(
        config.batch, (model.context_bins + FRAME_BINS) * BIN_SAMPLES, device=device
    )
    everyone = Subjects(hours=torch.zeros(config.batch, animals, device=device))
    shape = (config.batch, animals, config.channels)
    counts = torch.randint(0, 5, (*shape, FRAME_BINS), dtype=torch.uint8, device=device)
    weight = torch.ones(shape, device=device)

    def work() -> None:
        with autocast(config.precision, device):
            predicted = model(sound, everyone)
        cross_entropy(predicted, counts, weight).backward()
        model.zero_grad()

    return work


def inference(config: Config, device: torch.device, rate: float) -> dict:
    """The encoder by length of sound: as it is, and with torch's convolutions."""
    torch.manual_seed(0)
    encoder = make_encoder(config.encoder, Clock()).to(device).eval()
    measured: dict = {"seconds": {}, "direct_seconds": {}, "speedup": {}}
    for length_s in config.seconds:
        samples = round(length_s * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
        sound = 0.02 * torch.randn(1, samples, device=device)

        @torch.no_grad()
        def ours(sound: Tensor = sound) -> Tensor:
            return encoder(sound)

        def direct(ours: Callable = ours) -> Tensor:
            with tap_by_tap():
                return ours()

        seconds = in_turns({"ours": ours, "direct": direct}, config.rounds, device)
        name = f"{length_s:g}"
        measured["seconds"][name] = statistics.median(seconds["ours"])
        measured["direct_seconds"][name] = statistics.median(seconds["direct"])
        measured["speedup"][name] = ratios(seconds, "ours")["direct"]
    spent = measured["seconds"][f"{config.seconds[-1]:g}"]
    measured["nominal_fraction_of_matrix_rate"] = operations(ours) / spent / rate
    exact = direct()
    measured["largest_difference"] = ((ours() - exact).abs().max() / exact.abs().max()).item()
    return measured


def fitting(config: Config, device: torch.device) -> dict:
    """Seconds a candidate of θ: from cached latents, by a plain pass, with torch's convolutions."""
    torch.manual_seed(0)
    sizes = beta_icnet(2, config.channels, encoder=config.encoder)
    model = ResponseModel(sizes).to(device).eval()
    frames = max(1, round(config.fit_seconds * SAMPLE_RATE / BIN_SAMPLES / FRAME_BINS))
    samples = (model.context_bins + FRAME_BINS) * BIN_SAMPLES
    sound = 0.02 * torch.randn(frames, samples, device=device)
    shape = (frames, config.channels, FRAME_BINS)
    counts = torch.randint(0, 5, shape, dtype=torch.uint8, device=device)
    candidates = torch.rand(8, model.listeners.mean.shape[1], device=device)
    cost = listener_cost(model, sound, counts)

    @torch.no_grad()
    def cached() -> None:
        cost(candidates)

    @torch.no_grad()
    def plain() -> None:
        listener_cost(model, sound, counts)(candidates[:1])

    def direct() -> None:
        with tap_by_tap():
            plain()

    works = {"cached": cached, "plain": plain, "direct": direct}
    each = medians(in_turns(works, config.rounds, device))
    each["cached"] /= len(candidates)
    return {
        "seconds_a_candidate": each,
        "speedup": each["plain"] / each["cached"],
        "speedup_over_direct": each["direct"] / each["cached"],
    }


def waiting(config: Config, device: torch.device) -> float:
    """Share of the time of training steps that is spent waiting for the store."""
    animals = config.animals[-1]
    work = step(config, animals, device)
    with tempfile.TemporaryDirectory() as folder:
        frames = noise_cohort(Path(folder) / "cohort", animals, config)
        order = itertools.islice(itertools.cycle(range(len(frames))), config.batch * config.rounds)
        loader: DataLoader = DataLoader(
            list(order),  # type: ignore[arg-type]  # a list has all that it needs
            batch_size=config.batch,
            collate_fn=frames.read,
            num_workers=1,
        )
        waited, batches, started = 0.0, iter(loader), time.perf_counter()
        while True:
            before = time.perf_counter()
            if next(batches, None) is None:
                return waited / (time.perf_counter() - started)
            waited += time.perf_counter() - before
            timed(work, device)


def noise_cohort(path: Path, animals: int, config: Config) -> Frames:
    """A store of noise that all animals heard, as training reads it."""
    draw = np.random.default_rng(0)
    bins = FRAME_BINS * config.batch * 2
    pressure = torch.from_numpy(0.02 * draw.standard_normal(bins * BIN_SAMPLES, dtype=np.float32))
    cohort = store.create(path, [Sound("noise", "speech", "", "train", pressure)], {})
    for animal in range(animals):
        counts = draw.poisson(0.3, (bins, config.channels)).clip(max=4).astype(np.uint8)
        recording = Recording("NH", "seen", None, None, config.channels, [(0, 0.0)], [counts])
        cohort.add_animal(f"animal-{animal}", recording)
    return Frames(cohort, cohort.animals(), "train", bins=FRAME_BINS)


def streams(config: Config) -> dict:
    """Both aids, untrained, block by block on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        aids = {"masks": Masks(config.masks), "waveform": LearnedFilters(config.waveform)}
        return {
            name: pace(aid.eval(), torch.full((aid.config.listener,), 0.5), config.stream_seconds)
            for name, aid in aids.items()
        }
    finally:
        torch.set_num_threads(threads)


def memory(config: Config) -> dict[int, float]:
    """Most memory that a training step takes by number of animals [GB], each in a new process."""
    gigabytes = {}
    spawn = multiprocessing.get_context("spawn")
    for count in config.animals:
        with spawn.Pool(1) as pool:
            gigabytes[count] = pool.apply(_memory, (config, count))
    return gigabytes


def _memory(config: Config, animals: int) -> float:
    if torch.cuda.is_available():
        step(config, animals, torch.device("cuda"))()
        return torch.cuda.max_memory_allocated() / 1e9
    step(config, animals, torch.device("cpu"))()
    status = Path("/proc/self/status")
    if status.is_file():  # Linux hands the other figure on from whoever started the process
        (peak,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peak.split()[1]) * 1024 / 1e9
    # Kilobytes, but on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def two_processes_of_a_new_demo() -> dict[str, float]:
    """The same for a demo of the smallest size, made for it."""
    with tempfile.TemporaryDirectory() as folder:
        finished = Path(folder) / "demo"
        demo.demo(demo.Config(str(finished), size="tiny"))
        return two_processes(finished, Path(folder))


def two_processes(finished: Path, out: Path, micro_batch: int | None = None) -> dict[str, float]:
    """Largest difference of a loss between one process and two, of its size, by recipe.

    Args:
        finished: Folder of a demo that one process made; two repeat its trainings.
        out: Folder for that, one in it for each recipe.
        micro_batch: Of the two.
    """
    differences = {}
    for recipe, folder in (("train_ic", "ic"), ("train_compensation", "aid")):
        settings = json.loads((finished / folder / "config.json").read_text())
        file = out / f"{recipe}.json"
        write_json(file, settings | {"out": str(out / recipe), "micro_batch": micro_batch})
        subprocess.run(
            [sys.executable, *BY_TWO, "-m", f"recipes.{recipe}", "--config", str(file)],
            check=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        one, two = (
            load_tensors(path / "state.safetensors")[1]["history"]
            for path in (finished / folder, out / recipe)
        )
        differences[recipe] = max(
            abs(second[name] - first[name]) / max(abs(first[name]), 1e-3)
            for first, second in zip(one, two, strict=True)
            for name in first
            if name != "movement"  # of listeners, which is no loss
        )
    return differences


def cost_model(seconds: dict[int, float], memory_gb: dict[int, float]) -> dict:
    """Straight lines through what was measured: a part for the sounds, and one for each animal."""
    model: dict = {}
    for name, measured in (("seconds", seconds), ("memory_gb", memory_gb)):
        counts, values = np.array(list(measured)), np.array(list(measured.values()))
        slope, start = np.polyfit(counts, values, 1) if len(counts) > 1 else (0.0, values[0])
        model[name] = {
            "of_the_sounds": float(start),
            "an_animal": float(slope),
            "predicted": {count: float(start + slope * count) for count in PREDICTED},
        }
    return model


@contextlib.contextmanager
def tap_by_tap() -> Iterator[None]:
    """Torch's own convolutions, whatever the size."""
    large = convolution.LARGE
    convolution.LARGE = sys.maxsize
    try:
        yield
    finally:
        convolution.LARGE = large


def operations(work: Callable) -> float:
    """Floating-point operations of some work, convolved tap by tap."""
    with tap_by_tap(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def in_turns(works: dict, rounds: int, device: torch.device) -> dict[int | str, list[float]]:
    """Seconds of each work in every round, after one that warms up."""
    seconds: dict = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            spent = timed(work, device)
            if turn > 0:
                seconds[name].append(spent)
    return seconds


def timed(work: Callable, device: torch.device) -> float:
    """Seconds that it takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def medians(seconds: dict[int | str, list[float]]) -> dict:
    """Of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratios(seconds: dict[int | str, list[float]], least: int | str) -> dict:
    """Median over rounds of each relative to one of them in the same round."""
    return {
        name: statistics.median(
            more / one for more, one in zip(values, seconds[least], strict=True)
        )
        for name, values in seconds.items()
    }


def table(found: dict) -> Table:
    """The ratios that matter, one a line."""
    rows: list[list[Cell]] = []
    if "step" in found:
        first, *others = found["step"]["ratio"]
        for count in others:
            ratio = number(found["step"]["ratio"][count], 2)
            rows.append([f"training step, {count} animals over {first}", ratio])
        share = number(found["step"]["nominal_fraction_of_matrix_rate"], 2)
        rows.append(["training, share of the matrix rate (nominal operations)", share])
    if "compile" in found:
        rows.append(["the step compiled, speed-up", number(found["compile"]["speedup"], 2)])
        rows.append(["… its first step [s]", number(found["compile"]["first_s"], 0)])
    if "inference" in found:
        for length, ratio in found["inference"]["speedup"].items():
            name = f"inference of {length} s, torch's convolutions over ours"
            rows.append([name, number(ratio, 1)])
        share = number(found["inference"]["nominal_fraction_of_matrix_rate"], 2)
        rows.append(["inference, share of the matrix rate (nominal operations)", share])
    if "fit" in found:
        rows.append(["candidate of a fit, plain over cached", number(found["fit"]["speedup"], 1)])
        ratio = number(found["fit"]["speedup_over_direct"], 1)
        rows.append(["… plain with torch's convolutions over cached", ratio])
    if "loader_wait_fraction" in found:
        waited = number(found["loader_wait_fraction"], 3)
        rows.append(["waiting for data, share of training", waited])
    for name, measured in found.get("stream", {}).items():
        rows.append([f"{name}, real-time factor", number(measured["real_time_factor"], 2)])
        rows.append([f"{name}, longest block [ms]", number(measured["worst_block_ms"], 1)])
    for count, gigabytes in found.get("memory", {}).items():
        rows.append([f"memory of a step of {count} animals [GB]", number(gigabytes, 2)])
    for name, difference in found.get("two_process_difference", {}).items():
        rows.append([f"{name}, losses of two processes against one", f"{difference:.0e}"])
    about = (
        f"On {found['device']} with {found['threads']} threads, {found['matrix_gflops']:.0f} "
        "GFLOP/s in products of matrices. Nominal operations are those of convolutions tap by "
        "tap: blocks in the frequency domain need fewer, so that shares may exceed 1."
    )
    return Table("Speed", about, ["what", "value"], rows)


if __name__ == "__main__":
    print(table(run(benchmark, Config)).markdown())
