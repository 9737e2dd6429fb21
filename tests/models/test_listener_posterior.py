"""One listener's posterior: planted ones are found with their drift, as surely as is said."""

import dataclasses
import functools

import pytest
import torch

from icsim.channel_gains import Prior, broad
from icsim.models.encoders import SincNetConfig
from icsim.models.listener_cost import listener_cost
from icsim.models.listener_posterior import (
    ListenerPrior,
    Posterior,
    _around,
    fisher_scoring,
    known_states,
    listener_prior,
    modes,
    weights,
)
from icsim.models.response import ResponseModel, beta_icnet
from icsim.models.subjects import Subjects
from icsim.theta import Listeners

ENCODER = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=6, input_scale=1.0)
PLANTED = torch.tensor([-0.8, 0.7, 1.5, -1.0])
CHANNELS, CLASSES = 16, 5
HOURS = torch.linspace(0, 10, 12)
PRIOR = ListenerPrior(
    torch.zeros(4), torch.diag(torch.tensor([4.0, 4.0, 1.0, 1.0])), torch.full((2,), 15.0),
    torch.full((2,), 0.1),
)  # fmt: skip


@functools.cache
def planted(seed: int, gained: bool = False, state: tuple[float, ...] = tuple(PLANTED.tolist())):
    """The cost of listeners for what one answered that moves, and the gains of its channels."""
    torch.manual_seed(4)
    sizes = {"channels": CHANNELS, "parameters": 2, "encoder": ENCODER, "modulated": True}
    model = ResponseModel(beta_icnet(1, **sizes))
    with torch.no_grad():
        model.condition.fusion.layers[-1].conv.weight *= 20
        model.condition.fusion.layers[0].conv.weight[:, model.condition.fusion.latent :] *= 2
        model.readout.weight *= 15
    torch.manual_seed(seed)
    gains = broad(CLASSES).mean.repeat(CHANNELS, 1)
    if gained:
        gains = gains + 0.3 * torch.randn(CHANNELS, CLASSES)
    sound = 3 * torch.randn(len(HOURS), 32 * 164)
    theta = PRIOR.theta(torch.tensor(state)[None], HOURS)
    with torch.no_grad():
        logits = model.predict(model.latent(sound), Subjects(theta=theta)).logits()[:, 0]
    odds = gains[:, :1, None] * (logits - logits[:, :, :1])
    odds[:, :, 1:] += gains[:, 1:, None]
    probability = odds.softmax(2).transpose(-1, -2)
    counts = torch.distributions.Categorical(probs=probability).sample()[..., 64:]
    return listener_cost(model, sound, counts.to(torch.uint8)), gains


def fitted(seed: int = 0, gained: bool = False, **changes) -> Posterior:
    prior = broad(CLASSES) if gained else None
    cost = planted(seed, gained)[0]
    return fisher_scoring(cost, HOURS, PRIOR, prior, PRIOR.mean, **changes)


def independent(monkeypatch):
    """Each bin counts as one observation, as in counts that are drawn from the model."""
    monkeypatch.setattr(listener_cost.__globals__["ListenerCost"], "correlated_bins", 1.0)


@pytest.mark.parametrize("gained", [False, True])
def test_planted_listeners_are_found_as_surely_as_is_said(monkeypatch, gained):
    independent(monkeypatch)
    away = []
    for seed in range(3):
        found = fitted(seed, gained)
        away.append((found.mean - PLANTED) / found.covariance.diagonal().sqrt())
        assert (found.theta() - PLANTED[:2].sigmoid()).abs().max() < 0.15
    assert 0.3 < torch.stack(away).square().mean().sqrt() < 1.5


def test_gains_of_channels_are_found_beside_and_make_a_listener_less_sure(monkeypatch):
    independent(monkeypatch)
    cost, gains = planted(0, gained=True)
    found = fitted(0, gained=True)
    deviation = found.gain_covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert ((found.gains - gains) / deviation).square().mean().sqrt() < 1.5
    given = Prior(found.gains, 1e-9 * torch.eye(CLASSES))
    alone = fisher_scoring(cost, HOURS, PRIOR, given, found.mean, found.gains, evaluations=1)
    assert (found.covariance.diagonal() > 1.01 * alone.covariance.diagonal()).all()


def test_slopes_are_those_of_the_likelihood():
    cost, _ = planted(1, gained=True)
    state, gains = PLANTED + 0.2, broad(CLASSES).mean.repeat(CHANNELS, 1)
    around = _around(cost, HOURS, PRIOR, state, gains)
    at = torch.cat([state, gains[0]]).double().requires_grad_()

    def likelihood(at):
        rows = torch.cat([at[4:][None].float(), gains[1:]])
        nats = cost(PRIOR.theta(at[None, :4].float(), HOURS), rows)
        return -nats.sum() * cost.observations

    (slope,) = torch.autograd.grad(likelihood(at), at)
    slopes = torch.cat([around.slope, around.gain_slope[0]])
    torch.testing.assert_close(slopes, slope, rtol=1e-3, atol=1e-3 * slope.abs().max().item())
    assert around.nats == pytest.approx(-likelihood(at).item(), rel=1e-4)


def test_little_sound_leaves_the_prior():
    cost = planted(0)[0]
    one = dataclasses.replace(cost, latent=cost.latent[:1], counts=cost.counts[:1, :, :2])
    one = dataclasses.replace(one, context_bins=162)
    narrow = dataclasses.replace(PRIOR, covariance=1e-6 * torch.eye(4), mean=torch.ones(4))
    found = fisher_scoring(one, HOURS[:1], narrow, None, narrow.mean)
    torch.testing.assert_close(found.mean, narrow.mean, atol=1e-2, rtol=0)
    torch.testing.assert_close(found.covariance, narrow.covariance, atol=1e-6, rtol=0.05)


def test_known_listeners_that_cost_least_come_first():
    listeners = Listeners(3, 2, seed=1)
    with torch.no_grad():
        listeners.mean[1], listeners.shift[:] = PLANTED[:2], PLANTED[2:]
    states = known_states(planted(0)[0], HOURS, PRIOR, listeners)
    assert states.shape == (4, 4)
    torch.testing.assert_close(states[0], PLANTED)


def test_new_listeners_may_lie_outside_of_the_known_ones():
    listeners = Listeners(40, 2, shared_drift=False, seed=0)
    prior = listener_prior(listeners)
    variance = listeners.mean.detach().var(0)
    torch.testing.assert_close(prior.covariance.diagonal()[:2], 2 * variance + 0.25)
    torch.testing.assert_close(prior.mean[:2], listeners.mean.detach().mean(0))
    assert (torch.linalg.eigvalsh(prior.covariance) > 0).all()


def test_modes_differ_and_the_more_probable_one_weighs_more():
    def mode(at: float, cost: float, width: float = 1.0) -> Posterior:
        covariance = width * torch.eye(1)
        return Posterior(PRIOR, torch.tensor([at]), covariance, None, None, cost, ())

    best, near, far = mode(0.0, 1.0), mode(1.0, 2.0), mode(9.0, 3.0)
    assert modes([far, near, best]) == [best, far]
    assert weights([best, far]).tolist() == pytest.approx([0.8808, 0.1192], abs=1e-3)
    assert weights([mode(0.0, 1.0), mode(9.0, 1.0, 9.0)]).tolist() == pytest.approx([0.25, 0.75])


def test_the_course_and_the_covariance_of_theta():
    found = fitted()
    assert found.course[-1] < found.course[0]
    assert len(found.course) <= 12
    slope = found.theta() * (1 - found.theta())
    expected = slope[:, None] * found.covariance[:2, :2] * slope
    torch.testing.assert_close(found.theta_covariance(), expected)
    later = found.theta(hours=10.0).logit() - found.theta().logit()
    torch.testing.assert_close(later, found.mean[2:], atol=0.05, rtol=0.05)
    drift = found.drift()
    torch.testing.assert_close(
        drift.theta(found.theta(), torch.tensor([10.0]))[0], found.theta(10.0)
    )
