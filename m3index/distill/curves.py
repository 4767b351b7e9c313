"""The loss over the steps: `training.jsonl` as it goes, `training.png` at the end."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from m3index.distill.loop import Step

_NOT_TERMS = {"step", "rate", "norm", "tokens", "total_steps", "tokens_per_second"}


class Curves:
    """Writes into a folder. Rows of an interrupted run stay when it goes on."""

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._picture = folder / "training.jsonl", folder / "training.png"
        self._file = self._rows.open("a" if resume else "w", encoding="utf-8")

    def __call__(self, step: Step) -> None:
        self._file.write(json.dumps({name: float(f"{value:.6g}") for name, value in step.items()}) + "\n")
        self._file.flush()

    def close(self, history: Sequence[Step]) -> bool:
        """Draws the picture; False where matplotlib (m3index[eval]) is not installed."""
        self._file.close()
        if importlib.util.find_spec("matplotlib") is None:
            return False
        draw(history, self._picture)
        return True


def draw(history: Sequence[Step], path: Path) -> None:
    """Each term over the steps, on a logarithmic scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [step["step"] for step in history]
    for name in [n for n in history[0] if n not in _NOT_TERMS]:
        axes.plot(steps, [step[name] for step in history], label=name.replace("_", " "), linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    figure.savefig(path, dpi=120)
