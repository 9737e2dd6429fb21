"""Cohorts come back as they were written, and say so when they cannot."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from icsim import chunks, store
from icsim.recording import Recording
from icsim.sound import Sound
from icsim.store import Cohort

LENGTHS = (60_000, 24_414, 3_205)
CHANNELS = 6
HEARD = [(0, 0.0), (1, 0.01), (2, 0.02), (1, 0.5)]


def sounds() -> list[Sound]:
    generator = torch.Generator().manual_seed(0)
    return [
        Sound(f"s{i}", "music", f"piece {i}", split, 0.02 * torch.randn(n, generator=generator))
        for i, (n, split) in enumerate(zip(LENGTHS, ("train", "test", "validation"), strict=True))
    ]


def blocks(seed: int = 0, channels: int = CHANNELS) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(LENGTHS[sound] // 32, channels) for sound, _ in HEARD]
    return [rng.poisson(0.5, shape).astype(np.uint8) for shape in shapes]


def recording(seed: int = 0, channels: int = CHANNELS, **changes) -> Recording:
    made = Recording(
        "HI", "seen", (30.0, 45.0), (1e3, 4e3), channels, HEARD, blocks(seed, channels)
    )
    return dataclasses.replace(made, **changes)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    made = store.create(tmp_path / "cohort", sounds(), {"seed": 7})
    made.add_animal("a", recording(0), truth={"cf_hz": torch.arange(6.0), "name": "x"})
    return made


@pytest.fixture(params=["", "file://", "memory://"])
def place(request, tmp_path) -> str:
    return f"{request.param}{tmp_path}/cohort"


def test_everything_comes_back_as_it_was_written(place):
    store.create(place, sounds(), {"seed": 7}).add_animal("a", recording(0))
    cohort = Cohort.open(place)
    assert cohort.description == {"seed": 7}
    for entry, sound in zip(cohort.sounds, sounds(), strict=True):
        assert (entry.name, entry.split, entry.source) == (sound.name, sound.split, sound.source)
        assert entry.bins == len(sound.pressure) // 32
        assert torch.equal(cohort.pressure(entry.index), sound.pressure)
    animal = cohort.animal("a")
    assert (animal.status, animal.role, animal.channels) == ("HI", "seen", CHANNELS)
    assert animal.thresholds_db_spl.tolist() == [30.0, 45.0]
    assert animal.abr_frequencies_hz == (1e3, 4e3)
    assert [(p.sound, p.time_h) for p in animal.presentations] == HEARD
    for number, block in enumerate(blocks(0)):
        assert torch.equal(animal.counts(number), torch.from_numpy(block))


def test_animals_are_listed_by_role_and_may_have_no_thresholds(cohort):
    cohort.add_animal("b", recording(role="unseen", thresholds_db_spl=None))
    assert cohort.animals() == ["a", "b"]
    assert cohort.animals("unseen") == ["b"]
    assert Cohort.open(cohort.path).animal("b").thresholds_db_spl is None


def test_random_access_equals_slices_of_the_whole(cohort):
    rng = np.random.default_rng(1)
    whole, counts = sounds()[0].pressure, torch.from_numpy(blocks(0)[0])
    for _ in range(30):
        start, stop = sorted(rng.integers(0, 60_001, 2).tolist())
        assert torch.equal(cohort.pressure(0, start, stop), whole[start:stop])
        start, stop = start // 32, stop // 32
        assert torch.equal(cohort.animal("a").counts(0, start, stop), counts[start:stop])


def test_what_was_read_may_be_changed_without_changing_the_cohort(cohort):
    cohort.animal("a").counts(0, 0, 9).fill_(9)
    cohort.pressure(0, 0, 9).fill_(9)
    assert torch.equal(cohort.animal("a").counts(0, 0, 9), torch.from_numpy(blocks(0)[0][:9]))
    assert torch.equal(cohort.pressure(0, 0, 9), sounds()[0].pressure[:9])


def test_before_a_sound_there_is_silence_not_the_sound_before_it(cohort):
    context = cohort.pressure(1, -100, 50)
    assert not context[:100].any()
    assert torch.equal(context[100:], sounds()[1].pressure[:50])
    assert torch.equal(cohort.pressure(1, -100, -0), torch.zeros(100))


def test_an_appended_animal_leaves_every_other_file_byte_identical(cohort):
    before = contents(Path(cohort.path))
    cohort.add_animal("b", recording(1), truth={"x": torch.ones(2)})
    after = contents(Path(cohort.path))
    assert {path: after[path] for path in before} == before
    assert all("/animals/b/" in str(path) for path in after.keys() - before.keys())


def test_a_generator_may_fill_the_same_array_again(cohort):
    def refilled():
        array = np.zeros((max(LENGTHS) // 32, CHANNELS), np.uint8)
        for block in blocks(2):
            array[: len(block)] = block
            yield array[: len(block)]

    cohort.add_animal("b", recording(counts=refilled()))
    for number, block in enumerate(blocks(2)):
        assert torch.equal(cohort.animal("b").counts(number), torch.from_numpy(block))


def test_a_small_cache_lets_go_and_still_reads_right(cohort, monkeypatch):
    monkeypatch.setattr(chunks, "cache", chunks.ChunkCache(150_000))
    for _ in range(2):
        for entry, sound in zip(cohort.sounds, sounds(), strict=True):
            assert torch.equal(cohort.pressure(entry.index), sound.pressure)
            assert 0 < chunks.cache.bytes <= 150_000


def test_a_cohort_made_again_is_not_read_from_the_old_ones_cache(cohort, tmp_path):
    cohort.pressure(0)
    Path(cohort.path).rename(tmp_path / "old")
    louder = [dataclasses.replace(s, pressure=2 * s.pressure) for s in sounds()]
    again = store.create(cohort.path, louder)
    assert torch.equal(again.pressure(0), louder[0].pressure)


def test_a_cohort_travels_to_another_process(cohort):
    cohort.animal("a").set_alignment([5, 4, 3, 2, 1, 0], 6)
    there = pickle.loads(pickle.dumps(cohort))
    assert torch.equal(there.pressure(0), cohort.pressure(0))
    assert torch.equal(there.animal("a").counts(1), cohort.animal("a").counts(1))
    assert there.animal("a").alignment().matching.tolist() == [5, 4, 3, 2, 1, 0]


# Alignment and truth ----------------------------------------------------------------------------


def test_alignments_are_kept_by_name_and_replaced(cohort):
    assert cohort.animal("a").alignment() is None
    cohort.animal("a").set_alignment(range(6), 6)
    cohort.animal("a").set_alignment([3, 3, -1, 9, 4, 0], 10)
    cohort.animal("a").set_alignment(range(6), 6, "other")
    for animal in (cohort.animal("a"), Cohort.open(cohort.path).animal("a")):
        assert animal.alignment().matching.tolist() == [3, 3, -1, 9, 4, 0]
        assert animal.alignment().slots == 10
        assert animal.alignment("other").slots == 6
        assert animal.alignment("none") is None
        assert torch.equal(animal.counts(3), torch.from_numpy(blocks(0)[3]))


@pytest.mark.parametrize("matching", [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 6], [-2, 1, 2, 3, 4, 5]])
def test_what_is_no_alignment_is_refused_and_not_written(cohort, matching):
    with pytest.raises(ValueError, match="a: no alignment of its 6 channels with 6 slots"):
        cohort.animal("a").set_alignment(matching, 6)
    assert Cohort.open(cohort.path).animal("a").alignment() is None


def test_truth_comes_back_with_its_depth_and_dtypes(cohort):
    truth = {
        "loss": {"outer": torch.rand(3, 4), "name": "mild", "order": np.arange(3)},
        "gain": 1.5,
        "shift": torch.tensor(2.5, dtype=torch.float64),
        "none": {},
        "empty": torch.zeros(0),
    }
    cohort.add_animal("b", recording(), truth=truth)
    back = Cohort.open(cohort.path).truth("b")
    assert torch.equal(back["loss"]["outer"], truth["loss"]["outer"])
    assert back["loss"]["order"].tolist() == [0, 1, 2]
    assert (back["loss"]["name"], back["gain"], back["none"]) == ("mild", 1.5, {})
    assert back["shift"] == truth["shift"]
    assert back["shift"].dtype == torch.float64
    assert back["empty"].shape == (0,)


def test_a_real_recording_has_no_truth(cohort):
    cohort.add_animal("b", recording())
    with pytest.raises(ValueError, match="b is a real recording"):
        cohort.truth("b")
    with pytest.raises(ValueError, match="no animal 'c'; those there: a, b"):
        cohort.truth("c")


# Damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    [
        "pressure/c.1",
        "pressure/zarr.json",
        "animals/zarr.json",
        "animals/a/zarr.json",
        "animals/a/counts/c.2.0",
        "animals/a/counts/zarr.json",
        "animals/a/truth/zarr.json",
        "animals/a/truth/cf_hz/c.0",
    ],
)
def test_whatever_is_deleted_is_named(cohort, lost):
    (Path(cohort.path) / lost).unlink()
    with pytest.raises(ValueError, match=f"missing {lost}; restore it"):
        Cohort.open(cohort.path)


@pytest.mark.parametrize("lost", ["pressure/c.1", "animals/a/counts/c.2.0"])
def test_a_chunk_that_is_deleted_after_opening_is_not_read_as_zeros(cohort, lost):
    (Path(cohort.path) / lost).unlink()
    with pytest.raises(ValueError, match=f"{lost} is damaged .it is missing"):
        read_all(cohort)


@pytest.mark.parametrize("chunk", ["pressure/c.1", "animals/a/counts/c.2.0"])
@pytest.mark.parametrize("kept", [slice(None), slice(40), slice(0)])
def test_a_corrupted_or_truncated_chunk_is_named(cohort, chunk, kept):
    path = Path(cohort.path) / chunk
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[kept])
    with pytest.raises(ValueError, match=f"{chunk} is damaged .*restore"):
        read_all(Cohort.open(cohort.path))


@pytest.mark.parametrize("group", ["zarr.json", "animals/a/zarr.json"])
def test_corrupted_metadata_is_named(cohort, group):
    (Path(cohort.path) / group).write_text('{"zarr_format": 3, ')
    with pytest.raises(ValueError, match=f"{group} is damaged"):
        Cohort.open(cohort.path)


# Nothing that a file says is run ------------------------------------------------------------------


class Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    """A file that a pickle makes, where pickles are read as by numcodecs below 0.16."""
    import numcodecs.pickles

    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    return tmp_path / "code-was-run"


def pickled_array(folder: Path, marker: Path, chunk: str = "0") -> None:
    """An array of Zarr format 2 whose only chunk is a pickle that makes a file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    metadata = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "fill_value": "",
        "order": "C",
        "compressor": {"id": "pickle", "protocol": 4},
        "filters": [{"id": "vlen-utf8"}],
    }
    (folder / ".zarray").write_text(json.dumps(metadata))
    (folder / chunk).write_bytes(pickle.dumps(Touch(marker)))


def test_a_pickle_among_the_truth_is_refused_and_not_run(cohort, marker):
    pickled_array(Path(cohort.path) / "animals" / "a" / "truth" / "hidden", marker)
    with pytest.raises(ValueError, match=r"truth/hidden is no array of Zarr format 3"):
        Cohort.open(cohort.path).truth("a")
    assert not marker.exists()


@pytest.mark.parametrize("array", ["pressure", "animals/a/counts", "animals/a/truth/cf_hz"])
def test_a_pickle_in_place_of_an_array_is_refused_and_not_run(cohort, marker, array):
    folder = Path(cohort.path) / array
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "zarr.json"}
    pickled_array(folder, marker)
    with pytest.raises(ValueError, match=f"missing {array}/zarr.json"):
        Cohort.open(cohort.path)
    # the same with everything there that is looked for
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    (folder / "zarr.json").write_text((folder / ".zarray").read_text())
    with pytest.raises(ValueError, match=f"{array}/zarr.json says Zarr format 2"):
        read_all(Cohort.open(cohort.path))
    assert not marker.exists()


@pytest.mark.parametrize("array", ["pressure", "animals/a/counts", "animals/a/truth/cf_hz"])
@pytest.mark.parametrize("codec", ["pickle", "numcodecs.pickle", "vlen-bytes", "sharding_indexed"])
def test_a_codec_that_no_cohort_is_written_with_is_named(cohort, array, codec):
    path = Path(cohort.path) / array / "zarr.json"
    metadata = json.loads(path.read_text())
    assert [one["name"] for one in metadata["codecs"]] == list(chunks.CODECS)
    metadata["codecs"][1] = {"name": codec, "configuration": {}}
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=f"{array} has the codec '{codec}'; only bytes, zstd, crc"):
        read_all(Cohort.open(cohort.path))


def test_a_group_of_another_format_is_named(cohort):
    root = Path(cohort.path) / "animals" / "a" / "zarr.json"
    root.write_text(json.dumps(json.loads(root.read_text()) | {"zarr_format": 2}))
    with pytest.raises(ValueError, match=r"animals/a/zarr.json says Zarr format 2, group; "):
        Cohort.open(cohort.path)


def read_all(cohort: Cohort) -> None:
    cohort.pressure(0), cohort.pressure(1)
    cohort.animal("a").counts(0), cohort.animal("a").counts(1)
    cohort.truth("a")


def interrupted():
    yield from blocks(0)[:2]
    raise KeyboardInterrupt


def test_an_animal_whose_writing_is_interrupted_is_not_there_and_can_be_added_again(cohort):
    with pytest.raises(KeyboardInterrupt):
        cohort.add_animal("b", recording(counts=interrupted()), truth={"x": torch.ones(2)})
    assert cohort.animals() == Cohort.open(cohort.path).animals() == ["a"]
    cohort.add_animal("b", recording(1))
    animal = Cohort.open(cohort.path).animal("b")
    assert torch.equal(animal.counts(0), torch.from_numpy(blocks(1)[0]))


def test_a_cohort_whose_sounds_were_interrupted_is_refused_and_can_be_made_again(
    tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(chunks, "write_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        store.create(tmp_path / "c", sounds())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its sounds were never finished; create it again"):
        Cohort.open(tmp_path / "c")
    assert len(store.create(tmp_path / "c", sounds()).sounds) == 3


def test_nothing_that_is_there_is_overwritten(cohort, tmp_path):
    with pytest.raises(ValueError, match="holds a finished cohort"):
        store.create(cohort.path, sounds())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear to me")
    with pytest.raises(ValueError, match="holds something else"):
        store.create(tmp_path / "thesis", sounds())
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    with pytest.raises(ValueError, match="holds something else"):
        store.create(tmp_path / "thesis" / "chapter.tex", sounds())


def test_what_is_no_cohort_is_refused(cohort, tmp_path):
    with pytest.raises(ValueError, match="no cohort here"):
        Cohort.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    root = Path(cohort.path) / "zarr.json"
    attributes = json.loads(root.read_text())
    attributes["attributes"]["version"] = 99
    root.write_text(json.dumps(attributes))
    with pytest.raises(ValueError, match="not an icsim cohort of version 2"):
        Cohort.open(cohort.path)


# What does not fit is refused before anything is listed -----------------------------------------

SOUND_BINS = LENGTHS[0] // 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "deaf"}, "status is 'deaf'; use one of NH, HI"),
        ({"role": "trained"}, "role is 'trained'; use one of seen, unseen"),
        ({"channels": 0}, "0 channels"),
        ({"channels": 5}, r"presentation 0 \(s0\): 6 channels of counts; 5 were announced"),
        ({"thresholds_db_spl": (30.0, float("nan"))}, "must be finite"),
        ({"thresholds_db_spl": (30.0,)}, "1 thresholds for the frequencies"),
        ({"abr_frequencies_hz": None}, "2 thresholds for the frequencies None"),
        ({"presentations": []}, "no presentation"),
        ({"presentations": [(0, 0.0), (3, 1.0)]}, "presentation 1: no sound 3; the cohort has 3"),
        ({"presentations": [(0, -1.0)]}, "time_h is -1.0"),
        ({"presentations": [(0, float("nan"))]}, "time_h is nan"),
        (
            {"presentations": [(1, 0.0005), (0, 0.0)]},
            r"presentation 0 begins at 0.000500 h, before presentation 1 ends at 0.000683 h",
        ),
        ({"counts": blocks()[:3]}, "counts for 3 of 4 presentations"),
        ({"counts": [*blocks(), blocks()[0]]}, "counts for more than its 4 presentations"),
        (
            {"counts": [blocks()[0][::2]]},
            rf"{(SOUND_BINS + 1) // 2} bins of counts, but the sound fills {SOUND_BINS} at the "
            r"response rate of 762.939453 Hz",
        ),
        ({"counts": [blocks()[0] / 2]}, "whole numbers .*float64"),
        ({"counts": [blocks()[0][0]]}, "whole numbers"),
        ({"counts": [blocks()[0].astype(int) - 1]}, "counts from -1 to"),
        ({"counts": [blocks()[0].astype(int) + 300]}, "counts from 300 to .*; 0 to 254 can be"),
        ({"counts": [np.full_like(blocks()[0], 255)]}, "counts from 255 to 255"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(cohort, changes, message):
    with pytest.raises(ValueError, match=message):
        cohort.add_animal("b", dataclasses.replace(recording(), **changes))
    assert cohort.animals() == Cohort.open(cohort.path).animals() == ["a"]


def test_sounds_that_follow_each_other_at_once_do_not_overlap(cohort):
    end_h = LENGTHS[0] / 24414.0625 / 3600
    shown = [(0, 0.0), (1, end_h), (2, 0.1), (1, 0.2)]
    cohort.add_animal("b", recording(presentations=shown))
    assert cohort.animal("b").presentations[1].start_bin == SOUND_BINS


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "a b"])
def test_a_name_that_is_no_folder_is_refused(cohort, name):
    with pytest.raises(ValueError, match="use letters, digits"):
        cohort.add_animal(name, recording())


def test_a_name_is_given_once_even_by_another_process(cohort):
    other = Cohort.open(cohort.path)
    other.add_animal("b", recording(1))
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=f"animal '{name}' is there already"):
            cohort.add_animal(name, recording(2))
    assert torch.equal(other.animal("b").counts(0), torch.from_numpy(blocks(1)[0]))


@pytest.mark.parametrize("truth", [{"a/b": 1}, {"a": {"x.y": 1}}, {"f": [torch.ones(1)]}])
def test_truth_that_cannot_be_stored_is_refused(cohort, truth):
    with pytest.raises(ValueError, match="truth"):
        cohort.add_animal("b", recording(), truth=truth)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, "s0: split is 'dev'"),
        ({"name": "s1"}, "two sounds are called 's1'"),
        ({"pressure": torch.zeros(60_000)}, "s0: every sample is zero"),
        ({"pressure": torch.ones(2, 60_000)}, "s0: pressure must be"),
        ({"pressure": torch.full((60_000,), torch.nan)}, "s0: 60000 samples are NaN"),
    ],
)
def test_a_sound_that_cannot_be_stored_is_refused(tmp_path, changes, message):
    first, *others = sounds()
    with pytest.raises(ValueError, match=message):
        store.create(tmp_path / "c", [dataclasses.replace(first, **changes), *others])
    assert not (tmp_path / "c").exists()


def test_a_cohort_needs_a_sound(tmp_path):
    with pytest.raises(ValueError, match="at least one sound"):
        store.create(tmp_path / "c", [])


def test_what_is_not_there_cannot_be_read(cohort):
    animal = cohort.animal("a")
    for read, message in [
        (lambda: cohort.pressure(3), "no sound 3; there are 3"),
        (lambda: cohort.pressure(0, 0, 60_001), "no range 0 to 60001"),
        (lambda: cohort.pressure(0, 9, 8), "no range 9 to 8"),
        (lambda: animal.counts(4), "no presentation 4; it has 4"),
        (lambda: animal.counts(0, -1), "no range -1"),
        (lambda: animal.counts(0, 0, SOUND_BINS + 1), f"no range 0 to {SOUND_BINS + 1}"),
        (lambda: cohort.animals("all"), "role is 'all'"),
    ]:
        with pytest.raises(ValueError, match=message):
            read()
