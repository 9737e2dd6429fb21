"""What a description of listeners, such as θ or thresholds, says, and how far two agree."""

import numpy as np


def linear_r2(features: np.ndarray, truth: np.ndarray) -> float | None:
    """R² of a ridge regression that predicts each listener from the others.

    Features are standardised and the penalty weighs as much as one listener, so that features
    which say nothing explain nothing, however few listeners there are.

    Args:
        features: `(A, P)`.
        truth: `(A,)`.

    Returns:
        At most 1; below 0 if worse than the mean; None if all listeners are alike.
    """
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    variation = np.square(truth - truth.mean()).sum()
    if variation < 1e-9:
        return None
    predicted = cross_val_predict(_regression(), features, truth, cv=LeaveOneOut())
    return float(1 - np.square(truth - predicted).sum() / variation)


def linear_reading(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """By how much the same regression's prediction grows with each feature, `(P,)`."""
    fitted = _regression().fit(features, truth)
    return fitted[-1].coef_ / fitted[0].scale_


def _regression():
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(alpha=1.0))


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """How far two descriptions place the same listeners alike, but for rotation, scale and shift.

    Args:
        first: `(A, P)`.
        second: `(A, P)`.

    Returns:
        Procrustes correlation: 1 if they are the same, 0 if one says nothing of the other. Few
        listeners in many dimensions agree by chance alone: see `chance_agreement`. Source:
        Peres-Neto & Jackson 2001.
    """
    from scipy.spatial import procrustes

    return float(np.sqrt(max(0.0, 1 - procrustes(first, second)[2])))


def chance_agreement(first: np.ndarray, second: np.ndarray, draws: int = 200) -> float:
    """Median agreement when the listeners of one are shuffled."""
    draw = np.random.default_rng(0)
    return float(np.median([agreement(first, draw.permutation(second)) for _ in range(draws)]))
