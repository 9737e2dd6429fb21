"""Figures of the searches for θ: how long each way took, and where it ended."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recipes import figures
from recipes.benchmark_ic_listeners import bounds, first_reached
from recipes.benchmark_ic_results import Run
from recipes.fit_theta import REACH

WAYS = {
    "Bayesian, 4 Sobol points": ("o", "#1f77b4"),
    "Bayesian, 8 Sobol points": ("s", "#17becf"),
    "Bayesian, 16 Sobol points": ("D", "#2ca02c"),
    "Bayesian from the animals": ("^", "#9467bd"),
    "descent from 4 Sobol points": ("v", "#ff7f0e"),
    "descent from the animals' mean": ("P", "#d62728"),
    "descent from the best animal": ("X", "#e377c2"),
}
"""Marker and colour of each way of searching θ."""

RULES = {"usual": ("#1f77b4", "full", -0.17), "strict": ("#d62728", "none", 0.17)}
"""Colour, filling and displacement of the two rules of having reached a target."""

NEVER = 320
"""Where a search that did not reach its target is drawn; none had as many evaluations."""


def evaluations(runs: Sequence[Run], names: Mapping[str, str]) -> Figure | None:
    """Every search: after how many evaluations it reached its target."""
    searched = [network for network in runs[0].searches if runs[0].searches[network]]
    if not searched:
        return None
    figure = Figure(figsize=(figures.WHOLE, 0.7 + 3.1 * len(searched)), layout="constrained")
    axes = figure.subplots(len(searched), 1, sharex=True, squeeze=False)[:, 0]
    for axis, network in zip(axes, searched, strict=True):
        searches = [s for run in runs for s in run.searches[network].values()]
        ways = list(searches[0]["ways"])
        for (row, way), (rule, style) in itertools.product(enumerate(ways), RULES.items()):
            colour, fill, aside = style
            needed = [first_reached(s["ways"][way]["course"], bounds(s)[rule]) for s in searches]
            places = [NEVER if math.isinf(count) else count for count in needed]
            rows = row + aside + torch.linspace(-0.09, 0.09, len(places))
            axis.plot(places, rows, "o", color=colour, fillstyle=fill, markersize=5, alpha=0.7)
            middle = sorted(places)[len(places) // 2]
            axis.plot([middle] * 2, [row + aside - 0.15, row + aside + 0.15], color=colour)
        axis.set_xscale("log", base=2)
        axis.axvline(NEVER / 1.4, color="0.4", linestyle="--", linewidth=0.8)
        ticks = [1, 2, 5, 10, 20, 40, 80, 160]
        axis.set_xticks([*ticks, NEVER], labels=[*map(str, ticks), "never"])
        axis.minorticks_off()
        axis.set_yticks(range(len(ways)), labels=ways)
        axis.invert_yaxis()
        axis.set_title(names[network], fontsize=11, loc="left")
        axis.grid(alpha=0.3, axis="x")
    axes[-1].set_xlabel("evaluations")
    titles = {"usual": "2 % above the target", "strict": "2 % of the way from the middle"}
    handles = [
        Line2D([], [], marker="o", color=colour, fillstyle=fill, linestyle="none", label=titles[r])
        for r, (colour, fill, _) in RULES.items()
    ]
    figure.legend(handles=handles, fontsize=9, ncols=2, loc="outside lower center")
    return figure


def loss_surfaces(run: Run, names: Mapping[str, str]) -> Figure | None:
    """Costs around each target, a row an animal and a column a network, and every optimum."""
    searched = {network: found for network, found in run.searches.items() if found}
    if not searched:
        return None
    animals = list(next(iter(searched.values())))
    size = (figures.WHOLE, 2.7 * len(animals) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(animals), len(searched), squeeze=False, sharex=True, sharey=True)
    excess = {
        (animal, network): 100
        * (torch.tensor(found[animal]["surface"]) / found[animal]["target"] - 1)
        for network, found in searched.items()
        for animal in animals
    }
    top = max(torch.quantile(torch.stack(list(excess.values())), 0.9).item(), 1e-3)
    for (row, animal), (column, network) in itertools.product(
        enumerate(animals), enumerate(searched)
    ):
        axis, found = axes[row, column], searched[network][animal]
        steps = torch.linspace(-REACH, REACH, len(found["surface"]))
        shown = axis.contourf(
            steps,
            steps,
            excess[animal, network],
            levels=torch.linspace(0, top, 25).tolist(),
            cmap="viridis_r",
            extend="both",
        )
        least = excess[animal, network].min()
        if least + 2 < excess[animal, network].max():
            axis.contour(steps, steps, excess[animal, network], levels=[least + 2], colors="black")
        for way, (marker, colour) in WAYS.items():
            aside = torch.tensor(found["ways"][way]["theta"]) - torch.tensor(found["target_theta"])
            place = torch.tensor(found["directions"]) @ aside
            axis.plot(*place.clamp(-REACH, REACH).tolist(), marker, color=colour, mec="white", ms=9)
        axis.plot(0, 0, "*", color="black", mec="white", ms=14)
        axis.set_title(f"{animal}, {names[network]}", fontsize=10, loc="left")
    figure.supxlabel("first principal component of θ", fontsize=10)
    figure.supylabel("second", fontsize=10)
    figure.colorbar(
        shown, ax=axes, label="cost above the target [%]", format="%.2g", **figures.BAR_BELOW
    )
    marks = {"dense search (target)": ("*", "black"), **WAYS}
    handles = [
        Line2D([], [], marker=m, color=c, linestyle="none", label=way)
        for way, (m, c) in marks.items()
    ]
    figure.legend(handles=handles, fontsize=8, ncols=2, loc="outside lower center")
    return figure
