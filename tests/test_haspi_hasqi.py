import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import butter, lfilter, resample_poly
from torch.autograd import gradcheck

from evaluation import hasqi_pair
from evaluation.ear_model import (
    AUDIOMETRIC_HZ,
    PASCAL_DB_SPL,
    RATE_HZ,
    Cochlea,
    align,
    centre_hz,
    earlier,
    fire,
    lags,
    vibrate,
)
from evaluation.ear_pair import together
from evaluation.haspi_hasqi import haspi, hasqi
from evaluation.haspi_pair import intelligibility
from evaluation.hasqi_pair import quality
from icsim import recursive_filters
from icsim.audiogram import Audiogram
from icsim.nal_r import nal_r_taps
from icsim.sound import SAMPLE_RATE, calibrate, mix, read_mono

REFERENCE = Path(__file__).parent / "reference"
NORMAL = Audiogram((1000,), (0,))
SLOPING = Audiogram(AUDIOMETRIC_HZ, (5, 10, 20, 40, 60, 65))
FLAT = Audiogram(AUDIOMETRIC_HZ, (45, 45, 35, 45, 60, 65))
SCORES = {"haspi": haspi, "hasqi": hasqi}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def syllables(seconds: float, rate_hz: float = RATE_HZ) -> torch.Tensor:
    """Harmonics of a gliding voice in syllables at 65 dB SPL, `(1, T)` in double precision."""
    time = torch.arange(int(seconds * rate_hz), dtype=torch.float64) / rate_hz
    phase = 2 * torch.pi * (120 * time + 5 * torch.sin(2 * torch.pi * 1.5 * time))
    formants = 700 + 400 * torch.sin(2 * torch.pi * 2.3 * time)
    voice = sum(
        torch.sin(n * phase) * (torch.exp(-(((120 * n - formants) / 400) ** 2)) + 0.05)
        for n in range(1, 40)
    )
    return calibrate((voice * torch.sin(2 * torch.pi * 2 * time).abs())[None], 65.0)


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return syllables(1.1)


@pytest.fixture(scope="module")
def noisy(clean) -> torch.Tensor:
    return mix(clean, numbers(*clean.shape), 5.0)


# --- numbers of other people's programs ---------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "published"), [(intelligibility, 0.043808448934532965), (quality, 0.002525809)]
)
def test_scores_are_the_published_ones(score, published):
    # From pyclarity's own tests: sounds and noise from the seed 0, 16 kHz, RMS 1 is 65 dB SPL.
    draws = np.random.RandomState(0)
    x, y = draws.uniform(-1, 1, 8000), draws.uniform(-1, 1, 8000)

    def at_24_khz(sound: np.ndarray) -> torch.Tensor:
        resampled = resample_poly(sound, 3, 2)
        return torch.from_numpy(resampled * math.sqrt((sound**2).mean() / (resampled**2).mean()))

    pair = together(at_24_khz(x), at_24_khz(x + y if score is intelligibility else y))
    loss = torch.tensor(FLAT.thresholds_db_hl, dtype=torch.float64)
    found = score(*pair, loss, lambda *shape: torch.from_numpy(draws.standard_normal(shape)), 65.0)
    # pyclarity's filters have four poles in one recursion, which costs it some digits.
    assert found.item() == pytest.approx(published, rel=2e-7)


def pair(kind: str) -> tuple[torch.Tensor, torch.Tensor, float, Audiogram]:
    """Clean and processed sound `(1, T)`, their rate [Hz] and who hears them."""
    if kind == "recorded speech":  # of another sample rate: both programs resample alike
        recorded = read_mono(REFERENCE / "speech.flac")[None, : int(1.5 * SAMPLE_RATE)]
        clean = calibrate(recorded.double(), 65.0)
        return clean, mix(clean, drawn(clean), 8.0), SAMPLE_RATE, SLOPING
    clean = syllables(1.1)
    noisy = mix(clean, drawn(clean), 5.0)
    if kind == "noisy, normal ear":
        return clean, noisy, RATE_HZ, NORMAL
    return clean, (5 * noisy.roll(77, 1)).clamp(-0.3, 0.3), RATE_HZ, FLAT


def drawn(like: torch.Tensor) -> torch.Tensor:
    """Noise that no version of a library changes."""
    return torch.from_numpy(np.random.RandomState(1).standard_normal(tuple(like.shape)))


KEPT = json.loads((REFERENCE / "pyclarity.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", ["noisy, normal ear", "clipped and late", "recorded speech"])
def test_scores_are_those_of_pyclarity(score, kind):
    clean, processed, rate_hz, ear = pair(kind)
    found = SCORES[score](clean, processed, rate_hz, ear, noise=3)
    assert found.item() == pytest.approx(KEPT[score][kind], abs=1e-6)


def test_filters_are_those_of_pyclarity():
    for levels, expected in KEPT["nal_r"]:
        taps = nal_r_taps(levels, hasqi_pair.NAL_R_ORDER, RATE_HZ)
        np.testing.assert_allclose(taps[: len(expected)], expected, atol=1e-12)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("kind", ["noisy, normal ear", "clipped and late", "recorded speech"])
def test_what_is_kept_is_what_pyclarity_says(score, kind):
    pytest.importorskip("clarity")
    from recipes.benchmarks.scores import by_pyclarity

    clean, processed, rate_hz, ear = pair(kind)
    found = by_pyclarity(score, clean[0], processed[0], rate_hz, ear, seed=3)
    assert found == pytest.approx(KEPT[score][kind], rel=1e-6)


def test_filters_that_are_kept_are_what_pyclarity_says():
    nalr = pytest.importorskip("clarity.enhancer.nalr")
    from clarity.utils.audiogram import Audiogram as ClarityAudiogram

    for levels, expected in KEPT["nal_r"]:
        ear = ClarityAudiogram(np.array(levels, float), np.array(AUDIOMETRIC_HZ))
        taps = nalr.NALR(140, RATE_HZ).build(ear)[0]
        np.testing.assert_allclose(taps[: len(expected)], expected, atol=1e-12)


# --- parts of the ear ---------------------------------------------------------------------------


def test_sections_filter_as_scipy_does_and_as_spectra_do():
    sound = numbers(3, 5000)
    b, a = butter(2, 0.03, "high")
    found = recursive_filters.section(sound, b, a)
    torch.testing.assert_close(found, torch.from_numpy(lfilter(b, a, sound.numpy())))
    torch.testing.assert_close(found, recursive_filters.section_by_spectra(sound, b, a))


def test_compiled_gammatones_and_their_gradients_are_those_of_spectra():
    sound = numbers(2, 3000).requires_grad_()
    radius = torch.tensor([[0.99, 0.9, 0.5], [0.98, 0.7, 0.0]]).double().requires_grad_()
    angle = torch.tensor([0.02, 0.5, 2.0], dtype=torch.float64)
    envelope, motion = recursive_filters.gammatone(sound, radius, angle)
    analytic = recursive_filters.analytic_by_spectra(sound, radius, angle)
    torch.testing.assert_close(envelope, analytic.abs())
    torch.testing.assert_close(motion, analytic.real)
    weight = numbers(2, *envelope.shape, seed=1)
    found, expected = (
        torch.autograd.grad((weight * torch.stack(parts)).sum(), (sound, radius))
        for parts in ((envelope, motion), (analytic.abs(), analytic.real))
    )
    torch.testing.assert_close(found, expected)


def test_a_tone_at_its_centre_passes_a_gammatone():
    angle = torch.from_numpy(2 * np.pi / RATE_HZ * centre_hz())
    tone = torch.sin(angle[16] * torch.arange(9600))
    envelope, _ = recursive_filters.gammatone(tone[None], torch.full((1, 32), 0.97).double(), angle)
    assert envelope[0, :, -1].argmax() == 16
    assert envelope[0, 16, -1].item() == pytest.approx(1, abs=1e-3)


def test_gradients_of_recursions_are_right():
    b, a = butter(2, 0.1)
    angle = torch.tensor([0.1, 2.0], dtype=torch.float64)
    sound = numbers(2, 30).requires_grad_()
    radius = torch.tensor([[0.9, 0.5], [0.8, 0.6]]).double().requires_grad_()
    assert gradcheck(lambda x: recursive_filters.section(x, b, a), sound)
    assert gradcheck(lambda x, r: recursive_filters.gammatone(x, r, angle), (sound, radius))


def test_gradients_of_the_ear_are_right():
    cochlea = Cochlea.from_thresholds(torch.tensor([FLAT.thresholds_db_hl]))
    sound = calibrate(numbers(1, 200), 75.0).requires_grad_()

    def heard(sound: torch.Tensor) -> tuple[torch.Tensor, ...]:
        vibration = vibrate(sound, cochlea)
        fired_db, motion = fire(vibration.envelope, vibration.motion, cochlea)
        return fired_db, motion, vibration.width, vibration.average_db

    assert gradcheck(heard, sound, eps=1e-8, rtol=1e-4, fast_mode=True)


def test_gradients_of_fine_structure_and_spectra_are_right():
    reference, heard = (20 * numbers(32, 960, seed=seed) for seed in (0, 1))
    heard = (reference + heard).requires_grad_()
    assert gradcheck(lambda y: hasqi_pair._fine_structure(reference, y), heard, fast_mode=True)
    spectrum_db, heard_db = 30 + numbers(32), (30 + numbers(32, seed=1)).requires_grad_()
    assert gradcheck(lambda y: hasqi_pair._spectral_likeness(spectrum_db, y), heard_db)


def test_levels_of_segments_are_those_of_their_samples():
    motion = 10 * numbers(32, 1000)
    everything = torch.ones(32, 5, dtype=torch.bool)
    segments = hasqi_pair._segments(motion, everything).unflatten(0, (32, 5))
    power = segments.square().sum(-1) / np.square(np.hanning(384)).sum()
    power[:, [0, -1]] *= 2  # halves
    torch.testing.assert_close(hasqi_pair._segment_levels(motion), (2 * power).sqrt())
    torch.testing.assert_close(segments.sum(-1), torch.zeros(32, 5, dtype=torch.float64))


def test_a_planted_lag_is_found_and_undone():
    reference = numbers(3, 9000)
    planted = torch.tensor([7, 0, -40])
    late = earlier(reference, -planted)
    assert lags(late, reference).tolist() == planted.tolist()
    torch.testing.assert_close(align(late, reference)[:, 40:-40], reference[:, 40:-40])


def test_an_onset_is_emphasised_and_then_forgotten():
    cochlea = Cochlea.from_thresholds(torch.zeros(1, 6))
    envelope = torch.full((1, 32, RATE_HZ), 0.1, dtype=torch.float64)
    fired_db, _ = fire(envelope, None, cochlea)
    steady_db = PASCAL_DB_SPL - 20
    assert fired_db[0, 0, 0].item() == pytest.approx(2 * steady_db, rel=0.02)
    assert fired_db[0, 0, -1].item() == pytest.approx(steady_db, rel=1e-5)


def test_a_loss_widens_attenuates_and_compresses_less():
    losses = torch.tensor([[level] * 6 for level in (-10.0, 0, 40, 100)])
    ear = Cochlea.from_thresholds(losses)
    torch.testing.assert_close(ear.outer_db[0], ear.outer_db[1])
    assert bool((ear.width[2] > ear.width[1]).all())
    assert bool((ear.ratio[2] < ear.ratio[1]).all())
    loss = losses.clamp(min=0)[:, :1].expand(4, 32).double()
    torch.testing.assert_close(ear.outer_db + ear.inner_db, loss)
    torch.testing.assert_close(ear.ratio[3], torch.ones(32).double())


# --- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_scores_rise_with_the_signal_to_noise_ratio(score, clean):
    processed = torch.cat([mix(clean, numbers(*clean.shape), snr) for snr in (-10.0, 10.0)])
    values = score(clean.expand(2, -1), processed, RATE_HZ, NORMAL)
    assert values[1] > values[0] + 0.05
    assert bool(((values >= 0) & (values <= 1.01)).all())


def test_an_impaired_ear_understands_less_and_more_when_it_is_louder(clean):
    soft, loud = 0.03 * clean, 0.3 * clean
    normal, impaired, louder = haspi(
        clean.expand(3, -1), torch.cat([soft, soft, loud]), RATE_HZ, [NORMAL, FLAT, FLAT]
    )
    assert normal > impaired
    assert louder > impaired


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_a_sound_without_change_is_perfect_for_a_normal_ear(score, clean):
    assert score(clean, clean, RATE_HZ, NORMAL, noise=None).item() > 0.97


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_a_batch_is_its_sounds_one_by_one(score, clean, noisy):
    short = clean.clone()
    short[:, :3000] = 0  # what is heard of it is shorter
    cleans, processed = torch.cat([clean, short]), torch.cat([noisy, noisy])
    batch = score(cleans, processed, RATE_HZ, [SLOPING, FLAT])
    for n, ear in enumerate((SLOPING, FLAT)):
        one = score(cleans[n : n + 1], processed[n : n + 1], RATE_HZ, ear)
        torch.testing.assert_close(one, batch[n : n + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_noise_repeats_and_matters_little(score, clean, noisy):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other, none, drawn = (
        score(clean, noisy, RATE_HZ, SLOPING, noise).item()
        for noise in (0, 0, 1, None, torch.Generator().manual_seed(0))
    )
    assert first == second
    assert first != other
    assert [other, none, drawn] == pytest.approx([first] * 3, abs=0.01)
    assert bool((np.random.get_state()[1] == state).all())  # noqa: NPY002


# --- as a loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_gradients_are_the_slopes_of_scores(score, clean, noisy):
    processed = noisy.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(clean, processed, RATE_HZ, FLAT, None).sum(), processed)
    step = 1e-5 * noisy
    with torch.no_grad():
        above, below = (score(clean, noisy + s, RATE_HZ, FLAT, None) for s in (step, -step))
    slope = (above - below).item() / 2
    assert (gradient * step).sum().item() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_gradients_are_finite_where_sounds_are_silent(score, clean, noisy):
    gap = torch.zeros_like(clean)
    gap[:, : clean.shape[1] // 2] = 1
    cleans = torch.cat([clean, clean, gap * clean, clean])
    processed = torch.cat([gap * noisy, 0 * noisy, noisy, clean]).requires_grad_()
    values = score(cleans, processed, RATE_HZ, SLOPING, noise=None)
    (gradient,) = torch.autograd.grad(values.sum(), processed)
    assert bool(values.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert bool(gradient[[0, 2]].any(1).all())
    assert values[1] < 0.05


def test_gradients_pass_resampling():
    clean = syllables(1.1, SAMPLE_RATE)
    noise = numbers(*clean.shape)
    processed = mix(clean, noise, 5.0).requires_grad_()
    (gradient,) = torch.autograd.grad(
        haspi(clean, processed, SAMPLE_RATE, FLAT, None).sum(), processed
    )
    step = 1e-5 * (processed.detach() - clean)
    with torch.no_grad():
        ends = [haspi(clean, processed + s, SAMPLE_RATE, FLAT, None) for s in (step, -step)]
    slope = (ends[0] - ends[1]).item() / 2
    assert slope < 0
    assert (gradient * step).sum().item() == pytest.approx(slope, rel=5e-3)


# --- what cannot be scored ----------------------------------------------------------------------


@pytest.mark.parametrize("score", [haspi, hasqi])
def test_bad_sounds_are_refused_by_name(score, clean, noisy):
    broken = noisy.clone()
    broken[0, 7] = math.nan
    for sounds, words in (
        ((clean[0], noisy[0]), r"\(B, T\)"),
        ((clean, noisy[:, 1:]), "same length"),
        ((clean[:, :20000], noisy[:, :20000]), "take 1 s or more"),
        ((clean, broken), "processed sound 0 has samples that are NaN"),
        ((0 * clean, noisy), "clean sound 0 is silent"),
        ((1e-4 * clean, noisy), "sound 0: nothing of the clean sound is above threshold"),
    ):
        with pytest.raises(ValueError, match=words):
            score(*sounds, RATE_HZ, SLOPING)
    with pytest.raises(ValueError, match="2 audiograms for 1 sounds"):
        score(clean, noisy, RATE_HZ, [SLOPING, FLAT])
    with pytest.raises(ValueError, match="sample_rate must be positive"):
        score(clean, noisy, 0, SLOPING)
