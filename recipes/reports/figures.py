"""Figures of results, for TensorBoard and for reports.

Small and tall rather than wide: they are read on telephones too.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from evaluation.comparison import Comparison
from icsim.sound import REFERENCE_PA, RESPONSE_RATE, SAMPLE_RATE
from icsim.theta import BOUNDS

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
"""Colours that are told apart with any colour vision. Source: Okabe & Ito (2008)."""

COLOURS = {"NH": CYCLE[0], "HI": CYCLE[1], "unseen": CYCLE[2]}
"""Normal-hearing, hearing-impaired and unseen listeners, in every figure."""

MARKERS = "osD^vPX<>*"

LEVELS = ("#F4B183", CYCLE[1], "#6E2C00")
"""Soft, ordinary and loud: one hue, darker the louder."""

BARS = (CYCLE[0], "#A9D3EE", CYCLE[4])
"""Groups of bars: dark, pale, and another hue between them in lightness."""

OCTAVES_HZ = {125: "125", 250: "250", 500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 8000: "8k"}

HALF, WHOLE = 4.8, 6.0
"""Widths [inch] of a figure that shares a line of a page, and of one that has it alone."""

BAR_BELOW: dict[str, Any] = {"location": "bottom", "aspect": 50, "shrink": 0.7}
"""Where a colour bar takes no width from images."""


def responses(
    images: Sequence[Tensor],
    titles: Sequence[str],
    columns: int = 2,
    cf_hz: Tensor | None = None,
    top: float | None = None,
    bin_rate_hz: float = RESPONSE_RATE,
) -> Figure:
    """Expected or recorded counts as images, channels over time, on one scale.

    Args:
        images: `(C, N)` each.
        titles: One each.
        columns: How many side by side.
        cf_hz: Characteristic frequencies [Hz], `(C,)`, if the channels are to be sorted by them.
        top: Count with the lightest colour; from the images if None.
        bin_rate_hz: Bins a second.
    """
    top = brightest(images) if top is None else top
    scale = {"vmin": 0, "vmax": top, "cmap": "magma"}
    return _images(images, titles, columns, cf_hz, scale, bin_rate_hz)


def response_differences(
    images: Sequence[Tensor],
    titles: Sequence[str],
    columns: int = 1,
    cf_hz: Tensor | None = None,
    top: float | None = None,
    bin_rate_hz: float = RESPONSE_RATE,
) -> Figure:
    """Differences of counts, diverging from white: red too many, blue too few. As `responses`."""
    top = brightest([image.abs() for image in images]) if top is None else top
    scale = {"vmin": -top, "vmax": top, "cmap": "RdBu_r"}
    return _images(images, titles, columns, cf_hz, scale, bin_rate_hz)


def brightest(images: Sequence[Tensor]) -> float:
    """Top of a colour scale that a few outliers do not decide, at least 0.1."""
    values = torch.cat([image.float().flatten() for image in images])[:2_000_000]
    return max(0.1, torch.quantile(values, 0.995).item())


def theta_space(
    theta: Tensor, deviation: Tensor, names: Sequence[str], statuses: Sequence[str]
) -> Figure:
    """Listeners in the plane of the first two principal components, and in every dimension.

    Args:
        theta: Means, `(A, P)`.
        deviation: Standard deviations, `(A, P)`.
        names: One an animal.
        statuses: NH, HI or unseen.
    """
    figure = Figure(figsize=(WHOLE, 7.4), layout="constrained")
    plane, lines = figure.subplots(2, 1)
    points, shares = principal_components(theta)
    dimensions = torch.arange(1, theta.shape[1] + 1)
    aside = torch.linspace(-0.2, 0.2, len(theta)) if len(theta) > 1 else torch.zeros(1)
    for index, (name, status) in enumerate(zip(names, statuses, strict=True)):
        unseen = status == "unseen"
        colour, marker = COLOURS[status], "*" if unseen else MARKERS[index % 9]
        plane.scatter(*points[index].tolist(), color=colour, s=140 if unseen else 50, marker=marker)
        lines.errorbar(
            dimensions + aside[index],
            theta[index],
            yerr=deviation[index],
            color=colour,
            alpha=0.85,
            marker=marker,
            markersize=10 if unseen else 5,
            linestyle="none",
            elinewidth=1.2,
            label=name,
        )
    _label_points(plane, points, names)
    first, second = component_labels(shares)
    plane.set(xlabel=first, ylabel=second, title="Listeners as points")
    plane.margins(0.2)
    plane.grid(alpha=0.3)
    lines.set(
        xlabel="dimension of θ", ylabel="value of θ", ylim=(-0.05, 1.05), title="Each dimension"
    )
    lines.set_xticks(dimensions.tolist())
    for between in dimensions[:-1].tolist():
        lines.axvline(between + 0.5, color="0.85", linewidth=0.8)
    figure.legend(fontsize=9, ncols=4, loc="outside lower center")
    return figure


def listener_movement(
    start: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    groups: Sequence[str],
    colours: Mapping[str, str] = COLOURS,
) -> Figure:
    """Where listeners began and where they are: what lies on a grey line has not moved.

    Args:
        start: `state_dict` of `Listeners` before the first step.
        now: The same of today.
        groups: One an animal.
        colours: Of groups.
    """
    figure = Figure(figsize=(WHOLE, 6.4), layout="constrained")
    (above, right), (left, below) = figure.subplots(2, 2)
    reach = 1.1 * max(start["mean"].abs().max().item(), now["mean"].abs().max().item())
    above.plot([-reach, reach], [-reach, reach], color="0.7", linewidth=1)
    for index, group in enumerate(groups):
        above.plot(start["mean"][index], now["mean"][index], "o", ms=4, color=colours[group])
        deviation = now["log_deviation"][index].exp()
        right.plot([index + 1] * len(deviation), deviation, "o", ms=4, color=colours[group])
    right.axhline(start["log_deviation"].exp().median().item(), color="0.7", label="start")
    right.axhline(len(groups) ** -0.5, color="black", linestyle=":", label="prior")
    above.set(title="means, before their sigmoid", xlabel="at the start", ylabel="now")
    right.set(title="standard deviation of θ", xlabel="animal", yscale="log")
    right.legend(fontsize=8)
    for row, name in enumerate(("shift", "rate", "onset")):
        low, high = BOUNDS[name]
        began, moved = ((values[name].flatten() - low) / (high - low) for values in (start, now))
        left.plot(began, [row] * len(began), "|", ms=22, mew=2, color="0.7")
        left.plot(moved, [row] * len(moved), "o", ms=4, color=CYCLE[2])
    left.set(title="time transfer", xlabel="of the range allowed", xlim=(-0.03, 1.03))
    left.set_yticks(range(3), labels=["shift", "rate", "onset"])
    left.set_ylim(2.5, -0.5)
    below.set_axis_off()
    shown = {group: colours[group] for group in colours if group in groups} | {"all": CYCLE[2]}
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colour, label=group)
        for group, colour in shown.items()
    ]
    below.legend(handles=handles, loc="center", fontsize=9)
    return figure


def principal_components(theta: Tensor) -> tuple[Tensor, list[float]]:
    """Points in the plane of the first two principal components, and the variance these explain.

    Args:
        theta: `(A, P)`.

    Returns:
        Points `(A, 2)`, and shares of the variance, 0 to 1, one a component.

    >>> _, shares = principal_components(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> [round(share, 3) for share in shares]
    [1.0, 0.0]
    """
    centred = theta - theta.mean(0)
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    variance = singular.square() / singular.square().sum().clamp(min=1e-12)
    missing = 2 - points.shape[1]
    if missing > 0:
        points = torch.cat([points, points.new_zeros(len(points), missing)], 1)
    return points, [*variance[:2].tolist(), *[0.0] * missing]


def component_labels(shares: Sequence[float], of: str = "") -> list[str]:
    """Labels of the axes of two principal components, with the variance that each explains."""
    return [
        f"{which} principal component{of} ({100 * share:.0f} % of variance)"
        for which, share in zip(("1st", "2nd"), shares, strict=True)
    ]


def thresholds(
    frequencies_hz: Sequence[float],
    levels_db_spl: Mapping[str, Tensor],
    statuses: Mapping[str, str],
    dashed: Sequence[str] = (),
) -> Figure:
    """Hearing thresholds of animals over frequency, moved aside a little so that none hides.

    Args:
        frequencies_hz: Where they were measured [Hz].
        levels_db_spl: By animal [dB SPL], `(F,)` each.
        statuses: By animal: NH, HI or unseen.
        dashed: Animals whose loss does not show in thresholds.
    """
    figure = Figure(figsize=(WHOLE, 4.4), layout="constrained")
    axis = figure.subplots()
    count = len(levels_db_spl)
    for index, (name, levels) in enumerate(levels_db_spl.items()):
        status = statuses[name]
        axis.semilogx(
            [f * 2 ** (0.16 * (index - (count - 1) / 2) / count) for f in frequencies_hz],
            levels,
            color=COLOURS[status],
            marker="*" if status == "unseen" else MARKERS[index % 9],
            markersize=10 if status == "unseen" else 5,
            linestyle="--" if name in dashed else "-",
            linewidth=1.4,
            label=name,
        )
    axis.set_xticks(frequencies_hz, labels=[f"{f / 1000:g}" for f in frequencies_hz])
    axis.minorticks_off()
    axis.set(xlabel="frequency [kHz]", ylabel="softest level heard [dB SPL]")
    axis.grid(alpha=0.3)
    figure.legend(fontsize=9, ncols=4, loc="outside lower center")
    return figure


def training_curves(
    history: Sequence[dict], names: Mapping[str, str], label: str, smooth: int = 1
) -> Figure:
    """Named terms of a run's history over its records, one axis each.

    Args:
        history: One record a step or epoch.
        names: Terms to show and the unit of each; a record may lack any.
        label: What a record is.
        smooth: Records in the running mean that is drawn over the values.
    """
    figure = Figure(figsize=(3.4 * len(names), 2.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        axis.set_prop_cycle(color=CYCLE)
        present = [(i + 1, r[name]) for i, r in enumerate(history) if r.get(name) is not None]
        steps, values = zip(*present, strict=True) if present else ((), ())
        raw = {"alpha": 0.25} if smooth > 1 else {"marker": "o", "markersize": 3}
        axis.plot(steps, values, **raw)
        if smooth > 1 and len(values) > smooth:
            means = torch.tensor(values).unfold(0, smooth, 1).mean(-1)
            axis.plot(steps[smooth - 1 :], means, color=CYCLE[0], linewidth=2)
        axis.set(title=name.replace("_", " "), xlabel=label, ylabel=names[name])
        axis.ticklabel_format(useOffset=False)
        axis.grid(alpha=0.3)
    return figure


def search_course(courses: dict[str, Tensor], target: float) -> Figure:
    """Best cost so far over evaluations, by method, beside the target and its 2 % rule."""
    figure = Figure(figsize=(HALF, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=CYCLE)
    for name, course in courses.items():
        axis.plot(range(1, len(course) + 1), course, marker=".", label=name)
    axis.axhline(target, color="black", linewidth=1, label="best of a dense search")
    axis.axhline(1.02 * target, color="black", linestyle=":", label="2 % above it")
    axis.set(xlabel="evaluations", ylabel="best cost so far [nats]")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def loss_surface(
    centre: Tensor,
    directions: Tensor,
    losses: Tensor,
    reach: float,
    marks: dict[str, Tensor],
    shares: Sequence[float],
) -> Figure:
    """A cost over a plane of θ, and the outline of what is within 2 % of its least value.

    Args:
        centre: Origin of the plane, `(P,)`.
        directions: Two orthonormal rows, `(2, P)`.
        losses: Costs on a regular grid from −reach to reach, `(n, n)`, rows the second direction.
        reach: Half width of the grid.
        marks: Points of θ to show, by name.
        shares: Of the known listeners' variance that the two directions explain.
    """
    figure = Figure(figsize=(HALF, 3.6), layout="constrained")
    axis = figure.subplots()
    steps = torch.linspace(-reach, reach, len(losses))
    drawn = axis.contourf(steps, steps, losses, levels=24, cmap="viridis_r")
    if losses.min() < 1.02 * losses.min() < losses.max():
        axis.contour(steps, steps, losses, levels=[1.02 * losses.min()], colors="black")
    for index, (name, theta) in enumerate(marks.items()):
        x, y = (directions @ (theta - centre)).clamp(-reach, reach).tolist()
        axis.scatter(x, y, marker="*" if name == "fit" else "o", s=90, edgecolor="white")
        axis.annotate(
            name,
            (x, y),
            xytext=(0, 8 if index % 2 == 0 else -16),
            textcoords="offset points",
            ha="right" if x > 0 else "left",
            fontsize=9,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
        )
    first, second = component_labels(shares, " of θ")
    axis.set_xlabel(first, fontsize=9)
    axis.set_ylabel(second, fontsize=9)
    figure.colorbar(drawn, label="cost [nats]")
    return figure


def courses(rates: Mapping[str, Tensor], step_s: float, label: str) -> Figure:
    """Rates over time, a line each, the channels one below the other.

    Args:
        rates: `(C, N)` each, by name.
        step_s: Time between values [s].
        label: Of the rates.
    """
    channels = len(next(iter(rates.values())))
    figure = Figure(figsize=(WHOLE, 1.8 * channels + 0.8), layout="constrained")
    axes = figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0]
    for channel, axis in enumerate(axes):
        for (name, rate), colour in zip(rates.items(), ("0.6", CYCLE[1], CYCLE[0]), strict=False):
            time_s = step_s * torch.arange(rate.shape[-1])
            axis.plot(time_s, rate[channel], color=colour, linewidth=1, label=name)
        axis.set(ylabel=label, title=f"channel {channel + 1}")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("time [s]")
    axes[0].legend(fontsize=8)
    return figure


def spectrograms(sounds: dict[str, Tensor]) -> Figure:
    """Short-time levels of sounds on one scale, below each other; many in two columns.

    Args:
        sounds: Pressure [Pa], `(T,)` each.
    """
    columns = 1 if len(sounds) < 5 else 2
    rows = -(-len(sounds) // columns)
    figure = Figure(figsize=(WHOLE, 1.5 * rows + 1), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = grid.flatten()
    for axis in axes[len(sounds) :]:
        axis.set_axis_off()
    axes = axes[: len(sounds)]
    window = torch.hann_window(512)
    for axis, (name, sound) in zip(axes, sounds.items(), strict=True):
        spectrum = torch.stft(sound, 512, 128, window=window, return_complex=True)
        power = spectrum.abs().square() * 2 / (512 * window.square().sum())
        decibel = 10 * torch.log10(power / REFERENCE_PA**2 + 1e-3)
        drawn = axis.imshow(
            decibel.numpy(),
            origin="lower",
            aspect="auto",
            vmin=-10,
            vmax=70,
            cmap="inferno",
            extent=(0, len(sound) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
        )
        axis.set_title(name, fontsize=10, loc="left")
    for axis in grid[:, 0]:
        axis.set_ylabel("frequency [kHz]")
    for axis in axes[-columns:]:
        axis.set_xlabel("time [s]")
        axis.tick_params(labelbottom=True)
    figure.colorbar(drawn, ax=grid, label="dB SPL in a bin", **BAR_BELOW)
    return figure


def gain_curves(
    frequencies_hz: Tensor,
    curves: dict[str, Tensor],
    title: str = "Gain by frequency",
    styles: Mapping[str, dict] | None = None,
) -> Figure:
    """Gains [dB] over frequency, one line each, `(F,)`; `styles` are matplotlib's, by name."""
    figure = Figure(figsize=(HALF, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=CYCLE)
    for name, gains_db in curves.items():
        style = {"marker": "."} | (styles or {}).get(name, {})
        axis.semilogx(frequencies_hz, gains_db, label=name, **style)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(xlabel="frequency [Hz]", ylabel="gain [dB]", title=title)
    axis.set_xticks(list(OCTAVES_HZ), labels=list(OCTAVES_HZ.values()))
    axis.minorticks_off()
    low, high = axis.get_ylim()
    # A decibel or two should not look like much.
    axis.set_ylim(min(low, -2), max(high, 10))
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    return figure


def level_curves(
    levels_db_spl: Tensor,
    curves: dict[str, Tensor],
    label: str,
    title: str,
    styles: Mapping[str, dict] | None = None,
    identity: bool = False,
) -> Figure:
    """Anything over the level of a sound, one line each; `identity` draws out = in."""
    figure = Figure(figsize=(HALF, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=CYCLE)
    if identity:
        axis.plot(levels_db_spl, levels_db_spl, color="0.6", linewidth=1, label="as it came in")
    for name, values in curves.items():
        style = {"marker": "."} | (styles or {}).get(name, {})
        axis.plot(levels_db_spl, values, label=name, **style)
    axis.set(xlabel="level of the sound [dB SPL]", ylabel=label, title=title)
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, ncols=3 if len(curves) < 4 else 2, loc="outside lower center")
    return figure


def grouped_bars(
    groups: Mapping[str, Mapping[str, float | None]],
    label: str,
    title: str = "",
    spread: Mapping[str, Mapping[str, tuple[float | None, float | None] | None]] | None = None,
    limits: tuple[float, float] | None = None,
    rows: str = "",
) -> Figure:
    """Lying bars, a colour a group; names stand on the left, where they have room.

    Args:
        groups: Values by group and name; None if missing.
        label: Of the axis of values.
        title: Of the figure.
        spread: Intervals by group and name.
        limits: Of the axis of values.
        rows: What the names are, if they do not say it themselves.
    """
    names = list(next(iter(groups.values())))
    size = HALF, 1.2 + (0.12 + 0.1 * len(groups)) * len(names)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(groups)
    for index, (group, values) in enumerate(groups.items()):
        intervals = (spread or {}).get(group, {})
        reach = [_reach(values[name], intervals.get(name)) for name in names]
        places = [row + (index - (len(groups) - 1) / 2) * height for row in range(len(names))]
        axis.barh(
            places,
            [values[name] or 0.0 for name in names],
            height,
            xerr=list(zip(*reach, strict=True)) if intervals else None,
            capsize=3,
            color=BARS[index % 3],
            label=group,
        )
        for place, name in zip(places, names, strict=True):
            if values[name] is None:
                axis.text(0, place, " missing", va="center", color="0.4", fontsize=9)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), labels=names)
    axis.invert_yaxis()
    axis.set(title=title, ylabel=rows)
    # The axis is short beside long names: the label may reach below these.
    axis.set_xlabel(label, loc="right")
    if limits:
        axis.set_xlim(*limits)
    axis.grid(alpha=0.3, axis="x")
    figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    return figure


def interval_bars(
    groups: Mapping[str, Mapping[str, Comparison | None]],
    label: str,
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Lying bars of comparisons with their intervals, as `grouped_bars`."""
    return grouped_bars(
        {
            g: {n: c.estimate if c else None for n, c in cells.items()}
            for g, cells in groups.items()
        },
        label,
        title,
        {g: {n: (c.low, c.high) if c else None for n, c in of.items()} for g, of in groups.items()},
        limits,
    )


def heat_map(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    axes: tuple[str, str] = ("", ""),
) -> Figure:
    """Numbers as a coloured table, `(rows, columns)`; NaN is shown as missing.

    `axes` says what columns and rows are.
    """
    figure = Figure(figsize=(WHOLE, 0.36 * len(rows) + 1.3), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(values.numpy(), aspect="auto", vmin=0, vmax=1, cmap="viridis")
    for row, column in itertools.product(range(len(rows)), range(len(columns))):
        value = values[row, column].item()
        text = "–" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"
        colour = "black" if value > 0.6 or math.isnan(value) else "white"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(columns)), labels=columns, fontsize=9)
    axis.set_yticks(range(len(rows)), labels=rows, fontsize=9)
    axis.set(xlabel=axes[0], ylabel=axes[1])
    figure.colorbar(drawn, label=label, fraction=0.04)
    return figure


def explained_by_animal(
    feve: Mapping[str, Sequence[float | None]],
    labels: Mapping[str, str],
    statuses: Mapping[str, str],
) -> Figure:
    """FEVE of each test sound by animal, and its median; those below −0.5 are drawn there.

    Args:
        feve: Of each animal's sounds; None where nothing can be explained.
        labels: Of each animal.
        statuses: NH or HI.
    """
    figure = Figure(figsize=(WHOLE, 1.0 + 0.3 * len(feve)), layout="constrained")
    axis = figure.subplots()
    lowest = 0.0
    for row, (name, values) in enumerate(feve.items()):
        defined = [max(value, -0.5) for value in values if value is not None]
        lowest = min([lowest, *defined])
        colour = COLOURS[statuses[name]]
        axis.plot(defined, [row] * len(defined), "o", color=colour, ms=4, alpha=0.45)
        axis.plot([statistics.median(defined)] * 2, [row - 0.35, row + 0.35], color="black", lw=2)
    axis.axvline(0, color="grey", lw=0.8)
    axis.set(xlim=(min(-0.05, lowest - 0.05), 1.02))
    axis.set_xlabel("FEVE (1: all that repeats, 0: a constant rate)")
    axis.set_yticks(range(len(feve)), labels=[labels[name] for name in feve])
    axis.set_ylim(len(feve) - 0.4, -0.6)
    handles = [Line2D([], [], marker="o", ls="", color=COLOURS[s], label=s) for s in ("NH", "HI")]
    handles.append(Line2D([], [], color="black", lw=2, label="median"))
    axis.legend(handles=handles, loc="lower left", fontsize=8)
    return figure


def _images(
    images: Sequence[Tensor],
    titles: Sequence[str],
    columns: int,
    cf_hz: Tensor | None,
    scale: dict,
    bin_rate_hz: float,
) -> Figure:
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(HALF * columns, 1.5 * rows + 1.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    order = slice(None) if cf_hz is None else cf_hz.argsort()
    for axis in axes.flat[len(images) :]:
        axis.set_visible(False)
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        extent = (0, image.shape[-1] / bin_rate_hz, 0, len(image))
        drawn = axis.imshow(
            image[order].numpy(),
            aspect="auto",
            origin="lower",
            extent=extent,
            interpolation="nearest",
            **scale,
        )
        axis.set_title(title, fontsize=10, loc="left")
    for axis in axes[-1]:
        axis.set_xlabel("time [s]")
    if cf_hz is not None:
        for axis in axes[:, 0]:
            _frequency_ticks(axis, cf_hz[order])
    label_rows = "channel" if cf_hz is None else "channel, by its best frequency [kHz]"
    figure.supylabel(label_rows, fontsize=10)
    figure.colorbar(drawn, ax=axes, label="spikes a bin", **BAR_BELOW)
    return figure


def _frequency_ticks(axis: Axes, cf_hz: Tensor) -> None:
    """Octaves at the channels that reach them, unless too close; frequencies `(C,)` ascend."""
    apart = len(cf_hz) / 8
    ticks: dict[int, str] = {}
    for frequency in (8000, 4000, 2000, 1000, 500):
        place = int((cf_hz < frequency).sum())
        if 0 < place < len(cf_hz) and all(abs(place - other) > apart for other in ticks):
            ticks[place] = f"{frequency / 1000:g}"
    axis.set_yticks(list(ticks), labels=list(ticks.values()))


def _label_points(axis: Axes, points: Tensor, names: Sequence[str]) -> None:
    """Names beside points `(A, 2)`, moved up where they would cover one another."""
    span = (points.max(0).values - points.min(0).values).clamp(min=1e-3)
    placed: list[tuple[float, float]] = []
    for index in points[:, 1].argsort().tolist():
        x, y = (points[index] / span).tolist()
        lifted = y
        while any(abs(x - other) < 0.3 and abs(lifted - there) < 0.09 for other, there in placed):
            lifted += 0.03
        placed.append((x, lifted))
        # The points span about 140 typographic points of height.
        axis.annotate(
            names[index],
            (points[index, 0].item(), points[index, 1].item()),
            xytext=(9, 140 * (lifted - y)),
            textcoords="offset points",
            fontsize=9,
            va="center",
        )


def _reach(value: float | None, interval: tuple | list | None) -> tuple[float, float]:
    """How far an interval reaches below and above a value; no way where either is missing."""
    if value is None or interval is None or not all(map(math.isfinite, interval)):
        return 0.0, 0.0
    return max(0.0, value - interval[0]), max(0.0, interval[1] - value)
