"""Filters that add up, steady gains for steady sounds, bounds, causality, blocks as one."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from compensation.filters import Filters
from compensation.gains import Gains
from compensation.learned_filters import LearnedFilters, LearnedFiltersConfig
from compensation.load import AidFacts, load_aid, save_aid
from evaluation.artefacts import artefacts
from icsim.sound import REFERENCE_PA, SAMPLE_RATE, calibrate, level

CONFIG = LearnedFiltersConfig(listener=3, bands=9, width=8, halvings=3, taps=3, window=256, hop=24)


def noise(*shape: int, level_db_spl: float = 65.0) -> torch.Tensor:
    return calibrate(torch.randn(shape, generator=torch.Generator().manual_seed(0)), level_db_spl)


def tone(hz: float, level_db_spl: float, samples: int = 8192) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
    return calibrate(torch.sin(2 * torch.pi * hz * time).float()[None], level_db_spl)


def drawn(config: LearnedFiltersConfig, factor: float) -> LearnedFilters:
    """A network drawn at random, whose gains depend much on the sound and on the listener."""
    torch.manual_seed(0)
    aid = LearnedFilters(config)
    with torch.no_grad():
        aid.leave.weight.mul_(factor)
        aid.filters.shape.add_(torch.randn_like(aid.filters.shape))
    return aid


@pytest.fixture
def aid() -> LearnedFilters:
    return drawn(CONFIG, 100)


@pytest.fixture
def listener() -> torch.Tensor:
    return torch.tensor([[0.1, 0.5, 0.9], [0.8, 0.2, 0.4]])


# --- filters ------------------------------------------------------------------------------------


def test_bands_are_positive_and_add_up_to_one_whatever_was_learned(aid):
    for shape in aid.filters.shapes():
        assert shape.min() > -1e-6
        torch.testing.assert_close(shape.sum(0), torch.ones(shape.shape[1]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("samples", [1, 23, 24, 25, 1000])
def test_gains_of_one_give_the_sound_back(aid, samples, listener):
    sound = noise(2, samples)
    again = aid.process(sound, listener, noise_reduction=0.0, gain=0.0)
    assert (again - sound).abs().max() < 2e-6 * sound.abs().max()


def test_filters_reach_two_hops_and_are_symmetric(aid):
    click, flat = torch.zeros(1, 24 * 11), torch.ones(1, 9, 13)
    click[0, 24 * 5 + 7] = 1.0
    gains = Gains(0 * flat, torch.linspace(-15, 45, 9).view(1, 9, 1) * flat)
    around = aid.render(click, gains)[0, 24 * 5 + 7 - 60 : 24 * 5 + 7 + 61]
    torch.testing.assert_close(around, around.flip(0), rtol=0, atol=1e-5 * around.max().item())
    assert around[:12].abs().max() < 1e-5 * around.max()
    assert around[16:60].abs().max() > 1e-2 * around.max()


@pytest.mark.parametrize("hz", [250.0, 1000.0, 3333.0, 9000.0])
@pytest.mark.parametrize("level_db_spl", [30.0, 65.0, 100.0])
def test_the_level_of_a_tone_is_heard(hz, level_db_spl):
    filters = Filters(48, 1024, 64)
    levels = filters.levels(tone(hz, level_db_spl), filters.shapes()[0])
    total_db = 10 * torch.log10(torch.expm1(levels.double()).sum(-1))
    assert (total_db - level_db_spl).abs().max() < 0.1


# --- the aid ------------------------------------------------------------------------------------


def test_a_sound_becomes_gains_and_a_sound(aid, listener):
    sound = noise(2, 1000)
    gains = aid(sound, listener)
    assert gains.noise_db.shape == gains.loss_db.shape == (2, 9, -(-1000 // 24) + 2)
    assert gains.loss_db.diff(dim=2).abs().max() > 1
    assert aid.process(sound, listener).shape == sound.shape
    assert torch.equal(aid.process(sound, listener), aid.render(sound, gains))


def test_silence_stays_silent(aid, listener):
    assert not aid.process(torch.zeros(2, 1000), listener).any()


def test_exponents_are_factors_of_the_gains_in_db(aid):
    sound, flat = noise(1, 3000), torch.ones(1, 9, 3000 // 24 + 2)
    gains = Gains(-6 * flat, 20 * flat)
    for noise_reduction, gain, expected_db in [(1, 1, 14), (2, 1, 8), (0, 0.5, 10), (1, 0, -6)]:
        rendered = aid.render(sound, gains, noise_reduction, gain)[:, 48:]
        expected = sound[:, 48:] * 10 ** (expected_db / 20)
        torch.testing.assert_close(rendered, expected, rtol=1e-4, atol=1e-6)


def test_noise_is_reduced_as_much_with_gain_as_without(aid):
    sound, flat = noise(1, 3000), torch.ones(1, 9, 3000 // 24 + 2)
    amplified = aid.render(sound, Gains(-20 * flat, 30 * flat), noise_reduction=0)
    both = aid.render(sound, Gains(-20 * flat, 30 * flat))
    assert (level(amplified[:, 48:]) - level(both[:, 48:])).item() == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("level_db_spl", [30.0, 100.0])
def test_the_same_gains_act_alike_at_every_level(aid, listener, level_db_spl):
    sound = noise(2, 2000, level_db_spl=65.0)
    gains = aid(sound, listener)
    factor = 10 ** ((level_db_spl - 65) / 20)
    expected = factor * aid.render(sound, gains)
    error = aid.render(factor * sound, gains) - expected
    assert error.abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize("level_db_spl", [-20.0, 65.0, 140.0])
def test_nothing_becomes_louder_than_its_surroundings_by_more_than_the_bound(
    aid, listener, level_db_spl
):
    with torch.no_grad():
        aid.leave.weight.mul_(100)
    pauses = (torch.arange(6000) // 600 % 2).float()
    sound = noise(2, 6000, level_db_spl=level_db_spl) * pauses
    gains = aid(sound, listener)
    assert gains.noise_db.min() >= -25
    assert gains.noise_db.max() <= 0
    assert gains.loss_db.min() >= -15
    assert gains.loss_db.max() <= 45
    assert (gains.loss_db - 15).abs().max() > 29.9  # pressed against a bound
    heard = aid.render(sound, gains).unfold(-1, 24, 24).square().mean(-1)
    around = torch.nn.functional.pad(sound, (48, 48)).unfold(-1, 24 * 5, 24).square().mean(-1)
    assert (heard <= 10**4.5 * around * 5).all()
    assert not heard[around == 0].any()


def test_a_new_network_does_almost_nothing(listener):
    torch.manual_seed(0)
    aid = LearnedFilters(LearnedFiltersConfig(listener=3))
    sound = noise(2, 8000)
    gains = aid(sound, listener)
    assert gains.loss_db.abs().max() < 5
    assert (gains.noise_db + 1).abs().max() < 1
    correction = aid.render(sound, gains) - sound
    assert (level(correction) < level(sound) - 10).all()


def test_the_future_is_not_heard_before_the_latency(aid, listener):
    aid, listener = aid.double(), listener.double()
    sound = noise(2, 1200).double()
    processed = aid.process(sound, listener)
    assert aid.latency_samples == 72
    earliest = 0
    for at in range(300, 348):
        other = sound.clone()
        other[:, at] += 1
        changed = (aid.process(other, listener) - processed).abs().amax(0)
        earliest = max(earliest, at - (changed > 1e-14).nonzero().min().item())
        assert changed[at : at + 100].max() > 1e-4
    # The first sample of a hop waits for its last one and two hops more.
    assert earliest == aid.latency_samples - 1


def test_the_delay_is_less_than_eight_milliseconds():
    assert LearnedFilters(LearnedFiltersConfig()).latency_samples / SAMPLE_RATE < 0.008


@pytest.mark.parametrize("hops", [1, 3, 7])
def test_blocks_give_what_the_whole_gives(aid, listener, hops):
    sound = noise(2, 24 * 42)
    expected = aid.process(sound[:, :-48], listener)
    state, out = aid.begin(listener), []
    for block in sound.split(24 * hops, -1):
        heard, state = aid.step(block, state)
        assert heard.shape == block.shape
        out.append(heard)
    late = aid.latency_samples - aid.block_samples
    assert late == 48
    aligned = torch.cat(out, -1)[:, late:]
    # What lies beyond the end is silence there and sound here.
    same = slice(0, -2 * late)
    assert (aligned - expected)[:, same].abs().max() < 1e-5 * expected.abs().max()


def test_no_halving_is_a_network_of_one_rate(listener):
    aid = drawn(LearnedFiltersConfig(listener=3, bands=9, width=8, halvings=0, taps=1, hop=24), 100)
    sound, state = noise(2, 24 * 20), aid.begin(listener)
    out = []
    for block in sound.split(24, -1):
        heard, state = aid.step(block, state)
        out.append(heard)
    expected = aid.process(sound, listener)
    difference = (torch.cat(out, -1)[:, 48:] - expected[:, :-48])[:, :-48]
    assert difference.abs().max() < 1e-5 * expected.abs().max()


def test_turning_a_knob_fades(aid, listener):
    aid.double()
    sound, state = tone(500, 65.0, 24 * 80).double().expand(2, -1), aid.begin(listener.double())
    out = []
    for number, block in enumerate(sound.split(24, -1)):
        heard, state = aid.step(block, state, gain=0.0, noise_reduction=float(number > 40))
        out.append(heard)
    jumps = torch.cat(out, -1).diff(n=3).abs()
    # A click would stand out in the third difference.
    assert jumps[:, 24 * 38 : 24 * 46].max() < 2 * jumps[:, 24 * 20 : 24 * 38].max()


def test_a_sound_alone_is_what_it_is_among_others(aid, listener):
    sound = noise(2, 1000)
    together = aid.process(sound, listener)
    for i in range(2):
        alone = aid.process(sound[[i]], listener[[i]])[0]
        assert (together[i] - alone).abs().max() < 1e-4 * alone.abs().max()


def test_listeners_get_gains_of_their_own(aid, listener):
    gains = aid(noise(1, 1000).expand(2, -1), listener)
    assert (gains.loss_db[0] - gains.loss_db[1]).abs().max() > 1
    assert (gains.noise_db[0] - gains.noise_db[1]).abs().max() > 1


@pytest.mark.parametrize("sound", [torch.zeros(2, 1000), noise(2, 1000)], ids=["silence", "noise"])
def test_gradients_are_finite_and_reach_everything(listener, sound):
    aid = drawn(CONFIG, 1)
    sound, listener = sound.clone().requires_grad_(), listener.requires_grad_()
    gains = aid(sound, listener)
    heard = aid.render(sound, gains).square().sum()
    (heard + gains.loss_db.square().sum() + gains.noise_db.square().sum()).backward()
    assert sound.grad.isfinite().all()
    assert (listener.grad != 0).all()
    for name, parameter in aid.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or (name == "filters.shape" and not sound.any()), name


def test_it_learns_a_filter():
    torch.manual_seed(0)
    aid = LearnedFilters(CONFIG)
    optimiser = torch.optim.Adam(aid.parameters(), lr=0.03)
    sound, listener = noise(2, 1024), torch.full((2, 3), 0.5)
    steep = 3 * sound.diff(dim=-1, prepend=sound[:, :1])
    wanted = torch.fft.rfft(steep[:, 512:]).abs().log()
    errors = []
    for _ in range(40):
        heard = torch.fft.rfft(aid.process(sound, listener)[:, 512:]).abs().log()
        errors.append((heard - wanted).abs().mean())
        optimiser.zero_grad()
        errors[-1].backward()
        optimiser.step()
    assert errors[-1] < 0.4 * errors[0]


@pytest.mark.parametrize("factor", [1, 30], ids=["untrained", "drawn with large gains"])
def test_tones_leave_as_tones(factor, listener):
    aid = drawn(LearnedFiltersConfig(listener=3, bands=24, width=24), factor)
    found = artefacts(lambda sound: aid.process(sound, listener[:1].expand(len(sound), -1)))
    assert found.silence_db == -torch.inf
    assert found.spur_db < (-80 if factor == 1 else -50)
    assert max(db for (hz, _), db in found.tones_db.items() if hz > 400) < -60
    assert max(found.chirps_db.values()) < -60


def test_gains_that_follow_a_slow_sound_have_no_steps(listener):
    aid = drawn(LearnedFiltersConfig(listener=3), 5)
    carrier = tone(997, 65.0, 64 * 800)
    swell = 1 + 0.8 * torch.sin(2 * torch.pi * 3 * torch.arange(64 * 800) / SAMPLE_RATE)
    gains = aid(carrier * swell, listener[:1]).loss_db[0, :, 200:700]
    spectrum = torch.fft.rfft((gains - gains.mean(1, keepdim=True)) * torch.hann_window(500))
    power = spectrum.abs().square().sum(0)
    fast = torch.fft.rfftfreq(500, 64 / SAMPLE_RATE) > 15
    assert 10 * torch.log10(power[fast].sum() / power[~fast].sum()) < -35


@pytest.mark.parametrize("shape", [(2, 4), (1, 3), (3,), (2, 1, 3)])
def test_listeners_of_other_shapes_are_refused(aid, shape):
    with pytest.raises(ValueError, match=r"listener must be \(2, 3\) for this network, got"):
        aid(noise(2, 600), torch.rand(shape))


@pytest.mark.parametrize("shape", [(2, 23), (2, 0), (1, 24), (3, 24)])
def test_blocks_that_do_not_fit_are_refused(aid, listener, shape):
    with pytest.raises(ValueError, match=r"a block must be \(2, n · 24\) here, got"):
        aid.step(torch.zeros(shape), aid.begin(listener))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"bands": 0}, "sizes must be positive"),
        ({"halvings": -1}, "sizes must be positive"),
        ({"window": 300}, "window must be even and cover five hops of 64, got 300"),
        ({"window": 1023}, "window must be even and cover five hops of 64, got 1023"),
        ({"lowest_gain_db": 5.0}, "both ways"),
        ({"highest_gain_db": -1.0}, "both ways"),
        ({"deepest_cut_db": 0.0}, "noise to be cut"),
    ],
)
def test_impossible_configurations_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        LearnedFilters(LearnedFiltersConfig(**sizes))


def test_rendered_levels_follow_the_gains(aid):
    sound = tone(2000, 60.0)
    flat = torch.ones(1, 9, -(-sound.shape[-1] // 24) + 2)
    louder = aid.render(sound, Gains(0 * flat, 15 * flat))[:, 480:]
    assert level(louder).item() == pytest.approx(75, abs=0.01)
    assert louder.abs().max() > REFERENCE_PA


def test_checkpoints_of_its_former_name_load(tmp_path):
    facts = AidFacts("theta", "feed", True, healthy=((0.2, 0.4, 0.6),))
    save_aid(tmp_path / "aid", LearnedFilters(CONFIG), facts)
    content = load_file(tmp_path / "aid")
    with safe_open(tmp_path / "aid", "pt") as file:
        said = file.metadata()
    before = {key: value.replace("LearnedFilters", "Waveform") for key, value in said.items()}
    assert before != said
    save_file(content, tmp_path / "before", metadata=before)
    (again, _), (aid, _) = load_aid(tmp_path / "before"), load_aid(tmp_path / "aid")
    assert all(map(torch.equal, again.state_dict().values(), aid.state_dict().values()))
