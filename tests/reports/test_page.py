from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from landscape.errors import InputError
from landscape.reports import write_report
from landscape.store import ResultFile
from landscape.study import Runs
from tests.cli.support import call
from tests.reports.support import runs_of, study
from tests.reports.test_markup import Reader
from tests.results.samples import eigen_result, provenance

#: What the page of 60 checkpoints and three kinds of run may take.
LARGEST = 10_000_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    summary = write_report(study(4), path, title="Two <trainings>")
    text = path.read_text(encoding="utf-8")
    assert (summary.path, summary.runs, summary.checkpoints) == (path, 12, 4)
    assert summary.size == path.stat().st_size
    assert summary.figures == text.count("<svg ")
    assert summary.unreadable == ()
    return text


def test_the_page_loads_nothing_and_runs_its_own_script_only(page: str) -> None:
    read = Reader(page)
    links = [v for _, attributes in read.elements for k, v in attributes.items() if k in ("href", "src")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    policy = next(a["content"] for n, a in read.elements if n == "meta" and "http-equiv" in a)
    assert policy is not None
    for name in ("style", "script"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [attributes for _, attributes in read.elements if "style" in attributes]


def test_the_page_says_what_was_measured_and_how_to_make_it_again(page: str) -> None:
    text = Reader(page).text
    assert "Two <trainings>" in text
    assert "12 runs · 4 checkpoints · 2 training runs · the latest of 2025-01-02 03:04 UTC" in text
    for expected in (
        "landscape eigen runs/net-sgd-epoch001.pt",
        "17 (drawn: add --seed 17 for the same figures)",
        "landscape 0.1.0",
        hashlib.sha256(b"runs/net-sam-epoch002.pt").hexdigest(),
        "What it does not mean:",
        "they are not saved files",
    ):
        assert expected in text
    assert "Look at this first" not in text


def test_every_link_within_the_page_leads_somewhere(page: str) -> None:
    elements = Reader(page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for _, a in elements if str(a.get("href", "")).startswith("#")}
    assert targets <= set(ids)


def test_every_picture_tells_its_main_numbers_to_who_does_not_see_it(page: str) -> None:
    labels = [str(a.get("aria-label")) for name, a in Reader(page).elements if name == "svg"]
    assert all(re.search(r"\d|Main measures", label) for label in labels)
    assert any("Eigenvalues of net-sgd-epoch001.pt, spectrum: λmax 8." in label for label in labels)


def test_the_same_runs_give_the_same_bytes_and_are_drawn_as_asked(tmp_path: Path) -> None:
    runs = study(4, kinds=["eigen"])
    done: list[tuple[int, int, str]] = []
    for name, figures in (("a", "all"), ("b", "all"), ("c", "last")):
        write_report(runs, tmp_path / name, figures=figures, progress=lambda *step: done.append(step))
    first, second, last = (tmp_path.joinpath(name).read_text(encoding="utf-8") for name in "abc")
    assert first == second
    assert [step[0] for step in done] == [1, 2, 3, 4, 5] * 3  # four runs and a kind
    assert {step[1] for step in done} == {5}
    assert last.count("<svg ") == first.count("<svg ") - 2
    assert last.count("Drawn for the last checkpoint of each training run only.") == 2


def test_what_is_not_complete_or_not_readable_stands_first(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    runs = Runs(tuple(runs_of(eigen_result(status="partial"))), ("bad<b>.h5: torn",))
    summary = write_report(runs, path)
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("What was measured")]
    for expected in ("Look at this first", "1 run partial", "bad&lt;b&gt;.h5: torn"):
        assert expected in head
    assert summary.unreadable == ("bad<b>.h5: torn",)


def test_one_run_is_a_page_too(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    summary = write_report(runs_of(eigen_result()), path)
    assert (summary.runs, summary.checkpoints, summary.figures) == (1, 1, 1)
    assert "nothing to draw over training" in path.read_text(encoding="utf-8")


def test_mistakes_are_said_and_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    with pytest.raises(InputError, match="no runs to report on"):
        write_report(Runs(()), path)
    with pytest.raises(InputError, match="figures is one of all, last"):
        write_report(runs_of(eigen_result()), path, figures="some")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_report(runs_of(eigen_result()), tmp_path / "file" / "r.html")
    assert not path.exists()


def test_sixty_checkpoints_will_fit(page: str) -> None:
    """What does not depend on the number of runs is counted as if it did: an upper bound."""
    assert len(page.encode()) * 60 / 4 < LARGEST


@pytest.mark.long
def test_sixty_checkpoints_fit(tmp_path: Path) -> None:
    summary = write_report(study(60), tmp_path / "r.html")
    assert (summary.runs, summary.checkpoints) == (180, 60)
    assert summary.figures > 180
    assert summary.size < LARGEST


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder, with a run and a file that is none, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "landscape-results"
    results.mkdir()
    ResultFile(results / "a.h5").add(eigen_result(provenance=provenance("eigen-aaaa")))
    (results / "torn.h5").write_bytes(b"no HDF5")
    return results


def test_the_command_writes_the_page_and_says_where(folder: Path) -> None:
    done = call("report", "--title", "Mine")
    assert (done.exit_code, done.stdout) == (0, "report.html\n")
    assert "1 run on 1 checkpoint, 1 picture, " in done.stderr
    assert "torn.h5" in done.stderr
    text = Path("report.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in text
    assert "eigen-aaaa" in text
    assert "torn.h5" in text


def test_the_command_as_json_and_with_files(folder: Path) -> None:
    done = call("report", folder / "a.h5", "-o", "out/page.html", "--json", "--quiet", "--figures", "last")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    size = Path("out/page.html").stat().st_size
    assert {k: told[k] for k in ("command", "report", "checkpoints", "count", "bytes", "unreadable")} == {
        "command": "report",
        "report": "out/page.html",
        "checkpoints": 1,
        "count": 1,
        "bytes": size,
        "unreadable": [],
    }


def test_the_command_refuses_what_it_cannot_do(folder: Path) -> None:
    for arguments, words in (
        (["-o", "report.pdf"], "end its name in .html"),
        (["nowhere"], "there are no results at nowhere"),
        (["--figures", "few"], "figures is one of all, last"),
    ):
        done = call("report", *arguments)
        assert done.exit_code == 2
        assert words in done.stderr
    assert not Path("report.html").exists()
