"""Figures of the searches for θ: how long each way took, and where it ended."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from icsim.models.listener_fit import REACH
from recipes.reports import figures
from recipes.reports.ic.listeners import bounds, first_reached
from recipes.reports.ic.results import Run

WAYS = {
    "Bayesian, 4 Sobol points": ("o", figures.CYCLE[0]),
    "Bayesian, 8 Sobol points": ("s", figures.CYCLE[5]),
    "Bayesian, 16 Sobol points": ("D", figures.CYCLE[2]),
    "Bayesian from the animals": ("^", figures.CYCLE[6]),
    "descent from 4 Sobol points": ("v", figures.CYCLE[4]),
    "descent from the animals' mean": ("P", figures.CYCLE[1]),
    "descent from the best animal": ("X", figures.CYCLE[3]),
}
"""Marker and colour of each way of searching θ."""

RULES = {"usual": (figures.CYCLE[0], "full", -0.17), "strict": (figures.CYCLE[1], "none", 0.17)}
"""Colour, filling and displacement of the two rules of having reached a target."""

NEVER = 400
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
            places = [min(count, NEVER) for count in needed]
            apart = torch.linspace(-0.09, 0.09, len(places) + 2)[1:-1]
            axis.plot(
                places,
                row + aside + apart,
                "o",
                color=colour,
                fillstyle=fill,
                markersize=5,
                alpha=0.7,
            )
            middle = sorted(places)[len(places) // 2]
            axis.plot([middle] * 2, [row + aside - 0.15, row + aside + 0.15], color=colour)
        axis.set_xscale("log", base=2)
        axis.axvline(NEVER / 1.55, color="0.4", linestyle="--", linewidth=0.8)
        ticks = [1, 2, 5, 10, 20, 40, 80, 160]
        axis.set_xticks([*ticks, NEVER], labels=[*map(str, ticks), "never"])
        axis.minorticks_off()
        axis.set_yticks(range(len(ways)), labels=ways, fontsize=9)
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
    panels = list(itertools.product(animals, searched))
    excess = {
        (animal, network): _above_target(searched[network][animal]) for animal, network in panels
    }
    # The corners of the box cost so much that they would take all colours.
    top = max(torch.stack(list(excess.values())).quantile(0.9).item(), 1e-3)
    size = (figures.WHOLE, 2.7 * len(animals) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(animals), len(searched), squeeze=False, sharex=True, sharey=True)
    for axis, (animal, network) in zip(axes.flat, panels, strict=True):
        drawn = _surface(axis, excess[animal, network], searched[network][animal], top)
        axis.set_title(f"{animal}, {names[network]}", fontsize=10, loc="left")
    for axis in axes[-1]:
        axis.set_xlabel("first component of θ")
    for axis in axes[:, 0]:
        axis.set_ylabel("second")
    ticks = [top * part / 4 for part in range(5)]
    bar = figure.colorbar(drawn, ax=axes, label="cost above the target [%]", **figures.BAR_BELOW)
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    marks = {"dense search (target)": ("*", "black"), **WAYS}
    handles = [
        Line2D([], [], marker=marker, color=colour, linestyle="none", label=way)
        for way, (marker, colour) in marks.items()
    ]
    figure.legend(handles=handles, fontsize=8, ncols=2, loc="outside lower center")
    return figure


def _above_target(found: dict) -> Tensor:
    """The surface [%]."""
    return 100 * (torch.tensor(found["surface"]) / found["target"] - 1)


def _surface(axis: Axes, excess: Tensor, found: dict, top: float) -> QuadContourSet:
    """One plane of costs above the target [%], and where each way of searching ended."""
    steps = torch.linspace(-REACH, REACH, len(excess))
    levels = torch.linspace(0, top, 25).tolist()
    drawn = axis.contourf(steps, steps, excess, levels=levels, cmap="viridis_r", extend="both")
    if excess.min() + 2 < excess.max():
        axis.contour(steps, steps, excess, levels=[excess.min() + 2], colors="black")
    directions, target = torch.tensor(found["directions"]), torch.tensor(found["target_theta"])
    # Smaller and smaller, so that none of those at one place is hidden.
    sizes = torch.linspace(11, 5, len(WAYS)).tolist()
    for size, (way, (marker, colour)) in zip(sizes, WAYS.items(), strict=True):
        place = directions @ (torch.tensor(found["ways"][way]["theta"]) - target)
        axis.plot(*place.clamp(-REACH, REACH).tolist(), marker, color=colour, mec="white", ms=size)
    axis.plot(0, 0, "*", color="black", mec="white", ms=13, zorder=1.5)
    return drawn
