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
from recipes import align, benchmark_ic_report, benchmark_ic_tasks, make_cohort, train_ic
from recipes.state import claim, parse, run, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared; the animals are those of the cohort's configuration."""

    out: str
    """Folder: one folder for each seed, `summary.json`, tables and figures."""
    cohort: str
    """Configuration of `recipes.make_cohort`: all animals, those of `nine` among them."""
    training: str
    """Configuration of `recipes.train_ic`, for all networks alike."""
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
    changes: dict = dataclasses.field(default_factory=dict)
    """Of the training's configuration."""


def benchmark(config: Config) -> dict:
    """Do what has not been done, seed by seed; write and return the summary."""
    out = Path(config.out)
    claim(out, config)
    for seed in config.seeds:
        _one_seed(config, seed, out / f"seed-{seed}")
    return benchmark_ic_report.write(out)


def networks_of(config: Config, cohort: Cohort, seed: int) -> tuple[list[Network], list[Network]]:
    """What is trained: first what others begin from, then the rest."""
    normal = [name for name in config.nine if cohort.animal(name).status == "NH"]
    first = [
        Network("icnet-normal", "icnet", normal),
        *(Network(f"icnet-{name}", "icnet", [name]) for name in config.singles),
    ]
    everyone = cohort.animals("seen")
    rest = [
        Network("icnet-multi", "icnet", config.nine),
        Network("abr", "abr", config.nine),
        Network("beta-3", "beta", config.nine, changes={"parameters": 3}),
        Network("beta-6", "beta", config.nine),
        Network("beta-6-permuted", "beta", config.nine, "permutation"),
        Network("beta-6-twenty", "beta", everyone),
        Network("beta-6-twenty-permuted", "beta", everyone, "permutation"),
    ]
    if seed in config.ablation_seeds:
        changes = {
            "own-drift": {"shared_drift": False},
            "no-threshold-penalty": {"threshold_weight": 0.0},
            "no-noise": {"noise": False},
            "from-scratch": {"begin_from": None},
            **{f"beta-{p}": {"parameters": p} for p in (1, 2, 12)},
        }
        rest += [Network(n, "beta", config.nine, changes=c) for n, c in changes.items()]
    return first, rest


def _one_seed(config: Config, seed: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cohort" / "cohort.zarr"
    with _stage(out, "cohort"):
        wanted = parse(make_cohort.Config, ["--config", config.cohort])
        make_cohort.make_cohort(dataclasses.replace(wanted, out=str(out / "cohort"), seed=seed))
    with _stage(out, "alignment") as missing:
        if missing:
            aligned = {
                method: align.align(align.Config(str(path), method=method, name=name))
                for method, name in (("template", ALIGNMENT), ("permutation", "permutation"))
            }
            write_json(out / "alignment.json", aligned)
    cohort = Cohort.open(path)
    first, rest = networks_of(config, cohort, seed)
    tasks = benchmark_ic_tasks
    begin = out / "networks" / "icnet-normal" / "model.safetensors"
    for stage, wanted in (("training ICNets", first), ("training the others", rest)):
        jobs = []
        for network in wanted:
            ready = None if network.network == "icnet" else str(begin)
            jobs.append((network.name, tasks.train, _training(config, network, seed, out, ready)))
        _side_by_side(stage, jobs, config.jobs, out)
    paths = {n.name: str(out / "networks" / n.name / "model.safetensors") for n in first + rest}
    jobs = []
    for name in paths:
        job = tasks.Score(str(path), paths[name], str(out / "scores" / f"{name}.json"))
        jobs.append((f"score of {name}", tasks.score, job))
    for network in rest:
        if network.network != "beta" or network.name in tasks.NOT_FITTED:
            continue
        for animal in cohort.animals("unseen"):
            target = out / "fits" / network.name / f"{animal}.json"
            job = tasks.NewListener(
                str(path),
                paths[network.name],
                animal,
                network.alignment,
                str(target),
                config.fit_seconds,
            )
            jobs.append((f"{animal} by {network.name}", tasks.new_listener, job))
    for name in ("beta-3", "beta-6"):
        for animal in config.searched:
            target = out / "searches" / name / f"{animal}.json"
            job = tasks.Searches(
                str(path), paths[name], animal, str(target), config.fit_seconds / 2, config.dense
            )
            jobs.append((f"searches for {animal} by {name}", tasks.searches, job))
    _side_by_side("scores, fits and searches", jobs, config.jobs, out)


def _training(
    config: Config, network: Network, seed: int, out: Path, begin_from: str | None
) -> train_ic.Config:
    """The configuration of one network's training."""
    wanted = parse(train_ic.Config, ["--config", config.training])
    common = {
        "cohort": str(out / "cohort" / "cohort.zarr"),
        "out": str(out / "networks" / network.name),
        "network": network.network,
        "animals": network.animals,
        "alignment": network.alignment,
        "begin_from": begin_from,
        "seed": seed,
    }
    return dataclasses.replace(wanted, **(common | network.changes))


def _side_by_side(stage: str, jobs: list[tuple[str, Callable, object]], count: int, out: Path):
    """Do the jobs that are not done, some at a time, each in a process of its own.

    What they print goes to `log.txt`.
    """
    missing = [job for job in jobs if not benchmark_ic_tasks.is_done(job[2])]
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
    benchmark_ic_tasks.note_seconds(job, time.monotonic() - started)


@contextlib.contextmanager
def _stage(out: Path, name: str):
    """Add the seconds of a stage to those in `stages.json`; says whether it is the first time."""
    path = out / "stages.json"
    seconds = json.loads(path.read_text()) if path.is_file() else {}
    started = time.monotonic()
    yield name not in seconds
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started
    write_json(path, seconds)


if __name__ == "__main__":
    print(json.dumps(run(benchmark, Config), indent=2))
