"""The report of the benchmark of the model of the midbrain, from its tidy tables of results.

`python -m recipes.reports.ic --out runs/benchmarks/ic/small` writes it again.

FEVE in points [%], KL in thousandths of a nat. What stands beside the paper's figures are medians
± MAD over sounds, as they are; what compares are means with intervals.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from evaluation.comparison import Comparison
from evaluation.tidy import Spread, difference, ratio, read, spread, where
from icsim.files import write_json, write_whole
from recipes.reports import ic_figures, ic_listeners
from recipes.reports.ic_rows import GROUPS, LABELS, MODELS, present
from recipes.reports.page import inline, png, template
from recipes.reports.tables import Cell, Table, grid, headline, number
from recipes.running.commands import run
from recipes.running.ranges import NotEmptyStr, checked

PAPER = {
    "icnet": ("67 ± 14", "71 ± 11", "8.4 ± 2", "10.4 ± 4"),
    "abr": ("−5.6 ± 4", "−3.7 ± 10", "−0.36 ± 3", "−0.35 ± 6"),
    "beta-3": ("−7.2 ± 5", "−3.5 ± 10", "−0.98 ± 3", "−1.0 ± 4"),
    "beta-6-permuted": ("−5.3 ± 5", "−2.1 ± 7", "−1.1 ± 3", "−1.3 ± 4"),
}
"""FEVE NH and HI [%], KL NH and HI [1e-3 nats]. Source: arXiv 2506.03088."""

PAPER_UNSEEN = (("paper, 9 animals", "55.6", "7.8", "0.14"),
                ("paper, 20 animals", "50.7", "26.9", "0.53"))  # fmt: skip
"""FEVE of seen and unseen animals [%] and their ratio. Source: arXiv 2506.03088."""

AS_WELL, NEARLY, HIDDEN_GAIN, SHARE = 0.0, -1.0, 8.0, 0.9
"""Bounds that are wanted: normal and impaired animals lose no more points of FEVE than these to a
network of their own, unseen hidden losses gain so much over ABRNet, unseen animals reach this share
of seen ones (chosen here)."""

SCALES = {"feve": 100.0, "kl": 1000.0}
"""From fractions to points, and from nats to thousandths."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Which report to write again."""

    out: NotEmptyStr
    """Folder of a benchmark, of which one seed is complete at least."""


def gather(out: Path) -> tuple[pd.DataFrame, list[str]]:
    """Rows of all complete seeds, and the folders that are left out.

    Raises:
        ValueError: If no seed is complete.
    """
    folders = sorted(out.glob("seed-*"), key=lambda path: int(path.name[5:]))
    complete = {path: path / "results.csv" for path in folders}
    missing = [path.name for path, file in complete.items() if not file.is_file()]
    if len(missing) == len(folders):
        raise ValueError(f"{out}: no seed is complete; run recipes.benchmarks.ic")
    tables = [
        read(file).assign(seed=int(path.name[5:]))
        for path, file in complete.items()
        if file.is_file()
    ]
    return pd.concat(tables, ignore_index=True), missing


def write(out: Path) -> dict[str, float]:
    """Write `results.csv`, `headline.json`, `tables.md`, figures and `report.html`.

    Returns:
        The headline.

    Raises:
        ValueError: If no seed is complete.
    """
    rows, missing = gather(out)
    for folder in missing:
        print(f"{out / folder} is left out: it is not complete", file=sys.stderr)
    all_tables, numbers = tables(rows), headlines(rows)
    seeds = sorted(map(int, rows.seed.unique()))
    title = f"# Benchmark of the model of the midbrain, seeds {', '.join(map(str, seeds))}\n"
    images = {name: png(figure) for name, figure in ic_figures.draw(rows, LABELS, out).items()}
    (out / "figures").mkdir(exist_ok=True)
    for name, image in images.items():
        write_whole(out / "figures" / f"{name}.png", image)
    write_whole(out / "results.csv", rows.to_csv(index=False, float_format="%.6g"))
    write_json(out / "headline.json", numbers)
    shown = [table.markdown() for table in all_tables.values() if table.rows]
    write_whole(out / "tables.md", "\n".join([title, *shown]))
    page = template("ic.html").render(
        seeds=seeds,
        missing=missing,
        tables=all_tables,
        images={name: inline("image/png", image) for name, image in images.items()},
        config=json.loads((out / "config.json").read_text()),
    )
    write_whole(out / "report.html", page)
    return numbers


def tables(rows: pd.DataFrame) -> dict[str, Table]:
    """All tables, by name; those that nothing was measured for have no rows."""
    rows = scaled(rows)
    makers = [goals, prediction, against_own, absolute, by_class, hidden, unseen, ways, choices]
    makers += [ic_listeners.learned, ic_listeners.drift, ic_listeners.searches]
    makers += [ic_listeners.decodability, ic_listeners.identifiability, ic_listeners.twins]
    makers += [ic_listeners.recorded, ic_listeners.restoration]
    makers += [alignment, ablations, times]
    return {make.__name__: make(rows) for make in makers}


def headlines(rows: pd.DataFrame) -> dict[str, float]:
    """A flat list of numbers; what is read from θ is that of the worst seed for the purpose."""
    rows = scaled(rows)
    numbers: dict[str, Cell] = {}
    from_theta = ic_listeners.decoded(rows, "theta", sorted({"beta-6", ic_figures.largest(rows)}))
    for name in ic_listeners.TRUTHS:
        values = [value for value in from_theta[name] if value is not None]
        # Where the electrodes are should not be read from θ, all else should.
        worst = max if name == "coverage" else min
        numbers[f"r2_{name}"] = worst(values) if values else None
    for source, name in (("theta", "seed_agreement"), ("place", "seed_agreement_places")):
        agreed = [agreed for _, agreed, _ in ic_listeners.agreements(rows, source)]
        numbers[name] = min(agreed) if agreed else None
    apart = [share for *_, share in ic_listeners.twin_distances(rows, "place")]
    numbers["twins_over_severe"] = max(apart) if apart else None
    wanted = {
        "normal": "nh_minus_own",
        "impaired": "hi_minus_own",
        "hidden": "hidden_minus_abr",
        "share": "unseen_over_seen",
    }
    numbers |= {wanted[name]: cell for name, (_, _, cell) in wishes(rows).items()}
    for way, name in (
        ("among responses, with slopes", "gradient"),
        ("Bayesian among responses", "bayesian"),
    ):
        needed = where(rows, measure="search", device="beta-6", way=way, sound="strict_evaluations")
        numbers[f"strict_evaluations_{name}"] = needed.value.median() if len(needed) else None
    restored = ic_listeners.restorations(rows)
    for way, name in ((ic_listeners.FIT, "fit"), (ic_listeners.BEST, "best")):
        values = where(restored, way=way).value
        numbers[f"restoration_told_{name}"] = values.mean() if len(values) else None
    return headline(numbers)


def scaled(rows: pd.DataFrame) -> pd.DataFrame:
    """FEVE in points, KL in thousandths of a nat."""
    return rows.assign(value=rows.value * rows.measure.map(SCALES).fillna(1.0))


def seen(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the smaller group of training animals, by networks as they are."""
    trained = where(rows, device="beta-6", way="", role="seen").listener.unique()
    return where(rows, way="", listener=trained.tolist())


def new(rows: pd.DataFrame) -> pd.DataFrame:
    """Of unseen animals, with θ fitted, channels as they were aligned, or by thresholds."""
    return where(rows, role="unseen", way=["", ic_figures.FITTED])


def n(cell: Comparison | None) -> str | None:
    """Of how many seeds, animals and sounds a comparison is."""
    return None if cell is None else f"{cell.seeds} / {cell.listeners} / {cell.sounds}"


def by_seed(
    rows: pd.DataFrame, of: Callable[[pd.DataFrame], Spread | None], digits: int = 1
) -> str:
    """Medians of single seeds."""
    each = [of(where(rows, seed=seed)) for seed in sorted(rows.seed.unique())]
    return " / ".join(number(one.median if one else None, digits) for one in each)


def wishes(rows: pd.DataFrame) -> dict[str, tuple[str, float, Comparison | None]]:
    """What was wanted of six parameters: about what, its bound, and the comparison."""
    trained, strangers = (where(part(rows), measure="feve") for part in (seen, new))
    by_role = where(
        rows, measure="feve", device=ic_figures.largest(rows), way=["", ic_figures.FITTED]
    )
    return {
        "normal": (
            "normal hearing: FEVE less that of a network of the animal's own",
            AS_WELL,
            difference(where(trained, group="NH"), "beta-6", "icnet", bound=AS_WELL),
        ),
        "impaired": (
            "visible losses: the same",
            NEARLY,
            difference(where(trained, group="HI"), "beta-6", "icnet", bound=NEARLY),
        ),
        "hidden": (
            "unseen hidden losses: FEVE less ABRNet's",
            HIDDEN_GAIN,
            difference(where(strangers, group="hidden"), "beta-6", "abr", bound=HIDDEN_GAIN),
        ),
        "share": (
            "unseen animals' FEVE over seen ones'",
            SHARE,
            ratio(by_role, "unseen", "seen", by="role", bound=SHARE),
        ),
    }


def goals(rows: pd.DataFrame) -> Table:
    """What was wanted, and whether it holds."""
    lines = [[about, f"{bound:g}", cell, n(cell)] for about, bound, cell in wishes(rows).values()]
    about = (
        "Six parameters; differences in points of FEVE [%], the last line of the network that was "
        "trained on most animals. Here and below, means stand with intervals of 95 % in brackets, "
        "from draws of seeds, animals and sounds, and n is how many of each. Better: above what is "
        "wanted, worse: below; cannot be told: the interval holds it, or there are fewer than four "
        "animals, or, of one seed, fewer than four sounds."
    )
    return Table("What was wanted", about, ["", "wanted", "mean", "n"], lines)


def prediction(rows: pd.DataFrame) -> Table:
    """The paper's table."""
    columns = [(measure, group) for measure in ("feve", "kl") for group in ("NH", "HI")]
    header = ["model"]
    for measure, group in columns:
        header += [f"{'FEVE %' if measure == 'feve' else 'KL ×10⁻³'} {group}", "paper"]
    trained, lines = seen(rows), []
    for model in present(rows):
        line: list[Cell] = [LABELS[model]]
        less = None if model == "icnet" else "icnet"
        for place, (measure, group) in enumerate(columns):
            part = where(trained, measure=measure, group=group)
            line += [spread(part, model, less), PAPER[model][place] if model in PAPER else None]
        lines.append(line)
    about = (
        "Median ± MAD over test sounds of the animals that have an ICNet of their own, all seeds "
        "together, none of which makes the template. The first row is what ICNet reaches; others "
        "are differences to it, of the same seed, animal and sound. FEVE is better higher, KL "
        "lower. The paper's 6 parameters were aligned by a permutation. Paper: arXiv 2506.03088, "
        "recordings of real gerbils."
    )
    return Table("Prediction, beside the paper", about, header, lines, 1)


def against_own(rows: pd.DataFrame) -> Table:
    """The same differences with their intervals."""

    def better(part: pd.DataFrame, model: object) -> Comparison | None:
        less = set(part.measure) == {"kl"}
        return difference(part, *(("icnet", model) if less else (model, "icnet")))

    columns = {
        f"{measure.upper()} {group}": {"measure": measure, "group": group}
        for measure in ("feve", "kl")
        for group in GROUPS
    }
    about = (
        "How much better a model is than an ICNet of the animal's own, trained for as many epochs: "
        "FEVE more [%], KL less [10⁻³ nats]; means."
    )
    models = [name for name in present(rows) if name != "icnet"]
    return grid(
        "Beside networks of single animals",
        about,
        seen(rows),
        models,
        columns,
        better,
        LABELS.__getitem__,
        ("model",),
        1,
    )


def absolute(rows: pd.DataFrame) -> Table:
    """What the first table leaves out."""
    trained, lines = seen(rows), []
    for model in present(rows):
        feve = where(trained, measure="feve")
        lines.append(
            [
                LABELS[model],
                spread(feve, model),
                *(spread(where(feve, group=group), model) for group in GROUPS),
                spread(where(trained, measure="kl"), model),
                by_seed(feve, functools.partial(spread, name=model)),
            ]
        )
    about = (
        "Median ± MAD over all animals of the smaller group (ICNet, one an animal: over those that "
        "have one). By seed: medians of FEVE over all animals."
    )
    header = ["model", "FEVE %", *GROUPS, "KL ×10⁻³", "FEVE by seed"]
    return Table("Absolute values", about, header, lines, 1)


def by_class(rows: pd.DataFrame) -> Table:
    """FEVE by class of sound."""
    trained = where(seen(rows), measure="feve")
    with_own = where(trained, device="icnet").listener.unique().tolist()
    trained = where(trained, listener=with_own)
    models = present(rows, ("icnet", "abr", "beta-6"))
    lines = []
    for kind in sorted(trained.kind.unique()):
        part = where(trained, kind=kind)
        better = difference(part, "beta-6", "icnet")
        lines.append([kind, *(spread(part, model) for model in models), better, n(better)])
    about = (
        "FEVE [%], median ± MAD, of the animals that have an ICNet of their own; and by how much "
        "6 parameters are better than that ICNet, mean."
    )
    header = ["class of sound", *(LABELS[model] for model in models)]
    return Table("By class of sound", about, [*header, "6 parameters less ICNet", "n"], lines, 1)


def hidden(rows: pd.DataFrame) -> Table:
    """BetaICNet against ABRNet, by role and hearing, hidden losses first."""
    lines = []
    if "abr" in present(rows):
        for role, of in (("unseen", new), ("seen", seen)):
            feve = where(of(rows), measure="feve")
            for group in reversed(GROUPS):
                part = where(feve, group=group)
                less = functools.partial(spread, name="beta-6", less="abr")
                better = difference(part, "beta-6", "abr")
                networks = (spread(part, "abr"), spread(part, "beta-6"))
                medians = (*networks, less(part), by_seed(part, less))
                lines.append([f"{group}, {role}", *medians, better, n(better)])
    about = (
        "FEVE [%]. Both networks were trained on the smaller group. Of unseen animals ABRNet is "
        "given the thresholds, and 6 parameters were fitted to a few seconds of responses, with "
        "the same channels. Thresholds of seen animals are a name tag that ABRNet can learn by "
        "heart, so that little is to be expected there. Medians ± MAD, and means with intervals."
    )
    header = ["animals", "ABRNet", "6 parameters", "difference, median", "by seed"]
    header += ["difference, mean", "n"]
    return Table("Losses that thresholds do not show", about, header, lines, 1)


def unseen(rows: pd.DataFrame) -> Table:
    """Animals that no network was trained on."""
    feve = where(rows, measure="feve")
    strangers, lines = where(new(rows), measure="feve"), []
    for network in ic_figures.fitted(rows):
        by_role = where(feve, device=network, way=["", ic_figures.FITTED])
        share = ratio(by_role, "unseen", "seen", by="role", bound=SHARE)
        middle = functools.partial(spread, name=network)
        lines.append(
            [
                LABELS[network],
                spread(by_role, "seen", by="role"),
                middle(strangers),
                share
                and f"{number(share.estimate, 2)} [{number(share.low, 2)}, "
                f"{number(share.high, 2)}] {share.verdict}",
                n(share),
                by_seed(strangers, middle),
                *(number(m.median if m else None, 1) for m in map(middle, _groups(strangers))),
            ]
        )
    lines += [[*paper, *[None] * 5] for paper in PAPER_UNSEEN if lines]
    about = (
        "FEVE [%], median ± MAD: of the animals that a network was trained on, and of unseen ones, "
        f"as they are fitted by default. Ratio: of means, held against {SHARE}; the paper's is of "
        "medians."
    )
    header = ["network", "seen", "unseen", "ratio", "n", "unseen by seed", *GROUPS]
    return Table("Unseen animals", about, header, lines, 1)


def _groups(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [where(rows, group=group) for group in GROUPS]


def ways(rows: pd.DataFrame) -> Table:
    """What more than θ does for an unseen animal."""
    strangers = where(rows, role="unseen", measure="feve")
    lines = []
    for network in ic_figures.fitted(rows):
        part = where(strangers, device=network)
        for way in [way for way in part.way.unique() if way != ic_figures.FITTED]:
            better = difference(part, way, ic_figures.FITTED, by="way")
            lines.append([LABELS[network], way, spread(part, way, by="way"), better, n(better)])
    about = (
        "FEVE [%] of unseen animals, median ± MAD, and the mean of what is gained over the "
        "default: θ, its drift and gains of channels. No gains: θ of the first two hours alone, as "
        "published. No drift: one θ for the whole recording. Mean listener: gains alone, with the "
        "mean θ of the seen animals. Matched to "
        "the model: to what it answers for that θ, by the sounds that θ is fitted to, and fitted "
        "on; some of the loss then moves from θ into the matching. Best for validation sounds: "
        "slots that predict all of these best, fitted in turns; no alignment knows that much, so "
        "what it adds bounds what is lost to alignment."
    )
    header = ["network", "unseen animals", "FEVE", "more than by default", "n"]
    return Table("Unseen animals, with more than θ", about, header, lines, 1)


def choices(rows: pd.DataFrame) -> Table:
    """Networks of several animals against each other, on seen and on unseen animals."""
    pairs = {
        "6 and 3 parameters": ("beta-6", "beta-3"),
        "6 parameters and a branch an animal": ("beta-6", "icnet-multi"),
        "best of several brains and a permutation": ("beta-6", "beta-6-permuted"),
        "the larger and the smaller group": ("beta-6-twenty", "beta-6"),
        "6 parameters and a network of the animal's own, as wide": ("beta-6", "icnet-wide"),
    }
    lines: list[list[Cell]] = []
    for name, pair in pairs.items():
        for role, of in (("seen", seen), ("unseen", new)):
            better = difference(where(of(rows), measure="feve"), *pair)
            if better is not None:
                lines.append([name, role, better, n(better)])
    about = (
        "FEVE of the first less that of the second [%], means over the smaller group of training "
        "animals and over unseen ones."
    )
    header = ["which", "animals", "difference", "n"]
    return Table("Networks against each other", about, header, lines, 1)


def alignment(rows: pd.DataFrame) -> Table:
    """Octave errors."""
    lines = []
    for method, label in (("template", "best of several brains"), ("permutation", "permutation")):
        part = where(rows, way=method)
        octaves = [
            where(part, measure=f"octaves_{when}").value.median() for when in ("before", "after")
        ]
        lines.append([label, *octaves, where(part, measure="apart").value.mean()])
    fits = where(rows, measure="fit", sound="octaves", device="beta-6")
    of_unseen = ", ".join(
        f"{way} {number(values.value.median(), 2)}" for way, values in fits.groupby("way")
    )
    about = (
        "Median distance of the true best frequencies of matched channels [octaves], in the order "
        "of recording and as matched, over all animals that others are not matched with. Apart: "
        f"channels of an animal that answer to nothing. Unseen animals, by way: {of_unseen}."
    )
    header = ["method", "before", "after", "apart"]
    return Table("Channels of different brains", about, header, lines, (0, 2, 2, 1))


def ablations(rows: pd.DataFrame) -> Table:
    """One part less, of the seeds that have it."""
    changed = present(rows, tuple(name for name in LABELS if name not in MODELS))
    if not changed:
        return Table("With one thing changed", "", [], [])
    some = where(rows, seed=where(rows, device=changed).seed.unique().tolist())
    trained, strangers = (where(part(some), measure="feve") for part in (seen, new))
    lines = []
    for name in ("beta-6", *changed, *present(some, ("beta-3",))):
        less = [
            difference(part, name, "beta-6") if name != "beta-6" else None
            for part in (trained, where(trained, group="HI"), strangers)
        ]
        medians = spread(trained, name), spread(strangers, name)
        lines.append([LABELS[name], *less[:2], medians[0], less[2], medians[1], n(less[0])])
    about = (
        "FEVE [%] of the smaller group of animals: the difference to 6 parameters, mean, of all "
        "and of the impaired, and the median ± MAD; and the same of unseen animals. What did not "
        "move (the table of movement) says nothing by being changed. With one seed an interval "
        "speaks for that seed's networks alone."
    )
    header = ["network", "difference", "of the impaired", "FEVE", "of unseen animals"]
    return Table("With one thing changed", about, [*header, "their FEVE", "n"], lines, 1)


def times(rows: pd.DataFrame) -> Table:
    """Where the time went."""
    lines: list[list[Cell]] = []
    trained = where(rows, measure="training_s").groupby("sound", sort=False).value.median()
    lines += [[f"training: {LABELS.get(name, name)}", value] for name, value in trained.items()]
    fits = where(rows, measure="fit", sound="seconds").groupby(["device", "way"], sort=False)
    for (network, way), seconds in fits.value.median().items():
        lines.append([f"fit, {way}: {LABELS[network]}", seconds])
    for _, stage in where(rows, measure="stage_s").iterrows():
        lines.append([f"seed {stage.seed}: {stage.sound}", stage.value])
    about = "Seconds: medians over seeds of networks and fits, and all of each stage of each seed."
    return Table("Times", about, ["what", "seconds"], lines, 1)


if __name__ == "__main__":
    print(json.dumps(run(lambda config: write(Path(config.out)), Config), indent=2))
