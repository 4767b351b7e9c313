"""Checks the import order of docs/architecture.md against the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "m3index"
ROWS = [
    ["one_shot"], ["errors"], ["folders"], ["addresses"], ["wording"], ["dates"], ["types"], ["options"],
    ["output"], ["files"], ["process"], ["schema"], ["trust"], ["settings"], ["progress"],
    ["documents"], ["corpus"], ["encoder"], ["store"], ["index"], ["search"], ["evaluate"], ["distill"],
    ["service"], ["searchable"], ["api"], ["scale"], ["serve"], ["integrations"], ["doctor"], ["cli"],
    ["__main__"],
]  # fmt: skip
ROW = {name: i for i, names in enumerate(ROWS) for name in names}
HOMES = {
    "torch": ["encoder/", "distill/", "search/rerank.py"],
    "transformers": ["encoder/", "distill/", "search/rerank.py"],
    "safetensors": ["encoder/", "distill/"],
    "pymilvus": ["store/", "integrations/pymilvus.py"],
    "milvus_lite": ["store/"],
    "typer": ["cli/"],
    "rich": ["cli/", "progress.py"],
    "fastapi": ["serve/"],
    "ray": ["scale/"],
    "bs4": ["documents/"],
    "lxml": ["documents/"],
}
GENERIC = ("options.py", "command.py", "request.py")  # derives interfaces from groups
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "m3index":
                yield from (f"m3index.{alias.name}" for alias in node.names if alias.name in ROW)


def row_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_from_the_rows_above(path: Path) -> None:
    row = row_of(path)
    if row == "__init__":
        return
    for name in imports(path):
        if name.startswith("m3index."):
            other = name.split(".")[1]
            assert other in ROW, f"{path.name}: {other} is in no row"
            assert other == row or ROW[other] < ROW[row], f"{row}/{path.name} imports {name} from below"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_only_in_their_packages(path: Path) -> None:
    here = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or any(here.startswith(home) for home in homes), f"{here} imports {name}"


def test_every_package_is_in_the_table() -> None:
    rows = {row_of(path) for path in FILES} - {"__init__"}
    assert rows <= set(ROW), rows - set(ROW)


def test_help_loads_neither_torch_nor_pymilvus() -> None:
    program = (
        "import sys; sys.argv = ['m3index', '--help']\n"
        "from m3index.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pymilvus', 'milvus_lite', 'pyarrow', 'scipy'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ingest" in done.stdout


def test_class_names_are_unique() -> None:
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    adapted = {"M3Retriever"}  # the same class for three libraries
    assert {name: paths for name, paths in homes.items() if len(paths) > 1 and name not in adapted} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_options_are_typed(path: Path) -> None:
    """Signatures have no `**options: Any`, and no dict of locals, which type checkers cannot check."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "locals", f"{path.name}:{node.lineno}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            rest = node.args.kwarg
            if rest is not None and not rest.arg.startswith("_") and path.name not in GENERIC:
                assert "kwargs" in ast.unparse(rest.annotation or ast.Name("")), f"{path.name}:{node.lineno}"
