"""The benchmark's report, from results made up here: nothing is trained."""

import dataclasses
import itertools
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
from icsim.theta import Listeners, movement
from recipes.benchmarks import ic as benchmark_ic
from recipes.benchmarks.ic import report
from recipes.reports.ic.comparisons import compared
from recipes.reports.ic.listeners import bounds, linearly_decoded
from recipes.reports.ic.results import ABLATIONS, FITTED, MODELS, read, scored
from recipes.reports.ic.search_figures import WAYS
from recipes.reports.ic.summary import summarise
from recipes.reports.ic.tables import tables
from recipes.running.commands import parse

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

SMALLEST = Path(benchmark_ic.__file__).parents[1] / "configs" / "benchmarks" / "ic" / "tiny.yaml"

CONFIG = dataclasses.replace(
    parse(benchmark_ic.Config, ["--config", str(SMALLEST)]),
    smaller=["normal-1", "normal-2", "mild", "lost"],
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
        {
            "sound": f"test-{kind}",
            "kind": kind,
            "feve": level + draw.uniform(-0.1, 0.1),
            "kl": draw.uniform(0.001, 0.01),
        }
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
        trained |= {name: seen if "twenty" in name else config.smaller for name in config.networks}
        if "abr" in trained:
            trained["abr"] = [*config.smaller, *unseen]
        if seed in config.ablation_seeds:
            trained |= dict.fromkeys(ABLATIONS, config.smaller)
        for network, animals in trained.items():
            level = 0.7 if network.startswith("icnet") else draw.uniform(0.5, 0.65)
            learned = learning(cohort, animals, draw) if is_beta(network) else {}
            scores = {name: rows(draw, level) for name in animals}
            save(folder / "scores" / f"{network}.json", {"rows": scores, "listeners": learned})
            save(folder / "networks" / network / "finished.json", {"seconds": 100.0})
        for network in filter(is_beta, trained):
            for name in unseen:
                ways = ["aligned", "with gains", "best for validation sounds"]
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


def is_beta(network):
    return "beta" in network or network in ABLATIONS


def learning(cohort, animals, draw):
    """Listeners that moved a little from where they began; the time transfer kept its start."""
    listeners = Listeners(len(animals), 6)
    start = {name: value.tolist() for name, value in listeners.state_dict().items()}
    with torch.no_grad():
        listeners.mean += 0.1
        listeners.log_deviation += 0.5
    began = {name: torch.tensor(values) for name, values in start.items()}
    return {
        "animals": animals,
        "theta": [listener(cohort, name, draw) for name in animals],
        "start": start,
        "now": {name: value.tolist() for name, value in listeners.state_dict().items()},
        "movement": movement(listeners, began),
    }


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
    assert {n.name for n in rest} == {*singles, *MODELS[1:]}
    assert {n.name for n in rest if n.condition.kind == "theta"} == {"beta-3", *FITTED}
    before, changed = benchmark_ic.ablations_of(CONFIG, cohort)
    assert {n.name for n in changed} == set(ABLATIONS)
    trained = {n.name for n in first + before}
    assert {n.begin_from for n in rest + changed} <= trained | {None}


def test_all_that_is_compared_is_trained_for_as_many_epochs(made):
    cohort = Cohort.open(made[0] / "seed-0" / "cohort" / "cohort.zarr")
    (first, rest), (before, changed) = (
        made_of(CONFIG, cohort) for made_of in (benchmark_ic.networks_of, benchmark_ic.ablations_of)
    )

    def epochs(network):
        return benchmark_ic._training(CONFIG, network, 0, made[0]).epochs

    begun = {None: 0} | {network.name: epochs(network) for network in first + before}
    assert set(begun.values()) == {0, 1}
    for network in rest + changed:
        assert begun[network.begin_from] + epochs(network) == 3
    for network in rest:
        if network.name.removeprefix("icnet-") in CONFIG.singles:
            (beginning,) = (n for n in first if n.name == network.begin_from)
            assert beginning.animals == network.animals == [network.name.removeprefix("icnet-")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"singles": ["normal-2"]}, "normal-2: of the brains that make the template"),
        ({"singles": ["severe"]}, "severe must be among smaller"),
        ({"ablation_seeds": [3]}, "3 must be among seeds"),
        ({"networks": ["abr"]}, "beta-6 is what others are compared with"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(tmp_path, changes, message):
    config = parse(benchmark_ic.Config, ["--config", str(SMALLEST)])
    config = dataclasses.replace(config, out=str(tmp_path / "out"), **changes)
    with pytest.raises(ValueError, match=message):
        benchmark_ic.benchmark(config)
    assert not (tmp_path / "out").exists()


def test_everything_is_written(made):
    out, summary = made
    assert load(out / "summary.json") == summary
    assert set(summary) == {
        "seeds", "skipped", "animals", "goals", "table", "by_class", "hidden", "unseen",
        "choices", "movement", "fit", "fit_middle", "decodability", "alignment", "ablations",
        "fit_seconds", "training_seconds", "wall_minutes",
    }  # fmt: skip
    cells = {f"{measure}_{group}" for measure in ("feve", "kl") for group in ("nh", "hi", "hidden")}
    for found in summary["table"].values():
        assert set(found) == cells | {"absolute", "better"}
        assert set(found["absolute"]) == cells | {"feve", "kl"}
    assert next(iter(summary["hidden"])) == "hidden, unseen"
    assert set(summary["unseen"]) == set(FITTED)
    for found in summary["unseen"].values():
        assert set(found) >= {"seen", "unseen", "best_matching", "ratio", "better"}
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
    found = summarise(read(copy))["hidden"]["hidden, unseen"]
    assert found["abr"]["median"] == pytest.approx(0.2)
    assert found["beta"]["median"] == 0.5
    assert found["difference"]["median"] == pytest.approx(0.3)
    assert found["better"]["estimate"] == pytest.approx(0.3)
    assert found["better"]["verdict"] == "cannot be told", "of one animal a seed"


def test_comparisons_are_of_the_same_sounds_and_hold_for_those_who_are_named(copy):
    shifts = {"mild": 0.2, "lost": -0.1, "normal-1": 0.0, "normal-2": 0.1}
    for seed, (name, shift) in itertools.product(CONFIG.seeds, shifts.items()):
        path = copy / f"seed-{seed}" / "scores" / "beta-6-permuted.json"
        theirs = [row["feve"] for row in load(path)["rows"][name]]
        set_rows(copy, seed, "beta-6", name, [value + shift for value in theirs])
        # Where one has no value, the sound is left out for both.
        set_rows(copy, seed, "beta-6-permuted", name, [None, *theirs[1:]])
    results = read(copy)
    ours, than = (scored(name) for name in ("beta-6", "beta-6-permuted"))
    found = compared(results.runs, results.smaller, ours, than)
    assert (found["seeds"], found["listeners"], found["sounds"]) == (2, 8, 4)
    assert found["estimate"] == pytest.approx(0.05)
    assert found["low"] < 0 < found["high"]
    only = compared(results.runs, results.smaller, ours, than, group="HI")
    assert only["estimate"] == pytest.approx(0.2)
    assert only["listeners"] == 2
    held = compared(results.runs, results.smaller, ours, than, bound=0.5)
    assert held["verdict"] == "worse"
    less = compared(results.runs[:1], ["mild"], ours, than, measure="kl")
    mine, other = (sum(row["kl"] for row in of(results.runs[0], "mild")) / 3 for of in (ours, than))
    assert less["estimate"] == pytest.approx(other - mine), "of KL, less is better"
    assert compared(results.runs, results.smaller, ours, than, group="nobody") is None


def test_a_ratio_is_of_means_of_different_animals_who_heard_the_same(copy):
    for seed in CONFIG.seeds:
        for name in CONFIG.smaller:
            set_rows(copy, seed, "beta-6", name, [0.5, 0.8, 0.8])
        for name in ("new-normal", "new-mild", "new-lost"):
            path = copy / f"seed-{seed}" / "fits" / "beta-6" / f"{name}.json"
            fits = load(path)
            for row, value in zip(fits["aligned"]["rows"], (0.4, 0.64, None), strict=True):
                row["feve"] = value
            save(path, fits)
    found = summarise(read(copy))["unseen"]["beta-6"]["ratio"]
    assert found["estimate"] == pytest.approx(0.52 / 0.7)
    assert (found["seeds"], found["listeners"], found["sounds"]) == (2, 14, 6)
    assert found["low"] < found["estimate"] < found["high"]
    assert found["bound"] == 0.8


def test_fewer_networks_make_a_smaller_report(tmp_path):
    config = dataclasses.replace(
        CONFIG, networks=["icnet-multi", "abr", "beta-6"], ablation_seeds=[], searched=[]
    )
    make_up(tmp_path, config)
    summary = report.write(tmp_path)
    assert set(summary["table"]) == {"icnet", "icnet-multi", "abr", "beta-6"}
    assert set(summary["unseen"]) == {"beta-6"}
    assert set(summary["choices"]) == {"6 parameters and a branch an animal"}
    assert summary["goals"].keys() == {"normal", "impaired", "hidden", "share"}
    for table in tables(summary).values():
        assert all(len(row) == len(table.header) for row in table.rows)


def test_what_did_not_move_is_said(made):
    found = made[1]["movement"]["beta-6"]
    assert found["mean_correlation"] == pytest.approx(1)
    assert found["mean_moved"] == pytest.approx(0.1)
    assert found["rate"] == {"start": 15, "least": 15, "most": 15}
    (row,) = (r for r in tables(made[1])["movement"].rows if r[0] == "6 parameters")
    assert row[3:5] == ["0.030 → 0.049 … 0.049", "0.50"]
    assert row[6] == "15.0 → 15.0 … 15.0"


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
    # Read by a regression that knew the animal, six numbers explain some of any noise.
    draws = (torch.Generator().manual_seed(n) for n in range(9))
    chance = [linearly_decoded(theta, torch.randn(28, generator=draw)) for draw in draws]
    assert max(chance) < 0.2
    assert sum(chance) < 0
    assert linearly_decoded(theta, torch.ones(28)) is None
    assert math.isfinite(linearly_decoded(torch.ones(28, 2), noise))
