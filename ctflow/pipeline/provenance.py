"""Everything that made a reconstruction, for its file."""

from __future__ import annotations

from typing import Any

from ctflow import __version__
from ctflow.io.parts import read_about
from ctflow.pipeline.blocks import summed
from ctflow.pipeline.job import Job
from ctflow.pipeline.targets import Target


def provenance(job: Job, target: Target, device: str, described: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a target's output, of how its scan `described` itself and its parts; JSON-able."""
    scan = target.scan
    parts = [about for block in target.blocks if (about := read_about(target.folder, block))]
    first = parts[0] if parts else {}
    sums = {key: summed([part[key] for part in parts if key in part]) for key in ("seconds", "evaluations")}
    return {
        "unit": scan.unit,
        "pixel_size": scan.pixel_size,
        "slice_distance": scan.slice_distance,
        "source": str(target.file.resolve()),
        "scan": described,
        "metadata": dict(scan.metadata),
        "reading": job.reading(),
        "slices": f"{target.slices.start}:{target.slices.stop}",
        "solver": first.get("solver"),
        "prior": first.get("prior"),
        "representation": first.get("representation"),
        "seed": job.seed,
        "slice_seeds": "the first 8 bytes of SHA-256 of 'seed:slice', big-endian; slice 0's for a volume",
        "batch": target.batch,
        "device": device,
        "threads": job.fixed_threads,
        "precision": job.precision,
        **sums,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of ctflow and of what computes for it."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "h5py", "numba", "diffusers", "astra-toolbox", "odl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return {"ctflow": __version__, **found}
