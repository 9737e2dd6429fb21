"""The model of the midbrain on cohorts whose truth is known: the paper's table, and more.

`python -m recipes.benchmarks.ic --config recipes/configs/benchmarks/ic/small.yaml`

Run the same command again to go on: every network, fit and score that was finished is kept.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from evaluation.tidy import read
from icsim.files import write_whole
from icsim.models.conditions import (
    BranchesConfig,
    ConditionConfig,
    ThetaConfig,
    ThresholdsConfig,
)
from icsim.models.encoders import SincNetConfig
from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from recipes import train_compensation, train_ic
from recipes.benchmarks import cohorts, ic_tasks, listener_tasks, restoration_tasks
from recipes.reports import ic as report
from recipes.running.commands import claim, parse, run
from recipes.running.jobs import Job, side_by_side
from recipes.running.ranges import Count, NotEmptyStr, Seconds, Seed, checked

Shared = Literal[
    "icnet-multi",
    "abr",
    "beta-3",
    "beta-6",
    "beta-6-again",
    "beta-6-permuted",
    "beta-6-twenty",
]
"""Networks of several animals; `again` is beta-6 from another seed."""

LESS = (ic_tasks.STEADY, ic_tasks.MEAN)
"""How unseen animals are fitted to beta-6 too, on every seed."""

MORE = (ic_tasks.ALONE, ic_tasks.MATCHED, ic_tasks.BEST)
"""And on the seeds that have ablations."""

SEARCHED = ("beta-3", "beta-6")
"""Those on which ways of searching are compared."""

PLACED = ("beta-6", "beta-6-again", "beta-6-twenty")
"""Those whose listeners are placed by what they answer."""

CHANGING = ("beta-6", "beta-6-twenty")
"""Those whose drift is held against the true one."""

AIDS: tuple[Literal["theta", "audiogram"], ...] = ("theta", "audiogram")
"""What aids are told of listeners."""

RECORDED = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Sounds that one listener is fitted to, in units of what others are (`fit_seconds`)."""

COMPARED = 4
"""Test sounds by which changes of responses are compared."""

NO_GAINS = {"channel_gains": False}

AGAIN = 1000
"""Added to the seed of a network that is trained twice on the same animals."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What is compared; the animals are those of the cohort's configuration."""

    out: NotEmptyStr
    """Folder: one folder for each seed, `results.csv`, `headline.json`, tables and figures."""
    cohort: NotEmptyStr
    """Configuration of `recipes.make_cohort`: all animals, those of `smaller` among them."""
    training: NotEmptyStr
    """Configuration of `recipes.train_ic`, for all that is compared."""
    icnet_training: NotEmptyStr
    """The same for ICNets of one animal."""
    smaller: list[NotEmptyStr]
    """The smaller group of training animals; the larger one is all that are seen."""
    singles: list[NotEmptyStr]
    """Animals of `smaller` that get an ICNet of their own, none of them of the template."""
    networks: list[Shared] = dataclasses.field(default_factory=lambda: list(get_args(Shared)))
    """Networks of several animals; beta-6 is what others are compared with."""
    once: list[Shared] = dataclasses.field(default_factory=list)
    """More of them, for the seeds alone for which the ablations are trained."""
    seeds: list[Seed] = dataclasses.field(default_factory=lambda: [1, 2, 3])
    """Numbers of seeds, not how many: each is another cohort, other sounds and other networks.
    These are reported. Seed 0 is for development: choices may be made by it."""
    ablation_seeds: list[Seed] = dataclasses.field(default_factory=lambda: [1])
    """Numbers of those for which the ablations are trained too."""
    searched: list[NotEmptyStr] = dataclasses.field(default_factory=list)
    """Unseen animals on which the ways of searching θ are compared; the others take no part in
    that."""
    aid_training: NotEmptyStr | None = None
    """Configuration of `recipes.train_compensation` of an aid that takes θ of beta-6 and one that
    takes audiograms, by which it is seen what θ is worth; none are trained if not given."""
    fit_seconds: Seconds = 20.0
    """Sound that a listener is fitted on [s]."""
    dense: Count = 128
    """Points of the dense search that finds each search's target."""
    jobs: Count = 2
    """Processes side by side."""


@dataclasses.dataclass(frozen=True)
class Network:
    """One network to train."""

    name: str
    condition: ConditionConfig
    """Of the usual sizes, if it is that of `training`."""
    animals: list[str]
    alignment: str = ALIGNMENT
    begin_from: str | None = None
    """ICNet whose encoder and rows a network begins from."""
    changes: dict = dataclasses.field(default_factory=dict)
    """Of the training's configuration."""

    @property
    def alone(self) -> bool:
        """Whether it is an ICNet of one animal."""
        return isinstance(self.condition, BranchesConfig) and len(self.animals) == 1


def benchmark(config: Config) -> dict[str, float]:
    """Do what has not been done, seed by seed and the ablations last; returns the headline."""
    out = Path(config.out)
    _require_comparable(config)
    for file in (config.training, config.icnet_training):
        parse(train_ic.Config, ["--config", file])
    if config.aid_training:
        parse(train_compensation.Config, ["--config", config.aid_training])
    if not isinstance(_theta(config), ThetaConfig):
        raise ValueError(f"{config.training}: condition theta is what others are compared with")
    claim(out, config)
    for seed in config.seeds:
        cohort = cohorts.aligned(
            config.cohort, seed, out / f"seed-{seed}", ("template", "permutation")
        )
        networks = [*singles_of(config), *networks_of(config, cohort, config.networks)]
        _train_and_judge(config, seed, out / f"seed-{seed}", cohort, [], networks)
        report.write(out)
    for seed in config.ablation_seeds:
        cohort = Cohort.open(out / f"seed-{seed}" / "cohort" / "cohort.zarr")
        first, ablations = ablations_of(config)
        more = [*networks_of(config, cohort, config.once), *ablations]
        _train_and_judge(config, seed, out / f"seed-{seed}", cohort, first, more)
    return report.write(out)


def _require_comparable(config: Config) -> None:
    """Ask, before any work, that what is compared will be there and alike.

    Raises:
        ValueError: If not; the message names what is missing.
    """
    cohorts.require_animals(config.cohort, [*config.smaller, *config.singles, *config.searched])
    cohorts.require_outside_template(config.cohort, config.singles)
    for name, wanted, among, there in (
        ("singles", config.singles, "smaller", config.smaller),
        ("ablation_seeds", config.ablation_seeds, "seeds", config.seeds),
    ):
        missing = [str(one) for one in wanted if one not in there]
        if missing:
            raise ValueError(f"{name}: {', '.join(missing)} must be among {among}, {there}")
    if "beta-6" not in config.networks:
        raise ValueError(f"networks {config.networks}: beta-6 is what others are compared with")


def singles_of(config: Config) -> list[Network]:
    """ICNets of one animal each."""
    return [Network(f"icnet-{name}", BranchesConfig(), [name]) for name in config.singles]


def networks_of(config: Config, cohort: Cohort, names: Sequence[str]) -> list[Network]:
    """Networks of several animals; all are trained for as many epochs."""
    everyone = cohort.animals("seen")
    theta = _theta(config)
    thresholds = ThresholdsConfig(fusion_size=theta.fusion_size, modulated=theta.modulated)
    shared = [
        Network("icnet-multi", BranchesConfig(), config.smaller, changes=NO_GAINS),
        Network("abr", thresholds, config.smaller),
        Network("beta-3", dataclasses.replace(theta, parameters=3), config.smaller),
        Network("beta-6", theta, config.smaller),
        Network("beta-6-again", theta, config.smaller, changes={"seed": AGAIN}),
        Network("beta-6-permuted", theta, config.smaller, "permutation"),
        Network("beta-6-twenty", theta, everyone),
    ]
    return [network for network in shared if network.name in names]


def ablations_of(config: Config) -> tuple[list[Network], list[Network]]:
    """BetaICNet of six parameters with one thing changed, and the ICNet that one begins from."""
    usual = parse(train_ic.Config, ["--config", config.training])
    encoder, theta = usual.encoder or SincNetConfig(), _theta(config)
    # The published encoder of all animals has 246 kernels, that of one animal's ICNet 128.
    narrow = {"encoder": dataclasses.replace(encoder, kernels=encoder.kernels // 2)}
    changes: dict[str, dict] = {
        "no-threshold-penalty": {"threshold_weight": 0.0},
        "no-noise": {"noise": False},
        "no-divergence": {"kl_weight": 0.0},
        "no-channel-gains": NO_GAINS,
        "matched-again": {"rematch_epochs": [4, 8]},
        "three-animals": {"animals_a_step": 3},
        "narrow": narrow,
        "slow-listeners": {"listener_rate": 1.0, "deviation_rate": 1.0, "drift_rate": 1.0},
    }
    conditions = {
        "shared-drift": dataclasses.replace(theta, shared_drift=True),
        "not-modulated": dataclasses.replace(theta, modulated=False),
        "wide-start": dataclasses.replace(theta, spread=1.5),
        **{f"beta-{p}": dataclasses.replace(theta, parameters=p) for p in (1, 2, 12)},
    }
    half = {"epochs": usual.epochs // 2}
    branches = BranchesConfig()
    wide = {"encoder": encoder}
    return [Network("start-multi", branches, config.smaller, changes=NO_GAINS | half)], [
        Network("from-icnet", theta, config.smaller, begin_from="start-multi", changes=half),
        *(Network(n, theta, config.smaller, changes=c) for n, c in changes.items()),
        *(Network(n, condition, config.smaller) for n, condition in conditions.items()),
        *(Network(f"icnet-wide-{n}", branches, [n], changes=wide) for n in config.singles),
    ]


def _theta(config: Config) -> ThetaConfig:
    """The usual condition."""
    return parse(train_ic.Config, ["--config", config.training]).condition or ThetaConfig()


def _train_and_judge(
    config: Config,
    seed: int,
    out: Path,
    cohort: Cohort,
    first: list[Network],
    rest: list[Network],
) -> None:
    """Networks, then their scores, unseen animals and searches, some jobs side by side."""
    for stage, wanted in (("training what others begin from", first), ("training", rest)):
        jobs = []
        for network in wanted:
            training = _training(config, network, seed, out)
            done = Path(training.out) / "finished.json"
            jobs.append(Job(network.name, train_ic.train, training, done))
        side_by_side(stage, jobs, config.jobs, out)
    results = str(out / "results" / "truth.csv")
    truth = ic_tasks.Truth(cohort.path, cohorts.NAMES, results)
    jobs = [Job("truth", ic_tasks.truth, truth, _seconds(results))]
    more = MORE if seed in config.ablation_seeds else ()
    for network in rest:
        jobs += _judgements(config, network, out, cohort, more)
    jobs += _examples(config, out, cohort, [network.name for network in rest])
    side_by_side("scores, fits and searches", jobs, config.jobs, out)
    jobs = [job for network in rest for job in _knowledge(config, network.name, out, cohort)]
    side_by_side("what θ knows", jobs, config.jobs, out)
    if config.aid_training and "beta-6" in [network.name for network in rest]:
        aids = [_aid(config, seed, out, kind) for kind in AIDS]
        side_by_side("aids", aids, config.jobs, out)
        jobs = [_restoration(out, cohort, animal) for animal in cohort.animals("unseen")]
        side_by_side("what aids restore", jobs, config.jobs, out)
    # What says that a seed is complete.
    tables = [read(path) for path in sorted((out / "results").rglob("*.csv"))]
    rows = pd.concat([*tables, _times(out)], ignore_index=True).fillna({"listener": ""})
    write_whole(out / "results.csv", rows.to_csv(index=False))


def _judgements(
    config: Config, network: Network, out: Path, cohort: Cohort, more: Sequence[str]
) -> list[Job]:
    """Scores of one network, fits of unseen animals to it, in more ways too, and searches on it."""
    name, results = network.name, out / "results"
    common = (cohort.path, str(out / "networks" / name / "model.safetensors"))
    device = name
    for prefix in ("icnet", "icnet-wide"):
        device = prefix if name.removeprefix(f"{prefix}-") in config.singles else device
    target = str(results / "scores" / f"{name}.csv")
    score = ic_tasks.Score(*common, device, target, config.fit_seconds)
    jobs = [Job(f"score of {name}", ic_tasks.score, score, _seconds(score.out))]
    if not isinstance(network.condition, ThetaConfig):
        return jobs
    folder = results / "fits" / name
    ways = (*LESS, *more) if name in ("beta-6", "beta-6-permuted") else ()
    fits = ic_tasks.NewListeners(
        *common, name, network.alignment, str(folder), config.fit_seconds, ways
    )
    done = folder / "finished.seconds"
    jobs.append(Job(f"unseen animals by {name}", ic_tasks.new_listeners, fits, done))
    for animal in config.searched if name in SEARCHED else []:
        target = str(results / "searches" / name / f"{animal}.csv")
        search = ic_tasks.Searches(*common, name, animal, target, config.fit_seconds, config.dense)
        title = f"searches for {animal} by {name}"
        jobs.append(Job(title, ic_tasks.searches, search, _seconds(target)))
    return jobs


def _knowledge(config: Config, name: str, out: Path, cohort: Cohort) -> list[Job]:
    """What is asked of θ once all listeners have theirs."""
    results, jobs = out / "results", []
    common = (cohort.path, str(out / "networks" / name / "model.safetensors"), name)
    if name in PLACED:
        fits = sorted((results / "fits" / name).glob("*.csv"))
        tables = (str(results / "scores" / f"{name}.csv"), *map(str, fits))
        places = listener_tasks.Places(*common, tables, str(results / "places" / f"{name}.csv"))
        jobs.append(Job(f"places by {name}", listener_tasks.places, places, _seconds(places.out)))
    if name in CHANGING:
        target = str(results / "changes" / f"{name}.csv")
        changes = listener_tasks.Changes(*common, COMPARED, target)
        jobs.append(Job(f"changes by {name}", listener_tasks.changes, changes, _seconds(target)))
    for animal in config.searched if name == "beta-6" else []:
        target = str(results / "precision" / f"{animal}.csv")
        seconds = tuple(config.fit_seconds * share for share in RECORDED)
        job = listener_tasks.Precision(*common, animal, target, seconds)
        title = f"precision of {animal}"
        jobs.append(Job(title, listener_tasks.precision, job, _seconds(target)))
    return jobs


def _aid(config: Config, seed: int, out: Path, listener: Literal["theta", "audiogram"]) -> Job:
    """Training of an aid through beta-6."""
    wanted = parse(train_compensation.Config, ["--config", str(config.aid_training)])
    wanted = dataclasses.replace(
        wanted,
        cohort=str(out / "cohort" / "cohort.zarr"),
        model=str(out / "networks" / "beta-6" / "model.safetensors"),
        out=str(out / "aids" / listener),
        listener=listener,
        seed=seed,
    )
    done = Path(wanted.out) / "finished.json"
    return Job(f"aid by {listener}", train_compensation.train, wanted, done)


def _restoration(out: Path, cohort: Cohort, animal: str) -> Job:
    """What aids restore to one unseen animal."""
    results, name = out / "results", "beta-6"
    by_theta, by_audiogram = (str(out / "aids" / kind / "aid.safetensors") for kind in AIDS)
    wanted = restoration_tasks.Restoration(
        cohort.path,
        str(out / "networks" / name / "model.safetensors"),
        name,
        str(results / "fits" / name / f"{animal}.csv"),
        animal,
        (by_theta, by_audiogram),
        str(results / "restoration" / f"{animal}.csv"),
    )
    return Job(animal, restoration_tasks.restore, wanted, _seconds(wanted.out))


def _examples(config: Config, out: Path, cohort: Cohort, trained: list[str]) -> list[Job]:
    """Responses of the worst hearing animal with a network of its own, of each status."""
    if "beta-6" not in trained:
        return []
    worst: dict[str, list[tuple[float, str]]] = {}
    for name in config.singles:
        animal = cohort.animal(name)
        if (levels := animal.thresholds_db_spl) is not None:
            worst.setdefault(animal.status, []).append((levels.sum().item(), name))
    jobs = []
    for status, names in worst.items():
        name = max(names)[1]
        titles = {"ICNet of its own": f"icnet-{name}", "6 parameters": "beta-6"}
        models = {t: str(out / "networks" / n / "model.safetensors") for t, n in titles.items()}
        target = str(out / "examples" / f"{status}.safetensors")
        example = ic_tasks.Example(cohort.path, name, models, target)
        jobs.append(Job(f"responses of {name}", ic_tasks.example, example, _seconds(target)))
    return jobs


def _times(out: Path) -> pd.DataFrame:
    """Seconds that each network's training and each stage took."""
    trained = {
        path.parent.name: json.loads(path.read_text())["seconds"]
        for path in sorted((out / "networks").glob("*/finished.json"))
    }
    stages = json.loads((out / "stages.json").read_text())
    return pd.DataFrame(
        [("training_s", name, seconds) for name, seconds in trained.items()]
        + [("stage_s", name, seconds) for name, seconds in stages.items()],
        columns=["measure", "sound", "value"],
    )


def _training(config: Config, network: Network, seed: int, out: Path) -> train_ic.Config:
    """The configuration of one network's training."""
    begin, changes = network.begin_from, dict(network.changes)
    file = config.icnet_training if network.alone else config.training
    wanted = parse(train_ic.Config, ["--config", file])
    common = {
        "cohort": str(out / "cohort" / "cohort.zarr"),
        "out": str(out / "networks" / network.name),
        "condition": network.condition,
        "animals": network.animals,
        "alignment": network.alignment,
        "begin_from": begin and str(out / "networks" / begin / "model.safetensors"),
        "seed": seed + changes.pop("seed", 0),
    }
    return dataclasses.replace(wanted, **(common | changes))


def _seconds(result: str) -> Path:
    return Path(result).with_suffix(".seconds")


if __name__ == "__main__":  # not in the processes that it starts
    print(json.dumps(run(benchmark, Config), indent=2))
