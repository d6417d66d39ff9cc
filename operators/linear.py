"""Linear operators on torch tensors, with exact adjoints and derivatives of any order.

A subclass declares its shapes and writes `_forward` and `_adjoint` on plain tensors; the algebra, the
checks at the door and automatic differentiation are all here, once.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from operators.meter import measure

if TYPE_CHECKING:
    from operators.normal_equations import Solution

Shape = tuple[int, ...]


class _Apply(torch.autograd.Function):
    """y = A x or x = A^H y; the derivative of either is the same Function with the roles swapped."""

    @staticmethod
    def forward(x: Tensor, operator: LinearOperator, adjoint: bool) -> Tensor:
        with measure("operator"):
            return operator._adjoint(x) if adjoint else operator._forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, LinearOperator, bool], output: Tensor) -> None:
        _, ctx.operator, ctx.is_adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Apply.apply(gradients[0], ctx.operator, not ctx.is_adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Apply.apply(tangents[0], ctx.operator, ctx.is_adjoint)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, operator: LinearOperator, adjoint: bool
    ) -> tuple[Tensor, int]:
        assert in_dims[0] is not None
        return _Apply.apply(x.movedim(in_dims[0], 0), operator, adjoint), 0


# autograd asks for the signature at every call, and inspecting it anew takes longer than the rest.
_Apply.forward.__signature__ = inspect.signature(_Apply.forward)  # type: ignore[attr-defined]


class LinearOperator(torch.nn.Module):
    """A linear map between tensors of fixed trailing shapes.

    Parameters
    ----------
    domain_shape, range_shape
        Trailing dimensions of what the operator takes and gives. Any leading dimensions are a batch.
    domain_dtype, range_dtype
        Nominal dtypes; `range_dtype` is `domain_dtype` unless given.
    accepts
        Every domain dtype that can be taken; `domain_dtype` alone unless given. The result has the
        input's precision and the range's kind (real or complex).
    batch_shape
        Leading dimensions over which the operator itself varies, as with coil maps of their own for each
        slice: every input's batch must end with them.

    Notes
    -----
    The adjoint is the exact (conjugate) transpose in the plain Euclidean inner product: nothing is
    weighted, normalised or compensated inside. A subclass writes ``_forward(x)`` and ``_adjoint(y)``,
    which get tensors of shape ``(*batch, *shape)``, possibly non-contiguous, and never see autograd.
    """

    def __init__(
        self,
        domain_shape: Sequence[int],
        range_shape: Sequence[int],
        *,
        domain_dtype: torch.dtype = torch.float32,
        range_dtype: torch.dtype | None = None,
        accepts: Sequence[torch.dtype] | None = None,
        batch_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.batch_shape: Shape = tuple(int(n) for n in batch_shape)
        self.domain_shape: Shape = tuple(int(n) for n in domain_shape)
        self.range_shape: Shape = tuple(int(n) for n in range_shape)
        self.domain_dtype = domain_dtype
        self.range_dtype = domain_dtype if range_dtype is None else range_dtype
        self.accepts = tuple(accepts) if accepts is not None else (domain_dtype,)
        self._norms: dict[float, float] = {}
        self._data_grams: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def _forward(self, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _forward")

    def _adjoint(self, y: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _adjoint")

    def forward(self, x: Tensor) -> Tensor:
        """A x: shape (*batch, *domain_shape) to (*batch, *range_shape)."""
        with measure("operator"):
            self._check(x, self.domain_shape, self.accepts, "input")
            return _Apply.apply(x, self, False)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y: shape (*batch, *range_shape) to (*batch, *domain_shape)."""
        with measure("operator"):
            taken = tuple(_with_kind(dtype, self.range_dtype) for dtype in self.accepts)
            self._check(y, self.range_shape, taken, "adjoint input")
            return _Apply.apply(y, self, True)

    def _check(self, x: Tensor, shape: Shape, dtypes: Sequence[torch.dtype], what: str) -> None:
        name, shape = type(self).__name__, self.batch_shape + shape
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} {what}: expected a torch.Tensor, found {type(x).__name__}")
        if len(x.shape) < len(shape) or tuple(x.shape[len(x.shape) - len(shape) :]) != shape:
            raise ValueError(f"{name} {what}: expected shape (..., {_commas(shape)}), found {tuple(x.shape)}")
        if x.dtype not in dtypes:
            expected = " or ".join(str(dtype) for dtype in dtypes)
            raise ValueError(f"{name} {what}: expected dtype {expected}, found {x.dtype}")
        device = self.device
        if device is not None and x.device != device:
            raise ValueError(f"{name} {what}: expected device {device}, found {x.device}")

    @property
    def device(self) -> torch.device | None:
        """Where the operator's own tensors live; None when it has none and goes wherever its input is."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return None

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator."""
        return Adjoint(self)

    # What conjugate gradients with this operator as A^H A are called; a Toeplitz form has another name.
    solved_by = "conjugate gradients"

    @property
    def gram(self) -> LinearOperator:
        """A^H A as an operator; subclasses may know a cheaper form."""
        return Composition(self.H, self)

    def norm(self, rtol: float = 1e-3) -> float:
        """Largest singular value, by power iteration to the relative tolerance; cached."""
        if rtol not in self._norms:
            from operators.normal_equations import largest_singular_value

            self._norms[rtol] = largest_singular_value(self, rtol=rtol)
        return self._norms[rtol]

    def data_gram(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A A^H as a matrix over the flattened data, shape (m, m), for data of that dtype; kept."""
        key = (dtype, device)
        if key not in self._data_grams:
            from operators.woodbury import data_gram

            self._data_grams[key] = data_gram(self, dtype, device)
        return self._data_grams[key]

    @property
    def domain_spacing(self) -> tuple[float, ...]:
        """Distance between neighbours along each axis of the domain, in any one unit; 1 unless known."""
        return (1.0,) * len(self.domain_shape)

    def unitary_scale(self) -> float | Tensor | None:
        """The s of A^H A = s^2 I, for A onto: a number, or of shape (*batch,); None where none is known."""
        return None

    def solve(
        self,
        y: Tensor,
        *,
        weights: Tensor | None = None,
        damping: float | Tensor = 0.0,
        start: Tensor | None = None,
        max_iterations: int = 50,
        rtol: float = 1e-5,
    ) -> Solution:
        """Weighted, damped least squares: argmin |A x - y|_W^2 + damping |x|^2.

        Parameters
        ----------
        y
            Shape (*batch, *range_shape).
        weights
            W >= 0, broadcast against `y`; ones unless given.
        damping
            A number, or a tensor that broadcasts against (*batch, *domain_shape).
        start
            First guess, zero unless given. With zero damping, what `start` has in the null space stays.

        Notes
        -----
        With at most `woodbury.MOST_MEASUREMENTS` measurements, fewer than pixels, and damping, a dense matrix
        of their size is factored, and `start` is of no use. Otherwise conjugate gradients on the normal
        equations: with more measurements the system of their size takes as many iterations, and cannot start
        from an image. An operator with a closed form overrides this. `Solution.method` says which it was.
        """
        from operators.normal_equations import damped_least_squares
        from operators.woodbury import has_few_measurements, woodbury_least_squares

        uniform = uniform_within(damping, len(self.domain_shape))
        if uniform is not None and has_few_measurements(self, uniform):
            return woodbury_least_squares(self, y, weights=weights, damping=uniform)

        return damped_least_squares(
            self, y, weights=weights, damping=damping, start=start, max_iterations=max_iterations, rtol=rtol
        )

    def approximate_inverse(self, y: Tensor) -> Tensor:
        """A cheap first image of a measurement: ten least-squares iterations, unless overridden."""
        return self.solve(y, max_iterations=10, rtol=1e-6).x

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            raise TypeError(f"@ composes operators; to apply one to a {type(other).__name__}, call it: A(x)")
        return Composition(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, -1 * other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: complex) -> LinearOperator:
        return Scaled(self, factor) if isinstance(factor, int | float | complex) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, factor: complex) -> LinearOperator:
        return Scaled(self, 1 / factor) if isinstance(factor, int | float | complex) else NotImplemented

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1)

    def _describe(self) -> str:
        return ""

    def __repr__(self) -> str:
        details = self._describe()
        text = f"{type(self).__name__}: ({_commas(self.range_shape)}) <- ({_commas(self.domain_shape)})"
        return f"{text}, {details}" if details else text


class Adjoint(LinearOperator):
    """A^H."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.range_shape,
            operator.domain_shape,
            domain_dtype=operator.range_dtype,
            range_dtype=operator.domain_dtype,
            accepts=tuple(_with_kind(dtype, operator.range_dtype) for dtype in operator.accepts),
            batch_shape=operator.batch_shape,
        )
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    @property
    def H(self) -> LinearOperator:
        """The operator that this is the adjoint of."""
        return self.operator

    def _describe(self) -> str:
        return f"adjoint of [{self.operator!r}]"


class Composition(LinearOperator):
    """A B: first `inner`, then `outer`."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        _must_agree("@", "inner range", inner.range_shape, "outer domain", outer.domain_shape)
        between = {_with_kind(dtype, inner.range_dtype): dtype for dtype in inner.accepts}
        accepts = tuple(between[dtype] for dtype in outer.accepts if dtype in between)
        if not accepts:
            raise ValueError(
                f"@: expected inner range dtype among {outer.accepts}, found {inner.range_dtype}"
            )
        super().__init__(
            inner.domain_shape,
            outer.range_shape,
            domain_dtype=inner.domain_dtype if inner.domain_dtype in accepts else accepts[0],
            range_dtype=outer.range_dtype,
            accepts=accepts,
            batch_shape=_common_batch("@", outer.batch_shape, inner.batch_shape),
        )
        self.outer, self.inner = outer, inner

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer._forward(self.inner._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner._adjoint(self.outer._adjoint(y))

    @property
    def H(self) -> LinearOperator:
        """B^H A^H."""
        return Composition(self.inner.H, self.outer.H)

    @property
    def domain_spacing(self) -> tuple[float, ...]:
        """That of B's domain."""
        return self.inner.domain_spacing

    def solve(
        self,
        y: Tensor,
        *,
        weights: Tensor | None = None,
        damping: float | Tensor = 0.0,
        start: Tensor | None = None,
        max_iterations: int = 50,
        rtol: float = 1e-5,
    ) -> Solution:
        """As `LinearOperator.solve`; where B is unitary up to a scale, A's own way of solving serves."""
        scale = self.inner.unitary_scale()
        uniform = uniform_within(damping, len(self.domain_shape))
        if scale is None or uniform is None:
            return super().solve(
                y, weights=weights, damping=damping, start=start, max_iterations=max_iterations, rtol=rtol
            )
        # |A B z - y|^2 + d |z|^2 = |A x - y|^2 + d / s^2 |x|^2 for x = B z.
        between = (1,) * len(self.outer.domain_shape)
        factor = torch.as_tensor(scale, dtype=y.dtype.to_real(), device=y.device).square()
        factor, uniform = (
            v.reshape(v.shape + between) if v.ndim else v for v in (factor, uniform.to(factor))
        )
        solution = self.outer.solve(
            y,
            weights=weights,
            damping=uniform / factor,
            start=None if start is None else self.inner(start),
            max_iterations=max_iterations,
            rtol=rtol,
        )
        factor = factor.reshape(factor.shape[: factor.ndim - len(between)] + (1,) * len(self.domain_shape))
        return replace(solution, x=self.inner.adjoint(solution.x) / factor)

    def _describe(self) -> str:
        return f"[{self.outer!r}] @ [{self.inner!r}]"


class Sum(LinearOperator):
    """A + B."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        _must_agree("+", "left domain", left.domain_shape, "right domain", right.domain_shape)
        _must_agree("+", "left range", left.range_shape, "right range", right.range_shape)
        accepts = tuple(dtype for dtype in left.accepts if dtype in right.accepts)
        if not accepts or left.range_dtype.is_complex != right.range_dtype.is_complex:
            raise ValueError(f"+: expected equal dtypes, found {left.domain_dtype} and {right.domain_dtype}")
        super().__init__(
            left.domain_shape,
            left.range_shape,
            domain_dtype=left.domain_dtype if left.domain_dtype in accepts else accepts[0],
            range_dtype=left.range_dtype,
            accepts=accepts,
            batch_shape=_common_batch("+", left.batch_shape, right.batch_shape),
        )
        self.left, self.right = left, right

    def _forward(self, x: Tensor) -> Tensor:
        return self.left._forward(x) + self.right._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.left._adjoint(y) + self.right._adjoint(y)

    @property
    def domain_spacing(self) -> tuple[float, ...]:
        """That of the summands' domain."""
        return self.left.domain_spacing

    def _describe(self) -> str:
        return f"[{self.left!r}] + [{self.right!r}]"


class Scaled(LinearOperator):
    """c A."""

    def __init__(self, operator: LinearOperator, factor: complex) -> None:
        if isinstance(factor, complex) and not operator.range_dtype.is_complex:
            raise ValueError(f"expected a real factor for a real operator, found {factor}")
        super().__init__(
            operator.domain_shape,
            operator.range_shape,
            domain_dtype=operator.domain_dtype,
            range_dtype=operator.range_dtype,
            accepts=operator.accepts,
            batch_shape=operator.batch_shape,
        )
        self.operator, self.factor = operator, factor

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._forward(x) * self.factor

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y) * self.factor.conjugate()

    @property
    def domain_spacing(self) -> tuple[float, ...]:
        """That of A's domain."""
        return self.operator.domain_spacing

    def _describe(self) -> str:
        return f"{self.factor:g} * [{self.operator!r}]"


class Identity(LinearOperator):
    """x -> x."""

    def __init__(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(shape, shape, domain_dtype=dtype, accepts=_precisions(dtype))

    def _forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def unitary_scale(self) -> float:
        """One."""
        return 1.0


class Matrix(LinearOperator):
    """A dense matrix, shape (m, n): vectors (*batch, n) to (*batch, m)."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2:
            raise ValueError(f"Matrix: expected two dimensions, found shape {tuple(matrix.shape)}")
        super().__init__(matrix.shape[1:], matrix.shape[:1], domain_dtype=matrix.dtype)
        self.register_buffer("matrix", matrix)

    def _apply(self, *args: Any, **kwargs: Any) -> Matrix:
        super()._apply(*args, **kwargs)
        self.domain_dtype = self.range_dtype = self.matrix.dtype
        self.accepts = (self.matrix.dtype,)
        self._norms.clear()
        self._data_grams.clear()
        return self

    def _forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT

    def _adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix.conj()


class Diagonal(LinearOperator):
    """x -> d x, elementwise; `diagonal` broadcasts against `shape`."""

    diagonal: Tensor

    def __init__(self, diagonal: Tensor, shape: Sequence[int] | None = None) -> None:
        super().__init__(shape or diagonal.shape, shape or diagonal.shape, domain_dtype=diagonal.dtype)
        self.register_buffer("diagonal", diagonal)

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.diagonal

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.diagonal.conj()


def _precisions(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    return (torch.complex64, torch.complex128) if dtype.is_complex else (torch.float32, torch.float64)


def _with_kind(dtype: torch.dtype, kind: torch.dtype) -> torch.dtype:
    """The dtype with the precision of the first and the kind, real or complex, of the second."""
    return dtype.to_complex() if kind.is_complex else dtype.to_real()


def _commas(shape: Shape) -> str:
    return ", ".join(str(n) for n in shape)


def uniform_within(value: float | Tensor, event_dims: int) -> Tensor | None:
    """The value for each sample, shape (*batch,) or (), where it is the same all over a sample; else None."""
    value = torch.as_tensor(value)
    if value.ndim == 0:
        return value
    if value.ndim < event_dims or any(n != 1 for n in value.shape[value.ndim - event_dims :]):
        return None
    return value.reshape(value.shape[: value.ndim - event_dims])


def _common_batch(sign: str, left: Shape, right: Shape) -> Shape:
    longer, shorter = (left, right) if len(left) >= len(right) else (right, left)
    if longer[len(longer) - len(shorter) :] != shorter:
        raise ValueError(f"{sign}: expected operators for one batch, found {left} and {right}")
    return longer


def _must_agree(sign: str, left_name: str, left: Shape, right_name: str, right: Shape) -> None:
    if left != right:
        raise ValueError(f"{sign}: expected equal shapes, found {left_name} {left} and {right_name} {right}")
