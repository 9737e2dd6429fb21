"""The auditory model: its authors' numbers, what every ear does, and gradients that stay finite."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compensation.auditory import AuditoryModel, squared_difference
from compensation.listener import AUDIOGRAM_HZ, SPAN_DB, from_audiogram
from compensation.objective import compensation, denoising, discrepancy_left
from icsim.audiogram import STANDARD_DB_HL, Audiogram, audiogram
from icsim.loss import ResponseLoss
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, calibrate

REFERENCE = Path(__file__).parent / "reference" / "dtu_auditory_model.npz"
NORMAL = torch.zeros(1, len(AUDIOGRAM_HZ))
SLOPING = from_audiogram(Audiogram((250, 1000, 4000), (10, 30, 70)))


@pytest.fixture(scope="module")
def model() -> AuditoryModel:
    return AuditoryModel()


@pytest.fixture(scope="module")
def loss() -> ResponseLoss:
    return ResponseLoss(AuditoryModel(), squared_difference)


@pytest.fixture
def noise() -> torch.Tensor:
    return calibrate(torch.randn(2, 3200, generator=torch.Generator().manual_seed(0)), 65.0)


def tone(frequency_hz: float, level_db_spl: float, sample_rate: float = SAMPLE_RATE):
    """A quarter of a second, `(1, T)`."""
    time = torch.arange(round(sample_rate / 4), dtype=torch.float64) / sample_rate
    return calibrate(torch.sin(2 * torch.pi * frequency_hz * time)[None], level_db_spl)


@pytest.fixture
def in_double():
    """Filters are made in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- the authors' own program -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filterbank", "output", "audiogram"),
    [
        ("drnl", "nh", None),
        ("drnl", "hi_mild_sloping", "audiogram_mild_sloping"),
        ("drnl", "hi_severe", "audiogram_severe"),
        ("gammatone", "gammatone_nh", None),
    ],
)
def test_the_outputs_are_the_published_programs(filterbank, output, audiogram, in_double):
    reference = np.load(REFERENCE)
    model = AuditoryModel(filterbank, sample_rate=20_000)
    cf_hz = reference["gammatone_cf_hz" if filterbank == "gammatone" else "cf_hz"]
    np.testing.assert_allclose(model.cf_hz, cf_hz, rtol=1e-12)
    thresholds = torch.zeros(1, len(cf_hz))
    if audiogram:
        thresholds = continued(*reference[audiogram].T).at(torch.from_numpy(cf_hz))[None]
    sound = torch.from_numpy(reference["sound_pa"])
    found = model.representation(sound, model.hair_cell_loss(thresholds)).numpy()
    found = found[..., 49::50]
    expected = reference[output]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * expected.max())
    large = expected > 0.01 * expected.max()
    assert large.mean() > 0.2
    np.testing.assert_allclose(found[large], expected[large], rtol=1e-5)


def continued(frequencies_hz: np.ndarray, thresholds_db_hl: np.ndarray) -> Audiogram:
    """Beyond the ends the published program goes on straight, where ours stays."""
    log = np.log(frequencies_hz)
    ends = [
        thresholds_db_hl[end]
        + (thresholds_db_hl[end] - thresholds_db_hl[inner])
        / (log[end] - log[inner])
        * (math.log(hz) - log[end])
        for end, inner, hz in ((0, 1, 80.0), (-1, -2, 8000.0))
    ]
    return Audiogram((80, *frequencies_hz, 8000), (ends[0], *thresholds_db_hl, ends[1]))


# --- what every ear does ------------------------------------------------------------------------


@pytest.mark.parametrize("filterbank", ["drnl", "gammatone"])
@pytest.mark.parametrize("sample_rate", [17_000, SAMPLE_RATE, 48_000])
def test_tones_are_the_same_at_every_sample_rate(filterbank, sample_rate):
    frequencies = (250.0, 1000.0, 4000.0)
    found = []
    for rate in (20_000, sample_rate):
        model = AuditoryModel(filterbank, rate)
        normal = model.hair_cell_loss(torch.zeros_like(model.cf_hz)[None])
        tones = torch.cat([tone(hz, 65.0, rate) for hz in frequencies]).float()
        heard = model.representation(tones, normal)
        found.append(heard[..., heard.shape[-1] // 2 :].mean(-1))
    octaves = torch.log2(model.cf_hz[found[1].argmax(-1)] / torch.tensor(frequencies))
    assert octaves.abs().max() < 0.2
    torch.testing.assert_close(found[1].amax(-1), found[0].amax(-1), rtol=0.05, atol=0)


def test_the_future_changes_nothing(model, noise):
    normal = model.hair_cell_loss(torch.zeros(1, 31))
    other = noise.clone()
    other[:, 2000:] *= -3
    heard, again = (model.representation(x, normal) for x in (noise, other))
    torch.testing.assert_close(again[..., :2000], heard[..., :2000], rtol=0, atol=1e-4)
    assert (again[..., 2010:] - heard[..., 2010:]).abs().max() > 1


def test_a_representation_is_the_same_whatever_follows_the_sound(model, noise):
    normal = model.hair_cell_loss(torch.zeros(1, 31))
    heard = model.representation(noise, normal)
    longer = model.representation(torch.cat([noise, noise, noise], 1), normal)
    torch.testing.assert_close(longer[..., : noise.shape[1]], heard, rtol=0, atol=1e-4)


def test_outer_hair_cells_compress_and_their_loss_makes_linear(model):
    bank = AuditoryModel().filterbank.double()
    channel = (bank.cf_hz - 4000).abs().argmin()

    def growth(outer: float) -> float:
        """Of the vibration with a tone 20 dB stronger [dB/dB]."""
        left = torch.full((1, 31), outer, dtype=torch.float64)
        levels = [bank(tone(4000.0, level), left)[0, channel].std().log10() for level in (40, 60)]
        return (levels[1] - levels[0]).item()

    assert growth(1.0) < 0.4
    assert growth(0.01) == pytest.approx(1, abs=0.05)


def test_a_shift_is_divided_between_hair_cells(model):
    at_1_khz = (model.cf_hz - 1000).abs().argmin()
    lost = model.hair_cell_loss(
        torch.tensor([[-10.0], [0.0], [30.0], [90.0], [120.0]]).expand(-1, 31)
    )
    outer, inner = (-20 * torch.log10(x[:, at_1_khz]) for x in (lost.outer, lost.inner))
    # The nearest channel is at 1056 Hz: between 34.027 dB at 1000 Hz and 38.675 at 1500.
    largest = 34.027 + 4.648 * math.log(1.0558) / math.log(1.5)
    torch.testing.assert_close(outer, torch.tensor([0, 0, 20, largest, largest]), rtol=0, atol=1e-3)
    torch.testing.assert_close(outer + inner, torch.tensor([0.0, 0, 30, 90, 105]))


def test_a_severe_loss_leaves_little(model, noise):
    normal = model.hair_cell_loss(torch.zeros(1, 31))
    severe = model.hair_cell_loss(torch.full((1, 31), 70.0))
    heard, left = (model.representation(noise, x) for x in (normal, severe))
    assert left.mean() < 0.2 * heard.mean()


def test_an_audiogram_is_heard_between_its_frequencies(model, noise):
    thresholds = (5, 10, 12, 15, 22, 30, 38, 50, 55, 70, 65, 80)
    audiogram = Audiogram(AUDIOGRAM_HZ, thresholds)
    expected = model.representation(noise, model.hair_cell_loss(audiogram.at(model.cf_hz)[None]))
    found = model.respond(noise, from_audiogram(audiogram)[None])
    assert found.shape == (2, 31, BIN_SAMPLES, 100)
    torch.testing.assert_close(found.mT.flatten(2), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", STANDARD_DB_HL)
def test_every_threshold_of_a_standard_audiogram_is_heard(model, name):
    """Read at octaves alone, `S2` is 7.5 dB off at 1500 Hz, and 750 Hz of `S3` 2 dB."""
    ear = audiogram(name)
    at_channels = SPAN_DB * model.reading @ from_audiogram(ear)
    torch.testing.assert_close(at_channels, ear.at(model.cf_hz), rtol=0, atol=1e-3)


def test_listeners_in_one_batch_are_as_each_alone(model, noise):
    listeners = torch.stack([SLOPING, 0.5 * SLOPING])
    both = model.respond(noise, listeners)
    for i in range(2):
        alone = model.respond(noise[[i]], listeners[[i]])
        torch.testing.assert_close(both[[i]], alone, rtol=0, atol=1e-4)
    assert (both[0] - model.respond(noise, listeners[[1]])[0]).abs().max() > 0.1


# --- as an objective ----------------------------------------------------------------------------


def compensated(loss, processed, sound, listener):
    """What is left of the listeners' loss, mean."""
    return discrepancy_left(loss, processed, compensation(loss, sound, listener, NORMAL, 4)).mean()


def test_doing_nothing_scores_near_one_and_a_normal_ear_needs_nothing(loss, noise):
    listener = torch.stack([SLOPING, SLOPING])
    assert 0.8 < compensated(loss, noise, noise, listener) <= 1 / 1.1
    needed = compensated(loss, noise, noise, NORMAL.expand(2, -1))
    assert needed.item() == pytest.approx(0, abs=1e-6)


def test_amplifying_where_hearing_is_lost_compensates(loss, noise):
    listener = torch.stack([SLOPING, SLOPING])
    hz = torch.linspace(1, SAMPLE_RATE / 2, noise.shape[1] // 2 + 1)
    gain_db = 0.5 * Audiogram((250, 1000, 4000), (10, 30, 70)).at(hz)
    amplified = torch.fft.irfft(torch.fft.rfft(noise) * 10 ** (gain_db / 20))
    assert compensated(loss, amplified, noise, listener) < 0.6
    assert compensated(loss, 0.1 * noise, noise, listener) > 1


def test_less_noise_is_nearer_to_the_clean_sound(loss, noise):
    clean = torch.cat([tone(500.0, 65.0), tone(2000.0, 65.0)])[:, :3200].float()
    task = denoising(loss, clean + noise, clean, NORMAL, 4)
    scores = [
        discrepancy_left(loss, clean + share * noise, task).mean().item() for share in (1, 0.3, 0)
    ]
    assert scores[0] > scores[1] > scores[2] == 0
    assert 0.8 < scores[0] < 1


def test_bins_at_the_start_can_be_skipped_and_channels_weighted(loss, noise):
    target = loss.respond(noise, NORMAL)
    spoilt = target.clone()
    spoilt[..., :6] = -1
    assert (loss(noise, NORMAL, spoilt, skip_bins=6) == 0).all()
    assert (loss(noise, NORMAL, spoilt, skip_bins=5) > 0).all()
    weight = torch.zeros(31)
    weight[7] = 2
    single = ResponseLoss(loss.model, squared_difference, weight)(noise, SLOPING[None], target)
    found = loss.respond(noise, SLOPING[None])
    torch.testing.assert_close(single, squared_difference(found[:, [7]], target[:, [7]]))


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("filterbank", ["drnl", "gammatone"])
@pytest.mark.parametrize("level_db_spl", [-math.inf, -60.0, 65.0, 120.0])
def test_gradients_are_finite_at_silence_and_at_120_db_spl(filterbank, level_db_spl, noise):
    loss = ResponseLoss(AuditoryModel(filterbank), squared_difference)
    target = loss.respond(noise, NORMAL)
    heard = (noise * 10 ** ((level_db_spl - 65) / 20)).requires_grad_()
    listener = torch.stack([SLOPING, 0 * SLOPING]).requires_grad_()
    found = loss(heard, listener, target)
    found.sum().backward()
    assert found.isfinite().all()
    assert heard.grad.isfinite().all()
    assert listener.grad.isfinite().all()
    if level_db_spl == 65:
        assert (heard.grad[0] != 0).all()
        assert listener.grad[0].any()


def test_a_faint_sound_is_pulled_up_by_the_compressed_path(model):
    left = torch.ones(1, 31)
    silence = torch.zeros(1, 500, requires_grad=True)
    channel = (model.cf_hz - 2000).abs().argmin()
    model.filterbank(silence, left)[0, channel, -1].backward()
    faint = 1e-7 * silence.grad
    grown = model.filterbank(faint, left)[0, channel, -1]
    assert grown.item() == pytest.approx((silence.grad * faint).sum().item(), rel=1e-3)
    assert grown > 0


@pytest.mark.parametrize("filterbank", ["drnl", "gammatone"])
def test_gradients_are_right(filterbank):
    loss = ResponseLoss(AuditoryModel(filterbank).double(), squared_difference)
    generator = torch.Generator().manual_seed(1)
    sound = 0.02 * torch.randn(2, 96, generator=generator, dtype=torch.float64)
    target = loss.respond(sound, NORMAL.double())
    heard = (0.5 * sound).requires_grad_()
    listener = torch.rand(
        2, len(AUDIOGRAM_HZ), generator=generator, dtype=torch.float64
    ).requires_grad_()
    assert (loss(heard, listener, target) > 0.1).all()
    assert torch.autograd.gradcheck(
        lambda s, a: loss(s, a, target), (heard, listener), fast_mode=True
    )


# --- bad input ----------------------------------------------------------------------------------


def test_a_filterbank_or_rate_that_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match="'drnl', 'gammatone'"):
        AuditoryModel("cochlea")
    with pytest.raises(ValueError, match="16000 Hz cannot carry; resample to 16100"):
        AuditoryModel(sample_rate=16_000)


def test_listeners_and_sounds_that_do_not_fit_are_refused(model, noise):
    with pytest.raises(ValueError, match=r"\(B, 12\).*got \(1, 6\)"):
        model.respond(noise, torch.zeros(1, 6))
    with pytest.raises(ValueError, match="31 samples are no bin"):
        model.respond(noise[:, :31], NORMAL)
    three = model.hair_cell_loss(torch.zeros(3, 31))
    for sound in (noise, noise[0]):
        with pytest.raises(ValueError, match=r"\(B, T\).*and \(3, 31\)"):
            model.representation(sound, three)
