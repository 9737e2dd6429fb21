"""The numbers of the benchmark of the model of the midbrain.

FEVE as a fraction, KL in nats. What is said of several sounds, animals and seeds is a `spread`.
"""

import json
from collections.abc import Sequence

from recipes.benchmark_ic.listeners import alignment, decodability, middles, searches
from recipes.benchmark_ic.results import (
    ABLATIONS,
    ALIGNED,
    FITTED,
    GAINS,
    GROUPS,
    MATCHED,
    MATCHED_GAINS,
    MODELS,
    ORACLE,
    Results,
    Rows,
    Run,
    fitted,
    median,
    over,
    scored,
)

BY_CLASS = ("icnet", "abr", "beta-6")
"""Networks that are compared by class of sound."""


def summarise(results: Results) -> dict:
    """Everything that the benchmark measured."""
    runs = results.runs
    ours, published = ("beta-6", "beta-6-twenty"), ("beta-6-permuted", "beta-6-twenty-permuted")
    return {
        "seeds": [run.seed for run in runs],
        "skipped": results.skipped,
        "animals": {
            "nine": len(results.nine),
            "twenty": len(results.seen),
            "unseen": len(results.unseen),
        },
        "table": {model: _prediction(results, model) for model in MODELS},
        "by_class": {model: _by_class(results, model) for model in BY_CLASS},
        "hidden": _hidden(results),
        "unseen": {
            **{g: _unseen(results, n) for g, n in zip(("nine", "twenty"), ours, strict=True)},
            "published": {
                g: _unseen(results, n) for g, n in zip(("nine", "twenty"), published, strict=True)
            },
        },
        "fit": searches(runs),
        "fit_middle": middles(runs),
        "decodability": decodability(runs),
        "alignment": alignment(runs),
        "ablations": _ablations(results),
        "fit_seconds": _fit_seconds(runs),
        "training_seconds": _training_seconds(runs),
        "wall_minutes": {str(run.seed): _wall_minutes(run) for run in runs},
    }


def _prediction(results: Results, model: str) -> dict:
    """Against each animal's own ICNet, by hearing; and absolute."""
    reference = None if model == "icnet" else scored("icnet")
    everyone = results.singles if model == "icnet" else results.nine
    cells: dict[str, dict] = {}
    absolute: dict[str, dict] = {}
    for measure in ("feve", "kl"):
        absolute[measure] = over(results.runs, everyone, scored(model), measure)
        for group in GROUPS:
            name = f"{measure}_{group.lower()}"
            cells[name] = over(
                results.runs, results.singles, scored(model), measure, reference, group
            )
            absolute[name] = over(results.runs, everyone, scored(model), measure, group=group)
    return cells | {"absolute": absolute}


def _by_class(results: Results, model: str) -> dict[str, dict]:
    """FEVE by class of sound, of the animals that have an ICNet of their own."""
    every = [r for run in results.runs for n in results.singles for r in run.rows(model, n)]
    kinds = sorted({row["kind"] for row in every})

    def only(kind: str) -> Rows:
        return lambda run, name: [r for r in run.rows(model, name) if r["kind"] == kind]

    return {kind: over(results.runs, results.singles, only(kind)) for kind in kinds}


def _hidden(results: Results) -> dict:
    """BetaICNet against ABRNet on hidden losses, and on others for comparison."""

    def unseen(group: str) -> dict:
        abr = scored("abr")
        found = {"abr": over(results.runs, results.unseen, abr, group=group)}
        for way, name in ((ALIGNED, ""), (MATCHED, "_matched")):
            beta = fitted("beta-6", way)
            found["beta" + name] = over(results.runs, results.unseen, beta, group=group)
            found["difference" + name] = over(
                results.runs, results.unseen, beta, than=abr, group=group
            )
        return found

    def seen(than: Rows | None, model: str) -> dict:
        return over(results.runs, results.nine, scored(model), than=than, group="hidden")

    return {
        **unseen("hidden"),
        "seen": {
            "abr": seen(None, "abr"),
            "beta": seen(None, "beta-6"),
            "difference": seen(scored("abr"), "beta-6"),
        },
        "unseen_nh": unseen("NH"),
        "unseen_hi": unseen("HI"),
    }


def _unseen(results: Results, network: str) -> dict:
    """Unseen animals beside those that a network was trained on."""
    runs = results.runs
    known = runs[0].fits[network][results.unseen[0]]
    seen = over(runs, runs[0].scores[network]["rows"], scored(network))
    oracle = fitted(network, ORACLE)

    def by_way(group: str | None) -> dict:
        ways = {
            "unseen": ALIGNED,
            "gains": GAINS,
            "matched": MATCHED,
            "matched_gains": MATCHED_GAINS,
            "oracle_alignment": ORACLE,
        }
        return {
            name: over(runs, results.unseen, fitted(network, way), group=group)
            for name, way in ways.items()
            if way in known
        }

    found = by_way(None)
    return {
        "seen": seen,
        **found,
        "lost_to_alignment": over(runs, results.unseen, oracle, than=fitted(network, ALIGNED)),
        "ratio": _ratio(found["unseen"]["median"], seen["median"]),
        "ratio_by_seed": [
            _ratio(a, b) for a, b in zip(found["unseen"]["by_seed"], seen["by_seed"], strict=True)
        ],
        "by_group": {group: by_way(group) for group in GROUPS},
    }


def _ablations(results: Results) -> dict[str, dict]:
    """What is lost with a part changed, and with other numbers of parameters; none at first."""
    some = [run for run in results.runs if any(run.has(name) for name in ABLATIONS)]
    found = {}
    for name in ("beta-6", *ABLATIONS, "beta-3"):
        runs = [run for run in some if run.has(name)]
        if runs:
            found[name] = {
                "seeds": [run.seed for run in runs],
                "difference": over(runs, results.nine, scored(name), than=scored("beta-6")),
                "difference_hi": over(
                    runs, results.nine, scored(name), than=scored("beta-6"), group="HI"
                ),
                "absolute": over(runs, results.nine, scored(name)),
                "unseen": over(runs, results.unseen, fitted(name, ALIGNED)),
            }
    return found


def _fit_seconds(runs: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """By network and way of matching."""
    found = {}
    for network in FITTED:
        fits = [fit for run in runs for fit in run.fits[network].values()]
        found[network] = {way: median(fit[way]["seconds"] for fit in fits) for way in fits[0]}
    return found


def _training_seconds(runs: Sequence[Run]) -> dict[str, float | None]:
    found: dict[str, list[float]] = {}
    for run in runs:
        for path in sorted((run.folder / "networks").glob("*/finished.json")):
            found.setdefault(path.parent.name, []).append(json.loads(path.read_text())["seconds"])
    return {name: median(seconds) for name, seconds in found.items()}


def _wall_minutes(run: Run) -> dict[str, float]:
    """By stage, and of all together."""
    stages = json.loads((run.folder / "stages.json").read_text())
    minutes = {stage: seconds / 60 for stage, seconds in stages.items()}
    return {**minutes, "all": sum(minutes.values())}


def _ratio(unseen: float | None, seen: float | None) -> float | None:
    """None where seen animals are not explained either."""
    return None if unseen is None or seen is None or seen <= 0 else unseen / seen
