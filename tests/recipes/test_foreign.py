"""The way from another laboratory's NWB files to a fitted stranger, at the smallest size."""

import json

import pytest
import torch

from icsim.excerpts import in_quiet
from icsim.models.conditions import BranchesConfig, ThetaConfig
from icsim.models.encoders import SincNetConfig
from icsim.store import Cohort
from recipes import align, fit_theta, import_recording, score_ic, train_ic
from tests.foreign import TINY, write_cohort

ENCODER = SincNetConfig(
    filters=12, kernels=12, size=12, bottleneck=12, input_scale=20.0, sinc_size=30
)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Folder with the NWB files and the cohort made of them."""
    folder = tmp_path_factory.mktemp("foreign")
    write_cohort(folder / "files", TINY)
    config = import_recording.Config("nwb", str(folder / "files"), str(folder / "cohort"))
    import_recording.import_recording(config)
    return folder


@pytest.fixture(scope="module")
def trained(imported):
    """The same with an aligned cohort and a model."""
    cohort = str(imported / "cohort" / "cohort.zarr")
    align.align(align.Config(cohort))
    common = {
        "cohort": cohort,
        "encoder": ENCODER,
        "batch": 4,
        "learning_rate": 3e-3,
        "muon_rate": 0.02,
        "schedule": "cosine",
        "precision": "no",
    }
    branches = BranchesConfig()
    icnet = train_ic.Config(out=str(imported / "icnet"), condition=branches, epochs=3, **common)
    begin_from = str(train_ic.train(icnet))
    config = train_ic.Config(
        out=str(imported / "ic"),
        condition=ThetaConfig(parameters=2),
        begin_from=begin_from,
        epochs=3,
        **common,
    )
    return cohort, str(train_ic.train(config))


def test_animals_of_different_channels_are_imported_as_written(imported):
    cohort = Cohort.open(imported / "cohort" / "cohort.zarr")
    assert cohort.animals("seen") == ["subject00", "subject01", "subject02"]
    assert [cohort.animal(name).channels for name in cohort.animals()] == [11, 14, 13, 12]
    assert {sound.split for sound in cohort.sounds} == {"train", "validation", "test"}
    assert all(40 < sound.level_db_spl < 85 for sound in cohort.sounds)
    assert [cohort.animal(name).status for name in cohort.animals()] == ["NH", "NH", "HI", "HI"]


def test_alignments_say_how_alike_channels_are_for_other_sounds(imported):
    cohort = str(imported / "cohort" / "cohort.zarr")
    report = align.align(align.Config(cohort, name="reported"))
    for name, animal in report.items():
        # The only seen animal that hears normally makes the template, and keeps its own slots.
        assert (animal["held_out_correlation"] > 0.99) == (name == "subject00")


def test_a_smaller_brain_is_permuted_into_the_reference(imported):
    cohort = str(imported / "cohort" / "cohort.zarr")
    align.align(align.Config(cohort, method="permutation", name="permuted"))
    for name, channels in (("subject00", 14), ("subject02", 12), ("stranger03", 11)):
        matching = Cohort.open(cohort).animal(name).alignment("permuted").matching
        slots = matching[matching >= 0]
        assert len(matching) == channels
        assert len(slots.unique()) == len(slots)


def test_a_stranger_is_predicted_once_its_channels_have_gains(trained, tmp_path):
    cohort, model = trained
    scores = {}
    for gains in (False, True):
        out = tmp_path / str(gains)
        config = fit_theta.Config(cohort, model, str(out), channel_gains=gains, first_hours=3.0)
        (fit,) = fit_theta.fit_animals(config)
        assert fit["nats"]["fit"] <= fit["nats"]["mean of the seen animals"] + 1e-4
        assert fit["nats"]["name of the best"].startswith("subject")
        assert json.loads((out / "stranger03.json").read_text()) == fit
        found = score_ic.score_ic(
            score_ic.Config(cohort, model, fits=str(out), out=str(out / "scores"))
        )
        scores[gains] = found["stranger03"]["feve"]
        assert (out / "scores" / "feve.png").stat().st_size > 5000
        rows = (out / "scores" / "scores.csv").read_text().splitlines()
        assert len(rows) == 1 + 4 * 3  # a header, and three test sounds of four animals
    assert scores[True] > scores[False] + 0.2
    assert scores[True] > 0


def test_sounds_of_any_class_are_judged_where_there_are_no_usual_ones(imported):
    cohort = Cohort.open(imported / "cohort" / "cohort.zarr")
    quiet, kinds = in_quiet(cohort, "test", 3, 1.2, 65.0, seed=0)
    assert kinds == ["syllables"] * 3
    # Each in turn: no sound twice while there are others.
    assert len(torch.unique(quiet.clean, dim=0)) == len(quiet.clean) == 3
    with pytest.raises(ValueError, match="no test sound of syllables has 4 s; give shorter"):
        in_quiet(cohort, "test", 3, 4.0, 65.0, seed=0)


def test_a_fit_to_another_model_is_refused_by_scores(trained, tmp_path):
    cohort, model = trained
    fit = {"theta": [0.5, 0.5], "matching": [0] * 11, "model": "another"}
    (tmp_path / "stranger03.json").write_text(json.dumps(fit))
    with pytest.raises(ValueError, match="fitted to another model"):
        score_ic.score_ic(score_ic.Config(cohort, model, fits=str(tmp_path)))
