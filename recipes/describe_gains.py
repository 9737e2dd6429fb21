"""Which fixed gains a loss asks for, band by band, and which part of it asks.

`python -m recipes.describe_gains --out docs/images`: the last table and figure of
`docs/simulation.md`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from compensation.bands import HOP, WINDOW, Bands, ShortTime
from compensation.linear import apply, best_linear_gain
from evaluation.neural import discrepancies, pooled_restoration
from icsim.simulation.animal import Anatomy, Animal, Loss, draw_anatomy, draw_loss
from icsim.simulation.hearing import FREQUENCIES_HZ
from icsim.simulation.sounds import embedded_sounds
from icsim.sound import BIN_SAMPLES, calibrate
from recipes.reports import animals as draw
from recipes.reports.tables import markdown
from recipes.running.commands import begin, run
from recipes.running.ranges import Count, NotEmptyStr, Seed, checked

BANDS = 12
"""Gains that are sought, equally wide in ERBs."""

LOW_HZ = (200.0, 500.0)
"""Bands whose gain is asked about: no hair cell is lost there, and speech is strong [Hz]."""

SENTENCES, SENTENCE_BINS = 3, 762
"""What is heard: so many excerpts of so many bins (a second) of speech."""

LEVELS_DB_SPL = (50.0, 65.0, 80.0)


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """How much is measured; half an hour as it is."""

    out: NotEmptyStr | None = None
    """Folder of the figure; without one there is only a table."""
    animals: Count = 3
    """Animals of severity 1."""
    channels: Count = 48
    """Channels of each."""
    steps: Count = 20
    """Gradients computed for each set of gains, about."""
    seed: Seed = 0
    """Of animals and sounds."""


def describe(config: Config) -> str:
    """The table in Markdown; writes the figure."""
    draw_anatomy(config.channels, config.seed)
    if config.out:
        Path(config.out).mkdir(parents=True, exist_ok=True)
    begin()
    gains = study(config.animals, config.channels, 1.0, config.steps, config.seed)
    if config.out:
        figure = draw.gains(centres_hz(), middle_gains_db(gains), LOW_HZ)
        draw.save(figure, Path(config.out) / "gains.png")
    return markdown(rows(gains))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The best fixed gains of one animal at one level."""

    gains_db: tuple[float, ...]
    """In each band [dB]."""
    restored: float
    """Restoration with them."""
    restored_without_low: float
    """Restoration with 0 dB in the bands of `LOW_HZ` and the same gains elsewhere."""


def study(
    animals: int, channels: int, severity: float, steps: int, seed: int
) -> dict[str, list[list[Wanted]]]:
    """Best gains of impaired animals, whole and with parts switched off.

    Args:
        animals: How many.
        channels: Of each.
        severity: Of their hearing loss.
        steps: Gradients computed for each, about.
        seed: Of animals and sounds.

    Returns:
        By variant, for each animal what it asks for at each of `LEVELS_DB_SPL`.
    """
    sound = sentences(seed)
    by_variant: dict[str, list[list[Wanted]]] = {}
    with tqdm(total=animals * len(PARTS) * len(LEVELS_DB_SPL), desc="gains", unit="fit") as bar:
        for n in range(seed, seed + animals):
            animals_of = variants(draw_anatomy(channels, n), draw_loss("HI", severity, n))
            for name, animal in animals_of.items():
                levels = []
                for level_db_spl in LEVELS_DB_SPL:
                    levels.append(wanted(animal, sound, level_db_spl, steps))
                    bar.update()
                by_variant.setdefault(name, []).append(levels)
    return by_variant


PARTS = (
    "whole loss",
    "no synapses lost",
    "no central gain",
    "no low-frequency drive",
    "hair cells alone",
    "synapses alone",
    "central gain alone",
    "channels below 0.7 kHz",
    "channels above 1.5 kHz",
)
"""Names of the variants."""


def variants(anatomy: Anatomy, loss: Loss) -> dict[str, Animal]:
    """One animal with its whole loss, and with parts of the loss or of the brain switched off."""
    intact = (0.0,) * len(FREQUENCIES_HZ)
    cf_hz = Animal(anatomy).cf_hz

    def lost(**changes) -> Animal:
        return Animal(anatomy, dataclasses.replace(loss, **changes))

    def with_channels(alive: Tensor) -> Animal:
        dead = sorted({*anatomy.dead, *(~alive).nonzero().flatten().tolist()})
        return Animal(dataclasses.replace(anatomy, dead=tuple(dead)), loss)

    animals = (
        lost(),
        lost(synaptopathy=0.0),
        lost(central_gain=1.0),
        without_low_frequency_drive(lost()),
        without_low_frequency_drive(lost(synaptopathy=0.0, central_gain=1.0)),
        lost(ohc_db=intact, ihc_db=intact, central_gain=1.0),
        lost(ohc_db=intact, ihc_db=intact, synaptopathy=0.0),
        with_channels(cf_hz < 700),
        with_channels(cf_hz > 1500),
    )
    return dict(zip(PARTS, animals, strict=True))


def without_low_frequency_drive(animal: Animal) -> Animal:
    """The same animal, whose high channels listen to their own places alone."""
    animal.excited_by = animal.healthy().excited_by
    return animal


def wanted(animal: Animal, sound: Tensor, level_db_spl: float, steps: int) -> Wanted:
    """Best fixed gains through one animal: what brings it nearest to its healthy twin.

    Args:
        animal: The impaired one.
        sound: Of any amplitude, `(B, T)`.
        level_db_spl: At which it is heard [dB SPL].
        steps: Gradients computed, about.
    """
    sound = calibrate(sound, level_db_spl)
    normal = animal.healthy()
    with torch.no_grad():
        target = normal(sound)
    best = best_linear_gain(animal, target, sound, BANDS, steps)
    without_low = torch.where(low_bands(), 0.0, best)
    with torch.no_grad():
        restored, without = (
            pooled_restoration(*discrepancies(animal, normal, sound, apply(sound, gains)))
            for gains in (best, without_low)
        )
    return Wanted(tuple(best.tolist()), restored, without)


def sentences(seed: int) -> Tensor:
    """Excerpts of embedded speech, `(SENTENCES, T)`."""
    samples = SENTENCE_BINS * BIN_SAMPLES
    speech = [
        s.pressure for s in embedded_sounds((0.0, 0.0, 72.0), seed, 5.0) if s.kind == "speech"
    ]
    return torch.stack([s[len(s) // 4 :][:samples] for s in speech[:SENTENCES]])


def centres_hz() -> Tensor:
    """Of the bands [Hz], `(BANDS,)`."""
    return Bands(BANDS, ShortTime(WINDOW, HOP)).centres_hz


def low_bands() -> Tensor:
    """Which bands lie within `LOW_HZ`, `(BANDS,)`."""
    low, high = LOW_HZ
    return (centres_hz() >= low) & (centres_hz() <= high)


def low_gains_db(wanted: Sequence[Sequence[Wanted]]) -> Tensor:
    """Mean gain in the bands of `LOW_HZ` [dB], animals by levels, `(A, L)`."""
    gains = torch.tensor([[one.gains_db for one in levels] for levels in wanted])
    return gains[..., low_bands()].mean(-1)


def rows(gains_of: Mapping[str, Sequence[Sequence[Wanted]]]) -> list[list[str]]:
    """Cells of a table: gains in the low bands by level, and restoration at the middle level.

    Gains are means over animals, with their range.
    """
    header = ["gain at 0.2–0.5 kHz [dB]", *(f"{level:g} dB SPL" for level in LEVELS_DB_SPL)]
    lines = [[*header, "restoration at 65 dB SPL", "… without these gains"]]
    for name, wanted in gains_of.items():
        gains = low_gains_db(wanted)
        spans = zip(
            gains.mean(0).tolist(), gains.amin(0).tolist(), gains.amax(0).tolist(), strict=True
        )
        middle = [levels[len(LEVELS_DB_SPL) // 2] for levels in wanted]
        restored, without = (
            sum(getattr(one, field) for one in middle) / len(middle)
            for field in ("restored", "restored_without_low")
        )
        cells = [f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" for mean, low, high in spans]
        lines.append([name, *cells, f"{restored:.2f}", f"{without:.2f}"])
    return lines


def middle_gains_db(gains_of: Mapping[str, Sequence[Sequence[Wanted]]]) -> dict[str, Tensor]:
    """Gains of each variant's animals at the middle level [dB], `(A, BANDS)`."""
    middle = len(LEVELS_DB_SPL) // 2
    return {
        name: torch.tensor([levels[middle].gains_db for levels in wanted])
        for name, wanted in gains_of.items()
    }


if __name__ == "__main__":
    print(run(describe, Config))
