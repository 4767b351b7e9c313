"""Writes shards here, or in a process of its own: Parquet takes about as long as all else that the host does
for a passage beside a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from m3index.process import Channel, Process, portable
from m3index.scale.shards import Fingerprint, ShardWriter, Writer

OpenWriter: TypeAlias = Callable[[Path, Fingerprint], ShardWriter]


@contextmanager
def writers(*, apart: bool) -> Iterator[OpenWriter]:
    """What opens the writer of a shard. apart: whether a process of its own writes them, one at a time."""
    if not apart:
        yield Writer
        return
    process = Process("m3index.scale.writers:write_shards", "writes shards")
    try:
        yield lambda path, fingerprint: _WriterApart(process, path, fingerprint)
    finally:
        process.close()


class _WriterApart:
    """Sends the record batches to the process; the pipe holds it up if the process is slower."""

    def __init__(self, process: Process, path: Path, fingerprint: Fingerprint) -> None:
        self._process, self._schema = process, fingerprint.arrow
        process.send((path, fingerprint))

    def add(self, batch: pa.RecordBatch) -> None:
        self._process.send_bytes(memoryview(batch.serialize()))

    def close(self) -> tuple[int, str]:
        self._process.send_bytes(b"")
        size, digest = self._process.receive()
        return size, digest


def write_shards(channel: Channel) -> None:
    """Takes (path, fingerprint), batches, and no bytes at the end of a shard; answers with what
    `Writer.close` returns, or with the first error."""
    while True:
        path, fingerprint = channel.receive()
        schema = fingerprint.arrow
        writer, failed = None, None
        try:
            writer = Writer(path, fingerprint)
        except Exception as error:
            failed = error
        while data := channel.receive_bytes():
            try:
                if writer is not None and failed is None:
                    writer.add(pa.ipc.read_record_batch(pa.py_buffer(data), schema))
            except Exception as error:
                failed = error
        try:
            answer = writer.close() if writer is not None else None
        except Exception as error:
            failed = failed or error
        channel.send(answer if failed is None else portable(failed))
