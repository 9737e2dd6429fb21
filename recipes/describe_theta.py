"""Show what θ means: directions that can be named, and what a model answers along each.

`python -m recipes.describe_theta --cohort COHORT --model MODEL --out FOLDER`

The page `theta.html` has a slider for each direction.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.clock import require_clock
from icsim.files import write_json, write_whole
from icsim.fits import read_fit
from icsim.metrics import expected_counts
from icsim.models.listener_space import ListenerSpace, listener_space
from icsim.models.named_axes import NamedAxes, named_axes
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes.reports import figures
from recipes.reports.page import inline, png, template
from recipes.running.commands import begin, run
from recipes.running.ranges import Count, NotEmptyStr, Seconds, checked


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Whose θ to show."""

    cohort: NotEmptyStr
    """Of the animals that the model was trained on."""
    model: NotEmptyStr
    """A trained model with condition `theta`."""
    out: NotEmptyStr
    """Folder for `axes.json` and `theta.html`."""
    theta: NotEmptyStr | None = None
    """A fit by `recipes.fit_theta`, from which the sliders begin; the mean of the animals with
    normal hearing if not given."""
    sound: NotEmptyStr | None = None
    """Name of the sound of the cohort that is answered; the first test sound if not given."""
    seconds: Seconds = 0.8
    """How much of it [s]."""
    steps: Count = 7
    """Of each slider."""


def describe_theta(config: Config) -> dict:
    """Write the directions and the page; returns what `axes.json` holds.

    Raises:
        ValueError: If nothing can be read from θ, or a file does not go with the model.
    """
    cohort, space = Cohort.open(config.cohort), listener_space(config.model)
    require_clock(cohort.clock, space.model.clock, config.cohort)
    missing = sorted(set(space.names) - set(cohort.animals()))
    if missing:
        raise ValueError(f"{config.cohort}: the model's {', '.join(missing)} are not in it")
    start = space.normal.mean(0)
    if config.theta:
        start = read_fit(config.theta, fingerprint(config.model)).theta
    measured, sound = quantities(cohort, space), _sound(config, cohort)
    begin()
    axes = named_axes(space.theta, measured)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "model": fingerprint(config.model),
        "names": axes.names,
        "r2": axes.r2,
        "start": start.tolist(),
        "quantities": axes.read(start[None])[0].tolist(),
        "ranges": axes.ranges.tolist(),
        "steps": axes.steps.tolist(),
    }
    sliders = [_slider(config, space, axes, name, start, sound) for name in axes.names]
    page = template("theta.html").render(
        config=config, axes=axes, sliders=sliders, quantities=result["quantities"]
    )
    write_json(out / "axes.json", result)
    write_whole(out / "theta.html", page)
    return result


def quantities(cohort: Cohort, space: ListenerSpace) -> dict[str, Tensor]:
    """What is measured of the model's animals, and true of them if they are simulated, `(A,)`.

    Raises:
        ValueError: If nothing is.
    """
    measured: dict[str, list[float]] = {}
    animals = [cohort.animal(name) for name in space.names]
    levels = [one.thresholds_db_spl for one in animals if one.thresholds_db_spl is not None]
    if len(levels) == len(animals):
        normal = torch.tensor([animal.status == "NH" for animal in animals])
        shifts = torch.stack(levels) - torch.stack(levels)[normal].mean(0)
        octaves = torch.tensor(animals[0].abr_frequencies_hz).log2()
        octaves = octaves - octaves.mean()
        measured["loss [dB]"] = shifts.mean(1).tolist()
        slope = (shifts @ octaves / octaves.square().sum()).tolist()
        measured["slope [dB/octave]"] = slope
    if cohort.description and cohort.description.get("simulated"):
        losses = [cohort.truth(name)["loss"] for name in space.names]
        measured["lost synapses"] = [loss["synaptopathy"] for loss in losses]
        measured["central gain"] = [loss["central_gain"] for loss in losses]
    if not measured:
        raise ValueError(
            f"{cohort.path}: neither thresholds of all of the model's animals nor a truth, after "
            "which directions of θ could be named"
        )
    return {name: torch.tensor(values) for name, values in measured.items()}


def _sound(config: Config, cohort: Cohort) -> Tensor:
    """The loudest part of the sound that is answered, `(1, T)` [Pa]."""
    names = [sound.name for sound in cohort.sounds]
    if config.sound is not None and config.sound not in names:
        raise ValueError(f"{config.sound}: no sound of {config.cohort}; there is {names[0]}, …")
    tests = [sound for sound in cohort.sounds if sound.split == "test"] or cohort.sounds
    index = tests[0].index if config.sound is None else names.index(config.sound)
    pressure = cohort.pressure(index)
    samples = min(len(pressure), round(config.seconds * cohort.clock.sample_rate_hz))
    energy = pressure.square().unfold(0, samples, max(1, samples // 4)).sum(1)
    begun = int(energy.argmax()) * max(1, samples // 4)
    return pressure[begun : begun + samples][None]


@torch.no_grad()
def _slider(
    config: Config, space: ListenerSpace, axes: NamedAxes, name: str, start: Tensor, sound: Tensor
) -> dict:
    """Values of one quantity, and at each the responses as an image."""
    low, high = axes.ranges[axes.names.index(name)].tolist()
    values = torch.linspace(low, high, config.steps).tolist()
    now = axes.read(start[None])[0, axes.names.index(name)].item()
    listeners = torch.stack([axes.moved(start, name, value) for value in values])
    answers = []
    for theta in tqdm(listeners, desc=name, unit="step"):
        answers.append(expected_counts(space.model.respond(sound, theta[None]))[0])
    top = figures.brightest(answers)
    images = []
    for value, theta, answer in zip(values, listeners, answers, strict=True):
        said = ", ".join(f"{number:.2f}" for number in theta.tolist())
        drawn = figures.responses([answer], [f"{name}: {value:.3g}"], columns=1, top=top)
        images.append(
            {"value": value, "theta": said, "src": inline("image/png", png(drawn, dpi=80))}
        )
    nearest = min(range(len(values)), key=lambda place: abs(values[place] - now))
    return {"name": name, "images": images, "now": now, "nearest": nearest}


if __name__ == "__main__":
    described = run(describe_theta, Config)
    for quantity, explained in described["r2"].items():
        named = "a direction of its own" if quantity in described["names"] else "not readable"
        print(f"{quantity}: R² {explained:.2f}, {named}")
