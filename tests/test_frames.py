"""Frames are slices of sounds and counts, aligned, and marked where nothing was heard."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from icsim import store
from icsim.frames import Frames, recording_pairs
from icsim.recording import Recording
from icsim.sound import SAMPLE_RATE, Sound
from icsim.store import Cohort

LENGTHS = (30_000, 9_000, 2_000, 20_000)
SPLITS = ("train", "train", "train", "test")
HEARD = {
    "a": [(0, 0.0), (1, 1.0), (2, 1.5), (3, 2.0), (3, 3.0), (3, 2.5)],
    "b": [(3, 0.5), (0, 4.0), (0, 0.1)],
}


def blocks(name: str, channels: int = 3) -> list[torch.Tensor]:
    rng = np.random.default_rng(ord(name))
    shapes = [(LENGTHS[sound] // 32, channels) for sound, _ in HEARD[name]]
    return [torch.from_numpy(rng.integers(0, 5, shape, dtype=np.uint8)) for shape in shapes]


@pytest.fixture
def cohort(tmp_path) -> Cohort:
    generator = torch.Generator().manual_seed(0)
    sounds = [
        Sound(f"s{i}", "speech", f"voice {i}", split, torch.randn(n, generator=generator))
        for i, (n, split) in enumerate(zip(LENGTHS, SPLITS, strict=True))
    ]
    made = store.create(tmp_path / "cohort", sounds)
    for name in "ab":
        made.add_animal(name, Recording("NH", "seen", None, None, 3, HEARD[name], blocks(name)))
    return made


def test_frames_equal_slices_cut_by_hand(cohort):
    frames = Frames(cohort, ["a", "b"], "train", context_bins=64, bins=256)
    assert [frames[i]["sound_index"].item() for i in range(len(frames))] == [0, 0, 0, 1]
    frame, pressure = frames[2], cohort.pressure(0)
    assert torch.equal(frame["sound"], pressure[2 * 8192 - 2048 : 3 * 8192])
    bins = slice(2 * 256, 3 * 256)
    assert torch.equal(frame["counts"][0], blocks("a")[0][bins].T)
    assert torch.equal(frame["counts"][1], blocks("b")[2][bins].T)
    later_h = 2 * 8192 / SAMPLE_RATE / 3600
    assert frame["hours"].tolist() == pytest.approx([later_h, 0.1 + later_h])
    assert frame["heard"].all()
    assert frame["counts"].dtype == torch.uint8


def test_the_context_of_a_sounds_beginning_is_zeros(cohort):
    frame = Frames(cohort, ["a"], "train", bins=256)[3]
    assert not frame["sound"][:2048].any()
    assert torch.equal(frame["sound"][2048:], cohort.pressure(1)[:8192])


def test_an_animal_that_did_not_hear_the_sound_is_marked_and_zero(cohort):
    frame = Frames(cohort, ["a", "b"], "train")[3]
    assert frame["heard"].tolist() == [True, False]
    assert not frame["counts"][1].any()
    assert frame["hours"][1] == 0


def test_a_batch_is_its_frames_stacked(cohort):
    frames = Frames(cohort, ["b", "a"], ["train", "test"], context_bins=2, bins=20)
    indices = [5, 0, len(frames) - 1, 5]
    batch = frames.read(indices)
    for key, value in batch.items():
        assert torch.equal(value, torch.stack([frames[i][key] for i in indices])), key


def test_frames_cover_each_sound_once_up_to_its_remainder(cohort):
    frames = Frames(cohort, ["a"], "train", context_bins=0, bins=20)
    batch = frames.read(range(len(frames)))
    for sound in (0, 1, 2):
        pieces = batch["sound"][batch["sound_index"] == sound].flatten()
        assert torch.equal(pieces, cohort.pressure(sound, 0, LENGTHS[sound] // 640 * 640))


def test_every_presentation_has_its_turn_and_the_turns_repeat(cohort):
    frames = Frames(cohort, ["a"], "test")

    def presented(epoch):
        frames.epoch = epoch
        return [round(h.item() * 2) / 2 for h in frames.read(range(len(frames)))["hours"]]

    assert presented(None) == [2.0, 2.0]
    assert presented(4) == presented(4)
    for turns in zip(*(presented(epoch) for epoch in range(3)), strict=True):
        assert sorted(turns) == [2.0, 2.5, 3.0]


def test_presentations_after_max_hours_are_left_out(cohort):
    frames = Frames(cohort, ["a", "b"], ["train", "test"], max_hours=0.6)
    batch = frames.read(range(len(frames)))
    assert batch["sound_index"].tolist() == [0, 0, 0, 3, 3]
    assert batch["heard"].tolist() == [[True, True]] * 3 + [[False, True]] * 2
    with pytest.raises(ValueError, match="larger max_hours"):
        Frames(cohort, ["a"], "test", max_hours=1.0)


def test_pairs_are_the_sounds_heard_at_least_twice(cohort):
    assert recording_pairs(cohort, "a", "test") == [(3, [3, 5, 4])]
    assert recording_pairs(cohort, "a", "train") == []
    assert recording_pairs(cohort, "b", ["train", "test"]) == [(0, [2, 1])]


def test_two_workers_read_what_one_process_reads(cohort):
    frames = Frames(cohort, ["a", "b"], "train", context_bins=2, bins=20)
    frames.epoch = 1
    expected = frames.read(range(len(frames)))
    order = range(len(frames))
    batches = list(DataLoader(order, batch_size=16, num_workers=2, collate_fn=frames.read))
    singly = list(DataLoader(frames, batch_size=16, num_workers=2))
    for loaded in (batches, singly):
        for key, value in expected.items():
            assert torch.equal(torch.cat([batch[key] for batch in loaded]), value), key


def test_workers_that_start_afresh_read_the_same(cohort):
    frames = Frames(cohort, ["a", "b"], "test")
    (batch,) = DataLoader(
        frames, batch_size=2, num_workers=1, multiprocessing_context="spawn", shuffle=False
    )
    assert torch.equal(batch["counts"], frames.read([0, 1])["counts"])


def test_frames_say_how_often_their_sounds_were_heard(cohort):
    assert Frames(cohort, ["a", "b"], "train").repeats == 2
    assert Frames(cohort, ["a"], "train").repeats == 1
    assert Frames(cohort, ["a", "b"], "test").repeats == 3


def test_animals_that_differ_in_channels_are_padded(cohort):
    cohort.add_animal("c", Recording("NH", "seen", None, None, 5, HEARD["a"], blocks("a", 5)))
    both = Frames(cohort, ["a", "c"], "train").read([0])["counts"]
    fewer, more = (Frames(cohort, [name], "train").read([0])["counts"] for name in ("a", "c"))
    assert both.shape[2] == 5
    assert torch.equal(both[:, :1, :3], fewer)
    assert both[:, 0, 3:].sum() == 0
    assert torch.equal(both[:, 1:], more)


def test_some_animals_are_read_as_among_all(cohort):
    frames = Frames(cohort, ["a", "b"], ["train", "test"])
    whole, part = frames.read([0, 3]), frames.read([0, 3], [1])
    for key in ("hours", "counts", "heard"):
        assert torch.equal(part[key], whole[key][:, [1]])


def test_what_is_not_there_is_named(cohort):
    with pytest.raises(ValueError, match="no animal 'z'; those there: a, b"):
        Frames(cohort, ["a", "z"], "train")
    with pytest.raises(ValueError, match="no sound of split validation; the cohort has test, tr"):
        Frames(cohort, ["a"], "validation")
    with pytest.raises(ValueError, match="name at least one"):
        Frames(cohort, [], "train")
    with pytest.raises(ValueError, match="no frame of 2560 bins"):
        Frames(cohort, ["a"], "train", bins=2560)
    with pytest.raises(ValueError, match="bins 0 be positive"):
        Frames(cohort, ["a"], "train", bins=0)
    with pytest.raises(IndexError):
        Frames(cohort, ["a"], "train")[4]
