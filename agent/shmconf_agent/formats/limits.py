"""How much the sources of a segment may ask of the agent and of every process that reads the result.

The defaults are far beyond any configuration written by hand and far below what would hurt: what passes one of them
is refused with the limit's name, before it costs more memory than the limit allows. A segment sets its own in
[segment.NAME.limits], where every key is a limit's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..problems import Code, Fault


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that the sources of a segment may hold.

    max_file_bytes: size of one file, in bytes.
    max_total_bytes: size of all files together, in bytes.
    max_files: files that the sources name together.
    max_depth: maps and lists within one another, the top level being the first; counted after aliases are expanded.
    max_nodes: maps, lists, keys and values together; counted after aliases and merge keys are expanded.
    max_keys: entries of all maps together; counted likewise.
    max_documents: documents of one file (YAML), each of which is a layer.
    table: the table of the agent's file in which they can be raised; "" where none can.

    Depth, nodes and keys are those of each file, all its documents together, and of the merged tree.
    """

    max_file_bytes: int = 64 * 1024 * 1024
    max_total_bytes: int = 256 * 1024 * 1024
    max_files: int = 10_000
    max_depth: int = 128
    max_nodes: int = 2_000_000
    max_keys: int = 1_000_000
    max_documents: int = 10_000
    table: str = field(default="", compare=False)

    def too_large(self, size: int) -> Fault:
        """Of a file of `size` bytes, which is more than max_file_bytes."""
        return self._passed(Code.LIMIT_BYTES, f"the file has {size:,} bytes, more than", "max_file_bytes")

    def too_large_together(self, size: int) -> Fault:
        """Of a file of `size` bytes, with which the files have more than max_total_bytes."""
        message = f"with the {size:,} bytes of this file all sources together have more than"
        return self._passed(Code.LIMIT_TOTAL_BYTES, message, "max_total_bytes")

    def too_many_files(self, count: int) -> Fault:
        """Of a source of `count` files, with which the sources name more than max_files."""
        files = "file" if count == 1 else "files"
        message = f"with the {count:,} {files} of this source all sources together name more than"
        return self._passed(Code.TOO_MANY_FILES, message, "max_files")

    def too_deep(self) -> Fault:
        """Of the map or list that passes max_depth."""
        return self._passed(Code.LIMIT_DEPTH, "nested deeper than", "max_depth")

    def too_many_nodes(self) -> Fault:
        """Of the key or value that passes max_nodes."""
        return self._passed(Code.LIMIT_NODES, "more keys and values, aliases and merges expanded, than", "max_nodes")

    def too_many_keys(self) -> Fault:
        """Of the key that passes max_keys."""
        return self._passed(Code.LIMIT_KEYS, "more keys, aliases and merges expanded, than", "max_keys")

    def too_many_documents(self) -> Fault:
        """Of the document that passes max_documents."""
        return self._passed(Code.LIMIT_DOCUMENTS, "more documents than", "max_documents")

    def _passed(self, code: Code, message: str, name: str) -> Fault:
        hint = f"raise it in [{self.table}] of the agent's file" if self.table else None
        return Fault(code, f"{message} the limit {name} = {getattr(self, name):,}", hint)


DEFAULT_LIMITS = Limits()
