"""How well a network predicts test sounds: `python -m recipes.score_ic --cohort C --model M`.

Unseen animals are scored with the θ that `recipes.fit_theta` found, given by `--fits FOLDER`, or,
by ABRNet, with their thresholds.
"""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from icsim.channel_gains import with_gains
from icsim.conditional import ABRNet, BetaICNet
from icsim.counts import expected_counts
from icsim.frames import recording_pairs
from icsim.icnet import CONTEXT_BINS
from icsim.metrics import feve, histogram_divergence, normalised_correlation
from icsim.recording import ALIGNMENT
from icsim.sound import BIN_SAMPLES
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes import figures, networks
from recipes.fits import read_fit, require_fits
from recipes.ranges import NotEmptyStr, checked
from recipes.state import autocast, begin, run, write_json, write_whole


@dataclasses.dataclass(frozen=True)
class Config:
    """What to score."""

    cohort: NotEmptyStr
    """Cohort with test sounds that each animal heard twice."""
    model: NotEmptyStr
    """A trained BetaICNet, ABRNet or ICNet."""
    fits: NotEmptyStr | None = None
    """Folder of `<animal>.json` for animals that the model was not trained on."""
    alignment: NotEmptyStr = ALIGNMENT
    """Of unseen animals, for ABRNet."""
    precision: Literal["auto", "no", "bf16"] = "no"
    """Of the network, as in training."""
    out: NotEmptyStr | None = None
    """Folder for `scores.json`, `scores.csv` and pictures; nothing is written if not given."""

    __post_init__ = checked


@dataclasses.dataclass(frozen=True)
class Listener:
    """Who is asked: a known animal by its place, or a new one by what is known of it."""

    matching: Tensor
    """Slot of each channel in the network, those below 0 left out, `(C,)`."""
    place: int | None = None
    """Place among the animals that the network was trained on."""
    condition: Tensor | None = None
    """θ `(P,)` or thresholds `(F,)` [dB SPL] of a new one."""
    gains: Tensor | None = None
    """Gains and offsets of its channels, `(C, K)`, if they were fitted."""


def score_ic(config: Config) -> dict[str, dict]:
    """Scores of every animal that can be asked for: median and MAD over sounds, by class.

    Raises:
        ValueError: If there is none, or a fit is of another model.
    """
    network, facts = networks.load(config.model)
    known = networks.known_brains(facts)
    cohort, rows = Cohort.open(config.cohort), {}
    if config.fits:
        require_fits(config.fits, sorted(set(cohort.animals()) - set(known.names)))
    listeners, model = {}, fingerprint(config.model)
    for name in cohort.animals():
        listener = find_listener(network, known, cohort, name, config.alignment, config.fits, model)
        if listener is not None and recording_pairs(cohort, name, "test"):
            listeners[name] = listener
    if not listeners:
        raise ValueError(
            f"{config.cohort}: no animal that {config.model} knows or that was fitted to it heard "
            "a test sound twice, which FEVE needs; give --fits, or the cohort it was trained on"
        )
    if config.out:
        Path(config.out).mkdir(parents=True, exist_ok=True)
    begin()
    with autocast(config.precision, torch.device("cpu")):
        latents = encode(network, cohort)
        for name, listener in tqdm(listeners.items(), desc="scoring", unit="animal"):
            rows[name] = score_animal(network, known, cohort, name, listener, latents)
    scores = {
        name: {"status": cohort.animal(name).status, "role": cohort.animal(name).role}
        | summary(own)
        for name, own in rows.items()
    }
    if config.out:
        write_scores(Path(config.out), scores, rows)
    return scores


def write_scores(out: Path, scores: dict[str, dict], rows: dict[str, list[dict]]) -> None:
    """The scores as JSON, every sound's as CSV, and a picture of them."""
    write_json(out / "scores.json", scores)
    table = io.StringIO()
    columns = ["animal", "status", "role", *next(iter(rows.values()))[0]]
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    for name, own in rows.items():
        hearing = {"animal": name} | {key: scores[name][key] for key in ("status", "role")}
        writer.writerows(hearing | row for row in own)
    write_whole(out / "scores.csv", table.getvalue())
    each = {name: [row["feve"] for row in own] for name, own in rows.items()}
    labels = {name: f"{name} ({score['role']})" for name, score in scores.items()}
    statuses = {name: score["status"] for name, score in scores.items()}
    figures.explained_by_animal(each, labels, statuses).savefig(out / "feve.png", dpi=110)


Latents = dict[int, Tensor]
"""By sound, what a network makes of it before it knows who hears it."""


@torch.no_grad()
def encode(network: nn.Module, cohort: Cohort) -> Latents:
    """Latents `(1, latent, N)` of all test sounds, with the context of their beginning."""
    context = (CONTEXT_BINS * BIN_SAMPLES, 0)
    return {
        sound.index: network.latent(functional.pad(cohort.pressure(sound.index), context)[None])
        for sound in cohort.sounds
        if sound.split == "test"
    }


def score_animal(
    network: nn.Module,
    known: networks.Brains,
    cohort: Cohort,
    name: str,
    listener: Listener,
    latents: Latents,
) -> list[dict]:
    """Kind, FEVE (None where nothing can be explained) and KL of each test sound heard twice."""
    return [
        _score_sound(network, known, cohort, name, listener, latents[sound], sound, trials)
        for sound, trials in recording_pairs(cohort, name, "test")
    ]


@torch.no_grad()
def expect(
    network: nn.Module, known: networks.Brains, listener: Listener, latent: Tensor, hours: Tensor
) -> Tensor:
    """Probabilities of counts at several times: `(1, latent, N)`, `(n,)` [h] to `(n, C, K, N)`."""
    if listener.place is not None:
        place = torch.tensor([listener.place]).expand(len(hours))
        predicted = networks.predict_from_latent(network, known, latent, hours[None], place)
    else:
        condition = listener.condition.expand(1, 1, -1)
        matching = listener.matching[None]
        predicted = network.predict(latent, condition, matching, CONTEXT_BINS)
        if listener.gains is not None:
            predicted = with_gains(predicted, listener.gains)
    probability = predicted.log_probabilities()[0, :, : len(listener.matching)].exp()
    return probability.expand(len(hours), -1, -1, -1)


def _score_sound(
    network: nn.Module,
    known: networks.Brains,
    cohort: Cohort,
    name: str,
    listener: Listener,
    latent: Tensor,
    sound: int,
    trials: list[int],
) -> dict:
    """FEVE and KL of one sound, predicted for the times at which it was heard."""
    animal, kept = cohort.animal(name), listener.matching >= 0
    counts = torch.stack([animal.counts(trial).T[kept] for trial in trials])
    hours = torch.tensor([animal.presentations[trial].time_h for trial in trials])
    # One time after the other: twenty repeats of half a minute would not fit into memory.
    times = hours.split(1) if listener.place is not None else [hours[:1]]
    every = (expect(network, known, listener, latent, time)[0][kept] for time in times)
    probability = sum(every) / len(times)
    expected = expected_counts(probability.log())
    try:
        explained = feve(expected, counts).item()
    except ValueError:
        explained = None
    correlation = normalised_correlation(expected, counts).nanmedian()
    return {
        "sound": cohort.sounds[sound].name,
        "kind": cohort.sounds[sound].kind,
        "trials": len(trials),
        "feve": explained,
        "ccnorm": correlation.item() if correlation.isfinite() else None,
        "kl": histogram_divergence(probability, counts).item(),
    }


def find_listener(
    network: nn.Module,
    known: networks.Brains,
    cohort: Cohort,
    name: str,
    alignment: str = ALIGNMENT,
    fits: str | None = None,
    model: str | None = None,
) -> Listener | None:
    """How to ask for an animal: it is known, was fitted, or has thresholds for ABRNet.

    Raises:
        ValueError: If its fit is of another model than that of the fingerprint `model`.
    """
    if name in known.names:
        place = known.names.index(name)
        return Listener(known.matching[place, : cohort.animal(name).channels], place)
    fit = Path(fits or "") / f"{name}.json"
    if isinstance(network, BetaICNet) and fits and fit.is_file():
        fitted = read_fit(fit, model)
        if fitted.matching is None:
            raise ValueError(f"{fit}: does not say how channels were matched; fit {name} again")
        return Listener(fitted.matching, None, fitted.theta, fitted.gains)
    aligned = cohort.animal(name).alignment(alignment)
    thresholds = cohort.animal(name).thresholds_db_spl
    if isinstance(network, ABRNet) and aligned is not None and thresholds is not None:
        return Listener(aligned.matching, condition=thresholds.float())
    return None


def summary(rows: list[dict]) -> dict:
    """Median and MAD over sounds, and the median of each class."""
    explained = torch.tensor([row["feve"] for row in rows if row["feve"] is not None])
    kinds = sorted({row["kind"] for row in rows})
    by_kind = {
        kind: [r["feve"] for r in rows if r["kind"] == kind and r["feve"] is not None]
        for kind in kinds
    }
    correlations = torch.tensor([row["ccnorm"] for row in rows if row["ccnorm"] is not None])
    return {
        "feve": explained.median().item(),
        "feve_mad": (explained - explained.median()).abs().median().item(),
        "ccnorm": correlations.median().item(),
        "kl": torch.tensor([row["kl"] for row in rows]).median().item(),
        "feve_by_kind": {k: torch.tensor(v).median().item() for k, v in by_kind.items() if v},
        "sounds": len(rows),
    }


if __name__ == "__main__":
    for animal, score in run(score_ic, Config).items():
        print(
            f"{animal:16s} {score['role']:7s} {score['status']} "
            f"FEVE {score['feve']:.3f} ± {score['feve_mad']:.3f}, CCnorm {score['ccnorm']:.3f}, "
            f"KL {score['kl']:.4f}"
        )
