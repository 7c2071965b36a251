"""How long painting will take, from earlier pictures."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import pytest

from nst_daemon.config import Folders, load
from nst_daemon.engine.settings import RenderSettings, resolve
from nst_daemon.jobs import Job, JobState
from nst_daemon.ledger import Ledger
from nst_daemon.ops import status
from nst_daemon.ops.estimates import (
    COUNTED,
    EarlierPicture,
    Estimates,
    Planned,
    QueueEstimate,
    shares,
    work,
)
from nst_daemon.service.live_status import LiveStatus, PaintingStatus

S = JobState
ADAM = {"style_loss": "gram", "optimizer": "adam", "scales": [1.0], "iterations": 100}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """The folders of a root with an empty ledger."""
    found = load(None, {"NST_FOLDERS__ROOT": str(tmp_path)}).folders
    found.ledger.parent.mkdir(parents=True)
    found.results.mkdir()
    Ledger.open(found.ledger).close()
    return found


def settings(**overrides: object) -> RenderSettings:
    """Settings of one scale without passes, unless overrides say otherwise: 100 iterations at full size."""
    return resolve({**ADAM, "size": 200, **overrides})


def earlier(
    seconds: float, pixels: tuple[float, float] = (200, 100), /, **overrides: object
) -> EarlierPicture:
    """A picture that nothing else was painted beside."""
    return EarlierPicture(settings(**overrides), pixels, seconds, seconds)


def add(
    folders: Folders, name: str, began: float, ended: float, *moves: S, **overrides: object
) -> None:
    """A job of the ledger that was painted from `began` to `ended`. moves: before the painting."""
    values = json.loads(json.dumps(asdict(settings(**overrides))))
    with Ledger.open(folders.ledger) as ledger:
        number = f"{len(ledger.ids()) + 1:032x}"
        ledger.add(Job(number, name, "pair", S.CLAIMED, (), 1.0, 1.0, values))
        for state in moves or (S.QUEUED, S.RUNNING):
            ledger.move(number, state, now=began - 1)
        ledger.note(number, now=began, note="painting on cpu")
        ledger.move(number, S.STAGED, now=ended)
        ledger.move(number, S.PUBLISHED, now=ended)
        ledger.move(number, S.DONE, now=ended, result=f"{name}.png")


def queue(folders: Folders, name: str, *moves: S, **overrides: object) -> str:
    """A job that is not painted yet. Returns its id."""
    values = json.loads(json.dumps(asdict(settings(**overrides))))
    with Ledger.open(folders.ledger) as ledger:
        number = f"{len(ledger.ids()) + 1:032x}"
        ledger.add(Job(number, name, "pair", S.CLAIMED, (), 1.0, 1.0, values))
        for state in (S.QUEUED, *moves):
            ledger.move(number, state, now=2.0)
        return number


def restated(chosen: RenderSettings, width: float, height: float) -> float:
    """The work of a picture, scale by scale."""
    sides: list[float]
    if chosen.scales in ("halves", "roots"):
        factor = 0.5 if chosen.scales == "halves" else math.sqrt(0.5)
        sides, side = [], 1.0
        while not sides or max(width, height) * side >= chosen.coarsest:
            sides.append(side)
            side *= factor
        sides.reverse()
    else:
        sides = list(chosen.scales)  # type: ignore[arg-type]
    if chosen.style_loss == "neighbours":
        sides += [1.0, 1.0]
    total = 0.0
    for number, side in enumerate(sides):
        iterations = chosen.iterations[min(number, len(chosen.iterations) - 1)]
        total += iterations * (width * side) * (height * side)
    return total


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"size": 1024},
        {"preset": "bold", "iterations": [5, 7]},
        {"scales": "roots", "coarsest": 300},
        {"style_loss": "gram", "scales": [0.25, 0.5, 1.0], "iterations": [10, 20]},
        {"preset": "gatys2016"},
    ],
)
def test_the_work_of_a_picture(overrides: dict[str, object]) -> None:
    """The work is the sum of iterations × pixels over the scales and the passes at full size."""
    chosen = resolve(overrides)
    for size in ((640, 480), (1023, 100), (96, 2000)):
        assert work(chosen, size) == pytest.approx(restated(chosen, *size))


def test_an_estimate_is_the_median_of_the_nearest_pictures() -> None:
    """The seconds follow the pixels and the iterations; of many pictures those of similar work count."""
    chance = random.Random(3)
    pictures = [
        earlier(chance.uniform(1, 9), (chance.uniform(100, 900), 100), iterations=n)
        for n in range(50, 110)
    ]
    for wanted in (settings(size=500, iterations=70), settings(size=1200, iterations=40)):
        assert isinstance(wanted.size, int)
        planned = restated(wanted, wanted.size, wanted.size * 0.75)
        done = [restated(p.settings, *p.size) for p in pictures]
        near = sorted(range(60), key=lambda n: abs(math.log(done[n] / planned)))[:COUNTED]
        rate = median(pictures[n].seconds / done[n] for n in near)
        assert Estimates(pictures).seconds([Planned(wanted)]) == pytest.approx(rate * planned)


def test_a_batch_takes_the_sum() -> None:
    """Many pictures take the sum of their times, with the content's proportions."""
    estimates = Estimates([earlier(10.0)])
    one = Planned(settings(size=400), content=(4000, 2000))
    assert estimates.seconds([one]) == pytest.approx(40.0)
    assert estimates.seconds([replace(one, count=5), Planned(settings(), (2, 1))]) == pytest.approx(
        210.0
    )
    assert estimates.seconds([]) == 0.0


def test_nothing_resembles() -> None:
    """There is no estimate without earlier pictures, and none from another loss, optimiser or far smaller pictures."""
    assert Estimates([]).seconds([Planned(settings())]) is None
    for other in (
        earlier(9.0, style_loss="covariance"),
        earlier(9.0, optimizer="lbfgs"),
        earlier(9.0, (20, 10)),
    ):
        assert Estimates([other]).seconds([Planned(settings())]) is None
    known = Planned(settings(), content=(200, 100))
    assert Estimates([earlier(9.0)]).seconds([known, Planned(settings(optimizer="lbfgs"))]) is None


def test_sizes_of_contents() -> None:
    """original: the content's size; auto: at most that of earlier pictures; without a content: that of earlier ones."""
    estimates = Estimates([earlier(10.0, (300, 150), size="auto"), earlier(4.0, size="original")])

    def seconds(size: object, content: tuple[int, int] | None = None) -> float | None:
        return estimates.seconds([Planned(settings(size=size), content)])

    rate = median((10 / 45000, 4 / 20000))
    assert seconds("original", (600, 300)) == pytest.approx(180000 * rate)
    assert seconds("auto", (6000, 3000)) == pytest.approx(45000 * rate)
    assert seconds("auto", (100, 50)) == pytest.approx(5000 * rate)
    assert seconds("auto") == pytest.approx(45000 * rate)
    assert seconds("original") == pytest.approx(20000 * rate)
    assert Estimates([earlier(1.0)]).seconds([Planned(settings(size="auto"))]) is None


def test_pictures_side_by_side_share_their_time() -> None:
    """Each moment counts once, in equal parts for all pictures that were painted then."""
    assert shares([(0, 10), (0, 10), (20, 30)]) == [5, 5, 10]
    assert shares([(0, 4), (2, 8)]) == [3, 5]
    together = replace(earlier(10.0), share=5.0)
    estimates = Estimates([together])
    assert estimates.seconds([Planned(settings(), (2, 1))]) == pytest.approx(10.0)
    assert estimates.seconds([Planned(settings(), (2, 1), count=8)]) == pytest.approx(40.0)


def test_an_estimate_from_a_ledger(folders: Folders) -> None:
    """Times are those of the events; sizes are those of sidecars; interrupted and copied pictures do not count."""
    assert Estimates.read(folders).seconds([Planned(settings())]) is None
    add(folders, "dog", 100.0, 110.0)
    (folders.results / "dog.json").write_text('{"picture": {"width": 200, "height": 50}}')
    add(folders, "resumed", 200.0, 201.0, S.QUEUED, S.RUNNING, S.QUEUED, S.RUNNING)
    queue(folders, "copied", S.STAGED, S.PUBLISHED, S.DONE)
    estimates = Estimates.read(folders)
    assert estimates.seconds([Planned(settings(), (4, 1))]) == pytest.approx(10.0)
    (folders.results / "dog.json").write_text('{"picture": {"width": 0}}')
    guessed = Estimates.read(folders)
    assert guessed.seconds([Planned(settings())]) == pytest.approx(10.0)


def live(*paintings: PaintingStatus) -> LiveStatus:
    """A running daemon."""
    return LiveStatus(7, 0.0, 0.0, "painting", "", "", paintings)


def painting(job_id: str, left: float | None) -> PaintingStatus:
    """A job that is painted."""
    return PaintingStatus(job_id, "dog", "cpu", 1, 2, 50, None, left)


def test_when_the_queue_will_be_empty(folders: Folders) -> None:
    """What is painted counts with its remaining time, what is queued with its whole time; unknown is not 0."""
    now = 0.0

    def seconds(*paintings: PaintingStatus) -> float | None:
        nonlocal now
        now += 10
        return estimate.seconds(replace(status.gather(folders), live=live(*paintings)))

    estimate = QueueEstimate(folders, clock=lambda: now)
    assert seconds() == 0.0
    first = queue(folders, "a", S.RUNNING)
    assert seconds() is None
    assert seconds(painting(first, 5.0)) == 5.0
    add(folders, "dog", 100.0, 110.0)
    queue(folders, "b")
    queue(folders, "c", size=400)
    assert seconds(painting(first, 5.0)) == pytest.approx(55.0)
    assert seconds(painting(first, None)) == pytest.approx(60.0)
    assert seconds() == pytest.approx(60.0)
    assert seconds(painting(first, 5.0), painting("other", 7.0)) == pytest.approx(57.0)


def test_the_ledger_is_not_read_at_each_look(folders: Folders) -> None:
    """The queue is read again after a change, and not more often than every five seconds."""
    now = 0.0
    add(folders, "dog", 0.5, 1.5)
    estimate = QueueEstimate(folders, clock=lambda: now)
    assert estimate.seconds(status.gather(folders)) == 0.0
    queue(folders, "a")
    now = 4.9
    assert estimate.seconds(status.gather(folders)) == 0.0
    now = 5.0
    assert estimate.seconds(status.gather(folders)) == pytest.approx(1.0)


def test_a_root_without_a_ledger(tmp_path: Path) -> None:
    """Before the first start the queue takes no time."""
    folders = load(None, {"NST_FOLDERS__ROOT": str(tmp_path)}).folders
    assert QueueEstimate(folders).seconds(status.gather(folders)) == 0.0
    assert Estimates.read(folders).seconds([Planned(settings())]) is None
