"""Versions of a sound on a page: another choice goes on at the same sample."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.reports.page import TEMPLATES, inline, template

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

PAGE = """{% import "players.html" as players %}<!doctype html><title>Players</title>
<style>{{ players.styles() }}</style>
{{ players.player("Speech in quiet", versions) }}{{ players.player("Speech in noise", versions) }}
{{ players.script() }}"""

WATCH = """
window.started = []; window.gains = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...when) {
  started.push(when);
  start.apply(this, when);
};
const gain = AudioContext.prototype.createGain;
AudioContext.prototype.createGain = function () {
  const made = gain.apply(this);
  gains.push(made.gain);
  return made;
};
"""


def page_of_players(folder: Path) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(24000, 0.1), 24000, format="WAV", subtype="PCM_16")
    source = inline("audio/wav", buffer.getvalue())
    versions = [{"name": name, "level_db_spl": 65.0, "src": source} for name in ("one", "two")]
    environment = template("players.html").environment
    assert (TEMPLATES / "players.html").is_file()
    path = folder / "page.html"
    path.write_text(environment.from_string(PAGE).render(versions=versions), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no browser is installed")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def test_another_version_goes_on_at_the_same_sample(tmp_path, browser):
    page = browser.new_page()
    page.add_init_script(WATCH)
    page.goto(page_of_players(tmp_path))
    player = page.get_by_role("group", name="Speech in quiet")
    player.get_by_role("button", name="Play").click()
    player.get_by_role("button", name="Pause").wait_for()
    page.wait_for_function("Number(document.querySelector('input[type=range]').value) > 0.1")
    player.get_by_role("radio", name="two").check()
    page.wait_for_function("gains[0].value < 0.01 && gains[1].value > 0.99")
    started = page.evaluate("started")
    assert len(started) == 2, "nothing begins anew"
    assert started[0] == started[1], "both versions began at the same sample"
    player.get_by_role("button", name="Pause").click()
    at = float(player.get_by_role("slider").input_value())
    player.get_by_role("button", name="Play").click()
    page.wait_for_function("started.length == 4")
    assert page.evaluate("started[3][1]") == pytest.approx(at, abs=1e-3)
    page.get_by_role("group", name="Speech in noise").get_by_role("button").click()
    player.get_by_role("button", name="Play").wait_for()  # one sound at a time
    page.close()


def test_without_scripts_every_version_has_a_player(tmp_path, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_of_players(tmp_path))
    assert page.locator("audio:visible").count() == 4
    assert page.locator("input:visible").count() == 0
    context.close()
