"""The benchmark's numbers as tables."""

import dataclasses
from collections.abc import Mapping, Sequence

from recipes.cells import NOTHING, Table, number

GROUPS = ("mild", "severe", "hidden")
"""Of listeners with a loss; severe is a loss of at least the typical one."""

OF_GAPS = ("masks_nr_off", "own_nr_off", "ceiling_nr_off")
"""Devices whose gap between model and truth is told."""

OF_GAINS = ("nal_r", "fixed_truth", "masks_nr_off", "own_nr_off", "ceiling_nr_off")
"""Devices whose gains are told."""

LABELS = {
    "unprocessed": "no aid",
    "nal_r": "NAL-R",
    "nal_r_compressed": "NAL-R with compression",
    "nal_r_matched": "NAL-R + k dB, as loud as Masks",
    "nal_r_best_model": "NAL-R + best k, in the model",
    "nal_r_best_truth": "NAL-R + best k, on the true animal",
    "flat_model": "best flat gain, in the model",
    "flat_truth": "best flat gain, on the true animal",
    "fixed_model": "best fixed gains, in the model",
    "fixed_truth": "best fixed gains, on the true animal",
    "wiener_nal_r": "Wiener filter, then NAL-R",
    "wiener": "Wiener filter",
    "masks": "Masks, told θ",
    "masks_audiogram": "Masks, told the audiogram",
    "waveform": "Waveform, told θ",
    "masks_auditory": "Masks, through the auditory model",
    "own": "Masks, for this animal alone",
    "ceiling": "Masks, through the true animal (ceiling)",
    "limit": "any gains at any time, on the true animal (limit)",
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

SETTINGS = {
    "_nr_off": "noise reduction off",
    "_nr_on": "noise reduction on",
    "_nr_alone": "noise reduction alone",
}
"""Endings of the names of aids."""


def label(device: str) -> str:
    """A device as a reader calls it, with its setting.

    >>> label("masks_nr_on")
    'Masks, told θ, noise reduction on'
    """
    for ending, setting in SETTINGS.items():
        if device.endswith(ending):
            return f"{LABELS[device.removesuffix(ending)]}, {setting}"
    return LABELS[device]


CONDITIONS = {"quiet": "in quiet", "noise": "in noise"}


def tables(summary: dict) -> dict[str, Table]:
    """All tables of a summary, by name; those that nothing was measured for have no rows."""
    made = [
        *(restoration, by_hearing, scores, differences, score_differences, noises),
        *(noise_differences, shares, short, gaps, alone, simple_gains, gains, training, harm),
        *(artefacts, ablations),
    ]
    return {make.__name__: make(summary) for make in made}


def restoration(summary: dict) -> Table:
    """Of every device, on true midbrains."""
    records = summary["restoration"]
    wanted = [name for name in quantities(records) if name not in GROUPS]
    about = "On true midbrains of unseen animals with a loss, means over listeners."
    return _by_device("Restoration", about, records, wanted, 2)


def by_hearing(summary: dict) -> Table:
    """The same in quiet, by group of listeners and by level."""
    table = _by_device(
        "By hearing",
        "Fidelity in quiet on true midbrains, by loss and by level [dB SPL]. Two listeners of each "
        "group a seed are too few to tell what holds for others.",
        summary["restoration"],
        list(GROUPS),
        2,
    )
    levels = sorted({record["level_db_spl"] for record in summary["levels"]})
    found = {(r["device"], r["level_db_spl"]): r["estimate"] for r in summary["levels"]}
    header = table.header + [f"{level:g}" for level in levels]
    devices = list(dict.fromkeys(record["device"] for record in summary["restoration"]))
    rows = [
        row + [number(found.get((device, level)), 2) for level in levels]
        for device, row in zip(devices, table.rows, strict=True)
    ]
    return dataclasses.replace(table, header=header, rows=rows)


def scores(summary: dict) -> Table:
    """HASPI, HASQI, and how much louder sounds become."""
    about = (
        "HASPI of noisy speech and HASQI of the same speech in quiet, for the listeners' "
        "audiograms: models of human ears, asked about gerbils. HASQI compares with NAL-R and so "
        "favours it."
    )
    return _by_device("Scores and levels", about, summary["scores"], None, 2)


def differences(summary: dict) -> Table:
    """The aid in both settings less every other device: restoration."""
    about = (
        "Restoration of true midbrains by Masks, told θ, less that by the other device, and what "
        "can be said of it; groups are in quiet."
    )
    return _against("Masks less others", about, summary["differences"], 2)


def score_differences(summary: dict) -> Table:
    """The same of scores."""
    records = [r for r in summary["scored"] if not r["quantity"].startswith("added")]
    about = "Scores of Masks, told θ, less those of the other device."
    return _against("Scores of Masks less others'", about, records, 3)


def noises(summary: dict) -> Table:
    """Clarity by noise."""
    about = "Clarity of speech in each noise, on true midbrains; aids train on the first three."
    return _by_device("By noise", about, summary["noises"], None, 2)


def noise_differences(summary: dict) -> Table:
    """Clarity less that of others, by noise."""
    trained = [r for r in summary["noise_differences"] if r["quantity"].endswith("trained noises")]
    about = "Clarity of Masks, told θ, less that of the other device, in noises that aids train on "
    about += "and in those that they never do."
    return _against("Trained and untrained noises", about, trained, 2)


def shares(summary: dict) -> Table:
    """Which part of what other aids restore."""
    about = (
        "Restoration by Masks, told θ, noise reduction off, over that of the other aid, and what "
        "can be said of the share that was wanted: .9 of an own aid, .8 of the ceiling."
    )
    on_short = [r | {"quantity": "fidelity, short sounds"} for r in summary["short_shares"]]
    records = summary["shares"] + on_short
    wanted = quantities(records)
    found = {(r["other"], r["quantity"]): r for r in records}
    others = list(dict.fromkeys(r["other"] for r in records))
    rows = [
        [label(other), *(_cell(found.get((other, name)), 2, verdict=True) for name in wanted)]
        for other in others
    ]
    return Table("Shares of other aids", _counted(about, records), ["share of", *wanted], rows)


def short(summary: dict) -> Table:
    """All devices on the sounds that the limit was sought on."""
    about = (
        "Fidelity in quiet, of a second each of a few sounds at the middle level. The limit knows "
        "each sound beforehand, and its descent was ended before it had quite stopped gaining."
    )
    return _by_device("Beside the limit", about, summary["short"], None, 2)


def gaps(summary: dict) -> Table:
    """How far the model's opinion is from the truth."""
    found: dict = {}
    for record in summary["gaps"]:
        if record["device"] in OF_GAPS:
            place = record["device"], record["condition"], record["group"]
            found.setdefault(place, {})[record["quantity"]] = record
    rows = [
        [
            label(device),
            CONDITIONS[condition],
            group,
            _cell(of["mean"], 2, signed=True),
            _cell(of["magnitude"], 2),
            number(of["mean"]["worst"], 2),
        ]
        for (device, condition, group), of in found.items()
    ]
    about = (
        "Fidelity in the model's opinion less that of the true midbrain, listener by listener: the "
        "mean, in which errors of either sign cancel; the mean of magnitudes; and the largest."
    )
    header = ["device", "sounds", "listeners", "mean", "mean magnitude", "largest"]
    return Table("The model's opinion", _counted(about, summary["gaps"]), header, rows)


def alone(summary: dict) -> Table:
    """Noise reduction without compensation."""
    table = _by_device(
        "Noise reduction alone",
        "Noisy speech without compensation, and less the Wiener filter.",
        summary["alone"],
        None,
        2,
    )
    names = quantities(summary["alone"])
    found = {(r["device"], r["quantity"]): r for r in summary["alone_differences"]}
    devices = list(dict.fromkeys(r["device"] for r in summary["alone"]))
    rows = [
        row + [_cell(found.get((device, n)), 2, signed=True, verdict=True) for n in names]
        for device, row in zip(devices, table.rows, strict=True)
    ]
    more = [f"{name}, less Wiener" for name in names] if found else []
    rows = [row[: 1 + len(names) + len(more)] for row in rows]
    return dataclasses.replace(table, header=table.header + more, rows=rows)


def simple_gains(summary: dict) -> Table:
    """Gains that were chosen for simple devices."""
    found = {(r["device"], r["group"]): r["mean_db"] for r in summary["chosen"]}
    devices = list(dict.fromkeys(device for device, _ in found))
    rows = [
        [label(device), *(number(found.get((device, group)), 1) for group in GROUPS)]
        for device in devices
    ]
    about = (
        "k of NAL-R + k dB and flat gains [dB], chosen on training sounds; means over listeners."
    )
    return Table("Gains of simple devices", about, ["device", *GROUPS], rows)


def gains(summary: dict) -> Table:
    """How large and how even gains are."""
    records = [r for r in summary["gains"] if r["device"] in OF_GAINS]
    found = {(r["device"], r["group"], r["level_db_spl"]): r for r in records}
    levels = sorted({r["level_db_spl"] for r in records})
    rows = [
        [
            label(device),
            group,
            *(
                f"{number(r['mean_db'], 1)} ± {number(r['sd_db'], 1)}"
                if (r := found.get((device, group, level)))
                else NOTHING
                for level in levels
            ),
        ]
        for device in OF_GAINS
        for group in GROUPS
        if any((device, group, level) in found for level in levels)
    ]
    about = (
        "Gain [dB] from 250 Hz to 8 kHz, mean over bands equally wide in ERBs ± its standard "
        "deviation over bands, by level [dB SPL]: a deviation near 0 is a flat gain."
    )
    return Table("Gains", about, ["device", "listeners", *(f"{x:g}" for x in levels)], rows)


def training(summary: dict) -> Table:
    """Steps of each aid."""
    rows = [
        [
            LABELS[r["device"]],
            f"{r['fewest']}–{r['most']}" if r["fewest"] != r["most"] else str(r["most"]),
            number(r["median"], 0),
            f"{r['stopped']} of {r['of']}" if r["of"] else NOTHING,
        ]
        for r in summary["training"]
    ]
    about = (
        "Steps of training. Aids of one animal begin with the aid for everyone, are trained until "
        "they stop gaining on validation sounds, and the best is kept."
    )
    return Table("Training", about, ["aid", "steps", "median", "stopped gaining"], rows)


def harm(summary: dict) -> Table:
    """What is done to normal listeners."""
    rows = [
        [label(r["device"]), number(r["mean"], 3), number(r["worst"], 3)] for r in summary["harm"]
    ]
    about = (
        "What is left of the response of unseen animals with normal hearing once they wear it, in "
        "units of an average loss: 0 is no harm."
    )
    return Table("Normal listeners", about, ["device", "mean", "worst"], rows)


def artefacts(summary: dict) -> Table:
    """Spurs, silence, delay and pace."""
    found: dict[str, dict[str, float]] = {}
    for record in summary["worst"]:
        # Streams are of an aid, spurs of one of its settings.
        found.setdefault(record["device"], {})[record["measure"]] = record["value"]
    rows = []
    for device, values in found.items():
        streams = found.get(device.removesuffix("_nr_on"), {})
        if "spur_db" not in values:
            continue
        silence = values["silence_db"]
        digits = {"latency_ms": 2, "real_time_factor": 2, "worst_block_ms": 1}
        rows.append(
            [
                label(device),
                number(values["spur_db"], 0),
                "silent" if silence < -100 else number(silence, 0),
                *(number(streams.get(name), n) for name, n in digits.items()),
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
    """One thing changed, less nothing changed."""
    records = [
        record | {"device": record["device"].replace("_nr_alone", "_nr_off")}
        for record in summary["ablations"]
    ]
    wanted = quantities(records)
    found = {(r["device"], r["quantity"]): r for r in records}
    rows = [
        [
            LABELS[device.removesuffix("_nr_off")],
            *(_cell(found.get((device, name)), 3, signed=True, verdict=True) for name in wanted),
        ]
        for device in dict.fromkeys(r["device"] for r in records)
    ]
    about = (
        "Masks, told θ, trained on with one thing changed, less the same with nothing changed: "
        "restoration, the model's opinion of it, the terms that guard, and SI-SDR of noisy speech "
        "with noise reduction alone. Of the terms that guard, more is worse."
    )
    return Table("With one thing changed", _counted(about, records), ["aid", *wanted], rows)


def quantities(records: Sequence[Mapping]) -> list[str]:
    """What was measured, in order."""
    return list(dict.fromkeys(record["quantity"] for record in records))


def _by_device(
    title: str, about: str, records: Sequence[Mapping], wanted: list[str] | None, digits: int
) -> Table:
    """A device a row, a quantity a column."""
    wanted = quantities(records) if wanted is None else wanted
    found = {(r["device"], r["quantity"]): r for r in records}
    rows = [
        [label(device), *(_cell(found.get((device, name)), digits) for name in wanted)]
        for device in dict.fromkeys(r["device"] for r in records)
    ]
    of = [r for r in records if r["quantity"] in wanted]
    return Table(title, _counted(about, of), ["device", *wanted], rows)


def _against(title: str, about: str, records: Sequence[Mapping], digits: int) -> Table:
    """A setting of the aid and another device a row, a quantity a column."""
    wanted = quantities(records)
    found = {(r["device"], r["other"], r["quantity"]): r for r in records}
    pairs = dict.fromkeys((r["device"], r["other"]) for r in records)
    rows = [
        [
            SETTINGS[ending],
            label(other),
            *(
                _cell(found.get((ours, other, n)), digits, signed=True, verdict=True)
                for n in wanted
            ),
        ]
        for ours, other in pairs
        for ending in SETTINGS
        if ours.endswith(ending)
    ]
    return Table(title, _counted(about, records), ["Masks with", "less", *wanted], rows)


def _cell(record: Mapping | None, digits: int, signed: bool = False, verdict: bool = False) -> str:
    """An estimate with its interval, and what can be said."""
    if record is None:
        return NOTHING
    shown = [number(record[name], digits) for name in ("estimate", "low", "high")]
    if signed:
        shown = [f"+{x}" if x[0].isdigit() and float(x) else x for x in shown]
    text = "{} [{}, {}]".format(*shown)
    return f"{text} {record['verdict']}" if verdict and record["verdict"] else text


def _counted(about: str, records: Sequence[Mapping]) -> str:
    """What a table is about, with its n."""
    if not records:
        return about

    def span(name: str) -> str:
        counts = sorted({record[name] for record in records})
        return f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else str(counts[0])

    # A single seed is not drawn again, and sounds that were summed over cannot be.
    drawn = [name for name in ("seeds", "listeners", "sounds") if span(name) not in ("0", "1")]
    counted = ", ".join(f"{name} {span(name)}" for name in ("seeds", "listeners", "sounds"))
    pooled = " (summed over)" if span("sounds") == "0" else ""
    return f"{about} In brackets 95 % intervals over {' and '.join(drawn)}; n: {counted}{pooled}."
