from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scale_support import ENCODE, document

from m3index.corpus.memory import Documents
from m3index.corpus.readers import FileCorpus
from m3index.files import Folder
from m3index.scale.encode import encode
from m3index.scale.load import Shards
from m3index.scale.repeated import document_keys, documents_of, repeated
from m3index.scale.shards import reading, rows_of
from m3index.types import Document, document_key


def kept(shards: Shards, *, pass_documents: int) -> list[tuple[str, str]]:
    """The documents (id, title) that stay, in order."""
    again = repeated(shards.parts, pass_documents=pass_documents)
    found = []
    for index, (folder, entry) in enumerate(shards.parts):
        with reading(folder.shards, entry.file) as file:
            rows = [row for batch in file.iter_batches() for row in rows_of(batch)]
        found += [(rows[0].doc_id, rows[0].title) for rows in documents_of(iter(rows), again.of_shard(index))]
    return found


def test_keys_are_those_of_the_documents(
    corpus: Callable[..., FileCorpus], encoder: FakeEncoder, out: Folder
) -> None:
    encode(corpus([document(n) for n in range(5)]), out, encoder, ENCODE)
    [(folder, entry)] = Shards.open([out]).parts
    keys, places = document_keys(folder, entry)
    assert [f"{high:016x}{low:016x}" for high, low in keys.tolist()] == [
        document_key("default", f"d{n}") for n in range(5)
    ]
    assert places.tolist() == [0, 1, 2, 3, 4]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.lists(st.integers(0, 12), max_size=25), min_size=1, max_size=3),
    pass_documents=st.integers(1, 40),
)
def test_the_first_of_equal_ids_stays(
    parts: list[list[int]], pass_documents: int, tmp_path_factory: object
) -> None:
    folder = Path(tmp_path_factory.mktemp("shards"))  # type: ignore[attr-defined]
    expected: dict[str, str] = {}
    for number, ids in enumerate(parts):
        documents = [
            Document(f"d{i}", " ".join(["w"] * (1 + 9 * i)), title=f"t{number}-{at}")
            for at, i in enumerate(ids)
        ]
        for one in documents:
            expected.setdefault(one.doc_id, one.title)
        encode(Documents(documents), Folder(folder / str(number)), FakeEncoder(), ENCODE)
    shards = Shards.open([Folder(folder / str(number)) for number in range(len(parts))])
    assert kept(shards, pass_documents=pass_documents) == list(expected.items())
