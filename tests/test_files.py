"""Files that appear whole or not at all."""

import pytest

from icsim.files import whole_file


def write_and_fail(path):
    with whole_file(path) as beside:
        beside.write_text("4")
        raise OSError("disk full")


def test_what_was_there_stays_if_writing_fails(tmp_path):
    path = tmp_path / "deep" / "numbers.txt"
    with whole_file(path) as beside:
        beside.write_text("1 2 3")
    with pytest.raises(OSError, match="full"):
        write_and_fail(path)
    assert path.read_text() == "1 2 3"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_appears_before_all_is_written(tmp_path):
    path = tmp_path / "numbers.txt"
    with whole_file(path) as beside:
        beside.write_text("1")
        assert not path.exists()
    assert path.read_text() == "1"
