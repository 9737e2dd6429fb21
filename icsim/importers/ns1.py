"""NS1, natural sounds in the auditory cortex of ferrets, as it is published (osf.io/ayw2p).

Below its folder lie `*.mat` files, a cell each, and as many WAV files as there are sounds:

    spikesandwav/<cell>.mat    `data.set(s).repeats(r).t`: spike times of sound s, repeat r [ms]
    SH.En.C/*.wav              the sounds in the order of their names, float32; an RMS of 0.2 is
                               80 dB SPL, so they are in pascals

Source: Harper et al. 2016, doi 10.1371/journal.pcbi.1005113.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from icsim.clock import Clock
from icsim.importers.frames import numeric_order
from icsim.importers.spike_times import Spikes, in_pascals, recording_of
from icsim.recording import Recording
from icsim.sound import Sound, find_audio

FULL_SCALE_DB_SPL = 80 - 20 * np.log10(0.2)
"""Level of a sound whose RMS is 1 in the files [dB SPL]."""


def read_ns1(
    folder: str | Path,
    *,
    role: str = "seen",
    kind: str = "unknown",
    split: str = "train",
    clock: Clock | None = None,
) -> tuple[list[Sound], Recording]:
    """All cells as channels of one animal, which has normal hearing.

    The cells were recorded one after another and in several animals, and every one with all sounds.
    Of each sound so many repeats are taken as every cell has.

    Args:
        folder: What was downloaded, unpacked.
        role: seen or unseen.
        kind: Class of the sounds.
        split: Of all sounds.
        clock: As of `icsim.importers.spike_times.read_spike_times`.

    Raises:
        ValueError: If there are no cells, or one does not fit; the message names it.
    """
    folder, clock = Path(folder), clock or Clock()
    files = sorted(folder.rglob("*.mat"), key=numeric_order)
    if not files:
        raise ValueError(f"{folder}: no file CELL.mat below it")
    waveforms = sorted(find_audio(folder), key=numeric_order)
    sounds = [
        Sound(path.stem, kind, path.stem, split, in_pascals(path, FULL_SCALE_DB_SPL, clock))
        for path in waveforms
    ]
    cells = {path.stem: _repeats(path) for path in files}
    wrong = [name for name, of_cell in cells.items() if len(of_cell) != len(sounds)]
    if wrong:
        raise ValueError(
            f"{folder}: {len(sounds)} WAV files, but {len(cells[wrong[0]])} sounds in "
            f"{wrong[0]}.mat; leave in the folder the sounds that were played, and no others"
        )
    spikes: Spikes = {name: {} for name in cells}
    for number, sound in enumerate(sounds):
        common = min(len(of_cell[number]) for of_cell in cells.values())
        for name, of_cell in cells.items():
            repeats = of_cell[number][:common]
            spikes[name][sound.name] = {str(r): times_s for r, times_s in enumerate(repeats)}
    return sounds, recording_of(spikes, sounds, {}, clock, status="NH", role=role)


def _repeats(path: Path) -> Sequence[Sequence[np.ndarray]]:
    """Spike times [s] of each sound and repeat of a cell."""
    try:
        sets = np.atleast_1d(loadmat(path, simplify_cells=True)["data"]["set"])
        return [
            [
                np.atleast_1d(np.asarray(repeat["t"], np.float64)).ravel() / 1e3
                for repeat in np.atleast_1d(one["repeats"])
            ]
            for one in sets
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise ValueError(
            f"{path}: has no spike times data.set(s).repeats(r).t ({error}); move other files away"
        ) from error
