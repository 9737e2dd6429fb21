"""Where the training of a response model begins: sizes, histograms of counts, another model."""

import torch
from torch import Tensor

from icsim.channel_gains import ChannelGainsConfig
from icsim.frames import Frames
from icsim.recording import UNMATCHED
from icsim.store import Cohort

from .conditions import (
    Branches,
    BranchesConfig,
    ConditionConfig,
    ThetaConfig,
    ThresholdsConfig,
    sized,
)
from .encoders import EncoderConfig, SincNetConfig
from .facts import ModelFacts, require_thresholds
from .readouts import CategoricalConfig, ReadoutConfig
from .response import ResponseModel, ResponseModelConfig


def config_for(
    cohort: Cohort,
    facts: ModelFacts,
    encoder: EncoderConfig | None = None,
    condition: ConditionConfig | None = None,
    readout: ReadoutConfig | None = None,
    seed: int = 0,
    channel_gains: bool = False,
) -> ResponseModelConfig:
    """The configuration of a model of some animals: channels, listeners and clock are theirs.

    Args:
        cohort: Where the animals are.
        facts: Of the animals.
        encoder: Which; the published one if not given.
        condition: Which, θ if not given; its numbers of animals and of frequencies are set.
        readout: Which; the published one if not given.
        seed: Of what is drawn for listeners.
        channel_gains: Whether channels of the animals have gains and offsets of their own.

    Raises:
        ValueError: If thresholds are needed and missing; the message names the animals.
    """
    condition = condition or ThetaConfig()
    if isinstance(condition, ThresholdsConfig):
        require_thresholds(cohort, facts.animals)
    thresholds = facts.thresholds_db_spl
    frequencies = None if thresholds is None else thresholds.shape[1]
    animals, channels = facts.matching.shape
    return ResponseModelConfig(
        channels if isinstance(condition, BranchesConfig) else facts.slots,
        encoder or SincNetConfig(),
        sized(condition, animals, frequencies, seed),
        readout or CategoricalConfig(),
        cohort.clock,
        ChannelGainsConfig(animals, channels) if channel_gains else None,
    )


def histograms(counts: Tensor) -> Tensor:
    """How often each channel gives 0, 1, … spikes: `(B, C, N)` to `(C, 256)`, adding up to one."""
    flat = counts.transpose(0, 1).flatten(1).long()
    places = 256 * torch.arange(len(flat)).unsqueeze(1) + flat
    total = torch.bincount(places.flatten(), minlength=256 * len(flat))
    return total.view(-1, 256) / flat.shape[1]


def count_histogram(
    model: ResponseModel, facts: ModelFacts, frames: Frames, most: int = 256
) -> Tensor:
    """How often each of the readout's channels gives each count, over some frames, `(slots, 256)`.

    Channels that no animal has get the mean of the others.
    """
    batch = frames.read(range(0, len(frames), max(1, len(frames) // most)))
    condition = model.condition
    matching = condition.rows if isinstance(condition, Branches) else facts.matching
    total = torch.zeros(model.readout.slots, 256)
    for animal, slots in enumerate(matching):
        each = histograms(batch["counts"][batch["heard"][:, animal], animal])
        matched = slots >= 0
        total.index_add_(0, slots[matched], each[matched])
    silent = total.sum(1) == 0
    total[silent] = total.sum(0)
    return total / total.sum(1, keepdim=True)


@torch.no_grad()
def begin_from(
    model: ResponseModel, facts: ModelFacts, other: ResponseModel, other_facts: ModelFacts
) -> None:
    """Take the encoder of another model, and, if that has branches, its readout.

    Each channel of the readout becomes the mean of what the other learned for the channels of
    animals that belong there; animals are told by name. A model with branches goes on from one of
    the same animals with all that it is.

    Raises:
        ValueError: If the encoders or the readouts differ.
    """
    for part in ("encoder", "readout", "clock"):
        mine, theirs = getattr(model.config, part), getattr(other.config, part)
        if mine != theirs:
            raise ValueError(f"the {part} to begin from is another one: {theirs}, not {mine}")
    model.encoder.load_state_dict(other.encoder.state_dict())
    shared = [name for name in other_facts.animals if name in facts.animals]
    if not isinstance(other.condition, Branches) or not shared:
        return
    if isinstance(model.condition, Branches):
        if other_facts.animals == facts.animals:
            model.load_state_dict(other.state_dict())
        return
    slots, rows = [], []
    for name in shared:
        matching = facts.matching[facts.animals.index(name)]
        # Both are padded to the animal with most channels, which need not be the same one.
        channels = (matching != UNMATCHED).nonzero().flatten()
        slots.append(matching[channels])
        rows.append(other.condition.rows[other_facts.animals.index(name)][channels])
    belongs, learned = torch.cat(slots), torch.cat(rows)
    share = torch.zeros(facts.slots).index_add_(0, belongs, torch.ones(len(belongs)))
    taken = (share > 0)[:, None]
    for name, parameter in model.readout.named_parameters():
        mine = parameter.view(facts.slots, -1)
        theirs = getattr(other.readout, name).view(other.readout.slots, -1)
        total = torch.zeros_like(mine).index_add_(0, belongs, theirs[learned])
        mean = total / share.clamp(min=1)[:, None]
        parameter.copy_(torch.where(taken, mean, mine).view_as(parameter))
