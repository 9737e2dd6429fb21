"""Spectra that give the sound back, bands that add up, gains that are bounded and causal."""

import pytest
import torch

from compensation.bands import Bands, ShortTime
from compensation.gains import Gains
from compensation.masks import Masks, MasksConfig
from evaluation.artefacts import artefacts
from icsim.sound import SAMPLE_RATE, calibrate, level

CONFIG = MasksConfig(listener=3, bands=9, width=6, layers=2, window=256, hop=24)


def noise(*shape: int, level_db_spl: float = 65.0) -> torch.Tensor:
    return calibrate(torch.randn(shape, generator=torch.Generator().manual_seed(0)), level_db_spl)


def tone(hz: float, level_db_spl: float, samples: int = 8192) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
    return calibrate(torch.sin(2 * torch.pi * hz * time).float()[None], level_db_spl)


@pytest.fixture
def masks() -> Masks:
    """A network drawn at random, whose gains depend much on the sound and on the listener."""
    torch.manual_seed(0)
    masks = Masks(CONFIG)
    with torch.no_grad():
        masks.leave.weight.mul_(200)
    return masks


@pytest.fixture
def listener() -> torch.Tensor:
    return torch.tensor([[0.1, 0.5, 0.9], [0.8, 0.2, 0.4]])


def test_whatever_the_weights_a_steady_tone_gets_a_steady_gain():
    for seed in range(3):
        torch.manual_seed(seed)
        masks = Masks(CONFIG)
        with torch.no_grad():
            for name, weights in masks.named_parameters():
                if "layers" in name and weights.ndim == 2:
                    weights.mul_(6)
            masks.leave.weight.mul_(200)
            gains = masks(tone(997.0, 80.0, 60_000), torch.rand(1, 3))
        for gain_db in (gains.noise_db, gains.loss_db):
            change_db = gain_db.diff(dim=-1).abs()
            assert change_db[..., :50].max() > 1
            assert change_db[..., -220:-20].max() < 0.1


# --- spectra ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "hop"), [(512, 96), (128, 24), (64, 32), (100, 33), (129, 40)])
@pytest.mark.parametrize("samples", [1, 95, 96, 97, 1000, 2303])
def test_unchanged_spectra_give_the_sound_back(window, hop, samples):
    short_time = ShortTime(window, hop)
    sound = torch.randn(2, samples)
    spectra = short_time.spectra(sound)
    assert spectra.shape[1] == window // 2 + 1
    again = short_time.sound(spectra, samples)
    torch.testing.assert_close(again, sound, rtol=0, atol=1e-6 * sound.abs().max().item() * 4)


def test_a_frame_ends_with_its_own_last_sample():
    short_time, sound = ShortTime(128, 24), noise(1, 600)
    spectra = short_time.spectra(sound)
    for frame in (0, 3, 20):
        other = sound.clone()
        other[:, 24 * (frame + 1) :] += 1
        changed = (short_time.spectra(other) - spectra).abs().amax(1)[0]
        assert not changed[: frame + 1].any()
        assert changed[frame + 1] > 0


def test_the_future_is_not_heard_before_the_latency():
    short_time, sound, gains = ShortTime(128, 24), noise(1, 600), torch.rand(65, 1)
    processed = short_time.sound(short_time.spectra(sound) * gains, 600)
    earliest = 0
    for at in range(100, 200):
        other = sound.clone()
        other[0, at] += 1
        changed = short_time.sound(short_time.spectra(other) * gains, 600) != processed
        earliest = max(earliest, at - changed[0].nonzero().min().item())
    # The synthesis window begins with a zero, so that its first sample hears nothing.
    assert earliest == short_time.latency_samples - 2


def test_a_window_that_covers_no_two_hops_is_refused():
    with pytest.raises(ValueError, match="must cover two hops, got 100 and 51"):
        ShortTime(100, 51)


# --- bands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bands() -> tuple[Bands, ShortTime]:
    short_time = ShortTime(512, 96)
    return Bands(33, short_time), short_time


def test_bands_add_up_to_one_at_every_frequency(bands):
    shape = bands[0].shape
    assert shape.shape == (33, 257)
    assert (shape >= 0).all()
    torch.testing.assert_close(shape.sum(0), torch.ones(257))


def test_bands_are_equally_wide_in_erbs(bands):
    centres = bands[0].centres_hz
    assert centres[[0, -1]].tolist() == pytest.approx([100, 11_000], rel=1e-4)
    erbs = 24.7 * (0.00437 * centres + 1)
    steps = centres.diff() / ((erbs[1:] + erbs[:-1]) / 2)
    assert steps.std() / steps.mean() < 0.01


def test_flat_gains_are_flat_at_every_frequency(bands):
    spread = bands[0].spread(torch.full((1, 33, 2), -7.0))
    torch.testing.assert_close(spread, torch.full((1, 257, 2), -7.0))


@pytest.mark.parametrize("hz", [250.0, 1000.0, 3333.0, 9000.0])
@pytest.mark.parametrize("level_db_spl", [30.0, 65.0, 100.0])
def test_the_level_of_a_tone_is_right(bands, hz, level_db_spl):
    bands, short_time = bands
    levels = bands.levels(short_time.spectra(tone(hz, level_db_spl)), floor_db_spl=-40.0)
    total = 10 * torch.log10((10 ** (levels / 10)).sum(1))
    assert (total[0, 10:-10] - level_db_spl).abs().max() < 0.5
    loudest = bands.centres_hz[levels[0, :, 40].argmax()]
    spacing_hz = bands.centres_hz.diff().clamp(min=SAMPLE_RATE / 512)
    assert (loudest - hz).abs() <= spacing_hz[bands.centres_hz[:-1] <= hz].max()


def test_the_level_of_noise_is_right(bands):
    bands, short_time = bands
    sound = noise(1, 60_000)
    levels = bands.levels(short_time.spectra(sound))[..., 10:-10]
    mean = 10 * torch.log10((10 ** (levels / 10)).sum(1).mean())
    assert mean.item() == pytest.approx(65, abs=0.5)


def test_the_level_of_silence_is_the_floor(bands):
    bands, short_time = bands
    silence = short_time.spectra(torch.zeros(1, 1000))
    torch.testing.assert_close(bands.levels(silence), torch.zeros(1, 33, silence.shape[-1]))
    assert (bands.levels(silence, floor_db_spl=12.0) - 12).abs().max() < 1e-4


# --- masks --------------------------------------------------------------------------------------


def test_a_sound_becomes_two_masks_and_a_sound(masks, listener):
    sound = noise(2, 1000)
    gains = masks(sound, listener)
    assert gains.noise_db.shape == gains.loss_db.shape == (2, 9, (-(-1000 // 24) + 3) // 2)
    assert masks.process(sound, listener).shape == sound.shape
    assert torch.equal(masks.process(sound, listener), masks.render(sound, gains))


def test_silence_stays_silent(masks, listener):
    assert not masks.process(torch.zeros(2, 1000), listener).any()


def test_both_masks_turned_off_give_the_sound_back(masks, listener):
    sound = noise(2, 1001)
    again = masks.process(sound, listener, noise_reduction=0.0, gain=0.0)
    assert (masks.process(sound, listener) - sound).abs().max() > 1e-3
    assert (again - sound).abs().max() < 1e-6 * sound.abs().max()


def test_exponents_are_factors_of_the_gains_in_db(masks):
    sound, flat = noise(1, 3000), torch.ones(1, 9, 3000 // 48 + 2)
    gains = Gains(-6 * flat, 20 * flat)
    for noise_reduction, gain, expected_db in [(1, 1, 14), (2, 1, 8), (0, 0.5, 10), (1, 0, -6)]:
        rendered = masks.render(sound, gains, noise_reduction, gain)[:, 48:]
        expected = sound[:, 48:] * 10 ** (expected_db / 20)
        torch.testing.assert_close(rendered, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level_db_spl", [-20.0, 65.0, 140.0])
def test_gains_are_bounded(masks, listener, level_db_spl):
    with torch.no_grad():
        masks.leave.weight.mul_(100)
    gains = masks(noise(2, 2000, level_db_spl=level_db_spl), listener)
    assert gains.noise_db.min() >= -25
    assert gains.noise_db.max() <= 0
    assert gains.loss_db.min() >= -15
    assert gains.loss_db.max() <= 45
    assert (gains.loss_db - 15).abs().max() > 29.9  # pressed against a bound


def test_a_new_network_does_almost_nothing(listener):
    torch.manual_seed(0)
    gains = Masks(CONFIG)(noise(2, 2000), listener)
    assert gains.loss_db.abs().max() < 3
    assert (gains.noise_db + 1).abs().max() < 1


def test_the_future_is_not_heard_before_the_masks_latency(masks, listener):
    masks, listener = masks.double(), listener.double()
    sound = noise(2, 1200).double()
    processed = masks.process(sound, listener)
    assert masks.latency_samples == 72
    for at in (300, 311, 599, 777):
        other = sound.clone()
        other[:, at:] *= -3
        changed = (masks.process(other, listener) - processed).abs().amax(0)
        assert changed[: at - masks.latency_samples + 1].max() < 1e-14
        assert changed[at : at + 100].max() > 1e-4


def test_the_published_delay_is_less_than_eight_milliseconds():
    assert Masks(MasksConfig(width=2, layers=1)).latency_samples / SAMPLE_RATE < 0.008


def test_a_sound_alone_is_what_it_is_among_others(masks, listener):
    sound = noise(2, 1000)
    together = masks.process(sound, listener)
    for i in range(2):
        alone = masks.process(sound[[i]], listener[[i]])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-6)


def test_listeners_get_gains_of_their_own(masks, listener):
    gains = masks(noise(1, 1000).expand(2, -1), listener)
    assert (gains.loss_db[0] - gains.loss_db[1]).abs().max() > 1
    assert (gains.noise_db[0] - gains.noise_db[1]).abs().max() > 1


@pytest.mark.parametrize("sound", [torch.zeros(2, 600), noise(2, 600)], ids=["silence", "noise"])
def test_gradients_are_finite_and_reach_everything(masks, listener, sound):
    sound, listener = sound.clone().requires_grad_(), listener.requires_grad_()
    gains = masks(sound, listener)
    heard = masks.render(sound, gains).square().sum()
    (heard + gains.loss_db.square().sum() + gains.noise_db.square().sum()).backward()
    assert sound.grad.isfinite().all()
    assert (listener.grad != 0).all()
    for name, parameter in masks.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or (name == "filters.shape" and not sound.any()), name


@pytest.mark.parametrize("shape", [(2, 4), (1, 3), (3,), (2, 1, 3)])
def test_listeners_of_other_shapes_are_refused(masks, shape):
    with pytest.raises(ValueError, match=r"listener must be \(2, 3\) for this network, got"):
        masks(noise(2, 600), torch.rand(shape))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"bands": 0}, "sizes must be positive"),
        ({"lowest_gain_db": 5.0}, "both ways"),
        ({"highest_gain_db": -1.0}, "both ways"),
        ({"deepest_cut_db": 0.0}, "noise to be cut"),
        ({"width": 7}, "width must be even, got 7"),
    ],
)
def test_impossible_configurations_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Masks(MasksConfig(**sizes))


def test_rendered_levels_follow_the_gains(masks):
    sound = tone(2000, 60.0)
    frames = -(-sound.shape[-1] // 48) + 2
    gains = Gains(torch.zeros(1, 9, frames), torch.full((1, 9, frames), 15.0))
    assert level(masks.render(sound, gains)[:, 480:]).item() == pytest.approx(75, abs=0.01)


@pytest.mark.parametrize("factor", [1, 30], ids=["untrained", "drawn with large gains"])
def test_tones_leave_as_tones(factor):
    torch.manual_seed(0)
    masks = Masks(MasksConfig(listener=3, bands=24, width=24, layers=2))
    with torch.no_grad():
        masks.leave.weight.mul_(factor)
    listener = torch.tensor([[0.1, 0.5, 0.9]])
    with torch.no_grad():
        found = artefacts(lambda sound: masks.process(sound, listener.expand(len(sound), -1)))
    assert found.silence_db == -torch.inf
    assert found.spur_db < (-80 if factor == 1 else -50)
    assert max(db for (hz, _), db in found.tones_db.items() if hz > 400) < -60
    assert max(found.chirps_db.values()) < -60
