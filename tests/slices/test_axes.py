"""What an axis may be, as it is written."""

from __future__ import annotations

import pytest

from landscape.errors import ConfigurationError
from landscape.slices.axes import AxisChoice, parse_axis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", AxisChoice("random")),
        (" gradient ", AxisChoice("gradient")),
        ("sam", AxisChoice("sam")),
        ("eigen", AxisChoice("eigen")),
        ("eigen:2", AxisChoice("eigen", number=2)),
        ("eigen:-1", AxisChoice("eigen", number=-1)),
        ("pca", AxisChoice("pca")),
        ("pca:3", AxisChoice("pca", number=3)),
        ("to:runs/a.pt", AxisChoice("to", "runs/a.pt")),
        ("to:epoch:3", AxisChoice("to", "epoch:3")),
        ("saved:d.h5", AxisChoice("saved", "d.h5")),
        ("saved:d.h5:2", AxisChoice("saved", "d.h5", 2)),
        ("saved:a:b.h5:2", AxisChoice("saved", "a:b.h5", 2)),
        ("saved:7", AxisChoice("saved", "7")),
        ("given:0123abcd", AxisChoice("given", "0123abcd")),
    ],
)
def test_what_may_be_written(text: str, expected: AxisChoice) -> None:
    assert parse_axis(text) == expected
    assert parse_axis(expected.text) == expected
    assert expected.text == text.strip()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no such direction"),
        ("Random", "no such direction"),
        ("random:2", "no such direction"),
        ("gradient:", "no such direction"),
        ("given:", "no such direction"),
        ("eigen:", "numbered from 1, or from -1 for the smallest"),
        ("eigen:0", "numbered from 1, or from -1 for the smallest"),
        ("eigen:1.5", "numbered from 1, or from -1 for the smallest"),
        ("pca:-1", "numbered from 1"),
        ("pca:one", "numbered from 1"),
        ("saved:d.h5:0", "numbered from 1"),
        ("to", "--along to needs a file"),
        ("to:", "--along to needs a file"),
        ("saved", "--along saved needs a file"),
    ],
)
def test_what_may_not(text: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        parse_axis(text)
    assert text in caught.value.found


def numbers(*texts: str) -> list[str]:
    found: list[AxisChoice] = []
    for text in texts:
        choice = parse_axis(text)
        found.append(choice.numbered([one for one in found if one.name == choice.name]))
    return [one.text for one in found]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (("random", "random"), ["random:1", "random:2"]),
        (("eigen", "eigen"), ["eigen:1", "eigen:2"]),
        (("eigen:1", "eigen"), ["eigen:1", "eigen:2"]),
        (("eigen:2", "eigen"), ["eigen:2", "eigen:1"]),
        (("eigen:-1", "eigen"), ["eigen:-1", "eigen:1"]),
        (("random", "eigen"), ["random:1", "eigen:1"]),
        (("saved:a.h5", "saved:a.h5"), ["saved:a.h5:1", "saved:a.h5:2"]),
        (("saved:a.h5", "saved:b.h5"), ["saved:a.h5:1", "saved:b.h5:1"]),
        (("gradient", "sam"), ["gradient", "sam"]),
        (("to:a.pt", "to:b.pt"), ["to:a.pt", "to:b.pt"]),
        (("pca", "pca"), ["pca:1", "pca:2"]),
    ],
)
def test_the_same_kind_twice_counts_on(written: tuple[str, ...], meant: list[str]) -> None:
    assert numbers(*written) == meant


@pytest.mark.parametrize(
    ("text", "normalize", "expected"),
    [
        ("random", "filter", "-1:1"),
        ("random", "layer", "-1:1"),
        ("random", "none", "auto"),
        ("to:a.pt", "filter", "-0.5:1.5"),
        ("eigen", "filter", "auto"),
        ("gradient", "filter", "auto"),
        ("pca", "none", "auto"),
    ],
)
def test_the_range_of_a_direction(text: str, normalize: str, expected: str) -> None:
    assert parse_axis(text).default_range(normalize) == expected
