"""Readouts: features of a listener to distributions of its spike counts."""

from .categorical import Categorical, CategoricalConfig, CategoricalPrediction
from .poisson import Poisson, PoissonConfig, PoissonPrediction

ReadoutConfig = CategoricalConfig | PoissonConfig
"""Configurations of all readouts, told apart by `kind`."""

Readout = Categorical | Poisson
Prediction = CategoricalPrediction | PoissonPrediction


def require_categorical(prediction: Prediction) -> CategoricalPrediction:
    """The same; a ValueError unless counts are classes, as gains of channels need them to be."""
    if not isinstance(prediction, CategoricalPrediction):
        raise ValueError("gains of channels belong to categorical counts; leave them out")
    return prediction


def make_readout(config: ReadoutConfig, features: int, slots: int) -> Readout:
    """An untrained readout.

    Args:
        config: Which, and of what size.
        features: Channels of what it reads, Z.
        slots: Channels that it has rows for.
    """
    if isinstance(config, PoissonConfig):
        return Poisson(config, features, slots)
    return Categorical(config, features, slots)
