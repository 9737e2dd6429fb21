"""The numbers of the benchmark of the model of the midbrain.

FEVE as a fraction, KL in nats. What is said of several sounds, animals and seeds is a `spread`, of
medians; what compares has its interval, and is of means (`recipes.reports.ic.comparisons`).
"""

import json
from collections.abc import Sequence

from recipes.reports.ic.comparisons import MEASURES, compared, ratio
from recipes.reports.ic.listeners import alignment, decodability, middles, searches
from recipes.reports.ic.results import (
    ABLATIONS,
    ALIGNED,
    BEST,
    GAINS,
    GROUPS,
    MATCHED,
    MATCHED_GAINS,
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

WAYS = {
    "gains": GAINS,
    "matched": MATCHED,
    "matched_gains": MATCHED_GAINS,
    "best_matching": BEST,
}
"""How unseen animals are fitted beside what their alignment gives."""

AS_WELL, HIDDEN_GAIN, SHARE = -0.02, 0.05, 0.8
"""Bounds that are wanted: normal animals lose no more FEVE than this to a network of their own,
unseen hidden losses gain so much over ABRNet, unseen animals reach this share of seen ones (chosen
here)."""


def summarise(results: Results) -> dict:
    """Everything that the benchmark measured."""
    runs = results.runs
    return {
        "seeds": [run.seed for run in runs],
        "skipped": results.skipped,
        "animals": {
            "smaller": len(results.smaller),
            "larger": len(results.seen),
            "unseen": len(results.unseen),
        },
        "goals": _goals(results),
        "table": {model: _prediction(results, model) for model in results.models},
        "by_class": _by_class(results),
        "hidden": _hidden(results) if "abr" in results.models else {},
        "unseen": {network: _unseen(results, network) for network in results.fitted},
        "choices": _choices(results),
        "movement": _movement(results),
        "fit": searches(runs),
        "fit_middle": middles(runs),
        "decodability": decodability(runs),
        "alignment": alignment(runs),
        "ablations": _ablations(results),
        "fit_seconds": _fit_seconds(results),
        "training_seconds": _training_seconds(runs),
        "wall_minutes": {str(run.seed): _wall_minutes(run) for run in runs},
    }


def _goals(results: Results) -> dict[str, dict | None]:
    """What was wanted of six parameters, held against its bound."""
    runs, own, ours = results.runs, scored("icnet"), scored("beta-6")
    wanted = {
        "normal": compared(runs, results.singles, ours, own, "NH", bound=AS_WELL),
        "impaired": compared(runs, results.singles, ours, own, "HI"),
    }
    if "abr" in results.models:
        new, abr = fitted("beta-6", ALIGNED), scored("abr")
        wanted["hidden"] = compared(runs, results.unseen, new, abr, "hidden", bound=HIDDEN_GAIN)
    network = runs[0].largest()
    return wanted | {"share": _share(results, network)}


def _share(results: Results, network: str) -> dict | None:
    """What unseen animals, as they are aligned, reach of those that a network was trained on."""
    trained = list(results.runs[0].scores[network]["rows"])
    new = fitted(network, ALIGNED)
    return ratio(results.runs, results.unseen, new, trained, scored(network), SHARE)


def _prediction(results: Results, model: str) -> dict:
    """Against each animal's own ICNet, by hearing; and absolute."""
    reference = None if model == "icnet" else scored("icnet")
    everyone = results.singles if model == "icnet" else results.smaller
    cells: dict[str, dict] = {}
    absolute: dict[str, dict] = {}
    better: dict[str, dict | None] = {}
    for measure in MEASURES:
        absolute[measure] = over(results.runs, everyone, scored(model), measure)
        for group in GROUPS:
            name = f"{measure}_{group.lower()}"
            cells[name] = over(
                results.runs, results.singles, scored(model), measure, reference, group
            )
            absolute[name] = over(results.runs, everyone, scored(model), measure, group=group)
            if reference is not None:
                better[name] = compared(
                    results.runs, results.singles, scored(model), reference, group, measure
                )
    return cells | {"absolute": absolute, "better": better}


def _by_class(results: Results) -> dict[str, dict]:
    """FEVE by class of sound, of the animals that have an ICNet of their own."""
    runs, models = results.runs, [name for name in BY_CLASS if name in results.models]
    every = [row for run in runs for name in results.singles for row in run.rows("icnet", name)]

    def only(model: str, kind: str) -> Rows:
        return lambda run, name: [r for r in run.rows(model, name) if r["kind"] == kind]

    return {
        kind: {model: over(runs, results.singles, only(model, kind)) for model in models}
        | {"better": compared(runs, results.singles, only("beta-6", kind), only("icnet", kind))}
        for kind in sorted({row["kind"] for row in every})
    }


def _hidden(results: Results) -> dict[str, dict]:
    """BetaICNet against ABRNet, by role and hearing, hidden losses first."""
    roles = {
        "unseen": (results.unseen, fitted("beta-6", ALIGNED)),
        "seen": (results.smaller, scored("beta-6")),
    }
    return {
        f"{group}, {role}": {
            "abr": over(results.runs, animals, scored("abr"), group=group),
            "beta": over(results.runs, animals, ours, group=group),
            "difference": over(results.runs, animals, ours, than=scored("abr"), group=group),
            "better": compared(results.runs, animals, ours, scored("abr"), group),
        }
        for role, (animals, ours) in roles.items()
        for group in reversed(GROUPS)
    }


def _unseen(results: Results, network: str) -> dict:
    """Unseen animals beside those that a network was trained on."""
    runs, aligned = results.runs, fitted(network, ALIGNED)
    there = runs[0].fits[network][results.unseen[0]]
    ways = {name: way for name, way in WAYS.items() if way in there}

    def by_way(group: str | None) -> dict:
        return {
            name: over(runs, results.unseen, fitted(network, way), group=group)
            for name, way in ({"unseen": ALIGNED} | ways).items()
        }

    return {
        "seen": over(runs, runs[0].scores[network]["rows"], scored(network)),
        **by_way(None),
        "ratio": _share(results, network),
        "better": {
            name: compared(runs, results.unseen, fitted(network, way), aligned)
            for name, way in ways.items()
        },
        "by_group": {group: by_way(group) for group in GROUPS},
    }


def _choices(results: Results) -> dict[str, dict]:
    """Networks of several animals against each other, on seen and on unseen animals."""
    pairs = {
        "6 and 3 parameters": ("beta-6", "beta-3"),
        "6 parameters and a branch an animal": ("beta-6", "icnet-multi"),
        "best of several brains and a permutation": ("beta-6", "beta-6-permuted"),
        "the larger and the smaller group": ("beta-6-twenty", "beta-6"),
        "the same, of a permutation": ("beta-6-twenty-permuted", "beta-6-permuted"),
    }
    found: dict[str, dict] = {}
    for name, (one, other) in pairs.items():
        if one in results.models and other in results.models:
            rows = scored(one), scored(other)
            found[name] = {"seen": compared(results.runs, results.smaller, *rows)}
        if one in results.fitted and other in results.fitted:
            rows = fitted(one, ALIGNED), fitted(other, ALIGNED)
            found[name]["unseen"] = compared(results.runs, results.unseen, *rows)
    return found


def _movement(results: Results) -> dict[str, dict]:
    """How far listeners moved in training, by network: medians, and ranges over seeds."""
    found: dict[str, dict] = {}
    for network in (*results.models, *ABLATIONS):
        scores = [run.scores[network] for run in results.runs if run.has(network)]
        learned = [score["listeners"]["movement"] for score in scores]
        if not learned:
            continue
        found[network] = {
            name: median(moved[name] for moved in learned)
            for name in ("mean_correlation", "mean_moved", "deviation_prior")
        }
        for name in ("deviation", "shift", "rate", "onset"):
            found[network][name] = {
                "start": median(moved[f"{name}_start"] for moved in learned),
                "least": min(moved[f"{name}_least"] for moved in learned),
                "most": max(moved[f"{name}_most"] for moved in learned),
            }
    return found


def _ablations(results: Results) -> dict[str, dict]:
    """What is lost with a part changed, and with other numbers of parameters; none at first."""
    some = [run for run in results.runs if any(run.has(name) for name in ABLATIONS)]
    found = {}
    ours, new = scored("beta-6"), fitted("beta-6", ALIGNED)
    others = ("beta-3",) if "beta-3" in results.models else ()
    for name in ("beta-6", *ABLATIONS, *others):
        runs = [run for run in some if run.has(name)]
        if not runs:
            continue
        found[name] = {
            "seeds": [run.seed for run in runs],
            "absolute": over(runs, results.smaller, scored(name)),
            "unseen": over(runs, results.unseen, fitted(name, ALIGNED)),
        }
        if name != "beta-6":
            found[name]["better"] = {
                "all": compared(runs, results.smaller, scored(name), ours),
                "hi": compared(runs, results.smaller, scored(name), ours, "HI"),
                "unseen": compared(runs, results.unseen, fitted(name, ALIGNED), new),
            }
    return found


def _fit_seconds(results: Results) -> dict[str, dict[str, float | None]]:
    """By network and way of matching."""
    found = {}
    for network in results.fitted:
        fits = [fit for run in results.runs for fit in run.fits[network].values()]
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
