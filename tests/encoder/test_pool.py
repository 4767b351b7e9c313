"""Documents cut in processes: the same passages, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3index.corpus.cut import cut_stream, windows
from m3index.corpus.options import Division
from m3index.corpus.windows import PassageSize
from m3index.encoder import hardware, pool
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.errors import M3IndexError
from m3index.process import Process
from m3index.types import Document, Passage, Rejected

SIZE = PassageSize(24, 6, "tokens")
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def encoder(m3: Path) -> Iterator[ModelEncoder]:
    encoder = load(str(m3), device="cpu", workers=2)
    yield encoder
    encoder.close()


def plain(passages: Sequence[Passage]) -> list[tuple[object, ...]]:
    return [
        (p.ordinal, p.text, p.start, p.end, p.token_ids.tolist(), p.token_ids.dtype, p.breadcrumb, p.anchor)
        for p in passages
    ]


def cut_all(encoder: ModelEncoder, documents: Sequence[Document], size: PassageSize = SIZE) -> list[object]:
    found: list[object] = []

    def rejected(row: Rejected) -> None:
        found.append((row.doc_id, row.reason))

    for document, passages in windows(documents, encoder.tokenizer, size, rejected):
        found.append((document.doc_id, plain(passages)))
    return found


WORDS = st.sampled_from(
    [w for line in models.LINES for w in line.split()]
    + ["\ud800", "x" * 90, "\n\n", "🐝.", "\n\n# One\n\n", "\n\n## Two\n\n", "\n```\n"]
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.tuples(st.lists(WORDS, max_size=12), st.lists(WORDS, min_size=1, max_size=120)), max_size=8
    ),
    batch=st.integers(1, 3),
    by=st.sampled_from(["structure", "tokens"]),
)
def test_processes_give_the_same_passages_and_rejections_in_order(
    m3: Path, encoder: ModelEncoder, texts: list[tuple[list[str], list[str]]], batch: int, by: Division
) -> None:
    documents = [
        Document(str(i), "a " + " ".join(text), " ".join(title), format="markdown" if i % 2 else "")
        for i, (title, text) in enumerate(texts)
    ]
    size = replace(SIZE, by=by)
    here = load(str(m3), device="cpu", workers=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m3index.corpus.cut._BATCH_DOCUMENTS", batch)
        assert cut_all(encoder, documents, size) == cut_all(here, documents, size)


def test_items_without_a_document_pass_through_in_their_place(encoder: ModelEncoder) -> None:
    items = [Document(str(i), f"text {i} " * (1 + i % 5)) if i % 3 else i for i in range(40)]
    stream = cut_stream(items, lambda i: i if isinstance(i, Document) else None, encoder.tokenizer, SIZE)
    for item, (got, found) in zip(items, stream, strict=True):
        assert got is item
        assert (found is None) == isinstance(item, int)


def test_what_needs_no_work_does_not_wait_for_what_follows(encoder: ModelEncoder) -> None:
    read = []

    def items() -> Iterator[int]:
        for i in range(100):
            read.append(i)
            yield i

    for i, (item, _) in enumerate(cut_stream(items(), lambda _: None, encoder.tokenizer, SIZE)):
        assert (item, len(read)) == (i, i + 1)


def test_reading_ahead_is_bounded(encoder: ModelEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3index.corpus.cut._BATCH_DOCUMENTS", 1)
    read = 0

    def endless() -> Iterator[Document]:
        nonlocal read
        while True:
            read += 1
            yield Document(str(read), f"text {read}")

    stream = cut_stream(endless(), lambda document: document, encoder.tokenizer, SIZE)
    for number in range(1, 50):
        assert next(stream)[0].doc_id == str(number)
        assert read - number <= 2 * pool._AHEAD + 1
    stream.close()  # type: ignore[attr-defined]


def processes_of(encoder: ModelEncoder) -> list[Process]:
    tokenizer = encoder.tokenizer
    assert isinstance(tokenizer, pool.TokenizerPool)
    assert tokenizer._pool is not None
    return tokenizer._pool.processes


def test_a_process_that_ends_is_an_error_that_says_so(m3: Path) -> None:
    encoder = load(str(m3), device="cpu", workers=1)
    documents = [Document("a", "some text")]
    cut_all(encoder, documents)
    [process] = processes_of(encoder)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(M3IndexError, match=r"exit status -9.*--workers 0"):
        cut_all(encoder, documents)
    encoder.close()


def test_an_error_in_a_process_is_that_of_the_process(m3: Path, encoder: ModelEncoder) -> None:
    """Whatever `cut` raises: here for a size that was never checked."""
    here = load(str(m3), device="cpu", workers=0)
    raised = []
    for each in (encoder, here):
        with pytest.raises(Exception) as caught:
            list(each.tokenizer.cuts([(None, [("", None)])], SIZE))  # type: ignore[list-item]
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]


def test_closing_ends_the_processes_and_they_start_again(m3: Path) -> None:
    encoder = load(str(m3), device="cpu", workers=2)
    for _ in range(2):
        cut_all(encoder, [Document("a", "some text")])
        processes = processes_of(encoder)
        encoder.close()
        assert [process.close() for process in processes] == [0, 0]


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this test runs in the background
from m3index.encoder.load import load
from m3index.corpus.cut import windows
from m3index.corpus.windows import PassageSize
from m3index.types import Document
encoder = load(sys.argv[1], device="cpu", workers=2)
documents = (Document(str(i), "some text " * 50) for i in range(10**9))
for number, _ in enumerate(windows(documents, encoder.tokenizer, PassageSize(24, 6, "tokens"))):
    if number == 600:
        print(*(p.pid for p in encoder.tokenizer._pool.processes), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent_and_ctrl_c_is_its_alone(m3: Path, how: int) -> None:
    """Not the parent alone, but its whole process group gets the signal, as from a terminal."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(m3)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    os.killpg(parent.pid, how)
    _, errors = parent.communicate(timeout=30)
    assert errors.count("Traceback") == (how == signal.SIGINT)  # that of the parent, which does not handle it
    deadline = time.monotonic() + 10
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_runs, workers))


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return status != "Z"  # a zombie waits for the init of this machine


@pytest.mark.parametrize(
    ("asked", "devices", "cores", "expected"),
    [
        ("auto", ["cpu"], 16, 0),
        ("auto", ["cuda:0"], 16, 8),
        ("auto", ["cuda:0"], 4, 2),
        ("auto", ["cuda:0"], 1, 1),
        ("auto", ["cuda:0", "cuda:1"], 64, 16),
        (3, ["cpu"], 2, 3),
        (0, ["cuda:0"], 16, 0),
    ],
)
def test_processes_by_default_where_cuda_is_used(
    monkeypatch: pytest.MonkeyPatch, asked: int | str, devices: list[str], cores: int, expected: int
) -> None:
    import torch

    monkeypatch.setattr(hardware, "devices", lambda _: [torch.device(name) for name in devices])
    monkeypatch.setattr(hardware, "usable_cores", lambda: cores)
    assert hardware.worker_processes(asked, "auto") == expected  # type: ignore[arg-type]


def test_ids_are_rows_of_one_array(encoder: ModelEncoder) -> None:
    documents = [Document(str(i), "some text") for i in range(3)]
    rows = [p[0].token_ids for _, p in windows(documents, encoder.tokenizer, SIZE)]
    assert all(np.shares_memory(row, rows[0].base) for row in rows)
