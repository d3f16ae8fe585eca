"""Measurements to TensorBoard, and to a function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from landscape.monitoring import Monitor
from tests.monitoring.support import blobs, net, train


def test_tensorboard_reads_what_was_measured(tmp_path: Path) -> None:
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    model, data = net(), blobs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    writer = SummaryWriter(str(tmp_path))
    monitor = Monitor(model, "cross_entropy", data, every=2, budget=None, writer=writer, optimizer=optimizer)
    train(model, data, 5, monitor)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    result = monitor.result()
    for tag, values in (
        ("landscape/lambda_max", result.lambda_max),
        ("landscape/h_norm", result.h_norms),
        ("landscape/ratios/ckpt1", result.fractions[:, 0]),
        ("landscape/probe_loss", result.losses),
        ("landscape/learning_rate", [0.25] * 3),
    ):
        found = events.Scalars(tag)
        assert [event.step for event in found] == [0, 2, 4]
        assert [event.value for event in found] == pytest.approx(list(values), rel=1e-6)
    assert "landscape/trace" not in events.Tags()["scalars"]


def test_a_function_takes_the_figures() -> None:
    seen: list[tuple[Mapping[str, float], int]] = []
    model, data = net(), blobs()
    monitor = Monitor(
        model, "cross_entropy", data, every=3, budget=None, rho=0.1,
        writer=lambda figures, step: seen.append((figures, step)),
    )  # fmt: skip
    train(model, data, 4, monitor, rho=0.0)
    assert [step for _, step in seen] == [0, 3]
    result = monitor.result()
    assert seen[1][0]["landscape/lambda_max"] == result.lambda_max[1]
    assert sum(value for name, value in seen[0][0].items() if "/ratios/" in name) == pytest.approx(1.0)


def test_a_writer_whose_disk_is_full_does_not_end_the_training() -> None:
    def full(figures: Mapping[str, float], step: int) -> None:
        raise OSError(28, "No space left on device")

    model, data = net(), blobs()
    monitor = Monitor(model, "cross_entropy", data, every=1, budget=None, writer=full)
    with pytest.warns(RuntimeWarning, match="No space left") as said:
        train(model, data, 3, monitor)
    assert len(said) == 1
    assert len(monitor.result().steps) == 3
