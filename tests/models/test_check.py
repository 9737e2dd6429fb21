"""What `check_model` says of modules that fit, and of those that do not."""

import pytest
import torch
from torch import nn

from icsim.clock import Clock
from icsim.models.check import check_model, require_model
from icsim.models.encoders import SincNetConfig
from icsim.models.response import ResponseModel, beta_icnet

ENCODER = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4)


class Ear(nn.Module):
    """A response model in a few lines, with one fault or none."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault

    def respond(self, sound, theta):
        bins = sound.unflatten(-1, (-1, 32)).square().mean(-1).add(1e-10).log()
        if self.fault == "future":
            bins = bins + bins.mean(-1, keepdim=True)
        if self.fault == "batch":
            bins = bins - bins.mean(0, keepdim=True)
        if self.fault == "silence":
            bins = bins / sound.abs().amax(-1, keepdim=True)
        if self.fault == "random":
            bins = bins + torch.randn_like(bins)
        gain = 0.1 if self.fault == "deaf to theta" else 0.1 * theta.sum(-1, keepdim=True)
        logits = torch.stack([gain * k * bins for k in range(5)], 1).unsqueeze(1)
        if self.fault == "detached":
            logits = logits.detach()
        if self.fault == "logits":
            return logits
        if self.fault == "shape":
            return logits.squeeze(1)
        return logits.log_softmax(2)


def wrong(module: nn.Module) -> list[str]:
    return [finding.name for finding in check_model(module, 2) if not finding.holds]


def test_a_response_model_and_anybody_elses_module_pass():
    assert wrong(ResponseModel(beta_icnet(2, 3, 2, ENCODER))) == []
    assert wrong(Ear()) == []


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("future", "causal"),
        ("batch", "batch"),
        ("silence", "silence"),
        ("random", "repeatable"),
        ("deaf to theta", "gradient of theta"),
        ("detached", "differentiable"),
        ("logits", "distribution"),
        ("shape", "shape"),
    ],
)
def test_each_fault_is_named(fault, named):
    assert named in wrong(Ear(fault))


def test_all_that_is_wrong_is_one_message():
    with pytest.raises(ValueError, match=r"Ear is no response model: .*causal: the future"):
        require_model(Ear("future"), 2)
    with pytest.raises(ValueError, match="Linear is no response model: respond"):
        require_model(nn.Linear(2, 2), 2)


def test_another_clock_is_tried_with():
    clock = Clock(48000.0, 240)
    model = ResponseModel(beta_icnet(2, 3, 2, ENCODER, clock))
    assert all(finding.holds for finding in check_model(model, 2, clock))
    assert not all(finding.holds for finding in check_model(model, 2))


def test_the_module_is_left_as_it_was():
    model = ResponseModel(beta_icnet(2, 3, 2, ENCODER)).train()
    check_model(model, 2)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
