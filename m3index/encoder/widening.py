"""A model in its precision, and in the wider ones that an overflow asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from m3index.encoder.hardware import Precision, wider
from m3index.errors import MismatchError

Model = TypeVar("Model")


class Widening(Generic[Model]):
    """Loads the model in `precision` now, and in a wider precision when it is first asked for.

    name: what an error calls the model.
    """

    def __init__(
        self, load: Callable[[Precision], Model], precision: Precision, device: torch.device, name: str
    ) -> None:
        self.precision = precision
        self._load, self._device, self._name = load, device, name
        self._models = {precision: load(precision)}

    def in_(self, precision: Precision) -> Model:
        if precision not in self._models:
            self._models[precision] = self._load(precision)
        return self._models[precision]

    @property
    def model(self) -> Model:
        """The model in its own precision."""
        return self._models[self.precision]

    def wider(self, precision: Precision) -> Precision:
        """The precision to compute in again what is not finite. Raises MismatchError if there is none."""
        found = wider(precision, self._device)
        if found is None:
            raise MismatchError(
                f"{self._name}: the model's output is not finite in {precision}. Its weights are damaged, or "
                "it is not a text model. Download it again or use another model."
            )
        return found
