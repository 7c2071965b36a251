"""What the routes of the API share. A route gets it as an argument of the type `Shared`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, cast

from fastapi import Depends, Request

from nst_daemon.config import Folders
from nst_daemon.ops.estimates import QueueEstimate
from nst_daemon.web.feed import Feed
from nst_daemon.web.options import PageOptions


@dataclass(frozen=True)
class Context:
    """What the routes share.

    Attributes:
        options: folders, limits and the configuration of the page.
        feed: server-sent events.
    """

    options: PageOptions
    feed: Feed = field(default_factory=Feed)

    @cached_property
    def queue(self) -> QueueEstimate:
        """When the queue will be empty."""
        return QueueEstimate(self.folders)

    @property
    def folders(self) -> Folders:
        """The folders of the root."""
        return self.options.folders


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Shared = Annotated[Context, Depends(_context)]
