"""Networks come back from disk bit for bit, or not at all."""

import dataclasses
from pathlib import Path

import pytest
import torch

from compensation.masks import Masks, MasksConfig
from icsim.models.conditions import ThetaConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.response import ResponseModel, ResponseModelConfig, beta_icnet
from icsim.weights import (
    config_from_dict,
    load_network,
    load_tensors,
    save_network,
    save_tensors,
)

ENCODER = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=5, input_scale=0.5)
CONFIG = beta_icnet(2, channels=3, parameters=2, encoder=ENCODER)


@pytest.fixture
def saved(tmp_path):
    model = ResponseModel(CONFIG)
    path = tmp_path / "runs" / "model.safetensors"
    save_network(path, model, animals=["a", "b"], epochs=7)
    return path, model


def test_a_network_comes_back_bit_for_bit(saved):
    path, model = saved
    loaded, facts = load_network(path, ResponseModel)
    assert loaded.config == CONFIG
    assert isinstance(loaded.config.encoder, SincNetConfig)
    assert facts == {"animals": ["a", "b"], "epochs": 7}
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    sound, theta = torch.randn(1, 640), torch.rand(1, 2)
    assert torch.equal(loaded.respond(sound, theta), model.respond(sound, theta))


def test_a_loaded_network_is_in_evaluation_mode(saved):
    path, model = saved
    assert model.training
    assert not any(module.training for module in load_network(path, ResponseModel)[0].modules())


def test_a_network_of_another_package_comes_back_too(tmp_path):
    config = MasksConfig(listener=2, bands=4, width=4, layers=1)
    save_network(tmp_path / "masks.safetensors", Masks(config))
    loaded, facts = load_network(tmp_path / "masks.safetensors", Masks)
    assert loaded.config == config
    assert facts == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_tensors_keep_their_bits_and_their_type(tmp_path, dtype):
    tensors = {"a": torch.arange(12).view(3, 4).to(dtype), "turned": torch.rand(3, 4).to(dtype).T}
    save_tensors(tmp_path / "t", tensors, {"θ": [1, None, {"deep": 0.1}]})
    loaded, metadata = load_tensors(tmp_path / "t")
    assert metadata == {"θ": [1, None, {"deep": 0.1}]}
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)


def test_another_architecture_is_named(saved):
    with pytest.raises(ValueError, match=r"model.safetensors: holds a ResponseModel, not a Masks"):
        load_network(saved[0], Masks)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, kept):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"model.safetensors: damaged, or no checkpoint"):
        load_network(path, ResponseModel)


def test_files_of_other_programs_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "bare.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "odd.safetensors", {"json": "{"})
    (tmp_path / "text.safetensors").write_text("a poem\n" * 100)
    for name in ("bare", "odd", "text"):
        with pytest.raises(ValueError, match="no checkpoint of this project"):
            load_tensors(tmp_path / f"{name}.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such checkpoint; train it first"):
        load_network(tmp_path / "nothing.safetensors", ResponseModel)


def test_weights_that_do_not_fit_their_configuration_are_refused(saved):
    path, _ = saved
    tensors, metadata = load_tensors(path)
    metadata["config"]["channels"] = 9
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match="weights do not fit the configuration"):
        load_network(path, ResponseModel)


def test_nothing_partial_is_left_and_the_old_file_is_replaced(saved):
    path, _ = saved
    before = path.read_bytes()
    save_network(path, ResponseModel(CONFIG))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() != before


def test_what_cannot_be_saved_leaves_the_old_file_alone(saved):
    path, model = saved
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_network(path, model, when=torch.Generator())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_writing_that_breaks_off_leaves_the_old_file_alone(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def full_disk(tensors, where, metadata):
        Path(where).write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_network(path, model)
    assert path.read_bytes() == before


def test_nested_configurations_are_rebuilt():
    assert config_from_dict(ResponseModelConfig, dataclasses.asdict(CONFIG)) == CONFIG
    default = config_from_dict(ThetaConfig, {"animals": 4})
    assert default == ThetaConfig(animals=4)


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="ResponseModelConfig has no chanels, θ"):
        config_from_dict(ResponseModelConfig, {"channels": 4, "chanels": 3, "θ": 1})
    with pytest.raises(ValueError, match="SincNetConfig has no taps"):
        config_from_dict(ResponseModelConfig, {"encoder": {"kind": "sincnet", "taps": 3}})
    with pytest.raises(ValueError, match="no kind 'ear'; there are none, branches, theta"):
        config_from_dict(ResponseModelConfig, {"condition": {"kind": "ear"}})


def test_a_configuration_that_is_not_allowed_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        config_from_dict(ThetaConfig, {"animals": 0})
