"""Jobs from measured files to reconstruction files."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.flows.store import load_prior, save_prior
from ctflow.io.formats.native import write_scan
from ctflow.io.results import read_result
from ctflow.io.scan import open_scan
from ctflow.pipeline.blocks import settled, slice_generator
from ctflow.pipeline.checks import chosen_device
from ctflow.pipeline.job import Job
from ctflow.pipeline.running import Progress, run
from ctflow.solvers import CGLS
from operators import ConeBeam, Detector, GaussianNoise, ImageGrid, RayTransform
from tests.ctflow.io.measured import CENTRE, write_dxchange
from tests.ctflow.priors import write_prior


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_dxchange(tmp_path / "scan.h5", noise=True)
    return tmp_path / "scan.h5"


def job(scan: Path, name: str = "recon.h5", **changes: Any) -> Job:
    values = {"files": [scan], "output": scan.parent / name, "solver": "cgls", "centre": CENTRE}
    return Job(**(values | {"settings": {"iterations": 3}} | changes))


def spoiled(*slices: int) -> Any:
    def edit(file: h5py.File) -> None:
        for i in slices:
            file["/exchange/data"][0, i, 2] = np.nan

    return edit


def test_the_result_is_that_of_the_solver(scan: Path) -> None:
    (outcome,) = run(job(scan))
    assert (outcome.slices, outcome.failed) == (3, {})
    expected = CGLS(iterations=3)(open_scan(scan, centre=CENTRE)[0:3])
    result = read_result(outcome.output)
    torch.testing.assert_close(result.images, expected.image, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.data_fit, expected.history[-1], rtol=1e-4, atol=0)
    assert outcome.picture == scan.parent / "recon.png"


@pytest.mark.parametrize("samples", [1, 2])
def test_the_data_fit_is_that_of_the_image(scan: Path, samples: int) -> None:
    """FLOWER records that of the estimate before each data step, run by run."""
    settings = {"steps": 2, "samples": samples}
    changes = {"solver": "flower", "prior": str(write_prior(scan.parent)), "settings": settings}
    result = read_result(run(job(scan, **changes))[0].output)
    expected = open_scan(scan, centre=CENTRE)[0:3].data_fit(result.images)
    torch.testing.assert_close(result.data_fit, expected, rtol=1e-3, atol=0)


def test_the_threads_that_are_asked_for_compute(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = CGLS.__call__, []

    def watched(self: CGLS, *rest: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return original(self, *rest, **options)

    monkeypatch.setattr(CGLS, "__call__", watched)
    before = torch.get_num_threads()
    for count in (3, None):
        (outcome,) = run(job(scan, f"{count}.h5", threads=count))
        assert read_result(outcome.output).attributes["threads"] == seen[-1] == (count or before)
        assert torch.get_num_threads() == before


def test_provenance_is_complete(scan: Path) -> None:
    (outcome,) = run(job(scan, views=15, seed=7))
    found = read_result(outcome.output).attributes
    assert found["source"] == str(scan)
    assert found["source_sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert (found["unit"], found["pixel_size"]) == ("1/mm", pytest.approx(0.05))
    assert found["solver"]["name"] == "cgls"
    assert found["solver"]["iterations"] == 3
    assert found["reading"] == {"views": 15, "centre": CENTRE}
    assert (found["seed"], found["device"], found["slices"]) == (7, "cpu", "0:3")
    assert found["scan"]["format"] == "DXchange"
    assert found["metadata"] == {"title": "a test body"}
    assert found["versions"]["torch"] == torch.__version__
    assert found["seconds"]["all"] > 0
    assert found["evaluations"]["operator"] > 0


def test_a_slice_depends_on_neither_batch_nor_choice(scan: Path) -> None:
    prior = str(write_prior(scan.parent))
    changes = {"solver": "flower", "prior": prior, "settings": {"steps": 3, "tolerance": 1e-6}}
    results = [
        read_result(run(job(scan, f"{k}.h5", **changes, **others))[0].output).images
        for k, others in enumerate(({"batch": 3}, {"batch": 1}, {"slices": "2"}, {"slices": "1:", "seed": 1}))
    ]
    whole, single, third, other_seed = results

    def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
        return float((found - expected).norm() / expected.norm())

    # Rounding differs from batch to batch, and conjugate gradients pass it on.
    assert distance(single, whole) < 1e-3
    assert distance(third[0], whole[2]) < 1e-3
    assert distance(other_seed, whole[1:]) > 0.02


def test_slice_seeds_follow_the_documented_rule() -> None:
    seed = int.from_bytes(hashlib.sha256(b"5:17").digest()[:8], "big")
    expected = torch.randn(4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.randn(4, generator=slice_generator(5, 17)), expected)


def test_a_bad_slice_spoils_neither_its_block_nor_the_file(tmp_path: Path) -> None:
    write_dxchange(tmp_path / "scan.h5", spoiled(1))
    (outcome,) = run(job(tmp_path / "scan.h5"))
    assert list(outcome.failed) == [1]
    result = read_result(outcome.output)
    assert [status[:4] for status in result.status] == ["done", "fail", "done"]
    assert bool(torch.isnan(result.images[1]).all())
    assert bool(torch.isfinite(result.images[[0, 2]]).all())
    assert torch.isnan(result.data_fit).tolist() == [False, True, False]


def test_a_solver_that_diverges_fails_its_slice(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = CGLS.__call__

    def broken(self: CGLS, problem: Any, *rest: Any, **options: Any) -> Any:
        result = original(self, problem, *rest, **options)
        result.image[0, 0, 0] = torch.inf
        return replace(result)

    monkeypatch.setattr(CGLS, "__call__", broken)
    (outcome,) = run(job(scan))
    assert outcome.failed == {0: "cgls gave an image with NaN or infinity"}


def test_a_bad_file_among_good_ones(tmp_path: Path, scan: Path) -> None:
    write_dxchange(tmp_path / "bad.h5", spoiled(0, 1, 2))
    files = [tmp_path / "bad.h5", scan]
    bad, good = run(job(scan, files=files, output=tmp_path / "out"))
    assert (bad.output, len(bad.failed)) == (None, 3)
    assert good.output == tmp_path / "out" / "scan_recon.h5"
    with pytest.raises(ValueError, match=r"no slice could be reconstructed; slice 0: .* nan in slice 0"):
        run(job(tmp_path / "bad.h5", "new.h5"))
    assert not (tmp_path / "new.h5").exists()


def test_a_folder_that_may_not_be_looked_into_is_left_out(
    tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    original = Path.iterdir

    def iterdir(self: Path) -> Any:
        if self.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return original(self)

    asked = job(scan, "out", files=[scan, tmp_path / "*ocked"], keep_going=True)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    whole, locked = run(asked)
    assert (whole.failed, locked.output) == ({}, None)
    assert "Permission denied" in (locked.unfinished or "")


def test_more_slices_than_there_can_be(scan: Path) -> None:
    with h5py.File(scan, "r+") as file:
        for name in ("data", "data_white", "data_dark"):
            frames, _, bins = file[f"exchange/{name}"].shape
            del file[f"exchange/{name}"]
            file.create_dataset(f"exchange/{name}", (frames, 10**12, bins), "f4", chunks=(frames, 1, bins))
    with pytest.raises(ValueError, match=r"slices: expected at most 1000000 at a time of .*scan\.h5"):
        run(job(scan))


def test_an_output_of_other_settings_among_others_is_left_alone(tmp_path: Path, scan: Path) -> None:
    other = tmp_path / "other.h5"
    other.write_bytes(scan.read_bytes())
    run(job(scan, "out", seed=1))
    there, new = run(job(scan, "out", files=[scan, other]))
    assert (there.output, there.failed) == (None, {})
    assert "scan_recon.h5: the file exists already, made with other settings" in (there.unfinished or "")
    assert new.output == tmp_path / "out" / "other_recon.h5"


def test_a_name_in_another_encoding(scan: Path) -> None:
    file = scan.with_name(os.fsdecode(b"ger\xe4t.h5"))
    scan.rename(file)
    (outcome,) = run(job(file, "out"))
    assert outcome.unfinished is None
    assert read_result(outcome.output).attributes["source"].endswith("ger\\udce4t.h5")


def test_a_picture_that_is_gone_is_drawn_again(scan: Path) -> None:
    (outcome,) = run(job(scan))
    outcome.picture.unlink()
    (again,) = run(job(scan))
    assert (again.computed, again.picture.is_file()) == (0, True)


def test_an_output_without_suffix_is_a_folder(scan: Path) -> None:
    (outcome,) = run(job(scan, "out"))
    assert outcome.output == scan.parent / "out" / "scan_recon.h5"
    assert outcome.output.is_file()


def test_everything_is_checked_before_anything_is_computed(
    tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.h5").write_text("a text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "scan.h5").write_bytes(scan.read_bytes())

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr(CGLS, "__call__", never)
    for changes, message in (
        ({"files": [scan, tmp_path / "text.h5"], "output": tmp_path / "out"}, r"text\.h5: file: expected"),
        ({"files": [scan, scan.with_name("folder") / "scan.h5"], "output": tmp_path / "out"}, "would share"),
        ({"files": [scan, scan.with_name("folder") / "scan.h5"]}, "expected a folder for 2 files"),
        ({"slices": "2:5"}, "slices: expected within 0:3, found '2:5'"),
        ({"device": "cuda:99"}, "device: expected one of this machine, found 'cuda:99'"),
    ):
        with pytest.raises(ValueError, match=message):
            run(job(scan, **changes))
    assert not (tmp_path / "out").exists()


def test_progress_grows_to_the_end(scan: Path) -> None:
    seen: list[Progress] = []
    run(job(scan, batch=2), seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert done[-1] == 3
    assert {(progress.file, progress.slices) for progress in seen} == {(scan, 3)}


def test_devices() -> None:
    assert chosen_device("cpu") == torch.device("cpu")
    assert chosen_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("tpu", "meta", ""):
        with pytest.raises(ValueError, match="device: expected auto, cpu or cuda"):
            chosen_device(wrong)


def test_all_slices_share_one_scale(scan: Path) -> None:
    prior = load_prior(write_prior(scan.parent))
    opened = open_scan(scan, centre=CENTRE)
    fixed = settled(prior, opened)
    assert (prior.representation.calibration, fixed.representation.calibration) == ("auto", "fixed")
    assert fixed.representation.scale == prior.representation.scale
    prior.representation = replace(prior.representation, scale=30.0, offset=30.0)
    scale = settled(prior, opened).representation.scale
    assert 0.1 < scale < 1.0
    saved = scan.parent / "other"
    save_prior(prior, saved)
    results = [
        run(job(scan, f"{k}.h5", solver="flower", prior=str(saved), settings={"steps": 1}, **changes))
        for k, changes in enumerate(({"slices": "1"}, {"slices": "0:2"}))
    ]
    for (outcome,) in results:
        assert read_result(outcome.output).attributes["representation"]["scale"] == pytest.approx(scale)


def cone_scan(folder: Path) -> tuple[Path, torch.Tensor]:
    detector = Detector((12, 24), (1.6, 1.7))
    geometry = ConeBeam.circular(24, source_to_axis=60.0, source_to_detector=90.0, detector=detector)
    grid = ImageGrid((6, 16, 18), (1.5, 1.1, 1.0))
    volume = torch.zeros(grid.shape)
    volume[1:5, 4:12, 5:13] = 0.02
    noise = GaussianNoise(0.01)
    sinogram = noise.sample(RayTransform(geometry, grid)(volume), torch.Generator().manual_seed(0))
    write_scan(folder / "cone.h5", sinogram, geometry, grid, noise, truth=volume)
    return folder / "cone.h5", volume


@pytest.mark.parametrize("solver", ["fbp", "tv", "flower"])
def test_volumes(tmp_path: Path, solver: str) -> None:
    file, volume = cone_scan(tmp_path)
    settings = {"flower": {"steps": 3, "coupling": 2.0}}.get(solver, {})
    prior = str(write_prior(tmp_path)) if solver == "flower" else None
    changes = {"solver": solver, "settings": settings, "prior": prior, "centre": None, "batch": 2}
    (outcome,) = run(job(file, **changes))
    result = read_result(outcome.output)
    assert (outcome.slices, outcome.failed, result.status) == (6, {}, ("done",) * 6)
    assert result.images.shape == (6, 16, 18)
    assert (result.attributes["pixel_size"], result.attributes["slice_distance"]) == (1.1, 1.5)
    if solver != "fbp":
        assert len(set(result.data_fit.tolist())) == 1
    if solver == "tv":
        assert (result.images - volume).norm() < 0.1 * volume.norm()


def test_a_volume_is_reconstructed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = cone_scan(tmp_path)
    with pytest.raises(ValueError, match=r"slices: expected all 6 of .*cone.h5, which are one problem"):
        run(job(file, centre=None, slices="0:3"))

    def refuse(self: CGLS, *arguments: Any, **options: Any) -> Any:
        raise ValueError("cgls: not today")

    monkeypatch.setattr(CGLS, "__call__", refuse)
    with pytest.raises(
        ValueError, match=r"cone.h5: no slice could be reconstructed; slice 0: cgls: not today"
    ):
        run(job(file, centre=None))
