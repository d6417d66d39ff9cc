"""What a job costs beyond its solver: time, memory, what a second worker gives, and running it again.

Run ``python -m benchmarks.pipeline [--questions overhead memory workers resume] [--slices 200]``: slices of
256 x 256 pixels, 60 views of 363 bins, in one HDF5 file, 4 at a time. Exit code 1 when a target is missed.

overhead
    Wall time of `run`, from the measured file to the reconstruction file and its preview, over that of a
    loop over the same blocks in memory, which reads and writes nothing; the fastest of some rounds of each,
    in turns. The quicker the solver, the larger: ``--solver fbp`` shows what a job takes at least.
memory
    Whole peak of a process that runs a job of 1000 slices over that of one of 10.
workers
    Wall time of `run` with one worker process over that with two, each of one thread, their start included.
resume
    Wall time of the command for a job that is finished, from the start of Python to its end; beside it, of
    the same without its receipt, when the files are opened and compared. Of FLOWER, four slices.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# As the command does it, before torch starts its threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.resident import peak
from ctflow.io.formats.native import write_scan
from ctflow.io.scan import open_scan
from ctflow.phantoms import HELD_OUT
from ctflow.pipeline import Job, run
from ctflow.pipeline.blocks import slice_generator
from ctflow.simulate import scan_settings, simulate_preset
from ctflow.solvers import make_solver

BODIES, BATCH = 8, 4
# From quick to slow.
SOLVERS: dict[str, dict[str, Any]] = {
    "fbp": {},
    "cgls": {"iterations": 20},
    "tv": {"iterations": 20},
    "flower": {"steps": 1},
}
TARGETS = {"overhead": 1.05, "memory": 1.1, "workers": 1.8, "resume": 2.0}
# What each question is asked of unless the command says.
ASKED = {"overhead": ("cgls", "tv"), "memory": ("fbp",), "workers": ("tv",), "resume": ("fbp", "flower")}


@dataclass(frozen=True)
class Case:
    """What is measured: a solver, on so many slices, so often, in a folder of its own."""

    folder: Path
    solver: str
    slices: int
    rounds: int

    def scan(self, slices: int) -> Path:
        """A file of so many slices: a few bodies, over and over, each time with another noise."""
        settings = scan_settings("sparse-view")
        scan = simulate_preset("sparse-view", range(HELD_OUT, HELD_OUT + BODIES))
        repeats, operator = -(-slices // BODIES), settings.operator()
        clean = scan.problem.measurement.repeat(repeats, 1, 1)[:slices]
        noisy = clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        path = self.folder / f"{slices}.h5"
        write_scan(path, noisy, operator.geometry, operator.grid, scan.problem.noise)
        return path


def job(file: Path, solver: str, **changes: Any) -> Job:
    """The job of a file, whatever is there already."""
    output = file.with_name(f"{file.stem}-recon.h5")
    values = {"files": (file,), "output": output, "solver": solver, "settings": SOLVERS[solver]}
    return Job(**values, batch=BATCH, overwrite=True, **changes)


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def overhead(case: Case) -> tuple[float, str]:
    """Time of a job over that of a loop in memory."""
    file, threads, slices = case.scan(case.slices), torch.get_num_threads(), case.slices
    scan, solve = open_scan(file), make_solver(case.solver, SOLVERS[case.solver])
    blocks = [range(k, min(k + BATCH, slices)) for k in range(0, slices, BATCH)]
    problems = [scan[block.start : block.stop] for block in blocks]

    def loop() -> list[torch.Tensor]:
        return [
            solve(problem, None, generator=[slice_generator(0, i) for i in block]).image
            for problem, block in zip(problems, blocks, strict=True)
        ]

    def pipeline(seed: int) -> None:
        # Another seed is another job, of which nothing is there already.
        run(job(file, case.solver, threads=threads, seed=seed))

    loop()
    pipeline(0)
    plain, whole = [], []
    for k in range(case.rounds):
        plain.append(timed(loop))
        whole.append(timed(lambda k=k: pipeline(k + 1)))  # type: ignore[misc]
    each = [1e3 * min(seconds) / slices for seconds in (plain, whole)]
    return min(whole) / min(plain), f"{each[0]:.1f} ms a slice in memory, {each[1]:.1f} ms as a job"


def memory(case: Case) -> tuple[float, str]:
    """Peak memory of a job of 1000 slices over that of one of 10, each in a process of its own."""
    peaks = []
    for slices in (10, 1000):
        command = [sys.executable, "-m", "benchmarks.pipeline", "--peak", str(case.scan(slices)), case.solver]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
    return peaks[1] / peaks[0], f"{peaks[0] / 1e6:.0f} MB for 10 slices, {peaks[1] / 1e6:.0f} MB for 1000"


def workers(case: Case) -> tuple[float, str]:
    """Time of a job with one worker over that with two."""
    file = case.scan(case.slices)
    seconds = []
    for count in (1, 2):
        # The seed makes them two jobs.
        work = job(file, case.solver, executor="processes", workers=count, threads=1, seed=count)
        seconds.append(timed(lambda work=work: run(work)))  # type: ignore[misc]
    return seconds[0] / seconds[1], f"{seconds[0]:.1f} s with one, {seconds[1]:.1f} s with two"


def resume(case: Case) -> tuple[float, str]:
    """Seconds of the command for a job that is finished, beside those of importing torch and nothing else."""
    file = case.scan(4 if case.solver == "flower" else case.slices)
    command = [sys.executable, "-m", "ctflow", "reconstruct", str(file)]
    command += ["-o", str(case.folder / "recon.h5"), "--solver", case.solver]
    command += [f"--set={key}={value}" for key, value in SOLVERS[case.solver].items()]

    def call(cache: str = "cache") -> None:
        environment = {**os.environ, "XDG_CACHE_HOME": str(case.folder / cache)}
        subprocess.run(command, check=True, capture_output=True, env=environment)

    def bare() -> None:
        subprocess.run([sys.executable, "-c", "import torch"], check=True)

    first = timed(call)
    seconds, floor = (min(timed(run) for _ in range(case.rounds)) for run in (call, bare))
    full = min(timed(lambda k=k: call(f"none {k}")) for k in range(case.rounds))  # type: ignore[misc]
    story = f"{first:.1f} s at first; {full:.1f} s without receipt; {floor:.1f} s to import torch alone"
    return seconds, story


QUESTIONS = {"overhead": overhead, "memory": memory, "workers": workers, "resume": resume}


def main() -> int:
    """Measure, print, compare with the targets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--solver", choices=list(SOLVERS), help="one for all questions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", nargs=2, metavar=("FILE", "SOLVER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        run(job(Path(arguments.peak[0]), arguments.peak[1]))
        print(peak())
        return 0
    print(f"{torch.get_num_threads()} threads, {arguments.slices} slices")
    print(f"{'question':10}{'solver':8}{'found':>8}{'target':>10}")
    good = True
    for name in arguments.questions:
        for solver in (arguments.solver,) if arguments.solver else ASKED[name]:
            with TemporaryDirectory(prefix="ctflow-pipeline-") as folder:
                case = Case(Path(folder), solver, arguments.slices, arguments.rounds)
                found, story = QUESTIONS[name](case)
            more = name == "workers"
            met = found >= TARGETS[name] if more else found <= TARGETS[name]
            good &= met
            verdict = "met" if met else "MISSED"
            bound = f"{'>=' if more else '<='} {TARGETS[name]:g}"
            print(f"{name:10}{solver:8}{found:8.3f}{bound:>10}  {verdict:8}{story}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
