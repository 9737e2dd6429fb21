"""The script that edits a tree and asks its tests, on a tree of one function."""

import json

import pytest

from tests import mutations

EDITS = """
[tests]
"half.py" = ["test_half.py"]

[[edit]]
file = "half.py"
why = "a double"
old = "x / 2"
new = "x * 2"

[[edit]]
file = "half.py"
why = "never ends"
old = "x / 2"
new = "half(x) if [x for _ in iter(int, 1)] else x"

[[edit]]
file = "recipes/third.py"
why = "a fourth"
old = "x / 3"
new = "x / 4"
tests = ["test_half.py"]
stays = "nobody asks for thirds"
"""


@pytest.fixture
def tree(tmp_path):
    """A tree, and the command that measures it."""
    root = tmp_path / "tree"
    (root / "recipes").mkdir(parents=True)
    (root / "half.py").write_text("def half(x):\n    return x / 2\n")
    (root / "recipes" / "third.py").write_text("def third(x):\n    return x / 3\n")
    test = "from half import half\n\n\ndef test_half():\n    assert half(4) == 2\n"
    (root / "test_half.py").write_text(test)
    (root / "edits.toml").write_text(EDITS)

    def measured():
        places = {"--edits": root / "edits.toml", "--root": root, "--kept": tmp_path / "kept",
                  "--out": tmp_path / "summary.json", "--limit_s": 5}  # fmt: skip
        return mutations.main([str(part) for pair in places.items() for part in pair])

    return root, measured


def test_edits_are_caught_or_survive_and_are_measured_once(tree, monkeypatch):
    root, measured = tree
    summary = measured()
    assert summary["libraries"] == {"caught": 2, "of": 2}
    assert summary["recipes"] == {"caught": 0, "of": 1}
    assert [one["why"] for one in summary["too_long"]] == ["never ends"]
    (survivor,) = summary["survivors"]
    assert survivor["file"] == "recipes/third.py"
    assert survivor["edit"] == "x / 3 → x / 4"
    assert survivor["stays"] == "nobody asks for thirds"
    assert json.loads((root.parent / "summary.json").read_text()) == summary
    assert (root / "half.py").read_text().endswith("x / 2\n")
    monkeypatch.setattr(mutations, "_run", lambda *_: pytest.fail("measured again"))
    assert measured() == summary


def test_edits_that_say_nothing_are_refused(tree):
    root, measured = tree
    (root / "half.py").write_text("def half(x):\n    return x / 2 if x else x / 2\n")
    with pytest.raises(ValueError, match="there 2 times"):
        measured()
    (root / "half.py").write_text("def half(x):\n    return x / 2\n")
    (root / "edits.toml").write_text(EDITS.replace("x * 2", "x *"))
    with pytest.raises(ValueError, match="no Python"):
        measured()
    (root / "edits.toml").write_text(EDITS.replace('"half.py" =', '"other.py" ='))
    with pytest.raises(ValueError, match=r"no tests are named for half\.py"):
        measured()


def test_tests_that_fail_anyway_say_nothing(tree):
    root, measured = tree
    (root / "test_half.py").write_text("def test_half():\n    assert False\n")
    with pytest.raises(ValueError, match="fail without any edit"):
        measured()
