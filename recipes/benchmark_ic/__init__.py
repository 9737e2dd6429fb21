"""The model of the midbrain on cohorts whose truth is known: the paper's table, and more.

`python -m recipes.benchmark_ic --config recipes/configs/benchmark_ic/small.yaml`

Run the same command again to go on: every network, fit and score that was finished is kept.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm import tqdm

from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from recipes import align, make_cohort, train_ic
from recipes.benchmark_ic import report, tasks
from recipes.state import claim, parse, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared; the animals are those of the cohort's configuration."""

    out: str
    """Folder: one folder for each seed, `summary.json`, tables and figures."""
    cohort: str
    """Configuration of `recipes.make_cohort`: all animals, those of `nine` among them."""
    training: str
    """Configuration of `recipes.train_ic`, for BetaICNet and ABRNet."""
    icnet_training: str
    """The same for ICNets, which have nothing to begin from."""
    nine: list[str]
    """The smaller group of training animals; the larger one is all that are seen."""
    singles: list[str]
    """Animals of `nine` that get an ICNet of their own."""
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2])
    """Each is another cohort, other sounds and other networks."""
    ablation_seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    """Seeds for which the ablations are trained too."""
    searched: list[str] = dataclasses.field(default_factory=list)
    """Unseen animals on which the ways of searching θ are compared."""
    fit_seconds: float = 20.0
    """Sound that a listener is fitted on [s]."""
    dense: int = 128
    """Points of the dense search that finds each search's target."""
    jobs: int = 2
    """Processes side by side."""


@dataclasses.dataclass(frozen=True)
class Network:
    """One network to train."""

    name: str
    network: str
    """beta, abr or icnet."""
    animals: list[str]
    alignment: str = ALIGNMENT
    begin_from: str | None = "icnet-multi"
    """ICNet whose encoder and rows a conditional network begins from."""
    changes: dict = dataclasses.field(default_factory=dict)
    """Of the training's configuration."""


def benchmark(config: Config) -> dict:
    """Do what has not been done, seed by seed and the ablations last; write the summary."""
    out = Path(config.out)
    claim(out, config)
    for seed in config.seeds:
        cohort = _cohort(config, seed, out / f"seed-{seed}")
        _train_and_judge(config, seed, out / f"seed-{seed}", cohort, *networks_of(config, cohort))
        report.write(out)
    for seed in config.ablation_seeds:
        cohort = Cohort.open(out / f"seed-{seed}" / "cohort" / "cohort.zarr")
        _train_and_judge(config, seed, out / f"seed-{seed}", cohort, *ablations_of(config, cohort))
    return report.write(out)


def networks_of(config: Config, cohort: Cohort) -> tuple[list[Network], list[Network]]:
    """What is trained: ICNets, of which the others begin from the first, and the others."""
    everyone = cohort.animals("seen")
    first = [
        *(Network(f"icnet-{name}", "icnet", [name]) for name in config.singles),
        Network("icnet-multi", "icnet", config.nine),
    ]
    rest = [
        Network("abr", "abr", config.nine),
        Network("beta-3", "beta", config.nine, changes={"parameters": 3}),
        Network("beta-6", "beta", config.nine),
        Network("beta-6-permuted", "beta", config.nine, "permutation"),
        Network("beta-6-twenty", "beta", everyone),
        Network("beta-6-twenty-permuted", "beta", everyone, "permutation"),
    ]
    return first, rest


def ablations_of(config: Config, cohort: Cohort) -> tuple[list[Network], list[Network]]:
    """BetaICNet of six parameters with one thing changed, and the ICNet that one needs."""
    normal = [name for name in config.nine if cohort.animal(name).status == "NH"]
    begin: dict[str, str | None] = {"from-normal": "icnet-normal", "from-scratch": None}
    changes: dict[str, dict] = {
        "own-drift": {"shared_drift": False},
        "no-threshold-penalty": {"threshold_weight": 0.0},
        "no-noise": {"noise": False},
        "matched-again": {"rematch_epochs": [1, 2, 3]},
        **{f"beta-{p}": {"parameters": p} for p in (1, 2, 12)},
    }
    return [Network("icnet-normal", "icnet", normal)], [
        *(Network(n, "beta", config.nine, begin_from=b) for n, b in begin.items()),
        *(Network(n, "beta", config.nine, changes=c) for n, c in changes.items()),
    ]


def _cohort(config: Config, seed: int, out: Path) -> Cohort:
    """Simulate and align the animals of one seed."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cohort" / "cohort.zarr"
    with _stage(out, "cohort"):
        wanted = parse(make_cohort.Config, ["--config", config.cohort])
        make_cohort.make_cohort(dataclasses.replace(wanted, out=str(out / "cohort"), seed=seed))
    if not (out / "alignment.json").is_file():
        with _stage(out, "alignment"):
            aligned = {
                method: align.align(align.Config(str(path), method=method, name=name))
                for method, name in (("template", ALIGNMENT), ("permutation", "permutation"))
            }
            write_json(out / "alignment.json", aligned)
    return Cohort.open(path)


def _train_and_judge(
    config: Config,
    seed: int,
    out: Path,
    cohort: Cohort,
    first: list[Network],
    rest: list[Network],
) -> None:
    """Networks, then their scores, unseen animals and searches, some jobs side by side."""
    path = cohort.path
    for stage, wanted in (("training ICNets", first), ("training the others", rest)):
        jobs = []
        for network in wanted:
            jobs.append((network.name, tasks.train, _training(config, network, seed, out)))
        _side_by_side(stage, jobs, config.jobs, out)
    jobs = []
    for network in first + rest:
        name, model = network.name, str(out / "networks" / network.name / "model.safetensors")
        score = tasks.Score(path, model, str(out / "scores" / f"{name}.json"))
        jobs.append((f"score of {name}", tasks.score, score))
        if network.network != "beta":
            continue
        fits = tasks.NewListeners(
            path, model, network.alignment, str(out / "fits" / name), config.fit_seconds
        )
        jobs.append((f"unseen animals by {name}", tasks.new_listeners, fits))
        for animal in config.searched if name in ("beta-3", "beta-6") else []:
            target = str(out / "searches" / name / f"{animal}.json")
            search = tasks.Searches(path, model, animal, target, config.fit_seconds, config.dense)
            jobs.append((f"searches for {animal} by {name}", tasks.searches, search))
    _side_by_side("scores, fits and searches", jobs, config.jobs, out)


def _training(config: Config, network: Network, seed: int, out: Path) -> train_ic.Config:
    """The configuration of one network's training."""
    begin = None if network.network == "icnet" else network.begin_from
    file = config.icnet_training if network.network == "icnet" else config.training
    wanted = parse(train_ic.Config, ["--config", file])
    common = {
        "cohort": str(out / "cohort" / "cohort.zarr"),
        "out": str(out / "networks" / network.name),
        "network": network.network,
        "animals": network.animals,
        "alignment": network.alignment,
        "begin_from": begin and str(out / "networks" / begin / "model.safetensors"),
        "seed": seed,
    }
    return dataclasses.replace(wanted, **(common | network.changes))


def _side_by_side(stage: str, jobs: list[tuple[str, Callable, object]], count: int, out: Path):
    """Do the jobs that are not done, some at a time, each in a process of its own.

    What they print goes to `log.txt`.
    """
    missing = [job for job in jobs if not tasks.is_done(job[2])]
    if not missing:
        return
    threads = max(1, (os.cpu_count() or 1) // count)
    with (
        _stage(out, stage),
        ProcessPoolExecutor(
            count, get_context("spawn"), _begin_process, (threads, str(out / "log.txt"))
        ) as pool,
        tqdm(total=len(missing), desc=f"{out.name}: {stage}", unit="job") as bar,
    ):
        running = {pool.submit(_timed, work, job): name for name, work, job in missing}
        for future in as_completed(running):
            future.result()
            bar.set_postfix_str(f"{running[future]} done")
            bar.update()


def _begin_process(threads: int, log: str) -> None:
    torch.set_num_threads(threads)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _timed(work: Callable, job) -> None:
    started = time.monotonic()
    work(job)
    tasks.note_seconds(job, time.monotonic() - started)


@contextlib.contextmanager
def _stage(out: Path, name: str):
    """Add the seconds of a stage to those in `stages.json`."""
    started = time.monotonic()
    yield
    path = out / "stages.json"
    seconds = json.loads(path.read_text()) if path.is_file() else {}
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started
    write_json(path, seconds)
