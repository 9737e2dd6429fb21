"""Judging an aid: what is measured is named, real recordings are judged by the model alone."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from compensation.devices import Device, louder, without_rnnoise
from compensation.listener import AUDIOGRAM_HZ, from_audiogram
from compensation.masks import Masks, MasksConfig
from compensation.noise_reduction import wiener
from compensation.prescriptions import nal_r
from evaluation.neural import discrepancy
from evaluation.tidy import mean, where
from icsim import store
from icsim.audiogram import Audiogram
from icsim.metrics import expected_counts
from icsim.models.encoders import SincNetConfig
from icsim.models.response import ResponseModel, beta_icnet
from icsim.recording import Recording
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.sound import SAMPLE_RATE, Sound, calibrate, level
from icsim.weights import fingerprint, save_network
from recipes import judge
from recipes.reports import judged

CHANNELS, FREQUENCIES = 4, (1e3, 4e3, 8e3)


def sounds() -> list[Sound]:
    """Noise that comes and goes, in place of speech."""
    draw, samples = torch.Generator().manual_seed(0), round(1.3 * SAMPLE_RATE)
    pulse = (torch.arange(samples) // 2500) % 2
    return [
        Sound(f"{split}-{n}", "speech", f"voice {split}", split, calibrate(pulse * x, 65.0))
        for split in ("train", "test")
        for n, x in enumerate(torch.randn(2, samples, generator=draw))
    ]


def cohort(path, simulated: bool, thresholds: bool = True) -> str:
    """A normal animal that the model knows, and two that it does not."""
    made = store.create(path, sounds())
    members = (("normal", "NH", "seen"), ("new", "HI", "unseen"), ("sound", "NH", "unseen"))
    for seed, (name, status, role) in enumerate(members):
        animal = Animal(draw_anatomy(CHANNELS, seed), draw_loss(status, 1.5, seed))
        shift = 40.0 if status == "HI" else 0.0
        recording = Recording(
            status=status,
            role=role,
            thresholds_db_spl=[20.0, 20.0 + shift / 2, 20.0 + shift] if thresholds else None,
            abr_frequencies_hz=FREQUENCIES if thresholds else None,
            channels=CHANNELS,
            presentations=[(0, 0.1)],
            counts=[np.zeros((made.sounds[0].bins, CHANNELS), np.uint8)],
        )
        truth = animal.truth() | {"hearing": status, "severity": 1.5}
        made.add_animal(name, recording, truth if simulated else None)
    return str(path)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """Cohorts, an untrained model and aid, and fits of two listeners."""
    folder = tmp_path_factory.mktemp("laboratory")
    torch.manual_seed(0)
    path = model(folder / "model.safetensors", **OF_MODEL)
    of_model = fingerprint(path)
    aid = Masks(MasksConfig(listener=3, bands=6, width=4, layers=1))
    torch.nn.init.normal_(aid.leave.weight, std=1.0)
    facts = {"listener": "theta", "noise_reduction": True, "model": of_model}
    save_network(folder / "aid.safetensors", aid, **facts)
    (folder / "fits").mkdir()
    for name in ("new", "sound"):
        fit = {"animal": name, "theta": [0.2, 0.5, 0.9], "model": of_model}
        (folder / "fits" / f"{name}.json").write_text(json.dumps(fit))
    return folder


@pytest.fixture(scope="module")
def cohorts(laboratory):
    return {
        "simulated": cohort(laboratory / "simulated.zarr", True),
        "real": cohort(laboratory / "real.zarr", False),
        "unmeasured": cohort(laboratory / "unmeasured.zarr", False, thresholds=False),
    }


def configured(laboratory, cohorts, out) -> judge.Config:
    return judge.Config(
        cohort=cohorts["simulated"],
        model=str(laboratory / "model.safetensors"),
        aid=str(laboratory / "aid.safetensors"),
        fits=str(laboratory / "fits"),
        out=str(out),
        excerpts=2,
        excerpt_s=0.6,
        speech=2,
        scores=("si_sdr_db", "haspi"),
        noise_reductions=("wiener", "rnnoise"),
        workers=1,
    )


@pytest.fixture
def config(laboratory, cohorts, tmp_path):
    return configured(laboratory, cohorts, tmp_path / "judged")


@pytest.fixture(scope="module")
def finished(laboratory, cohorts, tmp_path_factory):
    """The folder of a judgement, and what it returned."""
    out = tmp_path_factory.mktemp("finished") / "judged"
    return out, judge.judge(configured(laboratory, cohorts, out))


BESIDE = {"unprocessed", "flat_model", "nal_r", "nal_r_matched", "nal_r_best_model", "wiener_nal_r"}
OURS = {"masks_nr_off", "masks_nr_on"}


def test_every_measure_is_named_for_every_device(finished):
    out, about = finished
    rows, written = judged.read(out)
    assert written == json.loads(json.dumps(about))
    devices = BESIDE | OURS | (set() if without_rnnoise() else {"rnnoise_nal_r"})
    assert about["judges"] == ["truth", "model"]
    assert set(about["devices"]) == devices
    assert set(about["ours"]) == OURS
    assert about["devices"]["masks_nr_on"]["delay_ms"] == 7.9
    assert about["devices"]["wiener_nal_r"]["delay_ms"] == pytest.approx(7.9 + 2.5, abs=0.11)
    restored = judged.estimates(rows, about)
    for by_measure in restored.values():
        assert set(by_measure) == set(judged.MEASURES)
        for values in by_measure.values():
            assert set(values) == devices
            assert values["unprocessed"] == 0
    # The mean is of those with a loss; the same sound at another level answers otherwise.
    own = where(rows, listener="new", judge="truth", **judged.MEASURES["clarity_noise"])
    assert restored["truth"]["clarity_noise"]["nal_r"] == mean(own, "nal_r").estimate
    in_noise = {name: restored["truth"][name]["masks_nr_on"] for name in judged.MEASURES}
    assert in_noise["clarity_noise"] != in_noise["fidelity_noise"]
    # Noisy speech is scored beside the clean one, which is 5 dB above its noise.
    scored = where(rows, listener="new", measure="si_sdr_db")
    assert mean(scored, "unprocessed").estimate == pytest.approx(5, abs=0.5)
    text = (out / "scores.md").read_text()
    for name in ("fidelity in quiet, by the true midbrains", "| Masks, noise reduction on |"):
        assert name in text
    assert (out / "restoration-truth.png").stat().st_size > 10_000
    numbers = json.loads((out / "headline.json").read_text())
    in_noise = restored["truth"]["clarity_noise"]["nal_r"]
    assert numbers["truth/nal_r/clarity_noise"] == pytest.approx(in_noise, abs=1e-4)
    assert numbers["unprocessed/si_sdr_db"] == pytest.approx(5, abs=0.5)


def test_settings_of_the_aid_are_compared_with_every_other_device(finished):
    out, about = finished
    rows, _ = judged.read(out)
    table = judged.less(judged.with_a_loss(rows), about, "masks_nr_on")
    assert table.title == "Masks, noise reduction on, less"
    # HASPI is too short here.
    assert set(table.header[1:]) == {
        "fidelity in quiet", "fidelity in noise", "clarity in noise", "si_sdr_db",
    }  # fmt: skip
    assert "haspi" in about["missing"]
    assert len(table.rows) == len(about["devices"]) - 2
    # Two excerpts of one voice are one, and one listener with a loss is no group.
    cells = [cell for row in table.rows for cell in row[1:]]
    assert {(cell.listeners, cell.sounds, cell.verdict) for cell in cells} == {
        (1, 1, "cannot be told")
    }


def test_nal_r_is_as_loud_as_the_aid_by_training_sounds(config):
    task = judge.ready(config)
    listener = task.listeners[0]
    devices, gains_db = judge.equipped(config, task, listener)
    match_db = gains_db["nal_r_matched"]
    levels = {
        name: level(devices[name].process(task.training)).mean().item()
        for name in ("nal_r", "nal_r_matched", "masks_nr_off")
    }
    assert levels["nal_r_matched"] == pytest.approx(levels["masks_nr_off"], abs=1e-3)
    assert levels["nal_r_matched"] - levels["nal_r"] == pytest.approx(match_db, abs=1e-3)
    assert all(came_from(excerpt, "train") for excerpt in task.training)


def came_from(excerpt: torch.Tensor, split: str) -> bool:
    """Whether a sound of the split has it in it, but for some of its level."""
    voices = [sound.pressure for sound in sounds() if sound.split == split]
    inside = max((voice.unfold(0, len(excerpt), 1) @ excerpt).max().item() for voice in voices)
    return inside == pytest.approx(excerpt.square().sum().item(), rel=0.2)


def test_test_sounds_are_judged_by_the_animal_and_its_healthy_twin_and_by_the_model(config):
    task = judge.ready(config)
    assert all(came_from(excerpt, "test") for excerpt in (*task.quiet.clean, *task.noise.clean))
    listener = task.listeners[0]
    half = {"half": Device("half", lambda x: x / 2, 0.0)}
    rows = pd.concat(judge.measured(task, listener, half, [])[0])
    animal, model = listener.animal, task.model

    def of_normal_animals(sound):
        each = [expected_counts(model.respond(sound, theta[None])) for theta in task.normal]
        return torch.stack(each).mean(0)

    def of_listener(sound):
        return expected_counts(model.respond(sound, listener.theta[None]))

    ears = {
        "truth": (animal.expected_counts, animal.healthy().expected_counts),
        "model": (of_listener, of_normal_animals),
    }
    sounds_of = {
        "fidelity_quiet": (task.quiet.noisy, task.quiet.noisy),
        "fidelity_noise": (task.noise.noisy, task.noise.noisy),
        "clarity_noise": (task.noise.noisy, task.noise.clean),
    }
    for judge_name, (impaired, normal) in ears.items():
        for measure, (before, meant) in sounds_of.items():
            with torch.no_grad():
                wanted, aided, unaided = normal(meant), impaired(before / 2), impaired(before)
            own = where(rows, judge=judge_name, **judged.MEASURES[measure])
            for name, response in (("value", aided), ("unaided", unaided)):
                expected = (response - wanted).double().square().sum((1, 2)).tolist()
                assert own[name].tolist() == pytest.approx(expected, rel=1e-4)


def test_one_gain_alone_and_after_nal_r_make_up_for_a_loss_of_level():
    def normal(sound):
        return sound.unfold(-1, 256, 256).square().mean(-1).add(1e-12).pow(0.2)[:, None]

    def impaired(sound):
        return normal(sound * 10 ** (-15 / 20))

    training = calibrate(torch.randn(3, 4096, generator=torch.Generator().manual_seed(0)), 65.0)
    ear = Audiogram((500, 1000, 4000), (20, 20, 20))
    devices, gains_db = louder(ear, impaired, normal, training)
    assert gains_db["flat_model"] == pytest.approx(15, abs=0.3)
    assert gains_db["nal_r_best_model"] < 14
    for device in devices.values():
        added_db = level(device.process(training)) - level(training)
        assert added_db.mean().item() == pytest.approx(15, abs=0.7)


def test_devices_do_what_they_are_called(config):
    pytest.importorskip("clarity.enhancer.nalr", reason="pyclarity is not installed")
    task = judge.ready(config)
    listener = task.listeners[0]
    devices, _ = judge.equipped(config, task, listener)
    noisy = task.noise.noisy
    who = listener.condition.expand(len(noisy), -1)
    with torch.no_grad():
        for name, exponent in (("masks_nr_off", 0.0), ("masks_nr_on", 1.0)):
            expected = task.aid.process(noisy, who, exponent, 1.0)
            torch.testing.assert_close(devices[name].process(noisy), expected)
    expected = nal_r(wiener(noisy), listener.ear)
    torch.testing.assert_close(devices["wiener_nal_r"].process(noisy), expected)


def test_real_recordings_are_judged_by_the_model_alone_and_that_is_said_first(
    config, cohorts, capsys, monkeypatch
):
    config = dataclasses.replace(config, cohort=cohorts["real"])
    first = []
    work = judge.measured
    monkeypatch.setattr(
        judge, "measured", lambda *all: first.append(capsys.readouterr().out) or work(*all)
    )
    about = judge.judge(config)
    assert "without true midbrains: new, sound: real recordings" in first[0]
    assert about["judges"] == ["model"]
    rows, _ = judged.read(Path(config.out))
    assert set(rows.judge) == {"model", ""}
    assert "si_sdr_db" in set(rows.measure)
    assert not judged.gaps(rows, about).rows
    text = (Path(config.out) / "scores.md").read_text()
    assert "by the model's own opinion" in text
    assert "Without true midbrains: new, sound: real recordings" in text
    assert not (Path(config.out) / "restoration-truth.png").exists()


def test_without_thresholds_nothing_is_prescribed_and_noise_is_reduced(config, cohorts):
    config = dataclasses.replace(config, cohort=cohorts["unmeasured"], excerpts=1, speech=1)
    about = judge.judge(config)
    assert set(about["devices"]) >= {"unprocessed", "flat_model", "wiener"} | OURS
    assert not [name for name in about["devices"] if "nal_r" in name]
    assert about["listeners"]["new"]["audiogram"] is None
    rows, _ = judged.read(Path(config.out))
    assert set(where(rows, judge="").measure) == {"si_sdr_db", "added_db"}
    assert any("NAL-R" in what for what in about["left_out"])


def test_quiet_alone(config):
    about = judge.judge(dataclasses.replace(config, speech=0, excerpts=1))
    rows, _ = judged.read(Path(config.out))
    assert set(judged.estimates(rows, about)["truth"]) == {"fidelity_quiet"}
    assert set(rows.measure) == {"fidelity", "added_db"}
    assert about["left_out"]["noise"] == "--speech 0"


def test_a_device_of_the_models_choice_is_the_best_of_its_kind_for_training_sounds(config):
    task = judge.ready(config)
    listener = task.listeners[0]
    devices, gains_db = judge.equipped(config, task, listener)
    impaired, normal = judge.in_the_model(task, listener)

    def left(sound):
        return discrepancy(impaired(sound), normal(task.training)).sum().item()

    assert len(task.training) <= judge.CHOSEN_ON

    with torch.no_grad():
        for name, other in (("flat_model", "unprocessed"), ("nal_r_best_model", "nal_r")):
            best = left(devices[name].process(task.training))
            plain = devices[other].process(task.training)
            assert best == pytest.approx(left(plain * 10 ** (gains_db[name] / 20)))
            assert best <= left(plain)


# --- refused before any work --------------------------------------------------------------------


@pytest.fixture
def _no_work(monkeypatch):
    for name in ("measured", "equipped", "processes"):
        monkeypatch.setattr(judge, name, lambda *args: pytest.fail("work was done"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("scores", ("estoi", "haspy")),
        ("noise_reductions", ("winer",)),
        ("excerpts", 0),
        ("speech", -1),
        ("level_db_spl", 300.0),
        ("snr_db", float("nan")),
        ("workers", 0),
    ],
)
def test_values_that_mean_nothing_are_refused(config, option, value):
    with pytest.raises(ValueError, match=option):
        dataclasses.replace(config, **{option: value})


def fit(laboratory, folder, content):
    """A folder of one good fit and one that is not."""
    shutil.copytree(laboratory / "fits", folder)
    (folder / "other.json").write_text(json.dumps(content))
    return {"fits": str(folder)}


def aid(path, numbers, facts):
    """An aid that takes so many numbers, and what it says of itself."""
    save_network(path, Masks(MasksConfig(listener=numbers, bands=4, width=4, layers=1)), **facts)
    return {"aid": str(path)}


def model(path, **facts) -> str:
    """An untrained model, and what it says of itself."""
    encoder = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=20.0)
    network = ResponseModel(beta_icnet(2, CHANNELS, 3, encoder, fusion_size=4))
    save_network(path, network, **facts)
    return str(path)


OF_MODEL = {"animals": ["normal", "mild"], "normal": ["normal"], "slots": CHANNELS}
OF_MODEL |= {"matching": [list(range(CHANNELS))] * 2}
OF_OTHERS = {"listener": "theta", "noise_reduction": True, "model": "0123456789abcdef"}

CASES = {
    "foreign JSON": (lambda lab, to: fit(lab, to, {"name": "x"}), "no θ in it"),
    "a list": (lambda lab, to: fit(lab, to, [1, 2]), "no θ in it"),
    "a θ of another model": (
        lambda lab, to: fit(lab, to, {"theta": [0.1] * 3, "model": "0123"}),
        "fitted to another model",
    ),
    "an animal of another cohort": (
        lambda lab, to: fit(lab, to, {"animal": "rex", "theta": [0.1] * 3}),
        "rex",
    ),
    "two fits of one": (
        lambda lab, to: fit(lab, to, {"animal": "new", "theta": [0.1] * 3}),
        "two fits of new",
    ),
    "a θ of other length": (
        lambda lab, to: fit(lab, to, {"animal": "normal", "theta": [0.1] * 5}),
        "θ has 5 numbers",
    ),
    "no fits": (lambda lab, to: {"fits": str(to)}, "no fitted listener"),
    "an aid without facts": (lambda lab, to: aid(to, 3, {}), "does not say its listener"),
    "an aid of another model": (lambda lab, to: aid(to, 3, OF_OTHERS), "through another model"),
    "a model in place of the aid": (
        lambda lab, to: {"aid": str(lab / "model.safetensors")},
        "holds a ResponseModel",
    ),
    "a model without facts": (
        lambda lab, to: {"model": model(to)},
        "does not say its animals, normal, matching, slots",
    ),
    "an aid in place of the model": (
        lambda lab, to: {"model": str(lab / "aid.safetensors")},
        "holds a Masks",
    ),
    "sounds that are too short": (lambda lab, to: {"excerpt_s": 60.0}, "has 60 s"),
    "excerpts that are too short": (lambda lab, to: {"excerpt_s": 0.001}, "excerpt_s"),
    "a file in place of the folder": (
        lambda lab, to: {"out": str(lab / "aid.safetensors")},
        "is a file",
    ),
}


@pytest.mark.usefixtures("_no_work")
@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused_before_any_work(case, config, laboratory, tmp_path):
    change, message = CASES[case]
    changed = dataclasses.replace(config, **change(laboratory, tmp_path / "other"))
    with pytest.raises(ValueError, match=message):
        judge.judge(changed)
    assert not (tmp_path / "judged").exists()


@pytest.mark.usefixtures("_no_work")
def test_an_aid_that_takes_audiograms_needs_thresholds(config, cohorts, tmp_path):
    numbers = len(from_audiogram(Audiogram(FREQUENCIES, (0, 0, 0))))
    facts = OF_OTHERS | {"listener": "audiogram", "audiogram_hz": list(AUDIOGRAM_HZ)}
    changed = dataclasses.replace(config, **aid(tmp_path / "aid", numbers, facts))
    assert judge.ready(changed).listeners[0].condition.shape == (numbers,)
    with pytest.raises(ValueError, match="thresholds"):
        judge.judge(dataclasses.replace(changed, cohort=cohorts["unmeasured"]))
