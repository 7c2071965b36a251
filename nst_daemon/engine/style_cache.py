"""Style statistics on disk, so that a style is computed once."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from nst_daemon.errors import StorageError
from nst_daemon.files import make_folder, read_file, write_atomic

log = logging.getLogger(__name__)

_DIGEST_SIZE = hashlib.sha256().digest_size


def style_key(graph_digest: str, image: Tensor, guide: Tensor) -> str:
    """SHA-256 of everything that the statistics depend on.

    Args:
        graph_digest: Of the ONNX file.
        image: (1, 3, H, W).
        guide: (1, R, H, W).
    """
    digest = hashlib.sha256(graph_digest.encode())
    for tensor in (image, guide):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class StyleCache:
    """A folder with at most `max_bytes`; the least recently used entries are removed first.

    Several processes may share a folder. An entry is written atomically and begins with the SHA-256 of the rest; a
    damaged one is a miss. If the folder cannot be written, styles are computed each time.
    """

    folder: Path
    max_bytes: int

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors stored under the key, or None."""
        path = self._path(key)
        try:
            content = read_file(path)
            digest, body = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
            if hashlib.sha256(body).digest() != digest:
                raise SafetensorError("its digest does not match")
            tensors: dict[str, Tensor] = safetensors.load(body)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            log.warning("cannot use the cached style %s (%s); computing it again", path, error)
            return None
        with suppress(OSError):
            os.utime(path)
        return tensors

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store the tensors under the key, then remove what exceeds `max_bytes`."""
        body = safetensors.save({k: v.cpu().contiguous() for k, v in tensors.items()})
        if _DIGEST_SIZE + len(body) > self.max_bytes:
            return
        try:
            make_folder(self.folder)
            write_atomic(self._path(key), hashlib.sha256(body).digest() + body)
            self._trim()
        except (StorageError, OSError) as error:
            log.warning("cannot store a style in the cache: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.style"

    def _trim(self) -> None:
        """Remove the oldest files until the rest fits; partial files of a crash are removed in the same way."""
        entries = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process trims too
                entries.append((path, path.stat()))
        total = sum(stat.st_size for _, stat in entries)
        for path, stat in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size
