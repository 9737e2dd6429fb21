"""What the rows of the benchmark of aids say: means, differences and shares, with intervals.

One long table (`tasks.COLUMNS`, and which seed) is all that stands between measuring and reporting.
Restoration is pooled over sounds, a number for each listener; what is said of listeners and seeds
is their mean, with its interval over seeds, listeners and sounds (`evaluation.comparison`). It is
of listeners with a loss and of reported seeds: choices were made on the development seed.
"""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from evaluation.comparison import Resampled, resample
from icsim.simulation.noises import NOISES
from recipes.benchmark_compensation.material import MUSIC, NOISE, QUIET, SHORT
from recipes.benchmark_compensation.tables import GROUPS

RESTORATION = ("fidelity", "clarity")
"""Measures with a discrepancy and one without the device."""

POOLED = "pooled"
"""Sound of rows that are sums over sounds."""

OURS = "masks_nr_off", "masks_nr_on"
"""The aid in question, in both settings."""

BOUNDS = {"own_nr_off": 0.9, "ceiling_nr_off": 0.8}
"""Shares of other aids that the aid for everyone should reach."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is averaged: which rows, of whom."""

    measure: str
    condition: str = QUIET
    judge: str = ""
    group: str | None = None
    """Listeners, if not all with a loss."""
    noises: tuple[str, ...] | None = None
    """Noises, if not all."""


TRUE = {
    "fidelity, quiet": Quantity("fidelity", QUIET, "truth"),
    "fidelity, noise": Quantity("fidelity", NOISE, "truth"),
    "clarity, noise": Quantity("clarity", NOISE, "truth"),
    "clarity, music in noise": Quantity("clarity", MUSIC, "truth"),
}
"""Restoration of true midbrains."""

SCORES = {
    "HASPI, noise": Quantity("haspi", NOISE),
    "HASQI, quiet": Quantity("hasqi", QUIET),
    "added dB, quiet": Quantity("added_db", QUIET),
    "added dB, noise": Quantity("added_db", NOISE),
}
"""What sounds alone say."""

BY_GROUP = {group: Quantity("fidelity", QUIET, "truth", group) for group in GROUPS}
"""Fidelity in quiet by hearing."""

ALONE = {
    name: Quantity(measure, NOISE)
    for name, measure in (("ESTOI", "estoi"), ("PESQ", "pesq"), ("SI-SDR dB", "si_sdr_db"))
}
"""What noise reduction does without compensation."""


def gather(out: Path, development_seed: int, folder: str = "judged") -> pd.DataFrame:
    """Rows of all complete seeds of a benchmark's folder; none if there are none of this kind.

    Raises:
        ValueError: If no seed is complete.
    """
    tables = []
    for path in sorted(out.glob("seed-*"), key=lambda path: int(path.name[5:])):
        if not (path / "streaming.json").is_file():
            continue
        seed = int(path.name[5:])
        parts = [read(file) for file in sorted((path / folder).glob("*.csv"))]
        if folder == "judged":
            parts.append(_streams(path / "streaming.json"))
        if parts:
            seeds = {"seed": seed, "development": seed == development_seed}
            tables.append(pd.concat(parts).assign(**seeds))
    if not tables and folder == "judged":
        raise ValueError(f"{out}: no seed is complete; run recipes.benchmark_compensation")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def read(file: str | Path | io.BytesIO) -> pd.DataFrame:
    """Rows as CSV, compressed or not.

    Raises:
        ValueError: If there is no such file.
    """
    if not isinstance(file, io.BytesIO) and not Path(file).is_file():
        raise ValueError(f"{file}: no such file; correct the path, or make it with --folder")
    texts = ("listener", "group", "device", "judge", "condition", "noise", "sound", "measure")
    empty = {name: [""] for name in ("level_db_spl", "value", "unaided")}
    # "NaN" and the like are names like any other.
    return pd.read_csv(
        file, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=empty
    )


def summarise(rows: pd.DataFrame, ablated: pd.DataFrame | None = None) -> dict:
    """Everything that is told of a benchmark, as records by table.

    Raises:
        ValueError: If all rows are of the development seed.
    """
    reported = rows[~rows.development]
    if reported.empty:
        raise ValueError("all seeds are development seeds; run one that is reported")
    impaired = reported[reported.group.isin(GROUPS)]
    devices = [
        name
        for name in dict.fromkeys(impaired[impaired.measure == "fidelity"].device)
        if name != "limit"
    ]
    others = [name for name in devices if name not in OURS]
    measured = impaired[impaired.measure.isin({one.measure for one in SCORES.values()})].device
    scored = [name for name in dict.fromkeys(measured) if name != "limit"]
    levels = sorted(impaired[impaired.condition == QUIET].level_db_spl.dropna().unique())
    by_noise = {
        kind: Quantity("clarity", NOISE, "truth", None, (kind,))
        for kind in dict.fromkeys(impaired[impaired.condition == NOISE].noise)
    } | {
        name: Quantity("clarity", NOISE, "truth", None, tuple(kinds))
        for name, kinds in _trained(impaired).items()
    }
    alone = list(dict.fromkeys(impaired[impaired.measure == "estoi"].device))
    short = list(dict.fromkeys(impaired[impaired.condition == SHORT].device))
    told = {
        "restoration": means(impaired, TRUE | BY_GROUP, devices),
        "levels": [
            {"level_db_spl": float(level)} | record
            for level in levels
            for record in means(
                impaired[impaired.level_db_spl == level],
                {"fidelity, quiet": TRUE["fidelity, quiet"]},
                devices,
            )
        ],
        "scores": means(impaired, SCORES, scored),
        "differences": differences(impaired, TRUE | BY_GROUP, others),
        "scored": differences(impaired, SCORES, [name for name in scored if name not in OURS]),
        "noises": means(impaired, by_noise, devices),
        "noise_differences": differences(impaired, by_noise, others),
        "shares": shares(impaired, TRUE, BOUNDS),
        "short": means(impaired, {"fidelity": Quantity("fidelity", SHORT, "truth")}, short),
        "short_shares": shares(
            impaired, {"fidelity": Quantity("fidelity", SHORT, "truth")}, {"limit": None}
        ),
        "gaps": gaps(impaired, devices),
        "alone": means(impaired, ALONE, alone),
        "alone_differences": [
            record
            for ours in alone
            if ours.endswith("_nr_alone")
            for record in differences(impaired, ALONE, ["wiener"], (ours,))
        ],
        "harm": harm(reported, devices),
        "chosen": chosen(impaired),
        "gains": band_gains(impaired),
        "training": training(impaired),
        "worst": worst(reported),
        "ablations": ablations(ablated) if ablated is not None and len(ablated) else [],
    }
    return {
        "seeds": sorted(int(seed) for seed in reported.seed.unique()),
        "development_seeds": sorted(int(s) for s in rows[rows.development].seed.unique()),
        "listeners": {
            group: int(
                reported[reported.group == group][["seed", "listener"]].drop_duplicates().shape[0]
            )
            for group in ("normal", *GROUPS)
        },
        **told,
    }


def sample(rows: pd.DataFrame, quantity: Quantity, devices: Sequence[str]) -> Resampled | None:
    """Values of listeners with devices, as they are and drawn again; None if one was not measured.

    Sounds that any of the devices lacks are left out for all.
    """
    chosen = rows[
        (rows.measure == quantity.measure)
        & (rows.condition == quantity.condition)
        & (rows.judge == quantity.judge)
        & rows.device.isin(devices)
    ]
    if quantity.group:
        chosen = chosen[chosen.group == quantity.group]
    if quantity.noises is not None:
        chosen = chosen[chosen.noise.isin(quantity.noises)]
    if not set(devices) <= set(chosen.device):
        return None
    place = ["seed", "listener", "sound", "level_db_spl", "noise"]
    wide = chosen.pivot(index=place, columns="device", values=["value", "unaided"])
    values, totals = (
        torch.tensor([wide[column][device].tolist() for device in devices]).double()
        for column in ("value", "unaided")
    )
    if quantity.measure in RESTORATION:
        values = totals - values
    else:
        totals = torch.ones_like(values)
    measured = (values.isfinite() & totals.isfinite()).all(0)
    if not bool(measured.any()):
        return None
    where = wide.index.to_frame(index=False)[measured.numpy()]
    pooled = set(where.sound) == {POOLED}
    return resample(
        values[:, measured],
        totals[:, measured],
        where.seed.tolist(),
        where.listener.tolist(),
        None if pooled else where.sound.tolist(),
    )


def means(
    rows: pd.DataFrame, quantities: Mapping[str, Quantity], devices: Sequence[str]
) -> list[dict]:
    """Of each device and quantity, the mean over listeners with its interval."""
    return [
        {"device": device, "quantity": name} | _mean(draws)
        for device in devices
        for name, quantity in quantities.items()
        if (draws := sample(rows, quantity, [device]))
    ]


def differences(
    rows: pd.DataFrame,
    quantities: Mapping[str, Quantity],
    others: Sequence[str],
    ours: Sequence[str] = OURS,
) -> list[dict]:
    """By how much an aid, in each setting, has more than each other device."""
    records = []
    for aid in ours:
        for other in others:
            for name, quantity in quantities.items():
                if draws := sample(rows, quantity, [other, aid]):
                    both = draws.mean()
                    record = draws.comparison(both[:, 1] - both[:, 0]).to_json()
                    records.append({"device": aid, "other": other, "quantity": name} | record)
    return records


def shares(
    rows: pd.DataFrame, quantities: Mapping[str, Quantity], bounds: Mapping[str, float | None]
) -> list[dict]:
    """Which share of another aid's mean the aid reaches, held against what is wanted."""
    records = []
    for other, bound in bounds.items():
        for name, quantity in quantities.items():
            if draws := sample(rows, quantity, [other, OURS[0]]):
                both = draws.mean()
                record = draws.comparison(both[:, 1] / both[:, 0], bound or 0.0).to_json()
                record |= {} if bound else {"bound": None, "verdict": None}
                records.append({"device": OURS[0], "other": other, "quantity": name} | record)
    return records


def gaps(rows: pd.DataFrame, devices: Sequence[str]) -> list[dict]:
    """How far the model's opinion of restoration lies from the truth, by group of listeners.

    The mean of signed differences, in which errors of either sign cancel; the mean of their
    magnitudes, in which they do not; and the largest.
    """
    records = []
    for device in devices:
        for condition in (QUIET, NOISE):
            for group in (None, *GROUPS):
                truth, model = (
                    sample(rows, Quantity("fidelity", condition, judge, group), [device])
                    for judge in ("truth", "model")
                )
                if truth is None or model is None:
                    continue
                apart = model.subtract(truth)
                place = {"device": device, "condition": condition, "group": group or "all"}
                worst = apart.values[0, 0].abs().max().item()
                records += [
                    place
                    | {"quantity": name, "worst": worst}
                    | apart.comparison(draws[:, 0]).to_json()
                    for name, draws in (
                        ("mean", apart.mean()),
                        ("magnitude", apart.mean_magnitude()),
                    )
                ]
    return records


def harm(rows: pd.DataFrame, devices: Sequence[str]) -> list[dict]:
    """What is left of responses of normal listeners with a device, in units of an average loss."""
    quiet = rows[(rows.measure == "fidelity") & (rows.condition == QUIET) & (rows.judge == "truth")]
    sums = quiet.groupby(["seed", "group", "listener", "device"])[["value", "unaided"]].sum()
    sums = sums.reset_index()
    losses = sums[sums.group.isin(GROUPS)].groupby("seed").unaided.mean()
    normal = sums[(sums.group == "normal") & sums.device.isin(devices)]
    left = normal.value / normal.seed.map(losses)
    return [
        {"device": device, "mean": float(each.mean()), "worst": float(each.max())}
        for device, each in left.groupby(normal.device, sort=False)
    ]


def chosen(rows: pd.DataFrame) -> list[dict]:
    """Gains that were chosen for simple devices [dB], means over listeners by group."""
    gains = rows[rows.measure == "chosen_db"]
    means = gains.groupby(["device", "group"], sort=False).value.mean()
    return [
        {"device": device, "group": group, "mean_db": float(value)}
        for (device, group), value in means.items()
    ]


def band_gains(rows: pd.DataFrame) -> list[dict]:
    """How large and how uneven gains are: mean over bands from 250 Hz to 8 kHz, and SD [dB]."""
    gains = rows[rows.measure == "gain_db"]
    hz = gains.sound.str.removesuffix(" Hz").astype(float)
    within = gains[(hz >= 250) & (hz <= 8000)]
    of_listener = within.groupby(
        ["device", "group", "level_db_spl", "seed", "listener"], sort=False
    )
    each = of_listener.value.agg(["mean", "std"]).reset_index()
    means = each.groupby(["device", "group", "level_db_spl"], sort=False)[["mean", "std"]].mean()
    return [
        {"device": device, "group": group, "level_db_spl": float(level)}
        | {"mean_db": float(row["mean"]), "sd_db": float(row["std"])}
        for (device, group, level), row in means.iterrows()
    ]


def training(rows: pd.DataFrame) -> list[dict]:
    """Steps of each aid's training: fewest, median, most, and how many stopped gaining."""
    kept = rows[rows.measure.isin(["steps", "best_step", "stopped_gaining"])]
    each = kept.pivot_table(index=["device", "seed", "listener"], columns="measure", values="value")
    records = []
    for device, found in each.groupby("device", sort=False):
        steps = found["steps"]
        stopped = found.get("stopped_gaining", pd.Series(dtype=float)).dropna()
        records.append(
            {
                "device": device,
                "fewest": int(steps.min()),
                "median": float(steps.median()),
                "most": int(steps.max()),
                "stopped": int(stopped.sum()) if len(stopped) else None,
                "of": len(stopped),
            }
        )
    return records


def worst(rows: pd.DataFrame) -> list[dict]:
    """Largest spurs, silence, delay and pace of each aid, of all listeners and seeds."""
    kept = rows[rows.condition.isin(["tones", "stream"])]
    return [
        {"device": device, "measure": measure, "value": float(value)}
        for (device, measure), value in kept.groupby(["device", "measure"], sort=False)
        .value.max()
        .items()
    ]


def ablations(rows: pd.DataFrame) -> list[dict]:
    """Each change beside none: restoration, the model's opinion, guards and SI-SDR."""
    impaired = rows[rows.group.isin(GROUPS)]
    quantities = {
        "fidelity, quiet": TRUE["fidelity, quiet"],
        "clarity, noise": TRUE["clarity, noise"],
        "in the model, quiet": Quantity("fidelity", QUIET, "model"),
        **{
            name: Quantity(name, QUIET)
            for name in ("roughness", "flutter", "effort", "hiss", "contrast")
        },
    }
    devices = list(dict.fromkeys(impaired[impaired.measure == "fidelity"].device))
    same = "nothing-changed_nr_off"
    records = [
        record
        for device in devices
        if device != same
        for record in differences(impaired, quantities, [same], (device,))
    ]
    denoising = {"SI-SDR dB": ALONE["SI-SDR dB"]}
    for device in devices:
        if device != same:
            names = [name.replace("_nr_off", "_nr_alone") for name in (same, device)]
            records += differences(impaired, denoising, names[:1], names[1:])
    return records


def _mean(draws: Resampled) -> dict:
    """Of one device; there is nothing that it is held against."""
    record = draws.comparison(draws.mean()[:, 0]).to_json()
    return {key: value for key, value in record.items() if key not in ("bound", "verdict")}


def _trained(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Noises in the training of aids and others, where there are both."""
    there = list(dict.fromkeys(rows[rows.condition == NOISE].noise))
    kinds = {
        "trained noises": [kind for kind in there if kind in NOISES],
        "untrained noises": [kind for kind in there if kind not in NOISES],
    }
    return kinds if all(kinds.values()) else {}


def _streams(path: Path) -> pd.DataFrame:
    """Delay and pace of streams as rows of no listener."""
    measured = json.loads(path.read_text())
    rows = [
        {"device": device, "measure": name, "value": value}
        for device, values in measured.items()
        for name, value in values.items()
    ]
    texts = dict.fromkeys(("listener", "group", "judge", "noise", "sound"), "")
    numbers = dict.fromkeys(("level_db_spl", "unaided"), float("nan"))
    return pd.DataFrame(rows).assign(condition="stream", **texts, **numbers)
