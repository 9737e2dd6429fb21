"""A planted θ is found by every search, and its uncertainty is the curvature's."""

import pytest
import torch

from icsim.fitting import (
    Fit,
    bayesian_search,
    dense_search,
    descend,
    laplace,
    sobol,
    warm_descent,
)

PLANTED = torch.tensor([0.3, 0.7, 0.55])
LOWEST = 0.85
"""Nats a bin and channel at the planted θ: what good fits reach."""


@pytest.fixture(autouse=True)
def one_thread():
    """Problems of this size are solved faster by one thread than by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cost(theta: torch.Tensor) -> torch.Tensor:
    """A bowl whose directions matter unequally."""
    return LOWEST + ((theta - PLANTED).square() * torch.tensor([1.0, 0.5, 0.2])).sum(-1)


def test_bayesian_search_finds_a_planted_listener_within_its_budget():
    fit = bayesian_search(cost, sobol(8, 3, seed=0), evaluations=16)
    assert fit.evaluations == 16
    assert fit.loss < 1.005 * LOWEST
    assert (fit.theta - PLANTED).abs().max() < 0.1


def test_bayesian_search_stops_at_its_target():
    seen = []
    fit = bayesian_search(
        cost, sobol(4, 3, seed=0), 30, target=1.02 * LOWEST, progress=lambda *a: seen.append(a)
    )
    assert fit.evaluations < 30
    assert fit.loss <= 1.02 * LOWEST
    assert (fit.losses[:-1] > 1.02 * LOWEST).all()
    assert [count for count, _ in seen] == list(range(5, fit.evaluations + 1))
    assert [best for _, best in seen] == pytest.approx(fit.course()[4:].tolist())


def test_bayesian_search_is_repeatable_and_leaves_the_random_numbers_alone():
    state = torch.random.get_rng_state()
    fits = [bayesian_search(cost, sobol(4, 3, seed=0), 6, seed=5) for _ in range(2)]
    assert torch.equal(fits[0].candidates, fits[1].candidates)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bayesian_search_needs_no_gradient_and_stays_in_the_box():
    corner = torch.tensor([0.0, 1.0])

    def steps(theta):
        return 1 + (10 * (theta.detach() - corner).abs().sum(-1)).round()

    fit = bayesian_search(steps, sobol(4, 2, seed=0), 10)
    assert ((fit.candidates >= 0) & (fit.candidates <= 1)).all()
    assert fit.loss <= 3


def test_a_warm_start_at_the_target_is_not_searched_further():
    fit = bayesian_search(cost, PLANTED.unsqueeze(0), 20, target=1.02 * LOWEST)
    assert fit.evaluations == 1
    assert torch.equal(fit.theta, PLANTED)


def test_descent_finds_a_planted_listener():
    fit = descend(cost, sobol(4, 3, seed=0))
    assert fit.loss == pytest.approx(LOWEST, rel=1e-4)
    assert (fit.theta - PLANTED).abs().max() < 0.02
    assert fit.evaluations == 4 * 60
    assert not fit.theta.requires_grad
    assert not fit.losses.requires_grad


def test_descent_may_start_at_the_walls():
    fit = descend(cost, torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
    assert fit.losses.isfinite().all()
    assert fit.loss == pytest.approx(LOWEST, rel=0.01)


def two_valleys(theta: torch.Tensor) -> torch.Tensor:
    """A wide valley at 0.8 and a deeper narrow one at 0.15."""
    wide = (theta - 0.8).square().sum(-1)
    narrow = 0.3 * torch.exp(-((theta - 0.15) / 0.08).square().sum(-1))
    return 1 + wide - narrow - wide * narrow / 0.3


def test_dense_search_finds_the_deeper_of_two_valleys():
    shallow = torch.full((1, 2), 0.8)
    assert descend(two_valleys, shallow).loss == pytest.approx(1, abs=1e-3)
    fit = dense_search(two_valleys, shallow, points=512)
    assert fit.loss == pytest.approx(0.7, abs=1e-3)
    assert (fit.theta - 0.15).abs().max() < 0.02


def test_warm_descent_begins_from_the_best_of_known_listeners_or_their_mean():
    for known, best in ([[0.1, 0.1], [0.9, 0.5]], [0.9, 0.5]), ([[0.2, 1.0], [1.0, 0.3]], None):
        known = torch.tensor(known)
        start = known.mean(0) if best is None else torch.tensor(best)
        fit = warm_descent(two_valleys, known, steps=5)
        assert torch.equal(fit.candidates[:3], torch.cat([known.mean(0, keepdim=True), known]))
        torch.testing.assert_close(fit.candidates[3], start)
        assert fit.evaluations == 3 + 5


def test_dense_search_counts_its_points_and_is_no_worse_than_a_start():
    wall = torch.zeros(1, 3)
    fit = dense_search(lambda theta: 1 + theta.sum(-1).sqrt(), wall, points=64)
    assert fit.evaluations == 1 + 64 + 4 * 60
    assert torch.equal(fit.candidates[0], wall[0])
    assert fit.loss == 1


@pytest.mark.parametrize("search", [descend, dense_search])
def test_the_course_of_a_fit_never_rises_and_ends_at_its_loss(search):
    fit = search(cost, sobol(4, 3, seed=1))
    course = fit.course()
    assert len(course) == fit.evaluations == len(fit.candidates)
    assert (course.diff() <= 0).all()
    assert course[0] == fit.losses[0]
    assert course[-1].item() == fit.loss
    assert fit.loss == pytest.approx(cost(fit.theta).item())


def test_the_course_is_the_best_so_far():
    losses = torch.tensor([3.0, 5.0, 2.0, 4.0])
    fit = Fit(torch.zeros(1), 2.0, torch.zeros(4, 1), losses)
    assert fit.course().tolist() == [3.0, 3.0, 2.0, 2.0]


def test_sobol_points_are_spread_and_repeatable():
    points = sobol(64, 2, seed=3)
    cells = (points * 8).long()
    assert len((8 * cells[:, 0] + cells[:, 1]).unique()) == 64
    assert torch.equal(points, sobol(64, 2, seed=3))
    assert not torch.equal(points, sobol(64, 2, seed=4))


def test_the_posterior_of_a_quadratic_cost_is_analytic():
    precision = torch.tensor([[2.0, 0.6], [0.6, 1.0]])
    centre = torch.tensor([0.4, 0.6])

    def quadratic(theta):
        return 1 + 0.5 * torch.einsum("np,pq,nq->n", theta - centre, precision, theta - centre)

    covariance = laplace(quadratic, centre, observations=1000)
    torch.testing.assert_close(covariance, torch.linalg.inv(1000 * precision))


def test_the_posterior_is_never_wider_than_a_uniform_box():
    def only_the_first(theta):
        return 1 + (theta[:, 0] - 0.5).square() - 0.1 * (theta[:, 1] - 0.5).square()

    covariance = laplace(only_the_first, torch.full((3,), 0.5), observations=200)
    expected = torch.tensor([1 / 400, 1 / 12, 1 / 12])
    torch.testing.assert_close(covariance, expected.diag())


SEARCHES = {
    "bayesian": lambda cost, starts: bayesian_search(cost, starts, 10),
    "descent": descend,
    "dense": dense_search,
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_costs_that_are_no_numbers_are_refused(search):
    with pytest.raises(ValueError, match="as many finite numbers"):
        search(lambda theta: theta.sum(-1) * torch.nan, torch.rand(4, 2))
    with pytest.raises(ValueError, match="as many finite numbers"):
        search(lambda theta: theta.sum(), torch.rand(4, 2))


def test_costs_that_have_no_logarithm_are_refused():
    with pytest.raises(ValueError, match=r"costs must be positive, got -0\.5"):
        bayesian_search(lambda theta: theta[:, 0] - 0.5, torch.tensor([[0.0], [0.9]]), 10)
