"""The rivals, one module each."""

from .blackboard import Blackboard, BlackboardKept
from .disk_cache import DiskCache
from .lightning import Lightning
from .managed_dict import ManagedDict
from .redis_socket import RedisSocket
from .rival import Rival
from .shared_dict import SharedDict
from .sqlite import Sqlite
from .stat_and_parse import StatAndParse
from .ultra import Ultra

RIVALS: list[type[Rival]] = [
    Ultra,
    Lightning,
    SharedDict,
    DiskCache,
    Sqlite,
    Blackboard,
    BlackboardKept,
    ManagedDict,
    StatAndParse,
    RedisSocket,
]

__all__ = ["RIVALS", "Rival"]
