"""Predicted memory against what is allocated, and volumes that are worked on slab by slab."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import (
    ConeBeam,
    Detector,
    FanBeam,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
    RayTransform,
)
from operators.ct.memory_use import MemoryUse
from operators.ct.projectors import joseph_volume

FAR: dict[str, Any] = {"source_to_axis": 200.0, "source_to_detector": 300.0}
PLANE = (ParallelBeam.uniform(60, Detector(180, 1.0)), ImageGrid((130, 120)))
FAN = (FanBeam.circular(60, detector=Detector(180, 1.5), **FAR), ImageGrid((120, 130)))
PANEL = Detector((20, 30), 2.0)
CONE = (ConeBeam.circular(12, detector=PANEL, **FAR), ImageGrid((40, 42, 44)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whether several hold their sums at the same moment is a matter of chance."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def allocated(call: Callable[[Tensor], Tensor], argument: Tensor) -> int:
    """Peak of what numpy and torch allocate during a call on the CPU, less the result."""
    call(argument)  # compiles, and makes what is kept
    with torch.profiler.profile(profile_memory=True) as profile:
        tracemalloc.start()
        try:
            result = call(argument)
            arrays = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return arrays + most - result.numel() * result.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize(
    ("scan", "projector"), [(PLANE, "joseph"), (FAN, "auto"), (FAN, "sparse"), (PLANE, "sparse")]
)
def test_planes_take_what_is_predicted(scan: Any, projector: str, batch: int, dtype: torch.dtype) -> None:
    operator = RayTransform(*scan, projector)
    use = operator.memory(batch, dtype)
    image = torch.rand(batch, *operator.domain_shape, dtype=dtype)
    sinogram = torch.rand(batch, *operator.range_shape, dtype=dtype)
    assert use.image == image.numel() * image.element_size()
    assert use.sinogram == sinogram.numel() * sinogram.element_size()
    for call, argument, predicted in (
        (operator, image, use.forward),
        (operator.adjoint, sinogram, use.adjoint),
    ):
        # Python's own objects take some ten kilobytes.
        assert allocated(call, argument) == pytest.approx(predicted, rel=0.03, abs=5e4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("budget", [1 << 30, 120_000])
def test_volumes_take_what_is_predicted(
    budget: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joseph_volume, "BUDGET", budget)
    operator = RayTransform(*CONE)
    use = operator.memory(2, dtype)
    whole = 42 * 44 * 46 * dtype.itemsize
    assert use.forward == use.adjoint <= min(budget, whole)
    image = torch.rand(2, *operator.domain_shape, dtype=dtype)
    sinogram = torch.rand(2, *operator.range_shape, dtype=dtype)
    for call, argument in ((operator, image), (operator.adjoint, sinogram)):
        assert allocated(call, argument) == pytest.approx(use.forward, rel=0.03, abs=5e4)


@pytest.mark.parametrize("projector", ["joseph", "sparse"])
def test_what_is_kept_is_what_is_there(projector: str) -> None:
    operator = RayTransform(*FAN, projector)
    predicted = operator.memory().kept
    image = torch.rand(120, 130)
    operator(image)
    engine: Any = operator._engines[projector]
    arrays = [*engine._lines]
    if projector == "joseph":
        arrays += [engine._steep, engine._flat]
        assert predicted == sum(array.nbytes for array in arrays)
        return
    arrays += [engine._ends, *(layout[2] for layout in engine._layouts)]
    matrices = engine._kept[torch.float32, torch.device("cpu")]
    parts = [part for m in matrices for part in (m.crow_indices(), m.col_indices(), m.values())]
    there = sum(a.nbytes for a in arrays) + sum(p.numel() * p.element_size() for p in parts)
    # Weights of nothing are counted and not kept.
    assert 0.97 * predicted < there <= predicted


GEOMETRIES = {
    "parallel": ParallelBeam3D.uniform(5, PANEL, start=0.1),
    "laminography": ParallelBeam3D.uniform(5, PANEL, start=0.1, tilt=0.9),
    "cone": ConeBeam.circular(5, detector=PANEL, **FAR),
    "cone leaning": ConeBeam.circular(5, detector=PANEL, rotation=0.2, tilt=0.3, **FAR),
    "cone curved": ConeBeam.circular(5, detector=Detector((20, 30), 2.0, curved=True), **FAR),
    "helix": HelicalConeBeam.uniform(7, 2, detector=PANEL, pitch=8.0, z_start=-6.0, **FAR),
}


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_slabs_give_what_the_whole_volume_gives(
    name: str, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = RayTransform(GEOMETRIES[name], ImageGrid((13, 9, 11), (1.5, 1.1, 0.9), (0.3, -1.0, 0.7)))
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 13, 9, 11, dtype=torch.float64, generator=generator)
    sinogram = torch.rand(2, *operator.range_shape, dtype=torch.float64, generator=generator)
    whole, back = operator(image), operator.adjoint(sinogram)
    monkeypatch.setattr(joseph_volume, "BUDGET", (slices + 2) * 11 * 13 * 8)
    engine: Any = operator._engines["joseph"]
    thickest = max(high - low for low, high in engine._slabs(8))
    assert thickest <= slices
    torch.testing.assert_close(operator(image), whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(operator.adjoint(sinogram), back, rtol=0, atol=1e-9)


def test_a_budget_below_a_slice_still_works_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joseph_volume, "BUDGET", 1)
    assert RayTransform(*CONE).memory().forward == 44 * 46 * 3 * 4


def test_it_says_so_in_a_line() -> None:
    use = MemoryUse(image=1_000_000, sinogram=2_000_000, forward=500_000, adjoint=3_000_000, kept=100_000)
    assert use.peak == 6_100_000
    assert use.describe() == (
        "6.1 MB at the peak (image 1.0, sinogram 2.0, forward 0.5, adjoint 3.0, kept 0.1)"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        use.image = 3  # type: ignore[misc]


def test_astra_and_odl_take_what_was_measured() -> None:
    assert dataclasses.astuple(RayTransform(*PLANE, "astra").memory(5))[2:] == (0, 0, 0)
    assert dataclasses.astuple(RayTransform(*PLANE, "odl").memory(5))[2:] == (86_400, 124_800, 0)


def test_astra_on_a_gpu_copies_what_it_reads() -> None:
    def on_cuda(scan: Any) -> tuple[int, ...]:
        return dataclasses.astuple(RayTransform(*scan, "astra").memory(3, device="cuda"))[2:]

    assert on_cuda(PLANE) == (3 * 130 * 120 * 4, 3 * 60 * 180 * 4, 0)
    assert on_cuda((FAN[0], ImageGrid((120, 130)))) == (120 * 130 * 4, 60 * 180 * 4, 0)
    projections = 12 * 20 * 30 * 4
    assert on_cuda(CONE) == (40 * 42 * 44 * 4 + projections, 2 * projections, 0)


def test_what_is_not_possible_is_not_said() -> None:
    with pytest.raises(
        ValueError, match='projector "astra": ASTRA computes volumes on CUDA only, not on cpu'
    ):
        RayTransform(CONE[0], CONE[1], "astra").memory()
    with pytest.raises(ValueError, match=r"expected dtype torch\.float32, found torch\.float64"):
        RayTransform(*PLANE, "astra").memory(dtype=torch.float64)
    with pytest.raises(ValueError, match=r"RayTransform\.memory batch: expected a positive whole number"):
        RayTransform(*PLANE).memory(0)


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize(("scan", "projector"), [(FAN, "triton"), (CONE, "triton"), (FAN, "sparse")])
def test_a_gpu_takes_what_is_predicted(scan: Any, projector: str, batch: int) -> None:
    operator = RayTransform(*scan, projector)
    use = operator.memory(batch, device="cuda")
    image = torch.rand(batch, *operator.domain_shape, device="cuda")
    sinogram = torch.rand(batch, *operator.range_shape, device="cuda")
    for call, argument, predicted in (
        (operator, image, use.forward),
        (operator.adjoint, sinogram, use.adjoint),
    ):
        call(argument)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call(argument)
        torch.cuda.synchronize()
        found = torch.cuda.max_memory_allocated() - before - result.numel() * 4
        assert found == pytest.approx(predicted, rel=0.1, abs=2e6)
