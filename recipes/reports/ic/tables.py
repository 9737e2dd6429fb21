"""The benchmark's numbers as tables, the paper's beside them."""

from recipes.reports.ic.cells import by_seed, counted, interval, percent, plus_minus
from recipes.reports.tables import NOTHING, Table, number

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

PAPER_EVALUATIONS = {"beta-3": "10–20", "beta-6": "15–35"}
"""Of Bayesian optimisation to within 2 % of the target. Source: arXiv 2506.03088."""

TRUTHS = {
    "outer_loss_db": "outer hair cells, 1 kHz and above [dB]",
    "inner_loss_db": "inner hair cells, 1 kHz and above [dB]",
    "synaptopathy": "lost synapses",
    "central_gain": "central gain",
    "median_cf_octaves": "place of the electrodes [octaves]",
}


def tables(summary: dict) -> dict[str, Table]:
    """All tables of a summary, by name."""
    made = [goals, prediction, against_own, absolute, by_class, hidden, unseen, ways, choices]
    made += [movement, searches, decodability, alignment, ablations, times]
    return {make.__name__: make(summary) for make in made}


def labels(summary: dict) -> dict[str, str]:
    """Networks as a reader calls them."""
    everyone = f"{summary['animals']['larger']} animals"
    return {
        "icnet": "ICNet, one an animal",
        "icnet-multi": "ICNet, a branch an animal",
        "abr": "ABRNet",
        **{f"beta-{p}": f"{p} parameter{'s' if p > 1 else ''}" for p in (1, 2, 3, 6, 12)},
        "beta-6-permuted": "6 parameters, permutation",
        "beta-6-twenty": f"6 parameters, {everyone}",
        "beta-6-twenty-permuted": f"6 parameters, {everyone}, permutation",
        "own-drift": "drift of each animal's own",
        "no-threshold-penalty": "θ not held to thresholds",
        "no-noise": "no noise on θ",
        "matched-again": "channels matched again by likelihood",
        "every-animal": "every animal answers in each step",
        "wide": "encoder of twice as many kernels",
        "from-normal": "begun from normal animals only",
        "from-scratch": "not begun from an ICNet, as many epochs",
    }


def goals(summary: dict) -> Table:
    """What was wanted, and whether it holds."""
    wanted = {
        "normal": ("normal hearing: FEVE less that of a network of the animal's own", "−2", 100),
        "impaired": ("visible losses: the same", "0", 100),
        "hidden": ("unseen hidden losses: FEVE less ABRNet's", "5", 100),
        "share": ("unseen animals' FEVE over seen ones'", "0.8", 1),
    }
    rows = []
    for name, found in summary["goals"].items():
        about, bound, factor = wanted[name]
        cells = interval(found, factor, 1 if factor == 100 else 2)
        rows.append([about, bound, cells, counted(found)])
    about = (
        "Six parameters; differences in points of FEVE [%], the last line of the network that was "
        "trained on most animals. Here and below, means stand with intervals of 95 % in brackets, "
        "from draws of seeds, animals and sounds, and n is how many of each. Better: above what is "
        "wanted, worse: below; cannot be told: the interval holds it, or there are fewer than four "
        "animals, or, of one seed, fewer than four sounds."
    )
    return Table("What was wanted", about, ["", "wanted", "mean", "n"], rows)


def prediction(summary: dict) -> Table:
    """The paper's table."""
    columns = ("feve_nh", "feve_hi", "kl_nh", "kl_hi")
    header = ["model"]
    for name in ("FEVE NH %", "FEVE HI %", "KL NH ×10⁻³", "KL HI ×10⁻³"):
        header += [name, "paper"]
    rows = []
    for model, found in summary["table"].items():
        cells = [labels(summary)[model]]
        paper = PAPER.get(model, (NOTHING,) * len(columns))
        for column, theirs in zip(columns, paper, strict=True):
            cells += [plus_minus(found[column], _factor(column)), theirs]
        rows.append(cells)
    about = (
        "Median ± MAD over test sounds of the animals that have an ICNet of their own, all seeds "
        "together, none of which makes the template. The first row is what ICNet reaches; others "
        "are differences to it, of the same seed, animal and sound. FEVE is better higher, KL "
        "lower. The paper's 6 parameters were aligned by a permutation. Paper: arXiv 2506.03088, "
        "recordings of real gerbils."
    )
    return Table("Prediction, beside the paper", about, header, rows)


def against_own(summary: dict) -> Table:
    """The same differences with their intervals."""
    columns = {"feve_nh": "FEVE NH", "feve_hi": "FEVE HI", "kl_nh": "KL NH", "kl_hi": "KL HI"}
    header = ["model"]
    for name in columns.values():
        header += [name, "n"]
    rows = []
    for model, found in summary["table"].items():
        better = found["better"]
        if not better:
            continue
        cells = [labels(summary)[model]]
        for column in columns:
            cells += [interval(better[column], _factor(column)), counted(better[column])]
        rows.append(cells)
    about = (
        "How much better a model is than an ICNet of the animal's own, trained for as many epochs: "
        "FEVE more [%], KL less [10⁻³ nats]; means."
    )
    return Table("Beside networks of single animals", about, header, rows)


def absolute(summary: dict) -> Table:
    """What the first table leaves out."""
    rows = []
    for model, found in summary["table"].items():
        whole = found["absolute"]
        rows.append(
            [
                labels(summary)[model],
                plus_minus(found["feve_hidden"], 100),
                plus_minus(found["kl_hidden"], 1000),
                *(plus_minus(whole[name], 100) for name in ("feve", "feve_nh", "feve_hi")),
                plus_minus(whole["feve_hidden"], 100),
                plus_minus(whole["kl"], 1000),
                by_seed(whole["feve"], 100),
            ]
        )
    about = (
        "First two columns: hidden losses, as in the table above. The rest is absolute, over all "
        f"{summary['animals']['smaller']} animals of the smaller group (ICNet, one an animal: over "
        "those that have one). By seed: medians of FEVE over all animals."
    )
    header = ["model", "hidden FEVE %", "hidden KL ×10⁻³", "FEVE %", "NH", "HI", "hidden"]
    header += ["KL ×10⁻³", "by seed"]
    return Table("Hidden losses, and absolute values", about, header, rows)


def by_class(summary: dict) -> Table:
    """FEVE by class of sound."""
    found = summary["by_class"]
    models = [name for name in next(iter(found.values()), {}) if name != "better"]
    rows = [
        [
            kind,
            *(plus_minus(of_kind[model], 100) for model in models),
            interval(of_kind["better"], 100),
            counted(of_kind["better"]),
        ]
        for kind, of_kind in found.items()
    ]
    about = (
        "FEVE [%], median ± MAD, of the animals that have an ICNet of their own; and by how much "
        "6 parameters are better than that ICNet, mean."
    )
    header = ["class of sound", *(labels(summary)[model] for model in models)]
    return Table("By class of sound", about, [*header, "6 parameters less ICNet", "n"], rows)


def hidden(summary: dict) -> Table:
    """BetaICNet against ABRNet."""
    rows = [
        [
            name,
            *(plus_minus(found[key], 100) for key in ("abr", "beta", "difference")),
            by_seed(found["difference"], 100),
            interval(found["better"], 100),
            counted(found["better"]),
        ]
        for name, found in summary["hidden"].items()
    ]
    about = (
        "FEVE [%]. Both networks were trained on the smaller group. Of unseen animals ABRNet is "
        "given the thresholds, and 6 parameters were fitted to a few seconds of responses, with "
        "the same channels. Thresholds of seen animals are a name tag that ABRNet can learn by "
        "heart, so that little is to be expected there. Medians ± MAD, and means with intervals."
    )
    header = ["animals", "ABRNet", "6 parameters", "difference, median", "by seed"]
    return Table(
        "Losses that thresholds do not show", about, [*header, "difference, mean", "n"], rows
    )


def unseen(summary: dict) -> Table:
    """Animals that no network was trained on."""
    rows = [
        [
            labels(summary)[network],
            plus_minus(found["seen"], 100),
            plus_minus(found["unseen"], 100),
            interval(found["ratio"], 1, 2),
            counted(found["ratio"]),
            by_seed(found["unseen"], 100),
            *(percent(of_group["unseen"]["median"]) for of_group in found["by_group"].values()),
        ]
        for network, found in summary["unseen"].items()
    ]
    rows += [[*paper, *[NOTHING] * 5] for paper in PAPER_UNSEEN]
    about = (
        "FEVE [%], median ± MAD: of the animals that a network was trained on, and of unseen ones, "
        "with θ fitted and channels as `recipes.align` left them. Ratio: of means, held against "
        "0.8; the paper's is of medians."
    )
    header = ["network", "seen", "unseen", "ratio", "n", "unseen by seed", "NH", "HI", "hidden"]
    return Table("Unseen animals", about, header, rows)


def ways(summary: dict) -> Table:
    """What more than θ does for an unseen animal."""
    names = {
        "gains": "with gains of channels",
        "matched": "matched to the model",
        "matched_gains": "matched to the model, with gains",
        "best_matching": "best slots for validation sounds",
    }
    rows = [
        [
            labels(summary)[network],
            names[way],
            plus_minus(found[way], 100),
            interval(better, 100),
            counted(better),
        ]
        for network, found in summary["unseen"].items()
        for way, better in found["better"].items()
    ]
    about = (
        "FEVE [%] of unseen animals, median ± MAD, and the mean of what is gained over channels as "
        "they were aligned. With gains: a gain and offsets of each channel, fitted beside θ. "
        "Matched to the model: to what it answers for that θ, by the sounds that θ is fitted to, "
        "and θ fitted on; some of the loss then moves from θ into the matching. Best slots: those "
        "that predict all validation sounds best, with θ fitted as in the others, in turns; no "
        "alignment knows that much, so what it adds bounds what is lost to alignment."
    )
    header = ["network", "unseen animals", "FEVE", "more than as aligned", "n"]
    return Table("Unseen animals, with more than θ", about, header, rows)


def choices(summary: dict) -> Table:
    """Networks of several animals against each other."""
    rows = [
        [name, animals, interval(found, 100), counted(found)]
        for name, by_role in summary["choices"].items()
        for animals, found in by_role.items()
    ]
    about = (
        "FEVE of the first less that of the second [%], means over the smaller group of training "
        "animals and over unseen ones."
    )
    header = ["which", "animals", "difference", "n"]
    return Table("Networks against each other", about, header, rows)


def movement(summary: dict) -> Table:
    """What was learned of listeners."""
    rows = []
    for network, found in summary["movement"].items():
        cells = [labels(summary)[network]]
        cells += [number(found["mean_correlation"], 2), number(found["mean_moved"], 2)]
        for name, digits in (("deviation", 3), ("shift", 2), ("rate", 1), ("onset", 2)):
            start, least, most = (number(found[name][key], digits) for key in _RANGE)
            cells.append(f"{start} → {least} … {most}")
        cells.insert(4, number(found["deviation_prior"], 2))
        rows.append(cells)
    about = (
        "How far training moved what describes listeners. Correlation of the means, before their "
        "sigmoid, with those at the start (1: kept), and how far they moved, root mean square in "
        "units of μ, medians over seeds; standard deviation of θ, and the time transfer's shift "
        "(0 to 20), rate (0 to 50) and onset (0.05 to 0.5), from the start to the range over "
        "animals, dimensions and seeds. What keeps its start was not learned, and an ablation of "
        "it says nothing."
    )
    header = ["network", "correlation", "moved", "deviation of θ", "its prior"]
    return Table("How far listeners moved", about, [*header, "shift", "rate", "onset"], rows)


def searches(summary: dict) -> Table:
    """Evaluations to the target."""
    rows = []
    for network, ways in summary["fit"].items():
        name, theirs = labels(summary)[network], PAPER_EVALUATIONS[network]
        for way, found in ways.items():
            paper = theirs if way.startswith("Bayesian") and "Sobol" in way else NOTHING
            counts = [_needed(found, ""), paper, _needed(found, "strict_")]
            rows.append([name, way, *counts, number(found["seconds"], 1)])
    middle = ", ".join(
        f"{number(100 * (ratio - 1), 1)} % ({labels(summary)[network]})"
        for network, ratio in summary["fit_middle"].items()
        if ratio is not None
    )
    about = (
        "Evaluations until a search comes within 2 % of what a dense search found, median over "
        "animals and seeds; in brackets the share of searches that ever did. Strict: within 2 % of "
        "the way from the target to the cost in the middle of the box. The middle alone costs only "
        f"this much more than the target: {middle or NOTHING}; the usual rule is easy to meet "
        "where that is little. A step of descent needs a gradient too."
    )
    header = ["network", "way", "evaluations", "paper", "strict", "seconds"]
    return Table("Searching θ", about, header, rows)


def decodability(summary: dict) -> Table:
    """The truth in θ."""
    theta, thresholds = (summary["decodability"][source] for source in ("theta", "thresholds"))
    rows = [
        [
            TRUTHS[what],
            number(found["median"], 2),
            by_seed(found, 1, 2),
            number(thresholds[what]["median"], 2),
            by_seed(thresholds[what], 1, 2),
        ]
        for what, found in theta.items()
    ]
    about = (
        "R² of a linear (ridge) reading, each animal left out in turn: from θ of all animals, seen "
        "and fitted, of the network trained on most animals; and from thresholds. 1 is "
        "perfect, 0 no better than the mean, below 0 worse. Few animals: a rough number."
    )
    header = ["truth", "from θ", "by seed", "from thresholds", "by seed"]
    return Table("What θ means", about, header, rows)


def alignment(summary: dict) -> Table:
    """Octave errors."""
    found = summary["alignment"]
    columns = {"before_octaves": 2, "after_octaves": 2, "apart_an_animal": 1}
    rows = [
        [name, *(number(f[key], digits) for key, digits in columns.items())]
        for name, f in (("best of several brains", found), ("permutation", found["published"]))
    ]
    of_unseen = ", ".join(f"{way} {number(o, 2)}" for way, o in found["unseen_octaves"].items())
    about = (
        "Median distance of the true best frequencies of matched channels [octaves], in the order "
        "of recording and as matched, over all animals that others are not matched with. Apart: "
        f"channels of an animal that answer to nothing. Unseen animals, by way: {of_unseen}."
    )
    return Table(
        "Channels of different brains", about, ["method", "before", "after", "apart"], rows
    )


def ablations(summary: dict) -> Table:
    """One part less."""
    rows = []
    for name, found in summary["ablations"].items():
        better = found.get("better", {})
        rows.append(
            [
                labels(summary)[name],
                *(interval(better.get(key), 100) for key in ("all", "hi")),
                plus_minus(found["absolute"], 100),
                interval(better.get("unseen"), 100),
                plus_minus(found["unseen"], 100),
                counted(better.get("all")),
            ]
        )
    about = (
        "FEVE [%] of the smaller group of animals: the difference to 6 parameters, mean, of all "
        "and of the impaired, and the median ± MAD; and the same of unseen animals. What did not "
        "move (the table of movement) says nothing by being changed. With one seed an interval "
        "speaks for that seed's networks alone."
    )
    header = ["network", "difference", "of the impaired", "FEVE", "of unseen animals"]
    return Table("With one thing changed", about, [*header, "their FEVE", "n"], rows)


def times(summary: dict) -> Table:
    """Where the time went."""
    rows = [
        [f"training: {labels(summary).get(name, name)}", number(seconds, 0)]
        for name, seconds in summary["training_seconds"].items()
    ]
    for network, ways in summary["fit_seconds"].items():
        named = labels(summary)[network]
        rows += [[f"fit, {way}: {named}", number(seconds, 1)] for way, seconds in ways.items()]
    for seed, stages in summary["wall_minutes"].items():
        rows += [[f"seed {seed}: {s}", number(60 * minutes, 0)] for s, minutes in stages.items()]
    about = "Seconds: medians over seeds of networks and fits, and all of each stage of each seed."
    return Table("Times", about, ["what", "seconds"], rows)


def _needed(found: dict, prefix: str) -> str:
    """Evaluations, and the share of searches that arrived."""
    count, reached = found[f"{prefix}evaluations"], found[f"{prefix}reached"]
    needed = f"more than {found['most']}" if count is None else f"{count:g}"
    return f"{needed} ({100 * reached:.0f} %)"


_RANGE = ("start", "least", "most")


def _factor(column: str) -> float:
    """Percent, or thousandths of a nat."""
    return 100 if column.startswith("feve") else 1000
