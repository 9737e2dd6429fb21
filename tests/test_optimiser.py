"""Muon and Adam in one optimiser: steps of equal size, and weights that shrink."""

import pytest
import torch
from torch import nn

from icsim.optimiser import Muon, split_parameters


@pytest.mark.parametrize("muon_rate", [None, 0.02])
def test_weights_decay_by_their_rate_in_groups_that_ask_for_it(muon_rate):
    layer = nn.Linear(3, 2)
    matrices, vectors = split_parameters(layer, 0.01, muon_rate)
    matrices["weight_decay"] = 0.5
    optimiser = Muon([matrices, vectors])
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimiser.param_groups:
        group["lr"] = group["rate"]
    optimiser.step()
    rate = muon_rate or 0.01
    torch.testing.assert_close(layer.weight.detach(), before["weight"] * (1 - 0.5 * rate))
    assert torch.equal(layer.bias.detach(), before["bias"])


def test_a_step_of_muon_has_the_same_length_in_every_direction():
    layer = nn.Linear(6, 6, bias=False)
    (matrices, _) = split_parameters(layer, 0.01, 0.1)
    optimiser = Muon([matrices])
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.diag(torch.tensor([1e3, 1e2, 10.0, 1.0, 0.1, 0.01]))
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    moved = torch.linalg.svdvals(before - layer.weight.detach()) / 0.1
    assert moved[:3].min() > 0.6  # five iterations do not reach the smallest
    assert moved.max() < 1.3


def test_without_a_rate_of_its_own_a_matrix_moves_as_by_adam():
    torch.manual_seed(0)
    mine, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(mine.state_dict())
    optimiser, adam = (
        Muon(split_parameters(mine, 0.01)),
        torch.optim.Adam(theirs.parameters(), 0.01),
    )
    for group in optimiser.param_groups:
        group["lr"] = group["rate"]
    for _ in range(4):
        for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        optimiser.step()
        adam.step()
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
