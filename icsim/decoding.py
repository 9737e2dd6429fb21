"""What can be read from a description of listeners, such as θ or thresholds."""

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
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    variation = np.square(truth - truth.mean()).sum()
    if variation < 1e-9:
        return None
    model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
    predicted = cross_val_predict(model, features, truth, cv=LeaveOneOut())
    return float(1 - np.square(truth - predicted).sum() / variation)
