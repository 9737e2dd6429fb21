"""The benchmark of aids at the smallest size: every path, what it reads, and what it says."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evaluation.tidy import difference, gap, mean, read, share, where
from icsim.excerpts import NOISE, QUIET
from icsim.simulation import material
from icsim.simulation.material import MUSIC, SHORT, Material, conditions
from icsim.simulation.noises import NOISES
from icsim.simulation.speech import FURTHER_SPEAKERS
from icsim.sound import level
from icsim.store import Cohort
from recipes.benchmarks import aids
from recipes.benchmarks.aids import ABLATIONS, AIDS
from recipes.reports import aids as report
from recipes.reports import documents
from recipes.reports.aids import LABELS, SETTINGS, gather, harm, tables
from recipes.running.commands import parse

SIMPLE = {
    "unprocessed", "nal_r", "nal_r_compressed", "nal_r_matched", "wiener_nal_r",
    "nal_r_best_model", "nal_r_best_truth", "flat_model", "flat_truth", "fixed_model",
    "fixed_truth",
}  # fmt: skip
SET = {f"{name}_nr_{state}" for name in AIDS for state in ("off", "on")}
DEVICES = SIMPLE | SET | {"own_nr_off", "ceiling_nr_off"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The benchmark of size tiny, run once: its configuration, folder, tables and splits read."""
    file = "recipes/configs/benchmarks/aids/tiny.yaml"
    out = tmp_path_factory.mktemp("benchmark") / "tiny"
    config = parse(aids.Config, ["--config", file, "--out", str(out)])
    asked, pressure = set(), Cohort.pressure
    aligned = aids.cohorts.aligned

    def simulated(*given):
        """Animals hear all sounds; what is read of them afterwards counts."""
        cohort = aligned(*given)
        asked.clear()
        return cohort

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aids.cohorts, "aligned", simulated)
        patch.setattr(
            Cohort,
            "pressure",
            lambda self, i, *part: asked.add(self.sounds[i].split) or pressure(self, i, *part),
        )
        summary = aids.benchmark(config)
    return config, out, summary, asked


@pytest.fixture(scope="module")
def rows(made):
    return gather(made[1], made[0].development_seed)


# --- what is heard ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heard():
    few = Material(excerpts=4, excerpt_s=0.5, sentence_s=0.5, pieces=5, short=2, short_s=0.2)
    return few, conditions(few, seed=1)


def test_speech_in_noise_is_of_twenty_voices_and_five_noises_that_are_in_no_training(heard):
    few, made = heard
    assert [one.name for one in made] == [QUIET, QUIET, QUIET, NOISE, MUSIC, SHORT]
    (noise,) = (one for one in made if one.name == NOISE)
    assert {voice.split("+")[1] for voice in noise.sounds} == set(FURTHER_SPEAKERS)
    assert {kind: noise.noises.count(kind) for kind in material.MASKERS} == dict.fromkeys(
        material.MASKERS, 4
    )
    assert len(set(material.MASKERS) - set(NOISES)) == 2
    for condition in made:
        for clean in level(condition.clean):
            assert clean.item() == pytest.approx(condition.level_db_spl, abs=1e-3)
        if condition.name in (NOISE, MUSIC):
            apart = level(condition.clean) - level(condition.noisy - condition.clean)
            assert apart.tolist() == pytest.approx([few.snr_db] * len(apart), abs=1e-3)
        else:
            assert condition.clean is condition.noisy


def test_the_same_seed_gives_the_same_sounds_and_another_one_others(heard):
    few, made = heard
    for again, same in ((conditions(few, seed=1), True), (conditions(few, seed=2), False)):
        for one, two in zip(made, again, strict=True):
            assert torch.equal(one.noisy, two.noisy) is same


def test_voices_say_what_no_training_says(monkeypatch):
    parts, sentences = set(), material.sentences
    monkeypatch.setattr(
        material, "sentences", lambda *given: parts.add(given[2:]) or sentences(*given)
    )
    conditions(Material(excerpts=2, excerpt_s=0.2, speakers=1, sentence_s=0.2, pieces=1), seed=0)
    assert parts == {(2, 3)}


def test_no_test_sound_of_the_cohort_is_read(made):
    assert made[3] == {"train", "validation"}


# --- what is measured ---------------------------------------------------------------------------


def test_every_device_is_measured_on_the_truth_and_in_the_model(made, rows):
    _, out, summary, _ = made
    headline = json.loads((out / "headline.json").read_text())
    cells = {row[0]: row[1] for row in summary["restoration"].rows}
    assert headline["nal_r/fidelity_quiet"] == pytest.approx(cells["NAL-R"].estimate)
    assert set(read(out / "results.csv").device) == set(rows.device)
    fidelity = rows[rows.measure == "fidelity"]
    for judge in ("truth", "model"):
        for condition in (QUIET, NOISE, MUSIC):
            there = fidelity[(fidelity.judge == judge) & (fidelity.condition == condition)]
            assert set(there.device) == DEVICES
    assert set(fidelity[fidelity.condition == SHORT].device) == DEVICES | {"limit"}
    assert set(fidelity[fidelity.condition == QUIET].level_db_spl) == {50, 65, 80}
    nothing = fidelity[fidelity.device == "unprocessed"]
    assert nothing.value.tolist() == nothing.unaided.tolist()
    assert set(rows[rows.measure == "clarity"].condition) == {NOISE, MUSIC}


def test_gains_found_on_the_animal_restore_and_the_limit_restores_more(rows):
    truth = rows[(rows.measure == "fidelity") & (rows.judge == "truth")]
    sums = truth.groupby(["condition", "device"])[["value", "unaided"]].sum()
    restored = 1 - sums.value / sums.unaided
    # Six steps teach an aid nothing, but fixed gains are found on the true animal itself.
    assert restored[QUIET, "fixed_truth"] > 0.1
    assert restored[QUIET, "fixed_truth"] > restored[QUIET, "masks_nr_off"]
    assert restored[SHORT, "limit"] > restored[SHORT, "ceiling_nr_off"]


def test_scores_levels_and_streams_are_measured(rows):
    for measure, condition in (("haspi", NOISE), ("hasqi", QUIET)):
        scored = rows[rows.measure == measure]
        assert set(scored.device) == DEVICES
        assert set(scored.condition) == {condition}
        assert scored.value.between(0, 1).all()
    added = rows[rows.measure == "added_db"]
    flat = added[added.device == "flat_truth"].value
    chosen = rows[(rows.measure == "chosen_db") & (rows.device == "flat_truth")].value
    assert flat.tolist() == pytest.approx([chosen.item()] * len(flat), abs=1e-3)
    alone = {f"{name}_nr_alone" for name in AIDS}
    for measure in ("estoi", "pesq", "si_sdr_db"):
        assert set(rows[rows.measure == measure].device) == alone | {"unprocessed", "wiener"}
    spurs = rows[rows.measure == "spur_db"]
    assert set(spurs.device) == {d for d in SET if d.endswith("_on")} | {
        "own_nr_off", "ceiling_nr_off"
    }  # fmt: skip
    assert (spurs.value < -50).all()
    assert (rows[rows.measure == "silence_db"].value == -200).all()
    delays = rows[rows.measure == "latency_ms"]
    assert set(delays.device) == {"masks", "waveform"}
    assert delays.value.between(7, 8).all()


def test_aids_of_one_animal_are_trained_until_they_stop_gaining(rows):
    stopped = rows[rows.measure == "stopped_gaining"]
    assert set(stopped.device) == {"own", "ceiling"}
    assert set(rows[rows.measure == "steps"].device) == {*AIDS, "own", "ceiling"}


def test_what_guards_is_measured_with_one_thing_changed(made):
    table = made[2]["ablations"]
    changed = {"masks", *ABLATIONS} - {"nothing-changed"}
    assert {row[0] for row in table.rows} == {LABELS[name] for name in changed}
    assert table.header[1:] == [
        "fidelity, quiet", "clarity, noise", "in the model, quiet",
        "roughness", "flutter", "effort", "hiss", "contrast", "SI-SDR dB",
    ]  # fmt: skip
    assert all(cell is not None for row in table.rows for cell in row)


# --- what is said -------------------------------------------------------------------------------


def planted(seeds=(0, 1, 2), listeners=4, sounds=6, noise=0.02) -> pd.DataFrame:
    """Rows whose restorations are known: .5 by masks, .3 by NAL-R; the development seed apart.

    Of the development seed it is 0 by both. The model is .1 too good for half of the listeners and
    .1 too bad for the others.
    """
    draw, made = np.random.default_rng(0), []
    for seed in seeds:
        for i in range(listeners):
            for sound in range(sounds):
                unaided = draw.uniform(50, 150)
                for device, restored in (("masks_nr_off", 0.5), ("nal_r", 0.3)):
                    for judge, wrong in (("truth", 0.0), ("model", 0.1 * (-1) ** i)):
                        by = (seed > 0) * restored + wrong + noise * draw.standard_normal()
                        made.append(
                            {
                                "seed": seed,
                                "development": seed == 0,
                                "listener": f"new-{i}",
                                "group": "hidden",
                                "device": device,
                                "judge": judge,
                                "condition": QUIET,
                                "level_db_spl": 65.0,
                                "noise": "",
                                "sound": f"piece {sound}",
                                "measure": "fidelity",
                                "value": (1 - by) * unaided,
                                "unaided": unaided,
                            }
                        )
    return pd.DataFrame(made)


FIDELITY = {"measure": "fidelity", "condition": QUIET, "judge": "truth"}


def of_truth(rows):
    return where(rows[~rows.development], **FIDELITY)


def cell(table, name, column):
    (row,) = (row for row in table.rows if row[0] == name)
    return row[table.header.index(column)]


def test_a_planted_difference_has_its_n_and_its_verdict():
    rows = of_truth(planted())
    record = difference(rows, "masks_nr_off", "nal_r")
    assert record.estimate == pytest.approx(0.2, abs=0.02)
    assert 0.1 < record.low < record.estimate < record.high < 0.3
    assert record.verdict == "better"
    assert (record.seeds, record.listeners, record.sounds) == (2, 8, 12)
    reached = share(rows, "masks_nr_off", "nal_r", bound=1.0)
    assert reached.estimate == pytest.approx(5 / 3, abs=0.1)
    assert reached.verdict == "better"
    assert share(rows, "masks_nr_off", "nal_r", bound=2.0).verdict == "worse"
    noisy = difference(of_truth(planted(noise=3.0)), "masks_nr_off", "nal_r")
    assert noisy.verdict == "cannot be told"


def test_nothing_is_said_of_a_development_seed_and_nothing_without_another():
    made = tables(planted())
    ours = "Masks, given θ, noise reduction off"
    assert cell(made["restoration"], ours, "fidelity, quiet").estimate == pytest.approx(
        0.5, abs=0.02
    )
    assert cell(made["by_hearing"], "NAL-R", "hidden").estimate == pytest.approx(0.3, abs=0.02)
    assert cell(made["restoration"], ours, "fidelity, quiet").seeds == 2
    with pytest.raises(ValueError, match="all seeds are development seeds"):
        tables(planted(seeds=(0,)))


def test_who_hears_normally_is_no_listener_with_a_loss():
    rows = planted()
    normal = rows.assign(group="normal", listener="sound", value=rows.unaided)
    both, alone = tables(pd.concat([rows, normal])), tables(rows)
    for name in ("differences", "restoration"):
        assert both[name] == alone[name]


def test_what_is_said_of_a_noise_is_of_its_rows():
    quiet = planted(seeds=(1,))
    babble = quiet.assign(noise="babble", condition=NOISE, measure="clarity")
    engine = babble.assign(noise="engine", value=0.9 * babble.unaided)
    made = tables(pd.concat([babble, engine]).assign(measure="clarity"))
    rows = where(pd.concat([babble, engine]), judge="truth")
    loud, soft = (mean(where(rows, noise=n), "masks_nr_off") for n in ("babble", "engine"))
    assert loud.estimate == pytest.approx(0.5, abs=0.02)
    assert soft.estimate == pytest.approx(0.1, abs=1e-6)
    assert made["noises"].header == [
        "device", "babble", "engine", "trained noises", "untrained noises"
    ]  # fmt: skip


def test_a_gap_does_not_cancel_in_its_magnitude():
    rows = where(planted(seeds=(1,)), measure="fidelity")
    apart = gap(rows, "masks_nr_off", "model", "truth")
    assert apart["mean"].estimate == pytest.approx(0, abs=0.02)
    assert apart["magnitude"].estimate == pytest.approx(0.1, abs=0.02)
    assert 0.09 < apart["largest"] < 0.13


def test_sounds_that_were_pooled_are_not_drawn():
    pooled = planted(sounds=1).assign(sound="pooled")
    record = difference(of_truth(pooled), "masks_nr_off", "nal_r")
    assert (record.listeners, record.sounds) == (8, 0)


def test_a_device_that_was_not_measured_has_no_number():
    rows = of_truth(planted(seeds=(1,)))
    assert difference(rows, "masks_nr_off", "flat_truth") is None
    assert mean(where(rows, measure="haspi"), "nal_r") is None
    # Sounds that one of two lacks are left out for both.
    short = rows.drop(rows[(rows.device == "nal_r") & (rows.sound == "piece 0")].index)
    assert difference(short, "masks_nr_off", "nal_r").sounds == 5


def test_harm_is_what_is_left_of_normal_answers_in_units_of_a_loss():
    normal = planted(seeds=(1,), listeners=1, sounds=1, noise=0).assign(
        group="normal", listener="sound", value=5.0, unaided=0.0
    )
    lost = planted(seeds=(1,), listeners=2, sounds=1, noise=0).assign(unaided=50.0)
    table = harm(pd.concat([normal, lost]))
    assert table.rows[0][1:] == pytest.approx([0.1, 0.1])


def test_the_report_has_tables_figures_and_sounds(made):
    _, out, summary, _ = made
    text, page = (out / "tables.md").read_text(), (out / "report.html").read_text()
    assert text.count("\n## ") == len([t for t in summary.values() if t.rows])
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert drawn >= {"restoration", "by_hearing", "new-gains", "new-responses"}
    assert page.count("data:image/png;base64,") == len(drawn)
    assert page.count("data:audio/flac;base64,") == 9


def test_every_device_has_a_label():
    settings = [ending for ending in SETTINGS if ending != "_nr_alone"]
    named = {device: device for device in DEVICES}
    for ending in settings:
        named |= {device: device.removesuffix(ending) for device in DEVICES if ending in device}
    assert set(named.values()) <= set(LABELS)


def test_nothing_is_done_again(made, monkeypatch):
    config, out, summary, _ = made
    monkeypatch.setattr(aids.train_compensation, "train", lambda _: pytest.fail("trained again"))
    judged = out / "seed-1" / "judged" / "new.csv"
    before = judged.stat().st_mtime_ns
    assert aids.benchmark(config) == summary
    assert judged.stat().st_mtime_ns == before


def test_a_finished_seed_may_come_from_elsewhere(made, tmp_path, monkeypatch):
    config, out, summary, _ = made
    kept = [*(out / "seed-1").glob("**/*.csv"), out / "seed-1" / "stages.json"]
    for path in kept:
        copy = tmp_path / path.relative_to(out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(aids.cohorts, "aligned", lambda *_: pytest.fail("simulated again"))
    again = dataclasses.replace(config, out=str(tmp_path))
    assert aids.benchmark(again) == summary
    assert "data:audio" not in (tmp_path / "report.html").read_text()


def test_an_incomplete_seed_is_no_result(tmp_path):
    (tmp_path / "seed-3").mkdir()
    with pytest.raises(ValueError, match="no seed is complete"):
        gather(tmp_path, 0)
    with pytest.raises(ValueError, match="no seed is complete"):
        report.write(tmp_path, 0)


# --- what is kept -------------------------------------------------------------------------------


def test_rows_are_kept_and_a_page_is_made_of_them(made, rows, tmp_path):
    page = tmp_path / "page.md"
    mark = "<!-- table aids.csv.gz {} -->\nstale cells\n<!-- end of table -->\n"
    page.write_text(f"Before.\n{mark.format('restoration')}Between.\n{mark.format('shares')}After.")
    config = documents.Config(str(page), str(tmp_path), str(tmp_path), folder=str(made[1]))
    documents.document(config)
    text = page.read_text()
    assert "stale cells" not in text
    assert all(word in text for word in ("Before.", "Between.", "After.", "| NAL-R |"))
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "aids-restoration.png", "aids-groups.png"
    }  # fmt: skip
    kept = read(tmp_path / "aids.csv.gz")
    assert len(kept) == len(rows)
    assert kept.value.tolist() == pytest.approx(rows.value.tolist(), rel=1e-4)
    # Once made, it stays.
    documents.document(dataclasses.replace(config, folder=None))
    assert page.read_text() == text


def test_a_page_that_names_what_is_not_there_is_refused(made, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table aids.csv.gz riddles -->\n<!-- end of table -->")
    config = documents.Config(str(page), str(tmp_path), str(tmp_path))
    with pytest.raises(ValueError, match="no such file"):
        documents.document(config)
    with pytest.raises(ValueError, match="no table is called riddles; there are restoration"):
        documents.document(dataclasses.replace(config, folder=str(made[1])))


def test_the_tables_of_the_documentation_are_those_of_the_kept_rows():
    text, made = Path("docs/aids.md").read_text(encoding="utf-8"), {}

    def table(file: str, name: str):
        if file not in made:
            made[file] = tables(read(f"docs/results/{file}"))
        return made[file][name]

    assert len(documents.MARKED.findall(text)) >= 6
    assert documents.fill(text, table) == text
