"""Audiograms: hearing thresholds [dB HL] at frequencies [Hz]."""

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icsim.files import whole_file

LOWEST_DB_HL, HIGHEST_DB_HL = -20.0, 130.0
"""Thresholds beyond these are refused. Source: chosen here; audiometers reach -10 to 120 dB HL."""

NORMAL_UP_TO_HZ = 500.0
"""At and below it, thresholds measured at higher frequencies say nothing (chosen here)."""

CSV_COLUMNS = ("frequency_hz", "threshold_db_hl")

SUFFIXES = (".json", ".csv")

STANDARD_HZ = (250, 375, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000)
"""Frequencies of the standard audiograms [Hz]. Source: as `STANDARD_DB_HL`."""

STANDARD_DB_HL = {
    "normal": (0,) * 10,
    "N1": (10, 10, 10, 10, 10, 10, 15, 20, 30, 40),
    "N2": (20, 20, 20, 22.5, 25, 30, 35, 40, 45, 50),
    "N3": (35, 35, 35, 35, 40, 45, 50, 55, 60, 65),
    "N4": (55, 55, 55, 55, 55, 60, 65, 70, 75, 80),
    "N5": (65, 67.5, 70, 72.5, 75, 80, 80, 80, 80, 80),
    "N6": (75, 77.5, 80, 82.5, 85, 90, 90, 95, 100, 100),
    "N7": (90, 92.5, 95, 100, 105, 105, 105, 105, 105, 105),
    "S1": (10, 10, 10, 10, 10, 10, 15, 30, 55, 70),
    "S2": (20, 20, 20, 22.5, 25, 35, 55, 75, 95, 95),
    "S3": (30, 30, 35, 47.5, 60, 70, 75, 80, 80, 85),
}
"""Flat and sloping (N) and steep (S) losses that stand for those of clinics [dB HL].

Source: Bisgaard, Vlaming & Dahlquist 2010, Trends Amplif. 14:113-120, the ten audiograms of
IEC 60118-15. `normal` is added here.
"""


@dataclasses.dataclass(frozen=True)
class Audiogram:
    """Thresholds of one ear.

    Raises:
        ValueError: If the two differ in length or are empty, if frequencies are not positive and
            ascending, or thresholds not finite and within -20 to 130 dB HL.

    >>> Audiogram((500, 1000, 2000), (0, 20, 40)).at([250, 500, 4000]).tolist()
    [0.0, 0.0, 40.0]
    """

    frequencies_hz: tuple[float, ...]
    """Ascending audiometric frequencies [Hz], F of them."""
    thresholds_db_hl: tuple[float, ...]
    """Hearing thresholds [dB HL], F of them; 0 is normal, more is worse."""

    def __post_init__(self) -> None:
        # Lists, arrays and whole numbers are welcome; what is kept compares and hashes.
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, tuple(map(float, getattr(self, field.name))))
        frequencies, thresholds = self.frequencies_hz, self.thresholds_db_hl
        if len(frequencies) != len(thresholds) or not frequencies:
            raise ValueError(
                f"{len(frequencies)} frequencies and {len(thresholds)} thresholds; "
                "give one threshold for each frequency, at least one"
            )
        steps = zip((0.0, *frequencies), frequencies, strict=False)
        if not all(low < high < math.inf for low, high in steps):
            raise ValueError(f"frequencies must be positive and ascending, got {frequencies} Hz")
        if not all(LOWEST_DB_HL <= threshold <= HIGHEST_DB_HL for threshold in thresholds):
            raise ValueError(
                f"thresholds must be {LOWEST_DB_HL:g} to {HIGHEST_DB_HL:g} dB HL, got {thresholds};"
                " where nothing was heard, give the highest level that was tried"
            )

    @classmethod
    def from_thresholds(
        cls,
        thresholds_db_spl: Sequence[float] | Tensor,
        frequencies_hz: Sequence[float] | Tensor,
        normal_db_spl: Sequence[float] | Tensor,
    ) -> "Audiogram":
        """The shift of measured thresholds from the normal ones, and none at or below 500 Hz.

        Args:
            thresholds_db_spl: Thresholds, for instance of brainstem responses [dB SPL], `(F,)`.
            frequencies_hz: Where, ascending and above 500 Hz [Hz], `(F,)`.
            normal_db_spl: Mean thresholds of normal ears at these frequencies [dB SPL], `(F,)`.

        Raises:
            ValueError: As the class does, and if the three differ in length or a frequency is
                500 Hz or less.

        >>> Audiogram.from_thresholds([30, 60], [1000, 4000], [25, 20]).thresholds_db_hl
        (0.0, 5.0, 40.0)
        """
        counts = len(thresholds_db_spl), len(frequencies_hz), len(normal_db_spl)
        if len(set(counts)) > 1:
            raise ValueError(
                f"{counts} thresholds, frequencies and normal thresholds; give equally many"
            )
        if min(frequencies_hz, default=math.inf) <= NORMAL_UP_TO_HZ:
            raise ValueError(
                f"at and below {NORMAL_UP_TO_HZ:g} Hz the shift is taken as 0; leave out thresholds"
                f" there, got {list(frequencies_hz)} Hz"
            )
        shifts = (
            float(threshold) - float(normal)
            for threshold, normal in zip(thresholds_db_spl, normal_db_spl, strict=True)
        )
        return cls((NORMAL_UP_TO_HZ, *frequencies_hz), (0.0, *shifts))

    def at(self, frequencies_hz: Sequence[float] | Tensor) -> Tensor:
        """Thresholds at any frequencies: linear on log frequency, constant beyond the outermost.

        Args:
            frequencies_hz: Positive frequencies [Hz], `(*,)`.

        Returns:
            Thresholds [dB HL], `(*,)`, on the device of the frequencies.
        """
        wanted = torch.as_tensor(frequencies_hz)
        if not wanted.is_floating_point():
            wanted = wanted.to(torch.get_default_dtype())
        if not bool((wanted > 0).all()):
            raise ValueError(f"frequencies must be positive, got {wanted.tolist()} Hz")
        # In double precision, so that the measured points come out as they went in.
        log_wanted = np.log(wanted.detach().cpu().double().numpy())
        levels = np.interp(log_wanted, np.log(self.frequencies_hz), self.thresholds_db_hl)
        return torch.as_tensor(levels).to(wanted)

    def write(self, path: str | Path) -> None:
        """Write `.json` or `.csv`; the file appears whole or not at all."""
        path = Path(path)
        suffix = _known_suffix(path)
        with (
            whole_file(path) as beside,
            beside.open("w", encoding="utf-8", newline="") as file,
        ):
            if suffix == ".json":
                json.dump(dataclasses.asdict(self), file, indent=1)
            else:
                table = csv.writer(file)
                table.writerow(CSV_COLUMNS)
                table.writerows(zip(self.frequencies_hz, self.thresholds_db_hl, strict=True))

    @classmethod
    def read(cls, path: str | Path) -> "Audiogram":
        """Read what `write` wrote.

        A JSON file has the keys `frequencies_hz` and `thresholds_db_hl`, a CSV file the columns
        `frequency_hz` and `threshold_db_hl`.

        Raises:
            ValueError: If the file holds no audiogram, naming it.
        """
        path = Path(path)
        suffix = _known_suffix(path)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                if suffix == ".json":
                    return cls(**json.load(file))
                rows = list(csv.DictReader(file))
            columns = [[row[column] for row in rows] for column in CSV_COLUMNS]
            return cls(*(tuple(map(float, column)) for column in columns))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: no audiogram in it ({error!r}); a CSV file needs the columns "
                f"{','.join(CSV_COLUMNS)}, a JSON file the lists frequencies_hz and "
                "thresholds_db_hl"
            ) from error


def audiogram(name: str | Path) -> Audiogram:
    """A standard audiogram by its name, or one from a file.

    Args:
        name: `N1` to `N7` and `S1` to `S3` (Bisgaard et al. 2010), `normal`, or a path that ends
            in `.json` or `.csv`: see `Audiogram.read`.

    Raises:
        ValueError: If it is neither, or the file holds no audiogram.

    >>> audiogram("N3").at([1000, 4000]).tolist()
    [40.0, 60.0]
    """
    if str(name) in STANDARD_DB_HL:
        return Audiogram(STANDARD_HZ, STANDARD_DB_HL[str(name)])
    if Path(name).suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{name}: no standard audiogram, and no .json or .csv file; "
            f"the standard ones are {', '.join(STANDARD_DB_HL)}"
        )
    return Audiogram.read(name)


def _known_suffix(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: an audiogram is kept as .json or .csv")
    return path.suffix.lower()
