"""The numbers of the benchmark of aids.

Restoration is pooled over the sounds of a condition, one number a listener; what is said of
several listeners and seeds is their mean. Listeners with normal hearing have nothing to restore:
what aids do to them is told apart.
"""

import dataclasses
import json
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

GROUPS = ("mild", "severe", "hidden")
"""Of impaired listeners; severe is a loss of at least the typical one."""

WAYS = ("truth", "model")


@dataclasses.dataclass(frozen=True)
class Run:
    """What one seed left."""

    seed: int
    folder: Path
    judged: dict[str, dict]
    """By listener."""
    ablated: dict[str, dict]
    """By listener; empty if the ablations were not run."""
    streaming: dict[str, dict]

    @property
    def groups(self) -> dict[str, str]:
        """Of every listener: normal, or one of `GROUPS`."""
        return {name: found["group"] for name, found in self.judged.items()}

    def impaired(self, group: str | None = None) -> list[str]:
        """Listeners with a loss, of all groups or of one."""
        return [n for n, g in self.groups.items() if g in ((group,) if group else GROUPS)]


def read(out: Path) -> list[Run]:
    """All complete seeds.

    Raises:
        ValueError: If there is none.
    """
    runs = []
    for folder in sorted(out.glob("seed-*"), key=lambda path: int(path.name[5:])):
        if not (folder / "streaming.json").is_file():
            continue
        runs.append(
            Run(
                int(folder.name[5:]),
                folder,
                _by_name(folder / "judged"),
                _by_name(folder / "ablations"),
                json.loads((folder / "streaming.json").read_text()),
            )
        )
    if not runs:
        raise ValueError(f"{out}: no seed is complete; run recipes.benchmark_compensation")
    return runs


def summarise(runs: list[Run]) -> dict:
    """Everything that the benchmark measured."""
    # Normal listeners have no aids of their own.
    first = runs[0].judged[runs[0].impaired()[0]]
    devices = list(first["restoration"]["noise"])
    ablations = list(next(iter(runs[0].ablated.values()))["guards"]) if runs[0].ablated else []
    judged, ablated = (lambda run: run.judged), (lambda run: run.ablated)
    restoration = {d: _restorations(runs, judged, d, "truth") for d in devices}
    return {
        "seeds": [run.seed for run in runs],
        "listeners": {g: sum(g == x for x in runs[0].groups.values()) for g in ("normal", *GROUPS)},
        "restoration": restoration,
        "restoration_model": {d: _restorations(runs, judged, d, "model") for d in devices},
        "comparisons": comparisons(restoration),
        "harm": {d: _harm(runs, d) for d in devices},
        "haspi": {d: _scores(runs, d, "haspi") for d in devices},
        "haspi_quiet": {d: _scores(runs, d, "haspi_quiet") for d in devices},
        "hasqi": {d: _scores(runs, d, "hasqi") for d in devices},
        "noise_reduction": _noise_reduction(runs, first["noise_reduction"]),
        "artefacts": {
            device: {
                name: max(
                    found["artefacts"][device][name]
                    for run in runs
                    for found in run.judged.values()
                    if device in found["artefacts"]
                )
                for name in ("spur_db", "silence_db")
            }
            for device in first["artefacts"]
        },
        "streaming": {
            device: {
                name: max(run.streaming[device][name] for run in runs)
                for name in runs[0].streaming[device]
            }
            for device in runs[0].streaming
        },
        "guards": {d: _guards(runs, judged, d) for d in devices},
        "ablations": {
            d: {
                "truth": _restorations(runs, ablated, d, "truth"),
                "model": _restorations(runs, ablated, d, "model"),
                "guards": _guards(runs, ablated, d),
                "si_sdr_db": _mean(
                    found["si_sdr_db"][d] for run in runs for found in run.ablated.values()
                ),
            }
            for d in ablations
        },
    }


def restored(sums: Iterable[tuple[float, float]]) -> float:
    """From discrepancies with and without an aid, summed before their ratio.

    >>> restored([(1.0, 4.0), (1.0, 4.0)])
    0.75
    """
    pairs = list(sums)
    return 1 - sum(a for a, _ in pairs) / sum(b for _, b in pairs)


Judged = Callable[[Run], Mapping[str, dict]]


def _restorations(runs: list[Run], judged: Judged, device: str, way: str) -> dict:
    """In quiet, in noise, by level, by group of listeners and by seed."""
    some = [run for run in runs if judged(run)]

    def of(conditions: Callable[[str], bool], group: str | None = None) -> list[list[float]]:
        return [
            [
                restored(
                    tuple(found[device][way])
                    for name, found in judged(run)[listener]["restoration"].items()
                    if conditions(name)
                )
                for listener in run.impaired(group)
            ]
            for run in some
        ]

    def quiet(name: str) -> bool:
        return name != "noise"

    names = next(iter(judged(some[0]).values()))["restoration"]
    by_seed = [_mean(values) for values in of(quiet)]
    noise_by_seed = [_mean(values) for values in of(lambda name: name == "noise")]
    return {
        "quiet": _mean(by_seed),
        "noise": _mean(noise_by_seed),
        "by_level": {
            name.removeprefix("quiet, "): _mean(
                _mean(values) for values in of(lambda one, name=name: one == name)
            )
            for name in names
            if quiet(name)
        },
        "by_group": {
            group: _mean(value for values in of(quiet, group) for value in values)
            for group in GROUPS
            if any(run.impaired(group) for run in some)
        },
        "by_seed": by_seed,
        "noise_by_seed": noise_by_seed,
        "hidden_by_seed": [_mean(values) for values in of(quiet, "hidden")],
    }


def comparisons(restoration: Mapping[str, dict]) -> dict[str, dict[str, list[float]]]:
    """Masks, told θ, against others, by condition and seed: differences, and shares of theirs."""
    by_seed = {"quiet": "by_seed", "noise": "noise_by_seed", "hidden": "hidden_by_seed"}

    def against(
        device: str, relation: Callable[[float, float], float], *conditions: str
    ) -> dict[str, list[float]]:
        found = {}
        for condition in conditions:
            ours, theirs = (restoration[d][by_seed[condition]] for d in ("masks", device))
            if None not in ours:  # a cohort may have no hidden losses
                found[condition] = list(map(relation, ours, theirs))
        return found

    both = ("quiet", "noise")
    return {
        "more than NAL-R with compression": against("nal_r_compressed", operator.sub, *both),
        "more than Masks told the audiogram, hidden losses": against(
            "masks_audiogram", operator.sub, "hidden"
        ),
        "share of Masks for this animal alone": against("own", operator.truediv, *both),
        "share of Masks through the true animal": against("ceiling", operator.truediv, *both),
    }


def _harm(runs: list[Run], device: str) -> float | None:
    """What an aid does to normal listeners, in units of what losses do to others on average."""
    found = []
    for run in runs:
        losses = _mean(_sums(run, n, device)[1] for n in run.impaired())
        normal = [
            _sums(run, name, device)[0]
            for name, group in run.groups.items()
            if group == "normal" and device in run.judged[name]["guards"]
        ]
        found += [aided / losses for aided in normal]
    return _mean(found)


def _sums(run: Run, listener: str, device: str) -> tuple[float, float]:
    """Discrepancies in quiet through the true midbrain, with the aid and without."""
    restoration = run.judged[listener]["restoration"]
    pairs = [found[device]["truth"] for name, found in restoration.items() if name != "noise"]
    return sum(a for a, _ in pairs), sum(b for _, b in pairs)


def _scores(runs: list[Run], device: str, score: str) -> float | None:
    return _mean(run.judged[n]["scores"][device][score] for run in runs for n in run.impaired())


def _noise_reduction(runs: list[Run], devices: Mapping[str, dict]) -> dict:
    """By device and exponent, means of scores over all listeners."""
    return {
        device: {
            a: {
                score: _mean(
                    found["noise_reduction"][device][a][score]
                    for run in runs
                    for found in run.judged.values()
                )
                for score in scores
            }
            for a, scores in by_exponent.items()
        }
        for device, by_exponent in devices.items()
    }


def _guards(runs: list[Run], judged: Judged, device: str) -> dict[str, float | None]:
    found = [
        one["guards"][device]
        for run in runs
        for one in judged(run).values()
        if device in one["guards"]
    ]
    return {name: _mean(one[name] for one in found) for name in found[0]}


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None


def _by_name(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
