"""The admin socket's place on the disk: NAME.sock in the runtime directory.

Whoever holds the segment's lock puts it there. It is bound aside and moved into place complete: listening, mode 0660,
its group set. What stands in its place is replaced only if it is a socket of this user or of root, which must be a
dead agent's, since the lock is ours. Anything else is left alone and becomes `problem`, and publication goes on
without the socket. `keep` finds whatever became of it, so a socket whose directory was wiped is there again soon, just
like the segment.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".sock"
MODE = 0o660
_BACKLOG = 64


class AdminSocket:
    """One segment's socket. Belongs to the thread that holds the segment's lock."""

    def __init__(
        self, directory: Path, name: str, gid: Callable[[], int], listen: Callable[[socket.socket | None], None]
    ) -> None:
        """Nothing is bound yet.

        gid: the group that the socket is to have. listen: takes over each socket that is bound, one after the other,
        and closes it when the next one comes, or None.
        """
        self.problem: str | None = None
        """Why there is no socket, or not as it should be; for the operator."""
        self._directory = directory
        self._name = name + SUFFIX
        self._aside = f".{name}{SUFFIX}.new"
        self._gid = gid
        self._listen = listen
        self._identity: tuple[int, int] | None = None
        self._wanted_gid = -1
        self._not_given: str | None = None

    def keep(self) -> None:
        """Bind the socket if it is not in its place. To be called every now and then; never raises OSError."""
        try:
            with _opened(self._directory) as directory:
                found = _look(directory, self._name)
                is_ours = found is not None and (found.st_dev, found.st_ino) == self._identity
                obstacle = None if found is None or is_ours else _obstacle(found)
                if obstacle is None and not (is_ours and self._wanted_gid == self._gid()):
                    self._bind(directory)
            self.problem = None if obstacle is None else self._none(f"{obstacle}; remove it")
        except OSError as error:
            self.problem = self._none(error.strerror or str(error))
        self.problem = self.problem or self._not_given

    def close(self) -> None:
        """Take the socket away, if it is ours still. Idempotent."""
        self._listen(None)
        identity, self._identity = self._identity, None
        if identity is None:
            return
        with contextlib.suppress(OSError), _opened(self._directory) as directory:
            found = _look(directory, self._name)
            if found is not None and (found.st_dev, found.st_ino) == identity:
                os.unlink(self._name, dir_fd=directory)

    def _bind(self, directory: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._aside, dir_fd=directory)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as unless_placed:
            unless_placed.callback(bound.close)
            bound.bind(_short(directory, self._directory, self._aside))
            os.chmod(self._aside, MODE, dir_fd=directory)  # nobody can connect before it listens
            self._give(directory)
            bound.listen(_BACKLOG)
            bound.setblocking(False)
            status = os.stat(self._aside, dir_fd=directory, follow_symlinks=False)
            os.rename(self._aside, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            unless_placed.pop_all()
        self._identity = status.st_dev, status.st_ino
        self._listen(bound)

    def _give(self, directory: int) -> None:
        """To the group. Where that cannot be, the socket serves root and the agent's user all the same."""
        self._wanted_gid = gid = self._gid()
        self._not_given = None
        try:
            os.chown(self._aside, -1, gid, dir_fd=directory, follow_symlinks=False)
        except PermissionError:
            self._not_given = (
                f"the agent's user may not give the admin socket to the group {gid}, whose members therefore cannot "
                "connect; make it a member of 'admin_group', or change 'admin_group'"
            )

    def _none(self, why: str) -> str:
        return f"no admin socket, so that `reload` cannot ask: {self._directory / self._name}: {why}"


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _look(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _short(descriptor: int, directory: Path, name: str) -> str:
    """A path that fits into a socket's address, which has 107 bytes, however long the directory's is."""
    by_number = f"/proc/self/fd/{descriptor}"
    return f"{by_number}/{name}" if os.path.isdir(by_number) else str(directory / name)


def _obstacle(found: os.stat_result) -> str | None:
    """What stands in the way, unless it is a socket that a dead agent left."""
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if stat.S_ISDIR(found.st_mode):
        return "is a directory"
    if not stat.S_ISSOCK(found.st_mode):
        return "is not a socket"
    if found.st_uid not in (0, os.geteuid()):
        return f"is a socket of user {found.st_uid}"
    return None


@contextmanager
def address(directory: Path, name: str) -> Iterator[str]:
    """Where to connect to for this segment's agent. Raises OSError where the directory cannot be entered."""
    with _opened(directory) as descriptor:
        yield _short(descriptor, directory, name + SUFFIX)
