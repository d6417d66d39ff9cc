"""CG-SENSE: least squares through the coils, by conjugate gradients that stop early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem
from ctflow.reconstruction import Reconstruction
from ctflow.solvers.solver import Callback, Recorder, must_be
from operators.noise import Generators


@dataclass(frozen=True)
class CGSENSE:
    r"""argmin_x |A x + background - y|_W^2 + damping c |x|^2, by conjugate gradients from zero.

    W is the noise's precision, and c the largest eigenvalue of A^H W A, so that `damping` is a pure number.
    Pruessmann et al., Magnetic Resonance in Medicine 46 (2001); there it is damped by stopping early alone.

    Attributes
    ----------
    iterations
        At most this many: with little damping, the number of iterations is the regularisation.
    damping
        Tikhonov's, relative to the operator; 0 is Pruessmann's method.
    tolerance
        A sample is done once its residual of the normal equations is this small, relative to A^H W y.
    """

    name: ClassVar[str] = "cg-sense"

    iterations: int = 10
    damping: float = 1e-3
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        must_be(
            self,
            iterations=(self.iterations, self.iterations >= 1, "at least 1"),
            damping=(self.damping, self.damping >= 0, "at least 0"),
            tolerance=(self.tolerance, self.tolerance >= 0, "at least 0"),
        )

    @torch.no_grad()
    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct `problem`; see `Solver`."""
        with Recorder(self, total=1, callback=callback, generator=generator) as record:
            y = problem.measurement
            y = y if problem.background is None else y - problem.background
            damping = problem.per_sample(self.damping * problem.curvature()) if self.damping else 0.0
            solution = problem.operator.solve(
                y,
                weights=problem.precision(),
                damping=damping,
                max_iterations=self.iterations,
                rtol=self.tolerance,
            )
            record.step(solution.x, problem.data_fit(solution.x))
            return record.finish(solution.x, details={"iterations": solution.iterations})
