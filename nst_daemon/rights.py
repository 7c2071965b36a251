"""Rights to the files of a root: of the daemon's user, of the group, of other users, and of root."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from nst_daemon import files
from nst_daemon.config import Folders
from nst_daemon.errors import StorageError, UsageError
from nst_daemon.files import nearest
from nst_daemon.ledger_file import side_files
from nst_daemon.names import printable

log = logging.getLogger(__name__)

_FOLDER = os.R_OK | os.W_OK | os.X_OK
_FILE = os.R_OK | os.W_OK
_READ = os.R_OK | os.X_OK
_WRITABLE = "mount it writable; for a service, see ReadWritePaths= in its unit"


def share_with_group(folders: Folders) -> None:
    """Set the umask so that the group of a setgid folder gets the rights that the folder gives it.

    Other users get none if the folder of the results is setgid and gives them none.
    """
    bits = closed = 0
    for folder in (folders.root, folders.inbox, folders.results, folders.state):
        with suppress(OSError):
            mode = folder.stat().st_mode
            bits |= mode & stat.S_IRWXG if mode & stat.S_ISGID else 0
            if folder == folders.results and mode & stat.S_ISGID and not mode & stat.S_IRWXO:
                closed = stat.S_IRWXO
    os.umask(os.umask(0o077) & 0o077 & ~bits | closed)


def open_to_others(folders: Folders) -> list[Path]:
    """The folders whose files users outside the group can open: they and all their parents let these users in."""
    shown = (folders.inbox, folders.styles, folders.results, folders.done, folders.failed)
    found = []
    for folder in (*shown, folders.state):
        with suppress(OSError):
            place = folder.resolve()
            if all(above.stat().st_mode & 0o001 for above in (place, *place.parents)):
                found.append(folder)
    return found


def is_shared(folders: Folders) -> bool:
    """Whether the root is made for a group: it is setgid."""
    with suppress(OSError):
        return bool(folders.root.stat().st_mode & stat.S_ISGID)
    return False


def closing(folders: Folders, opened: Sequence[Path]) -> str:
    """The command that closes these folders to users outside the group."""
    # Without sudo a user who is not a member of the group would clear the setgid bit with it.
    sudo = "sudo " if is_shared(folders) else ""
    return f"{sudo}chmod o-rwx {' '.join(shlex.quote(str(path)) for path in opened)}"


def check_start(folders: Folders) -> None:
    """Check that a daemon of this user can run, and that its files do not stop the daemon of another user.

    Raises:
        UsageError: This is root, and the state folder belongs to another user.
        StorageError: A folder or file cannot be used, or a folder cannot be created. (On a read-only file system, the
            queue is paused instead.)
    """
    if os.geteuid() == 0:
        _check_root(folders)
    for message, remedy in no_files(folders.state / "lock", folders.ledger):
        raise StorageError(message, remedy=remedy)
    if daemon_user(folders) != os.geteuid():
        return
    if paths := [path for path in blocked(folders) if not _read_only(path)]:
        message, remedy = describe(folders, paths)
        raise StorageError(message, remedy=remedy)
    if left := left_by_others(folders):
        log.warning("%s; %s", *describe(folders, left))


def _check_root(folders: Folders) -> None:
    """Files of root would stop the daemon of another user."""
    if owner := _owner(folders.state):
        raise UsageError(
            f"{printable(str(folders.state))} belongs to {user_name(owner)}, whose daemon could not use files of root",
            remedy=f"run it as that user: {_sudo(owner)} nst-daemon …",
        )
    if owner := _owner(folders.root):
        log.warning(
            "%s belongs to %s, and new files will belong to root; to avoid that, run %s nst-daemon …",
            folders.root,
            user_name(owner),
            _sudo(owner),
        )


def blocked(folders: Folders) -> list[Path]:
    """The folders and files without which the daemon cannot run, and which its user cannot write to.

    The daemon's user is the current one; for root, it is the owner of the root folder. The nearest parent stands for a
    folder that does not exist.
    """
    needed = (
        *(folders.results, folders.done, folders.failed, folders.state, folders.previews),
        *(folders.spool, folders.stage, folders.checkpoints, folders.cache, folders.logs),
    )
    wanted = dict.fromkeys(map(nearest, needed), _FOLDER)
    for folder in (folders.inbox, folders.styles):
        # Pictures in an inbox without write permission are painted once.
        wanted.setdefault(nearest(folder), _READ if os.path.lexists(folder) else _FOLDER)
    wanted = {path: rights for path, rights in wanted.items() if path.is_dir()}
    wanted |= dict.fromkeys(_needed_files(folders), _FILE)
    return [path for path, rights in wanted.items() if not _usable(folders, path, rights)]


def no_files(*paths: Path) -> Iterator[tuple[str, str]]:
    """The message and the remedy for each of these files, and those of SQLite, that is something else."""
    for path in chain.from_iterable((path, *side_files(path)) for path in paths):
        try:
            mode = path.lstat().st_mode  # once: SQLite may remove its files meanwhile
        except OSError:
            continue
        if not stat.S_ISREG(mode) and not os.path.isfile(path):  # noqa: PTH113 (raises nothing)
            yield f"{printable(str(path))} is {files.kind(mode)} and not a file", "move it away"


def left_by_others(folders: Folders) -> list[Path]:
    """Folders of single jobs that the daemon's user cannot write to: any in the state folder, root's in the others."""
    own = chain(*map(_folders_in, (folders.spool, folders.stage, folders.cache)))
    shared = chain(*map(_folders_in, (folders.results, folders.done, folders.failed)))
    found = [*own, *(path for path in shared if _owner(path) == 0)]
    return [path for path in found if not _usable(folders, path, _FOLDER)]


def describe(folders: Folders, paths: Sequence[Path]) -> tuple[str, str]:
    """The message and the remedy, usually a command, for paths that the daemon's user cannot write to."""
    user, first = daemon_user(folders), paths[0]
    if closed := [path for path in paths if _read_only(path)]:
        return f"{printable(str(closed[0]))} is on a read-only file system", _WRITABLE
    if outside := [path for path in paths if not _top(folders, path)]:
        return _describe_outside(folders, outside[0], user)
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    owners = ", ".join(user_name(uid) for uid in sorted({path.lstat().st_uid for path in paths}))
    message = f"{user_name(user)} cannot write to {printable(str(first))}{more} (owner: {owners})"
    return message, _repair(folders, paths, user)


def _denied(path: Path, wanted: int) -> bool:
    """Whether a file exists and may not be used. A daemon may create and remove it meanwhile."""
    return not _access(path, wanted) and os.path.lexists(path) and not _access(path, wanted)


def check_member(ledger: Path, *, write: bool = False) -> None:
    """Raise StorageError with the remedy if this user lacks the rights to read the ledger, or to change it."""
    folder = ledger.parent
    wanted = os.R_OK | os.X_OK | (os.W_OK if write else 0)
    try:
        missing = not folder.is_dir() or (_access(folder, os.X_OK) and not ledger.exists())
    except PermissionError:
        missing = False
    if missing:
        return
    for message, remedy in no_files(ledger):
        raise StorageError(message, remedy=remedy)
    denied = any(_denied(path, wanted & ~os.X_OK) for path in (ledger, *side_files(ledger)))
    if _access(folder, wanted if write else os.X_OK) and not denied:
        return
    if write and _read_only(folder):
        raise StorageError(
            f"{printable(str(ledger))} is on a read-only file system", remedy=_WRITABLE
        )
    verb = "change" if write else "read"
    raise StorageError(
        f"{user_name(os.geteuid())} may not {verb} {printable(str(ledger))}",
        remedy=_remedy(folder, write=write),
    )


def daemon_user(folders: Folders) -> int:
    """The current user; for root, the owner of the root folder."""
    return os.geteuid() or _owner(folders.root)


def private_owner(folders: Folders) -> tuple[int, int]:
    """User and group of a file in the state folder that only the daemon may read. This user may write it.

    Raises UsageError for everybody but the user of the daemon, and root: the daemon could not read the file.
    """
    place = _place_of_daemon(folders)
    exists = place in {folders.state, folders.state / "lock"}
    if os.geteuid() and not exists:
        return os.geteuid(), os.getegid()
    status = place.stat()
    if os.geteuid() == status.st_uid or (os.geteuid() == 0 and exists):
        return status.st_uid, status.st_gid
    raise UsageError(
        f"{printable(str(place))} belongs to {user_name(status.st_uid)}, whose daemon could not read files of "
        f"{user_name(os.geteuid())}",
        remedy=f"run the command as that user: {_sudo(status.st_uid)} nst-daemon …",
    )


def private_remedy(path: Path) -> str:
    """The remedy for a private file in the state folder that this user cannot read."""
    owner = nearest(path.parent / "lock").lstat().st_uid
    if os.geteuid() in {0, owner}:
        return "give it to the user of the daemon with the mode 0600"
    return f"run the command as the user of the daemon: {_sudo(owner)} nst-daemon …"


def private_problem(folders: Folders, path: Path) -> tuple[str, str] | None:
    """The message and the remedy for a private file that the daemon cannot read, or that others can; else None."""
    try:
        status, daemon = path.lstat(), _place_of_daemon(folders).stat()
    except OSError:
        return None
    name, place = printable(str(path)), shlex.quote(str(path))
    if status.st_uid != daemon.st_uid:
        owner, user = user_name(status.st_uid), user_name(daemon.st_uid)
        names = f"{user}:{group_name(daemon.st_gid)}"
        message = f"{name} belongs to {owner}, and the daemon of {user} cannot read it"
        return message, f"sudo chown {names} {place}"
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        return f"{name} can be read by other users", f"chmod 600 {place}"
    return None


def _place_of_daemon(folders: Folders) -> Path:
    """The file or folder whose owner is the user of the daemon."""
    # The daemon creates the lock; others of the group of a shared folder do not.
    return nearest(folders.state / "lock")


def check_inbox(inbox: Path) -> None:
    """Raise StorageError with the remedy if this user may not create files in the inbox."""
    place = nearest(inbox)
    if os.path.isfile(place):  # noqa: PTH113 (raises nothing)
        raise StorageError(
            f"{printable(str(place))} is a file and not a folder",
            remedy="move it away, or set folders.inbox",
        )
    if _access(place, os.W_OK | os.X_OK) or (place != inbox and _access(place, os.X_OK)):
        return
    raise StorageError(
        f"{user_name(os.geteuid())} may not write to {printable(str(inbox))}",
        remedy=_remedy(inbox, write=True),
    )


def user_name(uid: int) -> str:
    """The name of a user, or the number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, or the number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _needed_files(folders: Folders) -> Iterator[Path]:
    """The files that the daemon opens for writing. It replaces all others."""
    yield from (path for path in (folders.state / "lock", folders.ledger) if os.path.lexists(path))
    for path in side_files(folders.ledger):
        # Others are replaced at the start (`ledger_file.take_over`).
        if os.path.lexists(path) and path.lstat().st_size and not _access(path, os.R_OK):
            yield path
    with suppress(OSError):
        yield from (path for path in folders.logs.iterdir() if path.is_file())


def _folders_in(folder: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]


def _access(path: Path, wanted: int) -> bool:
    return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)


def _read_only(path: Path) -> bool:
    with suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def _usable(folders: Folders, path: Path, wanted: int) -> bool:
    user = daemon_user(folders)
    if user == os.geteuid():
        return _access(path, wanted)
    # Root asks for another user, whose groups are not known: the group of the root folder is one of them.
    status = path.lstat()
    shared = status.st_gid == nearest(folders.root).stat().st_gid and status.st_mode & 0o020
    return bool(status.st_uid == user or shared or not wanted & os.W_OK)


def _owner(path: Path) -> int:
    """The owner of a path; root if it does not exist."""
    try:
        return path.stat().st_uid
    except OSError:
        return 0


def _groups() -> set[int]:
    return {os.getegid(), *os.getgroups()}


def _sudo(uid: int) -> str:
    name = user_name(uid)
    return "sudo" if uid == 0 else f"sudo -u '#{uid}'" if name == str(uid) else f"sudo -u {name}"


def _repair(folders: Folders, paths: Sequence[Path], user: int) -> str:
    """The command that lets the daemon's user write to `paths`."""
    root = nearest(folders.root)
    places = " ".join(shlex.quote(str(place)) for place in _places(folders, paths))
    status = root.stat()
    group = status.st_gid if user != os.geteuid() or status.st_gid in _groups() else os.getegid()
    names = f"{user_name(user)}:{group_name(group)}"
    if status.st_uid in {0, user}:
        if all(path.lstat().st_uid == user for path in paths):
            return f"chmod -R u+rwX {places}"
        return f"sudo chown -R {names} {places}"
    # The root belongs to another user. Its group may share it.
    if status.st_gid in _groups() and nearest(folders.state).stat().st_mode & 0o020:
        names = f"{user_name(status.st_uid)}:{group_name(group)}"
        return f"sudo chown -R {names} {places} && sudo chmod -R g+rwX {places}"
    return f"run it as the owner of {printable(str(root))}: {_sudo(status.st_uid)} nst-daemon …"


def _places(folders: Folders, paths: Sequence[Path]) -> list[Path]:
    """The folders that contain `paths`: the root if it is enough."""
    return list(dict.fromkeys(top for path in paths if (top := _top(folders, path))))


def _top(folders: Folders, path: Path) -> Path | None:
    """The folder of the configuration that contains a path, without links, which `chown -R` does not follow."""
    path = path.resolve()
    for top in (folders.root, *_configured(folders)):
        if path.is_relative_to(top.resolve()):
            return top.resolve()
    return None


def _configured(folders: Folders) -> tuple[Path, ...]:
    places = (folders.inbox, folders.styles, folders.results, folders.done, folders.failed)
    inside = (folders.spool, folders.stage, folders.checkpoints, folders.cache, folders.logs)
    return (*places, folders.state, *inside)


def _describe_outside(folders: Folders, place: Path, user: int) -> tuple[str, str]:
    """See `describe`: for the nearest parent of a folder that does not exist, or that this user cannot reach."""
    name, owner = user_name(user), user_name(place.stat().st_uid)
    if not _access(place, os.X_OK):
        message = f"{name} may not enter {printable(str(place))} (owner: {owner})"
        return message, f"give {name} the right to enter it, or set folders.root to another place"
    missing = next(f for f in (folders.root, *_configured(folders)) if nearest(f) == place)
    message = f"{name} cannot create {printable(str(missing))} in {printable(str(place))} (owner: {owner})"
    group = group_name(os.getegid())
    return message, f"sudo install -d -o {name} -g {group} {shlex.quote(str(missing))}"


def _remedy(folder: Path, *, write: bool) -> str:
    """The command that gives this user rights to a folder: joining its group, or running as its owner."""
    place = nearest(folder)
    try:
        status = place.stat()
    except OSError:
        return "ask the owner of the folder for access"
    name = group_name(status.st_gid)
    needed = 0o010 if place != folder else 0o070 if write else 0o050
    if status.st_mode & needed != needed or status.st_gid == 0:
        return f"run the command as its owner: {_sudo(status.st_uid)} nst-daemon …"
    if status.st_gid in _groups():
        return f"restart the daemon: it gives the group {name} the rights to its files"
    user = user_name(os.geteuid())
    if user == str(os.geteuid()):
        return f"run the command as a user of the group {name}"
    with suppress(KeyError):
        if user in grp.getgrgid(status.st_gid).gr_mem:
            return f"log in again: {user} was not in the group {name} at this login"
    return f"join the group {name}: sudo usermod -aG {name} {user}, then log in again"
