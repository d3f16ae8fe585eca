"""``landscape ratios`` from checkpoints to figures, with everything real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape.results import CLASSES, RatiosResult
from landscape.store import ResultFile, read_vectors
from tests.cli.support import call

pytestmark = pytest.mark.usefixtures("project")

SAME = ("ratios", "ckpt.pt", "--seed", "1")


def stored(run: str = "") -> RatiosResult:
    file = ResultFile(next(Path("landscape-results").glob("ckpt-????????.h5")))
    found = file.read(run or file.runs()[-1].id)
    assert isinstance(found, RatiosResult)
    return found


@pytest.fixture
def series(project: Path) -> list[str]:
    """Three checkpoints in runs/, out of order by name and in order by epoch."""
    state = torch.load(project / "ckpt.pt", weights_only=True)["model_state_dict"]
    (project / "runs").mkdir()
    names = []
    for epoch, name in ((20, "step20.pt"), (3, "step3.pt"), (100, "step100.pt")):
        weights = {key: value * (1 + epoch / 50) for key, value in state.items()}
        torch.save({"model_state_dict": weights, "epoch": epoch, "step": 7 * epoch}, project / "runs" / name)
        names.append(f"runs/{name}")
    return names


def test_the_loss_then_the_classes_then_what_they_mean() -> None:
    done = call(*SAME)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is this my loss?")
    assert lines[2].split()[:4] == ["class", "r", "=", "g'/g"]
    assert [line.split()[0] for line in lines[3:5]] == ["ckpt1", "ckpt2"]
    labels = {line.split(None, 1)[0]: line for line in lines if line.strip()}
    for label in (
        "epsilon",
        "uncertain",
        "norms",
        "cosine",
        "signs",
        "curvature",
        "octaves",
        "masks",
        "cost",
    ):
        assert label in labels
    assert "ρ = 0.05; Euclidean length 0.05" in labels["epsilon"]
    assert labels["cost"].startswith("cost         2 gradients")
    assert "nan" not in done.stdout


def test_the_classes_add_up_and_the_masks_are_beside_the_results() -> None:
    done = call(*SAME, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    result = run["result"]
    assert dict(zip(result["classes"], result["counts"], strict=True)).keys() == CLASSES.keys()
    assert sum(result["counts"]) == result["parameters"] == 43
    assert result["count_errors"] == [None] * len(CLASSES)
    masks, about = read_vectors(Path("landscape-results") / result["masks_file"])
    assert masks.dtype == np.uint8
    bits = np.unpackbits(masks, axis=1, bitorder="little", count=43)
    assert bits.sum(1).tolist() == result["counts"]
    assert about["run"] == run["id"]


def test_mini_batches_have_standard_errors_and_no_masks() -> None:
    done = call(*SAME, "--minibatch", "10", "--batches", "6", "--rho-sweep")
    assert done.exit_code == 0, done.stderr
    assert "6 of 10 examples each" in done.stdout
    assert " ± " in done.stdout
    found = stored()
    assert found.masks_file is None
    assert (found.batches, found.minibatch) == (6, 10)


def test_extreme_lengths_show_no_nan() -> None:
    for rho in ("0", "1e30", "1e300"):
        done = call(*SAME, "--rho", rho)
        assert done.exit_code == 0, done.stderr
        assert "nan" not in done.stdout.lower().replace("nonfinite", "")
        assert stored().counts.sum() == 43


def test_the_infinity_norm_is_written_down() -> None:
    call(*SAME, "--p", "inf")
    found = stored()
    assert found.provenance is not None
    assert found.provenance.settings["p"] == "inf"
    assert found.p == float("inf")
    assert (
        "inf-norm" in call("show", next(Path("landscape-results").glob("ckpt-????????.h5")), "ratios").stdout
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--p", "0.5"], "--p must be at least 1"),
        (["--rho", "-1"], "--rho must be at least 0"),
        (["--perturb", "friendly"], "add --minibatch"),
        (["--perturb", "sam"], "--perturb"),
        (["--minibatch", "1000"], "cannot be drawn from 50"),
    ],
)
def test_wrong_options_say_what_to_do(options: list[str], words: str) -> None:
    done = call(*SAME, *options)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_several_checkpoints_end_in_a_table_in_training_order(series: list[str]) -> None:
    done = call("ratios", *series, "--seed", "1")
    assert done.exit_code == 0, done.stderr
    assert "runs/step3.pt (2 of 3)" in done.stdout
    lines = done.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("checkpoint "))
    assert [line.split()[:2] for line in lines[header + 1 : header + 4]] == [
        ["step3.pt", "21"],
        ["step20.pt", "140"],
        ["step100.pt", "700"],
    ]
    assert lines[-1].startswith("to see them: landscape plot ")
    assert lines[-1].endswith(" --view training")
    assert len(list(Path("landscape-results").glob("step*-????????.h5"))) == 3


def test_without_a_checkpoint_those_of_the_configuration_are_taken(series: list[str]) -> None:
    done = call("ratios")
    assert done.exit_code == 2
    assert 'checkpoints = "runs/*.pt"' in done.stderr
    config = Path("landscape.toml")
    config.write_text('checkpoints = "runs/*.pt"\n' + config.read_text())
    runs = json.loads(call("ratios", "--json", "--seed", "1").stdout)["runs"]
    assert [run["checkpoint"]["step"] for run in runs] == [21, 140, 700]
    config.write_text(config.read_text().replace("runs/*.pt", "nowhere/*.pt"))
    done = call("ratios")
    assert done.exit_code == 2
    assert "nowhere/*.pt" in done.stderr


def test_the_cost_is_told_before(series: list[str]) -> None:
    plan = json.loads(call(*SAME, "--dry-run", "--json").stdout)["plan"]
    assert plan["gradients"] == 2
    assert "products" not in call(*SAME, "--dry-run").stdout
    plans = json.loads(call("ratios", *series, "--dry-run", "--json").stdout)["plans"]
    assert len(plans) == 3
    assert not Path("landscape-results").exists()


def test_a_stored_run_is_shown_again() -> None:
    first = call(*SAME).stdout
    again = call(*SAME)
    assert "the same run is stored" in again.stderr
    assert again.stdout == first


def test_the_classes_as_first_written_beside_the_right_ones() -> None:
    assert "as written" not in call(*SAME).stdout
    done = call(*SAME, "--as-written")
    assert "as written" in done.stdout
    assert "by dividing: ckpt1 " in done.stdout
    found = stored()
    assert found.divided_counts is not None
    assert found.divided_counts.sum() == 43
    batches = call(*SAME, "--as-written", "--minibatch", "10", "--batches", "5")
    assert "none 0 ± 0 %" in batches.stdout


def test_deleting_a_run_deletes_its_masks() -> None:
    """Unless another run, with the same masks, has the same file."""
    for rho in ("0.05", "50", "50.001"):
        assert call(*SAME, "--rho", rho, "-o", "a.h5").exit_code == 0
    stored_runs = [ResultFile("a.h5").read(header.id) for header in ResultFile("a.h5").runs()]
    small, large, same = (run for run in stored_runs if isinstance(run, RatiosResult))
    assert small.masks_file != large.masks_file == same.masks_file
    for run, left in ((small, 1), (large, 1), (same, 0)):
        assert run.provenance is not None
        assert call("rm", "a.h5", run.provenance.id, "--yes").exit_code == 0
        assert len(list(Path().glob("a-*.h5"))) == left


def test_a_mini_batch_may_be_a_number_in_the_configuration() -> None:
    config = Path("landscape.toml")
    config.write_text(config.read_text() + "\n[ratios]\nminibatch = 10\nbatches = 4\n")
    done = call(*SAME)
    assert done.exit_code == 0, done.stderr
    assert "4 of 10 examples each" in done.stdout


def test_a_checkpoint_that_fails_does_not_stop_the_others(series: list[str]) -> None:
    Path("runs/step20.pt").write_bytes(b"no checkpoint")
    done = call("ratios", *series, "--seed", "1", "--json")
    assert done.exit_code == 2
    answer = json.loads(done.stdout)
    assert [run["checkpoint"]["step"] for run in answer["runs"]] == [21, 700]
    assert [one["checkpoint"] for one in answer["failed"]] == ["runs/step20.pt"]
    assert "1 of 3 checkpoints failed" in done.stderr
