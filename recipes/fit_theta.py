"""Fit θ of animals that the model was not trained on, and its drift, from what they answered.

`python -m recipes.fit_theta --cohort COHORT --model MODEL --out FOLDER`
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.channel_gains import broad
from icsim.clock import require_clock
from icsim.files import write_json
from icsim.fitting import (
    Cost,
    Fit,
    bayesian_search,
    dense_search,
    sobol,
    warm_descent,
)
from icsim.models.listener_fit import (
    REACH,
    FittedListener,
    baselines,
    first_frames,
    fit_listener,
    plane,
    stored_matching,
)
from icsim.models.listener_posterior import states_of, weights
from icsim.models.load import load_theta_model
from icsim.models.readouts import Categorical
from icsim.models.response import ResponseModel
from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes.reports import figures
from recipes.running.commands import begin, run
from recipes.running.ranges import (
    AtLeastOne,
    Count,
    CountOrZero,
    Hours,
    NotEmptyStr,
    Seconds,
    Seed,
    checked,
)


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Which listeners to fit, and how."""

    cohort: NotEmptyStr
    """Where its responses are."""
    model: NotEmptyStr
    """A trained model with condition `theta`."""
    out: NotEmptyStr
    """Folder for `<animal>.json` and figures."""
    animal: NotEmptyStr | None = None
    """Whose, aligned before; by default every unseen animal's in turn."""
    alignment: NotEmptyStr = ALIGNMENT
    """The alignment that the model was trained with."""
    rounds: CountOrZero = 0
    """How often channels are matched again, with what the model says of the listener found, and
    the listener is fitted again. It predicts better, but what a loss did to the channels is then
    said by their places as much as by θ."""
    channel_gains: bool = True
    """Fit a gain and offsets of each channel beside θ: what the model cannot know of a new brain.
    Aids never see them."""
    starts: Count = 2
    """Known listeners to begin from, those that cost least: each may lead to another mode of the
    posterior, and all that differ are kept."""
    search: Literal["none", "bayesian", "descent"] = "none"
    """How to search for the θ to begin from instead, with channels as the model has them."""
    start: Literal["sobol", "animals"] = "animals"
    """Where that search begins: with well-spread points, or the animals that the model knows."""
    initial: Count = 8
    """Sobol points to begin with."""
    evaluations: Count = 40
    """Evaluations of a Bayesian search."""
    within: AtLeastOne = 1.02
    """Ratio to the target, the best of a dense search, that counts as found."""
    dense: Count | None = None
    """Points of a dense search, which shows how good the fit is; none if not given."""
    first_hours: Hours | None = None
    """Use what was presented in this time alone [h], as published: 2. All of the recording, if not
    given, which says how θ drifts."""
    seconds_a_sound: Seconds = 15.0
    """Use at most so much of each sound [s]."""
    seconds: Seconds = 30.0
    """Use at most so much in all [s]."""
    seed: Seed = 0
    """Of starts and of the choice of frames."""


def fit_animals(config: Config) -> list[dict]:
    """Fit the animal that the configuration names, or every unseen one; returns their JSON.

    Raises:
        ValueError: If none is named and none is unseen.
    """
    cohort = Cohort.open(config.cohort)
    names = [config.animal] if config.animal else cohort.animals("unseen")
    if not names:
        raise ValueError(f"{config.cohort}: no animal is unseen; name one with --animal")
    return [fit_theta(dataclasses.replace(config, animal=name)) for name in names]


def fit_theta(config: Config) -> dict:
    """Fit one animal; write its JSON, and the search's course and loss surface as figures.

    Returns:
        The JSON.
    """
    animal = animal_of(config)
    model, facts = load_theta_model(config.model)
    cohort = Cohort.open(config.cohort)
    require_clock(cohort.clock, model.clock, config.cohort)
    _require_categorical(config, model)
    matching = stored_matching(cohort, animal, config.alignment, model)
    batch = first_frames(
        cohort,
        animal,
        model.context_bins,
        first_hours=config.first_hours,
        seconds=config.seconds,
        seconds_a_sound=config.seconds_a_sound,
        seed=config.seed,
    )
    others = model.listeners.at().detach()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    begin()
    started = time.monotonic()
    prior = facts.channel_prior or broad(model.config.readout.classes)
    find = None if config.search == "none" else functools.partial(search, config)
    with tqdm(desc=f"fitting {animal}", unit="evaluation") as bar:

        def show(count: int, nats: float) -> None:
            bar.update()
            bar.set_postfix(nats=f"{nats:.4f}")

        ways = config.rounds, config.channel_gains, config.starts
        fitted = fit_listener(model, batch, matching, prior, find, *ways, progress=show)
    result = _described(fitted) | {
        "animal": animal,
        "model": fingerprint(config.model),
        "nats": baselines(fitted, states_of(model.listeners), facts.animals),
        "seconds": time.monotonic() - started,
    }
    course = torch.tensor(fitted.posterior.course).cummin(0).values
    if config.dense:
        target = dense_search(fitted.landscape, others, config.dense, config.seed)
        reached = (course <= config.within * target.loss).nonzero()
        result |= {
            "target_loss": target.loss,
            "loss_ratio": course[-1].item() / target.loss,
            "target_theta": target.theta.tolist(),
            "evaluations_to_target": reached[0].item() + 1 if len(reached) else None,
        }
        drawn = figures.search_course({"scoring": course}, target.loss)
        drawn.savefig(out / f"{animal}-course.png", dpi=110)
    marks = {f"mode {n}" if n else "fit": one.theta() for n, one in enumerate(fitted.modes)}
    drawn = surface(fitted.landscape, others, fitted.theta, marks)
    drawn.savefig(out / f"{animal}-surface.png", dpi=110)
    write_json(out / f"{animal}.json", result)
    return result


def _described(fitted: FittedListener) -> dict[str, Any]:
    """What was fitted, for JSON."""
    posterior, gains = fitted.posterior, fitted.all_gains()
    covariance = posterior.theta_covariance()
    return {
        "theta": fitted.theta.tolist(),
        "deviation": covariance.diagonal().sqrt().tolist(),
        "covariance": covariance.tolist(),
        "modes": [
            {
                "weight": weight,
                "theta": one.theta().tolist(),
                "covariance": one.theta_covariance().tolist(),
            }
            for weight, one in zip(weights(fitted.modes).tolist(), fitted.modes, strict=True)
        ],
        "drift": {k: v.tolist() for k, v in vars(posterior.drift()).items()},
        "matching": fitted.matching.tolist(),
        "channel_gains": None if gains is None else gains.tolist(),
        "evaluations": len(posterior.course),
        "course": list(posterior.course),
    }


def _require_categorical(config: Config, model: ResponseModel) -> None:
    if config.channel_gains and not isinstance(model.readout, Categorical):
        raise ValueError(
            f"{config.model}: gains of channels belong to categorical counts, and its readout is "
            f"{model.config.readout.kind!r}; add --channel_gains false"
        )


def animal_of(config: Config) -> str:
    """The animal that a configuration names.

    Raises:
        ValueError: If it names none.
    """
    if config.animal is None:
        raise ValueError("no animal is named; name one with --animal")
    return config.animal


def surface(cost: Cost, others: Tensor, centre: Tensor, marks: dict[str, Tensor], points: int = 11):
    """The cost over the plane of the known animals' first two principal components, as a figure."""
    losses, directions = plane(cost, others, centre, points)
    shares = figures.principal_components(others)[1]
    return figures.loss_surface(centre, directions, losses, REACH, marks, shares)


def search(config: Config, cost: Cost, others: Tensor) -> Fit:
    """Find θ as the configuration says, from animals `(n, P)` if it starts from these."""
    parameters = others.shape[-1]
    starts = others
    if config.start == "sobol":
        starts = sobol(config.initial, parameters, config.seed)
    total = config.evaluations
    if config.search == "descent":
        total = len(starts) + 1 + 30
    with tqdm(total=total, desc=f"fitting θ of {config.animal}", unit="trial") as bar:

        def show(count: int, best: float) -> None:
            bar.n = count
            bar.set_postfix(nats=f"{best:.4f}")

        if config.search == "descent":
            return warm_descent(cost, starts, progress=show)
        return bayesian_search(cost, starts, config.evaluations, seed=config.seed, progress=show)


if __name__ == "__main__":
    for listener in run(fit_animals, Config):
        nats = listener["nats"]
        print(
            f"{listener['animal']}: θ = {[round(value, 3) for value in listener['theta']]}, "
            f"{nats['fit']:.4f} nats a bin and channel; the seen animals' mean costs "
            f"{nats['mean of the seen animals']:.4f}, {nats['name of the best']}, the best of "
            f"them, {nats['best seen animal']:.4f}"
        )
    print("how much of what repeats is predicted: recipes.score_ic with --fits")
