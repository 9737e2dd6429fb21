import numpy as np
import pytest
import torch

from compensation import prescriptions
from compensation.bands import Bands, ShortTime
from compensation.prescriptions import (
    compression_ratio,
    nal_r,
    nal_r_compressed,
    nal_r_gains_db,
)
from icsim.audiogram import Audiogram
from icsim.nal_r import NAL_R_HZ, nal_r_taps
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import SAMPLE_RATE, calibrate, level

SLOPING = Audiogram(NAL_R_HZ, (45, 45, 35, 45, 60, 65))
FLAT = Audiogram((1000,), (60,))
NONE = Audiogram((1000,), (0,))


@pytest.fixture
def noise():
    return 0.02 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


def test_the_filter_is_the_published_one():
    # From pyclarity's own tests: the sum of the magnitudes of the taps.
    assert prescriptions._taps(SLOPING, 44100).abs().sum().item() == pytest.approx(
        28.846583644263408
    )


def test_filters_are_those_of_the_reference_program():
    nalr = pytest.importorskip("clarity.enhancer.nalr", reason="pyclarity is not installed")
    audiograms = pytest.importorskip("clarity.utils.audiogram")
    draw = np.random.default_rng(0)
    for order, rate_hz in ((220, 44100), (122, SAMPLE_RATE), (140, 24000)):
        for _ in range(10):
            loss = draw.uniform(-10, 110, 6)
            wanted, _ = nalr.NALR(order, rate_hz).build(audiograms.Audiogram(loss, NAL_R_HZ))
            np.testing.assert_allclose(nal_r_taps(loss, order, rate_hz), wanted, atol=1e-12)


def test_without_a_loss_the_sound_is_unchanged(noise):
    assert torch.equal(nal_r(noise, NONE), noise)


@pytest.mark.parametrize("sample_rate", [16000, SAMPLE_RATE, 44100])
def test_the_output_is_aligned_with_the_input(noise, sample_rate):
    amplified = nal_r(noise, SLOPING, sample_rate)
    spectrum = torch.fft.rfft(amplified, 16000) * torch.fft.rfft(noise, 16000).conj()
    assert torch.fft.irfft(spectrum).argmax(-1).tolist() == [0, 0]
    assert amplified.shape == noise.shape


@pytest.mark.parametrize("frequency_hz", [250.0, 1000.0, 4000.0])
def test_a_tone_grows_by_the_gain_of_the_curve(frequency_hz):
    time = torch.arange(24414, dtype=torch.float64) / SAMPLE_RATE
    tone = torch.sin(2 * torch.pi * frequency_hz * time)[None]
    middle = slice(5000, 5000 + 15625)  # whole periods, far from both ends
    grown = nal_r(tone, SLOPING)[:, middle].square().mean() / tone[:, middle].square().mean()
    curve = nal_r_gains_db(SLOPING, [frequency_hz]).item()
    assert 10 * grown.log10().item() == pytest.approx(curve, abs=0.02)


def test_gains_follow_the_rule_of_byrne_and_dillon():
    # 0.05 × (45 + 35 + 45) + 0.31 × loss + (-17, -8, 1, -1, -2, -2) dB, smoothed by the filter.
    rule = torch.tensor([3.2, 12.2, 18.1, 19.2, 22.85, 24.4])
    gains = nal_r_gains_db(SLOPING, NAL_R_HZ)
    # The filter is too short to be as steep as the rule at 250 Hz.
    torch.testing.assert_close(gains[1:], rule[1:], atol=0.5, rtol=0)
    assert rule[0] < gains[0] < rule[1]


def test_gradient_reaches_the_sound(noise):
    noise.requires_grad_()
    nal_r(noise, SLOPING).sum().backward()
    assert noise.grad.abs().min() > 0


def test_a_rate_without_6_khz_and_a_sound_without_a_batch_are_refused(noise):
    with pytest.raises(ValueError, match="above 12000 Hz"):
        nal_r(noise, SLOPING, 8000)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        nal_r(noise[0], SLOPING)


# --- with compression ---------------------------------------------------------------------------


def speech_shaped(level_db_spl: float, seed: int = 1) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    return calibrate(speech_shaped_noise(60_000, draw), level_db_spl).unsqueeze(0)


def tone(frequency_hz: float, level_db_spl: float, samples: int = 16_000) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
    sound = torch.sin(2 * torch.pi * frequency_hz * time).float()
    return calibrate(sound, level_db_spl).unsqueeze(0)


def band_levels(sound: torch.Tensor) -> torch.Tensor:
    """Mean level in each of 24 bands [dB SPL], `(24,)`."""
    short_time = ShortTime(512, 96)
    levels = Bands(24, short_time).levels(short_time.spectra(sound), floor_db_spl=-40.0)
    return 10 * torch.log10((10 ** (levels[0] / 10)).mean(-1))


@pytest.mark.parametrize(
    ("threshold", "soft_db", "loud_db"),
    # Gains at 40 and 95 dB SPL, by hand from the formulas of FIG6.
    [(10, 0, 0), (20, 0, 0), (30, 10, 0), (40, 20, 0), (60, 40, 6.629), (80, 50, 17.493)],
)
def test_the_ratio_is_that_of_fig6_between_40_and_95_db_spl(threshold, soft_db, loud_db):
    expected = (95 - 40) / (95 + loud_db - 40 - soft_db)
    ratio = compression_ratio(torch.tensor([float(threshold)]))
    assert ratio.item() == pytest.approx(expected, abs=1e-3)


def test_the_ratio_stays_between_1_and_3_for_all_thresholds():
    ratio = compression_ratio(torch.arange(-20.0, 131.0))
    assert ratio.min().item() == pytest.approx(1)
    assert 2.5 < ratio.max() < 3
    assert (ratio[:80].diff() > -1e-6).all()  # up to 60 dB HL


def test_speech_shaped_noise_at_65_db_spl_gets_the_gain_of_nal_r():
    sound = speech_shaped(65.0)
    compressed = band_levels(nal_r_compressed(sound, SLOPING))
    linear = band_levels(nal_r(sound, SLOPING))
    assert (linear - band_levels(sound)).max() > 20
    torch.testing.assert_close(compressed, linear, atol=1.0, rtol=0)


def test_soft_sounds_get_more_gain_and_loud_ones_less():
    gains = [
        band_levels(nal_r_compressed(speech_shaped(spl), SLOPING)) - band_levels(speech_shaped(spl))
        for spl in (50.0, 65.0, 80.0)
    ]
    middle = slice(4, -1)  # where the gain is not at its lower bound
    assert (gains[0] - gains[1])[middle].min() > 3
    assert (gains[1] - gains[2])[middle].min() > 3


@pytest.mark.parametrize("frequency_hz", [700.0, 1500.0, 4000.0])
def test_output_grows_by_one_over_the_ratio(frequency_hz):
    ratio = compression_ratio(torch.tensor(60.0)).item()
    levels = [55.0, 65.0, 75.0]
    outputs = [
        level(nal_r_compressed(tone(frequency_hz, spl), FLAT)[0, 8000:15_000]) for spl in levels
    ]
    for growth in torch.stack(outputs).diff().tolist():
        assert growth / 10 == pytest.approx(1 / ratio, abs=0.02)


def test_below_the_knee_and_far_above_the_average_gains_are_constant():
    soft = [level(nal_r_compressed(tone(4000.0, spl), FLAT)[0, 8000:15_000]) for spl in (5.0, 15.0)]
    assert (soft[1] - soft[0]).item() == pytest.approx(10, abs=0.3)
    loud = tone(250.0, 110.0)
    heard = nal_r_compressed(loud, FLAT)[0, 8000:15_000]
    assert level(heard).item() == pytest.approx(110, abs=0.3)


def test_gains_fall_fast_and_recover_slowly():
    loud, soft = tone(2000.0, 85.0, 12_000), tone(2000.0, 45.0, 12_000)
    heard = nal_r_compressed(torch.cat([soft, loud, soft], 1), FLAT)[0].unfold(0, 96, 96)
    gain_db = level(heard) - level(torch.cat([soft, loud, soft], 1)[0].unfold(0, 96, 96))
    soft_db, loud_db = gain_db[110], gain_db[240]
    assert soft_db - loud_db > 15
    hop_s = 96 / SAMPLE_RATE
    falling = (gain_db[125:] < (soft_db + loud_db) / 2).nonzero()[0].item() * hop_s
    rising = (gain_db[252:] > (soft_db + loud_db) / 2).nonzero()[0].item() * hop_s
    assert falling < 0.015
    assert 0.05 < rising < 0.12


def test_without_a_loss_compression_changes_nothing(noise):
    torch.testing.assert_close(nal_r_compressed(noise, NONE), noise, rtol=0, atol=1e-7)
    assert torch.equal(nal_r_compressed(torch.zeros(1, 1000), SLOPING), torch.zeros(1, 1000))


def test_the_compressor_hears_no_more_future_than_its_delay(noise):
    noise = noise.double()
    compressed = nal_r_compressed(noise, SLOPING)
    for at in (3000, 3050):
        other = noise.clone()
        other[:, at:] *= -3
        changed = (nal_r_compressed(other, SLOPING) - compressed).abs().amax(0)
        assert changed[: at - 2 * 96 + 1].max() < 1e-14
        assert changed[at : at + 100].max() > 1e-4


def test_each_sound_is_compressed_by_itself(noise):
    both = torch.cat([noise[:1], 10 * noise[1:]])
    alone = nal_r_compressed(both[:1], SLOPING)
    torch.testing.assert_close(nal_r_compressed(both, SLOPING)[:1], alone)


def test_gradient_passes_the_compressor(noise):
    noise.requires_grad_()
    nal_r_compressed(noise, SLOPING).square().sum().backward()
    assert noise.grad.isfinite().all()
    assert noise.grad.norm() > 0


def test_the_compressor_refuses_other_rates_and_shapes(noise):
    with pytest.raises(ValueError, match="got 16000; resample"):
        nal_r_compressed(noise, SLOPING, 16000)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        nal_r_compressed(noise[0], SLOPING)
