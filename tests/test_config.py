"""config.yaml and NST_… variables."""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
from pathlib import Path

import pytest
import yaml

from nst_daemon import config
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.errors import ConfigError
from tests.users import User, needs_root

SHIPPED = Path(__file__).parent.parent / "config.yaml"
#: The # of a key; a # with a space begins an explanation.
KEY_BEHIND_HASH = re.compile(r"(?m)^( *)#(?=\w)")


def write(folder: Path, text: str) -> Path:
    """A config.yaml in the folder."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def flat(document: dict[str, object], prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} → {"a.b": 1}, leaving `render` whole."""
    out: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict) and value and prefix + key != "render":
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def test_shipped_file_names_every_key_at_its_default(tmp_path: Path) -> None:
    """config.yaml holds each key of the dataclasses, none besides, and each at its default."""
    document = yaml.safe_load(KEY_BEHIND_HASH.sub(r"\1", SHIPPED.read_text("utf-8")))
    keys = {name for name in config.config_keys() if not name.startswith("render.")}
    assert set(flat(document)) == keys | {"render"}
    assert set(document["render"]) == {f.name for f in dataclasses.fields(RenderSettings)}
    assert resolve(document.pop("render")) == RenderSettings()
    written = write(tmp_path, yaml.safe_dump(document))
    assert config.load(written, {}) == config.load(write(tmp_path, ""), {})


def test_shipped_file_sets_nothing(tmp_path: Path) -> None:
    """As it is, config.yaml sets no key, so that later versions can change defaults."""
    text = SHIPPED.read_text("utf-8")
    examined = config.examine(write(tmp_path, text), {})
    assert not [key for key in examined.origins.lines if ".".join(key) in config.config_keys()]
    assert examined.config == config.load(write(tmp_path, ""), {})


def test_each_key_of_the_shipped_file_can_be_uncommented(tmp_path: Path) -> None:
    """Removing the # of any one key, and of all, gives a valid file that sets the key to its default."""
    text = SHIPPED.read_text("utf-8")
    defaults = config.load(write(tmp_path, ""), {})
    found = list(KEY_BEHIND_HASH.finditer(text))
    assert len(found) == len(config.config_keys())
    for match in found:
        file = write(tmp_path, text[: match.start()] + match[1] + text[match.end() :])
        examined = config.examine(file, {})
        assert examined.config is not None, (match[0], examined.problems)
        line = text.count("\n", 0, match.start()) + 1
        assert line in examined.origins.lines.values()
        assert examined.config.render_settings() == defaults.render_settings()
        assert dataclasses.replace(examined.config, render={}) == defaults
    everything = config.load(write(tmp_path, KEY_BEHIND_HASH.sub(r"\1", text)), {})
    assert dataclasses.replace(everything, render={}) == defaults


def test_shipped_file_is_up_to_date() -> None:
    """config.yaml is what `make config` makes of the settings in the code."""
    path = SHIPPED.parent / "docs" / "make_config.py"
    assert runpy.run_path(str(path))["document"]() == SHIPPED.read_text("utf-8")


def test_later_sources_win(tmp_path: Path) -> None:
    """The environment overrides the file, and the file overrides the defaults."""
    path = write(tmp_path, "service: {settle_seconds: 5, max_attempts: 7}")
    loaded = config.load(path, {"NST_SERVICE__SETTLE_SECONDS": "9"})
    assert loaded.service.settle_seconds == 9
    assert loaded.service.max_attempts == 7
    assert loaded.service.rescan_seconds == config.Service().rescan_seconds


@pytest.mark.parametrize(
    "text",
    ["1e5", "0123", "yes", "null", "a #1", "a: b", "*", "~", "'q' \"q\"", "[x", "{y", "é", ""],
)
def test_text_in_a_variable_is_taken_literally(tmp_path: Path, text: str) -> None:
    """Names and paths that YAML would read as something else arrive as they are written."""
    loaded = config.load(write(tmp_path, ""), {"NST_DEFAULT_STYLE": text})
    assert loaded.default_style == text
    if text not in {"", "~"}:
        token = (text * 16).replace(" ", "_").replace("é", "e")
        given = {"NST_FOLDERS__ROOT": f"{tmp_path}/{text}", "NST_STATUS_PAGE_TOKEN": token}
        loaded = config.load(None, given)
        assert loaded.folders.root == tmp_path / text
        assert loaded.status_page_token == token


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("auto", "auto"),
        ("CPU", "cpu"),
        ("[auto]", "auto"),
        ("cuda", ["cuda"]),
        ("gpu", ["cuda"]),
        ("gpu:1", ["cuda:1"]),
        ("cuda:0", ["cuda:0"]),
        (" CUDA:0 ", ["cuda:0"]),
        ("mps", ["mps"]),
        ("[cuda:0, 'cuda:1']", ["cuda:0", "cuda:1"]),
        ("[cpu, cpu]", ["cpu", "cpu"]),
    ],
)
def test_one_device_needs_no_brackets(text: str, devices: object) -> None:
    """NST_DEVICES takes a word, one device, or a list."""
    assert config.load(None, {"NST_DEVICES": text}).devices == devices


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mps:1", "unknown device 'mps:1': use auto, cpu, cuda"),
        ("cuda:", "unknown device 'cuda:'"),
        ("cuda:-1", "unknown device"),
        ("[cuda:0, tpu]", "unknown device 'tpu'"),
        ("[]", "no device is named"),
        ("[auto, cpu]", "auto cannot be combined"),
        ("[cuda, cuda:0]", "cuda means all GPUs and cannot be combined"),
        ("[cuda, gpu]", "cuda means all GPUs and cannot be combined"),
    ],
)
def test_devices_that_mean_nothing_are_refused(text: str, said: str) -> None:
    """Unknown devices and lists that contradict themselves are refused; the message says what is allowed."""
    with pytest.raises(ConfigError, match=rf"NST_DEVICES: devices: {re.escape(said)}"):
        config.load(None, {"NST_DEVICES": text})


def test_the_elements_of_a_list_are_text(tmp_path: Path) -> None:
    """Arguments of a command and folders that look like numbers or booleans stay text."""
    given = {
        "NST_HOOKS__DONE": "[/bin/notify, 0123, yes, 1e5]",
        "NST_BATCH_ROOTS": f"{tmp_path}/a #1",
    }
    loaded = config.load(write(tmp_path, ""), given)
    assert loaded.hooks.done == ["/bin/notify", "0123", "yes", "1e5"]
    assert loaded.batch_roots == [tmp_path / "a #1"]


def test_an_empty_variable_is_not_set_unless_it_is_text(tmp_path: Path) -> None:
    """As `KEY=` in a Compose file: numbers, lists and folders keep their values, and text becomes empty."""
    path = write(tmp_path, "default_style: starry\nfolders: {root: here}\nthreads: 2")
    names = ["THREADS", "DEVICES", "FOLDERS__ROOT", "RENDER__SIZE", "METRICS__TEXTFILE"]
    loaded = config.load(path, {f"NST_{name}": "" for name in [*names, "DEFAULT_STYLE"]})
    kept = config.load(write(tmp_path, "folders: {root: here}\nthreads: 2"), {})
    assert loaded == kept


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"NST_PORT": "tcp://10.0.0.1:8787", "NST_PORT_8787_TCP_ADDR": "10.0.0.1"}, ""),
        ({"NST_SERVICE_HOST": "10.0.0.1", "NST_SERVICE_PORT_HTTP": "80", "NST_NAME": "/x/nst"}, ""),
        ({"NST_SERVICE": "x", "NST_RENDER": "fast", "NST_FOLDERS": "/a"}, ""),
        ({"NST_": "", "NST___": "", "NST_X__Y__Z": "{", "NST_THREADS__SERVER__X": "1"}, ""),
        ({"NST_DEVICE": "cpu"}, "NST_DEVICE: did you mean NST_DEVICES?"),
        ({"NST_SETTLE_SECONDS": "3"}, "did you mean NST_SERVICE__SETTLE_SECONDS?"),
        ({"NST_METRICS_PORT": "9000"}, "did you mean NST_METRICS__PORT?"),
    ],
)
def test_variables_of_others_are_ignored_and_named_in_one_line(
    given: dict[str, str], expected: str
) -> None:
    """Names that are no keys change nothing, and the warning names all of them and what may have been meant."""
    loaded = config.load(None, {**given, "NST_SERVICE__SETTLE_SECONDS": "7"})
    assert loaded == config.load(None, {"NST_SERVICE__SETTLE_SECONDS": "7"})
    (warning,) = loaded.warnings
    assert all(name in warning for name in given)
    assert "\n" not in warning
    assert expected in warning
    assert ("did you mean" in warning) == bool(expected)


def test_a_section_and_its_keys_may_both_be_variables() -> None:
    """A mapping sets several keys of a section, and a key by itself wins over it."""
    given = {
        "NST_SERVICE__SETTLE_SECONDS": "3",
        "NST_SERVICE": "{settle_seconds: 9, max_attempts: 5}",
        "NST_RENDER": "{style_layers: {relu1_1: 1.0}}",
        "NST_RENDER__STYLE_LAYERS__RELU2_1": "0.5",
    }
    loaded = config.load(None, given)
    assert (loaded.service.settle_seconds, loaded.service.max_attempts) == (3, 5)
    assert loaded.render["style_layers"] == {"relu1_1": 1.0, "relu2_1": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("NST_SERVICE__SETTEL_SECONDS", "3", "did you mean NST_SERVICE__SETTLE_SECONDS"),
        ("NST_SERVICE__SETTLE_SECONDS", "soon", "NST_SERVICE__SETTLE_SECONDS: service.settle_sec"),
        ("NST_SERVICE__SETTLE_SECONDS__X", "3", "is not a setting"),
        ("NST_SERVICE__SETTLE_SECONDS", "{", "cannot be read"),
        ("NST_HOOKS__DONE", "/bin/notify --quiet", "NST_HOOKS__DONE: hooks.done"),
        ("NST_RENDER__SIZE__X", "1", "render"),
        ("NST_FOLDERS__ROOT", "~nosuchuser/x", "write an absolute path"),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, complaint: str) -> None:
    """A wrong value, or a wrong key of a section, is refused in one line with the variable or the key."""
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        config.load(None, {name: text})
    assert "\n" not in str(caught.value)


def test_text_that_yaml_reads_as_a_number_needs_quotes(tmp_path: Path) -> None:
    """In the file, a style called 2024 is refused with the remedy, and a token is not shown."""
    with pytest.raises(
        ConfigError, match=r"default_style.*write the name of a library style, in quotes"
    ):
        config.load(write(tmp_path, "default_style: 2024"), {})
    with pytest.raises(ConfigError, match="status_page_token") as caught:
        config.load(write(tmp_path, "status_page_token: 1234567812345678"), {})
    assert "1234567812345678" not in str(caught.value)


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """A root with a name in Latin-1, which the ledger cannot hold, is a line with the escaped path and the remedy."""
    root = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcnchen")
    with pytest.raises(ConfigError, match=r"M\\xfcnchen is not UTF-8; rename it"):
        config.load(None, {"NST_FOLDERS__ROOT": root})


def test_only_settings_are_passed_on_and_no_secret() -> None:
    """What a command of ours inherits are the settings, without the token and without variables of others."""
    given = {
        "NST_STATUS_PAGE_TOKEN": "t" * 16,
        "NST_NOTIFY__URLS": "json://x",
        "NST_PORT": "1",
        "NST_THREADS": "2",
        "HOME": "/h",
    }
    assert config.setting_variables(given) == {"NST_THREADS": "2"}


def test_environment_is_yaml(tmp_path: Path) -> None:
    """A variable may hold a list, and a size with its unit."""
    loaded = config.load(
        write(tmp_path, ""), {"NST_DEVICES": "[cuda:0, cuda:1]", "NST_LIMITS__MAX_BYTES": "3MiB"}
    )
    assert loaded.devices == ["cuda:0", "cuda:1"]
    assert loaded.limits.max_bytes == 3 * 1024**2


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Folders lie below `root`, `root` lies beside the file, and absolute paths stay."""
    path = write(tmp_path, "folders: {root: here, inbox: /elsewhere/in}\nmodel: {weights: my.pth}")
    loaded = config.load(path, {})
    assert loaded.folders.results == tmp_path / "here" / "results"
    assert loaded.folders.inbox == Path("/elsewhere/in")
    assert loaded.model.weights == str(tmp_path / "my.pth")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("servise: {}", "servise is not a setting"),
        ("batch: auto", "batch has been removed"),
        ("service: {settle: 3}", "service.settle is not a setting"),
        ("service: {settle_seconds: soon}", "service.settle_seconds"),
        ("service: {settle_seconds: -1}", "service.settle_seconds"),
        ("service: {settle_seconds: .inf}", "service.settle_seconds"),
        ("outputs: {format: bmp}", "outputs.format"),
        ("render: {sise: 5}", "sise"),
        ("source: x", "source is not a setting"),
        ("- a list", "not a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: str) -> None:
    """A bad file is refused with the file, the key and a remedy in one line."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, {})
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_variable_is_refused() -> None:
    """A misspelt NST_ variable is an error and not silently ignored."""
    with pytest.raises(ConfigError, match=r"service\.settel_seconds is not a setting"):
        config.load(None, {"NST_SERVICE__SETTEL_SECONDS": "3"})


def test_a_picture_is_not_a_configuration(tmp_path: Path) -> None:
    """A picture that is named as the configuration is not text, and the remedy asks for a YAML file."""
    picture = tmp_path / "c.yaml"
    picture.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    with pytest.raises(ConfigError, match=r"c\.yaml is not a text file; name a YAML file"):
        config.load(picture, {})


def test_a_number_instead_of_text_is_answered_with_the_allowed_form(tmp_path: Path) -> None:
    """`status_page: 8787` asks for HOST:PORT at once, and not only for quotes."""
    with pytest.raises(ConfigError, match="status_page: 8787 is not text; write HOST:PORT"):
        config.load(write(tmp_path, "status_page: 8787"), {})


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A configuration that was named must exist."""
    with pytest.raises(ConfigError, match=r"does not exist"):
        config.load(tmp_path / "none.yaml", {})


@pytest.mark.parametrize(
    ("address", "token", "complaint"),
    [
        ("8787", "", "HOST:PORT"),
        ("127.0.0.1", "", "HOST:PORT"),
        ("::1:8787", "", "HOST:PORT"),
        (":8787", "", "HOST:PORT"),
        ("127.0.0.1:65536", "", "HOST:PORT"),
        ("127.0.0.1:http", "", "HOST:PORT"),
        ("127.0.0.1:8787", "too short", "openssl rand"),
        ("127.0.0.1:8787", "with a space in the middle", "openssl rand"),
    ],
)
def test_a_status_page_has_an_address_and_no_weak_token(
    address: str, token: str, complaint: str
) -> None:
    """An address without a host or a port is refused, and a token that is too short, with the remedy."""
    given = {"NST_STATUS_PAGE": address, "NST_STATUS_PAGE_TOKEN": token}
    with pytest.raises(ConfigError, match=complaint) as caught:
        config.load(None, given)
    assert caught.value.remedy


def test_every_allowed_value_is_named() -> None:
    """The error of a key with several types has what each of them allows, in words for people."""
    for name, value, told in (
        ("THREADS", "0", "threads: 0 is not allowed; write auto or a whole number from 1 to 1024"),
        ("LIMITS__MAX_MEMORY", "1", "limits.max_memory: a worker needs at least"),
    ):
        with pytest.raises(ConfigError) as caught:
            config.load(None, {f"NST_{name}": value}, search=())
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[]", "the list is empty, so no file could be read"),
        ("[jpeg, jpg]", "'jpg' is not a format (did you mean jpeg?)"),
        ("[JPEG XL, NEF]", "'JPEG XL' is not a format (did you mean"),
        ("[nef]", "'nef' is not a format (did you mean raw?)"),
        ("[.heic]", "'.heic' is not a format (did you mean heif?)"),
        ("[pgn]", "'pgn' is not a format (did you mean png?)"),
        ("jpeg", "'jpeg' is not allowed; write a list of formats among jpeg"),
    ],
)
def test_a_wrong_list_of_formats_is_refused(value: str, told: str, tmp_path: Path) -> None:
    """An empty list, a suffix or a misspelt name in limits.formats is an error that says which name was meant."""
    (tmp_path / "config.yaml").write_text(f"limits:\n  formats: {value}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "config.yaml", {})
    assert f"limits.formats: {told}" in str(caught.value)


def test_a_named_pipe_is_no_configuration(tmp_path: Path) -> None:
    """A pipe without a writer would stop a daemon that reads its configuration again; that of a shell is read."""
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="is a named pipe"):
        config.load(tmp_path / "config.yaml", {})
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        pipe.write("default_style: starry")
    try:
        assert config.load(Path(f"/dev/fd/{read}"), {}).default_style == "starry"
    finally:
        os.close(read)


def test_what_people_run_does_not_need_the_daemons_token() -> None:
    """A page for other machines loads without its token, which only the daemon may have in its environment."""
    assert config.load(None, {"NST_STATUS_PAGE": "0.0.0.0:80"}).status_page == "0.0.0.0:80"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Of two equal keys neither wins in silence: the error names the key and the line."""
    file = write(tmp_path, "status_page: ''\nthreads: 1\nstatus_page: 127.0.0.1:8787\n")
    with pytest.raises(ConfigError, match=r"line 3: duplicate key 'status_page'"):
        config.load(file, {})


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_16_bits_need_a_format_that_holds_them(tmp_path: Path, format: str) -> None:
    """`outputs.depth: 16` is refused for JPEG and WebP when the file is read, with what to set, and taken for TIFF."""
    with pytest.raises(
        ConfigError, match=rf"outputs\.format {format} has 8 bits.*png, tiff or jxl"
    ):
        config.load(write(tmp_path, f"outputs: {{format: {format}, depth: 16}}"), {})
    deep = config.load(write(tmp_path, "outputs: {format: tiff, depth: 16}"), {})
    assert deep.outputs.depth == 16


def test_outputs_among_the_render_settings_are_explained(tmp_path: Path) -> None:
    """`render: {format: …}`, which a job's settings may hold, is refused with the key to write."""
    with pytest.raises(
        ConfigError, match=r"render\.format is not a setting; write outputs\.format"
    ):
        config.load(write(tmp_path, "render: {format: tiff}"), {})


@pytest.mark.parametrize("value", ["1GiB", "1", "1535MiB"])
def test_a_memory_limit_below_what_a_worker_needs_is_refused(value: str) -> None:
    """A limits.max_memory with which no worker could start is refused by the name of the key and the least value."""
    with pytest.raises(ConfigError, match=r"limits\.max_memory.*at least 1\.5GiB"):
        config.load(environ={"NST_LIMITS__MAX_MEMORY": value})
    for accepted in ("0", "1536MiB", "4GiB"):
        config.load(environ={"NST_LIMITS__MAX_MEMORY": accepted})


@needs_root
def test_a_current_folder_that_may_not_be_searched_has_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that root runs as another user, from root's own folder, uses the defaults."""
    tmp_path.chmod(0o700)
    write(tmp_path, "someone: else")
    monkeypatch.chdir(tmp_path)

    def part() -> None:
        assert config.load(None, {"NST_FOLDERS__ROOT": "/srv/nst"}).source is None

    User(12345, 12345).run(part)


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_boolean_is_not_a_number(tmp_path: Path, value: str) -> None:
    """`true` and `false` are refused by every key of numbers, with the values that it allows."""
    file = tmp_path / "config.yaml"
    numbers = {
        n: k
        for n, k in config.config_keys().items()
        if re.search("number|seconds|days|size", k.allowed)
    }
    assert {"keep.done_days", "limits.max_bytes", "render.size", "threads"} < set(numbers)
    for name, key in numbers.items():
        section, _, leaf = name.rpartition(".")
        file.write_text(f"{section}: {{{leaf}: {value}}}" if section else f"{leaf}: {value}")
        if value == "false" and "off" in key.choices:
            config.load(file)
            continue
        with pytest.raises(ConfigError, match=f"config.yaml:1: {name}: ") as refused:
            config.load(file)
        assert key.allowed in str(refused.value)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("json://a/b", ["json://a/b"]),
        ("json://a/b  mailto://c?to=d,e ", ["json://a/b", "mailto://c?to=d,e"]),
        ("['json://a/b', 'json://c']", ["json://a/b", "json://c"]),
        ("", []),
    ],
)
def test_a_variable_has_urls_with_spaces_between_them(text: str, urls: list[str]) -> None:
    """NST_NOTIFY__URLS is one URL, several with spaces between them, or a list."""
    assert config.load(None, {"NST_NOTIFY__URLS": text}).notify.urls == urls


def test_a_variable_has_events_as_words() -> None:
    """NST_NOTIFY__EVENTS is one word, several, or a list."""
    for text in ("failed, paused", "failed paused", "[failed, paused]"):
        assert config.load(None, {"NST_NOTIFY__EVENTS": text}).notify.events == ["failed", "paused"]
    with pytest.raises(ConfigError, match=r"notify\.events: .* is not allowed"):
        config.load(None, {"NST_NOTIFY__EVENTS": "failed, started"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[hunter2]", "URL 1 is not SCHEME://"),
        ("['json://a', 'hunter2:/x']", "URL 2 is not SCHEME://"),
        ("[json://a/hunter2é]", "URL 1 is not SCHEME://"),
        (f"[json://hunter2{'x' * 1000}]", "URL 1 has more than 1000 characters"),
        (f"[{', '.join(['json://hunter2'] * 31)}]", "at most 30 URLs"),
        ("{hunter2: 1}", "its value is not allowed"),
        ("[[hunter2]]", "its value is not allowed"),
        ("5", "its value is not allowed"),
    ],
)
def test_no_url_of_notify_is_in_a_message(tmp_path: Path, value: str, reason: str) -> None:
    """A wrong value of notify.urls is refused with its place, and no part of it is shown."""
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        config.load(write(tmp_path, f"notify:\n  urls: {value}\n"), {})
    assert "hunter2" not in str(caught.value)
    assert "notify.urls" in str(caught.value)


def test_the_address_of_the_page_is_a_url() -> None:
    """status_page_url without http:// is refused with the form that is right."""
    assert config.load(None, {"NST_STATUS_PAGE_URL": "https://x.org/a"}).status_page_url
    with pytest.raises(ConfigError, match=r"status_page_url: x.org is not a URL; write https://"):
        config.load(None, {"NST_STATUS_PAGE_URL": "x.org"})
