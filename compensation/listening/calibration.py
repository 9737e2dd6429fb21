"""How loud a sample of 1 is at the ear: a file that whoever measured it has written."""

import dataclasses
import json
import math
from datetime import date
from pathlib import Path

LOWEST_DB_SPL, HIGHEST_DB_SPL = 60.0, 150.0
"""Full scales beyond these are taken for mistakes [dB SPL] (chosen here)."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A measurement of the sound at the ear."""

    date: str
    """When, as 2026-11-25."""
    transducer: str
    """Headphones, their amplifier and its setting."""
    full_scale_db_spl: float
    """Level of a sound whose RMS is 1 [dB SPL]; a full-scale sine is 3 dB softer."""

    def __post_init__(self):
        try:
            measured = date.fromisoformat(self.date)
        except (TypeError, ValueError) as error:
            raise ValueError(f"date must be like 2026-11-25, got {self.date!r}") from error
        if measured > date.today():
            raise ValueError(f"date must not lie in the future, got {self.date}")
        if not isinstance(self.transducer, str) or not self.transducer.strip():
            raise ValueError(f"transducer must say what was measured, got {self.transducer!r}")
        level = self.full_scale_db_spl
        if isinstance(level, bool) or not isinstance(level, int | float):
            raise ValueError(f"full_scale_db_spl must be a number [dB SPL], got {level!r}")
        if not (math.isfinite(level) and LOWEST_DB_SPL <= level <= HIGHEST_DB_SPL):
            raise ValueError(
                f"full_scale_db_spl must be {LOWEST_DB_SPL:g} to {HIGHEST_DB_SPL:g} dB SPL, "
                f"got {level}; measure again"
            )


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration, a JSON object with the fields of `Calibration`.

    Raises:
        ValueError: If it is none, naming the file and what is wrong.
    """
    try:
        return Calibration(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: no calibration ({error}); a JSON object with date, transducer and "
            "full_scale_db_spl is needed, see docs/listening.md"
        ) from error
