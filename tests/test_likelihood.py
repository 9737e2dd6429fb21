"""Compiled likelihoods are those of torch in double precision, whatever the logits."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from icsim.likelihood import CLASSES, _by_torch, negative_log_likelihood

SOUNDS, CHANNELS = 3, 7


def drawn(bins: int, spread: float) -> tuple[torch.Tensor, ...]:
    """Logits, bias, counts and weights."""
    generator = torch.Generator().manual_seed(bins)
    logits = spread * torch.randn(SOUNDS, CHANNELS * CLASSES, bins, generator=generator)
    bias = torch.randn(CHANNELS * CLASSES, generator=generator)
    counts = torch.randint(0, CLASSES, (SOUNDS, CHANNELS, bins), generator=generator)
    return logits, bias, counts, torch.rand(SOUNDS, CHANNELS, generator=generator)


def by_autograd(logits, bias, counts, weight) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and slopes in double precision."""
    logits = logits.double().requires_grad_()
    classes = (logits + bias[:, None]).unflatten(1, (-1, CLASSES)).transpose(1, 2)
    each = functional.cross_entropy(classes, counts, reduction="none")
    total = (each.sum(-1) * weight).sum()
    return total.detach(), torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("bins", [1, 8, 31, 33, 256])
@pytest.mark.parametrize("spread", [0.1, 3.0, 50.0])
@pytest.mark.parametrize("found", [negative_log_likelihood, _by_torch])
def test_sums_and_slopes_are_those_of_double_precision(bins, spread, found):
    logits, bias, counts, weight = drawn(bins, spread)
    total, slopes = by_autograd(logits, bias, counts, weight)
    mine = found(logits, bias, counts, weight, True)
    assert mine.item() == pytest.approx(total.item(), rel=3e-6)
    torch.testing.assert_close(logits.double(), slopes, rtol=3e-6, atol=1e-6 * max(1, spread))


def test_sums_alone_are_the_same_and_counts_may_be_of_any_integers_and_size():
    logits, bias, counts, weight = drawn(20, 1.0)
    total = negative_log_likelihood(logits.clone(), bias, counts, weight, True)
    more = (counts + 100 * (counts == 4)).to(torch.int16)
    assert negative_log_likelihood(logits.clone(), bias, more, weight, False) == total
    assert negative_log_likelihood(logits, bias, counts.to(torch.uint8), weight, False) == total


def test_more_than_four_spikes_teach_what_four_do():
    logits, bias, counts, weight = drawn(20, 1.0)
    few, many = logits.clone(), logits.clone()
    negative_log_likelihood(few, bias, counts, weight, True)
    negative_log_likelihood(many, bias, counts + 3 * (counts == 4), weight, True)
    assert torch.equal(few, many)


def test_nothing_is_learned_where_weights_are_zero():
    logits, bias, counts, weight = drawn(20, 1.0)
    weight[1] = 0
    assert negative_log_likelihood(logits, bias, counts, weight, True) > 0
    assert not logits[1].any()
    assert logits[0].all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("row", range(CLASSES))
def test_what_is_not_a_number_stays_so(value, row):
    logits, bias, counts, weight = drawn(40, 1.0)
    logits[1, row, 17] = value
    assert negative_log_likelihood(logits, bias, counts, weight, False).isnan()


def test_a_step_between_certain_classes_is_finite():
    logits = torch.zeros(1, CLASSES, 64)
    logits[0, 0] = 1e6
    counts = torch.arange(64)[None, None] % CLASSES
    mine = negative_log_likelihood(logits, torch.zeros(CLASSES), counts, torch.ones(1, 1), False)
    assert mine.item() == pytest.approx(1e6 * (counts > 0).sum().item())


def test_torch_has_as_many_threads_as_before():
    code = """if True:
        import torch
        from icsim.likelihood import negative_log_likelihood
        torch.set_num_threads(1)
        logits, counts = torch.zeros(1, 5, 4), torch.zeros(1, 1, 4, dtype=torch.uint8)
        negative_log_likelihood(logits, torch.zeros(5), counts, torch.ones(1, 1), True)
        assert torch.get_num_threads() == 1"""
    subprocess.run([sys.executable, "-c", code], check=True)
