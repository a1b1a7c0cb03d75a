"""How much one file may ask of the agent and of every process that reads the result.

The defaults are far beyond any configuration written by hand and far below what would hurt: a file that passes one
of them is refused with the limit's name, before it costs more memory than the limit allows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one file may hold.

    max_bytes: size of the file, in bytes.
    max_depth: maps and lists within one another, the top level being the first; counted after aliases are expanded.
    max_nodes: maps, lists, keys and values together; counted after aliases and merge keys are expanded.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_depth: int = 128
    max_nodes: int = 5_000_000

    def too_large(self, size: int) -> str:
        """The message for a file of `size` bytes, which is more than max_bytes."""
        return f"the file has {size:,} bytes, more than the limit max_bytes = {self.max_bytes:,}"

    def too_deep(self) -> str:
        """The message for the map or list that passes max_depth."""
        return f"nested deeper than the limit max_depth = {self.max_depth:,}"

    def too_many_nodes(self) -> str:
        """The message for the key or value that passes max_nodes."""
        return f"more keys and values, aliases and merges expanded, than the limit max_nodes = {self.max_nodes:,}"


DEFAULT_LIMITS = Limits()
