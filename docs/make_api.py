"""Write the generated part of http-api.md from the OpenAPI description: `python -m docs.make_api`, in `make docs`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nst_daemon.config import load
from nst_daemon.web.app import make_app
from nst_daemon.web.models import API
from nst_daemon.web.options import PageOptions

PAGE = Path(__file__).parent / "http-api.md"
FIRST, LAST = "<!-- endpoints -->\n", "<!-- /endpoints -->"
TITLES = {
    "jobs": "Jobs",
    "files": "Files of jobs",
    "uploads": "Uploads",
    "styles": "Styles",
    "batches": "Batches",
    "status": "Status",
    "events": "Events",
    "settings": "Settings and limits",
    "session": "Sessions",
}
WORDS = {
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "integer": "whole number",
    "number": "number",
}


FILES = """\
Pictures and other files can be requested with two more parameters: `download=true` lets browsers save the file, and `v`
is any text that changes with the file, such as the job's `updated`; caches then keep the response."""
#: Parameters that are described once for all files, by name.
OF_FILES = ("download", "v")


def main() -> None:
    """Replace the generated part of the page."""
    PAGE.write_text(document(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def document(text: str) -> str:
    """The page with its generated part replaced."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return before + FIRST + "\n".join(lines(description())).strip() + "\n" + LAST + after


def description() -> dict[str, Any]:
    """The OpenAPI description, as the server sends it."""
    with tempfile.TemporaryDirectory() as folder:
        config = load(None, {"NST_FOLDERS__ROOT": folder}, search=())
        return make_app(PageOptions.of(config, serve=False)).openapi()


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the generated part."""
    groups: dict[str, list[tuple[str, str, Any]]] = {tag: [] for tag in TITLES}
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append((method.upper(), path, operation))
    yield "## Endpoints"
    for tag, operations in groups.items():
        yield f"\n### {TITLES[tag]}"
        if tag == "files":
            yield f"\n{FILES}"
        for method, path, operation in sorted(operations, key=lambda o: (o[1], o[0])):
            yield f"\n#### `{method} {path.removeprefix(API)}`\n"
            yield from _operation(operation)
    yield "\n## Objects\n"
    yield "Times are seconds since the epoch, durations are seconds, sizes are bytes."
    yield "Optional keys, and keys with a default, may be left out of a request."
    for name, schema in sorted(found["components"]["schemas"].items()):
        yield f"\n### {name}\n"
        yield from _schema(schema)


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    yield " ".join(operation["description"].split())
    if parameters := [p for p in operation.get("parameters", ()) if p["name"] not in OF_FILES]:
        yield "\n| parameter | in | values | meaning |\n|---|---|---|---|"
        for p in parameters:
            values = _kind(p["schema"]) + ("" if p.get("required") else _default(p["schema"]))
            yield f"| `{p['name']}` | {p['in']} | {values} | {p.get('description', '')} |"
    yield ""
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        shown = _kind(content["schema"]) if media.endswith("json") else "the file"
        yield f"- body: {shown} (`{media}`)"
    for status, response in operation["responses"].items():
        if status < "300":
            yield f"- {status}: {_response(response)}"


def _response(response: Mapping[str, Any]) -> str:
    shown = []
    for media, content in response.get("content", {}).items():
        kind = _kind(content.get("schema", {})) if media.endswith("json") else "file"
        shown.append(f"{kind} (`{media}`)" if kind != "file" else f"`{media}`")
    return ", ".join(shown) or "no body"


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    yield " ".join(schema.get("description", "").split())
    if "enum" in schema:
        yield f"\nOne of {_words(schema['enum'])}."
    if properties := schema.get("properties"):
        yield "\n| key | values | meaning |\n|---|---|---|"
        for name, inner in properties.items():
            optional = name not in schema.get("required", ())
            values = _kind(inner) + (_default(inner) if optional else "")
            yield f"| `{name}` | {values} | {inner.get('description', '')} |"


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    if value in (None, "", [], {}):
        return "; optional"
    return f"; default {str(value).lower() if isinstance(value, bool) else value}"


def _kind(schema: Mapping[str, Any]) -> str:
    """The values of a schema in words."""
    kind = schema.get("type", "")
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        words = f"[{name}](#{name.lower()})"
    elif options := schema.get("anyOf"):
        words = " or ".join(dict.fromkeys(map(_kind, options)))
    elif "enum" in schema or "const" in schema:
        words = _words(schema.get("enum") or [schema["const"]])
    elif kind in ("array", "object"):
        words = _collection(schema)
    elif schema.get("pattern") == "^[0-9a-f]{32}$":
        words = "id"
    else:
        words = WORDS.get(kind, "any value") + _range(schema)
    return words


def _collection(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"list of {' and '.join(map(_kind, schema['prefixItems']))}"
    if schema["type"] == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of {_kind(schema.get('items', {}))}{most}"
    inner = schema.get("additionalProperties")
    return f"mapping to {_kind(inner)}" if isinstance(inner, dict) and inner else "mapping"


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    return f" ≥ {low:g}" if low is not None else f" ≤ {high:g}" if high is not None else ""


def _words(values: list[Any]) -> str:
    return ", ".join(f"`{value}`" if value else "empty" for value in values)


if __name__ == "__main__":
    main()
