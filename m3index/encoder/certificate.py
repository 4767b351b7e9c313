"""Whether a student may share its teacher's space: what its `certificate.json` says, and the bars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3index.encoder.layout import Layout

NAME = "certificate.json"


@dataclass(frozen=True, slots=True)
class Bars:
    """What a student must reach against its teacher, on held-out texts.

    cosine: mean of its dense vectors with the teacher's. token_overlap: mean share of the teacher's five
    heaviest tokens that are among its own, where the teacher has lexical weights. mixed: nDCG@10 with one
    model's queries and the other's documents, as a share of the teacher's own, in both directions, where
    a test collection was given.
    """

    cosine: float = 0.9
    token_overlap: float = 0.7
    mixed: float = 0.95


BARS = Bars()


def space_id(layout: Layout, own: str) -> str:
    """The teacher's space, where the directory's certificate is of these very weights and settings and
    passes; else the model's own, its `layout.space_digest`."""
    certificate = read(layout.root)
    if certificate is None or certificate["student"]["space_id"] != own or shortfalls(certificate):
        return own
    return str(certificate["teacher"]["space_id"])


def read(directory: Path) -> Mapping[str, Any] | None:
    """The certificate of a model directory; None where there is none, or none that can be read."""
    try:
        certificate = json.loads((directory / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(certificate, dict) and certificate.get("version") == 1
    return certificate if known else None


def shortfalls(certificate: Mapping[str, Any], bars: Bars = BARS) -> list[str]:
    """Why the student may not share its teacher's space; empty where it may."""
    teacher, student = certificate["teacher"], certificate["student"]
    found = certificate["agreement"]["student"]
    reasons = []
    if student["dim"] != teacher["dim"]:
        reasons.append(f"its vectors have {student['dim']} dimensions, the teacher's {teacher['dim']}")
    elif found["mean_cosine"] < bars.cosine:
        reasons.append(f"mean cosine {found['mean_cosine']:.3f}, at least {bars.cosine} is asked")
    if "lexical" in teacher["heads"]:
        overlap = found["token_overlap"]
        if "lexical" not in student["heads"]:
            reasons.append("it has no lexical head and the teacher has one")
        elif overlap is None or overlap < bars.token_overlap:
            reasons.append(f"token overlap {overlap or 0:.3f}, at least {bars.token_overlap} is asked")
    elif "lexical" in student["heads"]:
        reasons.append("it has a lexical head and the teacher has none")
    if certificate["retrieval"] and student["dim"] == teacher["dim"]:
        modes = certificate["retrieval"]["dense"]
        best = modes["teacher"]["ndcg_10"]
        mixed = {way: modes[way]["ndcg_10"] for way in ("student_queries", "teacher_queries")}
        reasons += [
            f"nDCG@10 {value:.3f} with {way.replace('_', ' ')}, at least {bars.mixed} of {best:.3f} is asked"
            for way, value in mixed.items()
            if value < bars.mixed * best
        ]
    return reasons
