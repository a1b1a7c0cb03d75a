"""Which form an agent's log takes, and whether it is the journal that hears it."""

from __future__ import annotations

import os
import stat
from enum import StrEnum

__all__ = ["LogFormat", "goes_to_journal"]


class LogFormat(StrEnum):
    """What `run --log-format` offers."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


def goes_to_journal(descriptor: int, error_descriptor: int = 2) -> bool:
    """Whether what is written there ends up in systemd's journal, as $JOURNAL_STREAM tells (systemd.exec(5)).

    It has device and inode of one stream, standard error's if it can; so standard output is the journal's as well
    where standard error is and it is a socket, too. An operator's file, pipe or terminal never is.
    """
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    named = (device, inode)
    try:
        found = os.fstat(descriptor)
        if (str(found.st_dev), str(found.st_ino)) == named:
            return True
        error = os.fstat(error_descriptor)
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and (str(error.st_dev), str(error.st_ino)) == named
