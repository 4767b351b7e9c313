"""The plots in docs/figures match the tables, and the page shows every plot."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from terminal import REPOSITORY

FOLDER = REPOSITORY / "docs" / "figures"


def load() -> ModuleType:
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("figures", REPOSITORY / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(path: Path) -> list[dict[str, object]]:
    text = ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}description")
    assert text is not None
    found: list[dict[str, object]] = json.loads(text.text or "")
    return found


def test_each_plot_matches_its_table() -> None:
    figures = load()
    assert {path.stem for path in FOLDER.iterdir()} == set(figures.PLOTS)
    for name, (read, _) in figures.PLOTS.items():
        data = read()
        assert len(data) > 2
        assert described(FOLDER / f"{name}.svg") == data, "make figures"


def test_a_plot_is_drawn_from_its_data(tmp_path: Path) -> None:
    figures = load()
    figures.main(tmp_path, ["night"])
    labels = set(re.findall(r">([^<>]+)</text>", (tmp_path / "night.svg").read_text("utf-8")))
    for row in figures.night():
        assert f"{row['documents/s']:,.0f}" in labels
        assert f"{row['peak memory']:,.0f} MB" in labels


def test_numbers_of_a_cell() -> None:
    numbers = load().numbers
    assert numbers("**0.7106** [0.668, 0.752]") == [0.7106, 0.668, 0.752]
    assert numbers("1,416") == [1416]
    assert numbers("121 ms (194)") == [121, 194]
    assert numbers(".887") == [0.887]
    assert numbers("not measured: BGE-M3") == []


def test_a_missing_table_is_reported() -> None:
    figures = load()
    with pytest.raises(LookupError, match="no heading 'Elsewhere'"):
        figures.tables("results.md", "Elsewhere")


def test_the_page_shows_every_plot_with_alternative_text() -> None:
    page = (REPOSITORY / "docs" / "figures.md").read_text("utf-8")
    shown = re.findall(r"!\[([^\]]+)\]\(figures/([\w-]+)\.svg\)", page)
    assert sorted(name for _, name in shown) == sorted(path.stem for path in FOLDER.iterdir())
    assert all(len(text) > 20 for text, _ in shown)
