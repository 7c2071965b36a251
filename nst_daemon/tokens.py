"""The tokens of the page and its API: those of state/tokens.json, and `status_page_token` of the configuration.

The file holds only hashes of the tokens, so it cannot be used to log in. `nst-daemon token` changes it; the page
notices that at its next request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from nst_daemon import files, rights
from nst_daemon.config import Folders
from nst_daemon.errors import StorageError, UsageError
from nst_daemon.names import printable, shortened

log = logging.getLogger(__name__)

#: The name of the token of the configuration.
CONFIGURED = "status_page_token"
#: What every created token begins with, so that tools which search for secrets recognize it, and its random bytes.
PREFIX, RANDOM_BYTES = "nst_", 20
#: Limits of the file, of the number of its tokens, and of the length of their names.
MAX_FILE_BYTES, MAX_TOKENS, MAX_NAME = 1 << 20, 1000, 50
#: The last use of a token is stored again after so many seconds.
USE_SECONDS = 300.0

Access = Literal["full", "read"]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the page accepts.

    Attributes:
        name: chosen by the user, unique.
        access: "full", or "read" for requests that change nothing.
        created: seconds since the epoch; 0 for the one of the configuration.
        token_sha256: hash of the token.
    """

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    access: Access
    created: Annotated[float, Field(ge=0, lt=1e11)]
    token_sha256: Digest

    @classmethod
    def of(cls, secret: str, name: str, access: Access, created: float) -> Token:
        """The record of a token."""
        return cls(name, access, created, sha256(secret))


@dataclass(frozen=True, slots=True)
class _TokenFile:
    """The document of state/tokens.json."""

    version: Literal[1]
    tokens: tuple[Token, ...]


_DOCUMENT = TypeAdapter(_TokenFile)
_USES = TypeAdapter(dict[str, Annotated[float, Field(ge=0, lt=1e11)]])


def path_of(folders: Folders) -> Path:
    """The file of the tokens."""
    return folders.state / "tokens.json"


def read(path: Path) -> tuple[Token, ...] | None:
    """The tokens of the file; None if there is no file. Raises StorageError if it is damaged or cannot be read."""
    try:
        with os.fdopen(files.open_file(path), "rb") as file:
            return _DOCUMENT.validate_json(file.read(MAX_FILE_BYTES)).tokens
    except FileNotFoundError:
        return None
    except OSError as error:
        cause = f"{printable(str(path))} cannot be read: {error.strerror or error}"
        raise StorageError(cause, remedy=rights.private_remedy(path)) from error
    except ValueError as error:
        raise StorageError(
            f"{printable(str(path))} is damaged",
            remedy="remove it, and create the tokens again with `nst-daemon token create`",
        ) from error


def create(folders: Folders, name: str, access: Access) -> str:
    """Create a token and return it. It is not stored, and cannot be shown again.

    Raises:
        UsageError: The name is not usable, or in use; or this user is not the daemon's.
        StorageError: The file is damaged, or cannot be written.
    """
    if not name.isprintable() or name != name.strip() or not 0 < len(name) <= MAX_NAME:
        said = f"{shortened(printable(name))!r} is not a name of a token"
        raise UsageError(said, remedy=f"use 1 to {MAX_NAME} printable characters")
    with _changing(folders) as found:
        if name == CONFIGURED or any(token.name == name for token in found):
            raise UsageError(
                f"there is a token {name} already",
                remedy="choose another name, or revoke it first"
                if name != CONFIGURED
                else "choose another name: this is the one of the configuration",
            )
        if len(found) >= MAX_TOKENS:
            raise UsageError(f"there are {MAX_TOKENS} tokens", remedy="revoke some")
        secret = PREFIX + secrets.token_hex(RANDOM_BYTES)
        found.append(Token.of(secret, name, access, time.time()))
    return secret


def revoke(folders: Folders, name: str) -> int:
    """Revoke a token. Returns the number of those that are left in the file. Raises like `create`."""
    with _changing(folders) as found:
        kept = [token for token in found if token.name != name]
        if len(kept) == len(found):
            if name == CONFIGURED:
                raise UsageError(
                    f"{name} is a key of the configuration",
                    remedy="remove it there, and restart the daemon",
                )
            names = ", ".join(token.name for token in found)
            raise UsageError(
                f"there is no token {shortened(printable(name))}",
                remedy=f"tokens: {shortened(names, 300)}" if names else "there are no tokens",
            )
        found[:] = kept
    return len(kept)


@contextmanager
def _changing(folders: Folders) -> Iterator[list[Token]]:
    """The tokens, for changes. They are written at the end, unless there was an exception."""
    owner, group = rights.private_owner(folders)
    path = path_of(folders)
    files.make_folder(path.parent)
    with files.storage(path):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            files.lock(folder, wait=True)
        found = list(read(path) or ())
        yield found
        text = json.dumps(_DOCUMENT.dump_python(_TokenFile(1, tuple(found))), indent=1)
        files.write_atomic(path, text.encode(), mode=0o600, owner=(owner, group))
    finally:
        os.close(folder)


class AcceptedTokens:
    """The tokens that the page accepts now. The file is read again when it has changed.

    Args:
        folders: of the root.
        configured: `status_page_token`; empty for none.
        far: whether other machines can reach the page. If so, a token is always needed.
    """

    def __init__(self, folders: Folders, configured: str, *, far: bool) -> None:
        self._path, self._far = path_of(folders), far
        self._own = (Token.of(configured, CONFIGURED, "full", 0.0),) if configured else ()
        self._version: tuple[int, ...] | None = ()
        self._tokens: tuple[Token, ...] | None = None
        self._problem = ""
        self._uses = TokenUses(folders)

    @property
    def needed(self) -> bool:
        """Whether requests need a token. A file without tokens means that nobody has access."""
        self._refresh()
        return bool(self._far or self._own or self._problem or self._tokens is not None)

    @property
    def problem(self) -> str:
        """Why no token is accepted; empty if the file can be read."""
        self._refresh()
        return self._problem

    def find(self, secret: str) -> Token | None:
        """The token that this is; None if there is no such token."""
        return self.get(sha256(secret))

    def get(self, token_sha256: str) -> Token | None:
        """The token with this hash; None if there is no such token."""
        self._refresh()
        if self._problem:
            return None
        known = (*self._own, *(self._tokens or ()))
        matching = (t for t in known if hmac.compare_digest(t.token_sha256, token_sha256))
        return next(matching, None)

    def note_use(self, token: Token, now: float) -> bool:
        """Remember a use; True if `store_uses` should be called. now: seconds since the epoch."""
        return self._uses.note(token.name, now)

    def store_uses(self) -> None:
        """Write the last uses. A failure is ignored: they are only information."""
        self._uses.store()

    def _refresh(self) -> None:
        version: tuple[int, ...] | None
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            version = None
        except OSError as error:
            version = (error.errno or 0,)
        if version == self._version:
            return
        try:
            self._tokens, self._problem = read(self._path), ""
        except StorageError as error:
            self._problem = error.message
            log.error("the page refuses every token: %s", error)
        self._version = version  # after an unexpected exception the file is read again


class TokenUses:
    """When each token was used last, in state/token-uses.json. Times are rounded to `USE_SECONDS`."""

    def __init__(self, folders: Folders) -> None:
        self._path = folders.state / "token-uses.json"
        self._uses: dict[str, float] | None = None

    def read(self) -> dict[str, float]:
        """Seconds since the epoch, by name. Empty if the file cannot be read."""
        try:
            return _USES.validate_json(files.read_file(self._path))
        except (OSError, ValueError):
            return {}

    def note(self, name: str, now: float) -> bool:
        """Remember a use; True if it has to be stored."""
        if self._uses is None:
            self._uses = self.read()
        if abs(now - self._uses.get(name, 0.0)) < USE_SECONDS:
            return False
        self._uses[name] = now
        return True

    def store(self) -> None:
        """Write the file."""
        # A copy: this runs in a thread.
        uses = dict(self._uses or {})
        latest = sorted(uses.items(), key=lambda use: -use[1])[: MAX_TOKENS + 1]
        try:
            files.write_atomic(self._path, json.dumps(dict(latest)).encode())
        except StorageError as error:
            log.debug("the last uses of tokens were not stored: %s", error)


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An entry of `token list`. Times are seconds since the epoch.

    Attributes:
        name: of the token.
        access: "full" or "read".
        created: None for the one of the configuration.
        last_use: None if it was not used.
    """

    name: str
    access: Access
    created: float | None
    last_use: float | None


def rows(folders: Folders, configured: str) -> list[TokenRow]:
    """All tokens, oldest first. configured: `status_page_token`. Raises StorageError."""
    own = [Token.of(configured, CONFIGURED, "full", 0.0)] if configured else []
    uses = TokenUses(folders).read()
    found = []
    for token in (*own, *listed(folders)):
        used = uses.get(token.name, 0.0)
        # An earlier token of this name was used before this one was created.
        latest = used if used and used >= token.created else None
        found.append(TokenRow(token.name, token.access, token.created or None, latest))
    return found


def listed(folders: Folders) -> Sequence[Token]:
    """The tokens of the file, oldest first. Raises StorageError."""
    return sorted(read(path_of(folders)) or (), key=lambda token: token.created)


def sha256(text: str) -> str:
    """The SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
