"""The whole chain at the smallest size, and what interruptions and bad input do to it."""

import contextlib
import dataclasses
import json
import runpy
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from compensation.listener import AUDIOGRAM_HZ, theta_like
from compensation.load import load_aid
from compensation.masks import Masks, MasksConfig
from evaluation.tidy import read, where
from icsim.clock import Clock
from icsim.models.conditions import BranchesConfig, ThresholdsConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.facts import cohort_facts, require_thresholds
from icsim.models.load import load_model, load_theta_model
from icsim.seeds import seeded
from icsim.simulation import cohort as simulated_cohort
from icsim.store import Cohort
from icsim.theta import Listeners, movement
from icsim.threshold_shifts import audiogram_of, audiograms_of
from icsim.weights import load_network, load_tensors, save_network
from recipes import (
    cross_validate_ic,
    demo,
    fit_theta,
    make_cohort,
    score_ic,
    train_compensation,
    train_ic,
)
from recipes.benchmarks import ic_tasks as tasks
from recipes.benchmarks import listener_tasks
from recipes.benchmarks import speed as benchmark_speed
from recipes.reports import demo as demo_report
from recipes.reports.ic_listeners import TRUTHS
from recipes.running import stages
from tests.faults import campaign


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A demo of size tiny, run once: its folder and its summary."""
    out = tmp_path_factory.mktemp("demo")
    return out, demo.demo(demo.Config(str(out), size="tiny"))


def configured(finished, recipe, folder, out):
    """The configuration that the demo used for a recipe, with another folder to write to."""
    config = demo._configured(recipe, demo.Config(str(finished[0]), size="tiny"), folder)
    known = {
        "cohort": str(finished[0] / "cohort" / "cohort.zarr"),
        "model": str(finished[0] / "ic" / "model.safetensors"),
    }
    if recipe is train_ic:
        known["begin_from"] = str(finished[0] / "icnet" / "model.safetensors")
    fields = {field.name for field in dataclasses.fields(config)}
    changes = {name: path for name, path in known.items() if name in fields}
    return dataclasses.replace(config, out=str(out), **changes)


def test_demo_reports_every_figure(finished):
    out, summary = finished
    assert json.loads((out / "summary.json").read_text()) == summary
    assert set(summary["feve"]) == {"seen_nh", "seen_hi", "unseen"}
    assert set(summary["restoration"]) == {"truth", "model"}
    for measure in ("fidelity_quiet", "fidelity_noise", "clarity_noise"):
        by_device = summary["restoration"]["truth"][measure]
        assert set(by_device) == {
            *(
                "unprocessed",
                "flat_model",
                "nal_r",
                "nal_r_matched",
                "nal_r_best_model",
                "wiener_nal_r",
            ),
            *("masks_nr_off", "masks_nr_on"),
        }
        assert by_device["unprocessed"] == 0
    assert summary["animals"] == 5
    assert summary["sounds_s"] == pytest.approx(48, rel=0.05)
    assert summary["fit"]["loss_ratio"] < 1.05
    assert (out / "report.html").stat().st_size > 100_000
    tables = (out / "results.md").read_text()
    assert "| NAL-R at the aid's level |" in tables
    assert tables.count("cannot be told") >= 10


def test_the_report_says_what_was_recorded_where_it_was_made_and_what_holds(finished):
    page = " ".join((finished[0] / "report.html").read_text().split())
    assert "5 gerbils were simulated, each with 16 recording channels" in page
    assert "one of 32 places of a template" in page
    done = stages.finished(finished[0])
    assert f"UTC at {done['aid']['commit']} on {done['aid']['machine']}" in page
    assert "prefers-color-scheme: dark" in page
    judged = page.count('<p class="verdict')
    assert judged == page.count("Good: ") >= 12, "what would be good is always judged"
    # One new animal and few sounds: what compares devices or animals cannot be said.
    assert "– Cannot be said. Good: for every listener our aid" in page.replace("</b>", "")
    assert "✓ Holds." in page


def test_finished_demo_is_not_run_again_and_ends_with_the_path_of_its_report(
    finished, monkeypatch, capsys
):
    out, summary = finished
    monkeypatch.setattr(train_ic, "train", lambda config: pytest.fail("trained again"))
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(out), "--size", "tiny"])
    monkeypatch.delitem(sys.modules, "recipes.demo")
    runpy.run_module("recipes.demo", run_name="__main__")
    again = json.loads((out / "summary.json").read_text())
    assert again["feve"] == summary["feve"]
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")


class Killed(BaseException):
    """What a test throws in the middle of a run."""


def interrupt(monkeypatch, module, name, call):
    """Let a function of a module fail at its n-th call, once."""
    original, calls = getattr(module, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, failing)


@pytest.mark.parametrize(("call", "save_every_s"), [(2, 0.0), (2, 1e9), (8, 0.0)])
def test_interrupted_training_of_the_model_ends_as_an_uninterrupted_one(
    finished, tmp_path, monkeypatch, call, save_every_s
):
    config = configured(finished, train_ic, "ic", tmp_path / "ic")
    config = dataclasses.replace(config, save_every_s=save_every_s)
    interrupt(monkeypatch, train_ic, "training_losses", call)
    with pytest.raises(Killed):
        train_ic.train(config)
    train_ic.train(config)
    whole, parts = finished[0] / "ic", tmp_path / "ic"
    for name in ("model.safetensors", "state.safetensors"):
        (expected, said), (found, again) = (load_tensors(path / name) for path in (whole, parts))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        # Where listeners began is known to a run that did not begin there.
        assert again == said


def test_interrupted_training_of_the_aid_ends_as_an_uninterrupted_one(
    finished, tmp_path, monkeypatch
):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    config = dataclasses.replace(config, save_every_s=0.0)
    interrupt(monkeypatch, train_compensation, "training_terms", 3)
    with pytest.raises(Killed):
        train_compensation.train(config)
    train_compensation.train(config)
    expected = load_tensors(finished[0] / "aid" / "aid.safetensors")[0]
    found = load_tensors(tmp_path / "aid" / "aid.safetensors")[0]
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def until_it_stops_gaining(finished, out, **changes):
    """The demo's aid trained on, so slowly that nothing is gained."""
    config = configured(finished, train_compensation, "aid", out)
    aid = str(finished[0] / "aid" / "aid.safetensors")
    plateau = train_compensation.Plateau(every=2, patience=1, drops=1, excerpts=3)
    slow = {"steps": 9, "plateau": plateau, "learning_rate": 1e-9, "muon_rate": None}
    return dataclasses.replace(config, begin_from=aid, **slow | changes)


def test_training_ends_at_a_plateau_and_keeps_the_best(finished, tmp_path, monkeypatch):
    asked, pressure = set(), Cohort.pressure
    monkeypatch.setattr(
        Cohort, "pressure", lambda self, i: asked.add(self.sounds[i].split) or pressure(self, i)
    )
    config = until_it_stops_gaining(finished, tmp_path / "aid")
    aid, facts = load_network(train_compensation.train(config), Masks)
    assert (facts["steps"], facts["stopped_gaining"]) == (4, True)
    assert asked == {"train", "validation"}
    worse = until_it_stops_gaining(finished, tmp_path / "worse", learning_rate=1.0)
    aid, facts = load_network(train_compensation.train(worse), Masks)
    assert facts["best_step"] == 0
    start, _ = load_network(config.begin_from, Masks)
    assert all(map(torch.equal, aid.state_dict().values(), start.state_dict().values()))
    # What has stopped is not trained on.
    monkeypatch.setattr(train_compensation, "training_terms", None)
    train_compensation.train(config)


def test_training_to_a_plateau_goes_on_where_it_was_interrupted(finished, tmp_path, monkeypatch):
    changes = {"learning_rate": 1e-2, "steps": 4}
    aids = []
    for name, call, save_every_s in (("whole", 99, 1e9), ("parts", 4, 0.0)):
        config = until_it_stops_gaining(
            finished, tmp_path / name, save_every_s=save_every_s, **changes
        )
        interrupt(monkeypatch, train_compensation, "training_terms", call)
        with contextlib.suppress(Killed):
            train_compensation.train(config)
        monkeypatch.undo()
        aids.append(load_tensors(train_compensation.train(config)))
    (whole, facts), (parts, again) = aids
    assert facts == again
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_rates_fall_at_plateaus_and_else_along_a_cosine():
    config = train_compensation.Config("cohort", "model", "out", steps=100)
    rates = [train_compensation.rate_decay(config, step) for step in (0, 19, 50, 99)]
    assert rates == pytest.approx([0.05, 0.914, 0.5, 0.000247], rel=1e-2)
    plateau = train_compensation.Plateau(every=10, patience=2, drops=1)
    until = dataclasses.replace(config, plateau=plateau)
    for errors, rate, last in (
        ([0.9, 0.8, 0.7], 1.0, False),
        ([0.9, 0.9, 0.8995, 0.7], 0.25, False),
        ([0.9, 0.9, 0.9, 0.9, 0.9], 0.0625, True),
    ):
        assert train_compensation.rate_decay(until, 50, errors) == rate
        assert train_compensation.stopped(until, {"validation": errors}) == last


def test_interrupted_simulation_ends_as_an_uninterrupted_one(finished, tmp_path, monkeypatch):
    config = configured(finished, make_cohort, "cohort", tmp_path / "cohort")
    sounds = make_cohort.gather_sounds(config)
    monkeypatch.setattr(make_cohort, "gather_sounds", lambda config: sounds)
    for module_call in (("filter_sound", 5), ("abr_thresholds", 3)):
        interrupt(monkeypatch, simulated_cohort, *module_call)
        with pytest.raises(Killed):
            make_cohort.make_cohort(config)
    found = Cohort.open(make_cohort.make_cohort(config))
    expected = Cohort.open(finished[0] / "cohort" / "cohort.zarr")
    assert found.animals() == expected.animals()
    for name in found.animals():
        one, other = found.animal(name), expected.animal(name)
        assert torch.equal(one.thresholds_db_spl, other.thresholds_db_spl)
        assert torch.equal(one.counts(3), other.counts(3))


def test_a_run_says_how_far_its_listeners_have_moved(finished):
    model, facts = load_model(finished[0] / "ic" / "model.safetensors")
    history = load_tensors(finished[0] / "ic" / "state.safetensors")[1]["history"]
    config = model.config.condition
    sizes = config.animals, config.parameters, config.shared_drift, config.seed, config.spread
    begun = Listeners(*sizes)
    start = {name: value.tolist() for name, value in begun.state_dict().items()}
    assert facts.to_json()["start"] == start
    moved = [record["movement"]["mean_moved"] for record in history]
    assert 0 < moved[0] < moved[-1]
    kept = min(history, key=lambda record: record["validation"])
    assert kept["movement"] == movement(model.listeners, begun.state_dict())


def steady(tensors):
    """Names of weights that rounding does not move.

    While listeners are nearly alike, gradients of what they modulate have one direction; Muon makes
    the others, which are rounding, as long.
    """
    return [n for n in tensors if not n.startswith("optimiser/") and "modulations" not in n]


@pytest.mark.parametrize(("recipe", "folder"), [(train_ic, "ic"), (train_compensation, "aid")])
def test_a_batch_in_parts_trains_what_the_whole_trains(finished, tmp_path, recipe, folder):
    config = configured(finished, recipe, folder, tmp_path)
    recipe.train(dataclasses.replace(config, micro_batch=config.batch // 2 + 1))
    (whole, made), (parts, remade) = (
        load_tensors(path / "state.safetensors") for path in (finished[0] / folder, tmp_path)
    )
    for one, other in zip(made["history"], remade["history"], strict=True):
        moved = other.pop("movement", {}), one.pop("movement", {})
        assert moved[0] == pytest.approx(moved[1], abs=1e-3)
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6)
    for name in steady(whole):
        assert (parts[name] - whole[name]).norm() <= 0.02 * whole[name].norm() + 1e-3, name


def test_scores_in_half_the_digits_are_hardly_other_scores(finished):
    made = (str(finished[0] / part) for part in ("cohort/cohort.zarr", "ic/model.safetensors"))
    config = score_ic.Config(*made)
    precise = score_ic.score_ic(config)
    coarse = score_ic.score_ic(dataclasses.replace(config, precision="bf16"))
    assert coarse.keys() == precise.keys()
    assert coarse != precise
    for name, score in precise.items():
        assert coarse[name]["kl"] == pytest.approx(score["kl"], abs=0.01)
        assert coarse[name]["feve"] == pytest.approx(score["feve"], abs=0.02)


def test_two_processes_train_in_parts_what_one_trains(finished, tmp_path):
    found = benchmark_speed.two_processes(finished[0], tmp_path, micro_batch=1)
    assert found.keys() == {"train_ic", "train_compensation"}
    assert all(difference < 1e-3 for difference in found.values()), found
    for recipe, folder in (("train_ic", "ic"), ("train_compensation", "aid")):
        one, two = (
            load_tensors(path / "state.safetensors")[0]
            for path in (finished[0] / folder, tmp_path / recipe)
        )
        for name in steady(one):
            assert (two[name] - one[name]).norm() <= 0.02 * one[name].norm() + 1e-3, name


def test_a_loss_that_is_not_a_number_stops_training_and_keeps_the_state(
    finished, tmp_path, monkeypatch
):
    config = configured(finished, train_ic, "ic", tmp_path / "ic")
    monkeypatch.setattr(
        train_ic, "training_losses", lambda *args: {"cross_entropy": torch.tensor(torch.nan)}
    )
    with pytest.raises(FloatingPointError, match="the loss is no longer finite at step 0"):
        train_ic.train(config)


def test_an_aid_that_diverges_stops_before_anything_hears_it(finished, tmp_path):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    config = dataclasses.replace(config, learning_rate=1e30, steps=10)
    with pytest.raises(FloatingPointError, match="the aid's output is no longer finite"):
        train_compensation.train(config)
    assert not (tmp_path / "aid" / "aid.safetensors").exists()


def test_an_aid_says_at_which_frequencies_it_reads_audiograms(finished, tmp_path):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    aid = train_compensation.train(dataclasses.replace(config, listener="audiogram", steps=1))
    network, facts = load_aid(aid)
    assert facts.audiogram_hz == AUDIOGRAM_HZ
    assert network.config.listener == len(AUDIOGRAM_HZ)


def test_an_aid_is_told_what_its_listeners_are(finished, tmp_path):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    cohort = Cohort.open(config.cohort)
    for changes, numbers, judges in (
        ({}, 3, "ResponseModel"),
        ({"listener": "audiogram"}, 12, "ResponseModel"),
        ({"listener": "audiogram", "through": "auditory"}, 12, "AuditoryModel"),
        ({"more_models": [config.model]}, 3, "ResponseModel"),
    ):
        changed = dataclasses.replace(config, **changes)
        listeners = train_compensation.open_listeners(changed, cohort)
        assert (listeners.thresholds_db_hl is not None) == (numbers == 12)
        assert listeners.known.shape == (4, numbers)
        assert listeners.healthy.shape == (2, 3)
        assert {type(one.loss.model).__name__ for one in listeners.models} == {judges}
        _, known, drawn = train_compensation.draw(changed, listeners, seeded(0, 1))
        assert known.shape == (config.batch, numbers)
        assert len(drawn) == len(listeners.models)
        if numbers == 3:
            # Both models are asked about the same mixture of animals.
            torch.testing.assert_close(known, drawn[0][0])
            assert (drawn[0][0] - drawn[-1][0]).abs().mean() < 0.2


def test_an_aid_may_be_for_one_listener_alone_and_begin_from_another(finished, tmp_path):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    fit = finished[0] / "fits" / "new.json"
    begun = dataclasses.replace(
        config, only=str(fit), begin_from=str(finished[0] / "aid" / "aid.safetensors"), steps=1
    )
    for through in ("model", "animal"):
        changed = dataclasses.replace(begun, through=through, out=str(tmp_path / through))
        listeners = train_compensation.open_listeners(changed, Cohort.open(config.cohort))
        theta = json.loads(fit.read_text())["theta"]
        assert listeners.known[0].tolist() == pytest.approx(theta)
        _, known, _ = train_compensation.draw(changed, listeners, seeded(0, 1))
        assert known[1].tolist() == pytest.approx(theta)
        aid, facts = load_network(train_compensation.train(changed), Masks)
        assert aid.config.listener == 3
        assert facts["listener"] == "theta"
        assert facts["model"] == json.loads(fit.read_text())["model"]


def test_an_aid_may_be_trained_to_be_understood(finished, tmp_path):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    weights = train_compensation.Weights(intelligibility=1.0)
    config = dataclasses.replace(config, weights=weights, excerpt_s=1.1, steps=2)
    train_compensation.train(config)
    _, progress = load_tensors(tmp_path / "aid" / "state.safetensors")
    for record in progress["history"]:
        assert 0 < record["intelligibility"] <= 1


def test_what_an_aid_cannot_be_trained_with_is_refused_before_anything_is_written(
    finished, tmp_path
):
    config = configured(finished, train_compensation, "aid", tmp_path / "aid")
    fit = json.loads((finished[0] / "fits" / "new.json").read_text())
    strange, broken = tmp_path / "strange.json", tmp_path / "broken.json"
    strange.write_text(json.dumps(fit | {"model": "another"}))
    broken.write_text('{"theta": [0.5')
    homeless = tmp_path / "homeless.json"
    homeless.write_text(json.dumps({k: v for k, v in fit.items() if k != "model"}))
    path, aid = (str(finished[0] / n) for n in ("fits/new.json", "aid/aid.safetensors"))
    for changes, message in (
        ({"only": str(strange)}, "fitted to another model"),
        ({"only": str(broken)}, "no θ in it"),
        ({"only": str(homeless)}, "does not say to which model"),
        ({"through": "animal"}, "needs the fit of that animal"),
        ({"only": path, "more_models": [config.model]}, "no fit to the others"),
        ({"begin_from": config.model}, "holds a ResponseModel, not a Masks"),
        ({"masks": MasksConfig(bands=5), "begin_from": aid},
         "other sizes"),
        ({"weights": train_compensation.Weights(intelligibility=1.0)}, "too short for HASPI"),
        ({"plateau": train_compensation.Plateau(), "sounds": str(finished[0])},
         "no validation split"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            train_compensation.train(dataclasses.replace(config, **changes))
    assert not (tmp_path / "aid").exists()


def test_a_model_knows_the_audiograms_of_its_animals(finished):
    cohort = Cohort.open(finished[0] / "cohort" / "cohort.zarr")
    model, facts = load_model(finished[0] / "ic" / "model.safetensors")
    found = audiograms_of(facts)
    assert found == [audiogram_of(cohort, name) for name in facts.animals]
    assert audiograms_of(dataclasses.replace(facts, abr_frequencies_hz=None)) is None
    theta = model.listeners.at().detach()
    severe = facts.animals.index("severe")
    guess = theta_like(found[severe], found, theta)
    assert (guess - theta[severe]).abs().max() < (guess - theta).abs().amax(1).max() / 4


def test_a_checkpoint_of_another_architecture_is_refused_by_name(finished):
    with pytest.raises(ValueError, match="holds a Masks, not a response model"):
        load_model(finished[0] / "aid" / "aid.safetensors")
    with pytest.raises(ValueError, match="its condition is 'branches'"):
        load_theta_model(finished[0] / "icnet" / "model.safetensors")


def test_a_state_of_another_network_is_refused(finished, tmp_path):
    config = configured(finished, train_ic, "ic", tmp_path / "ic")
    out = tmp_path / "ic"
    out.mkdir()
    model, _ = load_model(finished[0] / "ic" / "model.safetensors")
    save_network(out / "state.safetensors", model)
    with pytest.raises(ValueError, match="another architecture"):
        train_ic.train(config)


def test_an_animal_that_is_not_there_is_named(finished, tmp_path):
    config = configured(finished, fit_theta, "fits", tmp_path / "fits")
    with pytest.raises(ValueError, match="nobody"):
        fit_theta.fit_theta(dataclasses.replace(config, animal="nobody"))


def test_an_empty_folder_of_sounds_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "sounds").mkdir()
    config = demo.Config(str(tmp_path / "demo"), sounds=str(tmp_path / "sounds"), size="tiny")
    with pytest.raises(ValueError, match=r"no .* file in it"):
        demo.demo(config)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("condition", [ThresholdsConfig(), BranchesConfig()])
def test_models_of_other_conditions_are_trained_and_scored(finished, tmp_path, condition):
    config = configured(finished, train_ic, "ic", tmp_path / condition.kind)
    gains = condition.kind == "thresholds"  # a branch's channels are an animal's own
    changes = {"condition": condition, "begin_from": None, "channel_gains": gains}
    config = dataclasses.replace(config, **changes)
    model = train_ic.train(config)
    scores = score_ic.score_ic(score_ic.Config(config.cohort, str(model)))
    seen = {name for name, score in scores.items() if score["role"] == "seen"}
    assert seen == set(Cohort.open(config.cohort).animals("seen"))
    assert ("new" in scores) == (condition.kind == "thresholds")  # thresholds are known of anyone
    assert all(score["feve"] <= 1 for score in scores.values())


def test_thresholds_that_are_missing_are_named(finished, tmp_path):
    cohort = Cohort.open(finished[0] / "cohort" / "cohort.zarr")
    cohort.animal("mild").thresholds_db_spl = None
    with pytest.raises(ValueError, match="needs thresholds, which mild lacks"):
        require_thresholds(cohort, ["mild", "severe"])
    assert cohort_facts(cohort, ["mild", "severe"]).thresholds_db_spl is None
    cohort.animal("severe").abr_frequencies_hz = (1e3,)
    with pytest.raises(ValueError, match="at the same frequencies"):
        require_thresholds(cohort, ["normal-1", "severe"])
    assert cohort_facts(cohort, ["normal-1", "severe"]).thresholds_db_spl is None


def test_animals_that_are_not_aligned_together_are_named(finished):
    cohort = Cohort.open(finished[0] / "cohort" / "cohort.zarr")
    with pytest.raises(ValueError, match="not aligned as 'other': mild, severe"):
        cohort_facts(cohort, ["mild", "severe"], "other")
    del cohort.animal("mild")._alignments["default"]
    with pytest.raises(ValueError, match="not aligned as 'default': mild; run"):
        cohort_facts(cohort, ["mild", "severe"])


def test_a_report_refuses_a_fit_of_another_model(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "demo")
    path = tmp_path / "demo" / "fits" / "new.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "another"}))
    with pytest.raises(ValueError, match=r"new.json: was fitted to another model \(another\)"):
        demo_report.read(tmp_path / "demo")


def test_the_benchmark_measures_truth_networks_listeners_and_searches(
    finished, tmp_path, monkeypatch
):
    ic = str(finished[0] / "ic" / "model.safetensors")
    path = str(finished[0] / "cohort" / "cohort.zarr")
    cohort, out = Cohort.open(path), str(tmp_path / "rows.csv")
    tasks.truth(tasks.Truth(path, {"template": "default"}, out))
    rows = read(out)
    assert set(where(rows, measure="truth").sound) == set(TRUTHS)
    outer = where(rows, measure="truth", sound="outer").set_index("listener").value
    assert outer["severe"] > outer["mild"] > outer["normal-1"] == 0
    assert (where(rows, measure="octaves_after").value >= 0).all()

    tasks.score(tasks.Score(path, ic, "beta-6", out, 2.0))
    rows = read(out)
    tested = {sound.name for sound in cohort.sounds if sound.split == "test"}
    assert set(where(rows, measure="feve").sound) <= tested
    assert set(rows[rows.role == "unseen"].measure) == set(), "θ of a stranger is not known"
    scores = score_ic.score_ic(score_ic.Config(path, ic))
    assert set(rows[rows.measure == "feve"].listener) == set(scores)
    for name, score in scores.items():
        median = where(rows, measure="feve", listener=name).value.median()
        assert median == pytest.approx(score["feve"], abs=0.05)

    ways = (tasks.ALONE, tasks.STEADY, tasks.MEAN, tasks.MATCHED, tasks.BEST)
    job = tasks.NewListeners(path, ic, "beta-6", "default", str(tmp_path), 2.0, ways)
    tasks.new_listeners(job)
    rows = read(tmp_path / "new.csv")
    assert list(dict.fromkeys(rows.way)) == [tasks.FITTED, *ways]
    theta = where(rows, measure="theta")
    assert set(theta.way) == {tasks.FITTED, *ways} - {tasks.MEAN}
    assert (theta.groupby("way").size() == 3).all()
    assert theta.value.between(0, 1).all()
    fits = where(rows, measure="fit").pivot(index="way", columns="sound", values="value")
    assert (fits.octaves >= 0).all()
    assert fits.cost[tasks.MATCHED] <= fits.cost[tasks.FITTED] + 1e-3

    quick = tasks._ways
    monkeypatch.setattr(
        tasks, "_ways", lambda *of: {n: w for n, w in quick(*of).items() if "descent" in n}
    )
    tasks.searches(tasks.Searches(path, ic, "beta-6", "new", out, 2.0, 8))
    rows = where(read(out), measure="search").pivot(index="way", columns="sound", values="value")
    assert rows.loc["", "target"] <= rows.loc["", "middle"]
    needed = rows.drop("")
    assert (needed.evaluations <= needed.strict_evaluations).all()
    assert (needed.most >= 30).all()

    tasks.example(tasks.Example(path, "mild", {"6 parameters": ic}, str(tmp_path / "one")))
    images = load_file(tmp_path / "one")
    assert set(images) == {"one recorded trial", "true expectation", "6 parameters", "cf_hz"}
    assert images["6 parameters"].shape == images["true expectation"].shape


def test_the_benchmark_asks_what_theta_knows(finished, tmp_path):
    ic = str(finished[0] / "ic" / "model.safetensors")
    path = str(finished[0] / "cohort" / "cohort.zarr")
    scores, out = str(tmp_path / "scores.csv"), str(tmp_path / "rows.csv")
    tasks.score(tasks.Score(path, ic, "beta-6", scores, 2.0))
    tasks.new_listeners(tasks.NewListeners(path, ic, "beta-6", "default", str(tmp_path), 2.0))
    tables = (scores, str(tmp_path / "new.csv"))
    listener_tasks.places(listener_tasks.Places(path, ic, "beta-6", tables, out))
    placed = where(read(out), measure="place")
    assert {"new", "mild", "severe", "normal-1"} <= set(placed.listener)
    assert where(read(out), measure="variance").value.sum() == pytest.approx(1)

    listener_tasks.changes(listener_tasks.Changes(path, ic, "beta-6", 1, out))
    drift = where(read(out), measure="drift").pivot(
        index="listener", columns="sound", values="value"
    )
    assert (drift.true_10 - 1).abs().max() < 1e-5
    assert (drift[["true_0", "learned_0"]] == 0).all(axis=None)
    # Losses of outer hair cells grow evenly after the first hour; at the end they saturate.
    assert drift.rate_true.between(0.08, 0.16).all()
    assert drift.onset_true.between(0, 1.3).all()

    job = listener_tasks.Precision(path, ic, "beta-6", "new", out, (1.0, 4.0))
    listener_tasks.precision(job)
    rows = read(out)
    assert set(where(rows, measure="feve_by_seconds").sound) == {"1.0", "4.0"}
    last = where(rows, measure="away_by_seconds", way="evenly", sound="4.0")
    assert last.value.item() == 0
    assert where(rows, measure="calibration").value.item() > 0


CROSS = {
    "blocks": 3,
    "steps": 2,
    "window_bins": 64,
    "encoder": SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=20.0),
}


def test_short_recordings_are_cross_validated(finished, tmp_path):
    cohort = str(finished[0] / "cohort" / "cohort.zarr")
    config = cross_validate_ic.Config(cohort, "mild", str(tmp_path / "crossed"), **CROSS)
    summary = cross_validate_ic.cross_validate(config)
    assert json.loads((tmp_path / "crossed" / "summary.json").read_text()) == summary
    assert [scale["ms"] for scale in summary["scales"]] == [1.3, 10.5, 49.8]
    for scale in summary["scales"]:
        assert len(scale["feve_of_channels"]) == 16
        assert scale["feve"] < 1
    assert (tmp_path / "crossed" / "prediction.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="at least 3 blocks"):
        cross_validate_ic.cross_validate(dataclasses.replace(config, blocks=2))


def test_the_best_of_all_steps_is_kept(monkeypatch):
    config = cross_validate_ic.Config("cohort", "animal", "out", **CROSS | {"steps": 3})
    sound, counts = torch.randn(600 * 32), torch.randint(0, 4, (2, 5, 600), dtype=torch.uint8)
    errors, states, loss = iter([0.9, 0.5, 0.7]), [], cross_validate_ic._loss

    def planted(network, *windows):
        """As if the second step met what is held out best."""
        if torch.is_grad_enabled():
            return loss(network, *windows)
        states.append({name: x.clone() for name, x in network.state_dict().items()})
        return torch.tensor(next(errors))

    monkeypatch.setattr(cross_validate_ic, "_loss", planted)
    train, stop, _ = cross_validate_ic._blocks(600, 0, config)
    network = cross_validate_ic._fit(config, Clock(), sound, counts, train, stop)
    assert all(torch.equal(x, states[1][name]) for name, x in network.state_dict().items())
    assert any(not torch.equal(x, states[2][name]) for name, x in states[1].items())


def test_a_block_is_predicted_without_its_answers():
    config = cross_validate_ic.Config("cohort", "animal", "out", **CROSS)
    sound, counts = torch.randn(600 * 32), torch.randint(0, 4, (2, 5, 600), dtype=torch.uint8)
    tested = []
    for block in range(3):
        train, stop, test = cross_validate_ic._blocks(600, block, config)
        assert sorted(torch.cat([train, stop, test]).tolist()) == list(range(600))
        other = counts.clone()
        other[..., test] = 4
        fits = [
            cross_validate_ic._fit(config, Clock(), sound, c, train, stop) for c in (counts, other)
        ]
        states = [fit.state_dict() for fit in fits]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        other[..., train] = 4
        changed = cross_validate_ic._fit(config, Clock(), sound, other, train, stop).state_dict()
        assert not torch.equal(changed["readout.bias"], states[0]["readout.bias"])
        tested += test.tolist()
    assert sorted(tested) == list(range(600))


COUNTING = """
import pathlib, sys, time
path = pathlib.Path(sys.argv[1], "numbers.csv")
path.parent.mkdir(parents=True, exist_ok=True)
while (done := len(path.read_text()) if path.exists() else 0) < 5:
    time.sleep(0.1)
    path.write_text("12345"[: done + 1])
"""


def test_a_command_is_killed_until_it_is_done_and_compared(tmp_path, monkeypatch):
    def arguments(name, to, out):
        return ["-c", COUNTING, str(to)]

    monkeypatch.setattr(campaign, "arguments", arguments)
    config = campaign.Config(str(tmp_path), kills=3, most_s=0.2)
    found = campaign.killed("counting", config, tmp_path)
    assert found["kills"] >= 3
    assert found["equal"] == found["runs"]
    (tmp_path / "whole" / "counting" / "numbers.csv").write_text("54321")
    assert campaign.killed("counting", config, tmp_path)["equal"] == 0


def test_a_damaged_state_is_named_and_mended_training_goes_on(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "whole" / "demo")
    (case,) = (c for c in campaign.cases(tmp_path) if c.fault == "state cut in half")
    found = campaign.harmed(case)
    assert "damaged" in found["message"]
    assert found["ended"]
    assert found["went_on"]
    assert not found["traceback"]
    assert not found["half_written"]


def test_folders_are_compared_by_what_was_made(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "counts").mkdir(parents=True)
        (folder / "counts" / "c.0.0").write_bytes(b"spikes")
        (folder / "result.json").write_text(json.dumps({"out": str(folder), "seconds": id(folder)}))
        (folder / "log.txt").write_text(folder.name)
    assert campaign.differences(one, other) == []
    (one / "counts" / "c.0.0").write_bytes(b"spike")
    (other / "result.json").write_text(json.dumps({"out": "elsewhere"}))
    (other / ".scores.csv.partial").touch()
    assert campaign.differences(one, other) == [
        ".scores.csv.partial",
        "counts/c.0.0",
        "result.json",
    ]
