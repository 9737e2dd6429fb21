import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import soundfile
import torch

from icsim import sound
from icsim.catalogue import catalogue
from icsim.folder import folder_sounds
from icsim.simulation import speech
from icsim.simulation.noises import (
    NOISES,
    UNTRAINED_NOISES,
    babble,
    noise,
    speech_shaped_noise,
)
from icsim.simulation.sounds import (
    KINDS,
    SPLITS,
    embedded_sounds,
    lengths,
    masked,
    processed,
    speakers,
)
from icsim.simulation.tones import instrument, music, ripple
from icsim.sound import SAMPLE_RATE, calibrate, level, mix, read, read_mono, resample, write

SHARED_AUDIO = Path(__file__).parents[1].parent / "shared" / "audio"
SECOND = round(SAMPLE_RATE)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def seconds(sounds, split: str) -> float:
    return sum(len(s.pressure) for s in sounds if s.split == split) / SAMPLE_RATE


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        (x.name, x.source) == (y.name, y.source) and torch.equal(x.pressure, y.pressure)
        for x, y in zip(a, b, strict=True)
    )


def assert_splits_share_no_source(sounds):
    splits_of = {}
    for s in sounds:
        splits_of.setdefault(s.source, set()).add(s.split)
    assert all(len(splits) == 1 for splits in splits_of.values())


# --- Sound pressure --------------------------------------------------------------------------


def test_calibrate_sets_the_level_of_each_sound_and_lets_gradients_through():
    amplitude = torch.randn(3, 4000, requires_grad=True)
    wanted = torch.tensor([40.0, 65.0, 90.0])
    pressure = calibrate(amplitude, wanted)
    assert torch.allclose(level(pressure), wanted, atol=1e-3)
    pressure[:, 0].sum().backward()
    assert amplitude.grad.abs().sum() > 0


@pytest.mark.parametrize("bad", [torch.zeros(400), torch.full((400,), torch.nan), torch.zeros(0)])
def test_what_has_no_level_cannot_be_calibrated(bad):
    with pytest.raises(ValueError, match="silent"):
        calibrate(bad, 65.0)


def test_mix_keeps_the_clean_sound_and_sets_the_ratio():
    clean, masker = calibrate(torch.randn(2, 9000), 70.0), torch.rand(2, 9000)
    noisy = mix(clean, masker, torch.tensor([-5.0, 20.0]))
    assert torch.allclose(level(noisy - clean), torch.tensor([75.0, 50.0]), atol=0.01)


def test_mix_refuses_another_length_and_silence():
    with pytest.raises(ValueError, match="the noise 9"):
        mix(torch.ones(10), torch.ones(9), 0.0)
    with pytest.raises(ValueError, match="silent"):
        mix(torch.zeros(10), torch.ones(10), 0.0)
    with pytest.raises(ValueError, match="silent"):
        mix(torch.ones(10), torch.zeros(10), 0.0)


def test_resampling_keeps_a_tone():
    def tone(rate_hz, n):
        return torch.sin(2 * torch.pi * 1000 * torch.arange(n) / rate_hz)

    there = resample(tone(44100, 44100), 44100)
    middle = slice(2000, -2000)
    assert torch.allclose(there[middle], tone(SAMPLE_RATE, len(there))[middle], atol=1e-3)
    with pytest.raises(ValueError, match="one sound"):
        resample(torch.zeros(2, 100), 16000)


def test_a_float_file_beyond_one_is_read_as_it_was_written(tmp_path):
    loud = 30 * torch.randn(2, 4000)
    write(tmp_path / "loud.wav", loud, 16000)
    samples, rate_hz = read(tmp_path / "loud.wav")
    assert rate_hz == 16000
    assert torch.equal(samples, loud)
    assert torch.allclose(read_mono(tmp_path / "loud.wav", 16000), loud.mean(0))
    assert [p.name for p in tmp_path.iterdir()] == ["loud.wav"]
    with pytest.raises(ValueError, match="resample first"):
        write(tmp_path / "odd.wav", loud, SAMPLE_RATE)


# --- Speech ----------------------------------------------------------------------------------


def test_speech_is_the_same_every_time_and_in_every_process():
    # f2 is breathy, and the library would seed its breath by the clock.
    code = (
        "from icsim.simulation.speech import speak\n"
        "print([speak('A noisy boat.', v)[0].double().square().sum().item() for v in"
        " ('en-us+m3', 'de+f2')])"
    )
    here = [[speech.speak("A noisy boat.", v)[0] for v in ("en-us+m3", "de+f2")] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*here, strict=True))
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == [x.double().square().sum().item() for x in here[0]]


@pytest.mark.parametrize("accent", speech.LANGUAGES)
def test_every_accent_speaks_its_own_sentences(accent):
    sentence = next(speech.sentences(speech.LANGUAGES[accent], random()))
    samples, rate_hz = speech.speak(sentence, f"{accent}+m1")
    assert len(samples) > rate_hz
    assert 0.01 < samples.square().mean().sqrt() < 0.5
    assert samples.abs().max() <= 1


def test_voices_differ():
    voices = [f"en+{name}" for name in (*speech.LOW_SPEAKERS, *speech.HIGH_SPEAKERS)]
    spoken = [speech.speak("The yellow boat.", voice)[0].numpy().tobytes() for voice in voices]
    assert len(set(spoken)) == len(voices)


def test_a_faster_rate_is_shorter():
    slow, fast = (speech.speak("The yellow boat.", rate_wpm=rate)[0] for rate in (120, 240))
    assert len(fast) < 0.7 * len(slow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ""}, "nothing was spoken"),
        ({"text": "..."}, "nothing was spoken|cannot say"),
        ({"text": "Hi.", "voice": "xx+m1"}, "no accent 'xx'"),
        ({"text": "Hi.", "voice": "en+nobody"}, "no speaker nobody"),
        ({"text": "Hi.", "rate_wpm": 20}, "rate_wpm is 20"),
    ],
)
def test_what_cannot_be_spoken_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        speech.speak(**arguments)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: "/nowhere/libespeak-ng.so")
    with pytest.raises(OSError, match="reinstall"):
        speech.speak("Hello.")


@pytest.mark.parametrize("language", sorted(set(speech.LANGUAGES.values())))
def test_no_sentence_is_said_twice_not_even_in_another_part(language):
    said = []
    for part in range(3):
        texts = speech.sentences(language, random(), part, 3)
        said += [next(texts) for _ in range(300)]
    assert len(set(said)) == 900


# --- Made sounds -----------------------------------------------------------------------------


def envelope(x: torch.Tensor, low_hz: float, high_hz: float) -> torch.Tensor:
    """Hilbert envelope of a band."""
    spectrum = torch.fft.fft(x.double())
    hz = torch.fft.fftfreq(len(x), 1 / SAMPLE_RATE)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0
    return (2 * torch.fft.ifft(spectrum)).abs()


def component(x: torch.Tensor, rate_hz: float) -> complex:
    time_s = torch.arange(len(x)) / SAMPLE_RATE
    return (x * torch.exp(-2j * torch.pi * rate_hz * time_s)).mean().item()


@pytest.mark.parametrize("velocity_hz", [4.0, -12.0])
def test_a_ripple_is_modulated_at_the_planted_rate(velocity_hz):
    x = ripple(velocity_hz, 0.5, 4 * SECOND, random())
    e = envelope(x, 1900, 2100)
    rates = torch.arange(1.0, 30.0, 0.5)
    strength = torch.tensor([abs(component(e, r.item())) for r in rates])
    assert rates[strength.argmax()] == abs(velocity_hz)


@pytest.mark.parametrize(("velocity_hz", "density"), [(6.0, 0.0), (6.0, 0.5), (6.0, -0.25)])
def test_a_ripple_has_the_planted_density(velocity_hz, density):
    x = ripple(velocity_hz, density, 4 * SECOND, random())
    low = component(envelope(x, 950, 1050), velocity_hz)
    high = component(envelope(x, 1900, 2100), velocity_hz)
    turns = np.angle(high / low) / (2 * np.pi)
    assert abs((turns - density + 0.5) % 1 - 0.5) < 0.1


def test_ripples_speak_to_the_whole_band():
    power = torch.fft.rfft(ripple(4.0, 1.0, SECOND, random())).abs().square()
    hz = torch.fft.rfftfreq(SECOND, 1 / SAMPLE_RATE)
    assert power[(hz > 245) & (hz < 11400)].sum() > 0.99 * power.sum()


@pytest.mark.parametrize("make", [music, instrument])
def test_pieces_differ_and_are_repeatable(make):
    a, b, c = (make(SECOND, random(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.shape == (SECOND,)
    assert a.isfinite().all()
    assert a.any()


def test_speech_shaped_noise_has_the_spectrum_of_speech():
    x = speech_shaped_noise(10 * SECOND, random())
    power = torch.fft.rfft(x).abs().square()
    hz = torch.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)

    def third_octave_db(centre_hz):
        band = (hz > centre_hz * 2 ** (-1 / 6)) & (hz < centre_hz * 2 ** (1 / 6))
        return 10 * torch.log10(power[band].sum())

    # Byrne et al. 1994: 62.1, 48.7 and 43.7 dB at 0.5, 2 and 8 kHz.
    assert abs(third_octave_db(500) - third_octave_db(2000) - 13.4) < 1.5
    assert abs(third_octave_db(500) - third_octave_db(8000) - 18.4) < 1.5


def test_modulated_noise_rises_and_falls_more_than_stationary_noise():
    def spread_db(kind):
        frames = noise(kind, 5 * SECOND, random()).unfold(0, 2441, 2441)
        return level(frames).std()

    assert spread_db("modulated") > 3 * spread_db("speech-shaped")


def test_babble_gives_every_talker_the_same_level():
    quiet, loud = 0.01 * torch.randn(3000), torch.randn(5000)
    both = babble([quiet, loud], 8000, random(), voices=2)
    alone = [babble([talker], 8000, random(), voices=1) for talker in (quiet, loud)]
    assert abs(level(alone[0]) - level(alone[1])) < 0.5
    assert 2 < level(both) - level(alone[0]) < 4


def test_an_engine_is_tonal_and_dishes_are_sparse_as_no_trained_noise_is():
    talkers = [torch.from_numpy(random().standard_normal(SECOND)).float()]
    made = {kind: noise(kind, 4 * SECOND, random(), talkers) for kind in NOISES + UNTRAINED_NOISES}
    assert not set(NOISES) & set(UNTRAINED_NOISES)

    def peaks(x: torch.Tensor) -> float:
        """Share of the power in the loudest hundredth of all frequencies below 4 kHz."""
        power = torch.fft.rfft(x).abs().square()[: 16 * 1000]
        return (power.topk(160).values.sum() / power.sum()).item()

    def sparse(x: torch.Tensor) -> float:
        """Share of the power in the loudest tenth of all moments."""
        power = x.square()
        return (power.topk(len(x) // 10).values.sum() / power.sum()).item()

    assert peaks(made["engine"]) > 1.5 * max(peaks(made[kind]) for kind in NOISES)
    assert sparse(made["dishes"]) > 1.2 * max(sparse(made[kind]) for kind in NOISES)
    for kind in UNTRAINED_NOISES:
        assert made[kind].isfinite().all()
        assert torch.equal(made[kind], noise(kind, 4 * SECOND, random()))
        assert not torch.equal(made[kind], noise(kind, 4 * SECOND, random(5)))


def test_noises_need_a_known_kind_and_babble_needs_talkers():
    for kind in NOISES:
        x = noise(kind, 1000, random(), [torch.randn(500)])
        assert x.shape == (1000,)
        assert x.dtype == torch.float32
    with pytest.raises(ValueError, match="rain"):
        noise("rain", 1000, random())
    with pytest.raises(ValueError, match="talker"):
        noise("babble", 1000, random())


@pytest.mark.parametrize("seed", range(4))
def test_processing_amplifies_by_no_more_than_30_db_and_compresses(seed):
    steps = torch.cat([0.01 * torch.randn(SECOND), torch.randn(SECOND)])
    louder = processed(steps, random(seed))
    rise = [
        level(louder[half]) - level(steps[half]) for half in (slice(SECOND), slice(SECOND, None))
    ]
    assert all(-10 < r < 30.5 for r in rise)
    assert rise[0] > rise[1] + 1


def test_processing_does_not_depend_on_the_level():
    x = torch.randn(SECOND)
    quiet, loud = processed(x, random()), processed(1000 * x, random())
    assert torch.allclose(loud / 1000, quiet, atol=1e-4 * quiet.abs().max().item())


# --- The embedded set ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    return embedded_sounds((72, 12, 24), seed=5)


def test_durations_are_what_was_asked_for_and_kinds_share_alike(embedded):
    for split, asked_s in zip(SPLITS, (72, 12, 24), strict=True):
        assert seconds(embedded, split) == pytest.approx(asked_s, rel=0.01)
        for kind in KINDS:
            share = [s for s in embedded if s.kind == kind]
            assert seconds(share, split) == pytest.approx(asked_s / len(KINDS), rel=0.01)


@pytest.mark.parametrize("total_s", [8.0, 10.5, 23.0, 61.0, 1000.0])
def test_training_sounds_last_4_to_10_s_and_test_sounds_are_long(total_s):
    for split in SPLITS:
        lasted_s = np.array(lengths(total_s, split, 30.0, random())) / SAMPLE_RATE
        assert lasted_s.sum() == pytest.approx(total_s, rel=1e-3)
        if split == "test":
            assert len(lasted_s) == np.ceil(total_s / 30)
            assert np.ptp(lasted_s) == 0
        else:
            assert 3.999 < lasted_s.min() <= lasted_s.max() < 10.001
        assert max(lengths(total_s, split, 3.0, random())) < 3.001 * SAMPLE_RATE


def test_levels_are_within_40_to_90_db_and_spread_over_it(embedded):
    at = {kind: [level(s.pressure).item() for s in embedded if s.kind == kind] for kind in KINDS}
    others = [x for kind in KINDS if kind != "processed" for x in at[kind]]
    assert 39.99 < min(others) < 50
    assert 80 < max(others) < 90.01
    assert 39.99 < min(at["processed"]) <= max(at["processed"]) < 100.01
    assert all(s.pressure.dtype == torch.float32 for s in embedded)
    assert all(s.pressure.isfinite().all() for s in embedded)


def test_splits_share_no_sentence(monkeypatch):
    said: dict[str, set[str]] = {split: set() for split in SPLITS}
    split_of = {voice: split for split in SPLITS for voice in speakers(split, seed=3)}

    def speak(text, voice, *_):
        said[split_of[voice]].add(text)
        return torch.ones(44100), 22050.0

    monkeypatch.setattr(speech, "speak", speak)
    embedded_sounds((12, 12, 12), seed=3, max_s=2.0)
    assert min(len(texts) for texts in said.values()) > 10
    assert not any(said[a] & said[b] for a, b in itertools.combinations(SPLITS, 2))


def test_splits_share_no_source_and_no_speaker(embedded):
    assert_splits_share_no_source(embedded)
    names = [v.split("+")[1] for split in SPLITS for v in speakers(split, seed=5)]
    assert len(set(names)) == len(names)
    assert {s.kind for s in embedded if s.source.startswith("voice")} == set(KINDS[:3])


def test_speech_has_pauses(embedded):
    x = next(s.pressure for s in embedded if s.kind == "speech" and s.split == "test")
    frames = level(x.unfold(0, 488, 488))
    assert 0.01 < (frames < level(x) - 40).float().mean() < 0.5


def quietest_db(x: torch.Tensor) -> float:
    """Level of the quietest 20 ms re that of the whole [dB]."""
    return (level(x.unfold(0, 488, 488)).min() - level(x)).item()


def test_half_of_processed_speech_has_no_silent_pauses(embedded):
    floors_db = [quietest_db(s.pressure) for s in embedded if s.kind == "processed"][:2]
    assert min(floors_db) < -70 < -60 < max(floors_db)


def test_further_speakers_are_in_no_split_and_every_one_speaks():
    assert len(set(speech.FURTHER_SPEAKERS)) == 20
    for seed in (0, 1):
        known = {voice.split("+")[1] for split in SPLITS for voice in speakers(split, seed)}
        assert len(known) == 24
        assert not known & set(speech.FURTHER_SPEAKERS)
    spoken = {
        name: speech.speak("A cheerful judge.", f"en+{name}")[0] for name in speech.FURTHER_SPEAKERS
    }
    assert len({tuple(x.tolist()) for x in spoken.values()}) == 20


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_for_all_noisy_and_half_of_the_processed_sounds(seed):
    assert masked("noisy", 5, random(seed)).all()
    assert not masked("music", 5, random(seed)).any()
    assert masked("processed", 10, random(seed)).sum() == 5
    assert masked("processed", 11, random(seed)).sum() in (5, 6)


def test_the_seed_decides():
    a, b, c = (embedded_sounds((6, 0, 6), seed) for seed in (0, 0, 1))
    assert same(a, b)
    assert not any(x.pressure.equal(y.pressure) for x, y in zip(a, c, strict=False))


@pytest.mark.parametrize(
    ("duration_s", "message"),
    [
        ((1, 2), "duration for each"),
        ((-1, 20, 20), "negative"),
        ((20, float("nan"), 20), "infinite"),
        ((0, 0, 0), "all zero"),
        ({"train": 60, "dev": 6}, "dev"),
        ((20, 3, 20), "validation: 3.0 s"),
    ],
)
def test_impossible_durations_are_refused(duration_s, message):
    with pytest.raises(ValueError, match=message):
        embedded_sounds(duration_s, seed=0)


# --- A folder of files -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Six speakers (noise bursts), three pieces, two noises."""
    for kind, count, length_s, rate_hz in (
        ("speech", 6, 4, 16000),
        ("music", 3, 5, 22050),
        ("noise", 2, 3, 8000),
    ):
        (tmp_path / kind).mkdir()
        for i in range(count):
            x = 0.1 * random(i).standard_normal((length_s * rate_hz, 1 + i % 2))
            suffix = (".wav", ".flac", ".ogg")[i % 3]
            soundfile.write(tmp_path / kind / f"{i}{suffix}", x, rate_hz)
    return tmp_path


def test_a_folder_gives_every_kind_in_every_split(folder):
    sounds = folder_sounds(folder, (12, 6, 6), seed=0, max_s=3.0)
    assert_splits_share_no_source(sounds)
    for split, asked_s in zip(SPLITS, (12, 6, 6), strict=True):
        mine = [s for s in sounds if s.split == split]
        assert seconds(mine, split) == pytest.approx(asked_s, rel=0.05)
        assert {s.kind for s in mine} == {"speech", "processed", "noisy", "music"}
        assert max(seconds([s], split) for s in mine) <= 3.01
    levels = [level(s.pressure).item() for s in sounds if s.kind != "processed"]
    assert 39.99 < min(levels) < 65 < max(levels) < 90.01
    assert same(sounds, folder_sounds(folder, (12, 6, 6), seed=0, max_s=3.0))
    assert not same(sounds, folder_sounds(folder, (12, 6, 6), seed=1, max_s=3.0))


def test_half_of_a_folders_processed_speech_is_made_from_noisy_speech(tmp_path):
    (tmp_path / "speech").mkdir()
    for i in range(12):
        x = 0.1 * random(i).standard_normal(32000)
        x[12000:20000] = 0  # a pause of 0.5 s
        soundfile.write(tmp_path / "speech" / f"{i}.wav", x, 16000)
    sounds = folder_sounds(tmp_path, (24, 0, 0), seed=0)
    floors_db = {
        kind: [quietest_db(s.pressure) for s in sounds if s.kind == kind] for kind in KINDS[:3]
    }
    assert max(floors_db["speech"]) < -60 < min(floors_db["noisy"])
    assert [db > -60 for db in sorted(floors_db["processed"])] == [False, False, True, True]


def test_babble_is_made_of_speech_alone(folder, monkeypatch):
    talkers = []

    def listen(kind, samples, generator, voices):
        talkers.extend(voices)
        return noise(kind, samples, generator, voices)

    monkeypatch.setattr("icsim.folder.noise", listen)
    folder_sounds(folder, (24, 0, 0), seed=0)
    assert talkers
    for talker in talkers:  # speech was recorded at 16 kHz, music at 22.05 kHz
        power = torch.fft.rfft(talker).abs().square()
        hz = torch.fft.rfftfreq(len(talker), 1 / SAMPLE_RATE)
        assert power[hz > 9000].sum() < 1e-3 * power.sum()


def test_a_folder_with_too_little_gives_all_it_has_once_and_says_so(folder):
    with pytest.warns(UserWarning, match="where 100.0 s were asked for"):
        sounds = folder_sounds(folder, (100, 100, 100), seed=0)
    # 6 speakers of 4 s and 3 pieces of 5 s; noise serves as a mask alone
    assert sum(seconds(sounds, split) for split in SPLITS) == pytest.approx(39, rel=0.01)
    starts = Counter(s.pressure[:50].div(s.pressure[0]).numpy().tobytes() for s in sounds)
    assert max(starts.values()) == 1


def test_a_manifest_says_what_files_are(folder):
    rows = ["file,kind,speaker", "music/0.wav,Speech,", "noise/0.wav,,"]
    rows += [f"speech/{i}{('.wav', '.flac', '.ogg')[i % 3]},,{'abcc'[i]}" for i in range(4)]
    (folder / "manifest.csv").write_text("\n".join(rows))
    known = {r.path.relative_to(folder).as_posix(): (r.kind, r.source) for r in catalogue(folder)}
    assert known == {
        "music/0.wav": ("speech", "music/0.wav"),
        "noise/0.wav": ("noise", "noise/0.wav"),
        "speech/0.wav": ("speech", "a"),
        "speech/1.flac": ("speech", "b"),
        "speech/2.ogg": ("speech", "c"),
        "speech/3.wav": ("speech", "c"),
    }
    assert_splits_share_no_source(folder_sounds(folder, (4, 3, 3), seed=0))


def test_unknown_kinds_are_kept_and_samples_beyond_one_are_data(tmp_path):
    (tmp_path / "whale").mkdir()
    for i in range(3):
        x = torch.from_numpy(100 * random(i).standard_normal(16000)).float()
        write(tmp_path / "whale" / f"{i}.wav", x, 16000)
    sounds = folder_sounds(tmp_path, (1, 1, 1), seed=0)
    assert [s.kind for s in sounds] == ["whale"] * 3
    for s in sounds:
        original = read_mono(tmp_path / s.source)[: len(s.pressure)]
        assert torch.allclose(s.pressure, calibrate(original, level(s.pressure)), atol=1e-5)


BAD = {
    "text": (lambda p: p.write_text("not a sound"), "cannot be read as audio"),
    "nan": (lambda p: soundfile.write(p, np.full(9000, np.nan), 16000, "FLOAT"), "NaN"),
    "silent": (lambda p: soundfile.write(p, np.zeros(90000), 16000), "every sample is zero"),
    "short": (lambda p: soundfile.write(p, np.ones(1), 16000), "1 samples"),
    "empty": (lambda p: soundfile.write(p, np.zeros(0), 16000), "0 samples"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named(folder, case):
    spoil, message = BAD[case]
    spoil(folder / "speech" / "bad.wav")
    with pytest.raises(ValueError, match=rf"bad\.wav.*{message}"):
        folder_sounds(folder, (60, 60, 60), seed=0)


def test_bad_files_are_found_before_anything_is_made(folder, monkeypatch):
    soundfile.write(folder / "speech" / "bad.wav", np.zeros(90000), 16000)
    monkeypatch.setattr("icsim.folder.processed", lambda *_: pytest.fail("work was lost"))
    with pytest.raises(ValueError, match=r"bad\.wav"):
        folder_sounds(folder, (60, 60, 60), seed=0)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("file\nspeech/0.wav\nspeech/gone.wav", "gone.wav: named by .* but missing"),
        ("path,kind\nspeech/0.wav,speech", "column called file"),
        ("file", "column called file"),
        ("file\nspeech/0.wav\nspeech/0.wav", "twice"),
        ("file,speaker\nspeech/0.wav,ann\nspeech/3.wav,ann", "at least 3 are needed"),
        ("file\nnoise/0.wav\nnoise/1.flac", "at least 3 are needed"),
    ],
)
def test_a_bad_manifest_is_refused(folder, manifest, message):
    (folder / "manifest.csv").write_text(manifest)
    with pytest.raises(ValueError, match=message):
        folder_sounds(folder, (4, 3, 3), seed=0)


def test_a_folder_without_sounds_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    (tmp_path / "._hidden.wav").write_text("left by a file manager")
    with pytest.raises(ValueError, match=r"no \.wav"):
        folder_sounds(tmp_path, (4, 3, 3), seed=0)
    with pytest.raises(ValueError, match="no such folder"):
        sound.find_audio(tmp_path / "missing")


@pytest.mark.skipif(not SHARED_AUDIO.is_dir(), reason="needs the development sounds")
def test_real_recordings_are_dealt_by_speaker():
    sounds = folder_sounds(SHARED_AUDIO, (30, 10, 10), seed=0)
    assert_splits_share_no_source(sounds)
    assert {"speech", "processed", "noisy", "music"} <= {s.kind for s in sounds}
    assert sum(seconds(sounds, split) for split in SPLITS) == pytest.approx(50, rel=0.05)
