"""ISMRMRD: what acquisitions become, in any order, and which are refused."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ctflow.io.errors import ScanError
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from tests.ctflow.io.measured_kspace import (
    Acquisition,
    complex_noise,
    head_image,
    header,
    limit,
    lines_of,
    smooth_maps,
    to_image,
    to_kspace,
    write_ismrmrd,
)

COILS, HEIGHT, WIDTH = 4, 48, 40
VIEWS = ((2.0 * WIDTH, HEIGHT, 5.0), (WIDTH, HEIGHT, 5.0))
XML = header(
    (2 * WIDTH, HEIGHT, 1), (WIDTH, HEIGHT, 1), views=VIEWS, limits=limit(1, HEIGHT - 1, HEIGHT // 2)
)


def coil_images(slices: int = 1) -> np.ndarray:
    """Shape (slices, coils, HEIGHT, 2 WIDTH): the object is in the middle half of the readout."""
    images = np.zeros((slices, COILS, HEIGHT, 2 * WIDTH), np.complex64)
    images[..., WIDTH // 2 : WIDTH // 2 + WIDTH] = head_image(HEIGHT, WIDTH, slices)[:, None] * smooth_maps(
        COILS, HEIGHT, WIDTH
    )
    return images


def kspace(slices: int = 1, std: float = 0.003) -> np.ndarray:
    samples = to_kspace(coil_images(slices))
    return (samples + std * complex_noise(samples.shape)).astype(np.complex64)


def opened(path: Path, acquisitions: list[Acquisition], xml: str = XML, **arguments: Any) -> MRScan:
    write_ismrmrd(path / "scan.h5", acquisitions, xml)
    scan = open_scan(path / "scan.h5", **arguments)
    assert isinstance(scan, MRScan)
    return scan


def without_oversampling(samples: np.ndarray) -> torch.Tensor:
    """What the middle half of the field of view gives."""
    start = samples.shape[-1] // 4
    return torch.from_numpy(to_kspace(to_image(samples)[..., start : start + samples.shape[-1] // 2]))


def test_lines_are_sorted_by_their_counters(tmp_path: Path) -> None:
    samples = kspace(3)
    acquisitions = [one for k in range(3) for one in lines_of(samples[k], slice=k)]
    np.random.default_rng(0).shuffle(acquisitions)  # type: ignore[arg-type]
    scan = opened(tmp_path, acquisitions)
    assert (len(scan), scan.recording.matrix, scan.image_shape) == (3, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    torch.testing.assert_close(scan[0:3].measurement, without_oversampling(samples), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scan[1].measurement, scan[0:3].measurement[1])
    assert scan.pixel_size == 1.0
    described = scan.describe()
    assert (described["format"], described["acceleration"]) == ("ISMRMRD, 3 slices", 1.0)
    assert described["missing"] == ["noise scan"]
    assert "estimated" in described["noise"]
    image = scan[0].initial()
    expected = torch.from_numpy(head_image(HEIGHT, WIDTH)[0]).abs()
    assert float((image.abs() - expected).norm() / expected.norm()) < 0.05
    again = pickle.loads(pickle.dumps(scan))
    assert torch.equal(again[2].measurement, scan[2].measurement)


def test_reversed_discarded_and_repeated_readouts(tmp_path: Path) -> None:
    samples = kspace()[0]
    plain = opened(tmp_path, lines_of(samples))[0].measurement
    changed = lines_of(samples)
    for one in changed[::2]:
        one.samples = one.samples[:, ::-1]
        one.flags, one.head["center_sample"] = (22,), 2 * WIDTH - 1 - WIDTH
    for one in changed[1::3]:
        one.samples = np.pad(one.samples, ((0, 0), (5, 3)), constant_values=np.nan)
        one.samples[~np.isfinite(one.samples)] = 99
        # of a reversed readout, what was measured first is at the end
        one.head |= {"discard_pre": 5, "discard_post": 3}
        one.head["center_sample"] += 5
    torch.testing.assert_close(opened(tmp_path, changed)[0].measurement, plain)
    twice = [*lines_of(samples + 0.1), *lines_of(samples - 0.1, first=0, every=2, average=1)]
    problem = opened(tmp_path, twice, noise_std=0.2)[0]
    torch.testing.assert_close(problem.measurement[:, ::2], plain[:, ::2], atol=1e-5, rtol=1e-4)
    weights = problem.precision()[0, :, 0]
    torch.testing.assert_close(weights[::2], 2 * weights[1::2])


def test_an_unset_centre_is_the_middle(tmp_path: Path) -> None:
    samples = kspace()[0]
    unset = lines_of(samples)
    for one in unset:
        del one.head["center_sample"]
    scan = opened(tmp_path, unset)
    assert scan.recording.assumed == ()
    torch.testing.assert_close(
        scan[0].measurement, without_oversampling(samples[None])[0], atol=1e-5, rtol=1e-4
    )


def test_asymmetric_echoes_and_partial_fourier_are_filled_with_zeros(tmp_path: Path) -> None:
    samples = kspace()[0]
    partial = lines_of(samples)[10:]
    for one in partial:
        one.samples = one.samples[:, 16:]
        one.head["center_sample"] = WIDTH - 16
    scan = opened(tmp_path, partial)
    # The readout is not whole: oversampling stays, and is cropped from the image.
    assert (scan.recording.matrix, scan.image_shape) == ((HEIGHT, 2 * WIDTH), (HEIGHT, WIDTH))
    problem = scan[0]
    expected = torch.from_numpy(samples.copy())
    expected[:, :10] = expected[..., :16] = 0
    torch.testing.assert_close(problem.measurement, expected)
    assert scan.finished(problem.initial()).shape == (HEIGHT, WIDTH)
    words = " / ".join(scan.recording.assumed)
    assert "asymmetric echoes of 80 % at least: zero-filled" in words
    assert "partial Fourier: 79 % of 48 lines; the rest is zero-filled" in words


def test_the_centre_of_the_counter_goes_to_the_middle(tmp_path: Path) -> None:
    samples = kspace()[0]
    shifted = lines_of(samples)[4:]
    for one in shifted:
        one.idx["kspace_encode_step_1"] -= 4
    xml = XML.replace(limit(1, HEIGHT - 1, HEIGHT // 2), limit(1, HEIGHT - 5, HEIGHT // 2 - 4))
    problem = opened(tmp_path, shifted, xml)[0]
    expected = without_oversampling(samples[None])[0]
    expected[:, :4] = 0
    torch.testing.assert_close(problem.measurement, expected, atol=1e-5, rtol=1e-4)


def test_a_noise_scan_whitens_and_its_dwell_time_counts(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    mixing = np.eye(COILS) + 0.4 * (
        random.standard_normal((COILS, COILS)) + 1j * random.standard_normal((COILS, COILS))
    )
    samples = to_kspace(coil_images())[0]
    noisy = samples + 0.05 * np.einsum("dc,cyx->dyx", mixing, complex_noise(samples.shape))
    # Sampled twice as slowly, with half the bandwidth and half the variance.
    scan_of_noise = Acquisition(
        0.05 / np.sqrt(2) * mixing @ complex_noise((COILS, 4000), 7), (19,), {"sample_time_us": 10.0}
    )
    scan = opened(tmp_path, [scan_of_noise, *lines_of(noisy)])
    described = scan.describe()
    assert described["noise"] == "complex Gaussian, standard deviation 1, after whitening by the noise scan"
    assert described["missing"] == []
    problem = scan[0]
    clean = opened(tmp_path, [scan_of_noise, *lines_of(samples)])[0]
    noise = (problem.measurement - clean.measurement).flatten(1)
    covariance = noise @ noise.conj().T / noise.shape[1]
    torch.testing.assert_close(covariance, torch.eye(COILS, dtype=torch.complex64), atol=0.12, rtol=0)
    assert float(torch.as_tensor(problem.noise.std)) == 1  # type: ignore[attr-defined]
    narrow = XML.replace(
        "<encoding>",
        "<acquisitionSystemInformation><relativeReceiverNoiseBandwidth>0.5</relativeReceiverNoiseBandwidth>"
        "</acquisitionSystemInformation><encoding>",
        1,
    )
    again = opened(tmp_path, [scan_of_noise, *lines_of(noisy)], narrow)
    torch.testing.assert_close(again[0].measurement, problem.measurement / 2**0.5, rtol=1e-4, atol=1e-4)


def test_calibration_lines_are_for_the_maps_alone(tmp_path: Path) -> None:
    samples = kspace()[0]
    imaging = lines_of(samples, every=2)
    alone = [
        Acquisition(2 * one.samples, (20,), one.head, one.idx)
        for one in lines_of(samples)[HEIGHT // 2 - 9 : HEIGHT // 2 + 9 : 2]
    ]
    parallel = (
        "<parallelImaging><accelerationFactor><kspace_encoding_step_1>3</kspace_encoding_step_1>"
        "</accelerationFactor></parallelImaging>"
    )
    scan = opened(tmp_path, [*imaging, *alone], XML.replace("</encoding>", f"{parallel}</encoding>"))
    problem = scan[0]
    assert bool((problem.measurement[:, 1::2] == 0).all())
    described = scan.describe()
    assert (described["acceleration"], described["calibration"]) == (2.0, [19, WIDTH])
    assert described["problems"] == ["acceleration: the header says 3, every 2nd line is there"]


def test_repetitions_are_slices_and_other_acquisitions_are_named(tmp_path: Path) -> None:
    samples = kspace()[0]
    acquisitions = [*lines_of(samples, repetition=1), *lines_of(2 * samples)]
    acquisitions += [Acquisition(samples[:, 0], (23,)), Acquisition(samples[:, 0], (27,))]
    acquisitions += [Acquisition(samples[:, 0, :10], head={"encoding_space_ref": 1})]
    scan = opened(tmp_path, acquisitions)
    torch.testing.assert_close(scan[0].measurement, 2 * scan[1].measurement)
    assert scan.describe()["format"] == "ISMRMRD, 2 repetitions"
    assert [frame["repetition"] for frame in scan.metadata["slices_are"]] == [0, 1]
    assert scan.recording.assumed == (
        "1 acquisitions of navigation: left out",
        "1 acquisitions of dummy: left out",
        "1 acquisitions of encoding spaces other than 0: left out",
    )


def test_a_larger_image_is_interpolated(tmp_path: Path) -> None:
    samples = to_kspace(coil_images())[0]
    xml = header((2 * WIDTH, HEIGHT, 1), (2 * WIDTH, 2 * HEIGHT, 1), views=VIEWS)
    scan = opened(tmp_path, lines_of(samples), xml)
    assert (scan.recording.matrix, scan.image_shape) == ((HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH))
    assert scan.pixel_size == 0.5
    image = torch.from_numpy(head_image(HEIGHT, WIDTH)[0])
    finer = scan.finished(image)
    torch.testing.assert_close(finer[::2, ::2], image, atol=1e-5, rtol=1e-4)
    assert not scan.finished(image.abs()).is_complex()


def test_a_volume_is_one_problem(tmp_path: Path) -> None:
    depth = 6
    images = head_image(HEIGHT, WIDTH, depth)[:, None] * smooth_maps(COILS, HEIGHT, WIDTH)
    samples = to_kspace(images.transpose(1, 0, 2, 3), (-3, -2, -1))
    acquisitions = [one for z in range(depth) for one in lines_of(samples[:, z], kspace_encode_step_2=z)]
    xml = header(
        (WIDTH, HEIGHT, depth),
        (WIDTH, HEIGHT, depth),
        views=((WIDTH, HEIGHT, 12.0),) * 2,
        limits=limit(1, HEIGHT - 1, HEIGHT // 2) + limit(2, depth - 1, depth // 2),
    )
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["coil_maps"] = np.broadcast_to(smooth_maps(COILS, HEIGHT, WIDTH)[:, None], samples.shape)
    scan = opened(tmp_path, acquisitions, xml, coil_maps=tmp_path / "maps.h5", noise_std=1e-3)
    assert (scan.is_volume, len(scan), scan.slice_distance) == (True, depth, 2.0)
    problem = scan.volume()
    torch.testing.assert_close(problem.measurement, torch.from_numpy(samples), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        problem.initial(), torch.from_numpy(head_image(HEIGHT, WIDTH, depth)), atol=1e-4, rtol=1e-3
    )
    with pytest.raises(ScanError, match=r"scan\.volume\(\) is the problem in space"):
        _ = scan[0]


def changed(name: str, value: Any, which: int = 5) -> Callable[[list[Acquisition]], object]:
    return lambda acquisitions: acquisitions[which].head.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("active_channels", 3), "acquisition 5: expected 4 as the others have, found 3 channels"),
        (changed("number_of_samples", 70), "acquisition 5: expected 4 x 70 complex ones as its head says"),
        (changed("center_sample", 9), "acquisition 5: expected some that fit into 80 with the centre at 40"),
        (changed("discard_pre", 90), "acquisition 5: expected some that fit into 80"),
        (
            lambda acquisitions: acquisitions[5].idx.update(kspace_encode_step_1=48),
            "acquisition 5 kspace_encode_step_1: expected a step among 48 about 24, found 48",
        ),
        (
            lambda acquisitions: acquisitions[5].samples.__setitem__((1, 2), np.nan),
            "acquisition 5: expected finite numbers, found 1 numbers that are not",
        ),
        (
            lambda acquisitions: [setattr(one, "flags", (23,)) for one in acquisitions],
            "/dataset/data: expected acquisitions of an image, found none among 48 acquisitions",
        ),
        (
            lambda acquisitions: acquisitions.append(Acquisition(np.ones((4, 7)), (19,))),
            "noise scan: expected at least 8 for 4 channels, found 7 samples",
        ),
        (
            lambda acquisitions: acquisitions.append(Acquisition(np.ones((4, 70)), (19,))),
            "noise scan: expected noise of independent channels, found covariance: expected a positive",
        ),
    ],
)
def test_bad_acquisitions(tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    acquisitions = lines_of(kspace()[0])
    change(acquisitions)
    with pytest.raises(ScanError, match=r"^\S+scan\.h5: ") as caught:
        _ = opened(tmp_path, acquisitions)[0]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (
            XML.replace(">cartesian<", ">epi<"),
            "trajectory: expected cartesian, radial, goldenangle, spiral, other; others need",
        ),
        (XML.replace("<ismrm", "<!DOCTYPE a [<!ENTITY b 'c'>]><ismrm"), "expected plain XML without one"),
        (XML.replace("<matrixSize>", "<matrix>"), "expected an ISMRMRD header in XML, found mismatched tag"),
        (XML.replace("reconSpace", "other"), "/dataset/xml encoding: expected an element reconSpace"),
        (XML.replace("<x>80</x>", "<x>many</x>", 1), "matrixSize x: expected a number, found 'many'"),
        (XML.replace("<x>80</x>", "<x>0</x>", 1), "matrixSize x: expected a whole number from 1 to 65536"),
        (XML.replace("ismrmrdHeader", "html"), "expected an ISMRMRD header in XML, found an element html"),
        ("", "expected an ISMRMRD header in XML"),
    ],
)
def test_bad_headers(tmp_path: Path, xml: str, message: str) -> None:
    write_ismrmrd(tmp_path / "scan.h5", lines_of(kspace()[0]), xml)
    with pytest.raises(ScanError) as caught:
        open_scan(tmp_path / "scan.h5")
    assert message in str(caught.value)


def test_a_noise_scan_in_another_file_is_named(tmp_path: Path) -> None:
    dependency = (
        "<measurementInformation><measurementDependency><dependencyType>Noise</dependencyType>"
        "<measurementID>66</measurementID></measurementDependency></measurementInformation><encoding>"
    )
    scan = opened(tmp_path, lines_of(kspace()[0]), XML.replace("<encoding>", dependency, 1))
    assert scan.describe()["missing"] == ["noise scan, but in another measurement, 66"]


@pytest.mark.skipif(
    shutil.which("ismrmrd_generate_cartesian_shepp_logan") is None, reason="ismrmrd-tools are not installed"
)
def test_what_ismrmrd_tools_make(tmp_path: Path) -> None:
    file = tmp_path / "phantom.h5"
    options = ["-m", "64", "-c", "4", "-O", "2", "-r", "1", "-a", "2", "-w", "16", "-n", "0.05", "-C", "-o"]
    command = ["ismrmrd_generate_cartesian_shepp_logan", *options, str(file)]
    subprocess.run(command, check=True, capture_output=True)
    scan = open_scan(file)
    described = scan.describe()
    assert (described["slices"], described["matrix"], described["coils"]) == (2, [64, 64], 4)
    assert (described["acceleration"], described["problems"], described["missing"]) == (2.0, [], [])
    assert described["calibration"][1] == 64
    assert described["calibration"][0] >= 16
    # Repetitions are shifted by a line, so that together they have all lines of the phantom.
    problem = scan[0:2]
    both = problem.measurement.sum(0) / (problem.precision() > 0).sum(0).clamp_min(1)
    with h5py.File(file) as stored:
        images = stored["dataset/coil_images"][0]
    coil_images = images["real"] + 1j * images["imag"]
    expected = np.sqrt((np.abs(coil_images[..., 32:96]) ** 2).sum(0))
    found = np.sqrt((np.abs(to_image(both.numpy())) ** 2).sum(0))
    # The root of a sum of squares makes a floor of the noise outside of the object.
    found = found * (expected > 0.05)
    correlation = np.vdot(expected, found) / np.linalg.norm(expected) / np.linalg.norm(found)
    assert correlation > 0.99
