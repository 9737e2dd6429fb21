"""What aids are trained on: excerpts that are repeatable, terms that mean what they say."""

import numpy as np
import pytest
import torch

from compensation.data import Mixtures, excerpt
from compensation.objective import (
    Task,
    TaskWeights,
    compensation,
    contrast,
    denoising,
    discrepancy_left,
    distortion,
    effort,
    flutter,
    hiss,
    roughness,
)
from icsim.loss import ResponseLoss
from icsim.models.encoders import SincNetConfig
from icsim.models.response import ResponseModel, beta_icnet
from icsim.sound import level

NORMAL = torch.tensor([[0.2, 0.2]])


def sounds(count: int, samples: int, seed: int) -> list[torch.Tensor]:
    """Noise that swells and fades, with a pause at its start."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples)
    envelope = torch.sin(time / 300).abs() * (time > samples // 4)
    return [torch.randn(samples, generator=generator) * envelope for _ in range(count)]


@pytest.fixture
def mixtures() -> Mixtures:
    return Mixtures(sounds(3, 6000, 0), sounds(2, 5000, 1), samples=2000, count=60, seed=4)


def test_distortion_is_one_for_nothing_done_and_counts_speech_that_is_lost():
    clean, noise = torch.randn(2, 4, 500, generator=torch.Generator().manual_seed(0))
    assert distortion(clean + noise, clean + noise, clean).tolist() == pytest.approx([1] * 4)
    assert distortion(clean, clean + noise, clean).tolist() == [0] * 4
    muted = distortion(0 * clean, clean + noise, clean)
    # As much speech is lost as noise is gone.
    assert muted.mean().item() == pytest.approx(1, abs=0.2)


# --- excerpts -----------------------------------------------------------------------------------


def test_an_item_depends_on_the_seed_and_its_index_alone(mixtures):
    again = Mixtures(sounds(3, 6000, 0), sounds(2, 5000, 1), samples=2000, count=10, seed=4)
    state = torch.random.get_rng_state()
    later = [mixtures[i] for i in (9, 3, 5)]
    for index, item in zip((9, 3, 5), later, strict=True):
        torch.manual_seed(index)
        for key in ("clean", "noisy", "in_noise"):
            assert torch.equal(again[index][key], item[key])
    torch.random.set_rng_state(state)
    other = Mixtures(sounds(3, 6000, 0), sounds(2, 5000, 1), samples=2000, count=10, seed=5)
    assert not torch.equal(other[3]["clean"], mixtures[3]["clean"])
    assert not torch.equal(mixtures[3]["clean"], mixtures[4]["clean"])


def test_levels_and_signal_to_noise_ratios_are_in_their_ranges():
    mixtures = Mixtures(
        sounds(3, 6000, 0), [], 2000, 60, 0, level_db_spl=(50.0, 60.0), snr_db=(-3.0, 9.0)
    )
    levels = torch.stack([level(item["clean"]) for item in map(mixtures.__getitem__, range(60))])
    in_noise = [item for item in map(mixtures.__getitem__, range(60)) if item["in_noise"]]
    snr = torch.stack([level(i["clean"]) - level(i["noisy"] - i["clean"]) for i in in_noise])
    for values, low, high in [(levels, 50, 60), (snr, -3, 9)]:
        assert values.min() >= low - 1e-3
        assert values.max() <= high + 1e-3
        assert values.max() - values.min() > 0.7 * (high - low)


def test_quiet_items_are_the_same_clean_and_noisy_and_as_many_as_asked(mixtures):
    items = [mixtures[i] for i in range(len(mixtures))]
    assert len(items) == 60
    assert all(item["clean"].shape == item["noisy"].shape == (2000,) for item in items)
    for item in items:
        assert torch.equal(item["clean"], item["noisy"]) != bool(item["in_noise"])
    share = sum(not item["in_noise"] for item in items) / 60
    assert 0.2 < share < 0.6


@pytest.mark.parametrize(("quiet", "in_noise"), [(1.0, False), (0.0, True)])
def test_the_share_in_quiet_may_be_all_or_nothing(quiet, in_noise):
    mixtures = Mixtures(sounds(2, 4000, 0), [], 1000, 8, 0, quiet=quiet)
    assert all(mixtures[i]["in_noise"] == in_noise for i in range(8))


def test_music_stays_in_quiet():
    music = [torch.sin(torch.arange(4000) / 9.0)]
    mixtures = Mixtures(sounds(2, 4000, 0), music, 1000, 60, 0)
    items = [mixtures[i] for i in range(60)]
    slow = [item["clean"].diff().norm() < 0.2 * item["clean"].norm() for item in items]
    assert any(slow)
    assert not any(s and item["in_noise"] for s, item in zip(slow, items, strict=True))


def test_short_sounds_are_left_out_and_refused_alone():
    mixed = Mixtures([*sounds(1, 3000, 0), torch.ones(10)], [torch.ones(10)], 2000, 5, 0)
    assert len(mixed.speech) == 1
    assert mixed.others == []
    with pytest.raises(ValueError, match="none of 2 speech sounds has 2000 samples"):
        Mixtures(sounds(2, 1999, 0), sounds(2, 5000, 1), 2000, 5, 0)
    with pytest.raises(ValueError, match="none of 0 speech sounds"):
        Mixtures([], sounds(2, 5000, 1), 2000, 5, 0)


def test_excerpts_are_no_pauses():
    sound = torch.zeros(10_000)
    sound[4000:9000] = 1.0
    loud = [excerpt([sound], 500, np.random.default_rng(seed)).any() for seed in range(40)]
    assert all(loud)  # eight draws in half the sound miss it less often than once in 200 times


# --- terms --------------------------------------------------------------------------------------


@pytest.fixture
def loss() -> ResponseLoss:
    torch.manual_seed(0)
    encoder = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=1.0)
    model = ResponseModel(beta_icnet(2, channels=3, parameters=2, encoder=encoder))
    with torch.no_grad():
        model.condition.fusion.layers[-1].conv.weight *= 60
        model.condition.fusion.layers[0].conv.weight[:, 4:] *= 8
        model.readout.weight *= 100
    return ResponseLoss(model)


@pytest.fixture
def sound() -> torch.Tensor:
    return torch.randn(3, 640, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def listener() -> torch.Tensor:
    return torch.tensor([[0.9, 0.3], [0.4, 0.8], [0.6, 0.6]])


def level_difference(sound, listener, wanted, skip_bins):
    """Stands in for ears: how far a sound's loudest sample is from what is wanted."""
    return (sound.amax(1) - wanted).abs()


def left(aided: list[float], unaided: list[float], usual: float | None = None) -> torch.Tensor:
    """What is left where ears find discrepancies as given."""
    wanted = torch.zeros(len(aided))
    task = Task(NORMAL, wanted, torch.tensor(unaided), 4)
    usual = None if usual is None else torch.tensor(usual)
    return discrepancy_left(level_difference, torch.tensor(aided)[:, None], task, usual)


def test_what_is_left_is_zero_for_nothing_and_by_hand_otherwise():
    assert left([0.0, 0.0], [1.0, 3.0]).tolist() == [0, 0]
    found = left([0.5, 1.5], [1.0, 3.0])
    torch.testing.assert_close(found, torch.tensor([0.5 / 1.2, 1.5 / 3.2]), rtol=0, atol=1e-5)


def test_a_part_of_a_batch_is_judged_by_what_is_usual_in_the_whole():
    whole = left([0.5, 1.5, 2.0], [1.0, 3.0, 5.0])
    parts = left([0.5], [1.0], usual=3.0), left([1.5, 2.0], [3.0, 5.0], usual=3.0)
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.allclose(left([0.5], [1.0]), whole[:1])


def test_what_is_left_is_finite_where_nothing_was_lost():
    found = left([0.1, 0.0], [0.0, 1.0])
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0]), rtol=1e-4, atol=0)
    assert left([0.0, 0.0], [0.0, 0.0]).tolist() == [0, 0]


def compensated(loss, processed, sound, listener):
    """What is left of the listeners' loss, mean."""
    return discrepancy_left(loss, processed, compensation(loss, sound, listener, NORMAL, 4)).mean()


def denoised(loss, processed, noisy, clean):
    """What is left of the noise, mean."""
    return discrepancy_left(loss, processed, denoising(loss, noisy, clean, NORMAL, 4)).mean()


def test_doing_nothing_scores_what_it_should(loss, sound, listener):
    with torch.no_grad():
        target = loss.respond(sound, NORMAL)
        unaided = loss(sound, listener, target, 4)
    expected = (unaided / (unaided + 0.1 * unaided.mean() + 1e-6)).mean()
    value = compensated(loss, sound, sound, listener)
    torch.testing.assert_close(value, expected)
    assert 0.5 < value < 1 / 1.1
    alike = [x[:1].expand(3, -1) for x in (sound, sound, listener)]
    assert compensated(loss, *alike).item() == pytest.approx(1 / 1.1, rel=1e-4)


def test_a_normal_listener_needs_no_compensation(loss, sound):
    value = compensated(loss, sound, sound, NORMAL.expand(3, -1))
    assert value.item() == pytest.approx(0, abs=1e-4)


def test_compensation_can_be_learned_by_the_sound(loss, sound, listener):
    aided = sound.clone().requires_grad_()
    optimiser = torch.optim.Adam([aided], lr=0.05)
    values = []
    for _ in range(30):
        value = compensated(loss, aided, sound, listener)
        values.append(value.item())
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert values[-1] < 0.9 * values[0]


def test_denoising_is_zero_for_clean_and_near_one_for_noisy(loss, sound):
    noisy = sound + torch.randn(sound.shape, generator=torch.Generator().manual_seed(1))
    assert denoised(loss, sound, noisy, sound) == 0
    assert 0.7 < denoised(loss, noisy, noisy, sound) <= 1 / 1.1
    half = denoised(loss, (sound + noisy) / 2, noisy, sound)
    assert 0 < half < denoised(loss, noisy, noisy, sound)


def test_denoising_of_an_empty_batch_is_zero_and_has_a_gradient(loss):
    empty, processed = torch.zeros(0, 640), torch.zeros(0, 640, requires_grad=True)
    task = denoising(loss, empty, empty, NORMAL[:0], 4)
    value = discrepancy_left(loss, processed, task).sum()
    value.backward()
    assert value == 0
    assert processed.grad.shape == (0, 640)


def test_terms_have_gradients_of_what_is_heard_alone(loss, sound, listener):
    heard, meant = sound.clone().requires_grad_(), sound.clone().requires_grad_()
    quieter = 0.5 * heard
    compensated(loss, quieter, meant, listener).backward()
    denoised(loss, quieter.detach() + heard, meant, meant).backward()
    assert heard.grad.abs().sum() > 0
    assert meant.grad is None


def test_flat_gains_are_neither_rough_nor_fluttering():
    flat = torch.full((2, 9, 20), 12.0)
    assert not roughness(flat).any()
    assert not flutter(flat).any()
    assert effort(flat).tolist() == pytest.approx([1.44] * 2)


def test_slopes_over_bands_are_not_rough_and_steps_are():
    slope = torch.linspace(0, 40, 9)[:, None].expand(1, -1, 20)
    assert roughness(slope).abs() < 1e-9
    assert not flutter(slope).any()
    comb = 10.0 * (torch.arange(9) % 2)[:, None].expand(1, -1, 20)
    # Second differences of ±20 dB: 2² in units of (10 dB)².
    assert roughness(comb).item() == pytest.approx(4)


def test_flutter_is_the_mean_squared_step_in_time():
    steps = 5.0 * (torch.arange(20) % 2).expand(1, 9, -1)
    assert flutter(steps).item() == pytest.approx(0.25)
    assert not roughness(steps).any()


def test_hiss_is_amplification_of_what_nobody_hears():
    gains, levels = torch.full((1, 4, 10), 20.0), torch.full((1, 4, 10), 60.0)
    assert hiss(gains, levels) < 1e-6
    assert hiss(gains, levels - 60).item() == pytest.approx(4, rel=1e-3)
    assert hiss(-gains, levels - 60) == 0


@pytest.mark.parametrize(("ratio", "wanted"), [(1.0, 0.0), (2.9, 0.0), (10.0, 0.0544), (0.5, 1.0)])
def test_contrast_allows_compression_up_to_three(ratio, wanted):
    levels = torch.linspace(30, 80, 200).expand(2, 3, -1)
    gains = 12.0 + (1 / ratio - 1) * (levels - 55)
    # Slopes of -0.9 and +1, where -2/3 to 0 are free.
    found = contrast(gains, levels).tolist()
    assert found == pytest.approx([wanted] * 2, rel=0.03, abs=3e-3)


def test_untrained_task_weights_give_the_sum():
    losses = torch.tensor([0.3, 2.0, 0.7])
    assert TaskWeights(3)(losses).item() == pytest.approx(3.0)


def test_task_weights_of_parts_add_up_to_those_of_the_batch():
    weights, losses = TaskWeights(2), torch.tensor([0.5, 4.0])
    with torch.no_grad():
        weights.log_variance.copy_(torch.tensor([0.3, -0.7]))
    parts = weights(0.4 * losses, 0.25) + weights(0.6 * losses, 0.75)
    assert parts.item() == pytest.approx(weights(losses).item())


def test_task_weights_settle_at_the_inverse_of_their_losses():
    weights, losses = TaskWeights(2), torch.tensor([0.5, 4.0])
    with torch.no_grad():
        weights.log_variance.copy_(losses.log())
    total = weights(losses)
    total.backward()
    assert total.item() == pytest.approx(2 + losses.log().sum().item())
    assert weights.log_variance.grad.abs().max() < 1e-6
