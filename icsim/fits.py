"""Listeners whose θ was found, by `recipes.fit_theta` or by ear with `recipes.listen`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from icsim.theta import Drift


@dataclasses.dataclass(frozen=True)
class Fit:
    """One listener."""

    name: str
    """Of the animal or person, or of the file if it says none."""
    theta: Tensor
    """`(P,)`, within 0 and 1."""
    model: str | None
    """Fingerprint of the BetaICNet that θ belongs to, if it is known."""
    matching: Tensor | None = None
    """Slots of an animal's channels in that model, `(C,)`; None for a person."""
    gains: Tensor | None = None
    """Gains and offsets of those channels, `(C, K)`, if they were fitted."""
    drift: Drift | None = None
    """How θ moves through the animal's recording, if that was fitted."""


def read_fit(path: str | Path, model: str | None = None) -> Fit:
    """Read the JSON of a fit.

    Args:
        path: Its file.
        model: Fingerprint of the BetaICNet whose θ is wanted, if it is known.

    Raises:
        ValueError: If the file holds no θ in [0, 1], or one of another model.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        theta = torch.tensor(content["theta"], dtype=torch.get_default_dtype())
        matching, gains = content.get("matching"), content.get("channel_gains")
        drift = content.get("drift") and {k: torch.tensor(v) for k, v in content["drift"].items()}
        fit = Fit(
            content.get("animal", Path(path).stem),
            theta,
            content.get("model"),
            None if matching is None else torch.tensor(matching),
            None if gains is None else torch.tensor(gains),
            Drift(**drift) if drift else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no θ in it ({error!r}); see recipes.fit_theta") from error
    if theta.ndim != 1 or not len(theta) or not bool(((theta >= 0) & (theta <= 1)).all()):
        raise ValueError(
            f"{path}: θ must be a list of numbers within 0 and 1, got {content['theta']}"
        )
    if model and fit.model and fit.model != model:
        raise ValueError(
            f"{path}: was fitted to another model ({fit.model}) than the one here ({model}); "
            "fit the listener to this one"
        )
    return fit


def require_fits(folder: str | Path, names: Sequence[str]) -> None:
    """Refuse a folder in which none of some animals was fitted.

    Raises:
        ValueError: If it is none, or has no `<animal>.json` of them; the message says whose it has.
    """
    there = sorted(path.stem for path in Path(folder).glob("*.json"))
    if not set(there) & set(names):
        raise ValueError(
            f"{folder}: no fit of {' or '.join(names) or 'an unseen animal'} in it, but of "
            f"{', '.join(there) or 'nobody'}; run recipes.fit_theta, or correct --fits"
        )
