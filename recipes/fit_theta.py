"""Fit θ of an animal that the model was not trained on, from what it answered in its first hours.

`python -m recipes.fit_theta --cohort COHORT --model MODEL --animal NAME --out FOLDER`
"""

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.conditional import BetaICNet, listener_cost
from icsim.fitting import Fit, bayesian_search, dense_search, descend, laplace, sobol
from icsim.frames import Frames
from icsim.icnet import CONTEXT_BINS
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE
from icsim.store import Cohort
from icsim.weights import load_network
from recipes import figures
from recipes.state import run, seeded, write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """One listener to find."""

    cohort: str
    """Where its responses are."""
    model: str
    """A trained BetaICNet."""
    animal: str
    """Its name; aligned before."""
    out: str
    """Folder for `<animal>.json` and figures."""
    method: Literal["bayesian", "descent"] = "bayesian"
    """How θ is searched."""
    start: Literal["sobol", "animals"] = "sobol"
    """Begin with well-spread points, or with the animals that the model knows."""
    initial: int = 8
    """Sobol points to begin with."""
    evaluations: int = 40
    """Evaluations of a Bayesian search."""
    within: float = 1.02
    """Ratio to the target, the best of a dense search, that counts as found."""
    dense: int = 1024
    """Points of the dense search."""
    first_hours: float = 2.0
    """Use what was heard in this time [h]."""
    seconds: float = 30.0
    """Use at most so much sound [s]."""
    seed: int = 0
    """Of starts and of the choice of frames."""


def fit_theta(config: Config) -> dict:
    """Search; write the fit as JSON and its course and loss surface as figures; return the JSON."""
    model, _ = load_network(config.model, BetaICNet)
    cohort = Cohort.open(config.cohort)
    if cohort.animal(config.animal).permutation is None:
        raise ValueError(f"{config.animal} is not aligned: run recipes.align first")
    batch = first_frames(cohort, config)
    cost = listener_cost(model, batch["sound"], batch["counts"][:, 0], CONTEXT_BINS)
    known = model.listeners.at().detach()
    target = dense_search(cost, known, config.dense, config.seed)
    fit = _search(config, cost, known, target.loss)
    reached = (fit.course() <= config.within * target.loss).nonzero()
    posterior = laplace(cost, fit.theta, batch["counts"].numel() / correlated_bins())
    result = {
        "animal": config.animal,
        "theta": fit.theta.tolist(),
        "deviation": posterior.diagonal().sqrt().tolist(),
        "covariance": posterior.tolist(),
        "loss": fit.loss,
        "target_loss": target.loss,
        "loss_ratio": fit.loss / target.loss,
        "target_theta": target.theta.tolist(),
        "evaluations": fit.evaluations,
        "evaluations_to_target": reached[0].item() + 1 if len(reached) else None,
        "course": fit.course().tolist(),
        "method": f"{config.method} from {config.start}",
    }
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    course = figures.search_course({result["method"]: fit.course()}, target.loss)
    course.savefig(out / f"{config.animal}-course.png", dpi=110)
    surface(cost, known, fit, target).savefig(out / f"{config.animal}-surface.png", dpi=110)
    write_json(out / f"{config.animal}.json", result)
    return result


def first_frames(cohort: Cohort, config: Config) -> dict[str, Tensor]:
    """Some training frames that the animal heard early, evenly from all sounds.

    Raises:
        ValueError: If it heard nothing in that time.
    """
    frames = Frames(cohort, [config.animal], "train", max_hours=config.first_hours)
    most = max(1, int(config.seconds * SAMPLE_RATE / frames.samples))
    chosen = torch.randperm(len(frames), generator=seeded(config.seed))[:most]
    return frames.read(sorted(chosen.tolist()))


def correlated_bins() -> float:
    """Bins that count as one observation: predictions err in runs, not bin by bin.

    Chosen here: 20 ms, so that a posterior is not narrower than repeated fits are spread.
    """
    return 0.020 * SAMPLE_RATE / BIN_SAMPLES


def surface(cost, known: Tensor, fit: Fit, target: Fit, points: int = 17):
    """The cost over the plane of the known animals' first two principal components, as a figure."""
    centre = fit.theta
    directions = torch.linalg.svd(known - known.mean(0), full_matrices=False)[2][:2]
    if len(directions) < 2:
        directions = torch.eye(known.shape[-1])[:2]
    grid = torch.linspace(-0.6, 0.6, points)
    second, first = torch.meshgrid(grid, grid, indexing="ij")
    plane = torch.stack([first, second], -1).flatten(0, 1) @ directions + centre
    with torch.no_grad():
        losses = torch.cat([cost(part.clamp(0, 1)) for part in plane.split(32)])
    marks = {"fit": fit.theta, "dense search": target.theta}
    return figures.loss_surface(centre, directions, losses.view(points, points), 0.6, marks)


def _search(config: Config, cost, known: Tensor, target: float) -> Fit:
    parameters = known.shape[-1]
    starts = sobol(config.initial, parameters, config.seed) if config.start == "sobol" else known
    if config.method == "descent":
        return descend(cost, starts)
    with tqdm(total=config.evaluations, desc=f"fitting θ of {config.animal}", unit="trial") as bar:

        def show(count: int, best: float) -> None:
            bar.n = count
            bar.set_postfix(nats=f"{best:.4f}", target=f"{config.within * target:.4f}")

        return bayesian_search(cost, starts, config.evaluations, seed=config.seed, progress=show)


if __name__ == "__main__":
    found = run(fit_theta, Config)
    print(f"θ = {[round(value, 3) for value in found['theta']]}, {found['loss']:.4f} nats")
