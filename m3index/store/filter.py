"""The one builder of filters. Values enter an expression here and nowhere else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from m3index.errors import FilterError
from m3index.types import FieldType

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Compare:
    """field op value, on a typed column. On `str[]` columns, == means: contains."""

    field: str
    op: Operator
    value: Scalar
    array: bool = False


@dataclass(frozen=True, slots=True)
class In:
    """field in [values], on a typed column."""

    field: str
    values: Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class Expression:
    """A Milvus boolean expression that the user wrote, passed on as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class All:
    """Every part must hold."""

    parts: Sequence[Filter]


Filter: TypeAlias = Compare | In | Expression | All
