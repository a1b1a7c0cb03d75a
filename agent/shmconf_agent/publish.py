"""One segment's publication: what becomes visible in it, and when.

A candidate equal to what is served publishes nothing. A rejection changes nothing but the status block
(`status_block`). What was published is also kept in the state directory (`keeping`), from which it is served again
after a reboot with invalid files. One thread, the reconciler's, calls everything here; `beat` alone belongs to the
feeder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from shmconf import Hold
from shmconf.directories import Directory
from shmconf.errors import Error, SegmentLocked
from shmconf.snapshot import Snapshot
from shmconf.writer import Settings, Writer

from . import publication_metadata
from .changed_paths import Lineage
from .commit_mark import Record
from .config import SegmentConfig, in_agents_file, resolve_group
from .events import Published, Rejected, Said, Say, still_serving
from .guard import Served
from .keeping import Keeping, as_kept
from .kept_version import KeptVersion
from .log_kinds import Kind
from .masking import noted_paths
from .pipeline import Candidate
from .problems import Code, Fault, Invalid, Problem
from .publication_metadata import packed
from .render import DIGEST_DIGITS, UNPUBLISHABLE, to_resume
from .status_block import StatusBlock
from .tally import Standing

_RETRY_SECONDS = 5.0  # how often a disk that refused is asked again


class Publisher:
    """Owns the writer of one segment."""

    def __init__(self, config: SegmentConfig, directory: Directory, state: Path, say: Say) -> None:
        """Lock and open the segment. Raises SegmentLocked, Error, OSError, or Invalid for an unusable group."""
        self.name = config.name
        self._say = say
        gid = None if config.group is None else resolve_group(config.group, config.group_place)
        settings = Settings(config.max_bytes, config.mode, gid)
        try:
            self._writer = Writer(directory, config.name, settings, state_directory=state)
        except PermissionError as error:
            if gid is None or error.filename is not None:
                raise
            message = (
                f"the agent's user may not give a file to the group {config.group!r}; make it a member of that "
                "group, or change 'group'"
            )
            raise Invalid([in_agents_file(Fault(Code.GROUP, message), config.group_place)]) from None
        self._keeping = Keeping(state, config.name)
        self._digest: str | None = None
        self._secrets = packed(())  # where they are in what is served
        self._nonblank: frozenset[str] = frozenset()
        self._commit: Record | None = None
        self._lineage = Lineage()
        self._lost_commit: str | None = None  # mark of one whose version was kept and is damaged: an older is served
        self.rollback: dict[str, Any] | None = None
        """Of which version, and who asked for it, if what is served now is a rollback: its metadata."""
        self._look_at_published()
        self._status = StatusBlock(config.name, self._writer, self._keeping, say)
        self._retry_at = 0.0
        self._status.show()

    @property
    def version(self) -> int:
        """The version served now; 0 for none."""
        return self._writer.version

    @property
    def digest(self) -> str | None:
        """Of what is served now, where that is known."""
        return self._digest

    @property
    def standing(self) -> Standing:
        """What is served, and the status as every reader may see it, in full."""
        return Standing(self._writer.version, self._digest, self._writer.size, self._status.shown)

    @property
    def rejected(self) -> tuple[Problem, ...]:
        """Why the newest files are not served; empty while they are."""
        return self._status.rejected

    @property
    def held(self) -> str | None:
        """Digest of the candidate that the guard holds, for the reasons in `rejected`; None for none."""
        return self._status.held

    @property
    def hold(self) -> Hold | None:
        """The rollback that is held. From any thread."""
        return self._status.hold

    def set_hold(self, hold: Hold | None) -> None:
        """Tell readers of it, or (None) that the files are followed."""
        self._status.set_hold(hold)

    def served(self) -> Served | None:
        """What is served now or, where nothing is, what is kept from before; None for neither."""
        if self._writer.version > 0:
            digest = self._digest or hashlib.sha256(self._payload()).hexdigest()
            return Served(digest, self._payload)
        kept = self._keeping.newest()
        return None if kept is None else Served(kept[0].digest, lambda: kept[1])

    def nonblank_files(self) -> frozenset[str]:
        """The source files that had content when what is served now was published."""
        return self._nonblank

    def commits(self, noted: Record | None) -> list[Record]:
        """The commits that were judged before, and whose outcome can still be served. noted: in the state directory."""
        if self._writer.version == 0 and self._keeping.newest() is None:
            return []
        # Of one commit, what was published outweighs a refusal: it was accepted after that, and a kill came between.
        same = self._commit is not None and noted is not None and self._commit.is_of(noted)
        records = (noted, self._commit) if same else (self._commit, noted)
        return [record for record in records if record is not None]

    def go_on(self, commit: Record | None, path: str) -> bool:
        """Nothing may be judged before the next commit: serve what was judged before, if `commit` was. For a segment
        with the commit path `path`. Returns whether that was refused."""
        if commit is None and self._writer.version == 0:
            why = "does not exist; nothing is published before it does"
            self.reject([Fault(Code.NOT_COMMITTED, why).at(path)], asked=True)
        elif commit is not None and not commit.accepted:
            why = "the files were refused when it last changed, and changed since; it has to change again"
            self.reject([Fault(Code.NOT_COMMITTED, why).at(path)], asked=True)
        elif self._status.is_starting or self.rejected:
            kept = self._keeping.newest() if self._writer.version == 0 else None
            if kept is not None and commit is not None and self._is_lost(commit, kept[0]):
                self._lost_commit = commit.mark
            if commit is not None and commit.mark == self._lost_commit:
                why = "what it last committed is damaged in the state directory, and files changed since; an older "
                self.reject([Fault(Code.NOT_COMMITTED, f"{why}version is served until it changes again").at(path)])
            else:
                self._status.clear()
                if kept is not None:
                    self._serve_last_known_good(*kept)
        return commit is not None and not commit.accepted

    def _is_lost(self, commit: Record, kept: KeptVersion) -> bool:
        """Whether the newest version that is kept whole is older than what this commit made."""
        if kept.metadata.get("lost_commit") == commit.mark:
            return True
        of = Record.of(kept.metadata.get("commit"))
        return self._keeping.passed_over and (of is None or of.mark != commit.mark)

    def publish(
        self, candidate: Candidate, changed: Sequence[str], began: float, stages: Mapping[str, float] | None = None
    ) -> bool:
        """Make the candidate visible, unless it is what is served; False where there is no room for it.

        changed: names of the files that made the difference. began: time.monotonic() when the work on it began.
        stages: seconds of each stage of that work.
        Raises SegmentLocked when another agent has taken over.
        """
        document = candidate.document
        held, held_no_more = self.held, f"candidate {(self.held or '')[:DIGEST_DIGITS]} is held no more"
        secrets = packed(candidate.secret_paths)
        if self.serves(candidate):
            repaired = bool(self.rejected)
            self._status.clear()
            self._keeping.complete(candidate.layers, candidate.tree)
            if repaired:
                what = "valid again and" if held is None else f"{held_no_more}: the files are"
                text = f"{what} equal to what is served; {still_serving(self.version)}"
                self._say(Said(self.name, text, self.version, Kind.VALID_AGAIN))
            return True
        if document.digest != self._status.unpublishable:
            self._status.clear()  # before: whoever sees the new version finds the status that goes with it
        self._know_lineage()
        publication_began = time.monotonic()
        try:
            version = self._writer.publish(document, publication_metadata.of_candidate(candidate))
        except SegmentLocked:
            raise
        except (Error, OSError) as error:
            self.reject([Problem(f"{UNPUBLISHABLE}: {_reason(error)}", code=Code.NOT_PUBLISHED)])
            self._status.unpublishable = document.digest
            return False
        ended = time.monotonic()
        self._status.clear()
        self._digest, self._secrets = document.digest, secrets
        self._commit, self.rollback = candidate.commit or self._commit, None
        if held not in (None, document.digest):
            self._say(Said(self.name, f"{held_no_more}: the files were changed", version, Kind.RELEASED))
        timings = {**(stages or {}), "publish": ended - publication_began}
        size = len(document.payload)
        comparison = self._lineage.follow(candidate.tree)
        self._say(
            Published(
                *(self.name, version, document.digest, ended - began, tuple(changed), size),
                stages=timings,
                comparison=comparison,
            )
        )
        kept = KeptVersion(
            self._writer.epoch,
            version,
            self._writer.published_at,
            document.digest,
            publication_metadata.of_candidate(candidate),
            tuple(changed),
        )
        self._keeping.keep_made(kept, document.payload, candidate.layers, candidate.tree)
        return True

    def serves(self, candidate: Candidate) -> bool:
        """Whether the candidate is what is served now."""
        return candidate.document.digest == self._digest and packed(candidate.secret_paths) == self._secrets

    def roll_back(self, kept: KeptVersion, payload: bytes, hold: Hold, began: float) -> int:
        """Publish a kept version again, as a rollback that holds; the new version's number. Whoever sees it finds the
        status that goes with it. began: as of `publish`.

        Raises Error or OSError if that cannot be, ValueError if it is no document, and changes nothing then.
        """
        self._know_lineage()
        before = self._status.roll_back(hold)
        metadata = publication_metadata.of_rollback(kept, hold, self._commit, self._lost_commit)
        try:
            version = self._writer.publish(payload, metadata)
        except (Error, OSError, ValueError):
            self._status.take_back(before)
            raise
        self._digest, self._secrets = kept.digest, packed(noted_paths(metadata))
        self.rollback = metadata["rollback"]
        seconds, digest = time.monotonic() - began, kept.digest
        comparison = self._lineage.follow(payload)
        self._say(
            Published(
                self.name, version, digest, seconds, (), len(payload), comparison=comparison, rollback_of=hold.version
            )
        )
        again = KeptVersion(
            self._writer.epoch, version, self._writer.published_at, digest, metadata, keys=kept.keys,
            sources=kept.sources,
        )  # fmt: skip
        self._keeping.keep_again(again, payload)
        return version

    def withhold(self, candidate: Candidate, changed: Sequence[str]) -> None:
        """The candidate is valid and other than what is served, and waits for the end of the hold. changed: as of
        `publish`."""
        hold, digest = self.hold, candidate.document.digest
        assert hold is not None
        if hold.candidate == digest and not self.rejected:
            return
        self._status.clear()
        self.set_hold(dataclasses.replace(hold, candidate=digest))
        files = f" ({', '.join(changed)})" if changed else ""
        text = f"held by rollback, {still_serving(self.version)}: what the files make now{files} is valid and waits for"
        self._say(Said(self.name, f"{text}: {to_resume(self.name)}", self.version, Kind.WITHHELD))

    def settle_history(self) -> None:
        """Wait, some seconds at most, until what was published is kept."""
        self._keeping.settle()

    def reject(self, problems: Sequence[Problem], held: str | None = None, *, asked: bool = False) -> None:
        """The files as they are now are not served, and why; said once, and counted where it is found again.

        held: the digest of the candidate that they make, if it is the guard that holds it. asked: somebody wanted to
        know it once more, who is told, or nothing was judged; that is no reason to say it again.
        """
        found = tuple(problems)
        if self._status.is_told(found, held, asked=asked):
            return
        self._status.begin_to_tell(found)
        kept = self._keeping.newest() if self._writer.version == 0 else None
        stale = kept is not None or (self._writer.version > 0 and self._status.is_starting)
        # before: whoever sees the version that was kept finds the status that goes with it
        self._status.reject(found, held, stale=stale)
        if kept is not None:
            self._serve_last_known_good(*kept)
        self._say(Rejected(self.name, self.version, found, held))

    def note(self, notes: Sequence[str]) -> None:
        """What an operator should know of the sources though nothing failed; replaces what was noted before."""
        self._status.note(notes)

    def tick(self) -> None:
        """Every now and then: put the segment back if somebody removed it, and ask a full disk again.

        Raises SegmentLocked when another agent has taken over.
        """
        try:
            if self._writer.keep_linked():
                text = f"the segment file was removed; put back as version {self.version}"
                self._say(Said(self.name, text, self.version, Kind.RESTORED))
                self.keep_again()
        except SegmentLocked:
            raise
        except (Error, OSError) as error:
            self._status.lost = f"the segment file was removed and cannot be put back: {_reason(error)}"
        else:
            self._status.lost = None
        now = time.monotonic()
        if now >= self._retry_at:
            self._retry_at = now + _RETRY_SECONDS
            self._writer.retry_reservation()
            self._keeping.retry()
        self._status.show()

    def beat(self) -> None:
        """The agent lives. From the feeder's thread."""
        self._writer.beat()

    def close(self) -> None:
        """Stop; the segment stays for its readers."""
        self._status.stop()
        self._keeping.settle()
        self._writer.close()

    def _serve_last_known_good(self, kept: KeptVersion, payload: bytes) -> None:
        """Nothing is visible and the files are invalid: what was good before the reboot is better than nothing."""
        began = time.monotonic()
        metadata = publication_metadata.of_last_known_good(kept, self._lost_commit)
        try:
            version = self._writer.publish(payload, metadata)
        except SegmentLocked:
            raise
        except (Error, OSError, ValueError) as error:  # ValueError: what was kept is no document
            self._say(Said(self.name, f"the last known good cannot be served: {_reason(error)}"))
            self._status.not_stale()
            return
        self._digest, self._secrets = kept.digest, packed(noted_paths(metadata))
        self._lineage.follow(payload)
        seconds = time.monotonic() - began
        self._say(Published(self.name, version, kept.digest, seconds, (), len(payload), stale=True))
        again = KeptVersion(self._writer.epoch, version, self._writer.published_at, kept.digest, metadata)
        self._keeping.keep_found(again, payload, kept)

    def _know_lineage(self) -> None:
        """What the next publication is to be compared with."""
        if self.version and not self._lineage.is_known:
            with suppress(Error):  # what a predecessor left is damaged: then the log has nothing to compare with
                self._lineage.follow(self._payload())

    def _payload(self) -> bytes:
        """Of what is served now. Raises Error where it cannot be read."""
        content = self._writer.published()
        if content is None:
            raise Error("nothing is published")
        return content.payload

    def _look_at_published(self) -> None:
        """What a predecessor left: digest, commit, which of its files had content. After a reboot the disk tells."""
        kept = self._keeping.newest()
        if kept is not None:
            self._nonblank = frozenset(kept[0].files) - frozenset(kept[0].blank_files)
            self._commit = Record.of(kept[0].metadata.get("commit"))
        try:
            content = self._writer.published()
            if content is None:
                return
            published = as_kept(Snapshot(content))
        except Error:
            return  # it is damaged: the first valid candidate takes its place
        self._digest, self._secrets = published.digest, packed(noted_paths(published.metadata))
        self._commit = Record.of(published.metadata.get("commit"))
        self._lost_commit = published.metadata.get("lost_commit")
        rollback = published.metadata.get("rollback")
        self.rollback = rollback if isinstance(rollback, dict) else None
        self._nonblank = frozenset(published.files) - frozenset(published.blank_files)
        self._keeping.adopt(published, content.payload, None if kept is None else kept[0])

    def keep_again(self) -> None:
        """Keep what stands in the segment now: under its new epoch, or as somebody removed what was kept. Raises Error
        where it cannot be read."""
        content = self._writer.published()
        if content is not None:
            self._keeping.keep_relinked(as_kept(Snapshot(content)), content.payload)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

