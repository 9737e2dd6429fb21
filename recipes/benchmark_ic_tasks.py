"""The pieces of the benchmark: each reads files, writes one, and is done when that is there."""

import dataclasses
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from icsim.conditional import ABRNet, BetaICNet, listener_cost
from icsim.fitting import Cost, bayesian_search, dense_search, descend, sobol, warm_descent
from icsim.icnet import CONTEXT_BINS
from icsim.recording import ALIGNMENT, APART
from icsim.store import Cohort
from recipes import align, fit_theta, networks, score_ic, train_ic
from recipes.state import write_json

NOT_FITTED = ("beta-3", "own-drift", "no-threshold-penalty", "from-scratch", "beta-1", "beta-2")
"""Networks that are judged on the animals they were trained on alone."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Score a network on every animal that it was trained on, and ABRNet on unseen ones too."""

    cohort: str
    model: str
    out: str


@dataclasses.dataclass(frozen=True)
class NewListener:
    """Fit an unseen animal and score it: as aligned, matched with the model, and by the truth."""

    cohort: str
    model: str
    animal: str
    alignment: str
    out: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Searches:
    """Compare the ways of searching θ on one unseen animal."""

    cohort: str
    model: str
    animal: str
    out: str
    seconds: float
    dense: int


def is_done(job) -> bool:
    """Whether a job's result is there."""
    return _done(job).is_file()


def note_seconds(job, seconds: float) -> None:
    """Keep how long a job took beside its result: of its last run, where it was interrupted."""
    path = _done(job)
    if not isinstance(job, train_ic.Config):
        path = path.with_suffix(".seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"seconds": seconds})


def train(config: train_ic.Config) -> None:
    """Train one network."""
    train_ic.train(config)


def score(job: Score) -> None:
    """Rows of FEVE and KL by animal."""
    network, facts = networks.load(job.model)
    known = networks.known_brains(facts)
    cohort = Cohort.open(job.cohort)
    latents = score_ic.encode(network, cohort)
    rows = {}
    for name in cohort.animals():
        if name in known.names:
            place = known.names.index(name)
            listener = score_ic.Listener(known.matching[place], place)
        elif isinstance(network, ABRNet):
            animal = cohort.animal(name)
            matching = animal.alignment(ALIGNMENT).matching
            listener = score_ic.Listener(matching, condition=animal.thresholds_db_spl.float())
        else:
            continue
        rows[name] = score_ic.score_animal(network, known, cohort, name, listener, latents)
    learned = {}
    if isinstance(network, BetaICNet):
        learned = {
            "theta": network.listeners.at().tolist(),
            "deviation": network.listeners.deviation.tolist(),
            "animals": known.names,
        }
    _write(job.out, {"rows": rows, "listeners": learned})


def new_listener(job: NewListener) -> None:
    """Rows, θ and octave error by kind of matching."""
    network, facts = networks.load(job.model)
    known = networks.known_brains(facts)
    cohort = Cohort.open(job.cohort)
    latents = score_ic.encode(network, cohort)
    config = fit_theta.Config(
        job.cohort, job.model, job.animal, "", alignment=job.alignment, seconds=job.seconds
    )
    batch = fit_theta.first_frames(cohort, config)
    stored = fit_theta.stored_matching(cohort, job.animal, job.alignment, network)
    true, slots = oracle(cohort, job.animal, job.alignment, stored)
    ways = {"aligned": (stored, 0), "oracle": (true, 0)}
    if job.alignment == ALIGNMENT:
        ways["matched to the model"] = (stored, 1)
    found = {}
    own = torch.tensor(cohort.truth(job.animal)["cf_hz"])
    for way, (matching, rounds) in ways.items():
        started = time.monotonic()
        turns = dataclasses.replace(config, rounds=rounds)
        fit, _, matched = fit_theta.fit_listener(network, batch, matching, turns)
        seconds = time.monotonic() - started
        listener = score_ic.Listener(matched, condition=fit.theta)
        kept = (matched != APART) & slots[matched.clamp(min=0)].isfinite()
        error = align.octave_error(slots[matched[kept]], own[kept])
        found[way] = {
            "rows": score_ic.score_animal(network, known, cohort, job.animal, listener, latents),
            "theta": fit.theta.tolist(),
            "loss": fit.loss,
            "seconds": seconds,
            "octaves": error,
        }
    _write(job.out, found)


def searches(job: Searches) -> None:
    """For each way of searching its course, seconds, and where it got to the target."""
    network, _ = networks.load(job.model)
    cohort = Cohort.open(job.cohort)
    config = fit_theta.Config(job.cohort, job.model, job.animal, "", seconds=job.seconds)
    batch = fit_theta.first_frames(cohort, config)
    matching = fit_theta.stored_matching(cohort, job.animal, ALIGNMENT, network)
    cost = listener_cost(network, batch["sound"], batch["counts"][:, 0], CONTEXT_BINS, matching)
    known = network.listeners.at().detach()
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
    surface, directions = fit_theta.plane(cost, known, target.theta, 15)
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


def oracle(cohort: Cohort, name: str, alignment: str, stored: Tensor) -> tuple[Tensor, Tensor]:
    """The best matching that the simulated animals' true maps allow, and each slot's frequency.

    A slot is known by the reference brain's channel that it was made of. A permutation stays one.

    Returns:
        Slots `(C,)`, channels set apart as in `stored`, and true frequencies of slots [Hz].
    """
    method = "permutation" if alignment == "permutation" else "template"
    config = align.Config(cohort.path, method=method, name=alignment)
    places = align.slot_places(cohort, config)
    truth = cohort.truth(name)
    own = align.place_on_map(
        torch.tensor(truth["cf_hz"]), torch.tensor(truth["best_modulation_hz"])
    )
    distance = torch.cdist(places.nan_to_num(1e3), own)
    one_to_one = method == "permutation"
    found = align.permutation(distance).argsort() if one_to_one else distance.argmin(0)
    return found.where(stored != APART, APART), 2 ** places[:, 0]


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


def _done(job) -> Path:
    if isinstance(job, train_ic.Config):
        return Path(job.out) / "finished.json"
    return Path(job.out)


def _write(path: str, content: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(path), json.loads(json.dumps(content)))
