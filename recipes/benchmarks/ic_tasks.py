"""The pieces of the benchmark of the model: each reads files and writes a tidy table."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from evaluation.tidy import complete
from icsim.alignment import octave_error, permutation
from icsim.channel_gains import broad
from icsim.cohort_alignment import Method, octave_errors, reference_brains, slot_places
from icsim.files import write_whole
from icsim.fitting import Cost, Fit, bayesian_search, dense_search, descend, sobol, warm_descent
from icsim.frames import Frames, recording_pairs
from icsim.metrics import expected_counts
from icsim.models.conditions import Theta
from icsim.models.facts import ModelFacts
from icsim.models.listener_cost import listener_cost
from icsim.models.listener_fit import (
    FittedListener,
    first_frames,
    fit_gains_alone,
    fit_listener,
    matched_again,
    plane,
    stored_matching,
    with_matching,
)
from icsim.models.load import load_model, load_theta_model
from icsim.models.matching import channel_costs
from icsim.models.response import ResponseModel
from icsim.models.response_space import candidates, response_space, search_responses
from icsim.models.scoring import Latents, Listener, encode, expect, score_animal
from icsim.models.subjects import Subjects
from icsim.recording import ALIGNMENT, UNMATCHED
from icsim.simulation.animal import animal_from
from icsim.simulation.hearing import FREQUENCIES_HZ
from icsim.store import Cohort
from icsim.theta import movement
from recipes import score_ic
from recipes.reports.ic_figures import FITTED

COLUMNS = (*("listener", "group", "role", "device", "way", "sound", "kind", "measure", "value"),)
"""Of the tables: `device` is a network, `way` how an unseen animal was fitted to it or θ searched,
and `sound` a dimension or a name where a measure is of no sound."""

ALONE, STEADY, MEAN = "no gains", "no drift", "mean listener"
"""Less than is fitted (`FITTED`): θ of the first two hours or thresholds alone, as published; one θ
for the whole recording; and the mean of the seen animals with gains of channels, which says what
these do without θ."""

MATCHED, BEST = "matched to the model", "best for validation sounds"
"""More than that: channels matched to what the model answers for the fit (not where they were
permuted), and, as a bound, as predicts the answers to all validation sounds best."""


RESPONSES, SLOPES = "Bayesian among responses", "among responses, with slopes"
"""Ways of searching θ in the space of what listeners answer."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Score a model on every animal that it was trained on, and by thresholds on unseen ones."""

    cohort: str
    model: str
    device: str
    """What rows call it."""
    out: str
    fit_seconds: float
    """Of sound from which unseen animals get gains of channels, beside their thresholds [s]."""


@dataclasses.dataclass(frozen=True)
class NewListeners:
    """Fit and score all unseen animals."""

    cohort: str
    model: str
    device: str
    alignment: str
    out: str
    """Folder of `<animal>.csv`."""
    seconds: float
    ways: tuple[str, ...] = ()
    """With less and with more than is fitted."""


@dataclasses.dataclass(frozen=True)
class Searches:
    """Compare the ways of searching θ on one unseen animal."""

    cohort: str
    model: str
    device: str
    animal: str
    out: str
    seconds: float
    dense: int


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is true of the animals, and how far their channels were matched from it."""

    cohort: str
    references: dict[Method, str]
    """Names of alignments, by method."""
    out: str


@dataclasses.dataclass(frozen=True)
class Example:
    """Speech as one animal answered it, and as networks predict it."""

    cohort: str
    animal: str
    models: dict[str, str]
    """Checkpoints by title."""
    out: str


def truth(job: Truth) -> None:
    """Rows of losses, thresholds, places of electrodes, and errors of alignments."""
    cohort = Cohort.open(job.cohort)
    tables = []
    for name in cohort.animals():
        animal, true = animal_columns(cohort, name), cohort.truth(name)
        tables.append(number_rows("truth", _losses(true), **animal))
        if "twin_of" in true:
            tables.append(number_rows("twin", {true["twin_of"]: 1.0}, **animal))
        levels = cohort.animal(name).thresholds_db_spl
        if levels is not None:
            by_place = dict(enumerate(levels.tolist(), 1))
            tables.append(number_rows("threshold_db_spl", by_place, **animal))
    for method, alignment in job.references.items():
        errors = octave_errors(cohort, reference_brains(cohort, method), alignment)
        for when, by_animal in errors.items():
            for name, octaves in by_animal.items():
                measure = f"octaves_{when.split()[0]}"
                tables.append(
                    number_rows(measure, {"": octaves}, way=method, **animal_columns(cohort, name))
                )
        for name in cohort.animals():
            aligned = cohort.animal(name).alignment(alignment)
            if aligned is not None:
                apart = int((aligned.matching == UNMATCHED).sum())
                animal = animal_columns(cohort, name)
                tables.append(number_rows("apart", {"": apart}, way=method, **animal))
    write_rows(job.out, tables)


def score(job: Score) -> None:
    """Rows of scores by animal and sound, and of what was learned of listeners."""
    model, facts = load_model(job.model)
    cohort = Cohort.open(job.cohort)
    latents = encode(model, cohort)
    tables = []
    for name in cohort.animals():
        listener = score_ic.find_listener(model, facts, cohort, name)
        if listener is None:
            continue
        ways = {"": listener}
        if listener.place is None:
            batch = first_frames(cohort, name, model.context_bins, seconds=job.fit_seconds)
            subject = listener.subjects(facts, torch.zeros(1))
            prior = broad(model.config.readout.classes)
            gains = fit_gains_alone(model, batch, listener.matching, subject, prior)
            ways = {ALONE: listener, FITTED: dataclasses.replace(listener, gains=gains)}
        for way, one in ways.items():
            rows = score_animal(model, facts, cohort, name, one, latents)
            tables.append(_scores(rows, way=way, **animal_columns(cohort, name)))
    if facts.start is not None and isinstance(model.condition, Theta):
        learned = model.condition.listeners
        tables.append(number_rows("movement", movement(learned, facts.start)))
        now = model.condition.learned()
        for place, name in enumerate(facts.animals):
            animal = animal_columns(cohort, name)
            theta = dict(enumerate(learned.at()[place].tolist(), 1))
            tables.append(number_rows("theta", theta, **animal))
            for when, values in (("start", facts.start), ("now", now)):
                for part, value in values.items():
                    # The time transfer of all animals is one, or each has its own.
                    row = value[place if len(value) == len(facts.animals) else 0]
                    by_place = dict(enumerate(row.flatten().tolist(), 1))
                    tables.append(number_rows(f"{part}_{when}", by_place, **animal))
    write_rows(job.out, [table.assign(device=job.device) for table in tables])


def new_listeners(job: NewListeners) -> None:
    """For each unseen animal its rows, θ and octave error by way of matching."""
    model, facts = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    latents = encode(model, cohort)
    for animal in cohort.animals("unseen"):
        path = Path(job.out) / f"{animal}.csv"
        if not path.is_file():
            write_rows(path, _new_listener(job, model, facts, cohort, animal, latents))


def _new_listener(
    job: NewListeners,
    model: ResponseModel,
    facts: ModelFacts,
    cohort: Cohort,
    animal: str,
    latents: Latents,
) -> list[pd.DataFrame]:
    """Tables of one animal, by every way that its channels can be matched."""
    batch = first_frames(cohort, animal, model.context_bins, seconds=job.seconds)
    stored = stored_matching(cohort, animal, job.alignment, model)
    prior = facts.channel_prior or broad(model.config.readout.classes)
    method: Method = "permutation" if job.alignment == "permutation" else "template"
    references = reference_brains(cohort, method)
    slots_hz = 2 ** slot_places(cohort, references, job.alignment)[:, 0]
    true_hz = torch.tensor(cohort.truth(animal)["cf_hz"])
    tables = []

    def note(way: str, listener: Listener, fit: dict[str, float]) -> None:
        matching = listener.matching
        matched = (matching != UNMATCHED) & slots_hz[matching.clamp(min=0)].isfinite()
        columns = animal_columns(cohort, animal) | {"device": job.device, "way": way}
        rows = score_animal(model, facts, cohort, animal, listener, latents)
        fit |= {"octaves": octave_error(slots_hz[matching[matched]], true_hz[matched])}
        tables.append(_scores(rows, **columns))
        tables.append(number_rows("fit", fit, **columns))
        if way != MEAN and listener.theta is not None:
            theta = dict(enumerate(listener.theta.tolist(), 1))
            tables.append(number_rows("theta", theta, **columns))

    def timed(way: str, fit: Callable[[], FittedListener]) -> FittedListener:
        started = time.monotonic()
        fitted = fit()
        posterior = fitted.posterior
        numbers = {
            "cost": fitted.costs(posterior.mean[None]).item(),
            "evaluations": len(posterior.course),
            "seconds": time.monotonic() - started,
        }
        note(way, as_fitted(fitted, drift=way not in (ALONE, STEADY)), numbers)
        return fitted

    usual = timed(FITTED, lambda: fit_listener(model, batch, stored, prior))
    if ALONE in job.ways:
        early = first_frames(cohort, animal, model.context_bins, 2.0, job.seconds)
        timed(ALONE, lambda: fit_listener(model, early, stored, prior, channel_gains=False))
    if STEADY in job.ways:
        timed(STEADY, lambda: fit_listener(model, batch, stored, prior, drift=False))
    if MEAN in job.ways:
        listeners = usual.posterior.prior
        mean = Subjects(theta=listeners.theta(listeners.mean[None], usual.hours))
        gains = fit_gains_alone(model, batch, stored, mean, prior)
        drift = listeners.drift(listeners.mean)
        theta = listeners.theta(listeners.mean[None], torch.zeros(1))[0, 0]
        note(MEAN, Listener(stored, None, theta, None, gains, drift), {})
    if MATCHED in job.ways and job.alignment == ALIGNMENT:
        timed(MATCHED, lambda: matched_again(model, batch, usual))

    def best() -> FittedListener:
        fitted = usual
        for _ in range(2):
            theta = fitted.theta
            matching = best_matching(model, cohort, animal, theta, stored, job.alignment)
            fitted = with_matching(model, batch, fitted, matching)
        return fitted

    if BEST in job.ways:
        timed(BEST, best)
    return tables


def as_fitted(fitted: FittedListener, drift: bool = True) -> Listener:
    """An animal as it was fitted, with its drift or as it was in the beginning."""
    moving = fitted.posterior.drift() if drift else None
    return Listener(fitted.matching, None, fitted.theta, None, fitted.all_gains(), moving)


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
    cost = torch.zeros(())
    for turn in range(frames.repeats):
        frames.epoch = turn
        batch = frames.read(range(len(frames)))
        cost = cost + channel_costs(model, batch["sound"], batch["counts"][:, 0], subject)
    matched, matching = stored != UNMATCHED, stored.clone()
    one_to_one = alignment == "permutation"
    matching[matched] = permutation(cost[matched]) if one_to_one else cost[matched].argmin(1)
    return matching


def searches(job: Searches) -> None:
    """For each way of searching when it reached the target, by either rule, and where it ended.

    Usual: within 2 % of the target, as published. Strict: within 2 % of the way to it from the
    middle of the box, as most of a cost is noise that no θ explains.
    """
    model, _ = load_theta_model(job.model)
    cohort = Cohort.open(job.cohort)
    batch = first_frames(cohort, job.animal, model.context_bins, seconds=job.seconds)
    matching = stored_matching(cohort, job.animal, ALIGNMENT, model)
    cost = listener_cost(model, batch["sound"], batch["counts"][:, 0], matching)
    listeners = model.listeners
    animals = listeners.at().detach()
    dense = dense_search(cost, animals, job.dense)
    middle = cost(torch.full((1, animals.shape[1]), 0.5)).item()
    started, fits, seconds = time.monotonic(), {}, {}
    for way, search in _ways(model, cost, batch["sound"]).items():
        fits[way] = search()
        seconds[way], started = time.monotonic() - started, time.monotonic()
    # No search is held against less than another one reached.
    target = min([dense, *fits.values()], key=lambda fit: fit.loss)
    surface, directions = plane(cost, animals, target.theta, 15)
    usual, strict = reached_below(target.loss, middle)
    # Costs of the plane, row by row, and places in it.
    flat = dict(enumerate((surface / target.loss - 1).flatten().tolist()))
    tables = [
        number_rows("search", {"target": target.loss, "middle": middle}),
        number_rows("surface", flat),
    ]
    for way, fit in fits.items():
        course = fit.course().tolist()
        place = (directions @ (fit.theta - target.theta)).tolist()
        numbers = {
            "seconds": seconds[way],
            "most": len(course),
            "evaluations": first_reached(course, usual),
            "strict_evaluations": first_reached(course, strict),
            **dict(zip(("first", "second"), place, strict=True)),
        }
        tables.append(number_rows("search", numbers, way=way))
    columns = animal_columns(cohort, job.animal) | {"device": job.device}
    write_rows(job.out, [table.assign(**columns) for table in tables])


def reached_below(target: float, middle: float) -> tuple[float, float]:
    """Costs that count as having reached a target: by the usual and by the strict rule.

    >>> reached_below(1.0, 1.5)
    (1.02, 1.01)
    """
    return 1.02 * target, target + 0.02 * (middle - target)


def first_reached(course: Sequence[float], bound: float) -> float:
    """Evaluations until a cost is at most the bound; infinite if it never is.

    >>> first_reached([3.0, 2.0, 1.0], 2.5), first_reached([3.0], 2.5)
    (2, inf)
    """
    return next((i + 1 for i, cost in enumerate(course) if cost <= bound), math.inf)


def _ways(model: ResponseModel, cost: Cost, sound: Tensor) -> dict[str, Callable[[], Fit]]:
    """The ways of searching θ, each within 40 evaluations; of slopes too where there is descent."""
    animals = model.listeners.at().detach()
    parameters, warm = animals.shape[1], torch.cat([animals.mean(0, keepdim=True), animals])

    def among_responses(evaluations: int, slopes: bool) -> Fit:
        among = candidates(model.listeners, 120)
        space = response_space(model, sound, among)
        return search_responses(cost, space, among, evaluations, slopes)

    return {
        "Bayesian, 8 Sobol points": lambda: bayesian_search(cost, sobol(8, parameters, 0), 40),
        "Bayesian from the animals": lambda: bayesian_search(cost, warm, 40),
        RESPONSES: lambda: among_responses(20, slopes=False),
        "descent from the animals' mean": lambda: descend(cost, warm[:1], 40, 0.3),
        "descent from the best animal": lambda: warm_descent(cost, animals),
        SLOPES: lambda: among_responses(10, slopes=True),
    }


@torch.no_grad()
def example(job: Example) -> None:
    """Images `(C, N)` of channels that all networks have: a trial, the truth, and predictions."""
    cohort = Cohort.open(job.cohort)
    animal, simulated = cohort.animal(job.animal), animal_from(cohort.truth(job.animal))
    pairs = recording_pairs(cohort, job.animal, "test")
    speech = [pair for pair in pairs if cohort.sounds[pair[0]].kind == "speech"]
    sound, trials = (speech or pairs)[0]
    pressure = cohort.pressure(sound)[None]
    hours = torch.tensor([animal.presentations[trials[0]].time_h])
    images = {"true expectation": simulated.expected_counts(pressure, hours)[0]}
    matched = torch.ones(animal.channels, dtype=torch.bool)
    for title, path in job.models.items():
        model, facts = load_model(path)
        place = facts.animals.index(job.animal)
        listener = Listener(facts.matching[place], place)
        matched &= listener.matching >= 0
        context = (model.context_bins * model.clock.bin_samples, 0)
        latent = model.latent(functional.pad(pressure, context))
        images[title] = expected_counts(expect(model, facts, listener, latent, hours).log())
    recorded = animal.counts(trials[0]).T.float()
    busy = _busiest(recorded[matched], round(2 * cohort.clock.bin_rate_hz))
    images = {"one recorded trial": recorded} | images
    tensors = {title: image[matched][:, busy].contiguous() for title, image in images.items()}
    Path(job.out).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(job.out), save(tensors | {"cf_hz": simulated.cf_hz[matched].contiguous()}))


def _busiest(counts: Tensor, width: int) -> slice:
    """The bins of counts `(C, N)` with most spikes, so many of them."""
    width = min(width, counts.shape[1])
    start = counts.mean(0).unfold(0, width, 50).mean(-1).argmax().item() * 50
    return slice(start, start + width)


def _losses(truth: dict) -> dict[str, float]:
    """What is asked of θ: losses at 1 kHz and above, and where the electrodes are."""
    high = torch.tensor(FREQUENCIES_HZ) >= 1000
    loss = truth["loss"]
    outer, inner = (torch.tensor(loss[cells])[high].mean().item() for cells in ("ohc_db", "ihc_db"))
    return {
        "outer": outer,
        "inner": inner,
        "synapses": loss["synaptopathy"],
        "central_gain": loss["central_gain"],
        "coverage": torch.as_tensor(truth["cf_hz"]).float().log2().median().item(),
    }


def animal_columns(cohort: Cohort, name: str) -> dict[str, str]:
    """Columns that say whose a row is."""
    animal = cohort.animal(name)
    hidden = cohort.truth(name)["hearing"] == "hidden"
    return {
        "listener": name,
        "group": "hidden" if hidden else animal.status,
        "role": animal.role,
    }


def _scores(rows: list[dict], **columns: str) -> pd.DataFrame:
    """Scores of sounds, a row a number."""
    wide = pd.DataFrame(rows).astype({"feve": float, "ccnorm": float, "kl": float})
    return wide.melt(["sound", "kind"], ["feve", "ccnorm", "kl"], "measure").assign(**columns)


def number_rows(measure: str, values: dict, **columns: str) -> pd.DataFrame:
    """Numbers of one measure, by what stands in the column of sounds."""
    rows = pd.DataFrame({"sound": map(str, values), "value": map(float, values.values())})
    return rows.assign(measure=measure, **columns)


def write_rows(path: str | Path, tables: Sequence[pd.DataFrame]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(path), complete(tables, COLUMNS).to_csv(index=False, float_format="%.7g"))
