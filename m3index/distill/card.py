"""The model card: a readable version of the certificate."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from m3index.distill.options import SETTINGS
from m3index.wording import many

_ROWS = (
    ("mean cosine", "mean_cosine"),
    ("negative MSE x 100", "negative_mse_x100"),
    ("Pearson, random pairs", "pearson_random_pairs"),
    ("Spearman, random pairs", "spearman_random_pairs"),
    ("top-5 token overlap", "token_overlap"),
    ("weight correlation", "weight_correlation"),
    ("multi-vector token cosine", "token_cosine"),
)
_WAYS = {
    "teacher": "teacher",
    "untrained": "untrained",
    "student": "student",
    "student_queries": "student's queries, teacher's documents",
    "teacher_queries": "teacher's queries, student's documents",
}
_MODES = ("dense", "lexical", "hybrid")


def of_certificate(certificate: Mapping[str, Any]) -> str:
    """The README.md of a student that has a teacher."""
    teacher, student = certificate["teacher"], certificate["student"]
    parts = [
        _head(certificate),
        _what(student, f"A student of `{teacher['name']}`", certificate["training"], certificate["data"]),
        _agreement(certificate),
        _pairs(certificate["pairs"]),
        _retrieval(certificate["retrieval"]),
        _speed(certificate["speed"]),
        _space(certificate),
        _use(student),
    ]
    return "\n".join(part for part in parts if part)


def of_heads(student: Mapping[str, Any], training: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The README.md of a model with a lexical head from BM25-like weights, which has no comparison."""
    front = "---\nlibrary_name: sentence-transformers\ntags: [m3index, learned-sparse]\n---\n"
    return "\n".join(
        [front, _what(student, f"`{student['name']}` with new heads", training, data), _use(student)]
    )


def _head(certificate: Mapping[str, Any]) -> str:
    base = certificate["teacher"]["name"]
    base_model = f"base_model: {base}\n" if "/" in base and not base.startswith((".", "/", "~")) else ""
    return f"---\nlibrary_name: sentence-transformers\n{base_model}tags: [m3index, distillation]\n---\n"


def _what(
    student: Mapping[str, Any], title: str, training: Mapping[str, Any], data: Mapping[str, Any]
) -> str:
    terms = ", ".join(
        f"{weight} {name}" for name, weight in training["objective"].items() if name not in SETTINGS
    )
    lines = [
        f"# {title}\n",
        f"- {student['layers']} layers, {student['parameters']:,} parameters, {student['dim']} dimensions; "
        f"heads: {', '.join(student['heads'])}",
        f"- trained for {training['steps']:,} steps on {training['tokens']:,} tokens, inputs of at most "
        f"{training['trained_length']} tokens; loss: {terms}",
        f"- {data['inputs']:,} inputs from {many(data['documents'], 'document')} ({data['duplicates']:,} "
        f"duplicates and {data['excluded']:,} excluded texts omitted), digest `{data['digest']}`",
    ]
    if training["layers"] is not None:
        lines.insert(2, f"- the teacher's layers {', '.join(map(str, training['layers']))}")
    if "standardised" in training["objective"]:
        lines.append("- dense vectors and hidden states were centred and scaled before their cosines")
    if "matryoshka" in training["objective"]:
        widths = ", ".join(map(str, training["objective"]["matryoshka"]))
        lines.append(f"- Matryoshka: also trained at the first {widths} dimensions")
    return "\n".join(lines) + "\n"


def _agreement(certificate: Mapping[str, Any]) -> str:
    agreement = certificate["agreement"]
    rows = [
        (label, _number(agreement["untrained"][key]), _number(agreement["student"][key]))
        for label, key in _ROWS
        if agreement["student"][key] is not None
    ]
    title = f"## Agreement with the teacher, {agreement['texts']:,} held-out texts\n"
    return f"{title}\n{_table(('', 'untrained', 'trained'), rows)}"


def _pairs(sets: Sequence[Mapping[str, Any]]) -> str:
    """Spearman's correlations with the teacher, and with people where they scored the pairs."""
    if not sets:
        return ""
    head = ("", "pairs", "untrained", "student", "people: teacher", "untrained", "student")
    figures = [
        [
            pairs["untrained"]["spearman"],
            pairs["student"]["spearman"],
            *(pairs[name]["gold_spearman"] for name in ("teacher", "untrained", "student")),
        ]
        for pairs in sets
    ]
    rows = [
        (pairs["name"], f"{pairs['pairs']:,}", *map(_number, row))
        for pairs, row in zip(sets, figures, strict=True)
    ]
    if len(sets) > 1:
        rows.append(("mean", "", *(_number(_mean(column)) for column in zip(*figures, strict=True))))
    return f"## Spearman on pairs, with the teacher and with people\n\n{_table(head, rows)}"


def _retrieval(sets: Sequence[Mapping[str, Any]]) -> str:
    """A table for each mode: a row for each collection, a column for each way to search."""
    parts = []
    for mode in _MODES:
        measured = [found for found in sets if found[mode]]
        ways = [way for way in _WAYS if any(way in found[mode] for found in measured)]
        if not ways:
            continue
        rows = [
            (
                f"{found['collection']} ({many(found['queries'], 'query', 'queries')}, "
                f"{many(found['documents'], 'document')})",
                *(_interval(found[mode].get(way)) for way in ways),
                _share({way: _ndcg(found[mode].get(way)) for way in ways}),
            )
            for found in measured
        ]
        if len(measured) > 1:
            means = {way: _mean([_ndcg(found[mode].get(way)) for found in measured]) for way in ways}
            rows.append(("mean", *map(_number, means.values()), _share(means)))
        labels = [_WAYS[way] for way in ways]
        parts.append(
            f"## nDCG@10, {mode}, the first {measured[0]['document_tokens']} tokens of each document\n\n"
            f"{_table(('', *labels, 'of the teacher'), rows)}"
        )
    return "\n".join(parts)


def _speed(speed: Mapping[str, Any]) -> str:
    return (
        f"## Speed\n\n{speed['student_texts_per_second']:,.0f} texts/s, compared with "
        f"{speed['teacher_texts_per_second']:,.0f} for the teacher: {speed['ratio']:.2f} times as fast "
        f"({speed['hardware']}, alternating runs, without tokenisation).\n"
    )


def _space(certificate: Mapping[str, Any]) -> str:
    if certificate["shares_space"]:
        verdict = "It can share its teacher's collections: one encodes queries, the other documents."
    else:
        verdict = "It needs its own collections: " + "; ".join(certificate["shortfalls"]) + "."
    return f"## Sharing the teacher's collections\n\n{verdict}\n"


def _use(student: Mapping[str, Any]) -> str:
    lines = ["## Use\n", "    m3index ingest corpus.jsonl --encoder THIS_DIRECTORY\n"]
    lines.append("`SentenceTransformer(THIS_DIRECTORY)` gives the dense vectors.")
    if {"lexical", "colbert"} <= set(student["heads"]):
        lines.append("`BGEM3FlagModel(THIS_DIRECTORY)` gives all three outputs.")
    else:
        lines.append("Do not load it with FlagEmbedding's `BGEM3FlagModel`, which makes up missing heads.")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless every set has the figure."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _ndcg(figures: Mapping[str, float] | None) -> float | None:
    return None if figures is None else figures["ndcg_10"]


def _share(by_way: Mapping[str, float | None]) -> str:
    """The student's nDCG@10 as a share of the teacher's."""
    teacher, student = by_way.get("teacher"), by_way.get("student")
    return f"{student / teacher:.1%}" if student is not None and teacher else "-"


def _interval(figures: Mapping[str, float] | None) -> str:
    return (
        "-"
        if figures is None
        else f"{figures['ndcg_10']:.4f} ({figures['low']:.3f} to {figures['high']:.3f})"
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
