"""`schemas/collection.json` as a pymilvus schema, and a described collection as a CollectionSpec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from m3index import schema
from m3index.errors import MismatchError
from m3index.schema import CollectionSpec
from m3index.store.analyzer import NGRAMS, analyzers
from m3index.types import FieldType, SparseKind

_TYPES: Mapping[DataType, FieldType] = {
    DataType.VARCHAR: "str",
    DataType.INT64: "int",
    DataType.DOUBLE: "float",
    DataType.BOOL: "bool",
    DataType.ARRAY: "str[]",
}


def bm25_limit(*, lite: bool) -> int:
    """The most bytes of `bm25_input`: folding makes it longer than the text, and Lite sets no bound."""
    declared = schema.collection()["sparse"]["bm25"]["input"]
    return int(declared["lite_max_length" if lite else "max_length"])


def to_milvus(spec: CollectionSpec, *, lite: bool) -> CollectionSchema:
    definition = schema.collection()
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for declared in definition["fields"]:
        made.add_field(
            declared["name"],
            DataType[declared["type"]],
            is_primary=declared["name"] == definition["primary_key"],
            **_params(declared),
        )
    for name, kind in spec.fields.items():
        declared = definition["declared_field"]["types"][kind]
        made.add_field(
            name,
            DataType[declared["type"]],
            nullable=definition["declared_field"]["nullable"],
            **_params(declared),
        )
    made.add_field("dense", DataType[definition["dense"]["field"]["type"]], dim=spec.dim)
    if spec.sparse == "none":
        return made
    sparse = definition["sparse"][spec.sparse]
    if spec.sparse == "bm25":
        made.add_field(
            sparse["input"]["name"],
            DataType[sparse["input"]["type"]],
            max_length=bm25_limit(lite=lite),
            enable_analyzer=True,
            analyzer_params=analyzers()[spec.analyzer or NGRAMS],
        )
    made.add_field(sparse["field"]["name"], DataType[sparse["field"]["type"]])
    if function := sparse.get("function"):
        made.add_function(
            Function(
                name=function["name"],
                function_type=FunctionType[function["type"]],
                input_field_names=[function["input"]],
                output_field_names=[function["output"]],
            )
        )
    return made


def indexes(spec: CollectionSpec, *, lite: bool) -> IndexParams:
    definition = schema.collection()
    dense = definition["dense"]
    params = MilvusClient.prepare_index_params()
    _add_index(params, dense["field"]["name"], dense["lite_index" if lite else "index"], lite=lite)
    if spec.sparse != "none":
        sparse = definition["sparse"][spec.sparse]
        _add_index(params, sparse["field"]["name"], sparse["index"], lite=lite)
    return params


def from_milvus(name: str, described: Mapping[str, Any]) -> CollectionSpec:
    """Raises MismatchError where the collection is not one of ours."""
    found = {field["name"]: field for field in described["fields"]}
    definition = schema.collection()
    for declared in definition["fields"]:
        field = found.get(declared["name"])
        if field is None or field["type"] != DataType[declared["type"]]:
            raise MismatchError(
                f"The collection {name!r} was not made by m3index (its field {declared['name']!r} is "
                f"{'missing' if field is None else 'of another type'}). Choose another name with -c."
            )
    if "dense" not in found:
        raise MismatchError(f"The collection {name!r} was not made by m3index: it has no field 'dense'.")
    sparse: SparseKind = "lexical" if "lexical" in found else "bm25" if "bm25" in found else "none"
    fields = {
        field: _TYPES[described_field["type"]]
        for field, described_field in found.items()
        if field not in schema.BASE_FIELDS and described_field["type"] in _TYPES
    }
    analyzer = None
    if sparse == "bm25":
        params = str(found["bm25_input"]["params"].get("analyzer_params", ""))
        analyzer = next((a for a, p in analyzers().items() if f'"{p["tokenizer"]}"' in params), None)
    return CollectionSpec(int(found["dense"]["params"]["dim"]), sparse, fields, analyzer)


def _params(declared: Mapping[str, Any]) -> dict[str, Any]:
    params = {key: declared[key] for key in ("max_length", "max_capacity") if key in declared}
    if "element_type" in declared:
        params["element_type"] = DataType[declared["element_type"]]
    return params


def _add_index(params: IndexParams, field: str, index: Mapping[str, Any], *, lite: bool) -> None:
    """pymilvus flattens the parameters into the request, where Lite does not look: for it they go nested."""
    given = {"params": index["params"]} if lite else index["params"]
    params.add_index(field, index_type=index["index_type"], metric_type=index["metric_type"], params=given)
