"""Named directions of θ read what they name, and move it alone."""

import pytest
import torch

from icsim.models.named_axes import named_axes


def planted(animals: int = 20):
    """θ of animals in which a loss and lost synapses are two crossed directions of the logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(animals, 4, generator=generator)
    loss = 10 * logits[:, 0] + 5 * logits[:, 1]
    synapses = 0.2 * logits[:, 1] - 0.1 * logits[:, 2]
    noise = torch.randn(animals, generator=generator)
    return logits.sigmoid(), {"loss [dB]": loss, "lost synapses": synapses, "nothing": noise}


def test_what_can_be_read_is_named_and_nothing_else():
    theta, quantities = planted()
    axes = named_axes(theta, quantities)
    assert axes.names == ("loss [dB]", "lost synapses")
    assert axes.r2["nothing"] < 0.5 < min(axes.r2[name] for name in axes.names)
    for place, name in enumerate(axes.names):
        away = axes.read(theta)[:, place] - quantities[name]
        assert away.abs().max() < 0.2 * quantities[name].std()


def test_one_quantity_moves_and_the_other_stays():
    theta, quantities = planted()
    axes = named_axes(theta, quantities)
    begun = axes.read(theta[:1])[0]
    moved = axes.moved(theta[0], "loss [dB]", begun[0].item() + 6)
    after = axes.read(moved[None])[0]
    assert after[0] - begun[0] == pytest.approx(6, abs=1e-2)
    assert after[1] - begun[1] == pytest.approx(0, abs=1e-3)
    # The fourth dimension is in neither.
    assert (moved.logit() - theta[0].logit())[3].abs() < 0.3


def test_nothing_readable_is_refused():
    theta, quantities = planted()
    with pytest.raises(ValueError, match=r"R²: nothing -?\d"):
        named_axes(theta, {"nothing": quantities["nothing"]})
    with pytest.raises(ValueError, match="slope: names no direction of θ; those: loss"):
        named_axes(theta, quantities).moved(theta[0], "slope", 1.0)
