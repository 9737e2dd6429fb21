"""Choose what to play to a new animal: the sounds and levels that say most of its θ.

`python -m recipes.choose_sounds --cohort COHORT --model MODEL --out FOLDER`

With `--fit`, what was fitted to the animal so far says who it may be and what is still open.
"""

import csv
import dataclasses
import io
import json
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.clock import require_clock
from icsim.files import write_whole
from icsim.fits import read_fit
from icsim.models.listener_design import (
    most_informative,
    sound_information,
    unknown_listener,
)
from icsim.models.load import load_theta_model
from icsim.models.response import ResponseModel
from icsim.sound import calibrate
from icsim.store import Cohort
from icsim.weights import fingerprint
from recipes.running.commands import begin, run
from recipes.running.ranges import Count, LevelDbSpl, NotEmptyStr, Seconds, checked


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What can be played, and how long."""

    cohort: NotEmptyStr
    """Its training sounds can be played."""
    model: NotEmptyStr
    """A trained model with condition `theta`."""
    out: NotEmptyStr
    """Folder for `sounds.csv`."""
    fit: NotEmptyStr | None = None
    """Of the animal so far, by `recipes.fit_theta`."""
    seconds: Seconds = 30.0
    """How much is chosen [s]."""
    piece_s: Seconds = 2.0
    """Length of a piece of a sound [s]."""
    levels_db_spl: tuple[LevelDbSpl, ...] = (50.0, 65.0, 80.0)
    """Each piece can be played at each of these [dB SPL]."""
    most: Count = 60
    """Pieces that are looked at, evenly from all."""


def choose_sounds(config: Config) -> list[dict]:
    """Write the choice; returns its rows, best first.

    Raises:
        ValueError: If there is too little to choose from, or the fit is of another model.
    """
    cohort = Cohort.open(config.cohort)
    model, _ = load_theta_model(config.model)
    require_clock(cohort.clock, model.clock, config.cohort)
    pieces = _pieces(config, cohort)
    count = max(1, round(config.seconds / config.piece_s))
    if not config.levels_db_spl or count > len(pieces) * len(config.levels_db_spl):
        raise ValueError(
            f"{config.seconds:g} s are more than the training sounds at {config.levels_db_spl} dB "
            "SPL; lower --seconds or raise --most"
        )
    theta, precision = _listeners(config, model)
    out = Path(config.out)
    begin()
    out.mkdir(parents=True, exist_ok=True)
    context = torch.zeros(1, model.context_bins * model.clock.bin_samples)
    every, offered = [], []
    for sound, start_s, pressure in tqdm(pieces, desc="looking at sounds", unit="piece"):
        for level in config.levels_db_spl:
            frame = torch.cat([context, calibrate(pressure[None], level)], 1)
            every.append(sound_information(model, frame, theta))
            offered.append({"sound": sound, "start_s": start_s, "level_db_spl": level})
    chosen = most_informative(torch.cat(every, 1), precision, count)
    rows = [{"rank": rank, **offered[place]} for rank, place in enumerate(chosen, 1)]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / "sounds.csv", text.getvalue())
    return rows


def _pieces(config: Config, cohort: Cohort) -> list[tuple[str, float, Tensor]]:
    """Name, beginning [s] and pressure `(T,)` of pieces of training sounds, silence left out."""
    rate_hz = cohort.clock.sample_rate_hz
    samples = round(config.piece_s * rate_hz)
    places = [
        (sound, start)
        for sound in cohort.sounds
        if sound.split == "train"
        for start in range(0, sound.samples - samples + 1, samples)
    ]
    step = max(1, -(-len(places) // config.most))
    pieces = [
        (sound.name, start / rate_hz, cohort.pressure(sound.index, start, start + samples))
        for sound, start in places[::step]
    ]
    return [piece for piece in pieces if bool(piece[2].abs().max() > 0)]


def _listeners(config: Config, model: ResponseModel) -> tuple[Tensor, Tensor]:
    """Listeners that this one may be, `(n, P)`, and the precision of its logits so far."""
    if config.fit is None:
        return unknown_listener(model)
    theta = read_fit(config.fit, fingerprint(config.model)).theta
    content = json.loads(Path(config.fit).read_text(encoding="utf-8"))
    try:
        covariance = torch.tensor(content["covariance"]).double()
        slope = (theta * (1 - theta)).double()
        precision = torch.linalg.inv(covariance) * slope * slope[:, None]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{config.fit}: says not how sure it is ({error!r}); fit with recipes.fit_theta"
        ) from error
    return theta[None], precision


if __name__ == "__main__":
    for row in run(choose_sounds, Config):
        where = f"{row['sound']} from {row['start_s']:.1f} s"
        print(f"{row['rank']}. {where}, {row['level_db_spl']:g} dB SPL")
