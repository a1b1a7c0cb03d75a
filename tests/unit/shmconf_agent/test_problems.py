from __future__ import annotations

import pytest

from shmconf_agent.problems import Invalid, Problem, format_path


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("no good", "base.yaml", 3, 5), "base.yaml:3:5: no good"),
        (Problem("no good", "base.yaml", 3), "base.yaml:3: no good"),
        (Problem("no good", "base.yaml"), "base.yaml: no good"),
        (Problem("no good"), "no good"),
    ],
)
def test_a_problem_says_as_much_of_its_place_as_is_known(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_invalid_lists_its_problems_a_line_each() -> None:
    invalid = Invalid(Problem(word, "a.toml", line, 1) for line, word in enumerate(("first", "second"), 1))

    assert str(invalid) == "a.toml:1:1: first\na.toml:2:1: second"
    assert [problem.message for problem in invalid.problems] == ["first", "second"]


def test_invalid_without_a_problem_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Invalid([])


def test_paths_are_written_in_the_grammar_of_shmconf() -> None:
    assert format_path(("db", "a.b", 3)) == 'db."a.b".3'
