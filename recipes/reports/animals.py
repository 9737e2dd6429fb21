"""Figures of what `measurements` found, for `docs/simulation.md`."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.typing import HashableList
from PIL import Image
from torch import Tensor

from icsim.alignment import smooth
from icsim.files import whole_file
from icsim.simulation.abr import ABR_FREQUENCIES_HZ
from icsim.simulation.hearing import NORMAL_THRESHOLDS_DB_SPL, SHIFT_DB
from icsim.sound import RESPONSE_RATE
from recipes.reports.figures import BAR_BELOW, COLOURS, CYCLE, HALF, MARKERS, WHOLE, brightest

STYLES: dict[str, dict[str, Any]] = {
    "NH": {"color": COLOURS["NH"]},
    "HI": {"color": COLOURS["HI"]},
    "HI, no central gain": {"color": COLOURS["HI"], "linestyle": ":"},
    "hidden": {"color": CYCLE[3], "linestyle": "--"},
}
"""Lines of every hearing: dashed where thresholds show no loss."""

VARIANTS = ("#0072b2", "#d55e00", "#009e73")
"""Lines of gains, told apart by colour-blind readers. Source: Okabe & Ito 2008."""

PUBLISHED: dict[str, Any] = {"color": "black", "linestyle": "none", "markersize": 8, "zorder": 5}


def audiograms(thresholds_db_spl: Mapping[tuple[str, float], Tensor]) -> Figure:
    """Mean and SD of thresholds beside the published means.

    Args:
        thresholds_db_spl: By hearing and severity, `(A, 5)` each.
    """
    figure = Figure(figsize=(HALF, 4.6), layout="constrained")
    axis = figure.subplots()
    strongest = max(severity for _, severity in thresholds_db_spl)
    for index, ((hearing, severity), levels) in enumerate(thresholds_db_spl.items()):
        aside = 2 ** (0.05 * (index - (len(thresholds_db_spl) - 1) / 2))
        style = dict(STYLES[hearing])
        if severity:
            style["color"] = _tint(style["color"], 0.35 + 0.65 * severity / strongest)
        axis.errorbar(
            [hz * aside for hz in ABR_FREQUENCIES_HZ],
            levels.mean(0),
            yerr=levels.std(0),
            capsize=2,
            linewidth=1.5,
            elinewidth=1,
            label=f"{hearing}, severity {severity:g}" if severity else hearing,
            **style,
        )
    normal = torch.tensor(NORMAL_THRESHOLDS_DB_SPL[2:])
    shifted = normal + torch.tensor(SHIFT_DB[2:])
    axis.plot(ABR_FREQUENCIES_HZ, normal, marker="o", label="published, normal", **PUBLISHED)
    axis.plot(ABR_FREQUENCIES_HZ, shifted, marker="X", label="published, mild loss", **PUBLISHED)
    _frequency_axis(axis, ABR_FREQUENCIES_HZ)
    axis.set(ylabel="threshold [dB SPL]")
    figure.legend(fontsize=9, ncols=2, loc="outside lower center")
    return figure


def tuning(
    frequencies_hz: Tensor,
    thresholds_db_spl: Mapping[str, Tensor],
    sharpness: Mapping[str, tuple[Tensor, Tensor]],
    channels: Sequence[int],
    unheard_db_spl: float,
) -> Figure:
    """Threshold tuning curves of some channels, and the sharpness of all.

    Args:
        frequencies_hz: `(F,)`.
        thresholds_db_spl: By hearing, `(F, C)` each.
        sharpness: By hearing, best frequencies [Hz] and Q10, `(C,)` each.
        channels: Whose curves are drawn, an even number.
        unheard_db_spl: Thresholds from here on were not found.
    """
    figure = Figure(figsize=(HALF, 7.4), layout="constrained")
    names = [f"{index}" for index in range(len(channels))]
    rows: list[HashableList[str]] = [[*names[i : i + 2]] for i in range(0, len(names), 2)]
    panels = figure.subplot_mosaic([*rows, ["all", "all"]])
    for name, levels in thresholds_db_spl.items():
        audible = levels.masked_fill(levels >= unheard_db_spl, torch.nan)
        for panel, channel in zip(names, channels, strict=True):
            curve = audible[:, channel]
            panels[panel].plot(frequencies_hz, curve, linewidth=1.8, label=name, **STYLES[name])
        best_hz, q10 = sharpness[name]
        panels["all"].plot(best_hz, q10, "o", markersize=4, color=STYLES[name]["color"])
    for panel, channel in zip(names, channels, strict=True):
        hz = next(iter(sharpness.values()))[0][channel].item()
        title = f"a channel of {hz / 1000:.1f} kHz"
        panels[panel].set_title(title, fontsize=10, loc="left")
        limits = frequencies_hz[0].item(), frequencies_hz[-1].item()
        panels[panel].set(xlim=limits, ylim=(0, unheard_db_spl))
        _frequency_axis(panels[panel], (500, 2000, 8000))
    for panel in names[::2]:
        panels[panel].set_ylabel("threshold [dB SPL]")
    panels["all"].plot(frequencies_hz, cat_q10(frequencies_hz), "k:", label="nerve of the cat")
    panels["all"].set(ylabel="Q10", ylim=(0, None))
    panels["all"].set_title("sharpness of every channel", fontsize=10, loc="left")
    _frequency_axis(panels["all"], (250, 500, 1000, 2000, 4000, 8000))
    handles = [*panels["0"].get_lines(), panels["all"].get_lines()[-1]]
    figure.legend(handles=handles, fontsize=9, ncols=3, loc="outside lower center")
    return figure


def cat_q10(cf_hz: Tensor) -> Tensor:
    """Median Q10 of nerve fibres of the cat, any shape.

    Source: the fit (50th percentile) in the nerve model of Zilany & Bruce 2006, JASA 120. Gerbils'
    widths follow the trend of cats' (Schmiedt 1989, Hear. Res. 42).

    >>> cat_q10(torch.tensor([1000.0, 4000.0])).round(decimals=1)
    tensor([2.9000, 5.6000])
    """
    return 10 ** (0.4708 * torch.log10(cf_hz / 1000) + 0.4664)


def rate_levels(
    levels_db_spl: Tensor, responses: Mapping[str, Tensor], groups: Mapping[str, Tensor]
) -> Figure:
    """Responses at the channels' own frequencies over level.

    Args:
        levels_db_spl: `(L,)`.
        responses: By hearing, counts above the spontaneous ones, `(L, C)` each.
        groups: Channels whose mean is drawn, bool `(C,)`, one axis each; single channels of the
            first hearing are drawn behind.
    """
    figure = Figure(figsize=(HALF, 6.4), layout="constrained")
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, group) in zip(axes, groups.items(), strict=True):
        single = next(iter(responses.values()))[:, group]
        axis.plot(levels_db_spl, single, color="0.8", linewidth=0.7)
        for name, values in responses.items():
            mean = values[:, group].mean(1)
            axis.plot(levels_db_spl, mean, label=name, linewidth=2, **STYLES[name])
        axis.set(ylabel="spikes a bin, above rest")
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("level of the tone [dB SPL]")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, ncols=2, loc="outside lower center")
    return figure


def modulation(
    rates_hz: Tensor, locked: Tensor, mean: Tensor, best_hz: Tensor, channels: Sequence[int]
) -> Figure:
    """Modulation transfer of some channels, each over its largest, and where all have their peak.

    Args:
        rates_hz: `(R,)`.
        locked: Amplitude at the modulation rate, `(R, C)`.
        mean: Mean response, `(R, C)`.
        best_hz: Best modulation rates that the channels are made with [Hz], `(C,)`.
        channels: Four whose curves are drawn.
    """
    figure = Figure(figsize=(HALF, 8), layout="constrained")
    axes = figure.subplots(3, 1)
    for axis, values in zip(axes, (locked, mean), strict=False):
        for channel, colour in zip(
            channels, ("#440154", "#31688e", "#35b779", "#e08214"), strict=True
        ):
            relative = values[:, channel] / values[:, channel].max()
            label = f"{best_hz[channel]:.0f} Hz"
            axis.semilogx(rates_hz, relative, color=colour, marker=".", label=label)
            axis.axvline(best_hz[channel], color=colour, linestyle=":", linewidth=1)
        axis.set(xlabel="modulation rate [Hz]", ylabel="over the largest", ylim=(0, 1.05))
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, title="best rate", fontsize=9, ncols=4, loc="outside lower center")
    axes[0].set_title("amplitude at the modulation rate", fontsize=10, loc="left")
    axes[1].set_title("mean response", fontsize=10, loc="left")
    axes[2].loglog(best_hz, rates_hz[locked.argmax(0)], "o", markersize=4, color=COLOURS["NH"])
    axes[2].loglog(rates_hz, rates_hz, color="0.5", linewidth=1)
    axes[2].set(xlabel="best rate of the channel [Hz]", ylabel="measured peak [Hz]")
    axes[2].set_title("peak of the amplitude, every channel", fontsize=10, loc="left")
    ticks = (4, 10, 30, 100, 300)
    for axis in axes:
        axis.set_xticks(ticks, labels=[str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[2].set_yticks(ticks, labels=[str(tick) for tick in ticks])
    axes[2].minorticks_off()
    return figure


def speech(
    images: Tensor, names: Sequence[str], levels_db_spl: Sequence[float], cf_hz: Tensor
) -> Figure:
    """Responses to speech: a column for each hearing and a row for each level, on one scale.

    Args:
        images: Expected counts, `(A, L, C, N)`.
        names: Of the columns.
        levels_db_spl: Of the rows.
        cf_hz: Characteristic frequencies [Hz], `(C,)`: the channels are sorted by them.
    """
    figure = Figure(figsize=(WHOLE, 6.6), layout="constrained")
    axes = figure.subplots(len(levels_db_spl), len(names), sharex=True, sharey=True, squeeze=False)
    top = brightest([images])
    for row, level_db_spl in enumerate(levels_db_spl):
        for column, name in enumerate(names):
            image = images[column, row]
            drawn = _image(axes[row, column], image, cf_hz, "magma", vmin=0, vmax=top)
            title = f"{name}, mean {image.mean():.2f}"
            axes[row, column].set_title(title, fontsize=9, loc="left")
        axes[row, 0].set_ylabel(f"{level_db_spl:g} dB SPL")
    for axis in axes[-1]:
        axis.set_xlabel("time [s]")
    figure.supylabel("channel, by its best frequency [kHz]", fontsize=10)
    figure.colorbar(drawn, ax=axes, label="spikes a bin", **BAR_BELOW)
    return figure


def drift(
    hours: Tensor,
    shifts_db: Mapping[str, Tensor],
    images: Tensor,
    image_hours: Sequence[float],
    cf_hz: Tensor,
) -> Figure:
    """How thresholds rise during a recording, and what becomes of the response to one sound.

    Args:
        hours: `(H,)`.
        shifts_db: By animal, whose hearing is its name up to a comma, `(H,)` each.
        images: Expected counts of one animal, `(I, C, N)`.
        image_hours: When; all but the first are drawn as differences from the first.
        cf_hz: Characteristic frequencies [Hz], `(C,)`.
    """
    figure = Figure(figsize=(HALF, 3.2 + 1.6 * len(images)), layout="constrained")
    axes = figure.subplots(len(images) + 1, 1, height_ratios=(1.7, *[1] * len(images)))
    for index, (name, shift) in enumerate(shifts_db.items()):
        style = STYLES[name.split(",")[0]]
        axes[0].plot(hours, shift, marker=MARKERS[index], markersize=4, label=name, **style)
    axes[0].set(xlabel="hours of recording", ylabel="threshold shift at 4 kHz [dB]")
    axes[0].grid(alpha=0.3)
    axes[0].legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    differences = images[1:] - images[0]
    top = brightest([differences.abs()])
    first = _image(axes[1], images[0], cf_hz, "magma", vmin=0, vmax=brightest([images[0]]))
    figure.colorbar(first, ax=axes[1], label="spikes a bin", aspect=10)
    axes[1].set_title(f"response at {image_hours[0]:g} h", fontsize=10, loc="left")
    for axis, image, hour in zip(axes[2:], differences, image_hours[1:], strict=True):
        drawn = _image(axis, image, cf_hz, "RdBu_r", vmin=-top, vmax=top)
        figure.colorbar(drawn, ax=axis, label="change", aspect=10)
        axis.set_title(f"{hour:g} h less {image_hours[0]:g} h", fontsize=10, loc="left")
    for axis in axes[1:]:
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("time [s]")
    return figure


def gains(
    centres_hz: Tensor, gains_db: Mapping[str, Tensor], low_hz: tuple[float, float]
) -> Figure:
    """Best fixed gains over frequency: of a loss without one part, and of parts alone.

    Args:
        centres_hz: Of the bands [Hz], `(bands,)`.
        gains_db: By variant, `(A, bands)` each, the whole loss first; means are drawn, and the
            range over animals of the whole loss.
        low_hz: The range that is shaded [Hz].
    """
    figure = Figure(figsize=(WHOLE, 6.4), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    whole, *others = gains_db
    without = [name for name in others if name.startswith("no ")]
    alone = [name for name in others if name.endswith("alone")]
    for axis, names in zip(axes, (without, alone), strict=True):
        axis.axvspan(*low_hz, color="0.9", linewidth=0)
        axis.axhline(0, color="0.5", linewidth=0.8)
        values = gains_db[whole]
        span = values.amin(0).tolist(), values.amax(0).tolist()
        axis.fill_between(centres_hz.tolist(), *span, color="black", alpha=0.15, linewidth=0)
        styles = zip((whole, *names), ("black", *VARIANTS), MARKERS, strict=False)
        for name, colour, marker in styles:
            mean = gains_db[name].mean(0).tolist()
            axis.plot(centres_hz.tolist(), mean, color=colour, marker=marker, label=name)
        axis.set_ylabel("best gain [dB]")
        axis.legend(fontsize=9, loc="upper left")
        _frequency_axis(axis, [125, 250, 500, 1000, 2000, 4000, 8000])
    axes[0].set_xlabel("")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG that appears whole or not at all, small enough for a page."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    # A palette takes a third of the bytes.
    palette = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with whole_file(path) as beside:
        palette.save(beside, format="png", optimize=True)


def _image(axis: Axes, image: Tensor, cf_hz: Tensor, colours: str, **scale):
    """One response `(C, N)`, channels sorted by frequency, with octaves at the side."""
    # Runs of four bins and few colours: more would not be seen, and take four times the bytes.
    drawn = axis.imshow(
        smooth(image[cf_hz.argsort()], 4).numpy(),
        aspect="auto",
        origin="lower",
        extent=(0, image.shape[-1] / RESPONSE_RATE, 0, len(image)),
        interpolation="nearest",
        cmap=colormaps[colours].resampled(49),
        **scale,
    )
    ticks: dict[int, str] = {}
    for hz in (8000, 4000, 2000, 1000, 500):
        place = int((cf_hz < hz).sum())
        if 0 < place < len(cf_hz) and all(abs(place - other) > len(cf_hz) / 10 for other in ticks):
            ticks[place] = f"{hz / 1000:g}"
    axis.set_yticks(list(ticks), labels=list(ticks.values()))
    return drawn


def _frequency_axis(axis: Axes, frequencies_hz: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_xticks(frequencies_hz, labels=[f"{hz / 1000:g}" for hz in frequencies_hz])
    axis.minorticks_off()
    axis.set_xlabel("frequency [kHz]")
    axis.grid(alpha=0.3)


def _tint(colour: str, share: float) -> tuple[float, ...]:
    """A colour mixed with white."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))
