"""Files of any rate come back as long, as loud and in time; what cannot be is said, and no more."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import soundfile
import torch

from compensation import files
from compensation.listener import AUDIOGRAM_HZ, EIGHT_HZ
from compensation.masks import Masks, MasksConfig
from icsim.audiogram import Audiogram, audiogram
from icsim.sound import REFERENCE_PA, resample
from icsim.weights import load_network, save_network
from recipes import process
from recipes.process import Config
from recipes.running.commands import run

THETA = [0.1, 0.5, 0.9]
SIZES = {"bands": 9, "width": 6, "layers": 1, "window": 128, "hop": 24}


def tones(samples: int, rate: int) -> np.ndarray:
    """A few tones below 4 kHz that begin and end in silence, RMS about 0.05, `(T,)`."""
    time = np.arange(samples) / rate
    sound = sum(0.04 * np.sin(2 * np.pi * hz * time + hz) for hz in (130, 440, 1700, 2900))
    return (sound * np.sin(np.pi * np.arange(samples) / samples) ** 2).astype(np.float32)


def save_aid(path, numbers: int, **facts) -> None:
    torch.manual_seed(0)
    aid = Masks(MasksConfig(listener=numbers, **SIZES))
    with torch.no_grad():
        aid.leave.weight.mul_(100)
    save_network(path, aid, **{"noise_reduction": True, "model": "feed"} | facts)


@pytest.fixture
def config(tmp_path) -> Config:
    """A new aid, a fit that belongs to it, and a folder with one sound of 0.5 s."""
    save_aid(tmp_path / "aid.safetensors", 3, listener="theta", model="feed")
    write_fit(tmp_path, theta=THETA, model="feed")
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "first.wav", tones(8000, 16000), 16000, "FLOAT")
    paths = {name: str(tmp_path / name) for name in ("in", "out")}
    return Config(
        str(tmp_path / "aid.safetensors"),
        paths["in"],
        paths["out"],
        theta=str(tmp_path / "fit.json"),
        workers=1,
    )


def write_fit(folder, **content) -> str:
    path = folder / "fit.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 96000])
def test_a_file_of_any_rate_keeps_its_length_level_and_place(config, tmp_path, rate, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_S", 0.1)
    samples = round(0.4 * rate) + 7
    left, silent = tones(samples, rate), np.zeros(samples, np.float32)
    soundfile.write(tmp_path / "in" / "x.flac", np.stack([left, silent], 1), rate, "PCM_24")
    out = process.process(dataclasses.replace(config, noise_reduction=0, gain=0))
    found, found_rate = soundfile.read(out / "x.wav", dtype="float32")
    assert found_rate == rate
    assert soundfile.info(out / "x.wav").subtype == "FLOAT"
    assert found.shape == (samples, 2)
    assert np.abs(found[:, 0] - left).max() < 1e-4 * np.abs(left).max()
    assert not found[:, 1].any()


def test_a_file_becomes_what_the_aid_makes_of_its_pressure(config, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_S", 0.1)
    settings = dataclasses.replace(
        config, noise_reduction=0.5, gain=1.5, full_scale_db_spl=90, maximum_db_spl=150
    )
    out = process.process(settings)
    sound = torch.from_numpy(tones(8000, 16000))
    aid, _ = load_network(config.aid, Masks)
    unit_pa = REFERENCE_PA * 10 ** (90 / 20)
    with torch.no_grad():
        heard = aid.process(unit_pa * resample(sound, 16000)[None], torch.tensor([THETA]), 0.5, 1.5)
    expected = resample(heard[0] / unit_pa, 24414.0625, 16000).numpy()
    found = soundfile.read(out / "first.wav")[0]
    assert np.abs(expected - sound.numpy()).max() > 0.01
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_an_audiogram_is_for_aids_that_take_one(config, tmp_path):
    aid = str(tmp_path / "other.safetensors")
    save_aid(aid, 8, listener="audiogram")
    Audiogram([500, 4000], [20, 60]).write(tmp_path / "ear.json")
    settings = dataclasses.replace(config, audiogram=str(tmp_path / "ear.json"))
    with pytest.raises(ValueError, match="trained with --theta, so --audiogram says it nothing"):
        process.process(dataclasses.replace(settings, theta=None))
    with pytest.raises(ValueError, match="trained with --audiogram, so --theta says it nothing"):
        process.process(dataclasses.replace(config, aid=aid))
    out = process.process(dataclasses.replace(settings, aid=aid, theta=None))
    assert np.abs(soundfile.read(out / "first.wav")[0]).max() > 0.01


@pytest.mark.parametrize("frequencies_hz", [EIGHT_HZ, AUDIOGRAM_HZ])
def test_an_aid_is_told_the_thresholds_that_it_was_trained_with(config, tmp_path, frequencies_hz):
    """An aid whose checkpoint names no frequencies is one of the eight that all once had."""
    facts = {} if frequencies_hz == EIGHT_HZ else {"audiogram_hz": list(frequencies_hz)}
    aid_path = str(tmp_path / "other.safetensors")
    save_aid(aid_path, len(frequencies_hz), listener="audiogram", **facts)
    ear = audiogram("S2")
    ear.write(tmp_path / "ear.json")
    settings = dataclasses.replace(
        config, aid=aid_path, theta=None, audiogram=str(tmp_path / "ear.json")
    )
    _, told = process.equipped(settings)
    torch.testing.assert_close(told, ear.at(frequencies_hz) / 120)
    process.process(settings)


def test_an_aid_that_reduces_no_noise_is_not_asked_to(config, tmp_path):
    aid = str(tmp_path / "other.safetensors")
    save_aid(aid, 3, listener="theta", model="feed", noise_reduction=False)
    with pytest.raises(ValueError, match="trained for compensation alone: add --noise_reduction 0"):
        process.process(dataclasses.replace(config, aid=aid))
    out = process.process(dataclasses.replace(config, aid=aid, noise_reduction=0))
    assert np.abs(soundfile.read(out / "first.wav")[0]).max() > 0.01


def test_nothing_is_louder_than_the_maximum(config, tmp_path):
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    soundfile.write(tmp_path / "in" / "loud.wav", noise, 48000, "FLOAT")
    out = process.process(dataclasses.replace(config, maximum_db_spl=90.0, gain=2.0))
    loudest = np.abs(soundfile.read(out / "loud.wav")[0]).max()
    assert loudest == pytest.approx(10 ** (-10 / 20), rel=1e-3)
    assert loudest <= 10 ** (-10 / 20) * (1 + 1e-7)


def test_samples_beyond_one_are_told_of_and_left_as_they_are(config, tmp_path, capsys):
    """A tone of 0.9 in the second half of one file, amplified by nothing, and one of 1.8."""
    time = np.arange(8000) / 16000
    for name, size in (("soft", 0.9), ("loud", 1.8)):
        sound = size * np.sin(2 * np.pi * 440 * time) * (time > 0.25)
        soundfile.write(tmp_path / "in" / f"{name}.wav", sound.astype(np.float32), 16000, "FLOAT")
    quiet = dataclasses.replace(config, noise_reduction=0, gain=0)
    out = process.process(quiet)
    found = soundfile.read(out / "loud.wav")[0]
    count = int((np.abs(found) > 1).sum())
    assert 2000 < count < 3000
    errors = capsys.readouterr().err
    assert "1 of 3 files leave ±1" in errors
    assert "--pcm_bits 24" in errors
    assert f"{out / 'loud.wav'}: {count} samples, up to {np.abs(found).max():.3g} (+5." in errors
    assert "soft.wav" not in errors


@pytest.mark.parametrize("bits", [16, 24])
def test_integers_are_written_with_headroom_and_never_clipped(config, tmp_path, capsys, bits):
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    soundfile.write(tmp_path / "in" / "noise.wav", noise, 16000, "FLOAT")
    for name, pcm in (("float", None), ("pcm", bits)):
        process.process(dataclasses.replace(config, pcm_bits=pcm, out=str(tmp_path / name)))
    assert "an RMS of 1 in them is 110 dB SPL" in capsys.readouterr().err
    assert soundfile.info(tmp_path / "pcm" / "noise.wav").subtype == f"PCM_{bits}"
    for name in ("noise.wav", "first.wav"):
        floats, integers = (soundfile.read(tmp_path / k / name)[0] for k in ("float", "pcm"))
        assert np.abs(integers).max() <= 1
        np.testing.assert_allclose(
            integers, 10 ** (-10 / 20) * floats, atol=3 * 2.0 ** (1 - bits), rtol=0
        )
    assert np.abs(soundfile.read(tmp_path / "float" / "noise.wav")[0]).max() > 1


def test_bad_files_are_named_and_stop_no_other(config, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    rates = {"nan": 16000, "slow": 7999, "huge": 16000, "empty": 16000}
    sounds = {name: tones(4000, 16000) for name in rates}
    sounds["nan"][3000] = np.nan
    sounds["huge"] *= 32768
    sounds["empty"] = sounds["empty"][:0]
    for name, rate in rates.items():
        soundfile.write(folder / f"{name}.wav", sounds[name], rate, "FLOAT")
    soundfile.write(folder / "whole.flac", tones(80_000, 16000), 16000)
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:20_000])
    (folder / "text.wav").write_text("no sound")
    soundfile.write(folder / "zebra.ogg", tones(8000, 16000), 16000)
    asked = [f"--{f.name}={getattr(config, f.name)}" for f in dataclasses.fields(config)]
    asked = [argument for argument in asked if not argument.endswith("=None")]
    monkeypatch.setattr(sys, "argv", ["process", *asked])
    with pytest.raises(SystemExit) as left:
        run(process.process, Config)
    assert left.value.code == 1
    message = capsys.readouterr().err
    assert "error: 6 of 9 sounds were not processed:\n" in message
    for name, reason in {
        "nan.wav": "NaN or infinite",
        "slow.wav": "has 7999 samples a second",
        "huge.wav": "more than 140 dB SPL",
        "empty.wav": "has no samples",
        "cut.flac": "cannot be read as audio",
        "text.wav": "cannot be read as audio",
    }.items():
        assert f"{folder / name}: " in message
        assert reason in message
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["config.json", "first.wav", "whole.wav", "zebra.wav"]


def test_what_is_finished_is_not_made_again(config, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "in" / "deeper" / "second.ogg", tones(4000, 8000), 8000)
    out = process.process(config)
    made = []
    original = process.process_file
    monkeypatch.setattr(
        process,
        "process_file",
        lambda sound, *rest, **options: (
            made.append(sound.name) or original(sound, *rest, **options)
        ),
    )
    process.process(dataclasses.replace(config, workers=3))
    assert made == []
    (out / "deeper" / "second.wav").unlink()
    process.process(config)
    assert made == ["second.ogg"]
    later = max(path.stat().st_mtime for path in out.rglob("*.wav")) + 5
    os.utime(config.theta, (later, later))
    process.process(config)
    assert made == ["second.ogg", "second.ogg", "first.wav"]


def test_an_interrupted_file_leaves_nothing(config, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        yield np.zeros((100, 1), np.float32)
        raise Killed

    monkeypatch.setattr(files, "aided", killed)
    with pytest.raises(Killed):
        process.process(config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_other_settings_are_not_mixed_into_one_folder(config):
    process.process(config)
    with pytest.raises(ValueError, match="holds a run with other gain"):
        process.process(dataclasses.replace(config, gain=0.5))


def test_processes_side_by_side_make_what_one_makes(config, tmp_path):
    soundfile.write(tmp_path / "in" / "bad.wav", tones(4000, 4000), 4000)
    soundfile.write(tmp_path / "in" / "second.wav", tones(4000, 8000), 8000)
    for workers, out in ((1, "one"), (2, "two")):
        settings = dataclasses.replace(config, workers=workers, out=str(tmp_path / out))
        with pytest.raises(ValueError, match=r"1 of 3 sounds were not processed:\n.*bad\.wav: has"):
            process.process(settings)
    for name in ("first.wav", "second.wav"):
        one, two = (soundfile.read(tmp_path / out / name)[0] for out in ("one", "two"))
        assert np.abs(one - two).max() <= 1e-6


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ({"theta": THETA[:2]}, "2 numbers, but .* takes 3"),
        ({"theta": [0.1, 0.5, 1.1]}, "within 0 and 1, got"),
        ({"theta": [0.1, 0.5, float("nan")]}, "within 0 and 1, got"),
        ({"theta": [THETA]}, "must be a list of numbers"),
        ({"theta": "much"}, "no θ in it"),
        ({"animal": "a"}, "no θ in it"),
        ({"theta": THETA, "model": "beef"}, "fitted to another model"),
    ],
)
def test_a_theta_that_is_not_the_aids_is_refused(config, tmp_path, fit, message):
    write_fit(tmp_path, **fit)
    with pytest.raises(ValueError, match=message):
        process.process(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta": None}, "give --theta or --audiogram"),
        ({"audiogram": "ear.json"}, "and not both"),
        ({"theta": "nowhere.json"}, "nowhere.json: no θ in it"),
        ({"gain": 3.0}, "gain.*3.0 does not conform"),
        ({"maximum_db_spl": float("inf")}, "maximum_db_spl.*inf does not conform"),
        ({"full_scale_db_spl": float("nan")}, "full_scale_db_spl.*nan does not conform"),
        ({"workers": 0}, "workers.*0 does not conform"),
        ({"sounds": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_made(
    config, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        process.process(dataclasses.replace(config, **changes))
    assert not (tmp_path / "out").exists()


def test_results_never_take_the_place_of_sounds(config, tmp_path):
    folder = tmp_path / "in"
    for sounds, out in [(folder, folder), (folder, folder / "out"), (folder / "first.wav", folder)]:
        with pytest.raises(ValueError, match="choose another --out"):
            process.process(dataclasses.replace(config, sounds=str(sounds), out=str(out)))
    soundfile.write(folder / "first.flac", tones(4000, 8000), 8000)
    with pytest.raises(ValueError, match="would both become"):
        process.process(config)
    out = process.process(dataclasses.replace(config, sounds=str(folder / "first.wav")))
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "first.wav"]


def test_a_full_disk_is_blamed_on_the_result_and_not_on_the_sound(config, tmp_path, monkeypatch):
    def full(file, samples):
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    one = dataclasses.replace(config, sounds=str(tmp_path / "in" / "first.wav"), workers=1)
    with pytest.raises(ValueError, match="1 of 1 sounds were not processed") as refused:
        process.process(one)
    target = tmp_path / "out" / "first.wav"
    assert f"{target}: cannot be written (System error.)" in str(refused.value)
    assert str(one.sounds) not in str(refused.value)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json"]
