"""Noise reduction side by side: every device is scored on voices that are named."""

import csv
import dataclasses

import pytest
import soundfile
import torch

from compensation.devices import without_rnnoise
from compensation.load import AidFacts, save_aid
from compensation.masks import Masks, MasksConfig
from recipes.benchmarks import noise_reduction as recipe

RATE_HZ = 16000
FACTS = AidFacts("theta", "feed", True, healthy=((0.2, 0.4, 0.6),))


@pytest.fixture
def config(tmp_path):
    """Two voices, a kitchen, and an untrained aid."""
    draw = torch.Generator().manual_seed(0)
    (tmp_path / "speech").mkdir()
    lines = ["file,kind,speaker"]
    for voice in ("ann", "bob"):
        pulses = (torch.arange(2 * RATE_HZ) // 3000) % 2
        sound = 0.1 * pulses * torch.randn(2 * RATE_HZ, generator=draw)
        soundfile.write(tmp_path / "speech" / f"{voice}.wav", sound.numpy(), RATE_HZ)
        lines.append(f"speech/{voice}.wav,speech,{voice}")
    kitchen = 0.1 * torch.randn(3 * RATE_HZ, generator=draw)
    soundfile.write(tmp_path / "kitchen.wav", kitchen.numpy(), RATE_HZ)
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    aid = Masks(MasksConfig(listener=3, bands=4, width=4, layers=1))
    save_aid(tmp_path / "aid", aid, FACTS)
    return recipe.Config(
        aid=str(tmp_path / "aid"),
        sounds=str(tmp_path),
        noise=str(tmp_path / "kitchen.wav"),
        out=str(tmp_path / "scored"),
        snr_db=(0.0, 20.0),
        excerpt_s=1.0,
    )


def test_every_device_is_scored_for_every_voice_with_its_delay(config, tmp_path):
    text = recipe.benchmark(config)
    with (tmp_path / "scored" / "scores.csv").open() as file:
        table = list(csv.DictReader(file))
    devices = ["noisy", "Masks, noise reduction alone", "Wiener filter", "spectral subtraction"]
    devices += [] if without_rnnoise() else ["RNNoise"]
    assert [row["device"] for row in table if row["snr_db"] == "0.0"][::2] == devices
    assert {row["file"] for row in table} == {"ann", "bob"}
    noisy = [float(row["estoi"]) for row in table if row["device"] == "noisy"]
    assert min(noisy[2:]) > max(noisy[:2])
    assert "| Wiener filter | 7.9 |" in text
    assert (tmp_path / "scored" / "scores.md").read_text() == text
    # Two voices tell nothing.
    assert text.count("cannot be told (n = 2)") >= 2 * 3


def test_the_aid_is_compared_voice_by_voice():
    table = [
        {
            "snr_db": 5.0,
            "device": device,
            "file": f"v{n}",
            "estoi": 0.5 + n / 50 + more,
            "pesq": 1.5,
        }
        for device, more in (("ours", 0.1), ("wiener", 0.05))
        for n in range(12)
    ]
    text = recipe.compare(table, "ours", ["wiener"], [5.0])
    assert "+0.050 [0.050, 0.050] better (n = 12)" in text
    assert "+0.00 [0.00, 0.00] cannot be told (n = 12)" in text


def test_voices_are_chosen_by_name_and_must_be_there(config):
    _, _, voices = recipe.excerpts(dataclasses.replace(config, voices=("bob",)))
    assert voices == ["bob"]
    with pytest.raises(ValueError, match="no speech of eve"):
        recipe.excerpts(dataclasses.replace(config, voices=("bob", "eve")))
    with pytest.raises(ValueError, match="0 of 2 voices"):
        recipe.excerpts(dataclasses.replace(config, excerpt_s=5.0))


def test_an_aid_that_reduces_no_noise_is_refused(config, tmp_path):
    aid = Masks(MasksConfig(listener=3, bands=4, width=4, layers=1))
    save_aid(tmp_path / "aid", aid, dataclasses.replace(FACTS, noise_reduction=False))
    with pytest.raises(ValueError, match="compensation alone"):
        recipe.benchmark(config)
    assert not (tmp_path / "scored").exists()
