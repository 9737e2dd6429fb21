"""A running aid gives what it gives off line, after its latency, whatever happens to it."""

import pytest
import torch

from compensation.learned_filters import LearnedFilters, LearnedFiltersConfig
from compensation.masks import Masks, MasksConfig
from compensation.streaming import Stream
from icsim.sound import SAMPLE_RATE, calibrate

SMALL = {
    Masks: MasksConfig(listener=3, bands=9, width=6, layers=2, window=256, hop=16),
    LearnedFilters: LearnedFiltersConfig(
        listener=3, bands=9, width=8, halvings=2, window=256, hop=16
    ),
}
THETA = torch.tensor([0.1, 0.5, 0.9])


def noise(*shape: int, level_db_spl: float = 65.0) -> torch.Tensor:
    return calibrate(torch.randn(shape, generator=torch.Generator().manual_seed(0)), level_db_spl)


def tone(samples: int, level_db_spl: float) -> torch.Tensor:
    time = torch.arange(samples) / SAMPLE_RATE
    return calibrate(torch.sin(2 * torch.pi * 1500 * time), level_db_spl)


@pytest.fixture(params=SMALL, ids=lambda aid: aid.__name__)
def aid(request):
    """A network drawn at random, whose gains depend much on the sound and on the listener."""
    torch.manual_seed(0)
    aid = request.param(SMALL[request.param]).eval()
    with torch.no_grad():
        aid.leave.weight.mul_(100)
    return aid


def run(stream: Stream, sound: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """The whole output, its delay taken out."""
    parts = sound.split(lengths, -1)
    out = [stream(part) for part in parts]
    assert all(o.shape == part.shape for o, part in zip(out, parts, strict=True))
    return torch.cat([*out, stream.flush()], -1)[..., stream.latency_samples :]


@torch.no_grad()
def off_line(aid, sound: torch.Tensor, listener: torch.Tensor, *exponents: float) -> torch.Tensor:
    return aid.process(sound[None], listener[None], *exponents)[0]


def lengths(block: int | str, samples: int) -> list[int]:
    if isinstance(block, int):
        return [block] * (samples // block) + [samples % block]
    draw = torch.Generator().manual_seed(0)
    found = torch.randint(0, 300, (samples,), generator=draw)
    found = found[found.cumsum(0) < samples].tolist()
    return [*found, samples - sum(found)]


@pytest.mark.parametrize("block", [1, 32, 64, 500, 1501, "random"])
def test_blocks_of_any_length_give_what_off_line_processing_gives(aid, block):
    sound = noise(1501)
    expected = off_line(aid, sound, THETA)
    assert (expected - sound).abs().max() > 0.1 * sound.abs().max()
    out = run(Stream(aid, THETA), sound, lengths(block, 1501))
    assert (out - expected).abs().max() < 1e-5 * expected.abs().max()


def test_several_listeners_each_hear_their_own(aid):
    listeners, sounds = torch.stack([THETA, 1 - THETA]), noise(2, 2000)
    out = run(Stream(aid, listeners), sounds, lengths(500, 2000))
    for one, sound, listener in zip(out, sounds, listeners, strict=True):
        expected = off_line(aid, sound, listener)
        assert (one - expected).abs().max() < 1e-5 * expected.abs().max()


def test_layers_compiled_and_not_give_the_same():
    torch.manual_seed(0)
    aid = Masks(SMALL[Masks]).eval()
    sound, state = noise(2, 16 * 20), []
    for compiled in (True, False):
        with torch.set_grad_enabled(not compiled):  # compiled layers have no gradients
            begun = aid.begin(torch.stack([THETA, 1 - THETA]))
        assert bool(begun["network"]["weights"]) == bool(compiled)
        with torch.no_grad():
            for block in sound.split(16, -1):
                _, begun = aid.step(block, begun)
            state.append(begun)
    for one, other in (
        (state[0]["factors"], state[1]["factors"]),
        (state[0]["network"]["averages"], state[1]["network"]["averages"]),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_scales_compiled_and_not_give_the_same():
    torch.manual_seed(0)
    aid, listeners = LearnedFilters(SMALL[LearnedFilters]).eval(), torch.stack([THETA, 1 - THETA])
    plain = aid.begin(listeners)  # with gradients, which compiled scales have not
    with torch.no_grad():
        compiled = aid.begin(listeners)
        assert "frames" in compiled["network"]
        assert "frames" not in plain["network"]
        for block in noise(2, 16 * 40).split([16, 16, 48, 16 * 35], -1):
            _, plain = aid.step(block, plain)
            _, compiled = aid.step(block, compiled)
    torch.testing.assert_close(compiled["factors"], plain["factors"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("block", [7, 32, 1000])
def test_a_click_comes_out_after_the_latency(aid, block):
    click = torch.zeros(1000)
    click[123] = 0.1
    stream = Stream(aid, THETA, 0, 0)
    out = torch.cat([stream(part) for part in click.split(block)])
    assert out.abs().argmax() == 123 + aid.latency_samples
    assert out.abs().max().item() == pytest.approx(0.1, rel=1e-5)
    assert (out.abs() > 1e-6).sum() == 1


@pytest.mark.parametrize(
    "published", [(Masks, MasksConfig), (LearnedFilters, LearnedFiltersConfig)]
)
def test_the_delay_is_at_most_eight_milliseconds(published):
    aid = published[0](published[1]()).eval()
    click = torch.zeros(400)
    click[0] = 0.1
    out = Stream(aid, torch.full((6,), 0.5))(click)
    assert out.abs().argmax() / SAMPLE_RATE <= 0.008
    assert out.abs().argmax() == aid.latency_samples


def test_exponents_are_turned_while_running(aid):
    # Soft, so that the stream's limiter has nothing to do.
    sound, stream, late = 0.1 * noise(6000), Stream(aid, THETA), aid.latency_samples
    first = stream(sound[:2000])
    stream.turn(0.0, 0.0)
    second = stream(sound[2000:4000])
    stream.turn(0.5, 1.5)
    out = torch.cat([first, second, stream(sound[4000:])])[late:]
    settled = 8 * aid.block_samples
    expected = off_line(aid, sound, THETA)[:-late]
    assert (out - expected)[: 2000 - late].abs().max() < 1e-5 * expected.abs().max()
    assert (out - sound[:-late])[2000 + settled : 4000 - late].abs().max() < 2e-6
    expected = off_line(aid, sound, THETA, 0.5, 1.5)[:-late]
    assert (out - expected)[4000 + settled :].abs().max() < 1e-5 * expected.abs().max()
    jumps = out.diff().abs()
    assert jumps.max() < 1.5 * torch.maximum(expected.diff().abs().max(), sound.diff().abs().max())


def test_starting_and_stopping_a_loud_tone_gives_no_burst(aid):
    with torch.no_grad():
        aid.leave.weight.div_(100)
    quiet = torch.zeros(2000)
    sound = torch.cat([quiet, tone(6000, 85.0), quiet])
    out = Stream(aid, THETA)(sound)
    late = aid.latency_samples
    assert out[2000 + late : 2600 + late].abs().max() < 1.2 * out[6000:7000].abs().max()
    assert out[7900 : 8000 + late].abs().max() < 1.2 * out[6000:7000].abs().max()
    assert out[:2000].abs().max() == 0
    assert out[8000 + late + 300 :].abs().max() == 0


def test_silence_stays_silent(aid):
    assert not Stream(aid, THETA)(torch.zeros(3000)).any()


@pytest.mark.parametrize("weight", [torch.nan, torch.inf, 1e6])
def test_nothing_that_a_network_does_passes_the_maximum(aid, weight):
    with torch.no_grad():
        for parameter in aid.parameters():
            parameter.normal_().mul_(weight)
    for level_db_spl in (40.0, 90.0, 130.0):
        stream = Stream(aid, THETA, noise_reduction=0, gain=2.0, maximum_db_spl=100.0)
        sound = noise(3000, level_db_spl=level_db_spl)
        out = torch.cat([stream(part) for part in sound.split(77)])
        assert out.isfinite().all()
        assert out.abs().max() <= 2.0


def test_the_highest_gain_reaches_the_maximum_and_no_more(aid):
    with torch.no_grad():
        aid.leave.bias.fill_(1e6)
    stream = Stream(aid, THETA, noise_reduction=0, gain=2.0, maximum_db_spl=100.0)
    out = torch.cat([stream(part) for part in noise(3000, level_db_spl=50.0).split(77)])
    assert 1.99 < out.abs().max() <= 2.0


def test_what_is_not_finite_is_heard_as_silence(aid):
    sound = noise(4000)
    broken = sound.clone()
    broken[1000:1003] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    sound[1000:1003] = 0
    stream, other = Stream(aid, THETA), Stream(aid, THETA)
    assert torch.equal(stream(broken), other(sound))


def test_a_sample_beyond_all_sounds_is_soon_forgotten(aid):
    sound = noise(8000)
    broken = sound.clone()
    broken[1000] = 1e30
    out, expected = Stream(aid, THETA)(broken), Stream(aid, THETA)(sound)
    assert out.isfinite().all()
    assert out.abs().max() <= 20e-6 * 10 ** (110 / 20)
    assert out[-200:].square().mean() > 0.01 * expected[-200:].square().mean()


def test_streams_of_one_aid_do_not_hear_each_other(aid):
    sound = noise(2000)
    alone = run(Stream(aid, THETA), sound, lengths(64, 2000))
    stream, other = Stream(aid, THETA), Stream(aid, 1 - THETA)
    parts = []
    for part in sound.split(64):
        other(part.flip(0))
        parts.append(stream(part))
    assert torch.equal(torch.cat([*parts, stream.flush()])[aid.latency_samples :], alone)


@pytest.mark.parametrize("settings", [{"noise_reduction": -0.1}, {"gain": 2.1}])
def test_exponents_beyond_their_limits_are_refused(aid, settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be 0 to 2, got"):
        Stream(aid, THETA, **settings)


@pytest.mark.parametrize(("sounds", "more"), [(1, 1), (2, 0), (1, -1)])
def test_a_step_takes_whole_blocks(aid, sounds, more):
    state, size = aid.begin(THETA[None]), aid.block_samples
    samples = 2 * size + more if more >= 0 else 0
    with pytest.raises(ValueError, match=rf"a block must be \(1, n · {size}\) here, got"):
        aid.step(torch.zeros(sounds, samples), state)


def test_listeners_and_sounds_that_do_not_fit_are_refused(aid):
    with pytest.raises(ValueError, match="within 0 and 1"):
        Stream(aid, THETA + 0.2)
    with pytest.raises(ValueError, match="within 0 and 1"):
        Stream(aid, THETA * torch.nan)
    with pytest.raises(ValueError, match="must be finite"):
        Stream(aid, THETA, maximum_db_spl=torch.inf)
    with pytest.raises(ValueError, match=r"must be \(2, 'T'\) as the listener is, got \(3, 100\)"):
        Stream(aid, THETA.expand(2, -1))(torch.zeros(3, 100))
