"""How well a BetaICNet predicts test sounds: `python -m recipes.score_ic --cohort C --model M`.

Unseen animals are scored with the θ that `recipes.fit_theta` found, given by `--fits FOLDER`.
"""

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from icsim.conditional import BetaICNet, expected_counts
from icsim.frames import recording_pairs
from icsim.metrics import feve, histogram_divergence
from icsim.store import Cohort
from icsim.weights import load_network
from recipes.state import run


@dataclasses.dataclass(frozen=True)
class Config:
    """What to score."""

    cohort: str
    """Cohort with test sounds that each animal heard twice."""
    model: str
    """A trained BetaICNet."""
    fits: str | None = None
    """Folder of `<animal>.json` for animals that the model was not trained on."""


def score_ic(config: Config) -> dict[str, dict]:
    """FEVE and KL of every animal that has a θ: median and MAD over sounds, and by class."""
    model, facts = load_network(config.model, BetaICNet)
    cohort = Cohort.open(config.cohort)
    scores = {}
    for name in cohort.animals():
        fit = Path(config.fits or "") / f"{name}.json"
        if name in facts["animals"]:
            index = facts["animals"].index(name)
        elif config.fits and fit.is_file():
            index = torch.tensor(json.loads(fit.read_text())["theta"])
        else:
            continue
        rows = [
            _score_sound(model, cohort, name, index, sound, trials)
            for sound, trials in recording_pairs(cohort, name, "test")
        ]
        animal = cohort.animal(name)
        scores[name] = {"status": animal.status, "role": animal.role} | _summary(rows)
    return scores


def _score_sound(
    model: BetaICNet, cohort: Cohort, name: str, who: int | Tensor, sound: int, trials: list[int]
) -> dict:
    """FEVE and KL of one sound, predicted for the times at which it was heard."""
    animal = cohort.animal(name)
    first, second = (animal.counts(trial).T for trial in trials[:2])
    theta = torch.stack(
        [_theta(model, who, animal.presentations[trial].time_h) for trial in trials[:2]]
    )
    with torch.no_grad():
        latent = model.latent(cohort.pressure(sound).unsqueeze(0))
        predicted = model.decode(latent, theta.unsqueeze(0))[0]
    probability = predicted.exp().mean(0)
    expected = expected_counts(probability.log())
    try:
        explained = feve(expected, first, second).item()
    except ValueError:
        explained = None
    return {
        "kind": cohort.sounds[sound].kind,
        "feve": explained,
        "kl": histogram_divergence(probability, first, second).item(),
    }


def _theta(model: BetaICNet, who: int | Tensor, time_h: float) -> Tensor:
    """θ of a known animal at a time, or of a fitted one."""
    if isinstance(who, Tensor):
        return who
    return model.listeners.at(time_h)[who].detach()


def _summary(rows: list[dict]) -> dict:
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
