"""A short session in a real browser, by keyboard alone, with the server killed on the way."""

import dataclasses
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
import soundfile
import torch

from compensation.load import AidFacts, save_aid
from compensation.masks import Masks, MasksConfig
from icsim.fits import read_fit
from icsim.models.encoders import SincNetConfig
from icsim.models.facts import ModelFacts
from icsim.models.load import save_model
from icsim.models.response import ResponseModel, beta_icnet
from icsim.weights import fingerprint
from recipes import listen
from recipes.running.commands import run

sync_api = pytest.importorskip("playwright.sync_api")
axe_core = pytest.importorskip("axe_playwright_python.base")
pytest.importorskip("fastapi")
storage = pytest.importorskip("compensation.listening.storage")

ROOT = Path(__file__).parents[2]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE_MS = 60_000


def study(folder: Path) -> dict[str, str]:
    """A model, an aid and sounds, untrained and small: the options of a session with them."""
    torch.manual_seed(0)
    encoder = SincNetConfig(filters=4, kernels=6, size=8, bottleneck=6)
    model = ResponseModel(beta_icnet(3, channels=4, parameters=2, encoder=encoder))
    facts = ModelFacts(("a", "b", "c"), ("a",), torch.arange(4).expand(3, -1), 4)
    save_model(folder / "model.safetensors", model, facts)
    mark = fingerprint(folder / "model.safetensors")
    aid = Masks(MasksConfig(listener=2, bands=9, width=6, layers=1, window=128, hop=24))
    save_aid(folder / "aid.safetensors", aid, AidFacts("theta", mark, True))
    (folder / "sounds").mkdir()
    for name in ("one", "two"):
        sound = torch.randn(24000) * torch.hann_window(24000)
        soundfile.write(folder / "sounds" / f"{name}.wav", 0.05 * sound.numpy(), 16000)
    return {
        "model": str(folder / "model.safetensors"),
        "aid": str(folder / "aid.safetensors"),
        "sounds": str(folder / "sounds"),
        "study": str(folder / "study"),
        "seconds": "1",
        "comparisons": "4",
        "confirmations": "1",
        "break_after": "3",
    }


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(options: dict[str, str]) -> subprocess.Popen:
    """A server, once it says where it is."""
    arguments = [f"--{name}={value}" for name, value in options.items()]
    server = subprocess.Popen(
        [sys.executable, "-m", "recipes.listen", *arguments, "--demo=true"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in server.stdout:
        if "goes on" in line:
            return server
    raise AssertionError(f"the server ended with {server.wait()}")


def kill(server: subprocess.Popen) -> None:
    """At once, as a power cut would."""
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()


def fetch(port: int, path: str):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}") as reply:
        return json.loads(reply.read())


@pytest.fixture
def page():
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--mute-audio"],
            )
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start: {error}")
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def check_accessible(page) -> None:
    """No finding of axe-core, light or dark, on a telephone or a desk."""
    page.evaluate(axe_core.AXE_SCRIPT)
    for scheme, width in (("dark", 390), ("light", 1280)):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 844})
        findings = page.evaluate("axe.run()")["violations"]
        assert not findings, [
            (scheme, width, found["id"], found["nodes"][0]["html"]) for found in findings
        ]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def hear_by_keys(page) -> None:
    """Hear A, then B, repeated so that a slow machine hears enough of both."""
    sync_api.expect(page.locator("#hear-a")).to_be_enabled(timeout=PATIENCE_MS)
    page.keyboard.press("l")
    page.keyboard.press("1")
    page.wait_for_timeout(600)
    page.keyboard.press("2")
    sync_api.expect(page.locator("#answer-a")).to_be_enabled(timeout=PATIENCE_MS)
    page.keyboard.press("l")


def answer_by_keys(page, key: str) -> None:
    """Hear A, then B, then say which."""
    hear_by_keys(page)
    title = page.locator("#trial-title").text_content()
    page.keyboard.press(key)
    page.wait_for_function(
        "title => document.getElementById('trial').hidden || "
        "document.getElementById('trial-title').textContent !== title",
        arg=title,
    )


def test_a_session_by_keyboard_survives_a_killed_server(page, tmp_path):
    options = study(tmp_path) | {"port": str(free_port())}
    port = int(options["port"])
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.extend(elsewhere(request.url, port)))
    server = start(options)
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#consent:not([hidden])")
        check_accessible(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#level:not([hidden])")
        sync_api.expect(page.locator("#sample")).to_be_enabled(timeout=PATIENCE_MS)
        check_accessible(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        answer_by_keys(page, "a")
        answer_by_keys(page, "n")
        check_accessible(page)

        # Killed in mid-trial: the page waits, and the answer given meanwhile is kept once.
        sync_api.expect(page.locator("#hear-a")).to_be_enabled(timeout=PATIENCE_MS)
        sync_api.expect(page.locator("#trial-title")).to_have_text("Comparison 3 of at most 4")
        kill(server)
        hear_by_keys(page)
        page.keyboard.press("b")
        page.wait_for_selector("#trouble:not([hidden])")
        server = start(options)
        page.wait_for_selector("#rest:not([hidden])")
        sync_api.expect(page.locator("#trouble")).to_be_hidden()
        assert fetch(port, "session")["answered"] == 3

        # The browser is closed, too, and another one goes on.
        page.reload()
        page.wait_for_selector("#rest:not([hidden])")
        check_accessible(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        answer_by_keys(page, "a")
        assert "Final comparison 1 of 2" in page.locator("#trial-title").text_content()
        answer_by_keys(page, "a")
        answer_by_keys(page, "b")
        page.wait_for_selector("#end:not([hidden])")
        outcome = page.locator("#outcome").text_content()
        check_accessible(page)

        whole = fetch(port, "experimenter/session.json")
        kinds = [event["kind"] for event in whole["events"]]
        assert kinds.count("answer") == 6
        choices = [e["content"]["choice"] for e in whole["events"] if e["kind"] == "answer"]
        assert choices == ["a", "same", "b", "a", "a", "b"]
        (tmp_path / "theta.json").write_text(json.dumps(fetch(port, "experimenter/theta.json")))
        mark = fingerprint(options["model"])
        assert read_fit(tmp_path / "theta.json", mark).theta.shape == (2,)
        page.goto(f"http://127.0.0.1:{port}/experimenter")
        page.wait_for_selector("#content:not([hidden])")
        check_accessible(page)
        # One pair each cannot confirm anything, whatever was answered.
        verdict = fetch(port, "experimenter")["verdict"]
        assert verdict in ("not confirmed", "cannot be told")
        shown = [page.locator(place).text_content() for place in ("#facts", "#confirmation")]
        assert all(verdict in text for text in (outcome, *shown))
        assert errors == []
        server.send_signal(signal.SIGINT)
        assert server.wait() == 130
    finally:
        kill(server)


def elsewhere(url: str, port: int) -> list[str]:
    return [] if url.startswith((f"http://127.0.0.1:{port}/", "blob:")) else [url]


def test_what_is_missing_is_said_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="make demo"):
        listen.listen(listen.Config())
    options = study(tmp_path)
    whole = {k: v for k, v in options.items() if k in ("model", "aid", "sounds")}
    own = listen.Config(**whole, seconds=1.0, mode="gain")
    with pytest.raises(ValueError, match="--calibration"):
        listen.listen(own)
    replace = listen.dataclasses.replace
    with pytest.raises(ValueError, match="--mode"):
        listen.listen(replace(own, mode=None))
    with pytest.raises(ValueError, match="--token"):
        listen.listen(replace(own, demo=True, host="0.0.0.0"))
    with pytest.raises(ValueError, match="maximum_db_spl"):
        listen.listen(replace(own, demo=True, maximum_db_spl=130.0))
    with pytest.raises(ValueError, match="listener"):
        listen.listen(replace(own, demo=True, listener="../L01"))
    with pytest.raises(ValueError, match="lower --seconds"):
        listen.listen(replace(own, demo=True, seconds=5.0))
    other = replace(own, demo=True, model=str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        listen.listen(other)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"port": 99_999}, "port"),
        ({"port": -1}, "port"),
        ({"host": "192.0.2.1", "token": "0123456789abcdef"}, "--host"),
        ({"token": "short"}, "at least 16"),
        ({"token": "0123456789abcdef", "token_file": "token"}, "not both"),
        ({"token_file": "empty"}, "empty: is empty"),
        ({"token_file": "sounds"}, "--token_file sounds"),
        ({"consent": "misspelt.txt"}, "--consent misspelt.txt"),
        ({"consent": "empty"}, "--consent empty"),
        ({"audiogram": "N33"}, "N33"),
        ({"start": "misspelt.json"}, "misspelt.json"),
        ({"comparisons": 0}, "comparisons"),
        ({"comparisons": 100_000}, "comparisons"),
        ({"confirmations": -1}, "confirmations"),
        ({"break_after": 0}, "break"),
        ({"most_sounds": 0}, "most_sounds"),
        ({"gain": -3.0}, "gain"),
        ({"noise_reduction": math.nan}, "noise_reduction"),
        ({"level_db_spl": math.nan}, "level"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_prepared(tmp_path, monkeypatch, changes, named):
    monkeypatch.chdir(tmp_path)
    given = study(Path())
    Path("empty").write_text("\n")
    numbers = {key: int(given.pop(key)) for key in ("comparisons", "confirmations", "break_after")}
    monkeypatch.setattr(listen, "prepared", lambda config: pytest.fail("was prepared"))
    options = {**given, **numbers, "seconds": 1.0, "demo": True, "port": free_port()}
    with pytest.raises(ValueError, match=named):
        listen.listen(listen.Config(**options | changes))
    assert not Path(options["study"]).exists()


def test_a_port_in_use_is_said_before_anything_is_prepared(tmp_path, monkeypatch):
    given = {
        key: path for key, path in study(tmp_path).items() if key in ("model", "aid", "sounds")
    }
    monkeypatch.setattr(listen, "prepared", lambda config: pytest.fail("was prepared"))
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"{port}: Address already in use; choose another"):
            listen.listen(listen.Config(**given, seconds=1.0, demo=True, port=port))


def test_other_settings_are_said_before_the_minutes_of_preparation(tmp_path, monkeypatch):
    given = {
        key: path for key, path in study(tmp_path).items() if key in ("model", "aid", "sounds")
    }
    config = listen.Config(
        **given,
        seconds=1.0,
        demo=True,
        port=free_port(),
        study=str(tmp_path / "study"),
        audiogram="N3",  # which says nothing to a model that knows no audiograms
    )
    with closing(storage.connect(tmp_path / "study" / "L01.sqlite")) as connection:
        settings, _, _ = listen.prepared(config)
        storage.append(connection, "settings", dataclasses.asdict(settings))
    monkeypatch.setattr(listen, "heard_shape", lambda *_: pytest.fail("was prepared"))
    with pytest.raises(ValueError, match="other comparisons, seed"):
        listen.listen(dataclasses.replace(config, comparisons=7, seed=3))


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("ICSIM_LISTENING_TOKEN", raising=False)
    assert listen.experimenter_token(listen.Config()) is None
    path = tmp_path / "kept" / "token"
    drawn = listen.experimenter_token(listen.Config(token_file=str(path)))
    assert len(drawn) >= 16
    assert path.stat().st_mode & 0o077 == 0
    assert listen.experimenter_token(listen.Config(token_file=str(path))) == drawn
    monkeypatch.setenv("ICSIM_LISTENING_TOKEN", "from-the-environment")
    assert listen.experimenter_token(listen.Config()) == "from-the-environment"
    assert listen.experimenter_token(listen.Config(token_file=str(path))) == drawn


def test_an_aid_of_another_model_is_refused(tmp_path, monkeypatch, capsys):
    options = study(tmp_path)
    aid = Masks(MasksConfig(listener=2, bands=9, width=6, layers=1, window=128, hop=24))
    save_aid(options["aid"], aid, AidFacts("theta", "another", True))
    arguments = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr(sys, "argv", ["listen", *arguments, "--demo=true"])
    with pytest.raises(SystemExit, match="2"):
        run(listen.listen, listen.Config)
    assert "trained through model another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("lab", False)],
)
def test_which_addresses_are_this_machine(host, local):
    assert listen.is_local(host) == local


def test_the_listener_s_token_does_not_tell_the_experimenter_s():
    token = "experimenter-0123456789"
    assert listen.listener_token(token) == listen.listener_token(token)
    assert token not in listen.listener_token(token)
    assert len(listen.listener_token(token)) >= 16
