"""How well a network predicts test sounds: `python -m recipes.score_ic --cohort C --model M`.

Unseen animals are scored with the θ that `recipes.fit_theta` found, given by `--fits FOLDER`, or,
by ABRNet, with their thresholds.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from icsim.conditional import ABRNet, BetaICNet
from icsim.counts import expected_counts
from icsim.frames import recording_pairs
from icsim.icnet import CONTEXT_BINS
from icsim.metrics import feve, histogram_divergence, normalised_correlation
from icsim.recording import ALIGNMENT
from icsim.sound import BIN_SAMPLES
from icsim.store import Cohort
from recipes import networks
from recipes.ranges import NotEmptyStr, checked
from recipes.state import autocast, run


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


def score_ic(config: Config) -> dict[str, dict]:
    """FEVE and KL of every animal that can be asked for: median and MAD over sounds, by class."""
    network, facts = networks.load(config.model)
    known = networks.known_brains(facts)
    cohort, scores = Cohort.open(config.cohort), {}
    with autocast(config.precision, torch.device("cpu")):
        latents = encode(network, cohort)
        for name in cohort.animals():
            listener = find_listener(network, known, cohort, name, config.alignment, config.fits)
            if listener is None:
                continue
            rows = score_animal(network, known, cohort, name, listener, latents)
            animal = cohort.animal(name)
            scores[name] = {"status": animal.status, "role": animal.role} | summary(rows)
    return scores


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
        "kind": cohort.sounds[sound].kind,
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
) -> Listener | None:
    """How to ask for an animal: it is known, was fitted, or has thresholds for ABRNet."""
    if name in known.names:
        place = known.names.index(name)
        return Listener(known.matching[place, : cohort.animal(name).channels], place)
    fit = Path(fits or "") / f"{name}.json"
    if isinstance(network, BetaICNet) and fits and fit.is_file():
        found = json.loads(fit.read_text())
        return Listener(torch.tensor(found["matching"]), condition=torch.tensor(found["theta"]))
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
    return {
        "feve": explained.median().item(),
        "feve_mad": (explained - explained.median()).abs().median().item(),
        "kl": torch.tensor([row["kl"] for row in rows]).median().item(),
        "feve_by_kind": {k: torch.tensor(v).median().item() for k, v in by_kind.items() if v},
        "sounds": len(rows),
    }


if __name__ == "__main__":
    for animal, score in run(score_ic, Config).items():
        print(
            f"{animal:16s} {score['role']:7s} {score['status']} "
            f"FEVE {score['feve']:.3f} ± {score['feve_mad']:.3f}, KL {score['kl']:.4f}"
        )
