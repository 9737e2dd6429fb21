"""How θ of a new listener was found, what it means, and how channels were matched: the numbers."""

import json
import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from icsim.cohort_alignment import octave_errors, reference_brains
from icsim.recording import ALIGNMENT
from icsim.simulation.hearing import FREQUENCIES_HZ
from recipes.reports.ic.results import ALIGNED, SEARCHED, Run, median

RIDGE = 1.0
"""Of the reading of θ, whose dimensions are standardised: it weighs as much as one animal."""


def searches(runs: Sequence[Run]) -> dict[str, dict[str, dict]]:
    """By network and way of searching: seconds, and evaluations until the target is reached.

    Networks on which nothing was searched are left out.

    None where half of the searches or more never got there within the `most` that they had.
    """
    found: dict[str, dict[str, dict]] = {}
    for network in SEARCHED:
        done = _searches(runs, network)
        if not done:
            continue
        found[network] = {}
        for way in done[0]["ways"]:
            courses = [search["ways"][way]["course"] for search in done]
            numbers = {
                "seconds": median(search["ways"][way]["seconds"] for search in done),
                "most": max(len(course) for course in courses),
            }
            for rule, prefix in (("usual", ""), ("strict", "strict_")):
                needed = [
                    first_reached(course, bounds(search)[rule])
                    for course, search in zip(courses, done, strict=True)
                ]
                middle = statistics.median(needed)
                numbers[f"{prefix}evaluations"] = middle if math.isfinite(middle) else None
                numbers[f"{prefix}reached"] = sum(map(math.isfinite, needed)) / len(needed)
            found[network][way] = numbers
    return found


def middles(runs: Sequence[Run]) -> dict[str, float | None]:
    """By network, what the middle of the box costs, over the target: how much a search can gain."""
    return {
        network: median(search["middle"] / search["target"] for search in _searches(runs, network))
        for network in SEARCHED
    }


def decodability(runs: Sequence[Run]) -> dict[str, dict[str, dict]]:
    """R² of the true losses and the electrodes' place, read from θ and from thresholds."""
    found: dict[str, dict[str, dict]] = {}
    for source in ("theta", "thresholds"):
        by_run = []
        for run in runs:
            features = placed(run, run.largest())
            wanted = [truths(run, name) for name in features]
            if source == "thresholds":
                features = {n: run.cohort.animal(n).thresholds_db_spl.tolist() for n in features}
            table = torch.tensor(list(features.values()))
            by_run.append(
                {
                    w: linearly_decoded(table, torch.tensor([t[w] for t in wanted]))
                    for w in wanted[0]
                }
            )
        found[source] = {
            what: {"median": median(r[what] for r in by_run), "by_seed": [r[what] for r in by_run]}
            for what in by_run[0]
        }
    return found


def alignment(runs: Sequence[Run]) -> dict:
    """Octaves between matched channels, of our alignment, and of a permutation as published."""
    found = {}
    for method, name in (("template", ALIGNMENT), ("permutation", "permutation")):
        before, after, apart = [], [], []
        for run in runs:
            errors = octave_errors(run.cohort, reference_brains(run.cohort, method), name)
            before += errors["before alignment"].values()
            after += errors["after alignment"].values()
            noted = json.loads((run.folder / "alignment.json").read_text())[method]
            apart += [len(animal["apart"]) for animal in noted.values()]
        found[method] = {
            "before_octaves": median(before),
            "after_octaves": median(after),
            "apart": sum(apart),
            "apart_an_animal": sum(apart) / len(apart),
        }
    fits = [fit for run in runs for fit in run.fits["beta-6"].values()]
    unseen = {way: median(fit[way]["octaves"] for fit in fits) for way in fits[0]}
    return {**found["template"], "unseen_octaves": unseen, "published": found["permutation"]}


def bounds(search: dict) -> dict[str, float]:
    """Costs that count as having reached the target of a search.

    Usual: within 2 % of it, as published. Strict: within 2 % of the way to it from the middle of
    the box, as most of a cost is noise that no θ explains.
    """
    target, middle = search["target"], search["middle"]
    return {"usual": 1.02 * target, "strict": target + 0.02 * (middle - target)}


def first_reached(course: Sequence[float], bound: float) -> float:
    """Evaluations until a cost is at most the bound; infinite if it never is.

    >>> first_reached([3.0, 2.0, 1.0], 2.5), first_reached([3.0], 2.5)
    (2, inf)
    """
    return next((i + 1 for i, cost in enumerate(course) if cost <= bound), math.inf)


def linearly_decoded(features: Tensor, truth: Tensor) -> float | None:
    """R² of a ridge regression that predicts each animal from the others.

    Args:
        features: `(A, P)`.
        truth: `(A,)`.

    Returns:
        At most 1; below 0 if worse than the mean; None if all animals are alike.
    """
    features, truth = features.double(), truth.double()
    variation = (truth - truth.mean()).square().sum()
    if variation < 1e-9:
        return None
    errors = []
    for left_out in range(len(truth)):
        others = torch.arange(len(truth)) != left_out
        centre, scale = features[others].mean(0), features[others].std(0).clamp(min=1e-9)
        inputs, mean = (features - centre) / scale, truth[others].mean()
        gram = inputs[others].T @ inputs[others] + RIDGE * torch.eye(inputs.shape[1])
        slopes = torch.linalg.solve(gram, inputs[others].T @ (truth[others] - mean))
        errors.append(truth[left_out] - mean - inputs[left_out] @ slopes)
    return 1 - (torch.stack(errors).square().sum() / variation).item()


def truths(run: Run, name: str) -> dict[str, float]:
    """What a linear reading of θ is asked for, of one animal."""
    truth = run.cohort.truth(name)
    high = [i for i, f in enumerate(FREQUENCIES_HZ) if f >= 1000]
    loss = truth["loss"]
    return {
        "outer_loss_db": statistics.mean(float(loss["ohc_db"][i]) for i in high),
        "inner_loss_db": statistics.mean(float(loss["ihc_db"][i]) for i in high),
        "synaptopathy": loss["synaptopathy"],
        "central_gain": loss["central_gain"],
        "median_cf_octaves": torch.as_tensor(truth["cf_hz"]).float().log2().median().item(),
    }


def placed(run: Run, network: str) -> dict[str, list[float]]:
    """θ of every animal, as learned or as fitted."""
    learned = run.scores[network]["listeners"]
    known = dict(zip(learned["animals"], learned["theta"], strict=True))
    return known | {n: fit[ALIGNED]["theta"] for n, fit in run.fits[network].items()}


def _searches(runs: Sequence[Run], network: str) -> list[dict]:
    return [search for run in runs for search in run.searches.get(network, {}).values()]
