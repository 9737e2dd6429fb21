"""What the training loops share: state on disk, precision, parts of a batch, several processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from icsim.weights import load_tensors, save_tensors


def read_ahead(loader: DataLoader) -> Iterator:
    """Its batches.

    Raises:
        ChildProcessError: If a process that reads ahead was killed.
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "a process that reads ahead was killed, by want of memory perhaps: fewer --workers "
            "need less"
        ) from error


def diverged(what: str, where: str = "") -> FloatingPointError:
    """The error of a training whose numbers are no longer finite."""
    return FloatingPointError(
        f"{what} is no longer finite{where and f' at {where}'}; the last state before it is kept; "
        "lower --learning_rate and start in another folder"
    )


def save_state(
    path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, progress: dict
) -> None:
    """Save modules, Adam's moments and whatever JSON says of the progress, as one file."""
    tensors = {
        f"{name}/{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": moment for key, moment in moments.items()}
    save_tensors(path, tensors, progress)


def load_state(
    path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer
) -> dict | None:
    """Bring back what `save_state` saved; None if there is nothing yet.

    Raises:
        ValueError: If the file is damaged or belongs to other networks.
    """
    if not path.is_file():
        return None
    tensors, progress = load_tensors(path)
    try:
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, name))
    except RuntimeError as error:
        raise ValueError(f"{path}: is of another architecture: {error}") from error
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, moment in _below(tensors, "optimiser").items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = moment
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return progress


def autocast(wanted: str, device: torch.device) -> torch.autocast:
    """Mixed precision for a forward pass: `bf16`, `no`, or `auto`.

    `auto` takes bf16 where the hardware multiplies matrices in it. Not Accelerate's own, whose
    setting would hold for every run of the process.
    """
    if wanted == "auto":
        fast = torch.cpu._is_amx_tile_supported() if device.type == "cpu" else True
        wanted = "bf16" if fast else "no"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted == "bf16")


def everywhere(terms: dict[str, torch.Tensor], accelerator: Accelerator) -> dict[str, float]:
    """Terms of a loss as numbers, averaged over processes."""
    values = torch.stack([term.detach().float() for term in terms.values()])
    return dict(zip(terms, accelerator.reduce(values, "mean").tolist(), strict=True))


def in_parts(
    rows: int, micro_batch: int | None, accelerator: Accelerator, *models: nn.Module
) -> Iterator[slice]:
    """Rows of this process's share of a batch, so many at a time, all if None.

    Between one part and the next, gradients of the models add up; processes exchange them at the
    last.
    """
    size = micro_batch or rows
    *parts, last = [slice(first, first + size) for first in range(0, rows, size)]
    for part in parts:
        with contextlib.ExitStack() as stack:
            for model in models:
                stack.enter_context(accelerator.no_sync(model))
            yield part
    yield last


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
