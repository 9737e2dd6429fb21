"""Rows of the benchmark of the model: what networks and groups are called, and which are there."""

import pandas as pd

from evaluation.tidy import where

LABELS = {
    "icnet": "ICNet, one an animal",
    "icnet-multi": "ICNet, a branch an animal",
    "abr": "ABRNet",
    **{f"beta-{p}": f"{p} parameter{'s' if p > 1 else ''}" for p in (1, 2, 3, 6, 12)},
    "beta-6-permuted": "6 parameters, permutation",
    "beta-6-again": "6 parameters, from another seed",
    "beta-6-twenty": "6 parameters, all animals",
    "shared-drift": "one drift for all animals",
    "no-threshold-penalty": "θ not held to thresholds",
    "no-noise": "no noise on θ",
    "matched-again": "channels matched again by likelihood",
    "three-animals": "three animals answer in a step",
    "no-divergence": "no prior on the noise of θ",
    "no-channel-gains": "no gains of channels",
    "narrow": "encoder of half as many kernels",
    "slow-listeners": "θ at the network's learning rate",
    "not-modulated": "θ joins the first layer alone",
    "wide-start": "θ begun wide apart at random",
    "from-icnet": "half of the epochs as an ICNet",
    "icnet-wide": "ICNet, one an animal, of as many kernels",
}
"""Networks as a reader calls them."""

MODELS = (
    *("icnet", "icnet-multi", "abr", "beta-3", "beta-6"),
    *("beta-6-again", "beta-6-permuted", "beta-6-twenty", "icnet-wide"),
)
"""Networks that are compared; all others are one of them with one thing changed."""

GROUPS = ("NH", "HI", "hidden")
"""Normal hearing, losses that thresholds show, and losses that they do not."""


def present(
    rows: pd.DataFrame, names: tuple[str, ...] = MODELS, measure: str = "feve"
) -> list[str]:
    """Those of some networks of which something was measured."""
    measured = set(where(rows, measure=measure).device)
    return [name for name in names if name in measured]
