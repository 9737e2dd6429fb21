"""Response models on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from icsim.weights import config_from_dict, load_tensors, save_network

from .conditions import Theta
from .encoders import SincNetConfig
from .facts import ModelFacts, model_facts
from .response import ResponseModel, ResponseModelConfig, abrnet, beta_icnet, icnet

RENAMED = {"fusion": "condition.fusion", "listeners": "condition.listeners", "decoder": "readout"}
"""Parts of networks that were saved before they were one class, and where they are now."""


def save_model(path: str | Path, model: ResponseModel, facts: ModelFacts) -> None:
    """Write a response model and what it says of its animals as one file."""
    save_network(path, model, **facts.to_json())


def load_model(path: str | Path) -> tuple[ResponseModel, ModelFacts]:
    """Read a response model of this version or of before.

    Returns:
        The model in evaluation mode, and what it says of its animals.

    Raises:
        ValueError: If the file is damaged, or holds something else; the message says what.
    """
    tensors, metadata = load_tensors(path)
    architecture, stored = metadata.get("architecture"), metadata.get("config", {})
    if architecture == ResponseModel.__name__:
        config = config_from_dict(ResponseModelConfig, stored)
    else:
        config = _of_before(architecture, stored, path)
        tensors = {_renamed(name, architecture): value for name, value in tensors.items()}
    model = ResponseModel(config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path}: weights do not fit the configuration in it: {error}") from error
    return model.eval(), model_facts(metadata["facts"], path)


def load_theta_model(path: str | Path) -> tuple[ResponseModel, ModelFacts]:
    """The same of a model that takes any listener as a θ.

    Raises:
        ValueError: If it does not, or nothing can be loaded.
    """
    model, facts = load_model(path)
    if not isinstance(model.condition, Theta):
        raise ValueError(
            f"{path}: its condition is {model.config.condition.kind!r}; a model with condition "
            "'theta' is needed"
        )
    return model, facts


def _of_before(
    architecture: str | None, stored: dict[str, Any], path: str | Path
) -> ResponseModelConfig:
    presets: dict[str, Callable] = {"ICNet": icnet, "BetaICNet": beta_icnet, "ABRNet": abrnet}
    if architecture not in presets:
        raise ValueError(f"{path}: holds a {architecture}, not a response model")
    encoder = config_from_dict(SincNetConfig, stored["encoder"])
    return presets[architecture](**stored | {"encoder": encoder})


def _renamed(name: str, architecture: str | None) -> str:
    part, _, rest = name.partition(".")
    if architecture == "ICNet" and part in ("drift", "gain"):
        return f"condition.{name}"
    return f"{RENAMED.get(part, part)}.{rest}"
