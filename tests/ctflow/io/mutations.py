"""Damage to valid files, by chance and by the seed: bytes of any file, and objects of HDF5 files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Random = np.random.Generator
Change = Callable[[h5py.File, str, Random], object]

_HEAD = 4096
"""Bytes in which most of what describes a file lies."""


def damage_bytes(file: Path, random: Random) -> str:
    """Change some bytes of a file; what was done."""
    content = bytearray(file.read_bytes())
    size = len(content)
    kind = str(
        random.choice(["flip", "flip", "flip", "numbers", "truncate", "zeros", "repeat", "swap", "append"])
    )
    reach = size if random.random() < 0.3 else min(size, _HEAD)
    start = int(random.integers(reach))
    length = int(random.integers(1, 64))
    if kind == "flip":
        for place in random.integers(reach, size=int(random.integers(1, 9))):
            content[place] ^= 1 << int(random.integers(8))
    elif kind == "numbers":
        content[start : start + 8] = random.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" * 8, b"\0\0\0\x80" * 2])
    elif kind == "truncate":
        del content[int(random.integers(size)) :]
    elif kind == "zeros":
        content[start : start + length] = bytes(min(length, size - start))
    elif kind == "repeat":
        content[start:start] = content[start : start + length]
    elif kind == "swap":
        other = int(random.integers(reach))
        content[start], content[other] = content[other], content[start]
    else:
        content += random.bytes(length)
    file.unlink()  # it may be a link to the valid one
    file.write_bytes(content)
    return f"{kind} near byte {start} of {file.name}"


def damage_objects(file: Path, random: Random) -> str:
    """Change an object or an attribute of an HDF5 file; what was done."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    with h5py.File(file, "r+") as opened:
        names = ["/"]
        opened.visit(names.append)
        attributed = [name for name in names if len(opened[name].attrs)]
        datasets = [name for name in names if isinstance(opened[name], h5py.Dataset)]
        kind = str(random.choice(list(_CHANGES)))
        choices = {"attribute": attributed, "tree": names[1:]}.get(kind, datasets) or names[1:]
        name = str(random.choice(choices))
        _CHANGES[kind](opened, name, random)
    return f"{kind} of {name}"


def _replace(file: h5py.File, name: str, **made: Any) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, **made)
    for key, value in attributes.items():
        file[name].attrs[key] = value


def _retype(file: h5py.File, name: str, random: Random) -> None:
    numbers = np.zeros(file[name].shape or (1,))
    makers: list[Callable[[], dict[str, Any]]] = [
        lambda: {"data": "a text \x1b[31m with\nlines"},
        lambda: {"data": np.full(numbers.shape, b"text")},
        lambda: {"data": [b"\xff\xfe"] * 3, "dtype": h5py.string_dtype()},
        lambda: {"data": numbers.astype(np.complex64)},
        lambda: {"data": numbers.astype(bool)},
        lambda: {"data": numbers.astype(np.float16)},
        lambda: {"data": numbers.astype(np.uint64) + np.uint64(2**64 - 1)},
        lambda: {"data": np.zeros(numbers.shape, [("a", "i4"), ("b", "f8")])},
        lambda: {"data": numbers.astype("V5")},
        lambda: {"data": numbers.astype("M8[s]").astype(h5py.opaque_dtype("M8[s]"))},
        lambda: {"shape": numbers.shape[:1], "dtype": h5py.vlen_dtype(np.float32)},
        lambda: {"shape": numbers.shape[:1], "dtype": h5py.ref_dtype},
        lambda: {"data": numbers.astype("i4"), "dtype": h5py.enum_dtype({"a": 0})},
        lambda: {"data": h5py.Empty(np.float32)},
    ]
    _replace(file, name, **makers[int(random.integers(len(makers)))]())


def _reshape(file: h5py.File, name: str, random: Random) -> None:
    values = np.asarray(file[name][()])
    shapes = [
        (1, *values.shape),
        (values.size,),
        values.shape[::-1],
        (0,),
        (*values.shape, 1),
        values.shape[1:],
    ]
    shape = shapes[int(random.integers(len(shapes)))]
    _replace(file, name, data=np.resize(values, shape))


def _enlarge(file: h5py.File, name: str, random: Random) -> None:
    shape = list(file[name].shape or (1,))
    axis = int(random.integers(len(shape)))
    shape[axis] = int(random.choice([2**16, 2**31 - 1, 2**31, 2**40]))
    chunks = tuple(min(side, 16) for side in shape)
    dtype = file[name].dtype if file[name].dtype.kind in "iuf" else np.float32
    _replace(file, name, shape=tuple(shape), dtype=dtype, chunks=chunks)


def _values(file: h5py.File, name: str, random: Random) -> None:
    stored = file[name]
    if stored.dtype.kind == "O":
        deep = random.choice(["", "[" * 100_000, '{"a":1e999}', "[]", "NXtomo", "\0"])
        _replace(file, name, data=str(deep).replace("\0", "?"))
        return
    if stored.dtype.kind not in "iuf":
        return
    values = np.asarray(stored[()]).astype(np.float64)
    value = random.choice([np.nan, np.inf, -1.0, 0.0, 1e300, -1e300, 1e-300, 2.0**40, 0.5])
    if values.ndim and random.random() < 0.5:
        values.reshape(-1)[int(random.integers(values.size))] = value
    else:
        values = np.full_like(values, value)
    _replace(file, name, data=values)


def _tree(file: h5py.File, name: str, random: Random) -> None:
    kind = int(random.integers(9))
    if kind in (6, 7):
        file.create_group("/entry" + ("/a" * 500 if kind == 6 else "/definition"))
        return
    if kind == 8:
        file["entry_of_all"] = file["/"]
        return
    del file[name]
    if kind == 1:
        file.create_group(name)
    elif kind > 1:
        links = (
            h5py.SoftLink(f"/{name}"),
            h5py.SoftLink("/nothing/at/all"),
            h5py.ExternalLink("/etc/passwd", "/"),
        )
        file[name] = (*links, h5py.ExternalLink(Path(file.filename).name, f"/{name}"))[kind - 2]


def _attribute(file: h5py.File, name: str, random: Random) -> None:
    attributes = file[name].attrs
    keys = list(attributes)
    if not keys:
        attributes["units"] = "\u00b5m"
        return
    key = str(random.choice(keys))
    old = attributes[key]
    del attributes[key]
    choices: list[Any] = [
        None,
        "",
        "a text \x1b[31m",
        b"\xff\xfe",
        -1,
        0,
        np.nan,
        np.inf,
        1e300,
        2**62,
        0.5,
        np.arange(1000.0),
        np.zeros((2, 0)),
        h5py.Empty("f4"),
        ["a", "b"],
        np.asarray(old).astype(complex) if np.asarray(old).dtype.kind in "iuf" else 1j,
        -np.asarray(old) if np.asarray(old).dtype.kind in "if" else True,
        np.asarray(old).ravel()[:1].repeat(7) if np.asarray(old).dtype.kind in "iuf" else 7,
    ]
    value = choices[int(random.integers(len(choices)))]
    if value is not None:
        attributes[key] = value


_CHANGES: dict[str, Change] = {
    "type": _retype,
    "shape": _reshape,
    "size": _enlarge,
    "values": _values,
    "tree": _tree,
    "attribute": _attribute,
}
