"""The report of the benchmark of aids: tables, figures and a page, from its tidy table of results.

What is said is of listeners with a loss and of reported seeds: choices were made on the development
seed.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from evaluation.comparison import Comparison
from evaluation.tidy import difference, gap, mean, read, share, where
from icsim.excerpts import NOISE, QUIET
from icsim.files import write_json, write_whole
from icsim.simulation.material import MUSIC, SHORT
from icsim.simulation.noises import NOISES
from recipes.reports import figures
from recipes.reports.page import inline, png, template
from recipes.reports.tables import Cell, Table, counted, grid, headline

GROUPS = ("mild", "severe", "hidden")
"""Listeners with a loss; severe is a loss of at least the typical one."""

OURS = ("masks_nr_off", "masks_nr_on")
"""The aid in question, in both settings."""

OF_GAPS = ("masks_nr_off", "own_nr_off", "ceiling_nr_off")
"""Devices whose gap between model and truth is shown."""

OF_GAINS = ("nal_r", "fixed_truth", "masks_nr_off", "own_nr_off", "ceiling_nr_off")
"""Devices whose gains are shown."""

WANTED_SHARES = {"own_nr_off": 0.9, "ceiling_nr_off": 0.8}
"""Shares of other aids that the aid for everyone should reach."""

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
    "masks": "Masks, given θ",
    "masks_audiogram": "Masks, given the audiogram",
    "waveform": "Learned filters, given θ",
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
    "exact-fit": "given θ exactly",
    "two-models": "through two models",
}
"""Devices as a reader calls them."""

SETTINGS = {
    "_nr_off": "noise reduction off",
    "_nr_on": "noise reduction on",
    "_nr_alone": "noise reduction alone",
}
"""Endings of the names of aids."""

TRUE = {
    "fidelity, quiet": {"measure": "fidelity", "condition": QUIET, "judge": "truth"},
    "fidelity, noise": {"measure": "fidelity", "condition": NOISE, "judge": "truth"},
    "clarity, noise": {"measure": "clarity", "condition": NOISE, "judge": "truth"},
    "clarity, music in noise": {"measure": "clarity", "condition": MUSIC, "judge": "truth"},
}
"""Restoration of true midbrains, by name of a column."""

IN_QUIET = TRUE["fidelity, quiet"]

BY_GROUP = {group: IN_QUIET | {"group": group} for group in GROUPS}

SCORES = {
    "HASPI, noise": {"measure": "haspi", "condition": NOISE},
    "HASQI, quiet": {"measure": "hasqi", "condition": QUIET},
}

ADDED = {
    "added dB, quiet": {"measure": "added_db", "condition": QUIET},
    "added dB, noise": {"measure": "added_db", "condition": NOISE},
}

ALONE = {
    "ESTOI": {"measure": "estoi", "condition": NOISE},
    "PESQ": {"measure": "pesq", "condition": NOISE},
    "SI-SDR dB": {"measure": "si_sdr_db", "condition": NOISE},
}

GUARDS = ("roughness", "flutter", "effort", "hiss", "contrast")

REACH = (-0.2, 1.02)
"""Of restoration as it is drawn; bars beyond are cut off."""

DRAWN = {
    "true midbrains, in quiet": "fidelity, quiet",
    "true midbrains, in noise": "fidelity, noise",
    "clarity of speech in noise": "clarity, noise",
}
"""Columns of the first figure."""


def label(device: str) -> str:
    """A device as a reader calls it, with its setting.

    >>> label("masks_nr_on")
    'Masks, given θ, noise reduction on'
    """
    for ending, setting in SETTINGS.items():
        if device.endswith(ending):
            return f"{LABELS[device.removesuffix(ending)]}, {setting}"
    return LABELS[device]


def gather(out: Path, development_seed: int, folder: str = "judged") -> pd.DataFrame:
    """Rows of all complete seeds of a benchmark's folder; none if there are none of this kind.

    Raises:
        ValueError: If no seed is complete.
    """
    tables = []
    for path in sorted(out.glob("seed-*"), key=lambda path: int(path.name[5:])):
        if not (path / "streaming.csv").is_file():
            continue
        parts = [read(file) for file in sorted((path / folder).glob("*.csv"))]
        if folder == "judged":
            parts.append(read(path / "streaming.csv"))
        if parts:
            seed = int(path.name[5:])
            columns = {"seed": seed, "development": seed == development_seed}
            tables.append(pd.concat(parts).assign(**columns))
    if not tables and folder == "judged":
        raise ValueError(f"{out}: no seed is complete; run recipes.benchmarks.aids")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def reported(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of seeds that no choice was made on.

    Raises:
        ValueError: If there is none.
    """
    rows = rows[~rows.development]
    if rows.empty:
        raise ValueError("all seeds are development seeds; run one that is reported")
    return rows


def tables(rows: pd.DataFrame, ablated: pd.DataFrame | None = None) -> dict[str, Table]:
    """All tables, by name; those that nothing was measured for have no rows."""
    rows = reported(rows)
    impaired = where(rows, group=GROUPS)
    all_tables = {
        make.__name__: make(impaired)
        for make in (
            *(restoration, by_hearing, scores, differences, score_differences, noises),
            *(noise_differences, shares, short, gaps, alone, simple_gains, gains, training),
        )
    }
    all_tables |= {"harm": harm(rows), "artefacts": artefacts(rows)}
    if ablated is not None and len(ablated):
        all_tables["ablations"] = ablations(where(reported(ablated), group=GROUPS))
    return all_tables


def devices_of(rows: pd.DataFrame, **wanted) -> list[str]:
    """Devices of which something was measured, but the limit, in the order of rows."""
    there = dict.fromkeys(where(rows, **wanted).device)
    return [name for name in there if name != "limit"]


def _means(title: str, about: str, rows: pd.DataFrame, names: list[str], columns: dict) -> Table:
    return grid(title, about, rows, names, columns, mean, label)


def _against(
    title: str, about: str, rows: pd.DataFrame, others: list[str], columns: dict, digits: int = 2
) -> Table:
    """The aid in each setting less every other device."""
    pairs = [(ours, other) for ours in OURS for other in others if other not in OURS]

    def less(part: pd.DataFrame, pair: tuple[str, str]) -> Comparison | None:
        return difference(part, *pair)

    def named(pair: tuple[str, str]) -> list[str]:
        ending = next(one for one in SETTINGS if pair[0].endswith(one))
        return [SETTINGS[ending], label(pair[1])]

    return grid(title, about, rows, pairs, columns, less, named, ("Masks with", "less"), digits)


def restoration(rows: pd.DataFrame) -> Table:
    """Of every device, on true midbrains."""
    about = "On true midbrains of unseen animals with a loss, means over listeners."
    return _means("Restoration", about, rows, devices_of(rows, measure="fidelity"), TRUE)


def by_hearing(rows: pd.DataFrame) -> Table:
    """The same in quiet, by group of listeners and by level."""
    levels = sorted(where(rows, **IN_QUIET).level_db_spl.dropna().unique())
    columns = BY_GROUP | {f"{level:g}": IN_QUIET | {"level_db_spl": level} for level in levels}
    about = (
        "Fidelity in quiet on true midbrains, by loss and by level [dB SPL]. Two listeners of each "
        "group a seed are too few to tell what holds for others."
    )
    table = _means("By hearing", about, rows, devices_of(rows, measure="fidelity"), columns)
    first = 1 + len(GROUPS)
    lines = [
        [*row[:first], *(c.estimate if isinstance(c, Comparison) else c for c in row[first:])]
        for row in table.rows
    ]
    return counted(Table("By hearing", about, table.header, lines))


def scores(rows: pd.DataFrame) -> Table:
    """HASPI, HASQI, and how much louder sounds become."""
    about = (
        "HASPI of noisy speech and HASQI of the same speech in quiet, for the listeners' "
        "audiograms: models of human ears, asked about gerbils. HASQI compares with NAL-R and so "
        "favours it."
    )
    names = devices_of(rows, measure=["haspi", "hasqi", "added_db"])
    return _means("Scores and levels", about, rows, names, SCORES | ADDED)


def differences(rows: pd.DataFrame) -> Table:
    """The aid in both settings less every other device: restoration."""
    about = (
        "Restoration of true midbrains by Masks, given θ, less that by the other device, and what "
        "can be said of it; groups are in quiet."
    )
    names = devices_of(rows, measure="fidelity")
    return _against("Masks less others", about, rows, names, TRUE | BY_GROUP)


def score_differences(rows: pd.DataFrame) -> Table:
    """The same of scores."""
    about = "Scores of Masks, given θ, less those of the other device."
    names = devices_of(rows, measure=["haspi", "hasqi", "added_db"])
    return _against("Scores of Masks less others'", about, rows, names, SCORES, 3)


def _by_noise(rows: pd.DataFrame) -> dict[str, dict]:
    kinds = list(dict.fromkeys(where(rows, condition=NOISE).noise))
    columns = {kind: TRUE["clarity, noise"] | {"noise": kind} for kind in kinds}
    trained = [kind for kind in kinds if kind in NOISES]
    untrained = [kind for kind in kinds if kind not in NOISES]
    if trained and untrained:
        columns["trained noises"] = TRUE["clarity, noise"] | {"noise": trained}
        columns["untrained noises"] = TRUE["clarity, noise"] | {"noise": untrained}
    return columns


def noises(rows: pd.DataFrame) -> Table:
    """Clarity by noise."""
    about = "Clarity of speech in each noise, on true midbrains; aids train on the first three."
    return _means("By noise", about, rows, devices_of(rows, measure="fidelity"), _by_noise(rows))


def noise_differences(rows: pd.DataFrame) -> Table:
    """Clarity less that of others, by noise."""
    columns = {n: c for n, c in _by_noise(rows).items() if n.endswith("trained noises")}
    about = (
        "Clarity of Masks, given θ, less that of the other device, in noises that aids train on "
    )
    about += "and in those that they never do."
    names = devices_of(rows, measure="fidelity")
    return _against("Trained and untrained noises", about, rows, names, columns)


def shares(rows: pd.DataFrame) -> Table:
    """Which part of what other aids restore."""
    about = (
        "Restoration by Masks, given θ, noise reduction off, over that of the other aid, and what "
        "can be said of the share that was wanted: .9 of an own aid, .8 of the ceiling."
    )
    on_short = IN_QUIET | {"condition": SHORT}

    def part_of(part: pd.DataFrame, other: str) -> Comparison | None:
        if (other == "limit") != (set(part.condition) == {SHORT}):
            return None
        return share(part, OURS[0], other, bound=WANTED_SHARES.get(other))

    columns = TRUE | {"fidelity, short sounds": on_short}
    names = [*WANTED_SHARES, "limit"]
    return grid("Shares of other aids", about, rows, names, columns, part_of, label, ["share of"])


def short(rows: pd.DataFrame) -> Table:
    """All devices on the sounds that the limit was sought on."""
    about = (
        "Fidelity in quiet, of a second each of a few sounds at the middle level. The limit knows "
        "each sound beforehand, and its descent was ended before it had quite stopped gaining."
    )
    names = list(dict.fromkeys(where(rows, condition=SHORT).device))
    columns = {"fidelity": IN_QUIET | {"condition": SHORT}}
    return _means("Beside the limit", about, rows, names, columns)


def gaps(rows: pd.DataFrame) -> Table:
    """How far the model's opinion is from the truth."""
    lines = []
    for device in OF_GAPS:
        for condition, where_heard in ((QUIET, "in quiet"), (NOISE, "in noise")):
            for group in (None, *GROUPS):
                judged = where(rows, measure="fidelity", condition=condition, group=group)
                if apart := gap(judged, device, "model", "truth"):
                    cells = [apart["mean"], apart["magnitude"], apart["largest"]]
                    lines.append([label(device), where_heard, group or "all", *cells])
    about = (
        "Fidelity in the model's opinion less that of the true midbrain, listener by listener: the "
        "mean, in which errors of either sign cancel; the mean of magnitudes; and the largest."
    )
    header = ["device", "sounds", "listeners", "mean", "mean magnitude", "largest"]
    return counted(Table("The model's opinion", about, header, lines))


def alone(rows: pd.DataFrame) -> Table:
    """Noise reduction without compensation, and less the Wiener filter."""
    about = "Noisy speech without compensation, and less the Wiener filter."
    names = devices_of(rows, measure="estoi")
    less = {f"{name}, less Wiener": wanted for name, wanted in ALONE.items()}
    parts = {name: where(rows, **wanted) for name, wanted in (ALONE | less).items()}
    lines = []
    for name in names:
        cells = [mean(parts[column], name) for column in ALONE]
        aid = name.endswith("_nr_alone")
        cells += [difference(parts[c], name, "wiener") if aid else None for c in less]
        lines.append([label(name), *cells])
    return counted(Table("Noise reduction alone", about, ["device", *ALONE, *less], lines))


def simple_gains(rows: pd.DataFrame) -> Table:
    """Gains that were chosen for simple devices."""
    about = (
        "k of NAL-R + k dB and flat gains [dB], chosen on training sounds; means over listeners."
    )
    chosen = where(rows, measure="chosen_db")
    columns = {group: {"group": group} for group in GROUPS}
    return grid(
        "Gains of simple devices",
        about,
        chosen,
        dict.fromkeys(chosen.device),
        columns,
        lambda part, device: where(part, device=device).value.mean(),
        label,
        digits=1,
    )


def gains(rows: pd.DataFrame) -> Table:
    """How large and how even gains are: mean over bands from 250 Hz to 8 kHz, and SD."""
    bands = where(rows, measure="gain_db")
    hz = bands.sound.str.removesuffix(" Hz").astype(float)
    bands = bands[(hz >= 250) & (hz <= 8000)]
    levels = sorted(bands.level_db_spl.unique())

    def spread(part: pd.DataFrame, name: tuple[str, str]) -> str | None:
        gains_db = where(part, device=name[0], group=name[1])
        each = gains_db.groupby(["seed", "listener"]).value.agg(["mean", "std"])
        if each.empty:
            return None
        average, deviation = each["mean"].mean(), each["std"].mean()
        return f"{average:.1f} ± {deviation:.1f}".replace("-", "−")

    about = (
        "Gain [dB] from 250 Hz to 8 kHz, mean over bands equally wide in ERBs ± its standard "
        "deviation over bands, by level [dB SPL]: a deviation near 0 is a flat gain."
    )
    return grid(
        "Gains",
        about,
        bands,
        [(device, group) for device in OF_GAINS for group in GROUPS],
        {f"{level:g}": {"level_db_spl": level} for level in levels},
        spread,
        lambda name: [label(name[0]), name[1]],
        ("device", "listeners"),
    )


def training(rows: pd.DataFrame) -> Table:
    """Steps of each aid: fewest and most, median, and how many stopped gaining."""
    lines = []
    for device in dict.fromkeys(where(rows, measure="steps").device):
        steps = where(rows, measure="steps", device=device).value
        stopped = where(rows, measure="stopped_gaining", device=device).value
        fewest, most = int(steps.min()), int(steps.max())
        taken = str(most) if fewest == most else f"{fewest}–{most}"
        ended = f"{stopped.sum():.0f} of {len(stopped)}" if len(stopped) else None
        lines.append([LABELS[device], taken, steps.median(), ended])
    about = (
        "Steps of training. Aids of one animal begin with the aid for everyone, are trained until "
        "they stop gaining on validation sounds, and the best is kept."
    )
    return Table("Training", about, ["aid", "steps", "median", "stopped gaining"], lines, 0)


def harm(rows: pd.DataFrame) -> Table:
    """What is left of responses of normal listeners with a device, in units of an average loss."""
    quiet = where(rows, **IN_QUIET)
    sums = quiet.groupby(["seed", "group", "listener", "device"], sort=False)
    sums = sums[["value", "unaided"]].sum().reset_index()
    losses = where(sums, group=GROUPS).groupby("seed").unaided.mean()
    lines = []
    for device in devices_of(where(rows, group=GROUPS), measure="fidelity"):
        normal = where(sums, group="normal", device=device)
        if len(normal):
            left = normal.value / normal.seed.map(losses)
            lines.append([label(device), left.mean(), left.max()])
    about = (
        "What is left of the response of unseen animals with normal hearing once they wear it, in "
        "units of an average loss: 0 is no harm."
    )
    return Table("Normal listeners", about, ["device", "mean", "worst"], lines, 3)


def artefacts(rows: pd.DataFrame) -> Table:
    """Largest spurs, silence, delay and pace of each aid, of all listeners and seeds."""
    worst = where(rows, condition=["tones", "stream"]).groupby(["device", "measure"]).value.max()
    streams = ("latency_ms", "real_time_factor", "worst_block_ms")
    lines = []
    for device in dict.fromkeys(where(rows, measure="spur_db").device):
        silence = worst[device, "silence_db"]
        aid = device.removesuffix("_nr_on")  # streams are of an aid, spurs of one of its settings
        quiet = "silent" if silence < -100 else f"{silence:.0f}"
        running = [worst.get((aid, name)) for name in streams]
        lines.append([label(device), worst[device, "spur_db"], quiet, *running])
    about = (
        "Worst of all listeners. Spurs: energy beside steady tones and chirps, relative to them. "
        "Silence: what comes out when nothing goes in. Delay of an impulse, time to process over "
        "time processed, and the longest block, on one core."
    )
    header = ["device", "spurs dB", "silence dB SPL", "delay ms", "real-time factor"]
    header.append("longest block ms")
    return Table("Artefacts and running", about, header, lines, (0, 0, 0, 2, 2, 1))


def ablations(rows: pd.DataFrame) -> Table:
    """One thing changed, less nothing changed."""
    columns = {
        "fidelity, quiet": IN_QUIET,
        "clarity, noise": TRUE["clarity, noise"],
        "in the model, quiet": IN_QUIET | {"judge": "model"},
        **{name: {"measure": name, "condition": QUIET} for name in GUARDS},
        "SI-SDR dB": ALONE["SI-SDR dB"],
    }

    def changed(part: pd.DataFrame, aid: str) -> Comparison | None:
        ending = "_nr_alone" if set(part.measure) == {"si_sdr_db"} else "_nr_off"
        return difference(part, aid + ending, "nothing-changed" + ending)

    names = [one.removesuffix("_nr_off") for one in devices_of(rows, measure="fidelity")]
    about = (
        "Masks, given θ, trained on with one thing changed, less the same with nothing changed: "
        "restoration, the model's opinion of it, the terms that guard, and SI-SDR of noisy speech "
        "with noise reduction alone. Of the terms that guard, more is worse."
    )
    return grid(
        "With one thing changed",
        about,
        rows,
        [name for name in names if name != "nothing-changed"],
        columns,
        changed,
        LABELS.__getitem__,
        ["aid"],
        3,
    )


def headlines(all_tables: Mapping[str, Table]) -> dict[str, float]:
    """Restoration and scores of every device, `<device>/<quantity>`, and of our aid less it."""
    names = {label(d + ending): d + ending for d in LABELS for ending in ("", *SETTINGS)}
    settings = {SETTINGS[one.removeprefix("masks")]: one for one in OURS}
    numbers: dict[str, Cell] = {}
    for table in (
        all_tables["restoration"],
        all_tables["scores"],
        all_tables["differences"],
        all_tables["score_differences"],
    ):
        for row in table.rows:
            cells = dict(zip(table.header, row, strict=True))
            device = names[str(cells.get("device") or cells["less"])]
            if "Masks with" in cells:
                device = f"{settings[str(cells['Masks with'])]}-{device}"
            for column in [name for name in TRUE | SCORES if name in cells]:
                key = column.replace(", ", "_").replace(" ", "_").lower()
                numbers[f"{device}/{key}"] = cells[column]
    for other, in_quiet, *_, on_short in all_tables["shares"].rows:
        numbers[f"share_of_{names[str(other)]}"] = in_quiet or on_short
    return headline(numbers)


def write(out: Path, development_seed: int) -> dict[str, Table]:
    """Write the tidy table, `headline.json`, tables, figures and a page from all complete seeds.

    Raises:
        ValueError: If no reported seed is complete.
    """
    rows = gather(out, development_seed)
    ablated = gather(out, development_seed, "ablations")
    all_tables = tables(rows, ablated)
    seeds = sorted(int(seed) for seed in reported(rows).seed.unique())
    title = f"# Benchmark of aids, reported seeds {', '.join(map(str, seeds))}\n"
    shown = [table for table in all_tables.values() if table.rows]
    images = {name: png(figure) for name, figure in draw(all_tables).items()}
    folder = _folder_with_sounds(out, seeds)
    first = where(rows, seed=int(folder.name[5:]))
    # The first listener of each group with a loss.
    listeners = where(first, group=GROUPS).drop_duplicates("group").set_index("listener").group
    for name in listeners.index:
        images[f"{name}-gains"] = png(gain_curves(where(first, listener=name), name))
        for path in sorted((folder / "judged" / name).glob("*.png")):
            images[f"{name}-{path.stem}"] = path.read_bytes()
    (out / "figures").mkdir(exist_ok=True)
    for name, image in images.items():
        write_whole(out / "figures" / f"{name}.png", image)
    write_whole(out / "results.csv", rows.to_csv(index=False, float_format="%.6g"))
    write_json(out / "headline.json", headlines(all_tables))
    write_whole(out / "tables.md", "\n".join([title, *(table.markdown() for table in shown)]))
    page = template("aids.html").render(
        seeds=seeds,
        tables=shown,
        images={name: inline("image/png", image) for name, image in images.items()},
        config=json.loads((out / "config.json").read_text()),
        listeners=[
            {
                "name": name,
                "group": group,
                "sounds": {
                    label(path.stem): inline("audio/flac", path.read_bytes())
                    for path in sorted((folder / "judged" / name).glob("*.flac"))
                },
            }
            for name, group in listeners.items()
        ],
    )
    write_whole(out / "report.html", page)
    return all_tables


def _folder_with_sounds(out: Path, seeds: Sequence[int]) -> Path:
    """Of the first seed that has sounds: folders that came from elsewhere may have none."""
    folders = [out / f"seed-{seed}" for seed in seeds]
    return next((one for one in folders if any(one.glob("judged/*/*.flac"))), folders[0])


def draw(all_tables: Mapping[str, Table]) -> dict[str, Figure]:
    """Restoration of every device with its interval, by condition and by hearing."""

    def bars(table: Table, columns: Mapping[str, str], what: str) -> Figure:
        shown: dict[str, dict[str, Comparison | None]] = {}
        for group, column in columns.items():
            if column in table.header:
                place = table.header.index(column)
                cells = {short_label(str(row[0])): row[place] for row in table.rows}
                shown[group] = {
                    name: c if isinstance(c, Comparison) else None
                    for name, c in cells.items()
                    if name != LABELS["unprocessed"]
                }
        return figures.interval_bars(shown, what, limits=REACH)

    def short_label(name: str) -> str:
        """In lines that leave room for bars."""
        return textwrap.fill(name.replace("noise reduction", "NR"), 26)

    by_group = {group: group for group in GROUPS}
    return {
        "restoration": bars(all_tables["restoration"], DRAWN, "restoration"),
        "by_hearing": bars(all_tables["by_hearing"], by_group, "fidelity in quiet"),
    }


def gain_curves(rows: pd.DataFrame, name: str) -> Figure:
    """Gains of some devices over frequency for one listener, at the middle level."""
    gains = where(rows, measure="gain_db", condition=QUIET)
    levels = sorted(gains.level_db_spl.unique())
    middle = where(gains, level_db_spl=levels[len(levels) // 2])
    curves = {
        label(device): torch.tensor(where(middle, device=device).value.to_numpy())
        for device in OF_GAINS
        if (middle.device == device).any()
    }
    one = where(middle, device=middle.device.iloc[0])
    centres = one.sound.str.removesuffix(" Hz").astype(float)
    return figures.gain_curves(torch.tensor(centres.to_numpy()), curves, name)
