"""Names of files that are not drops: hidden and temporary files, and what other programs keep next to pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: A colon in a name, and what stands for it in archives and on Samba.
_COLON = r"[:\uf022\uf03a]"
#: Windows' previews of the pictures in a folder; Thumbs.db may have a stream, which some programs make a file of.
_WINDOWS_PREVIEWS = rf"(?:thumbs|ehthumbs(?:_vista)?)\.db(?:{_COLON}.*|[._]encryptable)?"
_PATTERNS = (
    # Hidden: temporaries of rsync (.NAME.Xy12Ab), Syncthing, ProFTPD and Pure-FTPd, .nfs…, ._NAME, .DS_Store
    r"\.",
    r"~",  # ~$document of office programs, ~syncthing~NAME.tmp, ~snapshot
    r"#.*#$",  # Emacs
    r"@eadir$|@tmp$|#recycle$|#snapshot$|@recycle$|@recently-snapshot$",  # Synology, QNAP
    r".*@syno(eastream|resource)$|synofile_thumb",
    rf"\$recycle\.bin$|system volume information$|recycler$|{_WINDOWS_PREVIEWS}$|desktop\.ini$",  # Windows
    r"__macosx$|icon\r$|network trash folder$|temporary items$",  # macOS
    r"lost\+found$",
    r"4913$",  # Vim's test for a writable folder
    # Browsers, download managers, scp and FTP clients, cloud clients, editors, backups
    r".*\.(crdownload|part|partial|download|opdownload|filepart|tmp|temp|swp|swo|swx|bak|lock|lck)$",
    r".*\.(!ut|!qb|bc!|!bt|!sync|aria2|dwl|dltemp|ftp|inprogress|incomplete|uploading|upload)$",
    r".*\.(fdmdownload|xltd|rclone_chunk\.\d+|megatmp(\..*)?)$",
    r".*\.sync-conflict-|.*\.(owncloudsync|gddownload)$",
    r".*\.part-\d+$|.*\.part\.met$|.*\.filepart\.\d+$",
    r".*~$|.*\.~\w{1,8}$",  # editors, Unison
    r".*\.sb-\w{8}-\w{6}$|\(a document being saved by",  # macOS' saving
    # Windows' and macOS' streams as files (WSL, Samba, unpacked archives)
    rf".*{_COLON}(zone\.identifier|smartscreen|afp_|com\.(apple|dropbox|google)\.|\$data|ms-properties)",
    r".*[._]zone\.identifier$",
)
#: Google Photos cuts this part of a name off anywhere.
_TAKEOUT = "supplemental-metadata"
#: Files that other programs keep next to pictures.
_SIDECARS = (
    r".*\.(xmp|aae|thm|lrv)$",  # Lightroom, darktable, digiKam, Apple Photos, cameras
    r".*\.(pp3|arp|dop|cos|cot|cop|cof|comask|on1|vrd|dr4|nksc|acr|exv)$",  # RawTherapee, DxO, Capture One, …
    r".*\.(ini|url|lnk|webloc|desktop|db|db-journal|db-wal|db-shm|nfo|ctg|modd|moff|bridgesort)$",
    # Google Photos: IMG.jpg.json, IMG.jpg.supplemental-metadata.json, IMG.jp.supple(1).json, and files for an album
    r".*\.(jpe?g|png|heic|heif|webp|gif|avif|bmp|tiff?|mp4|mov|mp|dng)(\(\d+\))?\.json$",
    rf".*\.(?:{'|'.join(_TAKEOUT[:length] for length in range(1, len(_TAKEOUT) + 1))})(\(\d+\))?\.json$",
    r"(metadata(\(\d+\))?|print-subscriptions|shared_album_comments|user-generated-memory-titles)\.json$",
)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE | re.DOTALL)


_IGNORED = _any_of((*_PATTERNS, *_SIDECARS))
_IGNORED_FOLDERS = _any_of(_PATTERNS)
#: Files that no person made and that belong to nothing: they are removed together with their folder.
_LITTER = re.compile(
    rf"\.ds_store|\._.*|{_WINDOWS_PREVIEWS}|desktop\.ini|icon\r|@eadir|.*(?:{_COLON}|[._])zone\.identifier",
    re.IGNORECASE | re.DOTALL,
)


def ignored(name: str, *, folder: bool = False) -> bool:
    """Whether a file or a folder of this name is ignored."""
    return (_IGNORED_FOLDERS if folder else _IGNORED).match(name) is not None


def is_litter(name: str) -> bool:
    """Whether a file of this name may be removed together with its folder; a person's sidecars may not."""
    return _LITTER.fullmatch(name) is not None
