"""Names of files that are not drops: hidden and temporary files, and leftovers of other programs."""

from __future__ import annotations

import re

_PATTERNS = (
    # Hidden: temporaries of rsync (.NAME.Xy12Ab), Syncthing, ProFTPD and Pure-FTPd, .nfs…, ._NAME, .DS_Store
    r"\.",
    r"~",  # ~$document of office programs, ~syncthing~NAME.tmp
    r"#.*#$",  # Emacs
    r"@eadir$|@tmp$|#recycle$|#snapshot$",  # Synology, QNAP
    r"\$recycle\.bin$|system volume information$|recycler$|thumbs\.db|ehthumbs|desktop\.ini$",  # Windows
    r"__macosx$|icon\r$|network trash folder$|temporary items$",  # macOS
    r"lost\+found$",
    r"4913$",  # Vim's test for a writable folder
    # Browsers, download managers, scp and FTP clients, cloud clients, editors, backups
    r".*\.(crdownload|part|partial|download|opdownload|filepart|tmp|temp|swp|swo|swx|bak|lock|lck)$",
    r".*\.(!ut|!qb|bc!|!bt|aria2|dwl|dltemp|ftp|inprogress|incomplete|uploading|upload|icloud)$",
    r".*\.sync-conflict-|.*\.(owncloudsync|gddownload)$",
    r".*\.part-\d+$|.*\.part\.met$|.*\.filepart\.\d+$",
    r".*~$|.*\.~\w{1,8}$",  # editors, Unison
)
_IGNORED = re.compile(
    "|".join(f"(?:{pattern})" for pattern in _PATTERNS), re.IGNORECASE | re.DOTALL
)
#: Files that file managers create in every folder.
_LITTER = re.compile(
    r"\.ds_store|\._.*|thumbs\.db|ehthumbs.*|desktop\.ini|icon\r|@eadir", re.IGNORECASE
)


def ignored(name: str) -> bool:
    """Whether a file or folder of this name is ignored."""
    return _IGNORED.match(name) is not None


def is_litter(name: str) -> bool:
    """Whether a file of this name may be removed together with its folder."""
    return _LITTER.fullmatch(name) is not None
