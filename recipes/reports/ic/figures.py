"""Figures of the benchmark of the model of the midbrain."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor
from torch.nn import functional

from icsim.frames import recording_pairs
from icsim.metrics import expected_counts
from icsim.models.load import load_model
from icsim.models.scoring import Listener, expect
from icsim.simulation.animal import animal_from
from icsim.sound import RESPONSE_RATE
from recipes.reports import figures
from recipes.reports.ic.listeners import placed
from recipes.reports.ic.results import (
    ALIGNED,
    BEST,
    MATCHED,
    Results,
    Rows,
    Run,
    defined,
    fitted,
    median,
    scored,
)
from recipes.reports.ic.search_figures import evaluations, loss_surfaces
from recipes.reports.ic.tables import TRUTHS, labels

COLOURS = {"NH": figures.COLOURS["NH"], "HI": figures.COLOURS["HI"], "hidden": figures.CYCLE[3]}
"""By hearing; as in the page."""

MEDIAN = [Line2D([], [], color="black", linewidth=2, label="median")]
"""Of a legend."""

Points = list[tuple[str, float]]
"""Group of hearing and FEVE, of one animal of one seed each."""


def draw(results: Results, summary: dict) -> dict[str, Figure]:
    """Every figure that there are results for, by name."""
    drawn = {
        "feve_by_model": feve_by_model(results, labels(summary)),
        "responses_nh": responses(results, "NH"),
        "responses_hi": responses(results, "HI"),
        "feve_by_class": feve_by_class(summary),
        "unseen": unseen(results),
        "evaluations": evaluations(results.runs, labels(summary)),
        "loss_surfaces": loss_surfaces(results.runs[0], labels(summary)),
        "decodability": decodability(summary),
        "theta_space": theta_space(results.runs[0]),
        "movement": movement(results.runs[0]),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def points(results: Results, animals: Sequence[str], rows: Rows) -> Points:
    """The median FEVE over sounds of each animal of each seed."""
    found = [
        (run.groups[name], median(defined(rows(run, name), "feve")))
        for run in results.runs
        for name in animals
    ]
    return [(group, value) for group, value in found if value is not None]


def feve_by_model(results: Results, names: Mapping[str, str]) -> Figure:
    """Every training animal of the smaller group, by model."""
    rows = {
        names[model]: points(
            results, results.singles if model == "icnet" else results.smaller, scored(model)
        )
        for model in results.models
    }
    figure = Figure(figsize=(figures.WHOLE, 4.8), layout="constrained")
    axis = figure.subplots()
    _strip(axis, rows)
    _hearing_legend(figure, MEDIAN)
    return figure


def unseen(results: Results) -> Figure:
    """Seen and unseen animals by number of training animals and way of matching."""
    panels = {
        "matched with the best of several brains": ("beta-6", "beta-6-twenty"),
        "a permutation, as published": ("beta-6-permuted", "beta-6-twenty-permuted"),
    }
    ways = {ALIGNED: "unseen, as aligned", MATCHED: "unseen, matched to the model"}
    ways[BEST] = "unseen, best slots"
    drawn: dict[str, dict[str, Points]] = {}
    for title, pair in panels.items():
        rows: dict[str, Points] = {}
        for network in [name for name in pair if name in results.fitted]:
            trained = sorted(results.runs[0].scores[network]["rows"])
            rows[f"{len(trained)}: seen"] = points(results, trained, scored(network))
            there = results.runs[0].fits[network][results.unseen[0]]
            for way in [way for way in ways if way in there]:
                found = points(results, results.unseen, fitted(network, way))
                rows[f"{len(trained)}: {ways[way]}"] = found
        if rows:
            drawn[title] = rows
    lines = [len(rows) for rows in drawn.values()]
    figure = Figure(figsize=(figures.WHOLE, 1.4 + 0.44 * sum(lines)), layout="constrained")
    axes = figure.subplots(len(lines), 1, sharex=True, height_ratios=lines, squeeze=False)[:, 0]
    for axis, (title, rows) in zip(axes, drawn.items(), strict=True):
        _strip(axis, rows)
        axis.set_title(title, fontsize=11, loc="left")
    for axis in axes[:-1]:
        axis.set_xlabel("")
    _hearing_legend(figure, MEDIAN)
    return figure


def movement(run: Run) -> Figure:
    """How far the listeners of one network moved in training."""
    learned = run.scores[run.largest()]["listeners"]
    start, now = (
        {name: torch.tensor(values) for name, values in learned[when].items()}
        for when in ("start", "now")
    )
    groups = [run.groups[name] for name in learned["animals"]]
    return figures.listener_movement(start, now, groups, COLOURS)


def feve_by_class(summary: dict) -> Figure:
    """Medians by class of sound, a bar a model."""
    found = summary["by_class"]
    groups = {
        labels(summary)[model]: {kind: of_kind[model]["median"] for kind, of_kind in found.items()}
        for model in next(iter(found.values()), {})
        if model != "better"
    }
    return figures.grouped_bars(groups, "FEVE")


def decodability(summary: dict) -> Figure:
    """R² from θ beside that from thresholds."""
    titles = {"theta": "from θ", "thresholds": "from thresholds"}
    groups = {
        titles[source]: {TRUTHS[what].split(" [")[0]: r["median"] for what, r in found.items()}
        for source, found in summary["decodability"].items()
    }
    lowest = min((v for g in groups.values() for v in g.values() if v is not None), default=0)
    return figures.grouped_bars(groups, "R²", limits=(max(-0.5, min(lowest, 0) - 0.05), 1))


def theta_space(run: Run) -> Figure:
    """All animals by the largest network: too many for names, so hearing tells them."""
    known = run.cohort.animals("seen")
    found = placed(run, run.largest())
    theta = torch.tensor(list(found.values()))
    centred = theta - theta.mean(0)
    points_there = centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].T
    asides = dict(zip(COLOURS, (-0.25, 0.0, 0.25), strict=True))
    dimensions = torch.arange(1, theta.shape[1] + 1)
    figure = Figure(figsize=(figures.WHOLE, 7.4), layout="constrained")
    plane, lines = figure.subplots(2, 1)
    for name, values, point in zip(found, theta, points_there, strict=True):
        group, seen = run.groups[name], name in known
        style = {
            "color": COLOURS[group],
            "marker": "o" if seen else "*",
            "markersize": 7 if seen else 14,
            "markeredgecolor": "white" if seen else "black",
            "linestyle": "none",
        }
        plane.plot(*point.tolist(), **style)
        lines.plot(dimensions + asides[group], values, alpha=0.8, **style)
    plane.set(xlabel="first principal component", ylabel="second")
    plane.grid(alpha=0.3)
    lines.set(xlabel="dimension of θ", ylabel="value", ylim=(-0.05, 1.05))
    lines.set_xticks(dimensions.tolist())
    for between in dimensions[:-1].tolist():
        lines.axvline(between + 0.5, color="0.85", linewidth=0.8)
    roles = {"seen": ("o", 7), "unseen": ("*", 12)}
    handles = [
        Line2D([], [], marker=marker, ms=size, color="0.4", linestyle="none", label=role)
        for role, (marker, size) in roles.items()
    ]
    _hearing_legend(figure, handles)
    return figure


def responses(results: Results, group: str) -> Figure | None:
    """Speech as a midbrain answered it, and as it was predicted; None without networks."""
    for run in results.runs:
        names = [name for name in results.singles if run.groups[name] == group]
        if not names:
            continue
        name = max(names, key=lambda n: run.cohort.animal(n).thresholds_db_spl.sum())
        paths = {
            title: run.folder / "networks" / network / "model.safetensors"
            for title, network in (
                ("ICNet of its own", f"icnet-{name}"),
                ("6 parameters", "beta-6"),
            )
        }
        if all(path.is_file() for path in paths.values()):
            return _responses(run, name, paths)
    return None


@torch.no_grad()
def _responses(run: Run, name: str, paths: Mapping[str, Path]) -> Figure:
    """Truth, one trial, and predictions of a channel subset that all networks have."""
    cohort, animal = run.cohort, run.cohort.animal(name)
    pairs = recording_pairs(cohort, name, "test")
    speech = [pair for pair in pairs if cohort.sounds[pair[0]].kind == "speech"]
    sound, trials = (speech or pairs)[0]
    pressure = cohort.pressure(sound)[None]
    hours = torch.tensor([animal.presentations[trials[0]].time_h])
    truth = animal_from(cohort.truth(name))
    expected = {"true expectation": truth.expected_counts(pressure, hours)[0]}
    kept = torch.ones(animal.channels, dtype=torch.bool)
    for title, path in paths.items():
        model, facts = load_model(path)
        place = facts.animals.index(name)
        listener = Listener(facts.matching[place], place)
        kept &= listener.matching >= 0
        context = (model.context_bins * model.clock.bin_samples, 0)
        latent = model.latent(functional.pad(pressure, context))
        probability = expect(model, facts, listener, latent, hours)
        expected[title] = expected_counts(probability.log())
    top = figures.brightest([image[kept] for image in expected.values()])
    recorded = animal.counts(trials[0]).T.float()
    images = {f"{name}: one recorded trial": recorded} | expected
    part = _busiest(recorded[kept])
    return figures.responses(
        [image[kept][:, part] for image in images.values()],
        list(images),
        columns=1,
        cf_hz=truth.cf_hz[kept],
        top=top,
    )


def _strip(axis: Axes, rows: Mapping[str, Points]) -> None:
    """A row of points by name, groups of hearing one below another, and the median of all."""
    asides = dict(zip(COLOURS, (-0.2, 0.0, 0.2), strict=True))
    for row, found in enumerate(rows.values()):
        for group, value in found:
            axis.plot(value, row + asides[group], "o", color=COLOURS[group], ms=5, alpha=0.7)
        if found:
            middle = median(value for _, value in found)
            axis.plot([middle] * 2, [row - 0.32, row + 0.32], color="black", linewidth=2)
    axis.set_yticks(range(len(rows)), labels=list(rows), fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel("FEVE")
    axis.grid(alpha=0.3, axis="x")


def _hearing_legend(figure: Figure, others: Sequence[Line2D]) -> None:
    handles = [
        Line2D([], [], marker="o", color=colour, linestyle="none", label=group)
        for group, colour in COLOURS.items()
    ]
    figure.legend(handles=[*handles, *others], fontsize=9, ncols=5, loc="outside lower center")


def _busiest(counts: Tensor) -> slice:
    """The two seconds of counts `(C, N)` with most spikes."""
    width = min(round(2 * RESPONSE_RATE), counts.shape[1])
    start = counts.mean(0).unfold(0, width, 50).mean(-1).argmax().item() * 50
    return slice(start, start + width)
