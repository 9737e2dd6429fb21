"""The benchmark of the model: what it trains, and its report, from results made up here."""

import dataclasses
import itertools
import json
import math
import random
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from evaluation.tidy import where
from icsim.decoding import linear_r2
from recipes.benchmarks import ic as benchmark_ic
from recipes.benchmarks import ic_tasks
from recipes.reports import ic as report
from recipes.reports import ic_listeners
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
    "new-severe": ("HI", "unseen"),
    "twin-severe": ("HI", "unseen"),
}

SMALLER = ("normal-1", "normal-2", "mild", "lost")

SINGLES = ("normal-1", "mild", "lost")

UNSEEN = ("new-normal", "new-mild", "new-lost", "new-severe", "twin-severe")

SMALLEST = Path(benchmark_ic.__file__).parents[1] / "configs" / "benchmarks" / "ic" / "tiny.yaml"

CONFIG = dataclasses.replace(
    parse(benchmark_ic.Config, ["--config", str(SMALLEST)]),
    smaller=["mild", "normal-1", "normal-2"],
    singles=["mild"],
    seeds=[0, 1],
    ablation_seeds=[1],
)

SOUNDS = {f"test-{kind}": kind for kind in ("speech", "music", "ripple")}

SHARED = get_args(benchmark_ic.Shared)

ABLATIONS = [name for name in report.LABELS if name not in report.MODELS]

WAYS = ["fitted", "mean listener", "best for validation sounds"]

MOVED = {
    "mean_correlation": 1.0, "mean_moved": 0.1, "deviation_prior": 0.5,
    "deviation_start": 0.03, "deviation_least": 0.049, "deviation_most": 0.049,
    "shift_start": 0.2, "shift_least": 0.2, "shift_most": 0.2,
    "rate_start": 15.0, "rate_least": 15.0, "rate_most": 15.0,
    "onset_start": 0.1, "onset_least": 0.1, "onset_most": 0.1,
}  # fmt: skip


CHANGED = {
    "rate_true": 0.1, "rate_learned": 0.05, "onset_true": 1.0, "onset_learned": 2.0,
    "correlation": 0.8, "late_with": 0.7, "late_without": 0.5, "db_per_hour": 2.0,
    **{f"{which}_{hour}": hour / 10 for which in ("true", "learned") for hour in range(11)},
}  # fmt: skip


def rows_of(measure, values, **columns):
    return pd.DataFrame({"sound": map(str, values), "value": values.values()}).assign(
        measure=measure, **columns
    )


def scores(draw, level, **columns):
    """Scores of every sound, FEVE near a level."""
    feve = {sound: level + draw.uniform(-0.1, 0.1) for sound in SOUNDS}
    kl = {sound: draw.uniform(0.001, 0.01) for sound in SOUNDS}
    both = [rows_of("feve", feve, **columns), rows_of("kl", kl, **columns)]
    table = pd.concat(both, ignore_index=True)
    return table.assign(kind=table.sound.map(SOUNDS))


def made_up(seed, networks=SHARED, ablations=(), searched=("new-mild", "new-lost")):
    """All rows of one seed."""
    draw = random.Random(seed)
    who = {
        name: {"listener": name, "group": group, "role": role}
        for name, (group, role) in MEMBERS.items()
    }
    trained = {"icnet": SINGLES, **dict.fromkeys([*networks, *ablations], SMALLER)}
    tables = []
    for network, animals in trained.items():
        everyone = [n for n in MEMBERS if n not in UNSEEN] if "twenty" in network else animals
        everyone = [*everyone, *UNSEEN] if network == "abr" else everyone
        level = 0.7 if network.startswith("icnet") else draw.uniform(0.5, 0.65)
        tables += [scores(draw, level, device=network, **who[name]) for name in everyone]
        if not network.startswith(("beta", *ABLATIONS)):
            continue
        tables.append(rows_of("movement", MOVED, device=network))
        for name in [*everyone, *UNSEEN]:
            ways = [""] if name in everyone else WAYS
            for place, way in enumerate(ways):
                columns = who[name] | {"device": network, "way": way}
                theta = {1: len(name) / 20, 2: draw.random(), 3: draw.random()}
                tables.append(rows_of("theta", theta, **columns))
                if way in ("", "fitted"):
                    tables.append(rows_of("place", theta, **columns | {"way": ""}))
                if way:
                    tables.append(scores(draw, 0.3 + 0.1 * place, **columns))
                    fit = {"cost": 0.7, "seconds": 2.0, "octaves": 0.5}
                    tables.append(rows_of("fit", fit, **columns))
                else:
                    for part, when in itertools.product(
                        ("mean", "log_deviation", "shift", "rate", "onset"), ("start", "now")
                    ):
                        values = {1: draw.random(), 2: draw.random(), 3: draw.random()}
                        tables.append(rows_of(f"{part}_{when}", values, **columns))
    for name, columns in who.items():
        truth = {key: draw.random() for key in ic_listeners.TRUTHS} | {"outer": float(len(name))}
        tables.append(rows_of("truth", truth, **columns))
        tables.append(rows_of("threshold_db_spl", {1: draw.random(), 2: 1.0}, **columns))
        for method in ("template", "permutation"):
            for measure in ("octaves_before", "octaves_after", "apart"):
                tables.append(rows_of(measure, {"": 0.5}, way=method, **columns))
    tables.append(rows_of("twin", {"new-severe": 1.0}, **who["twin-severe"]))
    for network in set(networks) & {"beta-6", "beta-6-twenty"}:
        tables.append(rows_of("drift", CHANGED, device=network, **who["mild"]))
        tables.append(rows_of("space", {"dimensions": 2.5}, device=network))
        tables.append(rows_of("variance", {1: 0.7, 2: 0.2, 3: 0.1}, device=network))
    for way, feve in (("evenly", {2.0: 0.5, 8.0: 0.8}), ("informative", {2.0: 0.6})):
        columns = who["new-mild"] | {"device": "beta-6", "way": way}
        tables.append(rows_of("feve_by_seconds", feve, **columns))
        tables.append(rows_of("away_by_seconds", dict.fromkeys(feve, 1e-5), **columns))
    columns = who["new-mild"] | {"device": "beta-6"}
    tables.append(rows_of("unaided", {"50": 4.0, "80": 6.0}, **columns))
    for way, aided in (
        (ic_listeners.FIT, 4.0), (ic_listeners.BEST, 3.0), (ic_listeners.AUDIOGRAM, 5.0)
    ):  # fmt: skip
        columns = who["new-mild"] | {"device": "beta-6", "way": way}
        tables.append(rows_of("aided", {"50": aided, "80": 0.0}, **columns))
    columns = who["new-mild"] | {"device": "beta-6"}
    tables.append(rows_of("calibration", {"ratio": 0.5}, **columns))
    for network, name in itertools.product(("beta-3", "beta-6"), searched):
        tables += searches(draw, device=network, **who[name])
    tables.append(rows_of("training_s", {"beta-6": 100.0}))
    tables.append(rows_of("stage_s", {"cohort": 60.0}))
    return ic_tasks.complete(tables, ic_tasks.COLUMNS)


def searches(draw, **columns):
    """Searches that come closer and closer, one of them never close enough."""
    surface = dict(enumerate(0.1 * draw.random() for _ in range(9)))
    tables = [
        rows_of("surface", surface, **columns),
        rows_of("search", {"target": 1.0, "middle": 1.2}, **columns),
    ]
    for way, needed in ((ic_tasks.SLOPES, 5.0), ("never", math.inf)):
        numbers = {"seconds": 3.0, "most": 40.0, "evaluations": needed}
        numbers |= {"strict_evaluations": 2 * needed, "first": 0.1, "second": 2.0}
        tables.append(rows_of("search", numbers, way=way, **columns))
    return tables


def save(out, tables):
    """Results of complete seeds, as the benchmark leaves them."""
    for seed, table in tables.items():
        (out / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        table.to_csv(out / f"seed-{seed}" / "results.csv", index=False)
    (out / "config.json").write_text(json.dumps(dataclasses.asdict(CONFIG)))


@pytest.fixture(scope="module")
def seeds():
    """Results of two seeds, of which the second has ablations."""
    return {0: made_up(0), 1: made_up(1, ablations=ABLATIONS)}


@pytest.fixture(scope="module")
def written(seeds, tmp_path_factory):
    """The same, reported: their folder and the headline."""
    out = tmp_path_factory.mktemp("benchmark")
    save(out, seeds)
    (out / "seed-2").mkdir()
    return out, report.write(out)


@pytest.fixture
def rows(seeds):
    """The same as one table, to change."""
    tables = [table.assign(seed=seed) for seed, table in seeds.items()]
    return pd.concat(tables, ignore_index=True)


def set_feve(rows, values, **columns):
    """Replace the FEVE of the three sounds of someone, seed by seed."""
    for seed in rows.seed.unique():
        index = where(rows, seed=int(seed), measure="feve", **columns).index
        rows.loc[index, "value"] = values


def table(rows, name):
    """One table of the report."""
    return report.tables(rows)[name]


def cells(table, **wanted):
    """The only line of a table whose first cells are these, by header."""
    lines = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    (line,) = [line for line in lines if all(line[k] == v for k, v in wanted.items())]
    return line


def test_the_report_knows_what_the_benchmark_trains():
    names = {"normal-1": "NH", "normal-2": "NH", "mild": "HI"}

    class Animals:
        def animals(self, role=None):
            return list(names)

        def animal(self, name):
            return dataclasses.make_dataclass("A", ["status"])(names[name])

    rest = [
        *benchmark_ic.singles_of(CONFIG),
        *benchmark_ic.networks_of(CONFIG, Animals(), CONFIG.networks),
    ]
    assert {n.name for n in rest} == {"icnet-mild", *SHARED}
    assert {n.name for n in rest if n.condition.kind == "theta"} == {
        "beta-3",
        "beta-6-permuted",
        *benchmark_ic.PLACED,
    }
    before, changed = benchmark_ic.ablations_of(CONFIG)
    assert {n.name for n in changed} == {*ABLATIONS, "icnet-wide-mild"}
    assert {*SHARED, "icnet", "icnet-wide"} == set(report.MODELS)
    assert {n.begin_from for n in rest + changed} <= {n.name for n in before} | {None}

    def epochs(network):
        return benchmark_ic._training(CONFIG, network, 0, Path("out")).epochs

    begun = {None: 0} | {network.name: epochs(network) for network in before}
    assert set(begun.values()) == {0, 1}
    for network in rest + changed:
        assert begun[network.begin_from] + epochs(network) == 2
    (own,) = (n for n in rest if n.name == "icnet-mild")
    assert own.animals == ["mild"]
    seeds = {n.name: benchmark_ic._training(CONFIG, n, 1, Path("out")).seed for n in rest}
    assert seeds.pop("beta-6-again") != 1
    assert set(seeds.values()) == {1}


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


def test_everything_is_written(written, capsys):
    out, numbers = written
    assert json.loads((out / "headline.json").read_text()) == numbers
    assert set(numbers) >= {
        *(f"r2_{name}" for name in ic_listeners.TRUTHS),
        "nh_minus_own", "hi_minus_own", "hi_minus_own_low", "hidden_minus_abr",
        "hidden_minus_abr_low", "unseen_over_seen", "strict_evaluations_gradient",
        "seed_agreement",
    }  # fmt: skip
    assert numbers["strict_evaluations_gradient"] == 10
    page, text = (out / "report.html").read_text(), (out / "tables.md").read_text()
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert drawn == {
        "feve_by_model", "feve_by_class", "unseen", "evaluations", "loss_surfaces",
        "theta_space", "movement", "drift",
    }  # fmt: skip
    assert page.count("data:image/png;base64,") == len(drawn)
    assert "seed-2" in page, "a seed that is not complete is named"
    for made in report.tables(report.gather(out)[0]).values():
        assert made.rows
        assert made.title in page
        assert made.title in text
        assert all(len(row) == len(made.header) for row in made.rows)


def test_differences_are_taken_sound_by_sound(rows):
    rows = where(rows, group=["NH"])
    set_feve(rows, [0.5, 0.7, np.nan], device="icnet", listener="normal-1")
    set_feve(rows, [0.4, 0.9, 0.3], device="abr", listener="normal-1")
    rows = rows.dropna(subset="value")
    own = cells(table(rows, "prediction"), model="ICNet, one an animal")["FEVE % NH"]
    assert (own.n, own.median) == (4, pytest.approx(60))
    less = cells(table(rows, "prediction"), model="ABRNet")["FEVE % NH"]
    assert (less.n, less.median, less.mad) == (4, pytest.approx(5), pytest.approx(15))
    better = cells(table(rows, "against_own"), model="ABRNet")["FEVE NH"]
    assert better.estimate == pytest.approx(5)
    assert (better.seeds, better.listeners, better.sounds) == (2, 2, 4)


def test_less_divergence_is_better(rows):
    better = cells(table(rows, "against_own"), model="6 parameters")["KL HI"]
    part = where(rows, measure="kl", listener="mild")
    ours, own = (where(part, device=name).value.mean() for name in ("beta-6", "icnet"))
    assert better.estimate == pytest.approx(1000 * (own - ours), rel=1e-4)


def test_hidden_losses_are_compared_with_thresholds_and_stand_apart(rows):
    set_feve(rows, [0.1, 0.2, 0.3], device="abr", listener="new-lost")
    set_feve(rows, 0.5, device="beta-6", listener="new-lost", way="fitted")
    set_feve(rows, 0.0, device="beta-6", listener="new-mild", way="fitted")
    line = cells(table(rows, "hidden"), animals="hidden, unseen")
    assert line["ABRNet"].median == pytest.approx(20)
    assert line["6 parameters"].median == 50
    assert line["difference, mean"].estimate == pytest.approx(30)
    assert line["difference, mean"].verdict == "cannot be told", "of one animal a seed"
    goal = cells(table(rows, "goals"), wanted="8")["mean"]
    assert (goal.estimate, goal.bound) == (pytest.approx(30), 8)


def test_a_ratio_is_of_means_of_different_animals_who_heard_the_same(rows):
    rows = where(rows, device=[n for n in rows.device.unique() if "twenty" not in n])
    for name in SMALLER:
        set_feve(rows, [0.5, 0.8, 0.8], device="beta-6", listener=name)
    for name in UNSEEN:
        set_feve(rows, [0.4, 0.64, np.nan], device="beta-6", listener=name, way="fitted")
    rows = rows.dropna(subset="value")
    share = report.wishes(rows)["share"][2]
    assert share.estimate == pytest.approx(0.52 / 0.7)
    assert (share.seeds, share.listeners, share.sounds) == (2, 18, 6)
    assert share.low < share.estimate < share.high
    assert share.bound == 0.9


def test_fewer_networks_make_a_smaller_report(tmp_path):
    save(tmp_path, {0: made_up(0, ("icnet-multi", "abr", "beta-6"), searched=())})
    numbers = report.write(tmp_path)
    made = report.tables(report.gather(tmp_path)[0])
    assert [row[0] for row in made["prediction"].rows] == [
        "ICNet, one an animal", "ICNet, a branch an animal", "ABRNet", "6 parameters",
    ]  # fmt: skip
    assert not made["searches"].rows
    assert not made["ablations"].rows
    assert {row[0] for row in made["choices"].rows} == {"6 parameters and a branch an animal"}
    assert "strict_evaluations_gradient" not in numbers


def test_without_a_complete_seed_it_is_said(tmp_path):
    (tmp_path / "seed-1").mkdir()
    with pytest.raises(ValueError, match=r"no seed is complete; run recipes\.benchmarks\.ic"):
        report.gather(tmp_path)


def test_what_did_not_move_is_said(rows):
    line = cells(table(rows, "learned"), network="6 parameters")
    assert (line["correlation"], line["its prior"]) == ("1.00", "0.50")
    assert line["deviation of θ"] == "0.030 → 0.049 … 0.049"
    assert line["rate"] == "15.0 → 15.0 … 15.0"


def test_ablations_are_of_the_seeds_that_have_them(rows):
    set_feve(rows, 0.5, device="beta-6", listener="mild")
    set_feve(rows, 0.4, device="no-noise", listener="mild")
    line = cells(table(rows, "ablations"), network="no noise on θ")
    assert line["difference"].seeds == 1
    assert line["of the impaired"].estimate == pytest.approx(-10)


def test_searches_that_never_arrive_are_said_to_need_more(rows):
    made = table(rows, "searches")
    never, arrived = (
        next(row[2:5:2] for row in made.rows if row[:2] == ["6 parameters", way])
        for way in ("never", ic_tasks.SLOPES)
    )
    assert never == ["more than 40 (0 %)"] * 2
    assert arrived == ["5 (100 %)", "10 (100 %)"]
    assert "20.0 % (6 parameters)" in made.about


def test_the_strict_rule_asks_for_a_share_of_what_can_be_gained():
    assert ic_tasks.reached_below(1.0, 1.1) == pytest.approx((1.02, 1.002))


def test_what_theta_says_is_read_from_each_network_and_the_worst_is_the_headline(rows):
    # θ of the made-up animals holds the length of their names, as their outer loss does.
    networks = ["beta-6", "beta-6-twenty"]
    assert min(ic_listeners.decoded(rows, "theta", networks)["outer"]) > 0.5
    rows.loc[where(rows, device="beta-6-twenty", measure="theta").index, "value"] = 0.5
    assert max(ic_listeners.decoded(rows, "theta", networks[1:])["outer"]) < 0
    worst = min(ic_listeners.decoded(rows, "theta", networks)["outer"])
    assert report.headlines(rows)["r2_outer"] == worst < 0


def test_two_networks_agree_that_place_animals_alike_but_for_a_rotation(rows):
    theta = where(rows, device="beta-6", measure="theta", way=["", "fitted"])
    again = where(rows, device="beta-6-again", measure="theta", way=["", "fitted"])
    others = rows.drop(again.index)
    turned = theta.assign(
        sound=theta.sound.map({"1": "2", "2": "3", "3": "1"}), value=1 - theta.value
    )
    same = pd.concat([others, turned.assign(device="beta-6-again")], ignore_index=True)
    for _, agreed, chance in ic_listeners.agreements(same, "theta"):
        assert agreed == pytest.approx(1)
        assert chance < 0.9
    assert max(agreed for _, agreed, _ in ic_listeners.agreements(rows, "theta")) < 0.99
    assert report.headlines(same)["seed_agreement"] == pytest.approx(1)


def test_twins_lie_apart_as_a_share_of_a_severe_loss(rows):
    keys = {"device": "beta-6", "measure": "place", "sound": "1"}
    for listener, value in (("new-normal", 0.0), ("new-severe", 4.0), ("twin-severe", 3.0)):
        rows.loc[where(rows, listener=listener, **keys).index, "value"] = value
    normal = where(rows, device="beta-6", measure="place", group="NH")
    others = where(rows, device="beta-6", measure="place", listener=["new-severe", "twin-severe"])
    rows.loc[where(normal, sound=["1", "2", "3"]).index, "value"] = 0.0
    rows.loc[where(others, sound=["2", "3"]).index, "value"] = 0.0
    shares = [
        share for _, d, _, share in ic_listeners.twin_distances(rows, "place") if d == "beta-6"
    ]
    assert shares == pytest.approx([1 / 3.5, 1 / 3.5])
    rows.loc[where(rows, listener="twin-severe", **keys).index, "value"] = 4.0
    apart = ic_listeners.twin_distances(rows, "place")
    assert [share for _, d, _, share in apart if d == "beta-6"] == pytest.approx([0, 0])


def test_restoration_is_of_all_levels_together(rows):
    line = cells(table(rows, "restoration"), animals="all")
    restored = [line[name] for name in ("fitted θ", "best θ", "audiogram")]
    assert restored == pytest.approx([0.6, 0.7, 0.5])
    assert line["best less fitted"].estimate == pytest.approx(0.1)
    assert report.headlines(rows)["restoration_told_best"] == pytest.approx(0.7)


def test_a_share_of_the_longest_recording_and_of_the_true_drift_is_said(rows):
    line = cells(table(rows, "recorded"), frames="informative")
    assert line["share, mean"] == pytest.approx(75)
    line = cells(table(rows, "drift"), network="6 parameters")
    assert line["rate"].startswith("0.50")
    assert line["onset [h]"] == "1.0 → 2.0"


def test_what_theta_says_is_read_and_nothing_else():
    draw = np.random.default_rng(0)
    theta = draw.random((28, 6))
    assert linear_r2(theta, 3 * theta[:, 0] - 2 * theta[:, 4] + 1) > 0.95
    # Read by a regression that had seen the animal, six numbers explain some of any noise.
    chance = [linear_r2(theta, draw.standard_normal(28)) for _ in range(9)]
    assert max(chance) < 0.2
    assert sum(chance) < 0
    assert linear_r2(theta, np.ones(28)) is None
    assert math.isfinite(linear_r2(np.ones((28, 2)), draw.standard_normal(28)))
