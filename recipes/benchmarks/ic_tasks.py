"""The pieces of the benchmark: each reads files and writes others."""

import dataclasses
import time
from pathlib import Path

import torch
from torch import Tensor

from icsim.alignment import octave_error, permutation
from icsim.channel_gains import broad
from icsim.cohort_alignment import reference_brains, slot_places
from icsim.files import write_json
from icsim.fitting import Cost, bayesian_search, dense_search, descend, sobol, warm_descent
from icsim.frames import Frames
from icsim.models.facts import ModelFacts
from icsim.models.listener_cost import listener_cost
from icsim.models.listener_fit import (
    FittedListener,
    first_frames,
    fit_listener,
    matched_again,
    plane,
    stored_matching,
    with_channel_gains,
    with_matching,
)
from icsim.models.load import load_model, load_theta_model
from icsim.models.matching import channel_costs
from icsim.models.response import ResponseModel
from icsim.models.scoring import Latents, Listener, encode, score_animal
from icsim.models.subjects import Subjects
from icsim.recording import ALIGNMENT, APART
from icsim.store import Cohort
from icsim.theta import movement
from recipes import score_ic
from recipes.reports.ic.results import (
    ALIGNED,
    BEST,
    GAINS,
    MATCHED,
    MATCHED_GAINS,
)


@dataclasses.dataclass(frozen=True)
class Score:
    """Score a model on every animal that it was trained on, and by thresholds on unseen ones."""

    cohort: str
    model: str
    out: str


@dataclasses.dataclass(frozen=True)
class NewListeners:
    """Fit and score all unseen animals."""

    cohort: str
    model: str
    alignment: str
    out: str
    """Folder of `<animal>.json`."""
    seconds: float
    every_way: bool = True
    """Not only as aligned, but also with gains of channels, matched to the model (no
    permutation), and matched as is best for validation sounds."""


@dataclasses.dataclass(frozen=True)
class Searches:
    """Compare the ways of searching θ on one unseen animal."""

    cohort: str
    model: str
    animal: str
    out: str
    seconds: float
    dense: int


def score(job: Score) -> None:
    """Rows of FEVE and KL by animal."""
    model, facts = load_model(job.model)
    cohort = Cohort.open(job.cohort)
    latents = encode(model, cohort)
    rows = {}
    for name in cohort.animals():
        listener = score_ic.find_listener(model, facts, cohort, name)
        if listener is not None:
            rows[name] = score_animal(model, facts, cohort, name, listener, latents)
    learned: dict = {}
    if facts.start is not None:
        now = dataclasses.replace(facts, start=model.condition.learned())
        learned = {
            "animals": facts.animals,
            "theta": model.listeners.at().tolist(),
            "start": facts.to_json()["start"],
            "now": now.to_json()["start"],
            "movement": movement(model.listeners, facts.start),
        }
    _write(job.out, {"rows": rows, "listeners": learned})


def new_listeners(job: NewListeners) -> None:
    """For each unseen animal its rows, θ and octave error by way of matching."""
    model, facts = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    latents = encode(model, cohort)
    for animal in cohort.animals("unseen"):
        path = Path(job.out) / f"{animal}.json"
        if not path.is_file():
            _write(path, _new_listener(job, model, facts, cohort, animal, latents))


def _new_listener(
    job: NewListeners,
    model: ResponseModel,
    facts: ModelFacts,
    cohort: Cohort,
    animal: str,
    latents: Latents,
) -> dict:
    batch = first_frames(cohort, animal, model.context_bins, seconds=job.seconds)
    stored = stored_matching(cohort, animal, job.alignment, model)
    prior = facts.channel_prior or broad(model.config.readout.classes)
    method = "permutation" if job.alignment == "permutation" else "template"
    references = reference_brains(cohort, method)
    slots_hz = 2 ** slot_places(cohort, references, job.alignment)[:, 0]
    own_hz, ways = torch.tensor(cohort.truth(animal)["cf_hz"]), {}

    def note(way: str, fitted: FittedListener, seconds: float) -> None:
        matching = fitted.matching
        listener = Listener(matching, theta=fitted.theta, gains=fitted.all_gains())
        kept = (matching != APART) & slots_hz[matching.clamp(min=0)].isfinite()
        ways[way] = {
            "rows": score_animal(model, facts, cohort, animal, listener, latents),
            "theta": fitted.theta.tolist(),
            "loss": fitted.profile(fitted.theta[None]).item(),
            "seconds": seconds,
            "octaves": octave_error(slots_hz[matching[kept]], own_hz[kept]),
        }

    started = time.monotonic()
    aligned = fit_listener(model, batch, stored, prior, warm_descent, channel_gains=False)
    aligned_seconds = before = time.monotonic() - started
    note(ALIGNED, aligned, before)
    if not job.every_way:
        return ways
    started = time.monotonic()
    gained = with_channel_gains(aligned)
    note(GAINS, gained, before + time.monotonic() - started)
    if job.alignment == ALIGNMENT:
        started = time.monotonic()
        again = matched_again(model, batch, aligned)
        before += time.monotonic() - started
        note(MATCHED, again, before)
        started = time.monotonic()
        both = with_channel_gains(again)
        note(MATCHED_GAINS, both, before + time.monotonic() - started)
    started, best = time.monotonic(), aligned
    for _ in range(2):
        matching = best_matching(model, cohort, animal, best.theta, stored, job.alignment)
        best = with_matching(model, batch, best, matching)
    note(BEST, best, aligned_seconds + time.monotonic() - started)
    return ways


def best_matching(
    model: ResponseModel,
    cohort: Cohort,
    animal: str,
    theta: Tensor,
    stored: Tensor,
    alignment: str = ALIGNMENT,
) -> Tensor:
    """The slots that predict an animal's answers to all validation sounds best, for one θ.

    No alignment knows as much: validation sounds are of other sources than those it aligns by, and
    were heard until the recording's end. Test sounds are not asked.

    Args:
        model: Whose channels they are.
        cohort: Where the answers are.
        animal: Whose.
        theta: `(P,)`.
        stored: Slots of its channels, of which those set apart stay so, `(C,)`.
        alignment: Its name; a permutation stays one.

    Returns:
        `(C,)`.
    """
    frames = Frames(cohort, [animal], "validation", model.context_bins)
    subject = Subjects(theta=theta[None, None])
    cost: float | Tensor = 0.0
    for turn in range(frames.repeats):
        frames.epoch = turn
        batch = frames.read(range(len(frames)))
        cost = cost + channel_costs(model, batch["sound"], batch["counts"][:, 0], subject)
    kept, matching = stored != APART, stored.clone()
    one_to_one = alignment == "permutation"
    matching[kept] = permutation(cost[kept]) if one_to_one else cost[kept].argmin(1)
    return matching


def searches(job: Searches) -> None:
    """For each way of searching its course, seconds, and where it got to the target."""
    model, _ = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    batch = first_frames(cohort, job.animal, model.context_bins, seconds=job.seconds)
    matching = stored_matching(cohort, job.animal, ALIGNMENT, model)
    cost = listener_cost(model, batch["sound"], batch["counts"][:, 0], matching)
    known = model.listeners.at().detach()
    target = dense_search(cost, known, job.dense)
    ways = {}
    for name, search in _ways(known, cost).items():
        started = time.monotonic()
        fit = search()
        ways[name] = {
            "course": fit.course().tolist(),
            "theta": fit.theta.tolist(),
            "seconds": time.monotonic() - started,
        }
    surface, directions = plane(cost, known, target.theta, 15)
    with torch.no_grad():
        middle = cost(torch.full((1, known.shape[1]), 0.5)).item()
    result = {
        "target": target.loss,
        "target_theta": target.theta.tolist(),
        "middle": middle,
        "ways": ways,
        "surface": surface.tolist(),
        "directions": directions.tolist(),
    }
    _write(job.out, result)


def _ways(known: Tensor, cost: Cost) -> dict:
    """The ways of searching θ, each within 40 evaluations (descent from Sobol points: 160)."""
    parameters = known.shape[1]
    warm = torch.cat([known.mean(0, keepdim=True), known])

    def bayesian(starts: Tensor):
        return lambda: bayesian_search(cost, starts, 40)

    return {
        **{f"Bayesian, {n} Sobol points": bayesian(sobol(n, parameters, 0)) for n in (4, 8, 16)},
        "Bayesian from the animals": bayesian(warm),
        "descent from 4 Sobol points": lambda: descend(cost, sobol(4, parameters, 0), 40),
        "descent from the animals' mean": lambda: descend(cost, warm[:1], 40, 0.3),
        "descent from the best animal": lambda: warm_descent(cost, known),
    }


def _write(path: str | Path, content) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(path), content)
