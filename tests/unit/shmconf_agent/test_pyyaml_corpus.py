"""Every YAML input of PyYAML's own tests: the values that PyYAML builds, or an error in both, or a listed exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml_oracle import Oracle, PureOracle, same

from shmconf_agent.formats import DEFAULT_LIMITS, parse_documents, yaml_quick
from shmconf_agent.formats import yaml as yaml_format
from shmconf_agent.formats.yaml_builder import Builder
from shmconf_agent.problems import Code, Invalid

CORPUS = Path(__file__).parent / "pyyaml_corpus" / "data"
FILES = sorted(path.name for path in CORPUS.iterdir())

# The exceptions: what PyYAML takes and the format refuses, by file, each with the reason. A configuration is a map:
A_LIST_AT_THE_TOP = """
bool.data construct-merge.data float.data int.data invalid-single-quote-bug.data more-floats.data null.data
run-parser-crash-bug.data spec-02-01.data spec-02-04.data spec-02-05.data spec-02-07.data spec-02-12.data
spec-06-07.canonical spec-06-07.data spec-08-07.canonical spec-08-07.data spec-08-12.canonical spec-08-12.data
spec-08-14.canonical spec-08-14.data spec-08-15.canonical spec-08-15.data spec-09-03.canonical spec-09-03.data
spec-09-05.canonical spec-09-05.data spec-09-09.canonical spec-09-09.data spec-09-11.canonical spec-09-11.data
spec-09-12.canonical spec-09-12.data spec-09-15.canonical spec-09-15.data spec-09-18.canonical spec-09-18.data
spec-09-19.canonical spec-09-19.data spec-09-20.canonical spec-09-20.data spec-10-01.canonical spec-10-01.data
spec-10-02.canonical spec-10-02.data spec-10-05.canonical spec-10-05.data spec-10-06.canonical spec-10-06.data
spec-10-11.canonical spec-10-11.data str.data timestamp.data
"""
A_SCALAR_AT_THE_TOP = """
construct-str-ascii.data construct-str-utf8-py2.data construct-str-utf8-py3.data negative-float-bug.data
single-dot-is-not-float-bug.data sloppy-indentation.canonical sloppy-indentation.data spec-02-13.data
spec-02-14.data spec-02-15.data spec-05-02-utf8.data spec-05-09.canonical spec-05-09.data spec-05-11.canonical
spec-05-11.data spec-05-13.canonical spec-05-13.data spec-05-14.canonical spec-05-14.data spec-06-08.canonical
spec-06-08.data spec-07-01.canonical spec-07-01.data spec-07-02.canonical spec-07-02.data spec-07-04.canonical
spec-07-04.data spec-07-09.canonical spec-07-09.data spec-07-10.canonical spec-07-10.data spec-07-12b.canonical
spec-07-12b.data spec-08-08.canonical spec-08-08.data spec-09-02.canonical spec-09-02.data spec-09-04.canonical
spec-09-04.data spec-09-06.canonical spec-09-06.data spec-09-08.canonical spec-09-08.data spec-09-10.canonical
spec-09-10.data spec-09-16.canonical spec-09-16.data spec-09-17.canonical spec-09-17.data spec-09-25.canonical
spec-09-25.data spec-09-26.canonical spec-09-26.data spec-09-27.canonical spec-09-27.data spec-09-28.canonical
spec-09-28.data spec-09-29.canonical spec-09-29.data spec-09-30.canonical spec-09-30.data spec-09-31.canonical
spec-09-31.data spec-09-32.canonical spec-09-32.data spec-09-33.canonical spec-09-33.data utf16be.data
utf16le.data utf8-implicit.data utf8.data
"""
EXCEPTIONS: dict[str, set[Code]] = {
    **{name: {Code.TOP_LEVEL} for name in (A_LIST_AT_THE_TOP + A_SCALAR_AT_THE_TOP).split()},
    "construct-omap.data": {Code.YAML_TAG},  # !!omap
    "construct-pairs.data": {Code.YAML_TAG},  # !!pairs
    "construct-set.data": {Code.YAML_TAG},  # !!set
    "spec-02-25.data": {Code.YAML_TAG},  # !!set
    "spec-02-26.data": {Code.YAML_TAG, Code.TOP_LEVEL},  # !!omap, which is a list
    # Keys that are set twice, of which PyYAML silently takes the last:
    "duplicate-key.former-loader-error.data": {Code.DUPLICATE_KEY},
    "duplicate-mapping-key.former-loader-error.data": {Code.DUPLICATE_KEY},
    "duplicate-value-key.former-loader-error.data": {Code.DUPLICATE_KEY},
    # Half a surrogate pair, which no document can hold:
    "emitting-unacceptable-unicode-character-bug.data": {Code.HALF_CHARACTER},
    "emitting-unacceptable-unicode-character-bug-py3.data": {Code.HALF_CHARACTER},
}
# Of these libyaml takes less than PyYAML's own parser, and some versions of it less than others.
REFUSED_BY_LIBYAML = {
    "emitting-unacceptable-unicode-character-bug.data",
    "emitting-unacceptable-unicode-character-bug-py3.data",
    "spec-07-01.data",
    "spec-08-13.data",
    "spec-09-20.data",
}
# A byte order mark within the text, which libyaml passes over; for PyYAML's own parser it begins a text.
EQUAL_WITH_LIBYAML = {"spec-05-02-utf8.data"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_pyyaml_reads_it_or_is_a_listed_exception(name: str, parser: str) -> None:
    data = (CORPUS / name).read_bytes()
    try:
        expected = list(yaml.load_all(data, PureOracle if parser == "pure" else Oracle))
    except Exception:  # of whatever type: its constructors raise many
        with pytest.raises(Invalid):
            parse_documents(data, file=name + ".yaml")
        assert name not in EXCEPTIONS or (parser != "pure" and name in REFUSED_BY_LIBYAML), "no exception any more"
        return
    if name not in EXCEPTIONS or (parser != "pure" and name in EQUAL_WITH_LIBYAML):
        found = parse_documents(data, file=name + ".yaml")
        assert same(found, [{} if tree is None else tree for tree in expected] or [{}])
        return
    with pytest.raises(Invalid) as caught:
        parse_documents(data, file=name + ".yaml")
    assert {problem.code for problem in caught.value.problems} == EXCEPTIONS[name]
    if EXCEPTIONS[name] == {Code.TOP_LEVEL}:  # read all the same, before the top level is looked at
        check_both_ways(data, expected)


def check_both_ways(data: bytes, expected: list[Any]) -> None:
    builder = Builder(DEFAULT_LIMITS, careful=True)
    builder.run(yaml_format._events(data))
    assert builder.problems == []
    assert same(builder.values, expected)
    try:
        quick = yaml_format.build_quickly(data, DEFAULT_LIMITS)
    except yaml_quick.Trouble:  # it may leave anything to the builder
        return
    assert same(quick, expected)


def test_every_exception_names_a_file() -> None:
    assert set(EXCEPTIONS) | REFUSED_BY_LIBYAML | EQUAL_WITH_LIBYAML <= set(FILES)
    assert len(FILES) > 300
