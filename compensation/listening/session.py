"""One listener's session: which pair is heard, which answer counts, and what follows from them.

Everything follows from the events in storage, so a session goes on where it was, whatever ended it.
"""

import dataclasses
import functools
import json
import random
import sqlite3
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from . import storage
from .ahead import Ahead
from .rendering import Mode, pair

Theta = tuple[float, ...]

Process = Callable[[Theta | None, int], Tensor]
"""A sound, by its place in the list, through the aid with a θ, or as the reference has it for
None: pressure `(T,)` [Pa], as long for all θ."""

Answer = Literal["first", "second", "same"]

Against = Literal["start", "reference"]

END_PATIENCE_S = 60.0
"""How long the best θ, with which the confirmation begins, is waited for [s] (chosen here)."""


class Conflict(ValueError):
    """What was asked does not fit what has happened."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a session is; from its first event on it stays so."""

    listener: str
    """A code, no name."""
    aid: str
    """Fingerprint of the aid."""
    model: str
    """Fingerprint of the model whose θ it takes."""
    sounds: tuple[str, ...]
    """Their names."""
    sounds_digest: str
    """What tells these sounds from others."""
    known: tuple[Theta, ...]
    """θ of the listeners that the aid was trained for."""
    start: Theta
    """Where the search begins, and what its result meets in the confirmation."""
    guessed: bool
    """Whether the start is a guess of this listener, or the mean of those known."""
    shape: tuple[Theta, ...]
    """In which directions of θ errors are heard, of `compensation.sensitivity`."""
    reference: str
    """What the confirmation compares with beside the start: NAL-R, or unaided."""
    mode: Mode
    """Of a comparison."""
    full_scale_db_spl: float
    """Level of a sound whose RMS is 1 [dB SPL]."""
    maximum_db_spl: float
    """The highest magnitude of a sample [dB SPL]."""
    calibration: dict | None = None
    """What was measured; none in demo mode."""
    level_db_spl: float = 65.0
    """Of the sounds before the aid [dB SPL]."""
    noise_reduction: float = 1.0
    """Exponent of the aid's noise mask."""
    gain: float = 1.0
    """Exponent of its compensating mask."""
    consent: str = "Your answers are kept under a code, not under your name."
    """What the listener agrees to beside the instructions."""
    comparisons: int = 40
    """Most comparisons of the fit."""
    confirmations: int = 6
    """Blind comparisons at the end, with the start and with the reference each."""
    break_after: int = 15
    """Answers from one break to the next."""
    seed: int = 0
    """Of sounds, order, and the search."""
    covariance: tuple[Theta, ...] | None = None
    """How sure the start is, of θ, if a clinic's tests say it."""

    def __post_init__(self):
        if self.comparisons < 1 or self.confirmations < 0 or self.break_after < 1:
            raise ValueError(f"comparisons and breaks must be positive: {self}")
        if not self.sounds or not self.known:
            raise ValueError("at least one sound and one known listener are needed")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A pair that a listener was asked about."""

    number: int
    """From 0, over the whole session."""
    part: Literal["comparison", "confirmation"]
    first: Theta
    second: Theta | None
    """None is the reference."""
    sound: int
    """Its place in the list of sounds."""
    swapped: bool = False
    """Whether A is the second."""
    catch: bool = False
    fallback: bool = False
    """Whether this pair was taken because the proposed one was not ready."""
    against: Against | None = None
    """Whom the best θ meets in a confirmation."""
    estimate: dict | None = None
    """What was known when the pair was chosen, if it was known."""
    answer: Answer | None = None
    event: int = 0
    """That showed it."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What follows an answer."""

    trial: Trial | None
    """None: the session ends."""
    estimate: dict | None
    files: tuple[bytes, bytes] | None
    """A and B."""


class Session:
    """A session that runs.

    Args:
        connection: From `storage.connect`.
        settings: As in the session so far, if there is one.
        process: What the aid and the reference make of the sounds.
        algorithm: With `Comparison`, `Course`, `propose`, `answered`, `estimate`, `catch_trials`,
            `to_dict`, `NEGLIGIBLE` and `LEAST_ANSWERS` as `compensation.preference` has them.
        patience_s: How long a proposed pair is waited for [s].
        limit_s: What a proposal may take [s].

    Raises:
        ValueError: If the session was begun with other settings; the message names them.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        settings: Settings,
        process: Process,
        algorithm: Any,
        patience_s: float = 4.0,
        limit_s: float = 4.0,
    ):
        self.settings, self.process, self.algorithm = settings, process, algorithm
        self.patience_s, self.limit_s = patience_s, limit_s
        self._connection = connection
        self._lock, self._deciding = threading.RLock(), threading.Lock()
        self._trials: tuple[Trial, ...] = ()
        self._events: list[storage.Event] = []
        self._files: tuple[int, tuple[bytes, bytes]] | None = None
        self._played: set[str] = set()
        for event in storage.events(connection):
            self._follow(event)
        check_settings(self._events, settings)
        if not self._events:
            self._append("settings", _as_json(settings))
        self._ahead = Ahead()
        self._look_ahead()

    @property
    def consented(self) -> bool:
        """Whether the listener agreed."""
        return any(event.kind == "consent" for event in self._events)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to answer."""
        return any(event.kind == "end" for event in self._events)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All that count, answered but for the last."""
        return self._trials

    @property
    def events(self) -> tuple[storage.Event, ...]:
        """Everything that happened."""
        with self._lock:
            return tuple(self._events)

    def close(self) -> None:
        """Prepare no more, and close the file."""
        self._ahead.end()
        with self._lock:
            self._connection.close()

    def consent(self, client: str) -> dict:
        """Note that the listener agreed."""
        with self._lock:
            if not self._repeated(client, "consent", {}) and not self.consented:
                self._append("consent", {}, client)
            return {"consented": True}

    def look(self) -> dict:
        """Where the session stands, as its page shows it; decides on the next pair if it is due."""
        with self._deciding:
            while True:
                with self._lock:
                    if not self.consented or self.ended or self._open() is not None:
                        return self._state()
                    trials, basis = self._trials, self._changes()
                prepared = self._next(trials)
                with self._lock:
                    if self._changes() == basis:  # nothing was undone meanwhile
                        self._show(prepared)

    def play(self, number: int, side: Literal["a", "b"]) -> dict:
        """Note that a sound of the pair to be answered was played.

        It is kept as an event, so that a server that was restarted knows it, too.

        Raises:
            Conflict: If this trial is not the one to be heard.
        """
        content = {"trial": number, "side": side}
        with self._lock:
            trial = self._open()
            if trial is None or trial.number != number or not self.consented:
                raise Conflict(f"trial {number} is not the one to be heard")
            if side not in self._played:
                self._append("played", content)
            return content

    def answer(self, client: str, number: int, choice: str, heard: dict | None = None) -> dict:
        """Take an answer; when this returns, it is on the disk.

        Args:
            client: What the page calls this answer; the same again changes nothing.
            number: The trial.
            choice: a, b or same.
            heard: What the page says of the listening, to be kept.

        Raises:
            Conflict: If this trial is not the one to be answered, one of its sounds was not played,
                or the client was another answer.
        """
        content = {"trial": number, "choice": choice}
        with self._lock:
            if not self._repeated(client, "answer", content):
                trial = self._open()
                if trial is None or trial.number != number or not self.consented:
                    raise Conflict(f"trial {number} is not the one to be answered")
                if self._played != {"a", "b"}:
                    raise Conflict(f"both sounds of trial {number} must be played before")
                chosen = answer_of(choice, trial.swapped)
                self._append("answer", content | {"answer": chosen, "heard": heard or {}}, client)
            return content

    def undo(self, client: str, number: int) -> dict:
        """Take the last answer back; its pair is heard again.

        Raises:
            Conflict: If it is not the last answer, or the session has ended.
        """
        content = {"trial": number}
        with self._lock:
            if not self._repeated(client, "undo", content):
                if self._undoable() != number:
                    raise Conflict(f"the answer to trial {number} cannot be undone")
                self._append("undo", content, client)
                self._look_ahead()
            return content

    def file(self, number: int, side: Literal["a", "b"]) -> bytes:
        """A sound of the pair that is to be answered, as WAV.

        Raises:
            Conflict: If it is another trial's turn.
        """
        with self._deciding:
            with self._lock:
                trial, files = self._open(), self._files
            if trial is None or trial.number != number or not self.consented:
                raise Conflict(f"trial {number} is not the one to be heard")
            if files is None or files[0] != trial.event:
                files = self._files = trial.event, self._rendered(trial)
            return files[1]["ab".index(side)]

    def sample(self) -> bytes:
        """The first sound as the reference has it, to get used to the level, as WAV."""
        sound = self.process(None, 0)
        return self._pair(sound, sound)[0]

    @property
    def finishing(self) -> bool:
        """Whether the search has ended and what it found is being confirmed, or was."""
        return self.ended or any(t.part == "confirmation" for t in self._trials)

    def course(self) -> Any:
        """All answers of the fit, as the algorithm has them."""
        return self._course(self._trials)

    def best(self) -> dict | None:
        """What is known of the best θ: that of the confirmation, once it has begun.

        None before the first answer.
        """
        with self._lock:
            trials = self._trials
            ends = [event.content["estimate"] for event in self._events if event.kind == "end"]
        confirmed = [t.estimate for t in trials if t.part == "confirmation"]
        if confirmed or ends:
            return (confirmed or ends)[0]
        return self._estimate(trials) if any(t.answer for t in trials) else None

    def _follow(self, event: storage.Event) -> None:
        """What an event changes."""
        self._events.append(event)
        content = event.content
        if event.kind == "shown":
            values = dict(content)
            for key in ("first", "second"):
                values[key] = values[key] and tuple(values[key])
            trial = Trial(**values, event=event.number)
            self._trials = (*self._trials[: trial.number], trial)
            self._played = set()
        elif event.kind == "played":
            self._played = self._played | {content["side"]}
        elif event.kind == "answer":
            last = dataclasses.replace(self._trials[-1], answer=content["answer"])
            self._trials = (*self._trials[:-1], last)
        elif event.kind == "undo":
            again = dataclasses.replace(self._trials[content["trial"]], answer=None)
            self._trials = (*self._trials[: content["trial"]], again)
            self._played = set()

    def _append(self, kind: str, content: dict, client: str | None = None) -> storage.Event:
        event = storage.append(self._connection, kind, content, client)
        self._follow(event)
        return event

    def _repeated(self, client: str, kind: str, content: dict) -> bool:
        """Whether this request was here before.

        Raises:
            Conflict: If the client was, with something else.
        """
        for event in self._events:
            if event.client == client:
                if event.kind == kind and content.items() <= event.content.items():
                    return True
                raise Conflict("this client has already said something else")
        return False

    def _open(self) -> Trial | None:
        """The trial to be answered, if it has been decided on."""
        if self.ended or not self._trials or self._trials[-1].answer is not None:
            return None
        return self._trials[-1]

    def _undoable(self) -> int | None:
        """The trial whose answer may be taken back: the last one, once."""
        last = next((e for e in reversed(self._events) if e.kind in ("answer", "undo")), None)
        if self.ended or last is None or last.kind == "undo":
            return None
        return last.content["trial"]

    def _state(self) -> dict:
        trial = self._open()
        answered = sum(t.answer is not None for t in self._trials)
        parts = [t.part for t in self._trials if t.answer is not None]
        settings = self.settings
        confirmations = 2 * settings.confirmations
        in_part = parts.count(trial.part) if trial else 0
        return {
            "stage": "end" if self.ended else "trial" if self.consented else "consent",
            "trial": trial.number if trial else None,
            "part": trial.part if trial else None,
            "in_part": in_part,
            "most_in_part": settings.comparisons
            if trial is None or trial.part == "comparison"
            else confirmations,
            "answered": answered,
            "most": settings.comparisons + confirmations,
            "undo": self._undoable(),
            "break_after": settings.break_after,
            "demo": settings.calibration is None,
            "consent": settings.consent,
        }

    def _show(self, prepared: Prepared) -> None:
        if prepared.trial is None:
            self._append("end", {"estimate": prepared.estimate})
            self._ahead.want({})
            return
        content = dataclasses.asdict(prepared.trial)
        del content["answer"], content["event"]
        event = self._append("shown", content)
        if prepared.files is not None:
            self._files = event.number, prepared.files
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Prepare what each answer to the present trial would lead to."""
        if self.ended:
            return
        trial, before = self._open(), self._trials[:-1]
        if trial is None:
            trials = self._trials
            self._ahead.want({self._key(trials): lambda: self._plan(trials)})
            return
        jobs: dict[Hashable, Callable[[], Prepared]] = {}
        if self._fitting(self._trials):
            jobs["spare", trial.event] = functools.partial(self._spare, self._trials)
        for answer in get_args(Answer):
            after = (*before, dataclasses.replace(trial, answer=answer))
            jobs[self._key(after)] = functools.partial(self._plan, after)
        self._ahead.want(jobs)

    def _key(self, trials: Sequence[Trial]) -> tuple:
        return tuple((t.event, t.answer) for t in trials[-1:])

    def _fitting(self, trials: Sequence[Trial]) -> bool:
        """Whether another comparison may follow, as far as their number goes."""
        confirming = any(t.part == "confirmation" for t in trials)
        return not confirming and len(trials) < self.settings.comparisons

    def _next(self, trials: tuple[Trial, ...]) -> Prepared:
        """What follows these answers: as prepared, or at once something else."""
        key, fitting = self._key(trials), self._fitting(trials)
        try:
            prepared = self._ahead.get(key, self.patience_s if fitting else END_PATIENCE_S)
            if prepared is not None:
                return prepared
            if not fitting and any(t.part == "confirmation" for t in trials):
                return self._plan(trials)
            self._note_fault("no proposal in time")
        except Exception as error:  # a search that fails must not end a session
            self._note_fault(f"{type(error).__name__}: {error}"[:500])
        if not fitting:
            return self._confirm(trials, self._last_estimate(trials))
        spare = ("spare", trials[-1].event) if trials else None
        try:
            return self._ahead.get(spare, 0) or self._spare(trials)
        except Exception:
            return self._spare(trials)

    def _note_fault(self, what: str) -> None:
        with self._lock:
            self._append("fault", {"what": what})

    def _changes(self) -> int:
        """How often the session has changed."""
        return sum(event.kind != "fault" for event in self._events)

    def _plan(self, trials: tuple[Trial, ...]) -> Prepared:
        """What follows these answers."""
        confirming = [t for t in trials if t.part == "confirmation"]
        if confirming:
            return self._confirm(trials, confirming[0].estimate or self._last_estimate(trials))
        estimate = self._estimate(trials) if trials else None
        if estimate and (estimate["finished"] or not self._fitting(trials)):
            return self._confirm(trials, estimate)
        proposed = self.algorithm.propose(self._course(trials), self.limit_s)
        two = _theta(proposed.first), _theta(proposed.second)
        # By the pair alone, so that a pair which returns the other way round is heard that way.
        swapped = random.Random(f"{self.settings.seed}/swapped/{sorted(two)}").random() < 0.5
        trial = Trial(
            len(trials),
            "comparison",
            *two,
            self._sound(len(trials)),
            swapped=swapped,
            catch=bool(proposed.catch),
            estimate=estimate,
        )
        return Prepared(trial, estimate, self._rendered(trial))

    def _spare(self, trials: tuple[Trial, ...]) -> Prepared:
        """A pair that needs no thought: two listeners near those known."""
        number = len(trials)
        draw = random.Random(f"{self.settings.seed}/spare/{number}")
        two = [draw.choice(self.settings.known) for _ in range(2)]
        first, second = (_theta([draw.gauss(v, 0.15) for v in each]) for each in two)
        trial = Trial(number, "comparison", first, second, self._sound(number), fallback=True)
        return Prepared(trial, None, self._rendered(trial))

    def _confirm(self, trials: tuple[Trial, ...], estimate: dict) -> Prepared:
        """The next blind comparison of the best θ, or the end."""
        done = sum(t.part == "confirmation" for t in trials)
        settings = self.settings
        order: list[Against] = [*get_args(Against)] * settings.confirmations
        random.Random(f"{settings.seed}/confirmation").shuffle(order)
        if done >= len(order):
            return Prepared(None, estimate, None)
        number = len(trials)
        trial = Trial(
            number,
            "confirmation",
            _theta(estimate["theta"]),
            settings.start if order[done] == "start" else None,
            self._sound(number),
            swapped=random.Random(f"{settings.seed}/swapped/{number}").random() < 0.5,
            against=order[done],
            estimate=estimate,
        )
        return Prepared(trial, estimate, self._rendered(trial))

    def _last_estimate(self, trials: Sequence[Trial]) -> dict:
        """The latest that is known without computing."""
        estimates = [t.estimate for t in trials if t.estimate]
        if estimates:
            return estimates[-1]
        start = self.settings.start
        return {
            "theta": list(start),
            "deviation": [0.0] * len(start),
            "gain": None,
            "finished": False,
        }

    def _course(self, trials: Sequence[Trial]) -> Any:
        settings, algorithm = self.settings, self.algorithm
        guess = settings.start if settings.guessed else None
        course = algorithm.Course(
            settings.known, settings.seed, guess, settings.shape, covariance=settings.covariance
        )
        for trial in trials:
            if trial.part == "comparison" and trial.answer is not None:
                comparison = algorithm.Comparison(trial.first, trial.second, catch=trial.catch)
                course = algorithm.answered(course, comparison, trial.answer)
        return course

    def _estimate(self, trials: Sequence[Trial]) -> dict:
        estimate = self.algorithm.estimate(self._course(trials))
        return {
            "theta": list(_theta(estimate.theta)),
            "deviation": [float(value) for value in estimate.deviation],
            "gain": float(estimate.gain),
            "finished": bool(estimate.finished),
        }

    def _sound(self, number: int) -> int:
        """Every sound in turn, in an order of its own each time."""
        turn, place = divmod(number, len(self.settings.sounds))
        order = list(range(len(self.settings.sounds)))
        random.Random(f"{self.settings.seed}/sounds/{turn}").shuffle(order)
        return order[place]

    def _rendered(self, trial: Trial) -> tuple[bytes, bytes]:
        """A and B of a trial."""
        first, second = (self.process(t, trial.sound) for t in (trial.first, trial.second))
        if trial.swapped:
            first, second = second, first
        return self._pair(first, second)

    def _pair(self, first: Tensor, second: Tensor) -> tuple[bytes, bytes]:
        settings = self.settings
        return pair(
            first, second, settings.mode, settings.maximum_db_spl, settings.full_scale_db_spl
        )


def check_settings(
    events: Sequence[storage.Event], settings: Settings, unless: Sequence[str] = ()
) -> None:
    """See whether these are the settings that a session was begun with.

    Args:
        events: Of the session; any settings begin one without events.
        settings: Those wanted now.
        unless: Names of settings that are not looked at.

    Raises:
        ValueError: If not; the message names those that differ.
    """
    if not events:
        return
    begun, wanted = events[0].content, _as_json(settings)
    different = {key for key in wanted | begun if wanted.get(key) != begun.get(key)} - set(unless)
    if different:
        raise ValueError(
            f"the session of {settings.listener} was begun with other "
            f"{', '.join(sorted(different))}; choose another --listener or --study"
        )


def answer_of(choice: str, swapped: bool) -> Answer:
    """Which of the two a choice of A or B means."""
    if choice == "same":
        return "same"
    return "second" if (choice == "b") != swapped else "first"


def _as_json(settings: Settings) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _theta(values: Sequence[float]) -> Theta:
    """A θ as plain numbers in [0, 1]."""
    return tuple(min(1.0, max(0.0, float(value))) for value in values)
