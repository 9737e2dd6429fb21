"""Noise reduction side by side: every device is scored on voices that are named."""

import dataclasses
import json

import pandas as pd
import pytest
import soundfile
import torch

from compensation.devices import Device, without_rnnoise
from compensation.load import AidFacts, save_aid
from compensation.masks import Masks, MasksConfig
from evaluation.tidy import read, where
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
    rows = read(tmp_path / "scored" / "results.csv")
    devices = ["noisy", "ours", "wiener", "spectral_subtraction"]
    devices += [] if without_rnnoise() else ["rnnoise"]
    assert list(dict.fromkeys(rows.device)) == devices
    assert set(rows.sound) == {"ann", "bob"}
    noisy = where(rows, device="noisy", measure="estoi")
    low, high = (where(noisy, condition=f"{snr} dB").value for snr in (0, 20))
    assert min(high) > max(low)
    assert "| Wiener filter | 7.9 |" in text
    assert (tmp_path / "scored" / "tables.md").read_text() == text
    # Two voices tell nothing.
    assert text.count("cannot be told") >= 2 * 3
    numbers = json.loads((tmp_path / "scored" / "headline.json").read_text())
    assert numbers["noisy/estoi/20 dB"] == pytest.approx(high.mean(), abs=1e-5)


def test_the_aid_is_compared_voice_by_voice():
    rows = pd.DataFrame(
        {
            "listener": "normal",
            "condition": "5 dB",
            "device": device,
            "sound": f"v{n}",
            "measure": measure,
            "value": 0.5 + n / 50 + (more if measure == "estoi" else 0),
        }
        for device, more in (("ours", 0.1), ("wiener", 0.05))
        for n in range(12)
        for measure in ("estoi", "pesq")
    )
    devices = {name: Device(name, None, 8.0) for name in ("ours", "wiener")}
    _, less = recipe.tables(rows, devices)
    assert less.texts() == [
        ["wiener", "8.0", "+0.050 [+0.050, +0.050] better", "0.000 [0.000, 0.000] cannot be told"]
    ]
    assert "listeners 1, sounds 12" in less.about
    assert recipe.headlines(rows, list(devices))["ours-wiener/estoi/5 dB"] == pytest.approx(0.05)


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
