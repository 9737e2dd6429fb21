"""Spikes are found where they are, and noise crosses as often as theory says."""

import numpy as np
import pytest
import torch
from scipy import signal

from icsim.mua import BAND_HZ, FILTER_ORDER, THRESHOLD_SD, count_spikes, multi_unit_activity
from icsim.sound import RESPONSE_RATE, SAMPLE_RATE

RATES = pytest.mark.parametrize("sample_rate", [12_000.0, SAMPLE_RATE, 30_000.0])


def noise(seconds: float, sample_rate: float = SAMPLE_RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * sample_rate))


def with_spikes(times_s: np.ndarray, sample_rate: float, height: float = 10.0) -> np.ndarray:
    """Noise with pulses of about 0.3 ms, in the pass band some 15 SD above it."""
    trace = noise(2.0, sample_rate)
    time_s = np.arange(len(trace)) / sample_rate
    for spike_s in times_s:
        trace += height * np.exp(-0.5 * ((time_s - spike_s) / 0.1e-3) ** 2)
    return trace


@RATES
def test_planted_spikes_are_counted_once_in_their_bins(sample_rate):
    start_s, bins = 0.237, 1200
    planted = np.arange(100, 1100, 25)
    times_s = start_s + (planted + 0.6) / RESPONSE_RATE
    counts = multi_unit_activity(with_spikes(times_s, sample_rate), sample_rate, start_s, bins)
    by_noise = multi_unit_activity(noise(2.0, sample_rate), sample_rate, start_s, bins)
    assert counts.shape == (1, bins)
    assert counts.dtype == torch.uint8
    assert counts[0, planted].tolist() == [1] * len(planted)
    assert abs(counts.sum().item() - by_noise.sum().item() - len(planted)) <= 3


def test_noise_crosses_as_often_as_rice_says():
    """Rate of upward crossings of Gaussian noise. Source: Rice, Bell Syst. Tech. J. 24 (1945)."""
    seconds, sample_rate = 40.0, 200_000.0  # so that no excursion lies between two samples
    band = signal.butter(FILTER_ORDER, BAND_HZ, "bandpass", fs=sample_rate, output="sos")
    hz, response = signal.sosfreqz(band, 8192, fs=sample_rate)
    power = np.abs(response) ** 4  # forwards and backwards
    expected_hz = np.sqrt((power * hz**2).sum() / power.sum()) * np.exp(-(THRESHOLD_SD**2) / 2)
    bins = int(seconds * RESPONSE_RATE)
    found = multi_unit_activity(noise(seconds, sample_rate), sample_rate, 0.0, bins).sum().item()
    assert found == pytest.approx(expected_hz * seconds, rel=0.2)


def test_unit_offset_and_hum_change_nothing():
    times_s = np.arange(0.1, 1.9, 0.05)
    trace = with_spikes(times_s, SAMPLE_RATE)
    hum = 20 * np.sin(2 * np.pi * 50 * np.arange(len(trace)) / SAMPLE_RATE)
    counts = [
        multi_unit_activity(t, SAMPLE_RATE, 0.0, 1500)
        for t in (trace, 1e-6 * trace + 3, trace + hum)
    ]
    assert torch.equal(counts[0], counts[1])
    assert (counts[0] != counts[2]).sum() <= 2


def test_channels_do_not_know_each_other():
    both = np.stack([noise(1.0, seed=1), 100 * noise(1.0, seed=2)])
    counts = multi_unit_activity(torch.from_numpy(both), SAMPLE_RATE, 0.1, 600)
    for channel, trace in zip(counts, both, strict=True):
        assert torch.equal(channel, multi_unit_activity(trace, SAMPLE_RATE, 0.1, 600)[0])
    assert not torch.equal(counts[0], counts[1])


def test_bins_follow_the_onset():
    trace = noise(1.0)
    whole = multi_unit_activity(trace, SAMPLE_RATE, 0.0, 760)[0]
    for first in (1, 77, 500):
        start_s = 32 * first / SAMPLE_RATE
        later = multi_unit_activity(trace, SAMPLE_RATE, start_s, 200)[0]
        assert torch.equal(later, whole[first : first + 200])


def changed(**samples) -> np.ndarray:
    trace = np.stack([noise(1.0), noise(1.0)])
    for value in samples.values():
        trace[1, : value[0]] = value[1]
    return trace


@pytest.mark.parametrize(
    ("trace", "sample_rate", "start_s", "bins", "message"),
    [
        (changed(nan=(5, np.nan)), SAMPLE_RATE, 0.1, 10, "channel 1: 5 samples are NaN"),
        (changed(infinite=(1, np.inf)), SAMPLE_RATE, 0.1, 10, "channel 1: 1 samples are NaN"),
        (changed(silent=(None, 0.0)), SAMPLE_RATE, 0.1, 10, "channel 1: silent"),
        (
            changed(constant=(20_000, 0.7)),
            SAMPLE_RATE,
            0.1,
            10,
            "channel 1: silent, more than half",
        ),
        (noise(1.0), 10_000.0, 0.1, 10, "10000.0 Hz does not hold frequencies up to 5000 Hz"),
        (noise(1.0), SAMPLE_RATE, 0.5, 382, r"1.000 s does not hold 382 bins from 0.5 s"),
        (noise(1.0), SAMPLE_RATE, -0.1, 10, "bins from -0.1 s"),
        (noise(1.0), SAMPLE_RATE, 0.1, 0, "does not hold 0 bins"),
        (np.zeros((2, 2, 9)), SAMPLE_RATE, 0.1, 10, r"must be \(T,\) or \(C, T\)"),
    ],
)
def test_a_trace_that_cannot_be_used_is_refused(trace, sample_rate, start_s, bins, message):
    with pytest.raises(ValueError, match=message):
        multi_unit_activity(trace, sample_rate, start_s, bins)


def test_every_spike_inside_is_in_one_bin_and_those_outside_in_none():
    times_s = np.random.default_rng(0).uniform(-1, 4, 5000)
    counts = count_spikes(times_s, 0.5, 1000)
    inside = (times_s >= 0.5) & (times_s < 0.5 + 1000 / RESPONSE_RATE)
    assert counts.sum() == inside.sum() > 0


def test_a_spike_on_an_edge_belongs_to_the_bin_that_begins_there():
    for start_s in (0.0, 0.1, 1 / 3, 3600 * 10.7):
        edges_s = start_s + np.arange(1000) / RESPONSE_RATE
        assert count_spikes(edges_s, start_s, 1000).tolist() == [1] * 1000


def test_spike_times_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="1 spike times are NaN"):
        count_spikes(np.array([0.1, np.nan]), 0.0, 10)
    with pytest.raises(ValueError, match=r"300 spikes in a bin of 1.311 ms; at most 254"):
        count_spikes(np.full(300, 0.001), 0.0, 10)
