"""Listeners are placed by what they answer, searched there, and told apart by the right sounds."""

import functools

import pytest
import torch

from icsim.models.listener_cost import ListenerCost, listener_cost
from icsim.models.listener_design import most_informative, sound_information
from icsim.models.response import ResponseModel, beta_icnet
from icsim.models.response_space import candidates, response_space, search_responses
from icsim.models.subjects import Subjects
from tests.models.test_listener_posterior import ENCODER

CHANNELS = 16
SOUND = 3 * torch.randn(4, 32 * 164, generator=torch.Generator().manual_seed(1))


@functools.cache
def model() -> ResponseModel:
    """A network of six listeners in two dimensions of θ, of which the third says nothing."""
    torch.manual_seed(4)
    made = ResponseModel(beta_icnet(6, channels=CHANNELS, parameters=3, encoder=ENCODER))
    with torch.no_grad():
        made.condition.fusion.layers[-1].conv.weight *= 20
        made.condition.fusion.layers[0].conv.weight[:, made.condition.fusion.latent :] *= 2
        made.condition.fusion.embed[0].conv.weight[:, 2] = 0
        made.readout.weight *= 15
    return made.requires_grad_(False).eval()


def answered(theta: torch.Tensor, seed: int = 0) -> ListenerCost:
    """The cost of listeners for what one of θ `(P,)` answers."""
    torch.manual_seed(seed)
    logits = model().predict(model().latent(SOUND), Subjects(theta=theta[None, None])).logits()
    probability = logits[:, 0].softmax(2).transpose(-1, -2)
    counts = torch.distributions.Categorical(probs=probability).sample()[..., 64:]
    return listener_cost(model(), SOUND, counts.to(torch.uint8))


def space():
    return response_space(model(), SOUND, candidates(model().listeners, 60), dimensions=4)


def test_half_a_squared_distance_is_what_it_costs_to_take_one_for_the_other():
    one, other = torch.tensor([[0.45, 0.5, 0.5]]), torch.tensor([[0.5, 0.55, 0.5]])
    latent = model().latent(SOUND)
    first, second = (
        model().predict(latent, Subjects(theta=theta[None]), 64).log_probabilities()[:, 0]
        for theta in (one, other)
    )
    divergence = (first.exp() * (first - second)).sum(2).mean()
    every = response_space(
        model(), SOUND, candidates(model().listeners, 60), dimensions=40, samples=10**6
    )
    apart = 0.5 * (every.places(one) - every.places(other)).square().sum()
    assert apart == pytest.approx(divergence.item(), rel=0.1)


def test_a_dimension_that_changes_nothing_moves_nobody():
    theta = torch.tensor([[0.3, 0.6, 0.1], [0.3, 0.6, 0.9], [0.6, 0.6, 0.1]])
    first, same, other = space().places(theta)
    assert torch.equal(first, same)
    assert (first - other).norm() > 1e-3
    assert 1 <= space().dimensions < 3


@pytest.mark.parametrize(("slopes", "evaluations"), [(False, 8), (True, 6)])
def test_a_search_among_responses_arrives_in_few_evaluations(slopes, evaluations):
    for seed, truth in enumerate(((0.2, 0.7, 0.5), (0.8, 0.3, 0.5))):
        cost = answered(torch.tensor(truth), seed)
        among = candidates(model().listeners, 60)
        fit = search_responses(cost, space(), among, evaluations, slopes)
        assert fit.evaluations == evaluations
        with torch.no_grad():
            true, middle = cost(torch.tensor([truth, (0.5, 0.5, 0.5)])).tolist()
        assert fit.loss < true + 0.02 * (middle - true)
        assert fit.loss == pytest.approx(cost(fit.theta[None]).item(), rel=1e-4)


def test_sounds_that_say_nothing_are_chosen_last():
    sound = torch.cat([torch.zeros(2, SOUND.shape[1]), SOUND])
    known = model().listeners.at().detach()[:2]
    information = sound_information(model(), sound, known)
    assert information.shape == (2, 6, 3, 3)
    order = most_informative(information, torch.eye(3), 6)
    assert set(order[-2:]) == {0, 1}
    with pytest.raises(ValueError, match="7 sounds are to be chosen, and there are 6"):
        most_informative(information, torch.eye(3), 7)


def test_the_second_sound_says_what_the_first_does_not():
    along = torch.tensor([[[9.0, 0], [0, 0]], [[8.0, 0], [0, 0]], [[0, 0], [0, 4.0]]])
    assert most_informative(along[None], torch.eye(2), 3) == [0, 2, 1]


def test_information_is_the_curvature_of_the_cost():
    truth = torch.tensor([0.4, 0.6, 0.5])
    information = sound_information(model(), SOUND, truth[None])[0].sum(0)
    cost = answered(truth)
    step = torch.eye(3)[:2] * 0.02
    logits = truth.logit()
    latent = model().latent(SOUND)
    at = model().predict(latent, Subjects(theta=truth[None, None]), 64).log_probabilities()[:, 0]
    for ways in range(2):
        for sign in (1, -1):
            theta = (logits + sign * step[ways]).sigmoid()[None, None]
            there = model().predict(latent, Subjects(theta=theta), 64).log_probabilities()[:, 0]
            nats = (at.exp() * (at - there)).sum() / cost.correlated_bins
            assert nats == pytest.approx(0.0002 * information[ways, ways].item(), rel=0.2)
