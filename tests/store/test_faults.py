"""What users see of the server's errors. The calls themselves are in test_conformance and integration."""

from __future__ import annotations

import pytest
from pymilvus.exceptions import MilvusException

from m3index.errors import Exit, M3IndexError
from m3index.store.milvus_errors import translate

SERVER = "http://user:secret@milvus:19530"


@pytest.mark.parametrize(
    ("code", "said", "doing", "exit_code", "remedy"),
    [
        (800, "database not found[database=no_such_db]", "listing collections", Exit.NOT_FOUND, "--db"),
        (1, "wait for loading collection timeout, collection: c", "loading", Exit.UNREACHABLE, "--timeout"),
        (100, "collection not found[collection=c]", "counting 'c'", Exit.NOT_FOUND, "collection not found"),
        (1400, "auth check failure", "connecting", Exit.NOT_AUTHORISED, "--token"),
        (9, "memory quota exhausted", "writing", Exit.STOPPED, "Free memory"),
        (65535, "it is raining", "writing", Exit.UNEXPECTED, "it is raining"),
    ],
)  # fmt: skip
def test_each_fault_has_its_exit_code_and_a_remedy(
    code: int, said: str, doing: str, exit_code: Exit, remedy: str
) -> None:
    error = translate(MilvusException(code, said), doing, SERVER)
    assert isinstance(error, M3IndexError)
    assert error.exit_code == exit_code
    assert remedy in str(error)
    assert "secret" not in str(error)
    assert "\n" not in str(error)
