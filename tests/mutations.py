"""Whether tests notice wrong science: edits that a reviewer would reject, one at a time.

    python -m tests.mutations --out docs/results/mutations.json

Each edit of `tests/mutations.toml` is made in a copy of the tree, and the tests that concern its
file are run until the first one fails. An edit that no test notices survives. The same command goes
on where it was stopped; an outcome is kept as long as neither the edited file nor its tests change.
An hour or two of one core, which is why it is no part of the tests.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tqdm import tqdm

ROOT = Path(__file__).parents[1]

NOT_COPIED = (".git", ".venv", "runs", "site", "shared", "__pycache__", ".*_cache")

IMPORTED_FIRST = (
    *("torch", "torch._dynamo", "torch.utils.tensorboard", "numba", "scipy.signal", "botorch"),
    *("ot", "zarr", "matplotlib.pyplot", "accelerate", "jsonargparse", "soundfile", "soxr"),
)
"""Packages that take longer to import than most tests; each process of tests begins with them."""

LIMIT_S = 600.0
"""Tests that take longer are stopped [s]; unedited, those of a file take a minute or two."""

MEMORY_BYTES = 8 * 2**30
"""What a process of tests may allocate: an edited loop may ask for more without end."""

ALL_PASSED, SOME_FAILED, INTERRUPTED = 0, 1, 2
"""Exit codes of pytest; a file that cannot be imported interrupts it."""


@dataclasses.dataclass(frozen=True)
class Edit:
    """A change that makes a file wrong."""

    file: str
    """From the root of the tree."""
    why: str
    """What is wrong with it."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Files that are to notice it, quickest first."""
    stays: str | None = None
    """Why no test notices it, if that is accepted."""

    def made_in(self, text: str) -> str:
        """The file's text with the edit.

        Raises:
            ValueError: If the old text is not there exactly once, or what comes of it is no Python.
        """
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(
                f"{self.file}: {self.old!r} is there {text.count(self.old)} times ({self.why}); "
                "correct the edit"
            )
        edited = text.replace(self.old, self.new)
        try:
            compile(edited, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"{self.file}: {self.new!r} is no Python: {error}") from error
        return edited


def read_edits(path: Path, root: Path) -> list[Edit]:
    """All edits, each of which can be made.

    Raises:
        ValueError: If one cannot, or a file has no tests.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    edits = []
    for entry in content["edit"]:
        tests = entry.pop("tests", None) or content["tests"].get(entry["file"])
        if not tests:
            raise ValueError(f"{path}: no tests are named for {entry['file']}")
        edits.append(Edit(**entry, tests=tuple(tests)))
        edits[-1].made_in((root / entry["file"]).read_text(encoding="utf-8"))
    return edits


def measure(
    edits: list[Edit], root: Path, kept: Path, limit_s: float = LIMIT_S
) -> Iterator[tuple[Edit, str]]:
    """Outcome of each edit: caught, too long (which is caught too), or survived.

    Args:
        edits: What to try.
        root: The tree.
        kept: Folder of earlier outcomes, from which this goes on.
        limit_s: Longest time of an edit's tests [s].

    Raises:
        ValueError: If tests fail without any edit, or name no test.
    """
    outcomes, passed = (_read(kept / name) for name in ("outcomes.json", "unedited.json"))
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        shutil.copytree(root, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        asked = [test for one in edits if _name(one, root) not in outcomes for test in one.tests]
        whole = _digest(*sorted(tree.rglob("*.py")))
        if missing := sorted(set(asked) - set(passed.get(whole, ()))):
            tqdm.write(f"without any edit: {len(missing)} files of tests")
            if _run(tree, tuple(missing), kept / "pytest.txt") != ALL_PASSED:
                raise ValueError(f"tests fail without any edit, see {kept / 'pytest.txt'}")
            _write(kept / "unedited.json", {whole: [*passed.get(whole, ()), *missing]})
        for edit in tqdm(edits, desc="edits", unit="edit"):
            name = _name(edit, root)
            if name not in outcomes:
                outcomes[name] = _outcome(edit, tree, kept / "pytest.txt", limit_s)
                _write(kept / "outcomes.json", outcomes)
            yield edit, outcomes[name]


def summary(outcomes: list[tuple[Edit, str]]) -> dict:
    """How many edits of libraries and recipes were caught, and which were not."""
    groups: dict[str, list[str]] = {"libraries": [], "recipes": []}
    for edit, outcome in outcomes:
        groups["recipes" if edit.file.startswith("recipes/") else "libraries"].append(outcome)
    return {
        **{
            group: {"caught": sum(one != "survived" for one in every), "of": len(every)}
            for group, every in groups.items()
        },
        "survivors": [
            {"file": edit.file, "edit": f"{edit.old} → {edit.new}", "why": edit.why}
            | ({"stays": edit.stays} if edit.stays else {})
            for edit, outcome in outcomes
            if outcome == "survived"
        ],
        "too_long": [
            {"file": edit.file, "why": edit.why}
            for edit, outcome in outcomes
            if outcome == "too long"
        ],
    }


def _outcome(edit: Edit, tree: Path, log: Path, limit_s: float) -> str:
    path = tree / edit.file
    text, made = path.read_text(encoding="utf-8"), path.stat()
    path.write_text(edit.made_in(text), encoding="utf-8")
    try:
        code = _run(tree, edit.tests, log, limit_s)
    finally:
        path.write_text(text, encoding="utf-8")
        # As before, so that what was compiled of it before is used again.
        os.utime(path, ns=(made.st_atime_ns, made.st_mtime_ns))
    if code == ALL_PASSED:
        tqdm.write(f"survived: {edit.file}: {edit.why}")
        return "survived"
    return "too long" if code is None else "caught"


def _run(tree: Path, tests: Sequence[str], log: Path, limit_s: float | None = None) -> int | None:
    """Exit code of the tests, which write to a log; None if they were stopped."""
    log.parent.mkdir(parents=True, exist_ok=True)
    running = multiprocessing.get_context("fork").Process(target=_ask, args=(tree, tests, log))
    running.start()
    try:
        running.join(limit_s)
    finally:
        stopped = running.is_alive()
        if stopped:  # and what tests have started goes with them
            os.killpg(running.pid, signal.SIGKILL)
            running.join()
    if not stopped and running.exitcode not in (ALL_PASSED, SOME_FAILED, INTERRUPTED):
        tqdm.write(f"pytest ended with {running.exitcode} on {', '.join(tests)}, see {log}")
    return None if stopped else running.exitcode


def _ask(tree: Path, tests: Sequence[str], log: Path) -> None:
    """In a process of its own, which has imported other people's packages and none of the tree."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with log.open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout = sys.stderr = said
        ours = {path.stem for path in tree.iterdir()}
        for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
            del sys.modules[name]
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
    os._exit(code)


def _name(edit: Edit, root: Path) -> str:
    """Of an outcome: the edit, the file as it is, and the tests as they are."""
    tests = [root / test.partition("::")[0] for test in edit.tests]
    content = _digest(root / edit.file, *tests)
    return hashlib.sha256(f"{content} {edit}".encode()).hexdigest()[:16]


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    beside.replace(path)


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def main(arguments: list[str] | None = None) -> dict:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the summary goes, as JSON")
    parser.add_argument("--edits", type=Path, default=ROOT / "tests" / "mutations.toml")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the tree")
    parser.add_argument("--kept", type=Path, default=ROOT / "runs" / "mutations")
    parser.add_argument("--limit_s", type=float, default=LIMIT_S, help="of an edit's tests [s]")
    parser.add_argument("--only", default="", help="edits of files that begin so")
    chosen = parser.parse_args(arguments)
    edits = [e for e in read_edits(chosen.edits, chosen.root) if e.file.startswith(chosen.only)]
    report = summary(list(measure(edits, chosen.root, chosen.kept, chosen.limit_s)))
    if chosen.out:
        _write(chosen.out, report)
    return report


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for package in IMPORTED_FIRST:
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    try:
        print(json.dumps(main(), indent=1, ensure_ascii=False))
    except ValueError as error:
        sys.exit(f"error: {error}")
