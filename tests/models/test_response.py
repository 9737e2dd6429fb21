"""One network for all listeners: causal, the same in chunks, the same one listener at a time."""

import pytest
import torch
from torch.nn import functional

from icsim.clock import Clock
from icsim.counts import expected_counts
from icsim.fitting import descend, laplace, sobol
from icsim.models.conditions import ThetaConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.fusion import Fusion
from icsim.models.listener_cost import listener_cost
from icsim.models.readouts import PoissonConfig
from icsim.models.response import (
    ResponseModel,
    ResponseModelConfig,
    abrnet,
    beta_icnet,
    icnet,
)
from icsim.models.subjects import Subjects
from icsim.objective import cross_entropy

ENCODER = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=6, input_scale=1.0)
CONFIG = beta_icnet(3, channels=4, parameters=2, encoder=ENCODER)


def outspoken(config: ResponseModelConfig, seed: int = 0) -> ResponseModel:
    """A network drawn at random whose answers depend much on the sound and on θ."""
    torch.manual_seed(seed)
    model = ResponseModel(config)
    with torch.no_grad():
        model.condition.fusion.layers[-1].conv.weight *= 60
        model.condition.fusion.layers[0].conv.weight[:, model.condition.fusion.latent :] *= 8
        model.readout.weight *= 15
    return model


@pytest.fixture
def model() -> ResponseModel:
    return outspoken(CONFIG)


@pytest.fixture
def sound() -> torch.Tensor:
    return torch.randn(2, 32 * 50, generator=torch.Generator().manual_seed(0))


def test_a_training_frame_becomes_256_bins_of_every_animal(model):
    frame = torch.randn(2, 2048 + 8192)
    assert model.latent(frame).shape == (2, 6, 320)
    assert model(frame, Subjects(hours=torch.zeros(2, 3))).logits().shape == (2, 3, 4, 5, 256)
    assert model.respond(frame, torch.rand(2, 2)).shape == (2, 4, 5, 320)


def test_the_published_sizes_are_the_defaults():
    model = ResponseModel(beta_icnet(9))
    fusion = model.condition.fusion
    shapes = [tuple(layer.conv.weight.shape) for layer in fusion.layers]
    assert shapes == [(78, 82, 16), (73, 78, 16), (68, 73, 16), (64, 68, 16)]
    assert [layer.conv.out_channels for layer in fusion.embed] == [6, 12, 18]
    assert model.readout.weight.shape == (512 * 5, 64)


def test_responses_are_distributions_of_counts(model, sound):
    response = model.respond(sound, torch.rand(2, 2))
    assert response.dtype == torch.float32
    torch.testing.assert_close(response.exp().sum(-2), torch.ones(2, 4, 50))


def test_the_future_changes_no_bin(model, sound):
    model, sound, theta = model.double(), sound.double(), torch.rand(2, 2, dtype=torch.float64)
    response = model.respond(sound, theta)
    for last in (0, 12, 31, 48):
        other = sound.clone()
        other[:, 32 * (last + 1) :] *= -7
        changed = model.respond(other, theta)
        torch.testing.assert_close(
            changed[..., : last + 1], response[..., : last + 1], rtol=0, atol=1e-12
        )
        assert (changed[..., last + 1] - response[..., last + 1]).abs().max() > 1e-6


def test_a_bin_hears_up_to_its_own_last_sample(model, sound):
    sound = sound.requires_grad_()
    response = model.respond(sound, torch.rand(1, 2))
    for bin in (0, 13, 49):
        one_class = response[..., 0, bin].sum()
        (reach,) = torch.autograd.grad(one_class, sound, retain_graph=True)
        assert reach.nonzero()[:, 1].max() == 32 * (bin + 1) - 1


def test_the_context_is_as_long_as_it_says(model):
    bins = model.receptive_bins + 5
    sound = torch.randn(1, 32 * bins, dtype=torch.float64, requires_grad=True)
    response = model.double().respond(sound, torch.rand(1, 2, dtype=torch.float64))
    (reach,) = torch.autograd.grad(response[..., 0, -1].sum(), sound)
    heard = 32 * bins - reach.nonzero()[:, 1].min()
    assert 32 * (model.receptive_bins - 1) < heard <= 32 * model.receptive_bins


@pytest.mark.parametrize("chunk_bins", [7, 40, 64, 150, 199, 200, 4096])
def test_chunks_are_the_whole(model, chunk_bins):
    assert 40 < model.receptive_bins < 150
    model = model.double()
    sound = 30 * torch.randn(2, 32 * 200 + 11, dtype=torch.float64)
    theta = torch.rand(2, 2, dtype=torch.float64)
    whole = model.respond(sound, theta)
    pieces = model.respond_in_chunks(sound, theta, chunk_bins)
    assert pieces.shape == whole.shape
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-12)


def test_a_sound_shorter_than_a_bin_is_refused_in_chunks_too(model):
    with pytest.raises(ValueError, match="T ≥ 32"):
        model.respond_in_chunks(torch.zeros(1, 31), torch.rand(1, 2))


def concatenated(fusion: Fusion, latent: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """The fusion of one listener as it is described: `[latent; θ]`, θ constant in the past too."""
    first = fusion.layers[0]
    padded = functional.pad(latent, (first.conv.kernel_size[0] - 1, 0))
    constant = fusion.embed(theta.unsqueeze(-1)).expand(len(latent), -1, padded.shape[-1])
    x = first.activation(first.conv(torch.cat([padded, constant], dim=1)))
    for layer in fusion.layers[1:]:
        x = layer(x)
    return latent + x


def test_the_split_first_layer_is_that_of_the_concatenation(model):
    latent, theta = torch.randn(2, 6, 40), torch.rand(2, 2)
    split = model.condition.fusion(latent, theta.unsqueeze(1)).squeeze(1)
    assert not torch.allclose(
        split, model.condition.fusion(latent, 1 - theta.unsqueeze(1)).squeeze(1)
    )
    torch.testing.assert_close(split, concatenated(model.condition.fusion, latent, theta))


def test_cropped_bins_are_the_last_ones(model):
    latent, theta = torch.randn(2, 6, 40), torch.rand(2, 3, 2)
    whole = model.condition.fusion(latent, theta)
    torch.testing.assert_close(model.condition.fusion(latent, theta, crop=15), whole[..., 15:])


def test_many_listeners_at_once_are_one_at_a_time(model, sound):
    theta = torch.rand(2, 5, 2)
    together = model.decode(model.latent(sound), theta)
    assert together.shape == (2, 5, 4, 5, 50)
    for i in range(5):
        torch.testing.assert_close(together[:, i], model.respond(sound, theta[:, i]))


def test_one_set_of_listeners_serves_all_sounds(model, sound):
    theta = torch.rand(1, 5, 2)
    shared = model.decode(model.latent(sound), theta)
    each = model.decode(model.latent(sound), theta.expand(2, -1, -1))
    torch.testing.assert_close(shared, each, rtol=1e-5, atol=1e-4)


def test_training_hears_each_animal_at_its_own_hour(model, sound):
    sound = torch.cat([sound, sound], dim=-1)
    hours, noise = torch.tensor([[0.0, 6.0, 20.0], [3.0, 0.0, 9.0]]), torch.randn(2, 3, 2)
    theta = model.listeners.theta(hours) + model.listeners.deviation * noise
    expected = model.decode(model.latent(sound), theta)[..., 64:]
    torch.testing.assert_close(
        model(sound, Subjects(hours=hours, noise=noise)).log_probabilities(), expected
    )
    some = torch.tensor([2, 0])
    part = model(sound, Subjects(some, hours=hours[:, some], noise=noise[:, some]))
    torch.testing.assert_close(part.log_probabilities(), expected[:, some])


def test_animals_answer_on_the_channels_they_are_matched_with(model, sound):
    theta, matching = torch.rand(1, 2, 2), torch.tensor([[3, 3, 0], [1, -1, 2]])
    latent = model.latent(sound)
    every = model.decode(latent, theta)
    matched = model.predict(latent, Subjects(theta=theta, matching=matching)).log_probabilities()
    assert matched.shape == (2, 2, 3, 5, 50)
    torch.testing.assert_close(matched[:, 0], every[:, 0, [3, 3, 0]])
    torch.testing.assert_close(matched[:, 1, [0, 2]], every[:, 1, [1, 2]])


def test_responses_keep_double_precision(model, sound):
    model = model.double()
    response = model.respond(sound.double(), torch.rand(2, 2, dtype=torch.float64))
    assert response.dtype == torch.float64
    assert (response.exp().sum(-2) - 1).abs().max() < 1e-12


def test_responses_are_float32_under_autocast(model, sound):
    with torch.autocast("cpu", torch.bfloat16):
        response = model.respond(sound, torch.rand(2, 2))
    assert response.dtype == torch.float32
    assert (response.exp().sum(-2) - 1).abs().max() < 1e-5


def test_the_cost_of_a_listener_is_the_training_objective(model):
    sound, hours = torch.randn(2, 32 * 100), torch.tensor([[0.5, 7.0, 14.0]]).expand(2, -1)
    counts = torch.randint(0, 7, (2, 4, 36), dtype=torch.uint8)
    with torch.no_grad():
        theta = model.listeners.theta(hours[0])
        predicted = [model(sound, Subjects(torch.tensor([i]), hours[:, [i]])) for i in range(3)]
    costs = listener_cost(model, sound, counts)(theta)
    for i, prediction in enumerate(predicted):
        expected = cross_entropy(prediction, counts.unsqueeze(1), torch.ones(2, 1, 4))
        assert costs[i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_posterior_counts_an_observation_every_20_ms(model, sound):
    cost = listener_cost(model, sound, torch.zeros(2, 4, 50, dtype=torch.uint8), context_bins=0)
    assert cost.observations == pytest.approx(2 * 4 * 50 * 1.31072 / 20, rel=1e-3)


def test_channels_set_apart_cost_nothing(model, sound):
    counts, theta = torch.randint(0, 5, (2, 4, 50), dtype=torch.uint8), torch.rand(3, 2)
    matching = torch.tensor([2, -1, 0, 0])
    apart = listener_cost(model, sound, counts, matching, 0)(theta)
    counts[:, 1] = 4
    assert torch.equal(listener_cost(model, sound, counts, matching, 0)(theta), apart)
    kept = listener_cost(model, sound, counts[:, [0, 2, 3]], matching[[0, 2, 3]], 0)(theta)
    torch.testing.assert_close(apart, kept)


def test_the_cost_of_a_listener_has_a_gradient_of_theta_alone(model, sound):
    cost = listener_cost(model, sound, torch.zeros(2, 4, 50, dtype=torch.uint8), context_bins=0)
    theta = torch.rand(3, 2, requires_grad=True)
    cost(theta).sum().backward()
    assert theta.grad.abs().min() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_a_planted_listener_is_found_in_its_responses_as_surely_as_laplace_says():
    model = outspoken(beta_icnet(1, channels=16, parameters=2, encoder=ENCODER), seed=4)
    planted = torch.tensor([0.3, 0.7])
    sound = 3 * torch.randn(4, 32 * 300)
    probability = model.respond(sound, planted.unsqueeze(0)).exp().transpose(-1, -2)
    counts = torch.distributions.Categorical(probs=probability).sample()[..., 64:]
    cost = listener_cost(model, sound, counts)
    fit = descend(cost, sobol(4, 2, seed=0), steps=40)
    covariance = laplace(cost, fit.theta, counts.numel())
    error = fit.theta - planted
    assert error.abs().max() < 0.1
    assert covariance.diagonal().max().sqrt() < 0.1
    # Beyond 13.8 lies a thousandth of a normal distribution in two dimensions.
    assert error @ torch.linalg.inv(covariance) @ error < 13.8


def test_networks_begin_at_the_histograms_they_are_given(model, sound):
    histogram = torch.tensor([[0.7, 0.2, 0.1, 0.0, 0.0]] * 4)
    with torch.no_grad():
        model.readout.weight.zero_()
    model.readout.start_at(histogram)
    response = model.respond(sound, torch.rand(1, 2)).exp()
    torch.testing.assert_close(response[0, :, :, 0], histogram, rtol=0, atol=1e-3)
    assert response.log().isfinite().all()
    with pytest.raises(ValueError, match=r"histogram must be \(4, 5 or more\)"):
        model.readout.start_at(histogram[:3])


def test_expected_counts_are_the_mean_of_the_classes():
    probability = torch.tensor([[0.5, 0.2], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.8]])
    torch.testing.assert_close(expected_counts(probability.log()), torch.tensor([0.5, 3.2]))


def test_listeners_of_other_sizes_are_refused(model, sound):
    with pytest.raises(ValueError, match=r"theta must be \(B, A, 2\) for this model, got \(1, 1"):
        model.respond(sound, torch.rand(1, 6))
    with pytest.raises(ValueError, match="theta must be"):
        model.decode(model.latent(sound), torch.rand(1, 2))


@pytest.mark.parametrize("sizes", [{"animals": 0}, {"parameters": 0}, {"fusion_size": 0}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="animals, parameters and fusion_size must be positive"):
        beta_icnet(**{"animals": 2} | sizes)
    with pytest.raises(ValueError, match="channels must be positive"):
        beta_icnet(2, channels=0)


def test_thresholds_take_the_place_of_theta():
    torch.manual_seed(1)
    network = ResponseModel(abrnet(channels=4, frequencies=5, encoder=ENCODER))
    with torch.no_grad():
        network.condition.fusion.layers[-1].conv.weight *= 30
    sound, thresholds = torch.randn(2, 32 * 100), torch.tensor([[[30.0] * 5, [80.0] * 5]])
    predicted = network(sound, Subjects(thresholds_db_spl=thresholds)).log_probabilities()
    assert predicted.shape == (2, 2, 4, 5, 36)
    assert (predicted[:, 0] - predicted[:, 1]).abs().max() > 1e-4
    one = Subjects(thresholds_db_spl=thresholds[:, :1])
    alone = network(sound, one).log_probabilities()
    torch.testing.assert_close(predicted[:, :1], alone)
    with pytest.raises(ValueError, match="thresholds at 5 frequencies are needed"):
        network(sound, Subjects(thresholds_db_spl=thresholds[..., :4]))
    with pytest.raises(ValueError, match="knows no θ"):
        network.respond(sound, torch.rand(1, 2))


def test_the_published_fusion_of_thresholds_is_the_default():
    network = ResponseModel(abrnet())
    assert network.condition.fusion.layers[0].conv.weight.shape == (75, 79, 16)


def test_branches_are_the_animals_own_and_change_with_time():
    torch.manual_seed(0)
    network = ResponseModel(icnet(animals=3, channels=4, encoder=ENCODER))
    sound, hours = torch.randn(2, 32 * 100), torch.tensor([[0.0, 5.0, 10.0]]).expand(2, -1)
    whole = network(sound, Subjects(hours=hours)).log_probabilities()
    assert whole.shape == (2, 3, 4, 5, 36)
    some = torch.tensor([2, 0])
    part = network(sound, Subjects(some, hours[:, some])).log_probabilities()
    torch.testing.assert_close(part, whole[:, some])
    assert network.readout.slots == 12
    with torch.no_grad():
        network.condition.drift[1] += 0.5
    later = network(sound, Subjects(hours=hours)).log_probabilities()
    torch.testing.assert_close(later[:, [0, 2]], whole[:, [0, 2]])
    assert (later[:, 1] - whole[:, 1]).abs().max() > 1e-3


def test_a_model_of_one_brain_needs_to_be_told_nothing():
    torch.manual_seed(0)
    network = ResponseModel(ResponseModelConfig(channels=4, encoder=ENCODER))
    assert network(torch.randn(2, 32 * 100), Subjects()).logits().shape == (2, 1, 4, 5, 36)


def test_any_clock_and_a_poisson_readout_make_a_model():
    torch.manual_seed(0)
    config = ResponseModelConfig(
        4,
        SincNetConfig(filters=4, kernels=6, size=8, bottleneck=6, context_bins=10),
        ThetaConfig(animals=3, parameters=2),
        PoissonConfig(classes=10),
        Clock(48000.0, 240),
    )
    model = ResponseModel(config)
    sound = torch.randn(2, 240 * 30)
    prediction = model(sound, Subjects(hours=torch.zeros(2, 3)))
    assert prediction.log_rate.shape == (2, 3, 4, 20)
    response = model.respond(sound, torch.rand(2, 2))
    assert response.shape == (2, 4, 10, 30)
    torch.testing.assert_close(response.exp().sum(-2), torch.ones(2, 4, 30))
