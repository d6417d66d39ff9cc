"""The `ctflow` command. What it needs is imported by the command that needs it, so that `--help` is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ctflow import __version__

app = typer.Typer(
    name="ctflow",
    help="CT and MR images from scanner measurements, with exact physics and flow-matching priors.",
    epilog="Exit codes: 0 done, 1 some slices failed, 2 bad usage or bad input.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# What typer raises for bad usage; its exact home differs between releases.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; errors are one line."""
    # Torch's idle threads would spin, and take the cores from the threads of the projectors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = typer.main.get_command(app)
    try:
        given = None if arguments is None else list(arguments)
        code = command.main(args=given, prog_name="ctflow", standalone_mode=False)
    except _UsageError as error:
        code = _fail(getattr(error, "format_message", error.__str__)())
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        sys.stderr.close()
        code = 0
    except (ValueError, OSError) as error:
        code = _fail(error)
    except ImportError as error:
        code = _fail(f"{error}; see the README on how to install what is missing")
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:  # typer returns it for an interrupt that it sees first
        typer.echo("interrupted; nothing unfinished was kept", err=True)
    sys.exit(code if isinstance(code, int) else 0)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"ctflow {__version__}")
        raise typer.Exit


Files = Annotated[
    list[Path] | None, typer.Argument(metavar="FILES...", help="Measured files, or folders of them.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="The file to write; a folder for several.")
]
Centre = Annotated[float | None, typer.Option(help="Rotation axis on the detector, in bins.")]
PixelSize = Annotated[float | None, typer.Option(help="Of the image, in mm.")]
Size = Annotated[int | None, typer.Option(help="Height and width of the image, in pixels.")]
AnglesUnit = Annotated[
    str | None, typer.Option(help="degrees or radians, where the file is silent or wrong.")
]
Photons = Annotated[float | None, typer.Option(help="Per bin without an object, where the file is silent.")]
RemoveStripes = Annotated[bool | None, typer.Option("--remove-stripes", help="Reduce ring artefacts.")]
Mode = Annotated[int | None, typer.Option(help="Of 2DeteCT: 1, 2 or 3.")]
Samples = Annotated[
    int | None, typer.Option(help="Draws of each slice: stores mean, standard deviation and samples.")
]
Prior = Annotated[str | None, typer.Option(help="A bundled prior's name, such as ct-small, or a path.")]
Slices = Annotated[str | None, typer.Option(help="a:b, or one number; all unless given.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, or auto (default).")]
Seed = Annotated[int | None, typer.Option(help="Of the randomness; 0 unless given.")]
Views = Annotated[int | None, typer.Option(help="Use this many of the angles, evenly spaced.")]


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A measured file, or a folder of one scan.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    views: Views = None,
    centre: Centre = None,
    pixel_size: PixelSize = None,
    size: Size = None,
    angles_unit: AnglesUnit = None,
    photons: Photons = None,
    mode: Mode = None,
) -> None:
    """Show what a measured file holds, what is assumed about it, and what is missing."""
    from ctflow.io.scan import open_scan
    from ctflow.pipeline.job import load_job

    given: dict[str, Any] = {"views": views, "centre": centre, "pixel_size": pixel_size, "size": size}
    given |= {"angles_unit": angles_unit, "photons": photons, "mode": mode}
    job = load_job(None, {"files": [file], "output": "-", "solver": "fbp", **given})
    described = open_scan(file, **job.reading()).describe()
    typer.echo(json.dumps(described, indent=2) if as_json else "\n".join(_lines(described)))


@app.command()
def reconstruct(
    files: Files = None,
    output: Output = None,
    solver: Annotated[
        str | None, typer.Option(help="flower (default), fbp, tv, ...; see ctflow.solvers.")
    ] = None,
    prior: Prior = None,
    views: Views = None,
    slices: Slices = None,
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the network: float32 (default) or bfloat16.")
    ] = None,
    seed: Seed = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the solver; repeatable."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Short for --set steps=N.")] = None,
    samples: Samples = None,
    batch: Annotated[int | None, typer.Option(help="Slices computed at a time; 4 unless given.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with these settings as keys.")] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace an existing output.")] = None,
    centre: Centre = None,
    pixel_size: PixelSize = None,
    size: Size = None,
    angles_unit: AnglesUnit = None,
    photons: Photons = None,
    mode: Mode = None,
    remove_stripes: RemoveStripes = None,
) -> None:
    """Reconstruct measured files, each into an HDF5 file with a PNG preview beside it."""
    from ctflow.pipeline.job import load_job

    given: dict[str, Any] = {"files": files or None, "output": output, "solver": solver, "prior": prior}
    given |= {"settings": _settings(settings or [], steps), "device": device, "precision": precision}
    given |= {
        "slices": slices,
        "seed": seed,
        "samples": samples,
        "batch": batch,
        "overwrite": overwrite,
        "views": views,
        "centre": centre,
    }
    given |= {"pixel_size": pixel_size, "size": size, "angles_unit": angles_unit, "photons": photons}
    job = load_job(config, {**given, "mode": mode, "remove_stripes": remove_stripes})

    from ctflow.pipeline.run import run
    from ctflow.progress import shown

    with shown() as progress:
        outcomes = run(job, progress)
    for outcome in outcomes:
        for index, reason in outcome.failed.items():
            typer.echo(f"{outcome.file}: slice {index} failed: {reason}", err=True)
        done = outcome.slices - len(outcome.failed)
        if outcome.output is not None:
            typer.echo(f"{outcome.output}: {_counted(done, 'slice')} in {outcome.seconds:.1f} s")
            typer.echo(f"{outcome.picture}")
    raise typer.Exit(1 if any(outcome.failed for outcome in outcomes) else 0)


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(help="A measured file.")],
    solvers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "fbp,tv,flower",
    reference: Annotated[
        Path | None, typer.Option(help="A file with the true images; the scan's own truth unless given.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The HTML report to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers for programs, not the table.")] = False,
    prior: Prior = None,
    samples: Samples = None,
    slices: Slices = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SOLVER.KEY=VALUE", help="A setting of a solver; repeatable."),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
    views: Views = None,
    centre: Centre = None,
    pixel_size: PixelSize = None,
    size: Size = None,
    angles_unit: AnglesUnit = None,
    photons: Photons = None,
    mode: Mode = None,
) -> None:
    """Reconstruct one file with several solvers: quality, misfit, time and pictures side by side."""
    from ctflow.io.atomic import check_writable
    from ctflow.pipeline.compare import compare as run_comparison
    from ctflow.progress import shown
    from ctflow.report_page import table, write_page

    if output is not None:
        check_writable(output, overwrite, sources=[file])
    given: dict[str, Any] = {"prior": prior, "samples": samples, "slices": slices, "seed": seed}
    given |= {"device": device, "views": views, "centre": centre, "pixel_size": pixel_size, "size": size}
    given |= {"angles_unit": angles_unit, "photons": photons, "mode": mode}
    chosen: dict[str, dict[str, Any]] = {name.strip(): {} for name in solvers.split(",") if name.strip()}
    for name, value in _settings(settings or [], None).items():
        solver, dot, key = name.replace("_", "-").partition(".")
        if not dot or solver not in chosen:
            known = ", ".join(chosen)
            raise ValueError(f"--set: expected SOLVER.KEY=VALUE with a solver of {known}, found {name!r}")
        chosen[solver][key] = value
    with shown() as progress:
        comparison = run_comparison(file, chosen, given, reference=reference, progress=progress)
    typer.echo(json.dumps(comparison.to_dict(), indent=2) if as_json else "\n".join(table(comparison)))
    if output is not None:
        write_page(comparison, output)
        if not as_json:
            typer.echo(f"report: {output}")
    raise typer.Exit(1 if any(row.failed for row in comparison.rows) else 0)


@app.command()
def simulate(
    preset: Annotated[
        str,
        typer.Argument(
            help="lodopab-like, sparse-view, limited-angle, interior, metal, or cone, which is a volume."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    number: Annotated[int, typer.Option("-n", min=1, help="Slices, each of another body.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of bodies and noise.")] = 0,
    views: Annotated[int | None, typer.Option(min=1, help="Angles, in place of the preset's.")] = None,
    photons: Annotated[float | None, typer.Option(help="Per bin without an object.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Pixels along each side, of the same bodies.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Simulate a scan of imagined bodies, none of which a bundled prior was trained on."""
    from ctflow.io.atomic import check_writable
    from ctflow.io.formats.native import write_scan
    from ctflow.phantoms import HELD_OUT
    from ctflow.simulate import scan_settings, simulate_preset

    given = {"views": views, "photons": photons, "size": size}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = scan_settings(preset, **changes)
    volume = settings.operator().geometry.dimensions == 3
    if volume and number > 1:
        raise ValueError(f"-n: expected 1 for {preset}, which is one volume a file, found {number}")
    check_writable(output, overwrite)
    seeds = range(HELD_OUT + seed, HELD_OUT + seed + number)
    scan = simulate_preset(preset, seeds, **changes)
    operator = settings.operator()
    metadata = {"simulated": preset, "changes": changes, "seeds": list(seeds), "ctflow": __version__}
    write_scan(
        output,
        scan.problem.measurement[0] if volume else scan.problem.measurement,
        operator.geometry,
        operator.grid,
        scan.problem.noise,
        truth=scan.truth[0] if volume else scan.truth,
        metadata=metadata,
        overwrite=overwrite,
    )
    slices = operator.grid.shape[0] if volume else number
    typer.echo(f"{output}: {_counted(slices, 'slice')} of {settings.size} x {settings.size} pixels")


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(metavar="TRAIN.YAML", help="What to train, on what, for how long.")
    ],
    restart: Annotated[bool, typer.Option("--restart", help="Leave an earlier checkpoint aside.")] = False,
) -> None:
    """Train a prior on your own images; run it again to resume."""
    import logging

    from ctflow.flows.training import train_from_yaml
    from ctflow.progress import training_lines

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prior = train_from_yaml(config, resume=not restart, progress=training_lines())
    typer.echo(f"prior: {prior}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to make.")] = Path("demo.png"),
) -> None:
    """Compare FBP, TV and FLOWER on a simulated low-dose scan of 60 views."""
    from ctflow.demo import demo as run_demo

    run_demo(path=output, say=typer.echo)


def _settings(pairs: Sequence[str], steps: int | None) -> dict[str, Any]:
    """Solver settings from KEY=VALUE; the solver checks names and types."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set: expected KEY=VALUE, found {pair!r}")
        settings[key.strip().replace("-", "_")] = value.strip()
    return settings if steps is None else {**settings, "steps": steps}


def _lines(described: Mapping[str, Any]) -> list[str]:
    """Plain data as aligned lines for a person; several texts take a line each."""
    width = max(len(key) for key in described)
    lines = []
    for key, value in described.items():
        texts = value if isinstance(value, list) and any(isinstance(item, str) for item in value) else [value]
        for k, item in enumerate(texts):
            name = key.replace("_", " ") if k == 0 else ""
            lines.append(f"{name:<{width}}  {_words(item)}")
    return lines


def _words(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "none"
    return str(value)


def _fail(error: object) -> int:
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    return 2


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
