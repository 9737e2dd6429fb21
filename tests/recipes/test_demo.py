"""What a demo refuses before it has made anything."""

import pytest
import soundfile
import torch

from recipes import demo, fit_theta, make_cohort


def folder_of_sounds(path, count: int, seconds: float = 2.0):
    path.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for number in range(count):
        sound = 0.05 * torch.randn(round(16000 * seconds), generator=draw)
        soundfile.write(path / f"{number}.wav", sound.numpy(), 16000)


@pytest.mark.filterwarnings("ignore:.*were asked for")
@pytest.mark.parametrize(
    ("kind", "count", "seconds", "message"),
    [
        ("", 8, 2.0, "no speech of 0.5 s that the aid learns from .*a folder called `speech`"),
        ("speech", 2, 2.0, r"2 source\(s\)"),
        ("speech", 9, 1.0, "no speech of 1.5 s that the aid is judged on .* has 1.0 s"),
    ],
)
def test_too_few_sounds_are_refused_before_anything_is_written(
    tmp_path, kind, count, seconds, message
):
    folder_of_sounds(tmp_path / "my sounds" / kind, count, seconds)
    config = demo.Config(str(tmp_path / "demo"), sounds=str(tmp_path / "my sounds"), size="tiny")
    with pytest.raises(ValueError, match=message):
        demo.demo(config)
    assert not (tmp_path / "demo").exists()


@pytest.mark.filterwarnings("ignore:.*were asked for")
def test_noisy_speech_is_refused_before_an_earlier_demo_is_moved_aside(tmp_path):
    folder_of_sounds(tmp_path / "sounds" / "speech", 9, 4.0)
    config = demo.Config(str(tmp_path / "demo"), sounds=str(tmp_path / "sounds"), size="tiny")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"seem noisy.*--pause_depth_db 0"):
        demo.demo(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "sounds"]
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["config.json"]


def test_a_listener_that_heard_nothing_in_time_is_named_before_training(monkeypatch):
    def heard_nothing(cohort, animal, first_hours):
        raise ValueError("no frame of 8192 samples")

    monkeypatch.setattr(demo, "first_frames", heard_nothing)
    config = fit_theta.Config("C", "M", "O", "new", first_hours=2.0)

    class Cohort:
        path = "/runs/demo/cohort/cohort.zarr"

    with pytest.raises(ValueError, match=r"new heard no training sound in the first 2 h"):
        demo.check_early_sounds(Cohort, config)


def test_every_stage_is_planned_with_one_for_each_new_listener():
    members = [
        make_cohort.Member("a", "NH"),
        make_cohort.Member("z", "HI", role="unseen"),
        make_cohort.Member("y", "hidden", role="unseen"),
    ]
    plan = demo.planned(members, "demo")
    assert list(plan)[4:6] == ["fit of y", "fit of z"]
    assert len(plan) == 10
    assert all(seconds > 0 for seconds in plan.values())
    assert set(demo.planned(members, "tiny").values()) == {None}
