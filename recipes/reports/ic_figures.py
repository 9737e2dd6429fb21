"""Figures of the benchmark of the model of the midbrain."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from safetensors.torch import load_file

from evaluation.tidy import where
from icsim.models.listener_fit import REACH
from recipes.reports import figures

FITTED = "fitted"
"""How unseen animals are fitted by default: θ, its drift and gains of channels, as aligned."""

COLOURS = {"NH": figures.COLOURS["NH"], "HI": figures.COLOURS["HI"], "hidden": figures.CYCLE[3]}
"""By hearing; as in the page."""

RULES: dict[str, tuple[str, str, Literal["full", "none"], float]] = {
    "evaluations": ("2 % above the target", figures.CYCLE[0], "full", -0.17),
    "strict_evaluations": ("2 % of the way from the middle", figures.CYCLE[1], "none", 0.17),
}
"""Title, colour, filling and displacement of the two rules of having reached a target."""

NEVER = 400
"""Where a search that did not reach its target is drawn; none had as many evaluations."""

REST = Line2D([], [], color="black", linewidth=2, label="median")


def draw(rows: pd.DataFrame, labels: Mapping[str, str], out: Path) -> dict[str, Figure]:
    """Every figure that there are results for, by name.

    Args:
        rows: Results of all seeds.
        labels: Networks as a reader calls them, in their order.
        out: Folder of the benchmark, whose seeds may hold examples of responses.
    """
    first = where(rows, seed=int(rows.seed.min()))
    feve = where(rows, measure="feve")
    trained = where(feve, role="seen")
    smaller = where(trained, device="beta-6").listener.unique().tolist()
    compared = where(trained, listener=smaller)
    by_model = {labels[n]: where(compared, device=n) for n in labels if n in set(compared.device)}
    drawn: dict[str, Figure | None] = {
        "feve_by_model": strips({"": by_model}),
        "feve_by_class": by_class(compared, labels),
        "unseen": strips(by_way(feve, labels)),
        "evaluations": evaluations(where(rows, measure="search"), labels),
        "loss_surfaces": loss_surfaces(first, labels),
        "theta_space": theta_space(first),
        "movement": movement(first),
        "drift": drift(where(first, measure="drift")),
    }
    for status in ("NH", "HI"):
        examples = sorted(out.glob(f"seed-*/examples/{status}.safetensors"))
        if examples:
            drawn[f"responses_{status.lower()}"] = responses(examples[0])
    return {name: figure for name, figure in drawn.items() if figure is not None}


def largest(rows: pd.DataFrame) -> str:
    """The network of six parameters that was trained on most animals."""
    return "beta-6-twenty" if "beta-6-twenty" in set(rows.device) else "beta-6"


def fitted(rows: pd.DataFrame) -> list[str]:
    """Networks to which unseen animals were fitted in more ways than one, in order of rows."""
    ways = where(rows, role="unseen", measure="feve").groupby("device", sort=False).way.nunique()
    return ways[ways > 1].index.tolist()


def by_way(feve: pd.DataFrame, labels: Mapping[str, str]) -> dict[str, dict[str, pd.DataFrame]]:
    """Rows of seen and unseen animals, by network and way of fitting."""
    by_network = {}
    for network in fitted(feve):
        part = where(feve, device=network)
        lines = {"seen": where(part, role="seen")}
        for way in [way for way in dict.fromkeys(part.way) if way and "gains" not in way]:
            lines[f"unseen, {way}"] = where(part, way=way)
        by_network[labels[network]] = lines
    return by_network


def strips(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure | None:
    """FEVE: a point the median over the sounds of an animal of a seed, and the median of those.

    Args:
        panels: Rows by title of a panel and label of a line; groups stand one below another.
    """
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return None
    counts = [len(lines) for lines in panels.values()]
    figure = Figure(figsize=(figures.WHOLE, 1.6 + 0.42 * sum(counts)), layout="constrained")
    grid = figure.subplots(len(counts), 1, sharex=True, height_ratios=counts, squeeze=False)
    asides = dict(zip(COLOURS, (-0.2, 0.0, 0.2), strict=True))
    for axis, (title, lines) in zip(grid[:, 0], panels.items(), strict=True):
        for row, part in enumerate(lines.values()):
            points = part.groupby(["seed", "listener", "group"]).value.median()
            for group, values in points.groupby("group"):
                places = [row + asides[group]] * len(values)
                axis.plot(values, places, "o", color=COLOURS[group], ms=5, alpha=0.7)
            if len(points):
                axis.plot([points.median()] * 2, [row - 0.32, row + 0.32], color="black", lw=2)
        axis.set_yticks(range(len(lines)), labels=list(lines), fontsize=9)
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.set_title(title, fontsize=11, loc="left")
        axis.grid(alpha=0.3, axis="x")
    axis.set_xlabel("FEVE")
    _hearing_legend(figure, [REST])
    return figure


def by_class(feve: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Medians by class of sound of animals with an ICNet of their own, a bar a model."""
    with_own = where(feve, device="icnet").listener.unique().tolist()
    medians = where(feve, listener=with_own).groupby(["device", "kind"]).value.median()
    shown = [name for name in ("icnet", "abr", "beta-6") if name in medians]
    return figures.grouped_bars({labels[n]: medians[n].to_dict() for n in shown}, "FEVE")


def evaluations(searched: pd.DataFrame, labels: Mapping[str, str]) -> Figure | None:
    """Every search: after how many evaluations it reached its target."""
    networks = list(dict.fromkeys(searched.device))
    if not networks:
        return None
    figure = Figure(figsize=(figures.WHOLE, 0.7 + 3.1 * len(networks)), layout="constrained")
    axes = figure.subplots(len(networks), 1, sharex=True, squeeze=False)[:, 0]
    ways = [way for way in dict.fromkeys(searched.way) if way]
    for axis, network in zip(axes, networks, strict=True):
        for (row, way), rule in itertools.product(enumerate(ways), RULES):
            _, colour, fill, aside = RULES[rule]
            places = where(searched, device=network, way=way, sound=rule).value.clip(upper=NEVER)
            apart = row + aside + torch.linspace(-0.09, 0.09, len(places) + 2)[1:-1]
            style = {"color": colour, "fillstyle": fill, "markersize": 5, "alpha": 0.7}
            axis.plot(places, apart, "o", **style)
            middle = places.sort_values().iloc[len(places) // 2]
            axis.plot([middle] * 2, [row + aside - 0.15, row + aside + 0.15], color=colour)
        axis.set_xscale("log", base=2)
        axis.axvline(NEVER / 1.55, color="0.4", linestyle="--", linewidth=0.8)
        ticks = [1, 2, 5, 10, 20, 40, 80, 160]
        axis.set_xticks([*ticks, NEVER], labels=[*map(str, ticks), "never"])
        axis.minorticks_off()
        axis.set_yticks(range(len(ways)), labels=ways, fontsize=9)
        axis.invert_yaxis()
        axis.set_title(labels[network], fontsize=11, loc="left")
        axis.grid(alpha=0.3, axis="x")
    axes[-1].set_xlabel("evaluations")
    handles = [
        Line2D([], [], marker="o", color=colour, fillstyle=fill, linestyle="none", label=title)
        for title, colour, fill, _ in RULES.values()
    ]
    figure.legend(handles=handles, fontsize=9, ncols=2, loc="outside lower center")
    return figure


def loss_surfaces(rows: pd.DataFrame, labels: Mapping[str, str]) -> Figure | None:
    """Costs around each target, a row an animal and a column a network, and every optimum."""
    surfaces = where(rows, measure="surface")
    if surfaces.empty:
        return None
    networks, animals = (list(dict.fromkeys(surfaces[c])) for c in ("device", "listener"))
    # The corners of the box cost so much that they would take all colours.
    top = max(100 * surfaces.value.quantile(0.9), 1e-3)
    size = (figures.WHOLE, 2.7 * len(animals) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(animals), len(networks), squeeze=False, sharex=True, sharey=True)
    ways = [way for way in dict.fromkeys(where(rows, measure="search").way) if way]
    marks = dict(zip(ways, figures.MARKERS, strict=False))
    for axis, (animal, network) in zip(
        axes.flat, itertools.product(animals, networks), strict=True
    ):
        part = where(rows, device=network, listener=animal)
        excess = 100 * torch.tensor(where(part, measure="surface").value.to_numpy())
        side = round(len(excess) ** 0.5)
        grid, excess = torch.linspace(-REACH, REACH, side), excess.view(side, side)
        levels = torch.linspace(0, top, 25).tolist()
        drawn = axis.contourf(grid, grid, excess, levels=levels, cmap="viridis_r", extend="both")
        if excess.min() + 2 < excess.max():
            axis.contour(grid, grid, excess, levels=[excess.min().item() + 2], colors="black")
        for size_of, way in zip(torch.linspace(11, 5, len(ways)).tolist(), ways, strict=True):
            ends = where(part, measure="search", way=way).set_index("sound").value
            place = ends[["first", "second"]].clip(-REACH, REACH)
            colour = figures.CYCLE[ways.index(way) % 7]
            axis.plot(*place, marks[way], color=colour, mec="white", ms=size_of)
        axis.plot(0, 0, "*", color="black", mec="white", ms=13, zorder=1.5)
        axis.set_title(f"{animal}, {labels[network]}", fontsize=10, loc="left")
    for axis in axes[-1]:
        axis.set_xlabel("first component of θ")
    for axis in axes[:, 0]:
        axis.set_ylabel("second")
    ticks = [top * part / 4 for part in range(5)]
    bar = figure.colorbar(drawn, ax=axes, label="cost above the target [%]", **figures.BAR_BELOW)
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    ends = {"dense search (target)": ("*", "black")}
    ends |= {way: (mark, figures.CYCLE[i % 7]) for i, (way, mark) in enumerate(marks.items())}
    handles = [
        Line2D([], [], marker=marker, color=colour, linestyle="none", label=way)
        for way, (marker, colour) in ends.items()
    ]
    figure.legend(handles=handles, fontsize=8, ncols=2, loc="outside lower center")
    return figure


def theta_space(rows: pd.DataFrame) -> Figure:
    """All animals by the network of most: too many for names, so hearing is coloured."""
    part = where(rows, device=largest(rows), measure="theta", way=["", FITTED])
    wide = part.pivot(index=["listener", "group", "role"], columns="sound", values="value")
    theta = torch.tensor(wide.to_numpy()).float()
    places, shares = figures.principal_components(theta)
    figure = Figure(figsize=(figures.WHOLE, 7.4), layout="constrained")
    plane, lines = figure.subplots(2, 1)
    asides = dict(zip(COLOURS, (-0.25, 0.0, 0.25), strict=True))
    dimensions = torch.arange(1, theta.shape[1] + 1)
    for (_, group, role), values, place in zip(wide.index, theta, places, strict=True):
        trained = role == "seen"
        style = {
            "color": COLOURS[group],
            "marker": "o" if trained else "*",
            "markersize": 7 if trained else 14,
            "markeredgecolor": "white" if trained else "black",
            "linestyle": "none",
        }
        plane.plot(*place.tolist(), **style)
        lines.plot(dimensions + asides[group], values, alpha=0.8, **style)
    first, second = figures.component_labels(shares)
    plane.set(xlabel=first, ylabel=second)
    plane.grid(alpha=0.3)
    lines.set(xlabel="dimension of θ", ylabel="value", ylim=(-0.05, 1.05))
    lines.set_xticks(dimensions.tolist())
    for between in dimensions[:-1].tolist():
        lines.axvline(between + 0.5, color="0.85", linewidth=0.8)
    handles = [
        Line2D([], [], marker=marker, ms=size, color="0.4", linestyle="none", label=role)
        for role, marker, size in (("seen", "o", 7), ("unseen", "*", 12))
    ]
    _hearing_legend(figure, handles)
    return figure


def movement(rows: pd.DataFrame) -> Figure:
    """How far the listeners of the network of most animals moved in training."""
    part = where(rows, device=largest(rows), role="seen", way="")
    states: dict[str, dict[str, torch.Tensor]] = {"start": {}, "now": {}}
    for when, state in states.items():
        for name in ("mean", "log_deviation", "shift", "rate", "onset"):
            wide = where(part, measure=f"{name}_{when}").pivot(
                index=["listener", "group"], columns="sound", values="value"
            )
            state[name] = torch.tensor(wide.to_numpy()).float()
    groups = wide.index.get_level_values("group").tolist()
    return figures.listener_movement(states["start"], states["now"], groups, COLOURS)


def drift(rows: pd.DataFrame) -> Figure | None:
    """How responses of each animal change through its recording, truly and as learned."""
    devices = list(dict.fromkeys(rows.device))
    if not devices:
        return None
    part = where(rows, device=devices[-1], group=["HI", "hidden"])
    animals = list(dict.fromkeys(part.listener))
    figure = Figure(figsize=(figures.WHOLE, 3.2), layout="constrained")
    for axes, animal in zip(
        figure.subplots(1, len(animals), sharey=True, squeeze=False)[0], animals, strict=True
    ):
        values = where(part, listener=animal).set_index("sound").value
        for which, style in (("true", "--"), ("learned", "-")):
            hours = [key for key in values.index if key.startswith(f"{which}_")]
            colour = COLOURS[where(part, listener=animal).group.iloc[0]]
            times = [float(key.removeprefix(f"{which}_")) for key in hours]
            axes.plot(times, values[hours], style, color=colour)
        axes.set_title(animal, fontsize=9)
        axes.set_xlabel("hours")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of the true change")
    return figure


def responses(path: Path) -> Figure:
    """Speech as a midbrain answered it, and as it was predicted."""
    images = load_file(path)
    cf_hz = images.pop("cf_hz")
    titles = sorted(images, key=lambda title: ("recorded" not in title, "true" not in title, title))
    top = figures.brightest([images[title] for title in titles[1:]])
    chosen = [images[title] for title in titles]
    return figures.responses(chosen, titles, columns=1, cf_hz=cf_hz, top=top)


def _hearing_legend(figure: Figure, others: Sequence[Line2D]) -> None:
    handles = [
        Line2D([], [], marker="o", color=colour, linestyle="none", label=group)
        for group, colour in COLOURS.items()
    ]
    figure.legend(handles=[*handles, *others], fontsize=9, ncols=5, loc="outside lower center")
