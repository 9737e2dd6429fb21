"""The benchmark's numbers as tables."""

import statistics

from recipes.cells import NOTHING, Table, number

LABELS = {
    "unprocessed": "no aid",
    "nal_r": "NAL-R",
    "nal_r_compressed": "NAL-R with compression",
    "linear": "best linear gain, in the model",
    "linear_truth": "best linear gain, on the true animal",
    "masks": "Masks, told θ",
    "masks_audiogram": "Masks, told the audiogram",
    "waveform": "Waveform, told θ",
    "masks_auditory": "Masks, through the auditory model",
    "own": "Masks, for this animal alone",
    "ceiling": "Masks, through the true animal",
    "nothing-changed": "nothing changed",
    "no-roughness": "roughness over bands not held",
    "no-flutter": "flutter in time not held",
    "no-effort": "gain not held",
    "no-hiss": "gain of the inaudible not held",
    "no-contrast": "contrast not held",
    "no-distortion": "distortion not held",
    "no-guards": "nothing held",
    "exact-fit": "told θ exactly",
    "two-models": "through two models",
}
"""Devices as a reader calls them."""


def tables(summary: dict) -> dict[str, Table]:
    """All tables of a summary, by name."""
    made = [restoration, comparisons, gap, quality, noise_reduction, artefacts, ablations]
    return {make.__name__: make(summary) for make in made}


def restoration(summary: dict) -> Table:
    """Of every device, on true midbrains."""
    devices = summary["restoration"]
    first = devices["masks"]
    rows = [
        [
            LABELS[device],
            *(number(found[name], 2) for name in ("quiet", "noise")),
            *(number(value, 2) for value in found["by_level"].values()),
            *(number(value, 2) for value in found["by_group"].values()),
            " / ".join(number(value, 2) for value in found["by_seed"]),
            number(summary["harm"][device], 2),
        ]
        for device, found in devices.items()
    ]
    header = ["device", "quiet", "in noise", *first["by_level"], *first["by_group"]]
    header += ["by seed", "normal"]
    about = (
        "On true midbrains of unseen animals with a loss, means over listeners and seeds; levels, "
        "groups and seeds are in quiet. Normal: what is left of the response of unseen animals "
        "with normal hearing once they wear it, in units of an average loss: 0 is no harm. The "
        "aid for one animal alone and the ceiling began with Masks for everyone."
    )
    return Table("Restoration", about, header, rows)


def comparisons(summary: dict) -> Table:
    """Masks against others, by seed."""
    rows = [
        [
            name,
            condition.replace("hidden", "quiet"),
            number(statistics.fmean(values), 2),
            " / ".join(number(value, 2) for value in values),
        ]
        for name, found in summary["comparisons"].items()
        for condition, values in found.items()
    ]
    about = "Restoration on true midbrains by Masks, told θ, mean over seeds and by seed."
    return Table("Against others", about, ["Masks, told θ", "condition", "mean", "by seed"], rows)


def gap(summary: dict) -> Table:
    """What the model believes."""
    rows = []
    for device, found in summary["restoration"].items():
        inside = summary["restoration_model"][device]
        cells = [LABELS[device]]
        for name in ("quiet", "noise"):
            cells += [number(inside[name], 2), number(inside[name] - found[name], 2)]
        rows.append(cells)
    header = ["device", "quiet, in the model", "more than true", "noise, in the model"]
    about = (
        "Restoration in the opinion of the model that aids were trained through, and by how much "
        "it is better than on true midbrains: an aid learns what the model gets wrong, too."
    )
    return Table("The model's opinion", about, [*header, "more than true"], rows)


def quality(summary: dict) -> Table:
    """HASPI and HASQI."""
    names = ("haspi", "haspi_quiet", "hasqi")
    rows = [
        [LABELS[device], *(number(summary[name][device], 3) for name in names)]
        for device in summary["haspi"]
    ]
    about = (
        "HASPI of noisy speech with noise reduction on, HASPI and HASQI of speech in quiet, for "
        "the listeners' audiograms: models of human ears, asked about gerbils. HASQI compares "
        "with NAL-R and so favours it."
    )
    header = ["device", "HASPI in noise", "HASPI in quiet", "HASQI in quiet"]
    return Table("Intelligibility and quality", about, header, rows)


def noise_reduction(summary: dict) -> Table:
    """Scores over the exponent of the noise mask."""
    rows = []
    for device, found in summary["noise_reduction"].items():
        for a, scores in found.items():
            digits = {"estoi": 3, "pesq": 2, "si_sdr_db": 1}
            rows.append([LABELS[device], a, *(number(scores[n], d) for n, d in digits.items())])
    about = "Noisy speech with the noise mask to the power of a, and no compensation."
    header = ["device", "a", "ESTOI", "PESQ", "SI-SDR dB"]
    return Table("Noise reduction", about, header, rows)


def artefacts(summary: dict) -> Table:
    """Spurs, silence, delay and pace."""
    rows = []
    for device, found in summary["artefacts"].items():
        running = summary["streaming"].get(device, {})
        names = {"latency_ms": 2, "real_time_factor": 2, "worst_block_ms": 1}
        silence = found["silence_db"]
        rows.append(
            [
                LABELS[device],
                number(found["spur_db"], 0),
                "silent" if silence < -100 else number(silence, 0),
                *(number(running[n], d) if running else NOTHING for n, d in names.items()),
            ]
        )
    about = (
        "Worst of all listeners. Spurs: energy beside steady tones and chirps, relative to them. "
        "Silence: what comes out when nothing goes in. Delay of an impulse, time to process over "
        "time processed, and the longest block, on one core."
    )
    header = ["device", "spurs dB", "silence dB SPL", "delay ms", "real-time factor"]
    return Table("Artefacts and running", about, [*header, "longest block ms"], rows)


def ablations(summary: dict) -> Table:
    """One thing changed."""
    guards = ("roughness", "flutter", "effort", "hiss", "contrast")
    rows = [
        [
            LABELS[device],
            number(found["truth"]["quiet"], 2),
            number(found["truth"]["noise"], 2),
            number(found["model"]["quiet"] - found["truth"]["quiet"], 2),
            *(number(found["guards"][name], 3) for name in guards),
            number(found["si_sdr_db"], 1),
        ]
        for device, found in summary["ablations"].items()
    ]
    about = (
        "Masks, told θ, trained on with one thing changed: restoration on true midbrains, how much "
        "better the model thinks it is in quiet, and the terms that guard, measured on test "
        "sounds; and SI-SDR of noisy speech with noise reduction alone. Few seeds: leads, not "
        "results."
    )
    header = ["aid", "quiet", "in noise", "gap to the model", *guards, "SI-SDR dB"]
    return Table("With one thing changed", about, header, rows)
