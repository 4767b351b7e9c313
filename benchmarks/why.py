#!/usr/bin/env python3
"""Why relevant documents are missing from the first hits on SciFact, each answer checked by its repair.

    python benchmarks/why.py [--data ../shared/data/scifact] [--uri results/results.db] [--split test]

Asks the queries of a split, and for each relevant document that is not among the first k hits names the stage
that keeps it out (m3index why). Then the search is made again with the repair of this stage and nothing else,
through the public interface: the document must be among the first k. --uri: a database that already has the
collection `scifact` (benchmarks/results.sh); else the abstracts are ingested into a temporary one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from m3index.encoder.options import Model
from m3index.evaluate.formats import read_qrels, read_queries
from m3index.index.options import IngestOptions
from m3index.options import changed
from m3index.search.options import SearchOptions, Sought
from m3index.search.stages import Repair, Stage, Why
from m3index.service import IndexService
from m3index.store.options import Connection


@contextmanager
def opened(data: Path, uri: str | None, encoder: str) -> Iterator[IndexService]:
    with tempfile.TemporaryDirectory() as folder:
        connection = Connection(collection="scifact", uri=uri or f"{folder}/scifact.db")
        model = Model() if uri else Model(encoder=encoder)
        with IndexService.open(connection, model) as index:
            if uri is None:
                index.update(next(data.glob("corpus.jsonl*")), IngestOptions())
            yield index


def found(index: IndexService, query: str, options: SearchOptions, doc_id: str, repair: Repair) -> bool:
    """Whether the search with the repair has the document among its hits."""
    hits = index.search(repair.query or query, changed(options, repair.changes))
    return any(hit.doc_id == doc_id for hit in hits)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/scifact"))
    parser.add_argument("--uri")
    parser.add_argument("--encoder", default="offline")
    parser.add_argument("--split", default="test")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--mode", default="hybrid")
    parser.add_argument("--rerank")
    given = parser.parse_args()
    qrels = read_qrels(given.data / "qrels" / f"{given.split}.tsv")
    queries = [q for q in read_queries(given.data / "queries.jsonl") if q.query_id in qrels]
    options = SearchOptions(k=given.k, mode=given.mode, rerank=given.rerank, texts=False)
    answers: list[tuple[Why, bool]] = []
    asked = 0
    with opened(given.data, given.uri, given.encoder) as index:
        started = time.process_time()
        for query in queries:
            shown = {hit.doc_id for hit in index.search(query.text, options)}
            for doc_id in [d for d, grade in qrels[query.query_id].items() if grade > 0]:
                asked += 1
                if doc_id in shown:
                    continue
                sought = Sought(doc_id, k=given.k, mode=given.mode, rerank=given.rerank)
                answer = index.why(query.text, sought)
                repaired = answer.repair is not None and found(
                    index, query.text, options, doc_id, answer.repair
                )
                answers.append((answer, repaired))
                print(f"{query.query_id}\t{doc_id}\t{answer.stage}\t{repaired}\t{answer.repair}", flush=True)
        seconds = time.process_time() - started
    report(answers, asked, len(queries), seconds)


def report(answers: list[tuple[Why, bool]], asked: int, queries: int, seconds: float) -> None:
    print(
        f"\n{queries} queries, {asked} relevant documents, {len(answers)} not among the first hits; "
        f"{seconds / max(1, len(answers)):.1f} CPU seconds for each, all searches counted"
    )
    by_stage: dict[Stage, list[tuple[Why, bool]]] = defaultdict(list)
    for answer, repaired in answers:
        by_stage[answer.stage].append((answer, repaired))
    print("| stage | documents | shown by its repair | rank then, median | what is changed |")
    print("|---|---|---|---|---|")
    for stage in Stage:
        if rows := by_stage.get(stage):
            ranks = [a.repair.rank for a, _ in rows if a.repair is not None and a.repair.rank is not None]
            print(
                f"| {stage} | {len(rows)} | {sum(repaired for _, repaired in rows)} "
                f"| {median(ranks) if ranks else '-'} | {_changes(rows)} |"
            )


def _changes(rows: list[tuple[Why, bool]]) -> str:
    names: Counter[str] = Counter()
    words: list[int] = []
    for answer, _ in rows:
        repair = answer.repair
        if repair is None:
            names["nothing helps"] += 1
        elif repair.query is not None:
            words.append(len(repair.query.split()) - len(answer.query.split()))
        else:
            names[", ".join(_named(repair.changes))] += 1
    parts = [f"{name} ({count})" for name, count in names.most_common()]
    if words:
        parts.append(f"{median(words):g} words more in the median, at most {max(words)} ({len(words)})")
    return "; ".join(parts)


def _named(changes: Any) -> list[str]:
    return [
        name for name, value in changes.items() if name != "k" and (value is not None or name == "rerank")
    ]


if __name__ == "__main__":
    main()
