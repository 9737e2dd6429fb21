"""Fit θ of a person by ear: a listening test in a browser.

`python -m recipes.listen --model MODEL --aid AID --sounds FOLDER --study FOLDER --listener CODE
--calibration FILE --mode loudness`; without arguments it is a demo with what `make demo` left in
`runs/demo`. The same command goes on where it was stopped. See docs/listening.md.

A research tool on simulated gerbils. It is no medical device.
"""

import contextlib
import dataclasses
import functools
import hashlib
import ipaddress
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from compensation import preference
from compensation.aid import Aid
from compensation.listener import theta_like
from compensation.load import AidFacts, load_aid
from compensation.prescriptions import nal_r
from compensation.sensitivity import sensitivity
from icsim.audiogram import Audiogram, audiogram
from icsim.files import write_json
from icsim.fits import read_fit
from icsim.models.clinical_prior import posterior, read
from icsim.models.load import load_theta_model
from icsim.models.response import ResponseModel
from icsim.sound import SAMPLE_RATE, calibrate, find_audio, read_mono
from icsim.store import Cohort
from icsim.threshold_shifts import audiograms_of
from icsim.weights import fingerprint
from recipes.running.commands import begin, run
from recipes.running.ranges import (
    Count,
    CountOrZero,
    Exponent,
    LevelDbSpl,
    MaximumDbSpl,
    NotEmptyStr,
    Port,
    Seconds,
    Seed,
    checked,
)

DEMO = Path("runs/demo")
"""Where `make demo` leaves what it made."""

KINDS = ("speech", "noisy", "music")
"""Classes of sounds that are taken from a cohort."""

SHAPE_LISTENERS, SHAPE_SOUNDS, SHAPE_S = 6, 3, 2.0
"""Listeners and sounds that tell what is heard of θ, and how much of each sound [s]."""

MOST_TRIALS = 10_000
"""Pairs of a session (chosen here)."""

HIGHEST_DB_SPL = 120.0
"""A maximum above it is refused [dB SPL] (chosen here)."""


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """Which aid to fit, for whom, with which sounds, and how."""

    model: NotEmptyStr = str(DEMO / "ic" / "model.safetensors")
    """The model whose θ is fitted."""
    aid: NotEmptyStr = str(DEMO / "aid" / "aid.safetensors")
    """An aid trained through it."""
    sounds: NotEmptyStr = str(DEMO / "cohort" / "cohort.zarr")
    """A folder of sound files, or a cohort, whose test sounds are taken."""
    study: NotEmptyStr = "runs/listening"
    """Folder of the study: a file for each listener."""
    listener: NotEmptyStr = "L01"
    """A code for the listener: letters, digits, - and _; no name."""
    mode: Literal["loudness", "gain"] | None = None
    """`loudness`: the two sounds of a pair are made equally loud; `gain`: they stay as the aid made
    them. Must be chosen, but for a demo, which is `loudness`."""
    calibration: NotEmptyStr | None = None
    """JSON with date, transducer and full_scale_db_spl, the level of a sound whose RMS is 1; see
    docs/listening.md."""
    demo: bool | None = None
    """Play without calibration. By default only if aid and sounds are those of `make demo`."""
    audiogram: NotEmptyStr | None = None
    """Of the listener, a file or a standard one: the search begins near listeners who are like it,
    and the confirmation includes NAL-R, otherwise no aid at all."""
    start: NotEmptyStr | None = None
    """JSON with θ to start from, such as a fit; by default what the audiogram says, or the mean of
    the known listeners."""
    tests: NotEmptyStr | None = None
    """JSON of what a clinic measured, numbers by the names of tests of `clinical_prior`: the search
    begins where these put the listener, as sure as they are."""
    clinical_prior: NotEmptyStr | None = None
    """What such tests say of θ: `prior.json` of `recipes.learn_clinical_prior`."""
    consent: NotEmptyStr | None = None
    """Text file that the listener agrees to, beside the instructions."""
    level_db_spl: LevelDbSpl = 65.0
    """Of the sounds before the aid [dB SPL]."""
    maximum_db_spl: MaximumDbSpl = 105.0
    """No sample exceeds this magnitude [dB SPL]."""
    seconds: Seconds = 4.0
    """Length of an excerpt [s]."""
    most_sounds: Count = 12
    """Sounds that are used, evenly from all."""
    noise_reduction: Exponent = 1.0
    """Exponent of the aid's noise mask: 0 off, 1 as trained."""
    gain: Exponent = 1.0
    """Exponent of its compensating mask: 0 off, 1 as trained."""
    comparisons: Count = 40
    """Most comparisons; the search may end earlier."""
    confirmations: CountOrZero = 6
    """Blind comparisons of the best θ at the end, with the start and with the reference each."""
    break_after: Count = 15
    """Answers from one break to the next."""
    seed: Seed = 0
    """Of the order of sounds and pairs."""
    host: NotEmptyStr = "127.0.0.1"
    """Address to serve at; any but this machine's own needs a token."""
    port: Port = 8000
    """Port to serve at."""
    token: NotEmptyStr | None = None
    """The experimenter's token; the listener gets another, made of it. With one, this machine is
    asked for it, too. Other users of this machine can read a command line: better `token_file`, or
    `ICSIM_LISTENING_TOKEN` in the environment."""
    token_file: NotEmptyStr | None = None
    """File that holds the token; if it is not there, one is drawn and kept in it."""


def listen(config: Config) -> None:
    """Serve the test until interrupted.

    Raises:
        ValueError: If something is missing or does not go together; the message says what to do.
    """
    try:
        from compensation.listening import application, storage
        from compensation.listening.session import Session, check_settings
    except ImportError as error:
        raise ValueError(
            f"the listening test needs FastAPI and uvicorn ({error}): pip install '.[listening]'"
        ) from error
    check(config)
    local, mine = is_local(config.host), experimenter_token(config)
    theirs = listener_token(mine) if mine else None
    if not local and not mine:
        raise ValueError(
            f"{config.host}: others can reach it, so a token is needed: add --token_file FILE, "
            "where one is drawn and kept"
        )
    application.check_tokens(mine, theirs)
    file = Path(config.study) / f"{config.listener}.sqlite"
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(application.bind(config.host, config.port))
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # one is left for the pages
        settings, process, shape = prepared(config)
        connection = opened.enter_context(contextlib.closing(storage.connect(file)))
        check_settings(storage.events(connection), settings, unless=["shape"])
        begin(file)
        # What takes minutes comes last; a page that is opened meanwhile waits.
        settings = dataclasses.replace(settings, shape=shape())
        session = opened.enter_context(
            contextlib.closing(Session(connection, settings, process, preference))
        )
        hosts = (config.host, "127.0.0.1", "localhost", "[::1]", f"[{config.host}]")
        app = application.application(session, theirs, mine, hosts if local else None)
        name = f"[{config.host}]" if ":" in config.host else config.host
        page = f"http://{name}:{config.port}/"
        print(f"listener {config.listener}:  {page}" + (f"#token={theirs}" if theirs else ""))
        print(f"experimenter:  {page}experimenter" + (f"#token={mine}" if mine else ""))
        print(
            "A research tool on simulated gerbils, no medical device. Ctrl-C ends it; every answer"
        )
        print("is kept, and the same command goes on.", flush=True)
        application.server(app).run([listening])


def check(config: Config) -> None:
    """See whether a configuration makes sense, and whether the files that it names are there.

    Raises:
        ValueError: If not; the message says what to do.
    """
    from compensation.listening.calibration import read_calibration

    demo = is_demo(config)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", config.listener):
        raise ValueError(f"listener must be a code such as L01, got {config.listener!r}")
    if config.mode is None and not demo:
        raise ValueError("choose --mode loudness (pairs equally loud) or --mode gain (as aided)")
    if config.maximum_db_spl > HIGHEST_DB_SPL:
        raise ValueError(
            f"maximum_db_spl must be at most {HIGHEST_DB_SPL:g}, got {config.maximum_db_spl}"
        )
    if not config.level_db_spl < config.maximum_db_spl or not 0.5 <= config.seconds <= 30:
        raise ValueError(
            f"sounds of {config.level_db_spl} dB SPL and {config.seconds} s cannot be played: the "
            "level must lie below the maximum, and 0.5 to 30 s are possible"
        )
    if config.comparisons + 2 * config.confirmations > MOST_TRIALS:
        raise ValueError(
            f"comparisons {config.comparisons} and confirmations {config.confirmations}: nobody "
            f"answers more than {MOST_TRIALS} pairs"
        )
    if config.calibration:
        read_calibration(config.calibration)
    elif not demo:
        raise ValueError(
            "without --calibration FILE nobody knows how loud it is; the experimenter's page of a "
            "demo (--demo true) makes such a file, see docs/listening.md"
        )
    consent_text(config)
    if config.audiogram:
        audiogram(config.audiogram)
    if config.start:
        read_fit(config.start)
    if bool(config.tests) != bool(config.clinical_prior) or (config.tests and config.start):
        raise ValueError("give --tests with --clinical_prior, and no --start beside them")
    if config.tests and config.clinical_prior:
        posterior(read(config.clinical_prior), clinical_tests(config.tests))
    _there(config)


def prepared(config: Config) -> tuple:
    """The settings of a session, what aid and reference make of its sounds, and a late setting.

    Returns:
        Settings without `shape`; the sound of a θ, by its place; and what computes `shape`, in
        minutes, or reads it, where another listener of the study had it computed.

    Raises:
        ValueError: If something is missing or does not go together.
    """
    from compensation.listening.calibration import read_calibration
    from compensation.listening.rendering import through_aid
    from compensation.listening.session import Settings

    calibration = read_calibration(config.calibration) if config.calibration else None
    model, model_facts = load_theta_model(config.model)
    mark, others = fingerprint(config.model), model.listeners.at().detach()
    aid, facts = aid_for(config, mark, others.shape[1])
    noise_reduction = config.noise_reduction if facts.noise_reduction else 0.0
    ear = audiogram(config.audiogram) if config.audiogram else None
    start = first_guess(config, mark, ear, audiograms_of(model_facts) if ear else None, others)
    clinic = None
    if config.tests and config.clinical_prior:
        clinic = posterior(read(config.clinical_prior, mark), clinical_tests(config.tests))
        start = clinic.theta
        for name, (mean, deviation, _) in clinic.quantities.items():
            left = ", left open by these tests" if name in clinic.open else ""
            print(f"{name}: {mean:.3g} ± {deviation:.2g}{left}")
    guessed = start is not None
    start = others.mean(0) if start is None else start
    names, sounds = excerpts(config)
    reference: Callable[[Tensor], Tensor] = (
        (lambda sound: nal_r(sound[None], ear)[0]) if ear else (lambda sound: sound)
    )
    reference(sounds[0])  # says what is missing before anyone listens

    def process(theta, place: int) -> Tensor:
        if theta is None:
            return reference(sounds[place])
        return through_aid(aid, theta, sounds[place], noise_reduction, config.gain)

    digest, masks = digest_of(sounds), (noise_reduction, config.gain)
    about = "-".join([fingerprint(config.aid), digest, *(f"{exponent:g}" for exponent in masks)])
    consent = consent_text(config)
    settings = Settings(
        listener=config.listener,
        aid=fingerprint(config.aid),
        model=mark,
        sounds=tuple(names),
        sounds_digest=digest,
        known=tuple(map(tuple, others.tolist())),
        start=tuple(start.tolist()),
        guessed=guessed,
        shape=(),
        reference=f"NAL-R ({config.audiogram})" if ear else "unaided",
        mode=config.mode or "loudness",
        full_scale_db_spl=calibration.full_scale_db_spl if calibration else 100.0,
        maximum_db_spl=config.maximum_db_spl,
        calibration=dataclasses.asdict(calibration) if calibration else None,
        level_db_spl=config.level_db_spl,
        noise_reduction=noise_reduction,
        gain=config.gain,
        **({"consent": consent} if consent else {}),
        comparisons=config.comparisons,
        confirmations=config.confirmations,
        break_after=config.break_after,
        seed=config.seed,
        covariance=tuple(map(tuple, clinic.covariance.tolist())) if clinic else None,
    )
    stored = Path(config.study) / f"shape-{about}.json"

    def shape() -> tuple:
        if not stored.is_file():
            write_json(stored, heard_shape(aid, model, sounds, others, *masks))
        return tuple(map(tuple, json.loads(stored.read_text(encoding="utf-8"))))

    return settings, process, shape


def aid_for(config: Config, model: str, parameters: int) -> tuple[Aid, AidFacts]:
    """The aid, which must take θ of this model.

    Raises:
        ValueError: If it does not.
    """
    aid, facts = load_aid(config.aid)
    if facts.listener != "theta":
        raise ValueError(f"{config.aid}: takes audiograms; an aid that takes θ is needed")
    if facts.model != model:
        raise ValueError(f"{config.aid}: was trained through model {facts.model}, not {model}")
    if aid.config.listener != parameters:
        raise ValueError(f"{config.aid}: takes {aid.config.listener} numbers, not {parameters}")
    return aid, facts


def first_guess(
    config: Config,
    model: str,
    ear: Audiogram | None,
    alike: list[Audiogram] | None,
    others: Tensor,
) -> Tensor | None:
    """θ that the session begins at: of a fit, or by the audiogram; None if nothing says one.

    Args:
        config: Of the session.
        model: Fingerprint of the model that the fit must be of.
        ear: The listener's thresholds.
        alike: Those of the model's animals.
        others: Their θ, `(A, P)`.

    Raises:
        ValueError: If the fit is of another model.
    """
    if not config.start:
        return theta_like(ear, alike, others) if ear and alike else None
    start = read_fit(config.start, model).theta
    if len(start) != others.shape[1]:
        raise ValueError(f"{config.start}: {len(start)} numbers, not {others.shape[1]}")
    return start


def clinical_tests(path: str) -> dict[str, float]:
    """What a clinic measured, by test.

    Raises:
        ValueError: If the file holds no such numbers.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        tests = {str(name): float(value) for name, value in content.items()}
        if not all(math.isfinite(value) for value in tests.values()):
            raise ValueError("numbers must be finite")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--tests {path}: must hold numbers by the names of tests ({error})"
        ) from error
    return tests


def digest_of(sounds: Sequence[Tensor]) -> str:
    """What tells these sounds from others."""
    hashed = hashlib.sha256()
    for sound in sounds:
        hashed.update(sound.contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]


def consent_text(config: Config) -> str | None:
    """What the listener agrees to beside the instructions, if the study has such a text.

    Raises:
        ValueError: If its file cannot be read or says nothing.
    """
    if config.consent is None:
        return None
    try:
        text = Path(config.consent).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"--consent {config.consent}: no text in UTF-8 ({error})") from error
    if not text:
        raise ValueError(f"--consent {config.consent}: is empty; write what listeners agree to")
    return text


def experimenter_token(config: Config) -> str | None:
    """The experimenter's token: from the command line, its file, or the environment.

    Raises:
        ValueError: If it is given twice, or its file can neither be read nor made.
    """
    if config.token and config.token_file:
        raise ValueError("give --token or --token_file, not both")
    if config.token:
        return config.token
    if not config.token_file:
        return os.environ.get("ICSIM_LISTENING_TOKEN") or None
    path = Path(config.token_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(secrets.token_urlsafe(18) + "\n")
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"--token_file {path}: cannot be read or made ({error})") from error
    if not token:
        raise ValueError(f"--token_file {path}: is empty; delete it, and a token is drawn")
    return token


def heard_shape(
    aid: Aid, model: ResponseModel, sounds: list[Tensor], others: Tensor, *masks: float
) -> list[list[float]]:
    """In which directions of θ errors are heard, on average over listeners, `(P, P)`."""
    samples = round(SHAPE_S * SAMPLE_RATE)
    some = torch.stack([sound[:samples] for sound in _evenly(sounds, SHAPE_SOUNDS)])
    listeners = _evenly(others.unbind(), SHAPE_LISTENERS)
    shown = tqdm(listeners, desc="what is heard of θ", unit="listener")
    each = (sensitivity(aid, model, some, theta, *masks) for theta in shown)
    shape = sum(each, torch.zeros(()))
    # A model that hears nothing of θ says nothing about it.
    return (shape / shape.trace() if shape.trace() > 0 else torch.eye(len(shape))).tolist()


def is_demo(config: Config) -> bool:
    """Whether uncalibrated levels are allowed, by the configuration or as nothing is one's own."""
    if config.demo is not None:
        return config.demo
    default = Config()
    return (config.aid, config.sounds) == (default.aid, default.sounds)


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listener_token(token: str) -> str:
    """What a listener gets: made of the experimenter's token, which it does not tell."""
    return hashlib.sha256(f"listener {token}".encode()).hexdigest()[:24]


def excerpts(config: Config) -> tuple[list[str], list[Tensor]]:
    """Names, and the loudest parts of the sounds at one level, `(T,)` [Pa] each.

    Raises:
        ValueError: If no sound is long enough.
    """
    samples = round(config.seconds * SAMPLE_RATE)
    read = [(name, sound()) for name, sound in _evenly(_sounds(config), config.most_sounds)]
    long = [(name, sound) for name, sound in read if len(sound) >= samples]
    if not long:
        raise ValueError(f"{config.sounds}: no sound of {config.seconds:g} s; lower --seconds")
    names = [name for name, _ in long]
    return names, [calibrate(loudest(sound, samples), config.level_db_spl) for _, sound in long]


def loudest(sound: Tensor, samples: int) -> Tensor:
    """The part of a sound with the most energy, `(samples,)`."""
    energy = torch.cat([sound.new_zeros(1, dtype=torch.double), sound.double().square().cumsum(0)])
    at = int((energy[samples:] - energy[:-samples]).argmax())
    return sound[at : at + samples].clone()


def _sounds(config: Config) -> list[tuple[str, Callable[[], Tensor]]]:
    """Names, and how each is read."""
    if Path(config.sounds).suffix != ".zarr":
        folder = Path(config.sounds)
        return [
            (str(path.relative_to(folder)), functools.partial(read_mono, path))
            for path in find_audio(folder)
        ]
    cohort = Cohort.open(config.sounds)
    return [
        (sound.name, functools.partial(cohort.pressure, sound.index))
        for sound in cohort.sounds
        if sound.split == "test" and sound.kind in KINDS
    ]


def _evenly(things: Sequence, most: int) -> list:
    """At most so many, from the whole list."""
    count = min(most, len(things))
    return [things[place * len(things) // count] for place in range(count)]


def _there(config: Config) -> None:
    missing = [p for p in (config.model, config.aid, config.sounds) if not Path(p).exists()]
    if missing:
        default = Config()
        inputs = {config.model, config.aid, config.sounds} - {
            default.model,
            default.aid,
            default.sounds,
        }
        remedy = (
            "correct the path" if inputs & set(missing) else "run `make demo` first, which makes it"
        )
        raise ValueError(f"{', '.join(missing)}: not there; {remedy}, or give your own files")


if __name__ == "__main__":
    run(listen, Config)
