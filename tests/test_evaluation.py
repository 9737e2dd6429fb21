import csv
import itertools
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compensation.prescriptions import nal_r
from evaluation.intelligibility import estoi, haspi, stoi
from evaluation.neural import (
    discrepancies,
    discrepancy,
    fidelity_and_clarity,
    pooled_interval,
    pooled_restoration,
    restoration,
)
from evaluation.quality import (
    hasqi,
    level_change,
    output_level,
    pesq,
    pesq_narrow,
    pieces,
    si_sdr,
)
from evaluation.table import (
    Score,
    bootstrap,
    markdown,
    rows,
    score_each,
    summarise,
    write_csv,
)
from icsim.audiogram import Audiogram
from icsim.sound import SAMPLE_RATE, calibrate, read_mono

SPEECH = Path(__file__).parent / "reference" / "speech.flac"
NORMAL = Audiogram((1000,), (0,))
NEEDS = {stoi: "pystoi", estoi: "pystoi", pesq: "pesq", pesq_narrow: "pesq"}
SLOPING = Audiogram((250, 500, 1000, 2000, 4000, 6000), (45, 45, 35, 45, 60, 65))


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    """Something like speech at 65 dB SPL: harmonics of a gliding voice in syllables, `(1, T)`."""
    time = torch.arange(int(1.3 * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * torch.pi * (120 * time + 5 * torch.sin(2 * torch.pi * 1.5 * time))
    formants = 700 + 400 * torch.sin(2 * torch.pi * 2.3 * time)
    voice = sum(
        torch.sin(n * phase) * torch.exp(-(((120 * n - formants) / 400) ** 2))
        + 0.05 * torch.sin(n * phase)
        for n in range(1, 40)
    )
    return calibrate((voice * torch.sin(2 * torch.pi * 2 * time).abs())[None], 65.0)


@pytest.fixture(scope="module")
def noise(speech) -> torch.Tensor:
    return calibrate(torch.randn(speech.shape, generator=torch.Generator().manual_seed(0)), 65.0)


def at_snr(speech, noise, snr_db):
    return speech + noise * 10 ** (-snr_db / 20)


# --- numbers of other people's programs ---------------------------------------------------------


def test_scores_are_those_of_the_packages_called_directly(speech, noise):
    pystoi, package = pytest.importorskip("pystoi"), pytest.importorskip("pesq")
    for metric, rate_hz, direct in (
        (stoi, 10000, lambda x, y: pystoi.stoi(x, y, 10000)),
        (estoi, 10000, lambda x, y: pystoi.stoi(x, y, 10000, extended=True)),
        (pesq, 16000, lambda x, y: package.pesq(16000, x, y, "wb")),
        (pesq_narrow, 8000, lambda x, y: package.pesq(8000, x, y, "nb")),
    ):
        clean, noisy = speech, at_snr(speech, noise, 5)
        np.random.seed(0)  # noqa: NPY002, ESTOI draws a little noise
        expected = direct(clean[0].double().numpy(), noisy[0].double().numpy())
        assert metric(clean, noisy, rate_hz).values.item() == expected


# --- maxima, order, level -----------------------------------------------------------------------


def test_a_sound_is_perfectly_like_itself(speech):
    pytest.importorskip("pystoi")
    assert stoi(speech, speech, SAMPLE_RATE).values.item() == pytest.approx(1, abs=1e-5)
    assert estoi(speech, speech, SAMPLE_RATE).values.item() == pytest.approx(1, abs=1e-5)
    assert si_sdr(speech, 3 * speech, SAMPLE_RATE).values.item() == 100
    assert level_change(speech, speech, SAMPLE_RATE).values.item() == 0


def test_pesq_of_a_sound_with_itself_is_the_top_of_its_scale(speech):
    pytest.importorskip("pesq")
    # P.862.2: 0.999 + 4 / (1 + exp(-1.3669 × 4.5 + 3.8224))
    assert pesq(speech, speech, SAMPLE_RATE).values.item() == pytest.approx(4.6439, abs=1e-3)
    # P.862.1: 0.999 + 4 / (1 + exp(-1.4945 × 4.5 + 4.6607))
    assert pesq_narrow(speech, speech, SAMPLE_RATE).values.item() == pytest.approx(4.5486, abs=1e-3)


@pytest.mark.parametrize("metric", [stoi, estoi, pesq, pesq_narrow, si_sdr])
def test_scores_rise_with_the_signal_to_noise_ratio(metric, speech, noise):
    pytest.importorskip(NEEDS.get(metric, "torch"))
    noisy = torch.cat([at_snr(speech, noise, snr) for snr in (-5, 5, 15, 25)])
    values = metric(speech.expand(4, -1), noisy, SAMPLE_RATE).values
    assert bool((values.diff() > 0).all()), values


@pytest.mark.parametrize("metric", [haspi, hasqi])
def test_hearing_aid_scores_rise_with_the_signal_to_noise_ratio(metric, speech, noise):
    noisy = torch.cat([at_snr(speech, noise, snr) for snr in (-10, 10)])
    values = metric(speech.expand(2, -1), noisy, SAMPLE_RATE, NORMAL).values
    assert bool((values.diff() > 0).all()), values


def test_scores_of_real_speech_in_noise_fall_with_the_noise():
    pytest.importorskip("pystoi")
    clean = calibrate(read_mono(SPEECH)[None, : int(3 * SAMPLE_RATE)], 65.0)
    noise = calibrate(torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)), 65.0)
    noisy = torch.cat([at_snr(clean, noise, snr) for snr in (-5, 5, 15)])
    values = estoi(clean.expand(3, -1), noisy, SAMPLE_RATE).values
    assert bool((values.diff() > 0.05).all()), values


def test_amplification_helps_an_impaired_ear(speech):
    both = torch.cat([speech, nal_r(speech, SLOPING)])
    unaided, aided = hasqi(speech.expand(2, -1), both, SAMPLE_RATE, SLOPING).values.tolist()
    assert aided > 0.95 > unaided + 0.2


def test_si_sdr_is_the_ratio_that_was_mixed(speech):
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(1))
    noise = noise - (noise * speech).sum() / speech.square().sum() * speech  # orthogonal
    mixed = at_snr(speech, calibrate(noise, 65.0), 7.0)
    for offset_pa in (0, 0.05):  # a constant is not heard
        value = si_sdr(speech, mixed + offset_pa, SAMPLE_RATE).values.item()
        assert value == pytest.approx(7, abs=0.01)


def test_levels_are_in_decibels_of_sound_pressure(speech):
    assert output_level(speech, 2 * speech, SAMPLE_RATE).values.item() == pytest.approx(
        71.02, abs=0.01
    )
    assert level_change(speech, 2 * speech, SAMPLE_RATE).values.item() == pytest.approx(
        6.02, abs=0.01
    )


# --- what cannot be scored ----------------------------------------------------------------------


@pytest.mark.parametrize("metric", [stoi, estoi, pesq, si_sdr, output_level, level_change])
def test_silence_has_a_reason_and_leaves_the_others(metric, speech, noise):
    pytest.importorskip(NEEDS.get(metric, "torch"))
    quiet = torch.zeros_like(speech)
    clean, processed = (
        torch.cat([speech, quiet, speech]),
        torch.cat([quiet, speech, speech + noise]),
    )
    score = metric(clean, processed, SAMPLE_RATE)
    assert score.reasons == ("processed is silent", "clean is silent", None)
    assert score.values.isnan().tolist() == [True, True, False]


def test_each_kind_of_failure_is_named_and_leaves_the_others(speech):
    broken = speech[0].clone()
    broken[100] = math.nan
    clean = [speech[0], speech[0], speech[0, :100], speech[0]]
    processed = [speech[0, 1:], broken, speech[0, :100], speech[0]]
    reasons = si_sdr(clean, processed, SAMPLE_RATE).reasons
    assert "shapes differ" in reasons[0]
    assert "NaN" in reasons[1]
    assert "too short" in reasons[2]
    assert reasons[3] is None


def test_what_a_metric_raises_becomes_the_reason(speech):
    def fails(clean, processed):
        raise IndexError("out of range")

    score = score_each(fails, speech, speech, SAMPLE_RATE)
    assert score.reasons == ("IndexError: out of range",)
    assert score_each(lambda *_: math.inf, speech, speech, 1e4).reasons == ("the result is inf",)


def test_stoi_of_too_little_speech_is_missing_not_nearly_zero(speech):
    pytest.importorskip("pystoi")
    score = stoi(speech[:, :5000], speech[:, :5000], SAMPLE_RATE)
    assert "too little speech" in score.reasons[0]


def spoken(duration_s: float, rate: int = 8000) -> tuple[torch.Tensor, torch.Tensor]:
    """Words of 0.9 s in pauses of 0.6 s, and the same in noise that grows, `(1, T)` each."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(round(duration_s * rate)) / rate
    phase = 2 * torch.pi * (120 * time + 3 * torch.sin(2 * torch.pi * 1.1 * time))
    voice = sum(torch.sin(n * phase) / n for n in range(1, 25)) * (time % 1.5 < 0.9)
    voice = voice * (0.3 + torch.sin(2 * torch.pi * 3.3 * time) ** 2)
    noise = torch.randn(len(time), generator=generator) * (0.01 + 0.2 * time / duration_s)
    return voice[None], (voice + noise)[None]


def test_pesq_of_a_long_sound_is_the_mean_of_its_parts_and_says_so():
    pytest.importorskip("pesq")
    clean, noisy = spoken(45.0)
    score = pesq_narrow(clean, noisy, 8000)
    assert score.reasons == (None,)
    assert score.notes == ("mean of 3 pieces of 15.0 s",)
    cuts = pieces(clean[0], 8000)
    parts = [pesq_narrow(clean[:, cut], noisy[:, cut], 8000).values.item() for cut in cuts]
    # Noise grows, so the parts differ, and a single one would not do.
    assert parts[0] > parts[1] + 0.1 > parts[2] + 0.1
    assert score.values.item() == pytest.approx(sum(parts) / 3, abs=0.02)
    fixed = [slice(n * 120_000, (n + 1) * 120_000) for n in range(3)]
    apart = [pesq_narrow(clean[:, cut], noisy[:, cut], 8000).values.item() for cut in fixed]
    assert score.values.item() == pytest.approx(sum(apart) / 3, abs=0.1)


def test_pesq_leaves_out_pieces_in_which_nothing_is_said():
    pytest.importorskip("pesq")
    clean, noisy = spoken(45.0)
    clean[:, 13 * 8000 : 32 * 8000] = 0
    score = pesq_narrow(clean, noisy, 8000)
    assert re.match(r"mean of 2 pieces of .* s; 1 more without an utterance", score.notes[0])


@pytest.mark.parametrize("duration_s", [20.1, 24.0, 31.9, 32.1, 45.0, 100.0])
def test_pieces_of_long_sounds_last_8_to_20_s_and_begin_in_pauses(duration_s):
    clean = spoken(duration_s, 1000)[0][0]
    cuts = pieces(clean, 1000)
    assert (cuts[0].start, cuts[-1].stop) == (0, len(clean))
    assert all(first.stop == second.start for first, second in itertools.pairwise(cuts))
    assert all(8000 <= cut.stop - cut.start <= 20_000 for cut in cuts)
    assert all(clean[cut.start - 80 : cut.start + 80].abs().max() == 0 for cut in cuts[1:])


def test_pesq_of_20_s_is_one_piece_without_a_note(speech):
    pytest.importorskip("pesq")
    assert pieces(torch.ones(20 * 8000), 8000) == [slice(0, 160_000)]
    assert pesq(speech, speech, SAMPLE_RATE).notes == (None,)


def test_hearing_aid_scores_refuse_less_than_a_second(speech):
    clip = speech[:, : int(0.9 * SAMPLE_RATE)]
    for metric in (haspi, hasqi):
        assert "too short" in metric(clip, clip, SAMPLE_RATE, NORMAL).reasons[0]
    second = speech[:, : int(SAMPLE_RATE)]  # 24414 samples, a hair less than a second
    assert hasqi(second, second, SAMPLE_RATE, NORMAL).reasons == (None,)


def test_hearing_aid_scores_refuse_what_is_not_heard(speech):
    whisper = calibrate(speech, 5.0)
    assert "heard" in haspi(whisper, whisper, SAMPLE_RATE, NORMAL).reasons[0]
    assert "threshold" in hasqi(whisper, whisper, SAMPLE_RATE, SLOPING).reasons[0]
    word = speech.clone()
    word[:, int(0.5 * SAMPLE_RATE) :] = 0
    assert "heard" in haspi(word, speech, SAMPLE_RATE, NORMAL).reasons[0]


@pytest.mark.parametrize(
    ("module", "metric", "remedy"),
    [
        ("pystoi", stoi, 'pip install "icsim[metrics]"'),
        ("pesq", pesq, 'pip install "icsim[pesq]"'),
    ],
)
def test_a_missing_package_makes_its_score_missing(monkeypatch, speech, module, metric, remedy):
    monkeypatch.setitem(sys.modules, module, None)
    score = metric(speech, speech, SAMPLE_RATE)
    assert score.values.isnan().all()
    assert "not installed" in score.reasons[0]
    assert remedy in score.reasons[0]


def test_sets_that_do_not_match_are_refused(speech):
    with pytest.raises(ValueError, match="match them"):
        si_sdr(speech, speech.expand(2, -1), SAMPLE_RATE)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        si_sdr(speech[0], speech[0], SAMPLE_RATE)


def test_a_missing_value_needs_a_reason():
    with pytest.raises(ValueError, match="reasons"):
        Score(torch.tensor([math.nan]), (None,))


def test_noisy_metrics_repeat_and_leave_the_generator_alone(speech):
    def draws(clean, processed):
        return np.random.uniform()  # noqa: NPY002

    both = speech.expand(2, -1)
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.uniform()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first, second = score_each(draws, both, both, SAMPLE_RATE, seed=1).values
    assert first == second  # whatever was scored before
    assert score_each(draws, speech, speech, SAMPLE_RATE, seed=1).values == first
    assert score_each(draws, speech, speech, SAMPLE_RATE, seed=2).values != first
    assert np.random.uniform() == expected  # noqa: NPY002


def test_metrics_get_the_rate_that_they_want():
    time = torch.arange(48828) / SAMPLE_RATE
    tone = torch.sin(2 * torch.pi * 1000 * time)[None]

    def peak_hz(clean, processed):
        assert len(clean) == len(processed) == 48000
        return torch.fft.rfft(clean).abs().argmax().item() / 2

    assert score_each(peak_hz, tone, tone, SAMPLE_RATE, rate_hz=24000).values.item() == 1000


# --- neural restoration -------------------------------------------------------------------------


@pytest.fixture
def responses():
    """Expected counts of a normal and an impaired midbrain, `(B, C, N)`."""
    normal = torch.rand(3, 5, 40, generator=torch.Generator().manual_seed(0))
    return normal, 0.4 * normal


def test_restoration_is_one_when_perfect_zero_without_aid_negative_when_worse(responses):
    normal, impaired = responses
    aided = torch.stack([normal[0], impaired[1], 0 * impaired[2]])
    values = restoration(aided, impaired, normal).values
    assert values[:2].tolist() == pytest.approx([1, 0])
    assert values[2].item() == pytest.approx(1 - 1 / 0.36)


def test_nothing_to_restore_and_broken_responses_have_their_reason(responses):
    normal, impaired = responses
    unaided, aided = impaired.clone(), impaired.clone()
    unaided[0], aided[1, 0, 0] = normal[0], math.nan
    score = restoration(aided, unaided, normal)
    assert "no loss" in score.reasons[0]
    assert "NaN" in score.reasons[1]
    assert score.values[2] == 0


def test_pooling_is_not_upset_by_a_sound_without_loss():
    aided, unaided = torch.tensor([10.0, 20.0, 0.5]), torch.tensor([40.0, 80.0, 1e-3])
    assert pooled_restoration(aided, unaided) == pytest.approx(1 - 30.5 / 120.001)
    assert pooled_restoration(aided[:2], unaided[:2]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no loss"):
        pooled_restoration(aided, torch.zeros(3))


def test_pooled_interval_holds_its_estimate():
    generator = torch.Generator().manual_seed(0)
    unaided = 1 + torch.rand(40, generator=generator)
    aided = unaided * (0.5 + 0.2 * torch.randn(40, generator=generator))
    low, high = pooled_interval(aided, unaided)
    assert low < pooled_restoration(aided, unaided) < high
    assert high - low < 0.3


def test_taking_noise_away_costs_fidelity_and_gives_clarity():
    def normal(sound):
        return sound.unflatten(-1, (2, -1))

    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 100, generator=generator) for _ in range(2))
    noisy = clean + noise
    devices = {"amplifier": 2 * noisy, "perfect": 2 * clean}
    found = fidelity_and_clarity(lambda x: normal(x) / 2, normal, clean, noisy, devices)
    values = {
        device: {name: pooled_restoration(*one) for name, one in both.items()}
        for device, both in found.items()
    }
    assert values["amplifier"]["fidelity"] == pytest.approx(1)
    assert values["perfect"]["clarity"] == pytest.approx(1)
    # The noise is missed or left: as much as there is of it, over what no aid leaves.
    lost, left = noise.square().sum(), (noisy / 2).square().sum()
    assert values["perfect"]["fidelity"] == pytest.approx(1 - (lost / left).item(), rel=1e-4)
    left = (noisy / 2 - clean).square().sum()
    assert values["amplifier"]["clarity"] == pytest.approx(1 - (lost / left).item(), rel=1e-4)


def test_in_quiet_fidelity_and_clarity_are_the_same_and_what_they_were(responses):
    normal, _ = responses
    sound = normal.flatten(1)

    def ear(sound):
        return sound.view(3, 5, 40)

    both = fidelity_and_clarity(lambda x: ear(x).sqrt(), ear, sound, sound, {"aid": sound**1.5})
    for found in both["aid"].values():
        expected = discrepancies(lambda x: ear(x).sqrt(), ear, sound, sound**1.5)
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"clean .* align them"):
        fidelity_and_clarity(ear, ear, sound[:, 1:], sound, {"aid": sound})


def test_discrepancy_is_a_sum_over_channels_and_bins():
    assert discrepancy(torch.zeros(2, 3, 4), torch.full((2, 3, 4), 0.5)).tolist() == [3.0, 3.0]


def test_responses_that_cannot_be_compared_are_refused(responses):
    normal, impaired = responses
    with pytest.raises(ValueError, match="same bins"):
        restoration(impaired[..., :-1], impaired, normal)
    with pytest.raises(ValueError, match="align them"):
        discrepancies(torch.abs, torch.abs, torch.ones(1, 10), torch.ones(1, 9))


# --- tables -------------------------------------------------------------------------------------


@pytest.fixture
def table():
    values = torch.randn(20, generator=torch.Generator().manual_seed(0)) + 3
    files = [f"{index}.wav" for index in range(20)]
    holes = Score(torch.tensor([math.nan] * 19 + [2.0]), ("silent",) * 19 + (None,))
    none = Score(torch.full((20,), math.nan), ("pesq is not installed",) * 20)
    aid = rows("aid", files, {"stoi": Score(values, (None,) * 20), "haspi": holes, "pesq": none})
    return aid + rows("unaided", files, {"stoi": Score(values - 1, (None,) * 20)})


def test_rows_say_what_is_missing_and_why(table):
    assert table[0]["haspi"] is None
    assert table[0]["missing"] == "haspi: silent; pesq: pesq is not installed"
    assert table[19]["haspi"] == 2.0
    with pytest.raises(ValueError, match="20 files"):
        rows("aid", ["a"] * 20, {"stoi": Score(torch.ones(1), (None,))})


def test_summary_leaves_out_the_missing_and_counts_them(table):
    summary = {(row["device"], row["score"]): row for row in summarise(table)}
    stoi_row, haspi_row = summary["aid", "stoi"], summary["aid", "haspi"]
    mean = sum(row["stoi"] for row in table[:20]) / 20
    assert stoi_row["mean"] == pytest.approx(mean, rel=1e-5)
    assert stoi_row["low"] < mean < stoi_row["high"]
    assert (haspi_row["mean"], haspi_row["low"]) == (2.0, None)
    assert (haspi_row["files"], haspi_row["missing"]) == (1, 19)
    assert (summary["aid", "pesq"]["mean"], summary["aid", "pesq"]["missing"]) == (None, 20)
    assert ("unaided", "haspi") not in summary


def test_bootstrap_repeats_and_narrows_with_more_files():
    samples = torch.randn(400, generator=torch.Generator().manual_seed(0))
    assert bootstrap(samples, seed=1) == bootstrap(samples, seed=1)
    assert bootstrap(samples, seed=1) != bootstrap(samples, seed=2)
    low, high = bootstrap(samples)
    # The interval of a mean of 400 numbers is 2 × 1.96 / √400 wide.
    assert high - low == pytest.approx(0.196 * samples.std().item(), rel=0.1)
    few_low, few_high = bootstrap(samples[:25])
    assert few_high - few_low > 2 * (high - low)


def test_markdown_shows_every_device_and_score(table):
    lines = markdown(summarise(table)).splitlines()
    assert lines[0] == "| device | stoi | haspi | pesq |"
    assert lines[2].startswith("| aid |")
    assert "| 2 (1) | missing |" in lines[2]
    assert lines[3].endswith("| – | – |")


def test_files_bring_the_rows_back(tmp_path, table):
    write_csv(tmp_path / "scores.csv", table)
    with (tmp_path / "scores.csv").open(newline="") as file:
        back = list(csv.DictReader(file))
    assert float(back[0]["stoi"]) == table[0]["stoi"]
    assert (back[0]["haspi"], back[0]["missing"]) == ("", table[0]["missing"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv"]


def test_cells_that_a_spreadsheet_would_run_are_inert_in_csv(tmp_path):
    starts = ("=1+1", "+1", "-1+1|cmd", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1")
    table = [
        {"device": start, "file": f"{start}.wav", "stoi": -0.5, "missing": start, "notes": "a=b"}
        for start in starts
    ]
    write_csv(tmp_path / "scores.csv", table)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        back = list(csv.DictReader(file))
    for start, row in zip(starts, back, strict=True):
        assert (row["device"], row["file"], row["missing"]) == (
            f"'{start}",
            f"'{start}.wav",
            f"'{start}",
        )
        # Numbers stay numbers, and text that is harmless stays as it is.
        assert (row["stoi"], row["notes"]) == ("-0.5", "a=b")
