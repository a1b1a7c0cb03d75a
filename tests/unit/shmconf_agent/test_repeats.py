"""The same rejection again and again: told at once, then ever more rarely, and in all at the end."""

from __future__ import annotations

from shmconf_agent.repeats import Repeats


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_repeat_is_told_at_once_and_the_count_at_the_end() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    assert repeats.begin(2) is None
    assert repeats.again() == "the same 2 problems for the 2nd time"
    assert [repeats.again() for _ in range(5)] == [None] * 5
    clock.now += 1
    assert repeats.again() == "the same 2 problems for the 8th time"
    assert repeats.end() is None, "that was told"
    clock.now += 1
    assert repeats.again() is None
    assert repeats.end() == "the 2 problems before were found 9 times in all"
    assert repeats.end() is None


def test_other_problems_tell_of_those_before() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    repeats.begin(1)
    repeats.again()
    repeats.again()
    assert repeats.begin(3) == "the problem before was found 3 times in all"
    assert repeats.again() == "the same 3 problems for the 2nd time"


def test_a_retry_every_two_seconds_is_told_every_ten_minutes() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    repeats.begin(1)
    told = []
    for _ in range(24 * 1800):
        clock.now += 2
        if repeats.again():
            told.append(clock.now)
    assert len(told) < 24 * 6 + 12
    assert 600 <= told[-1] - told[-2] <= 602
    assert told[-1] > 100 + 24 * 3600 - 602


def test_numbers_are_said_as_people_do() -> None:
    clock = Clock()
    repeats = Repeats(clock)
    repeats.begin(1)
    said = {}
    for times in range(2, 1123):
        clock.now += 1000
        said[times] = repeats.again()
    ordinals = [str(said[times]).split()[-2] for times in (2, 3, 4, 11, 12, 13, 21, 22, 101, 111, 1122)]
    assert ordinals == ["2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th", "1,122nd"]
