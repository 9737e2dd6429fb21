"""The clock of a recording: how fast sound is sampled, and how many samples a response bin has."""

import dataclasses

from .sound import BIN_SAMPLES, SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Clock:
    """Sample rate and bin width, which a cohort, its frames and a model of it share.

    >>> Clock().bin_ms
    1.31072
    >>> Clock(48000.0, 240).bin_ms
    5.0
    """

    sample_rate_hz: float = SAMPLE_RATE
    """Of sounds [Hz]."""
    bin_samples: int = BIN_SAMPLES
    """Samples of sound in one response bin."""

    def __post_init__(self):
        if not 0 < self.sample_rate_hz < float("inf") or self.bin_samples < 1:
            raise ValueError(
                f"a clock needs a positive sample rate and whole bins, got {self.sample_rate_hz} "
                f"Hz and {self.bin_samples} samples"
            )

    @property
    def bin_rate_hz(self) -> float:
        """Response bins a second."""
        return self.sample_rate_hz / self.bin_samples

    @property
    def bin_ms(self) -> float:
        """Width of a bin [ms]."""
        return 1e3 * self.bin_samples / self.sample_rate_hz

    def hours(self, samples: float) -> float:
        """How long so many samples last [h]."""
        return samples / self.sample_rate_hz / 3600


def require_clock(clock: Clock, wanted: Clock, where: str) -> None:
    """Refuse what runs on another clock than the model that is to be asked about it.

    Args:
        clock: Of some recording.
        wanted: Of the model.
        where: What the message names: the recording.

    Raises:
        ValueError: If they differ.
    """
    if clock != wanted:
        raise ValueError(
            f"{where}: sampled at {clock.sample_rate_hz:g} Hz in bins of {clock.bin_samples} "
            f"samples, the model at {wanted.sample_rate_hz:g} Hz in bins of {wanted.bin_samples}; "
            "take a model that was trained on such recordings"
        )
