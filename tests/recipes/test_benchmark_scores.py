"""The benchmark of HASPI and HASQI, on a synthesised sentence."""

import json

import pytest

from recipes.benchmarks import scores as recipe


def test_both_programs_score_alike_and_are_timed(tmp_path):
    pytest.importorskip("clarity.evaluator.haspi")
    config = recipe.Config(str(tmp_path), files=1, longest_s=1.0, batch=2, processes=1)
    summary = recipe.benchmark(config)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    numbers = json.loads((tmp_path / "headline.json").read_text())
    assert numbers["haspi/normal/largest_difference"] < 1e-6
    assert summary["files"] == 1
    assert summary["largest_difference"] < 1e-6
    scored = {(row["score"], row["listener"]) for row in summary["rows"]}
    assert scored == {(s, who) for s in ("haspi", "hasqi") for who in recipe.LISTENERS}
    assert all(row["ours_s"] > 0 < row["pyclarity_s"] for row in summary["rows"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": 0}, '"files": .* 0 does not conform'),
        ({"longest_s": 0.5}, "longest_s must be at least 1 s"),
        ({"sounds": "empty"}, "no .wav, .flac"),
    ],
)
def test_nothing_to_score_is_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        recipe.benchmark(recipe.Config(str(tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()
