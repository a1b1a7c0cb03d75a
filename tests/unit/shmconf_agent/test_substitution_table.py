"""The keys of a segment that say what references may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmconf_agent.agents_file import load
from shmconf_agent.config import Substitution
from shmconf_agent.problems import Invalid

WEB = '[segment.web]\nsources = ["base.yaml"]\n'


def loaded(tmp_path: Path, text: str) -> Substitution | None:
    file = tmp_path / "shmconf.toml"
    file.write_text(WEB + text)
    return load(file).segments[0].substitution


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", None),
        ("substitute = false\n", None),
        ('substitute = false\nsubstitute_env = ["A"]\n', None),
        ("substitute = true\n", Substitution()),
        (
            'substitute = true\nsubstitute_env = ["DB_HOST", "_x"]\nsubstitute_roots = ["/run/secrets", "in"]\n',
            Substitution(("DB_HOST", "_x"), ("/run/secrets", "in")),
        ),
    ],
)
def test_what_is_allowed(tmp_path: Path, text: str, allowed: Substitution | None) -> None:
    assert loaded(tmp_path, text) == allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("substitute = 1", "3:1: 'substitute' is true or false, not 1"),
        ('substitute = true\nsubstitute_env = "A"', "4:1: 'substitute_env' is a list of variables, as in "),
        ("substitute = true\nsubstitute_roots = [1]", "4:1: 'substitute_roots' is a list of directories"),
        ('substitute = true\nsubstitute_env = ["A", "B C"]', "4:24: 'B C' is no name of a variable"),
        ('substitute = true\nsubstitute_roots = [""]', "4:21: it is a directory's path, and this is none"),
        ('substitute_env = ["A"]', "3:1: 'substitute_env' does nothing without 'substitute = true' beside it"),
        ('substitute_root = ["A"]', "did you mean 'substitute_roots'?"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(tmp_path, text + "\n")
    assert said in str(caught.value)
