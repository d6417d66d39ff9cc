"""The XML header of ISMRMRD (Inati et al., Magn. Reson. Med. 77 (2017)), which fastMRI's files have, too."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ctflow.io.errors import ScanError

_LONGEST, _MOST_ELEMENTS, _LARGEST_MATRIX = 1 << 22, 100_000, 1 << 16


@dataclass(frozen=True)
class Space:
    """A matrix and its field of view: x is the readout, y and z are phase-encoded.

    Attributes
    ----------
    matrix
        Numbers of samples or pixels along (x, y, z).
    field_of_view
        In mm along (x, y, z), or None where it is not stated.
    """

    matrix: tuple[int, int, int]
    field_of_view: tuple[float, float, float] | None


@dataclass(frozen=True)
class Limit:
    """The range of a counter, and which value is the centre of k-space."""

    minimum: int
    maximum: int
    centre: int


@dataclass(frozen=True)
class Encoding:
    """One encoding space.

    Attributes
    ----------
    encoded, recon
        What was measured, and what an image shows.
    limits
        By counter, such as kspace_encoding_step_1.
    trajectory
        cartesian, epi, radial, goldenangle, spiral or other.
    acceleration
        Along y and z, as the header has it.
    """

    encoded: Space
    recon: Space
    limits: dict[str, Limit]
    trajectory: str
    acceleration: tuple[float, float]


@dataclass(frozen=True)
class Header:
    """What of an ISMRMRD header is used.

    Attributes
    ----------
    encodings
        One or more.
    noise_bandwidth
        Of the receiver, relative to the dwell time's (0.793 for some scanners); 1 where it is not stated.
    noise_elsewhere
        The identifier of a noise scan in another file that the header names, or None.
    described
        Study, scanner, protocol and sequence, JSON-able.
    """

    encodings: tuple[Encoding, ...]
    noise_bandwidth: float = 1.0
    noise_elsewhere: str | None = None
    described: dict[str, Any] = field(default_factory=dict)


def parse_header(path: Path, name: str, content: str | bytes) -> Header:
    """Return what a header says.

    Only plain XML is read: one with a document type, which entities need, is refused, and so is a long one.

    Raises
    ------
    ScanError
        If it is no such header, or lacks an element.
    """
    root = _Element(path, name, _root(path, name, content), "ismrmrdHeader")
    system = root.child("acquisitionSystemInformation")
    bandwidth = system.number("relativeReceiverNoiseBandwidth", 1.0) if system else 1.0
    if not 0 < bandwidth <= 10:
        raise ScanError(
            path,
            f"{name} relativeReceiverNoiseBandwidth",
            found=bandwidth,
            expected="a number above 0, at most 10",
        )
    encodings = tuple(_encoding(element) for element in root.children("encoding"))
    if not encodings:
        raise ScanError(path, name, found="no encoding", expected="a header with an encoding")
    described = {
        word: text
        for place, word in (
            ("acquisitionSystemInformation", "systemVendor"),
            ("acquisitionSystemInformation", "systemModel"),
            ("acquisitionSystemInformation", "systemFieldStrength_T"),
            ("measurementInformation", "protocolName"),
            ("measurementInformation", "patientPosition"),
            ("sequenceParameters", "TR"),
            ("sequenceParameters", "TE"),
            ("sequenceParameters", "flipAngle_deg"),
        )
        if (inside := root.child(place)) and (text := inside.text(word))
    }
    return Header(encodings, bandwidth, _noise_elsewhere(root), described)


@dataclass(frozen=True)
class _Element:
    """An element and where it is, with namespaces taken off."""

    path: Path
    name: str
    node: ElementTree.Element
    place: str

    def children(self, tag: str) -> list[_Element]:
        found = [node for node in self.node if node.tag.rpartition("}")[2] == tag]
        return [_Element(self.path, self.name, node, tag) for node in found]

    def child(self, tag: str) -> _Element | None:
        found = self.children(tag)
        return found[0] if found else None

    def required(self, tag: str) -> _Element:
        found = self.child(tag)
        if found is None:
            raise ScanError(
                self.path, f"{self.name} {self.place}", found="nothing", expected=f"an element {tag}"
            )
        return found

    def text(self, tag: str) -> str | None:
        found = self.child(tag)
        return None if found is None or not found.node.text else found.node.text.strip()

    def number(self, tag: str, default: float) -> float:
        text = self.text(tag)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ScanError(
                self.path, f"{self.name} {self.place} {tag}", found=repr(text[:40]), expected="a number"
            )
        return value

    def whole(self, tag: str, default: int, least: int = 0) -> int:
        value = self.number(tag, default)
        if value != int(value) or not least <= value <= _LARGEST_MATRIX:
            expected = f"a whole number from {least} to {_LARGEST_MATRIX}"
            raise ScanError(self.path, f"{self.name} {self.place} {tag}", found=value, expected=expected)
        return int(value)


def _root(path: Path, name: str, content: str | bytes) -> ElementTree.Element:
    if len(content) > _LONGEST:
        raise ScanError(path, name, found=f"{len(content)} bytes", expected=f"at most {_LONGEST} of XML")
    text = content if isinstance(content, str) else content.decode("utf-8", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ScanError(path, name, found="a document type definition", expected="plain XML without one")
    # The encoding is given, so that none that the text declares can bring in what was looked for above.
    parser = ElementTree.XMLParser(encoding="utf-8")
    try:
        root = ElementTree.fromstring(text.rstrip("\x00").strip().encode(), parser=parser)
    except ElementTree.ParseError as error:
        raise ScanError(path, name, found=f"{error}", expected="an ISMRMRD header in XML") from error
    if root.tag.rpartition("}")[2] != "ismrmrdHeader" or sum(1 for _ in root.iter()) > _MOST_ELEMENTS:
        found = f"an element {root.tag.rpartition('}')[2][:60]}"
        raise ScanError(path, name, found=found, expected="an ISMRMRD header in XML")
    return root


def _encoding(element: _Element) -> Encoding:
    limits = {}
    stated = element.child("encodingLimits")
    for node in stated.node if stated else ():
        tag = node.tag.rpartition("}")[2]
        one = _Element(element.path, element.name, node, tag)
        limits[tag] = Limit(one.whole("minimum", 0), one.whole("maximum", 0), one.whole("center", 0))
    acceleration = (1.0, 1.0)
    parallel = element.child("parallelImaging")
    factors = parallel.child("accelerationFactor") if parallel else None
    if factors:
        acceleration = (
            factors.number("kspace_encoding_step_1", 1.0),
            factors.number("kspace_encoding_step_2", 1.0),
        )
    return Encoding(
        _space(element.required("encodedSpace")),
        _space(element.required("reconSpace")),
        limits,
        (element.text("trajectory") or "cartesian").lower(),
        acceleration,
    )


def _space(element: _Element) -> Space:
    matrix = element.required("matrixSize")
    sizes = tuple(matrix.whole(axis, 1, least=1) for axis in "xyz")
    view = element.child("fieldOfView_mm")
    lengths = tuple(view.number(axis, 0.0) if view else 0.0 for axis in "xyz")
    known = all(length > 0 for length in lengths[:2])
    return Space(sizes, lengths if known else None)  # type: ignore[arg-type]


def _noise_elsewhere(root: _Element) -> str | None:
    information = root.child("measurementInformation")
    for dependency in information.children("measurementDependency") if information else ():
        if (dependency.text("dependencyType") or "").lower() == "noise":
            return dependency.text("measurementID") or "unnamed"
    return None
