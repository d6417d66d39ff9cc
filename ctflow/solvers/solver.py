"""The protocol of all solvers, what they record, and how their settings are checked."""

from __future__ import annotations

import dataclasses
import time
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.problem import InverseProblem, Proximal
from ctflow.reconstruction import Reconstruction
from ctflow.representation import Representation
from operators.meter import metered
from operators.noise import Generators, standard_normal


@dataclass(frozen=True)
class Step:
    """What a callback sees: step `step` of `total` is done, and the image is about `estimate`."""

    step: int
    total: int
    estimate: Tensor


Callback = Callable[[Step], bool | None]


@runtime_checkable
class Solver(Protocol):
    """A frozen dataclass of settings that turns a problem into a reconstruction.

    Leading dimensions of the measurement are the batch. All randomness comes from `generator`, one for
    the batch or a sequence with one for each sample. The callback gets a `Step` after each step;
    when it returns True the run stops and the estimate so far is the result.
    """

    def __call__(
        self,
        problem: InverseProblem,
        prior: FlowPrior | None = None,
        *,
        generator: Generators | None = None,
        callback: Callback | None = None,
    ) -> Reconstruction:
        """Reconstruct."""
        ...


class Recorder:
    """Times, counts and reports one run of a solver; used as a context around its whole body."""

    def __init__(
        self,
        solver: Any,
        *,
        total: int,
        callback: Callback | None = None,
        generator: Generators | None = None,
        prior: FlowPrior | None = None,
        representation: Representation | None = None,
    ) -> None:
        self._solver, self._callback, self._total = solver, callback, total
        self._prior, self._representation = prior, representation
        self._seed = _seed_of(generator)
        self._history: list[Tensor] = []
        self._iterations: list[Tensor] = []
        self._method = ""
        self._stack = ExitStack()
        self._done = 0
        self.stopped = False

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        self._meter = self._stack.enter_context(metered())
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def step(
        self,
        estimate: Tensor | Callable[[], Tensor],
        data_fit: Tensor | None = None,
        near: Proximal | None = None,
    ) -> bool:
        """Record one step; True when the callback asks to stop.

        `estimate`, in image units, may be a function, which is then called only if somebody looks. `near` is
        the step's proximal, whose method and iterations end up in the result's `details`.
        """
        self._done += 1
        if data_fit is not None:
            self._history.append(data_fit.detach())
        if near is not None:
            self._iterations.append(near.iterations)
            self._method = near.method
        if self._callback is None:
            return False
        image = estimate() if callable(estimate) else estimate
        self.stopped = bool(self._callback(Step(self._done, self._total, image.detach())))
        return self.stopped

    def finish(
        self, image: Tensor, *, details: Mapping[str, Any] | None = None, **results: Any
    ) -> Reconstruction:
        """The reconstruction, with all that was recorded."""
        inner: dict[str, Any] = {}
        if self._iterations:
            inner = {"proximal": self._method, "proximal_iterations": torch.stack(self._iterations)}
        seconds = {"total": time.perf_counter() - self._start, **self._meter.seconds}
        representation = self._representation
        return Reconstruction(
            image=image.detach(),
            history=tuple(self._history),
            solver={"name": solver_name(type(self._solver)), **settings_of(self._solver)},
            prior=self._prior.name if self._prior is not None else None,
            representation=representation.to_dict() if representation is not None else None,
            seed=self._seed,
            seconds=seconds,
            evaluations=dict(self._meter.counts),
            details={**inner, **(details or {})},
            **results,
        )


def settings_of(solver: Any) -> dict[str, Any]:
    """Every setting of a solver as plain data; of a tensor its shape."""
    values = {field.name: getattr(solver, field.name) for field in dataclasses.fields(solver)}
    return {
        key: f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else value
        for key, value in values.items()
    }


def white_noise(problem: InverseProblem, generator: Generators) -> Tensor:
    """Standard normal noise of the shape, precision and device of the problem's real unknown."""
    y = problem.measurement
    return standard_normal(problem.image_shape, generator, dtype=y.dtype.to_real(), device=y.device)


def solver_name(solver: type) -> str:
    """The solver's name on the command line: its class variable `name`, or the class's name in lower case."""
    return str(getattr(solver, "name", solver.__name__.lower()))


def need_prior(solver: object, prior: FlowPrior | None, *, latent: bool = False) -> FlowPrior:
    """The prior, or a ValueError where it is None, or a latent one for a solver that takes none."""
    name = solver_name(type(solver))
    if prior is None:
        raise ValueError(f"{name}: expected a prior, found none")
    if not (latent or prior.representation.affine):
        raise ValueError(
            f"{name}: expected a prior with an affine representation, of pixels; found a latent prior"
        )
    return prior


def need_generator(solver: object, generator: Generators | None) -> Generators:
    """The generator, or a ValueError where it is None."""
    if generator is None:
        raise ValueError(f"{solver_name(type(solver))}: expected a torch.Generator, found none")
    return generator


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """The end of an error message for an unknown word: what may have been meant, or all that is known."""
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(names))}"


def configure(solver: type, settings: Mapping[str, Any]) -> Any:
    """An instance of the solver from plain settings, each name and type checked.

    Numbers may come as strings, as they do from a command line. Raises ValueError that names the
    solver, the setting, what was found and what was expected.
    """
    hints = typing.get_type_hints(solver)
    known = {field.name: hints[field.name] for field in dataclasses.fields(solver)}
    name = solver_name(solver)
    values = {}
    for key, value in settings.items():
        word = key.replace("-", "_")
        if word not in known:
            raise ValueError(f"{name}: no setting {key!r}; {nearest(word, known)}")
        values[word] = _converted(f"{name}: {word}", value, known[word])
    return solver(**values)


def must_be(owner: object, **checks: tuple[Any, bool, str]) -> None:
    """Raise ValueError for the first setting, given as (found, is it right, expected), that is wrong."""
    for setting, (found, right, expected) in checks.items():
        if not right:
            raise ValueError(f"{solver_name(type(owner))}: {setting}: expected {expected}, found {found!r}")


def _converted(what: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    if typing.get_origin(hint) is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise ValueError(
            f"{what}: expected one of {', '.join(map(str, typing.get_args(hint)))}, found {value!r}"
        )
    if bool in options:
        truth = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        answer = value if isinstance(value, bool) else truth.get(str(value).lower())
        if answer is not None:
            return answer
    elif not isinstance(value, bool):
        for kind in (int, float):
            if kind in options:
                try:
                    number = kind(value)
                except (TypeError, ValueError):
                    continue
                if kind is float or number == float(value):
                    return number
        if str in options and isinstance(value, str):
            return value
    names = " or ".join("none" if option is type(None) else option.__name__ for option in options)
    raise ValueError(f"{what}: expected {names}, found {value!r}")


def _seed_of(generator: Generators | None) -> int | list[int] | None:
    if generator is None:
        return None
    if isinstance(generator, torch.Generator):
        return generator.initial_seed()
    return [g.initial_seed() for g in generator]
