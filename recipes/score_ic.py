"""How well a model predicts test sounds: `python -m recipes.score_ic --cohort C --model M`.

Unseen animals are scored with the θ that `recipes.fit_theta` found, given by `--fits FOLDER`, or,
by a model with condition `thresholds`, with these.
"""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from icsim.clock import require_clock
from icsim.files import write_json, write_whole
from icsim.fits import read_fit, require_fits
from icsim.frames import recording_pairs
from icsim.models.conditions import Theta, Thresholds
from icsim.models.facts import ModelFacts
from icsim.models.load import load_model
from icsim.models.response import ResponseModel
from icsim.models.scoring import Listener, encode, score_animal
from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes.reports import figures
from recipes.running.commands import begin, run
from recipes.running.ranges import NotEmptyStr, checked
from recipes.running.training import autocast


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What to score."""

    cohort: NotEmptyStr
    """Cohort with test sounds that each animal heard twice."""
    model: NotEmptyStr
    """A trained model, of any condition."""
    fits: NotEmptyStr | None = None
    """Folder of `<animal>.json` for animals that the model was not trained on."""
    alignment: NotEmptyStr = ALIGNMENT
    """Of unseen animals, for a model with condition `thresholds`."""
    precision: Literal["auto", "no", "bf16"] = "no"
    """Of the model, as in training."""
    out: NotEmptyStr | None = None
    """Folder for `scores.json`, `scores.csv` and pictures; nothing is written if not given."""


def score_ic(config: Config) -> dict[str, dict]:
    """Scores of every animal that can be asked for: median and MAD over sounds, by class.

    Raises:
        ValueError: If there is none, or a fit is of another model.
    """
    model, facts = load_model(config.model)
    cohort, rows = Cohort.open(config.cohort), {}
    require_clock(cohort.clock, model.clock, config.cohort)
    if config.fits:
        require_fits(config.fits, sorted(set(cohort.animals()) - set(facts.animals)))
    listeners, mark = {}, fingerprint(config.model)
    for name in cohort.animals():
        listener = find_listener(model, facts, cohort, name, config.alignment, config.fits, mark)
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
        latents = encode(model, cohort)
        for name, listener in tqdm(listeners.items(), desc="scoring", unit="animal"):
            rows[name] = score_animal(model, facts, cohort, name, listener, latents)
    scores = {
        name: {"status": cohort.animal(name).status, "role": cohort.animal(name).role}
        | summary(of_animal)
        for name, of_animal in rows.items()
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
    for name, of_animal in rows.items():
        hearing = {"animal": name} | {key: scores[name][key] for key in ("status", "role")}
        writer.writerows(hearing | row for row in of_animal)
    write_whole(out / "scores.csv", table.getvalue())
    each = {name: [row["feve"] for row in of_animal] for name, of_animal in rows.items()}
    labels = {name: f"{name} ({score['role']})" for name, score in scores.items()}
    statuses = {name: score["status"] for name, score in scores.items()}
    figures.explained_by_animal(each, labels, statuses).savefig(out / "feve.png", dpi=110)


def find_listener(
    model: ResponseModel,
    facts: ModelFacts,
    cohort: Cohort,
    name: str,
    alignment: str = ALIGNMENT,
    fits: str | None = None,
    mark: str | None = None,
) -> Listener | None:
    """How to ask for an animal: the model has it, it was fitted, or has thresholds to ask by.

    Raises:
        ValueError: If its fit is of another model than that of the fingerprint `mark`.
    """
    if name in facts.animals:
        place = facts.animals.index(name)
        return Listener(facts.matching[place, : cohort.animal(name).channels], place)
    fit = Path(fits or "") / f"{name}.json"
    if isinstance(model.condition, Theta) and fits and fit.is_file():
        fitted = read_fit(fit, mark)
        if fitted.matching is None:
            raise ValueError(f"{fit}: does not say how channels were matched; fit {name} again")
        return Listener(fitted.matching, theta=fitted.theta, gains=fitted.gains, drift=fitted.drift)
    aligned = cohort.animal(name).alignment(alignment)
    thresholds = cohort.animal(name).thresholds_db_spl
    if isinstance(model.condition, Thresholds) and aligned is not None and thresholds is not None:
        return Listener(aligned.matching, thresholds_db_spl=thresholds.float())
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
