"""Response models and aids written before they were what they are load, and answer the same."""

from pathlib import Path

import pytest
import torch

from compensation.load import load_aid
from icsim.models.listener_cost import listener_cost
from icsim.models.load import load_model, load_theta_model, save_model
from icsim.models.subjects import Subjects
from icsim.objective import cross_entropy
from icsim.store import Cohort
from icsim.weights import load_tensors

BEFORE = Path(__file__).parents[1] / "reference" / "before"
NAMES = ("icnet", "betaicnet", "abrnet")


@pytest.fixture(scope="module")
def outputs() -> dict[str, torch.Tensor]:
    """What they answered, on the processor and with the torch that `same` asks for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_tensors(BEFORE / "outputs.safetensors")[0]
    torch.set_num_threads(threads)


def require_same(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    """To the bit, where the processor and torch are those of before; else to rounding."""
    _, made = load_tensors(BEFORE / "outputs.safetensors")
    if made == {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability()}:
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_networks_of_before_answer_the_same(outputs, name):
    model, facts = load_model(BEFORE / f"{name}.safetensors")
    assert not model.training
    assert facts.animals == ("normal-1", "mild", "severe")
    everyone = facts.subjects([0, 1, 2], outputs["hours"], outputs["noise"])
    prediction = model(outputs["sound"], everyone)
    require_same(prediction.log_probabilities().detach(), outputs[f"{name}.log_probabilities"])
    loss = cross_entropy(prediction, outputs["counts"], outputs["weight"])
    require_same(loss.detach()[None], outputs[f"{name}.cross_entropy"])
    loss.backward()
    parameters = sorted(model.named_parameters(), key=lambda named: before(named[0]))
    gradient = [
        torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for _, p in parameters
    ]
    require_same(torch.cat(gradient), outputs[f"{name}.gradient"])


def before(name: str) -> str:
    """Name of a parameter as it was."""
    return name.removeprefix("condition.").replace("readout.", "decoder.")


def test_listeners_of_before_answer_and_cost_the_same(outputs):
    model, facts = load_model(BEFORE / "betaicnet.safetensors")
    response = model.respond(outputs["sound"], outputs["theta"])
    require_same(response.detach(), outputs["betaicnet.respond"])
    mean = model(outputs["sound"], facts.subjects([0, 1, 2], outputs["hours"]))
    require_same(mean.log_probabilities().detach(), outputs["betaicnet.mean.log_probabilities"])
    cost = listener_cost(model, outputs["sound"], outputs["counts"][:, 1], facts.matching[1])
    require_same(cost(outputs["theta"]), outputs["betaicnet.cost"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_can_be_saved_and_loaded_again(tmp_path, outputs, name):
    model, facts = load_model(BEFORE / f"{name}.safetensors")
    save_model(tmp_path / "model.safetensors", model, facts)
    again, same = load_model(tmp_path / "model.safetensors")
    assert again.config == model.config
    assert same.to_json() == facts.to_json()
    subjects = facts.subjects([2, 0], outputs["hours"][:, [2, 0]])
    mine, theirs = (m(outputs["sound"], subjects).log_probabilities() for m in (again, model))
    assert torch.equal(mine, theirs)


def test_a_model_of_before_says_how_channels_differ():
    _, facts = load_model(BEFORE / "betaicnet.safetensors")
    assert facts.channel_prior.mean.tolist() == pytest.approx([1.0, 0.1, 0.0, -0.1, 0.05])
    assert load_model(BEFORE / "icnet.safetensors")[1].channel_prior is None


@pytest.mark.parametrize("name", ["masks", "waveform"])
def test_aids_of_before_do_the_same(outputs, name):
    aid, facts = load_aid(BEFORE / f"{name}.safetensors")
    assert (facts.listener, facts.noise_reduction) == ("theta", True)
    for exponents in ((0.0, 1.0), (1.0, 1.0), (0.5, 0.3)):
        processed = aid.process(outputs["sound"], outputs["theta"], *exponents).detach()
        require_same(processed, outputs[f"{name}.{exponents[0]:g}.{exponents[1]:g}"])


def test_a_cohort_of_the_first_format_is_read():
    cohort = Cohort.open(BEFORE / "cohort.zarr")
    assert (cohort.clock.sample_rate_hz, cohort.clock.bin_samples) == (24414.0625, 32)
    assert [sound.bins for sound in cohort.sounds] == [60] * 4
    assert cohort.animal("mild").counts(4).shape == (60, 5)
    assert cohort.animal("severe").alignment().slots == 7


def test_what_is_no_response_model_is_named():
    with pytest.raises(ValueError, match=r"masks.safetensors: holds a Masks, not a response model"):
        load_model(BEFORE / "masks.safetensors")
    with pytest.raises(ValueError, match="its condition is 'branches'; a model with condition"):
        load_theta_model(BEFORE / "icnet.safetensors")


def test_subjects_of_some_animals_are_those_of_all(outputs):
    model, facts = load_model(BEFORE / "abrnet.safetensors")
    whole = model(outputs["sound"], facts.subjects([0, 1, 2])).log_probabilities()
    some = model(outputs["sound"], facts.subjects([2])).log_probabilities()
    torch.testing.assert_close(some[:, 0], whole[:, 2])
    assert isinstance(facts.subjects([2]), Subjects)
