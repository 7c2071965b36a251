"""What is said about drops that wait: causes, remedies with exact names, and pairs by order."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_daemon.intake.drops import Drop, Entry, JobSettings, Outcome, Style
from nst_daemon.intake.pairing import PARTNER_SECONDS, Rules, interpret
from nst_daemon.jobs import Fingerprint, Role

SECOND = 1_000_000_000


def entry(path: str, *, at: float = 0.0, settled: bool = True, age: float = 10.0) -> Entry:
    """A file that arrived `at` seconds after the first."""
    return Entry(path, Fingerprint(0, 1, 0, int(at * SECOND)), settled, age)


def rules(
    *styles: str,
    default: str = "",
    window: float | None = None,
    settings: dict[str, object] | None = None,
) -> Rules:
    """A library of these styles; every settings file has `settings`."""
    picture = Drop(Role.STYLE, "x.jpg", Fingerprint(0, 1, 0, 0), "styles")
    library = {name: Style(name, (picture,)) for name in styles}
    read = JobSettings.parse(settings or {}, "settings")
    return Rules(library, lambda _: read, default, 3600.0, order_window=window)


def of(*names: str, folder: str = "", given: Rules | None = None) -> Outcome:
    """What settled files with these names in a folder amount to."""
    paths = [f"{folder}/{name}" if folder else name for name in names]
    return interpret(folder, [entry(path) for path in paths], True, given or rules())


def texts(outcome: Outcome) -> list[str]:
    """The lines about what waits."""
    return [waiting.text for waiting in outcome.waiting]


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (["lone.style.jpg"], ["lone.style.jpg has no content: add lone.content.jpg"]),
        (["dog.content.png"], ["dog.content.png has no style: add dog.style.jpg"]),
        (["cat.contnet.jpg"], ["cat.contnet.jpg has no role: did you mean cat.content.jpg?"]),
        (["cat.STLYE.png"], ["cat.STLYE.png has no role: did you mean cat.style.png?"]),
        (["hund.inhalt.jpg"], ["hund.inhalt.jpg has no role: did you mean hund.content.jpg?"]),
        (["dog.mask.png"], ["dog.mask.png has no role: did you mean dog.content.mask.png?"]),
        (["dog.style2x.maks.png"], ["dog.style2x.maks.png has no role: did you mean dog.style2x.content.mask.png?"]),
        (["dog.content (1).jpg"], ["dog.content (1).jpg has no role: did you mean dog.content.jpg?"]),
        (["dog.style - Copy.jpg"], ["dog.style - Copy.jpg has no role: did you mean dog.style.jpg?"]),
        (["dog.content.jpg.png"], ["dog.content.jpg.png has no role: did you mean dog.content.png?"]),
        (
            ["cat_contnet.jpg"],
            ["cat_contnet.jpg has no style: did you mean cat.content.jpg? If not, add cat_contnet.style.jpg"],
        ),
        (
            ["cat.content.jpg", "cat.stlye.jpg"],
            [
                "cat.content.jpg has no style: rename cat.stlye.jpg to cat.style.jpg, or add cat.style.jpg",
                "cat.stlye.jpg has no role: did you mean cat.style.jpg, beside cat.content.jpg?",
            ],
        ),
        *(
            (
                [f"pig{between}.jpg"],
                [f"pig{between}.jpg has no style: did you mean pig.{between.strip(' -+,;=~&!#@')}.jpg? "
                 f"If not, add pig{between}.style.jpg"],
            )
            for between in (" content", "+style", ",style", ";content", "=content", "~style", "-content-", " content ")
        ),
        (
            ["b-content.jpg", "B_style.jpg"],
            ["b-content.jpg and B_style.jpg have no roles: "
             "rename b-content.jpg to b.content.jpg and B_style.jpg to b.style.jpg"],
        ),
        (
            ["dog-photo.jpg", "dog-painting.png"],
            ["dog-photo.jpg and dog-painting.png have no roles: "
             "rename dog-photo.jpg to dog.content.jpg and dog-painting.png to dog.style.png"],
        ),
        (
            ["dog.content.jpg", "hokusai.style.png"],
            ["dog.content.jpg and hokusai.style.png are not a pair, because their names differ: "
             "rename hokusai.style.png to dog.style.png"],
        ),
        (
            ["Dog.content.jpg", "dog.style.jpg", "x.style.jpg", "y.style.jpg"],
            ["Dog.content.jpg and dog.style.jpg are not a pair, because their names differ: "
             "rename dog.style.jpg to Dog.style.jpg",
             "x.style.jpg has no content: add x.content.jpg", "y.style.jpg has no content: add y.content.jpg"],
        ),
        (
            ["content.jpg"],
            ["content.jpg has no name besides its role: put content and style into a folder, such as "
             "inbox/NAME/content.jpg, or rename it to NAME.content.jpg"],
        ),
        (["dog.yaml"], ["dog.yaml has no picture: add dog.content.jpg and dog.style.jpg"]),
        (["dog.content.mask.png"], ["dog.content.mask.png has no content: add dog.content.jpg"]),
        (
            ["M\udcfcnchen.jpg"],
            ["M\\xfcnchen.jpg has no style, and its name has characters that cannot be shown: "
             "rename it to M_nchen.content.jpg, and add M_nchen.style.jpg"],
        ),
    ],
)  # fmt: skip
def test_each_drop_that_waits_says_which_name_to_give(names: list[str], lines: list[str]) -> None:
    """An incomplete or misspelt drop has one line, with the exact name of the file that completes it."""
    assert sorted(texts(of(*names))) == sorted(lines)


def test_two_pictures_alone_say_how_to_pair_them_both_ways_round() -> None:
    """Two pictures without roles are one line, with the names for either one as the style."""
    (waiting,) = of("dog.jpg", "hokusai.png").waiting
    assert waiting.paths == ("dog.jpg", "hokusai.png")
    assert waiting.cause == "dog.jpg and hokusai.png have no roles"
    assert waiting.remedy.startswith(
        "rename dog.jpg to dog.content.jpg and hokusai.png to dog.style.png or, the other way round, "
        "hokusai.png to hokusai.content.png and dog.jpg to hokusai.style.jpg; or put the style into styles/"
    )
    assert waiting.remedy.endswith("or set service.pair_by_order: true")


def test_two_pictures_are_a_pair_although_another_drop_waits() -> None:
    """A misspelt drop beside two pictures does not hide how to pair them; three pictures are no pair."""
    lines = texts(of("dog.jpg", "hokusai.jpg", "eel.contnet.jpg"))
    assert len(lines) == 2
    assert lines[0].startswith(
        "dog.jpg and hokusai.jpg have no roles: rename dog.jpg to dog.content.jpg"
    )
    assert len(texts(of("dog.jpg", "hokusai.jpg", "cat.jpg"))) == 3


def test_names_in_advice_make_the_drop_complete() -> None:
    """A drop whose files get the names of the advice is a request."""
    assert of("dog.content.jpg", "dog.style.png").requests
    assert of("cat.content.jpg", "cat.style.jpg").requests
    assert of("content.jpg", "style.jpg", folder="holiday").requests
    assert of("dog.jpg", folder="starry", given=rules("starry")).requests


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["starrry", "STARRY", "stary", "Gemälde", "gemalde"])
def test_a_misspelt_hot_folder_names_the_style(name: str, form: str) -> None:
    """Pictures in a folder whose name resembles a style's are one line, in any case and Unicode form."""
    style = (
        "starry" if name.casefold().startswith("st") else unicodedata.normalize("NFC", "gemälde")
    )
    folder = unicodedata.normalize(form, name)  # type: ignore[arg-type]
    outcome = of("a.jpg", "b.jpg", "c.jpg", folder=folder, given=rules(style, "wave"))
    if name == "STARRY" or name != style:
        assert texts(outcome) == [f"inbox/{folder} is not a style: did you mean {style}?"]
    assert [path for w in outcome.waiting for path in w.paths] == [
        f"{folder}/{n}.jpg" for n in "abc"
    ]


def test_pictures_in_a_folder_without_a_style_are_one_line() -> None:
    """Three pictures in a folder that is no style's name the file that makes it one."""
    (waiting,) = of("a.jpg", "b.jpg", "c.jpg", folder="holiday").waiting
    assert (
        "there is no style holiday in the library: put it there as styles/holiday.jpg"
        in waiting.text
    )
    assert len(waiting.paths) == 3


@pytest.mark.parametrize("name", ["night.yaml", "night-batch.yaml", "night_batch.yml"])
def test_a_batch_file_with_another_name_is_recognised(name: str) -> None:
    """A settings file with the keys of a batch says how a batch file is named."""
    given = rules(settings={"contents": ["*.jpg"], "styles": ["starry"]})
    suffix = name.partition(".")[2]
    (line,) = texts(of(name, given=given))
    assert line == f"{name} has the keys of a batch file: rename it to night.batch.{suffix}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dog.mp4", "dog.mp4 is a video; save one of its frames as a picture"),
        ("dog.pdf", "dog.pdf is a document; save the page as a picture"),
        ("photos.zip", "photos.zip is an archive; unpack it and drop the pictures"),
        ("dog.yaml.txt", "dog.yaml.txt is a text file; did you mean dog.yaml?"),
        ("night.batch", "night.batch is not an image file; did you mean night.batch.yaml?"),
        ("dog.jepg", "dog.jepg is not an image file; did you mean dog.jpg?"),
    ],
)
def test_files_of_other_kinds_say_what_to_do(name: str, reason: str) -> None:
    """A file that is not a picture is left alone with a way to get a picture, or the name that was probably meant."""
    assert of(name).left_alone == {name: reason}


def test_a_misspelt_style_of_a_settings_file_and_a_misspelt_file_of_a_job_folder() -> None:
    """Refusals of names suggest the ones that were probably meant."""
    given = rules("starry", settings={"style": "Stary"})
    (rejection,) = of("dog.jpg", "dog.yaml", given=given).rejections
    assert "(did you mean starry?)" in rejection.reason
    (rejection,) = of("contnet.jpg", "style.jpg", folder="w").rejections
    assert "did you mean content.jpg?" in rejection.reason


def test_the_log_waits_for_pictures_that_are_arriving() -> None:
    """A picture is not mentioned while another one is arriving in its folder, but no longer than half a minute."""
    slow = entry("hokusai.jpg", settled=False)
    (waiting,) = interpret("", [entry("dog.jpg"), slow], True, rules()).waiting
    assert not waiting.announced
    late = entry("dog.jpg", age=PARTNER_SECONDS)
    (waiting,) = interpret("", [late, slow], True, rules()).waiting
    assert waiting.announced


def test_the_same_text_ends_in_error_txt() -> None:
    """When pair_timeout is over, the reason is the text that the drop had while it waited."""
    names = ["dog.jpg", "hokusai.jpg"]
    (waiting,) = of(*names).waiting
    outcome = interpret("", [entry(name, age=4000.0) for name in names], True, rules())
    assert [rejection.reason for rejection in outcome.rejections] == [
        f"{waiting.text} (waited for 60 min)"
    ] * 2


# Pairs by order


def ordered(*entries: Entry, folder: str = "", window: float = 3600.0) -> list[tuple[str, str]]:
    """The roles and paths of the one pair by order; [] if there is none."""
    outcome = interpret(folder, entries, True, rules(window=window))
    assert all(request.source == "order" for request in outcome.requests)
    return [(f.role.value, f.path) for request in outcome.requests for f in request.files]


def test_the_first_of_two_pictures_is_the_content() -> None:
    """The order is that of arrival; of two that arrive within a second, the order of their names."""
    late = [("content", "z.jpg"), ("style", "a.jpg")]
    assert ordered(entry("a.jpg", at=1.0), entry("z.jpg", at=0.0)) == late
    by_name = [("content", "a.jpg"), ("style", "z.jpg")]
    assert ordered(entry("z.jpg", at=0.0), entry("a.jpg", at=0.9)) == by_name
    assert ordered(entry("IMG_10.jpg"), entry("IMG_9.jpg"))[0] == ("content", "IMG_9.jpg")


def test_pictures_are_not_paired_unless_it_is_switched_on() -> None:
    """By default two pictures wait."""
    assert of("a.jpg", "b.jpg").requests == []


def test_only_two_pictures_that_are_alone_are_paired() -> None:
    """Two pictures wait beside a third, another incomplete drop or an arriving file, and if they came too far apart."""
    two = [entry("a.jpg"), entry("b.jpg", at=100.0)]
    assert ordered(*two)
    assert not ordered(*two, entry("c.jpg", at=100.0))
    assert not ordered(*two, entry("x.content.jpg"))
    assert not ordered(*two, entry("x_style.jpg"))
    assert not ordered(*two, entry("c.jpg", settled=False))
    assert not ordered(*two, window=99.0)


def test_a_complete_pair_beside_two_pictures_is_a_job_of_its_own() -> None:
    """Only drops that wait keep two pictures from being paired."""
    names = ["a.jpg", "b.jpg", "x.content.jpg", "x.style.jpg"]
    outcome = interpret("", [entry(name) for name in names], True, rules(window=9.0))
    assert sorted((r.name, r.source) for r in outcome.requests) == [("a", "order"), ("x", "pair")]


def test_masks_and_settings_go_with_the_pair() -> None:
    """Masks and a start say which picture is the content; the settings of either are those of the pair."""
    found = ordered(
        *(entry(name) for name in ("a.jpg", "a.style.mask.png", "b.jpg", "b.start.png", "a.yaml"))
    )
    assert found == [
        ("content", "b.jpg"), ("style", "a.jpg"), ("style-mask", "a.style.mask.png"), ("start", "b.start.png"),
        ("settings", "a.yaml"),
    ]  # fmt: skip
    assert not ordered(*(entry(name) for name in ("a.jpg", "a.yaml", "b.jpg", "b.yaml")))
    assert not ordered(*(entry(n) for n in ("a.jpg", "a.start.png", "b.jpg", "b.start.png")))


def test_each_folder_pairs_its_own_pictures() -> None:
    """Two pictures in a subfolder are a pair in it; those of a hot folder are two jobs."""
    assert ordered(entry("trip/a.jpg"), entry("trip/b.jpg"), folder="trip")
    outcome = of("a.jpg", "b.jpg", folder="starry", given=rules("starry", window=9.0))
    assert [request.source for request in outcome.requests] == ["hot", "hot"]


def test_the_default_style_goes_before_the_order() -> None:
    """With a default style two pictures are two jobs."""
    outcome = of("a.jpg", "b.jpg", given=rules("starry", default="starry", window=9.0))
    assert [request.source for request in outcome.requests] == ["default", "default"]


def test_three_pictures_are_given_up_together() -> None:
    """When the first of three pictures has waited for pair_timeout, two are not left over to become a pair."""
    files = [entry("a.jpg", age=3601.0), entry("b.jpg", age=3599.0), entry("c.jpg", age=10.0)]
    outcome = interpret("", files, True, rules(window=3600.0))
    assert (len(outcome.waiting), outcome.requests, outcome.rejections) == (3, [], [])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [f"{stem}{role}.{suffix}" for stem in ("a", "b", "cat", "\udcff") for role in
                 ("", ".content", "_style", ".contnet", "-photo", ".content.mask", ".style.mask", ".start", " (1)")
                 for suffix in ("jpg", "yaml", "mp4")]
            ),
            st.sampled_from([0.0, 0.5, 2.0, 5000.0]),
        ),
        unique_by=lambda item: item[0],
        max_size=6,
    ),
    st.sampled_from(["", "album", "starrry", "a/b"]),
    st.booleans(),
)  # fmt: skip
def test_each_file_is_part_of_exactly_one_thing(
    files: list[tuple[str, float]], folder: str, arriving: bool
) -> None:
    """Whatever lies in a folder, with pairs by order each file has one fate, and every line is printable."""
    entries = [
        entry(f"{folder}/{name}" if folder else name, at=at, age=5000.0 - at) for name, at in files
    ]
    if arriving:
        entries.append(entry(f"{folder}/z.jpg" if folder else "z.jpg", settled=False))
    outcome = interpret(folder, entries, True, rules("starry", window=3600.0))
    fates = [f.path for r in (*outcome.requests, *outcome.rejections) for f in r.files]
    fates += [path for waiting in outcome.waiting for path in waiting.paths]
    fates += [*outcome.settling, *outcome.left_alone]
    assert sorted(fates) == sorted(e.path for e in entries)
    for request in outcome.requests:
        assert [f.role for f in request.files].count(Role.CONTENT) == 1
        assert Role.STYLE in [f.role for f in request.files]
    assert all(line.isprintable() for line in texts(outcome))
    assert all(rejection.reason.isprintable() for rejection in outcome.rejections)
