"""The benchmark's numbers as tables, the paper's beside them."""

from recipes.cells import NOTHING, Table, by_seed, number, percent, plus_minus

PAPER = {
    "icnet": ("67 ± 14", "71 ± 11", "8.4 ± 2", "10.4 ± 4"),
    "abr": ("−5.6 ± 4", "−3.7 ± 10", "−0.36 ± 3", "−0.35 ± 6"),
    "beta-3": ("−7.2 ± 5", "−3.5 ± 10", "−0.98 ± 3", "−1.0 ± 4"),
    "beta-6-permuted": ("−5.3 ± 5", "−2.1 ± 7", "−1.1 ± 3", "−1.3 ± 4"),
}
"""FEVE NH and HI [%], KL NH and HI [1e-3 nats]. Source: arXiv 2506.03088."""

PAPER_UNSEEN = {
    "nine": ("paper, 9 animals", "55.6", "7.8", "0.14"),
    "twenty": ("paper, 20 animals", "50.7", "26.9", "0.53"),
}
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
    made = [prediction, absolute, by_class, hidden, unseen]
    made += [searches, decodability, alignment, ablations, times]
    return {make.__name__: make(summary) for make in made}


def labels(summary: dict) -> dict[str, str]:
    """Networks as a reader calls them."""
    everyone = f"{summary['animals']['twenty']} animals"
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
        "from-scratch": "not begun from an ICNet",
    }


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
        "together. The first row is what ICNet reaches; the others are differences to it, of the "
        "same seed, animal and sound. FEVE is better higher, KL lower. The paper's 6 parameters "
        "were aligned by a permutation. Paper: arXiv 2506.03088, recordings of real gerbils."
    )
    return Table("Prediction, beside the paper", about, header, rows)


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
        f"{summary['animals']['nine']} animals of the smaller group (ICNet, one an animal: over "
        "those that have one). By seed: medians of FEVE over all animals."
    )
    header = ["model", "hidden FEVE %", "hidden KL ×10⁻³", "FEVE %", "NH", "HI", "hidden"]
    header += ["KL ×10⁻³", "by seed"]
    return Table("Hidden losses, and absolute values", about, header, rows)


def by_class(summary: dict) -> Table:
    """FEVE by class of sound."""
    found = summary["by_class"]
    kinds = sorted({kind for of_model in found.values() for kind in of_model})
    rows = [[kind, *(plus_minus(found[m].get(kind), 100) for m in found)] for kind in kinds]
    about = "FEVE [%], median ± MAD, of the animals that have an ICNet of their own."
    header = ["class of sound", *(labels(summary)[model] for model in found)]
    return Table("By class of sound", about, header, rows)


def hidden(summary: dict) -> Table:
    """BetaICNet against ABRNet."""
    found = summary["hidden"]
    which = {
        "hidden, unseen": found,
        "hidden, seen": found["seen"],
        "NH, unseen": found["unseen_nh"],
        "HI, unseen": found["unseen_hi"],
    }
    rows = [
        [
            name,
            *(plus_minus(f.get(key), 100) for key in ("abr", "beta", "difference")),
            by_seed(f["difference"], 100),
            *(plus_minus(f.get(key), 100) for key in ("beta_matched", "difference_matched")),
        ]
        for name, f in which.items()
    ]
    about = (
        "FEVE [%]. Both networks were trained on the smaller group. Of unseen animals ABRNet is "
        "given the thresholds, and 6 parameters were fitted to a few seconds of responses, with "
        "the same channels; in the last two columns channels were then matched to the model too. "
        "Thresholds of seen animals are a name tag that ABRNet can learn by heart, so that little "
        "is to be expected there."
    )
    header = ["animals", "ABRNet", "6 parameters", "difference", "by seed"]
    header += ["6 parameters, channels matched again", "difference, matched again"]
    return Table("Losses that thresholds do not show", about, header, rows)


def unseen(summary: dict) -> Table:
    """Animals that no network was trained on."""
    count, rows = summary["animals"], []
    for group in ("nine", "twenty"):
        for name, found in (
            (f"{count[group]} animals", summary["unseen"][group]),
            (f"{count[group]} animals, permutation", summary["unseen"]["published"][group]),
        ):
            columns = ("seen", "unseen", "gains", "matched", "matched_gains")
            columns += ("oracle_alignment", "lost_to_alignment")
            cells = {key: plus_minus(found.get(key), 100) for key in columns}
            of_groups = [percent(g["unseen"]["median"]) for g in found["by_group"].values()]
            rows.append(
                [name, cells["seen"], cells["unseen"], number(found["ratio"], 2)]
                + [by_seed(found["unseen"], 100), *of_groups]
                + [cells[key] for key in columns[2:]]
            )
        rows.append([*PAPER_UNSEEN[group], *[NOTHING] * 9])
    about = (
        "FEVE [%] of 6 parameters, median ± MAD. Unseen: θ fitted, channels as `recipes.align` "
        "left them. With gains: with a gain and offsets of each channel, fitted beside θ. Matched "
        "again: to what the model answers for that θ, and θ fitted once more, which predicts "
        "better and moves some of the loss from θ into the matching. Oracle: matched by the true "
        "maps. Lost: oracle less unseen, sound by sound."
    )
    header = ["training animals", "seen", "unseen", "ratio", "unseen by seed", "NH", "HI"]
    header += ["hidden", "with gains", "matched again", "matched again, with gains"]
    header += ["oracle", "lost to alignment"]
    return Table("Unseen animals", about, header, rows)


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
        "and fitted, of the network trained on the larger group; and from thresholds. 1 is "
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
    ablation_keys = ("difference", "difference_hi", "absolute", "unseen")
    rows = [
        [
            labels(summary)[name],
            *(plus_minus(found[key], 100) for key in ablation_keys),
            ", ".join(map(str, found["seeds"])),
        ]
        for name, found in summary["ablations"].items()
    ]
    about = (
        "FEVE [%] of the smaller group of animals: the difference to 6 parameters, sound by sound, "
        "of all and of the impaired; absolute; and of unseen animals. One seed: leads, not results."
    )
    header = ["network", "difference", "of the impaired", "absolute", "unseen", "seeds"]
    return Table("With one thing changed", about, header, rows)


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


def _factor(column: str) -> float:
    """Percent, or thousandths of a nat."""
    return 100 if column.startswith("feve") else 1000
