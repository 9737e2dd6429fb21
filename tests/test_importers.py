"""Recordings of others become cohorts, exactly, or are refused with a reason."""

import csv
import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from icsim import store
from icsim.frames import Frames
from icsim.importers.frames import Frame, folder_frames, read_frames
from icsim.importers.ns1 import read_ns1
from icsim.importers.nwb import original_name, read_nwb, written_name
from icsim.importers.nwb_export import write_nwb
from icsim.importers.spike_times import read_spike_times
from icsim.importers.splits import shared_sources, split_by_source, with_splits
from icsim.recording import Recording
from icsim.sound import RESPONSE_RATE, SAMPLE_RATE, Sound, level, read, resample, write
from icsim.store import Cohort

STARLING = Path(__file__).parents[1].parent / "shared" / "neural" / "starling"
CHANNELS = 5
LENGTHS = (9_000, 6_411, 4_000)
HEARD = [(1, 0.0), (0, 0.01), (2, 0.02 + 1e-7), (1, 10.9)]


def noise(samples: int, seed: int, sample_rate: float = SAMPLE_RATE) -> torch.Tensor:
    """Noise below 5.5 kHz, so that resampling leaves it nearly as it is [Pa]."""
    generator = torch.Generator().manual_seed(seed)
    slow = torch.randn(round(samples * 11_000 / sample_rate) + 1, generator=generator)
    return 0.05 * resample(slow, 11_000, sample_rate)[:samples]


def cohort_of(folder: Path, **changes) -> Cohort:
    """Three sounds, one with a name that NWB does not allow, and the animal `a`."""
    names = ("speech/50 %: one", "b", "c")
    splits = ("train", "test", "validation")
    sounds = [
        Sound(name, "music", f"piece {i}", split, noise(n, i))
        for i, (name, split, n) in enumerate(zip(names, splits, LENGTHS, strict=True))
    ]
    cohort = store.create(folder / "cohort", sounds, {"seed": 7})
    rng = np.random.default_rng(0)
    blocks = [
        rng.integers(0, 255, (LENGTHS[i] // 32, CHANNELS), np.uint8)
        for i, _ in changes.get("presentations", HEARD)
    ]
    made = Recording("HI", "unseen", (30.0, 45.5), (1e3, 4e3), CHANNELS, HEARD, blocks)
    cohort.add_animal("a", dataclasses.replace(made, **changes))
    return cohort


def stored(folder: Path, name: str, sounds: list[Sound], recording: Recording) -> Cohort:
    cohort = store.create(folder, sounds)
    cohort.add_animal(name, recording)
    return cohort


# NWB: what was exported ---------------------------------------------------------------------------


@pytest.mark.parametrize("thresholds", [(30.0, 45.5), None])
def test_a_cohort_comes_back_from_nwb_as_it_was(tmp_path, thresholds):
    pytest.importorskip("pynwb")
    before = cohort_of(tmp_path, thresholds_db_spl=thresholds)
    write_nwb(before, "a", tmp_path / "a.nwb")
    after = stored(tmp_path / "again", *read_nwb(tmp_path / "a.nwb"))
    assert after.animals() == ["a"]
    for old, new in zip(before.sounds, after.sounds, strict=True):
        assert old == new
        assert torch.equal(before.pressure(old.index), after.pressure(new.index))
    old, new = before.animal("a"), after.animal("a")
    assert (new.status, new.role, new.channels) == ("HI", "unseen", CHANNELS)
    assert new.abr_frequencies_hz == (None if thresholds is None else (1e3, 4e3))
    found = None if thresholds is None else tuple(new.thresholds_db_spl.tolist())
    assert found == thresholds
    assert [p.sound for p in new.presentations] == [i for i, _ in HEARD]
    assert np.allclose([p.time_h for p in new.presentations], [h for _, h in HEARD], atol=1e-9)
    for number in range(len(HEARD)):
        assert torch.equal(old.counts(number), new.counts(number))


def test_presentations_come_back_in_order_of_time_and_unheard_sounds_not_at_all(tmp_path):
    pytest.importorskip("pynwb")
    heard = [(2, 0.5), (1, 0.1), (2, 0.0)]
    before = cohort_of(tmp_path, presentations=heard)
    write_nwb(before, "a", tmp_path / "a.nwb")
    after = stored(tmp_path / "again", *read_nwb(tmp_path / "a.nwb"))
    assert [s.name for s in after.sounds] == ["b", "c"]
    new = after.animal("a")
    assert [(p.sound, p.time_h) for p in new.presentations] == [(1, 0.0), (0, 0.1), (1, 0.5)]
    for old_number, new_number in ((0, 2), (1, 1), (2, 0)):
        assert torch.equal(before.animal("a").counts(old_number), new.counts(new_number))


def test_sounds_that_follow_each_other_at_once_keep_their_own_bins(tmp_path):
    pytest.importorskip("pynwb")
    end_h = LENGTHS[0] / SAMPLE_RATE / 3600
    less_h = end_h - 0.9 / RESPONSE_RATE / 3600  # as far as the store tolerates it
    before = cohort_of(tmp_path, presentations=[(0, 0.0), (2, less_h), (1, 1.0)])
    write_nwb(before, "a", tmp_path / "a.nwb")
    new = stored(tmp_path / "again", *read_nwb(tmp_path / "a.nwb")).animal("a")
    for number in range(3):
        assert torch.equal(before.animal("a").counts(number), new.counts(number))


def test_what_is_exported_keeps_to_the_standard(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    write_nwb(cohort_of(tmp_path), "a", tmp_path / "a.nwb")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nwb", "cohort"]
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "r") as io:
        assert not pynwb.validate(io=io)
        file = io.read()
        table = file.intervals["presentations"].to_dataframe()
        assert list(table["stimulus_name"])[1] == "speech%2F50 %25%3A one"
        waveform = file.stimulus_template["b"]
        assert (waveform.unit, waveform.rate) == ("pascal", SAMPLE_RATE)
        counts = file.processing["ecephys"]["multi_unit_activity"]
        refers = table["timeseries"].iloc[2][0]
        assert refers.timeseries is counts
        assert counts.timestamps[refers.idx_start] == pytest.approx(HEARD[2][1] * 3600, abs=1e-6)


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    pytest.importorskip("pynwb")
    cohort = cohort_of(tmp_path)
    monkeypatch.setattr(type(cohort), "pressure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_nwb(cohort, "a", tmp_path / "a.nwb")
    assert [p.name for p in tmp_path.iterdir()] == ["cohort"]
    with pytest.raises(ValueError, match=r"must end in \.nwb"):
        write_nwb(cohort, "a", tmp_path / "a.hdf5")


@pytest.mark.parametrize("name", ["plain", "a/b:c", "%", "%2F", "%252F", "50 % of x/y", "ü"])
def test_every_name_survives_nwb(name):
    assert original_name(written_name(name)) == name
    assert not set("/:") & set(written_name(name))


# NWB: files of laboratories -----------------------------------------------------------------------

LAB_RATE = 44_100.0
STARTS_S = (1.5, 3.25, 7.0)
TONES = ("low", "high", "low")


def lab_file(path: Path, **changes) -> Path:
    """Stimuli in volts at 44.1 kHz, a table of trials, and counts or spike times."""
    import pynwb

    lab = {
        "starts_s": STARTS_S,
        "names": TONES,
        "unit": "volts",
        "counts": None,
        "counts_rate": RESPONSE_RATE,
        "timestamps": None,
        "units": None,
        "conversion": 1.0,
        "stops_s": None,
    } | changes
    stops_s = lab["stops_s"] or [start_s + 0.5 for start_s in lab["starts_s"]]
    file = pynwb.NWBFile(
        session_description="session",
        identifier="id",
        session_start_time=datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    )
    for seed, name in enumerate(("low", "high")):
        voltage = 20 * noise(round(0.5 * LAB_RATE), seed, LAB_RATE).numpy()
        file.add_stimulus(
            pynwb.TimeSeries(name=name, data=voltage, unit=lab["unit"], rate=LAB_RATE)
        )
    file.add_trial_column("tone", "which")
    for start_s, stop_s, name in zip(lab["starts_s"], stops_s, lab["names"], strict=True):
        file.add_trial(start_time=start_s, stop_time=stop_s, tone=name)
    if lab["counts"] is not None:
        times = {"rate": lab["counts_rate"]}
        if lab["timestamps"] is not None:
            times = {"timestamps": lab["timestamps"]}
        series = pynwb.TimeSeries(
            name="mua",
            data=lab["counts"],
            unit="spikes",
            conversion=lab["conversion"],
            **times,
        )
        file.create_processing_module("ecephys", "counts").add(series)
    for times_s in lab["units"] or ():
        file.add_unit(spike_times=times_s)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def read_lab(path: Path, **changes):
    options = {
        "status": "NH",
        "counts": "mua",
        "presentations": "trials",
        "stimulus_column": "tone",
        "full_scale_db_spl": 80.0,
    }
    return read_nwb(path, **(options | changes))


def session_counts(dtype=np.int32, seconds: float = 9.0) -> np.ndarray:
    return np.random.default_rng(3).poisson(2.0, (int(seconds * RESPONSE_RATE), 3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
@pytest.mark.parametrize("stamped", [False, True])
def test_counts_of_a_whole_session_are_cut_at_the_stimuli(tmp_path, dtype, stamped):
    pytest.importorskip("pynwb")
    counts = session_counts(dtype)
    timestamps = np.arange(len(counts)) / RESPONSE_RATE if stamped else None
    path = lab_file(tmp_path / "bat 12.nwb", counts=counts, timestamps=timestamps)
    name, sounds, recording = read_lab(path)
    animal = stored(tmp_path / "c", name, sounds, recording).animal("bat-12")
    assert (animal.status, animal.role, animal.channels) == ("NH", "seen", 3)
    assert [sounds[p.sound].name for p in animal.presentations] == list(TONES)
    assert np.allclose([3600 * p.time_h for p in animal.presentations], STARTS_S)
    for number, start_s in enumerate(STARTS_S):
        first = round(start_s * RESPONSE_RATE)
        expected = torch.from_numpy(counts[first : first + 381].astype(np.uint8))
        assert torch.equal(animal.counts(number), expected)


def test_stimuli_are_resampled_and_calibrated(tmp_path):
    pytest.importorskip("pynwb")
    _, sounds, _ = read_lab(lab_file(tmp_path / "a.nwb", counts=session_counts()))
    for seed, sound in enumerate(sounds):
        expected = noise(round(0.5 * LAB_RATE), seed, LAB_RATE)
        rms = 20 * expected.square().mean().sqrt()
        assert level(sound.pressure).item() == pytest.approx(
            80 + 20 * np.log10(rms.item()), abs=0.05
        )
        same = noise(len(sound.pressure), seed)[500:-500] * (20 * 20e-6 * 10**4)
        error = sound.pressure[500:-500] - same
        assert error.norm() < 0.05 * same.norm()


def test_spike_times_are_binned_from_each_stimulus(tmp_path):
    pytest.importorskip("pynwb")
    rng = np.random.default_rng(5)
    units = [np.sort(rng.uniform(0, 9, n)) for n in (900, 20)] + [np.array([100.0])]
    name, sounds, recording = read_lab(lab_file(tmp_path / "a.nwb", units=units))
    animal = stored(tmp_path / "c", name, sounds, recording).animal("a")
    for number, start_s in enumerate(STARTS_S):
        edges_s = start_s + np.arange(382) / RESPONSE_RATE
        expected = np.stack([np.histogram(u, edges_s)[0] for u in units], -1)
        assert np.array_equal(animal.counts(number).numpy(), expected)


def units() -> list[np.ndarray]:
    return [np.linspace(0, 9, 50)]


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ({"units": units()}, {"full_scale_db_spl": None}, "'low' is in 'volts', not in pascals"),
        ({"units": units()}, {"status": None}, "a.nwb: does not say how the animal hears"),
        ({"units": units()}, {"status": "deaf"}, "status is 'deaf'"),
        (
            {"units": units()},
            {"presentations": "x"},
            "no table of presentations 'x'.* trials: name",
        ),
        (
            {"units": units()},
            {"stimulus_column": "x"},
            "no column 'x' .*start_time, stop_time, tone",
        ),
        (
            {"units": units(), "names": ("low", "rest", "low")},
            {},
            "'rest' .*the stimuli are high, low",
        ),
        ({"units": units(), "starts_s": (1.0, 1.4, 3.0)}, {}, "presentation 1 begins at .* before"),
        (
            {"units": units(), "starts_s": (1.0, np.nan, 3.0)},
            {},
            r"\[1\] of 'trials' have no start",
        ),
        ({}, {}, "no counts 'mua' and no spike times of units; its TimeSeries are high, low"),
        ({"counts": session_counts(), "counts_rate": 1000.0}, {}, "1000.000000 Hz, or gaps"),
        ({"counts": session_counts(), "counts_rate": 762.9}, {}, "762.900000 Hz, or gaps"),
        ({"counts": session_counts(), "timestamps": np.arange(6866) / 1e3}, {}, "1000.000000 Hz"),
        (
            {"counts": session_counts(), "timestamps": 1 + np.arange(6866) / RESPONSE_RATE}
            | {"starts_s": (0.5, 2.0, 4.0)},
            {},
            "begins at 0.500000 s, but the bin of 'mua' at 1.000000 s",
        ),
        (
            {"counts": session_counts(seconds=7.2)},
            {},
            r"presentation 2 \(low\) .*complete the counts",
        ),
        ({"counts": session_counts(), "conversion": 0.5}, {}, "with a conversion of 0.5"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, file, options, message):
    pytest.importorskip("pynwb")
    with pytest.raises(ValueError, match=message):
        read_lab(lab_file(tmp_path / "a.nwb", **file), **options)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (256, np.int32, "counts from .* to 256"),
        (-1, np.int32, "from -1"),
        (0.5, float, "no counts"),
    ],
)
def test_counts_that_cannot_be_stored_are_refused(tmp_path, value, dtype, message):
    pytest.importorskip("pynwb")
    counts = session_counts(dtype)
    counts[2600, 1] = value
    name, sounds, recording = read_lab(lab_file(tmp_path / "a.nwb", counts=counts))
    with pytest.raises(ValueError, match=message):
        stored(tmp_path / "c", name, sounds, recording)


def test_what_is_no_nwb_file_is_refused(tmp_path):
    pytest.importorskip("pynwb")
    (tmp_path / "a.nwb").write_text("spikes")
    for path in (tmp_path / "a.nwb", tmp_path / "missing.nwb"):
        with pytest.raises(ValueError, match=f"{path.name}: cannot be read as NWB"):
            read_nwb(path)


def test_nothing_was_played_only_where_that_is_said(tmp_path):
    pytest.importorskip("pynwb")
    path = lab_file(tmp_path / "a.nwb", units=units(), names=("low", "rest", "high"))
    with pytest.raises(ValueError, match=r"'rest' .*no waveform.*--spontaneous '\[rest\]' makes"):
        read_lab(path)
    with pytest.raises(ValueError, match="low has a waveform, so it is not spontaneous"):
        read_lab(path, spontaneous=["rest", "low"])


def test_silence_lasts_as_long_as_the_table_says_and_its_spikes_are_counted(tmp_path):
    pytest.importorskip("pynwb")
    rng = np.random.default_rng(5)
    fired = [np.sort(rng.uniform(0, 20, n)) for n in (900, 200)]
    stops_s = (2.0, 5.2504, 7.5, 14.3996, 19.2)
    path = lab_file(
        tmp_path / "a.nwb",
        units=fired,
        names=("low", "rest", "high", "rest", "rest"),
        starts_s=(1.5, 3.0, 7.0, 9.4, 14.2 + 2.75),
        stops_s=stops_s,
    )
    name, sounds, recording = read_lab(path, spontaneous=["rest"])
    cohort = stored(tmp_path / "c", name, sounds, recording)
    # 5 s and 2.25 s twice, cut to 10 ms; a bin less than 5 s is 5 s
    rest = [s for s in cohort.sounds if s.kind == "spontaneous"]
    assert [(s.name, s.source) for s in rest] == [
        ("rest 2.25 s", "silence"),
        ("rest 5.00 s", "silence"),
    ]
    assert all(s.level_db_spl is None and not cohort.pressure(s.index).any() for s in rest)
    animal = cohort.animal("a")
    assert [cohort.sounds[p.sound].name for p in animal.presentations] == [
        *("low", "rest 2.25 s", "high", "rest 5.00 s", "rest 2.25 s")
    ]
    edges_s = 3.0 + np.arange(animal.presentations[1].bins + 1) / RESPONSE_RATE
    assert 2.24 < edges_s[-1] - 3.0 <= 2.25
    expected = np.stack([np.histogram(u, edges_s)[0] for u in fired], -1)
    assert np.array_equal(animal.counts(1).numpy(), expected)
    write_nwb(cohort, "a", tmp_path / "again.nwb")
    again = stored(tmp_path / "d", *read_nwb(tmp_path / "again.nwb"))
    assert again.sounds == cohort.sounds
    lab_file(
        tmp_path / "b.nwb", units=fired, names=("low", "rest", "high"), stops_s=(2.0, 3.25, 7.5)
    )
    with pytest.raises(ValueError, match=r"presentation 1 \(rest\) from 3.25 to 3.25 s: silence"):
        read_lab(tmp_path / "b.nwb", spontaneous=["rest"])


# Frame files --------------------------------------------------------------------------------------


def frames(count: int = 7, bins: int = 20) -> list[Frame]:
    rng = np.random.default_rng(0)
    sound = noise(32 * bins * count, 9).numpy()
    counts = rng.integers(0, 9, (bins * count, 6), np.uint8)
    return [
        Frame(f"f{i}", sound[32 * bins * i :][: 32 * bins], counts[bins * i :][:bins])
        for i in range(count)
    ]


def test_frames_become_sounds_without_a_gap(tmp_path):
    made = frames()
    sounds, recording = read_frames(made, 3, status="HI", kind="speech")
    cohort = stored(tmp_path / "c", "a", sounds, recording)
    whole = torch.from_numpy(np.concatenate([f.sound for f in made]))
    assert torch.equal(torch.cat([cohort.pressure(i) for i in range(3)]), whole)
    animal = cohort.animal("a")
    counts = torch.cat([animal.counts(i) for i in range(3)])
    assert torch.equal(counts, torch.from_numpy(np.concatenate([f.counts for f in made])))
    assert [p.time_h * 3600 * RESPONSE_RATE for p in animal.presentations] == pytest.approx(
        [0, 60, 120]
    )


def test_a_sound_that_is_played_again_is_another_presentation():
    made = frames(4)
    sounds, recording = read_frames([*made, *made[:2]], 2, status="NH")
    assert len(sounds) == 2
    assert [sound for sound, _ in recording.presentations] == [0, 1, 0]


@pytest.mark.parametrize("together", [True, False])
def test_files_are_read_in_numeric_order_and_hemispheres_side_by_side(tmp_path, together):
    for number, frame in enumerate(frames(11)):
        parts = {
            "sound": frame.sound,
            "mua_left": frame.counts[:, :2],
            "mua_right": frame.counts[:, 2:],
        }
        if together:
            np.savez(tmp_path / f"frame{number}.npz", **parts)
        else:
            for part, array in parts.items():
                np.save(tmp_path / f"frame{number}_{part}.npy", array)
    for got, frame in zip(folder_frames(tmp_path), frames(11), strict=True):
        assert np.array_equal(got.sound, frame.sound)
        assert np.array_equal(got.counts, frame.counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sound": np.zeros(640)}, "f1: sound must be float32"),
        ({"counts": np.zeros((20, 6))}, "f1: counts must be uint8"),
        ({"counts": np.zeros((19, 6), np.uint8)}, "f1: 640 samples for 19 bins"),
        ({"counts": np.zeros((20, 5), np.uint8)}, "f1: 5 channels, 6 in the first"),
    ],
)
def test_a_frame_that_is_not_as_described_is_named(change, message):
    made = frames()
    made[1] = dataclasses.replace(made[1], **change)
    with pytest.raises(ValueError, match=message):
        read_frames(made, 3, status="NH")
    with pytest.raises(ValueError, match="no frames"):
        read_frames([], 3, status="NH")


def test_a_folder_that_holds_no_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"0 files NAME.npz and 0 NAME_sound"):
        list(folder_frames(tmp_path))
    np.save(tmp_path / "x_sound.npy", frames()[0].sound)
    with pytest.raises(ValueError, match=r"x_sound.npy: has sound; a frame needs"):
        list(folder_frames(tmp_path))
    (tmp_path / "x_mua.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x_sound.npy: cannot be read"):
        list(folder_frames(tmp_path))


# Spike times of cells -----------------------------------------------------------------------------

SPOKEN = ("one", "two", "sub/three", "four")
CELLS = ("c2", "c10")


def fired(cell: str, sound: str, repeat: int) -> np.ndarray:
    """Spike times [s]; some before and after the sound, and none at all in some repeats."""
    rng = np.random.default_rng([CELLS.index(cell), SPOKEN.index(sound), repeat])
    return np.sort(rng.uniform(-0.05, 0.55, rng.poisson(2 if cell == "c2" else 40)))


def cells_folder(folder: Path, repeats: int = 3, unit: str = "time_s", **changes) -> Path:
    """Sounds of 0.5 s at 48 828 Hz, beyond ±1, and a CSV file; where c2 is silent it has no row."""
    for number, name in enumerate(SPOKEN):
        path = folder / f"{name}.wav"
        path.parent.mkdir(exist_ok=True, parents=True)
        write(path, 60 * noise(24_414, number, 48_828), 48_828)
    factor = 1e3 if unit == "time_ms" else 1
    rows = [
        [f"{sound}.wav" if number % 2 else sound, str(repeat), time, cell]
        for cell in CELLS
        for number, sound in enumerate(SPOKEN)
        for repeat in range(1, repeats + 1)
        for time in [
            *map(repr, (factor * fired(cell, sound, repeat)).tolist()),
            *([""] if cell == "c10" or repeat == 1 else []),
        ]
    ]
    with (folder / "spikes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sound", "repeat", unit, "cell"], *rows])
    return folder


def read_cells(folder: Path, **changes):
    options = {"status": "NH", "full_scale_db_spl": 80 - 20 * np.log10(0.2)}
    return read_spike_times(folder, **(options | changes))


@pytest.mark.parametrize("unit", ["time_s", "time_ms"])
def test_spike_times_of_cells_become_presentations(tmp_path, unit):
    folder = cells_folder(tmp_path / "cells", unit=unit)
    cohort = stored(tmp_path / "c", "cells", *read_cells(folder))
    assert [s.name for s in cohort.sounds] == sorted(SPOKEN)
    assert [s.kind for s in cohort.sounds] == ["unknown", "unknown", "sub", "unknown"]
    animal = cohort.animal("cells")
    assert (animal.channels, len(animal.presentations)) == (2, 12)
    played = [p.sound for p in animal.presentations]
    assert played == [0, 1, 2, 3] * 3
    assert animal.presentations[1].time_h * 3600 == pytest.approx(1.5, abs=1e-4)
    bins = cohort.sounds[0].bins
    assert bins == 381
    for number, p in enumerate(animal.presentations):
        name = cohort.sounds[p.sound].name
        times = [fired(cell, name, 1 + number // 4) for cell in CELLS]
        edges_s = np.arange(bins + 1) / RESPONSE_RATE
        expected = np.stack([np.histogram(t, edges_s)[0] for t in times], -1)
        assert np.array_equal(animal.counts(number).numpy(), expected)


def test_samples_of_sounds_are_scaled_by_their_unit_alone(tmp_path):
    sounds, _ = read_cells(cells_folder(tmp_path / "cells"))
    for sound in sounds:
        samples, _ = read(tmp_path / "cells" / f"{sound.name}.wav")
        assert samples.abs().max() > 5
        # an RMS of 0.2 is 80 dB SPL
        expected = 80 + 20 * np.log10(samples.square().mean().sqrt().item() / 0.2)
        assert level(sound.pressure).item() == pytest.approx(expected, abs=0.05)


def test_a_manifest_says_kinds_sources_and_splits_and_a_file_may_be_a_cell(tmp_path):
    folder = cells_folder(tmp_path / "cells")
    (folder / "spikes.csv").unlink()
    header = "sound,repeat,time_s,start_s"
    (folder / "a1.csv").write_text(f"{header}\none,1,0.1,100\none,2,,200\nfour,1,0.2,50\n")
    (folder / "a2.csv").write_text(f"{header}\none,1,,100\none,2,0.3,200\nfour,1,0.2,50\n")
    (folder / "manifest.csv").write_text(
        "file,kind,source,split\none.wav,speech,anna,test\nfour.wav,,,\n"
    )
    cohort = stored(tmp_path / "c", "cells", *read_cells(folder, split="validation"))
    assert [(s.name, s.kind, s.source, s.split) for s in cohort.sounds] == [
        ("one", "speech", "anna", "test"),
        ("four", "unknown", "four", "validation"),
    ]
    shown = cohort.animal("cells").presentations
    assert [p.sound for p in shown] == [1, 0, 0]
    assert [p.time_h * 3600 for p in shown] == pytest.approx([50, 100, 200])
    assert [cohort.animal("cells").counts(n).sum(0).tolist() for n in range(3)] == [
        *([1, 1], [1, 0], [0, 1])
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("five,1,0.1,c2", r"spikes.csv, line \d+: no sound file 'five'; there are four, four.wav"),
        ("one,1,soon,c2", r"spikes.csv, line \d+: could not convert string to float: 'soon'"),
        ("one,1,nan,c2", r"line \d+: time_s is nan"),
        ("one,,0.1,c2", r"line \d+: a row needs a repeat and a cell"),
        ("one,1,0.1,c3", r"sound 'four': no row of c3; a row without a time says"),
        ("one,1,0.1", r"line \d+: 3 cells in a row of 4 columns"),
        ("one,4,0.1,c2", r"sound 'one': playings without a row.*: c10 in 1 of 4; if"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, row, message):
    folder = cells_folder(tmp_path / "cells")
    with (folder / "spikes.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(ValueError, match=message):
        read_cells(folder)


def test_spike_times_in_another_unit_are_refused(tmp_path):
    folder = cells_folder(tmp_path / "cells", unit="time_ms")
    path = folder / "spikes.csv"
    path.write_text(path.read_text().replace("time_ms", "time_s"))
    with pytest.raises(ValueError, match=r"'four' lasts 0.500 s, but most spikes come later"):
        read_cells(folder)
    path.write_text(path.read_text().replace("time_s", "when"))
    with pytest.raises(ValueError, match="has the columns sound, repeat, when, cell; needed are"):
        read_cells(folder)
    path.unlink()
    with pytest.raises(ValueError, match="no CSV file of spike times"):
        read_cells(folder)


def ns1_folder(folder: Path, repeats: int = 4) -> Path:
    """Two cells and eleven sounds in the layout of NS1."""
    for number in range(11):
        path = folder / "SH.En.C" / f"stim{number + 1}.wav"
        path.parent.mkdir(exist_ok=True, parents=True)
        write(path, 4 * noise(9_766, number, 48_828), 48_828)
    (folder / "spikesandwav").mkdir()
    for cell in range(2):
        sets = np.zeros((1, 11), dtype=[("repeats", object)])
        for number in range(11):
            trials = np.zeros((1, repeats), dtype=[("t", object)])
            for repeat in range(repeats):
                # one spike whose time says whose it is; none at all in the first repeat of cell 0
                there = cell or repeat
                trials[0, repeat]["t"] = np.array(
                    [[10.0 * number + 2 * repeat + cell]] * bool(there)
                )
            sets[0, number]["repeats"] = trials
        savemat(folder / "spikesandwav" / f"unit{cell}.mat", {"data": {"set": sets}})
    return folder


def test_ns1_is_read_as_it_is_published(tmp_path):
    folder = ns1_folder(tmp_path / "ns1")
    published = loadmat(folder / "spikesandwav" / "unit1.mat")["data"][0, 0]["set"]["repeats"]
    assert published[0, 3][0]["t"][2].item() == 35.0
    sounds, recording = read_ns1(folder)
    assert [s.name for s in sounds] == [f"stim{n + 1}" for n in range(11)]
    samples, _ = read(folder / "SH.En.C" / "stim3.wav")
    rms = samples.square().mean().sqrt().item()
    assert level(sounds[2].pressure).item() == pytest.approx(
        80 + 20 * np.log10(rms / 0.2), abs=0.05
    )
    animal = stored(tmp_path / "c", "ns1", sounds, recording).animal("ns1")
    assert (animal.channels, len(animal.presentations)) == (2, 44)
    for number, p in enumerate(animal.presentations):
        repeat = number // 11
        for cell in range(2):
            at = animal.counts(number)[:, cell].nonzero().flatten().tolist()
            time_s = (10 * p.sound + 2 * repeat + cell) / 1e3
            assert at == ([int(time_s * RESPONSE_RATE)] if cell or repeat else [])


def test_what_is_not_ns1_is_refused(tmp_path):
    folder = ns1_folder(tmp_path / "ns1")
    (folder / "SH.En.C" / "stim11.wav").unlink()
    with pytest.raises(ValueError, match=r"10 WAV files, but 11 sounds in unit0.mat"):
        read_ns1(folder)
    savemat(folder / "spikesandwav" / "other.mat", {"x": 1})
    with pytest.raises(ValueError, match=r"other.mat: has no spike times data.set"):
        read_ns1(folder)
    with pytest.raises(ValueError, match=r"no file CELL.mat"):
        read_ns1(folder / "SH.En.C")


# Splits -------------------------------------------------------------------------------------------


def talked(count: int, each: int = 2, kind: str = "speech") -> list[Sound]:
    """Sounds of several talkers, all for training."""
    return [
        Sound(f"{kind}-{n}-{i}", kind, f"{kind}-{n}", "train", torch.ones(9000))
        for n in range(count)
        for i in range(each)
    ]


@pytest.mark.parametrize("count", [3, 4, 7, 20])
def test_sources_are_dealt_whole_and_always_alike(count):
    sounds = [*talked(count), *talked(count, 1, "music")]
    sounds.append(Sound("rest", "spontaneous", "silence", "test", torch.zeros(900)))
    dealt = with_splits(sounds, split_by_source(sounds))
    assert not shared_sources(dealt)
    assert {s.split for s in dealt} == {"train", "validation", "test"}
    assert dealt[-1].split == "train"
    splits = [s.split for s in dealt]
    assert splits == [s.split for s in with_splits(sounds, split_by_source(sounds[::-1]))]
    for split in ("validation", "test"):
        assert splits.count(split) <= len(sounds) / 3
        assert {s.kind for s in dealt if s.split == split} == {"speech", "music"} or count < 7


def test_tests_are_taken_from_what_was_heard_twice():
    sounds = talked(10)
    dealt = split_by_source(sounds, {"speech-7-0", "speech-7-1", "speech-3-0", "speech-3-1"})
    assert {source for source, split in dealt.items() if split == "test"} <= {
        *("speech-3", "speech-7")
    }
    with pytest.raises(ValueError, match=r"2 source\(s\) of sound: speech-0, speech-1; at least 3"):
        split_by_source(talked(2))


# The recipe ---------------------------------------------------------------------------------------


@pytest.fixture
def recipe():
    pytest.importorskip("jsonargparse")
    from recipes import import_recording

    return import_recording


def trials(folder: Path, recipe, **changes):
    """Configuration for two trials of two electrodes, with a sorted unit."""
    (folder / "trials").mkdir(exist_ok=True)
    write(folder / "stim.wav", noise(20_000, 0, 20_000), 20_000)
    for trial in range(2):
        traces = torch.stack([noise(60_000, 10 * trial + c, 30_000) for c in (1, 2)])
        write(folder / "trials" / f"trial{trial}.wav", traces, 30_000)
    (folder / "unit").mkdir(exist_ok=True)
    (folder / "unit" / "stim.txt").write_text("-5.0 1.0 2.0\n500.2\n")
    config = recipe.Config(
        kind="broadband",
        path=str(folder / "trials"),
        out=str(folder / "out"),
        status="NH",
        stimulus=str(folder / "stim.wav"),
        onset_s=0.5,
        level_db_spl=65.0,
        spikes=str(folder / "unit"),
        spike_lines=[2, 1],
    )
    return dataclasses.replace(config, **changes)


def test_broadband_trials_become_presentations_of_one_sound(tmp_path, recipe):
    config = trials(tmp_path, recipe)
    cohort = Cohort.open(recipe.import_recording(config))
    assert [(s.name, s.split) for s in cohort.sounds] == [("stim", "train")]
    assert cohort.sounds[0].level_db_spl == pytest.approx(65.0, abs=1e-3)
    animal = cohort.animal("trials")
    assert [round(p.time_h * 3600, 6) for p in animal.presentations] == [0.0, 20.0]
    assert animal.channels == 3
    assert [animal.counts(n)[:, 2].nonzero()[:, 0].tolist() for n in (0, 1)] == [[381], [0, 1]]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["animals"]["trials"]["presentations"] == 2
    before = {p: p.read_bytes() for p in Path(cohort.path).rglob("*") if p.is_file()}
    assert recipe.import_recording(config) == cohort.path
    assert before == {p: p.read_bytes() for p in Path(cohort.path).rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level_db_spl": None}, "broadband needs --level_db_spl"),
        ({"interval_s": 0.9}, "presentation 1 begins at .* before presentation 0 ends"),
        ({"onset_s": 1.5}, "trial0.wav: a trace of 2.000 s does not hold"),
        ({"spike_lines": [1]}, "2 lines, of which .*--spike_lines"),
        ({"spike_lines": [1, 3]}, "2 lines, of which .*--spike_lines"),
    ],
)
def test_what_broadband_trials_lack_is_said(tmp_path, recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe.import_recording(trials(tmp_path, recipe, **changes))


def test_two_nwb_files_become_two_animals_that_heard_the_same_sounds(tmp_path, recipe):
    pytest.importorskip("pynwb")
    before = cohort_of(tmp_path)
    number = next(number for number, (sound, _) in enumerate(HEARD) if sound == 0)
    counts = before.animal("a").counts(number)
    other = Recording("NH", "seen", None, None, CHANNELS, [(0, 0.5)], [counts])
    before.add_animal("b", other)
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        write_nwb(before, name, tmp_path / "files" / f"{name}.nwb")
    config = recipe.Config(kind="nwb", path=str(tmp_path / "files"), out=str(tmp_path / "out"))
    after = Cohort.open(recipe.import_recording(config))
    assert after.animals() == ["a", "b"]
    assert [s.name for s in after.sounds] == [s.name for s in before.sounds]
    assert torch.equal(after.animal("b").counts(0), counts)


def lab_cohort(folder: Path, gain: float = 1.0, splits=("train",), sources=6) -> Path:
    """An NWB file of an animal that heard 6 sounds, the last two of them twice."""
    names = [f"s{i}" for i in range(6)]
    sounds = [
        Sound(
            n, "speech", f"talker {i % sources}", splits[i % len(splits)], gain * noise(24_414, i)
        )
        for i, n in enumerate(names)
    ]
    cohort = store.create(folder / "made", sounds)
    order = [0, 1, 2, 3, 4, 5, 4, 5]
    rng = np.random.default_rng(0)
    counts = [rng.poisson(0.3, (24_414 // 32, 2)).astype(np.uint8) for _ in order]
    shown = [(i, place / 100) for place, i in enumerate(order)]
    cohort.add_animal("a", Recording("NH", "seen", None, None, 2, shown, counts))
    write_nwb(cohort, "a", folder / "a.nwb")
    return folder / "a.nwb"


def test_a_source_in_two_splits_is_refused_and_may_be_dealt(tmp_path, recipe):
    pytest.importorskip("pynwb")
    path = lab_cohort(tmp_path, splits=("train", "test"), sources=3)
    config = recipe.Config(kind="nwb", path=str(path), out=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"two splits: talker 0 \(train, test\); talker 1 .*auto"):
        recipe.import_recording(config)
    assert not (tmp_path / "out").exists()
    cohort = Cohort.open(recipe.import_recording(dataclasses.replace(config, split="auto")))
    assert {s.split for s in cohort.sounds} == {"train", "validation", "test"}
    found = {}
    for sound in cohort.sounds:
        assert found.setdefault(sound.source, sound.split) == sound.split


def test_foreign_files_without_splits_can_be_trained_on_and_tested(tmp_path, recipe):
    pytest.importorskip("pynwb")
    config = recipe.Config("nwb", str(lab_cohort(tmp_path)), str(tmp_path / "out"), split="auto")
    cohort = Cohort.open(recipe.import_recording(config))
    tested = [s.name for s in cohort.sounds if s.split == "test"]
    assert set(tested) <= {"s4", "s5"}
    assert tested
    for split in ("train", "validation"):
        assert len(Frames(cohort, ["a"], split))
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["sounds"]["test"]["sources"] == [
        s.source for s in cohort.sounds if s.name in tested
    ]
    one = found["animals"]["a"]
    assert (one["status"], one["role"], one["thresholds_db_spl"]) == ("NH", "seen", None)
    assert one["splits"]["test"]["sounds_heard_twice"] == len(tested)
    seconds = [part["seconds"] for part in one["splits"].values()]
    assert sum(seconds) == pytest.approx(8.0, abs=0.02)
    assert [w for w in found["warnings"] if "split" in w or "dB SPL" in w] == []
    assert (tmp_path / "out" / "import.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_unusual_or_will_fail_is_said_at_the_import(tmp_path, recipe):
    pytest.importorskip("pynwb")
    path = lab_cohort(tmp_path, gain=1e-3)
    recipe.import_recording(recipe.Config("nwb", str(path), str(tmp_path / "out")))
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    levels = found["sounds"]["train"]["level_db_spl"]
    assert levels["lowest"] <= levels["median"] <= levels["highest"] < 20
    said = "\n".join(found["warnings"])
    for message in (
        "6 of 6 sounds are softer than 20 dB SPL: s0 at 8 dB SPL",
        "a factor of 1000 is 60 dB",
        "no validation sounds: recipes.train_ic",
        "no test sounds: recipes.score_ic and recipes.judge",
        "a heard less than the 30 s of training sounds to which recipes.fit_theta",
    ):
        assert message in said
    from recipes.reports.recording import printed

    assert "| train | 6 | 6.0 | 6 | speech 6 | 8 / 8 / 8 |" in printed(found)
    assert "| a | NH | seen | no | 2 | 0.07 | 6 (2), 8 s | 0 (0), 0 s | 0 (0), 0 s |" in printed(
        found
    )


def test_silence_alone_is_drawn_too(tmp_path):
    pytest.importorskip("matplotlib")
    from recipes.reports.recording import picture

    cohort = store.create(
        tmp_path / "c", [Sound("rest", "spontaneous", "silence", "train", torch.zeros(24_414))]
    )
    blocks = [np.ones((24_414 // 32, 3), np.uint8)]
    cohort.add_animal("a", Recording("HI", "seen", None, None, 3, [(0, 0.0)], blocks))
    picture(cohort).savefig(tmp_path / "c.png")


def test_cells_are_imported_by_one_command(tmp_path, recipe):
    folder = cells_folder(tmp_path / "cells")
    config = recipe.Config("spike_times", str(folder), str(tmp_path / "out"), split="auto")
    with pytest.raises(ValueError, match="spike_times needs --status, --full_scale_db_spl"):
        recipe.import_recording(config)
    config = dataclasses.replace(config, status="NH", full_scale_db_spl=94.0)
    cohort = Cohort.open(recipe.import_recording(config))
    assert cohort.animals() == ["cells"]
    assert {s.split for s in cohort.sounds} == {"train", "validation", "test"}
    config = recipe.Config("ns1", str(ns1_folder(tmp_path / "ns1")), str(tmp_path / "out2"))
    assert Cohort.open(recipe.import_recording(config)).animals() == ["ns1"]


def test_trials_of_one_signal_correlate_as_their_noise_lets_them():
    pytest.importorskip("matplotlib")
    from icsim.description import trial_correlation

    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(1, 20_000, 2, generator=generator)
    heard = signal + torch.tensor([1.0, 0.5]) * torch.randn(4, 20_000, 2, generator=generator)
    assert torch.allclose(trial_correlation(heard, 1), torch.tensor([0.5, 0.8]), atol=0.02)
    assert trial_correlation(torch.ones(3, 10, 2), 2).tolist() == [0, 0]


def test_a_starlings_song_and_spikes_fit_together(tmp_path, recipe, monkeypatch):
    if not STARLING.is_dir():
        pytest.skip("no starling")
    from recipes.running.commands import parse

    monkeypatch.chdir(Path(__file__).parents[1])
    shipped = Path("recipes/configs/import_recording/starling.yaml")
    config = parse(recipe.Config, ["--config", str(shipped), "--out", str(tmp_path)])
    cohort = Cohort.open(recipe.import_recording(config))
    samples, rate = read(STARLING / "stimuli" / "A8.wav")
    assert cohort.sounds[0].samples == pytest.approx(samples.shape[-1] * SAMPLE_RATE / rate, abs=1)
    animal = cohort.animal("st11")
    assert len(animal.presentations) == 5
    for number in range(5):
        crossings, unit = animal.counts(number).T
        near = crossings | crossings.roll(1) | crossings.roll(-1)
        assert unit.sum() > 10
        # the sorted spikes are peaks of this trial's voltage
        assert ((near > 0) & (unit > 0)).sum() > 0.9 * (unit > 0).sum()
