"""Which configuration file is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nst_daemon import config
from nst_daemon.errors import ConfigError
from tests.users import User, needs_root


def found_in(folder: Path) -> config.Config:
    """The configuration that a command in the folder reads."""
    return config.load(None, {}, search=[folder / "nst-daemon.yaml", folder / "config.yaml"])


@pytest.mark.parametrize(
    "data",
    [
        b"server: {port: 80}\n",
        b"services:\n  web: {image: nginx}\n",
        b"- a\n- list\n",
        b"a string\n",
        b"42\n",
        b"key: [unclosed\nother: {\n",
        b"*alias\n",
        b"a: 1\n---\nb: 2\n",
        b"%TAG ! x\n",
        b"\x00\x01\x02\xff\xfe",
        b"\xff\xfeh\x00i\x00:\x00 \x001\x00",
        b"epochs: 3\nmy_threads: 4\n# threads: 2\nx: |\n  threads: 2\n",
        b"a: &x 1\nb: *x\n",
    ],
)
def test_the_configuration_of_another_program_is_ignored(tmp_path: Path, data: bytes) -> None:
    """A config.yaml without a key of ours is left out with one line that names it and says how to read it."""
    (tmp_path / "config.yaml").write_bytes(data)
    loaded = found_in(tmp_path)
    (warning,) = loaded.warnings
    assert loaded.source is None
    assert str(tmp_path / "config.yaml") in warning
    assert "--config" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing yet\n", b"---\n", b"{threads: 3}\n"])
def test_an_empty_file_and_one_with_a_key_of_ours_are_read(tmp_path: Path, data: bytes) -> None:
    """A file without any key sets nothing and is no reason for a warning; braces are read as well."""
    (tmp_path / "config.yaml").write_bytes(data)
    loaded = found_in(tmp_path)
    assert loaded.source == tmp_path / "config.yaml"
    assert loaded.warnings == ()
    assert loaded.threads == (3 if b"threads" in data else "auto")


def test_a_huge_file_is_not_read_completely(tmp_path: Path) -> None:
    """2 GiB of another program are ignored, and a file of ours that is too large is an error."""
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(2**31)
    assert found_in(tmp_path).source is None
    path.write_bytes(b"threads: 2\n" + b"# " + b"x" * 100_000)
    with pytest.raises(ConfigError, match="more than 64 KiB"):
        found_in(tmp_path)


def test_what_is_no_regular_file_is_ignored(tmp_path: Path) -> None:
    """A folder or a named pipe called config.yaml is named in a warning; a broken link is no file."""
    path = tmp_path / "config.yaml"
    for make, undo, told in (
        (path.mkdir, path.rmdir, "it is a folder"),
        (lambda: os.mkfifo(path), path.unlink, "it is no regular file"),
    ):
        make()
        assert told in found_in(tmp_path).warnings[0]
        undo()
    path.symlink_to(tmp_path / "nowhere")
    assert found_in(tmp_path).warnings == ()


@needs_root
def test_a_file_that_cannot_be_read_is_an_error(reachable: Path) -> None:
    """An unreadable config.yaml may hold settings: the command ends and names it."""
    (reachable / "config.yaml").write_text("threads: 2")
    (reachable / "config.yaml").chmod(0)

    def part() -> None:
        with pytest.raises(
            ConfigError, match=r"config\.yaml cannot be read.*check its permissions"
        ):
            found_in(reachable)

    User(12345, 12345).run(part)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("threads: 2\nepochs: 3\n", "epochs is not a setting"),
        ("model: resnet50\n", "model is a section, and 'resnet50' is not a mapping"),
    ],
)
def test_a_file_with_some_key_of_ours_is_ours(tmp_path: Path, text: str, told: str) -> None:
    """Keys that are unknown, or have another form, are errors that say what to do if the file is of another program."""
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        found_in(tmp_path)
    assert told in str(caught.value)
    assert "make nst-daemon.yaml" in str(caught.value)
    (tmp_path / "nst-daemon.yaml").write_text("")
    assert found_in(tmp_path).source == tmp_path / "nst-daemon.yaml"
    with pytest.raises(ConfigError) as named:
        config.load(tmp_path / "config.yaml", {})
    assert "another program" not in str(named.value)


def test_the_line_of_an_error_in_our_file_is_named(tmp_path: Path) -> None:
    """A file of ours that is not valid YAML is an error with its line, and is not ignored."""
    (tmp_path / "config.yaml").write_text("threads: 2\nservice: [\n")
    with pytest.raises(ConfigError, match="line 3"):
        found_in(tmp_path)


def test_the_line_of_a_path_is_named(tmp_path: Path) -> None:
    """A folder that cannot be resolved is an error with the line of its key."""
    (tmp_path / "config.yaml").write_text("threads: 2\nfolders:\n  root: ~nosuchuser/x\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:3: folders\.root: ~nosuchuser/x"):
        config.load(tmp_path, {})


def test_a_folder_may_be_named(tmp_path: Path) -> None:
    """--config DIR and $NST_CONFIG=DIR read nst-daemon.yaml or config.yaml in it, and name both if there is none."""
    with pytest.raises(ConfigError, match=r"no nst-daemon\.yaml or config\.yaml.*nst-daemon init"):
        config.load(tmp_path, {})
    (tmp_path / "config.yaml").write_text("threads: 2")
    assert config.load(tmp_path, {}).threads == 2
    (tmp_path / "nst-daemon.yaml").write_text("threads: 3")
    assert config.load(None, {"NST_CONFIG": str(tmp_path)}).threads == 3


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("service.settle_seconds", "2s", 2),
        ("service.pair_timeout", "1.5h", 5400),
        ("service.stall_seconds", "5 min", 300),
        ("limits.max_job_minutes", "4h", 240),
        ("keep.done_days", "12h", 0.5),
        ("keep.failed_days", "2w", 14),
        ("hooks.timeout", "90S", 90),
    ],
)
def test_times_may_have_a_unit(tmp_path: Path, key: str, text: str, value: float) -> None:
    """A time with a unit is converted to the unit of its key, in the file and in a variable."""
    section, _, name = key.partition(".")
    (tmp_path / "config.yaml").write_text(f"{section}: {{{name}: {text}}}")
    for loaded in (
        config.load(tmp_path, {}),
        config.load(None, {f"NST_{section}__{name}".upper(): text}, search=()),
    ):
        assert getattr(getattr(loaded, section), name) == value


@pytest.mark.parametrize("text", ["-1s", "2x", "s", "1h30m", "1:30", "soon", "5 5m", "0s"])
def test_other_times_are_refused_with_what_is_allowed(text: str) -> None:
    """A time of another form is one line with the key, the value and an example."""
    with pytest.raises(ConfigError, match=r"stall_seconds: .* is not allowed; write seconds > 0"):
        config.load(None, {"NST_SERVICE__STALL_SECONDS": text}, search=())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NST_RENDER__SZIE", "NST_RENDER__SIZE"),
        ("NST_RENDER__STEPS", "NST_RENDER__ITERATIONS"),
        ("NST_SERVICE__SIZE", "NST_RENDER__SIZE"),
        ("NST_FOLDERS__IMBOX", "NST_FOLDERS__INBOX"),
    ],
)
def test_the_variable_that_is_meant_is_named(name: str, meant: str) -> None:
    """A misspelt key in a variable, or one in another section, is answered with the whole variable."""
    with pytest.raises(ConfigError, match=rf"{name}: .* is not a setting; did you mean {meant}\?"):
        config.load(None, {name: "3"}, search=())
