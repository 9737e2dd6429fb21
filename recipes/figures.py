"""Figures of results, for TensorBoard and for reports."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from icsim.sound import REFERENCE_PA, RESPONSE_RATE, SAMPLE_RATE

COLOURS = {"NH": "#1f77b4", "HI": "#d62728", "unseen": "#2ca02c"}
"""Normal-hearing, hearing-impaired and unseen listeners, in every figure."""


def responses(images: Sequence[Tensor], titles: Sequence[str], columns: int = 2) -> Figure:
    """Expected or recorded counts as images, channels over time, on one scale.

    Args:
        images: `(C, N)` each.
        titles: One each.
        columns: How many side by side.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(5.2 * columns, 1.9 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = max(
        0.1,
        torch.quantile(
            torch.stack([i.float() for i in images]).flatten()[:2_000_000], 0.995
        ).item(),
    )
    for axis in axes.flat[len(images) :]:
        axis.set_visible(False)
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        extent = (0, image.shape[-1] / RESPONSE_RATE, 0, len(image))
        drawn = axis.imshow(
            image,
            aspect="auto",
            origin="lower",
            extent=extent,
            vmin=0,
            vmax=top,
            cmap="magma",
            interpolation="nearest",
        )
        axis.set_title(title, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("time [s]")
    for axis in axes[:, 0]:
        axis.set_ylabel("channel")
    figure.colorbar(drawn, ax=axes, label="spikes a bin", fraction=0.03)
    return figure


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
    figure = Figure(figsize=(10, 4), layout="constrained")
    plane, lines = figure.subplots(1, 2)
    centred = theta - theta.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False)[2][:2]
    points = centred @ axes.T
    if points.shape[1] == 1:
        points = torch.cat([points, torch.zeros_like(points)], 1)
    for point, row, spread, name, status in zip(
        points, theta, deviation, names, statuses, strict=True
    ):
        colour = COLOURS[status]
        plane.scatter(
            *point.tolist(), color=colour, s=45, marker="*" if status == "unseen" else "o"
        )
        plane.annotate(name, point.tolist(), xytext=(4, 4), textcoords="offset points", fontsize=8)
        dimensions = range(1, len(row) + 1)
        lines.errorbar(
            dimensions,
            row,
            yerr=spread,
            color=colour,
            alpha=0.8,
            marker="o",
            markersize=4,
            linewidth=2.5 if status == "unseen" else 1,
            label=status,
        )
    plane.set(xlabel="first principal component", ylabel="second", title="Listeners in θ")
    lines.set(xlabel="dimension of θ", ylabel="value", ylim=(-0.05, 1.05), title="Each dimension")
    lines.set_xticks(range(1, theta.shape[1] + 1))
    handles, labels = lines.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    lines.legend(unique.values(), unique.keys(), fontsize=8)
    return figure


def training_curves(history: Sequence[dict], names: Sequence[str], label: str) -> Figure:
    """Named terms of a run's history over its records, one axis each."""
    figure = Figure(figsize=(3.4 * len(names), 2.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        present = [(i + 1, record[name]) for i, record in enumerate(history) if name in record]
        axis.plot(*zip(*present, strict=True), marker="o", markersize=3)
        axis.set(title=name.replace("_", " "), xlabel=label)
        axis.grid(alpha=0.3)
    return figure


def search_course(courses: dict[str, Tensor], target: float) -> Figure:
    """Best cost so far over evaluations, by method, beside the target and its 2 % rule."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    for name, course in courses.items():
        axis.plot(range(1, len(course) + 1), course, marker=".", label=name)
    axis.axhline(target, color="black", linewidth=1, label="best of a dense search")
    axis.axhline(1.02 * target, color="black", linestyle=":", label="2 % above it")
    axis.set(xlabel="evaluations", ylabel="nats a bin and channel")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def loss_surface(
    centre: Tensor, directions: Tensor, losses: Tensor, reach: float, marks: dict[str, Tensor]
) -> Figure:
    """A cost over a plane of θ.

    Args:
        centre: Origin of the plane, `(P,)`.
        directions: Two orthonormal rows, `(2, P)`.
        losses: Costs on a regular grid from −reach to reach, `(n, n)`, rows the second direction.
        reach: Half width of the grid.
        marks: Points of θ to show, by name.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    drawn = axis.contourf(
        torch.linspace(-reach, reach, len(losses)),
        torch.linspace(-reach, reach, len(losses)),
        losses,
        levels=24,
        cmap="viridis_r",
    )
    for name, theta in marks.items():
        place = (directions @ (theta - centre)).tolist()
        axis.scatter(*place, marker="*" if name == "fit" else "o", s=60, edgecolor="white")
        axis.annotate(name, place, xytext=(5, 5), textcoords="offset points", fontsize=8)
    axis.set(xlabel="first principal component of θ", ylabel="second")
    figure.colorbar(drawn, label="nats a bin and channel")
    return figure


def spectrograms(sounds: dict[str, Tensor]) -> Figure:
    """Short-time levels of sounds, one below the other, on one scale.

    Args:
        sounds: Pressure [Pa], `(T,)` each.
    """
    figure = Figure(figsize=(9, 1.7 * len(sounds) + 0.4), layout="constrained")
    axes = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    window = torch.hann_window(512)
    for axis, (name, sound) in zip(axes, sounds.items(), strict=True):
        spectrum = torch.stft(sound, 512, 128, window=window, return_complex=True)
        power = spectrum.abs().square() * 2 / (512 * window.square().sum())
        decibel = 10 * torch.log10(power / REFERENCE_PA**2 + 1e-3)
        drawn = axis.imshow(
            decibel,
            origin="lower",
            aspect="auto",
            vmin=-10,
            vmax=70,
            cmap="inferno",
            extent=(0, len(sound) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
        )
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("time [s]")
    figure.colorbar(drawn, ax=axes, label="dB SPL in a bin", fraction=0.03)
    return figure


def gain_curves(
    frequencies_hz: Tensor, curves: dict[str, Tensor], title: str = "Gain by frequency"
) -> Figure:
    """Gains [dB] over frequency, one line each, `(F,)`."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    for name, gains_db in curves.items():
        axis.semilogx(frequencies_hz, gains_db, marker=".", label=name)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(xlabel="frequency [Hz]", ylabel="gain [dB]", title=title)
    axis.set_xticks(
        [125, 250, 500, 1000, 2000, 4000, 8000],
        labels=["125", "250", "500", "1k", "2k", "4k", "8k"],
    )
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    return figure


def bars(values: dict[str, float], spread: dict[str, tuple[float, float]], label: str) -> Figure:
    """One bar a device with its interval."""
    figure = Figure(figsize=(1.3 * len(values) + 2, 3.2), layout="constrained")
    axis = figure.subplots()
    heights = list(values.values())
    low = [max(0.0, values[name] - spread[name][0]) for name in values]
    high = [max(0.0, spread[name][1] - values[name]) for name in values]
    axis.bar(list(values), heights, yerr=[low, high], capsize=4, color="#4c72b0")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_ylabel(label)
    axis.grid(alpha=0.3, axis="y")
    return figure
