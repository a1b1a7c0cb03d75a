"""A reader in a process of its own: follows every version, and tells at the end what it has.

Arguments: the runtime directory. On stdin, once: the version to end with. On stdout: the number of versions seen and
the SHA-256 of the last one's tree, as repr gives it. Exits with 1 if a version goes back or an entry is not itself.
"""

from __future__ import annotations

import hashlib
import os
import select
import sys

from soak_texts import digest_of

import shmconf


def main() -> int:
    seen = version = 0
    last: int | None = None
    with shmconf.attach("soak", directory=sys.argv[1], wait=120.0) as config:
        while last is None or version < last:
            if last is None and select.select([0], [], [], 0)[0]:
                said = os.read(0, 100)
                if not said:
                    return 1  # whoever started this has given up
                last = int(said)
            snapshot = config.wait(after=version, timeout=0.2)
            if snapshot is None:
                continue
            if snapshot.version <= version:
                print(f"version {snapshot.version} after {version}")
                return 1
            version, tree = snapshot.version, snapshot.to_dict()
            seen += 1
            for name, entry in tree["data"].items():
                if name != "shared" and entry["digest"] != digest_of(name, entry["number"]):
                    print(f"version {version}: {name} is not itself: {entry}")
                    return 1
    print(seen, hashlib.sha256(repr(tree).encode()).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
