from __future__ import annotations

from pathlib import Path

import models
import pytest


@pytest.fixture(scope="session")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_sentence_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_sentence_mistral(tmp_path_factory.mktemp("mistral"))
