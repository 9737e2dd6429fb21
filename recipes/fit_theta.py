"""Fit θ of animals that the model was not trained on, from what they answered in their first hours.

`python -m recipes.fit_theta --cohort COHORT --model MODEL --out FOLDER`
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.channel_gains import Prior, adapted, broad
from icsim.clock import require_clock
from icsim.fitting import (
    Cost,
    Fit,
    bayesian_search,
    dense_search,
    descend,
    laplace,
    sobol,
    warm_descent,
)
from icsim.frames import Frames
from icsim.models.listener_cost import ListenerCost, listener_cost
from icsim.models.load import load_theta_model
from icsim.models.matching import rematch
from icsim.models.readouts import Categorical
from icsim.models.response import ResponseModel
from icsim.models.subjects import Subjects
from icsim.recording import ALIGNMENT, APART
from icsim.seeds import seeded
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes import figures
from recipes.ranges import (
    AtLeastOne,
    Count,
    CountOrZero,
    Hours,
    NotEmptyStr,
    Seconds,
    Seed,
    checked,
)
from recipes.state import begin, run, write_json


@dataclasses.dataclass(frozen=True)
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
    method: Literal["bayesian", "descent"] = "descent"
    """How θ is searched."""
    start: Literal["sobol", "animals"] = "animals"
    """Begin with well-spread points, or with the animals that the model knows."""
    initial: Count = 8
    """Sobol points to begin with."""
    evaluations: Count = 40
    """Evaluations of a Bayesian search."""
    within: AtLeastOne = 1.02
    """Ratio to the target, the best of a dense search, that counts as found."""
    dense: Count | None = None
    """Points of a dense search, which shows how good the fit is; none if not given."""
    first_hours: Hours = 2.0
    """Use what was heard in this time [h]."""
    seconds_a_sound: Seconds = 15.0
    """Use at most so much of each sound [s]."""
    seconds: Seconds = 30.0
    """Use at most so much in all [s]."""
    seed: Seed = 0
    """Of starts and of the choice of frames."""

    __post_init__ = checked


@dataclasses.dataclass(frozen=True)
class FittedListener:
    """What was fitted of one animal."""

    search: Fit
    """The search for θ, of channels as the model has them."""
    theta: Tensor
    """`(P,)`."""
    cost: ListenerCost
    """Of the channels as they were matched last."""
    matching: Tensor
    """Slots of the channels, `(C,)`."""
    prior: Prior
    """Of the channels' gains and offsets."""
    gains: Tensor | None
    """Gain and offsets of the channels that are not set apart, `(n, K)`; None without."""

    def all_gains(self) -> Tensor | None:
        """Gain and offsets of all channels, `(C, K)`; those set apart have the model's."""
        if self.gains is None:
            return None
        every = broad(self.gains.shape[1]).mean.repeat(len(self.matching), 1)
        every[self.matching != APART] = self.gains
        return every

    def profile(self, theta: Tensor) -> Tensor:
        """The cost of candidates `(n, P)`, with gains fitted for each if there are any."""
        if self.gains is None:
            return self.cost(theta)
        return self.cost.profile(theta, self.prior, self.gains)


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
    model, facts = load_theta_model(config.model)
    cohort = Cohort.open(config.cohort)
    require_clock(cohort.clock, model.clock, config.cohort)
    if config.channel_gains and not isinstance(model.readout, Categorical):
        raise ValueError(
            f"{config.model}: gains of channels belong to categorical counts, and its readout is "
            f"{model.config.readout.kind!r}; add --channel_gains false"
        )
    matching = stored_matching(cohort, config.animal, config.alignment, model)
    batch = first_frames(cohort, config, model.context_bins)
    known = model.listeners.at().detach()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    begin()
    started = time.monotonic()
    prior = facts.channel_prior or broad(model.config.readout.classes)
    fitted = fit_listener(model, batch, matching, config, prior)
    seconds = time.monotonic() - started
    search, cost = fitted.search, fitted.cost
    posterior = laplace(fitted.profile, fitted.theta, cost.observations)
    gains = fitted.all_gains()
    result = {
        "animal": config.animal,
        "model": fingerprint(config.model),
        "theta": fitted.theta.tolist(),
        "deviation": posterior.diagonal().sqrt().tolist(),
        "covariance": posterior.tolist(),
        "matching": fitted.matching.tolist(),
        "channel_gains": None if gains is None else gains.tolist(),
        "nats": baselines(fitted, known, facts.animals),
        "loss": search.loss,
        "evaluations": search.evaluations,
        "seconds": seconds,
        "course": search.course().tolist(),
        "method": f"{config.method} from {config.start}",
    }
    marks, landscape = {"fit": fitted.theta}, cost
    if fitted.gains is not None:
        marks["without gains"] = search.theta
        landscape = functools.partial(cost, gains=fitted.gains)
    if config.dense:
        target = dense_search(cost, known, config.dense, config.seed)
        reached = (search.course() <= config.within * target.loss).nonzero()
        result |= {
            "target_loss": target.loss,
            "loss_ratio": search.loss / target.loss,
            "target_theta": target.theta.tolist(),
            "evaluations_to_target": reached[0].item() + 1 if len(reached) else None,
        }
        course = figures.search_course({result["method"]: search.course()}, target.loss)
        course.savefig(out / f"{config.animal}-course.png", dpi=110)
    drawn = surface(landscape, known, fitted.theta, marks)
    drawn.savefig(out / f"{config.animal}-surface.png", dpi=110)
    write_json(out / f"{config.animal}.json", result)
    return result


def fit_listener(
    model: ResponseModel, batch: dict[str, Tensor], matching: Tensor, config: Config, prior: Prior
) -> FittedListener:
    """Find θ, match channels again in turns with it, and fit their gains beside it."""
    cost = _cost(model, batch, matching)
    fit = search(config, cost, model.listeners.at().detach())
    fitted = FittedListener(fit, fit.theta, cost, matching, prior, None)
    for _ in range(config.rounds):
        fitted = matched_again(model, batch, fitted)
    return with_channel_gains(fitted) if config.channel_gains else fitted


def matched_again(
    model: ResponseModel, batch: dict[str, Tensor], fitted: FittedListener
) -> FittedListener:
    """Match channels with the slots that predict them best for a fit, and fit on from there."""
    answers = batch["counts"][:, 0]
    subject = Subjects(theta=fitted.theta[None, None])
    matching = rematch(model, batch["sound"], answers, subject, fitted.matching)
    return with_matching(model, batch, fitted, matching)


def with_matching(
    model: ResponseModel, batch: dict[str, Tensor], fitted: FittedListener, matching: Tensor
) -> FittedListener:
    """Fit on from a fit with other slots of the channels, `(C,)`."""
    cost = _cost(model, batch, matching)
    theta = descend(cost, fitted.theta[None], 20).theta
    return dataclasses.replace(fitted, theta=theta, cost=cost, matching=matching)


def with_channel_gains(fitted: FittedListener, turns: int = 3) -> FittedListener:
    """Fit gains of channels and θ on, in turns, so that both are the most probable together."""
    cost, theta, prior, gains = fitted.cost, fitted.theta, fitted.prior, None
    for _ in range(turns):
        gains, uncertain = cost.fit_gains(theta, prior, gains)
        prior = adapted(fitted.prior, gains, uncertain)
        now = functools.partial(cost, gains=gains)
        theta = descend(now, theta[None], 15).theta
    gains, _ = cost.fit_gains(theta, prior, gains)
    return dataclasses.replace(fitted, theta=theta, prior=prior, gains=gains)


@torch.no_grad()
def baselines(
    fitted: FittedListener, known: Tensor, names: Sequence[str]
) -> dict[str, float | str]:
    """What the fit costs, beside listeners that need none; gains of channels are fitted for each.

    Args:
        fitted: The fit.
        known: θ of the seen animals, `(A, P)`.
        names: Theirs.

    Returns:
        Nats a bin and channel of the fit, of the seen animals' mean and of the best of them, and
        which it is.
    """
    mean, fit = known.mean(0, keepdim=True), fitted.theta[None]
    costs = fitted.profile(torch.cat([fit, mean, known])).tolist()
    best = min(range(len(names)), key=lambda place: costs[2 + place])
    return {
        "fit": costs[0],
        "mean of the seen animals": costs[1],
        "best seen animal": costs[2 + best],
        "name of the best": names[best],
    }


def _cost(model: ResponseModel, batch: dict[str, Tensor], matching: Tensor) -> ListenerCost:
    return listener_cost(model, batch["sound"], batch["counts"][:, 0], matching)


def stored_matching(cohort: Cohort, animal: str, alignment: str, model: ResponseModel) -> Tensor:
    """Slots of an animal's channels in a model, `(C,)`.

    Raises:
        ValueError: If the animal is not aligned, or not with this model's channels.
    """
    found = cohort.animal(animal).alignment(alignment)
    if found is None:
        raise ValueError(f"{animal} is not aligned as {alignment!r}: run recipes.align first")
    if found.slots != model.config.channels:
        raise ValueError(
            f"{animal} is aligned with {found.slots} channels, the model has "
            f"{model.config.channels}: align as before its training"
        )
    return found.matching


def first_frames(cohort: Cohort, config: Config, context_bins: int = 64) -> dict[str, Tensor]:
    """Some training frames that the animal heard early, evenly from all sounds.

    Args:
        cohort: Where they are.
        config: How much of them.
        context_bins: Of the model. Source of the default: arXiv 2506.03088.

    Raises:
        ValueError: If it heard nothing in that time.
    """
    frames = Frames(cohort, [config.animal], "train", context_bins, max_hours=config.first_hours)
    frame_s = frames.samples / cohort.clock.sample_rate_hz
    each, most = int(config.seconds_a_sound / frame_s), int(config.seconds / frame_s)
    taken: dict[int, int] = {}
    chosen = []
    for index in torch.randperm(len(frames), generator=seeded(config.seed)).tolist():
        sound = frames.sound_of(index)
        taken[sound] = taken.get(sound, 0) + 1
        if taken[sound] <= max(1, each):
            chosen.append(index)
    return frames.read(sorted(chosen[: max(1, most)]))


def surface(cost: Cost, known: Tensor, centre: Tensor, marks: dict[str, Tensor], points: int = 11):
    """The cost over the plane of the known animals' first two principal components, as a figure."""
    losses, directions = plane(cost, known, centre, points)
    shares = figures.principal_components(known)[1]
    return figures.loss_surface(centre, directions, losses, REACH, marks, shares)


REACH = 0.6
"""Half width of a loss surface, in units of θ."""


@torch.no_grad()
def plane(cost: Cost, known: Tensor, centre: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The cost on a grid, `(points, points)`, and the directions of its axes, `(2, P)`."""
    directions = torch.linalg.svd(known - known.mean(0), full_matrices=False)[2][:2]
    if len(directions) < 2:
        directions = torch.eye(max(2, known.shape[-1]))[:2, : known.shape[-1]]
    grid = torch.linspace(-REACH, REACH, points)
    second, first = torch.meshgrid(grid, grid, indexing="ij")
    candidates = torch.stack([first, second], -1).flatten(0, 1) @ directions + centre
    losses = torch.cat([cost(part.clamp(0, 1)) for part in candidates.split(8)])
    return losses.view(points, points), directions


def search(config: Config, cost: Cost, known: Tensor) -> Fit:
    """Find θ as the configuration says, from animals `(n, P)` if it starts from these."""
    parameters = known.shape[-1]
    starts = known
    if config.start == "sobol":
        starts = sobol(config.initial, parameters, config.seed)
    total = config.evaluations
    if config.method == "descent":
        total = len(starts) + 1 + 30
    with tqdm(total=total, desc=f"fitting θ of {config.animal}", unit="trial") as bar:

        def show(count: int, best: float) -> None:
            bar.n = count
            bar.set_postfix(nats=f"{best:.4f}")

        if config.method == "descent":
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
