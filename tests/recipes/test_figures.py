"""Figures are drawn whatever the results are; warnings are errors throughout."""

import io
import itertools
import math

import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from icsim.sound import RESPONSE_RATE
from recipes.reports import figures


def pixels(figure: Figure) -> bytes:
    """Draw it: layout, and with it most warnings, come only now."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert len(buffer.getvalue()) > 1000
    return buffer.getvalue()


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("animals", [1, 2, 5])
@pytest.mark.parametrize("parameters", [1, 2, 6])
def test_theta_space_shows_every_animal_however_few(animals, parameters):
    names = [f"animal-{i}" for i in range(animals)]
    statuses = ["NH", "HI", "unseen", "HI", "NH"][:animals]
    theta = torch.rand(animals, parameters, generator=torch.Generator().manual_seed(0))
    figure = figures.theta_space(theta, torch.full_like(theta, 0.1), names, statuses)
    pixels(figure)
    assert sorted(text.strip() for text in texts(figure)) == sorted(names)


def test_theta_space_keeps_names_of_coinciding_animals_apart():
    theta = torch.full((4, 3), 0.5)
    names = ["first", "second", "third", "fourth"]
    figure = figures.theta_space(theta, theta / 10, names, ["NH", "HI", "HI", "unseen"])
    pixels(figure)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert all(below[1] <= above[0] for below, above in itertools.pairwise(heights))


@pytest.mark.parametrize("animals", [1, 2])
def test_thresholds_are_drawn_at_their_levels_in_the_colour_of_the_hearing(animals):
    levels = {"a": torch.tensor([30.0, 20.0]), "b": torch.tensor([60.0, 70.0])}
    levels = dict(list(levels.items())[:animals])
    figure = figures.thresholds((1000.0, 4000.0), levels, {"a": "NH", "b": "HI"}, dashed=["b"])
    pixels(figure)
    lines = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [v.tolist() for v in levels.values()]
    assert to_rgb(lines[0].get_color()) == to_rgb(figures.COLOURS["NH"])
    assert [line.get_linestyle() for line in lines] == ["-", "--"][:animals]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_constant_images_are_drawn_in_their_own_time(value, count):
    images = [torch.full((8, 763), value)] * count
    titles = [str(i) for i in range(count)]
    for draw in (figures.responses, figures.response_differences):
        figure = draw(images, titles)
        pixels(figure)
        assert figure.axes[0].images[0].get_extent()[1] == pytest.approx(763 / RESPONSE_RATE)
        assert figure.axes[0].images[0].get_clim()[1] >= 0.1


def test_channels_are_sorted_by_their_frequency():
    cf_hz = torch.tensor([4000.0, 500.0, 1000.0, 2000.0])
    image = cf_hz[:, None].expand(-1, 20) / 1000
    figure = figures.responses([image], ["sorted"], cf_hz=cf_hz)
    pixels(figure)
    shown = figure.axes[0].images[0].get_array()
    assert shown[:, 0].tolist() == [0.5, 1.0, 2.0, 4.0]


def test_differences_are_white_where_there_is_none():
    difference = torch.tensor([[-2.0, 0.0, 2.0]])
    image = figures.response_differences([difference], ["d"]).axes[0].images[0]
    low, white, high = image.cmap(image.norm(difference.numpy()))[0]
    assert white[:3].min() > 0.95
    assert low[2] > low[0]
    assert high[0] > high[2]


def test_training_curves_leave_out_what_a_record_lacks():
    history = [{"loss": 3.0}, {"loss": 2.0, "extra": 1.0}, {"loss": None}]
    figure = figures.training_curves(
        history, dict.fromkeys(["loss", "extra", "never"], "nats"), "epoch"
    )
    pixels(figure)
    points = [axis.lines[0].get_xydata().tolist() for axis in figure.axes]
    assert points == [[[1, 3.0], [2, 2.0]], [[2, 1.0]], []]


def test_running_mean_follows_the_records():
    history = [{"loss": float(i % 2)} for i in range(40)]
    figure = figures.training_curves(history, {"loss": "nats"}, "step", smooth=4)
    pixels(figure)
    assert set(figure.axes[0].lines[1].get_ydata()) == {0.5}


@pytest.mark.parametrize("records", [0, 1])
def test_training_curves_of_hardly_any_history_are_drawn(records):
    pixels(figures.training_curves([{"loss": 1.0}] * records, {"loss": "nats"}, "step", 5))


def test_a_missing_score_is_called_missing():
    values = {"a": 0.5, "b": None}
    spread = {"true": {"a": (0.4, 0.7), "b": (None, None)}}
    grouped = figures.grouped_bars({"true": values, "model": values}, "score", spread=spread)
    pixels(grouped)
    assert [text.strip() for text in texts(grouped)] == ["missing", "missing"]


def test_bars_all_missing_are_drawn():
    values = {"a": None, "b": None}
    pixels(figures.grouped_bars({"only": values}, "score"))


def test_a_number_without_an_interval_has_no_error_bar():
    low, high = figures._reach(0.5, None), figures._reach(0.5, (math.nan, math.nan))
    assert low == high == (0.0, 0.0)
    assert figures._reach(0.5, (0.25, 1.0)) == (0.25, 0.5)


def test_heat_map_says_each_number_and_what_is_missing():
    values = torch.tensor([[0.5, math.nan], [-0.001, 0.97]])
    figure = figures.heat_map(values, ["a", "b"], ["x", "y"], "FEVE")
    pixels(figure)
    assert texts(figure) == ["0.50", "–", "0.00", "0.97"]


def test_constant_loss_surface_is_drawn():
    centre, directions = torch.full((3,), 0.5), torch.eye(3)[:2]
    marks = {"fit": centre, "dense search": centre + 5}
    for losses in (torch.ones(5, 5), torch.rand(5, 5) + 1):
        pixels(figures.loss_surface(centre, directions, losses, 0.6, marks, [0.6, 0.3]))


@pytest.mark.parametrize("evaluations", [1, 9])
def test_search_course_is_drawn_from_its_first_evaluation(evaluations):
    course = torch.linspace(1, 0.5, evaluations)
    pixels(figures.search_course({"bayesian": course}, 0.5))


def test_small_gains_do_not_fill_the_axis():
    frequencies = torch.tensor([250.0, 1000.0, 4000.0])
    figure = figures.gain_curves(frequencies, {"aid": torch.full((3,), 0.5)})
    pixels(figure)
    low, high = figure.axes[0].get_ylim()
    assert low <= -2
    assert high >= 10


def test_level_curves_are_drawn_with_what_came_in():
    levels = torch.arange(40.0, 91.0, 10.0)
    figure = figures.level_curves(levels, {"aid": levels + 5}, "out", "gain", identity=True)
    pixels(figure)
    came_in, out = figure.axes[0].lines
    assert (out.get_ydata() - came_in.get_ydata()).tolist() == [5.0] * len(levels)


def test_silence_has_a_spectrogram():
    pixels(figures.spectrograms({"silence": torch.zeros(2048), "noise": torch.randn(2048) * 0.02}))


def test_every_axis_says_what_it_shows():
    theta = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    directions = torch.eye(3)[:2]
    drawn = [
        figures.theta_space(theta, theta / 10, list("abcd"), ["NH", "HI", "NH", "unseen"]),
        figures.training_curves([{"loss": 1.0}], {"loss": "error [nats]"}, "step"),
        figures.loss_surface(theta[0], directions, torch.rand(5, 5), 0.6, {}, [0.6, 0.3]),
        figures.spectrograms({"noise": torch.randn(2048)}),
        figures.heat_map(torch.rand(2, 2), ["a", "b"], ["x", "y"], "FEVE", ("class", "animal")),
        figures.search_course({"descent": torch.rand(5)}, 0.1),
    ]
    for figure in drawn:
        for axis in figure.axes:
            assert axis.get_ylabel() or axis.get_label() == "<colorbar>"
            assert axis.get_xlabel() or axis.get_label() == "<colorbar>"


def test_components_say_how_much_variance_they_explain():
    theta = torch.zeros(5, 3)
    theta[:, 0], theta[2, 1] = torch.arange(5.0), 1.0
    points, shares = figures.principal_components(theta)
    centred = theta - theta.mean(0)
    for component in (0, 1):
        expected = points[:, component].square().sum() / centred.square().sum()
        assert shares[component] == pytest.approx(expected.item(), abs=1e-6)
    assert sum(shares) == pytest.approx(1)
    plane = figures.theta_space(theta, theta * 0 + 0.1, list("abcde"), ["NH"] * 5).axes[0]
    assert f"({100 * shares[0]:.0f} % of variance)" in plane.get_xlabel()
    assert f"({100 * shares[1]:.0f} % of variance)" in plane.get_ylabel()


DICHROMATS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""On linear RGB. Source: Machado, Oliveira & Fernandes 2009, at full severity."""

TO_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
"""Of linear sRGB. Source: IEC 61966-2-1."""


def as_seen(colours, kind: str) -> torch.Tensor:
    """CIE L*a*b* of colours as someone with a colour blindness sees them, `(n, 3)`."""
    encoded = torch.tensor([to_rgb(colour) for colour in colours])
    linear = torch.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    xyz = (linear @ torch.tensor(DICHROMATS[kind]).T).clamp(0, 1) @ TO_XYZ.T / TO_XYZ.sum(1)
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("kind", DICHROMATS)
@pytest.mark.parametrize("colours", [tuple(figures.COLOURS.values()), figures.BARS, figures.LEVELS])
def test_colours_are_told_apart_with_any_colour_vision(colours, kind):
    seen = as_seen(colours, kind)
    apart = torch.cdist(seen, seen) + 1000 * torch.eye(len(colours))
    assert apart.min() > 15
