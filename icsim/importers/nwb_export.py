"""An animal of a cohort as an NWB file, in the layout that `icsim.importers.nwb` reads."""

import datetime
import json
import os
import uuid
from pathlib import Path

import numpy as np

from icsim.clock import Clock
from icsim.importers.nwb import COUNTS, NWB, PRESENTATIONS, load_pynwb, written_name
from icsim.recording import AnimalRecording, SoundEntry
from icsim.store import Cohort


def write_nwb(
    cohort: Cohort, animal: str, path: str | Path, session_start: datetime.datetime | None = None
) -> None:
    """Write one animal, and the sounds that it heard, as an NWB file.

    Counts are in the order recorded; alignments and the truth of a simulated animal are left out.
    A recording need not fit into memory.

    Args:
        cohort: Where the animal is.
        animal: Its name, which becomes the subject's.
        path: Where to, ending in `.nwb`; the file appears whole or not at all.
        session_start: When the recording began, with its time zone. NWB wants to know and a cohort
            does not: the default, the beginning of 1970, stands for unknown.

    Raises:
        ValueError: If there is no such animal, or the path does not end in `.nwb`.
        ImportError: If pynwb is missing.
    """
    pynwb, recorded, path = load_pynwb(), cohort.animal(animal), Path(path)
    if path.suffix != ".nwb":
        raise ValueError(f"{path}: an NWB file must end in .nwb; rename it")
    file = pynwb.NWBFile(
        session_description="Sounds played to an animal, and its multi-unit activity",
        identifier=str(uuid.uuid4()),
        session_start_time=session_start or datetime.datetime.fromtimestamp(0, datetime.UTC),
        experiment_description=json.dumps(cohort.description),
        subject=pynwb.file.Subject(subject_id=animal),
    )
    # Room is made for sounds and counts, which are filled in afterwards, one after the other.
    presented = [cohort.sounds[i] for i in sorted({p.sound for p in recorded.presentations})]
    waveforms = {entry.index: _waveform(pynwb, entry, cohort.clock) for entry in presented}
    for waveform in waveforms.values():
        file.add_stimulus_template(waveform)
    order = sorted(
        range(len(recorded.presentations)), key=lambda n: recorded.presentations[n].time_h
    )
    counts = _add_presentations(pynwb, file, cohort, recorded, order)
    _add_hearing(pynwb, file, recorded, presented)

    beside = path.with_name(f".{path.stem}.{os.getpid()}.partial.nwb")
    try:
        with pynwb.NWBHDF5IO(str(beside), "w") as io:
            io.write(file)
            for index, waveform in waveforms.items():
                waveform.data.dataset[:] = cohort.pressure(index).numpy()
            row = 0
            for block in map(recorded.block, order):
                counts.data.dataset[row : row + len(block)] = block
                row += len(block)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _waveform(pynwb: NWB, entry: SoundEntry, clock: Clock) -> NWB:
    silent = entry.level_db_spl is None
    level = "silence" if silent else f"{entry.level_db_spl:.2f} dB SPL (RMS)"
    return pynwb.TimeSeries(
        name=written_name(entry.name),
        description=f"Sound pressure, {level}",
        data=pynwb.H5DataIO(shape=(entry.samples,), dtype=np.dtype("float32"), compression="gzip"),
        unit="pascal",
        rate=clock.sample_rate_hz,
        starting_time=0.0,
    )


def _add_presentations(
    pynwb: NWB, file: NWB, cohort: Cohort, recorded: AnimalRecording, order: list[int]
) -> NWB:
    """Counts, still empty, and the table that says which rows of them are whose."""
    shown, clock = [recorded.presentations[n] for n in order], cohort.clock
    shape = (sum(p.bins for p in shown), recorded.channels)
    bins = [p.time_h * 3600 + np.arange(p.bins) / clock.bin_rate_hz for p in shown]
    counts = pynwb.TimeSeries(
        name=COUNTS,
        description=f"Spikes in bins of {clock.bin_ms:.5f} ms; a column is a channel",
        data=pynwb.H5DataIO(
            shape=shape,
            dtype=np.dtype("uint8"),
            compression="gzip",
            chunks=(min(4096, shape[0]), shape[1]),
        ),
        unit="spikes",
        timestamps=pynwb.H5DataIO(np.concatenate(bins), compression="gzip"),
    )
    module = file.create_processing_module("ecephys", "Multi-unit activity")
    module.add(counts)
    table = pynwb.epoch.TimeIntervals(name=PRESENTATIONS, description="Which sound began when")
    table.add_column("stimulus_name", "Name of the sound's waveform in stimulus/templates")
    row = 0
    for p in shown:
        entry, start_s = cohort.sounds[p.sound], p.time_h * 3600
        table.add_row(
            start_time=start_s,
            stop_time=start_s + entry.samples / clock.sample_rate_hz,
            stimulus_name=written_name(entry.name),
            timeseries=[pynwb.base.TimeSeriesReference(row, p.bins, counts)],
        )
        row += p.bins
    file.add_time_intervals(table)
    return counts


def _add_hearing(
    pynwb: NWB, file: NWB, recorded: AnimalRecording, presented: list[SoundEntry]
) -> None:
    module = file.create_processing_module("hearing", "The animal's hearing, and its sounds")

    def add(name: str, description: str, columns: dict[str, tuple[str, list]]) -> None:
        rows = [
            pynwb.core.VectorData(name=k, description=d, data=v) for k, (d, v) in columns.items()
        ]
        table = pynwb.core.DynamicTable(name=name, description=description, columns=rows)
        module.add(table)

    add(
        "animal",
        "Hearing and use of the animal",
        {
            "status": ("NH or HI: normal hearing or hearing impaired", [recorded.status]),
            "role": ("seen or unseen: whether networks are trained on it", [recorded.role]),
        },
    )
    thresholds_db_spl, frequencies_hz = recorded.thresholds_db_spl, recorded.abr_frequencies_hz
    if thresholds_db_spl is not None and frequencies_hz is not None:
        add(
            "abr_thresholds",
            "Thresholds of the auditory brainstem response",
            {
                "frequency_hz": ("Frequency of the tone [Hz]", list(frequencies_hz)),
                "threshold_db_spl": ("Threshold [dB SPL]", thresholds_db_spl.tolist()),
            },
        )
    add(
        "sounds",
        "What the sounds are",
        {
            "stimulus_name": (
                "Name of its waveform",
                [written_name(entry.name) for entry in presented],
            ),
            "kind": ("Class of sound", [entry.kind for entry in presented]),
            "source": ("Who or what made it", [entry.source for entry in presented]),
            "split": ("train, validation or test", [entry.split for entry in presented]),
        },
    )
