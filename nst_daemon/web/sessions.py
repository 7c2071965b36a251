"""The logins of browsers. The cookie of each is a random id, of which state/sessions.json holds only the hash."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter

from nst_daemon import files
from nst_daemon.config import Folders
from nst_daemon.errors import StorageError
from nst_daemon.tokens import Digest, Token, sha256

log = logging.getLogger(__name__)

#: The length of a login in seconds, and the most logins of a token: the oldest ends when there is another.
LIFETIME, MOST = 30 * 86400, 100


@dataclass(frozen=True, slots=True)
class Session:
    """A login. end: when it expires, in seconds since the epoch."""

    token_sha256: Digest
    end: Annotated[float, Field(ge=0, lt=1e11)]


_DOCUMENT = TypeAdapter(dict[Digest, Session])


class Sessions:
    """The logins that have not ended. They survive a restart, and end with their token.

    Args:
        folders: of the root.
        clock: seconds since the epoch.
    """

    def __init__(self, folders: Folders, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = folders.state / "sessions.json", clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}  # by the hash of the id; never changed in place
        try:
            self._sessions = _DOCUMENT.validate_json(files.read_file(self._path))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("the logins of browsers were lost: sessions.json cannot be read: %s", error)

    def begin(self, token: Token) -> str:
        """Begin a login with a token. Returns its id, for the cookie."""
        session_id, now = secrets.token_hex(32), self._clock()
        with self._lock:
            kept = {key: one for key, one in self._sessions.items() if one.end > now}
            own = [key for key, one in kept.items() if one.token_sha256 == token.token_sha256]
            for key in own[: max(0, len(own) - MOST + 1)]:
                del kept[key]
            kept[sha256(session_id)] = Session(token.token_sha256, now + LIFETIME)
            self._store(kept)
        return session_id

    def end(self, session_id: str) -> None:
        """End a login, if there is one with this id."""
        with self._lock:
            key = sha256(session_id)
            if key in self._sessions:
                self._store({other: one for other, one in self._sessions.items() if other != key})

    def token_of(self, session_id: str) -> str:
        """The hash of the token of a login; "" if there is no login with this id."""
        found = self._sessions.get(sha256(session_id))
        return found.token_sha256 if found and found.end > self._clock() else ""

    def _store(self, sessions: dict[str, Session]) -> None:
        self._sessions = sessions
        try:
            text = json.dumps(_DOCUMENT.dump_python(sessions))
            files.write_atomic(self._path, text.encode(), mode=0o600)
        except StorageError as error:
            log.warning("a login or its end is lost if the page restarts: %s", error)
