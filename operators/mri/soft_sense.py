"""Several images in one measurement, each seen through coil maps of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from operators.linear import LinearOperator


class SoftSENSE(LinearOperator):
    """Soft SENSE: y = sum_m A_m x_m, an image x_m for each set of coil maps.

    Where an image folds onto itself, or fat lies beside water, one set of maps cannot explain what the coils
    see; the two of ``espirit(kspace, maps=2)`` can (Uecker et al., Magn. Reson. Med. 71 (2014)). Maps images,
    shape (*batch, sets, *image_shape), to the measurement of the operators. The root sum of squares over the
    sets is what is looked at.

    Parameters
    ----------
    operators
        A_m, each with a set of maps: `CartesianFourier` or `NonuniformFourier`, of one domain and one range.
    """

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        if not operators:
            raise ValueError("operators: expected at least one, found none")
        first = operators[0]
        what = ("domain_shape", "range_shape", "batch_shape", "accepts")
        for other in operators[1:]:
            for name in what:
                expected, found = getattr(first, name), getattr(other, name)
                if expected != found:
                    raise ValueError(f"operators: expected one {name}, found {expected} and {found}")
        super().__init__(
            (len(operators), *first.domain_shape),
            first.range_shape,
            domain_dtype=first.domain_dtype,
            range_dtype=first.range_dtype,
            accepts=first.accepts,
            batch_shape=first.batch_shape,
        )
        self.operators = torch.nn.ModuleList(operators)

    @property
    def sampled(self) -> Tensor | None:
        """Where a measurement says something, as `CartesianFourier.sampled`; None for everywhere."""
        first: Any = self.operators[0]
        found: Tensor | None = getattr(first, "sampled", None)
        return found

    def _forward(self, x: Tensor) -> Tensor:
        images = x.unbind(-len(self.domain_shape))
        y = self._each(0)._forward(images[0])
        for m in range(1, len(images)):
            y = y + self._each(m)._forward(images[m])
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        images = [self._each(m)._adjoint(y) for m in range(len(self.operators))]
        return torch.stack(images, -len(self.domain_shape))

    def _each(self, m: int) -> LinearOperator:
        operator = self.operators[m]
        assert isinstance(operator, LinearOperator)
        return operator

    def _describe(self) -> str:
        return f"{len(self.operators)} x [{self.operators[0]!r}]"
