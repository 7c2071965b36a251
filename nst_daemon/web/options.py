"""What the process of the status page is told by the daemon, and what has to be installed for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from nst_daemon import extras
from nst_daemon.addresses import is_local, split_address
from nst_daemon.config import Config, Folders, Hooks, Limits, Notify
from nst_daemon.errors import ConfigError, StorageError
from nst_daemon.tokens import AcceptedTokens, listed

#: The modules that the extra `web` installs.
NEEDED = ("fastapi", "starlette", "uvicorn")


@dataclass(frozen=True)
class PageOptions:
    """The options of the status page.

    Attributes:
        config: the configuration of the daemon. Its hooks and `notify` are left out: they may contain secrets.
        address: HOST:PORT; empty for no page.
    """

    config: Config
    address: str

    @classmethod
    def of(cls, config: Config, *, serve: bool) -> PageOptions:
        """The configured options; without an address if the page is not served."""
        kept = replace(config, hooks=Hooks(), notify=Notify())
        return cls(kept, config.status_page if serve else "")

    @property
    def far(self) -> bool:
        """Whether other machines can reach the page."""
        return bool(self.address) and not is_local(split_address(self.address)[0])

    def accepted_tokens(self) -> AcceptedTokens:
        """The tokens of the configuration and of the file."""
        return AcceptedTokens(self.folders, self.config.status_page_token, far=self.far)

    @property
    def folders(self) -> Folders:
        """The folders of the root."""
        return self.config.folders

    @property
    def limits(self) -> Limits:
        """For uploads, thumbnails and the disk."""
        return self.config.limits

    def with_token(self, token: str) -> PageOptions:
        """The same options with another token."""
        return replace(self, config=replace(self.config, status_page_token=token))

    def encode(self) -> bytes:
        """One line of JSON."""
        return TypeAdapter(PageOptions).dump_json(self) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> PageOptions:
        """The options from a line that `encode` made."""
        return TypeAdapter(cls).validate_json(line)

    def check(self) -> None:
        """Raise ConfigError if other machines can reach the page and there is no token."""
        if not self.far or self.config.status_page_token:
            return
        try:
            if listed(self.folders):
                return
        except StorageError:  # the page refuses everybody, and says why
            return
        raise ConfigError(
            f"status_page {self.address} can be reached from other machines, and there is no token",
            remedy="create one with `nst-daemon token create NAME`, set NST_STATUS_PAGE_TOKEN to the output of "
            "`openssl rand -hex 16`, or listen on 127.0.0.1",
        )


def missing_packages() -> list[str]:
    """The modules that the page needs and that are not installed."""
    return extras.missing(*NEEDED)
