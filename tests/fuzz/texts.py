"""Texts of the three formats as a random source makes them up, of every style, and what damages them."""

from __future__ import annotations

import json
from random import Random

SCALARS = (
    "~", "null", "yes", "No", "ON", "off", "y", "true", "010", "0x1F", "-0b11", "0o7", "1_000", "+12", "12:34:56",
    "1:30.5", "1e3", "1.5e+3", "1.", ".5", "-.5", ".inf", "-.INF", ".nan", "-0.0", "0", "1", "1.0", "2001-12-14",
    "2001-1-1", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.1234567 Z", "'12'", "'it''s'",
    '"a\\u00e9\\n"', '"\\x41\\\n   folded"', "'two\n\n   lines'", "plain text", "plain\n   folded", "é☺", "a#b", "a:b",
    "-a", "", "", "word", "word", "word", "99999999999999999999", "18446744073709551615", "{}", "[]",
    "!!str 12", "!!int '7'", "!!float 3", "!!binary aGVsbG8=", "!!null x", "!!timestamp 2001-01-01", "! 12", "'#'",
)  # fmt: skip
RARE = (
    "=", "<<", "!foo bar", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str {=: x}", '"\\ud800"', "!!int x",
    "!!python/tuple [a]", "*unknown ", "@", "`", "%", "\t", "\x07", "\u2028", "\x85", "\ufeff", "2001-13-01",
    "2001-02-30", "?a", ":a",
)  # fmt: skip
KEYS = (
    "a", "b", "c", "d", "e", "f", "g", "h", "timeout", "'q'", '"r"', "two words", "é", "1", "1.5", "~", "2001-01-01",
)  # fmt: skip
PIECES = (
    ": ", ":", "\n", "\n  ", "- ", " ", "[", "]", "{", "}", ",", "'", '"', "|\n", ">-\n", " #", "&x ", "*x", "!!str ",
    "<<: ", "? ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! tag:x,1:\n", "\t", "\r\n", "\r", "\ufeff", "\x85", "\x00",
    "\\", "=", "[[", "]]", ".", '"""', "'''", "1", "e9", "_", "inf", "NaN", "\\u12", "é", "😀", "1979-05-27", "07:32",
)  # fmt: skip


class YamlWriter:
    """Writes YAML, most of it valid. Anchors are kept for the aliases that follow, those of maps also for merges."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._anchors: list[str] = []
        self._maps: list[str] = []
        self._count = 0

    def stream(self) -> str:
        """One document, or several."""
        text = self._document(first=True)
        while self._once_in(4):
            text += self._document(first=False)
        return text.replace("\n", "\r\n") if self._once_in(6) else text

    def _once_in(self, number: int) -> bool:
        return self._random.randrange(number) == 0

    def _document(self, first: bool) -> str:
        self._anchors, self._maps = [], []
        start = "" if first else "---\n"
        if self._once_in(6):
            directive = self._random.choice(["%YAML 1.1"] * 3 + ["%TAG !e! tag:yaml.org,2002:"] * 3 + ["%OTHER x"])
            start = ("" if first else "...\n") + f"{directive}\n---{self._comment()}\n"
        shape = self._random.randrange(12)
        if shape == 0:
            body = self._flow(3) + "\n"
            return (start or "---\n").rstrip("\n") + " " + body if "#" not in start else start + body
        return start + (self._list(0, 3) if shape == 1 else "" if shape == 2 else self._map(0, 3))

    def _comment(self) -> str:
        return " # " + self._random.choice(["note", "'", "[", "a: 1", "é"]) if self._once_in(8) else ""

    def _properties(self, is_map: bool = False) -> tuple[str, str | None]:
        tag = self._random.choice(["!!map ", "! "] if is_map else ["!!seq ", "! "]) if self._once_in(12) else ""
        if not self._once_in(4):
            return tag, None
        self._count += 1
        name = f"n{self._count}"
        return (f"&{name} {tag}" if self._once_in(2) else f"{tag}&{name} "), name

    def _keep(self, name: str | None, is_map: bool = False) -> None:
        if name is not None:
            self._anchors.append(name)
            if is_map:
                self._maps.append(name)

    def _scalar(self) -> str:
        return self._random.choice(RARE if self._once_in(40) else SCALARS)

    def _map(self, indent: int, depth: int) -> str:
        pad = " " * indent
        keys = self._random.sample(KEYS, self._random.randint(1, 5))
        if self._once_in(30):
            keys.append(self._random.choice(keys))
        text = ""
        for key in keys:
            if self._once_in(12):
                text += f"{pad}#{self._comment()}\n" if self._once_in(2) else "\n"
            if self._once_in(8):
                text += f"{pad}<<: {self._merged()}{self._comment()}\n"
            form = self._random.randrange(12)
            if form == 0:
                text += f"{pad}? {key}\n{pad}:" + self._value(indent, depth)
            elif form == 1 and self._once_in(3):
                text += f"{pad}? {key}\n"
            else:
                if form == 2:
                    self._count += 1
                    key, name = f"&n{self._count} {key}", f"n{self._count}"
                    self._keep(name)
                elif form == 3 and self._anchors and self._once_in(3):
                    key = f"*{self._random.choice(self._anchors)} "
                text += f"{pad}{key}{self._random.choice(['', '', ' '])}:" + self._value(indent, depth)
        return text

    def _merged(self) -> str:
        sources = [
            f"*{self._random.choice(self._maps)}" if self._maps and not self._once_in(4) else self._flow_map(1)
            for _ in range(self._random.randint(1, 3))
        ]
        return sources[0] if len(sources) == 1 else f"[{', '.join(sources)}]"

    def _list(self, indent: int, depth: int) -> str:
        pad = " " * indent
        text = ""
        for _ in range(self._random.randint(1, 4)):
            if depth and self._once_in(4):  # a map or a list that begins behind the dash
                inner = (self._map if self._once_in(2) else self._list)(indent + 2, depth - 1)
                text += f"{pad}- {inner.lstrip(' ')}" if not inner.startswith(("\n", " " * (indent + 2) + "#")) else ""
            else:
                text += f"{pad}-" + self._value(indent, depth)
        return text

    def _value(self, indent: int, depth: int) -> str:
        """What follows a key's colon or a dash, to the end of the last line."""
        kind = self._random.randrange(12)
        if kind == 0 and self._anchors:
            return f" *{self._random.choice(self._anchors)}{self._comment()}\n"
        if kind == 1:
            return self._block_scalar(indent)
        if kind <= 5 or depth == 0:
            properties, name = self._properties() if self._once_in(3) else ("", None)
            text = f" {properties if name else ''}{self._scalar()}{self._comment()}\n"
            self._keep(name)
            return text
        if kind <= 7:
            return f" {self._flow(depth - 1)}{self._comment()}\n"
        is_map = kind != 8
        properties, name = self._properties(is_map)
        step = self._random.randint(0 if not is_map else 1, 4)
        inner = (self._map if is_map else self._list)(indent + step, depth - 1)
        self._keep(name, is_map)
        return f" {properties}{self._comment()}\n{inner}" if properties else f"{self._comment()}\n{inner}"

    def _block_scalar(self, indent: int) -> str:
        step = self._random.randint(1, 4)
        explicit = self._once_in(3)
        marks = [self._random.choice(["", "", "-", "+"]), str(step) if explicit else ""]
        self._random.shuffle(marks)
        pad = " " * (indent + step)
        lines = [
            self._random.choice(["text", "more: text", "# none", "  deeper", "", "- x", "'", "\ttab", "é"])
            for _ in range(self._random.randint(0, 5))
        ]
        if not explicit:
            lines = ["first", *lines]
        body = "".join(f"{pad}{line}\n" if line else "\n" for line in lines)
        properties, name = self._properties() if self._once_in(4) else ("", None)
        text = f" {properties if name else ''}{self._random.choice('|>')}{''.join(marks)}{self._comment()}\n{body}"
        self._keep(name)
        return text

    def _flow(self, depth: int) -> str:
        kind = self._random.randrange(8)
        if kind == 0 and self._anchors:
            return f"*{self._random.choice(self._anchors)} "
        if depth == 0 or kind <= 3:
            return self._scalar()
        is_map = kind >= 6
        properties, name = self._properties(is_map)
        if is_map:
            text = self._flow_map(depth)
        else:
            items = [self._flow(depth - 1) or "''" for _ in range(self._random.randint(0, 4))]
            if self._once_in(5):
                items.append(f"{self._random.choice(KEYS)}: {self._flow(0)}")  # a map of one pair
            text = f"[{', '.join(items)}{self._random.choice(['', '', ','])}]"
        self._keep(name, is_map)
        return properties + text

    def _flow_map(self, depth: int) -> str:
        keys = self._random.sample(KEYS, self._random.randint(0, 4))
        pairs = []
        for key in keys:
            if self._once_in(8):
                pairs.append(f"<<: {self._merged()}")
            colon = self._random.choice([": ", " : ", ":\n    "])
            pairs.append(f"{key}{colon}{self._flow(depth - 1)}" if not self._once_in(10) else key)
        gap = self._random.choice([", ", ",", ",\n  ", ", # x\n  "])
        return "{" + gap.join(pairs) + "}"


class TomlWriter:
    """Writes TOML, most of it valid."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def text(self) -> str:
        """Pairs, tables and arrays of tables."""
        lines: list[str] = []
        for _ in range(self._random.randint(1, 12)):
            kind = self._random.randrange(6)
            name = ".".join(self._key() for _ in range(self._random.randint(1, 3)))
            if kind == 0:
                lines.append(f"[{name}]")
            elif kind == 1:
                lines.append(f"[[ {name} ]] # x")
            else:
                lines.append(f"{name} = {self._value(3)}{' # c' if kind == 2 else ''}")
        return self._random.choice(["\n", "\n", "\n\n", "\r\n"]).join(lines)

    def _key(self) -> str:
        key = f"{self._random.choice('abcdefgh')}{self._random.randrange(9)}"
        return self._random.choice([key, key, key, f"'{key}'", f'"{key}"', "'é'", '"\\u0061"', "1"])

    def _value(self, depth: int) -> str:
        kind = self._random.randrange(6) if depth else 5
        if kind == 0:
            gap = self._random.choice([", ", ",\n  ", ", # x\n"])
            items = [self._value(depth - 1) for _ in range(self._random.randint(0, 4))]
            return f"[{gap.join(items)}{self._random.choice(['', '', ','])}]"
        if kind == 1:
            pairs = [f"{self._key()} = {self._value(depth - 1)}" for _ in range(self._random.randint(0, 3))]
            return "{" + ", ".join(pairs) + "}"
        return self._random.choice(_TOML_SCALARS)


_TOML_SCALARS = (
    "1", "-17", "+99", "1_000", "0xDEAD_beef", "0o17", "0b1101", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "-9223372036854775809", "1.5", "-0.01", "5e+22", "6.626e-34", "1e400", "inf", "-inf", "nan",
    "true", "false", "'literal'", '"basic\\t\\u00e9"',
    '"""\n multi \\\n   line"""', "'''\nraw [x]'''", "''", "1979-05-27",
    "07:32:00", "07:32:00.999", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00-08:00", "1979-02-30", "[]", "{}", '"é☺"',
    '"\\ud800"', "007", "1__0", "'''''x'''''",
)  # fmt: skip


class JsonWriter:
    """Writes JSON, most of it valid."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def text(self) -> str:
        """One value, mostly an object."""
        return self._value(4) if self._random.randrange(12) == 0 else self._object(4)

    def _object(self, depth: int) -> str:
        pairs = []
        for number in range(self._random.randint(0, 6)):
            key = self._random.choice(["a", "\t", "", *[f"k{number}"] * 9, f"é{number}", f"\U0001f600{number}"])
            colon = self._random.choice([":", ": ", " :\n"])
            ascii_only = self._random.randrange(2) == 0
            pairs.append(json.dumps(key, ensure_ascii=ascii_only) + colon + self._value(depth - 1))
        return "{" + self._random.choice([",", ", ", ",\r\n  "]).join(pairs) + "}"

    def _value(self, depth: int) -> str:
        kind = self._random.randrange(5) if depth else 4
        if kind == 0:
            return self._object(depth)
        if kind == 1:
            return "[" + ", ".join(self._value(depth - 1) for _ in range(self._random.randint(0, 4))) + "]"
        return self._random.choice(_JSON_RARE if self._random.randrange(20) == 0 else _JSON_SCALARS)


_JSON_SCALARS = (
    "1", "-0", "1.5", "-1.5e-3", "1e308", "18446744073709551615", "-9223372036854775808", "true", "false", "null",
    "NaN", "Infinity", "-Infinity", '"text"', '"\\u00e9"', '"\\ud83d\\ude00"', '""', '"\\""', '"\\\\"', '"é"', "[]",
    "{}",
)  # fmt: skip
_JSON_RARE = ("1E400", "18446744073709551616", "-9223372036854775809", '"\\ud800"', "01", "'x'")


def damaged(random: Random, text: str) -> str:
    """The text after a few deletions, insertions, repetitions and exchanges."""
    for _ in range(random.randint(1, 4)):
        start = random.randint(0, len(text))
        end = min(len(text), start + random.choice([1, 1, 2, 5, 20]))
        kind = random.randrange(5)
        if kind == 0:
            text = text[:start] + text[end:]
        elif kind == 1:
            text = text[:start] + random.choice(PIECES) + text[start:]
        elif kind == 2:
            text = text[:start] + random.choice(PIECES) + text[end:]
        elif kind == 3:
            text = text[:end] + text[start:end] * random.choice([1, 1, 3]) + text[end:]
        else:
            at = random.randint(0, len(text))
            text = text[:at] + text[start:end] + text[at:start] + text[end:] if at <= start else text
    return text


def damaged_bytes(random: Random, data: bytes) -> bytes:
    """The bytes with some of them changed, left out, put in or repeated up to thousands of times."""
    for _ in range(random.randint(1, 3)):
        start = random.randint(0, len(data))
        end = min(len(data), start + random.choice([1, 1, 4, 30]))
        kind = random.randrange(4)
        if kind == 0:
            data = data[:start] + bytes(random.randrange(256) for _ in range(end - start)) + data[end:]
        elif kind == 1:
            data = data[:start] + data[end:]
        elif kind == 2:
            odd = random.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf"])
            data = data[:start] + odd + data[start:]
        else:
            data = data[:end] + data[start:end] * random.choice([2, 20, 200, 2000]) + data[end:]
    return data[: 64 * 1024]
