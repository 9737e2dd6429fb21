"""The whole chain on a small scale, from sound to a compensated listener: `make demo`.

Simulates a cohort, aligns it, trains the model of the midbrain, fits θ of listeners that it has
never met, trains an aid through it, and judges the aid on the true simulated midbrains. Run it
again to go on where it was stopped.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

from icsim.sound import SAMPLE_RATE
from icsim.store import Cohort
from recipes import (
    align,
    demo_report,
    fit_theta,
    judge,
    make_cohort,
    score_ic,
    train_compensation,
    train_ic,
)
from recipes.ranges import NotEmptyStr, checked
from recipes.state import claim, parse, run, write_json

CONFIGS = Path(__file__).parent / "configs"


@dataclasses.dataclass(frozen=True)
class Config:
    """What the demo is made of."""

    out: NotEmptyStr = "runs/demo"
    """Folder for everything; the report is `report.html` in it."""
    sounds: NotEmptyStr | None = None
    """Folder of WAV, FLAC or OGG files to use in place of the embedded sounds."""
    size: NotEmptyStr = "demo"
    """Which configurations to use: `recipes/configs/<recipe>/<size>.yaml`."""

    __post_init__ = checked


def demo(config: Config) -> dict:
    """Run what has not been run, write the report; returns the summary."""
    out = Path(config.out)
    _make_room(out, config)
    cohort_config = _configured(make_cohort, config, "cohort", sounds=config.sounds)
    checked = None if "cohort" in _stages(out) else make_cohort.ready(cohort_config)
    claim(out, config)
    cohort, model = out / "cohort" / "cohort.zarr", out / "ic" / "model.safetensors"
    aid, fits = out / "aid" / "aid.safetensors", out / "fits"
    paths = {"cohort": str(cohort), "model": str(model)}

    _stage(out, "cohort", lambda: make_cohort.make_cohort(cohort_config, checked))
    _stage(out, "alignment", lambda: align.align(align.Config(str(cohort))))
    opened = Cohort.open(cohort)
    normal = [n for n in opened.animals("seen") if opened.animal(n).status == "NH"]
    icnet_config = _configured(
        train_ic, config, "icnet", "_icnet", cohort=str(cohort), animals=normal
    )
    _stage(out, "beginning", lambda: str(train_ic.train(icnet_config)))
    begin = str(out / "icnet" / "model.safetensors")
    ic_config = _configured(train_ic, config, "ic", cohort=str(cohort), begin_from=begin)
    _stage(out, "model", lambda: str(train_ic.train(ic_config)))
    for name in Cohort.open(cohort).animals("unseen"):
        fit_config = _configured(fit_theta, config, "fits", animal=name, **paths)
        _stage(out, f"fit of {name}", lambda c=fit_config: fit_theta.fit_theta(c))
    score_config = score_ic.Config(**paths, fits=str(fits))
    _stage(out, "prediction", lambda: score_ic.score_ic(score_config))
    aid_config = _configured(train_compensation, config, "aid", **paths)
    _stage(out, "aid", lambda: str(train_compensation.train(aid_config)))
    judge_config = _configured(judge, config, "judged", aid=str(aid), fits=str(fits), **paths)
    _stage(out, "judgement", lambda: judge.judge(judge_config))
    _stage(out, "report", lambda: str(demo_report.write(out)), again=True)
    summary = summarise(out)
    write_json(out / "summary.json", summary)
    print(f"\nreport: {out}/report.html")
    return summary


def summarise(out: Path) -> dict:
    """The figures of a finished demo."""
    stages = _stages(out)
    cohort = Cohort.open(out / "cohort" / "cohort.zarr")
    judged = stages["judgement"]["result"]
    return {
        "sounds_s": sum(sound.samples for sound in cohort.sounds) / SAMPLE_RATE,
        "animals": len(cohort.animals()),
        **demo_report.key_figures(stages),
        "restoration": judged["restoration"],
        "restoration_in_model": judged["restoration_in_model"],
        "restoration_by_listener": {
            name: {device: found["restoration"] for device, found in listener["truth"].items()}
            for name, listener in judged["listeners"].items()
        },
        "scores": {
            device: {s["score"]: s["mean"] for s in judged["scores"] if s["device"] == device}
            for device in judged["restoration"]
        },
        "wall_s": sum(stage["seconds"] for stage in stages.values()),
    }


def _make_room(out: Path, config: Config) -> None:
    """Move a demo of other sounds aside: whoever asks for a demo wants this one, here."""
    found = out / "config.json"
    if not found.is_file() or json.loads(found.read_text()) == dataclasses.asdict(config):
        return
    aside = next(
        place
        for place in (out.with_name(f"{out.name}-{number}") for number in range(1, 10_000))
        if not place.exists()
    )
    out.rename(aside)
    print(f"{out} held a demo with other settings: it is now {aside}")


def _configured(recipe, config: Config, folder: str, variant: str = "", **fields):
    """A recipe's configuration of this size, for this demo's folders."""
    file = CONFIGS / recipe.__name__.split(".")[-1] / f"{config.size}{variant}.yaml"
    parsed = parse(recipe.Config, ["--config", str(file)])
    return dataclasses.replace(parsed, out=str(Path(config.out) / folder), **fields)


def _stages(out: Path) -> dict:
    """What has been done: results and seconds by stage."""
    path = out / "stages.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _stage(out: Path, name: str, work: Callable[[], object], again: bool = False) -> None:
    """Do a piece of work once; what it returned and how long it took is kept in `stages.json`."""
    stages = _stages(out)
    if name in stages and not again:
        return
    print(f"\n{name}", flush=True)
    start = time.monotonic()
    result = work()
    stages[name] = {"seconds": time.monotonic() - start, "result": result}
    write_json(out / "stages.json", stages)


if __name__ == "__main__":
    print(json.dumps(run(demo, Config), indent=2))
