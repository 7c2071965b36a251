"""The tokens of the page: the file, and the commands that change it."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nst_daemon import tokens
from nst_daemon.cli import app
from nst_daemon.config import Folders, load
from nst_daemon.errors import NstError, StorageError, UsageError
from nst_daemon.tokens import AcceptedTokens
from tests.users import User, needs_root


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """The folders of a root that has been used."""
    found = load(None, {"NST_FOLDERS__ROOT": str(tmp_path)}).folders
    found.state.mkdir()
    return found


@pytest.fixture
def shared(reachable: Path) -> Folders:
    """The folders of a root that other users can reach."""
    found = load(None, {"NST_FOLDERS__ROOT": str(reachable)}).folders
    found.state.mkdir()
    return found


@pytest.fixture
def command(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run `nst-daemon token …` for the root; the lines of its standard output, or its exception."""
    monkeypatch.setenv("NST_FOLDERS__ROOT", str(folders.root))

    def run(*arguments: str) -> list[str]:
        done = CliRunner().invoke(app, ["token", *arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.stdout.splitlines()

    return run


def test_a_token_is_shown_once(command: Callable[..., list[str]], folders: Folders) -> None:
    """`token create` prints the token, and nothing that is stored or listed contains it."""
    (secret,) = command("create", "phone")
    assert AcceptedTokens(folders, "", far=False).find(secret)
    written = "".join(p.read_text() for p in folders.state.iterdir())
    shown = "\n".join([*command("list"), *command("list", "--json")])
    for text in (written, shown):
        assert secret not in text


def test_the_first_token_closes_the_page(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the command that creates the first token says that the page needs one from now on."""
    monkeypatch.setenv("NST_FOLDERS__ROOT", str(folders.root))

    def says() -> bool:
        said = CliRunner().invoke(app, ["token", "create", "phone"]).stderr
        tokens.revoke(folders, "phone")
        return "needs one from now on" in said

    assert says()
    assert not says(), "the page was closed before"


def test_a_stored_hash_gives_no_access(folders: Folders) -> None:
    """Nothing that is in the file is accepted as a token."""
    tokens.create(folders, "phone", "full")
    (stored,) = json.loads(tokens.path_of(folders).read_text())["tokens"]
    accepted = AcceptedTokens(folders, "", far=False)
    for value in map(str, stored.values()):
        assert accepted.find(value) is None


def test_only_its_owner_may_read_the_file(folders: Folders) -> None:
    """The file has the mode 0600 whatever the umask is, and after each change."""
    before = os.umask(0)
    try:
        tokens.create(folders, "phone", "full")
        tokens.create(folders, "tablet", "read")
    finally:
        os.umask(before)
    assert stat.S_IMODE(tokens.path_of(folders).stat().st_mode) == 0o600


def test_tokens_are_listed_and_revoked(
    command: Callable[..., list[str]], folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has names, access and uses, the one of the configuration too; a revoked token is not in it."""
    monkeypatch.setenv("NST_STATUS_PAGE_TOKEN", "0123456789abcdef")
    (secret,) = command("create", "phone", "--read-only")
    accepted = AcceptedTokens(folders, "", far=False)
    found = accepted.find(secret)
    assert found is not None
    assert accepted.note_use(found, 2e9)
    assert not accepted.note_use(found, 2e9 + 1), "not at every request"
    accepted.store_uses()
    listed = {row["name"]: row for row in json.loads("".join(command("list", "--json")))}
    assert set(listed) == {"status_page_token", "phone"}
    assert (listed["phone"]["access"], listed["phone"]["last_use"]) == ("read", 2e9)
    assert listed["status_page_token"]["last_use"] is None
    command("revoke", "phone")
    assert accepted.find(secret) is None
    assert "phone" not in "".join(command("list"))


def test_a_new_token_has_not_been_used(folders: Folders) -> None:
    """The last use of a revoked token is not that of a later token with its name."""
    tokens.create(folders, "phone", "full")
    accepted, (old,) = AcceptedTokens(folders, "", far=False), tokens.listed(folders)
    accepted.note_use(old, old.created)
    accepted.store_uses()
    tokens.revoke(folders, "phone")
    tokens.create(folders, "phone", "full")
    (new,) = tokens.rows(folders, "")
    assert new.last_use is None


@pytest.mark.parametrize("name", ["", " x", "x\n", "x" * 51, "status_page_token", "phone"])
def test_names_are_checked(folders: Folders, name: str) -> None:
    """A name that is empty, unprintable, too long, or in use is refused with a remedy."""
    tokens.create(folders, "phone", "full")
    with pytest.raises(UsageError) as caught:
        tokens.create(folders, name, "full")
    assert caught.value.remedy
    assert len(tokens.listed(folders)) == 1


@pytest.mark.parametrize("name", ["tablet", "status_page_token"])
def test_only_tokens_of_the_file_are_revoked(folders: Folders, name: str) -> None:
    """An unknown name, and that of the configuration, are errors that change nothing."""
    tokens.create(folders, "phone", "full")
    with pytest.raises(UsageError):
        tokens.revoke(folders, name)
    assert len(tokens.listed(folders)) == 1


def test_tokens_created_at_the_same_time_are_kept(folders: Folders) -> None:
    """Commands that run side by side do not lose a token."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: tokens.create(folders, f"t{n}", "full"), range(24)))
    assert len(tokens.listed(folders)) == 24


def test_a_running_page_notices_changes(folders: Folders) -> None:
    """A token is accepted as soon as it is created; without a file and an own token none is needed."""
    accepted = AcceptedTokens(folders, "", far=False)
    assert not accepted.needed
    secret = tokens.create(folders, "phone", "full")
    assert accepted.needed
    assert accepted.find(secret)
    tokens.revoke(folders, "phone")
    assert not accepted.find(secret)
    assert accepted.needed, "the page is not open after the last token was revoked"
    tokens.path_of(folders).unlink()
    assert not accepted.needed
    assert AcceptedTokens(folders, "", far=True).needed, "other machines always need one"


def document(**changed: object) -> str:
    """The text of a file with one token, with a value that no command writes."""
    token = {"name": "phone", "access": "full", "created": 1.0}
    return json.dumps({"version": 1, "tokens": [{**token, "token_sha256": "0" * 64, **changed}]})


@pytest.mark.parametrize(
    "contents",
    [
        *("", "{", "[]", '{"version": 2, "tokens": []}', '{"version": 1}', "\0" * 2_000_000),
        document(token_sha256="ü" * 64),
        document(token_sha256=""),
        document(created=1e300),
        document(created="NaN"),
        document(access="all"),
        document(name=""),
    ],
)
def test_a_damaged_file_refuses_everybody(
    folders: Folders, contents: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a damaged file no token is accepted, the log says so once, and no command replaces the file."""
    own = "0123456789abcdef"
    accepted = AcceptedTokens(folders, own, far=False)
    assert accepted.find(own)
    path = tokens.path_of(folders)
    path.write_text(contents)
    with caplog.at_level(logging.ERROR):
        assert accepted.find(own) is None
        assert accepted.needed
    assert str(path) in caplog.text
    assert len(caplog.records) == 1
    with pytest.raises(StorageError, match="damaged"):
        tokens.create(folders, "phone", "full")
    assert path.read_text() == contents


def test_a_pipe_in_place_of_the_file_is_not_read(folders: Folders) -> None:
    """Something else of this name refuses everybody, and nothing waits for it."""
    os.mkfifo(tokens.path_of(folders))
    accepted = AcceptedTokens(folders, "0123456789abcdef", far=False)
    assert accepted.find("0123456789abcdef") is None
    assert "not a file" in accepted.problem


@needs_root
def test_a_file_of_root_belongs_to_the_user_of_the_daemon(shared: Folders) -> None:
    """A token that root creates is in a file that the daemon's user can read, before and after."""
    os.chown(shared.state, 12345, 12345)
    secret = tokens.create(shared, "phone", "full")
    status = tokens.path_of(shared).stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12345, 0o600)

    def part() -> None:
        assert AcceptedTokens(shared, "", far=False).find(secret)
        tokens.create(shared, "tablet", "full")

    User(12345, 12345).run(part)


@needs_root
def test_another_member_of_the_group_is_refused(shared: Folders) -> None:
    """A user of the group, whose file the daemon could not read, gets the command that works."""
    os.chown(shared.state, 12345, 12346)
    shared.state.chmod(0o2770)

    def part() -> None:
        with pytest.raises(NstError, match="belongs to 12345") as caught:
            tokens.create(shared, "phone", "full")
        assert "sudo -u" in caught.value.remedy

    User(12347, 12346).run(part)
    assert list(shared.state.iterdir()) == []


@needs_root
def test_a_member_who_lists_tokens_gets_the_command_that_works(shared: Folders) -> None:
    """A user who cannot read the file is told to run the command as the daemon's user, not to change the file."""
    os.chown(shared.state, 12345, 12346)
    shared.state.chmod(0o2770)
    tokens.create(shared, "phone", "full")

    def part() -> None:
        with pytest.raises(StorageError, match="Permission denied") as caught:
            tokens.listed(shared)
        assert "sudo -u '#12345' nst-daemon" in caught.value.remedy
        assert "0600" not in caught.value.remedy

    User(12347, 12346).run(part)
