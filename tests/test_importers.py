"""Recordings of others become cohorts, exactly, or are refused with a reason."""

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from icsim import store
from icsim.importers.frames import Frame, folder_frames, read_frames
from icsim.importers.nwb import original_name, read_nwb, written_name
from icsim.importers.nwb_export import write_nwb
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
    } | changes
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
    for start_s, name in zip(lab["starts_s"], lab["names"], strict=True):
        file.add_trial(start_time=start_s, stop_time=start_s + 0.5, tone=name)
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
    assert summary["trials"]["presentations"] == 2
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


def test_trials_of_one_signal_correlate_as_their_noise_lets_them(recipe):
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(1, 20_000, 2, generator=generator)
    heard = signal + torch.tensor([1.0, 0.5]) * torch.randn(4, 20_000, 2, generator=generator)
    assert torch.allclose(recipe.trial_correlation(heard, 1), torch.tensor([0.5, 0.8]), atol=0.02)
    assert recipe.trial_correlation(torch.ones(3, 10, 2), 2).tolist() == [0, 0]


def test_a_starlings_song_and_spikes_fit_together(tmp_path, recipe, monkeypatch):
    if not STARLING.is_dir():
        pytest.skip("no starling")
    from recipes.state import parse

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
