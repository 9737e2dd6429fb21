"""The benchmark of aids at the smallest size: every path, every figure, and what it keeps."""

import dataclasses
import json

import pytest

from recipes import benchmark_compensation
from recipes.benchmark_compensation import ABLATIONS, report
from recipes.benchmark_compensation.summary import read
from recipes.state import parse

DEVICES = {
    "unprocessed", "nal_r", "nal_r_compressed", "linear", "linear_truth", "masks",
    "masks_audiogram", "waveform", "masks_auditory", "own", "ceiling",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The benchmark of size tiny, run once: its folder and its summary."""
    file = "recipes/configs/benchmark_compensation/tiny.yaml"
    out = tmp_path_factory.mktemp("benchmark") / "tiny"
    config = parse(benchmark_compensation.Config, ["--config", file, "--out", str(out)])
    return config, out, benchmark_compensation.benchmark(config)


def test_every_device_is_measured_on_the_truth_and_in_the_model(made):
    _, out, summary = made
    assert json.loads((out / "summary.json").read_text()) == summary
    for way in ("restoration", "restoration_model"):
        assert set(summary[way]) == DEVICES
        for found in summary[way].values():
            assert set(found["by_level"]) == {"50 dB SPL", "65 dB SPL", "80 dB SPL"}
            assert found["quiet"] <= 1
        assert summary[way]["unprocessed"]["quiet"] == 0
        assert summary[way]["unprocessed"]["noise"] == 0
    # Six steps teach an aid nothing, but fixed gains are found on the true animal itself.
    best = summary["restoration"]["linear_truth"]["quiet"]
    assert best > 0.1
    assert best > summary["restoration"]["masks"]["quiet"]


def test_quality_noise_artefacts_and_streams_are_measured(made):
    summary = made[2]
    assert all(0 <= value <= 1 for name in ("haspi", "hasqi") for value in summary[name].values())
    assert set(summary["noise_reduction"]) == DEVICES - {
        "unprocessed", "nal_r", "nal_r_compressed", "linear", "linear_truth", "own", "ceiling"
    }  # fmt: skip
    for found in summary["noise_reduction"].values():
        assert set(found) == {"0", "0.5", "1"}
    for found in summary["artefacts"].values():
        assert found["spur_db"] < -50
        assert found["silence_db"] == -200
    for found in summary["streaming"].values():
        assert 7 < found["latency_ms"] <= 8
        assert found["real_time_factor"] > 0


def test_what_guards_is_measured_with_one_thing_changed(made):
    summary = made[2]
    assert set(summary["ablations"]) == {"masks", *ABLATIONS}
    for found in summary["ablations"].values():
        assert set(found["guards"]) == {"roughness", "flutter", "effort", "hiss", "contrast"}
    same = summary["ablations"]["masks"]["truth"]
    assert same["quiet"] == pytest.approx(summary["restoration"]["masks"]["quiet"])


def test_the_report_has_tables_figures_and_sounds(made):
    _, out, summary = made
    text, page = (out / "tables.md").read_text(), (out / "report.html").read_text()
    assert text.count("\n## ") == 7
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert drawn >= {"restoration", "by_group", "by_level", "new-gains", "new-responses"}
    assert page.count("data:image/png;base64,") == len(drawn)
    assert page.count("data:audio/flac;base64,") == len(summary["restoration"])


def test_nothing_is_done_again(made, monkeypatch):
    config, out, summary = made
    monkeypatch.setattr(
        benchmark_compensation.train_compensation, "train", lambda _: pytest.fail("trained again")
    )
    judged = out / "seed-0" / "judged" / "new.json"
    before = judged.stat().st_mtime_ns
    assert benchmark_compensation.benchmark(config) == summary
    assert judged.stat().st_mtime_ns == before


def test_a_finished_seed_may_come_from_elsewhere(made, tmp_path, monkeypatch):
    config, out, summary = made
    kept = [out / "seed-0" / name for name in ("judged", "ablations")]
    kept += (out / "seed-0").glob("st*.json")
    for path in [*(file for folder in kept[:2] for file in folder.glob("*.json")), *kept[2:]]:
        copy = tmp_path / path.relative_to(out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(
        benchmark_compensation.cohorts, "aligned", lambda *_: pytest.fail("simulated again")
    )
    again = dataclasses.replace(config, out=str(tmp_path))
    assert benchmark_compensation.benchmark(again) == summary
    assert "data:audio" not in (tmp_path / "report.html").read_text()


def test_an_incomplete_seed_is_no_result(made, tmp_path):
    (tmp_path / "seed-3").mkdir()
    with pytest.raises(ValueError, match="no seed is complete"):
        read(tmp_path)
    with pytest.raises(ValueError, match="no seed is complete"):
        report.write(tmp_path)
