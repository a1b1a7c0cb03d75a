from typing import Any

def libyaml(path: str, /) -> object: ...
def same(left: list[Any], right: list[Any], start: int, stop: int, /) -> bool: ...
def still(directory: str, names: bytes, answers: bytes, /) -> bool: ...
def build(
    libyaml: object,
    data: bytes,
    limits: tuple[int, ...],
    keys: dict[str, Any],
    plain: dict[str, Any],
    parts: tuple[Any, ...],
    /,
) -> list[Any]: ...
