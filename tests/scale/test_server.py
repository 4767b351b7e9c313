"""Load, bulk load and export against a real Milvus server: `make integration`.

The bucket is that of docker-compose.yml; M3INDEX_TEST_BULK names a folder in another server's, with the
keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from fakes import FakeEncoder
from scale_support import ENCODE, contents

from m3index.corpus.readers import FileCorpus
from m3index.files import Folder
from m3index.index.collection import generation_names
from m3index.scale.bulk import bulk_load
from m3index.scale.encode import encode
from m3index.scale.export import export
from m3index.scale.load import load
from m3index.scale.options import LoadOptions
from m3index.store.base import Store
from m3index.store.bulk import ServerImporter
from m3index.store.open import open_store
from m3index.store.options import Connection

pytestmark = pytest.mark.integration
BUCKET = "s3://a-bucket/m3index-test?endpoint_override=127.0.0.1:9000&scheme=http"
ALIAS = f"scale_{os.getpid()}"


@pytest.fixture
def server() -> Iterator[tuple[Store, str, str]]:
    uri, token = os.environ.get("M3INDEX_TEST_URI", ""), os.environ.get("M3INDEX_TEST_TOKEN", "")
    if not uri:
        pytest.skip("M3INDEX_TEST_URI is not set")
    store = open_store(Connection(uri=uri, token=token or None))
    yield store, uri, token
    store.drop_alias(ALIAS)
    for name in generation_names(store, ALIAS):
        store.drop(name)
    store.close()


@pytest.mark.parametrize("by_bulk", [False, True])
def test_load_then_export_is_what_was_encoded(
    corpus: Callable[..., FileCorpus], encoder: FakeEncoder, out: Folder, server: tuple[Store, str, str],
    by_bulk: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    store, uri, token = server
    encode(corpus(), out, encoder, ENCODE)
    settings = LoadOptions(fields={"year": "int"})
    if by_bulk:
        pytest.importorskip("minio", reason="needs m3index[bulk]")
        if store.describe()["kind"] != "server":
            pytest.skip("Milvus Lite has no bulk import")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, os.environ.get(name, "minioadmin"))
        files = Folder(os.environ.get("M3INDEX_TEST_BULK", BUCKET))
        summary = bulk_load(store, ServerImporter(uri, token), ALIAS, [out], files, settings)
    else:
        summary = load(store, ALIAS, [out], settings)
    assert (summary.added, summary.count_ok, summary.exit) == (60, True, 0)
    back = out.sub("back")
    assert export(store, ALIAS, back).rows == summary.store_count
    assert contents(back) == contents(out)
