"""Tables of the benchmark of the model that ask what θ knows of listeners."""

import itertools
import math
from collections.abc import Iterable, Sequence

import pandas as pd

from evaluation.tidy import POOLED, difference, where
from icsim.decoding import agreement, chance_agreement, linear_r2
from recipes.reports import ic_figures
from recipes.reports.ic_rows import GROUPS, LABELS, present
from recipes.reports.tables import Cell, Table, number

TRUTHS = {
    "outer": "outer hair cells, 1 kHz and above [dB]",
    "inner": "inner hair cells, 1 kHz and above [dB]",
    "synapses": "lost synapses",
    "central_gain": "central gain",
    "coverage": "place of the electrodes [octaves]",
}
"""What is read from θ, as a reader calls it."""

FIT, BEST, AUDIOGRAM = "the fitted θ", "the best θ of all", "an audiogram"
"""What an aid is told: the best θ is that of the seen animals' and the fitted one which restores
most on the true midbrain, of other sounds."""

GAP = 0.02
"""How much more the best θ of all may restore than the fitted one (chosen here)."""

PAPER_EVALUATIONS = {"beta-3": "10–20", "beta-6": "15–35"}
"""Of Bayesian optimisation to within 2 % of the target. Source: arXiv 2506.03088."""


def learned(rows: pd.DataFrame) -> Table:
    """How far listeners moved in training."""
    lines = []
    moved = where(rows, measure="movement")
    for network in present(rows, tuple(LABELS), "movement"):
        values = where(moved, device=network).groupby("sound").value
        middle, least, most = values.median(), values.min(), values.max()
        cells = [number(middle[name], 2) for name in ("mean_correlation", "mean_moved")]
        for name, digits in (("deviation", 3), ("shift", 2), ("rate", 1), ("onset", 2)):
            ends = (middle[f"{name}_start"], least[f"{name}_least"], most[f"{name}_most"])
            cells.append("{} → {} … {}".format(*(number(end, digits) for end in ends)))
        cells.insert(3, number(middle["deviation_prior"], 2))
        lines.append([LABELS[network], *cells])
    about = (
        "How far training moved what describes listeners. Correlation of the means, before their "
        "sigmoid, with those at the start (1: nothing was learned), and how far they moved, root "
        "mean square in units of μ, medians over seeds; standard deviation of θ, and the time "
        "transfer's shift (0 to 20), rate (0 to 50) and onset (0.05 to 0.5), from the start to the "
        "range over animals, dimensions and seeds. What stays at its start was not learned, and an "
        "ablation of it says nothing."
    )
    header = ["network", "correlation", "moved", "deviation of θ", "its prior"]
    return Table("How far listeners moved", about, [*header, "shift", "rate", "onset"], lines)


def searches(rows: pd.DataFrame) -> Table:
    """Evaluations to the target."""
    searched, lines, middles = where(rows, measure="search"), [], []
    for network in dict.fromkeys(searched.device):
        part = where(searched, device=network)
        wide = part.pivot(index=["seed", "listener", "way"], columns="sound", values="value")
        wide = wide.reset_index("way")
        whole = wide[wide.way == ""]
        middle = 100 * ((whole.middle / whole.target).median() - 1)
        middles.append(f"{number(middle, 1)} % ({LABELS[network]})")
        for way in [way for way in dict.fromkeys(part.way) if way]:
            each = wide[wide.way == way]
            paper = way.startswith("Bayesian") and "Sobol" in way
            lines.append(
                [
                    LABELS[network],
                    way,
                    _needed(each.evaluations, each.most.max()),
                    PAPER_EVALUATIONS[network] if paper else None,
                    _needed(each.strict_evaluations, each.most.max()),
                    each.seconds.median(),
                ]
            )
    about = (
        "Evaluations until a search comes within 2 % of the best of a dense search, median over "
        "animals and seeds; in brackets the share of searches that ever did. Strict: within 2 % of "
        "the way from the target to the cost in the middle of the box. The middle alone costs only "
        f"this much more than the target: {', '.join(middles)}; the usual rule is easy to meet "
        "where that is little. A step of descent needs a gradient too."
    )
    header = ["network", "way", "evaluations", "paper", "strict", "seconds"]
    return Table("Searching θ", about, header, lines, 1)


def _each(values: Iterable[float]) -> str:
    """Single values."""
    return " / ".join(number(value, 2) for value in values)


def _needed(evaluations: pd.Series, most: float) -> str:
    """Their median, or that most searches never arrived; and the share that did."""
    middle, arrived = evaluations.median(), evaluations.map(math.isfinite).mean()
    needed = f"{middle:g}" if math.isfinite(middle) else f"more than {most:g}"
    return f"{needed} ({100 * arrived:.0f} %)"


def described(rows: pd.DataFrame, source: str, device: str = "") -> pd.DataFrame:
    """What describes each animal of one seed, a row an animal.

    Args:
        rows: Results of one seed.
        source: theta, as learned and as fitted, threshold_db_spl, or truth.
        device: The network whose θ it is.
    """
    part = where(rows, measure=source, way=["", ic_figures.FITTED])
    part = where(part, device=device) if device else part
    return part.pivot(index="listener", columns="sound", values="value")


def decoded(
    rows: pd.DataFrame, source: str, devices: Sequence[str] = ("",)
) -> dict[str, list[float | None]]:
    """R² of what is true of the animals, by seed and network.

    Args:
        rows: Results.
        source: What it is read from: theta or threshold_db_spl.
        devices: Networks whose θ it is.
    """
    by_truth: dict[str, list[float | None]] = {name: [] for name in TRUTHS}
    for seed, device in itertools.product(sorted(rows.seed.unique()), devices):
        part = where(rows, seed=seed)
        wide = described(part, source, device)
        truth = described(part, "truth").reindex(wide.index)
        for name, values in by_truth.items() if len(wide) else ():
            values.append(linear_r2(wide.to_numpy(), truth[name].to_numpy()))
    return by_truth


def decodability(rows: pd.DataFrame) -> Table:
    """The truth in θ."""
    networks = {"beta-6": "smaller group", ic_figures.largest(rows): "all animals"}
    sources = [decoded(rows, "theta", [device]) for device in networks]
    sources.append(decoded(rows, "threshold_db_spl"))
    lines = []
    for name, label in TRUTHS.items():
        cells: list[Cell] = [label]
        for by_truth in sources:
            values = pd.Series(by_truth[name], dtype=float)
            cells += [values.median(), " / ".join(number(value, 2) for value in values)]
        lines.append(cells)
    about = (
        "R² of a linear (ridge) reading, each animal left out in turn: from θ of all animals, seen "
        "and fitted, by training group; and from thresholds. 1 is perfect, 0 no better than the "
        "mean, below 0 worse. Few animals: a rough number."
    )
    header = ["truth"]
    for source in (*networks.values(), "thresholds"):
        header += [f"from {source}" if source == "thresholds" else f"θ, {source}", "by seed"]
    return Table("What θ means", about, header, lines)


def agreements(rows: pd.DataFrame, source: str) -> list[tuple[int, float, float]]:
    """How far two networks of the same animals agree about them, and would by chance.

    Args:
        rows: Results.
        source: Of what describes animals: theta, or place, by what a network says they answer.

    Returns:
        By seed: its number and both.
    """
    pairs = []
    for seed in sorted(rows.seed.unique()):
        part = where(rows, seed=seed)
        both = [described(part, source, device) for device in ("beta-6", "beta-6-again")]
        if all(len(each) > 2 for each in both):
            first, second = both[0], both[1].reindex(both[0].index)
            places = first.to_numpy(), second.to_numpy()
            pairs.append((seed, agreement(*places), chance_agreement(*places)))
    return pairs


def identifiability(rows: pd.DataFrame) -> Table:
    """Whether another seed of a network places the same animals alike."""
    lines: list[list[Cell]] = []
    by_place = {seed: pair for seed, *pair in agreements(rows, "place")}
    for seed, *pair in agreements(rows, "theta"):
        space = where(rows, seed=seed, device="beta-6", measure=["space", "variance"])
        shares = where(space, measure="variance").sort_values("sound").value
        dimensions = where(space, measure="space").value
        lines.append(
            [
                seed,
                *pair,
                *by_place.get(seed, (None, None)),
                dimensions.mean() if len(dimensions) else None,
                " ".join(number(100 * share, 1) for share in shares.head(4)),
            ]
        )
    about = (
        "Procrustes correlation of two networks that were trained on the same animals from "
        "different seeds, over seen and fitted animals: 1 if they place them alike but for a "
        "rotation, and with the animals of one shuffled. Of θ, and of places in the space of "
        "responses, where half a squared distance is what it costs to take one listener for the "
        "other: directions of θ in which nothing is answered differently do not count there. "
        "Dimensions: the squared sum of the variances of that space's axes over the sum of their "
        "squares, and the shares of the first four [%]."
    )
    header = ["seed", "θ", "by chance", "places", "by chance", "dimensions", "shares"]
    return Table("Two seeds", about, header, lines)


def twin_distances(rows: pd.DataFrame, source: str) -> list[tuple[int, str, str, float]]:
    """How far animals of one hearing in two brains lie apart, as a share of how far the worse half
    of the visible losses lies from the mean of the normal animals.

    Returns:
        By seed, network and twin.
    """
    distances: list[tuple[int, str, str, float]] = []
    for seed in sorted(rows.seed.unique()):
        part = where(rows, seed=seed)
        twins = where(part, measure="twin")
        groups = part.drop_duplicates("listener").set_index("listener").group
        for device in ("beta-6", "beta-6-twenty"):
            placed = described(part, source, device)
            if placed.empty or twins.empty:
                continue
            outer = described(part, "truth").outer
            visible = outer[[name for name in placed.index if groups[name] == "HI"]]
            severe = placed.loc[visible[visible >= visible.median()].index]
            normal = placed[groups[placed.index] == "NH"].mean()
            whole = (severe - normal).pow(2).sum(axis=1).pow(0.5).mean()
            for name, of in zip(twins.listener, twins.sound, strict=True):
                apart = (placed.loc[name] - placed.loc[of]).pow(2).sum() ** 0.5
                distances.append((seed, device, name, apart / whole))
    return distances


def twins(rows: pd.DataFrame) -> Table:
    """What anatomy alone does to θ."""
    lines: list[list[Cell]] = []
    by_source = {
        source: {(seed, d, name): share for seed, d, name, share in twin_distances(rows, source)}
        for source in ("theta", "place")
    }
    for device in present(rows, ("beta-6", "beta-6-twenty"), "place"):
        for name in dict.fromkeys(where(rows, measure="twin").listener):
            cells: list[Cell] = [LABELS[device], name]
            for shares in by_source.values():
                each = [s for (_, d, n), s in shares.items() if (d, n) == (device, name)]
                cells += [pd.Series(each, dtype=float).median(), _each(each)]
            lines.append(cells)
    about = (
        "Two unseen animals of one hearing in different brains, each fitted by itself: their "
        "distance as a share of the mean distance of the worse half of the visible losses from "
        "the middle of the normal animals, in θ and in the space of responses; medians over "
        "seeds, and each seed. "
        "Wanted: a tenth at most."
    )
    header = ["network", "twin", "θ", "by seed", "places", "by seed"]
    return Table("Twins", about, header, lines)


def drift(rows: pd.DataFrame) -> Table:
    """The time transfer beside the true one."""
    measured, lines = where(rows, measure="drift"), []
    for device in dict.fromkeys(measured.device):
        part = where(measured, device=device)
        wide = part.pivot(index=["seed", "listener", "group"], columns="sound", values="value")
        for group in GROUPS:
            each = wide[wide.index.get_level_values("group") == group]
            if len(each):
                rates = each.rate_learned / each.rate_true
                lines.append(
                    [
                        LABELS[device],
                        group,
                        len(each),
                        f"{number(rates.median(), 2)} ({number(rates.min(), 2)} … "
                        f"{number(rates.max(), 2)})",
                        f"{number(each.onset_true.median(), 1)} → "
                        f"{number(each.onset_learned.median(), 1)}",
                        each.correlation.median(),
                        each.late_with.median(),
                        each.late_without.median(),
                    ]
                )
    about = (
        "Seen animals that drift. How fast responses to test sounds change towards what they are "
        "after 10 h, learned over true: median and range; when that begins [h], true and learned; "
        "the correlation of the learned change with the true one; and how much of the true "
        "expected responses after 10 h is explained, by θ of that hour and by θ of the beginning. "
        "What a network explains of responses bounds what it can say of their change."
    )
    header = ["network", "animals", "n", "rate", "onset [h]", "correlation"]
    header += ["explained at 10 h", "without drift"]
    return Table("Drift, learned and true", about, header, lines)


def recorded(rows: pd.DataFrame) -> Table:
    """How much must be recorded of a new animal."""
    scores, lines = where(rows, measure="feve_by_seconds"), []
    keys = ["seed", "listener"]
    most = scores.astype({"sound": float}).sound.max() if len(scores) else 0.0
    for way in dict.fromkeys(scores.way):
        for seconds in sorted(where(scores, way=way).sound.unique(), key=float):
            here = where(rows, way=way, sound=seconds).set_index([*keys, "measure"]).value
            feve = here.xs("feve_by_seconds", level="measure")
            away = here.xs("away_by_seconds", level="measure")
            last = where(scores, way="evenly")
            last = last[last.sound.astype(float) == most].set_index(keys).value
            share = 100 * feve / last
            lines.append(
                [float(seconds), way, share.mean(), share.min(), 1e6 * away.median(), len(feve)]
            )
    ratios = where(rows, measure="calibration").value
    about = (
        "Unseen animals, fitted to so many seconds of sound, of frames that are drawn evenly from "
        "all training sounds or that say most of a listener by what the model expects: FEVE of "
        f"the test sounds as a share of that with {most:g} s [%], mean and least; and what it "
        "would cost to take one fit for the other [10⁻⁶ nats a bin and channel]. Of fits to "
        "disjoint sets of frames, the mean squared difference of the logits of θ in units of what "
        f"their posteriors say is {number(ratios.mean() if len(ratios) else None, 2)} "
        f"({_each(ratios)}): 1 if these are right, less if they are too wide."
    )
    header = ["seconds", "frames", "share, mean", "least", "away from the longest", "n"]
    return Table("Seconds of recording", about, header, lines, (0, 0, 1, 1, 1, 0))


def restorations(rows: pd.DataFrame) -> pd.DataFrame:
    """Restoration of each impaired unseen animal, all levels together, by what an aid is told."""
    part = where(rows, measure=["aided", "unaided"], group=["HI", "hidden"])
    keys = ["seed", "listener", "group"]
    summed = part.groupby([*keys, "measure", "way"]).value.sum()
    if summed.empty:
        return pd.DataFrame(columns=[*keys, "way", "sound", "value"])
    unaided = summed.xs("unaided", level="measure").droplevel("way")
    aided = summed.xs("aided", level="measure").unstack("way")
    shares = (1 - aided.div(unaided, axis=0)).stack()
    return shares.rename("value").reset_index().assign(sound=POOLED)


def restoration(rows: pd.DataFrame) -> Table:
    """What θ is worth to an aid."""
    every, lines = restorations(rows), []
    for name, group in (("all", None), ("HI", "HI"), ("hidden", "hidden")):
        part = where(every, group=group)
        if len(part):
            means = (where(part, way=way).value.mean() for way in (FIT, BEST, AUDIOGRAM))
            gap = difference(part, BEST, FIT, by="way")
            more = difference(part, FIT, AUDIOGRAM, by="way")
            count = part.drop_duplicates(["seed", "listener"])
            lines.append([name, *means, gap, more, len(count)])
    about = (
        "Restoration (fidelity in quiet at 50, 65 and 80 dB SPL; 1: as the healthy twin) of unseen "
        "animals on their true midbrains, means over animals, by an aid that was trained through "
        "beta-6 and is told the fitted θ, or the best θ among the fitted one and those of the seen "
        "animals, chosen on the true midbrain by other sounds; and by one that was trained on "
        f"audiograms. Wanted: that the best θ restores no more than {GAP:g} more."
    )
    header = ["animals", "fitted θ", "best θ", "audiogram", "best less fitted"]
    header += ["fitted less audiogram", "n"]
    return Table("What θ is worth", about, header, lines, (0, 3, 3, 3, 3, 3, 0))
