"""Where the values of a merged tree stand, held to texts whose writer remembers where it wrote each of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmconf_agent import formats
from shmconf_agent.formats.places import Trace, Use
from shmconf_agent.merge import Layer, merge
from shmconf_agent.origins import origins
from shmconf_agent.view import SourceLayer


@dataclass
class Written:
    """A value as it was written: where its key or, in a list, the value itself begins, and in which file."""

    value: Any  # a scalar, a dict of Written or a list of Written
    at: tuple[int, int]
    file: str


class Text:
    """A text in the making, which knows how far it is."""

    def __init__(self, file: str, draw: st.DrawFn) -> None:
        self.file = file
        self.text = ""
        self.draw = draw

    @property
    def here(self) -> tuple[int, int]:
        return self.text.count("\n") + 1, len(self.text) - (self.text.rfind("\n") + 1) + 1

    def write(self, text: str) -> None:
        self.text += text

    def choose(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def note(self, value: Any, at: tuple[int, int]) -> Written:
        return Written(value, at, self.file)

    # What the formats have in common: flow maps and lists.

    def flow(self, value: Any, at: tuple[int, int] | None = None) -> Written:
        at = at or self.here
        if isinstance(value, dict):
            self.write("{" + self.gap())
            written: dict[str, Written] = {}
            for index, (key, item) in enumerate(value.items()):
                self.write("," + self.gap() if index else "")
                place = self.here
                self.write(self.key(key) + self.equals())
                written[key] = self.flow(item, place)
            self.write("}")
            return self.note(written, at)
        if isinstance(value, list):
            self.write("[" + self.gap())
            items = []
            for index, item in enumerate(value):
                self.write("," + self.gap() if index else "")
                items.append(self.flow(item))
            self.write(self.gap() + "]")
            return self.note(items, at)
        self.write(self.scalar(value))
        return self.note(value, at)

    def gap(self) -> str:
        return str(self.choose("", " ", "  "))

    def key(self, key: str) -> str:
        return quoted(key, self.choose("plain", "escaped"))

    def equals(self) -> str:
        return str(self.choose(": ", " : "))

    def scalar(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=self.choose(True, False))

    def document(self, tree: dict[str, Any]) -> list[Written]:
        raise NotImplementedError


def quoted(text: str, how: str) -> str:
    """JSON's string, whole or with its first character as an escape; YAML and TOML read it the same."""
    if how == "escaped":
        return f'"\\u{ord(text[0]):04x}{json.dumps(text[1:], ensure_ascii=False)[1:]}'
    return json.dumps(text, ensure_ascii=False)


class Json(Text):
    def gap(self) -> str:
        return str(self.choose("", " ", "\n", "\r\n\t"))

    def document(self, tree: dict[str, Any]) -> list[Written]:
        self.write(self.choose("", "\n ", "\t"))
        return [self.flow(tree)]


class Yaml(Text):
    def key(self, key: str) -> str:
        plain = key if key.isidentifier() and key not in ("on", "y") else quoted(key, "plain")
        single = f"'{key}'" if key.isprintable() and "'" not in key else plain
        return str(self.choose(plain, single, quoted(key, "escaped")))

    def document(self, tree: dict[str, Any]) -> list[Written]:
        found = []
        items = list(tree.items())
        for number in range(self.choose(1, 1, 2, 3)):
            part = dict(items[number::3]) if number else tree
            self.write("---\n" if number or not part else self.choose("", "---\n", "# a: 1\n"))
            self.comments()
            if not part or self.choose(False, True, True):
                found.append(self.block(part, 0) if part else self.note({}, self.here))
            else:
                found.append(self.flow(part))
                self.write("\n")
        return found

    def comments(self) -> None:
        self.write(self.choose("", "", "# é: 1\n", "\n"))

    def block(self, value: Any, indent: int, at: tuple[int, int] | None = None) -> Written:
        """Begins where the line is indented already."""
        at = at or self.here
        lead = " " * indent
        if isinstance(value, dict) and value:
            written: dict[str, Written] = {}
            for index, (key, item) in enumerate(value.items()):
                self.write(lead if index else "")
                place = self.here
                self.write(self.key(key) + ":")
                written[key] = self.inner(item, indent + self.choose(1, 2, 4), place)
            return self.note(written, at)
        items = []
        for index, item in enumerate(value):
            self.write(lead if index else "")
            self.write("-")
            items.append(self.inner(item, indent + 2, None))
        return self.note(items, at)

    def inner(self, item: Any, indent: int, at: tuple[int, int] | None) -> Written:
        if item and isinstance(item, dict | list) and self.choose(True, True, False):
            if at is None and self.choose(True, False):
                self.write(" ")
                return self.block(item, indent, at)
            self.write("\n" + " " * indent)
            return self.block(item, indent, at)
        self.write(" ")
        written = self.flow(item, at)
        self.write(self.choose("\n", " # x\n"))
        return written


class Toml(Text):
    def key(self, key: str) -> str:
        bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
        literal = f"'{key}'" if key.isprintable() and "'" not in key else quoted(key, "plain")
        return str(self.choose(key if bare else literal, literal, quoted(key, "escaped")))

    def equals(self) -> str:
        return str(self.choose("=", " = "))

    def document(self, tree: dict[str, Any]) -> list[Written]:
        written: dict[str, Written] = {}
        self.table(tree, [], written)
        return [self.note(written, (1, 1))]

    def table(self, tree: dict[str, Any], path: list[str], written: dict[str, Written]) -> None:
        later = []
        for key, value in tree.items():
            tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
            if self.choose(True, True, False) and (isinstance(value, dict) or tables):
                later.append(key)
            else:
                self.pair(key, value, written)
        for key in later:
            self.header(tree[key], [*path, key], written)

    def pair(self, key: str, value: Any, written: dict[str, Written], prefix: list[str] | None = None) -> None:
        prefix = prefix or []
        if isinstance(value, dict) and value and self.choose(True, False):
            inner: dict[str, Written] = {}
            for name, item in value.items():
                self.pair(name, item, inner, [*prefix, key])
            written[key] = self.note(inner, (0, 0))
            return
        for part in prefix:
            self.write(self.key(part) + self.choose(".", " . "))
        at = self.here
        self.write(self.key(key) + self.equals())
        written[key] = self.flow(value, at)
        self.write(self.choose("\n", " # a = 1\n", "\r\n"))

    def header(self, value: Any, path: list[str], written: dict[str, Written]) -> None:
        tables = []
        for table in value if isinstance(value, list) else [value]:
            dotted = ".".join(self.key(part) for part in path)
            self.write(f"[[{dotted}]]\n" if isinstance(value, list) else f"[{dotted}] # b\n")
            inner: dict[str, Written] = {}
            self.table(table, path, inner)
            tables.append(self.note(inner, (0, 0)))
        written[path[-1]] = self.note(tables, (0, 0)) if isinstance(value, list) else tables[0]


KEYS = st.sampled_from(["a", "b", "c", "size", "on", "é", "日本", "a.b", "a b", "0", "'", '"', "\\", "#", "k: v", "\t"])
SCALARS = st.one_of(st.integers(-9, 999), st.text("ab:#'\"é\\ ", max_size=4), st.booleans())
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
WRITERS = {"yaml": Yaml, "json": Json, "toml": Toml}


@st.composite
def piles(draw: st.DrawFn) -> list[tuple[SourceLayer, list[Written]]]:
    """Files of all formats, some of them mounted, and what was written in them, document by document."""
    pile = []
    for number in range(draw(st.integers(1, 4))):
        suffix = draw(st.sampled_from(sorted(WRITERS)))
        at = draw(st.sampled_from([(), (), (), ("a",), ("b", "c")]))
        writer = WRITERS[suffix](f"{number}.{suffix}", draw)
        found = writer.document(draw(TREES))
        data = writer.text.encode()
        pile.append((SourceLayer(writer.file, at, data, b"", "", False), found))
    return pile


def plain(written: Written) -> Any:
    if isinstance(written.value, dict):
        return {key: plain(item) for key, item in written.value.items()}
    if isinstance(written.value, list):
        return [plain(item) for item in written.value]
    return written.value


def over(low: Written, high: Written) -> Written:
    """The rule of layers, in its shortest form, on what was written."""
    if not (isinstance(low.value, dict) and isinstance(high.value, dict)):
        return high
    both = {key: over(item, high.value[key]) if key in high.value else item for key, item in low.value.items()}
    return Written({**both, **{k: v for k, v in high.value.items() if k not in both}}, high.at, high.file)


def leaves(written: Written, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(written.value, dict | list):
        entries = written.value.items() if isinstance(written.value, dict) else enumerate(written.value)
        for part, item in entries:
            yield from leaves(item, (*path, part))
    else:
        yield path, written


@settings(deadline=None, max_examples=400)
@given(piles())
def test_the_origin_of_each_leaf_is_where_it_was_written(pile: list[tuple[SourceLayer, list[Written]]]) -> None:
    layers: list[Layer] = []
    expected = Written({}, (1, 1), "")
    for text, documents in pile:
        trees = formats.parse_documents(text.data, file=text.file)
        assert trees == [plain(document) for document in documents], text.data.decode()
        for number, (tree, document) in enumerate(zip(trees, documents, strict=True)):
            layers.append(Layer(text.file, text.at, tree, number))
            mounted = document
            for part in reversed(text.at):
                mounted = Written({part: mounted}, (0, 0), text.file)
            expected = over(expected, mounted)
    assert merge(layers) == plain(expected)
    texts = [text for text, _ in pile]
    for path, leaf in leaves(expected):
        found = origins(path, layers, texts)
        assert [origin.setting.shadowed for origin in found].count(False) == 1
        assert (found[0].text.file, found[0].trace, found[0].value) == (leaf.file, Trace(leaf.at), leaf.value), path


# What generated documents do not have

YAML = """\
base: &base
  size: 1
  deep: &deep {x: 1}
  list: [*deep]
use:
  <<: *base
  own: 1
nested:
  <<: [{only: 1}, {<<: *base}]
again: *base
scalar: &s 5
copy: *s
items: [*s, {<<: *deep}]
"""


def traced(text: str, *path: Any, file: str = "c.yaml") -> Trace | None:
    data = text.encode()
    tree = formats.parse(data, file=file)
    found = origins(path, [Layer(file, (), tree)], [SourceLayer(file, (), data, b"", "", False)])
    return found[0].trace if found else None


@pytest.mark.parametrize(
    ("path", "trace"),
    [
        (("base", "size"), Trace((2, 3))),
        (("base", "list", 0), Trace((4, 10), (), (3, 9))),
        (("base", "list", 0, "x"), Trace((3, 16), (Use("alias", (4, 10)),))),
        (("use", "size"), Trace((2, 3), (Use("merge", (6, 3)),))),
        (("use", "deep", "x"), Trace((3, 16), (Use("merge", (6, 3)),))),
        (("use", "list", 0, "x"), Trace((3, 16), (Use("merge", (6, 3)), Use("alias", (4, 10))))),
        (("use", "own"), Trace((7, 3))),
        (("nested", "only"), Trace((9, 9), (Use("merge", (9, 3)),))),
        (("nested", "size"), Trace((2, 3), (Use("merge", (9, 3)),))),
        (("again",), Trace((10, 1), (), (1, 7))),
        (("again", "size"), Trace((2, 3), (Use("alias", (10, 1)),))),
        (("copy",), Trace((12, 1), (), (11, 9))),
        (("items", 0), Trace((13, 9), (), (11, 9))),
        (("items", 1, "x"), Trace((3, 16), (Use("merge", (13, 14)),))),
        (("absent",), None),
    ],
)
def test_aliases_and_merges_are_told_with_their_anchors(path: tuple[Any, ...], trace: Trace | None) -> None:
    assert traced(YAML, *path) == trace


def test_what_only_a_mount_makes_is_no_place_in_the_file() -> None:
    text = SourceLayer("l.toml", ("service", "limits"), b"rate = 1\n", b"", "", False)
    layers = [Layer("l.toml", text.at, {"rate": 1})]
    [above] = origins(("service",), layers, [text])
    assert (above.is_mount, above.trace, above.value) == (True, None, {"limits": {"rate": 1}})
    [at] = origins(("service", "limits"), layers, [text])
    assert (at.is_mount, at.trace) == (False, Trace((1, 1)))
    [below] = origins(("service", "limits", "rate"), layers, [text])
    assert (below.is_mount, below.trace) == (False, Trace((1, 1)))


def test_one_file_named_twice_has_two_places() -> None:
    data = b"a: 1\nb: 2\n"
    texts = [SourceLayer("x.yaml", (), data, b"", "", False), SourceLayer("x.yaml", ("m",), data, b"", "", False)]
    layers = [Layer("x.yaml", text.at, {"a": 1, "b": 2}) for text in texts]
    assert [origin.trace for origin in origins(("m", "b"), layers, texts)] == [Trace((2, 1))]
    assert [origin.text.at for origin in origins(("m", "b"), layers, texts)] == [("m",)]
