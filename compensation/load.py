"""Aids, loaded."""

from pathlib import Path

from torch import nn

from icsim.models.facts import AidFacts, aid_facts
from icsim.weights import load_network

from .masks import Masks
from .waveform import Waveform


def load_aid(path: str | Path) -> tuple[nn.Module, AidFacts]:
    """An aid as `recipes.train_compensation` writes it.

    Args:
        path: `aid.safetensors`.

    Returns:
        The network in evaluation mode, and what it was trained for: which listener it is told, and
        whether it reduces noise.

    Raises:
        ValueError: If the file is damaged or holds something else.
    """
    aid, stored = load_network(path, Masks, Waveform)
    return aid, aid_facts(stored, path)
