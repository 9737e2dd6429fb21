"""The three kinds of network of the midbrain, made and asked in one way."""

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from icsim.alignment import surprise, transport
from icsim.channel_gains import BROAD, Prior, learn_prior
from icsim.conditional import (
    ABRNet,
    ABRNetConfig,
    BetaICNet,
    BetaICNetConfig,
    listener_cost,
)
from icsim.counts import CLASSES, Prediction
from icsim.frames import Frames
from icsim.icnet import CONTEXT_BINS, EncoderConfig, ICNet, ICNetConfig
from icsim.recording import APART
from icsim.store import Cohort
from icsim.weights import load_network

Kind = Literal["beta", "abr", "icnet"]
"""BetaICNet, ABRNet, or ICNet with a branch an animal."""


@dataclasses.dataclass(frozen=True)
class Brains:
    """What training knows of its animals beside their responses."""

    names: list[str]
    """A of them."""
    matching: Tensor
    """Slot of each animal's channels, or `APART`, as beyond those that it has, `(A, C)`."""
    slots: int
    """Channels of a network for all brains."""
    thresholds_db_spl: Tensor | None
    """ABR thresholds `(A, F)` [dB SPL], if every animal has them, at the same frequencies."""
    abr_frequencies_hz: tuple[float, ...] | None = None
    """Those frequencies [Hz]."""

    @property
    def weight(self) -> Tensor:
        """One for each channel that counts, zero for those set apart, `(A, C)`."""
        return (self.matching != APART).float()


def brains(cohort: Cohort, names: list[str], alignment: str, kind: Kind) -> Brains:
    """What a cohort says of some animals.

    Animals that were never aligned keep their channels in the order recorded.

    Raises:
        ValueError: If only some are aligned, alignments do not go together, or ABRNet is wanted
            and thresholds are missing or at different frequencies; the message names the animals.
    """
    animals = [cohort.animal(name) for name in names]
    found = [animal.alignment(alignment) for animal in animals]
    without = [a.name for a, one in zip(animals, found, strict=True) if one is None]
    if 0 < len(without) < len(names) or (without and alignment != "default"):
        raise ValueError(
            f"not aligned as {alignment!r}: {', '.join(without)}; run recipes.align for all animals"
        )
    if without:
        slots = max(animal.channels for animal in animals)
        rows = [torch.arange(animal.channels) for animal in animals]
    else:
        slots, rows = found[0].slots, [one.matching for one in found]
        if any(one.slots != slots for one in found):
            raise ValueError(f"{alignment!r} is of several alignments: run recipes.align again")
    matching = pad_sequence(rows, batch_first=True, padding_value=APART)
    unmeasured = [animal.name for animal in animals if animal.thresholds_db_spl is None]
    frequencies = {animal.abr_frequencies_hz for animal in animals}
    if kind == "abr" and unmeasured:
        raise ValueError(f"ABRNet needs thresholds, which {', '.join(unmeasured)} lacks")
    if kind == "abr" and len(frequencies) > 1:
        raise ValueError(f"ABRNet needs thresholds at the same frequencies, got {frequencies} Hz")
    if unmeasured or len(frequencies) > 1:
        return Brains(names, matching, slots, None)
    thresholds = torch.stack([animal.thresholds_db_spl for animal in animals]).float()
    return Brains(names, matching, slots, thresholds, *frequencies)


def make(
    kind: Kind,
    known: Brains,
    encoder: EncoderConfig,
    parameters: int = 6,
    shared_drift: bool = True,
    seed: int = 0,
    fusion_size: int = 16,
) -> nn.Module:
    """An untrained network for these animals."""
    animals, channels = known.matching.shape
    if kind == "icnet":
        return ICNet(ICNetConfig(animals, channels, encoder))
    if kind == "abr":
        frequencies = known.thresholds_db_spl.shape[1]
        return ABRNet(ABRNetConfig(known.slots, frequencies, fusion_size, encoder))
    return BetaICNet(
        BetaICNetConfig(
            animals=animals,
            channels=known.slots,
            parameters=parameters,
            encoder=encoder,
            fusion_size=fusion_size,
            shared_drift=shared_drift,
            seed=seed,
        )
    )


def predict(
    network: nn.Module,
    known: Brains,
    sound: Tensor,
    hours: Tensor,
    animals: Tensor | None = None,
    noise: Tensor | None = None,
) -> Prediction:
    """What known animals answer to frames with context, whatever the kind of network.

    Args:
        network: Of `make`, possibly wrapped for several processes.
        known: The animals that it was made for.
        sound: Pressure [Pa], `(B, T)`, the first 2048 samples context.
        hours: When each heard it [h], `(B, A)`.
        animals: Which of the animals the axis A holds, if not all.
        noise: Of θ, standard normal, `(B, A, P)`; None for the mean listener.
    """
    which = torch.arange(len(known.names)) if animals is None else animals
    kind = type(getattr(network, "module", network))
    if kind is ICNet:
        return network(sound, hours, which.to(sound.device))
    matching = known.matching[which].to(sound.device)
    if kind is ABRNet:
        thresholds = known.thresholds_db_spl[which].to(sound.device)
        return network(sound, thresholds[None], matching)
    return network(sound, hours, noise, matching, which.to(sound.device))


def predict_from_latent(
    network: nn.Module, known: Brains, latent: Tensor, hours: Tensor, animals: Tensor
) -> Prediction:
    """What known animals answer, from the latent of a sound with context; else as `predict`."""
    if isinstance(network, ICNet):
        return network.predict(latent, hours, animals, CONTEXT_BINS)
    if isinstance(network, ABRNet):
        condition = known.thresholds_db_spl[animals][None]
    else:
        condition = network.listeners.theta(hours, animals)
    return network.predict(latent, condition, known.matching[animals], CONTEXT_BINS)


@torch.no_grad()
def surprises(network: nn.Module, sound: Tensor, counts: Tensor, condition: Tensor) -> Tensor:
    """How badly each slot of a network predicts each channel of one listener.

    Args:
        network: BetaICNet or ABRNet.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the listener answered, `(B, C, N)`.
        condition: θ `(P,)`, or thresholds `(F,)` [dB SPL].

    Returns:
        Mean nats a bin, `(C, slots)`.
    """
    total = torch.zeros(counts.shape[1], network.decoder.slots, device=sound.device)
    for part, answers in zip(sound.split(4), counts.split(4), strict=True):
        latent = network.latent(part)
        predicted = network.predict(latent, condition[None, None], crop=CONTEXT_BINS)
        every = predicted.log_probabilities()[:, 0]
        total += len(part) * surprise(every, answers.clamp(max=CLASSES - 1))
    return total / len(sound)


def rematch(
    network: nn.Module,
    sound: Tensor,
    counts: Tensor,
    condition: Tensor,
    matching: Tensor,
    capacity: float = 3.0,
) -> Tensor:
    """Bring each channel of one listener to a slot that predicts its counts well.

    Args:
        network: BetaICNet or ABRNet.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the listener answered, `(B, C, N)`.
        condition: θ `(P,)`, or thresholds `(F,)` [dB SPL].
        matching: Slots so far, `(C,)`; channels set apart stay so.
        capacity: Of slots, see `transport`.

    Returns:
        `(C,)`.
    """
    cost, kept = surprises(network, sound, counts, condition), matching != APART
    found = matching.clone()
    found[kept] = transport(cost[kept], capacity).to(matching)
    return found


def rematch_known(network: nn.Module, known: Brains, frames: Frames, most: int = 120) -> Brains:
    """Match the channels of all known animals again, by some frames that they heard."""
    device = next(network.parameters()).device
    batch = frames.read(range(0, len(frames), -(-len(frames) // most)))
    matching = []
    for animal, slots in enumerate(known.matching):
        heard = batch["heard"][:, animal]
        sound, counts = (batch[key][heard].to(device) for key in ("sound", "counts"))
        if isinstance(network, ABRNet):
            condition = known.thresholds_db_spl[animal].to(device)
        else:
            hours = batch["hours"][heard, animal].mean().to(device)
            condition = network.listeners.theta(hours[None], torch.tensor([animal]))[0]
        matching.append(rematch(network, sound, counts[:, animal], condition, slots))
    return dataclasses.replace(known, matching=torch.stack(matching))


def channel_prior(network: BetaICNet, known: Brains, frames: Frames, most: int = 60) -> Prior:
    """How channels of the known animals differ from what a model says of them.

    Args:
        network: The trained model.
        known: Its animals.
        frames: Of sounds that it was not trained on.
        most: Frames of each animal that are used.
    """
    every, covariances = [], []
    batch = frames.read(range(0, len(frames), -(-len(frames) // most)))
    for animal, matching in enumerate(known.matching):
        heard = batch["heard"][:, animal]
        sound, counts = batch["sound"][heard], batch["counts"][heard, animal]
        hours = batch["hours"][heard, animal].mean()[None]
        theta = network.listeners.theta(hours, torch.tensor([animal]))[0].detach()
        cost = listener_cost(network, sound, counts, CONTEXT_BINS, matching)
        gains, uncertain = cost.fit_gains(theta, BROAD)
        every.append(gains)
        covariances.append(uncertain)
    return learn_prior(every, covariances)


def start(network: nn.Module, known: Brains, frames: Frames, begin_from: str | None) -> None:
    """Begin from each slot's histogram of counts, or from another network.

    Of that the encoder is taken, and, if it is an ICNet, each slot's part of the decoder is the
    mean of what it found for the channels that belong there. An ICNet of the same animals is gone
    on from with all that it is.

    Raises:
        ValueError: If the other encoder has other sizes.
    """
    network.decoder.start_at(count_frequencies(network, known, frames))
    if begin_from is None:
        return
    other, facts = load(begin_from)
    if other.encoder.config != network.encoder.config:
        raise ValueError(f"{begin_from}: its encoder is of other sizes: {other.encoder.config}")
    network.encoder.load_state_dict(other.encoder.state_dict())
    if isinstance(other, ICNet) and isinstance(network, ICNet) and facts["animals"] == known.names:
        network.load_state_dict(other.state_dict())
    shared = [name for name in facts["animals"] if name in known.names]
    if not isinstance(other, ICNet) or isinstance(network, ICNet) or not shared:
        return
    slots, rows = [], []
    for name in shared:
        matching = known.matching[known.names.index(name)]
        # Both are padded to the animal with most channels, which need not be the same one.
        own = (matching != APART).nonzero().flatten()
        slots.append(matching[own])
        rows.append(other.rows[facts["animals"].index(name)][own])
    slots, rows = torch.cat(slots), torch.cat(rows)
    share = torch.zeros(known.slots).index_add_(0, slots, torch.ones(len(slots)))
    found = (share > 0)[:, None]
    with torch.no_grad():
        for name, parameter in network.decoder.named_parameters():
            mine = parameter.unflatten(0, (known.slots, CLASSES)).flatten(1)
            theirs = getattr(other.decoder, name).unflatten(0, (other.decoder.slots, CLASSES))
            total = torch.zeros_like(mine).index_add_(0, slots, theirs.flatten(1)[rows])
            mean = total / share.clamp(min=1)[:, None]
            parameter.copy_(torch.where(found, mean, mine).view_as(parameter))


def count_frequencies(network: nn.Module, known: Brains, frames: Frames, most: int = 256) -> Tensor:
    """How often each of the decoder's channels gives each count, over some frames, `(slots, K)`."""
    batch = frames.read(range(0, len(frames), max(1, len(frames) // most)))
    matching = network.rows if isinstance(network, ICNet) else known.matching
    total = torch.zeros(network.decoder.slots, CLASSES)
    for animal, slots in enumerate(matching):
        each = histograms(batch["counts"][batch["heard"][:, animal], animal])
        kept = slots >= 0
        total.index_add_(0, slots[kept], each[kept])
    silent = total.sum(1) == 0
    total[silent] = total.sum(0)
    return total / total.sum(1, keepdim=True)


def histograms(counts: Tensor) -> Tensor:
    """How often each channel gives each count: `(B, C, N)` to `(C, K)`, adding up to one."""
    counts = counts.clamp(max=CLASSES - 1)
    return torch.stack([(counts == k).float().mean((0, 2)) for k in range(CLASSES)], -1)


def listener_values(network: nn.Module) -> dict[str, list] | None:
    """Parameters of a network's listeners as JSON; None where it has none.

    Kept from before the first step, they say later what was learned of listeners.
    """
    if not isinstance(network, BetaICNet):
        return None
    return {name: value.tolist() for name, value in network.listeners.state_dict().items()}


def load(path: str | Path) -> tuple[nn.Module, dict]:
    """A network of any of the three kinds, and its facts."""
    return load_network(path, BetaICNet, ABRNet, ICNet)


def known_brains(facts: dict) -> Brains:
    """What a checkpoint says of the animals that it was trained on."""
    thresholds = facts["thresholds_db_spl"]
    return Brains(
        facts["animals"],
        torch.tensor(facts["matching"]),
        facts["slots"],
        None if thresholds is None else torch.tensor(thresholds),
        tuple(facts["abr_frequencies_hz"]) if facts.get("abr_frequencies_hz") else None,
    )


def known_prior(facts: dict) -> Prior:
    """What a checkpoint says of how channels differ; a broad prior if it says nothing."""
    stored = facts.get("channel_prior")
    if stored is None:
        return BROAD
    return Prior(torch.tensor(stored["mean"]), torch.tensor(stored["covariance"]))


def brain_facts(known: Brains) -> dict:
    """The same as JSON, for a checkpoint."""
    thresholds = known.thresholds_db_spl
    return {
        "animals": known.names,
        "matching": known.matching.tolist(),
        "slots": known.slots,
        "thresholds_db_spl": None if thresholds is None else thresholds.tolist(),
        "abr_frequencies_hz": known.abr_frequencies_hz,
    }
