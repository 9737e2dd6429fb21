"""Fit θ of an animal that the model was not trained on, from what it answered in its first hours.

`python -m recipes.fit_theta --cohort COHORT --model MODEL --animal NAME --out FOLDER`
"""

import dataclasses
import time
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.conditional import BetaICNet, listener_cost
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
from icsim.icnet import CONTEXT_BINS
from icsim.recording import ALIGNMENT
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE
from icsim.store import Cohort
from icsim.weights import fingerprint, load_network
from recipes import figures, networks
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
from recipes.state import begin, run, seeded, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """One listener to find."""

    cohort: NotEmptyStr
    """Where its responses are."""
    model: NotEmptyStr
    """A trained BetaICNet."""
    animal: NotEmptyStr
    """Its name; aligned before."""
    out: NotEmptyStr
    """Folder for `<animal>.json` and figures."""
    alignment: NotEmptyStr = ALIGNMENT
    """The alignment that the model was trained with."""
    rounds: CountOrZero = 0
    """How often channels are matched again, with what the model says of the listener found, and
    the listener is fitted again. It predicts better, but what a loss did to the channels is then
    said by their places as much as by θ."""
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


def fit_theta(config: Config) -> dict:
    """Search; write the fit as JSON and its course and loss surface as figures; return the JSON."""
    model, _ = load_network(config.model, BetaICNet)
    cohort = Cohort.open(config.cohort)
    matching = stored_matching(cohort, config.animal, config.alignment, model)
    batch = first_frames(cohort, config)
    known = model.listeners.at().detach()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    begin()
    started = time.monotonic()
    fit, cost, matching = fit_listener(model, batch, matching, config)
    seconds = time.monotonic() - started
    observations = batch["counts"].numel() / correlated_bins()
    posterior = laplace(cost, fit.theta, observations)
    result = {
        "animal": config.animal,
        "model": fingerprint(config.model),
        "theta": fit.theta.tolist(),
        "deviation": posterior.diagonal().sqrt().tolist(),
        "covariance": posterior.tolist(),
        "matching": matching.tolist(),
        "loss": fit.loss,
        "evaluations": fit.evaluations,
        "seconds": seconds,
        "course": fit.course().tolist(),
        "method": f"{config.method} from {config.start}",
    }
    marks = {"fit": fit.theta}
    if config.dense:
        target = dense_search(cost, known, config.dense, config.seed)
        marks["dense search"] = target.theta
        reached = (fit.course() <= config.within * target.loss).nonzero()
        result |= {
            "target_loss": target.loss,
            "loss_ratio": fit.loss / target.loss,
            "target_theta": target.theta.tolist(),
            "evaluations_to_target": reached[0].item() + 1 if len(reached) else None,
        }
        course = figures.search_course({result["method"]: fit.course()}, target.loss)
        course.savefig(out / f"{config.animal}-course.png", dpi=110)
    surface(cost, known, fit.theta, marks).savefig(out / f"{config.animal}-surface.png", dpi=110)
    write_json(out / f"{config.animal}.json", result)
    return result


def fit_listener(
    model: BetaICNet, batch: dict[str, Tensor], matching: Tensor, config: Config
) -> tuple[Fit, Cost, Tensor]:
    """Find θ, and match channels again for the listener found, in turns.

    Returns:
        The fit, the cost with the final matching, and that matching.
    """
    cost = _cost(model, batch, matching)
    fit = search(config, cost, model.listeners.at().detach())
    for _ in range(config.rounds):
        fit, cost, matching = matched_again(model, batch, fit, matching)
    return fit, cost, matching


def matched_again(
    model: BetaICNet, batch: dict[str, Tensor], fit: Fit, matching: Tensor
) -> tuple[Fit, Cost, Tensor]:
    """Match channels with the slots that predict them best for a fit, and fit on from there."""
    answers = batch["counts"][:, 0]
    matching = networks.rematch(model, batch["sound"], answers, fit.theta, matching)
    cost = _cost(model, batch, matching)
    return descend(cost, fit.theta[None], 20), cost, matching


def _cost(model: BetaICNet, batch: dict[str, Tensor], matching: Tensor) -> Cost:
    return listener_cost(model, batch["sound"], batch["counts"][:, 0], CONTEXT_BINS, matching)


def stored_matching(cohort: Cohort, animal: str, alignment: str, model: BetaICNet) -> Tensor:
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


def first_frames(cohort: Cohort, config: Config) -> dict[str, Tensor]:
    """Some training frames that the animal heard early, evenly from all sounds.

    Raises:
        ValueError: If it heard nothing in that time.
    """
    frames = Frames(cohort, [config.animal], "train", max_hours=config.first_hours)
    frame_s = frames.samples / SAMPLE_RATE
    each, most = int(config.seconds_a_sound / frame_s), int(config.seconds / frame_s)
    taken: dict[int, int] = {}
    chosen = []
    for index in torch.randperm(len(frames), generator=seeded(config.seed)).tolist():
        sound = frames.sound_of(index)
        taken[sound] = taken.get(sound, 0) + 1
        if taken[sound] <= max(1, each):
            chosen.append(index)
    return frames.read(sorted(chosen[: max(1, most)]))


def correlated_bins() -> float:
    """Bins that count as one observation: predictions err in runs, not bin by bin.

    Chosen here: 20 ms, so that a posterior is not narrower than repeated fits are spread.
    """
    return 0.020 * SAMPLE_RATE / BIN_SAMPLES


def surface(cost: Cost, known: Tensor, centre: Tensor, marks: dict[str, Tensor], points: int = 17):
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
    if config.method == "descent":
        return warm_descent(cost, starts)
    with tqdm(total=config.evaluations, desc=f"fitting θ of {config.animal}", unit="trial") as bar:

        def show(count: int, best: float) -> None:
            bar.n = count
            bar.set_postfix(nats=f"{best:.4f}")

        return bayesian_search(cost, starts, config.evaluations, seed=config.seed, progress=show)


if __name__ == "__main__":
    found = run(fit_theta, Config)
    print(f"θ = {[round(value, 3) for value in found['theta']]}, {found['loss']:.4f} nats")
