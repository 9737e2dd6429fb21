"""The listening test as a web application: one listener, one page, and one for the experimenter.

Nothing from outside becomes a path: pages are read once, sounds are places in a list. Requests that
do not belong here are refused before they reach the session.
"""

import functools
import hmac
import json
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import resources
from typing import Annotated, Any, Literal, TypeAlias

import fastapi
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Path, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import SAMPLE_RATE, calibrate, resample

from . import results
from .connections import REQUEST_S, Connection
from .rendering import OUTPUT_RATE_HZ, encoded
from .session import Conflict, Session

MOST_BYTES = 4096
"""A request's body may have [bytes]; answers have about 150 (chosen here)."""

TOKEN = "[A-Za-z0-9_-]{16,128}"
"""What a token may be: nobody guesses it, and no cookie breaks on it."""

COOKIE = "icsim_token_{port}"
"""Browsers send a cookie to all ports of a host: servers there must not take each other's place."""

NOISE_DB = -30.0
"""Level of the calibration noise re full scale [dB] (chosen here)."""

NOISE_S = 10.0

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/experimenter": ("experimenter.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/listener.js": ("listener.js", "text/javascript; charset=utf-8"),
    "/player.js": ("player.js", "text/javascript; charset=utf-8"),
    "/requests.js": ("requests.js", "text/javascript; charset=utf-8"),
    "/experimenter.js": ("experimenter.js", "text/javascript; charset=utf-8"),
    "/plots.js": ("plots.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""What is sent to anyone, for it says nothing of a session."""

Client = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="Drawn by the page, once.")]
Number = Annotated[int, Field(ge=0, le=99_999, strict=True)]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class Body(BaseModel):
    """Of a request; what is not known is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Token(Body):
    """What the experimenter handed out."""

    token: Annotated[str, Field(min_length=1, max_length=256)]


class Consent(Body):
    """The listener agrees."""

    client: Client
    agreed: Literal[True]


class Heard(Body):
    """How a pair was listened to."""

    seconds: Annotated[float, Field(ge=0, le=1e6)]
    switches: Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
    starts: Annotated[int, Field(ge=0, le=1_000_000, strict=True)]


class Played(Body):
    """One sound of a pair was played long enough to be heard."""

    trial: Number
    side: Literal["a", "b"]


class Answer(Body):
    """Which of two was better."""

    client: Client
    trial: Number
    choice: Literal["a", "b", "same"]
    heard: Heard | None = None


class Undo(Body):
    """The last answer is taken back."""

    client: Client
    trial: Number


Responses: TypeAlias = dict[int | str, dict[str, Any]]

REFUSED: Responses = {
    400: {"description": "No JSON."},
    401: {"description": "No token, or a wrong one."},
    403: {"description": "From another site, or to another host."},
    413: {"description": "The body is too long."},
}
CONFLICT: Responses = {409: {"description": "Does not fit what has happened."}}


def application(
    session: Session,
    listener_token: str | None = None,
    experimenter_token: str | None = None,
    hosts: tuple[str, ...] | None = ("127.0.0.1", "localhost", "[::1]"),
) -> FastAPI:
    """The test of one session.

    Args:
        session: Which.
        listener_token: Whoever takes the test must have it; None if only this machine is served.
        experimenter_token: For results and exports; it opens the test as well.
        hosts: Names by which the server may be called, so that no other site can pass for it; None
            if tokens keep others out.

    Raises:
        ValueError: If one of the tokens is missing or short, or nothing keeps others out.
    """
    check_tokens(listener_token, experimenter_token)
    if hosts is None and not (listener_token and experimenter_token):
        raise ValueError("a server that others can reach needs tokens")
    app = FastAPI(title="Listening test", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, listener=listener_token, experimenter=experimenter_token, hosts=hosts)
    _serve_pages(app)
    _serve_listener(app, session, listener_token, experimenter_token)
    _serve_experimenter(app, session)

    @app.exception_handler(Conflict)
    def conflict(request: fastapi.Request, error: Conflict) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(RequestValidationError)
    def malformed(request: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not sent back: it may hold what JSON cannot.
        reasons = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
        return JSONResponse({"detail": reasons}, 422)

    return app


def check_tokens(*tokens: str | None) -> None:
    """Raise a ValueError if one is missing where another is there, or is easily guessed."""
    if any(tokens) and not all(token and re.fullmatch(TOKEN, token) for token in tokens):
        raise ValueError(
            "tokens must be at least 16 letters, digits, - or _; python -c 'import secrets; "
            "print(secrets.token_urlsafe())' makes one"
        )


def bind(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """A socket that waits for requests from now on.

    Raises:
        ValueError: If the address is none of this machine's, or the port is taken.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(64)
    except (OSError, OverflowError) as error:  # the latter if it is no port at all
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{host}:{port}: {reason}; choose another --port or --host") from error
    return listening


def server(app: FastAPI, request_s: float = REQUEST_S) -> uvicorn.Server:
    """A server whose `run([socket])` serves what comes to a socket of `bind` until interrupted.

    No request is logged.

    Args:
        app: The application.
        request_s: In which a request has to arrive [s].
    """
    config = uvicorn.Config(
        app,
        http=functools.partial(Connection, request_s=request_s),  # type: ignore[arg-type]  # a factory
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=64,
    )
    return uvicorn.Server(config)


def _serve_pages(app: FastAPI) -> None:
    folder = resources.files(__package__) / "page"
    for path, (name, kind) in PAGES.items():
        content = (folder / name).read_bytes()
        app.add_api_route(
            path,
            lambda content=content, kind=kind: Response(content, media_type=kind),
            include_in_schema=False,
        )


def _serve_listener(
    app: FastAPI, session: Session, listener_token: str | None, experimenter_token: str | None
) -> None:
    @app.post("/api/token", status_code=204, responses=REFUSED)
    def take_token(body: Token, request: fastapi.Request, response: Response) -> None:
        """Exchange a token for a cookie, so that no address holds it."""
        if not _matches(body.token, listener_token, experimenter_token):
            raise HTTPException(401, "wrong token")
        name = _cookie(request.scope)
        response.set_cookie(name, body.token, httponly=True, samesite="strict", path="/")

    @app.get("/api/session", responses=REFUSED)
    def look() -> dict:
        state = session.look()
        if state["stage"] != "end":  # before it, what came out would tell which was which
            return state
        return state | {"outcome": results.outcome(session)["sentences"]}

    @app.post("/api/consent", responses=REFUSED | CONFLICT)
    def consent(body: Consent) -> dict:
        return session.consent(body.client)

    @app.post("/api/played", responses=REFUSED | CONFLICT)
    def played(body: Played) -> dict:
        return session.play(body.trial, body.side)

    @app.post("/api/answer", responses=REFUSED | CONFLICT)
    def answer(body: Answer) -> dict:
        heard = body.heard.model_dump() if body.heard else None
        return session.answer(body.client, body.trial, body.choice, heard)

    @app.post("/api/undo", responses=REFUSED | CONFLICT)
    def undo(body: Undo) -> dict:
        return session.undo(body.client, body.trial)

    @app.get("/api/sound/{trial}/{side}", responses=REFUSED | CONFLICT, response_class=Response)
    def sound(
        trial: Annotated[int, Path(ge=0, le=99_999)], side: Annotated[Literal["a", "b"], Path()]
    ) -> Response:
        return Response(session.file(trial, side), media_type="audio/wav")

    @app.get("/api/sample", responses=REFUSED, response_class=Response)
    def sample() -> Response:
        return Response(session.sample(), media_type="audio/wav")


def _serve_experimenter(app: FastAPI, session: Session) -> None:
    @app.get("/api/experimenter", responses=REFUSED)
    def overview() -> dict:
        return results.overview(session)

    @app.get("/api/experimenter/noise", responses=REFUSED, response_class=Response)
    def noise() -> Response:
        return Response(calibration_noise(), media_type="audio/wav")

    @app.get("/api/experimenter/session.json", responses=REFUSED, response_class=Response)
    def everything() -> Response:
        return _download(results.everything(session), f"{session.settings.listener}.json")

    @app.get("/api/experimenter/theta.json", responses=REFUSED | CONFLICT, response_class=Response)
    def theta() -> Response:
        estimate = results.theta(session)
        if estimate is None:
            raise Conflict("no θ before the first answer")
        return _download(estimate, f"{session.settings.listener}-theta.json")

    @app.get("/api/experimenter/answers.csv", responses=REFUSED, response_class=Response)
    def table() -> Response:
        name = f"{session.settings.listener}.csv"
        return _attachment(results.table(session).encode(), name, "text/csv; charset=utf-8")


def calibration_noise() -> bytes:
    """Speech-shaped noise, `NOISE_DB` below full scale whatever that is in dB SPL, as WAV."""
    noise = speech_shaped_noise(round(NOISE_S * SAMPLE_RATE), np.random.default_rng(0))
    full_scale = 100.0
    pressure = calibrate(resample(noise, SAMPLE_RATE, OUTPUT_RATE_HZ), full_scale + NOISE_DB)
    return encoded(pressure, full_scale, full_scale)


def _download(content: dict, name: str) -> Response:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _attachment(text.encode(), name, "application/json")


def _attachment(content: bytes, name: str, kind: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)


def _matches(token: str, *tokens: str | None) -> bool:
    """Whether a token is one of these, in a time that does not say which characters are right."""
    matches = [
        hmac.compare_digest(token.encode(), candidate.encode()) for candidate in tokens if candidate
    ]
    return any(matches)


class Guard:
    """Refuses what does not belong here, before anything is done, and adds headers to everything.

    Args:
        app: What is guarded.
        listener: Token for the test.
        experimenter: Token for everything.
        hosts: Names by which the server may be called; None for any.
    """

    def __init__(
        self,
        app: Application,
        listener: str | None,
        experimenter: str | None,
        hosts: tuple[str, ...] | None,
    ):
        self.app, self.hosts = app, hosts
        self.listener, self.experimenter = listener, experimenter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets here

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        headers = {
            key.decode("latin-1").lower(): value.decode("latin-1")
            for key, value in scope["headers"]
        }
        refused = self._refused(scope, headers)
        body = b""
        if refused is None:
            body, refused = await _read(receive, headers)
        if refused is not None:
            status, reason = refused
            response = JSONResponse({"detail": reason}, status)
            await response(scope, receive, with_headers)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, replay, with_headers)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason, if a request is not to be served."""
        path, host = scope["path"], headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return 403, "another host"
        if path in PAGES:
            return None
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "another site"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "another site"
        if path == "/api/token" or not self.experimenter:
            return None
        tokens: list[str | None] = [self.experimenter]
        if not path.startswith("/api/experimenter"):
            tokens.append(self.listener)
        if not _matches(_sent(headers, _cookie(scope)), *tokens):
            return 401, "a token is needed"
        return None


def _name(host: str) -> str:
    """A host without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def _cookie(scope: Scope) -> str:
    """The name of the cookie of the server that got a request."""
    return COOKIE.format(port=(scope.get("server") or ("", 0))[1])


def _sent(headers: dict[str, str], cookie: str) -> str:
    """The token of a request: in its Authorization header, or else in its cookie."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value.strip('"') for name, _, value in cookies if name == cookie), "")


async def _read(receive: Receive, headers: dict[str, str]) -> tuple[bytes, tuple[int, str] | None]:
    """A body, or why it is not read to its end."""
    too_long = 413, f"more than {MOST_BYTES} bytes"
    length = headers.get("content-length", "0")
    if not length.isdigit():
        return b"", (400, "no length")
    if int(length[:10]) > MOST_BYTES:
        return b"", too_long
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"", (400, "cut off")
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return b"", too_long
        if not message.get("more_body"):
            return body, None
