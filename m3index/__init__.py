"""m3index: index a multilingual corpus into Milvus with BGE-M3, and keep it right every night."""

from __future__ import annotations

__version__ = "0.1.0"
