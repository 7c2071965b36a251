"""Image files of every format and variant become what was encoded."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest

from nst_daemon.pictures.decode import read_header
from tests.pictures.corpus.case import CONTAINERS, cases_of, judge


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_file_is_right_or_refused_with_its_cause(container: str, tmp_path: Path) -> None:
    """Each file of the format becomes the values that were encoded, or is refused with the true cause."""
    verdicts = [judge(case, tmp_path) for case in cases_of(container)]
    assert verdicts
    assert [f"{v.case.name}: {v.why}" for v in verdicts if v.kind == "wrong"] == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_names_of_files_are_unique(container: str) -> None:
    """No two files of a module have the same name."""
    names = Counter(case.name for case in cases_of(container))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_header_has_the_size_of_the_decoded_picture(container: str) -> None:
    """The dimensions of the header are those of the upright picture, for a sample of the files of each format."""
    found = 0
    for case in list(cases_of(container))[::9]:
        if case.colours is not None:
            size = read_header(io.BytesIO(case.make()), name=case.name).size
            assert size == case.colours.shape[:2], case.name
            found += 1
    assert found
