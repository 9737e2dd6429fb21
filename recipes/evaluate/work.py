"""All files of a run: those that are left are scored, then all are reported."""

import dataclasses
import json
from pathlib import Path

from tqdm import tqdm

from icsim.audiogram import audiogram
from recipes.evaluate import report
from recipes.evaluate.config import Config, wanted_scores
from recipes.evaluate.files import Pair, matched, stamp
from recipes.evaluate.scoring import side_by_side
from recipes.state import claim, write_whole

ROWS = "rows.jsonl"
"""A finished row a line."""

NOT_INSTALLED = "is not installed"
"""Rows with such a reason are tried again."""


def evaluate(config: Config) -> dict:
    """Score every file that is not scored yet; write the tables and the report.

    Returns:
        What `report.write` returns: summary, differences, warnings, failures.

    Raises:
        ValueError: If settings, folders and listeners do not go together, before anything is done.
    """
    wanted_scores(config)
    if config.audiogram:
        audiogram(config.audiogram)
    pairs = matched(config)
    if config.theta:
        from recipes.evaluate.midbrain import midbrains

        midbrains(config.model, config.theta)
    out = Path(config.out)
    # How many processes share the work, and what is shown, is no part of what is scored.
    claim(out, dataclasses.replace(config, workers=Config.workers, examples=Config.examples))
    listener = _listener(config)
    rows = kept(out / ROWS, pairs, listener)
    left = [pair for pair in pairs if (pair.device, pair.name) not in rows]
    with (
        (out / ROWS).open("a", encoding="utf-8") as file,
        tqdm(total=len(pairs), initial=len(rows), desc="scoring", unit="file") as bar,
    ):
        for found in side_by_side(config, left):
            found |= {"listener": listener}
            file.write(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            rows[found["device"], found["file"]] = found
            bar.update()
    return report.write(config, pairs, [rows[pair.device, pair.name] for pair in pairs])


def kept(path: Path, pairs: list[Pair], listener: dict) -> dict[tuple[str, str], dict]:
    """Rows of an earlier run that still hold, by device and file; the file then has no others.

    A line that was cut off while it was written is none.
    """
    made_of = {(pair.device, pair.name): pair.made_of for pair in pairs}
    found = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            one = json.loads(line)
            key = one["device"], one["file"]
        except (ValueError, KeyError, TypeError):
            continue
        same = made_of.get(key) == one.get("made_of") and one.get("listener") == listener
        if same and not any(NOT_INSTALLED in reason for reason in one["reasons"].values()):
            found[key] = one
    lines = (json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in found.values())
    write_whole(path, "".join(lines))
    return found


def _listener(config: Config) -> dict[str, list[int] | None]:
    """The state of the files that say who listens."""
    paths = {"audiogram": config.audiogram, "theta": config.theta, "model": config.model}
    return {role: stamp(path) for role, path in paths.items()}
