"""Rooms, recorded noises, folders, workers; for excerpts see `test_compensation_objective`."""

import multiprocessing

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from compensation.data import (
    DIRECT_DB,
    GAP_S,
    T60_S,
    Mixtures,
    draw_room,
    excerpt,
    pause_depth_db,
    read_folder,
    require_clean,
    reverberate,
    room_response,
)
from icsim import store
from icsim.simulation import speech
from icsim.simulation.noises import NOISES, UNTRAINED_NOISES, noise
from icsim.simulation.sounds import SPLITS, talk
from icsim.sound import SAMPLE_RATE, SPONTANEOUS, Sound, calibrate, level, mix, write

SAMPLES = 2000


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sounds(count: int, samples: int = 6000, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, generator=generator) for _ in range(count)]


def mixtures(**settings) -> Mixtures:
    return Mixtures(sounds(3), sounds(1, 5000, 1), SAMPLES, 40, 4, **settings)


def items(mixtures: Mixtures) -> list[dict[str, torch.Tensor]]:
    return [mixtures[i] for i in range(len(mixtures))]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], two[key]) for key in ("clean", "noisy", "in_noise"))


# --- rooms --------------------------------------------------------------------------------------


def decay_s(response: torch.Tensor, low_hz: float, high_hz: float) -> float:
    """Time to fall by 60 dB, from the slope of what is left between −5 and −25 dB."""
    size = 2 * len(response)
    spectrum = torch.fft.rfft(response.double(), size)
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0
    energy = torch.fft.irfft(spectrum, size)[: len(response)].square()
    left = energy.flip(0).cumsum(0).flip(0)
    left_db = 10 * torch.log10(left / left[0])
    five, twenty_five = ((left_db < -fall).nonzero()[0].item() for fall in (5, 25))
    return 3 * (twenty_five - five) / SAMPLE_RATE


def test_a_room_decays_as_fast_as_asked_at_each_frequency():
    t60_s = (0.8, 0.8, 0.8, 0.5, 0.3, 0.3, 0.3)
    response = room_response(t60_s, -40.0, 0.0, random())
    assert decay_s(response, 150, 450) == pytest.approx(0.8, rel=0.15)
    assert decay_s(response, 3000, 8000) == pytest.approx(0.3, rel=0.1)


def test_direct_sound_gap_and_energies_are_those_asked_for():
    response = room_response([0.4] * 7, 6.0, 0.01, random())
    gap = round(0.01 * SAMPLE_RATE)
    assert response[0] == 1
    assert not response[1:gap].any()
    assert response[gap : gap + 10].all()
    reverberant_db = 10 * torch.log10(response[1:].square().sum())
    assert reverberant_db.item() == pytest.approx(-6.0, abs=1e-3)


def test_rooms_are_drawn_from_their_ranges():
    gaps, direct_db, lengths = [], [], []
    for seed in range(30):
        response = draw_room(random(seed))
        tail = response[1:]
        gaps.append((tail.nonzero()[0].item() + 1) / SAMPLE_RATE)
        direct_db.append(-10 * torch.log10(tail.square().sum()).item())
        lengths.append(len(response) / SAMPLE_RATE - gaps[-1])
    for values, (low, high), slack in [
        (gaps, GAP_S, 1e-4),
        (direct_db, DIRECT_DB, 1e-3),
        (lengths, T60_S, 0.01),
    ]:
        assert low - slack <= min(values)
        assert max(values) <= high + slack
        assert max(values) - min(values) > 0.6 * (high - low)


def test_a_room_of_direct_sound_alone_changes_nothing():
    sound = sounds(1)[0]
    torch.testing.assert_close(reverberate(sound, torch.ones(1)), sound)


def test_a_sound_in_a_room_depends_on_what_came_before_and_not_after():
    sound, response = sounds(1)[0], draw_room(random())
    heard = reverberate(sound, response)
    later, earlier = sound.clone(), sound.clone()
    later[3000:] = 0
    earlier[:1000] = 0
    assert (reverberate(later, response) - heard)[:3000].abs().max() < 1e-5
    assert (reverberate(earlier, response) - heard)[3000:].abs().max() > 0.01


def test_an_excerpt_comes_with_what_was_before_it():
    sound = torch.arange(1.0, 6001.0)
    for seed in range(20):
        alone = excerpt([sound], SAMPLES, random(seed))
        led = excerpt([sound], SAMPLES, random(seed), before=1000)
        assert torch.equal(led[-SAMPLES:], alone)
        assert len(led) - SAMPLES == min(1000, alone[0].item() - 1)


def test_the_share_of_rooms_changes_no_other_item():
    dry, some, all_wet = (items(mixtures(reverberant=share)) for share in (0.0, 0.3, 1.0))
    kept = [same(*pair) for pair in zip(dry, some, strict=True)]
    wet = [same(*pair) for pair in zip(some, all_wet, strict=True)]
    assert all(k or w for k, w in zip(kept, wet, strict=True))
    assert 0.5 < sum(kept) / 40 < 0.9
    assert not any(same(*pair) for pair in zip(dry, all_wet, strict=True))


def test_noise_is_added_after_the_room():
    dry, wet = (items(mixtures(reverberant=share, quiet=0.0)) for share in (0.0, 1.0))
    for one, other in zip(dry, wet, strict=True):
        assert level(one["clean"]).item() == pytest.approx(level(other["clean"]).item(), abs=1e-3)
        # The noise is the same in the room and without it, up to rounding.
        noise, again = one["noisy"] - one["clean"], other["noisy"] - other["clean"]
        torch.testing.assert_close(again, noise, rtol=0, atol=1e-3 * noise.abs().max().item())


# --- sounds -------------------------------------------------------------------------------------


def test_noises_that_are_kept_for_judgements_are_never_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "compensation.data.noise", lambda kind, *rest: drawn.append(kind) or noise(kind, *rest)
    )
    items(mixtures(quiet=0.0))
    assert set(drawn) == set(NOISES)
    assert not set(drawn) & set(UNTRAINED_NOISES)


def test_recorded_noises_make_half_of_the_noise():
    tone = torch.sin(torch.arange(5000) / 9.0)
    noisy = items(mixtures(noises=[tone], quiet=0.0))
    maskers = [item["noisy"] - item["clean"] for item in noisy]
    recorded = [m.diff().norm() < 0.2 * m.norm() for m in maskers]
    assert 0.25 < sum(recorded) / 40 < 0.75


def test_a_sound_that_is_almost_silent_is_cut_where_it_is_not():
    sound = torch.zeros(500_000)
    sound[499_990] = 1.0
    assert excerpt([sound], SAMPLES, random()).any()


def test_what_is_left_out_is_counted():
    short = sounds(4, SAMPLES - 1)
    mixed = Mixtures([*sounds(2), *short], short[:1], SAMPLES, 5, 0, noises=short[:3])
    assert (len(mixed.speech), mixed.left_out) == (2, 8)
    with pytest.raises(ValueError, match="has 2000 samples, and 5 of all 6 sounds are shorter"):
        Mixtures(short, sounds(1), SAMPLES, 5, 0, noises=short[:1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quiet": 1.5}, "quiet is a share .* got 1.5"),
        ({"reverberant": -0.1}, "reverberant is a share"),
        ({"snr_db": (20.0, -5.0)}, "snr_db must be a range"),
        ({"level_db_spl": (45.0, float("inf"))}, "level_db_spl must be a range"),
        ({"noises": [torch.zeros(SAMPLES)]}, "noises, sound 0: every sample is zero"),
        ({"noises": [torch.full((SAMPLES,), torch.nan)]}, "noises, sound 0: 2000 samples are NaN"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        mixtures(**settings)


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_is_read_by_kind(tmp_path):
    for name in ("speech/a", "speech/b", "noise/fan", "music/waltz", "birds/robin"):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        write(path, 0.1 * torch.randn(4000), 16000)
    found = read_folder(tmp_path)
    assert {name: len(group) for name, group in found.items()} == {
        "speech": 2,
        "others": 2,
        "noises": 1,
    }
    assert found["speech"][0].shape == (round(4000 * SAMPLE_RATE / 16000),)
    mixed = Mixtures(**found, samples=SAMPLES, count=3, seed=0)
    assert mixed[2]["noisy"].shape == (SAMPLES,)


def test_a_folder_without_speech_is_refused(tmp_path):
    (tmp_path / "music").mkdir()
    write(tmp_path / "music" / "a.wav", torch.ones(4000), 16000)
    with pytest.raises(ValueError, match=r"no speech, only music; put speech into .*speech"):
        read_folder(tmp_path)


# --- what is called speech ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talkers() -> dict[str, torch.Tensor]:
    """Clean synthetic speech of 12 voices, 3 s each."""
    draw = random(3)
    texts = {
        language: speech.sentences(language, draw, 0, len(SPLITS))
        for language in sorted(set(speech.LANGUAGES.values()))
    }
    voices = (speech.LOW_SPEAKERS + speech.HIGH_SPEAKERS)[:12]
    spoken = {v: talk(f"en-us+{v}", round(3 * SAMPLE_RATE), texts, draw) for v in voices}
    return {name: calibrate(sound, 65.0) for name, sound in spoken.items()}


def in_noise(sound: torch.Tensor, snr_db: float) -> torch.Tensor:
    """Speech in noise, with digital silence around it, which is none of the recording's."""
    noisy = mix(sound, noise("speech-shaped", len(sound), random(), []), snr_db)
    return torch.cat([torch.zeros(9000), noisy, torch.zeros(9000)])


def test_pauses_of_speech_are_as_deep_as_its_noise_lets_them(talkers):
    for sound in talkers.values():
        depths = [pause_depth_db(in_noise(sound, snr_db)) for snr_db in (30.0, 5.0, 0.0, -5.0)]
        assert depths == sorted(depths, reverse=True)
        assert pause_depth_db(sound) > 18
        assert depths[1] < 15
        assert depths[3] < 8
        assert pause_depth_db(1e-3 * sound) == pytest.approx(pause_depth_db(sound), abs=0.01)


def test_noisy_sentences_called_speech_are_refused_by_name(talkers):
    require_clean(talkers)
    noisy = {name: in_noise(sound, 3.0) for name, sound in list(talkers.items())[:4]}
    first = min(noisy, key=lambda name: pause_depth_db(noisy[name]))
    with pytest.raises(ValueError, match=rf"4 of 12 sounds .* speech: {first} \(.*kind 'noisy'"):
        require_clean(talkers | noisy)
    require_clean(talkers | noisy, depth_db=0)
    with pytest.warns(UserWarning, match=f"1 of 12 sounds called speech seem noisy.*: {first} "):
        require_clean(talkers | {first: noisy[first]})
    # of a word there is no pause to judge by
    require_clean({str(i): sound[9000:20_000] for i, sound in enumerate(noisy.values())})


def test_noisy_speech_of_a_folder_is_refused_and_taken_once_its_kind_is_said(tmp_path, talkers):
    (tmp_path / "speech").mkdir()
    for number, (name, sound) in enumerate(talkers.items()):
        written = in_noise(sound, 0.0) if number < 6 else sound
        write(tmp_path / "speech" / f"{number}-{name}.wav", written, 24414)
    with pytest.raises(ValueError, match=r"6 of 12 sounds called speech .*speech/[0-5]-"):
        read_folder(tmp_path)
    assert len(read_folder(tmp_path, depth_db=0)["speech"]) == 12
    files = sorted(path.name for path in (tmp_path / "speech").iterdir())
    rows = [f"speech/{f},{'noisy' if int(f.split('-')[0]) < 6 else 'speech'}" for f in files]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,kind", *rows]))
    found = read_folder(tmp_path)
    assert (len(found["speech"]), len(found["others"])) == (6, 6)


def test_an_aid_takes_from_a_cohort_what_is_clean_and_can_be_heard(tmp_path, talkers):
    pytest.importorskip("jsonargparse")
    from recipes import train_compensation

    def config_and_cohort(folder: str, spoken: dict[str, torch.Tensor]):
        sounds = [Sound(n, "speech", n, "train", sound) for n, sound in spoken.items()]
        sounds.append(Sound("rest", SPONTANEOUS, "silence", "train", torch.zeros(90_000)))
        sounds.append(Sound("song", "music", "song", "train", in_noise(talkers[first], 0.0)))
        cohort = store.create(tmp_path / folder, sounds)
        return train_compensation.Config(cohort.path, "model", "out"), cohort

    first = next(iter(talkers))
    mixed = train_compensation.mixtures(*config_and_cohort("clean", talkers))
    assert (len(mixed.speech), len(mixed.others)) == (12, 1)
    noisy = {name: in_noise(sound, 0.0) for name, sound in talkers.items()}
    with pytest.raises(ValueError, match="12 of 12 sounds called speech seem noisy"):
        train_compensation.mixtures(*config_and_cohort("noisy", noisy))


# --- workers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "start"), [(2, "fork"), (1, "forkserver")])
def test_items_do_not_depend_on_workers(workers, start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} on this system")
    # A fork server takes no more than 256 open files: so many sounds must not be one each.
    mixed = Mixtures(sounds(300, 2100), sounds(2), SAMPLES, 40, 4, reverberant=0.5)
    batches = list(
        DataLoader(mixed, batch_size=8, num_workers=workers, multiprocessing_context=start)
    )
    alone = items(mixed)
    for key in ("clean", "noisy", "in_noise"):
        together = torch.cat([batch[key] for batch in batches])
        assert torch.equal(together, torch.stack([item[key] for item in alone]))
