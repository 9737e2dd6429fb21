"""What a laboratory would measure on simulated animals: tensors for tables and figures.

Everything is measured on expected counts, without the noise of trials.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.alignment import correlation_distance, octave_error, permutation
from icsim.metrics import feve
from icsim.seeds import seeded
from icsim.simulation.abr import ABR_FREQUENCIES_HZ, abr_thresholds
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.cochlea import Subbands, drive, filter_sound, high_spontaneous
from icsim.sound import BIN_SAMPLES, REFERENCE_PA, RESPONSE_RATE, SAMPLE_RATE, calibrate


def audiograms(hearing: str, severity: float, listeners: int, seed: int) -> Tensor:
    """Measured thresholds of animals, with measurement error [dB SPL], `(A, 5)`."""
    measured = []
    for n in tqdm(range(listeners), desc=f"thresholds, {hearing} {severity:g}"):
        animal = Animal(draw_anatomy(4, seed + n), draw_loss(hearing, severity, n))
        measured.append(abr_thresholds(animal, seeded(seed, n)))
    return torch.stack(measured)


@torch.no_grad()
def tone_responses(
    animals: Sequence[Animal],
    frequencies_hz: Tensor,
    levels_db_spl: Tensor,
    duration_s: float = 0.05,
) -> Tensor:
    """Mean counts a bin during a tone and 10 ms after it, less the spontaneous ones.

    Args:
        animals: All with as many channels C.
        frequencies_hz: `(F,)`.
        levels_db_spl: `(L,)`.
        duration_s: Of a tone [s].

    Returns:
        `(A, F, L, C)`.
    """
    time_s = torch.arange(round((duration_s + 0.01) * SAMPLE_RATE)) / SAMPLE_RATE
    # Ramps of 2 ms keep the spectrum narrow.
    ramp = (torch.minimum(time_s, duration_s - time_s) / 0.002).clamp(0, 1)
    amplitude = 2**0.5 * REFERENCE_PA * 10 ** (levels_db_spl / 20)
    quiet = filter_sound(torch.zeros(1, BIN_SAMPLES))
    spontaneous = torch.stack([animal.expected_counts(quiet)[0, :, 0] for animal in animals])
    responses = []
    for frequency in tqdm(frequencies_hz.tolist(), desc="tones"):
        wave = ramp * torch.sin(2 * math.pi * frequency * time_s)
        subbands = filter_sound(amplitude[:, None] * wave)
        responses.append(torch.stack([a.expected_counts(subbands).mean(-1) for a in animals]))
    return torch.stack(responses, 1) - spontaneous[:, None, None]


def criterion_levels(increase: Tensor, levels_db_spl: Tensor, criterion: float = 0.1) -> Tensor:
    """Level at which a response first grows by a criterion, linear between the levels tried.

    Args:
        increase: Counts above the spontaneous ones, `(*, L, C)`.
        levels_db_spl: Ascending and evenly spaced, `(L,)`.
        criterion: [counts a bin].

    Returns:
        Thresholds [dB SPL], `(*, C)`; a channel that never gets there is given the next step.
    """
    step_db = levels_db_spl[1] - levels_db_spl[0]
    reached = (increase >= criterion).int()
    first = reached.argmax(-2, keepdim=True)
    above = increase.gather(-2, first)
    below = increase.gather(-2, (first - 1).clamp_min(0))
    back_db = step_db * (above - criterion) / (above - below).clamp_min(1e-9)
    level = levels_db_spl[first] - back_db.where(first > 0, 0)
    never = reached.sum(-2, keepdim=True) == 0
    return level.masked_fill(never, (levels_db_spl[-1] + step_db).item()).squeeze(-2)


def sharpness(thresholds_db_spl: Tensor, frequencies_hz: Tensor) -> tuple[Tensor, Tensor]:
    """Where each channel hears best, and its Q10: that frequency over the width 10 dB above.

    Args:
        thresholds_db_spl: `(F, C)`.
        frequencies_hz: Ascending, `(F,)`.

    Returns:
        Best frequencies [Hz] and Q10, both `(C,)`; Q10 is NaN where a flank is out of range.
    """
    octaves, best, values = frequencies_hz.log2(), [], []
    for curve in thresholds_db_spl.T:
        tip = int(curve.argmin())
        over = curve - curve[tip] - 10
        low = _crossing(over[: tip + 1].flip(0), octaves[: tip + 1].flip(0))
        high = _crossing(over[tip:], octaves[tip:])
        best.append(frequencies_hz[tip])
        values.append(frequencies_hz[tip] / (2**high - 2**low))
    return torch.stack(best), torch.stack(values)


def rate_levels(increase: Tensor, frequencies_hz: Tensor, cf_hz: Tensor) -> Tensor:
    """Responses to the tone nearest to each channel's frequency: `(*, F, L, C)` to `(*, L, C)`."""
    nearest = (cf_hz[:, None] / frequencies_hz).log2().abs().argmin(1)
    channels = torch.arange(len(cf_hz))
    return increase.movedim(-3, 0)[nearest, ..., channels].movedim(0, -1)


@torch.no_grad()
def speech_responses(animals: Sequence[Animal], speech: Tensor, levels_db_spl: Tensor) -> Tensor:
    """Expected counts of animals with as many channels, to speech `(T,)` at levels `(L,)`.

    Returns:
        `(A, L, C, N)`.
    """
    subbands = filter_sound(calibrate(speech.expand(len(levels_db_spl), -1), levels_db_spl))
    return torch.stack([animal.expected_counts(subbands) for animal in animals])


@torch.no_grad()
def modulation_transfer(
    animal: Animal,
    rates_hz: Tensor,
    level_db_spl: float = 65.0,
    duration_s: float = 1.0,
    repeats: int = 2,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Responses to white noise whose amplitude is a full sinusoid, after the first 0.2 s.

    Args:
        animal: With C channels.
        rates_hz: Modulation rates, below half of `RESPONSE_RATE`, `(R,)`.
        level_db_spl: Of the modulated noise.
        duration_s: Of a sound [s].
        repeats: Noises at each rate; what is locked to the modulation adds up over them.
        seed: Of the noises, the same at all rates.

    Returns:
        Amplitude at the modulation rate and mean, both in counts a bin and `(R, C)`.
    """
    noises = torch.randn(repeats, round(duration_s * SAMPLE_RATE), generator=seeded(seed))
    turns = torch.arange(noises.shape[-1]) / SAMPLE_RATE
    locked, mean = [], []
    for rate in tqdm(rates_hz.tolist(), desc="modulation"):
        envelope = 1 - torch.cos(2 * math.pi * rate * turns)
        response = animal.expected_counts(calibrate(envelope * noises, level_db_spl)).mean(0)
        response = response[:, round(0.2 * RESPONSE_RATE) :]
        bins = torch.arange(response.shape[-1])
        # A window, because the bins seldom hold whole periods.
        window = torch.hann_window(len(bins))
        window = window / window.sum()
        phase = torch.polar(window, -2 * math.pi * rate / RESPONSE_RATE * bins)
        still = (response * window).sum(-1)
        locked.append(2 * ((response - still[:, None]) * phase).sum(-1).abs())
        mean.append(still)
    return torch.stack(locked), torch.stack(mean)


@torch.no_grad()
def threshold_shifts(animal: Animal, hours: Tensor, frequency_hz: float = 4000.0) -> Tensor:
    """How far the level of equal nerve response rises during a recording.

    Args:
        animal: Its threshold at the beginning sets the response.
        hours: When it is measured [h], `(H,)`.
        frequency_hz: One of `ABR_FREQUENCIES_HZ` below 11 kHz.

    Returns:
        Shift [dB], `(H,)`.
    """
    place_hz = torch.tensor([frequency_hz])
    levels_db_spl = torch.arange(0.0, 121.0)
    time_s = torch.arange(round(0.02 * SAMPLE_RATE)) / SAMPLE_RATE
    amplitude = 2**0.5 * REFERENCE_PA * 10 ** (levels_db_spl[:, None] / 20)
    tones = filter_sound(amplitude * torch.sin(2 * math.pi * frequency_hz * time_s), place_hz)
    start_db = int(abr_thresholds(animal)[ABR_FREQUENCIES_HZ.index(frequency_hz)])
    shifts, target = [], None
    for hour in (0.0, *hours.tolist()):
        gain_db, ihc_db = animal.hair_cells(place_hz, hour)
        response = high_spontaneous(drive(tones, gain_db, ihc_db)).mean((1, 2))[start_db:]
        target = response[0] if target is None else target
        shifts.append(_crossing(response - target, levels_db_spl[start_db:]) - start_db)
    return torch.stack(shifts[1:])


@torch.no_grad()
def drift_costs(animal: Animal, sounds: Sequence[Tensor], length_h: float, seed: int) -> Tensor:
    """FEVE that is lost by taking an animal for what it is in the middle of its recording.

    Every sound is heard twice, at some hours. The best prediction is the mean of what is expected
    then, and what is expected in the middle falls behind it. Trials are taken without noise, which
    makes both worse by as much.

    Args:
        animal: Which drifts.
        sounds: Pressure [Pa], `(T,)` each.
        length_h: Of the recording [h].
        seed: Of the hours.

    Returns:
        Of each sound, `(S,)`.
    """
    hours = length_h * torch.rand(len(sounds), 2, generator=seeded(seed))
    lost = []
    for sound, times in zip(sounds, hours.tolist(), strict=True):
        subbands = filter_sound(sound[None])
        first, second, middle = (
            animal.expected_counts(subbands, hour)[0] for hour in (*times, length_h / 2)
        )
        both = torch.stack([first, second])
        lost.append(feve(both.mean(0), both) - feve(middle, both))
    return torch.stack(lost)


@torch.no_grad()
def likeness(brains: Sequence[Animal], sounds: Subbands) -> Tensor:
    """Each brain beside the mean of the others, matched by correlation on the same sounds.

    Returns:
        Of each brain its explained variance and the median octave error of channels before and
        after matching, `(A, 3)`.
    """
    responses = [brain.expected_counts(sounds)[0] for brain in tqdm(brains, desc="likeness")]
    rows = []
    for one, brain in zip(responses, brains, strict=True):
        matched, before, after = [], [], []
        for other, whose in zip(responses, brains, strict=True):
            if other is one:
                continue
            order = permutation(correlation_distance(one, other))
            matched.append(other[order])
            before.append(octave_error(brain.cf_hz, whose.cf_hz))
            after.append(octave_error(brain.cf_hz, whose.cf_hz[order]))
        explained = explained_variance(torch.stack(matched).mean(0), one)
        rows.append([explained, torch.tensor(before).median(), torch.tensor(after).median()])
    return torch.tensor(rows)


@torch.no_grad()
def shared_variance(brains: Sequence[Animal], sounds: Subbands) -> Tensor:
    """How much of each brain's living channels others explain, on sounds that matched no channel.

    Channels are matched on every other sound, and judged on those between.

    Args:
        brains: At least two, with as many channels C.
        sounds: A batch of sounds as long as each other.

    Returns:
        Explained variance of each brain, `(A, 4)`, by: the mean of the other brains, matched by
        the permutation of least correlation distance; the same by the permutation of least
        distance on the map (in octaves of both frequencies), which no laboratory knows; the one
        channel of all other brains that correlates best; the same brain without private scatter.
    """
    responses = [brain.expected_counts(sounds).movedim(1, 0) for brain in brains]
    fit, judge = ([h[:, start::2].flatten(1) for h in responses] for start in (0, 1))
    maps = [torch.stack([b.cf_hz.log2(), b.best_modulation_hz.log2()], 1) for b in brains]
    shares = []
    for one, brain in enumerate(brains):
        others = [n for n in range(len(brains)) if n != one]
        distance = [correlation_distance(fit[one], fit[n]) for n in others]
        away = [torch.cdist(maps[one], maps[n]).square() for n in others]
        average = Animal(dataclasses.replace(brain.anatomy, scatter=0.0), brain.loss)
        predicted = [
            *(
                torch.stack([judge[n][permutation(c)] for n, c in zip(others, cost, strict=True)])
                for cost in (distance, away)
            ),
            torch.cat([judge[n] for n in others])[torch.cat(distance, 1).argmin(1)],
            average.expected_counts(sounds).movedim(1, 0)[:, 1::2].flatten(1),
        ]
        alive = brain.alive > 0
        means = [p.mean(0) if p.ndim == 3 else p for p in predicted]
        shares.append([explained_variance(p[alive], judge[one][alive]) for p in means])
    return torch.tensor(shares)


def explained_variance(predicted: Tensor, response: Tensor) -> Tensor:
    """One minus squared error over variance, pooled over channels; both `(C, N)`."""
    return (
        1
        - (predicted - response).square().sum()
        / (response - response.mean(-1, keepdim=True)).square().sum()
    )


def _crossing(over: Tensor, places: Tensor) -> Tensor:
    """Where values that do not start above zero pass it, NaN if they never do; both `(L,)`."""
    passed = (over > 0).nonzero()
    if not len(passed):
        return torch.tensor(math.nan)
    i = int(passed[0])
    share = over[i - 1] / (over[i - 1] - over[i])
    return places[i - 1] + share * (places[i] - places[i - 1])
