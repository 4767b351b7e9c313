"""A process that syncs a corpus and can be killed. Arguments: URI, corpus, log file.

Each line of the log is the number of passages of one encoder call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from index.support import FastEncoder

from m3index.corpus.readers import read
from m3index.index.options import SyncOptions
from m3index.index.sync import sync
from m3index.store.open import open_store
from m3index.store.options import Connection
from m3index.types import EncodedBatch, IntArray

SETTINGS = SyncOptions(passage_tokens=48, overlap=8)


class LoggingEncoder(FastEncoder):
    def __init__(self, log: int) -> None:
        super().__init__()
        self.log = log

    def encode_ids(
        self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
    ) -> EncodedBatch:
        os.write(self.log, f"{len(ids)}\n".encode())
        return super().encode_ids(ids, lexical=lexical, multi_vector=multi_vector)


def main(uri: str, corpus: str, log_path: str) -> int:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = open_store(Connection(uri=uri))
    os.write(log, b"0\n")  # ready
    summary = sync(store, LoggingEncoder(log), "docs", read([corpus]), SETTINGS)
    store.close()
    print(summary.to_json(), file=sys.stderr)
    return summary.exit


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
