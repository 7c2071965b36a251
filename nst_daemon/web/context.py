"""What the routes of the API share. A route gets it as an argument of the type `Shared`."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from nst_daemon.config import Config, Folders
from nst_daemon.errors import LedgerError, UsageError
from nst_daemon.intake.drops import Style
from nst_daemon.intake.library import read_library
from nst_daemon.ledger_reader import LedgerReader
from nst_daemon.ops.estimates import QueueEstimate
from nst_daemon.web.disk_space import DiskSpace
from nst_daemon.web.feed import Feed
from nst_daemon.web.job_places import digest_of
from nst_daemon.web.options import PageOptions
from nst_daemon.web.sessions import Sessions
from nst_daemon.web.thumbnails import ReducedPictures
from nst_daemon.web.uploads import Uploads
from nst_daemon.web.wrong_tokens import WrongTokens

L = TypeVar("L", bound=LedgerReader)


class Context:
    """What the routes share.

    Attributes:
        options: folders, limits and the configuration of the page.
        feed: server-sent events.
        wrong_tokens: slows down clients that try tokens.
        space: of the disks, for all that is written.
        uploads: the uploaded pictures.
        pictures: the reduced pictures that were sent last.
        digest: the SHA-256 of a version of a file; the last ones are remembered.
        queue: when the queue will be empty.
        tokens: those that the page accepts.
        sessions: the logins of browsers.
    """

    def __init__(self, options: PageOptions) -> None:
        self.options = options
        self.feed, self.wrong_tokens = Feed(), WrongTokens()
        self.space = DiskSpace(options.limits.min_free_disk)
        self.uploads = Uploads(options.folders.uploads, options.limits, self.space)
        self.pictures = ReducedPictures()
        self.digest = lru_cache(maxsize=1000)(digest_of)
        self.queue = QueueEstimate(options.folders)
        self.tokens, self.sessions = options.accepted_tokens(), Sessions(options.folders)

    @property
    def config(self) -> Config:
        """The configuration of the daemon, without its hooks."""
        return self.options.config

    @property
    def folders(self) -> Folders:
        """The folders of the root."""
        return self.options.folders

    def library(self) -> dict[str, Style]:
        """The style library as it is now. Raises StorageError, also if the folder is missing."""
        return read_library(self.folders.styles, self.options.limits.max_bytes)

    def ledger(self, kind: type[L]) -> L:
        """The ledger, opened by the reader `kind`. Close it, or use it as a context manager.

        Raises:
            LedgerError: It is damaged, of another version, or missing: the daemon creates it before it starts the page.
            StorageError: It cannot be read.
        """
        path = self.folders.ledger
        try:
            return kind.attach(path)
        except UsageError as error:
            raise LedgerError(
                f"the ledger {path} does not exist",
                remedy="mount its folder, or restart the daemon: it restores the ledger from its backup",
            ) from error


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Shared = Annotated[Context, Depends(_context)]
