"""The known word that somebody probably meant: the one source of every "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Below this likeness a suggestion misleads more often than it helps.
_LIKENESS = 0.6
# A word or a list of this size is data, not a slip of the fingers; comparing it would only cost time.
_LONGEST = 64
_MOST = 2000


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The entry of `known` most like `word`, without regard to case, or None where nothing is like it."""
    candidates = {entry.casefold(): entry for entry in known if len(entry) <= _LONGEST}
    if len(word) > _LONGEST or len(candidates) > _MOST:
        return None
    found = difflib.get_close_matches(word.casefold(), candidates, n=1, cutoff=_LIKENESS)
    return candidates[found[0]] if found else None


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """`did you mean 'schema'?`, or None: the hint that goes with a message about `word`."""
    found = nearest(word, known)
    return f"did you mean {found!r}?" if found is not None else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The same to be put behind a message, or nothing."""
    hint = suggestion(word, known)
    return f"; {hint}" if hint else ""
