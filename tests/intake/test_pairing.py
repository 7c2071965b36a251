"""What names mean. Nothing here touches a disk."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.errors import SettingsError
from nst_daemon.intake.drops import Drop, Entry, JobSettings, Outcome, Request, Style, not_ours
from nst_daemon.intake.pairing import Rules, interpret
from nst_daemon.intake.settle import ChangedMeanwhile
from nst_daemon.jobs import Fingerprint, Role
from nst_daemon.pictures.formats import titles

MARK = Fingerprint(0, 1, 0, 0)
STARRY = Style(
    "starry", (Drop(Role.STYLE, "starry.jpg", MARK, "styles"),), {"size": 100, "seed": 1}
)
NIGHT = Style("night", (Drop(Role.STYLE, "night.png", MARK, "styles"),))


def entries(*paths: str, settled: bool = True, age: float = 10.0, problem: str = "") -> list[Entry]:
    """Files as a scan would report them."""
    return [Entry(path, MARK, settled, age, problem) for path in paths]


def rules(
    default: str = "", job: JobSettings | Exception | None = None, unsettled: tuple[str, ...] = ()
) -> Rules:
    """A library of two styles; every settings file says `job`."""

    def read(entry: Entry) -> JobSettings:
        if isinstance(job, Exception):
            raise job
        return job or JobSettings()

    library = {"starry": STARRY, "night": NIGHT}
    library |= {name: Style(name, STARRY.pictures, settled=False) for name in unsettled}
    return Rules(library, read, default, 3600.0)


def of(*paths: str, folder: str = "", given: Rules | None = None) -> Outcome:
    """What settled files with these names amount to."""
    return interpret(folder, entries(*paths), True, given or rules())


def only(outcome: Outcome) -> Request:
    """The one request, where there is nothing else."""
    assert (outcome.rejections, outcome.waiting, outcome.settling) == ([], [], [])
    (request,) = outcome.requests
    return request


def roles(request: Request) -> list[tuple[str, str]]:
    """(role, path) of every file, in order."""
    return [(file.role.value, file.path) for file in request.files]


@pytest.mark.parametrize("separator", [".", "_", "-"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_a_pair_is_found_by_its_stem(separator: str, case: type[str]) -> None:
    """Both halves meet whatever separates the role, and whatever case it is written in."""
    paths = [f"dog{separator}{case('content')}.jpg", f"dog.{case('style')}.PNG"]
    request = only(of(*paths))
    assert (request.name, request.source, request.group) == ("dog", "pair", "")
    assert roles(request) == [("content", paths[0]), ("style", paths[1])]


@given(st.permutations(["dog.content.jpg", "dog.style.jpg", "dog.yaml"]))
def test_order_never_matters(paths: list[str]) -> None:
    """The same files in any order are the same request."""
    assert only(of(*paths)) == only(of(*sorted(paths)))


def test_several_styles_come_in_the_order_of_their_numbers() -> None:
    """style-2 comes before style-10, and a style without a number before both."""
    request = only(of("dog.style-10.jpg", "dog.content.jpg", "dog.style.jpg", "dog_style2.jpg"))
    names = [path for role, path in roles(request) if role == "style"]
    assert names == ["dog.style.jpg", "dog_style2.jpg", "dog.style-10.jpg"]


def test_a_stem_may_hold_what_separates() -> None:
    """The last separator counts, so stems may hold dots, dashes and the words themselves."""
    assert only(of("my.style-dog.content.jpg", "my.style-dog_style.jpg")).name == "my.style-dog"


def test_two_ways_to_write_a_letter_are_one() -> None:
    """A half from macOS (é as two characters) meets a half from elsewhere (as one)."""
    composed, split = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    request = only(of(f"{composed}.content.jpg", f"{split}.style.jpg"))
    assert request.name == composed


def test_a_pair_brings_its_settings() -> None:
    """dog.yaml belongs to the pair dog: its settings and its priority are the request's."""
    job = JobSettings(priority=5, settings={"size": 64})
    request = only(of("dog.content.jpg", "dog.style.jpg", "dog.yaml", given=rules(job=job)))
    assert (request.settings, request.priority) == ({"size": 64}, 5)
    assert ("settings", "dog.yaml") in roles(request)


def test_masks_and_a_start_come_along() -> None:
    """Masks of the content and of each style, and a given start, take their roles."""
    request = only(
        of(
            "d.content.jpg",
            "d.style-2.jpg",
            "d.content-mask.png",
            "d.style-2-mask.png",
            "d.start.png",
        )
    )
    assert roles(request) == [
        ("content", "d.content.jpg"),
        ("style", "d.style-2.jpg"),
        ("content-mask", "d.content-mask.png"),
        ("style-mask", "d.style-2-mask.png"),
        ("start", "d.start.png"),
    ]


@pytest.mark.parametrize("separator", ["-", "_", "."])
@pytest.mark.parametrize("stem", ["d.", ""])
def test_a_masks_name_has_a_dash_a_line_or_a_dot(stem: str, separator: str) -> None:
    """Beside pictures and in job folders, `content.mask`, `content-mask` and `content_mask` are the same role."""
    names = [f"{stem}{role}" for role in ("content.jpg", "style-1.jpg", "style-2.jpg")]
    names += [f"{stem}{role}{separator}mask.png" for role in ("content", "style-1", "style-2")]
    folder = "" if stem else "job"
    paths = [name if stem else f"job/{name}" for name in names]
    request = only(interpret(folder, entries(*paths), True, rules()))
    assert [role for role, _ in roles(request)] == [
        "content", "style", "style", "content-mask", "style-mask", "style-mask"
    ]  # fmt: skip
    assert [path.rpartition("/")[2] for _, path in roles(request)] == names


def test_masks_of_styles_need_none_of_the_content() -> None:
    """A mask for each style is enough: it says where in the content the style goes."""
    request = only(of("d.content.jpg", "d.style.jpg", "d.style.mask.png"))
    assert ("style-mask", "d.style.mask.png") in roles(request)


@pytest.mark.parametrize(
    ("files", "lacking", "remedy"),
    [
        (
            ["d.style.jpg", "d.content.mask.png"],
            "no style mask",
            "add d.style.mask.png, or remove the masks",
        ),
        (
            ["d.style-1.jpg", "d.style-2.jpg", "d.style-2.mask.png"],
            "no style mask 1",
            "add d.style-1.mask.png, or remove the masks",
        ),
        (
            ["d.style-1.jpg", "d.style-1.mask.png", "d.style-2.mask.png"],
            "no style 2",
            "add d.style-2.jpg",
        ),
        (["d.content.mask.png", "d.style.mask.png"], "no style", "add d.style.jpg"),
    ],
)
def test_a_pair_waits_for_the_rest_of_its_masks(
    files: list[str], lacking: str, remedy: str
) -> None:
    """While masks do not match the styles the pair waits; past pair_timeout the refusal says what is missing."""
    (waiting,) = of("d.content.jpg", *files).waiting
    assert waiting.text == f"d.content.jpg has {lacking}: {remedy}"
    old = entries("d.content.jpg", *files, age=5000.0)
    (rejection,) = interpret("", old, True, rules()).rejections
    assert rejection.reason == f"{waiting.text} (waited for 60 min)"


def test_a_pair_waits_for_a_mask_that_is_still_arriving() -> None:
    """A mask that has not settled yet holds its pair up, so that it is painted with it."""
    whole = entries("d.content.jpg", "d.style.jpg")
    mask = entries("d.style.mask.png", settled=False)
    outcome = interpret("", whole + mask, True, rules())
    assert outcome.requests == [] and outcome.settling == ["d.style.mask.png"]


def test_styles_of_the_library_have_no_masks() -> None:
    """Masks beside a picture whose style is the library's are refused with what to do."""
    given = rules(job=JobSettings(styles=("starry",)))
    (rejection,) = of("d.content.jpg", "d.content.mask.png", "d.yaml", given=given).rejections
    assert "starry from the library has none; drop the style" in rejection.reason


def test_halves_wait_for_each_other() -> None:
    """A half waits, and says for what and how long."""
    (waiting,) = of("dog.content.jpg").waiting
    assert (waiting.text, waiting.left) == (
        "dog.content.jpg has no style: add dog.style.jpg",
        3590.0,
    )
    (waiting,) = of("dog.style.jpg").waiting
    assert waiting.text == "dog.style.jpg has no content: add dog.content.jpg"
    (waiting,) = of("dog.yaml").waiting
    assert waiting.text == "dog.yaml has no picture: add dog.content.jpg and dog.style.jpg"


def test_a_half_is_given_up_with_the_name_of_the_missing_file() -> None:
    """Past pair_timeout a half is refused with what it has waited for, and the youngest file counts."""
    old = entries("dog.style.jpg", age=5000.0)
    (rejection,) = interpret("", old, True, rules()).rejections
    assert rejection.reason == (
        "dog.style.jpg has no content: add dog.content.jpg (waited for 60 min)"
    )
    both = old + entries("dog.yaml", age=10.0)
    assert interpret("", both, True, rules()).rejections == []


def test_a_lone_picture_takes_the_default_style() -> None:
    """Where default_style is set, a picture without a role is a job; its settings come from the library."""
    request = only(of("dog.jpg", given=rules(default="starry")))
    assert (request.name, request.source) == ("dog", "default")
    assert [(file.root, file.path) for file in request.files] == [
        ("inbox", "dog.jpg"),
        ("styles", "starry.jpg"),
    ]
    assert request.settings == {"size": 100, "seed": 1}


def test_a_lone_picture_without_a_default_style_waits() -> None:
    """Where no default_style is set, a picture without a role waits, and then fails with the same ways out."""
    (waiting,) = of("dog.jpg").waiting
    assert waiting.text == (
        "dog.jpg has no style: add dog.style.jpg, or move it into the folder of a style, such as inbox/starry"
    )
    (rejection,) = interpret("", entries("dog.jpg", age=9999.0), True, rules()).rejections
    assert rejection.reason == f"{waiting.text} (waited for 60 min)"


def test_half_of_a_pair_never_takes_the_default_style() -> None:
    """Who names a content expects a style to come: the default does not step in."""
    assert of("dog.content.jpg", given=rules(default="starry")).requests == []


def test_settings_may_name_a_style_of_the_library() -> None:
    """dog.jpg with `style: night` is painted in it, before any default; its own settings win over the style's."""
    job = JobSettings(styles=("night", "starry"), settings={"seed": 7})
    request = only(of("dog.jpg", "dog.yaml", given=rules("starry", job)))
    assert request.source == "named"
    assert [p for r, p in roles(request) if r == "style"] == ["night.png", "starry.jpg"]
    assert request.settings == {"size": 100, "seed": 7}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "nosuch", "starry.jpg"])
def test_settings_name_nothing_but_the_library(name: str) -> None:
    """A path, or a name that the library does not have, is refused and the names that it has are listed."""
    job = JobSettings(styles=(name,))
    (rejection,) = of("dog.jpg", "dog.yaml", given=rules(job=job)).rejections
    hint = " (did you mean starry?)" if name == "starry.jpg" else ""
    assert rejection.reason == (
        f"there is no style {name!r} in the library; the styles are: night, starry{hint}"
    )


def test_a_style_that_is_being_copied_is_waited_for() -> None:
    """A request for a style that has not settled counts as settling, not as refused."""
    given = rules(job=JobSettings(styles=("new",)), unsettled=("new",))
    assert sorted(of("dog.jpg", "dog.yaml", given=given).settling) == ["dog.jpg", "dog.yaml"]


def test_bad_settings_refuse_the_whole_set() -> None:
    """A settings file that cannot be read takes its pair with it to failed/, with its own message."""
    given = rules(job=SettingsError("dog.yaml is odd"))
    (rejection,) = of("dog.content.jpg", "dog.style.jpg", "dog.yaml", given=given).rejections
    assert rejection.reason == "dog.yaml is odd"
    assert len(rejection.files) == 3


def test_settings_that_change_while_they_are_read_settle_again() -> None:
    """A settings file that is no longer what the scan saw holds its pair back."""
    given = rules(job=ChangedMeanwhile("dog.yaml has changed"))
    outcome = of("dog.content.jpg", "dog.style.jpg", "dog.yaml", given=given)
    assert outcome.requests == outcome.rejections == []
    assert len(outcome.settling) == 3


def test_every_picture_of_a_hot_folder_is_a_job() -> None:
    """Whatever the names, each picture in a folder named like a style is painted in it."""
    outcome = of("starry/IMG_1.jpg", "starry/x.content.png", "starry/x.style.png", folder="starry")
    assert [request.name for request in outcome.requests] == [
        "starry/IMG_1",
        "starry/x.content",
        "starry/x.style",
    ]
    assert {(request.source, request.group) for request in outcome.requests} == {("hot", "starry")}
    assert all(request.files[-1].path == "starry.jpg" for request in outcome.requests)


def test_a_hot_folder_is_hot_all_the_way_down() -> None:
    """An album moved into a hot folder keeps its own name in the results."""
    request = only(of("starry/album/a.jpg", folder="starry/album"))
    assert (request.name, request.group) == ("starry/album/a", "starry")


def test_a_hot_folder_named_like_a_role_stays_hot() -> None:
    """content.* and style.* in a hot folder are two pictures and not a job folder."""
    assert len(of("starry/content.jpg", "starry/style.jpg", folder="starry").requests) == 2


def test_two_pictures_of_one_stem_are_two_jobs() -> None:
    """dog.jpg and dog.png are two jobs; with one dog.yaml for both they are refused."""
    assert len(of("starry/dog.jpg", "starry/dog.png", folder="starry").requests) == 2
    assert len(of("dog.jpg", "dog.png", given=rules("starry")).requests) == 2
    (rejection,) = of("dog.jpg", "dog.png", "dog.yaml", given=rules("starry")).rejections
    assert (
        rejection.reason == "dog.jpg and dog.png are both the content of dog; drop only one of them"
    )


def test_a_job_folder_is_one_job() -> None:
    """content.*, style-1.*, style-2.* and job.yaml in a folder are one job that is named after it."""
    paths = ("w/content.jpg", "w/style-1.jpg", "w/style-2.jpg", "w/job.yaml")
    request = only(of(*paths, folder="w"))
    assert (request.name, request.source, request.group) == ("w", "folder", "")
    assert [path for _, path in roles(request)] == list(paths)


def test_a_job_folder_settles_as_a_whole() -> None:
    """As long as the folder itself, or any file in it, is not quiet, nothing in it is taken."""
    files = entries("w/content.jpg", "w/style.jpg")
    assert interpret("w", files, False, rules()).settling == ["w"]
    files += entries("w/style-2.jpg", settled=False)
    assert interpret("w", files, True, rules()).settling == ["w/style-2.jpg"]


def test_a_job_folder_with_job_yaml_may_name_its_style() -> None:
    """content.* and a job.yaml that names a style of the library are enough."""
    given = rules(job=JobSettings(styles=("night",)))
    assert roles(only(of("w/content.jpg", "w/job.yaml", folder="w", given=given)))[-1] == (
        "style",
        "night.png",
    )


def test_a_job_folder_holds_nothing_else() -> None:
    """A file without a meaning refuses the folder and says what it may hold."""
    (rejection,) = of("w/content.jpg", "w/style.jpg", "w/more.jpg", folder="w").rejections
    assert rejection.reason.startswith(
        "more.jpg has no meaning in a job folder; it may hold content.*"
    )
    assert len(rejection.files) == 3


def test_any_other_folder_is_an_inbox_of_its_own() -> None:
    """Pairs in a folder are pairs, their results go to a folder of that name, and it is their group."""
    request = only(of("trip/dog.content.jpg", "trip/dog.style.jpg", folder="trip"))
    assert (request.name, request.source, request.group) == ("trip/dog", "pair", "trip")


def test_a_nested_job_folder_keeps_its_path() -> None:
    """A job folder inside a folder is named by both, and grouped by the outer one."""
    request = only(of("a/b/content.jpg", "a/b/style.jpg", folder="a/b"))
    assert (request.name, request.group) == ("a/b", "a")


def test_a_batch_file_is_handed_on() -> None:
    """night.batch.yaml is a batch named night, whose contents are not read here."""
    request = only(of("night.batch.yaml", given=rules(job=SettingsError("was read"))))
    assert (request.name, request.source, roles(request)) == (
        "night",
        "batch-file",
        [("batch", "night.batch.yaml")],
    )


def test_a_batch_file_without_a_name_is_refused() -> None:
    """A batch file with only a space before its ending is refused, with a name that would do."""
    (rejection,) = of(" .batch.yaml").rejections
    assert rejection.reason == (
        "' .batch.yaml' has no name before .batch; rename it, for example to night.batch.yaml"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dog.content.pdf", "a document; save the page as a picture"),
        ("dog.style.eps", "a vector drawing; export it as PNG"),
        ("dog.start.svg", "a vector drawing; export it as PNG"),
        ("dog.content.xyz", f"not an image file; known formats are {titles()}"),
    ],
)
def test_other_kinds_of_files_with_a_role_are_refused(name: str, reason: str) -> None:
    """Other kinds of files with a role after a dot are refused at once, with what to do or the kinds that are known."""
    (rejection,) = of(name).rejections
    assert rejection.reason == f"{name} is {reason}"
    assert "JPEG, PNG, camera raw, " in titles()


def test_a_file_without_a_suffix_is_not_called_another_kind() -> None:
    """A file without a suffix is left alone, and the reason is its missing suffix, not its contents."""
    (found,) = entries("IMG_1")
    assert not_ours(found) == "IMG_1 has no suffix; add the one of its format, such as .jpg"


def test_a_pair_with_another_kind_of_file_is_refused_as_a_whole() -> None:
    """dog.content.xyz beside dog.style.png refuses both, and names the one that is not an image file."""
    (rejection,) = of("dog.content.xyz", "dog.style.png").rejections
    assert rejection.reason.startswith("dog.content.xyz is not an image file")
    assert len(rejection.files) == 2


@pytest.mark.parametrize("folder", ["", "starry", "trip"])
@pytest.mark.parametrize(
    "name",
    ["dog.svg", "notes.txt", "noext", "dog.gz", "photo.cdr", "dog.content.jpg.nextcloud", "free_style.pdf",
     "dog.jpg.a8F3x_9", "dog.content.jpg_a8f3", "jquery-style.css", "dog.content"],
)  # fmt: skip
def test_files_of_others_are_left_alone(name: str, folder: str) -> None:
    """Files of other kinds without a role after a dot stay where they are, with the reason."""
    path = f"{folder}/{name}" if folder else name
    outcome = of(path, folder=folder, given=rules("starry"))
    assert (outcome.requests, outcome.rejections, outcome.waiting) == ([], [], [])
    assert list(outcome.left_alone) == [path]
    assert outcome.left_alone[path].startswith((f"{name} is ", f"{name} has no suffix; "))


def test_a_placeholder_is_called_one() -> None:
    """The placeholder of a cloud client is left alone with what to do about it."""
    outcome = of("dog.content.jpg.nextcloud")
    assert outcome.left_alone == {
        "dog.content.jpg.nextcloud": "dog.content.jpg.nextcloud is a placeholder of a cloud client; "
        "make the file available on this computer"
    }


def test_an_unknown_file_that_changes_is_settling() -> None:
    """A file of an unknown kind that is still written to may be renamed to a picture soon: it is waited for."""
    outcome = interpret("", entries("dog.jpg.a8F3x_9", settled=False), True, rules())
    assert outcome == Outcome(settling=["dog.jpg.a8F3x_9"])


@pytest.mark.parametrize("folder", ["", "w"])
def test_other_files_of_the_role_of_a_picture_go_with_its_job(folder: str) -> None:
    """Raw files and other kinds beside a JPEG of their role are unused parts of its job, in a pair and in a folder."""
    name = "w/" if folder else "dog."
    names = ("content.jpg", "style.jpg", "content.cr2", "style.nef", "style.pdf")
    outcome = of(*(name + each for each in names), folder=folder)
    used = (Role.CONTENT, Role.STYLE, *[Role.UNUSED] * 3)
    expected = [(role, name + each) for role, each in zip(used, names, strict=True)]
    assert roles(outcome.requests[0]) == expected
    assert (outcome.left_alone, outcome.waiting, outcome.rejections) == ({}, [], [])


def test_what_cannot_be_copied_does_not_cost_the_job() -> None:
    """A raw file beside a JPEG of its role that is too large is left alone with the reason; the job is painted."""
    large = entries("dog.content.cr2", problem="dog.content.cr2 is too large")
    outcome = interpret("", entries("dog.content.jpg", "dog.style.jpg") + large, True, rules())
    assert [path for _, path in roles(outcome.requests[0])] == ["dog.content.jpg", "dog.style.jpg"]
    assert outcome.left_alone == {"dog.content.cr2": "dog.content.cr2 is too large"}


def test_a_raw_file_alone_is_a_picture() -> None:
    """Without a JPEG of the same role, a raw file is the content; two raw files are refused."""
    outcome = of("dog.content.cr2", "dog.style.nef")
    assert [path for _, path in roles(outcome.requests[0])] == ["dog.content.cr2", "dog.style.nef"]
    outcome = of("dog.content.cr2", "dog.content.dng", "dog.style.jpg")
    assert "are both the content of dog" in outcome.rejections[0].reason


def test_both_files_of_a_photo_are_pictures_in_a_hot_folder() -> None:
    """IMG_1.CR2 and IMG_1.JPG are two jobs in a hot folder, as any two pictures are."""
    paths = ("starry/IMG_1.CR2", "starry/IMG_1.JPG")
    outcome = of(*paths, folder="starry", given=rules("starry"))
    assert sorted(request.files[0].path for request in outcome.requests) == sorted(paths)


def test_settings_in_a_hot_folder_are_for_the_jpeg_of_a_photo() -> None:
    """Beside IMG_1.yaml, IMG_1.CR2 and IMG_1.JPG are one job as anywhere else: the raw file is not used."""
    paths = ("starry/IMG_1.CR2", "starry/IMG_1.JPG", "starry/IMG_1.yaml")
    outcome = of(*paths, folder="starry", given=rules("starry"))
    (request,) = outcome.requests
    found = {f.path: f.role for f in request.files if f.root == "inbox"}
    assert found == dict(zip(paths, (Role.UNUSED, Role.CONTENT, Role.SETTINGS), strict=True))
    assert outcome.left_alone == {}


def test_other_files_in_a_job_folder_are_left_alone() -> None:
    """A job folder with notes is painted without them; one with content.pdf instead of a picture is refused."""
    outcome = of("w/content.jpg", "w/style.jpg", "w/notes.txt", "w/README", folder="w")
    assert sorted(outcome.left_alone) == ["w/README", "w/notes.txt"]
    assert [path for _, path in roles(outcome.requests[0])] == ["w/content.jpg", "w/style.jpg"]
    (rejection,) = of("w/content.pdf", "w/style.jpg", folder="w").rejections
    assert rejection.reason == "content.pdf is a document; save the page as a picture"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("", "a.jpg"), ("", "a.content.jpg"), ("starry", "a.jpg"), ("w", "content.jpg")],
)
def test_an_empty_picture_by_itself_is_left_alone(folder: str, name: str) -> None:
    """A picture without bytes stays where it is; beside other parts of its job the decoder gets to see it."""
    path = f"{folder}/{name}" if folder else name
    empty = Entry(path, Fingerprint(0, 0, 0, 0), settled=True, age=1e9)
    outcome = interpret(folder, [empty], True, rules("starry"))
    assert outcome == Outcome(left_alone={path: outcome.left_alone[path]})
    assert outcome.left_alone[path].startswith(f"{name} is empty: an interrupted copy")
    pair = [
        empty,
        *entries(
            path.replace("a.", "a.style.")
            .replace("content.", "style.")
            .replace("style.style", "style")
        ),
    ]
    if folder != "starry":
        assert len(interpret(folder, pair, True, rules()).requests) == 1


LONE = ["race-start.jpg", "free_style.jpg", "web_content.jpg", "old-style-1.jpg", "life_style2.jpg"]


@pytest.mark.parametrize("name", LONE)
def test_a_picture_whose_name_ends_like_a_role_is_a_picture(name: str) -> None:
    """With a default style, a picture whose name ends with `_style` or `-start` is painted under its whole name."""
    request = only(of(name, given=rules(default="starry")))
    assert (request.name, request.source) == (name[:-4], "default")
    assert roles(request)[0] == ("content", name)
    (waiting,) = of(name).waiting
    assert waiting.name == name[:-4]
    assert waiting.cause in {f"{name} is not a pair yet", f"{name} has no style"}


@pytest.mark.parametrize("name", LONE)
def test_such_a_picture_waits_for_the_other_half_of_a_pair(name: str) -> None:
    """For the grace it may be half of a pair: it is not painted by itself before, so that a slow partner is in time."""
    given = replace(rules(default="starry"), partner_grace=60.0)
    (waiting,) = of(name, given=given).waiting
    assert (waiting.left, waiting.announced, waiting.text) == (
        50.0,
        False,
        f"{name} may be half of a pair: the other half is awaited",
    )
    assert len(interpret("", entries(name, age=60.0), True, given).requests) == 1
    assert len(of("beach.jpg", given=given).requests) == 1


def test_two_photos_of_a_race_are_two_pictures() -> None:
    """race.jpg and race-start.jpg, or web.jpg and web_content.jpg, are no pair: neither can be the style."""
    for names in (
        ["race.jpg", "race-start.jpg"],
        ["web.jpg", "web_content.jpg"],
        ["a_content.jpg", "a-start.jpg"],
    ):
        outcome = of(*names, given=rules(default="starry"))
        assert sorted(request.name for request in outcome.requests) == sorted(n[:-4] for n in names)


@pytest.mark.parametrize(
    "names",
    [["free.jpg", "free_style.jpg"], ["free_content.jpg", "free-style.jpg"], ["free.content.jpg", "free_style.jpg"],
     ["free.jpg", "free_style.jpg", "free-start.jpg"], ["free_content.jpg", "free.style.jpg", "free_start.jpg"],
     ["a-start.jpg", "a-start_style.jpg"], ["free_content.jpg", "free_style.jpg", "free_style_mask.png"]],
)  # fmt: skip
def test_a_role_counts_where_there_is_a_pair(names: list[str]) -> None:
    """With a content and a style, or another part with a dot, `-` and `_` separate a role as a dot does."""
    request = only(of(*names, given=replace(rules(default="starry"), partner_grace=60.0)))
    assert (request.source, len(request.files)) == ("pair", len(names))


def test_a_role_counts_beside_settings() -> None:
    """free.yaml makes free_content.jpg the content of free, which may name a style."""
    job = JobSettings(styles=("night",))
    request = only(of("free_content.jpg", "free.yaml", given=rules("starry", job)))
    assert (request.name, len(request.files)) == ("free", 3)


def test_an_unexpected_exception_costs_one_drop(caplog: pytest.LogCaptureFixture) -> None:
    """The drop whose interpretation raises anything is refused in one line, the traceback is logged, others go on."""

    def read(entry: Entry) -> JobSettings:
        raise ZeroDivisionError("a fault\nof ours")

    given = Rules({"starry": STARRY}, read, "starry")
    outcome = of("dog.jpg", "dog.yaml", "cat.jpg", given=given)
    assert [request.name for request in outcome.requests] == ["cat"]
    (rejection,) = outcome.rejections
    assert rejection.reason == (
        "unexpected error (ZeroDivisionError: a fault); report it with the traceback in the log"
    )
    assert len(rejection.files) == 2
    of("dog.jpg", "dog.yaml", given=given)
    assert caplog.text.count("Traceback") == 1


def test_groups_are_valid_unicode() -> None:
    """The group of a job in a folder with undecodable bytes in its name can be written to the ledger."""
    found = of("M\udcfc/a.content.jpg", "M\udcfc/a.style.jpg", folder="M\udcfc")
    style = Style("M\udcfc", STARRY.pictures)
    hot = of(
        "M\udcfc/a.jpg", folder="M\udcfc", given=Rules({style.name: style}, lambda e: JobSettings())
    )
    nested = of("M\udcfc/x/content.jpg", "M\udcfc/x/style.jpg", folder="M\udcfc/x")
    for request in (only(found), only(hot), only(nested)):
        assert request.group.encode() == b"M_"


def test_a_faulty_half_takes_the_other_along() -> None:
    """A pair one half of which can never be taken is refused as a whole, so that it is seen as a whole."""
    files = entries("dog.content.jpg") + entries(
        "dog.style.jpg", problem="dog.style.jpg is a socket; x"
    )
    (rejection,) = interpret("", files, True, rules()).rejections
    assert rejection.reason == "dog.style.jpg is a socket; x"
    assert {file.path for file in rejection.files} == {"dog.content.jpg", "dog.style.jpg"}


def test_two_contents_are_refused() -> None:
    """Two files that claim the same role of a job are refused by name."""
    outcome = of("dog.content.jpg", "dog_content.png", "dog.style.jpg")
    (rejection,) = outcome.rejections
    assert rejection.reason == (
        "dog.content.jpg and dog_content.png are both the content of dog; drop only one of them"
    )


def test_an_unsettled_part_holds_its_set_back_and_nothing_else() -> None:
    """While dog.yaml is being written its pair waits, and another pair goes on."""
    files = entries("dog.content.jpg", "dog.style.jpg", "cat.content.jpg", "cat.style.jpg")
    outcome = interpret("", files + entries("dog.yaml", settled=False), True, rules())
    assert [request.name for request in outcome.requests] == ["cat"]
    assert outcome.settling == ["dog.yaml"]


def test_a_library_style_with_a_fault_says_so() -> None:
    """A picture for a style that cannot be used is refused with the style's own fault."""
    broken = Style("starry", STARRY.pictures, {}, "starry.yaml: line 1: tags are not read")
    given = Rules({"starry": broken}, lambda entry: JobSettings())
    (rejection,) = of("starry/a.jpg", folder="starry", given=given).rejections
    assert (
        rejection.reason
        == "the style starry cannot be used: starry.yaml: line 1: tags are not read"
    )
    assert [file.root for file in rejection.files] == ["inbox"]


MONET = Style("monet", tuple(Drop(Role.STYLE, f"monet/{i}.jpg", MARK, "styles") for i in range(3)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [1 / 3, 1 / 3, 1 / 3, 1]),
        ([3, 1], [1, 1, 1, 1]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3], [1, 2, 3]),
        ("much", "much"),
    ],
)
def test_a_folders_share_is_divided_among_its_pictures(given: object, expected: object) -> None:
    """Styles count alike whatever the number of their pictures; weights may be given by style or by picture."""
    library = {"monet": MONET, "starry": STARRY}
    settings = {} if given is None else {"style_weights": given}
    job = JobSettings(styles=("monet", "starry"), settings=settings)
    request = only(of("d.content.jpg", "d.yaml", given=Rules(library, lambda entry: job)))
    assert request.settings["style_weights"] == expected


def test_pictures_of_one_folder_count_alike_by_themselves() -> None:
    """One folder needs no weights; one weight for it is one for all its pictures."""
    job = JobSettings(styles=("monet",))
    rules = Rules({"monet": MONET}, lambda entry: job)
    assert only(of("d.content.jpg", "d.yaml", given=rules)).settings == {}


def test_more_styles_than_are_blended_are_refused() -> None:
    """Two folders with more pictures in all than are blended refuse the job, with the numbers."""
    many = Style(
        "many", tuple(Drop(Role.STYLE, f"many/{i}.jpg", MARK, "styles") for i in range(32))
    )
    given = Rules(
        {"monet": MONET, "many": many}, lambda entry: JobSettings(styles=("monet", "many"))
    )
    (rejection,) = of("d.content.jpg", "d.yaml", given=given).rejections
    assert "the style of d has 35 pictures, and at most 32 are blended" in rejection.reason


@given(
    st.lists(
        st.sampled_from(
            [f"{stem}{role}.{suffix}" for stem in ("a", "b", "..", "é", "\udcff") for role in
             ("", ".content", "_style", "-style-2", ".content-mask", ".start") for suffix in ("jpg", "yaml", "txt")]
        ),
        unique=True,
    ),
    st.sampled_from(["", "starry", "album", "a/b"]),
    st.sampled_from(["", "starry"]),
)  # fmt: skip
def test_every_file_has_exactly_one_fate(names: list[str], folder: str, default: str) -> None:
    """Whatever names lie together, each file is in exactly one request, rejection, wait or settling set."""
    paths = [f"{folder}/{name}" if folder else name for name in names]
    outcome = interpret(folder, entries(*paths), True, rules(default))
    fates = [
        file.path
        for found in (*outcome.requests, *outcome.rejections)
        for file in found.files
        if file.root == "inbox"
    ]
    fates += [path for waiting in outcome.waiting for path in waiting.paths] + outcome.settling
    fates += outcome.left_alone
    assert sorted(fates) == sorted(paths)
    for found in (*outcome.requests, *outcome.rejections):
        assert ".." not in found.name.split("/")
        found.name.encode()  # always UTF-8
