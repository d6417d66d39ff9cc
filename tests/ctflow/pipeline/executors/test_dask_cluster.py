"""SLURM jobs as they would be submitted, and the GPU of each worker; no queue is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctflow.pipeline.executors.dask_cluster import slurm_cluster, worker_index
from ctflow.pipeline.executors.threads import usable_device
from ctflow.pipeline.job import Job, load_job
from ctflow.pipeline.running import run
from tests.ctflow.io.measured import write_dxchange

YAML = """
files: scan.h5
output: recon.h5
solver: fbp
device: DEVICE
executor: dask
workers: 3
dask:
  slurm:
    queue: long
    cores: 8
    memory: 32GB
    walltime: 02:00:00
    job_extra_directives: ["--gres=gpu:1"]
"""


def written(folder: Path, device: str, text: str = YAML) -> Job:
    file = folder / "job.yaml"
    file.write_text(text.replace("DEVICE", device))
    return load_job(file, {})


@pytest.mark.parametrize(("device", "processes"), [("cuda", 1), ("cpu", 8)])
def test_the_settings_make_the_job_script(tmp_path: Path, device: str, processes: int) -> None:
    with slurm_cluster(written(tmp_path, device), device) as cluster:
        lines = cluster.job_script().splitlines()
    for directive in ("-p long", "--cpus-per-task=8", "-t 02:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {directive}" in lines
    worker = next(line for line in lines if "dask_worker" in line)
    # One block at a time in a process; the last of two options counts.
    assert worker.endswith("--nthreads 1")
    assert ("--nworkers 8" in worker) == (processes == 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("queue: long", "quee: long"), "dask: slurm: Got unexpected keyword argument 'quee'"),
        (("cores: 8", "cores: many"), "dask: slurm: cores: expected a whole number, found 'many'"),
        (("    memory: 32GB\n", ""), "dask: slurm: You must specify how much cores and memory per job"),
    ],
)
def test_settings_that_slurm_does_not_have(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    write_dxchange(tmp_path / "scan.h5")
    job = written(tmp_path, "cpu", YAML.replace(*change))
    with pytest.raises(ValueError, match=message) as caught:
        run(job)
    assert "\n" not in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["job.yaml", "scan.h5"]


def test_an_unknown_key_beside_slurm(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dask") as caught:
        written(tmp_path, "cpu", YAML.replace("slurm:", "slrum:"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "index"), [("0", 0), ("3", 3), ("SLURMCluster-2", 2), ("SLURMCluster-2-1", 1), ("tcp://h:88", 0)]
)
def test_workers_are_told_apart_by_their_names(name: str, index: int) -> None:
    assert worker_index(name) == index


def test_gpus_go_round_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [usable_device("cuda", k).index for k in range(3)] == [0, 1, 0]
    assert usable_device("cuda:1", 0).index == 1
    assert usable_device("cpu", 1) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device: expected a GPU for 'cuda' on every worker"):
        usable_device("cuda", 0)
