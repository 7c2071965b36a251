"""What the routes of the API share. A route gets it as an argument of the type `Shared`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, cast

from fastapi import Depends, Request

from nst_daemon.config import Config, Folders
from nst_daemon.intake.drops import Style
from nst_daemon.intake.library import list_styles
from nst_daemon.ops.estimates import QueueEstimate
from nst_daemon.tokens import AcceptedTokens
from nst_daemon.web.disk_space import DiskSpace
from nst_daemon.web.feed import Feed
from nst_daemon.web.options import PageOptions
from nst_daemon.web.uploads import Uploads
from nst_daemon.web.wrong_tokens import WrongTokens


@dataclass(frozen=True)
class Context:
    """What the routes share.

    Attributes:
        options: folders, limits and the configuration of the page.
        feed: server-sent events.
        space: of the disks, for all that is written.
        uploads: the uploaded pictures.
        wrong_tokens: slows down clients that try tokens.
    """

    options: PageOptions
    feed: Feed = field(default_factory=Feed)
    wrong_tokens: WrongTokens = field(default_factory=WrongTokens)
    space: DiskSpace = field(init=False)
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        limits, folder = self.options.limits, self.options.folders.uploads
        object.__setattr__(self, "space", DiskSpace(limits.min_free_disk))
        object.__setattr__(self, "uploads", Uploads(folder, limits, self.space))

    @property
    def config(self) -> Config:
        """The configuration of the daemon, without its hooks."""
        return self.options.config

    @cached_property
    def queue(self) -> QueueEstimate:
        """When the queue will be empty."""
        return QueueEstimate(self.folders)

    @cached_property
    def tokens(self) -> AcceptedTokens:
        """The tokens that the page accepts."""
        return self.options.accepted_tokens()

    @property
    def folders(self) -> Folders:
        """The folders of the root."""
        return self.options.folders

    def library(self) -> dict[str, Style]:
        """The style library as it is now."""
        return list_styles(self.folders.styles, self.options.limits.max_bytes)


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Shared = Annotated[Context, Depends(_context)]
