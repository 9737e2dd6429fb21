"""What the rows of a judgement say: of whom, by whom, and of which devices."""

import pandas as pd
import pytest

from evaluation.comparison import CANNOT_BE_TOLD
from evaluation.tidy import gap, where
from recipes.reports import judged

STATUSES = {"n": "NH", "a": "HI", "b": "HI", "c": "HI", "d": "HI"}

VOICES = [f"voice {n}" for n in range(12)]

ABOUT = {
    "judges": ["truth", "model"],
    "devices": {
        name: {"label": label, "delay_ms": 0.0}
        for name, label in (("ours", "Masks"), ("other", "NAL-R"))
    },
    "ours": ["ours"],
    "missing": {"haspi": "too short"},
    "left_out": {},
}


def left(listener, device, n):
    """What is left of a discrepancy: ours leaves less, by a share that sounds differ in."""
    return (10 + n) * (0.5 - 0.1 * (device == "ours") - 0.01 * (n % 3) * (device == "ours"))


def rows(aided=left, judge="truth", statuses=STATUSES, voices=VOICES):
    """Of each device `aided(listener, device, n)`, of an unaided discrepancy of 10 + n."""
    return pd.DataFrame(
        {
            "listener": listener,
            "group": status,
            "judge": judge,
            "measure": "fidelity",
            "condition": "quiet",
            "device": device,
            "excerpt": str(n),
            "sound": voice,
            "value": aided(listener, device, n),
            "unaided": 10.0 + n,
        }
        for listener, status in statuses.items()
        for device in ("ours", "other")
        for n, voice in enumerate(voices)
    )


def one_less(table, listener=None):
    """Our device less the other, of all with a loss or of one listener."""
    part = where(table, listener=listener) if listener else judged.with_a_loss(table)
    ((_, cell),) = judged.less(part, ABOUT | {"judges": ["truth"]}, "ours").rows
    return cell


def test_means_are_pooled_over_sounds_and_of_listeners_with_a_loss():
    table = rows(lambda listener, device, n: 0.0 if listener == "n" else left(listener, device, n))
    found = judged.mean_of(judged.with_a_loss(table), "ours")
    total = sum(10 + n for n in range(12))
    expected = 1 - sum(left("a", "ours", n) for n in range(12)) / total
    assert found.estimate == pytest.approx(expected)
    assert (found.listeners, found.sounds) == (4, 12)
    assert found.low < found.estimate < found.high
    assert judged.mean_of(where(table, listener="n"), "ours").estimate == 1


def test_where_nobody_has_a_loss_all_are_counted():
    table = rows(statuses={"n": "NH", "m": "NH"})
    assert judged.mean_of(judged.with_a_loss(table), "ours").listeners == 2


def test_devices_are_compared_for_all_and_for_each_and_few_voices_say_nothing():
    together, alone = one_less(rows()), one_less(rows(), "a")
    assert {together.verdict, alone.verdict} == {"better"}
    assert together.estimate == pytest.approx(0.11, abs=0.002)
    assert (alone.listeners, alone.sounds) == (1, 12)
    # As many excerpts, but of six voices: enough for four listeners, too few for one.
    few = rows(voices=VOICES[:6] * 2)
    assert one_less(few).verdict == "better"
    assert one_less(few, "a").verdict == CANNOT_BE_TOLD


def test_a_device_that_some_listener_lacks_is_left_out_of_what_is_said_of_all():
    table = rows()
    table = table.drop(where(table, listener="b", device="other").index)
    assert judged.mean_of(table, "other") is None
    assert judged.mean_of(table, "ours").listeners == 5
    made = judged.less(judged.with_a_loss(table), ABOUT, "ours")
    assert not made.rows


def test_the_truth_speaks_of_those_whose_truth_is_known():
    simulated = {name: status for name, status in STATUSES.items() if name != "a"}
    table = pd.concat([rows(statuses=simulated), rows(judge="model")], ignore_index=True)
    ((_, _, by_truth, by_model, *_), _) = judged.restoration(judged.with_a_loss(table), ABOUT).rows
    assert (by_truth.listeners, by_model.listeners) == (3, 4)


def test_scores_say_why_some_are_missing_and_levels_are_neither_better_nor_worse():
    table = pd.concat([rows(), rows()], ignore_index=True)
    table.loc[len(rows()) :, ["judge", "measure", "condition"]] = ["", "haspi", "noise"]
    louder = rows().assign(judge="", measure="added_db", condition="noise")
    table = pd.concat([table, louder], ignore_index=True)
    made = judged.scores(judged.with_a_loss(table), ABOUT)
    assert made.header == ["device", "haspi"]
    assert "haspi is missing of some: too short." in made.about
    assert judged.less(table, ABOUT, "ours").header == ["device", "fidelity in quiet", "haspi"]


def test_errors_of_the_models_opinion_do_not_cancel():
    shift = {"a": 0.2, "b": -0.2, "c": 0.2, "d": -0.4, "n": 0.0}
    opinion = rows(
        lambda listener, device, n: left(listener, device, n) - shift[listener] * (10 + n), "model"
    )
    table = judged.with_a_loss(pd.concat([rows(), opinion], ignore_index=True))
    found = gap(table, "ours", "model", "truth")
    assert found["magnitude"].estimate == pytest.approx(0.25)
    assert found["largest"] == pytest.approx(0.4)
    ((label, magnitude, _, *alone),) = judged.gaps(table, ABOUT).rows
    assert label == "Masks, fidelity in quiet"
    assert magnitude.estimate == pytest.approx(0.25)
    assert alone == pytest.approx([0.2, -0.2, 0.2, -0.4])
