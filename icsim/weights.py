"""Networks on disk: weights in safetensors, the configuration that rebuilds them beside."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from icsim.files import whole_file


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict) -> None:
    """Write tensors and JSON metadata as one file that appears whole or not at all.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as beside:
        try:
            safetensors.torch.save_file(contiguous, beside, {"json": json.dumps(metadata)})
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read what `save_tensors` wrote.

    Raises:
        ValueError: If the file is missing, damaged or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint; train it first, or correct the path")
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {})["json"])
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: damaged, or no checkpoint of this project ({error})") from error
    return tensors, metadata


def fingerprint(path: str | Path) -> str:
    """What tells a checkpoint from any other: 16 digits of the SHA-256 of its file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def require_facts(
    stored: Mapping[str, Any], names: Sequence[str], path: str | Path, those: str
) -> None:
    """Raise a ValueError unless a checkpoint's JSON has all of some facts.

    Args:
        stored: The JSON.
        names: Of the facts.
        path: Of the checkpoint.
        those: Checkpoints that have them, for the message.
    """
    if missing := [name for name in names if name not in stored]:
        raise ValueError(f"{path}: does not say its {', '.join(missing)}; {those} do")


def save_network(path: str | Path, network: nn.Module, **facts) -> None:
    """Save a network whose `config` is its only constructor argument.

    Args:
        path: Where to, `*.safetensors`.
        network: Its class name and `config` are kept with the weights.
        facts: Anything JSON can hold that its users need (animals' names, where it came from).
    """
    metadata = {
        "architecture": type(network).__name__,
        "config": dataclasses.asdict(network.config),  # type: ignore[call-overload]  # a dataclass
        "facts": facts,
    }
    save_tensors(path, network.state_dict(), metadata)


def load_network(
    path: str | Path, *constructors: Callable, former: Mapping[str, Callable] | None = None
) -> tuple[nn.Module, dict]:
    """Rebuild a network as it was saved.

    Args:
        path: From `save_network`.
        constructors: Its class, or several of which it may be.
        former: Classes by what they were called when checkpoints were written that still load.

    Returns:
        The network in evaluation mode, and its facts.

    Raises:
        ValueError: If the file is damaged or holds another architecture; the message says which.
    """
    tensors, metadata = load_tensors(path)
    by_name = {one.__name__: one for one in constructors}
    name = metadata.get("architecture")
    constructor = (by_name | dict(former or {})).get(str(name))
    if constructor is None:
        raise ValueError(f"{path}: holds a {name}, not a {' or '.join(by_name)}")
    config_class = typing.get_type_hints(constructor.__init__)["config"]
    network = constructor(config_from_dict(config_class, metadata["config"]))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: weights do not fit the configuration in it: {error}") from error
    return network.eval(), metadata["facts"]


def config_from_dict(config_class: type, values: dict):
    """Rebuild a frozen dataclass, nested ones too, from `dataclasses.asdict`.

    Where a field may be one of several dataclasses, their `kind` tells which it is.

    Raises:
        ValueError: If a key or a kind is unknown.
    """
    hints = typing.get_type_hints(config_class)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"{config_class.__name__} has no {', '.join(sorted(unknown))}")
    return config_class(**{name: _rebuilt(hints[name], value) for name, value in values.items()})


def _rebuilt(hint, value):
    """A field's value; a dictionary becomes the dataclass of its kind."""
    choices = [c for c in typing.get_args(hint) or (hint,) if dataclasses.is_dataclass(c)]
    if not choices or not isinstance(value, dict):
        return value
    kinds = {getattr(choice, "kind", None): choice for choice in choices}
    if len(choices) == 1:
        return config_from_dict(choices[0], value)
    if value.get("kind") not in kinds:
        raise ValueError(f"no kind {value.get('kind')!r}; there are {', '.join(map(str, kinds))}")
    return config_from_dict(kinds[value["kind"]], value)
