"""`schemas/collection.json` as a pymilvus schema, and the description of a collection as a CollectionSpec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pymilvus import CollectionSchema, DataType, Function, FunctionType, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from m3index import schema
from m3index.errors import MismatchError
from m3index.schema import CollectionSpec, IndexChoice
from m3index.store.analyzer import STEMS, analyzers
from m3index.types import FieldType, Leg, SparseKind, Storage

INDEX_PROPERTY = "m3index.index"

_TYPES: Mapping[DataType, FieldType] = {
    DataType.VARCHAR: "str",
    DataType.INT64: "int",
    DataType.DOUBLE: "float",
    DataType.BOOL: "bool",
    DataType.ARRAY: "str[]",
}
_DATE_LENGTH: int = schema.collection()["declared_field"]["types"]["date"]["max_length"]
"""Of the texts of dates. No other text has this limit, which therefore tells them apart."""


def bm25_limit(*, lite: bool) -> int:
    """The limit of `bm25_input` in bytes: folding makes it longer than the text, and Lite sets no limit."""
    declared = schema.collection()["sparse"]["bm25"]["input"]
    return int(declared["lite_max_length" if lite else "max_length"])


def to_milvus(spec: CollectionSpec, *, lite: bool) -> CollectionSchema:
    definition = schema.collection()
    built = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for declared in definition["fields"]:
        built.add_field(
            declared["name"],
            DataType[declared["type"]],
            is_primary=declared["name"] == definition["primary_key"],
            **_params(declared),
        )
    for name, kind in spec.fields.items():
        declared = definition["declared_field"]["types"][kind]
        built.add_field(
            name,
            DataType[declared["type"]],
            nullable=definition["tenant" if name == spec.tenant else "declared_field"]["nullable"],
            is_partition_key=name == spec.tenant,
            **_params(declared),
        )
    built.add_field("dense", DataType[definition["dense"]["storage"][spec.storage]], dim=spec.dim)
    if spec.sparse == "none":
        return built
    sparse = definition["sparse"][spec.sparse]
    if spec.sparse == "bm25":
        built.add_field(
            sparse["input"]["name"],
            DataType[sparse["input"]["type"]],
            max_length=bm25_limit(lite=lite),
            enable_analyzer=True,
            analyzer_params=analyzers()[spec.analyzer or STEMS],
        )
    built.add_field(sparse["field"]["name"], DataType[sparse["field"]["type"]])
    if function := sparse.get("function"):
        built.add_function(
            Function(
                name=function["name"],
                function_type=FunctionType[function["type"]],
                input_field_names=[function["input"]],
                output_field_names=[function["output"]],
            )
        )
    return built


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """An index as requested, and how it is searched.

    search: the search parameters. depth: the name of the one that must be at least the search's limit.
    """

    column: str
    type: str
    metric: str
    params: Mapping[str, Any]
    search: Mapping[str, Any] = field(default_factory=dict)
    depth: str | None = None

    def searched(self, limit: int) -> dict[str, Any]:
        """The parameters of a search for `limit` results."""
        params = dict(self.search)
        if self.depth is not None:
            params[self.depth] = max(limit, int(params.get(self.depth, 1)))
        return {"metric_type": self.metric, "params": params}


def indexes(spec: CollectionSpec, *, lite: bool) -> dict[Leg, IndexDefinition]:
    """The index of each leg, from the spec's size class and changes. Milvus Lite has an index of its own."""
    definition = schema.collection()
    chosen = IndexChoice() if lite else spec.index
    of_class = definition["index_classes"]["lite" if lite else chosen.size]
    by_leg = {Leg.DENSE: _dense(definition["dense"], of_class, chosen)}
    if spec.sparse != "none":
        by_leg[Leg(spec.sparse)] = _sparse(definition["sparse"][spec.sparse], of_class, chosen)
    return by_leg


def keeps_rows_on_disk(spec: CollectionSpec) -> bool:
    """Whether texts and metadata are mapped from files instead of being held in memory."""
    of_class = schema.collection()["index_classes"][spec.index.size]
    return bool(spec.index.part("rows").get("mmap", "rows" in of_class["mmap"]))


def _dense(
    definition: Mapping[str, Any], of_class: Mapping[str, Any], chosen: IndexChoice
) -> IndexDefinition:
    changes = chosen.part("dense")
    kind = str(changes.pop("type", of_class["dense"]))
    known = definition["indexes"].get(kind, {"params": {}, "search": {}})
    mapped = changes.pop("mmap", "dense" in of_class["mmap"])
    return IndexDefinition(
        definition["field"]["name"],
        kind,
        definition["metric_type"],
        known["params"] | changes | _mapped(mapped),
        known["search"] | chosen.part("dense.search"),
        known.get("depth"),
    )


def _sparse(
    definition: Mapping[str, Any], of_class: Mapping[str, Any], chosen: IndexChoice
) -> IndexDefinition:
    index, changes = definition["index"], chosen.part("sparse")
    kind = str(changes.pop("type", index["index_type"]))
    mapped = changes.pop("mmap", "sparse" in of_class["mmap"])
    return IndexDefinition(
        definition["field"]["name"],
        kind,
        index["metric_type"],
        index["params"] | changes | _mapped(mapped),
        chosen.part("sparse.search"),
    )


def _mapped(mapped: Any) -> dict[str, Any]:
    return {"mmap.enabled": True} if mapped else {}


def index_params(index: IndexDefinition, *, lite: bool) -> IndexParams:
    """pymilvus flattens the parameters into the request. Lite ignores them there, so it gets them nested."""
    params = MilvusClient.prepare_index_params()
    arguments = {"params": dict(index.params)} if lite else dict(index.params)
    params.add_index(index.column, index_type=index.type, metric_type=index.metric, params=arguments)
    return params


def from_milvus(name: str, described: Mapping[str, Any]) -> CollectionSpec:
    """Raises MismatchError if the collection was not made by m3index."""
    columns = {field["name"]: field for field in described["fields"]}
    definition = schema.collection()
    for declared in definition["fields"]:
        field = columns.get(declared["name"])
        if field is None or field["type"] != DataType[declared["type"]]:
            raise MismatchError(
                f"The collection {name!r} was not made by m3index (its field {declared['name']!r} is "
                f"{'missing' if field is None else 'of the wrong type'}). Choose another name with -c."
            )
    storages: Mapping[DataType, Storage] = {
        DataType[kind]: storage for storage, kind in definition["dense"]["storage"].items()
    }
    if "dense" not in columns or columns["dense"]["type"] not in storages:
        raise MismatchError(
            f"The collection {name!r} was not made by m3index: it has no field 'dense'. "
            "Choose another name with -c."
        )
    sparse: SparseKind = "lexical" if "lexical" in columns else "bm25" if "bm25" in columns else "none"
    fields = {
        column: _field_type(described_field)
        for column, described_field in columns.items()
        if column not in schema.BASE_FIELDS and described_field["type"] in _TYPES
    }
    analyzer = None
    if sparse == "bm25":
        params = str(columns["bm25_input"]["params"].get("analyzer_params", ""))
        analyzer = next((a for a, p in analyzers().items() if f'"{p["tokenizer"]}"' in params), None)
    properties = described.get("properties") or {}
    return CollectionSpec(
        int(columns["dense"]["params"]["dim"]),
        sparse,
        fields,
        analyzer,
        tenant=next((name for name in fields if columns[name].get("is_partition_key")), None),
        storage=storages[columns["dense"]["type"]],
        index=IndexChoice.from_json(properties.get(INDEX_PROPERTY, "")),
    )


def _field_type(described: Mapping[str, Any]) -> FieldType:
    if int((described.get("params") or {}).get("max_length", 0)) == _DATE_LENGTH:
        return "date"
    return _TYPES[described["type"]]


def _params(declared: Mapping[str, Any]) -> dict[str, Any]:
    params = {key: declared[key] for key in ("max_length", "max_capacity") if key in declared}
    if "element_type" in declared:
        params["element_type"] = DataType[declared["element_type"]]
    return params
