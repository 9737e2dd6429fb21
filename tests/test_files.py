"""Files that appear whole or not at all."""

import errno
import os
import stat

import pytest
import torch

from icsim.files import whole_file
from icsim.weights import save_tensors


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


def test_files_have_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        save_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(2)}, {})
        with whole_file(tmp_path / "private") as beside:
            beside.touch(mode=0o600)
            beside.chmod(0o600)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o640}


def test_a_full_disk_is_blamed_on_the_path_that_was_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def short(path):
        with whole_file(path) as beside:
            beside.touch()
            raise OSError("8 requested and 3 written")  # as numpy says it

    path = tmp_path / "weights.safetensors"
    with pytest.raises(OSError, match="3 written") as refused:
        short(path)
    assert refused.value.filename == str(path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as refused:
        save_tensors(path, {"a": torch.zeros(2)}, {})
    assert (refused.value.filename, refused.value.errno) == (str(path), errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_cannot_be_read_is_named_itself(tmp_path):
    with pytest.raises(FileNotFoundError) as refused, whole_file(tmp_path / "out"):
        (tmp_path / "nowhere").read_bytes()
    assert refused.value.filename == str(tmp_path / "nowhere")
