"""What every linear operator owes its users, checked for each example of `examples`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from operators.linear import LinearOperator
from tests.operators.examples import EXAMPLES, Example, random

CASES = [
    pytest.param(e, dtype, id=f"{e.name}-{dtype}".replace("torch.", ""))
    for e in EXAMPLES
    for dtype in e.dtypes
]
each_case = pytest.mark.parametrize(("example", "dtype"), CASES)


def tolerance(dtype: torch.dtype) -> float:
    return 1e-6 if dtype.to_real() == torch.float32 else 1e-13


def inputs(
    operator: LinearOperator, dtype: torch.dtype, batch: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Random domain and range tensors in the precision of dtype."""
    image = dtype.to_complex() if operator.domain_dtype.is_complex else dtype.to_real()
    data = dtype.to_complex() if operator.range_dtype.is_complex else dtype.to_real()
    return random(batch + operator.domain_shape, image, 1), random(batch + operator.range_shape, data, 2)


def dense(operator: LinearOperator, dtype: torch.dtype) -> Tensor:
    """The operator as a matrix, shape (range size, domain size)."""
    x, _ = inputs(operator, dtype)
    basis = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *operator.domain_shape)
    return operator(basis).flatten(1).mT


def real_inner(u: Tensor, v: Tensor) -> float:
    return float((u.conj() * v).real.sum())


@each_case
def test_adjoint_identity(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    x, y = inputs(operator, dtype, (3,))
    image, back = operator(x), operator.adjoint(y)
    scale = float(torch.linalg.vector_norm(image) * torch.linalg.vector_norm(y))
    assert abs(real_inner(image, y) - real_inner(x, back)) <= tolerance(dtype) * scale


@each_case
def test_adjoint_is_the_conjugate_transpose(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    if operator.domain_dtype.is_complex != operator.range_dtype.is_complex:
        # Only the real part of the inner product is kept between real and complex spaces: see above.
        operator = operator.gram
    forward = dense(operator, dtype)
    backward = dense(operator.H, dtype)
    assert torch.allclose(
        backward, forward.mH, rtol=0, atol=10 * tolerance(dtype) * float(forward.abs().max())
    )


@each_case
def test_batch_equals_loop(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    x, y = inputs(operator, dtype, (2, 3))
    for apply, z in ((operator, x), (operator.adjoint, y)):
        one_by_one = torch.stack([torch.stack([apply(sample) for sample in row]) for row in z])
        together = apply(z)
        assert together.shape == one_by_one.shape
        assert torch.allclose(
            together, one_by_one, rtol=0, atol=10 * tolerance(dtype) * float(together.abs().max())
        )


@each_case
def test_dtype_device_and_input_are_kept(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    x, y = inputs(operator, dtype, (2,))
    x_before, y_before = x.clone(), y.clone()
    image, back = operator(x), operator.adjoint(y)
    assert (image.dtype, image.device) == (y.dtype, x.device)
    assert (back.dtype, back.device) == (x.dtype, y.device)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)


@each_case
def test_non_contiguous_input(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    for apply, z in zip((operator, operator.adjoint), inputs(operator, dtype, (4,)), strict=True):
        strided = z.movedim(0, -1).contiguous().movedim(-1, 0)
        assert strided.is_contiguous() == (z.numel() == 4)
        assert torch.allclose(
            apply(strided), apply(z), rtol=0, atol=tolerance(dtype) * float(apply(z).abs().max())
        )


@each_case
def test_gradient_is_the_adjoint(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    x, y = inputs(operator, dtype, (2,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(operator(x), x, y)
    assert torch.equal(gradient, operator.adjoint(y))


@each_case
def test_gradients_against_finite_differences(example: Example, dtype: torch.dtype) -> None:
    if dtype.to_real() != torch.float64:
        # Finite differences need double precision; in single, the second derivative is checked instead.
        operator = example.make(dtype)
        x, y = inputs(operator, dtype)
        x.requires_grad_()
        (first,) = torch.autograd.grad(operator(x).abs().square().sum() / 2, x, create_graph=True)
        (second,) = torch.autograd.grad(first, x, x.detach())
        expected = operator.gram(x.detach())
        assert torch.allclose(second, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        return
    operator = example.make(dtype)
    x, y = inputs(operator, dtype)
    assert torch.autograd.gradcheck(operator, x.requires_grad_(), fast_mode=True)
    assert torch.autograd.gradgradcheck(operator, x, fast_mode=True)
    assert torch.autograd.gradcheck(operator.adjoint, y.requires_grad_(), fast_mode=True)
    assert torch.autograd.gradgradcheck(operator.adjoint, y, fast_mode=True)


@each_case
def test_vmap(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    for apply, z in zip((operator, operator.adjoint), inputs(operator, dtype, (3, 2)), strict=True):
        expected = apply(z.transpose(0, 1))
        mapped = torch.func.vmap(apply, in_dims=1)(z)
        assert torch.allclose(mapped, expected, rtol=0, atol=tolerance(dtype) * float(expected.abs().max()))


@each_case
def test_forward_mode_derivative(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    for apply, z in zip((operator, operator.adjoint), inputs(operator, dtype, (2,)), strict=True):
        value, tangent = torch.func.jvp(apply, (z,), (2 * z,))
        assert torch.equal(value, apply(z))
        assert torch.equal(tangent, apply(2 * z))


@each_case
def test_norm_is_the_largest_singular_value(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    x, _ = inputs(operator, dtype)
    columns = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *operator.domain_shape)
    gram = operator.gram(columns).flatten(1).mT
    exact = float(torch.linalg.eigvalsh((gram + gram.mH) / 2).max().clamp_min(0).sqrt())
    assert operator.norm(rtol=1e-3) == pytest.approx(exact, rel=2e-3)


@each_case
def test_solve_is_damped_least_squares(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    _, y = inputs(operator, dtype, (2,))
    damping = 0.5 * operator.norm() ** 2
    weights = 0.5 + random(y.shape, y.dtype.to_real(), 5).abs()
    solution = operator.solve(y, weights=weights, damping=damping, max_iterations=100, rtol=1e-7)
    optimality = operator.adjoint(weights * (operator(solution.x) - y)) + damping * solution.x
    assert float(optimality.abs().max()) <= 1e-5 * float(operator.adjoint(weights * y).abs().max())
    assert solution.iterations.shape == solution.residual.shape == (2,)


@each_case
def test_errors_name_expected_and_found(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    x, y = inputs(operator, dtype)
    for apply, z, shape in (
        (operator, x, operator.domain_shape),
        (operator.adjoint, y, operator.range_shape),
    ):
        wrong = z.new_zeros((2, *shape[:-1], shape[-1] + 1))
        expected = ", ".join(str(n) for n in shape)
        with pytest.raises(ValueError, match=r"expected shape \(\.\.\., ") as raised:
            apply(wrong)
        assert expected in str(raised.value)
        assert str(tuple(wrong.shape)) in str(raised.value)
        with pytest.raises(ValueError, match=r"expected dtype .*found torch\.int64"):
            apply(torch.zeros(shape, dtype=torch.int64))
        with pytest.raises(TypeError, match=r"expected a torch\.Tensor, found list"):
            apply(z.tolist())


@each_case
def test_repr_names_the_shapes(example: Example, dtype: torch.dtype) -> None:
    operator = example.make(dtype)
    domain = ", ".join(str(n) for n in operator.domain_shape)
    assert repr(operator).startswith(f"{type(operator).__name__}: (")
    assert f"<- ({domain})" in repr(operator)
