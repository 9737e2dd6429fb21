"""What strangers type: refused in one message, before any work, with nothing written.

Each case is a command line and what its message must say. The message names the value or the field,
and what to do where that is not plain.
"""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from compensation.masks import Masks, MasksConfig
from icsim import store
from icsim.models.conditions import BranchesConfig, ThetaConfig, ThresholdsConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.facts import cohort_facts
from icsim.models.load import save_model
from icsim.models.response import ResponseModel
from icsim.models.start import config_for
from icsim.recording import Recording
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.sound import Sound
from icsim.weights import fingerprint, save_network, save_tensors
from recipes import (
    align,
    choose_sounds,
    cross_validate_ic,
    demo,
    describe_animals,
    describe_gains,
    describe_theta,
    evaluate,
    fit_theta,
    import_recording,
    judge,
    learn_clinical_prior,
    listen,
    make_cohort,
    process,
    score_ic,
    train_compensation,
    train_ic,
)
from recipes.benchmarks import aids as benchmark_compensation
from recipes.benchmarks import ic as benchmark_ic
from recipes.benchmarks import listening as benchmark_listening
from recipes.benchmarks import scores as benchmark_scores
from recipes.benchmarks import speed as benchmark_speed
from recipes.reports import demo as demo_report
from recipes.running.commands import run

RECIPES = {
    "align": (align.align, align.Config),
    "benchmark_compensation": (benchmark_compensation.benchmark, benchmark_compensation.Config),
    "benchmark_ic": (benchmark_ic.benchmark, benchmark_ic.Config),
    "benchmark_listening": (benchmark_listening.benchmark, benchmark_listening.Config),
    "benchmark_scores": (benchmark_scores.benchmark, benchmark_scores.Config),
    "benchmark_speed": (benchmark_speed.benchmark, benchmark_speed.Config),
    "cross_validate_ic": (cross_validate_ic.cross_validate, cross_validate_ic.Config),
    "demo": (demo.demo, demo.Config),
    "demo_report": (lambda config: demo_report.write(Path(config.out)), demo_report.Config),
    "describe_animals": (describe_animals.describe, describe_animals.Config),
    "choose_sounds": (choose_sounds.choose_sounds, choose_sounds.Config),
    "describe_theta": (describe_theta.describe_theta, describe_theta.Config),
    "describe_gains": (describe_gains.describe, describe_gains.Config),
    "evaluate": (evaluate.evaluate, evaluate.Config),
    "fit_theta": (fit_theta.fit_animals, fit_theta.Config),
    "import_recording": (import_recording.import_recording, import_recording.Config),
    "judge": (judge.judge, judge.Config),
    "learn_clinical_prior": (learn_clinical_prior.learn, learn_clinical_prior.Config),
    "listen": (listen.listen, listen.Config),
    "make_cohort": (make_cohort.make_cohort, make_cohort.Config),
    "process": (process.process, process.Config),
    "score_ic": (score_ic.score_ic, score_ic.Config),
    "train_compensation": (train_compensation.train, train_compensation.Config),
    "train_ic": (train_ic.train, train_ic.Config),
}

GOOD = {
    "align": "--cohort {cohort}",
    "benchmark_compensation": "--config {configs}/benchmarks/aids/tiny.yaml --out out "
    "--cohort {configs}/make_cohort/tiny.yaml --training {configs}/train_ic/tiny.yaml",
    "benchmark_ic": "--config {configs}/benchmarks/ic/tiny.yaml --out out "
    "--cohort {configs}/make_cohort/tiny_twenty.yaml --training {configs}/train_ic/tiny.yaml",
    "benchmark_listening": "--out out",
    "benchmark_scores": "--out out",
    "benchmark_speed": "--out out",
    "cross_validate_ic": "--cohort {cohort} --animal mild --out out",
    "demo": "--out out --size tiny",
    "demo_report": "--out out",
    "describe_animals": "--out out",
    "describe_gains": "--out out",
    "choose_sounds": "--cohort {cohort} --model {model} --out out --seconds 0.2 --piece_s 0.2",
    "describe_theta": "--cohort {cohort} --model {model} --out out",
    "evaluate": "--clean {sounds} --processed {processed} --out out",
    "fit_theta": "--cohort {cohort} --model {model} --animal new --out out",
    "import_recording": "--kind frames --status NH --path {frames} --out out",
    "judge": "--cohort {cohort} --model {model} --aid {aid} --fits {fits} --out out",
    "learn_clinical_prior": "--cohort {cohort} --model {model} --out out --listeners 1",
    "listen": "--model {model} --aid {aid} --sounds {sounds} --study out --demo true "
    "--seconds 0.5 --port 18765",
    "make_cohort": "--config {configs}/make_cohort/tiny.yaml --out out",
    "process": "--aid {aid} --sounds {sounds} --theta {fits}/new.json --out out",
    "score_ic": "--cohort {cohort} --model {model}",
    "train_compensation": "--cohort {cohort} --model {model} --excerpt_s 0.5 --pause_depth_db 0 "
    "--masks.bands 9 --masks.width 6 --out out",
    "train_ic": "--cohort {cohort} --encoder.filters 4 --encoder.kernels 4 --encoder.size 4 "
    "--encoder.sinc_size 8 --encoder.bottleneck 4 --out out",
}
"""What each recipe would take; a case adds to it, and the last of two options counts."""

ROOT = Path(__file__).parents[2]

ENCODER = SincNetConfig(filters=4, kernels=4, size=4, sinc_size=8, bottleneck=4, input_scale=20.0)
CHANNELS = 4
SIZES = {"bands": 9, "width": 6, "layers": 1, "window": 128, "hop": 24}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, str]:
    """What cases are about, by name: cohorts, checkpoints, fits, sounds and other files."""
    root = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    names = {"normal": "NH", "mild": "HI", "new": "HI"}
    cohorts = {
        "cohort": write_cohort(root / "cohort.zarr", names),
        "unaligned": write_cohort(root / "unaligned.zarr", names, aligned=False),
        "real": write_cohort(root / "real.zarr", names, simulated=False),
        "impaired": write_cohort(root / "impaired.zarr", {"mild": "HI", "new": "HI"}),
        "once": write_cohort(root / "once.zarr", names, times=1),
        "training": write_cohort(root / "training.zarr", names, splits=("train",)),
        "empty_cohort": write_cohort(root / "empty_cohort.zarr", {}),
        "damaged": write_cohort(root / "damaged.zarr", names),
        "begun": write_cohort(root / "begun.zarr", names),
        "text": write(root / "text.txt", "once upon a time"),
        "bytes": write(root / "bytes.safetensors", "\0\1\2"),
        "missing": str(root / "missing"),
        "configs": str(ROOT / "recipes" / "configs"),
    }
    next((root / "damaged.zarr" / "pressure").glob("c.*")).unlink()
    attributes = json.loads((root / "begun.zarr" / "zarr.json").read_text())
    del attributes["attributes"]["finished"]
    write(root / "begun.zarr" / "zarr.json", json.dumps(attributes))
    return cohorts | write_networks(root, cohorts["cohort"]) | write_sounds(root) | write_yaml(root)


def write(path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def write_cohort(
    path,
    names: dict[str, str],
    aligned: bool = True,
    simulated: bool = True,
    times: int = 2,
    splits: tuple[str, ...] = ("train", "validation", "test"),
) -> str:
    """A cohort whose animals heard a second of noise in each split; `new` is unseen."""
    samples, generator = 26_000, torch.Generator().manual_seed(0)
    sounds = [
        Sound(split, "speech", split, split, 0.02 * torch.randn(samples, generator=generator))
        for split in splits
    ]
    cohort = store.create(path, sounds, {"simulated": simulated})
    presentations = [(n, 0.1 * (n + 3 * t)) for n in range(len(sounds)) for t in range(times)]
    for seed, (name, status) in enumerate(names.items()):
        draw = np.random.default_rng(seed)
        counts = [draw.poisson(0.5, (samples // 32, CHANNELS)).astype(np.uint8)] * times
        recording = Recording(
            status, "unseen" if name == "new" else "seen", (30.0, 45.0), (1e3, 4e3), CHANNELS,
            presentations, counts * len(sounds),
        )  # fmt: skip
        animal = Animal(draw_anatomy(CHANNELS, seed), draw_loss(status, 1.0, seed))
        truth = animal.truth() | {"hearing": status, "severity": 1.0}
        cohort.add_animal(name, recording, truth if simulated else None)
        if aligned:
            cohort.animal(name).set_alignment(range(CHANNELS), CHANNELS)
    return str(path)


def write_networks(root, path: str) -> dict[str, str]:
    """Untrained networks of every kind, and fits."""
    cohort = store.Cohort.open(path)
    facts = cohort_facts(cohort, ["normal", "mild"])
    theta, paths = ThetaConfig(parameters=3), {}
    for name, condition, known in (
        ("model", theta, facts),
        ("abr", ThresholdsConfig(), facts),
        ("icnet", BranchesConfig(), facts),
        ("wide", theta, dataclasses.replace(facts, slots=9)),
        ("ill", theta, dataclasses.replace(facts, slots=9, normal=())),
    ):
        paths[name] = str(root / f"{name}.safetensors")
        model = ResponseModel(config_for(cohort, known, ENCODER, condition))
        save_model(paths[name], model, known)
    mark = fingerprint(paths["model"])
    for name, numbers, facts in (
        ("aid", 3, {"listener": "theta", "noise_reduction": True, "model": mark}),
        ("aid_of_audiograms", 8, {"listener": "audiogram"}),
        ("aid_without_facts", 3, None),
        ("aid_for_compensation", 3, {"noise_reduction": False}),
    ):
        paths[name] = str(root / f"{name}.safetensors")
        usual = {"listener": "theta", "noise_reduction": True, "model": mark}
        facts = {} if facts is None else {"healthy": [[0.5] * numbers], **usual, **facts}
        save_network(paths[name], Masks(MasksConfig(listener=numbers, **SIZES)), **facts)
    fit = {
        "animal": "new",
        "model": mark,
        "theta": [0.2, 0.4, 0.6],
        "matching": list(range(CHANNELS)),
    }
    cut = root / "cut.safetensors"
    cut.write_bytes((root / "aid.safetensors").read_bytes()[:-100])
    save_tensors(root / "foreign.safetensors", {"a": torch.zeros(2)}, {"made by": "others"})
    paths |= {"cut": str(cut), "foreign": str(root / "foreign.safetensors")}
    for name, content in {
        "fits": fit,
        "far": fit | {"theta": [0.2, 0.4, 1.6]},
        "words": fit | {"theta": "high"},
        "long": fit | {"theta": [0.1] * 7},
        "strange": fit | {"model": "another"},
        "free": {k: v for k, v in fit.items() if k != "model"},
        "homeless": {"theta": fit["theta"]},
        "json": {"name": "package", "version": "1.0.0"},
        "list": [1, 2, 3],
    }.items():
        write(root / name / "new.json", json.dumps(content))
        paths[name] = str(root / name)
    write(root / "no_fits" / "readme.txt", "none")
    write(root / "nobody" / "nobody.json", json.dumps(fit | {"animal": "nobody"}))
    return paths | {"no_fits": str(root / "no_fits"), "nobody": str(root / "nobody")}


def write_sounds(root) -> dict[str, str]:
    """Folders of sounds and of what is none."""
    rate, draw = 16_000, np.random.default_rng(0)
    noise = 0.05 * draw.standard_normal(rate)
    nan = noise.copy()
    nan[5] = np.nan
    for folder, samples in {
        "sounds": noise,
        "processed": noise,
        "others": noise,
        "nothing": noise[:0],
        "nan": nan,
        "loud": 1e6 * noise,
        "short": noise[:80],
    }.items():
        path = root / folder / ("else.wav" if folder == "others" else "a.wav")
        path.parent.mkdir()
        soundfile.write(path, samples, rate, "FLOAT")
    write(root / "renamed" / "a.wav", "no sound")
    write(root / "documents" / "thesis.txt", "no sound")
    (root / "frames").mkdir()
    (root / "blank").mkdir()
    ear = write(root / "ear.csv", "frequency_hz,threshold_db_hl\n1000,loud\n")
    folders = ("sounds", "processed", "others", "nothing", "nan", "loud", "short", "renamed",
               "documents", "frames", "blank")  # fmt: skip
    return {name: str(root / name) for name in folders} | {"ear": ear}


def write_yaml(root) -> dict[str, str]:
    """Configurations that are none."""
    files = {
        "void": "",
        "items": "- cohort\n- out\n",
        "sentence": "train for ten epochs, please\n",
        "broken": "cohort: [a, b\nout: c\n",
        "misspelt": "cohort: c\nout: out\nlearning_rat: 0.1\n",
        "typed": "cohort: c\nout: out\nepochs: many\n",
        "none": "cohort: c\nout: out\nbatch: null\n",
        "deep": "cohort: c\nout: out\nencoder: {filters: 8, colour: red}\n",
        "odd": "cohort: c\nout: out\nencoder: {size: 3}\n",
        "flat": "cohort: c\nout: out\nencoder: 5\n",
        "nobody_home": "out: out\nmembers: []\n",
        "twins": "out: out\nmembers:\n- {name: a, hearing: NH}\n- {name: a, hearing: NH}\n",
        "deaf": "out: out\nmembers:\n- {name: a, hearing: deaf}\n",
        "slash": "out: out\nmembers:\n- {name: a/b, hearing: NH}\n",
        "nameless": "out: out\nmembers:\n- {hearing: NH}\n",
        "negative": "out: out\nmembers:\n- {name: a, hearing: HI, severity: -1}\n",
        "older": "out: out\nmembers:\n- {name: a, hearing: NH, age: 3}\n",
    }
    return {name: write(root / "yaml" / f"{name}.yaml", text) for name, text in files.items()}


CASES = {
    "align": [
        ("--cohort {missing}", "no cohort here"),
        ("--cohort ''", "cohort"),
        ("--cohort {text}", "text.txt"),
        ("--cohort {sounds}", "no cohort here"),
        ("--cohort {begun}", "half-written"),
        ("--cohort {damaged}", "damaged"),
        ("--cohort {empty_cohort}", "no seen animal with normal hearing"),
        ("--cohort {impaired}", "name the --reference"),
        ("--reference [nobody]", "no animal 'nobody'"),
        ("--reference nobody", "Given value: nobody"),
        ("--method permutation --reference [normal,mild]", "one reference brain"),
        ("--method magic", "magic"),
        ("--capacity 0.5", "0.5 does not conform"),
        ("--capacity nan", "nan does not conform"),
        ("--smooth_bins 0", "smooth_bins"),
        ("--smooth_bins 2.5", "2.5"),
        ("--reliable 7", "7 does not conform"),
        ("--name ''", "name"),
        ("--out somewhere", "out"),
    ],
    "benchmark_compensation": [
        ("--cohort {missing}", "missing"),
        ("--own_steps 0", "own_steps"),
        ("--material.levels_db_spl [65,999]", "levels_db_spl must be within"),
        ("--material.speakers 21", "there are 20"),
        ("--plateau.patience 0", "patience"),
        ("--training {void}", "out"),
        ("--aid_training {misspelt}", "learning_rat"),
    ],
    "benchmark_ic": [
        ("--smaller [nobody]", "no animal nobody"),
        ("--singles [mild,ghost]", "no animal ghost"),
        ("--dense 0", "dense"),
        ("--cohort {twins} --smaller [b]", "no animal b"),
        ("--training {items}", "Unexpected config: - cohort"),
        ("--icnet_training {missing}", "missing"),
        ("--seeds [-1]", "-1"),
        ("--seeds [0,x]", "x"),
    ],
    "benchmark_listening": [
        ("--methods [grid]", "grid"),
        ("--answers 0", "answers"),
        ("--lapses 1.5", "lapses"),
        ("--methods [audiogram]", "give --measured"),
        ("--surface cone", "cone"),
    ],
    "benchmark_scores": [
        ("--files 0", "files"),
        ("--sounds {missing}", "missing"),
        ("--sounds {documents}", "documents"),
        ("--longest_s -3", "longest_s"),
    ],
    "benchmark_speed": [
        ("--parts [nap]", "nap"),
        ("--precision fp8", "fp8"),
        ("--rounds -1", "rounds"),
        ("--seconds [1,-1]", "-1"),
    ],
    "cross_validate_ic": [
        ("--animal nobody", "no animal 'nobody'"),
        ("--animal ''", "animal"),
        ("--cohort {once}", "heard no sound twice"),
        ("--blocks 2", "at least 3 blocks"),
        ("--window_bins 5000", "lower --window_bins"),
        ("--steps 0", "steps"),
        ("--learning_rate inf", "learning_rate"),
        ("--muon_rate -0.1", "muon_rate"),
    ],
    "demo": [
        ("--size gigantic", "gigantic"),
        ("--size ''", "size"),
        ("--sounds {missing}", "missing"),
        ("--sounds {documents}", "documents"),
        ("--sounds {text}", "text.txt"),
        ("--sounds {renamed}", "renamed"),
        ("--sound {sounds}", "--sound"),
        ("--out {text}", "text.txt"),
    ],
    "demo_report": [("--out {missing}", "missing"), ("--out {documents}", "documents")],
    "describe_gains": [("--animals 0", "animals"), ("--channels 3", "at least 4")],
    "describe_animals": [
        ("--listeners 0", "listeners"),
        ("--channels 3", "at least 4"),
        ("--scatter_channels [2]", "at least 4"),
        ("--seconds nan", "seconds"),
        ("--scatters [-1]", "-1"),
    ],
    "evaluate": [
        ("--clean {missing}", "missing"),
        ("--clean {text}", "text.txt"),
        ("--clean {documents}", "documents"),
        ("--processed {missing}", "missing"),
        ("--processed {others}", "no file is called as one in"),
        ("--processed {processed} --processed {processed}", "twice"),
        ("--processed []", "no such folder of sounds"),
        ("--noisy {blank}", "blank"),
        ("--audiogram N9", "N9"),
        ("--audiogram {ear}", "loud"),
        ("--audiogram {text}", "text.txt"),
        ("--scores [loudness]", "loudness"),
        ("--scores [haspi]", "give --audiogram"),
        ("--scores []", "no score is asked for"),
        ("--theta {fits}/new.json", "--theta and --model together"),
        ("--theta {json}/new.json --model {model}", "no θ in it"),
        ("--theta {far}/new.json --model {model}", "within 0 and 1"),
        ("--theta {fits}/new.json --model {icnet}", "fitted to another model"),
        ("--theta {free}/new.json --model {icnet}", "its condition is 'branches'"),
        ("--theta {fits}/new.json --model {missing}", "missing"),
        ("--full_scale_db_spl 5", "5 does not conform"),
        ("--clean_db_spl 400", "400"),
        ("--channel -1", "channel"),
        ("--workers 0", "workers"),
        ("--max_delay_s nan", "max_delay_s"),
        ("--examples some", "some"),
    ],
    "fit_theta": [
        ("--evaluations 0 --dense -5", "evaluations"),
        ("--dense -5", "dense"),
        ("--dense 0", "dense"),
        ("--seconds -3", "-3 does not conform"),
        ("--seconds nan", "nan does not conform"),
        ("--first_hours 0", "first_hours"),
        ("--first_hours inf", "first_hours"),
        ("--first_hours 1e-9 --cohort {training} --animal mild --seconds_a_sound 0", "seconds_a_"),
        ("--initial 0", "initial"),
        ("--within 0.5", "within"),
        ("--rounds -1", "rounds"),
        ("--seed -1", "seed"),
        ("--seed 1e30", "seed"),
        ("--animal nobody", "no animal 'nobody'"),
        ("--animal ../new", "../new"),
        ("--alignment other", "not aligned as 'other'"),
        ("--cohort {unaligned}", "run recipes.align first"),
        ("--cohort {missing}", "no cohort here"),
        ("--model {missing}", "no such checkpoint"),
        ("--model {sounds}", "sounds"),
        ("--model {text}", "damaged, or no checkpoint"),
        ("--model {bytes}", "damaged, or no checkpoint"),
        ("--model {cut}", "damaged"),
        ("--model {foreign}", "foreign.safetensors"),
        ("--model {aid}", "holds a Masks"),
        ("--model {icnet}", "its condition is 'branches'"),
        ("--model {wide}", "align as before its training"),
        ("--out {text}", "text.txt"),
        ("--out {text}/below", "text.txt"),
        ("--method guess", "guess"),
    ],
    "import_recording": [
        ("--kind edf", "edf"),
        ("--path {missing}", "missing"),
        ("--path {text}", "text.txt"),
        ("--path {frames}", "frames"),
        ("--kind nwb --path {frames}", "no file NAME.nwb"),
        ("--kind nwb --path {missing}", "missing"),
        ("--kind nwb --path {text}", "text.txt"),
        ("--kind broadband --path {sounds}", "needs --stimulus"),
        ("--frames_a_sound 0", "frames_a_sound"),
        ("--status deaf", "deaf"),
        ("--role hidden", "hidden"),
        ("--full_scale_db_spl nan", "full_scale_db_spl"),
        ("--interval_s 0", "interval_s"),
        ("--onset_s -1", "onset_s"),
        ("--level_db_spl 1000", "level_db_spl"),
        ("--spike_lines [0]", "spike_lines"),
    ],
    "judge": [
        ("--excerpts 0", "excerpts"),
        ("--excerpt_s -1", "excerpt_s"),
        ("--level_db_spl 300", "300 does not conform"),
        ("--snr_db nan", "snr_db"),
        ("--speech -2", "speech"),
        ("--workers 0", "workers"),
        ("--cohort {missing}", "no cohort here"),
        ("--cohort {text}", "text.txt"),
        ("--cohort {begun}", "half-written"),
        ("--model {missing}", "no such checkpoint"),
        ("--model {aid}", "holds a Masks"),
        ("--aid {model}", "holds a ResponseModel"),
        ("--aid {text}", "damaged, or no checkpoint"),
        ("--fits {missing}", "missing"),
        ("--fits {no_fits}", "no_fits"),
        ("--fits {fits} --excerpt_s 60", "60"),
        ("--aid {aid_without_facts}", "does not say its listener"),
        ("--fits {json}", "no θ in it"),
        ("--fits {strange}", "fitted to another model"),
        ("--scores [stoy]", "stoy"),
        ("--out {text}", "text.txt"),
    ],
    "learn_clinical_prior": [
        ("--cohort {missing}", "no cohort here"),
        ("--model {icnet}", "its condition is 'branches'"),
        ("--listeners 0", "listeners"),
        ("--seconds 0", "seconds"),
        ("--seed -1", "-1"),
    ],
    "listen": [
        ("--port 99999", "99999 does not conform"),
        ("--port 0", "port"),
        ("--gain -3", "-3 does not conform"),
        ("--noise_reduction 5", "noise_reduction"),
        ("--seconds 0", "seconds"),
        ("--level_db_spl 200", "level_db_spl"),
        ("--maximum_db_spl 0", "maximum_db_spl"),
        ("--comparisons 0", "comparisons"),
        ("--most_sounds 0", "most_sounds"),
        ("--listener 'J. Doe'", "J. Doe"),
        ("--aid {missing}", "missing"),
        ("--aid {model}", "holds a ResponseModel"),
        ("--start {json}/new.json", "no θ in it"),
        ("--tests {json}/new.json", "give --tests with --clinical_prior"),
        ("--tests {json}/new.json --clinical_prior {json}/new.json", "no table of simulated"),
        ("--audiogram N9", "N9"),
        ("--consent {missing}", "missing"),
        ("--mode loudest", "loudest"),
        ("--host 0.0.0.0", "token"),
    ],
    "make_cohort": [
        ("--channels 3", "at least 4"),
        ("--channels 0", "channels"),
        ("--train_s -5", "train_s"),
        ("--train_s nan", "train_s"),
        ("--train_s 0 --validation_s 0 --test_s 0", "durations"),
        ("--train_s 2", "train: 2.0 s"),
        ("--hours 0.001", "do not fit"),
        ("--hours 0", "hours"),
        ("--longest_s 0.5", "max_s is 0.5"),
        ("--scatter -1", "scatter"),
        ("--sounds {missing}", "missing"),
        ("--sounds {text}", "text.txt"),
        ("--sounds {blank}", "blank"),
        ("--sounds {renamed}", "renamed"),
        ("--sounds {nan}", "at least 3 are needed"),
        ("--config {nobody_home}", "members"),
        ("--config {twins}", "each differently"),
        ("--config {deaf}", "deaf"),
        ("--config {slash}", "a/b"),
        ("--config {nameless}", "name"),
        ("--config {negative}", "-1"),
        ("--config {older}", "age"),
        ("--config {void}", "out"),
        ("--out ' '", "out"),
    ],
    "process": [
        ("--full_scale_db_spl -20", "-20 does not conform"),
        ("--maximum_db_spl -10", "-10 does not conform"),
        ("--maximum_db_spl inf", "maximum_db_spl"),
        ("--gain 3", "gain"),
        ("--noise_reduction -1", "noise_reduction"),
        ("--workers 0", "workers"),
        ("--workers two", "two"),
        ("--sounds {missing}", "no such folder"),
        ("--sounds {documents}", "documents"),
        ("--sounds {blank}", "blank"),
        ("--out {sounds}", "choose another --out"),
        ("--out {text}", "text.txt"),
        ("--aid {missing}", "no such checkpoint"),
        ("--aid {model}", "holds a ResponseModel"),
        ("--aid {cut}", "damaged"),
        ("--aid {foreign}", "foreign.safetensors"),
        ("--aid {aid_of_audiograms}", "--audiogram"),
        ("--aid {aid_for_compensation}", "--noise_reduction 0"),
        ("--theta {missing}", "no θ in it"),
        ("--theta {fits}", "no θ in it"),
        ("--theta {json}/new.json", "no θ in it"),
        ("--theta {list}/new.json", "no θ in it"),
        ("--theta {words}/new.json", "no θ in it"),
        ("--theta {far}/new.json", "within 0 and 1"),
        ("--theta {long}/new.json", "7 numbers"),
        ("--theta {strange}/new.json", "fitted to another model"),
        ("--theta null", "needs one listener"),
        ("--audiogram {ear}", "not both"),
        ("--theta null --aid {aid_of_audiograms} --audiogram {ear}", "loud"),
        ("--theta null --aid {aid_of_audiograms} --audiogram {missing}", "missing"),
    ],
    "choose_sounds": [
        ("--cohort {missing}", "no cohort here"),
        ("--model {icnet}", "its condition is 'branches'"),
        ("--fit {missing}", "missing"),
        ("--fit {strange}/new.json", "fitted to another model"),
        ("--seconds 9999", "more than the training sounds"),
        ("--levels_db_spl [999]", "levels_db_spl"),
        ("--piece_s 0", "piece_s"),
    ],
    "describe_theta": [
        ("--cohort {missing}", "no cohort here"),
        ("--model {icnet}", "its condition is 'branches'"),
        ("--theta {missing}", "missing"),
        ("--theta {strange}/new.json", "fitted to another model"),
        ("--sound ghost", "no sound of"),
        ("--steps 0", "steps"),
        ("--seconds 0", "seconds"),
    ],
    "score_ic": [
        ("--cohort {missing}", "no cohort here"),
        ("--cohort {training}", "no sound of split test"),
        ("--model {missing}", "no such checkpoint"),
        ("--model {aid}", "holds a Masks"),
        ("--model {text}", "damaged, or no checkpoint"),
        ("--fits {missing}", "missing"),
        ("--fits {no_fits}", "no_fits"),
        ("--fits {text}", "text.txt"),
        ("--fits {nobody}", "nobody"),
        ("--fits {json}", "no θ in it"),
        ("--fits {far}", "within 0 and 1"),
        ("--fits {strange}", "fitted to another model"),
        ("--fits {homeless}", "how channels were matched"),
        ("--cohort {once}", "a test sound twice"),
        ("--cohort {empty_cohort}", "no animal"),
        ("--out {text}", "text.txt"),
        ("--precision fp8", "fp8"),
    ],
    "train_compensation": [
        ("--batch 0", "batch"),
        ("--excerpt_s -1", "-1 does not conform"),
        ("--excerpt_s 1000", "excerpt"),
        ("--steps -1", "-1 does not conform"),
        ("--steps 0", "steps"),
        ("--steps 1e99", "steps"),
        ("--micro_batch 0", "micro_batch"),
        ("--learning_rate 0", "learning_rate"),
        ("--learning_rate nan", "nan does not conform"),
        ("--reverberant 2", "reverberant"),
        ("--level_db_spl [50]", "2 elements"),
        ("--level_db_spl [85,45]", "from low to high"),
        ("--level_db_spl [0,1000]", "1000 does not conform"),
        ("--snr_db [inf,0]", "snr_db"),
        ("--weights.hiss -1", "weights.hiss"),
        ("--weights.intelligibility 1 --excerpt_s 0.1", "too short for HASPI"),
        ("--masks.bands 0", "must be positive"),
        ("--masks.colour red", "masks.colour"),
        ("--network transformer", "transformer"),
        ("--listener everything", "everything"),
        ("--through animal", "needs the fit of that animal"),
        ("--cohort {missing}", "no cohort here"),
        ("--cohort {damaged}", "damaged"),
        ("--model {missing}", "no such checkpoint"),
        ("--model {abr}", "its condition is 'thresholds'"),
        ("--model {ill}", "no animal with normal hearing"),
        ("--more_models [{missing}]", "no such checkpoint"),
        ("--begin_from {model}", "holds a ResponseModel"),
        ("--begin_from {aid}", "is of other sizes"),
        ("--only {missing}", "no θ in it"),
        ("--only {strange}/new.json", "fitted to another model"),
        ("--only {homeless}/new.json", "does not say to which model"),
        ("--sounds {missing}", "missing"),
        ("--sounds {documents}", "documents"),
        ("--sounds {nan}", "nan"),
        ("--out {text}", "text.txt"),
        ("--workers -1", "workers"),
    ],
    "train_ic": [
        ("--epochs 0", "epochs"),
        ("--epochs -1", "-1 does not conform"),
        ("--batch 0", "batch"),
        ("--batch 1.5", "1.5"),
        ("--batch 99999999999999999999", "batch"),
        ("--learning_rate -1", "learning_rate"),
        ("--learning_rate fast", "fast"),
        ("--kl_weight inf", "kl_weight"),
        ("--condition.parameters 0", "parameters"),
        ("--encoder.size 3", "must be even"),
        ("--encoder.filters 0", "must be positive"),
        ("--encoder.filters many", "many"),
        ("--condition.fusion_size 0", "fusion_size"),
        ("--condition.kind resnet", "resnet"),
        ("--condition.kind thresholds --condition.parameters 3", "--condition.kind thresholds"),
        ("--readout.classes 1", "classes must be 2 or more"),
        ("--precision half", "half"),
        ("--schedule never", "never"),
        ("--noise maybe", "maybe"),
        ("--animals [nobody]", "no animal 'nobody'"),
        ("--animals_a_step 0", "animals_a_step"),
        ("--rematch_epochs [-1]", "-1"),
        ("--alignment other", "not aligned as 'other'"),
        ("--cohort {missing}", "no cohort here"),
        ("--cohort {text}", "text.txt"),
        ("--cohort {begun}", "half-written"),
        ("--cohort {damaged}", "damaged"),
        ("--cohort {training}", "no sound of split validation"),
        ("--cohort {empty_cohort}", "no animal"),
        ("--begin_from {missing}", "no such checkpoint"),
        ("--begin_from {aid}", "holds a Masks"),
        ("--begin_from {icnet} --encoder.filters 5", "the encoder to begin from is another one"),
        ("--out {text}", "text.txt"),
        ("--out {text}/below", "text.txt"),
        ("--learning_rat 1", "--learning_rat"),
        ("--lr 1", "--lr"),
        ("epochs=3", "epochs=3"),
        ("--config {missing}", "missing"),
        ("--config {sounds}", "sounds"),
        ("--config {bytes}", "config"),
        ("--config {items}", "Unexpected config: - cohort"),
        ("--config {sentence}", "train for ten epochs"),
        ("--config {broken}", "config"),
        ("--config {misspelt}", "learning_rat"),
        ("--config {typed}", "many"),
        ("--config {none}", "batch"),
        ("--config {deep}", "colour"),
        ("--config {odd}", "must be even"),
        ("--config {flat}", "encoder"),
        ("--config {twins}", "members"),
    ],
}
"""By recipe, what is typed after what it would take, and what the message must say."""


@pytest.mark.parametrize(
    ("recipe", "words", "fragment"),
    [
        pytest.param(recipe, words, fragment, id=f"{recipe} {words}")
        for recipe, cases in CASES.items()
        for words, fragment in cases
    ],
)
def test_bad_input_is_refused_in_one_message_and_nothing_is_written(
    made, tmp_path, monkeypatch, capsys, recipe, words, fragment
):
    monkeypatch.chdir(tmp_path)
    for name in ("ICSIM_TRACEBACK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    typed = [word.format(**made) for word in shlex.split(f"{GOOD[recipe]} {words}")]
    typed = evaluate.joined(typed) if recipe == "evaluate" else typed
    monkeypatch.setattr(sys, "argv", [recipe, *typed])
    before = state_of(made)
    with pytest.raises(SystemExit) as ended:
        run(*RECIPES[recipe])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert fragment in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert state_of(made) == before


def state_of(made: dict[str, str]) -> dict:
    """Names and times of all files that cases are about."""
    root = os.path.dirname(made["text"])
    return {
        entry: os.stat(entry).st_mtime_ns
        for folder, _, files in os.walk(root)
        for entry in (folder, *(f"{folder}/{file}" for file in files))
    }


def test_the_table_is_long_and_covers_every_recipe():
    assert sum(map(len, CASES.values())) >= 175
    assert CASES.keys() == GOOD.keys() == RECIPES.keys()


def test_commands_say_by_their_exit_code_that_nothing_was_done(made, tmp_path):
    for words in (
        "score_ic --cohort {missing} --model {model}",
        "evaluate --clean {text} --processed x",
    ):
        recipe, *typed = (word.format(**made) for word in words.split())
        ended = subprocess.run(
            [sys.executable, "-m", f"recipes.{recipe}", *typed],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert ended.returncode == 2, ended.stderr
        assert "Traceback" not in ended.stderr


POOL = """
import dataclasses, os, signal, sys, time
from pathlib import Path
from recipes.running.jobs import Job, side_by_side
from recipes.running.commands import claim, run

@dataclasses.dataclass(frozen=True)
class Config:
    out: str

def linger(folder):
    Path(folder, f"{os.getpid()}.pid").touch()
    time.sleep(600)

def work(config):
    out = Path(config.out)
    claim(out, config)
    side_by_side("jobs", [Job(n, linger, config.out, out / f"{n}.json") for n in "ab"], 2, out)

if __name__ == "__main__":
    # A shell that starts it in the background lets it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(work, Config)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_ctrl_c_ends_a_command_and_its_processes_in_one_line(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    out = tmp_path / "out"
    command = subprocess.Popen(
        [sys.executable, str(tmp_path / "pool.py"), "--out", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a shell does, so that Ctrl-C reaches all of its processes
    )
    end = time.monotonic() + 300
    while len(list(out.glob("*.pid"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    os.killpg(command.pid, signal.SIGINT)
    said = command.communicate(timeout=60)[1]
    assert command.returncode == 130
    assert f"interrupted: what was finished is kept in {out}, the same command goes on" in said
    assert "Traceback" not in said + (out / "log.txt").read_text()
    pids = [path.stem for path in out.glob("*.pid")]
    assert not any(Path("/proc", pid, "cmdline").is_file() for pid in pids)
