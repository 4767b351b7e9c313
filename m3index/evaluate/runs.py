"""Runs: the rankings of many queries, as files and in the form for the measures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

import numpy as np

from m3index.corpus.decoded import compact_columns, decoded, parts, rows_at_once
from m3index.corpus.lines import text_lines
from m3index.errors import UsageError
from m3index.output import OutputFile, unwritable
from m3index.progress import json_line
from m3index.search.hits import hit_json
from m3index.types import Hit

Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""query_id -> doc_id -> score, higher is better."""

RunFormat: TypeAlias = Literal["trec", "jsonl", "parquet"]

_SUFFIXES: Mapping[str, RunFormat] = {
    ".trec": "trec",
    ".run": "trec",
    ".txt": "trec",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}
_PARQUET_ROWS = 50_000


def read_run(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """A TREC run, or JSONL or Parquet as RunWriter writes them.

    The scores are those of the file. Where its ranks say another order, as of a search with a sort or with
    diversity, they are lowered to it; the ranks of a TREC run mean nothing, as for trec_eval.
    """
    run: dict[str, dict[str, float]] = {}
    ranks: dict[str, dict[str, int]] = {}
    for query_id, doc_id, score, rank in _run_rows(Path(path)):
        ranking = run.setdefault(query_id, {})
        if doc_id in ranking:
            raise UsageError(f"{path}: query {query_id!r} has the document {doc_id!r} twice.")
        ranking[doc_id] = score
        if rank is not None:
            ranks.setdefault(query_id, {})[doc_id] = rank
    for query_id, by_rank in ranks.items():
        order = sorted(by_rank, key=by_rank.__getitem__)
        scores = [run[query_id][doc_id] for doc_id in order]
        if any(one <= other for one, other in pairwise(scores)):
            run[query_id].update(zip(order, falling(scores), strict=True))
    return run


MOST_ROW_BYTES = 1 << 20
"""The decoded bytes of a row of a run in Parquet: an id has at most 64 KiB."""
_BATCH_ROWS, _BATCH_BYTES = 65_536, 16 << 20


def _parquet_rows(path: Path) -> Iterator[tuple[str, str, float, int | None]]:
    """In batches that are bounded by what they decode to, as a corpus is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        described = pq.read_metadata(path)
        columns = sorted(
            {"query_id", "doc_id", "score", "rank"} & {*described.schema.to_arrow_schema().names}
        )
        compact = compact_columns(described)
        with pq.ParquetFile(path, metadata=described, read_dictionary=compact) as file:
            for number in range(file.num_row_groups):
                size = rows_at_once(described.row_group(number), compact, _BATCH_ROWS, _BATCH_BYTES)
                for batch in file.iter_batches(size, [number], columns):
                    for part, sizes in parts(batch, _BATCH_BYTES):
                        if sizes.max(initial=0) > MOST_ROW_BYTES:
                            raise UsageError(f"{path} has a row of more than {MOST_ROW_BYTES:,} bytes.")
                        for row in decoded(part).to_pylist():
                            yield row["query_id"], row["doc_id"], row["score"], row.get("rank")
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UsageError(f"{path} is not a Parquet run: {error}.") from None


def _run_rows(path: Path) -> Iterator[tuple[str, str, float, int | None]]:
    """Query, document, score, and the rank where it counts."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    for number, line in text_lines(path):
        try:
            if line.startswith("{"):
                row = json.loads(line)
                if row.get("type", "hit") == "hit":
                    names = ("boosted_score", "rerank_score", "score")
                    score = next(row[name] for name in names if name in row)
                    rank = row.get("rank")
                    yield row["query_id"], row["doc_id"], float(score), None if rank is None else int(rank)
            else:
                query_id, _, doc_id, _, score, _ = line.split()
                yield query_id, doc_id, float(score), None
        except (ValueError, KeyError, TypeError, StopIteration):
            raise UsageError(
                f"{path}:{number} is not a line of a run; TREC's six columns are query, Q0, document, rank, "
                "score, tag."
            ) from None


class RunWriter:
    """Writes a run query by query. The file appears under its name once it is complete.

    trec: six columns. Scores are lowered where necessary, so that they strictly decrease within a query
    and every tool reads the order of the search. jsonl: the lines of hit.schema.json. parquet: one row
    for each hit, with each leg's rank and score. Raises UsageError if the file cannot be written, and for
    an id with white space in a TREC run.
    """

    def __init__(
        self, path: str | os.PathLike[str], form: RunFormat | None = None, *, tag: str = "m3index"
    ) -> None:
        self.path = Path(path)
        form = form or run_format(self.path)
        self._output = OutputFile(path)
        try:
            self._sink = _sink(self._output.writable, form, tag)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def write(self, query_id: str, hits: Sequence[Hit]) -> None:
        self._sink.write(query_id, hits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._sink.close()
            if kind is None:
                self._output.commit()
        except OSError as failure:
            raise unwritable(self.path, failure) from None
        finally:
            if kind is not None:
                self._output.discard()


class _Sink(Protocol):
    def write(self, query_id: str, hits: Sequence[Hit]) -> None: ...

    def close(self) -> None: ...


class _LineSink:
    def __init__(self, path: Path, lines: Callable[[str, Sequence[Hit]], Iterator[str]]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._lines = lines

    def write(self, query_id: str, hits: Sequence[Hit]) -> None:
        self._file.writelines(f"{line}\n" for line in self._lines(query_id, hits))

    def close(self) -> None:
        self._file.close()


class _ParquetSink:
    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        leg = pa.struct([("rank", pa.int32()), ("score", pa.float64())])
        self._schema = pa.schema(
            [
                ("query_id", pa.string()),
                ("rank", pa.int32()),
                ("doc_id", pa.string()),
                ("passage_id", pa.string()),
                ("source", pa.string()),
                ("score", pa.float64()),
                ("legs", pa.map_(pa.string(), leg)),
            ]
        )
        self._as_table = pa.Table.from_pylist
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, query_id: str, hits: Sequence[Hit]) -> None:
        self._rows += [_parquet_row(query_id, hit) for hit in hits]
        if len(self._rows) >= _PARQUET_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._as_table(self._rows, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _sink(path: Path, form: RunFormat, tag: str) -> _Sink:
    match form:
        case "trec":
            return _LineSink(path, partial(trec_lines, tag=_column(tag, "tag")))
        case "jsonl":
            return _LineSink(path, _json_lines)
        case "parquet":
            return _ParquetSink(path)


def trec_lines(query_id: str, hits: Sequence[Hit], tag: str) -> Iterator[str]:
    """The lines of one query's ranking. Raises UsageError for an id with white space."""
    query = _column(query_id, "query id")
    for hit, score in zip(hits, falling([order_score(hit) for hit in hits]), strict=True):
        yield f"{query} Q0 {_column(hit.doc_id, 'document id')} {hit.rank} {score} {tag}"


def _json_lines(query_id: str, hits: Sequence[Hit]) -> Iterator[str]:
    for hit in hits:
        yield json_line(hit_json(hit, query_id=query_id, text=False))


def _parquet_row(query_id: str, hit: Hit) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "rank": hit.rank,
        "doc_id": hit.doc_id,
        "passage_id": hit.passage_id,
        "source": hit.source,
        "score": order_score(hit),
        "legs": [(name, {"rank": leg.rank, "score": leg.score}) for name, leg in hit.legs.items()],
    }


def run_format(path: Path) -> RunFormat:
    """The format from the file's suffix. UsageError for an unknown one."""
    form = _SUFFIXES.get(path.suffix)
    if form is None:
        raise UsageError(f"{path}: the name of a run must end in {', '.join(_SUFFIXES)}.")
    return form


def as_run(rankings: Mapping[str, Sequence[Hit]]) -> dict[str, dict[str, float]]:
    """Hits by query as a run to measure. The scores strictly decrease, so that the order of the hits is
    what is measured. Of a document's passages, the first counts."""
    run: dict[str, dict[str, float]] = {}
    for query_id, hits in rankings.items():
        best = run[query_id] = {}
        for hit, score in zip(hits, falling([order_score(hit) for hit in hits]), strict=True):
            best.setdefault(hit.doc_id, score)
    return run


def order_score(hit: Hit) -> float:
    """The score that decides the hit's rank, unless a sort or diversity does."""
    if hit.boosted_score is not None:
        return hit.boosted_score
    return hit.score if hit.rerank_score is None else hit.rerank_score


def falling(scores: Sequence[float]) -> list[float]:
    """The scores as float32 values, each lowered by the least that makes it less than the one before.

    trec_eval holds scores as float32 and orders equal ones by document id, descending. Ties, which are
    common in fused scores, would otherwise be read in an order other than the ranking's.
    """
    lowered: list[float] = []
    ceiling = np.float32(np.inf)
    for score in scores:
        value = np.float32(score)
        if not value < ceiling:
            value = np.nextafter(ceiling, np.float32(-np.inf))
        lowered.append(float(value))
        ceiling = value
    return lowered


def _column(value: str, what: str) -> str:
    if not value or any(c.isspace() for c in value):
        raise UsageError(
            f"The {what} {value!r} contains white space or is empty, which a TREC run does not allow; "
            "write JSON lines instead (.jsonl, or --format jsonl)."
        )
    return value
