"""Conditional flow matching: the loss, its target, exact resumption, settings."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.images import CropSampler, read_images
from ctflow.flows.path import AffinePath
from ctflow.flows.store import load_prior
from ctflow.flows.training import Training, flow_matching_loss, sample_times, train, train_from_yaml
from ctflow.flows.training_settings import Phase, TrainingSettings, read_settings
from ctflow.representation import Representation, brightness

NETWORK = {"widths": [8, 16], "layers": 1, "patch": 2, "groups": 4}


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    """A run of 12 steps on a few discs."""
    rows, columns = np.mgrid[-16:16, -16:16]
    discs = np.stack([0.02 * (np.hypot(rows, columns - shift) < 9) for shift in range(-4, 5)])
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["discs"] = discs.astype(np.float32)
        file["hounsfield"] = (1000 * (discs / 0.02 - 1)).astype(np.int16)
    settings = {
        "name": "tiny",
        "output": "run",
        "images": [
            {"file": "images.h5", "dataset": "discs", "weight": 2.0},
            {"file": "images.h5", "dataset": "hounsfield", "unit": "HU"},
        ],
        "validation": [{"file": "images.h5", "dataset": "discs"}],
        "network": NETWORK,
        "steps": 12,
        "batch": 4,
        "crops": [16, 24],
        "warmup": 2,
        "precision": "float32",
        "log_every": 3,
        "checkpoint_every": 6,
        "rescale": [0.5, 2.0],
        "rescale_probability": 0.5,
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "train.yaml"


def test_the_exact_velocity_minimises_the_loss() -> None:
    mean, variances = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    path = AffinePath.linear()
    exact = GaussianFlow(mean, variances)
    data = mean + variances.sqrt() * torch.randn(20000, 2, generator=torch.Generator().manual_seed(0))
    times = sample_times(len(data), "uniform", torch.Generator().manual_seed(1))

    def loss(scale: float) -> float:
        def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return scale * exact.velocity(x, t)

        return float(flow_matching_loss(network, path, data, times, torch.Generator().manual_seed(2)))  # type: ignore[arg-type]

    assert loss(1.0) < min(loss(0.9), loss(1.1))


@pytest.mark.parametrize("law", ["uniform", "logit-normal"])
def test_times_follow_their_law(law: str) -> None:
    times = sample_times(20000, law, torch.Generator().manual_seed(0)).double()
    z = torch.logit(times) if law == "logit-normal" else times
    expected = (0.0, 1.0) if law == "logit-normal" else (0.5, 12**-0.5)
    assert float(z.mean()) == pytest.approx(expected[0], abs=0.02)
    assert float(z.std()) == pytest.approx(expected[1], abs=0.02)


def test_resumed_equals_uninterrupted_bit_for_bit(settings_file: Path) -> None:
    settings = read_settings(settings_file)
    whole = train(settings.model_copy(update={"output": settings_file.parent / "whole"}))

    def stop_at_five(run: Training, loss: float) -> bool:
        return run.step == 5

    train(settings, progress=stop_at_five)
    resumed = train(settings)
    expected, found = load_prior(whole), load_prior(resumed)
    for name, value in expected.network.unet.state_dict().items():
        assert torch.equal(found.network.unet.state_dict()[name], value)
    last = json.loads((settings.output / "loss.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 12


def test_an_interrupt_leaves_a_checkpoint(settings_file: Path) -> None:
    def interrupt(run: Training, loss: float) -> bool:
        if run.step == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train_from_yaml(settings_file, progress=interrupt)
    steps: list[int] = []
    train_from_yaml(settings_file, progress=lambda run, loss: steps.append(run.step))
    assert steps == list(range(5, 13))


def test_training_lowers_the_loss_and_leaves_its_traces(settings_file: Path) -> None:
    settings = read_settings(settings_file).model_copy(
        update={"steps": 60, "log_every": 20, "checkpoint_every": 20, "learning_rate": 6e-3, "ema": 0.9}
    )
    target = train(settings)
    entries = [json.loads(line) for line in (settings.output / "loss.jsonl").read_text().splitlines()]
    first, *_, last = (entry["validation"] for entry in entries)
    assert set(last) == {"0.1", "0.3", "0.5", "0.7", "0.9"}
    # Of the same crops and noise, so that what is between them was learnt.
    assert sum(last.values()) < 0.95 * sum(first.values())
    assert (settings.output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "60 steps" in target.with_name("tiny.md").read_text()
    assert load_prior(target).representation == Representation(0.02, 0.02)


def test_a_checkpoint_of_other_settings_is_refused(settings_file: Path) -> None:
    settings = read_settings(settings_file)
    train(settings)
    with pytest.raises(
        ValueError, match="expected a checkpoint of these settings, found other learning_rate"
    ):
        train(settings.model_copy(update={"learning_rate": 1e-3}))
    train(settings.model_copy(update={"learning_rate": 1e-3}), resume=False)


def test_the_average_is_exponential(settings_file: Path) -> None:
    settings = read_settings(settings_file)
    sampler = CropSampler([torch.zeros(1, 1, 16, 16)], [1.0])
    run = Training(settings.model_copy(update={"ema": 0.1}), sampler)
    name = next(iter(run.average))
    values = [run.average[name].clone()]
    for step in (1, 2):
        run.advance()
        decay = min(0.1, step / (step + 10))
        values.append(decay * values[-1] + (1 - decay) * run.network.state_dict()[name])
        assert torch.allclose(run.average[name], values[-1], atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1}, "no setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"steps": None}, "expected steps or minutes, found neither"),
        ({"time": "normal"}, "time: .*found 'normal'"),
        ({"network": {"widths": [7]}}, "widths: expected multiples of 8"),
        ({"network": {"width": [8]}}, "width"),
        ({"path": {"name": "bent"}}, "path: expected one of linear"),
    ],
)
def test_bad_settings_are_one_line(settings_file: Path, change: dict, message: str) -> None:
    content = yaml.safe_load(settings_file.read_text()) | change
    settings_file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message) as raised:
        read_settings(settings_file)
    assert str(settings_file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_yaml_and_bad_images_are_one_line(settings_file: Path) -> None:
    images = settings_file.parent / "images.h5"
    representation = Representation(0.02, 0.02)
    with pytest.raises(ValueError, match="expected a dataset 'nothing', found discs, hounsfield"):
        read_images(images, "nothing", "1/mm", representation)
    with pytest.raises(ValueError, match="unit: expected one of 1/mm, HU, arbitrary, found 'K'"):
        read_images(images, "discs", "K", representation)
    settings_file.write_text("a: [")
    with pytest.raises(ValueError, match="expected a YAML file") as raised:
        read_settings(settings_file)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="expected an HDF5 file"):
        read_images(settings_file, "discs", "1/mm", representation)


def test_checkpoints_execute_nothing(settings_file: Path) -> None:
    settings = read_settings(settings_file)
    training = Training(settings, CropSampler([torch.zeros(1, 32, 32)], [1.0]))
    file = settings_file.with_name("checkpoint.pt")

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (settings_file.with_name("executed"),))

    torch.save({"settings": Bomb()}, file)
    with pytest.raises(ValueError, match=r"checkpoint.pt: expected a checkpoint, found a damaged file"):
        training.load(file)
    assert not settings_file.with_name("executed").exists()
    torch.save({"settings": {}}, file)
    with pytest.raises(ValueError, match="expected a checkpoint, found another file"):
        training.load(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="expected a checkpoint, found a damaged file"):
        training.load(file)


def test_images_lie_in_the_file_and_are_as_large_as_it_says(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros((1, 4, 4))
    layout = h5py.VirtualLayout((1, 4, 4), np.float64)
    layout[:] = h5py.VirtualSource("other.h5", "images", (1, 4, 4))
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["group/link"] = h5py.ExternalLink("other.h5", "/images")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("bomb", (2**20, 2**10, 2**10), np.float32, chunks=(1, 16, 16))
        file["text"] = "words"
    for name, message in (
        ("group/link", "found a link to another"),
        ("virtual", "found data stored in another"),
        ("bomb", r"found shape \(1048576, 1024, 1024\) and next to no data"),
        ("text", "expected a dataset of numbers"),
        ("group", "expected a dataset of numbers"),
    ):
        with pytest.raises(ValueError, match=f"images.h5: {name}: .*{message}"):
            read_images(tmp_path / "images.h5", name, "1/mm", Representation(0.03, 0.01))


def test_crops_are_augmented_within_their_bounds() -> None:
    image = torch.full((1, 1, 8, 8), 1.0)
    image[..., 0, 0] = 0.5
    sampler = CropSampler([image], [1.0], rescale=(0.5, 2.0), rescale_probability=1.0)
    crops = sampler(64, 10, torch.Generator().manual_seed(0))
    assert crops.shape == (64, 1, 10, 10)
    assert float(crops.min()) == -1.0
    peaks = crops.amax((1, 2, 3))
    assert bool(((peaks >= 2 * 0.5 - 1) & (peaks <= 2 * 2.0 - 1)).all())
    assert float(peaks.std()) > 0.3
    corners = {tuple(torch.nonzero(crop[0] == -1.0)[0].tolist()) for crop in crops}
    assert len(corners) > 1


def test_hounsfield_units_become_attenuation(settings_file: Path) -> None:
    representation = Representation(0.02, 0.02)
    file = settings_file.parent / "images.h5"
    by_unit = [read_images(file, d, u, representation) for d, u in (("discs", "1/mm"), ("hounsfield", "HU"))]
    assert torch.allclose(by_unit[0].float(), by_unit[1].float(), atol=1e-3)
    assert TrainingSettings.model_fields["images"].is_required()


COMPLEX = {
    "images": [{"file": "images.h5", "dataset": "discs", "unit": "arbitrary"}],
    "validation": [],
    "network": NETWORK | {"channels": 2},
    "representation": {"complex": True, "calibration": "data", "unit": "arbitrary"},
    "phase": {"order": 2, "radians": 1.0, "shading": 0.2},
}


def change(settings_file: Path, **changes: object) -> Path:
    settings_file.write_text(yaml.safe_dump(yaml.safe_load(settings_file.read_text()) | changes))
    return settings_file


def test_a_complex_prior_learns_from_magnitudes_and_resumes_to_the_bit(settings_file: Path) -> None:
    settings = read_settings(change(settings_file, **COMPLEX))
    whole = train(settings.model_copy(update={"output": settings_file.parent / "whole"}))
    train(settings, progress=lambda run, loss: run.step == 7)
    resumed = load_prior(train(settings))
    assert resumed.representation.complex
    x = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.5])
    assert torch.equal(resumed.velocity(x, t), load_prior(whole).velocity(x, t))
    with pytest.raises(ValueError, match="found other phase"):
        train(settings.model_copy(update={"phase": Phase(order=3)}))


def test_a_phase_keeps_the_magnitude_and_is_smooth() -> None:
    image = 0.5 + torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    crops = CropSampler([image], [1.0], empty=0.0, phase=Phase(shading=0.0))(
        40, 24, torch.Generator().manual_seed(1)
    )
    assert crops.shape == (40, 2, 24, 24)
    magnitudes = crops.square().sum(1).sqrt().sort(-1).values.sum((-2, -1))
    assert torch.allclose(magnitudes, image.sum().expand(40), rtol=1e-4)
    unit = torch.complex(crops[:, 0], crops[:, 1])
    unit = unit / unit.abs()
    turns = (unit[..., 1:] * unit[..., :-1].conj()).angle().abs()
    assert 0 < float(turns.median()) < float(turns.max()) < 1.0
    # The constant part of the phase is uniform on the circle.
    assert float(unit.mean((-2, -1)).mean().abs()) < 0.4


def test_complex_images_are_used_as_they_are(settings_file: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 7 * torch.randn(3, 16, 16, dtype=torch.complex64, generator=generator)
    file = settings_file.parent / "complex.h5"
    with h5py.File(file, "w") as opened:
        opened["images"], opened["negative"] = images.numpy(), -np.ones((1, 16, 16), np.float32)
    representation = Representation(complex=True, calibration="data")
    stack = read_images(file, "images", "arbitrary", representation)
    assert stack.shape == (3, 2, 16, 16)
    for i, image in enumerate(stack):
        found = torch.complex(image[0].float(), image[1].float())
        assert torch.allclose(found * brightness(images[i].abs()), images[i], atol=0.02)
    crop = CropSampler([stack], [1.0], empty=0.0, phase=Phase())(1, 16, generator)[0]
    assert any(torch.allclose(crop.square().sum(), image.float().square().sum()) for image in stack)
    with pytest.raises(ValueError, match="expected real images for this representation, found complex"):
        read_images(file, "images", "1/mm", Representation())
    with pytest.raises(ValueError, match="expected magnitudes, found values below 0"):
        read_images(file, "negative", "arbitrary", representation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase": {"radian": 1}}, "no setting 'phase.radian'|did you mean 'radians'"),
        ({"network": NETWORK}, "network: channels: expected 2 for a complex representation, found 1"),
        ({"phase": {"order": 0}}, "phase.order"),
    ],
)
def test_bad_complex_settings_are_one_line(settings_file: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings(change(settings_file, **(COMPLEX | changes)))


def test_magnitudes_need_a_phase_and_real_images_none(settings_file: Path) -> None:
    with pytest.raises(ValueError, match="phase: expected none for a real representation"):
        read_settings(change(settings_file, phase={"order": 2}))
    settings = read_settings(change(settings_file, **(COMPLEX | {"phase": None})))
    with pytest.raises(ValueError, match="discs: expected complex images, or the setting phase"):
        train(settings)


def test_training_starts_from_another_prior_beside_the_settings(settings_file: Path) -> None:
    first = train_from_yaml(settings_file)
    settings = read_settings(change(settings_file, **COMPLEX, initial="run/tiny", output="complex"))
    assert settings.initial == str(first)
    before = load_prior(first).network.unet.state_dict()
    started: list[torch.Tensor] = []

    def stop(run: Training, loss: float) -> bool:
        started.append(run.network.unet.state_dict()["mid_block.resnets.0.conv1.weight"].clone())
        return True

    train(settings, progress=stop)
    # One step of Adam in warm-up away.
    found = before["mid_block.resnets.0.conv1.weight"]
    assert torch.allclose(started[0], found, atol=2 * settings.learning_rate)
    with pytest.raises(ValueError, match="found other initial"):
        train(settings.model_copy(update={"initial": None}))
