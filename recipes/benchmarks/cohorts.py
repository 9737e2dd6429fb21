"""Cohorts of the benchmarks: simulated and aligned, once for each seed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from icsim.cohort_alignment import REFERENCES, Method
from icsim.files import write_json
from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from recipes import align, make_cohort
from recipes.running.commands import parse
from recipes.running.jobs import timed_stage

NAMES: dict[Method, str] = {"template": ALIGNMENT, "permutation": "permutation"}
"""What alignments are called, by method."""


def aligned(configuration: str, seed: int, out: Path, methods: Sequence[Method]) -> Cohort:
    """Simulate the animals of one seed and align them, unless that was done.

    Args:
        configuration: File of `recipes.make_cohort`.
        seed: Of the cohort.
        out: Folder for `cohort` and `alignment.json`.
        methods: Of `recipes.align`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with timed_stage(out, "cohort"):
        wanted = parse(make_cohort.Config, ["--config", configuration])
        wanted = dataclasses.replace(wanted, out=str(out / "cohort"), seed=seed)
        path = make_cohort.make_cohort(wanted)
    if not (out / "alignment.json").is_file():
        with timed_stage(out, "alignment"):
            alignments = {
                method: align.align(align.Config(path, method=method, name=NAMES[method]))
                for method in methods
            }
            write_json(out / "alignment.json", alignments)
    return Cohort.open(path)


def require_animals(configuration: str, names: Sequence[str] = ()) -> None:
    """Ask for animals before any is simulated.

    Args:
        configuration: File of `recipes.make_cohort`.
        names: Which must be among its members.

    Raises:
        ValueError: If one is not; the message names it.
    """
    there = [member.name for member in _members(configuration)]
    missing = sorted(set(names) - set(there))
    if missing:
        raise ValueError(
            f"{configuration}: no animal {', '.join(missing)}; those there: {', '.join(there)}"
        )


def require_outside_template(configuration: str, names: Sequence[str]) -> None:
    """Ask that animals are not those whose channels make the template.

    Slots of the template are channels of its brains, so that a network for all has rows for these
    that are next to private: what it loses to a network of the animal's own is then not seen.

    Args:
        configuration: File of `recipes.make_cohort`.
        names: Of the animals.

    Raises:
        ValueError: If one makes the template; the message names it.
    """
    normal = [m.name for m in _members(configuration) if m.hearing == "NH" and m.role == "seen"]
    template = normal[: REFERENCES["template"]]
    inside = sorted(set(names) & set(template))
    if inside:
        raise ValueError(
            f"{', '.join(inside)}: of the brains that make the template ({', '.join(template)}), "
            "for whose channels every network has rows nearly of their own; choose other animals"
        )


def _members(configuration: str) -> list[make_cohort.Member]:
    return parse(make_cohort.Config, ["--config", configuration]).members
