"""A real Milvus, 2.3.5: what its proxy refuses, and what is left when it is killed during an ingest.

Its collections are dense only. The integration suite runs against it too: `make engines`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from engines.servers import MILVUS_2_3, ROOT_TOKEN, Milvus23, milvus_2_3
from index.support import FastEncoder, check_invariant
from integration.corpora import documents, held, in_memory, settings
from integration.engines import Engine
from integration.test_restart import Eager
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from store.material import DENSE, row

from m3index.api import Index
from m3index.errors import UnreachableError
from m3index.index import lock
from m3index.store.definition import indexes, to_milvus

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not MILVUS_2_3.exists(), reason="Milvus 2.3.5 is installed by `make engines`"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Milvus23]:
    with milvus_2_3(tmp_path_factory.mktemp("milvus") / "data") as server:
        yield server


def test_an_ingest_whose_server_is_killed_ends_equal_to_a_rebuild(
    server: Milvus23, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)
    how = settings(Engine(server.uri, ROOT_TOKEN, "server 2.3", given=False))
    items = documents(700)
    eager = Eager(1_000, server.kill)
    with Index.open("killed", uri=server.uri, token=ROOT_TOKEN, timeout=5, encoder=eager) as index:
        with pytest.raises(UnreachableError) as error:
            index.ingest(items, how)
        assert error.value.summary is not None
        written = error.value.summary["passages"]
    server.start()
    encoder = FastEncoder()
    with Index.open("killed", uri=server.uri, token=ROOT_TOKEN, timeout=120, encoder=encoder) as index:
        summary = index.ingest(items, how)
        found = held(index)
    check_invariant(found)
    assert (summary.exit, summary.count_ok) == (0, True)
    assert found == held(in_memory(items, how, FastEncoder()))
    assert encoder.encoded <= summary.passages <= len(found) - written


def test_what_the_proxy_refuses_is_what_m3index_checks_first(server: Milvus23) -> None:
    """Bytes of UTF-8, not characters; finite vectors. Of equal keys in one upsert the first wins."""
    client = MilvusClient(server.uri, token=ROOT_TOKEN, dedicated=True)
    client.create_collection("raw", schema=to_milvus(DENSE, lite=False), consistency_level="Strong")
    client.create_index("raw", indexes(DENSE, lite=False))
    client.load_collection("raw")
    good = row("a", spec=DENSE)
    entity = {
        **{name: getattr(good, name) for name in ("passage_id", "doc_id", "ordinal", "source", "doc_hash")},
        "passages": 1,
        "title": "",
        "text": "first",
        "metadata": {},
        "dense": good.dense,
    }
    for wrong in ({"text": "ü" * 40_000}, {"dense": np.full(DENSE.dim, np.nan, np.float32)}):
        with pytest.raises(MilvusException):
            client.upsert("raw", [{**entity, **wrong}])
    client.upsert("raw", [entity, {**entity, "text": "second"}])
    [kept] = client.query(
        "raw", filter=f'passage_id == "{good.passage_id}"', output_fields=["text"], consistency_level="Strong"
    )
    assert kept["text"] == "first"
    client.close()
