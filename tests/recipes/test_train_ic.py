"""Models of any clock, readout and condition are trained by the same loop, scored and fitted."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from compensation import hearing
from icsim.clock import Clock
from icsim.models.conditions import BranchesConfig, NoCondition, ThetaConfig, ThresholdsConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.load import load_model
from icsim.models.readouts import PoissonConfig
from icsim.recording import Recording
from icsim.sound import Sound
from icsim.store import Cohort, create
from icsim.weights import load_tensors
from recipes import fit_theta, score_ic, train_ic

ENCODER = SincNetConfig(
    filters=4, kernels=6, size=4, sinc_size=16, bottleneck=6, input_scale=20.0, context_bins=8
)
CORTEX = Clock(48_000.0, 240)
BINS, REPEATS = 260, 20


def envelope(channels: int, seed: int, bins: int = BINS) -> Tensor:
    """Mean counts that follow a sound, each channel with another gain, `(C, N)`."""
    generator = torch.Generator().manual_seed(seed)
    course = torch.rand(bins // 10, generator=generator).repeat_interleave(10)
    return torch.linspace(1.0, 6.0, channels)[:, None] * course


def answers(channels: int, seed: int, bins: int = BINS) -> Tensor:
    """Counts to 9 of one presentation, uint8 `(N, C)`."""
    drawn = torch.poisson(envelope(channels, seed % 10, bins), torch.Generator().manual_seed(seed))
    return drawn.clamp(max=9).T.to(torch.uint8)


def recorded(path: Path, clock: Clock, channels: dict[str, int], repeats: int) -> Cohort:
    """Sounds whose level is what the channels follow, heard so many times each."""
    sounds = []
    for n, split in enumerate(("train", "train", "validation", "test")):
        course = envelope(1, n)[0].repeat_interleave(clock.bin_samples)
        noise = torch.randn(len(course), generator=torch.Generator().manual_seed(n))
        sounds.append(Sound(f"sound {n}", "speech", f"source {n}", split, 0.02 * course * noise))
    cohort = create(path, sounds, clock=clock)
    shown = [(n, 0.01 * (4 * r + n)) for r in range(repeats) for n in range(4)]
    for name, count in channels.items():
        counts = [answers(count, 10 * r + n) for r in range(repeats) for n in range(4)]
        role = "unseen" if name == "new" else "seen"
        cohort.add_animal(name, Recording("NH", role, None, None, count, shown, counts))
    return cohort


def config_of(cohort: Cohort, out: Path, **changes) -> train_ic.Config:
    usual = {"encoder": ENCODER, "batch": 2, "epochs": 4, "learning_rate": 5e-3}
    usual |= {"precision": "no", "schedule": "cosine"}
    return train_ic.Config(cohort.path, str(out), **usual | changes)


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(train_ic, "_log", lambda *_: None)


def test_a_cohort_of_wide_bins_many_repeats_and_large_counts_trains_with_a_poisson_readout(
    tmp_path, quiet
):
    cohort = recorded(tmp_path / "cohort", CORTEX, {"a": 3, "b": 3, "new": 3}, REPEATS)
    for name in cohort.animals():
        cohort.animal(name).set_alignment([0, 1, 2], 3)
    assert max(cohort.animal("a").counts(n).max() for n in range(8)) == 9
    condition, readout = ThetaConfig(parameters=2, fusion_size=4), PoissonConfig(classes=10)
    config = config_of(cohort, tmp_path / "ic", condition=condition, readout=readout)
    path = train_ic.train(config)
    model, facts = load_model(path)
    assert (model.clock, model.config.readout) == (CORTEX, readout)
    assert model.config.condition == dataclasses.replace(condition, animals=2)
    assert facts.channel_prior is None
    errors = [record["validation"] for record in progress_of(path)["history"]]
    assert min(errors) < errors[0]
    scores = score_ic.score_ic(score_ic.Config(cohort.path, str(path)))
    assert {name: score["sounds"] for name, score in scores.items()} == {"a": 1, "b": 1}
    fit = fit_theta.Config(cohort.path, str(path), str(tmp_path / "fits"), "new", seconds=3.0)
    with pytest.raises(ValueError, match="readout is 'poisson'; add --channel_gains false"):
        fit_theta.fit_theta(fit)
    assert not (tmp_path / "fits").exists()
    found = fit_theta.fit_theta(dataclasses.replace(fit, channel_gains=False))
    assert len(found["theta"]) == 2
    with pytest.raises(ValueError, match="48000 Hz, and aids are made for 24414"):
        hearing.learned(str(path))


def progress_of(path: Path) -> dict:

    return load_tensors(path.parent / "state.safetensors")[1]


def test_animals_of_different_numbers_of_channels_train_with_branches(tmp_path, quiet):
    cohort = recorded(tmp_path / "cohort", Clock(), {"small": 2, "large": 5}, 2)
    config = config_of(cohort, tmp_path / "ic", condition=BranchesConfig(), epochs=2)
    path = train_ic.train(config)
    model, facts = load_model(path)
    assert facts.animals == ("large", "small")
    assert (model.config.channels, model.readout.slots) == (5, 10)
    assert facts.weight.sum(1).tolist() == [5, 2]
    scores = score_ic.score_ic(score_ic.Config(cohort.path, str(path)))
    assert set(scores) == {"small", "large"}


def test_a_model_without_a_condition_learns_one_brain(tmp_path):
    cohort = recorded(tmp_path / "cohort", Clock(), {"one": 3}, 2)
    path = train_ic.train(config_of(cohort, tmp_path / "ic", condition=NoCondition(), epochs=1))
    assert load_model(path)[0].config.condition == NoCondition()
    assert set(score_ic.score_ic(score_ic.Config(cohort.path, str(path)))) == {"one"}


def test_a_cohort_of_another_clock_than_the_models_is_refused(tmp_path, quiet):
    cohort = recorded(tmp_path / "cohort", Clock(), {"one": 3}, 2)
    other = recorded(tmp_path / "other", CORTEX, {"one": 3}, 2)
    path = train_ic.train(config_of(cohort, tmp_path / "ic", epochs=1))
    message = "sampled at 48000 Hz in bins of 240 samples, the model at 24414.1 Hz in bins of 32"
    with pytest.raises(ValueError, match=message):
        score_ic.score_ic(score_ic.Config(other.path, str(path)))
    with pytest.raises(ValueError, match=message):
        fit_theta.fit_theta(fit_theta.Config(other.path, str(path), str(tmp_path / "f"), "one"))
    with pytest.raises(ValueError, match="the clock to begin from is another one"):
        train_ic.train(config_of(other, tmp_path / "second", begin_from=str(path)))
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / "second").exists()


def test_thresholds_are_asked_for_before_anything_is_written(tmp_path):

    cohort = recorded(tmp_path / "cohort", Clock(), {"one": 3}, 1)
    with pytest.raises(ValueError, match="condition thresholds needs thresholds, which one lacks"):
        train_ic.train(config_of(cohort, tmp_path / "ic", condition=ThresholdsConfig()))
    assert not (tmp_path / "ic").exists()
