"""What happened in a session, in SQLite: events are added, and never changed or taken away.

After each event the one file is whole: nothing beside it has to be copied along.
"""

import dataclasses
import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

TABLE = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    client TEXT UNIQUE,
    content TEXT NOT NULL
)
"""


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened."""

    number: int
    """Counted from 1."""
    at: str
    """When, UTC."""
    kind: str
    """settings, consent, shown, played, answer, undo, fault or end."""
    client: str | None
    """What a page calls it, so that a request that is sent again is known; no two are alike."""
    content: dict
    """What JSON can hold."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file of a session, or begin one; nobody else can while it is open.

    Raises:
        ValueError: If another program has it open, or it is no file of a session.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Answers of a person are nobody else's business.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A write-ahead log would hold the last answers beside the file.
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(TABLE)
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        events(connection)
    except (sqlite3.Error, ValueError) as error:
        connection.close()
        raise ValueError(
            f"{path}: cannot be opened as a session ({error}); end the server that has it open, "
            "or choose another --study or --listener"
        ) from error
    return connection


def append(
    connection: sqlite3.Connection, kind: str, content: dict, client: str | None = None
) -> Event:
    """Add an event; when this returns, it is on the disk.

    Raises:
        sqlite3.IntegrityError: If the client has been there before.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    # Outside a transaction, each statement is one, and committed when it returns.
    connection.execute(
        "INSERT INTO events (at, kind, client, content) VALUES (?, ?, ?, ?)",
        (at, kind, client, text),
    )
    (number,) = connection.execute("SELECT last_insert_rowid()").fetchone()
    return Event(number, at, kind, client, json.loads(text))


def events(connection: sqlite3.Connection) -> list[Event]:
    """Everything that happened, in order."""
    rows = connection.execute("SELECT number, at, kind, client, content FROM events ORDER BY 1")
    return [
        Event(number, at, kind, client, json.loads(text)) for number, at, kind, client, text in rows
    ]
