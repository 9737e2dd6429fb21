"""The report of a demo: one HTML file with everything in it, for someone new to the project.

`python -m recipes.reports.demo --out runs/demo` writes it again.
"""

import dataclasses
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import soundfile
import torch
from matplotlib.figure import Figure
from torch import Tensor

from compensation.learned_filters import LearnedFilters
from compensation.linear import nal_r_matched
from compensation.load import load_aid
from compensation.masks import Masks
from compensation.prescriptions import nal_r, nal_r_gains_db
from evaluation.comparison import Comparison
from evaluation.neural import restoration
from evaluation.tidy import difference, gap, where
from icsim.audiogram import Audiogram
from icsim.channel_gains import with_gains
from icsim.cohort_alignment import octave_errors, reference_brains
from icsim.excerpts import NOISE, Condition, speech_in_noise
from icsim.files import write_whole
from icsim.fits import Fit, read_fit
from icsim.frames import recording_pairs
from icsim.metrics import expected_counts, feve
from icsim.models.load import load_theta_model
from icsim.models.readouts import CategoricalPrediction
from icsim.models.response import ResponseModel
from icsim.models.subjects import Subjects
from icsim.recording import Presentation
from icsim.simulation.animal import Animal, animal_from
from icsim.sound import BIN_SAMPLES, RESPONSE_RATE, SAMPLE_RATE, calibrate, level, resample
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of
from icsim.weights import fingerprint, load_tensors
from recipes.reports import figures, judged, tables, verdicts
from recipes.reports.demo_results import key_figures, reach
from recipes.reports.page import inline, png, template
from recipes.running import stages
from recipes.running.commands import run
from recipes.running.ranges import NotEmptyStr, checked

DEVICES = {
    "unprocessed": "unaided",
    "nal_r": "NAL-R",
    "nal_r_matched": "NAL-R, as loud as our aid",
    "nal_r_best_model": "NAL-R + k dB, best in the model",
    "flat_model": "flat gain, best in the model",
    "masks_nr_off": "our aid, noise reduction off",
    "masks_nr_on": "our aid, noise reduction on",
}
"""Devices as `recipes.judge` calls them, and as a reader does."""

OUR_DEVICE = "masks_nr_off"
"""The one of them that is compared with others where it is quiet."""

OURS = "our aid"
"""The same reader's name of it where its noise reduction is said elsewhere."""

OTHERS = {name: label for name, label in DEVICES.items() if not name.startswith("masks")}
"""Those that our aid is compared with."""

SENTENCES = 12
"""Of noisy speech on which the pauses are compared."""

MEASURE = "fidelity_quiet"
"""What the report shows of restoration; in quiet, fidelity and clarity are the same."""

SPEECH_DB_SPL = (50.0, 65.0, 80.0)
"""Soft, ordinary and loud speech [dB SPL], for gains."""

THIRD_OCTAVES_HZ = 1000 * 2 ** (torch.arange(-9, 10) / 3)
"""Centres of bands [Hz], `(F,)`."""

PLAYED_HZ = 24000
"""Whole sample rate of the players [Hz]."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Which report to write again."""

    out: NotEmptyStr = "runs/demo"
    """Folder of a finished demo."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """What a finished demo left behind, opened."""

    out: Path
    stages: dict
    """What is noted of each stage that was done, by name, in order."""
    cohort: Cohort
    model: ResponseModel
    seen: tuple[str, ...]
    """Animals that the model was trained on."""
    matching: dict[str, Tensor]
    """Slots of every animal's channels in the model, those below 0 left out, `(C,)`."""
    aid: Masks | LearnedFilters
    fits: dict[str, Fit]
    """Fits of unseen animals, by name."""
    searches: dict[str, dict]
    """How each was found, as `recipes.fit_theta` notes it."""
    ears: dict[str, Audiogram]
    """Their audiograms."""
    speech: Condition
    """Test speech in noise, `SENTENCES` of it; the first is shown and played."""
    rows: pd.DataFrame
    """What was judged, a row a number."""
    about: dict
    """What `recipes.judge` says of it."""

    @property
    def clean(self) -> Tensor:
        """The first excerpt of test speech [Pa], `(1, T)`."""
        return self.speech.clean[:1]

    @property
    def noisy(self) -> Tensor:
        """The same in noise."""
        return self.speech.noisy[:1]

    @property
    def listener(self) -> str:
        """The unseen animal whose thresholds are worst: the one to look at."""
        return max(self.ears, key=lambda name: sum(self.ears[name].thresholds_db_hl))

    @property
    def normal(self) -> Tensor:
        """Mean θ of the known animals with normal hearing, `(1, P)`."""
        names = [name for name in self.seen if self.cohort.animal(name).status == "NH"]
        return torch.cat([self.theta(name) for name in names]).mean(0, keepdim=True)

    def theta(self, name: str, hours: float = 0.0) -> Tensor:
        """θ of a known animal at a time, or of a fitted one, `(1, P)`."""
        if name in self.fits:
            return self.fits[name].theta[None]
        return self.model.listeners.at(hours)[self.seen.index(name)].detach()[None]

    def predict(self, name: str, theta: Tensor, sounds: Tensor) -> Tensor:
        """Expected counts on one animal's kept channels if its θ were `(1, P)`, `(B, C, N)`."""
        matched = self.matched(name)
        with torch.no_grad():
            latent = self.model.latent(sounds)
            listener = Subjects(theta=theta[None], matching=self.matching[name][matched][None])
            predicted = self.model.predict(latent, listener)
            gains = self.fits[name].gains if name in self.fits else None
            if gains is not None and isinstance(predicted, CategoricalPrediction):
                predicted = with_gains(predicted, gains[matched])
            return expected_counts(predicted.log_probabilities()[:, 0])

    def match_db(self, name: str) -> float:
        """How much louder than NAL-R our aid is for an unseen animal, on training sounds [dB]."""
        return self.about["listeners"][name]["gains_db"]["nal_r_matched"]

    def restoration(self, judge: str, listener: str | None = None) -> pd.DataFrame:
        """Rows of restoration in quiet by one judge, of all with a loss or of one listener."""
        rows = where(self.rows, judge=judge, **judged.MEASURES[MEASURE])
        return where(rows, listener=listener) if listener else judged.with_a_loss(rows)

    def matched(self, name: str) -> Tensor:
        """Which of an animal's channels are not set apart, bool `(C,)`."""
        return self.matching[name] >= 0

    def truth(self, name: str) -> Animal:
        """The simulated animal itself."""
        return animal_from(self.cohort.truth(name))

    def ours(self, name: str, sounds: Tensor, noise_reduction: float = 0.0) -> Tensor:
        """Sounds through our aid for a listener, `(B, T)` [Pa]."""
        with torch.no_grad():
            theta = self.theta(name).expand(len(sounds), -1)
            return self.aid.process(sounds, theta, noise_reduction)


def write(out: Path) -> Path:
    """Write `report.html` from the folders of a finished demo; returns its path.

    Raises:
        ValueError: If the cohort, the model or the aid is missing or damaged, or a fit is of
            another model.
    """
    demo = read(out)
    parts = (overview, listeners, midbrain, newcomers, aid, listening, scores)
    sections = {part.__name__: part(demo) for part in parts}
    page = template(
        "demo_report.html", number=number, reach=reach_of, duration=stages.duration
    ).render(
        **sections,
        devices=DEVICES,
        snr_db=demo.about["snr_db"],
        listener=demo.listener,
        out=str(out),
        origins=origins(demo.stages),
    )
    path = out / "report.html"
    write_whole(path, page)
    return path


def read(out: Path) -> Demo:
    """Open the folders of a finished demo."""
    cohort_path, model_path = out / "cohort" / "cohort.zarr", out / "ic" / "model.safetensors"
    aid_path = out / "aid" / "aid.safetensors"
    cohort = Cohort.open(cohort_path)
    model, facts = load_theta_model(model_path)
    device, _ = load_aid(aid_path)
    files, mark = sorted((out / "fits").glob("*.json")), fingerprint(model_path)
    fits = {path.stem: read_fit(path, mark) for path in files}
    rows, about = judged.read(out / "judged")
    speech = speech_in_noise(
        cohort, SENTENCES, _excerpt_s(cohort), about["level_db_spl"], about["snr_db"], seed=0
    )
    return Demo(
        out=out,
        stages=stages.finished(out),
        cohort=cohort,
        model=model,
        seen=facts.animals,
        matching={
            **dict(zip(facts.animals, facts.matching, strict=True)),
            **{name: fit.matching for name, fit in fits.items() if fit.matching is not None},
        },
        aid=device,
        fits=fits,
        searches={path.stem: json.loads(path.read_text()) for path in files},
        ears={name: audiogram_of(cohort, name) for name in fits},
        speech=speech,
        rows=rows,
        about=about,
    )


def overview(demo: Demo) -> dict:
    """The stages with their times, and the key figures."""
    took = {name: stage["seconds"] for name, stage in demo.stages.items() if name != "report"}
    longest = max(took.values())
    numbers, quiet = key_figures(demo.stages), demo.restoration("truth")
    scored = demo.stages["prediction"]["result"].values()
    feve_by_role = {
        role: [s["feve"] for s in scored if s["role"] == role and s["feve"] is not None]
        for role in ("seen", "unseen")
    }
    return {
        "stages": [(name, seconds, 100 * seconds / longest) for name, seconds in took.items()],
        "seconds": sum(took.values()),
        "animals": len(demo.cohort.animals()),
        "seen": len(demo.seen),
        "channels": sorted({demo.cohort.animal(n).channels for n in demo.cohort.animals()}),
        "slots": demo.model.config.channels,
        "sound_s": sum(sound.samples for sound in demo.cohort.sounds) / SAMPLE_RATE,
        **numbers["feve"],
        **numbers["fit"],
        "reach": {group: reach(values) for group, values in numbers["feve_of_animals"].items()},
        "close": verdicts.close_to_known(feve_by_role["seen"], feve_by_role["unseen"]),
        "restoration": {device: judged.mean_of(quiet, device) for device in DEVICES},
        "compared": {
            label: one
            for device, label in OTHERS.items()
            if (one := difference(quiet, OUR_DEVICE, device))
        },
    }


def listeners(demo: Demo) -> dict:
    """Thresholds of every animal, and where the model put them in θ-space."""
    animals = {name: demo.cohort.animal(name) for name in demo.cohort.animals()}
    status = {n: "unseen" if a.role == "unseen" else a.status for n, a in animals.items()}
    order = sorted(animals, key=lambda name: (list(figures.COLOURS).index(status[name]), name))
    hidden = [n for n in order if demo.cohort.truth(n).get("hearing") == "hidden"]
    measured = {n: t for n in order if (t := animals[n].thresholds_db_spl) is not None}
    frequencies = animals[order[0]].abr_frequencies_hz or ()
    placed = [n for n in order if n in demo.seen or n in demo.fits]
    learned = dict(zip(demo.seen, demo.model.listeners.deviation.detach(), strict=True))
    fitted = {n: torch.tensor(fit["deviation"]) for n, fit in demo.searches.items()}
    space = figures.theta_space(
        torch.cat([demo.theta(name) for name in placed]),
        torch.stack([(learned | fitted)[name] for name in placed]),
        placed,
        [status[name] for name in placed],
    )
    return {
        "hidden": hidden,
        "apart": verdicts.neighbours(
            {name: demo.theta(name)[0] for name in placed},
            {name: demo.cohort.truth(name)["hearing"] for name in placed},
            list(demo.fits),
        ),
        "thresholds": picture(
            figures.thresholds(frequencies, measured, status, dashed=hidden),
            "Hearing thresholds of every animal over frequency",
        ),
        "space": picture(space, "Every animal as a point in θ-space, and its value by dimension"),
    }


def midbrain(demo: Demo) -> dict:
    """How the model was trained, and how well it predicts."""
    history = load_tensors(demo.out / "ic" / "state.safetensors")[1]["history"]
    predicted = demo.stages["prediction"]["result"]
    kinds = sorted({kind for score in predicted.values() for kind in score["feve_by_kind"]})
    names = sorted(predicted, key=lambda n: (predicted[n]["role"], predicted[n]["status"] != "NH"))
    table = [
        [*(predicted[n]["feve_by_kind"].get(k) for k in kinds), predicted[n]["feve"]] for n in names
    ]
    values = torch.tensor([[torch.nan if v is None else v for v in row] for row in table])
    level_figure, follows = _level_dependence(demo)
    return {
        "epochs": len(history),
        "learned": verdicts.learned(history),
        "curves": [
            picture(figures.training_curves(history, {name: unit}, "epoch"), alt)
            for name, unit, alt in (
                ("cross_entropy", "error [nats]", "Training error over epochs"),
                ("validation", "error [nats]", "Validation error over epochs"),
                ("separation", "distance [uncertainties]", "Distance between animals over epochs"),
            )
        ],
        "table": picture(
            figures.heat_map(values, names, [*kinds, "all"], "FEVE", ("class of sound", "animal")),
            "Explained variance by animal and class of sound",
        ),
        "pair": [
            picture(
                _recorded(demo, name, "predicted by the model"),
                f"Recorded, predicted and true response of {name}",
            )
            for name in _normal_and_worst(demo)
        ],
        "level": picture(level_figure, "Mean response over the level of speech"),
        "follows": follows,
    }


def newcomers(demo: Demo) -> dict:
    """How θ of the unseen animals was found, and how channels of brains were matched."""
    predicted = demo.stages["prediction"]["result"]
    explained = {
        name: [explained_by(demo, name, theta) for theta in (demo.theta(name), demo.normal)]
        for name in demo.fits
    }
    fits = [
        fit
        | {
            "feve": predicted.get(name, {}).get("feve"),
            "feve_as_normal": _median(explained[name][1].values()),
            "pictures": [
                {"src": inline("image/png", file.read_bytes()), "alt": f"{what} of {name}"}
                for what in ("course", "surface")
                if (file := demo.out / "fits" / f"{name}-{what}.png").is_file()
            ],
        }
        for name, fit in demo.searches.items()
    ]
    thetas = [tuple(fit["theta"]) for fit in fits]
    errors = octave_errors(demo.cohort, reference_brains(demo.cohort, "template"))
    octaves = {when: _median(by_animal.values()) for when, by_animal in errors.items()}
    return {
        "fits": fits,
        "worth": verdicts.worth_fitting(
            {
                name: (
                    list(fitted.values()),
                    list(normal.values()),
                    [demo.cohort.sounds[sound].source for sound in fitted],
                )
                for name, (fitted, normal) in explained.items()
            }
        ),
        "aligned": verdicts.aligned(octaves["before alignment"], octaves["after alignment"]),
        "same": len(set(thetas)) < len(thetas),
        "alignment": picture(
            figures.grouped_bars(
                errors, "median error [octaves]", "Matched channels", rows="animal"
            ),
            "Error of matched channels before and after alignment, by animal",
        ),
        "response": picture(
            _recorded(
                demo,
                demo.listener,
                "predicted, fitted θ",
                {"predicted, θ of normal hearing": demo.normal},
            ),
            "Recorded, predicted and true response of a new listener",
        ),
    }


def aid(demo: Demo) -> dict:
    """How the aid was trained, what it does to sound, and to true midbrains."""
    history = load_tensors(demo.out / "aid" / "state.safetensors")[1]["history"]
    # A step without any noisy excerpt has nothing to denoise and notes a zero.
    history = [{name: value or None for name, value in record.items()} for record in history]
    smooth = max(1, len(history) // 12)
    responses, differences, gained = _true_responses(demo)
    noisy = {"noisy": demo.noisy[0]} | _aided(demo, demo.noisy[0], noise_reduction=1)
    del noisy[DEVICES["nal_r_matched"]]  # the same picture as NAL-R's, but brighter
    prescribed = _prescribed(demo, demo.speech.noisy)[DEVICES["nal_r"]]
    sentences = {
        "noisy": demo.speech.noisy,
        DEVICES["nal_r"]: prescribed,
        OURS: demo.ours(demo.listener, demo.speech.noisy, 1),
    }
    gains = {name: _measured_gains(demo, name) for name in demo.fits}
    return {
        "steps": len(history),
        "smooth": smooth,
        "learned": verdicts.gained(history, smooth),
        "compresses": verdicts.compresses(
            gains,
            {name: demo.ears[name].at(THIRD_OCTAVES_HZ) for name in demo.fits},
            SPEECH_DB_SPL,
        ),
        "stands_out": verdicts.stands_out(
            {
                device: list(map(verdicts.speech_over_pauses_db, sounds, demo.speech.clean))
                for device, sounds in sentences.items()
            },
            demo.speech.sounds,
            OURS,
            DEVICES["nal_r"],
        ),
        "curves": [
            picture(figures.training_curves(history, {name: unit}, "step", smooth), alt)
            for name, unit, alt in (
                ("compensation", "share left", "Discrepancy left by compensation over steps"),
                ("denoising", "share left", "Discrepancy left by noise reduction over steps"),
                ("roughness", "roughness [(10 dB)²]", "Roughness of gains over steps"),
            )
        ],
        "gains": [
            picture(figure, f"{what} for {name}")
            for name in demo.fits
            for figure, what in (
                (_gain_figure(demo, name, gains[name]), "Gain by frequency"),
                (_input_output(demo, name), "Level in and out"),
            )
        ],
        "spectrograms": picture(
            figures.spectrograms({"clean": demo.clean[0]} | noisy),
            "Spectrograms of clean, noisy and processed speech",
        ),
        "heard": picture(responses, "Responses of the true midbrain"),
        "differences": picture(differences, "What differs from the healthy response"),
        "restored": gained,
    }


def listening(demo: Demo) -> list[dict]:
    """Players: the same speech in quiet and in noise, each with a version a device."""
    name, noise_reductions = demo.listener, {"off": 0.0, "half": 0.5, "full": 1.0}
    players = {}
    for place, sound in {"in quiet": demo.clean, "in noise": demo.noisy}.items():
        players[place] = {"unaided": sound, **_prescribed(demo, sound)} | {
            f"our aid, noise reduction {word} (a = {amount:g})": demo.ours(name, sound, amount)
            for word, amount in noise_reductions.items()
        }
    every = [after for versions in players.values() for after in versions.values()]
    factor = 0.9 / max(after.abs().max().item() for after in every)
    return [
        {
            "place": place,
            "versions": [
                {
                    "name": version,
                    "level_db_spl": level(after).item(),
                    "src": inline("audio/wav", _wav(factor * after[0])),
                }
                for version, after in versions.items()
            ],
        }
        for place, versions in players.items()
    ]


def scores(demo: Demo) -> dict:
    """Restoration on true midbrains and in the model, and the table of other scores."""
    listeners = list(demo.about["listeners"])
    less = {
        name: {
            label: difference(demo.restoration("truth", name), OUR_DEVICE, device)
            for device, label in OTHERS.items()
        }
        for name in listeners
    }
    both = where(demo.rows, **judged.MEASURES[MEASURE])
    gaps = {
        name: gap(where(both, listener=name), OUR_DEVICE, "model", "truth") for name in listeners
    }
    means = {n: m for n, one in gaps.items() if one and isinstance(m := one["mean"], Comparison)}
    restored = judged.estimates(demo.rows, demo.about)
    scored = judged.with_a_loss(where(demo.rows, judge="", condition=NOISE))
    return {
        "bars": [
            picture(drawn, f"Restoration for {name}") for name, drawn in _restorations(demo).items()
        ],
        "best": verdicts.restores_most(less, list(OTHERS.values()), DEVICES[OUR_DEVICE]),
        "opinion": verdicts.opinion(means),
        "kinds": sorted(set(demo.about["kinds"])),
        "mean": {judge: restored[judge][MEASURE] for judge in ("truth", "model")},
        "rows": [
            {
                "score": name,
                "cells": [judged.mean_of(where(scored, measure=name), d) for d in DEVICES],
                "reason": demo.about["missing"].get(name),
            }
            for name in dict.fromkeys([*scored.measure, *demo.about["missing"]])
        ],
    }


def explained_by(demo: Demo, name: str, theta: Tensor) -> dict[int, float]:
    """FEVE of an animal's test sounds if its θ were `(1, P)`, by sound."""
    animal, explained = demo.cohort.animal(name), {}
    for sound, trials in recording_pairs(demo.cohort, name, "test"):
        expected = demo.predict(name, theta, demo.cohort.pressure(sound)[None])[0]
        counts = torch.stack([animal.counts(trial).T[demo.matched(name)] for trial in trials])
        try:
            explained[sound] = feve(expected, counts).item()
        except ValueError:  # nothing repeatable to explain
            continue
    return explained


def origins(done: dict) -> list[dict]:
    """When, at which commits and on which machines the stages were done."""
    places: dict[tuple, list[str]] = {}
    for stage in done.values():
        facts = stage["commit"], stage["machine"], stage["packages"]
        places.setdefault(facts, []).append(stage["begun"])
    return [
        {
            "commit": commit,
            "machine": machine,
            "packages": packages,
            "from": min(begun)[:16].replace("T", " "),
            "to": max(begun)[:16].replace("T", " "),
        }
        for (commit, machine, packages), begun in places.items()
    ]


def picture(figure: Figure, alt: str) -> dict[str, str]:
    """A figure as an inlined PNG with its alternative text."""
    return {"src": inline("image/png", png(figure)), "alt": alt}


def signed(value: float) -> str:
    """A number with its sign.

    >>> signed(3.25), signed(-1.0), signed(0.01)
    ('+3.2', '−1.0', '+0.0')
    """
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")


def number(value: float | None, digits: int = 2) -> str:
    """A number, or that it is missing.

    >>> number(0.123), number(None), number(-0.001)
    ('0.12', 'missing', '0.00')
    """
    return "missing" if value is None else tables.number(value, digits)


def reach_of(one: Comparison) -> str:
    """Ends of an interval, if it has any.

    >>> reach_of(Comparison(0.5, 0.25, 0.75, None, 1, 2, 3))
    '0.25 to 0.75'
    """
    return "" if math.isnan(one.low) else f"{number(one.low)} to {number(one.high)}"


def _recorded(
    demo: Demo, name: str, predicted: str, others: Mapping[str, Tensor] | None = None
) -> Figure:
    """One recorded trial of test speech, its predictions, and what the truth expects.

    Args:
        demo: Of the animal.
        name: Of the animal.
        predicted: Title of the prediction with the animal's own θ.
        others: More θ to predict with, `(1, P)`, by title.
    """
    sound, trial, shown = _speech_trial(demo, name)
    pressure = demo.cohort.pressure(sound)[None]
    animal, hours = demo.cohort.animal(name), shown.time_h
    matched = demo.matched(name)
    recorded = animal.counts(trial).T[matched].float()
    thetas = {predicted: demo.theta(name, hours)} | dict(others or {})
    images = {title: demo.predict(name, theta, pressure)[0] for title, theta in thetas.items()}
    with torch.no_grad():
        expected = demo.truth(name).expected_counts(pressure, hours)[0]
    images["true expectation"] = expected[matched]
    top, part = figures.brightest(list(images.values())), _window(recorded)
    images = {f"{name}: one recorded trial": recorded} | images
    cf_hz = demo.truth(name).cf_hz[matched]
    shown_part = [image[:, part] for image in images.values()]
    return figures.responses(shown_part, list(images), 1, cf_hz, top)


def _level_dependence(demo: Demo) -> tuple[Figure, verdicts.Verdict]:
    """Mean response of a normal and an impaired animal, predicted and true; how far these are."""
    levels = torch.arange(40.0, 91.0, 10.0)
    sounds = calibrate(demo.clean[:, : round(2 * SAMPLE_RATE)].expand(len(levels), -1), levels)
    curves, styles, both = {}, {}, {}
    for name, status in zip(_normal_and_worst(demo), ("NH", "HI"), strict=False):
        with torch.no_grad():
            true = demo.truth(name).expected_counts(sounds)[:, demo.matched(name)]
        counts_by = {"predicted": demo.predict(name, demo.theta(name), sounds), "true": true}
        for what, counts in counts_by.items():
            line = "-" if what == "predicted" else "--"
            curves[f"{name}, {what}"] = counts.mean((1, 2))
            styles[f"{name}, {what}"] = {"color": figures.COLOURS[status], "linestyle": line}
        both[name] = curves[f"{name}, predicted"], curves[f"{name}, true"]
    drawn = figures.level_curves(levels, curves, "mean spikes a bin", "Louder speech", styles)
    return drawn, verdicts.follows(both)


def _measured_gains(demo: Demo, name: str) -> Tensor:
    """Gains of our aid on speech at three levels in third octaves [dB], `(3, F)`."""
    sounds = calibrate(demo.clean.expand(len(SPEECH_DB_SPL), -1), torch.tensor(SPEECH_DB_SPL))
    before, after = (band_levels(x, THIRD_OCTAVES_HZ) for x in (sounds, demo.ours(name, sounds)))
    return after - before


def _gain_figure(demo: Demo, name: str, gains_db: Tensor) -> Figure:
    """Measured gains `(3, F)` [dB], and those that NAL-R prescribes."""
    curves = {f"our aid, {db:g} dB SPL": g for db, g in zip(SPEECH_DB_SPL, gains_db, strict=True)}
    looks = zip(figures.LEVELS, "vos", strict=True)
    styles = {
        name: {"color": shade, "marker": marker, "markersize": 4}
        for name, (shade, marker) in zip(curves, looks, strict=True)
    }
    prescribed_db, match_db = nal_r_gains_db(demo.ears[name], THIRD_OCTAVES_HZ), demo.match_db(name)
    lines = {
        "NAL-R": ("--", 0.0),
        f"NAL-R {signed(match_db)} dB, as loud as our aid": (":", match_db),
    }
    for label, (line, more_db) in lines.items():
        curves[label] = prescribed_db + more_db
        styles[label] = {"color": "black", "linestyle": line, "marker": ""}
    return figures.gain_curves(THIRD_OCTAVES_HZ, curves, f"{name}: gain", styles)


def _input_output(demo: Demo, name: str) -> Figure:
    """Level of speech before and after."""
    levels = torch.arange(30.0, 91.0, 10.0)
    sounds = calibrate(demo.clean.expand(len(levels), -1), levels)
    curves = {"NAL-R": nal_r(sounds, demo.ears[name]), "our aid": demo.ours(name, sounds)}
    return figures.level_curves(
        levels,
        {device: level(after) for device, after in curves.items()},
        "level after the device [dB SPL]",
        f"{name}: in and out",
        {
            "NAL-R": {"color": "black", "linestyle": "--"},
            "our aid": {"color": figures.CYCLE[1], "marker": "o", "markersize": 4},
        },
        identity=True,
    )


def _true_responses(demo: Demo) -> tuple[Figure, Figure, dict[str, float | None]]:
    """Of one unseen midbrain and its healthy twin to speech; what differs; how much is restored."""
    name, samples = demo.listener, round(2 * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    sound = demo.clean[:, :samples]
    animal = demo.truth(name)
    devices = {"unaided": sound[0]} | _aided(demo, sound[0], noise_reduction=0)
    with torch.no_grad():
        healthy = animal.healthy().expected_counts(sound)
        aided = {d: animal.expected_counts(after[None]) for d, after in devices.items()}
    gained = {d: restoration(counts, aided["unaided"], healthy) for d, counts in aided.items()}
    images = [healthy[0], *(counts[0] for counts in aided.values())]
    titles = ["before the loss (healthy twin)", *(f"with the loss, {device}" for device in aided)]
    differ = [image - healthy[0] for image in images[1:]]
    return (
        figures.responses(images, titles, 1, animal.cf_hz),
        figures.response_differences(differ, [f"{d} − healthy" for d in aided], 1, animal.cf_hz),
        {d: None if score.reasons[0] else score.values.item() for d, score in gained.items()},
    )


def _aided(demo: Demo, sound: Tensor, noise_reduction: float) -> dict[str, Tensor]:
    """A sound `(T,)` through every device, for the listener to look at."""
    ours = demo.ours(demo.listener, sound[None], noise_reduction)[0]
    prescribed = _prescribed(demo, sound[None])
    return {name: after[0] for name, after in prescribed.items()} | {OURS: ours}


def _prescribed(demo: Demo, sound: Tensor) -> dict[str, Tensor]:
    """Sounds `(B, T)` through the prescriptions that our aid is compared with."""
    ear, match_db = demo.ears[demo.listener], demo.match_db(demo.listener)
    return {
        DEVICES["nal_r"]: nal_r(sound, ear),
        DEVICES["nal_r_matched"]: nal_r_matched(sound, ear, match_db),
    }


def _restorations(demo: Demo) -> dict[str, Figure]:
    """Restoration by listener, all on one axis."""
    places = {"truth": "true midbrain", "model": "the model's own opinion"}
    cells = {
        name: {
            shown: {
                label: judged.mean_of(demo.restoration(judge, name), device)
                for device, label in DEVICES.items()
            }
            for judge, shown in places.items()
        }
        for name in demo.about["listeners"]
    }
    every = [
        one
        for of_listener in cells.values()
        for part in of_listener.values()
        for one in part.values()
        if one
    ]
    ends = [x for one in every for x in (one.estimate, one.low, one.high) if math.isfinite(x)]
    limits = (min(0.0, *ends) - 0.05, max(0.2, *ends) + 0.05)
    label = "restoration (1 = as healthy)"
    return {
        name: figures.interval_bars(of_listener, label, name, limits)
        for name, of_listener in cells.items()
    }


def band_levels(sounds: Tensor, centres_hz: Tensor) -> Tensor:
    """Levels in third-octave bands, `(B, T)` [Pa] to `(B, F)` [dB SPL up to a constant]."""
    power = torch.fft.rfft(sounds).abs().square()
    bins_hz = torch.linspace(0, SAMPLE_RATE / 2, power.shape[-1])
    inside = (bins_hz / centres_hz[:, None]).log2().abs() < 1 / 6
    return 10 * (power @ inside.float().T).log10()


def _normal_and_worst(demo: Demo) -> list[str]:
    """A known animal with normal hearing, and the one that hears worst."""
    normal = next(n for n in demo.seen if demo.cohort.animal(n).status == "NH")
    levels = {n: demo.cohort.animal(n).thresholds_db_spl for n in demo.seen if n != normal}
    hears = {n: t.sum().item() for n, t in levels.items() if t is not None}
    return [normal, *([max(hears, key=hears.__getitem__)] if hears else [])]


def _excerpt_s(cohort: Cohort) -> float:
    """Length of the speech to show and play: 4 s, or the longest test speech there is [s]."""
    speech = (s.samples for s in cohort.sounds if s.split == "test" and s.kind == "speech")
    return min(4.0, max(speech) // BIN_SAMPLES * BIN_SAMPLES / SAMPLE_RATE)


def _speech_trial(demo: Demo, name: str) -> tuple[int, int, Presentation]:
    """Test speech that an animal heard: sound, presentation, and when."""
    shown = demo.cohort.animal(name).presentations
    sounds = demo.cohort.sounds
    ours = [(s.sound, trial, s) for trial, s in enumerate(shown) if sounds[s.sound].split == "test"]
    return next((o for o in ours if sounds[o[0]].kind == "speech"), ours[0])


def _window(counts: Tensor) -> slice:
    """The two seconds in which most is to be seen, of counts `(C, N)`."""
    width = min(round(2 * RESPONSE_RATE), counts.shape[1])
    start = counts.mean(0).unfold(0, width, 50).mean(-1).argmax().item() * 50
    return slice(start, start + width)


def _median(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def _wav(sound: Tensor) -> bytes:
    """A sound within ±1 as 16-bit WAV."""
    buffer = io.BytesIO()
    samples = resample(sound, SAMPLE_RATE, PLAYED_HZ).clamp(-1, 1).numpy()
    soundfile.write(buffer, samples, PLAYED_HZ, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


if __name__ == "__main__":
    print(run(lambda config: write(Path(config.out)), Config))
