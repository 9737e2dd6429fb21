"""What the benchmark of aids measures of a listener, by ears that have lost some decibels."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from compensation.devices import Device, simple
from evaluation.devices import level_rows
from icsim.audiogram import Audiogram
from icsim.excerpts import NOISE, Condition
from icsim.fits import Fit
from icsim.metrics import expected_counts
from icsim.models.encoders import SincNetConfig
from icsim.models.response import ResponseModel, beta_icnet
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.sound import calibrate, level
from recipes.benchmarks import judgement


def normal(sound: torch.Tensor) -> torch.Tensor:
    """An ear of one channel: compressed power every 256 samples, `(B, 1, N)`."""
    return sound.unfold(-1, 256, 256).square().mean(-1).add(1e-12).pow(0.2)[:, None]


def noise(count: int, level_db_spl: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    envelope = 1 - 0.9 * (torch.arange(4096) // 1000 % 2)
    return calibrate(torch.randn(count, 4096, generator=generator) * envelope, level_db_spl)


LOST_DB = {"truth": 10.0, "model": 4.0}


@pytest.fixture
def listener() -> judgement.Listener:
    """One who hears everything 10 dB too soft, and 4 dB in the model's opinion."""
    pairs = {
        judge: (lambda sound, lost_db=lost_db: normal(sound * 10 ** (-lost_db / 20)), normal)
        for judge, lost_db in LOST_DB.items()
    }
    flat = Audiogram((1000,), (0,))
    return judgement.Listener("new", "mild", flat, torch.zeros(2), None, pairs)


def test_simple_gains_are_what_the_truth_and_the_model_ask_for(listener):
    pytest.importorskip("clarity.enhancer.nalr", reason="pyclarity is not installed")
    training = noise(4, 65.0)
    louder = Device("+6 dB", lambda sound: 2 * sound, 0.0)
    devices, chosen_db = simple(listener.ear, listener.midbrains, louder, training)
    assert chosen_db["nal_r_matched"] == pytest.approx(6.02, abs=0.01)
    for judge, lost_db in LOST_DB.items():
        for name in ("flat", "nal_r_best"):
            assert chosen_db[f"{name}_{judge}"] == pytest.approx(lost_db, abs=0.2)
        for name in ("flat", "nal_r_best", "fixed"):
            added_db = level(devices[f"{name}_{judge}"].process(training)) - level(training)
            assert added_db.mean().item() == pytest.approx(lost_db, abs=0.5)


def test_rows_hold_the_discrepancies_of_each_judge_from_what_the_normal_ear_heard(listener):
    clean, masker = noise(2, 65.0), noise(3, 60.0)[:2]
    noisy = clean + masker
    condition = Condition(NOISE, 65.0, ["a", "b"], ["babble", "white"], clean, noisy)
    processed = {"aid": 2 * noisy}
    table = pd.concat(judgement.restored(listener, condition, processed))
    for judge, (impaired, _) in listener.midbrains.items():
        for measure, target in (("fidelity", noisy), ("clarity", clean)):
            rows = table[(table.judge == judge) & (table.measure == measure)]
            assert rows.sound.tolist() == ["a", "b"]
            assert rows.noise.tolist() == ["babble", "white"]
            for column, sound in (("value", 2 * noisy), ("unaided", noisy)):
                apart = (impaired(sound).double() - normal(target).double()).square().sum((1, 2))
                assert rows[column].tolist() == pytest.approx(apart.tolist())
    assert level_rows(condition, processed).value.tolist() == pytest.approx([6.02] * 2, abs=0.01)


def test_the_truth_is_the_animal_beside_its_twin_and_the_model_knows_normal_animals(monkeypatch):
    torch.manual_seed(0)
    animal = Animal(draw_anatomy(4, 0), draw_loss("HI", 1.2, 0))
    truth = animal.truth() | {"hearing": "HI", "severity": 1.2}
    encoder = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=20.0)
    model = ResponseModel(beta_icnet(3, 4, 2, encoder, fusion_size=4))
    theta, fit = torch.rand(3, 2), Fit("new", torch.tensor([0.2, 0.9]), None)
    space = SimpleNamespace(model=model, normal=theta[:2])
    monkeypatch.setattr(judgement.hearing, "space_of", lambda path: space)
    monkeypatch.setattr(judgement, "audiogram_of", lambda *_: Audiogram((1000,), (0,)))
    monkeypatch.setattr(judgement, "fingerprint", lambda path: f"mark of {path}")
    monkeypatch.setattr(
        judgement, "read_fit", lambda path, of: {("fit", "mark of model"): fit}[path, of]
    )
    job = SimpleNamespace(fit="fit", model="model")
    listener = judgement._listener(job, SimpleNamespace(truth=lambda name: truth))
    assert (listener.name, listener.group) == ("new", "severe")

    def answers(who):
        return expected_counts(model.respond(sound, who)).detach()

    sound = 0.02 * torch.randn(1, 3200)
    expected = {
        "truth": (animal.expected_counts(sound), animal.healthy().expected_counts(sound)),
        "model": (answers(fit.theta[None]), (answers(theta[:1]) + answers(theta[1:2])) / 2),
    }
    for judge, pair in expected.items():
        for midbrain, response in zip(listener.midbrains[judge], pair, strict=True):
            torch.testing.assert_close(midbrain(sound).detach(), response)


@pytest.mark.parametrize(
    ("hearing", "severity", "group"),
    [("NH", 1.0, "normal"), ("hidden", 1.0, "hidden"), ("HI", 0.9, "mild"), ("HI", 1.0, "severe")],
)
def test_listeners_are_grouped_by_what_they_have_lost(hearing, severity, group):
    assert judgement.group({"hearing": hearing, "severity": severity}) == group
