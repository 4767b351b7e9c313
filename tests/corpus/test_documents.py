"""Files that are one document each, of every type, through the public `read`."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3index.corpus import formats, places, readers
from m3index.corpus.mapping import FieldMapping
from m3index.corpus.readers import FileCorpus, read
from m3index.documents import kinds, reader
from m3index.documents.front_matter import MAX_FRONT
from m3index.documents.reader import DocumentReader, DocumentReaders
from m3index.errors import UsageError
from m3index.types import Document, Rejected

needs_extra = pytest.mark.skipif(
    not all(map(kinds.is_installed, kinds.PARSED)), reason="the extra `documents` is not installed"
)


def one(path: Path, data: bytes | str, **options: Any) -> Document | Rejected:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    [item] = read([path], **options)
    return item


def reason(path: Path, data: bytes | str) -> str:
    item = one(path, data)
    assert isinstance(item, Rejected)
    assert (item.doc_id, item.identified, item.is_file) == (str(path), True, False)
    return item.reason


# ------------------------------------------------------------------ Markdown


def test_front_matter_is_title_and_metadata(tmp_path: Path) -> None:
    found = one(tmp_path / "tides.md", samples.MARKDOWN)
    assert isinstance(found, Document)
    assert found.title == "Tides"
    assert found.text.startswith("# The tides\n\nThe Moon")
    assert {**found.metadata, "modified": None} == {
        "path": str(tmp_path / "tides.md"), "type": "markdown", "modified": None, "lang": "en",
        "year": 2011, "tags": ["sea", "moon"], "date": "2011-05-04",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("# A note #\n\ntext", "A note", None),
        ("\n\nA note\n======\n\ntext", "A note", None),
        ("text\n\n# Later", "x", None),
        ("## Second level\n", "x", None),
        ("---\n\ntext\n\n---\n", "x", None),
        ("---\ntitle: T\n...\ntext", "T", "text"),
        ("---\r\ntitle: T\r\n---\r\ntext", "T", "text"),
        ("+++\ntitle = 'T'\nyear = 2011\n+++\ntext", "T", "text"),
        ("---\ntype: post\n---\n# H\n", "H", "# H\n"),
        ("---\n---\ntext", "x", None),
        ("--- no rule\ntext", "x", None),
        ("---\ntitle: 2011\n---\ntext", "2011", "text"),
        ("text of --- a rule", "x", None),
    ],
)
def test_titles_of_markdown(tmp_path: Path, text: str, title: str, body: str | None) -> None:
    found = one(tmp_path / "x.md", text)
    assert isinstance(found, Document), found
    assert (found.title, found.text) == (title, text if body is None else body)


ALIASES = "---\na: &a [1, 1]\n" + "".join(f"b{i}: [*a, *a]\n" for i in range(9)) + "---\ntext"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\ntitle: a: b\n---\ntext", "front matter is not YAML at line 2: mapping values are not allowed"),
        ("---\nx: [\n---\ntext", "front matter is not YAML"),
        ("---\nx: !!python/object:os.system {}\n---\ntext", "front matter is not YAML"),
        (ALIASES, r"aliases \(\*name\) are not allowed"),
        ("---\nx: !!binary aGk=\n---\ntext", "holds binary data"),
        ("---\ntitle: [a]\n---\ntext", "the title in its front matter is no text"),
        ("---\nx: " + "a" * 2 * MAX_FRONT + "\n---\ntext", "its front matter is longer than"),
        ("---\nx: " + "[" * 5000 + "\n---\ntext", "front matter is not YAML"),
        ("+++\ntitle = \n+++\ntext", "front matter is not TOML"),
        ("---\ntitle: T\n---\n\n", "it has no text"),
    ],
)
def test_front_matter_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    assert re.search(says, reason(tmp_path / "x.md", text))


# ----------------------------------------------------------------- all others

EVERY: dict[str, tuple[Callable[[], bytes], str, str, dict[str, Any]]] = {
    "page.html": (
        samples.HTML.encode,
        "Brot",
        "# Brot\n\nMehl, Wasser, **Salz** und Zeit.\n\n## Mengen\n\n| Zutat | Gramm |\n| --- | --- |\n"
        "| Mehl | 500 |\n\n```sh\nbake --hot\n```\n\n- eins\n- zwei",
        {"lang": "de", "url": "https://example.org/brot", "date": "2008-01-02"},
    ),
    "bees.rst": (
        samples.RST.encode,
        "Honey bees",
        "# Honey bees\n\nThey *dance*, see Bee and the flowers.\n\nNote\n\nBees sting.\n\n**1.2 Queens.**\n\n"
        "## Code\n\n```python\ndance()\n```\n\n| bee | role |\n| --- | --- |\n| Ada | queen |",
        {},
    ),
    "sea.pdf": (
        lambda: samples.pdf(
            ["1. Tides\nThe Moon pulls.", "Waves\nare high"],
            title="The sea",
            outline=[("Tides", 1), ("Rocks", 2)],
        ),
        "The sea",
        "# 1. Tides\nThe Moon pulls.\n\f\n# Rocks\nWaves\nare high",
        {"author": "Ada", "date": "2011-05-04", "pages": 2},
    ),
    "tea.docx": (
        samples.docx,
        "Report on tea",
        "# Tea\n\nLeaves and water.\n\n| kind | minutes |\n| --- | --- |\n| green | 2 |",
        {"author": "Ada", "date": "2012-03-04T05:06:07Z"},
    ),
    "coffee.pptx": (
        samples.pptx,
        "All about coffee",
        "## Coffee\n\nBeans are roasted.\nAnd ground.\n\nSay it slowly.\n\n## Slide 2\n\n| bean | origin |\n"
        "| --- | --- |\n| arabica | Ethiopia |",
        {"slides": 2},
    ),
    "fire.xlsx": (
        samples.xlsx,
        "fire",
        "## Volcanoes\n\n| name | metres | note |\n| --- | --- | --- |\n| Etna | 3357 | a \\| b c |\n"
        "| Fuji | 3776.5 |  |",
        {"sheets": 1},
    ),
    "shots.odt": (
        samples.odt,
        "On vaccines",
        "# Vaccines\n\nThey teach the body.\n\n| vaccine | doses |\n|---------|-------|\n| polio   | 4     |",
        {},
    ),
    "book.epub": (
        samples.epub,
        "A book",
        "# One\n\nFirst.\n\n# Two\n\nSecond.",
        {"lang": "en", "author": "Ada"},
    ),
    "letter.eml": (
        samples.eml,
        "Grüße",
        "Dear Bob,\n\nthe piano is here.",
        {
            "from": "Ada <a@example.org>", "to": "bob@example.org", "date": "2011-05-04T12:00:00+02:00",
            "attachments": ["bill.pdf"],
        },
    ),
}  # fmt: skip


@needs_extra
@pytest.mark.parametrize("name", EVERY)
def test_every_type(tmp_path: Path, name: str) -> None:
    make, title, text, metadata = EVERY[name]
    found = one(tmp_path / name, make())
    assert isinstance(found, Document), found
    assert (found.title, found.text) == (title, text)
    form = Path(name).suffix[1:]
    assert found.metadata["type"] == form
    assert found.metadata["path"] == found.doc_id
    assert {**found.metadata}.items() >= metadata.items()


@needs_extra
def test_a_folder_of_every_type(tmp_path: Path) -> None:
    for name, (make, *_) in EVERY.items():
        (tmp_path / name).write_bytes(make())
    (tmp_path / "page.html.gz").write_bytes(gzip.compress(samples.HTML.encode()))
    corpus = read([tmp_path])
    assert [item.doc_id for item in corpus] == sorted([*EVERY, "page.html.gz"])
    assert corpus.complete
    assert corpus.skip_counts == {}
    assert corpus.listing.gave == set(), "the id of a document is its file"


@needs_extra
def test_a_mail_in_html(tmp_path: Path) -> None:
    found = one(tmp_path / "a.eml", samples.eml(html=True, attachment=False))
    assert isinstance(found, Document)
    assert found.text == "Dear **Bob**"


@needs_extra
def test_what_stands_around_a_text(tmp_path: Path) -> None:
    """Pages without the elements of HTML 5: menus are lists of links, and layouts are tables."""
    links = "".join(f'<li><a href="/{i}">A page about {i}</a></li>' for i in range(9))
    page = (
        f'<body><div class="navheader"><a>Prev</a></div><table><tr><td><ul>{links}</ul></td><td><h1>Etna</h1>'
        f"<p>{'It is a volcano. ' * 9}</p></td></tr></table><div id='footer'>Imprint</div></body>"
    )
    found = one(tmp_path / "a.html", page)
    assert isinstance(found, Document)
    assert found.text == "# Etna\n\n" + ("It is a volcano. " * 9).strip()
    index = one(tmp_path / "index.html", f"<body><h1>Contents</h1><ul>{links}</ul></body>")
    assert isinstance(index, Document)
    assert "A page about 8" in index.text, "a page of links keeps them"


@needs_extra
def test_code_and_cells_are_whole_lines(tmp_path: Path) -> None:
    page = "<pre>a\n  b\n\n\n\nc</pre><table><tr><th>x<td>y\nz<tr><td>1<td>2|3</table>"
    found = one(tmp_path / "a.html", page)
    assert isinstance(found, Document)
    assert found.text.splitlines()[-3:] == ["| x | y z |", "| --- | --- |", "| 1 | 2\\|3 |"]


# ------------------------------------------------------------------ bad input


def entities(depth: int) -> str:
    """An XML document type whose entity &a8; is 20 * 10 ** 9 characters long."""
    first = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaaaaaaaaaaaa">'
    more = (f'<!ENTITY a{i} "{("&a;" if i == 0 else f"&a{i - 1};") * 10}">' for i in range(depth))
    return first + "".join(more) + "]>"


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a scan": ("a.pdf", lambda: samples.pdf(["", ""]), "it has 2 pages and no text: a scan? Recognise"),
    "100,000 pages": ("a.pdf", lambda: samples.pdf(["x"], count=100_000), "it has 100,000 pages, more than"),
    "a password": ("a.pdf", lambda: samples.pdf(["x"], encrypted=True), "it is encrypted; save it without"),
    "a password of Office": ("a.docx", lambda: OLE, "it has a password, or the format of Office before 2007"),
    "a workbook with a password": ("a.xlsx", lambda: OLE, "it is no workbook that can be read"),
    "no PDF": ("a.pdf", samples.HTML.encode, "it is not PDF (it begins with b'<!DO')"),
    "half a PDF": ("a.pdf", lambda: samples.pdf(["x"])[:300], "it is damaged"),
    "PDF as HTML": ("a.html", lambda: samples.pdf(["x"]), "it is not HTML (it begins with b'%PDF')"),
    "EPUB as Word": ("a.docx", samples.epub, "it is not a Word file"),
    "a workbook as a text": ("a.odt", samples.xlsx, "it is not an OpenDocument text"),
    "text as slides": ("a.pptx", lambda: b"hello", "it is not a PowerPoint file (it begins with b'hell')"),
    "a broken archive": ("a.epub", lambda: samples.epub()[:400], "it is damaged"),
    "an archive bomb": (
        "a.docx", lambda: samples.archive({"word/document.xml": bytes(300_000_000)}), "it unpacks to 300,000",
    ),
    "an archive that lies": (
        "a.docx", lambda: samples.lying(samples.archive({"word/document.xml": bytes(30_000_000)})), "Bad CRC",
    ),
    "many parts": (
        "a.docx", lambda: samples.archive(dict.fromkeys(map(str, range(20_001)), "")), "it has 20,001 parts",
    ),
    "entities in Word": (
        "a.docx", lambda: samples.docx("<w:p><w:r><w:t>&a8;</w:t></w:r></w:p>", entities(9)), "amplification",
    ),
    "entities of files": (
        "a.docx",
        lambda: samples.docx(
            "<w:p><w:r><w:t>&x;</w:t></w:r></w:p>", '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        ),
        "it has no text",
    ),
    "no mail": ("a.eml", lambda: b"PK\x03\x04 what", "it is not a mail: it has no headers"),
    "a mail without text": (
        "a.eml", lambda: b"From: a\nContent-Type: image/png\n\nx", "it has no text, only attachments",
    ),
    "no UTF-8": ("a.rst", lambda: b"caf\xe9", "it is not UTF-8 at byte 4"),
    "an empty page": ("a.html", lambda: b"<html><body><script>x</script></body></html>", "it has no text"),
}  # fmt: skip


@needs_extra
def test_a_bad_file_is_one_bad_file(tmp_path: Path) -> None:
    """Each between good ones, all in one pass: every good one is read."""
    for number, (name, make, _) in enumerate(BAD.values()):
        (tmp_path / f"{number:03}-{name}").write_bytes(make())
        (tmp_path / f"{number:03}-z.pdf").write_bytes(samples.pdf(["good"]))
    start = time.perf_counter()
    corpus = read([tmp_path])
    items = list(corpus)
    assert time.perf_counter() - start < 60
    assert [type(item) for item in items] == [Rejected, Document] * len(BAD)
    for (what, (_, _, says)), item in zip(BAD.items(), items[::2], strict=True):
        assert isinstance(item, Rejected)
        assert says in item.reason, what
        assert len(item.reason) < 300, what
    assert corpus.complete, "every file has an id, so that what has left the corpus is known"


@needs_extra
def test_nothing_is_included_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    source = (
        f".. include:: {tmp_path}/secret.txt\n\n.. raw:: html\n   :file: {tmp_path}/secret.txt\n\nhello\n"
    )
    found = one(tmp_path / "a.rst", source)
    assert isinstance(found, Document)
    assert found.text == "hello"


@needs_extra
@pytest.mark.parametrize(
    ("limits", "data", "says"),
    [
        ({"seconds": 5}, b"<div>" * 200_000 + b"x", "reading it takes more than 5 s"),
        ({"memory": 300 * 2**20}, b"<p>" + b"x" * 100_000_000, "GiB of memory"),
    ],
)
def test_a_file_that_takes_all_time_or_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], data: bytes, says: str
) -> None:
    monkeypatch.setattr(reader, "DocumentReader", lambda: DocumentReader(**limits))
    (tmp_path / "a.html").write_bytes(data)
    (tmp_path / "b.html").write_bytes(samples.HTML.encode())
    bad, good = read([tmp_path])
    assert isinstance(bad, Rejected)
    assert says in bad.reason
    assert isinstance(good, Document), "the next file has a new process"


@needs_extra
def test_a_library_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crashing(DocumentReader):
        def _ask(self, kind: Any, data: bytes) -> Any:
            if b"crash" in data and self._process is not None:
                self._process.kill()
                self._process._process.wait()
            return super()._ask(kind, data)

    monkeypatch.setattr(reader, "DocumentReader", Crashing)
    for name, text in {"a": "one", "b": "crash", "c": "three"}.items():
        (tmp_path / f"{name}.html").write_text(f"<p>{text}</p>")
    assert [item.text for item in read([tmp_path]) if isinstance(item, Document)] == ["one", "crash", "three"]


@needs_extra
def test_several_processes_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "DocumentReaders", lambda: DocumentReaders(3))
    names = [f"{i:02}.{'md' if i % 5 == 0 else 'html'}" for i in range(30)]
    for i, name in enumerate(names):
        (tmp_path / name).write_text("<p>word</p>" * (1 if i % 3 else 5000))
    (tmp_path / "10.exe").touch()
    corpus = read([tmp_path])
    assert [item.doc_id for item in corpus] == names
    assert corpus.bytes_read == corpus.total_bytes
    assert corpus.complete


@needs_extra
def test_a_pass_that_ends_early_ends_its_processes(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>first</p>")
    (tmp_path / "b.html").write_bytes(b"<div>" * 200_000)
    items = iter(read([tmp_path]))
    next(items)
    started = time.perf_counter()
    items.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - started < 20
    assert "m3index-documents" not in {thread.name.rpartition("_")[0] for thread in threading.enumerate()}


def test_a_file_that_grows_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1000)
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.is_set():
                file.write(b"x" * 100_000)
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        [item] = read([path], max_line=5_000_000)
    finally:
        stop.set()
        writer.join()
    assert isinstance(item, Document) or item.reason == "longer than 5,000,000 bytes"


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"id": "{name}", "text": "x"}}\n')
    corpus = read([tmp_path])
    items = iter(corpus)
    assert isinstance(next(items), Document)
    (tmp_path / "b.jsonl").unlink()
    os.mkfifo(tmp_path / "b.jsonl")
    assert list(items) == []
    assert corpus.listing.left("b.jsonl")


def test_pipes_and_empty_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "b.pdf").touch()
    os.mkfifo(tmp_path / "c.md")
    corpus = read([tmp_path])
    assert len(list(corpus)) == 1
    assert corpus.skip_counts["not a regular file"] == 1
    assert len(corpus.listing.unread) == 2


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "is_installed", lambda _: False)
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "b.pdf").write_bytes(b"x")
    corpus = read([tmp_path])
    assert len(list(corpus)) == 1
    assert corpus.skip_counts == {"needs m3index[documents]": 1}
    with pytest.raises(
        UsageError, match=r"needs the extra 'documents'\. Install it with: .* 'm3index\[documents\]'"
    ):
        read([tmp_path / "b.pdf"])


# ----------------------------------------------------------------------- JSON


def json_corpus(path: Path, data: str | bytes) -> tuple[FileCorpus, list[Document | Rejected]]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    corpus = read([path])
    return corpus, list(corpus)


ROWS = [{"id": str(i), "text": f'text {i} \n "x", [é' * 50, "n": i} for i in range(2000)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, max_size=5), st.integers(1, 40), st.booleans(), st.sampled_from([None, 1]))
def test_arrays_are_read_in_pieces_of_any_size(
    tmp_path: Path, values: list[Any], block: int, ascii_only: bool, indent: int | None
) -> None:
    rows = [{"id": 0}, *values]
    data = json.dumps(rows, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_BLOCK", block)
        stream = io.BufferedReader(io.BytesIO(data))  # type: ignore[type-var]
        found = list(formats.json_array(stream, "x", 10_000, FieldMapping()))
    assert [json.loads(row.raw) if isinstance(row, Rejected) else row.row for row in found] == rows


def test_other_json_beside_a_corpus_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS[:2]))
    (tmp_path / "package.json").write_text('{"name": "x", "version": 1}')
    corpus = read([tmp_path])
    assert [item.doc_id for item in corpus] == ["0", "1"]
    assert corpus.complete
    assert corpus.skip_counts == {"JSON without rows": 1}
    assert [Path(entry.path).name for entry in corpus.skips()] == ["package.json"]
    assert corpus.listing.left("package.json")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_array_of_rows(tmp_path: Path, indent: int | None, ascii_only: bool) -> None:
    corpus, items = json_corpus(
        tmp_path / "a.json", "\ufeff \n" + json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only) + "\n\n"
    )
    assert [(item.doc_id, item.text) for item in items if isinstance(item, Document)] == [
        (row["id"], row["text"]) for row in ROWS
    ]
    assert items[7].place is not None
    assert (items[7].place.line, items[7].metadata) == (8, {"n": 7})  # type: ignore[union-attr]
    assert corpus.complete
    assert corpus.listing.gave == {str(tmp_path / "a.json")}


@pytest.mark.parametrize(
    ("text", "documents", "rejected", "error"),
    [
        ('{"id": "1", "text": "a"}', 1, [], ""),
        ("[]", 0, [], ""),
        ('[{"id": "1", "text": "a"}, 7, {"id": "2"}]', 1, ["not an object, but 7", "no text"], ""),
        ('[{"id": "1", "text": "a"}, {"id": "2", "text": "b"', 1, [], "not JSON: Expecting"),
        ('[{"id": "1", "text": "a"}', 1, [], "it ends within the array, after row 1"),
        ('[{"id": "1", "text": "a"}]\n[]', 1, [], "something follows the array"),
        ('[{"id": "1", "text": "a"}{"id": "2", "text": "b"}]', 0, [], "no comma after a row"),
        ('[{"id": "1", "text": "a"} {"id": "2", "text": "b"}]', 1, [], "no comma or end after row 1"),
        ('{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}', 1, [], "set --input-format jsonl"),
        ("[" * 100_000, 0, [], "nested too deep"),
        ("hello", 0, [], "not JSON"),
        ('{"name": "settings"}', 0, [], "JSON without rows"),
        ("[1, 2]", 0, [], "JSON without rows"),
        (b'[{"id": "\xff"}]', 0, [], "not UTF-8"),
        ("[1" + "0" * 5000 + "]", 0, [], "not JSON"),
    ],
)  # fmt: skip
def test_arrays_that_are_none(
    tmp_path: Path, text: str | bytes, documents: int, rejected: list[str], error: str
) -> None:
    corpus, items = json_corpus(tmp_path / "a.json", text)
    assert sum(isinstance(item, Document) for item in items) == documents
    found = [item.reason for item in items if isinstance(item, Rejected)]
    assert len(found) == len(rejected)
    assert all(a in b for a, b in zip(rejected, found, strict=True))
    assert [e.reason for e in corpus.read_errors if error not in e.reason] == []
    assert bool(corpus.read_errors) == bool(error)
