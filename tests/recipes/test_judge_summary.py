"""What the rows of a judgement say: pooled, paired, by source, and of whom it can be told."""

import pytest

from evaluation.comparison import CANNOT_BE_TOLD
from recipes.reports.judge_summary import ALL, comparisons, gaps, means

STATUSES = {"n": "NH", "a": "HI", "b": "HI", "c": "HI", "d": "HI"}
SOURCES = [f"voice {n}" for n in range(12)]


def rows(aided, judge="truth", measure="fidelity_quiet", statuses=STATUSES, sources=SOURCES):
    """Of each device `aided(listener, device, n)`, of an unaided discrepancy of 10 + n."""
    return [
        {
            "listener": listener,
            "judge": judge,
            "measure": measure,
            "device": device,
            "excerpt": f"quiet {n}",
            "source": source,
            "aided": aided(listener, device, n),
            "unaided": 10.0 + n,
            "value": None,
        }
        for listener in statuses
        for device in ("ours", "other")
        for n, source in enumerate(sources)
    ]


def left(listener, device, n):
    """What is left of a discrepancy: ours leaves less, by a share that sounds differ in."""
    return (10 + n) * (0.5 - 0.1 * (device == "ours") - 0.01 * (n % 3) * (device == "ours"))


def test_means_are_pooled_over_sounds_and_of_listeners_with_a_loss():
    table = rows(lambda listener, device, n: 0.0 if listener == "n" else left(listener, device, n))
    found = {(row["listener"], row["device"]): row for row in means(table, STATUSES)}
    ours = found[ALL, "ours"]
    total = sum(10 + n for n in range(12))
    assert ours["mean"] == pytest.approx(1 - sum(left("a", "ours", n) for n in range(12)) / total)
    assert (ours["listeners"], ours["sounds"], ours["files"], ours["missing"]) == (4, 12, 48, 0)
    assert ours["low"] < ours["mean"] < ours["high"]
    assert found["n", "ours"]["mean"] == 1


def test_nobody_with_a_loss_leaves_all_and_nothing_lost_leaves_nothing():
    normal = {"n": "NH", "m": "NH"}
    table = rows(left, statuses=normal)
    assert means(table, normal)[0]["listeners"] == 2
    for row in table:
        row |= {"aided": 0.0, "unaided": 0.0}
    (nothing, *_) = means(table, normal)
    assert (nothing["mean"], nothing["low"], nothing["high"]) == (None, None, None)
    assert {row["verdict"] for row in comparisons(table, normal, ["ours"])} == {CANNOT_BE_TOLD}


def test_devices_are_compared_for_all_and_for_each_and_few_sources_say_nothing():
    told = {row["listener"]: row for row in comparisons(rows(left), STATUSES, ["ours"])}
    assert set(told) == {ALL, *STATUSES}
    assert {row["verdict"] for row in told.values()} == {"better"}
    assert (told[ALL]["device"], told[ALL]["other"]) == ("ours", "other")
    assert told[ALL]["difference"] == pytest.approx(0.11, abs=0.002)
    assert (told["a"]["listeners"], told["a"]["sounds"]) == (1, 12)
    reverse = comparisons(rows(left), STATUSES, ["other"])
    assert {row["verdict"] for row in reverse} == {"worse"}
    # As many excerpts, but of six voices: enough for four listeners, too few for one.
    few = rows(left, sources=SOURCES[:6] * 2)
    verdicts = {row["listener"]: row["verdict"] for row in comparisons(few, STATUSES, ["ours"])}
    assert verdicts[ALL] == "better"
    assert verdicts["a"] == CANNOT_BE_TOLD


def test_the_truth_speaks_of_those_whose_truth_is_known():
    simulated = {name: status for name, status in STATUSES.items() if name != "a"}
    table = rows(left, statuses=simulated) + rows(left, "model")
    counts = {row["judge"]: row["listeners"] for row in means(table, STATUSES)[:4]}
    assert counts == {"truth": 3, "model": 4}
    told = [
        row["judge"] for row in comparisons(table, STATUSES, ["ours"]) if row["listener"] == "a"
    ]
    assert told == ["model"]


def test_scores_are_compared_on_the_sounds_that_both_have_and_levels_are_not():
    table = [
        row | {"judge": "", "measure": measure, "aided": None, "value": value}
        for row in rows(left)
        for measure, value in (("haspi", row["aided"]), ("level_change_db", row["aided"]))
        if row["listener"] == "a"
    ]
    table[0] |= {"value": None}
    alone = {"a": "HI"}
    (mean,) = [
        row
        for row in means(table, alone)
        if (row["listener"], row["measure"], row["device"]) == (ALL, "haspi", "ours")
    ]
    assert (mean["files"], mean["missing"]) == (11, 1)
    found = comparisons(table, alone, ["ours"], ["level_change_db"])
    assert {(row["measure"], row["sounds"], row["verdict"]) for row in found} == {
        ("haspi", 11, "worse")
    }
    for row in table:
        if row["device"] == "other":
            row |= {"value": None}
    assert comparisons(table, alone, ["ours"]) == []


def test_errors_of_the_models_opinion_do_not_cancel():
    shift = {"a": 0.2, "b": -0.2, "c": 0.2, "d": -0.4, "n": 0.0}
    table = rows(left) + rows(
        lambda listener, device, n: left(listener, device, n) - shift[listener] * (10 + n), "model"
    )
    found = {row["listener"]: row for row in gaps(table, STATUSES, ["ours"])}
    assert found["a"]["gap"] == pytest.approx(0.2)
    assert found["d"]["gap"] == pytest.approx(-0.4)
    assert found[ALL]["gap"] == pytest.approx(0.25)
    assert found[ALL]["worst"] == pytest.approx(0.4)
    assert {row["device"] for row in found.values()} == {"ours"}
