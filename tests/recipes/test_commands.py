"""What ends a recipe, and what it says."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from recipes.running import commands
from recipes.running.training import read_ahead


@dataclasses.dataclass(frozen=True)
class Config:
    """Of nothing."""

    size: int = 1
    """Any."""


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("error", "message", "kept"),
    [
        (ValueError("size 1 is too small: give 2"), "error: size 1 is too small: give 2", False),
        (
            OSError(errno.ENOSPC, "No space left on device", "x"),
            "x: cannot be written (No sp",
            True,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device", True),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied", True),
        (ChildProcessError("a process was killed"), "error: a process was killed", True),
        (FloatingPointError("the loss became nan"), "error: the loss became nan", False),
        (ImportError("NWB files need pynwb"), "error: NWB files need pynwb", False),
    ],
)
def test_what_can_go_wrong_ends_in_one_message(
    monkeypatch, capsys, tmp_path, error, message, kept, begun
):
    def work(config):
        if begun:
            commands.begin(tmp_path)
        raise error

    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(SystemExit) as ended:
        commands.run(work, Config)
    said = capsys.readouterr().err
    assert message in said
    assert ("run the same command again" in said) == (kept and begun)
    assert ended.value.code == (1 if begun else 2)
    if begun and getattr(error, "errno", None) == errno.ENOSPC:
        assert f"{error.filename or tmp_path}: cannot be written" in said
    monkeypatch.setenv("ICSIM_TRACEBACK", "1")
    with pytest.raises(type(error)):
        commands.run(work, Config)


@pytest.mark.parametrize(
    ("begun", "message"),
    [
        (None, "before anything was done"),
        ((), "nothing of it is kept, the same command begins again"),
        (("runs/x",), "what was finished is kept in runs/x, the same command goes on"),
    ],
)
def test_an_interruption_ends_in_one_line_that_says_what_is_kept(
    monkeypatch, capsys, begun, message
):
    def work(config):
        if begun is not None:
            commands.begin(*begun)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(SystemExit) as ended:
        commands.run(work, Config)
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 130
    assert said.startswith("interrupted")
    assert message in said
    assert "\n" not in said


def test_a_claim_that_nothing_came_of_is_replaced(tmp_path):
    out = tmp_path / "run"
    commands.claim(out, Config(1))
    (out / "events.out.tfevents.1").touch()
    commands.claim(out, Config(2))
    assert [file.name for file in out.iterdir()] == ["config.json"]
    (out / "deep").mkdir()
    (out / "deep" / "state.safetensors").touch()
    commands.claim(out, Config(2))
    with pytest.raises(ValueError, match="holds a run with other size"):
        commands.claim(out, Config(3))


def test_what_cannot_be_claimed_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: is no folder; choose another --out"):
        commands.claim(tmp_path / "file", Config())
    for content in ("[1]", "{", "null"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match="is no configuration of a run"):
            commands.claim(tmp_path, Config())


class Fatal(Dataset):
    """Numbers, of which the third kills the process that reads it."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(index)


def test_a_reader_that_is_killed_is_named():
    loader = DataLoader(Fatal(), batch_size=1, num_workers=1, prefetch_factor=1)
    with pytest.raises(ChildProcessError, match="reads ahead was killed"):
        list(read_ahead(loader))


def test_other_errors_of_a_reader_stay_what_they_are():
    def broken(batch):
        raise RuntimeError("no such row")

    with pytest.raises(RuntimeError, match="no such row"):
        list(read_ahead(DataLoader(range(2), collate_fn=broken)))


def test_a_process_of_several_ends_when_its_launcher_is_killed():
    work = (
        "import dataclasses, time\nfrom recipes.running import commands\n"
        "Config = dataclasses.make_dataclass('Config', [])\n"
        "def wait(config):\n    print('ready', flush=True)\n    time.sleep(600)\n"
        "commands.run(wait, Config)\n"
    )
    launch = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {work!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", launch],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TORCHELASTIC_RUN_ID": "none"},
    ) as launcher:
        assert launcher.stdout.readline() == "ready\n"
        launcher.kill()
        assert launcher.stdout.read() == ""  # which ends when nobody holds it any more
