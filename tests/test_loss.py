"""The frozen model as an objective: gradients reach the sound and θ, and nothing else."""

import pytest
import torch

from icsim.loss import ResponseLoss, squared_error
from icsim.models.encoders import SincNetConfig
from icsim.models.response import ResponseModel, beta_icnet

ENCODER = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=1.0)


def divergence(response, target, weight=None):
    """One that somebody else might want [nats]."""
    by_channel = (target.exp() * (target - response)).sum(-2).mean(-1)
    return by_channel.mean(-1) if weight is None else (by_channel * weight).mean(-1)


DISTANCES = [squared_error, divergence]


@pytest.fixture
def model() -> ResponseModel:
    torch.manual_seed(0)
    model = ResponseModel(beta_icnet(2, channels=3, parameters=2, encoder=ENCODER))
    with torch.no_grad():
        model.condition.fusion.layers[-1].conv.weight *= 60
        model.condition.fusion.layers[0].conv.weight[:, 4:] *= 8
        model.readout.weight *= 15
    return model


@pytest.fixture
def sound() -> torch.Tensor:
    return torch.randn(2, 320, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def theta() -> torch.Tensor:
    return torch.tensor([[0.1, 0.9], [0.8, 0.3]])


NORMAL = torch.tensor([[0.5, 0.5]])


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_reach_the_sound_and_theta_and_no_parameter(model, sound, theta, distance):
    loss = ResponseLoss(model, distance)
    target = loss.respond(sound, NORMAL)
    sound.requires_grad_(), theta.requires_grad_()
    loss(sound, theta, target).sum().backward()
    assert sound.grad.isfinite().all()
    assert (sound.grad != 0).float().mean() > 0.9
    assert (theta.grad != 0).all()
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not list(filter(lambda p: p.requires_grad, loss.parameters()))


def test_training_mode_does_not_thaw_the_model(model):
    loss = ResponseLoss(model)
    trainer = torch.nn.Sequential(loss).train()
    assert trainer.training
    assert not any(module.training for module in loss.modules())
    assert not loss.train().training


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_response_is_at_no_distance_from_itself(model, sound, theta, distance):
    loss = ResponseLoss(model, distance)
    itself = loss.respond(sound, theta)
    assert (loss(sound, theta, itself) == 0).all()
    assert (loss(sound, theta, loss.respond(sound, NORMAL)) > 1e-6).all()


def test_the_squared_error_compares_expected_counts():
    never, twice, halves = torch.zeros(3, 1, 1, 5, 1)
    never[:, :, 0], twice[:, :, 2] = 1, 1
    halves[:, :, [0, 4]] = 0.5
    assert squared_error(never.log(), twice.log()).item() == pytest.approx(4)
    assert squared_error(halves.log(), twice.log()).item() == pytest.approx(0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_weights_choose_channels_and_are_scaled_to_a_mean_of_one(model, sound, theta, distance):
    target = ResponseLoss(model).respond(sound, NORMAL)
    even = ResponseLoss(model, distance, torch.full((3,), 7.0))(sound, theta, target)
    torch.testing.assert_close(even, ResponseLoss(model, distance)(sound, theta, target))
    single = ResponseLoss(model, distance, torch.tensor([0.0, 5.0, 0.0]))(sound, theta, target)
    response = ResponseLoss(model).respond(sound, theta)
    torch.testing.assert_close(single, distance(response[:, 1:2], target[:, 1:2]))


def test_skipped_bins_are_not_compared(model, sound, theta):
    loss = ResponseLoss(model)
    target = loss.respond(sound, NORMAL)
    spoilt = target.clone()
    spoilt[..., :6] = -1.0
    whole = loss(sound, theta, target, skip_bins=6)
    assert torch.equal(loss(sound, theta, spoilt, skip_bins=6), whole)
    assert not torch.equal(loss(sound, theta, spoilt, skip_bins=5), whole)


def test_one_listener_may_hear_all_sounds(model, sound):
    loss = ResponseLoss(model)
    each = loss.respond(sound, NORMAL.expand(2, -1))
    torch.testing.assert_close(loss.respond(sound, NORMAL), each)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_distance_is_float32_inside_autocast(model, sound, theta, distance):
    loss = ResponseLoss(model, distance)
    target = loss.respond(sound, NORMAL)
    outside = loss(sound, theta, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss.respond(sound, NORMAL), target)
        inside = loss(sound, theta, target)
        low = loss.respond(sound.bfloat16(), theta)
    assert inside.dtype == low.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_right(model, distance):
    loss = ResponseLoss(model.double(), distance)
    generator = torch.Generator().manual_seed(1)
    sound = torch.randn(1, 256, generator=generator, dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([[0.2, 0.7]], dtype=torch.float64, requires_grad=True)
    target = loss.respond(sound.detach(), NORMAL.double())
    assert target.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda s, t: loss(s, t, target), (sound, theta), fast_mode=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_sounds_that_are_no_numbers_are_refused(model, sound, theta, bad):
    sound[1, 100] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        ResponseLoss(model).respond(sound, theta)


@pytest.mark.parametrize(
    ("sound_shape", "theta_shape"),
    [((320,), (1, 2)), ((2, 1, 320), (2, 2)), ((2, 320), (2,)), ((2, 320), (3, 2))],
)
def test_other_shapes_are_refused(model, sound_shape, theta_shape):
    with pytest.raises(ValueError, match=r"sound must be \(B, T\) and theta \(B, P\)"):
        ResponseLoss(model).respond(torch.zeros(sound_shape), torch.zeros(theta_shape))


def test_a_theta_of_another_model_is_refused(model, sound):
    with pytest.raises(ValueError, match="theta must be"):
        ResponseLoss(model).respond(sound, torch.rand(2, 3))


@pytest.mark.parametrize(
    "weight", [[1.0, -1.0, 1.0], [1.0, float("nan"), 1.0], [0.0] * 3, [1.0, float("inf"), 0.0]]
)
def test_bad_weights_are_refused(model, weight):
    with pytest.raises(ValueError, match="finite, not negative and not all zero"):
        ResponseLoss(model, weight=torch.tensor(weight))


def test_any_model_that_responds_will_do(sound):
    class Loudness(torch.nn.Module):
        """Louder sounds make a spike in every bin likelier."""

        def respond(self, sound, theta):
            power = sound.unfold(-1, 32, 32).square().mean(-1) * theta[:, :1]
            return torch.stack([-power, torch.log1p(-torch.exp(-power))], dim=1).unsqueeze(1)

    loss = ResponseLoss(Loudness())
    target = loss.respond(sound, torch.ones(1, 1))
    assert (loss(sound, torch.ones(1, 1), target) == 0).all()
    assert (loss(0.5 * sound, torch.ones(1, 1), target) > 0).all()
    torch.testing.assert_close(
        loss(0.5 * sound, torch.full((1, 1), 4.0), target), torch.zeros(2), rtol=0, atol=1e-10
    )
