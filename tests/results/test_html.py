"""What a notebook shows of a result."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from landscape.results import CheckpointReference, Result
from landscape.results.html import html_table, result_html
from landscape.results.measures import measures_of
from landscape.results.numbers import figure, with_error
from tests.plots.test_overlap import result_of
from tests.results.samples import OTHER_METHODS, density_result, eigen_result, provenance, trace_result
from tests.support.slice_results import plane_result


class Page(HTMLParser):
    """The cells, the text and the tags of a piece of HTML; every tag must be closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text, self.tags, self.attributes = "", set[str](), list[tuple[str, str | None]]()
        self._open: list[str] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.mark.parametrize("result", [eigen_result(), trace_result(), density_result(), plane_result()])
def test_every_measure_is_shown_with_its_error(result: Result) -> None:
    page = Page(result._repr_html_())
    shown = {row[0]: row[1:] for row in page.rows if row}
    for measure in measures_of(result.kind):
        reading = measure.read(result)
        if reading is None:
            assert measure.label not in shown
        elif measure.name not in ("loss", "accuracy", "gradient_norm"):
            value, deviation, unit, meaning = shown[measure.label]
            expected = with_error(reading.value, reading.error) if reading.error else figure(reading.value, 6)
            assert (value, unit) == (expected, measure.unit)
            assert meaning == (reading.meaning if reading.error else "")
            assert deviation == ("" if reading.standard_error is None else figure(reading.standard_error, 2))


def test_the_loss_and_the_run_are_said() -> None:
    text = Page(eigen_result()._repr_html_()).text
    for words in ("20250102-eigen-0a1b · mlp-sgd.pt · step 1200 · epoch 3", "loss 0.25", "accuracy 90 %"):
        assert words in text
    for words in ("1797 examples", "2410 parameters", "landscape eigen runs/mlp-sgd.pt -k 5", "k = 5"):
        assert words in text


def test_arrays_are_summed_up() -> None:
    result = eigen_result(
        [9.5, np.nan, 0.5, -0.25],
        layers=np.array(["a", "b"], dtype=object),
        layer_parameters=np.array([410, 200000]),
    )
    rows = {row[0]: row[1:] for row in Page(result_html(result)).rows if row}
    assert rows["eigenvalues"] == [
        "4 pair",
        "-0.25",
        "9.5",
        "Eigenvalues, algebraically descending. [loss / weight²]",
    ]
    assert rows["converged"][1:3] == ["3 yes", "1 no"]
    assert rows["layer_parameters"][1:3] == ["410", "200000"]
    assert rows["layers"][:3] == ["2 layer", "a", "b"]
    assert rows["intervals"][0] == "4 pair × 2 end"
    assert "history" not in rows


@pytest.mark.parametrize("status", ["not_converged", "oscillating", "failed", "partial"])
def test_a_status_that_is_not_complete_stands_out(status: str) -> None:
    words = f"status: {status.replace('_', ' ')}"
    assert words in result_html(eigen_result(status=status))
    assert "status:" not in result_html(eigen_result())


@pytest.mark.parametrize(
    "result",
    [
        eigen_result([]),
        eigen_result(provenance=None, **OTHER_METHODS),
        eigen_result([np.nan, np.inf], lambda_max=np.nan, loss=np.inf, accuracy=None),
        eigen_result(standard_errors=np.ma.masked_all(4), history=np.array([])),
        trace_result(half_width=np.nan, interval=np.array([np.nan, np.nan]), status="not_converged"),
    ],
)
def test_odd_results_are_shown_too(result: Result) -> None:
    page = Page(result_html(result))
    assert result.kind in page.text
    assert "None" not in [cell for row in page.rows for cell in row]


def test_text_from_files_is_harmless() -> None:
    bad = "</td><script>alert(1)</script>\u202e\x1b[31m\"'"
    own = provenance(
        bad, command=bad, checkpoint=CheckpointReference(path=bad, sha256="0" * 64), settings={bad: bad}
    )
    result = eigen_result(provenance=own, layers=np.array([bad, bad], dtype=object), status=bad)
    source = result_html(result) + html_table([bad], [[bad]])
    assert "script" not in Page(source).tags
    assert not {"\u202e", "\x1b"} & set(source)
    assert Page(source).text.count("alert(1)") > 6


def test_nothing_is_loaded_from_elsewhere_and_colours_are_inherited() -> None:
    page = Page(eigen_result()._repr_html_())
    assert not page.tags & {"script", "link", "style", "img", "iframe"}
    assert {name for name, _ in page.attributes} <= {"style", "class"}
    styles = " ".join(value or "" for name, value in page.attributes if name == "style")
    assert "url(" not in styles
    assert "background" not in styles
    assert "color:inherit" in styles


def test_neither_torch_nor_matplotlib_is_imported() -> None:
    code = (
        "import sys; from tests.results.samples import eigen_result; eigen_result()._repr_html_();"
        "print({'torch', 'matplotlib', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_kind_without_measures_shows_its_numbers() -> None:
    result = result_of(3)
    rows = {row[0]: row[1] for row in Page(result_html(result)).rows if row}
    assert rows["parameters"] == str(result.parameters)


def test_units_of_second_moments_are_squared() -> None:
    assert "loss² / weight²" in result_html(eigen_result(operator="fisher"))
