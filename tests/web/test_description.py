"""The OpenAPI description, and requests that are made from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.web import fuzz

API = "/api/v1"
ID = "0" * 32


@pytest.fixture
def quiet() -> Iterator[None]:
    """Refused requests are not logged by the thousand."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_no_request_from_the_description_fails(tmp_path: Path) -> None:
    """Valid and invalid requests of each operation get documented status codes, types and schemas, and never 5xx."""
    report = fuzz.run(tmp_path / "nst", examples=10, seconds=60, quick=True)
    assert not report.failures, "\n".join(f"{k}: {v}" for k, v in report.failures.items())
    assert len(report.operations) >= 30
    assert report.operations.total() > 1000
    assert min(report.statuses[code] for code in (200, 400, 404, 405, 422)) > 20


def test_each_operation_is_described(visitor: TestClient) -> None:
    """The description is served, and each operation has a summary, a description and the form of its errors."""
    described = visitor.get(f"{API}/openapi.json").json()
    operations = [o for path in described["paths"].values() for o in path.values()]
    assert len(operations) >= 30
    for operation in operations:
        assert operation["summary"]
        assert operation["description"], operation["summary"]
        error = operation["responses"]["422"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/ErrorBody"}, operation["summary"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("jobs", "GET, HEAD, POST"),
        ("session", "GET, HEAD, POST, DELETE"),
        (f"uploads/{ID}", "GET, HEAD, DELETE"),
        ("status", "GET, HEAD"),
    ],
)
def test_a_wrong_method_names_the_right_ones(visitor: TestClient, path: str, methods: str) -> None:
    """The response 405 lists every method of the address in `Allow`."""
    answer = visitor.request("PATCH", f"{API}/{path}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"styles": [{"library": ""}]}, 422, "styles.0.library: "),
        ({"styles": [{}]}, 422, "styles.0: a style needs either library or upload"),
        ({"priority": True}, 422, "priority: a number is needed"),
        ({"priority": "1"}, 422, "priority: a number is needed"),
        ({"priority": 1001}, 422, "priority: "),
        ({"priority": 1.0}, 200, ""),
    ],
)
def test_values_of_another_type_are_not_converted(
    visitor: TestClient, changed: dict[str, Any], status: int, said: str
) -> None:
    """An empty name, true and "1" are refused with the field and the reason in plain words."""
    answer = visitor.post(f"{API}/jobs/check", json={"contents": [{"upload": ID}], **changed})
    assert answer.status_code == status, answer.text
    assert answer.json().get("error", "").startswith(said)


def test_true_and_false_are_not_converted(visitor: TestClient) -> None:
    """`other_weights: 1` is refused."""
    answer = visitor.post(f"{API}/jobs/{ID}/repeat", json={"other_weights": 1})
    assert (answer.status_code, answer.json()["field"]) == (422, "other_weights")


def test_the_description_has_the_limits_of_numbers(visitor: TestClient) -> None:
    """Ranges that are checked are in the description, such as that of the priority."""
    schemas = visitor.get(f"{API}/openapi.json").json()["components"]["schemas"]
    priority = schemas["Submission"]["properties"]["priority"]
    assert (priority["minimum"], priority["maximum"]) == (-1000, 1000)
    assert schemas["StyleRef"]["oneOf"]
