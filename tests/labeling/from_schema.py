"""Requests drawn from the OpenAPI description of the application: valid ones, and near misses."""

from typing import Any

from hypothesis import strategies as st

ODD = st.sampled_from(
    [None, True, -1, 0, 2**31, 2**63, 1e308, "", "\0", "\ud7ff\u202e", "x" * 3000, [], [[]], {}, {"a": 1}, [None] * 40]
)  # fmt: skip


def values(schema: dict[str, Any], defined: dict[str, Any], known: dict[str, list[Any]], name: str = "") -> Any:
    """A strategy for what a schema describes. ``known``: values by field name that lead further in than random ones."""
    if "$ref" in schema:
        return values(defined[schema["$ref"].rpartition("/")[2]], defined, known, name)
    if name in known:
        return st.sampled_from(known[name]) | _plain(schema, defined, known, name)
    return _plain(schema, defined, known, name)


def _plain(schema: dict[str, Any], defined: dict[str, Any], known: dict[str, list[Any]], name: str) -> Any:
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of([values(one, defined, known, name) for one in schema[several]])
    match schema.get("type"):
        case "object":
            parts = {key: values(one, defined, known, key) for key, one in schema.get("properties", {}).items()}
            needed = {key: parts[key] for key in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional={k: v for k, v in parts.items() if k not in needed})
        case "array":
            return st.lists(values(schema["items"], defined, known), max_size=min(schema.get("maxItems", 9), 9))
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False)
        case "string":
            return st.text(max_size=min(schema.get("maxLength", 60), 60))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    raise AssertionError(f"the description says something that this test does not know: {schema}")


@st.composite
def requests(draw: st.DrawFn, description: dict[str, Any], known: dict[str, list[Any]]) -> tuple[str, str, Any, Any]:
    """(method, path, query, body) of a route of the JSON API; every third body has an invalid part."""
    defined = description["components"]["schemas"]
    routes = [
        (method, path, said)
        for path, methods in description["paths"].items() if path.startswith("/api/")
        for method, said in methods.items()
    ]  # fmt: skip
    method, path, said = draw(st.sampled_from(routes))
    query = {
        one["name"]: draw(values(one["schema"], defined, known, one["name"]) | ODD)
        for one in said.get("parameters", ())
        if one["in"] == "query" and draw(st.booleans())
    }
    body = None
    if "requestBody" in said:
        schema = said["requestBody"]["content"]["application/json"]["schema"]
        body = draw(values(schema, defined, known))
        if draw(st.integers(0, 2)) == 0:
            field = draw(st.sampled_from([*body, "more"]))
            body = {**body, field: draw(ODD)}
    return method.upper(), path, query, body
