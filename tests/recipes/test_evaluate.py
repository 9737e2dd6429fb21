"""Folders of anyone's sound become scores; what has none is named, and nothing is done twice."""

import csv
import dataclasses
import functools
import json
import multiprocessing
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from evaluation.comparison import CANNOT_BE_TOLD
from evaluation.folders import devices, match, prepare
from evaluation.midbrains import model_midbrains
from evaluation.quality import si_sdr
from evaluation.summary import compared
from icsim.audiogram import Audiogram
from icsim.models.encoders import SincNetConfig
from icsim.models.facts import ModelFacts
from icsim.models.load import save_model
from icsim.models.response import ResponseModel, beta_icnet
from icsim.sound import REFERENCE_PA
from icsim.weights import fingerprint
from recipes import evaluate
from recipes.evaluate import Config, wanted_scores
from recipes.reports import scores as report
from recipes.running import jobs

RATE = 16000
QUICK = ["stoi", "si_sdr_db", "output_db_spl", "level_change_db"]


def pairs_of(config):
    scales = evaluate.full_scales(config)
    return match(config.clean, evaluate.folders(config), scales, config.noisy)


def voice(seed: int, duration_s: float = 1.3, rate: int = RATE) -> np.ndarray:
    """Syllables of a voice at 70 dB SPL, `(T,)`."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(duration_s * rate)) / rate
    phase = 2 * np.pi * (110 + 10 * seed) * time + 3 * np.sin(2 * np.pi * 1.3 * time)
    sound = sum(np.sin(n * phase) / n for n in range(1, 25))
    sound = sound + 0.3 * draw.standard_normal(len(time))
    sound = sound * (0.1 + np.sin(2 * np.pi * 2.1 * time + seed) ** 2)
    return (sound / np.sqrt(np.mean(sound**2)) * 10 ** (-30 / 20)).astype(np.float32)


def noisy(sound: np.ndarray, seed: int, share: float = 0.5) -> np.ndarray:
    made = np.random.default_rng(1000 + seed).standard_normal(len(sound))
    return (sound + share * np.sqrt(np.mean(sound**2)) * made).astype(np.float32)


def late(sound: np.ndarray, samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(samples, np.float32), sound])[: len(sound)]


def save(folder: Path, name: str, sound: np.ndarray, rate: int = RATE) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, "FLOAT" if path.suffix == ".wav" else "PCM_24")


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """Three files of one device, which is 5 ms late and makes all twice as large; no figures."""
    monkeypatch.setattr(report, "_figures", lambda rows: [(n, "data:,") for n in rows[0]["scores"]])
    for seed, name in enumerate(("a.wav", "b.wav", "deeper/c.wav")):
        sound = voice(seed)
        save(tmp_path / "clean", name, sound)
        save(tmp_path / "noisy", name, noisy(sound, seed))
        save(tmp_path / "aid", name, 2 * late(noisy(sound, seed, 0.2), 80))
    paths = {name: str(tmp_path / name) for name in ("clean", "noisy", "out")}
    return Config(processed=str(tmp_path / "aid"), scores=QUICK, examples=0, workers=1, **paths)


def rows(config: Config) -> dict[tuple[str, str], dict]:
    with (Path(config.out) / "scores.csv").open(newline="", encoding="utf-8") as file:
        return {(row["device"], row["file"]): row for row in csv.DictReader(file)}


# --- what is scored -----------------------------------------------------------------------------


def test_every_file_is_scored_in_time_at_its_level(config):
    found = evaluate.evaluate(config)
    assert (found["files"], found["failures"], found["warnings"]) == (3, [], [])
    table = rows(config)
    assert list(table) == [("aid", "a"), ("aid", "b"), ("aid", "deeper/c")]
    for row in table.values():
        assert float(row["delay_ms"]) == 5.0
        # RMS 1 is 100 dB SPL: the voice has 70, the device adds 6 and a little noise.
        assert float(row["clean_db_spl"]) == pytest.approx(70, abs=0.1)
        assert float(row["output_db_spl"]) == pytest.approx(76.2, abs=0.2)
        # Against what went in, with its noise.
        assert float(row["level_change_db"]) == pytest.approx(5.2, abs=0.2)
        assert float(row["si_sdr_db"]) == pytest.approx(14, abs=0.5)
        assert float(row["stoi"]) > 0.9
    stored = json.loads((Path(config.out) / "scores.json").read_text(encoding="utf-8"))
    assert stored["summary"] == found["summary"]
    assert [row["file"] for row in stored["rows"]] == ["a", "b", "deeper/c"]


def test_levels_follow_the_full_scale_or_the_level_asked_for(config, tmp_path):
    quiet = dataclasses.replace(config, full_scale_db_spl=60.0, out=str(tmp_path / "quiet"))
    found = evaluate.evaluate(quiet)
    assert float(rows(quiet)["aid", "a"]["output_db_spl"]) == pytest.approx(36.2, abs=0.2)
    assert "30 dB SPL, no level of speech" in found["warnings"][0]
    set_to = dataclasses.replace(quiet, clean_db_spl=65.0, out=str(tmp_path / "set"))
    assert evaluate.evaluate(set_to)["warnings"] == []
    row = rows(set_to)["aid", "a"]
    assert float(row["output_db_spl"]) == pytest.approx(71.2, abs=0.2)
    assert float(row["level_change_db"]) == pytest.approx(5.2, abs=0.2)


def test_each_folder_may_have_a_full_scale_of_its_own(config, tmp_path):
    """The same sounds, written with other full scales, are the same sounds once that is said."""
    evaluate.evaluate(config)
    steps_db = {"clean": 5.0, "noisy": -3.0, "aid": 8.7}
    for folder, step_db in steps_db.items():
        for path in (tmp_path / folder).rglob("*.wav"):
            sound, rate = soundfile.read(path, dtype="float32")
            soundfile.write(path, 10 ** (-step_db / 20) * sound, rate, "FLOAT")
    other = dataclasses.replace(
        config,
        clean_full_scale_db_spl=105.0,
        noisy_full_scale_db_spl=97.0,
        processed_full_scale_db_spl=[108.7],
        out=str(tmp_path / "other"),
    )
    found = evaluate.evaluate(other)
    assert found["warnings"] == []
    assert [row["full_scale_db_spl"] for row in found["levels"]] == [105.0, 97.0, 108.7]
    for key, row in rows(other).items():
        for score in QUICK:
            assert float(row[score]) == pytest.approx(float(rows(config)[key][score]), abs=1e-3)


def test_levels_that_disagree_are_warned_of_with_the_remedy(config, tmp_path):
    for folder, factor_db in (("noisy", -8.7), ("aid", -15.0)):
        for path in (tmp_path / folder).rglob("*.wav"):
            sound, rate = soundfile.read(path, dtype="float32")
            soundfile.write(path, 10 ** (factor_db / 20) * sound, rate, "FLOAT")
    found = evaluate.evaluate(config)
    of_noisy, of_aid = found["warnings"]
    assert "the noisy files hold the clean speech 8.7 dB softer" in of_noisy
    assert "--noisy_full_scale_db_spl 108.7 in place of 100" in of_noisy
    assert "aid: the files are 8.8 dB softer than the clean speech (median of 3)" in of_aid
    assert "--processed_full_scale_db_spl" in of_aid
    page = (Path(config.out) / "report.html").read_text(encoding="utf-8")
    assert "8.7 dB softer" in page
    assert "8.8 dB softer" in page
    mended = dataclasses.replace(
        config,
        noisy_full_scale_db_spl=108.7,
        processed_full_scale_db_spl=115.0,
        out=str(tmp_path / "mended"),
    )
    assert evaluate.evaluate(mended)["warnings"] == []


def test_noise_that_hides_the_speech_is_no_reason_for_a_warning(config, tmp_path):
    for path in (tmp_path / "noisy").rglob("*.wav"):
        sound, rate = soundfile.read(path, dtype="float32")
        soundfile.write(path, noisy(sound, 5, 8.0), rate, "FLOAT")
    assert evaluate.evaluate(config)["warnings"] == []


def test_names_that_are_formulas_do_nothing_in_a_spreadsheet(config, tmp_path):
    for folder in ("clean", "noisy", "aid"):
        save(tmp_path / folder, "=1+1.wav", voice(3))
    evaluate.evaluate(config)
    assert ("aid", "'=1+1") in rows(config)
    stored = json.loads((Path(config.out) / "scores.json").read_text(encoding="utf-8"))
    assert "=1+1" in [row["file"] for row in stored["rows"]]


def test_a_score_that_came_about_in_another_way_has_a_note(config, tmp_path):
    pytest.importorskip("pesq")
    sound = np.concatenate([voice(seed, 1.3, 8000) for seed in range(17)])
    for folder, made in (("clean", sound), ("aid", noisy(sound, 1))):
        shutil.rmtree(tmp_path / folder)
        save(tmp_path / folder, "long.wav", made, 8000)
    alone = dataclasses.replace(config, noisy=None, scores=["pesq_narrow"])
    evaluate.evaluate(alone)
    row = rows(alone)["aid", "long"]
    assert row["missing"] == ""
    assert row["notes"] == "pesq_narrow: mean of 2 pieces of 11.1 s"
    page = (Path(alone.out) / "report.html").read_text(encoding="utf-8")
    assert "mean of 2 pieces" in page


def test_without_a_noisy_folder_levels_are_compared_with_the_clean_one(config, tmp_path):
    alone = dataclasses.replace(config, noisy=None)
    evaluate.evaluate(alone)
    assert float(rows(alone)["aid", "b"]["level_change_db"]) == pytest.approx(6.2, abs=0.2)


def test_hearing_aid_scores_are_those_of_pyclarity(tmp_path):
    pytest.importorskip("clarity.evaluator.haspi")
    from clarity.evaluator.haspi import haspi_v2
    from clarity.evaluator.hasqi import hasqi_v2
    from clarity.utils.audiogram import Audiogram as ClarityAudiogram

    clean = voice(1, 1.1, 24000)
    aided = (3 * noisy(clean, 1, 0.3)).astype(np.float32)
    save(tmp_path / "clean", "a.wav", clean, 24000)
    save(tmp_path / "aid", "a.wav", aided, 24000)
    Audiogram((250, 500, 1000, 2000, 4000, 6000), (10, 20, 30, 40, 50, 60)).write(
        tmp_path / "ear.csv"
    )
    config = Config(
        str(tmp_path / "clean"),
        str(tmp_path / "aid"),
        audiogram=str(tmp_path / "ear.csv"),
        scores=["haspi", "hasqi"],
        out=str(tmp_path / "out"),
        full_scale_db_spl=94.0,
        workers=1,
    )
    evaluate.evaluate(config)
    ear = ClarityAudiogram(
        np.array([10.0, 20, 30, 40, 50, 60]), np.array([250, 500, 1000, 2000, 4000, 6000])
    )
    row = rows(config)["aid", "a"]
    for name, metric in (("haspi", haspi_v2), ("hasqi", hasqi_v2)):
        np.random.seed(0)  # noqa: NPY002
        direct = metric(
            clean.astype(float), 24000, aided.astype(float), 24000, audiogram=ear, level1=94.0
        )[0]
        assert float(row[name]) == pytest.approx(direct, abs=1e-6)


@pytest.fixture(scope="module")
def listener(tmp_path_factory) -> dict[str, str]:
    """A tiny untrained model, and θ of someone."""
    folder = tmp_path_factory.mktemp("listener")
    torch.manual_seed(1)
    encoder = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=5, input_scale=20.0)
    model = ResponseModel(beta_icnet(3, 4, 2, encoder, fusion_size=4))
    facts = ModelFacts(("h1", "i1", "h2"), ("h1", "h2"), torch.arange(4).expand(3, -1), 4)
    save_model(folder / "model.safetensors", model, facts)
    fit = {"animal": "x", "theta": [0.9, 0.1]}
    fit["model"] = fingerprint(folder / "model.safetensors")
    (folder / "fit.json").write_text(json.dumps(fit))
    return {"model": str(folder / "model.safetensors"), "theta": str(folder / "fit.json")}


def test_restoration_is_none_for_what_went_in_and_pooled_over_files(config, listener):
    config = dataclasses.replace(
        config,
        processed=[config.noisy, config.processed],
        theta=listener["theta"],
        model=listener["model"],
        scores=["restoration"],
    )
    found = evaluate.evaluate(config)
    table = rows(config)
    assert all(float(row["restoration"]) == 0 for (d, _), row in table.items() if d == "noisy")
    aided = [row for (device, _), row in table.items() if device == "aid"]
    sums = [
        sum(float(row[f"discrepancy_{which}"]) for row in aided) for which in ("aided", "unaided")
    ]
    means = {row["device"]: row["mean"] for row in found["summary"]}
    assert means["aid"] == pytest.approx(1 - sums[0] / sums[1], rel=1e-4)
    assert found["differences"][0]["difference"] == pytest.approx(means["aid"], rel=1e-4)


def test_long_sounds_are_heard_piece_by_piece_as_in_one(listener, monkeypatch):
    sound = 0.02 * torch.randn(1, 9600, generator=torch.Generator().manual_seed(0))
    impaired, normal = model_midbrains(listener["model"], listener["theta"])
    whole = impaired(sound), normal(sound)
    monkeypatch.setattr("evaluation.midbrains.CHUNK_BINS", 64)
    for one, pieces in zip(whole, (impaired(sound), normal(sound)), strict=True):
        assert one.shape == (1, 4, 300)
        torch.testing.assert_close(one, pieces)
    assert not torch.allclose(*whole)


# --- what cannot be scored ----------------------------------------------------------------------


def test_bad_files_are_named_with_their_reasons_and_the_exit_code_says_so(
    config, tmp_path, monkeypatch, capsys
):
    clean, aid = tmp_path / "clean", tmp_path / "aid"
    names = ("truncated", "silent", "rate", "stereo", "short", "lonely")
    for seed, name in enumerate(names, 3):
        sound = voice(seed, 0.3 if name == "short" else 1.3)
        save(clean, f"{name}.wav", sound)
        save(tmp_path / "noisy", f"{name}.wav", sound)
        if name == "truncated":
            sound = sound[: RATE // 2]
        if name == "silent":
            sound = 0 * sound
        if name == "stereo":
            sound = np.stack([sound, sound], 1)
        if name == "rate":
            save(aid, "rate.flac", voice(seed, 1.3, 8000), 8000)
        elif name != "lonely":
            save(aid, f"{name}.wav", sound)
    save(aid, "stranger.wav", voice(20))
    save(tmp_path / "aid", "broken.flac", voice(21))
    save(clean, "broken.wav", voice(21))
    whole = (aid / "broken.flac").read_bytes()
    (aid / "broken.flac").write_bytes(whole[: len(whole) // 2])
    arguments = [f"--{f.name}={getattr(config, f.name)}" for f in dataclasses.fields(config)]
    arguments = [one for one in arguments if not one.endswith("=None")]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    assert evaluate.main() == 1
    expected = {
        "truncated": "processed: ends 0.80 s before clean; is it truncated?",
        "silent": "not scored: processed: is silent",
        "stereo": "processed: has 2 channels; choose one with --channel 0",
        "short": "stoi: too little speech",
        "lonely": "not scored: no processed file of this name",
        "stranger": "not scored: no clean file of this name",
        "broken": "processed: ",
    }
    table = rows(config)
    assert len(table) == 11
    for name, reason in expected.items():
        assert reason in table["aid", name]["missing"], name
    # Nothing is wrong with another rate, but it is said.
    assert table["aid", "rate"]["missing"] == ""
    assert table["aid", "rate"]["notes"] == "processed: resampled from 8000 to 16000 Hz"
    # What can be scored of the short one is.
    assert float(table["aid", "short"]["si_sdr_db"]) == 100
    errors = capsys.readouterr().err
    assert "7 of 11 files lack a score" in errors
    assert "1 of 11 files have a note:\n  aid: rate: processed: resampled" in errors
    for name in expected:
        assert f"aid: {name}: " in errors
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for reason in (*list(expected.values())[:6], "resampled from 8000"):
        assert reason in page


def test_all_is_well_is_zero_and_a_wrong_argument_is_two(config, tmp_path, monkeypatch, capsys):
    start = ["evaluate", f"--clean={config.clean}", f"--out={config.out}", "--workers=1"]
    start += ["--scores=[si_sdr_db]", "--examples=0"]
    monkeypatch.setattr(sys, "argv", [*start, "--processed", config.processed])
    assert evaluate.main() == 0
    for arguments, message in (
        (["--processed", config.noisy], "other processed"),  # another run's folder
        (["--processed", config.processed, "--nonsense=1"], "nonsense"),
    ):
        monkeypatch.setattr(sys, "argv", [*start, *arguments])
        with pytest.raises(SystemExit) as stop:
            evaluate.main()
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_what_is_odd_is_noted(config, tmp_path):
    sound = voice(0)
    clipped = np.clip(noisy(sound, 0, 0.2), -0.05, 0.05)
    save(tmp_path / "aid", "a.wav", np.concatenate([clipped, np.zeros(4000, np.float32)]))
    save(tmp_path / "aid", "b.wav", noisy(0 * voice(1), 1) + noisy(voice(9), 3, 100))
    (tmp_path / "noisy" / "deeper" / "c.wav").unlink()
    found = evaluate.evaluate(config)
    table = rows(config)
    assert re.search(r"flat at its peak \d+ times, clipped", table["aid", "a"]["notes"])
    assert "0.25 s longer than clean, cut" in table["aid", "a"]["notes"]
    assert table["aid", "b"]["delay_ms"] == ""
    assert "delay taken as 0: no shift" in table["aid", "b"]["notes"]
    assert table["aid", "b"]["missing"] == ""
    assert table["aid", "deeper/c"]["missing"] == "level_change_db: no noisy file of this name"
    assert float(table["aid", "deeper/c"]["si_sdr_db"]) > 10
    assert "1 of 3 files have no clear delay" in found["warnings"][0]


def test_a_delay_beyond_the_maximum_is_refused_and_its_length_said(config, tmp_path):
    sound = voice(0, 3.0)
    save(tmp_path / "clean", "a.wav", sound)
    save(tmp_path / "noisy", "a.wav", sound)
    save(tmp_path / "aid", "a.wav", late(sound, 9600))
    evaluate.evaluate(config)
    assert "+0.600 s late, beyond --max_delay_s 0.5" in rows(config)["aid", "a"]["missing"]
    more = dataclasses.replace(config, max_delay_s=1.0, out=str(tmp_path / "more"))
    evaluate.evaluate(more)
    row = rows(more)["aid", "a"]
    assert (float(row["delay_ms"]), float(row["si_sdr_db"])) == (600, 100)


def test_a_channel_can_be_chosen(config, tmp_path):
    sound = voice(0)
    save(tmp_path / "aid", "a.wav", np.stack([noisy(sound, 5, 3.0), sound], 1))
    for channel, least, most in ((0, -20, 0), (1, 100, 100)):
        chosen = dataclasses.replace(config, channel=channel, out=str(tmp_path / str(channel)))
        evaluate.evaluate(chosen)
        assert least <= float(rows(chosen)["aid", "a"]["si_sdr_db"]) <= most
    beyond = dataclasses.replace(config, channel=2, out=str(tmp_path / "2"))
    evaluate.evaluate(beyond)
    assert "has 2 channels, so none is --channel 2" in rows(beyond)["aid", "a"]["missing"]


def test_files_in_other_units_are_refused(config, tmp_path):
    save(tmp_path / "aid", "a.wav", 32768 * voice(0))
    evaluate.evaluate(config)
    missing = rows(config)["aid", "a"]["missing"]
    assert "correct the file or --processed_full_scale_db_spl" in missing


# --- resuming -----------------------------------------------------------------------------------


def counted(monkeypatch) -> list[str]:
    made: list[str] = []
    score = evaluate.score

    def counting(config, pair):
        made.append(pair.name)
        return score(config, pair)

    monkeypatch.setattr(evaluate, "score", counting)
    return made


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(config, tmp_path, monkeypatch):
    evaluate.evaluate(config)
    out = tmp_path / "out"
    names = ("scores.csv", "scores.json", "report.html")
    unbroken = {name: (out / name).read_bytes() for name in names}
    lines = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
    # The second row was being written when the power failed.
    (out / "rows.jsonl").write_bytes(lines[0] + lines[1][:40])
    for name in names:
        (out / name).unlink()
    made = counted(monkeypatch)
    evaluate.evaluate(config)
    assert made == ["b", "deeper/c"]
    assert {name: (out / name).read_bytes() for name in names} == unbroken
    evaluate.evaluate(dataclasses.replace(config, workers=2, examples=0))
    assert made == ["b", "deeper/c"]


def test_finished_rows_survive_an_interruption(config, tmp_path, monkeypatch):
    def interrupted(work, pairs, count, crashed):
        yield work(pairs[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as change:
        change.setattr(evaluate, "surviving", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate.evaluate(config)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "rows.jsonl",
    ]
    made = counted(monkeypatch)
    evaluate.evaluate(config)
    assert made == ["b", "deeper/c"]


def test_what_has_changed_is_scored_again(config, tmp_path, monkeypatch):
    made = counted(monkeypatch)
    evaluate.evaluate(config)
    path = tmp_path / "aid" / "b.wav"
    later = path.stat().st_mtime + 5
    os.utime(path, (later, later))
    (tmp_path / "clean" / "a.wav").unlink()
    made.clear()
    evaluate.evaluate(config)
    assert made == ["a", "b"]
    made.clear()
    (tmp_path / "aid" / "a.wav").unlink()
    assert evaluate.evaluate(config)["files"] == 2
    assert made == []


def test_what_lacked_a_package_is_tried_again(config, monkeypatch):
    pytest.importorskip("pystoi")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pystoi", None)
        evaluate.evaluate(config)
    assert "pystoi" in rows(config)["aid", "a"]["missing"]
    evaluate.evaluate(config)
    assert rows(config)["aid", "a"]["missing"] == ""


def test_other_settings_are_not_mixed_into_one_folder(config):
    evaluate.evaluate(config)
    with pytest.raises(ValueError, match="other full_scale_db_spl"):
        evaluate.evaluate(dataclasses.replace(config, full_scale_db_spl=90.0))


def crashes(pair):
    """A metric written in C that dies on one file."""
    if pair.name == "b":
        os._exit(11)
    return {"file": pair.name, "reasons": {}}


def test_a_file_that_kills_its_process_costs_that_file_alone(config, monkeypatch):
    # Forked, not spawned: nothing is imported again, and no thread is needed.
    monkeypatch.setattr(jobs, "get_context", lambda _: multiprocessing.get_context("fork"))
    both = dataclasses.replace(config, workers=2)
    crashed = functools.partial(evaluate.crashed, both)
    made = jobs.surviving(crashes, pairs_of(both), 2, crashed)
    found = {row["file"]: row for row in made}
    assert sorted(found) == ["a", "b", "deeper/c"]
    assert set(found["b"]["reasons"].values()) == {evaluate.CRASHED}
    assert found["a"]["reasons"] == found["deeper/c"]["reasons"] == {}


# --- several devices ----------------------------------------------------------------------------


def test_devices_are_compared_file_by_file(config):
    several = dataclasses.replace(config, processed=[config.noisy, config.processed])
    found = evaluate.evaluate(several)
    differences = {row["score"]: row for row in found["differences"]}
    assert {(row["first"], row["second"]) for row in found["differences"]} == {("noisy", "aid")}
    assert differences["si_sdr_db"]["difference"] == pytest.approx(8, abs=0.5)
    assert differences["si_sdr_db"]["low"] > 7
    # Three files tell nothing, however large the difference.
    assert {row["verdict"] for row in found["differences"]} == {CANNOT_BE_TOLD}
    page = (Path(config.out) / "report.html").read_text(encoding="utf-8")
    assert "<h2>Differences</h2>" in page
    assert "cannot be told (n = 3)" in page
    assert "better (n" not in page


def judged(score: str, steps: list[float]) -> str:
    """The verdict on a device that scores higher by these steps, a file each."""
    rows = [
        {"device": device, "file": str(n), "scores": {score: 0.5 + step * (device == "b")}}
        for device in "ab"
        for n, step in enumerate(steps)
    ]
    (found,) = compared(rows, seed=0)
    assert found["files"] == len(steps)
    return found["verdict"]


def test_number_of_files_and_paired_interval_decide_who_is_better():
    assert judged("estoi", [0.1, 0.2]) == CANNOT_BE_TOLD
    assert judged("estoi", [0.1, 0.2] * 4) == CANNOT_BE_TOLD
    assert judged("estoi", [0.1, 0.2] * 5) == "better"
    assert judged("estoi", [-0.1, -0.2] * 5) == "worse"
    assert judged("estoi", [-0.1, 0.2] * 5) == CANNOT_BE_TOLD
    assert judged("level_change_db", [0.1, 0.2] * 5) == "higher"


def test_devices_are_compared_on_the_files_that_both_have():
    def row(device, file, **scores):
        return {"device": device, "file": str(file), "scores": scores}

    rows = [row("a", n, estoi=n / 20, haspi=None) for n in range(20)]
    rows += [row("b", n, estoi=n / 20 - 1, haspi=0.5) for n in range(1, 20)]
    estoi, haspi = compared(rows, seed=0)
    assert (estoi["first"], estoi["second"], estoi["files"]) == ("a", "b", 19)
    # The same step for every file: certain, however much files differ.
    for key in ("difference", "low", "high"):
        assert estoi[key] == pytest.approx(-1, abs=1e-6)
    assert (haspi["files"], haspi["difference"], haspi["verdict"]) == (0, None, CANNOT_BE_TOLD)
    assert compared(rows[:20], seed=0) == []
    (one,) = compared([row("a", 0, estoi=0.5), row("b", 0, estoi=0.6)], seed=0)
    assert (one["files"], one["low"], one["verdict"]) == (1, None, CANNOT_BE_TOLD)
    assert one["difference"] == pytest.approx(0.1)


def test_folders_are_called_by_what_tells_them_apart():
    assert devices(["a/out"]) == {"out": "a/out"}
    assert list(devices(["x/a/out", "x/b/out", "x/c"])) == ["a/out", "b/out", "x/c"]
    with pytest.raises(ValueError, match="twice"):
        devices(["a", "a/../a"])


@pytest.mark.parametrize(
    ("given", "processed"),
    [
        (["--processed", "A"], "A"),
        (["--processed", "[A, B]"], ["A", "B"]),
        (["--processed", "A", "--processed=B", "--workers", "1"], ["A", "B"]),
    ],
)
def test_processed_folders_are_given_alone_as_a_list_or_one_by_one(given, processed):
    from recipes.running.commands import parse

    found = parse(Config, evaluate.joined(["--clean", "C", *given]))
    assert (found.clean, found.processed) == ("C", processed)


# --- the report and the library -----------------------------------------------------------------


def test_the_report_needs_nothing_from_anywhere(config, tmp_path):
    """Markup in the name of a file is no markup of the page."""
    save(tmp_path / "clean", "<b>&x.wav", voice(7))
    save(tmp_path / "aid", "<b>&x.wav", voice(7))
    save(tmp_path / "noisy", "<b>&x.wav", voice(7))
    evaluate.evaluate(dataclasses.replace(config, examples=2))
    page = (Path(config.out) / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]+)""", page)
    assert sources
    assert all(one.startswith(("data:", "#")) for one in sources)
    for outside in ("http:", "https:", "@import", "url(", "fetch(", "import("):
        assert outside not in page
    assert page.count("<audio") == 6
    assert "&lt;b&gt;&amp;x" in page
    assert "<b>&x" not in page


def test_figures_hold_every_device(config):
    figure = report.distributions({"one": [0.1, 0.4, 0.5], "a device of long name": []}, "STOI")
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "…vice of long name"]
    assert [text.get_text() for text in axis.texts] == ["missing"]
    assert len(axis.collections[0].get_offsets()) == 3
    sounds = {"clean": torch.from_numpy(voice(0)), "short": torch.ones(50)}
    assert len(report.spectrograms(sounds, RATE).axes) == 2


def test_what_is_prepared_is_what_the_library_scores(config):
    evaluate.evaluate(config)
    sounds = prepare(pairs_of(config)[0], evaluate.reading(config))
    clean = soundfile.read(Path(config.clean) / "a.wav", dtype="float32")[0]
    assert len(sounds.clean) == len(sounds.processed) == len(sounds.noisy) == len(clean) - 80
    pressure = torch.from_numpy(clean[:-80]) * REFERENCE_PA * 10**5
    torch.testing.assert_close(sounds.clean, pressure)
    score = si_sdr(sounds.clean[None], sounds.processed[None], sounds.rate_hz)
    assert float(rows(config)["aid", "a"]["si_sdr_db"]) == pytest.approx(score.values.item(), 1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta": "fit.json"}, "--theta and --model together"),
        ({"model": "m.safetensors"}, "--theta and --model together"),
        ({"scores": ["loudness"]}, "loudness: no such score; there are stoi"),
        ({"scores": ["haspi"]}, "haspi needs a listener: give --audiogram"),
        ({"scores": ["restoration"]}, "give --theta and --model"),
        ({"scores": []}, "no score is asked for"),
        ({"audiogram": "N9"}, "N9: no standard audiogram"),
        ({"audiogram": "nowhere.csv"}, "nowhere.csv: no audiogram"),
        ({"clean": "nowhere"}, "nowhere: no such folder"),
        ({"noisy": "nowhere"}, "nowhere: no such folder"),
        ({"processed": []}, "no folder of processed sounds"),
        ({"processed": ["aid", "aid"]}, "twice"),
        ({"workers": 0}, "workers.*0 does not conform"),
        ({"channel": -1}, "channel.* does not conform.*-1"),
        ({"max_delay_s": float("nan")}, "max_delay_s.*nan does not conform"),
        ({"full_scale_db_spl": float("inf")}, "full_scale_db_spl.*inf does not conform"),
        ({"clean_full_scale_db_spl": float("nan")}, "clean_full_scale_db_spl.* does not conform"),
        ({"processed_full_scale_db_spl": [94.0, 94.0]}, "has 2 levels for 1 processed folders"),
        ({"processed_full_scale_db_spl": [float("inf")]}, "processed_full_scale_db_spl.*inf"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_made(
    config, tmp_path, monkeypatch, changes, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate(dataclasses.replace(config, **changes))
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_go_together_are_refused(config, tmp_path):
    save(tmp_path / "other", "z.wav", voice(0))
    with pytest.raises(ValueError, match=r"no file is called as one in .*\(z, but a\)"):
        evaluate.evaluate(dataclasses.replace(config, processed=str(tmp_path / "other")))
    save(tmp_path / "aid", "a.flac", voice(0))
    with pytest.raises(ValueError, match="have one name"):
        evaluate.evaluate(config)


def test_a_listener_of_another_model_is_refused(config, listener, tmp_path):
    for fit, message in (
        ({"theta": [0.1, 0.2], "animal": "x", "model": "beef"}, "fitted to another model"),
        ({"theta": [0.1], "animal": "x"}, "1 numbers, but .* takes 2"),
        ({"theta": [0.1, 2.0], "animal": "x"}, "within 0 and 1"),
    ):
        (tmp_path / "fit.json").write_text(json.dumps(fit))
        asked = dataclasses.replace(
            config, scores=None, theta=str(tmp_path / "fit.json"), model=listener["model"]
        )
        with pytest.raises(ValueError, match=message):
            evaluate.evaluate(asked)
        model_midbrains.cache_clear()


def test_scores_follow_from_who_listens(config):
    everything = dataclasses.replace(config, scores=None)
    assert "haspi" not in wanted_scores(everything)
    with_ear = dataclasses.replace(everything, audiogram="N3")
    assert {"haspi", "hasqi"} < set(wanted_scores(with_ear))
    assert "restoration" not in wanted_scores(with_ear)
