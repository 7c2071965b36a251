"""init, config, settings and presets, as processes, and what shells complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from benchmarks.drawings import draw_scene
from nst_daemon import config
from nst_daemon.config_report import setting_keys
from nst_daemon.errors import StorageError
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.new_root import make_root
from tests.forked import loaded
from tests.users import User, needs_root

FOLDERS = {"inbox", "styles", "results", "done", "failed", "state"}
TOKEN = "0123456789abcdef0123"


def nst(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without the variables of this process that are settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NST_")}
    return loaded().run(*words, cwd=cwd, env={**clean, **(env or {})})


@pytest.mark.parametrize("name", ["plain", "my pictures", "a: b #c", 'it\'s "quoted"', "é/deep/er"])
def test_init_makes_a_root_that_commands_use(tmp_path: Path, name: str) -> None:
    """A new root has its folders and a valid configuration, which is found inside it and by --config DIR or FILE."""
    made = nst("init", name, cwd=tmp_path)
    root = tmp_path / name
    assert made.returncode == 0, made.stderr
    assert {path.name for path in root.iterdir()} == FOLDERS | {"config.yaml"}
    assert all(f"{folder}/" in made.stdout for folder in FOLDERS)
    assert sum(line.startswith("  nst-daemon ") for line in made.stdout.splitlines()) == 3
    for words, place in (
        ((), root),
        (("-c", name), tmp_path),
        (("-c", f"{name}/config.yaml"), tmp_path),
    ):
        shown = nst("config", "show", "folders.inbox", "--json", *words, cwd=place)
        value = json.loads(shown.stdout)["folders.inbox"]["value"]
        assert value == str(root / "inbox"), shown.stderr
    found = json.loads(nst("config", "show", "--json", cwd=root).stdout)
    set_by_file = [key for key, told in found.items() if "config.yaml:" in told["origin"]]
    assert set_by_file == ["folders.root"]


def test_init_names_what_others_can_read(reachable: Path) -> None:
    """If other users can reach the new folders, the command that closes them is printed; then it is not."""
    made = nst("init", "open", cwd=reachable)
    place = reachable / "open"
    (line,) = [line for line in made.stdout.splitlines() if line.startswith("other users ")]
    command = line.partition("to close: ")[2]
    assert subprocess.run(command, shell=True, check=True, cwd=reachable).returncode == 0
    assert place.stat().st_mode & 0o7777 == 0o750
    (reachable / "closed").mkdir(mode=0o700)
    assert "other users" not in nst("init", "closed", cwd=reachable).stdout


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """A second init names the configuration and changes nothing; files of others in the folder stay."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "dog.jpg").write_bytes(b"mine")
    assert nst("init", cwd=tmp_path).returncode == 0
    (tmp_path / "config.yaml").write_text("threads: 2\n")
    again = nst("init", ".", cwd=tmp_path)
    assert again.returncode == 2
    assert "config.yaml exists" in again.stderr
    assert (tmp_path / "config.yaml").read_text() == "threads: 2\n"
    assert (tmp_path / "inbox" / "dog.jpg").read_bytes() == b"mine"


def test_init_beside_the_configuration_of_another_program(tmp_path: Path) -> None:
    """A foreign config.yaml stays; ours is called nst-daemon.yaml, and is the one that is read."""
    foreign = "server: {port: 80}\nusers: [a]\n"
    (tmp_path / "config.yaml").write_text(foreign)
    made = nst("init", cwd=tmp_path)
    assert made.returncode == 0
    assert "config.yaml belongs to another program" in made.stderr
    assert (tmp_path / "config.yaml").read_text() == foreign
    assert nst("config", "path", cwd=tmp_path).stdout == f"{tmp_path}/nst-daemon.yaml\n"


def test_init_makes_nothing_where_something_is_in_the_way(tmp_path: Path) -> None:
    """A file in the place of a folder is named before anything is made."""
    (tmp_path / "styles").write_text("")
    made = nst("init", cwd=tmp_path)
    assert made.returncode == 2
    assert "styles exists and is not a folder" in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["styles"]
    assert nst("init", "styles", cwd=tmp_path).returncode == 2


@needs_root
def test_init_without_rights() -> None:
    """A folder that this user may not make is exit code 7, with the folder and the cause."""

    def part() -> None:
        with pytest.raises(StorageError, match=r"/usr/new: Permission denied") as caught:
            make_root(Path("/usr/new"))
        assert caught.value.exit_code == 7

    User(12345, 12345).run(part)


def test_init_says_if_a_variable_sets_another_root(tmp_path: Path) -> None:
    """With NST_FOLDERS__ROOT in the environment the new root would not be used: the warning names the variable."""
    made = nst("init", cwd=tmp_path, env={"NST_FOLDERS__ROOT": "/elsewhere"})
    assert "NST_FOLDERS__ROOT sets another root: /elsewhere" in made.stderr


def test_show_names_the_origin_of_every_value(tmp_path: Path) -> None:
    """Values come from defaults, lines of the file, variables and presets, and the token is masked."""
    (tmp_path / "config.yaml").write_text(
        f"# mine\nthreads: 2\nrender:\n  preset: bold\n  keep_colors: off\nstatus_page_token: {TOKEN}\n"
        f"notify: {{urls: [json://example.org/{TOKEN}]}}\n"
    )
    env = {"NST_SERVICE__SETTLE_SECONDS": "5m"}
    shown = nst("config", "show", "--json", cwd=tmp_path, env=env)
    found = json.loads(shown.stdout)
    assert TOKEN not in shown.stdout
    assert set(found) == set(config.config_keys())
    assert found["threads"] == {"value": 2, "origin": "config.yaml:2"}
    assert found["render.preset"]["origin"] == "config.yaml:4"
    assert found["render.style_scale"] == {"value": 1.5, "origin": "preset bold"}
    assert found["render.keep_colors"] == {"value": "off", "origin": "config.yaml:5"}
    assert found["render.seed"] == {"value": 0, "origin": "default"}
    assert found["service.settle_seconds"] == {
        "value": 300,
        "origin": "NST_SERVICE__SETTLE_SECONDS",
    }
    text = nst("config", "show", cwd=tmp_path, env=env).stdout
    assert TOKEN not in text
    document = yaml.safe_load(text)
    assert document["render"]["preset"] == "bold"
    assert document["status_page_token"] == "********"
    assert document["notify"]["urls"] == "********"
    section = nst("config", "show", "log", cwd=tmp_path).stdout
    assert yaml.safe_load(section) == {"log": {"format": "auto", "level": "info"}}
    for size in ("2345678901", "1536MiB", "4GiB"):
        shown = nst(
            "config",
            "show",
            "limits.max_memory",
            cwd=tmp_path,
            env={"NST_LIMITS__MAX_MEMORY": size},
        )
        assert size in shown.stdout
    one = nst("config", "show", "threads", cwd=tmp_path).stdout
    assert one == "threads: 2  # config.yaml:2\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("config", "show", "size"), "did you mean render.size?"),
        (("config", "show", "rendr"), "did you mean render?"),
        (("config", "sho"), "did you mean 'show'?"),
        (("stauts",), "did you mean 'status'?"),
        (("settings", "itertions"), "did you mean iterations?"),
        (("settings", "--preset", "blod"), "did you mean bold?"),
        (("presets", "blod"), "did you mean bold?"),
        (("stylize", "a", "b", "-o", "c.png", "--set", "steps=3"), "did you mean iterations?"),
        (("stylize", "a", "b", "-o", "c.png", "--set", "optimizer=adan"), "did you mean adam?"),
        (("stylize", "a", "b", "-o", "c.png", "--preset", "skech"), "did you mean sketch?"),
        (("model", "fetch", "--network", "vgg91"), "did you mean vgg19"),
    ],
)
def test_misspelt_words_of_a_command_are_answered(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    """A misspelt command, key, setting, preset, choice or network is one line with what may be meant."""
    for name in ("a", "b"):
        draw_scene(48, 32).save(tmp_path / name, "PNG")
    run = nst(*words, cwd=tmp_path)
    assert run.returncode
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_check_lists_every_problem(tmp_path: Path) -> None:
    """Each problem is one line with the file, the line, the key and the remedy; the exit code is 3."""
    (tmp_path / "config.yaml").write_text(
        "service:\n  settel_seconds: 3\n  max_attempts: 0\nrender:\n  size: 64x64\n  optimizer: adan\n"
        "  format: tiff\noutputs: {quality: 101, format: jpge}\nsize: 3\nlog: loud\n"
        "keep: {ledger_days: 1, done_days: 2}\nlimits: {formats: [pgn]}\nservce: {}\n"
    )
    run = nst("config", "check", cwd=tmp_path)
    assert run.returncode == 3
    lines = run.stderr.splitlines()
    for number, told in (
        (2, "service.settel_seconds is not a setting; did you mean service.settle_seconds?"),
        (3, "service.max_attempts: 0 is not allowed; write a whole number ≥ 1"),
        (5, "render.size: '64x64' is not allowed; write a whole number ≥ 1, 'auto' or 'original'"),
        (
            6,
            "render.optimizer: 'adan' is not allowed; write 'lbfgs' or 'adam' (did you mean adam?)",
        ),
        (7, "render.format is not a setting; write outputs.format"),
        (8, "outputs.quality: 101 is not allowed; write a whole number from 1 to 100"),
        (8, "(did you mean jpg?)"),
        (9, "size is not a setting; size belongs to the section render"),
        (10, "log is a section, and 'loud' is not a mapping"),
        (11, "keep.ledger_days (1) is less than keep.done_days (2)"),
        (12, "'pgn' is not a format (did you mean png?)"),
        (13, "servce is not a setting; did you mean service?"),
    ):
        assert any(f"config.yaml:{number}: " in line and told in line for line in lines), told
    assert len(lines) == 12
    assert nst("status", cwd=tmp_path).stderr.count("\n") == 1


def test_check_of_a_file_and_of_none(tmp_path: Path) -> None:
    """A valid file, a folder and no file have no problems; a missing file and bad YAML are exit code 3."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.yaml").write_text("threads: 2\n")
    for words in ((), ("sub",), ("sub/config.yaml",), ("-c", "sub")):
        run = nst("config", "check", *words, cwd=tmp_path)
        assert (run.returncode, "no problems" in run.stdout) == (0, True), run.stderr
    (tmp_path / "bad.yaml").write_text("threads: [\n")
    (tmp_path / "empty").mkdir()
    for word, told in (
        ("bad.yaml", "line 2"),
        ("none.yaml", "does not exist"),
        ("empty", "nst-daemon init"),
    ):
        run = nst("config", "check", word, cwd=tmp_path)
        assert run.returncode == 3
        assert told in run.stderr


def test_path_says_what_is_read_and_why(tmp_path: Path) -> None:
    """The path alone is on standard output; JSON and standard error have the reason and the other files."""
    (tmp_path / "config.yaml").write_text("server: 1\n")
    run = nst("config", "path", cwd=tmp_path)
    assert run.stdout == ""
    assert "config.yaml: is ignored: it has no key of nst-daemon" in run.stderr
    (tmp_path / "mine.yaml").write_text("")
    env = {"NST_CONFIG": "mine.yaml"}
    told = json.loads(nst("config", "path", "--json", cwd=tmp_path, env=env).stdout)
    assert (told["path"], told["reason"]) == (f"{tmp_path}/mine.yaml", "named by $NST_CONFIG")


def test_settings_lists_every_setting_of_a_job(tmp_path: Path) -> None:
    """Each key that --set takes has its value, default, values and help; a preset changes the values."""
    found = json.loads(nst("settings", "--json", cwd=tmp_path).stdout)
    assert set(found) == set(setting_keys())
    assert all(info["help"] and info["allowed"] for info in found.values())
    assert found["size"]["value"] == found["size"]["default"] == "auto"
    assert found["format"]["choices"] == ["png", "jpg", "webp", "tiff", "avif", "jxl"]
    bold = json.loads(nst("settings", "--preset", "bold", "--json", cwd=tmp_path).stdout)
    assert bold["style_scale"]["value"] == 1.5
    text = nst("settings", "size", "seed", cwd=tmp_path).stdout
    assert text.startswith("size: auto\n    The longer side")
    assert "Allowed: a whole number from 0 to 9223372036854775807." in text
    values = yaml.safe_load(nst("presets", "bold", cwd=tmp_path).stdout)
    assert values["style_scale"] == 1.5


def test_settings_loads_no_library_of_tensors() -> None:
    """The commands of this module, and completion, stay quick: they import neither torch nor numpy."""
    code = (
        "import sys; from nst_daemon.cli import app; sys.argv = ['nst-daemon', 'settings', 'size']\n"
        "try:\n    app()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'onnxruntime', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("[]\n")


def complete(*words: str, cwd: Path) -> list[str]:
    """What bash completes, by typer's protocol."""
    env = {
        "_NST_DAEMON_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("nst-daemon", *words)),
        "COMP_CWORD": str(len(words)),
    }
    run = nst(cwd=cwd, env=env)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.split()


def test_shells_complete_names(tmp_path: Path) -> None:
    """Presets, settings, their choices, keys, devices, usable styles, sizes, networks and batch files are completed."""
    nst("init", cwd=tmp_path)
    styles = tmp_path / "styles"
    (styles / "monet").mkdir()
    for path in (styles / "starry.jpg", styles / "monet" / "a.png"):
        path.write_bytes(b"a picture")
    (styles / "empty").mkdir()
    (styles / "link.png").symlink_to(styles / "starry.jpg")
    (tmp_path / "night.batch.yaml").write_text("")
    for words, expected in (
        (("presets", "b"), ["bold"]),
        (("stylize", "--preset", "sk"), ["sketch"]),
        (("stylize", "a", "b", "--set", "keep_colors_"), ["keep_colors_when="]),
        (("stylize", "a", "b", "--set", "optimizer=a"), ["optimizer=adam"]),
        (("stylize", "a", "b", "--set", "optimizer", "=", "a"), ["adam"]),
        (("stylize", "a", "b", "--set", "optimizer", "="), ["lbfgs", "adam"]),
        (("stylize", "--set", "seed", "=", "3", "--set", "clamp", "=", "t"), ["true"]),
        (("stylize", "--device", "c"), ["cpu"]),
        (("stylize", "--size", ""), ["auto", "original"]),
        (("config", "show", "log"), ["log", "log.format", "log.level"]),
        (("settings", "si"), ["size"]),
        (("submit", "dog.jpg", ""), ["monet", "starry"]),
        (("submit", "dog.jpg", "s"), ["starry"]),
        (("stylize", "dog.jpg", "--style", "m"), ["monet"]),
        (("batch", "n"), ["night.batch.yaml"]),
        (("model", "fetch", "--network", "vgg16"), ["vgg16"]),
    ):
        found = complete(*words, cwd=tmp_path)
        assert [w for w in found if not w.startswith("cuda")] == expected, words


def test_shells_complete_jobs(tmp_path: Path) -> None:
    """Each command completes the jobs for which it is possible, and ids once they are begun."""
    nst("init", cwd=tmp_path)
    state = tmp_path / "state"
    with Ledger.open(state / "ledger.sqlite") as ledger:
        for number, (name, states) in enumerate(
            (("dog", (JobState.FAILED,)), ("cat", (JobState.QUEUED,)))
        ):
            job_id = f"{number}abc".ljust(32, "0")
            job = Job(job_id, name, "pair", JobState.CLAIMED, (), created=1.0, updated=1.0)
            ledger.add(job)
            for new in states:
                ledger.move(job.id, new, now=1.0)
    assert set(complete("history", "", cwd=tmp_path)) == {"dog", "cat"}
    assert complete("retry", "", cwd=tmp_path) == ["dog"]
    assert complete("delete", "", cwd=tmp_path) == ["dog"]
    assert complete("cancel", "", cwd=tmp_path) == ["cat"]
    assert complete("priority", "5", "", cwd=tmp_path) == ["cat"]
    assert complete("history", "0a", cwd=tmp_path) == ["0abc0000"]
    run = nst("history", "dgo", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (
        2,
        "nst-daemon: there is no job dgo; did you mean dog?\n",
    )


def test_completion_is_silent_without_anything(tmp_path: Path) -> None:
    """Without a ledger or a library, and with an invalid one, nothing is completed and nothing is said."""
    assert complete("retry", "", cwd=tmp_path) == []
    (tmp_path / "nst-daemon.yaml").write_text("threads: [\n")
    assert complete("retry", "", cwd=tmp_path) == []
    assert complete("submit", "x", "", cwd=tmp_path) == []
    (tmp_path / "nst-daemon.yaml").write_text("folders: {root: .}\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ledger.sqlite").write_text("not a database")
    assert complete("history", "", cwd=tmp_path) == []
