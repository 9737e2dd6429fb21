"""Random generators that follow from numbers alone."""

import torch


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on nothing but these numbers: a seed, an epoch, a step."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)
