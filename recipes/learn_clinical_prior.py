"""Learn what a clinic's tests say of θ, on simulated listeners.

`python -m recipes.learn_clinical_prior --cohort COHORT --model MODEL --out FOLDER`

`prior.json` is for `recipes.listen`. Run the same command again to go on.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from icsim.channel_gains import broad
from icsim.clock import require_clock
from icsim.files import write_json
from icsim.models import clinical_prior
from icsim.models.clinical_prior import ClinicalPrior
from icsim.models.facts import ModelFacts
from icsim.models.listener_fit import first_frames, fit_listener
from icsim.models.load import load_theta_model
from icsim.models.response import ResponseModel
from icsim.seeds import seeded
from icsim.simulation.animal import Anatomy, Animal, animal_from, draw_loss
from icsim.simulation.clinic import ABR, ERRORS, TESTS, THRESHOLDS, measured
from icsim.simulation.cochlea import Subbands, filter_sound
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes.running.commands import claim, run
from recipes.running.ranges import Count, NotEmptyStr, Seconds, Seed, checked

NEW_SEEDS = 2_000_000
"""Seeds of simulated listeners begin here: nobody else's are as large."""

SEVERITY = (0.3, 1.9)
"""Of visible losses, uniform, in units of a typical loss (chosen here)."""

HEARINGS = ("NH", "HI", "hidden", "HI", "hidden", "HI")
"""In turn, of the simulated listeners (chosen here)."""


KINDS = {
    "thresholds": THRESHOLDS,
    "thresholds and the nerve's response": (*THRESHOLDS, ABR),
    "all tests": TESTS,
    "all but thresholds": tuple(name for name in TESTS if name not in THRESHOLDS),
}
"""Sets of tests of which is said how much they say."""

SOME = 30
"""Listeners from which on it is (chosen here)."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Whose θ, and how many simulated listeners."""

    cohort: NotEmptyStr
    """The simulated cohort that the model was trained on."""
    model: NotEmptyStr
    """A trained model with condition `theta`."""
    out: NotEmptyStr
    """Folder for `prior.json`, and for `held_out.json`, what tests say of listeners left out."""
    listeners: Count = 120
    """Simulated listeners."""
    seconds: Seconds = 6.0
    """Sound that each is fitted to [s]."""
    seed: Seed = 0
    """Of losses, errors of tests, and responses."""


def learn(config: Config) -> str:
    """Simulate, test and fit the listeners that are not there yet; returns the path of the table.

    Raises:
        ValueError: If the cohort was not simulated, or is not the model's.
    """
    cohort = Cohort.open(config.cohort)
    model, facts = load_theta_model(config.model)
    require_clock(cohort.clock, model.clock, config.cohort)
    if not (cohort.description or {}).get("simulated"):
        raise ValueError(
            f"{config.cohort}: was not simulated, and simulated listeners need the simulated brain "
            "of a normal animal"
        )
    there = [name for name in facts.animals if name in facts.normal and name in cohort.animals()]
    if not there:
        raise ValueError(f"{config.cohort}: none of the model's normal animals is in it")
    out = Path(config.out)
    claim(out, config)
    brain = animal_from(cohort.truth(there[0])).anatomy
    matching = facts.matching[facts.animals.index(there[0])]
    batch = first_frames(cohort, there[0], model.context_bins, seconds=config.seconds)
    filtered = [filter_sound(sound[None]) for sound in batch["sound"]]
    rows = []
    for number in tqdm(range(config.listeners), desc="simulated listeners", unit="listener"):
        path = out / "listeners" / f"{number}.json"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            row = _listener(config, number, brain, model, facts, batch, filtered, matching)
            write_json(path, row)
        rows.append(json.loads(path.read_text()))
    columns = {
        key: {name: torch.tensor([row[key][name] for row in rows]) for name in rows[0][key]}
        for key in ("tests", "truth")
    }
    prior = ClinicalPrior(
        fingerprint(config.model),
        columns["tests"],
        ERRORS,
        torch.tensor([row["logits"] for row in rows]),
        torch.tensor([row["covariance"] for row in rows]),
        columns["truth"],
    )
    clinical_prior.save(out / "prior.json", prior)
    if config.listeners >= SOME:
        write_json(
            out / "held_out.json",
            {kind: clinical_prior.held_out(prior, tests) for kind, tests in KINDS.items()},
        )
    return str(out / "prior.json")


def _listener(
    config: Config,
    number: int,
    brain: Anatomy,
    model: ResponseModel,
    facts: ModelFacts,
    batch: dict[str, Tensor],
    filtered: list[Subbands],
    matching: Tensor,
) -> dict:
    """Tests, θ and truth of one listener, who has the brain of a normal animal."""
    seed = NEW_SEEDS + 1000 * config.seed + number
    severity = np.random.default_rng(seed).uniform(*SEVERITY)
    loss = draw_loss(HEARINGS[number % len(HEARINGS)], severity, seed)
    animal = Animal(brain, dataclasses.replace(loss, drift_db_per_hour=0.0))
    context = model.context_bins
    counts = torch.cat(
        [
            animal.sample_counts(sound, 0.0, seeded(seed, place))
            for place, sound in enumerate(filtered)
        ]
    )[:, None, :, context:]
    answered = batch | {"counts": counts, "hours": torch.zeros(len(counts), 1)}
    prior = facts.channel_prior or broad(model.config.readout.classes)
    fit = fit_listener(model, answered, matching, prior, drift=False).posterior
    size = fit.prior.parameters
    shift = np.add(loss.ohc_db, loss.ihc_db)[2:].mean()
    return {
        "tests": measured(animal, seeded(seed, 1)),
        "logits": fit.mean[:size].tolist(),
        "covariance": fit.covariance[:size, :size].tolist(),
        "truth": {
            "hair cells [dB]": float(shift),
            "lost synapses": loss.synaptopathy,
            "central gain": loss.central_gain,
        },
    }


if __name__ == "__main__":
    print(run(learn, Config))
