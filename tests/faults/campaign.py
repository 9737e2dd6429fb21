"""What becomes of work that something happens to: `python -m tests.faults.campaign`.

At the smallest sizes, so that there is time for many tries:

- Commands are killed (SIGKILL) at random moments and started again, until they are done; what they
  made is compared, bit by bit, with what the same command makes uninterrupted.
- Disks that are full or read-only, damaged files, killed helpers, numbers that overflow: the
  command must end with one clear message, and, once the fault is mended, go on as if nothing had
  been.

Run it again to go on; a command whose kills are done is left alone.
"""

import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from icsim.files import write_json, write_whole
from icsim.importers.nwb_export import write_nwb
from icsim.sound import SAMPLE_RATE, read, resample, write
from icsim.store import Cohort
from icsim.weights import load_tensors
from recipes.reports.tables import Table, number
from recipes.running.commands import claim, run
from recipes.running.jobs import BY_TWO
from recipes.running.ranges import Count, NotEmptyStr, Seconds, Seed, checked

TIMES = ("seconds", "wall_s", "token", "created", "begun")
"""What differs from run to run in the JSON that recipes write."""

FULL_AT_BYTES = 16 * 1024
"""Where a disk that is full is simulated: no file may become larger."""

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
"""For the superuser, whom no permission stops: a folder is mounted again for one process."""

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """How often what is killed."""

    out: NotEmptyStr = "runs/faults"
    """Folder of `summary.json` and `table.md`."""
    kills: Count = 12
    """Kills of each command, at least."""
    most_s: Seconds = 15.0
    """Longest time between the command's start-up and a kill [s]."""
    commands: list[str] = dataclasses.field(
        default_factory=lambda: ["demo", "import_recording", "process", "evaluate", "two_processes"]
    )
    """Which commands are killed."""
    seed: Seed = 0
    """Of the moments."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A fault other than a kill."""

    fault: str
    """What happens, in words."""
    recipe: str
    """To which recipe."""
    arguments: list[str]
    """Its arguments; it writes to `out`."""
    out: Path
    """Where to."""
    harm: Callable[[], Callable[[], None]] = lambda: lambda: None
    """Does the damage, and returns what mends it."""
    limit: Callable[[], None] | None = None
    """Called in the new process before it begins."""
    within: tuple[str, ...] = ()
    """A command that runs the recipe's."""
    kill_helpers: bool = False
    """Whether processes that it starts are killed."""
    mended: list[str] | None = None
    """Arguments after the fault, if not the same."""


def benchmark(config: Config) -> dict:
    """Kill and damage; write the table; returns what it says."""
    out = Path(config.out)
    claim(out, config)
    prepare(out)
    for name in config.commands:
        path = out / "kills" / f"{name}.json"
        if not path.is_file():
            write_json(path, killed(name, config, out))
    kills = {n: json.loads((out / "kills" / f"{n}.json").read_text()) for n in config.commands}
    faults = [harmed(case) for case in tqdm(cases(out), desc="faults", unit="fault")]
    found = {"kills": kills, "faults": faults}
    write_json(out / "summary.json", found)
    write_whole(out / "table.md", "\n\n".join(table.markdown() for table in tables(found)))
    return found


def prepare(out: Path) -> None:
    """A demo that nothing happens to, and from it sounds and a recording; once."""
    demo = out / "whole" / "demo"
    if not (demo / "summary.json").is_file():
        _finish(arguments("demo", demo, out))
    cohort = Cohort.open(demo / "cohort" / "cohort.zarr")
    for folder, gain in (("clean", 1.0), ("loud", 2.0)):
        for sound in cohort.sounds[:6]:
            path = out / folder / f"{sound.index}.wav"
            if not path.is_file():
                pressure = gain * cohort.pressure(sound.index)
                write(path, resample(pressure, SAMPLE_RATE, 24_000), 24_000)
    (out / "nwb").mkdir(exist_ok=True)
    for name in cohort.animals("seen"):
        path = out / "nwb" / f"{name}.nwb"
        if not path.is_file():
            write_nwb(cohort, name, path)


def arguments(name: str, to: Path, out: Path) -> list[str]:
    """The command line of one of the commands that are killed, which writes to a folder."""
    demo = out / "whole" / "demo"
    module = "recipes." + ("train_ic" if name == "two_processes" else name)
    launch = ["-m", module]
    if name == "two_processes":
        launch = [*BY_TWO, *launch]
    more = {
        "demo": ["--size", "tiny"],
        "import_recording": ["--kind", "nwb", "--path", str(out / "nwb"), "--status", "NH"],
        "process": [
            "--aid", str(demo / "aid" / "aid.safetensors"), "--sounds", str(out / "clean"),
            "--theta", str(demo / "fits" / "new.json"),
        ],
        "evaluate": [
            "--clean", str(out / "clean"), "--processed", str(out / "loud"), "--audiogram", "N2",
        ],
        "two_processes": [
            "--config", str(ROOT / "recipes" / "configs" / "train_ic" / "tiny.yaml"),
            "--cohort", str(demo / "cohort" / "cohort.zarr"),
            "--save_every_s", "0",
        ],
    }[name]  # fmt: skip
    return [*launch, *more, "--out", str(to)]


# Kills --------------------------------------------------------------------------------------------


def killed(name: str, config: Config, out: Path) -> dict:
    """Kill a command until it was killed often enough, and compare what it made."""
    whole = out / "whole" / name
    _finish(arguments(name, whole, out))
    # Once more: a command that finds everything done shows what it takes to begin.
    started = time.monotonic()
    _finish(arguments(name, whole, out))
    begin_s = time.monotonic() - started
    draw = random.Random(f"{name} {config.seed}")
    kills, runs, equal, spent_s = 0, 0, 0, 0.0
    with tqdm(total=config.kills, desc=f"killing {name}", unit="kill") as bar:
        while kills < config.kills:
            to = out / "interrupted" / name
            shutil.rmtree(to, ignore_errors=True)
            while True:
                moment_s = draw.uniform(0, begin_s + config.most_s)
                started = time.monotonic()
                process = start(arguments(name, to, out))
                try:
                    said = process.communicate(timeout=moment_s)[1]
                except subprocess.TimeoutExpired:
                    kill(process, name)
                    kills += 1
                    bar.update()
                spent_s += time.monotonic() - started
                if process.returncode == 0:
                    break
                if process.returncode != -signal.SIGKILL:
                    raise RuntimeError(f"{name} did not go on: {said}")
            runs += 1
            different = differences(whole, to)
            equal += not different
            for path in different:
                tqdm.write(f"{name}: {path} differs")
    return {
        "kills": kills,
        "runs": runs,
        "equal": equal,
        "begin_s": begin_s,
        "spent_s": spent_s,
    }


def kill(process: subprocess.Popen, name: str) -> None:
    """Kill a command, and wait until all of its processes have ended."""
    children = []
    if name == "two_processes":
        # A launcher's children do not end at once; whoever stops a job stops them all.
        launcher = psutil.Process(process.pid)
        launcher.suspend()
        children = launcher.children(recursive=True)
    process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.communicate()  # their messages end when the last of them does


def differences(one: Path, other: Path) -> list[str]:
    """Names of files that one folder has and the other has not, or not with the same content."""
    first, second = contents(one), contents(other)
    return sorted(name for name in first | second if first.get(name) != second.get(name))


def contents(folder: Path) -> dict[str, object]:
    """What was made, by file: weights, responses, sounds and tables, but no pictures and logs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.endswith(".partial"):
            found[name] = "left behind"
        elif path.suffix == ".safetensors":
            tensors = load_tensors(path)[0]
            found[name] = {key: tensor.tolist() for key, tensor in tensors.items()}
        elif path.suffix == ".json":
            text = path.read_text().replace(str(folder), "").replace(str(folder.resolve()), "")
            found[name] = _timeless(json.loads(text))
        elif path.suffix == ".wav":  # whose header says when it was written
            samples, rate_hz = read(path)
            found[name] = rate_hz, samples.tolist()
        elif path.suffix == ".csv" or path.name.startswith("c."):
            found[name] = path.read_bytes()
    return found


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in TIMES}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


# Other faults -------------------------------------------------------------------------------------


def cases(out: Path) -> list[Case]:
    """Every other fault, with folders of its own, copied from the demo that nothing happened to."""
    work, demo = out / "faults", out / "whole" / "demo"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(demo, work / "demo")
    cohort = work / "demo" / "cohort" / "cohort.zarr"
    weights, state = work / "demo" / "ic" / "model.safetensors", work / "halved"
    model = ["--cohort", str(cohort), "--model", str(weights)]
    given = {
        "make_cohort": [],
        "train_ic": model[:2],
        "fit_theta": [*model, "--animal", "new"],
        "train_compensation": model,
    }

    def tiny(recipe: str, to: str, *more: str) -> tuple[str, list[str], Path]:
        config = ROOT / "recipes" / "configs" / recipe / "tiny.yaml"
        line = ["--config", str(config), *given[recipe], "--out", str(work / to), *more]
        return recipe, line, work / to

    shut, root = work / "shut", os.geteuid() == 0
    shut.mkdir()
    # All of them: some hold sounds that training does not hear.
    chunks = sorted((cohort / "animals" / "mild" / "counts").glob("c.*"))
    shutil.copytree(work / "demo" / "aid", state)
    (state / "config.json").unlink()
    return [
        Case("disk full", *tiny("train_ic", "full-ic"), limit=_full_disk),
        Case("disk full", *tiny("train_compensation", "full-aid"), limit=_full_disk),
        Case("disk full", *tiny("make_cohort", "full-cohort"), limit=_full_disk),
        Case(
            "folder read-only",
            *tiny("train_compensation", "shut/aid"),
            harm=lambda: _read_only(shut),
            within=("unshare", "--mount", "sh", "-c", READ_ONLY, str(shut.resolve()))
            if root
            else (),
        ),
        Case("chunks damaged", *tiny("train_ic", "chunk"), harm=lambda: _changed(chunks, _flip)),
        Case(
            "chunk missing", *tiny("train_ic", "chunk-2"), harm=lambda: _changed(chunks[:1], None)
        ),
        Case(
            "model cut in half",
            *tiny("fit_theta", "fit"),
            harm=lambda: _changed([weights], _halve),
        ),
        Case(
            "state cut in half",
            *tiny("train_compensation", "halved"),
            harm=lambda: _changed([state / "state.safetensors"], _halve),
        ),
        Case("helper killed", *tiny("train_ic", "helper", "--workers", "1"), kill_helpers=True),
        Case(
            "loss not a number",
            *tiny("train_compensation", "nan", "--learning_rate", "1e30", "--steps", "40"),
            mended=tiny("train_compensation", "nan-2", "--steps", "40")[1],
        ),
    ]


def harmed(case: Case) -> dict:
    """Run a command with a fault, then without; what it said, and whether it went on."""
    mend = case.harm()
    try:
        line = ["-m", f"recipes.{case.recipe}", *case.arguments]
        process = start(line, case.within, preexec_fn=case.limit)
        while case.kill_helpers and process.poll() is None:
            for helper in _helpers(process.pid):
                helper.kill()
            time.sleep(0.05)
        said = process.communicate()[1]
    finally:
        mend()
    message = [text for text in said.splitlines() if text.startswith("error: ")]
    again = start(["-m", f"recipes.{case.recipe}", *(case.mended or case.arguments)])
    again.communicate()
    return {
        "fault": case.fault,
        "recipe": case.recipe,
        "ended": process.returncode != 0,
        "traceback": "Traceback" in said,
        "message": message[-1].removeprefix("error: ") if message else said[-300:],
        "half_written": [str(p) for p in case.out.rglob("*.partial")],
        "went_on": again.returncode == 0,
    }


def start(line: Sequence[str], within: Sequence[str] = (), **more) -> subprocess.Popen:
    """A command of this project, in a process of its own."""
    return subprocess.Popen(
        [*within, sys.executable, *line],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def _finish(line: Sequence[str]) -> None:
    process = start(line)
    said = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"{' '.join(line)} failed: {said}")


def _helpers(pid: int) -> list[psutil.Process]:
    """Processes that read data ahead for another."""
    try:
        children = psutil.Process(pid).children()
        return [child for child in children if "tracker" not in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def _full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, FULL_AT_BYTES))


def _read_only(folder: Path) -> Callable[[], None]:
    folder.chmod(0o555)
    return lambda: folder.chmod(0o777)


def _changed(paths: list[Path], change: Callable[[bytes], bytes] | None) -> Callable[[], None]:
    """Change files, or remove them; returns what brings them back."""
    before = {path: path.read_bytes() for path in paths}
    for path, content in before.items():
        if change:
            path.write_bytes(change(content))
        else:
            path.unlink()

    def mend() -> None:
        for path, content in before.items():
            path.write_bytes(content)

    return mend


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def _halve(content: bytes) -> bytes:
    return content[: len(content) // 2]


# Tables -------------------------------------------------------------------------------------------


def tables(found: dict) -> list[Table]:
    """Kills by command, and the other faults with what was said."""
    rows = [
        [
            name,
            str(one["kills"]),
            f"{one['equal']} of {one['runs']}",
            number(one["begin_s"], 1),
            number(one["spent_s"] / (one["kills"] + one["runs"]), 1),
        ]
        for name, one in found["kills"].items()
    ]
    yes = {True: "yes", False: "no"}
    faults = [
        [
            f"{one['fault']} ({one['recipe']})",
            one["message"],
            yes[not one["traceback"] and not one["half_written"]],
            yes[one["went_on"]],
        ]
        for one in found["faults"]
    ]
    return [
        Table(
            "Kills",
            "SIGKILL at random moments; the same command, again and again, until it was done. "
            "What it made must be, bit by bit, what it makes uninterrupted.",
            ["command", "kills", "equal in the end", "start-up [s]", "mean time of a run [s]"],
            rows,
        ),
        Table(
            "Other faults",
            "What the command said, and whether the same command went on once it was mended.",
            ["fault", "message", "one message, nothing half-written", "went on"],
            faults,
        ),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for table in tables(run(benchmark, Config)):
        print(table.markdown())
