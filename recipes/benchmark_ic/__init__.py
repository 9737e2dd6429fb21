"""The model of the midbrain on cohorts whose truth is known: the paper's table, and more.

`python -m recipes.benchmark_ic --config recipes/configs/benchmark_ic/small.yaml`

Run the same command again to go on: every network, fit and score that was finished is kept.
"""

import dataclasses
from pathlib import Path

from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from recipes import cohorts, train_ic
from recipes.benchmark_ic import report, tasks
from recipes.benchmark_ic.results import FITTED
from recipes.jobs import Job, side_by_side
from recipes.ranges import Count, NotEmptyStr, Seconds, Seed, checked
from recipes.state import claim, parse


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared; the animals are those of the cohort's configuration."""

    out: NotEmptyStr
    """Folder: one folder for each seed, `summary.json`, tables and figures."""
    cohort: NotEmptyStr
    """Configuration of `recipes.make_cohort`: all animals, those of `nine` among them."""
    training: NotEmptyStr
    """Configuration of `recipes.train_ic`, for BetaICNet and ABRNet."""
    icnet_training: NotEmptyStr
    """The same for ICNets, which have nothing to begin from."""
    nine: list[NotEmptyStr]
    """The smaller group of training animals; the larger one is all that are seen."""
    singles: list[NotEmptyStr]
    """Animals of `nine` that get an ICNet of their own."""
    seeds: list[Seed] = dataclasses.field(default_factory=lambda: [0, 1, 2])
    """Each is another cohort, other sounds and other networks."""
    ablation_seeds: list[Seed] = dataclasses.field(default_factory=lambda: [0])
    """Seeds for which the ablations are trained too."""
    searched: list[NotEmptyStr] = dataclasses.field(default_factory=list)
    """Unseen animals on which the ways of searching θ are compared."""
    fit_seconds: Seconds = 20.0
    """Sound that a listener is fitted on [s]."""
    dense: Count = 128
    """Points of the dense search that finds each search's target."""
    jobs: Count = 2
    """Processes side by side."""

    __post_init__ = checked


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
    cohorts.require_animals(config.cohort, [*config.nine, *config.singles, *config.searched])
    for file in (config.training, config.icnet_training):
        parse(train_ic.Config, ["--config", file])
    claim(out, config)
    for seed in config.seeds:
        cohort = cohorts.aligned(
            config.cohort, seed, out / f"seed-{seed}", ("template", "permutation")
        )
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
        "every-animal": {"animals_a_step": None},
        **{f"beta-{p}": {"parameters": p} for p in (1, 2, 12)},
    }
    # The published encoder of all animals has 246 kernels, that of one animal's ICNet 128.
    usual = parse(train_ic.Config, ["--config", config.training]).encoder
    wide = {"encoder": dataclasses.replace(usual, kernels=2 * usual.kernels)}
    return [
        Network("icnet-normal", "icnet", normal),
        Network("icnet-multi-wide", "icnet", config.nine, changes=wide),
    ], [
        *(Network(n, "beta", config.nine, begin_from=b) for n, b in begin.items()),
        *(Network(n, "beta", config.nine, changes=c) for n, c in changes.items()),
        Network("wide", "beta", config.nine, begin_from="icnet-multi-wide", changes=wide),
    ]


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
            training = _training(config, network, seed, out)
            done = Path(training.out) / "finished.json"
            jobs.append(Job(network.name, train_ic.train, training, done))
        side_by_side(stage, jobs, config.jobs, out)
    jobs = []
    for network in first + rest:
        name, model = network.name, str(out / "networks" / network.name / "model.safetensors")
        score = tasks.Score(path, model, str(out / "scores" / f"{name}.json"))
        jobs.append(Job(f"score of {name}", tasks.score, score, _seconds(score.out)))
        if network.network != "beta":
            continue
        fits = tasks.NewListeners(
            path,
            model,
            network.alignment,
            str(out / "fits" / name),
            config.fit_seconds,
            every_way=name in FITTED,
        )
        done = Path(fits.out) / "finished.seconds"
        jobs.append(Job(f"unseen animals by {name}", tasks.new_listeners, fits, done))
        for animal in config.searched if name in ("beta-3", "beta-6") else []:
            target = str(out / "searches" / name / f"{animal}.json")
            search = tasks.Searches(path, model, animal, target, config.fit_seconds, config.dense)
            title = f"searches for {animal} by {name}"
            jobs.append(Job(title, tasks.searches, search, _seconds(target)))
    side_by_side("scores, fits and searches", jobs, config.jobs, out)


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


def _seconds(result: str) -> Path:
    return Path(result).with_suffix(".seconds")
