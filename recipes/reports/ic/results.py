"""What the benchmark of the model of the midbrain left on disk, and statistics over it."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from icsim.store import Cohort

Shared = Literal[
    "icnet-multi",
    "abr",
    "beta-3",
    "beta-6",
    "beta-6-permuted",
    "beta-6-twenty",
    "beta-6-twenty-permuted",
]
"""Networks of several animals."""

MODELS = ("icnet", *get_args(Shared))
"""Networks that are compared; `icnet` stands for those of single animals."""

FITTED = MODELS[4:]
"""Those whose fits to unseen animals must be there."""

SEARCHED = ("beta-3", "beta-6")
"""Those on which ways of searching are compared."""

ABLATIONS = (
    "own-drift",
    "no-threshold-penalty",
    "no-noise",
    "matched-again",
    "every-animal",
    "wide",
    "from-normal",
    "from-scratch",
    "beta-1",
    "beta-2",
    "beta-12",
)
"""Changes of `beta-6` that some seeds have too."""

GROUPS = ("NH", "HI", "hidden")
"""Normal hearing, losses that thresholds show, and losses that they do not."""

ALIGNED, MATCHED, BEST = "aligned", "matched to the model", "best for validation sounds"
"""What an unseen animal's channels are matched by: what other brains answer, what the model
answers for a first θ (not where channels were permuted), or, as a bound, what predicts its answers
to all validation sounds best."""

GAINS, MATCHED_GAINS = "with gains", "matched, with gains"
"""The first two with a gain and offsets of each channel, fitted beside θ."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one seed left."""

    seed: int
    folder: Path
    cohort: Cohort
    groups: dict[str, str]
    """Of every animal: one of `GROUPS`."""
    scores: dict[str, dict]
    """By network."""
    fits: dict[str, dict[str, dict]]
    """By network and unseen animal."""
    searches: dict[str, dict[str, dict]]
    """By network and unseen animal."""

    def largest(self) -> str:
        """The network of six parameters that was trained on most animals."""
        return "beta-6-twenty" if "beta-6-twenty" in self.fits else "beta-6"

    def rows(self, network: str, animal: str) -> list[dict]:
        """Scores of an animal, one a test sound; `icnet` is that of the animal itself."""
        name = f"icnet-{animal}" if network == "icnet" else network
        return self.scores[name]["rows"][animal]

    def has(self, network: str) -> bool:
        """Whether a network was scored, and all unseen animals fitted to it."""
        unseen = self.cohort.animals("unseen")
        return network in self.scores and set(self.fits.get(network, {})) == set(unseen)


@dataclasses.dataclass(frozen=True)
class Results:
    """All complete seeds."""

    config: dict
    """Of the benchmark."""
    runs: list[Run]
    skipped: dict[str, str]
    """Folders left out, and why."""

    @property
    def models(self) -> list[str]:
        """Networks that every seed has."""
        return [name for name in MODELS if name in ("icnet", *self.config["networks"])]

    @property
    def fitted(self) -> list[str]:
        """Those of them to which unseen animals were fitted in every way."""
        return [name for name in FITTED if name in self.models]

    @property
    def smaller(self) -> list[str]:
        """The smaller group of training animals."""
        return self.config["smaller"]

    @property
    def singles(self) -> list[str]:
        """Those of them with an ICNet of their own."""
        return self.config["singles"]

    @property
    def seen(self) -> list[str]:
        """The larger group of training animals."""
        return self.runs[0].cohort.animals("seen")

    @property
    def unseen(self) -> list[str]:
        """Animals that no network was trained on."""
        return self.runs[0].cohort.animals("unseen")


def read(out: Path) -> Results:
    """Open the folders of all complete seeds.

    Raises:
        ValueError: If none is complete; the message says what is missing.
    """
    config = json.loads((out / "config.json").read_text())
    runs, skipped = [], {}
    for folder in sorted(out.glob("seed-*"), key=_seed_of):
        missing = _missing(folder, config)
        if missing:
            skipped[folder.name] = f"{len(missing)} files are missing, first {missing[0]}"
        else:
            runs.append(_run(folder))
    if not runs:
        raise ValueError(
            f"{out}: no seed is complete ({skipped or 'none was begun'}); run recipes.benchmarks.ic"
        )
    return Results(config, runs, skipped)


def median(values: Iterable[float | None]) -> float | None:
    """The median of what is there; None of nothing."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def spread(by_seed: Sequence[Sequence[float]]) -> dict:
    """Median and MAD of all values together, how many there are, and the median of each seed.

    >>> spread([[1.0, 2.0], [], [9.0]])
    {'median': 2.0, 'mad': 1.0, 'n': 3, 'by_seed': [1.5, None, 9.0]}
    """
    together = [value for values in by_seed for value in values]
    middle = median(together)
    return {
        "median": middle,
        "mad": median(abs(value - middle) for value in together),
        "n": len(together),
        "by_seed": [median(values) for values in by_seed],
    }


def defined(rows: Sequence[dict], measure: str) -> list[float]:
    """A measure of all sounds for which it is defined."""
    return [row[measure] for row in rows if row[measure] is not None]


def differences(rows: Sequence[dict], others: Sequence[dict], measure: str) -> list[float]:
    """What rows have more than others of the same sounds, where both are defined."""
    pairs = [(a[measure], b[measure]) for a, b in zip(rows, others, strict=True)]
    return [a - b for a, b in pairs if a is not None and b is not None]


Rows = Callable[[Run, str], list[dict]]
"""Scores of one animal of one seed, one a test sound."""


def scored(network: str) -> Rows:
    """Rows of animals that a network was trained on (by ABRNet, of all)."""
    return lambda run, animal: run.rows(network, animal)


def fitted(network: str, way: str) -> Rows:
    """Rows of unseen animals, fitted in one way."""
    return lambda run, animal: run.fits[network][animal][way]["rows"]


def over(
    runs: Sequence[Run],
    animals: Iterable[str],
    rows: Rows,
    measure: str = "feve",
    than: Rows | None = None,
    group: str | None = None,
) -> dict:
    """The spread of a measure over seeds, animals and sounds.

    Args:
        runs: Seeds.
        animals: Their names.
        rows: What is measured.
        measure: feve or kl.
        than: What is taken from it, sound by sound.
        group: Of `GROUPS`, if animals of others are to be left out.
    """
    names = list(animals)

    def of(run: Run, name: str) -> list[float]:
        if than is None:
            return defined(rows(run, name), measure)
        return differences(rows(run, name), than(run, name), measure)

    return spread(
        [
            [value for n in names if group in (None, run.groups[n]) for value in of(run, n)]
            for run in runs
        ]
    )


def _missing(folder: Path, config: dict) -> list[str]:
    """Files that a complete seed has and this one has not."""
    store = folder / "cohort" / "cohort.zarr"
    if not (folder / "alignment.json").is_file():
        return ["alignment.json"]
    trained, unseen = config["networks"], Cohort.open(store).animals("unseen")
    wanted = [f"scores/icnet-{name}.json" for name in config["singles"]]
    wanted += [f"scores/{name}.json" for name in trained]
    wanted += [f"fits/{n}/{animal}.json" for n in FITTED if n in trained for animal in unseen]
    searched = [name for name in SEARCHED if name in trained]
    wanted += [f"searches/{n}/{animal}.json" for n in searched for animal in config["searched"]]
    return [name for name in wanted if not (folder / name).is_file()]


def _run(folder: Path) -> Run:
    cohort = Cohort.open(folder / "cohort" / "cohort.zarr")
    groups = {}
    for name in cohort.animals():
        hidden = cohort.truth(name)["hearing"] == "hidden"
        groups[name] = "hidden" if hidden else cohort.animal(name).status
    unseen = cohort.animals("unseen")
    return Run(
        seed=_seed_of(folder),
        folder=folder,
        cohort=cohort,
        groups=groups,
        scores=_by_name(folder / "scores"),
        fits={path.name: _by_name(path, unseen) for path in sorted((folder / "fits").iterdir())},
        searches={name: _by_name(folder / "searches" / name, unseen) for name in SEARCHED},
    )


def _seed_of(folder: Path) -> int:
    return int(folder.name.removeprefix("seed-"))


def _by_name(folder: Path, names: Sequence[str] | None = None) -> dict[str, dict]:
    """Files of a folder: all, or those of some names."""
    paths = [path for path in sorted(folder.glob("*.json")) if names is None or path.stem in names]
    return {path.stem: json.loads(path.read_text()) for path in paths}
