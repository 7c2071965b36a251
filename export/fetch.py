"""Downloads ImageNet weights from torchvision's address or a mirror to torchvision's cache folder, with resuming."""

from __future__ import annotations

import fcntl
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import IO

from nst_daemon.errors import BusyError, ModelError, StorageError
from nst_daemon.files import fsync_folder, make_folder, storage
from nst_daemon.mounts import free_bytes
from nst_daemon.units import duration, size
from nst_daemon.weights_file import WeightsFile, find_weights, imagenet_path

log = logging.getLogger(__name__)

#: Called with the bytes received and the total (0 if unknown).
OnProgress = Callable[[int, int], None]

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
MAX_FAILURES = 5  # interruptions in a row without a single byte received


def fetch(
    network: str = "vgg19",
    source: str | None = None,
    *,
    progress: OnProgress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> WeightsFile:
    """Fetch ImageNet weights unless they are on this machine.

    An interrupted download is resumed. A file whose digest does not match torchvision's file name is removed.

    Args:
        network: A key of `engine.networks.NETWORKS`.
        source: A mirror's folder or file (http, https), or the path of a file; torchvision's address unless given.
        progress: Called after each part.
        sleep: Waits before another try.

    Raises:
        ModelError: The source cannot be reached, or is not the right file.
        StorageError: The file cannot be written.
        BusyError: Another process is fetching the same file.
    """
    path = imagenet_path(network)
    if path.parts[0] == "~":
        raise ModelError(
            "this user has no home folder for the weights", remedy="set TORCH_HOME to a folder"
        )
    if path.exists():
        return find_weights("imagenet", network)
    make_folder(path.parent)
    part = path.with_name(path.name + ".part")
    with storage(part):
        file = part.open("ab")
    with file:
        _lock(file, part)
        if not path.exists():  # another process may have fetched it meanwhile
            if source is not None and Path(source).expanduser().is_file():
                _copy(Path(source).expanduser(), file)
            else:
                _download(download_address(source, path.name), file, progress, sleep)
            with storage(part):
                os.fsync(file.fileno())
                part.rename(path)
                fsync_folder(path.parent)
    try:
        return find_weights("imagenet", network)
    except ModelError as error:
        path.unlink()
        raise ModelError(
            f"the download from {source or 'torchvision'} is not {path.name}: {error.message.partition(': ')[2]}",
            remedy="download it again, or from another source",
        ) from error


def _copy(source: Path, file: IO[bytes]) -> None:
    with storage(source), source.open("rb") as given:
        file.truncate(0)
        shutil.copyfileobj(given, file, CHUNK)
        file.flush()


def download_address(source: str | None, name: str) -> str:
    """The address of a weights file. Raises ModelError for a source that is neither a file nor http."""
    if source is None:
        return f"https://download.pytorch.org/models/{name}"
    if not source.startswith(("https://", "http://")):
        raise ModelError(
            f"there is no file {source}",
            remedy="give a path, or an address with http:// or https://",
        )
    return source if source.endswith(".pth") else f"{source.rstrip('/')}/{name}"


def _lock(file: IO[bytes], part: Path) -> None:
    """Lock the file while fetching; the lock ends with the process. Raises BusyError."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            f"another process is downloading {part}", remedy="wait until it is done"
        ) from error


def _download(
    url: str, file: IO[bytes], progress: OnProgress | None, sleep: Callable[[float], None]
) -> None:
    """Append what is missing to `file`; try again after interruptions as long as bytes arrive."""
    failures = 0
    while True:
        before = _size(file)
        try:
            if _receive(url, file, progress):
                return
            reason = "the connection ended early"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise _unreachable(url, f"{error.code} {error.reason}") from error
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(file) > before else failures + 1
        if failures == MAX_FAILURES:
            raise _unreachable(url, reason)
        pause = 2.0**failures
        log.warning("%s: %s; trying again in %s", url, reason, duration(pause))
        sleep(pause)


def _receive(url: str, file: IO[bytes], progress: OnProgress | None) -> bool:
    """Request the rest once; True if the file is complete."""
    have = _size(file)
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (http or https: `_address`)
    try:
        reply = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310 (the same)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is missing; the digest is checked later
        raise
    with reply:
        if have and reply.status != HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)  # this server does not resume
            have = 0
        length = int(reply.headers.get("Content-Length") or 0)
        total = have + length if length else 0
        _check_room(file, length)
        while chunk := reply.read(CHUNK):
            with storage(Path(file.name)):
                file.write(chunk)
            have += len(chunk)
            if progress:
                progress(have, total)
    return have >= total


def _size(file: IO[bytes]) -> int:
    """Bytes in the file; `tell` would ignore truncation."""
    with storage(Path(file.name)):
        file.flush()
    return os.fstat(file.fileno()).st_size


def _check_room(file: IO[bytes], wanted: int) -> None:
    folder = Path(file.name).parent
    free = free_bytes(folder)
    if free < wanted:
        raise StorageError(
            f"{folder} has {size(free)} of free space, and {size(wanted, up=True)} is needed",
            remedy="free some space, or set TORCH_HOME to another disk",
        )


def _unreachable(url: str, reason: str) -> ModelError:
    return ModelError(
        f"cannot fetch {url}: {reason}",
        remedy="check the connection, or use a mirror or a file; the part received so far is kept",
    )
