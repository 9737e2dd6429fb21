"""A listening test loses nothing, doubles nothing, plays nothing too loud, and lets nobody in."""

import collections
import contextlib
import csv
import dataclasses
import http.client
import io
import itertools
import json
import math
import os
import random
import socket
import sqlite3
import threading
import time
import types
from datetime import date, timedelta
from pathlib import Path

import hypothesis
import pytest
import schemathesis
import soundfile
import torch

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from compensation import preference
from compensation.listening import application, results, storage
from compensation.listening.ahead import Ahead
from compensation.listening.calibration import read_calibration
from compensation.listening.rendering import (
    OUTPUT_RATE_HZ,
    equally_loud,
    pair,
    through_aid,
    weighted_level,
)
from compensation.listening.session import Conflict, Session, Settings
from compensation.masks import Masks, MasksConfig
from icsim.sound import REFERENCE_PA, SAMPLE_RATE, calibrate

LISTENER, EXPERIMENTER = "listener-0123456789", "experimenter-0123456789"
FULL_SCALE = 100.0
REQUESTS = int(os.environ.get("REQUESTS", "20"))
"""Made up for each operation of the server."""
SOUNDS = [
    calibrate(torch.randn(2500, generator=torch.Generator().manual_seed(n)), 65) for n in (0, 1)
]


@dataclasses.dataclass(frozen=True)
class Comparison:
    first: tuple
    second: tuple
    answer: str | None = None
    catch: bool = False


@dataclasses.dataclass(frozen=True)
class Course:
    known: tuple
    seed: int
    start: tuple | None = None
    shape: tuple | None = None
    comparisons: tuple = ()
    covariance: tuple | None = None


def propose(course, limit_s=None):
    """Two θ that tell which answers came before."""
    done = [("first", "same", "second").index(c.answer) for c in course.comparisons]
    place = sum((answer + 1) * 4.0**-n for n, answer in enumerate(done, 1))
    return Comparison((0.1, place / 2), (0.9, place / 2), catch=len(done) == 2)


def answered(course, comparison, answer):
    noted = dataclasses.replace(comparison, answer=answer)
    return dataclasses.replace(course, comparisons=(*course.comparisons, noted))


def estimate(course):
    firsts = sum(c.answer == "first" for c in course.comparisons)
    share = (firsts + 1) / (len(course.comparisons) + 2)
    return types.SimpleNamespace(
        theta=(1 - share, 0.5), deviation=(0.1, 0.2), gain=1.5, finished=False
    )


SEARCH = types.SimpleNamespace(
    Comparison=Comparison,
    Course=Course,
    propose=propose,
    answered=answered,
    estimate=estimate,
    to_dict=dataclasses.asdict,
    catch_trials=preference.catch_trials,
    NEGLIGIBLE=1.0,
    LEAST_ANSWERS=20,
)


def louder(theta, place):
    """A stand-in for an aid: θ sets the level."""
    return SOUNDS[place] * (1.0 if theta is None else 1 + theta[0])


def settings(**changes) -> Settings:
    fields = {
        "listener": "L01",
        "aid": "a1d",
        "model": "feed",
        "sounds": ("one", "two"),
        "sounds_digest": "5",
        "known": ((0.2, 0.2), (0.8, 0.8)),
        "start": (0.5, 0.5),
        "guessed": False,
        "shape": ((1.0, 0.0), (0.0, 1.0)),
        "reference": "NAL-R (N3)",
        "mode": "gain",
        "full_scale_db_spl": FULL_SCALE,
        "maximum_db_spl": 95.0,
        "comparisons": 4,
        "confirmations": 2,
        "break_after": 3,
    }
    return Settings(**fields | changes)


@pytest.fixture
def begin(tmp_path):
    """Begins or resumes a session in a file; all are closed at the end."""
    opened = []

    def open_session(name="L01", search=SEARCH, process=louder, patience_s=30.0, **changes):
        connection = storage.connect(tmp_path / f"{name}.sqlite")
        try:
            session = Session(connection, settings(**changes), process, search, patience_s)
        except ValueError:
            connection.close()
            raise
        opened.append(session)
        return session

    yield open_session
    for session in opened:
        session.close()


counter = itertools.count(1)


def client_id() -> str:
    return f"{next(counter):032x}"


def browser(session, **keywords) -> TestClient:
    app = application.application(session, **keywords)
    return TestClient(app, base_url="http://127.0.0.1:8000")


def post(page, path, status=200, **body):
    reply = page.post(f"/api/{path}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def consent(page):
    return post(page, "consent", client=client_id(), agreed=True)


def hear(page, trial):
    for side in "ab":
        post(page, "played", trial=trial, side=side)


def choose(page, trial, choice):
    """Hear both, and answer."""
    hear(page, trial)
    return post(page, "answer", client=client_id(), trial=trial, choice=choice)


def run_to_end(page, choice="a") -> dict:
    while (state := page.get("/api/session").json())["stage"] != "end":
        choose(page, state["trial"], choice)
    return state


def means(choice: str, trial) -> str:
    """What A or B is of a trial."""
    return "first" if (choice == "a") != trial.swapped else "second"


def samples(wav: bytes):
    found, rate = soundfile.read(io.BytesIO(wav), dtype="float64")
    assert rate == OUTPUT_RATE_HZ
    return found


def test_a_whole_session_from_consent_to_confirmation(begin):
    session = begin()
    page = browser(session)
    assert page.get("/api/session").json()["stage"] == "consent"
    assert page.get("/api/sound/0/a").status_code == 409
    consent(page)
    state = page.get("/api/session").json()
    assert (state["stage"], state["trial"], state["part"]) == ("trial", 0, "comparison")
    assert state["undo"] is None
    first, second = (page.get(f"/api/sound/0/{side}") for side in "ab")
    assert first.headers["content-type"] == "audio/wav"
    assert len(first.content) == len(second.content)
    ratio = samples(second.content).std() / samples(first.content).std()
    assert ratio ** (1 - 2 * session.trials[0].swapped) == pytest.approx(1.9 / 1.1, rel=1e-2)
    run_to_end(page)
    parts = [trial.part for trial in session.trials]
    assert parts == ["comparison"] * 4 + ["confirmation"] * 4
    assert [t.catch for t in session.trials[:4]] == [False, False, True, False]
    assert not any(trial.fallback for trial in session.trials)
    final = session.trials[4:]
    assert sorted(t.against for t in final) == ["reference"] * 2 + ["start"] * 2
    assert {t.second for t in final if t.against == "start"} == {(0.5, 0.5)}
    assert {t.second for t in final if t.against == "reference"} == {None}
    # The best θ is that of all comparisons, and the same throughout.
    assert {t.first for t in final} == {estimate(session.course()).theta}
    assert len(session.course().comparisons) == 4
    assert page.get("/api/session").json()["stage"] == "end"
    post(page, "undo", 409, client=client_id(), trial=7)


def test_a_pair_that_returns_the_other_way_round_is_heard_that_way(begin):
    pairs = [((n / 40, 0.5), (0.5, n / 40)) for n in range(1, 17)]
    pairs += [each[::-1] for each in pairs]
    proposals = types.SimpleNamespace(
        **vars(SEARCH)
        | {"propose": lambda course, limit_s=None: Comparison(*pairs[len(course.comparisons)])}
    )
    session = begin(search=proposals, comparisons=32, confirmations=0)
    session.consent(client_id())
    while (state := session.look())["stage"] != "end":
        for side in "ab":
            session.play(state["trial"], side)
        session.answer(client_id(), state["trial"], "same")
    swapped = [trial.swapped for trial in session.trials]
    assert swapped[:16] == swapped[16:]
    assert 0 < sum(swapped[:16]) < 16


def test_pairs_depend_on_answers_alone(begin):
    found = []
    for name in ("one", "two"):
        session = begin(name)
        consent(browser(session))
        run_to_end(browser(session), "b")
        found.append([dataclasses.replace(trial, event=0) for trial in session.trials])
    assert found[0] == found[1]


def test_the_page_is_told_nothing_of_theta(begin):
    page = browser(begin())
    consent(page)
    state = page.get("/api/session").json()
    assert not {"first", "second", "swapped", "catch", "against", "estimate"} & set(state)


def test_a_session_goes_on_where_it_was_cut_off(begin):
    session = begin()
    page = browser(session)
    consent(page)
    for trial, choice in enumerate(["a", "same"]):
        page.get("/api/session")
        choose(page, trial, choice)
    state = page.get("/api/session").json()
    sound = page.get("/api/sound/2/b").content
    before = session.trials
    session.close()  # all that a killed process leaves is the file
    session = begin()
    page = browser(session)
    assert page.get("/api/session").json() == state
    assert session.trials == before
    assert page.get("/api/sound/2/b").content == sound
    assert [t.answer for t in before] == [means("a", before[0]), "same", None]
    # Killed between the answer and the next pair:
    choose(page, 2, "b")
    session.close()
    session = begin()
    assert browser(session).get("/api/session").json()["trial"] == 3
    assert session.trials[2].answer == means("b", session.trials[2])


def test_an_answer_is_on_the_disk_before_it_is_acknowledged(begin, tmp_path):
    session = begin()
    assert session._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    page = browser(session)
    consent(page)
    for trial, choice in enumerate("ab"):
        page.get("/api/session")
        choose(page, trial, choice)
        # The one file, as a crash or a colleague's copy would leave it, while all is still open.
        copy = tmp_path / f"copy{trial}.sqlite"
        copy.write_bytes((tmp_path / "L01.sqlite").read_bytes())
        with contextlib.closing(storage.connect(copy)) as connection:
            events = storage.events(connection)
        chosen = [event.content["choice"] for event in events if event.kind == "answer"]
        assert chosen == list("ab"[: trial + 1])


def test_a_file_with_a_log_beside_it_becomes_one(begin, tmp_path):
    path = tmp_path / "L01.sqlite"
    storage.connect(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        storage.append(connection, "note", {})
        for file in tmp_path.glob("L01.sqlite*"):
            file.with_name(f"cut{file.name[3:]}").write_bytes(file.read_bytes())
    assert (tmp_path / "cut.sqlite-wal").stat().st_size > 0
    with contextlib.closing(storage.connect(tmp_path / "cut.sqlite")) as connection:
        assert [event.kind for event in storage.events(connection)] == ["note"]
        storage.append(connection, "note", {})
        (tmp_path / "copy.sqlite").write_bytes((tmp_path / "cut.sqlite").read_bytes())
    with contextlib.closing(storage.connect(tmp_path / "copy.sqlite")) as connection:
        assert len(storage.events(connection)) == 2


def test_settings_stay_and_a_file_is_open_once(begin, tmp_path):
    session = begin()
    with pytest.raises(ValueError, match="end the server"):
        storage.connect(tmp_path / "L01.sqlite")
    session.close()
    with pytest.raises(ValueError, match="comparisons, mode"):
        begin(comparisons=7, mode="loudness")
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be taken for one" * 9)
    with pytest.raises(ValueError, match=r"text\.sqlite"):
        storage.connect(tmp_path / "text.sqlite")


def test_the_same_answer_again_changes_nothing(begin):
    session = begin()
    page = browser(session)
    consent(page)
    page.get("/api/session")
    hear(page, 0)
    body = {"client": client_id(), "trial": 0, "choice": "a"}
    first = post(page, "answer", **body)
    page.get("/api/session")
    before = session.events
    assert post(page, "answer", **body) == first
    assert session.events == before
    post(page, "answer", 409, **body | {"choice": "b"})
    post(page, "answer", 409, **body | {"trial": 1})
    post(page, "undo", 409, client=body["client"], trial=0)
    assert session.events == before


def test_answers_out_of_order_are_refused(begin):
    session = begin()
    page = browser(session)
    post(page, "answer", 409, client=client_id(), trial=0, choice="a")
    consent(page)
    page.get("/api/session")
    before = session.events
    post(page, "answer", 409, client=client_id(), trial=1, choice="a")
    choose(page, 0, "a")
    # The next pair has not been shown yet; and another page answers the one that is over.
    post(page, "answer", 409, client=client_id(), trial=1, choice="a")
    post(page, "answer", 409, client=client_id(), trial=0, choice="b")
    assert [e.kind for e in session.events[len(before) :]] == ["played", "played", "answer"]
    page.get("/api/session")
    assert page.get("/api/sound/0/a").status_code == 409
    assert page.get("/api/sound/2/a").status_code == 409


def test_an_answer_counts_only_if_both_were_played(begin):
    session = begin()
    page = browser(session)
    post(page, "played", 409, trial=0, side="a")
    consent(page)
    page.get("/api/session")
    before = session.events
    answer = {"client": client_id(), "trial": 0, "choice": "a"}
    post(page, "answer", 409, **answer)
    post(page, "played", 409, trial=1, side="a")
    assert session.events == before
    for _ in range(2):
        post(page, "played", trial=0, side="b")
    assert len(session.events) == len(before) + 1
    post(page, "answer", 409, **answer)
    # A server that was killed knows what had been heard.
    session.close()
    page = browser(begin())
    page.get("/api/session")
    post(page, "played", trial=0, side="a")
    post(page, "answer", **answer)
    page.get("/api/session")
    post(page, "answer", 409, client=client_id(), trial=1, choice="a")


def test_many_at_once_count_once(begin):
    session = begin()
    consent(browser(session))
    session.look()
    hear(browser(session), 0)
    refused = []

    def press(choice):
        try:
            session.answer(client_id(), 0, choice)
        except Conflict:
            refused.append(choice)

    threads = [threading.Thread(target=press, args=("ab"[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert sum(event.kind == "answer" for event in session.events) == 1


def test_the_last_answer_can_be_taken_back_once(begin):
    session = begin()
    page = browser(session)
    consent(page)
    for trial in range(2):
        page.get("/api/session")
        choose(page, trial, "a")
    assert page.get("/api/session").json()["undo"] == 1
    second = session.trials[1]
    post(page, "undo", 409, client=client_id(), trial=0)
    body = {"client": client_id(), "trial": 1}
    post(page, "undo", **body)
    state = page.get("/api/session").json()
    assert (state["trial"], state["undo"]) == (1, None)
    assert session.trials[1] == dataclasses.replace(second, answer=None)
    assert page.get("/api/sound/1/a").status_code == 200
    post(page, "undo", **body)
    post(page, "undo", 409, client=client_id(), trial=1)
    post(page, "undo", 409, client=client_id(), trial=0)
    # Taken back, it is heard again.
    post(page, "answer", 409, client=client_id(), trial=1, choice="b")
    choose(page, 1, "b")
    post(page, "undo", **body)  # replayed: the new answer stays
    page.get("/api/session")
    zero, one = session.trials[:2]
    given = [means("a", zero), means("b", one), None]
    assert [t.answer for t in session.trials] == given
    # What was taken back is still known, and what follows is another pair.
    rows = list(csv.DictReader(io.StringIO(results.table(session))))
    assert [(r["trial"], r["answer"], r["undone"]) for r in rows] == [
        ("0", means("a", zero), "0"),
        ("1", means("a", one), "1"),
        ("1", means("b", one), "0"),
    ]
    session.close()
    assert [t.answer for t in begin().trials] == given


def test_a_search_that_hangs_or_fails_does_not_stop_the_test(begin):
    hangs = threading.Event()

    def hang(course, limit_s=None):
        hangs.wait()
        return propose(course)

    def fail(course, limit_s=None):
        raise RuntimeError("no convergence")

    for name, wrong in {"hangs": hang, "fails": fail}.items():
        search = types.SimpleNamespace(**vars(SEARCH) | {"propose": wrong})
        session = begin(name, search, patience_s=0.02, comparisons=3)
        page = browser(session)
        consent(page)
        for trial in range(3):
            assert page.get("/api/session").json()["trial"] == trial
            assert page.get(f"/api/sound/{trial}/a").status_code == 200
            if trial < 2:
                choose(page, trial, "a")
        assert all(trial.fallback for trial in session.trials)
        shown = page.get("/api/experimenter").json()
        assert shown["fallbacks"] == 3
        assert len(shown["faults"]) == 3
    hangs.set()


def test_the_next_pair_is_ready_before_the_answer(begin):
    rendered = threading.Event()
    asked = []

    def noted(theta, place):
        asked.append(theta)
        if len(asked) >= 2 * (1 + 1 + 3):  # this pair, a spare one, one for each answer
            rendered.set()
        return louder(theta, place)

    session = begin(process=noted)
    consent(browser(session))
    session.look()
    assert rendered.wait(30)
    hear(browser(session), 0)
    session.answer(client_id(), 0, "same")
    after = propose(answered(Course((), 0), Comparison((), ()), "same"))
    assert {after.first, after.second} <= set(asked)
    session.look()
    assert session.trials[1].first == after.first


def test_jobs_that_are_not_wanted_any_more_are_not_done():
    ahead, begun, gate, done = Ahead(), threading.Event(), threading.Event(), []
    ahead.want({"first": lambda: (begun.set(), gate.wait()), "second": lambda: done.append(2)})
    assert begun.wait(30)
    ahead.want({"third": lambda: "found", "wrong": lambda: 1 / 0})
    assert ahead.get("second", 0) is None
    assert ahead.get("third", 0.01) is None
    gate.set()
    assert ahead.get("third", 30) == "found"
    with pytest.raises(ZeroDivisionError):
        ahead.get("wrong", 30)
    assert done == []
    ahead.end()


def broken(kind):
    def process(theta, place):
        sound = SOUNDS[place].clone()
        if kind == "nan":
            sound[500:] = torch.nan
        elif kind == "infinite":
            sound[::7] = math.inf
        elif kind == "huge":
            sound *= 1e30
        elif kind == "60 dB":
            sound *= 1000
        elif kind == "step":
            sound = torch.full_like(sound, 50.0)
        return sound

    return process


@pytest.mark.parametrize("kind", ["nan", "infinite", "huge", "60 dB", "step"])
@pytest.mark.parametrize("mode", ["gain", "loudness"])
def test_nothing_exceeds_the_maximum_whatever_the_aid_does(begin, kind, mode):
    session = begin(process=broken(kind), mode=mode, maximum_db_spl=90.0)
    page = browser(session)
    consent(page)
    page.get("/api/session")
    highest = 10 ** ((90.0 - FULL_SCALE) / 20)
    for path in ("sound/0/a", "sound/0/b", "sample"):
        heard = samples(page.get(f"/api/{path}").content)
        assert abs(heard).max() <= highest
        assert heard[0] == heard[-1] == 0
        # Starts and stops are slow: 5 ms from the ends there is hardly anything.
        assert abs(heard[:240]).max() < 0.03 * highest
        assert abs(heard[-240:]).max() < 0.03 * highest


def test_an_adversarial_network_is_limited_too():
    aid = Masks(MasksConfig(listener=2, bands=9, width=6, layers=1, window=128, hop=24)).eval()
    for factor in (1e3, math.nan, math.inf):
        with torch.no_grad():
            aid.leave.bias.fill_(factor)
        sounds = [through_aid(aid, theta, SOUNDS[0]) for theta in ((0.1, 0.5), (0.9, 0.5))]
        for wav in pair(*sounds, "loudness", 80.0, FULL_SCALE):
            assert abs(samples(wav)).max() <= 10 ** ((80.0 - FULL_SCALE) / 20)


def test_full_scale_is_a_limit_as_well():
    for wav in pair(1e3 * SOUNDS[0], SOUNDS[0], "gain", 120.0, FULL_SCALE):
        assert abs(samples(wav)).max() <= 1


def test_levels_are_those_of_the_calibration():
    tone = calibrate(torch.sin(torch.arange(24414) / 9), 65.0)
    heard = samples(pair(tone, tone, "gain", 110.0, 95.0)[0])[4800:-4800]
    assert 20 * math.log10(heard.std()) + 95.0 == pytest.approx(65, abs=0.02)


def test_loudness_matched_pairs_are_equally_loud_and_keep_their_mean():
    time = torch.arange(OUTPUT_RATE_HZ) / OUTPUT_RATE_HZ
    low, high = (torch.sin(2 * math.pi * hz * time) for hz in (100, 3000))
    matched = equally_loud(low, 10 * high)
    levels = [weighted_level(sound) for sound in matched]
    assert levels[0] == pytest.approx(levels[1], abs=1e-3)
    assert sum(levels) / 2 == pytest.approx((weighted_level(low) + weighted_level(10 * high)) / 2)
    silence = torch.zeros_like(low)
    assert equally_loud(low, silence)[0] is low


def test_the_weighting_is_that_of_the_standard():
    # ITU-R BS.1770: a full-scale sine at 997 Hz in one channel reads -3.01 LKFS.
    time = torch.arange(2 * OUTPUT_RATE_HZ, dtype=torch.double) / OUTPUT_RATE_HZ
    level = weighted_level(torch.sin(2 * math.pi * 997 * time))
    assert level + 20 * math.log10(REFERENCE_PA) - 0.691 == pytest.approx(-3.01, abs=0.01)


def test_without_its_token_nobody_gets_anything(begin):
    session = begin()
    page = browser(session, listener_token=LISTENER, experimenter_token=EXPERIMENTER, hosts=None)
    before = session.events
    for path in ("session", "sound/0/a", "sample", "experimenter", "experimenter/theta.json"):
        assert page.get(f"/api/{path}").status_code == 401
        wrong = {"authorization": f"Bearer {LISTENER[:-1]}x", "cookie": "icsim_token_8000=nonsense"}
        assert page.get(f"/api/{path}", headers=wrong).status_code == 401
        listener = page.get(f"/api/{path}", headers={"authorization": f"Bearer {LISTENER}"})
        assert (listener.status_code == 401) == path.startswith("experimenter")
    post(page, "consent", 401, client=client_id(), agreed=True)
    post(page, "token", 401, token="a-wrong-one-0123456789")
    assert session.events == before
    reply = page.post("/api/token", json={"token": EXPERIMENTER})
    cookie = reply.headers["set-cookie"].lower()
    assert reply.status_code == 204
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert page.get("/api/experimenter").status_code == 200
    assert page.get("/").status_code == 200
    with pytest.raises(ValueError, match="at least 16"):
        application.application(session, "short", "short")
    with pytest.raises(ValueError, match="needs tokens"):
        application.application(session, hosts=None)


def test_servers_on_two_ports_leave_each_other_s_cookies_alone(begin):
    host = "http://127.0.0.1"
    apps = [
        application.application(begin(name), LISTENER + name, EXPERIMENTER + name)
        for name in ("one", "two")
    ]
    one, two = (TestClient(app, f"{host}:{8000 + n}") for n, app in enumerate(apps))
    for page, name in ((one, "one"), (two, "two")):
        assert page.post("/api/token", json={"token": LISTENER + name}).status_code == 204
    # A browser keeps one jar for all ports.
    jar = {cookie.name: cookie.value for page in (one, two) for cookie in page.cookies.jar}
    sent = {"cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
    for page in (one, two):
        page.cookies.clear()
        assert page.get("/api/session", headers=sent).status_code == 200


@contextlib.contextmanager
def serving(session, request_s):
    """The port of a server of a session."""
    listening = application.bind(port=0)
    server = application.server(application.application(session), request_s)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


HALVES = [
    b"",
    b"GET /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    b"POST /api/consent HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{",
]


def ends(send, line):
    """Whether the other side closes a connection on which something is sent now and then."""
    for _ in range(1000):
        try:
            send(line)
        except OSError:
            return True
        time.sleep(0.01)
    return False


def ask_for_a_page(port):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as page:
        page.request("GET", "/api/session")
        return page.getresponse().status


def test_half_open_requests_keep_nobody_out(begin):
    with serving(begin(), request_s=60.0) as port, contextlib.ExitStack() as opened:
        for number in range(80):
            half = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            half.sendall(HALVES[number % 3])
        assert ask_for_a_page(port) == 200


def test_half_open_requests_are_closed_in_time_and_slow_ones_too(begin):
    session = begin()
    before = session.events
    with serving(session, request_s=0.5) as port, contextlib.ExitStack() as opened:
        slow = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        slow.sendall(b"GET / HTTP/1.1\r\n")
        for half in HALVES:
            waiting = opened.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=30)
            )
            waiting.sendall(half)
            with contextlib.suppress(ConnectionResetError):
                assert waiting.recv(1000) == b""
        assert ends(slow.sendall, b"X-Slow: 1\r\n")
        assert ask_for_a_page(port) == 200
    assert session.events == before


def test_a_body_that_is_cut_off_is_not_taken_for_one(begin):
    session = begin()
    body = json.dumps({"client": client_id(), "agreed": True}).encode()
    head = f"POST /api/consent HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body) + 9}\r\n"
    kind = b"Content-Type: application/json\r\n\r\n"
    with serving(session, request_s=60.0) as port:
        with contextlib.closing(socket.create_connection(("127.0.0.1", port))) as cut:
            cut.sendall(head.encode() + kind + body)
        assert ask_for_a_page(port) == 200
    assert not session.consented


def test_tokens_are_not_written_anywhere(begin, capfd, caplog, tmp_path):
    session = begin()
    page = browser(session, listener_token=LISTENER, experimenter_token=EXPERIMENTER)
    page.post("/api/token", json={"token": LISTENER})
    consent(page)
    page.get("/api/session")
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    said = "".join(capfd.readouterr()) + caplog.text
    assert LISTENER.encode() not in files
    assert LISTENER not in said


def test_other_sites_and_hosts_are_refused(begin):
    session = begin()
    page = browser(session)
    body = {"client": client_id(), "agreed": True}
    before = session.events
    for headers in (
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8000"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert page.post("/api/consent", json=body, headers=headers).status_code == 403
    plain = page.post(
        "/api/consent", content=json.dumps(body), headers={"content-type": "text/plain"}
    )
    assert plain.status_code == 422
    assert session.events == before
    ours = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert page.post("/api/consent", json=body, headers=ours).status_code == 200


TRAVERSALS = [
    "/../pyproject.toml",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/style.css/../../application.py",
    "/page/index.html",
    "/application.py",
    "/api/sound/../../etc/passwd/a",
    "/api/sound/0/..%2f..%2fetc%2fpasswd",
    "/api/sound/%2fetc%2fpasswd/a",
    "/api/sound/-1/a",
    "/api/sound/0/c",
    "/api/sound/1e3/a",
    "/api/sound/99999999999999999999/a",
    "/api/experimenter/../../L01.sqlite",
    "/api/experimenter/%00",
    "/openapi.json",
    "/docs",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_from_outside_is_opened(begin, path):
    reply = browser(begin()).get(path)
    assert 400 <= reply.status_code < 500
    assert "root:" not in reply.text


def test_malformed_and_oversized_requests_change_nothing(begin):
    session = begin()
    page = browser(session)
    consent(page)
    page.get("/api/session")
    hear(page, 0)
    before = session.events
    good = {"client": client_id(), "trial": 0, "choice": "a"}
    wrong = [
        good | {"choice": "first"},
        good | {"trial": -1},
        good | {"trial": 0.5},
        good | {"trial": "0"},
        good | {"trial": True},
        good | {"trial": 10**30},
        good | {"client": "x" * 32},
        good | {"client": good["client"] + "\n"},
        good | {"theta": [0.5, 0.5]},
        good | {"heard": {"seconds": -1, "switches": 0, "starts": 0}},
        {},
        [],
        None,
    ]
    for body in wrong:
        assert page.post("/api/answer", json=body).status_code == 422
    for text in (b"", b"{", b"\xff\xfe", b"[" * 4000, b'{"heard": NaN}'):
        kind = {"content-type": "application/json"}
        assert 400 <= page.post("/api/answer", content=text, headers=kind).status_code < 500
    large = json.dumps(good | {"heard": "x" * 5000}).encode()
    kind = {"content-type": "application/json"}
    assert page.post("/api/answer", content=large, headers=kind).status_code == 413
    chunks = (b" " * 1000 for _ in range(10))  # without a length
    assert page.post("/api/answer", content=chunks, headers=kind).status_code == 413
    assert page.get("/api/answer").status_code == 405
    assert page.delete("/api/session").status_code == 405
    assert session.events == before
    post(page, "answer", **good)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_requests_made_up_from_the_description_are_answered_or_refused(begin, mode):
    """Every operation, with what fits the description and with what does not."""
    session = begin()
    page = browser(session)
    consent(page)
    page.get("/api/session")
    description = schemathesis.openapi.from_dict(page.app.openapi())
    asked = collections.Counter()
    often = hypothesis.settings(
        max_examples=REQUESTS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def ask(case):
        request = case.as_transport_kwargs(base_url=str(page.base_url))
        del request["cookies"]
        if "data" in request:
            request["content"] = request.pop("data")
        before = session.events
        status = page.request(**request).status_code
        assert status < 500, case.as_curl_command()
        if status >= 400:
            assert session.events == before, case.as_curl_command()
        elif case.method.upper() != "GET":
            assert mode.is_positive, case.as_curl_command()
        asked[case.operation.label] += 1

    for operation in (found.ok() for found in description.get_all_operations()):
        made_up = operation.as_strategy(generation_mode=mode)
        # Nothing can be wrong with a request that has no parts.
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            often(hypothesis.given(case=made_up)(ask))()
    assert asked.total() > REQUESTS * (4 if mode.is_positive else 3), asked


def test_pages_load_nothing_from_elsewhere(begin):
    page = browser(begin())
    for path in (*application.PAGES, "/api/session", "/nothing"):
        reply = page.get(path)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "//" not in reply.text.replace("http://www.w3.org/2000/svg", "").replace(
            "// ", ""
        ), path
    for path in ("/", "/experimenter"):
        text = page.get(path).text
        assert "no medical device" in text
        assert "simulated gerbils" in text
        assert "style=" not in text
        assert "onclick" not in text


def test_what_is_exported_is_what_happened(begin, tmp_path):
    fits = pytest.importorskip("icsim.fits")
    session = begin()
    page = browser(session)
    consent(page)
    assert page.get("/api/experimenter/theta.json").status_code == 409
    run_to_end(page)
    reply = page.get("/api/experimenter/theta.json")
    assert 'filename="L01-theta.json"' in reply.headers["content-disposition"]
    path = tmp_path / "theta.json"
    path.write_bytes(reply.content)
    theta = fits.read_fit(path, "feed").theta
    assert theta.tolist() == pytest.approx(list(session.trials[-1].first))
    with pytest.raises(ValueError, match="another"):
        fits.read_fit(path, "another")
    rows = list(csv.DictReader(io.StringIO(page.get("/api/experimenter/answers.csv").text)))
    assert len(rows) == 8
    assert {row["listener"] for row in rows} == {"L01"}
    for row, trial in zip(rows, session.trials, strict=True):
        assert row["answer"] == trial.answer
        assert (row["choice"] == "a") == ((row["answer"] == "first") != (row["swapped"] == "1"))
    whole = page.get("/api/experimenter/session.json").json()
    assert len(whole["course"]["comparisons"]) == 4
    assert [e["kind"] for e in whole["events"]][:2] == ["settings", "consent"]
    shown = page.get("/api/experimenter").json()
    assert [e["answers"] for e in shown["course"]] == [1, 2, 3, 4]
    for row in shown["confirmation"]:
        assert row["best"] + row["other"] + row["same"] == 2


def confirmed(*answers, planned=6):
    """The rows of a confirmation that was answered so against the start."""
    trials = [types.SimpleNamespace(against="start", answer=answer) for answer in answers]
    return results.confirmation(trials, "NAL-R", planned)


def test_the_confirmation_is_counted_for_the_best():
    trials = [
        types.SimpleNamespace(against=against, answer=answer)
        for against, answer in [("start", "first")] * 3
        + [("start", "second"), ("start", "same"), ("reference", None), (None, "second")]
    ]
    start, reference = results.confirmation(trials, "NAL-R", 5)
    assert (start["best"], start["other"], start["same"], start["share"]) == (3, 1, 1, 0.75)
    assert start["interval"][0] < 0.75 < start["interval"][1]
    assert (reference["against"], reference["share"]) == ("NAL-R", None)


@pytest.mark.parametrize(
    ("best", "other", "same", "verdict"),
    [
        (6, 0, 0, "confirmed"),
        (4, 0, 2, "confirmed"),
        (5, 1, 0, "not confirmed"),
        (3, 3, 0, "not confirmed"),
        (0, 6, 0, "not confirmed"),
        (0, 3, 3, "not confirmed"),
        (3, 0, 3, "cannot be told"),
        (0, 0, 6, "cannot be told"),
        (5, 0, 0, "cannot be told"),  # one is missing
        (0, 3, 0, "cannot be told"),
    ],
)
def test_the_verdict_follows_from_the_interval(best, other, same, verdict):
    row, _ = confirmed(*["first"] * best, *["second"] * other, *["same"] * same)
    assert row["verdict"] == verdict


def test_three_of_three_against_it_is_not_confirmed_and_none_planned_cannot_be_told():
    assert confirmed(*["second"] * 3, planned=3)[0]["verdict"] == "not confirmed"
    assert results.verdict(confirmed(planned=0)) == "cannot be told"


def test_all_of_a_confirmation_has_to_be_confirmed():
    def whole(*verdicts):
        return results.verdict([{"verdict": verdict} for verdict in verdicts])

    assert whole("confirmed", "confirmed") == "confirmed"
    assert whole("confirmed", "cannot be told") == "cannot be told"
    assert whole("cannot be told", "not confirmed") == "not confirmed"


def test_random_answers_are_hardly_ever_confirmed():
    draw = random.Random(0)
    verdicts = collections.Counter()
    for _ in range(2000):
        trials = [
            types.SimpleNamespace(
                against=against, answer=draw.choice(["first", "second", "same"][:kinds])
            )
            for kinds in [draw.choice([2, 3])]
            for against in ["start", "reference"] * 6
        ]
        verdicts[results.verdict(results.confirmation(trials, "NAL-R", 6))] += 1
    assert verdicts["confirmed"] <= 10
    assert verdicts["not confirmed"] >= 1800


def test_who_clicks_at_random_is_not_confirmed(begin):
    session = begin(search=preference, comparisons=20, confirmations=6)
    page, draw = browser(session), random.Random(0)
    consent(page)
    while (state := page.get("/api/session").json())["stage"] != "end":
        choose(page, state["trial"], draw.choice("ab"))
    shown = page.get("/api/experimenter").json()
    assert shown["verdict"] == "not confirmed"
    repeats, stop = shown["consistency"], shown["stopping"]
    catches = [trial for trial in session.trials if trial.catch]
    assert repeats["catch_trials"] == len(catches) >= 2
    assert repeats["interval"][1] - repeats["interval"][0] > 0.5
    assert stop["threshold"] == preference.NEGLIGIBLE
    assert ("too little" in stop["reason"]) == (stop["gain"] < stop["threshold"])
    for exported in ("theta.json", "session.json"):
        content = page.get(f"/api/experimenter/{exported}").json()
        content = content.get("overview", content)
        for key in ("verdict", "consistency", "stopping", "confirmation"):
            assert content[key] == shown[key]
    # The listener learns as much, once nothing is left to answer.
    assert state["outcome"] == shown["sentences"]
    assert "not confirmed" in " ".join(state["outcome"])
    assert f"of {len(catches)} repeated pairs" in state["outcome"][0]


def test_two_of_two_is_no_certainty(begin):
    session = begin()
    pair = Comparison((0.1, 0.5), (0.9, 0.5), "first")
    back = Comparison(pair.second, pair.first, "second", catch=True)
    session.course = lambda: Course((), 0, comparisons=(pair, back, pair, back))
    repeats = results.consistency(session)
    assert (repeats["alike"], repeats["catch_trials"], repeats["share"]) == (2, 2, 1.0)
    assert repeats["interval"][0] < 0.4


def test_nothing_is_said_before_the_end(begin):
    page = browser(begin())
    consent(page)
    assert "outcome" not in page.get("/api/session").json()
    shown = page.get("/api/experimenter").json()
    assert (shown["verdict"], shown["stopping"]["reason"]) == ("cannot be told", "goes on")
    assert shown["stopping"]["gain"] is None
    assert shown["consistency"]["interval"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"date": "yesterday"}, "date"),
        ({"date": (date.today() + timedelta(2)).isoformat()}, "future"),
        ({"transducer": " "}, "transducer"),
        ({"full_scale_db_spl": 10}, "full_scale_db_spl"),
        ({"full_scale_db_spl": math.nan}, "full_scale_db_spl"),
        ({"full_scale_db_spl": "100"}, "full_scale_db_spl"),
        ({"volume": 3}, "volume"),
        (None, "calibration"),
    ],
)
def test_a_calibration_that_is_none_is_refused_by_name(tmp_path, change, named):
    good = {"date": "2026-11-20", "transducer": "HD 600", "full_scale_db_spl": 108.5}
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(good))
    assert read_calibration(path).full_scale_db_spl == 108.5
    path.write_text("[]" if change is None else json.dumps(good | change))
    with pytest.raises(ValueError, match=named):
        read_calibration(path)
    with pytest.raises(ValueError, match=r"missing\.json"):
        read_calibration(tmp_path / "missing.json")


def test_the_calibration_noise_is_30_db_below_full_scale():
    noise = samples(application.calibration_noise())
    assert 20 * math.log10(noise.std()) == pytest.approx(-30, abs=0.1)


def test_events_are_added_and_never_changed(tmp_path):
    connection = storage.connect(tmp_path / "file.sqlite")
    storage.append(connection, "answer", {"trial": 0}, "c")
    with pytest.raises(sqlite3.IntegrityError):
        storage.append(connection, "answer", {"trial": 1}, "c")
    assert [event.content for event in storage.events(connection)] == [{"trial": 0}]
    connection.close()
    assert Path(tmp_path / "file.sqlite").stat().st_mode & 0o077 == 0


def test_sounds_of_a_pair_begin_together_and_last_as_long():
    wavs = pair(SOUNDS[0], -SOUNDS[0], "gain", 105.0, FULL_SCALE)
    first, second = map(samples, wavs)
    assert len(first) == len(second) == round(2500 / SAMPLE_RATE * OUTPUT_RATE_HZ)
    assert abs(first + second).max() < 1e-6
