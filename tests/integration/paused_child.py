"""A run that stops itself by SIGSTOP right before one call of the store, and goes on at SIGCONT.

Arguments: URI, collection, command (sync or reindex), corpus (JSON lines), call to stop before or `none`.
The lease is shortened to LEASE seconds. Exits with the exit code of the run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fakes import FakeEncoder
from index.support import REINDEX, SETTINGS, ListCorpus

from m3index.errors import Exit, M3IndexError
from m3index.index import lock
from m3index.index.reindex import reindex
from m3index.index.sync import sync
from m3index.store.base import Store
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import Document, Place

LEASE = 3.0
lock.LEASE_SECONDS, lock.PROVED_SECONDS, lock.RENEW_SECONDS, lock.SETTLE_SECONDS = LEASE, 1.0, 0.5, 0.1


def documents(path: str) -> Iterator[Document]:
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        row = json.loads(line)
        yield Document(row["id"], row["text"], place=Place(path, number))


def stop_before(store: Store, call: str, alias: str) -> None:
    """Stops this process at the first such call that the lease must protect."""
    original: Callable[..., Any] = getattr(store, call)
    stopped: list[bool] = []

    def stopping(name: str, *arguments: Any) -> Any:
        is_step = {
            "set_properties": lambda: "last_success" in arguments[0],
            "point": lambda: name == alias,
        }.get(call, lambda: True)
        if not stopped and is_step():
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(name, *arguments)

    setattr(store, call, stopping)


def main(uri: str, collection: str, command: str, corpus: str, call: str) -> Exit | int:
    store = open_store(Connection(uri=uri))
    if call != "none":
        stop_before(store, call, collection)
    items = ListCorpus(documents(corpus))
    try:
        if command == "reindex":
            corpora = {"default": lambda: items}
            return reindex(store, FakeEncoder(name="other"), collection, REINDEX, corpora=corpora).exit
        return sync(store, FakeEncoder(), collection, items, SETTINGS).exit
    except M3IndexError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        store.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
