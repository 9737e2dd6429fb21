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

from recipes import state


@dataclasses.dataclass(frozen=True)
class Config:
    """Of nothing."""

    size: int = 1
    """Any."""


@pytest.mark.parametrize(
    ("error", "message", "kept"),
    [
        (ValueError("size 1 is too small: give 2"), "error: size 1 is too small: give 2", False),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "No space left on device", True),
        (ChildProcessError("a process was killed"), "error: a process was killed", True),
        (FloatingPointError("the loss became nan"), "error: the loss became nan", False),
    ],
)
def test_what_can_go_wrong_ends_in_one_message(monkeypatch, error, message, kept):
    def work(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(SystemExit) as ended:
        state.run(work, Config)
    said = str(ended.value)
    assert message in said
    assert ("run the same command again" in said) == kept
    monkeypatch.setenv("ICSIM_TRACEBACK", "1")
    with pytest.raises(type(error)):
        state.run(work, Config)


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
        list(state.read_ahead(loader))


def test_other_errors_of_a_reader_stay_what_they_are():
    def broken(batch):
        raise RuntimeError("no such row")

    with pytest.raises(RuntimeError, match="no such row"):
        list(state.read_ahead(DataLoader(range(2), collate_fn=broken)))


def test_a_process_of_several_ends_when_its_launcher_is_killed():
    work = (
        "import dataclasses, time\nfrom recipes import state\n"
        "Config = dataclasses.make_dataclass('Config', [])\n"
        "def wait(config):\n    print('ready', flush=True)\n    time.sleep(600)\n"
        "state.run(wait, Config)\n"
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
