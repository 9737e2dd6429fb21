"""The benchmark's report, from results made up here: nothing is trained."""

import dataclasses
import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch

from icsim import store
from icsim.recording import ALIGNMENT, Recording
from icsim.simulation.hearing import FREQUENCIES_HZ
from icsim.sound import BIN_SAMPLES, Sound
from icsim.store import Cohort
from recipes import benchmark_ic
from recipes.benchmark_ic import report
from recipes.benchmark_ic.listeners import bounds, linearly_decoded
from recipes.benchmark_ic.results import ABLATIONS, FITTED, MODELS, read
from recipes.benchmark_ic.search_figures import WAYS
from recipes.benchmark_ic.summary import summarise
from recipes.benchmark_ic.tables import tables
from recipes.state import parse

MEMBERS = {
    "normal-1": ("NH", "seen"),
    "normal-2": ("NH", "seen"),
    "mild": ("HI", "seen"),
    "lost": ("hidden", "seen"),
    "severe": ("HI", "seen"),
    "new-normal": ("NH", "unseen"),
    "new-mild": ("HI", "unseen"),
    "new-lost": ("hidden", "unseen"),
}

SMALLEST = Path(benchmark_ic.__file__).parents[1] / "configs" / "benchmark_ic" / "tiny.yaml"

CONFIG = dataclasses.replace(
    parse(benchmark_ic.Config, ["--config", str(SMALLEST)]),
    nine=["normal-1", "normal-2", "mild", "lost"],
    singles=["normal-1", "mild", "lost"],
    seeds=[0, 1],
    ablation_seeds=[1],
    searched=["new-mild", "new-lost"],
)

KINDS = ("speech", "music", "ripple")

CHANNELS = 6

AXES = ("cf_hz", "best_modulation_hz")


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def load(path):
    return json.loads(path.read_text())


def rows(draw, level):
    """Scores of every sound, FEVE near a level."""
    return [
        {"kind": kind, "feve": level + draw.uniform(-0.1, 0.1), "kl": draw.uniform(0.001, 0.01)}
        for kind in KINDS
    ]


def make_cohort(path, members, draw):
    """Animals that say who they are, and heard next to nothing."""
    sound = Sound("s", "speech", "voice", "train", 0.1 * torch.randn(8 * BIN_SAMPLES))
    cohort = store.create(path, [sound])
    for index, (name, (hearing, role)) in enumerate(members.items()):
        loss_db = 30.0 * draw.random() * (hearing == "HI")
        thresholds = [30.0 + 2 * draw.random() + loss_db] * 5
        counts = [torch.zeros(8, CHANNELS, dtype=torch.uint8)]
        status = "NH" if hearing == "NH" else "HI"
        frequencies = [1000.0, 2000.0, 4000.0, 8000.0, 16000.0]
        recorded = Recording(status, role, thresholds, frequencies, CHANNELS, [(0, 0.0)], counts)
        loss = {
            "ohc_db": [loss_db] * len(FREQUENCIES_HZ),
            "ihc_db": [0.4 * loss_db] * len(FREQUENCIES_HZ),
            "synaptopathy": 0.1 * draw.random() + 0.6 * (hearing == "hidden"),
            "central_gain": 1 + loss_db / 20,
        }
        places = {axis: (500 * 2 ** (4 * torch.rand(CHANNELS))).tolist() for axis in AXES}
        cohort.add_animal(name, recorded, {"loss": loss, "hearing": hearing} | places)
        own = torch.randperm(CHANNELS)
        cohort.animal(name).set_alignment(own + CHANNELS * min(index, 1), 2 * CHANNELS, ALIGNMENT)
        cohort.animal(name).set_alignment(own, CHANNELS, "permutation")
    return cohort


def make_up(out, config, members=MEMBERS):
    """Every file that the report reads, without a benchmark."""
    save(out / "config.json", dataclasses.asdict(config))
    for seed in config.seeds:
        draw, folder = random.Random(seed), out / f"seed-{seed}"
        torch.manual_seed(seed)
        cohort = make_cohort(folder / "cohort" / "cohort.zarr", members, draw)
        seen, unseen = cohort.animals("seen"), cohort.animals("unseen")
        trained = {f"icnet-{name}": [name] for name in config.singles}
        trained |= {name: seen if "twenty" in name else config.nine for name in MODELS[1:]}
        trained["abr"] = [*config.nine, *unseen]
        if seed in config.ablation_seeds:
            trained |= dict.fromkeys(ABLATIONS, config.nine)
        for network, animals in trained.items():
            level = 0.7 if network.startswith("icnet") else draw.uniform(0.5, 0.65)
            learned = {
                "animals": animals,
                "theta": [listener(cohort, name, draw) for name in animals],
                "deviation": [[0.03] * 6 for _ in animals],
            }
            scores = {name: rows(draw, level) for name in animals}
            save(folder / "scores" / f"{network}.json", {"rows": scores, "listeners": learned})
            save(folder / "networks" / network / "finished.json", {"seconds": 100.0})
        fitted = [n for n in trained if "beta" in n or n in ABLATIONS]
        for network in fitted:
            for name in unseen:
                ways = ["aligned", "with gains", "oracle"]
                if "permuted" not in network:
                    ways += ["matched to the model", "matched, with gains"]
                fits = {
                    way: {
                        "rows": rows(draw, 0.3 + 0.1 * place),
                        "theta": listener(cohort, name, draw),
                        "seconds": 2.0,
                        "octaves": 0.5,
                    }
                    for place, way in enumerate(ways)
                }
                save(folder / "fits" / network / f"{name}.json", fits)
            save(folder / "fits" / network / "finished.json", unseen)
        for network, parameters in (("beta-3", 3), ("beta-6", 6)):
            for name in config.searched:
                path = folder / "searches" / network / f"{name}.json"
                save(path, searched(parameters, draw))
        apart = {name: {"apart": [0], "correlation": 0.5} for name in members}
        save(folder / "alignment.json", {"template": apart, "permutation": apart})
        save(folder / "stages.json", {"cohort": 60.0, "training ICNets": 120.0})


def listener(cohort, name, draw):
    """θ that says something of the loss."""
    loss = cohort.truth(name)["loss"]
    told = [loss["central_gain"] / 4, loss["synaptopathy"]]
    return [*told, *(draw.random() for _ in range(4))]


def searched(parameters, draw):
    """Searches that come closer and closer, one of them never close enough."""
    ways = {
        way: {
            "course": [1 + 0.2 * 0.8 ** (speed * step) for step in range(40)],
            "theta": [draw.random() for _ in range(parameters)],
            "seconds": 3.0,
        }
        for way, speed in ((way, draw.uniform(0.3, 1.5)) for way in WAYS)
    }
    ways["descent from 4 Sobol points"]["course"] = [1.3] * 160
    grid = torch.linspace(-0.6, 0.6, 15).square()
    return {
        "target": 1.0,
        "target_theta": [0.5] * parameters,
        "middle": 1.2,
        "ways": ways,
        "surface": (1 + 0.2 * grid + 0.1 * grid[:, None]).tolist(),
        "directions": torch.eye(parameters)[:2].tolist(),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of two seeds, reported: their folder and the summary."""
    out = tmp_path_factory.mktemp("benchmark")
    make_up(out, CONFIG)
    return out, report.write(out)


@pytest.fixture
def copy(made, tmp_path):
    """A folder of the same results, to change; without the report."""
    shutil.copytree(made[0], tmp_path / "copy", ignore=shutil.ignore_patterns("figures"))
    return tmp_path / "copy"


def set_rows(out, seed, network, animal, feve):
    """Replace the FEVE of an animal's sounds."""
    path = out / f"seed-{seed}" / "scores" / f"{network}.json"
    content = load(path)
    pairs = zip(content["rows"][animal], feve, strict=True)
    content["rows"][animal] = [row | {"feve": value} for row, value in pairs]
    save(path, content)


def test_the_report_knows_what_the_benchmark_trains(made):
    cohort = Cohort.open(made[0] / "seed-0" / "cohort" / "cohort.zarr")
    first, rest = benchmark_ic.networks_of(CONFIG, cohort)
    singles = {f"icnet-{name}" for name in CONFIG.singles}
    assert {n.name for n in first + rest} == {*singles, *MODELS[1:]}
    assert {n.name for n in rest if n.network == "beta"} == {"beta-3", *FITTED}
    before, changed = benchmark_ic.ablations_of(CONFIG, cohort)
    assert {n.name for n in changed} == set(ABLATIONS)
    trained = {n.name for n in first + before}
    assert {n.begin_from for n in rest + changed} <= trained | {None}


def test_everything_is_written(made):
    out, summary = made
    assert load(out / "summary.json") == summary
    assert set(summary) == {
        "seeds", "skipped", "animals", "table", "by_class", "hidden", "unseen", "fit",
        "fit_middle", "decodability", "alignment", "ablations", "fit_seconds",
        "training_seconds", "wall_minutes",
    }  # fmt: skip
    cells = {f"{measure}_{group}" for measure in ("feve", "kl") for group in ("nh", "hi", "hidden")}
    for found in summary["table"].values():
        assert set(found) == cells | {"absolute"}
        assert set(found["absolute"]) == cells | {"feve", "kl"}
    assert set(summary["hidden"]) >= {"beta", "abr", "difference", "seen"}
    for group in (summary["unseen"], summary["unseen"]["published"]):
        for name in ("nine", "twenty"):
            assert set(group[name]) >= {"seen", "unseen", "oracle_alignment", "ratio"}
    assert set(summary["fit"]["beta-6"]) == set(WAYS)
    assert set(summary["ablations"]) == {"beta-6", "beta-3", *ABLATIONS}
    assert summary["wall_minutes"]["0"] == {"cohort": 1, "training ICNets": 2, "all": 3}
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert "feve_by_model" in drawn
    assert not any(name.startswith("responses") for name in drawn), "drawn without networks"
    page, text = (out / "report.html").read_text(), (out / "tables.md").read_text()
    assert page.count("data:image/png;base64,") == len(drawn)
    for table in tables(summary).values():
        assert table.title in page
        assert table.title in text
        assert all(len(row) == len(table.header) for row in table.rows)


def test_differences_are_taken_sound_by_sound(copy):
    for seed in CONFIG.seeds:
        set_rows(copy, seed, "icnet-normal-1", "normal-1", [0.5, 0.7, None])
    set_rows(copy, 0, "abr", "normal-1", [0.4, 0.9, 0.3])
    set_rows(copy, 1, "abr", "normal-1", [None, 1.2, 0.3])
    found = summarise(read(copy))["table"]
    assert found["icnet"]["feve_nh"]["n"] == 4
    assert found["icnet"]["feve_nh"]["median"] == pytest.approx(0.6)
    difference = found["abr"]["feve_nh"]
    assert difference["n"] == 3
    assert difference["median"] == pytest.approx(0.2)
    assert difference["mad"] == pytest.approx(0.3)
    assert difference["by_seed"] == pytest.approx([0.05, 0.5])


def test_hidden_losses_have_a_column_of_their_own(copy):
    for seed in CONFIG.seeds:
        set_rows(copy, seed, "icnet-mild", "mild", [0.5] * 3)
        set_rows(copy, seed, "icnet-lost", "lost", [0.1] * 3)
    found = summarise(read(copy))["table"]["icnet"]
    assert found["feve_hi"]["median"] == 0.5
    assert found["feve_hidden"]["median"] == 0.1


def test_hidden_losses_are_compared_with_thresholds(copy):
    for seed in CONFIG.seeds:
        set_rows(copy, seed, "abr", "new-lost", [0.1, 0.2, 0.3])
        path = copy / f"seed-{seed}" / "fits" / "beta-6" / "new-lost.json"
        fits = load(path)
        for row in fits["aligned"]["rows"]:
            row["feve"] = 0.5
        save(path, fits)
    found = summarise(read(copy))["hidden"]
    assert found["abr"]["median"] == pytest.approx(0.2)
    assert found["beta"]["median"] == 0.5
    assert found["difference"]["median"] == pytest.approx(0.3)


def test_animals_that_nothing_explains_leave_a_gap(copy):
    for seed in CONFIG.seeds:
        for network in ("icnet-mild", *MODELS[1:]):
            set_rows(copy, seed, network, "mild", [None] * 3)
    summary = report.write(copy)
    assert summary["table"]["abr"]["feve_hi"]["median"] is None
    assert summary["table"]["abr"]["absolute"]["feve"]["n"] == 2 * 3 * 3


@pytest.mark.parametrize("lost", ["scores/abr.json", "fits/beta-6/new-mild.json"])
def test_an_incomplete_seed_is_left_out_and_named(copy, lost):
    (copy / "seed-1" / lost).unlink()
    results = read(copy)
    assert [run.seed for run in results.runs] == [0]
    assert lost in results.skipped["seed-1"]
    summary = summarise(results)
    assert summary["seeds"] == [0]
    assert summary["ablations"] == {}
    assert all(len(f["feve_nh"]["by_seed"]) == 1 for f in summary["table"].values())


def test_ablations_that_are_not_finished_are_left_out(copy):
    (copy / "seed-1" / "fits" / "no-noise" / "new-mild.json").unlink()
    (copy / "seed-1" / "scores" / "beta-12.json").unlink()
    results = read(copy)
    assert [run.seed for run in results.runs] == CONFIG.seeds
    found = summarise(results)["ablations"]
    assert set(found) == {"beta-6", "beta-3", *ABLATIONS} - {"no-noise", "beta-12"}
    assert found["beta-1"]["seeds"] == [1]


def test_without_a_complete_seed_the_missing_file_is_named(copy):
    for seed in CONFIG.seeds:
        (copy / f"seed-{seed}" / "scores" / "abr.json").unlink()
    with pytest.raises(ValueError, match=r"scores/abr\.json"):
        read(copy)


def test_searches_that_never_arrive_are_said_to_need_more(made):
    never = made[1]["fit"]["beta-6"]["descent from 4 Sobol points"]
    assert never["evaluations"] is None
    assert never["reached"] == 0
    cells = [row for row in tables(made[1])["searches"].rows if row[1].startswith("descent from 4")]
    assert all(row[2] == "more than 160 (0 %)" for row in cells)
    quick = made[1]["fit"]["beta-6"]["Bayesian, 4 Sobol points"]
    assert 1 < quick["evaluations"] < quick["strict_evaluations"] <= 40


def test_the_strict_rule_asks_for_a_share_of_what_can_be_gained():
    found = bounds({"target": 1.0, "middle": 1.1})
    assert found == pytest.approx({"usual": 1.02, "strict": 1.002})


def test_what_theta_says_is_read_and_nothing_else():
    theta = torch.rand(28, 6, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(28, generator=torch.Generator().manual_seed(1))
    assert linearly_decoded(theta, 3 * theta[:, 0] - 2 * theta[:, 4] + 1) > 0.95
    assert linearly_decoded(theta, noise) < 0.2
    assert linearly_decoded(theta, torch.ones(28)) is None
    assert math.isfinite(linearly_decoded(torch.ones(28, 2), noise))
