"""The whole chain on a small scale, from sound to a compensated listener: `make demo`.

Simulates a cohort, aligns it, trains the model of the midbrain, fits θ of listeners that it has
never met, trains an aid through it, and judges the aid on the true simulated midbrains. Run it
again to go on where it was stopped.
"""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from compensation.data import PAUSE_DEPTH_DB, require_clean
from icsim.files import write_json, write_whole
from icsim.models.listener_fit import first_frames
from icsim.sound import SAMPLE_RATE, Sound
from icsim.store import Cohort
from recipes import align, fit_theta, judge, make_cohort, score_ic, train_compensation, train_ic
from recipes.reports import demo as demo_report
from recipes.reports import demo_results, judged
from recipes.running import stages
from recipes.running.commands import claim, parse, run
from recipes.running.ranges import NotEmptyStr, NotNegative, checked

CONFIGS = Path(__file__).parent / "configs"

USUAL_S = {
    "cohort": 60.0,
    "alignment": 2.4,
    "beginning": 90.0,
    "model": 90.0,
    "fit": 24.0,
    "prediction": 7.0,
    "aid": 200.0,
    "judgement": 130.0,
    "report": 20.0,
}
"""What stages of the size `demo` take on two cores [s]; a fit, each."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """What the demo is made of."""

    out: NotEmptyStr = "runs/demo"
    """Folder for everything; the report is `report.html` in it."""
    sounds: NotEmptyStr | None = None
    """Folder of WAV, FLAC or OGG files to use in place of the embedded sounds."""
    size: NotEmptyStr = "demo"
    """Which configurations to use: `recipes/configs/<recipe>/<size>.yaml`."""
    pause_depth_db: NotNegative = PAUSE_DEPTH_DB
    """How far pauses must lie below speech for it to be taken as clean [dB]; 0 takes everything."""


def demo(config: Config) -> dict:
    """Run what has not been run, write the report; returns the summary."""
    out = Path(config.out)
    folder = config.sounds and str(Path(config.sounds).expanduser())
    cohort_config = _configured(make_cohort, config, "cohort", sounds=folder)
    cohort, model = out / "cohort" / "cohort.zarr", out / "ic" / "model.safetensors"
    aid, fits = out / "aid" / "aid.safetensors", out / "fits"
    paths = {"cohort": str(cohort), "model": str(model)}
    aid_config = _configured(
        train_compensation, config, "aid", pause_depth_db=config.pause_depth_db, **paths
    )
    judge_config = _configured(judge, config, "judged", aid=str(aid), fits=str(fits), **paths)

    aside, sounds = _place_aside(out, config), []
    if aside or "cohort" not in stages.finished(out):
        new = dataclasses.replace(cohort_config, out=str((aside or out) / "cohort"))
        sounds = make_cohort.ready(new)
    if sounds:
        check_sounds(sounds, config, aid_config.excerpt_s, judge_config.excerpt_s)
    if aside:
        out.rename(aside)
        print(f"{out} held a demo with other settings: it is now {aside}")
    claim(out, config)
    plan = planned(cohort_config.members, config.size)

    def stage(name: str, work, again: bool = False) -> None:
        stages.stage(out, plan, name, work, again)

    stage("cohort", lambda: make_cohort.make_cohort(cohort_config, sounds or None))
    opened = Cohort.open(cohort)
    fit_configs = {
        name: _configured(fit_theta, config, "fits", animal=name, **paths)
        for name in opened.animals("unseen")
    }
    if "model" not in stages.finished(out):
        for fit_config in fit_configs.values():
            check_early_sounds(opened, fit_config)
    stage("alignment", lambda: align.align(align.Config(str(cohort))))
    normal = [n for n in opened.animals("seen") if opened.animal(n).status == "NH"]
    icnet_config = _configured(
        train_ic, config, "icnet", "_icnet", cohort=str(cohort), animals=normal
    )
    stage("beginning", lambda: str(train_ic.train(icnet_config)))
    begin = str(out / "icnet" / "model.safetensors")
    ic_config = _configured(train_ic, config, "ic", cohort=str(cohort), begin_from=begin)
    stage("model", lambda: str(train_ic.train(ic_config)))
    for name, fit_config in fit_configs.items():
        stage(f"fit of {name}", lambda c=fit_config: fit_theta.fit_theta(c))
    score_config = score_ic.Config(str(cohort), str(model), fits=str(fits))
    stage("prediction", lambda: score_ic.score_ic(score_config))
    stage("aid", lambda: str(train_compensation.train(aid_config)))
    stage("judgement", lambda: judge.judge(judge_config))
    stage("report", lambda: str(demo_report.write(out)), again=True)
    rows, about = judged.read(out / "judged")
    summary = summarise(out, judged.estimates(rows, about))
    write_json(out / "summary.json", summary)
    write_whole(out / "results.md", demo_results.results(stages.finished(out), rows, about))
    in_quiet = summary["restoration"]["truth"][demo_report.MEASURE]
    restored = ", ".join(
        f"{label} {in_quiet[device]:.2f}" for device, label in demo_report.DEVICES.items()
    )
    print(f"\nrestored of what the hearing loss took: {restored}")
    print(f"{stages.duration(summary['wall_s'])} in all; the report, with figures and sounds:")
    print(out / "report.html", flush=True)
    return summary


def planned(members: Sequence[make_cohort.Member], size: str) -> dict[str, float | None]:
    """Every stage of a demo in its order, and what it usually takes [s], None if unknown."""
    names = []
    for name in USUAL_S:
        unseen = [f"fit of {m.name}" for m in members if m.role == "unseen"]
        names += sorted(unseen) if name == "fit" else [name]
    usual: dict[str, float | None]
    usual = {name: USUAL_S["fit" if name.startswith("fit of") else name] for name in names}
    return usual if size == "demo" else dict.fromkeys(names)


def check_sounds(
    sounds: Sequence[Sound], config: Config, learned_s: float, judged_s: float
) -> None:
    """Refuse sounds that a later stage could do nothing with.

    Args:
        sounds: Of the cohort.
        config: Of the demo.
        learned_s: Least length of speech that the aid learns from [s].
        judged_s: Least length of speech that it is judged on [s].

    Raises:
        ValueError: If there is no speech, or none long enough where it is needed, or it is noisy.
    """
    longest_s: dict[str, float] = defaultdict(float)
    for sound in sounds:
        if sound.kind == "speech":
            seconds = len(sound.pressure) / SAMPLE_RATE
            longest_s[sound.split] = max(longest_s[sound.split], seconds)
    for split, needed_s, purpose in (
        ("train", learned_s, "the aid learns from"),
        ("test", judged_s, "the aid is judged on"),
    ):
        if longest_s[split] < needed_s:
            kinds = Counter(sound.kind for sound in sounds)
            raise ValueError(
                f"{config.sounds}: no speech of {needed_s:g} s that {purpose} (what there is: "
                f"{', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}; the "
                f"longest speech for it has {longest_s[split]:.1f} s). Files are speech if they "
                "lie in a folder called `speech` in it, or if its manifest.csv says so (columns "
                "file, kind, speaker); give at least three speakers, with a few sentences of "
                f"{needed_s:g} s or more each"
            )
    spoken = [sound for sound in sounds if sound.kind == "speech" and sound.split == "train"]
    require_clean({sound.name: sound.pressure for sound in spoken}, config.pause_depth_db)


def check_early_sounds(cohort: Cohort, config: fit_theta.Config) -> None:
    """Refuse a cohort in which a listener heard nothing in time to be fitted.

    Raises:
        ValueError: If it did not.
    """
    animal = fit_theta.animal_of(config)
    try:
        first_frames(cohort, animal, first_hours=config.first_hours)
    except ValueError as error:
        raise ValueError(
            f"{animal} heard no training sound "
            f"{'' if config.first_hours is None else f'in the first {config.first_hours:g} h '}"
            f"on which θ is fitted ({error}); give more or longer sounds, and delete "
            f"{Path(cohort.path).parent.parent}"
        ) from error


def summarise(out: Path, restoration: dict) -> dict:
    """The figures of a finished demo."""
    done = stages.finished(out)
    cohort = Cohort.open(out / "cohort" / "cohort.zarr")
    return {
        "sounds_s": sum(sound.samples for sound in cohort.sounds) / SAMPLE_RATE,
        "animals": len(cohort.animals()),
        **demo_results.key_figures(done),
        "restoration": restoration,
        "wall_s": sum(stage["seconds"] for stage in done.values()),
    }


def _place_aside(out: Path, config: Config) -> Path | None:
    """Where a demo with other settings can go: whoever asks for a demo wants this one, here."""
    written = out / "config.json"
    if not written.is_file() or json.loads(written.read_text()) == dataclasses.asdict(config):
        return None
    places = (out.with_name(f"{out.name}-{number}") for number in range(1, 10_000))
    return next(place for place in places if not place.exists())


def _configured(recipe, config: Config, folder: str, variant: str = "", **fields):
    """A recipe's configuration of this size, for this demo's folders."""
    file = CONFIGS / recipe.__name__.split(".")[-1] / f"{config.size}{variant}.yaml"
    parsed = parse(recipe.Config, ["--config", str(file)])
    return dataclasses.replace(parsed, out=str(Path(config.out) / folder), **fields)


if __name__ == "__main__":
    run(demo, Config)
