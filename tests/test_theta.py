"""Listeners: means that drift with time and stay in the box, and what lies between them."""

import math

import pytest
import torch

from icsim.theta import (
    BOUNDS,
    HOURS,
    Listeners,
    between_animals,
    movement,
    sample_listeners,
    separation,
    time_transfer,
)


def drift(time: torch.Tensor, mean=0.3, shift=2.0, rate=15.0, onset=0.1) -> torch.Tensor:
    values = (torch.tensor(value, dtype=torch.float64) for value in (mean, shift, rate, onset))
    return time_transfer(*values, time.double())


def test_nothing_drifts_before_the_onset():
    before = drift(torch.linspace(0, 0.1, 20))
    torch.testing.assert_close(before, torch.full_like(before, 0.3), rtol=0, atol=1e-8)


def test_drift_is_continuous_at_the_onset():
    around = drift(torch.tensor([0.1 - 1e-6, 0.1, 0.1 + 1e-6]))
    assert around.diff().abs().max() < 1e-6


def test_drift_never_falls_and_ends_at_the_shift():
    course = drift(torch.linspace(0, 3, 300))
    assert (course.diff() >= 0).all()
    assert course[-1].item() == pytest.approx(0.3 + 2 * (1 - 0.0024726), abs=1e-6)


def test_drift_is_half_way_when_the_exponent_is_zero():
    assert drift(torch.tensor([0.1 + 6 / 15])).item() == pytest.approx(0.3 + 2 * (0.5 - 0.0024726))


def test_gradients_of_the_drift_are_right():
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 2.0, 15.0)]
    onset = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    time = torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64)
    assert torch.autograd.gradcheck(time_transfer, (*values, onset, time))


def test_theta_is_the_sigmoid_of_the_drifted_mean():
    listeners = Listeners(animals=3, parameters=2)
    hours = torch.tensor([0.0, 4.0, 20.0])
    theta = listeners.theta(hours)
    for animal in range(3):
        by_hand = time_transfer(
            listeners.mean[animal],
            listeners.shift[0],
            listeners.rate[0],
            listeners.onset[0],
            hours[animal] / HOURS,
        )
        torch.testing.assert_close(theta[animal], by_hand.sigmoid())


def test_theta_takes_sounds_in_front_of_animals():
    listeners = Listeners(3, 2)
    hours = torch.rand(5, 4, 3) * 30
    theta = listeners.theta(hours)
    assert theta.shape == (5, 4, 3, 2)
    torch.testing.assert_close(theta[2, 1], listeners.theta(hours[2, 1]))


@pytest.mark.parametrize("extreme", [0, 1])
def test_theta_is_inside_the_box_at_the_ends_of_every_range(extreme):
    listeners = Listeners(3, 6)
    with torch.no_grad():
        for name, bounds in BOUNDS.items():
            getattr(listeners, name).fill_(bounds[extreme])
    theta = listeners.theta(torch.tensor([0.0, 3.0, 100.0]))
    assert ((theta >= 0) & (theta <= 1)).all()
    assert theta.isfinite().all()


def test_animals_share_one_drift_or_have_their_own():
    assert Listeners(4, 3, shared_drift=True).rate.shape == (1, 3)
    own = Listeners(4, 3, shared_drift=False)
    own.theta(torch.tensor([0.0, 5.0, 0.0, 0.0])).sum().backward()
    assert own.shift.grad[1].all()
    assert not own.shift.grad[[0, 2, 3]].any()


@pytest.mark.parametrize("shared", [True, False])
def test_some_animals_are_the_same_as_among_all(shared):
    listeners, hours = Listeners(4, 3, shared), torch.tensor([0.0, 9.0, 3.0, 6.0])
    with torch.no_grad():
        listeners.shift.copy_(torch.rand(listeners.shift.shape))
    some = torch.tensor([3, 1])
    assert torch.equal(listeners.theta(hours[some], some), listeners.theta(hours)[some])


def test_listeners_start_apart_certain_and_by_their_seed():
    listeners = Listeners(9, 6)
    theta = listeners.theta(torch.zeros(9))
    assert separation(theta, listeners.deviation) > 5
    assert torch.equal(Listeners(9, 6).mean, listeners.mean)
    assert not torch.equal(Listeners(9, 6, seed=1).mean, listeners.mean)


def test_project_brings_back_what_left_and_leaves_the_rest():
    listeners = Listeners(3, 2)
    kept = listeners.shift.detach().clone()
    with torch.no_grad():
        listeners.mean[0], listeners.mean[1] = 1e3, -1e3
        listeners.rate.fill_(-1.0)
        listeners.onset.fill_(7.0)
    inside = listeners.mean[2].detach().clone()
    listeners.project()
    assert listeners.mean[:2].tolist() == [[10.0] * 2, [-10.0] * 2]
    assert torch.equal(listeners.mean[2], inside)
    assert torch.equal(listeners.shift, kept)
    assert not listeners.rate.any()
    assert (listeners.onset == 0.5).all()
    assert listeners.mean.requires_grad


def test_the_separation_of_two_animals_by_hand():
    theta = torch.tensor([[0.1, 0.2], [0.4, 0.6]])
    deviation = torch.tensor([[0.03, 0.03], [0.04, 0.04]])
    # Differences of 0.3 and 0.4 in units of √(0.03² + 0.04²) = 0.05: 6 and 8.
    assert separation(theta, deviation).item() == pytest.approx(10, rel=1e-5)
    assert separation(theta, 2 * deviation).item() == pytest.approx(5, rel=1e-5)


def test_the_separation_of_one_animal_is_refused():
    with pytest.raises(ValueError, match="at least two animals"):
        separation(torch.rand(1, 3), torch.rand(1, 3))


def test_sampled_listeners_are_in_the_box_and_repeatable():
    theta, deviation = torch.rand(5, 3).round(), torch.full((5, 3), 0.2)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        weights = between_animals(5, 200, generator)
        return sample_listeners(weights, theta, deviation, 0.3, generator)

    assert draw(0).shape == (200, 3)
    assert ((draw(0) >= 0) & (draw(0) <= 1)).all()
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_sampled_listeners_of_certain_animals_lie_between_them():
    theta = torch.tensor([[0.2, 0.3], [0.8, 0.6]])
    generator = torch.Generator().manual_seed(0)
    weights = between_animals(2, 100, generator)
    drawn = sample_listeners(weights, theta, torch.zeros(2, 2), 0.0, generator)
    along = (drawn[:, 0] - 0.2) / 0.6
    torch.testing.assert_close(drawn[:, 1], 0.3 + 0.3 * along)
    assert ((along > -1e-5) & (along < 1 + 1e-5)).all()
    assert along.std() > 0.2


def test_widening_blurs_sampled_listeners():
    theta, generator = torch.full((3, 2), 0.5), torch.Generator().manual_seed(0)
    weights = torch.eye(3).repeat(1000, 1)
    drawn = sample_listeners(weights, theta, torch.full((3, 2), 0.03), 0.04, generator)
    assert drawn.std().item() == pytest.approx(0.05, rel=0.05)


def test_points_between_animals_have_two_of_them_at_most():
    weights = between_animals(6, 300, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.sum(1), torch.ones(300))
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() == 2
    assert ((weights > 0).sum(0) > 40).all()


def test_movement_tells_what_was_learned_from_what_kept_its_start():
    listeners = Listeners(4, 3)
    start = {name: value.clone() for name, value in listeners.state_dict().items()}
    still = movement(listeners, start)
    assert still["mean_correlation"] == pytest.approx(1)
    assert still["mean_moved"] == 0
    assert still["rate_least"] == still["rate_most"] == 15
    assert still["deviation_most"] == pytest.approx(0.03)
    with torch.no_grad():
        listeners.mean += 0.5
        listeners.rate[0, 1] = 20
        listeners.log_deviation[2, 0] = math.log(0.4)
    moved = movement(listeners, start)
    assert moved["mean_correlation"] == pytest.approx(1), "all alike: no listener went elsewhere"
    assert moved["mean_moved"] == pytest.approx(0.5)
    assert (moved["rate_least"], moved["rate_most"]) == (15, 20)
    assert moved["deviation_most"] == pytest.approx(0.4)
    assert moved["deviation_start"] == pytest.approx(0.03)
    assert moved["deviation_prior"] == 0.5
    with torch.no_grad():
        listeners.mean.neg_()
    assert movement(listeners, start)["mean_correlation"] == pytest.approx(-1)
