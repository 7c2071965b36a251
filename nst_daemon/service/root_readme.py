"""README.txt of a root: where its folders are, and what to drop."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from nst_daemon import files
from nst_daemon.config import Folders
from nst_daemon.names import printable

log = logging.getLogger(__name__)

NAME = "README.txt"
#: The column of the folders is at most this wide; longer paths push the text aside.
WIDTH = 20
_TEXT = """\
This folder belongs to nst-daemon. It paints photos in the style of paintings.
The daemon wrote this file, and does not change it again. You may edit it.

The folders

  {inbox}  drop pictures here
  {styles}  the style library: paintings that you use often
  {results}  the finished pictures
  {done}  the files of finished pictures
  {failed}  drops that failed, each with the reason in error.txt
  {state}  the daemon's own files; leave them alone

The most useful drops

  1. A photo and a painting, paired by their names:
       dog.content.jpg and dog.style.jpg in the inbox
  2. A style for many photos:
       starry.jpg in the style library, then any photos in the folder
       starry, which appears in the inbox
  3. A folder with one job:
       wedding/content.jpg and wedding/style.jpg in the inbox
  4. Settings for one picture:
       dog.yaml beside dog.content.jpg, with a line such as
       size: 1024
  5. Many photos in many styles:
       night.batch.yaml in the inbox, with the lines
       contents: ["holiday/*.jpg"]
       styles: [starry]
       The photos are below a folder that batch_roots names in the
       configuration.

A drop that cannot be painted yet stays in the inbox. To see what it waits for:

  nst-daemon status

After some time it moves to the folder for failed drops. All commands:

  nst-daemon --help
"""


def lay_readme(folders: Folders) -> None:
    """Write README.txt into the root if it has none. A root that refuses it is no error."""
    path = folders.root / NAME
    keys = ("inbox", "styles", "results", "done", "failed", "state")
    places = {key: _shown(getattr(folders, key), folders.root) for key in keys}
    width = min(WIDTH, max(map(len, places.values())))
    text = _TEXT.format_map({key: place.ljust(width) for key, place in places.items()})
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        files.share(path)
    except FileExistsError:
        pass
    except OSError as error:
        log.debug("%s cannot be written: %s", path, error.strerror)


def _shown(folder: Path, root: Path) -> str:
    """A folder, relative to the root if it is inside."""
    inside = folder.is_relative_to(root)
    return printable(str(folder.relative_to(root) if inside else folder)) + "/"
