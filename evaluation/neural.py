"""Neural restoration: how far an impaired midbrain is brought to answer as a normal one.

Two measures. Both are `1 − D(HI(f(x)), target) / D(HI(x), target)`, where x is the sound that the
aid f hears and D the squared error of expected counts summed over channels and bins. They differ in
what the normal ear hears:

- **fidelity**: the sound that the aid hears, noise included, `target = NH(x)`;
- **clarity**: the clean speech s in it, `target = NH(s)`.

1 = as the normal ear, 0 = no better than no aid, negative = worse. In quiet x is s, and the two are
the same. In noise they ask for different things: an aid that takes noise away departs from a normal
ear that hears the noise, which fidelity counts against it, and clarity in its favour. Clarity's
denominator holds what the noise does as well as what the loss does.

Two forms of either. `pooled_restoration`, with the discrepancies summed over all sounds before the
ratio, is the one to report. `restoration` has a ratio for each sound; a sound with hardly any loss
makes it explode, so its mean over sounds says little.

What the midbrains are is the caller's: a learned model, or a simulated animal and its healthy
twin. Their counts must be clipped as recordings are before they come here.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from evaluation.table import Score, bootstrap

Midbrain = Callable[[Tensor], Tensor]
"""From sounds [Pa] `(B, T)` to expected counts `(B, C, N)`."""


def discrepancy(response: Tensor, normal: Tensor) -> Tensor:
    """D: squared error of expected counts, summed over channels and bins.

    Args:
        response: Expected counts, `(B, C, N)`.
        normal: The normal ear's, `(B, C, N)`.

    Returns:
        `(B,)`, in double precision.

    Raises:
        ValueError: If their shapes differ.
    """
    if response.ndim != 3 or response.shape != normal.shape:
        raise ValueError(
            f"responses must be (B, C, N) and alike, got {tuple(response.shape)} and "
            f"{tuple(normal.shape)}; align channels and cut to the same bins"
        )
    return (response.double() - normal.double()).square().sum((1, 2))


def restoration(impaired_processed: Tensor, impaired_unprocessed: Tensor, normal: Tensor) -> Score:
    """Restoration of each sound.

    Args:
        impaired_processed: Expected counts of the impaired midbrain with the aid, `(B, C, N)`.
        impaired_unprocessed: Without it, `(B, C, N)`.
        normal: Of the normal midbrain, `(B, C, N)`: hearing the unprocessed sounds for fidelity,
            the clean speech for clarity.

    Returns:
        At most 1, `(B,)`; missing where there is no loss to restore.
    """
    aided = discrepancy(impaired_processed, normal)
    return _ratio(aided, discrepancy(impaired_unprocessed, normal))


def discrepancies(
    impaired: Midbrain, normal: Midbrain, unprocessed: Tensor, processed: Tensor
) -> tuple[Tensor, Tensor]:
    """Discrepancies of fidelity, to be collected over batches and pooled.

    Args:
        impaired: The listener's midbrain.
        normal: The one to be matched; it hears the unprocessed sounds.
        unprocessed: Sounds before the aid [Pa], `(B, T)`.
        processed: The same sounds after it [Pa], `(B, T)`.

    Returns:
        Aided and unaided discrepancy, each `(B,)`. No gradient flows.
    """
    if unprocessed.shape != processed.shape:
        raise ValueError(
            f"unprocessed {tuple(unprocessed.shape)} and processed {tuple(processed.shape)} sounds "
            "differ in shape; align them first"
        )
    with torch.no_grad():
        target = normal(unprocessed)
        return discrepancy(impaired(processed), target), discrepancy(impaired(unprocessed), target)


def fidelity_and_clarity(
    impaired: Midbrain,
    normal: Midbrain,
    clean: Tensor,
    noisy: Tensor,
    processed: Mapping[str, Tensor],
) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
    """Discrepancies of fidelity and of clarity, for any number of devices that heard the same.

    Args:
        impaired: The listener's midbrain.
        normal: The one to be matched: it hears `noisy` for fidelity and `clean` for clarity.
        clean: Speech without the noise [Pa], `(B, T)`; in quiet the same as `noisy`.
        noisy: What every device heard [Pa], `(B, T)`.
        processed: What each made of it [Pa], `(B, T)`, aligned, by name of the device.

    Returns:
        By device, then `"fidelity"` and `"clarity"`: aided and unaided discrepancy, each `(B,)`, as
        `pooled_restoration` takes them. No gradient flows.

    Raises:
        ValueError: If shapes differ.

    >>> sound = torch.rand(1, 320)
    >>> ear = lambda sound: sound.view(1, 1, -1)
    >>> both = fidelity_and_clarity(lambda x: ear(x / 2), ear, sound, sound, {"+6 dB": 2 * sound})
    >>> {name: pooled_restoration(*one) for name, one in both["+6 dB"].items()}
    {'fidelity': 1.0, 'clarity': 1.0}
    """
    for name, sound in {"clean": clean, **processed}.items():
        if sound.shape != noisy.shape:
            raise ValueError(
                f"noisy {tuple(noisy.shape)} and {name} {tuple(sound.shape)} sounds differ in "
                "shape; align them first"
            )
    with torch.no_grad():
        fidelity = normal(noisy)
        targets = {"fidelity": fidelity}
        targets["clarity"] = fidelity if torch.equal(clean, noisy) else normal(clean)
        alone = impaired(noisy)
        unaided = {name: discrepancy(alone, target) for name, target in targets.items()}
        by_device = {}
        for device, sound in processed.items():
            response = impaired(sound)
            by_device[device] = {
                name: (discrepancy(response, target), unaided[name])
                for name, target in targets.items()
            }
    return by_device


def pooled_restoration(aided: Tensor, unaided: Tensor) -> float:
    """Restoration of a set of sounds: the discrepancies are summed before the ratio.

    Args:
        aided: D with the aid, one a sound, `(S,)`.
        unaided: D without it, `(S,)`.

    Raises:
        ValueError: If the sum without the aid is zero, or either is not finite.
    """
    score = _ratio(aided.sum()[None], unaided.sum()[None])
    if score.reasons[0]:
        raise ValueError(f"pooled restoration of {len(aided)} sounds: {score.reasons[0]}")
    return score.values.item()


def pooled_interval(
    aided: Tensor, unaided: Tensor, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the pooled restoration over sounds; arguments as there."""

    def pooled(drawn: Tensor) -> Tensor:
        total = drawn.sum(1)
        return 1 - total[:, 0] / total[:, 1]

    return bootstrap(torch.stack((aided, unaided), 1), pooled, confidence, seed=seed)


def _ratio(aided: Tensor, unaided: Tensor) -> Score:
    """One minus the ratio, or the reason why there is none."""
    values, reasons = [], []
    for after, before in zip(aided.tolist(), unaided.tolist(), strict=True):
        reason = None
        if not math.isfinite(after) or not math.isfinite(before):
            reason = "a response is NaN or infinite"
        elif before == 0:
            reason = "the unaided response is normal already: no loss to restore"
        values.append(math.nan if reason else 1 - after / before)
        reasons.append(reason)
    return Score(torch.tensor(values), tuple(reasons))
