"""Markdown of responses: a tree of listed elements whatever the text, with every word; raw where it is plain."""

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.labeling.crowd import PLAIN, people, served, signed_in
from tests.labeling.web.hostile import HOSTILE, NASTY

from triphase.labeling.exchange import exporting
from triphase.labeling.web import code_colors, formatting, formulas
from triphase.labeling.web.formatting import as_html, formatted
from triphase.labeling.work import item_plan
from triphase.records.types import Message, Prompt, Response
from triphase.records.visible import visible
from triphase.store import Store

MARKS = (
    *"* ** _ ` ~~~ | [ ]( ) ![ < > $ $$ \\( \\) \\[ \\] \\ & ~~ javascript: http://".split(),
    "```\n", "```python\n", "# ", "> ", "- ", "1. ", "\n|-|-|\n", "\n", "\n\n", "    ", "]: ",
)  # fmt: skip
pieces = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=8), st.sampled_from(HOSTILE)), max_size=24).map(
    "".join
)
words = st.lists(st.one_of(st.sampled_from(MARKS), st.integers(100, 999).map(lambda n: f"w{n}")), max_size=30).map(
    " ".join
)


def elements(nodes: list[Any]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    for node in nodes:
        if not isinstance(node, str):
            name, kind, children, attributes = node
            yield name, kind, attributes
            yield from elements(children)


def text_of(nodes: list[Any]) -> str:
    return "".join(node if isinstance(node, str) else f"{text_of(node[2])} " for node in nodes)


def plain_text(nodes: list[Any]) -> str:
    return "".join(node if isinstance(node, str) else plain_text(node[2]) for node in nodes)


def check_inert(text: str) -> None:
    """Nothing but listed elements, classes and attributes, none of which can hold an address."""
    classes = {None, "link", "code", "language", "formula", "table", "right", "center", *code_colors.CLASSES}
    for name, kind, attributes in elements(formatted(visible(text)) or []):
        assert name in formatting.ELEMENTS | formulas.ELEMENTS
        assert name not in ("a", "img", "script", "style", "iframe", "svg", "object", "form", "input", "link")
        assert kind in classes
        assert set(attributes) <= formatting.ATTRIBUTES | formulas.ATTRIBUTES
        assert all(
            isinstance(value, int) or re.fullmatch(r"[A-Za-z0-9. -]{1,40}", value) for value in attributes.values()
        )


class Elements(HTMLParser):
    """The elements of markup with their attributes, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(str(markup))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)

    handle_comment = handle_decl = handle_pi = unknown_decl


@settings(max_examples=100, deadline=None)
@given(pieces)
def test_as_markup_it_is_the_same_elements_and_texts(text: str) -> None:
    nodes = formatted(visible(text)) or []
    read = Elements(as_html(nodes))
    assert [name for name, _, _ in elements(nodes)] == [name for name, _ in read.found]
    assert [{**({"class": kind} if kind else {}), **{k: str(v) for k, v in attributes.items()}}
            for _, kind, attributes in elements(nodes)] == [attributes for _, attributes in read.found]  # fmt: skip
    assert read.said == plain_text(nodes)


@settings(max_examples=150, deadline=None)
@given(pieces)
def test_no_text_becomes_anything_but_listed_elements(text: str) -> None:
    check_inert(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_inert(text: str) -> None:
    check_inert(text)


@settings(max_examples=150, deadline=None)
@given(words)
def test_every_word_is_on_the_page(text: str) -> None:
    nodes = formatted(text)
    if nodes is not None:
        said = (
            text_of(nodes).replace(" ", "") if "\\" in text or "$" in text else text_of(nodes)
        )  # MathML divides letters
        assert set(re.findall(r"w\d{3}", text)) <= set(re.findall(r"w\d{3}", said))


def test_what_markdown_becomes() -> None:
    line = ["A ", ["strong", None, ["b"], {}], " ", ["code", None, ["c"], {"dir": "ltr"}], ["br", None, [], {}], "d"]
    assert formatted("A **b** `c`\nd") == [["p", None, line, {"dir": "auto"}]]
    assert formatted("# T\n\n3. x\n4. y") == [
        ["h3", None, ["T"], {"dir": "auto"}],
        ["ol", None, [["li", None, ["x"], {"dir": "auto"}], ["li", None, ["y"], {"dir": "auto"}]], {"start": 3}],
    ]
    (table,) = formatted("| a | b |\n|---|--:|\n| 1 | 2 |") or []
    assert table[1] == "table" and ["td", "right", ["2"], {"dir": "auto"}] in table[2][0][2][1][2][0][2]
    (code,) = formatted("```python\ndef f():\n    pass\n```") or []
    assert code[2][0] == ["span", "language", ["python"], {}] and ["span", "k", ["def"], {}] in code[2][1][2]
    assert text_of(formatted('[a](http://x.y "t") ![b](http://i.j)') or []).split() == [
        "a",
        "⟨http://x.y",
        '"t"⟩',
        "b",
        "⟨http://i.j⟩",
    ]
    assert text_of(formatted("<https://x.y>") or []).split() == ["https://x.y"]


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n| 1 | 2 | w100 |\n",
        "> | a |\n> |---|\n> | 1 | 2 | w100",
        ">" * 25 + "**w100**\n\nafter",
        "- " * 25 + "x\n\nafter **w100**",
        "**b** $\\phantom{\\text{w100}}$",
    ],
)
def test_no_word_is_hidden_where_markdown_would_hide_it(text: str) -> None:
    nodes = formatted(text)
    assert nodes is None or "w100" in text_of(nodes)
    assert not any(name == "mphantom" for name, _, _ in elements(nodes or []))


def test_empty_cells_left_over_are_nothing() -> None:
    assert any(name == "table" for name, _, _ in elements(formatted("| a | b |\n|---|---|\n| 1 | 2 | |\n") or []))


@pytest.mark.parametrize(
    "text",
    [
        "**a** x&#x202E;y",
        "**a** &ZeroWidthSpace;",
        "**a** [b](http://x.y/&#8238;z)",
        "``` a&#x202E;b\nc\n```",
        "**a** ![b&#x202E;](http://x.y '&#x202E;')",
        "**a** $\\text{&#x202E;abc}$",
        "**a** $\\unicode{x202e}$",
        "**a** $\\text{&#8203;}$",
    ],
)
def test_what_is_written_as_an_entity_hides_as_little(text: str) -> None:
    said = plain_text(formatted(visible(text)) or [])
    assert visible(said) == said and "a" in said


def test_operators_without_a_shape_are_part_of_formulas() -> None:
    assert any(name == "math" for name, _, _ in elements(formatted("**a** $f \u2061 x$") or []))


LONG = "x " * formatting.MOST_CHARACTERS + "**b**"
PLAINLY = ("", "Plain words.", "Two lines\nof words, 3 < 4 & 5.", "It costs $5 and $10.", "a * b * c", LONG)


@pytest.mark.parametrize("text", PLAINLY)
def test_what_is_no_markdown_is_shown_as_written(text: str) -> None:
    assert formatted(text) is None


def test_formulas() -> None:
    assert formulas.mathml("x^2", block=False) == [
        "math", None, [["mrow", None, [["msup", None, [["mi", None, ["x"], {}], ["mn", None, ["2"], {}]], {}]], {}]],
        {"display": "inline"},
    ]  # fmt: skip
    for text, count in (
        ("$a$", 1),
        ("\\(a\\) and \\[b\\]", 2),
        ("\\[\na\n- b\n\\]", 1),
        ("$$\na\n$$", 1),
        ("$5 or $6 **x**", 0),
    ):
        assert sum(name == "math" for name, _, _ in elements(formatted(text) or [])) == count, text
    assert text_of(formatted("$\\frac{$ **x**") or []).startswith("$\\frac{$"), "what is no LaTeX stays as it is"
    marked = [one for one in elements(formatted("$\\href{javascript:alert(1)}{x}\\style{color:red}{y}$") or [])]
    assert not any("href" in attributes or "style" in attributes for _, _, attributes in marked)


@pytest.mark.parametrize(
    "part", ["[", "*a ", "`", "> ", "|a", "$", "\\(", "\\[", "![[", "# \n", "<a", "x\n\\[a\n", "[a](", "$a$ "]
)
def test_no_text_takes_long(part: str) -> None:
    text = (part * formatting.MOST_CHARACTERS)[: formatting.MOST_CHARACTERS]
    begin = time.process_time()
    formatted(text)
    assert time.process_time() - begin < 3.0  # 0.4 s on a quiet machine


@pytest.fixture
def browser(store: Store) -> Iterator[TestClient]:
    store.add_prompts([Prompt("p", (Message("user", "Say **it**."),))])
    store.add_responses(
        [Response("r0", "p", "A **b**", "m"), Response("r1", "p", "plain", "m"), Response("r2", "p", NASTY, "m")]
    )
    item_plan.make_items(store, PLAIN, seed=0, now=0.0)
    people(store, "ann")
    with served(store) as app:
        yield signed_in(app, "ann")


def test_the_page_gets_trees_beside_the_texts_and_exports_keep_the_texts(browser: TestClient, store: Store) -> None:
    item = browser.get("/api/next").json()["item"]
    assert item["prompt"][0]["content"] == "Say **it**." and item["prompt"][0]["blocks"]
    by_text = {one["text"]: one for one in item["responses"]}
    assert by_text["A **b**"]["blocks"] == formatted("A **b**") and "blocks" not in by_text["plain"]
    answer = {"assignment": item["assignment"], "places": [1, 2, 3]}
    assert browser.post("/api/answers", json=answer).status_code == 200
    again = browser.get("/api/history").json()["answer"]
    assert again["responses"] == item["responses"]
    rows = list(exporting.export_rows(store, "comparisons"))
    said = {message["content"] for row in rows for side in ("chosen", "rejected") for message in row[side]}
    assert {"A **b**", "plain", NASTY} <= said, "as the models wrote them"
