"""The files of the page: HTML, modules, style sheets and texts. They are public: they hold nothing of a visitor."""

from __future__ import annotations

import hashlib
from importlib.abc import Traversable
from importlib.resources import files as resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "svg": "image/svg+xml",
}
#: For an address that contains the version of the files.
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


class StaticFiles:
    """The files, read once. Their addresses contain a digest of all of them, so that browsers may keep them forever."""

    def __init__(self) -> None:
        self._files = dict(_below(resources("nst_daemon.web") / "static", ""))
        # The gallery uses the same colours.
        self._files["theme.css"] = (resources("nst_daemon.report") / "theme.css").read_bytes()
        contents = (name.encode() + body for name, body in sorted(self._files.items()))
        self._version = hashlib.sha256(b"".join(contents)).hexdigest()[:12]

    def routes(self) -> list[BaseRoute]:
        """The page itself, and its files."""
        return [
            Route("/", lambda _: self.page("index.html")),
            Route("/static/{version}/{name:path}", self._file),
        ]

    def page(self, name: str, status: int = 200) -> Response:
        """An HTML file with the addresses of the present version."""
        text = self._files[name].decode().replace("{version}", self._version)
        return HTMLResponse(text, status)

    def _file(self, request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params["version"]
        kind = name.rpartition(".")[2]
        if name not in self._files or kind == "html":
            raise HTTPException(404)
        # A page that was opened before an update asks for an earlier version.
        headers = FOREVER if version == self._version else {}
        return Response(self._files[name], media_type=TYPES[kind], headers=headers)


def _below(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _below(item, f"{prefix}{item.name}/")
        else:
            found.append((prefix + item.name, item.read_bytes()))
    return found
