"""What is heard of θ, on an aid and a model whose answer is known."""

import pytest
import torch
from torch import nn

from compensation.sensitivity import STEP, sensitivity


class Louder(nn.Module):
    """The first number of θ sets the gain, the second does nothing."""

    def process(self, sound, listener, noise_reduction=1.0, gain=1.0):
        return sound * (1 + gain * listener[:, :1])


class Meter(nn.Module):
    """Two channels of one bin: the mean magnitude is the chance of a count in the first."""

    def respond(self, sound, theta):
        chance = sound.abs().mean(1, keepdim=True)
        one = torch.stack([1 - chance, chance], 1)
        silent = torch.stack([torch.ones_like(chance), torch.full_like(chance, 1e-9)], 1)
        return torch.stack([one, silent], 1).log()


SOUNDS = 0.1 * torch.ones(3, 8)


@pytest.mark.parametrize("theta", [(0.5, 0.5), (0.0, 1.0), (1.0, STEP / 2)])
def test_only_what_changes_the_response_is_heard(theta):
    heard = sensitivity(Louder(), Meter(), SOUNDS, torch.tensor(theta))
    # Each of three sounds changes by 0.1 a unit of θ, in one channel.
    expected = torch.tensor([[3 * 0.1**2 / 24, 0], [0, 0]])
    torch.testing.assert_close(heard, expected.double(), rtol=1e-4, atol=1e-9)


def test_without_gain_nothing_is_heard():
    assert sensitivity(Louder(), Meter(), SOUNDS, torch.tensor([0.5, 0.5]), gain=0.0).max() == 0
