"""The server dies during an ingest and comes back; the tests start a separate server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from index.support import FastEncoder
from integration.conftest import NewIndex
from integration.corpora import documents, held, in_memory, layout
from integration.engines import Engine
from servers import free_port, start_lite_server, stop

from m3index.errors import UnreachableError
from m3index.types import Document

pytestmark = pytest.mark.integration


class Dying:
    """A `milvus-lite server` that is killed during writes and restarted on its data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process = start_lite_server(folder, self.port)

    def kill(self) -> None:
        stop(self.process, signal.SIGKILL)

    def start(self) -> None:
        self.process = start_lite_server(self.folder, self.port)

    def close(self) -> None:
        stop(self.process)


@pytest.fixture(scope="module")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dying]:
    engine.needs("restart")
    server = Dying(tmp_path_factory.mktemp("restart") / "dying")
    yield server
    server.close()


class Eager(FastEncoder):
    """An encoder that makes a callback after a number of texts."""

    def __init__(self, at: int, then: Any) -> None:
        super().__init__()
        self.at, self.then = at, then

    def encode_ids(self, ids: Any, **options: Any) -> Any:
        encoded = super().encode_ids(ids, **options)
        if self.encoded >= self.at and self.then is not None:
            then, self.then = self.then, None
            then()
        return encoded


def many() -> list[Document]:
    return documents(700)


def test_an_ingest_waits_for_a_server_that_comes_back(
    engine: Engine, server: Dying, new_index: NewIndex
) -> None:
    how = layout(engine)
    back = threading.Timer(1.5, server.start)

    def die() -> None:
        server.kill()
        back.start()

    index = new_index("it_waits", uri=f"http://127.0.0.1:{server.port}", token=None, timeout=60,
                      encoder=Eager(1_000, die))  # fmt: skip
    summary = index.ingest(many(), **how)
    back.join()
    assert (summary.exit, summary.count_ok) == (0, True)
    assert held(index) == held(in_memory(many(), how, FastEncoder()))
    index.close()


def test_an_ingest_whose_server_stays_down_continues_in_the_next_run(
    engine: Engine, server: Dying, new_index: NewIndex
) -> None:
    how, uri = layout(engine), f"http://127.0.0.1:{server.port}"
    index = new_index("it_goes_on", uri=uri, token=None, timeout=2, encoder=Eager(1_000, server.kill))
    with pytest.raises(UnreachableError) as error:
        index.ingest(many(), **how)
    assert error.value.summary is not None
    written = error.value.summary["passages"]
    index.close()

    server.start()
    encoder = FastEncoder()
    again = new_index("it_goes_on", uri=uri, token=None, encoder=encoder)
    summary = again.ingest(many(), **how)
    assert (summary.exit, summary.count_ok) == (0, True)
    assert held(again) == held(in_memory(many(), how, FastEncoder()))
    assert encoder.encoded <= summary.store_count - written, "nothing acknowledged is encoded again"
    again.close()
