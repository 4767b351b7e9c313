"""The examples run as they stand: Milvus Lite, no network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import models
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.slow


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / "integrations" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("langchain_retriever", "langchain_core"),
        ("llamaindex_retriever", "llama_index.core"),
        ("haystack_pipeline", "haystack"),
    ],
)
def test_a_retriever_finds_the_bees(
    name: str, needs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    models.needs_offline()
    lines = (EXAMPLES / "corpus.jsonl").read_text("utf-8").splitlines()
    english = [line for line in lines if json.loads(line)["metadata"]["lang"] == "en"][:24]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(english), "utf-8")
    found = example(name).main(corpus)
    assert found[0] == "en-nature-02"
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_pymilvus_s_hybrid_search_takes_the_vectors(m3_path: Path) -> None:
    """The weights of this tiny model are random: only that Milvus takes and finds all is asked."""
    found = example("pymilvus_hybrid").main(str(m3_path))
    assert len(found) == len(set(found)) >= 1
