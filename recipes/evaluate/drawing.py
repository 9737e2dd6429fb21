"""Figures of the report."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from recipes.figures import HALF

WINDOW_S = 0.02
"""Of the spectrograms [s]."""

RANGE_DB = 70.0
"""Of their colours, below the loudest point [dB]."""

POINT, MIDDLE, INK = "#4c72b0", "#dd8452", "#1b1f24"


def distributions(values: Mapping[str, list[float]], label: str) -> Figure:
    """One score of all files: a line of points for each device, with median and middle half."""
    figure = Figure(figsize=(HALF, 0.9 + 0.55 * len(values)), layout="constrained")
    axis = figure.subplots()
    for place, found in enumerate(values.values()):
        if not found:
            axis.text(0.01, place, "missing", va="center", transform=axis.get_yaxis_transform())
            continue
        points = torch.tensor(found, dtype=torch.float64)
        generator = torch.Generator().manual_seed(place)
        aside = place + 0.5 * (torch.rand(len(points), generator=generator) - 0.5)
        axis.scatter(points, aside, s=12, alpha=0.5, color=POINT, linewidths=0)
        quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=points.dtype)
        low, middle, high = points.quantile(quartiles).tolist()
        axis.plot([low, high], [place, place], color=INK, linewidth=2.5)
        axis.plot([middle], [place], marker="o", color=MIDDLE, markeredgecolor=INK)
    axis.set_yticks(range(len(values)), labels=[_short(device) for device in values])
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.set_title(label, fontsize=10, loc="left")
    axis.grid(alpha=0.3, axis="x")
    return figure


def spectrograms(sounds: Mapping[str, Tensor], rate_hz: float) -> Figure:
    """Short-time levels of sounds `(T,)`, one below the other.

    Each has colours of its own: what a device does to the spectrum is seen at any gain.
    """
    figure = Figure(figsize=(HALF, 1.25 * len(sounds) + 0.5), layout="constrained")
    axes = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    size = round(WINDOW_S * rate_hz)
    window = torch.hann_window(size)
    for axis, (name, sound) in zip(axes, sounds.items(), strict=True):
        padded = torch.nn.functional.pad(sound, (0, max(0, size - len(sound))))
        power = torch.stft(padded, size, size // 4, window=window, return_complex=True)
        decibel = 10 * torch.log10(power.abs().square().clamp(min=1e-30))
        top = decibel.max().item()
        axis.imshow(
            decibel.numpy(),
            origin="lower",
            aspect="auto",
            vmin=top - RANGE_DB,
            vmax=top,
            cmap="inferno",
            extent=(0, len(sound) / rate_hz, 0, rate_hz / 2000),
        )
        axis.set_title(_short(name, 40), fontsize=9, loc="left")
        axis.set_ylabel("kHz", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("time [s]", fontsize=8)
    return figure


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
