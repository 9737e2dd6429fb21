import math

import pytest
import torch

from icsim.audiogram import STANDARD_DB_HL, STANDARD_HZ, Audiogram, audiogram

SLOPING = Audiogram((250, 1000, 4000), (10, 20, 60))


def test_measured_thresholds_come_out_as_they_went_in():
    assert SLOPING.at([250, 1000, 4000]).tolist() == [10, 20, 60]


def test_between_them_is_linear_on_log_frequency():
    assert SLOPING.at([500, 2000]).tolist() == pytest.approx([15, 40])


def test_beyond_them_is_constant():
    assert SLOPING.at(torch.tensor([20.0, 20000.0])).tolist() == [10, 60]


def test_interpolation_keeps_shape_and_precision():
    wanted = torch.full((2, 3), 1000.0, dtype=torch.float64)
    assert SLOPING.at(wanted).shape == (2, 3)
    assert SLOPING.at(wanted).dtype == torch.float64


def test_equal_audiograms_are_equal_whatever_they_were_made_from():
    assert Audiogram([250.0, 1000.0, 4000.0], torch.tensor([10, 20, 60])) == SLOPING
    assert hash(SLOPING) == hash(Audiogram([250.0, 1000.0, 4000.0], [10, 20, 60]))


@pytest.mark.parametrize(
    ("frequencies", "thresholds", "complaint"),
    [
        ((), (), "at least one"),
        ((500, 1000), (10,), "one threshold for each"),
        ((1000, 500), (10, 10), "ascending"),
        ((500, 500), (10, 10), "ascending"),
        ((0, 500), (10, 10), "positive"),
        ((500, math.inf), (10, 10), "ascending"),
        ((math.nan,), (10,), "positive"),
        ((500,), (math.nan,), "dB HL"),
        ((500,), (130.5,), "dB HL"),
        ((500,), (-21,), "dB HL"),
    ],
)
def test_impossible_audiograms_are_refused(frequencies, thresholds, complaint):
    with pytest.raises(ValueError, match=complaint):
        Audiogram(frequencies, thresholds)


def test_frequencies_that_cannot_be_asked_for_are_refused():
    with pytest.raises(ValueError, match="positive"):
        SLOPING.at([0.0, 1000.0])


def test_brainstem_thresholds_become_shifts_that_vanish_at_low_frequencies():
    audiogram = Audiogram.from_thresholds([30, 35, 50], [1000, 4000, 16000], [25, 20, 15])
    assert audiogram.at([250, 500, 1000, 4000, 16000]).tolist() == [0, 0, 5, 15, 35]


def test_a_normal_ear_has_no_shift():
    normal = torch.tensor([25.0, 20.0])
    assert Audiogram.from_thresholds(normal, [1000, 4000], normal).thresholds_db_hl == (0, 0, 0)


def test_low_frequency_or_missing_thresholds_are_refused():
    with pytest.raises(ValueError, match="leave out"):
        Audiogram.from_thresholds([30, 30], [500, 1000], [20, 20])
    with pytest.raises(ValueError, match="equally many"):
        Audiogram.from_thresholds([30, 30], [1000, 2000], [20])
    with pytest.raises(ValueError, match="highest level that was tried"):
        Audiogram.from_thresholds([30, math.nan], [1000, 2000], [20, 20])


@pytest.mark.parametrize("name", ["ear.json", "ear.csv"])
def test_a_file_brings_the_same_audiogram_back(tmp_path, name):
    audiogram = Audiogram((250, 1000.5), (-5, 33.25))
    audiogram.write(tmp_path / name)
    assert Audiogram.read(tmp_path / name) == audiogram
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ear.json", "{"),
        ("ear.json", "[1, 2]"),
        ("ear.json", '{"frequencies_hz": [500]}'),
        ("ear.csv", "frequency_hz,threshold_db_hl\n500,loud\n"),
        ("ear.csv", "hz,db\n500,10\n"),
        ("ear.csv", ""),
    ],
)
def test_a_file_without_an_audiogram_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        Audiogram.read(tmp_path / name)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.json or \.csv"):
        SLOPING.write(tmp_path / "ear.xlsx")


def test_standard_audiograms_have_their_names_and_grow_worse():
    assert list(STANDARD_DB_HL) == ["normal", *(f"N{n}" for n in range(1, 8)), "S1", "S2", "S3"]
    assert audiogram("normal").at([250, 8000]).tolist() == [0, 0]
    for name in STANDARD_DB_HL:
        thresholds = audiogram(name).at(STANDARD_HZ)
        assert bool((thresholds.diff() >= 0).all()), name
    for group in ("N", "S"):
        losses = [db for name, db in STANDARD_DB_HL.items() if name.startswith(group)]
        # At 500, 1000, 2000 and 4000 Hz on average, as losses are graded.
        means = [sum(db[i] for i in (2, 4, 6, 8)) / 4 for db in losses]
        assert means == sorted(means)
    # The steep ones fall by at least 45 dB from 500 Hz to 4 kHz.
    assert all(STANDARD_DB_HL[name][8] - STANDARD_DB_HL[name][2] >= 45 for name in ("S1", "S2"))


def test_an_audiogram_is_found_by_name_or_file(tmp_path):
    SLOPING.write(tmp_path / "ear.csv")
    assert audiogram(tmp_path / "ear.csv") == SLOPING
    assert audiogram(str(tmp_path / "ear.csv")) == SLOPING
    with pytest.raises(ValueError, match=r"N8: no standard audiogram.*N7, S1"):
        audiogram("N8")
    with pytest.raises(ValueError, match=r"frequency_hz,threshold_db_hl"):
        audiogram(tmp_path / "nowhere.csv")


def test_a_frequency_given_twice_is_refused_with_the_file(tmp_path):
    (tmp_path / "ear.csv").write_text("frequency_hz,threshold_db_hl\n500,10\n500,20\n")
    with pytest.raises(ValueError, match=r"ear\.csv: .*ascending"):
        audiogram(tmp_path / "ear.csv")
