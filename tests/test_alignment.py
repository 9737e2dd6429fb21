"""A planted permutation is found again, whatever noise and gain did to the responses."""

import itertools

import pytest
import torch

from icsim.alignment import (
    correlation_distance,
    negative_log_likelihood,
    neutral,
    octave_error,
    permutation,
    smooth,
    squared_distance,
    transport,
)

CHANNELS, BINS = 40, 4000


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rate() -> torch.Tensor:
    """Spikes a bin: neighbouring channels answer alike, every channel in its own way."""
    course = torch.randn(CHANNELS + 4, BINS // 8, generator=generator())
    mixed = sum(course[i : i + CHANNELS] for i in range(5)) / 5**0.5
    return 0.3 * torch.exp(0.8 * mixed).repeat_interleave(8, dim=1)


@pytest.fixture
def planted() -> torch.Tensor:
    return torch.randperm(CHANNELS, generator=generator())


def brains(rate: torch.Tensor, planted: torch.Tensor, gain: torch.Tensor | float = 1.0):
    """Responses of a reference and of a shuffled brain to the same sounds, smoothed."""
    drawn = generator()
    reference = torch.poisson(rate, drawn)
    other = torch.poisson(rate * gain, drawn)[planted]
    return smooth(reference, 8), smooth(other, 8)


def is_undone(found: torch.Tensor, planted: torch.Tensor) -> torch.Tensor:
    return planted[found] == torch.arange(len(planted))


@pytest.mark.parametrize("distance", [correlation_distance, squared_distance])
def test_a_planted_permutation_is_found_in_noisy_responses(rate, planted, distance):
    reference, other = brains(rate, planted)
    assert is_undone(permutation(distance(reference, other)), planted).all()


def test_a_planted_permutation_is_found_among_scaled_channels_by_correlation(rate, planted):
    gain = torch.logspace(-0.7, 1, CHANNELS)[torch.randperm(CHANNELS, generator=generator())]
    reference, other = brains(rate, planted, gain.unsqueeze(1))
    assert is_undone(permutation(correlation_distance(reference, other)), planted).all()


def test_aligned_counts_are_indexed_by_the_permutation(planted):
    counts = torch.rand(CHANNELS, 100, generator=generator())
    found = permutation(squared_distance(counts, counts[planted]))
    assert torch.equal(counts[planted][found], counts)


def test_the_permutation_has_the_least_total_cost():
    cost = torch.rand(5, 5, generator=generator())
    rows = torch.arange(5)
    least = min(cost[rows, torch.tensor(p)].sum() for p in itertools.permutations(range(5)))
    assert cost[rows, permutation(cost)].sum().item() == pytest.approx(least.item())


def test_dead_channels_leave_the_living_where_they_belong(rate, planted):
    rate[:10] = 0
    reference, other = brains(rate, planted)
    cost = correlation_distance(reference, other)
    found = permutation(cost)
    assert cost.isfinite().all()
    assert sorted(found.tolist()) == list(range(CHANNELS))
    assert is_undone(found, planted)[10:].all()


def test_two_dead_brains_still_get_a_permutation():
    silent = torch.zeros(6, 100)
    cost = correlation_distance(silent, silent)
    assert torch.equal(cost, torch.ones(6, 6))
    assert sorted(permutation(cost).tolist()) == list(range(6))


def test_the_correlation_distance_is_one_minus_the_correlation():
    reference, other = torch.randn(2, 3, 50, generator=generator())
    expected = 1 - torch.corrcoef(torch.cat([reference, other]))[:3, 3:]
    torch.testing.assert_close(correlation_distance(reference, other), expected)
    scaled = correlation_distance(reference, 7 * other + 3)
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-5)


def test_the_squared_distance_by_hand():
    reference, other = (
        torch.tensor([[0.0, 2.0], [1.0, 1.0]]),
        torch.tensor([[1.0, 1.0], [0.0, 4.0]]),
    )
    expected = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    torch.testing.assert_close(squared_distance(reference, other), expected)


def test_smoothing_averages_runs_and_leaves_the_remainder_out():
    counts = torch.tensor([[0, 2, 4, 4, 1, 3, 9]], dtype=torch.uint8)
    assert smooth(counts, 2).tolist() == [[1.0, 4.0, 2.0]]
    assert torch.equal(smooth(counts, 1), counts.float())


def test_the_octave_error_is_the_median_distance():
    reference, matched = torch.tensor([500.0, 1000.0, 2000.0]), torch.tensor([500.0, 2000.0, 500.0])
    assert octave_error(reference, matched) == pytest.approx(1)
    assert octave_error(reference, reference) == 0


def test_brains_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(3, 50\) and \(3, 40\)"):
        correlation_distance(torch.zeros(3, 50), torch.zeros(3, 40))


def test_each_channel_takes_the_slot_it_was_made_from(rate):
    reference, other = brains(rate, torch.arange(CHANNELS).repeat(2))
    planted = torch.randperm(2 * CHANNELS, generator=generator())[:30]
    found = transport(correlation_distance(other[planted], reference), capacity=3.0)
    distance = (found % CHANNELS - planted % CHANNELS).abs()
    assert distance.max() <= 2  # noise may take a neighbour for it
    assert (distance == 0).float().mean() > 0.8


def test_slots_take_no_more_than_they_can():
    cost = torch.rand(30, 10, generator=generator())
    cost[:, 3] -= 1  # everybody's favourite
    taken = [transport(cost, capacity).bincount(minlength=10) for capacity in (1.0, 2.0, 10.0)]
    assert taken[0].tolist() == [3] * 10
    assert taken[1][3] == taken[1].max() == 6
    assert taken[2].tolist() == [0, 0, 0, 30] + [0] * 6


def test_with_room_for_all_each_channel_takes_the_cheapest_slot():
    cost = torch.rand(8, 5, generator=generator())
    assert torch.equal(transport(cost, 5.0), cost.argmin(1))


def test_unreliable_channels_disturb_no_other_match(rate, planted):
    reference, other = brains(rate, planted)
    relied = torch.arange(CHANNELS) >= 8
    # Unreliable channels of both that answer alike by chance would else be matched first.
    disturbed = reference.clone()
    disturbed[:8] = other[:8]
    cost = neutral(correlation_distance(disturbed, other), relied, relied[planted])
    assert is_undone(permutation(cost), planted)[8:].all()


@pytest.mark.parametrize(
    ("cost", "capacity"),
    [(torch.full((2, 3), torch.nan), 1.5), (torch.zeros(4), 1.5), (torch.zeros(2, 3), 0.5)],
)
def test_what_cannot_be_transported_is_refused(cost, capacity):
    with pytest.raises(ValueError, match="finite matrix of costs and a capacity"):
        transport(cost, capacity)


@pytest.mark.parametrize("cost", [torch.zeros(4), torch.full((2, 2), torch.nan)])
def test_costs_that_are_no_finite_matrix_are_refused(cost):
    with pytest.raises(ValueError, match="finite matrix of costs"):
        permutation(cost)


def test_the_smaller_brain_is_permuted_into_the_larger(rate, planted):
    reference, other = brains(rate, planted)
    fewer = correlation_distance(reference, other[:-9])
    assert is_undone(permutation(fewer), planted)[planted[:-9]].all()
    assert (permutation(fewer)[planted[-9:]] == -1).all()
    assert torch.equal(permutation(fewer.T)[permutation(fewer)[planted[:-9]]], planted[:-9])


def test_a_channel_that_is_divided_goes_to_the_cheapest_of_its_slots():
    # With twice as many slots as channels every channel is divided equally between two.
    cost = torch.tensor([[0.2, 0.0, 9.0, 9.0], [9.0, 9.0, 0.3, 0.1]])
    assert transport(cost, capacity=1.0).tolist() == [1, 3]


def test_surprise_is_the_cross_entropy_of_every_pair():
    log_probability = torch.randn(2, 3, 5, 7, generator=generator()).log_softmax(-2)
    counts = torch.randint(0, 5, (2, 4, 7), generator=generator(), dtype=torch.uint8)
    found = negative_log_likelihood(log_probability, counts)
    assert found.shape == (4, 3)
    for channel, slot in itertools.product(range(4), range(3)):
        expected = torch.nn.functional.nll_loss(log_probability[:, slot], counts[:, channel].long())
        torch.testing.assert_close(found[channel, slot], expected)
