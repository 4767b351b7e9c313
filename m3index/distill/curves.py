"""The loss over the steps: `training.jsonl` during the run, `training.png` at the end."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from m3index.distill.loop import Step

_NOT_TERMS = {"step", "rate", "norm", "tokens", "total_steps", "tokens_per_second"}


class Curves:
    """Writes the curves to a folder. A resumed run keeps the rows up to its checkpoint."""

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._picture = folder / "training.jsonl", folder / "training.png"
        self._resume, self._begun = resume, False

    def __call__(self, step: Step) -> None:
        if not self._begun:
            kept = self._rows_before(step["step"]) if self._resume and self._rows.is_file() else []
            self._rows.write_text("".join(kept), "utf-8")
            self._begun = True
        # Reopened for each row, so that readers see it at once and a run may end at any point.
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: float(f"{value:.6g}") for name, value in step.items()}) + "\n")

    def _rows_before(self, step: float) -> list[str]:
        rows = self._rows.read_text("utf-8").splitlines(keepends=True)
        return [row for row in rows if row.endswith("\n") and json.loads(row)["step"] < step]

    def draw(self, history: Sequence[Step]) -> bool:
        """Draws the plot. Returns False if matplotlib (m3index[eval]) is not installed."""
        if importlib.util.find_spec("matplotlib") is None:
            return False
        picture(history, self._picture)
        return True


def picture(history: Sequence[Step], path: Path) -> None:
    """Plots each term over the steps on a logarithmic scale."""
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
