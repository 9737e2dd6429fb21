"""Aids judged on ears that they have never met: the true midbrains of unseen animals.

`python -m recipes.benchmarks.aids --config
recipes/configs/benchmarks/aids/small.yaml`

Run the same command again to go on: every network, fit and judgement that was finished is kept.
Seeds may be run on several machines and their folders brought together: of a seed that is complete
only `judged`, `ablations`, `streaming.csv` and `stages.json` are read. What is kept of finished
runs, and how the tables of `docs/aids.md` are made of it: `recipes.reports.documents`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from icsim.simulation.material import Material
from icsim.store import Cohort
from recipes import fit_theta, train_compensation, train_ic
from recipes.benchmarks import cohorts, judgement
from recipes.reports import aids as report
from recipes.reports.tables import Table
from recipes.running.commands import claim, parse, run
from recipes.running.jobs import Job, finished, side_by_side
from recipes.running.ranges import Count, NotEmptyStr, Seconds, Seed, checked
from recipes.train_compensation import Plateau


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What is compared, on whom."""

    out: NotEmptyStr
    """Folder: one folder for each seed, `results.csv`, `headline.json`, tables, figures, a page."""
    cohort: NotEmptyStr
    """Configuration of `recipes.make_cohort`; its unseen animals are the listeners."""
    training: NotEmptyStr
    """Configuration of `recipes.train_ic` of the BetaICNet that aids are trained through."""
    aid_training: NotEmptyStr
    """Configuration of `recipes.train_compensation` of all aids."""
    own_steps: Count
    """The most steps for a network of one listener's own and for the ceiling, which begin from the
    one for all and end where they stop gaining."""
    ablation_steps: Count
    """Steps for an ablation, which begins from it too."""
    plateau: Plateau = dataclasses.field(default_factory=Plateau)
    """When networks of one listener stop gaining, judged on the validation split."""
    seeds: list[Seed] = dataclasses.field(default_factory=lambda: [1, 2, 3])
    """Numbers of the seeds that are run and reported; `[2]` is seed number 2 alone. Each is another
    cohort, other sounds and other networks."""
    development_seed: Seed = 0
    """The seed that choices are made on. It may be run, and is in no reported mean or interval."""
    ablation_seeds: list[Seed] = dataclasses.field(default_factory=list)
    """Numbers of the seeds for which the ablations are trained too."""
    fit_seconds: Seconds = 20.0
    """Sound that a listener is fitted on [s]."""
    material: Material = dataclasses.field(default_factory=Material)
    """Test sounds."""
    training_excerpts: Count = 12
    """Training sounds that gains of simpler devices are chosen on, each class at each level."""
    training_s: Seconds = 1.0
    """Their length [s]."""
    limit_steps: Count = 120
    """The most steps of the descent to the limit."""
    jobs: Count = 2
    """Processes side by side."""


AIDS: dict[str, dict] = {
    "masks": {},
    "masks_audiogram": {"listener": "audiogram"},
    "waveform": {"network": "waveform"},
    "masks_auditory": {"listener": "audiogram", "through": "auditory"},
}
"""Aids for every listener, and what is changed in the training of each."""

GUARDS = ("roughness", "flutter", "effort", "hiss", "contrast", "distortion")
"""Terms that are switched off, each by itself and all together."""

ABLATIONS: dict[str, dict] = {
    "nothing-changed": {},
    **{f"no-{name}": {"weights": {name: 0.0}} for name in GUARDS},
    "no-guards": {"weights": dict.fromkeys(GUARDS, 0.0)},
    "exact-fit": {"misfit": 0.0},
    "two-models": {},
}
"""What is changed while the aid for all listeners is trained on: what a term held drifts away once
it is gone. `two-models` goes on through one model more."""


def benchmark(config: Config) -> dict[str, Table]:
    """Do what has not been done, seed by seed and the ablations last; returns the tables."""
    out = Path(config.out)
    cohorts.require_animals(config.cohort)
    parse(train_ic.Config, ["--config", config.training])
    parse(train_compensation.Config, ["--config", config.aid_training])
    claim(out, config)
    for seed in config.seeds:
        folder = out / f"seed-{seed}"
        if finished(folder, "streaming"):
            continue
        cohort = cohorts.aligned(config.cohort, seed, folder, ("template",))
        _model(config, seed, folder, cohort, "model")
        _aids(config, seed, folder, cohort)
        report.write(out, config.development_seed)
    for seed in config.ablation_seeds:
        folder = out / f"seed-{seed}"
        if finished(folder, "judgements of ablations"):
            continue
        cohort = Cohort.open(folder / "cohort" / "cohort.zarr")
        _model(config, seed + 100, folder, cohort, "model-2")
        _ablations(config, seed, folder, cohort)
        report.write(out, config.development_seed)
    return report.write(out, config.development_seed)


def _model(config: Config, seed: int, out: Path, cohort: Cohort, name: str) -> None:
    """A model of the midbrain, and all unseen animals fitted to it."""
    wanted = parse(train_ic.Config, ["--config", config.training])
    common = {"cohort": str(cohort.path), "out": str(out / name), "seed": seed}
    wanted = dataclasses.replace(wanted, **common)
    job = Job(name, train_ic.train, wanted, out / name / "finished.json")
    side_by_side(f"training {name}", [job], 1, out)
    fits = []
    for animal in cohort.animals("unseen"):
        folder = out / "fits" / name
        wanted = fit_theta.Config(
            str(cohort.path),
            _checkpoint(out / name),
            str(folder),
            animal,
            seconds=config.fit_seconds,
        )
        fits.append(Job(animal, fit_theta.fit_theta, wanted, folder / f"{animal}.seconds"))
    side_by_side(f"fits to {name}", fits, config.jobs, out)


def _aids(config: Config, seed: int, out: Path, cohort: Cohort) -> None:
    """The aids for everyone, then those of single listeners, then judgements."""
    jobs = [_training(config, seed, out, name, changes) for name, changes in AIDS.items()]
    side_by_side("aids", jobs, config.jobs, out)
    listeners, trainings = cohort.animals("unseen"), []
    # To those who hear normally there is nothing to be restored by an aid of their own.
    impaired = [name for name in listeners if judgement.group(cohort.truth(name)) != "normal"]
    for animal in impaired:
        begun = {
            "only": str(out / "fits" / "model" / f"{animal}.json"),
            "begin_from": str(out / "aids" / "masks" / "aid.safetensors"),
            "steps": config.own_steps,
            "plateau": config.plateau,
            "noise_reduction": False,
        }
        for kind, through in (("own", "model"), ("ceiling", "animal")):
            trainings.append(
                _training(config, seed, out, f"{kind}-{animal}", begun | {"through": through})
            )
    side_by_side("aids of single listeners", trainings, config.jobs, out)
    judgements = []
    for animal in listeners:
        paths = {name: _aid(out, name) for name in AIDS}
        if animal in impaired:
            paths |= {kind: _aid(out, f"{kind}-{animal}") for kind in ("own", "ceiling")}
        judgements.append(_judgement(config, seed, out, animal, paths, judgement.judge, "judged"))
    streams = {name: _aid(out, name) for name in ("masks", "waveform")}
    streaming = judgement.Streaming(streams, str(out / "streaming.csv"))
    side_by_side("judgements", judgements, config.jobs, out)
    # Alone, so that nothing else takes the time that is measured.
    job = Job("streaming", judgement.stream, streaming, out / "streaming.seconds")
    side_by_side("streaming", [job], 1, out)


def _ablations(config: Config, seed: int, out: Path, cohort: Cohort) -> None:
    """The aid for everyone, trained on with one thing changed, and how far it restores."""
    jobs = []
    begun = {"begin_from": _aid(out, "masks"), "steps": config.ablation_steps}
    for name, changes in ABLATIONS.items():
        more = {"more_models": [_checkpoint(out / "model-2")]} if name == "two-models" else {}
        jobs.append(_training(config, seed, out, name, begun | changes | more))
    side_by_side("ablations", jobs, config.jobs, out)
    paths = {name: _aid(out, name) for name in ("masks", *ABLATIONS)}
    judgements = [
        _judgement(config, seed, out, animal, paths, judgement.judge_ablations, "ablations")
        for animal in cohort.animals("unseen")
    ]
    side_by_side("judgements of ablations", judgements, config.jobs, out)


def _training(config: Config, seed: int, out: Path, name: str, changes: dict) -> Job:
    wanted = parse(train_compensation.Config, ["--config", config.aid_training])
    weights = dataclasses.replace(wanted.weights, **changes.get("weights", {}))
    folder = out / "aids" / name
    wanted = dataclasses.replace(
        wanted,
        **changes
        | {
            "cohort": str(out / "cohort" / "cohort.zarr"),
            "model": _checkpoint(out / "model"),
            "out": str(folder),
            "weights": weights,
            "seed": seed,
        },
    )
    return Job(name, train_compensation.train, wanted, folder / "finished.json")


def _judgement(
    config: Config,
    seed: int,
    out: Path,
    animal: str,
    aids: dict[str, str],
    work: Callable[[judgement.Judgement], None],
    folder: str,
) -> Job:
    wanted = judgement.Judgement(
        cohort=str(out / "cohort" / "cohort.zarr"),
        model=_checkpoint(out / "model"),
        fit=str(out / "fits" / "model" / f"{animal}.json"),
        aids=aids,
        out=str(out / folder),
        material=config.material,
        training_excerpts=config.training_excerpts,
        training_s=config.training_s,
        limit_steps=config.limit_steps,
        seed=seed,
    )
    return Job(animal, work, wanted, out / folder / f"{animal}.seconds")


def _checkpoint(folder: Path) -> str:
    return str(folder / "model.safetensors")


def _aid(out: Path, name: str) -> str:
    return str(out / "aids" / name / "aid.safetensors")


if __name__ == "__main__":  # not in the processes that it starts
    print(run(benchmark, Config)["restoration"].markdown())
