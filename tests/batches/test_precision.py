"""Checkpoints that are more precise than the model that they are read into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import landscape
from tests.batches.support import carried_out, net, planned, stored, write_project
from tests.run.support import assert_same_bits


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_each_is_read_as_the_single_command_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    """The first of a batch is read into the model as it was built, the others into a copy of it."""
    write_project(tmp_path, 0)
    drawn = torch.Generator().manual_seed(0)
    for step in (1, 2):
        model = net().to(dtype)
        for parameter in model.parameters():
            parameter.data.normal_(generator=drawn)
        (tmp_path / "runs").mkdir(exist_ok=True)
        landscape.save_checkpoint(tmp_path / "runs" / f"net-{step}.pt", model, step=step)
    carried_out(planned(tmp_path, run=("eigen",), warm_starts=False))
    ((_, found),) = [item for item in stored(tmp_path / "landscape-results").items() if "net-2.pt" in item[0]]
    problem = landscape.load_problem(tmp_path / "landscape.toml", tmp_path / "runs" / "net-2.pt")
    single = landscape.eigen(problem, k=2, tol=1e-6, seed=0, output=str(tmp_path / "single.h5"))
    assert_same_bits(found, single)
    assert found.provenance is not None
    assert single.provenance is not None
    assert found.provenance.id == single.provenance.id
