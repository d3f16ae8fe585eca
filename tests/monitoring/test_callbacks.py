"""The callbacks, in trainings by the real Lightning and the real Hugging Face trainers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import landscape
from landscape.results import MonitorResult
from landscape.store import ResultFile
from tests.monitoring.support import blobs, net, perturbed, plain_net


def stored(path: Path) -> MonitorResult:
    file = ResultFile(path)
    result = file.read(file.runs()[-1])
    assert isinstance(result, MonitorResult)
    return result


# -- Lightning -----------------------------------------------------------------------------------------------

lightning = pytest.importorskip("lightning.pytorch")


class Plain(lightning.LightningModule):
    """Trained as most are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.net = model

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Sam(Plain):
    """SAM as one writes it in Lightning: two backward passes by hand."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(cross_entropy(self(batch[0]), batch[1]))
        with perturbed(self.net, 0.1):
            optimizer.zero_grad()
            self.manual_backward(cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


def fit(module: Any, callbacks: list[Any], tmp_path: Path, steps: int = 6, **options: Any) -> Any:
    x, y = blobs()
    x = x.to(next(module.parameters()).dtype)
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **{"logger": False, **options},
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=20))
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path) -> None:
    from landscape.monitoring.lightning import LandscapeCallback

    path, data = tmp_path / "monitor.h5", blobs()
    weights = []
    for watched in (False, True):
        torch.manual_seed(0)
        module = Plain(plain_net().float())
        callback = LandscapeCallback(
            "cross_entropy", data, output=path, every=2, budget=None, seed=0, rho=0.05
        )
        fit(module, [callback] if watched else [], tmp_path)
        weights.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]))
    assert weights[0].equal(weights[1])
    result = stored(path)
    assert result.status == "complete"
    assert (result.steps.tolist(), result.total_steps) == ([0, 2, 4], 6)
    assert result.learning_rates.tolist() == [0.1] * 3
    first = landscape.Problem(plain_net().float(), "cross_entropy", data)
    known = landscape.eigen(first, k=1, seed=0).eigenvalues[0]
    assert abs(result.lambda_max[0] - known) <= result.lambda_max_errors[0] + 1e-3 * known
    assert result.counts[0].tolist() == landscape.ratios(first, rho=0.05).counts.tolist()


@pytest.mark.filterwarnings("ignore")
def test_sam_in_lightning_has_ratios_of_its_own_gradients(tmp_path: Path) -> None:
    from landscape.monitoring.lightning import LandscapeCallback

    x, y = blobs()
    module = Sam(plain_net())
    logger = lightning.loggers.CSVLogger(tmp_path)
    callback = LandscapeCallback(
        "cross_entropy", (x, y), every=3, budget=None, sam=True, model=lambda module: module.net
    )
    fit(module, [callback], tmp_path, logger=logger, steps=7)
    assert callback.monitor is not None
    result = callback.monitor.result()
    assert (result.status, result.steps.tolist()) == ("complete", [0, 3, 6])
    assert result.source == "training"
    assert result.lengths == pytest.approx(0.1)
    batch = landscape.Problem(plain_net(), "cross_entropy", (x[:20], y[:20]))
    assert result.counts[0].tolist() == landscape.ratios(batch, rho=0.1).counts.tolist()
    logger.save()
    table = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "landscape/lambda_max" in table
    assert str(result.lambda_max[1])[:12] in table


@pytest.mark.filterwarnings("ignore")
def test_lightning_accumulates_gradients_and_fails(tmp_path: Path) -> None:
    from landscape.monitoring.lightning import LandscapeCallback

    class Broken(Plain):
        def on_train_batch_end(self, *_: Any) -> None:
            if self.global_step == 4:
                raise ValueError("the user's own")

    path = tmp_path / "monitor.h5"
    callback = LandscapeCallback("cross_entropy", blobs(), output=path, every=1, budget=None)
    with pytest.raises(ValueError, match="the user's own"):
        fit(Broken(net()), [callback], tmp_path, accumulate_grad_batches=3)
    result = stored(path)
    assert (result.status, result.steps.tolist()) == ("partial", [0, 1, 2, 3])


# -- Hugging Face --------------------------------------------------------------------------------------------

transformers = pytest.importorskip("transformers")


def language_model() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=13, n_positions=12, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def sequences(count: int) -> list[dict[str, Tensor]]:
    """Tokens; of every other one the beginning is masked."""
    g = torch.Generator().manual_seed(3)
    tokens = torch.randint(13, (count, 9), generator=g)
    labels = tokens.clone()
    labels[::2, :5] = -100
    return [{"input_ids": t, "labels": n} for t, n in zip(tokens, labels, strict=True)]


def stacked(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def trained(model: Any, tmp_path: Path, callbacks: list[Any], steps: int = 5) -> None:
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=steps, per_device_train_batch_size=4, report_to=[],
        save_strategy="no", logging_strategy="no", use_cpu=True, learning_rate=0.01, disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=sequences(24), callbacks=callbacks
    )
    trainer.train()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_trainer(tmp_path: Path) -> None:
    from landscape.monitoring.transformers import LandscapeCallback

    path, probe = tmp_path / "monitor.h5", stacked(sequences(6))
    weights = []
    for watched in (False, True):
        model = language_model()
        callback = LandscapeCallback(probe, output=path, every=2, budget=None, seed=0, rho=0.05)
        trained(model, tmp_path, [callback] if watched else [])
        weights.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert weights[0].equal(weights[1])
    result = stored(path)
    assert (result.status, result.steps.tolist(), result.total_steps) == ("complete", [0, 2, 4], 5)
    assert result.terms == 3 * 4 + 3 * 8  # next tokens that are not masked
    model = language_model().eval()
    assert result.losses[0] == pytest.approx(model(**probe).loss.item(), rel=1e-5)
    assert result.learning_rates[0] == pytest.approx(0.01)
    assert result.lambda_max[0] > 0
    assert result.counts[0].sum() == result.parameters
    assert callback.monitor is not None


@pytest.mark.filterwarnings("ignore")
def test_a_loss_of_ones_own_and_pieces_of_other_sizes(tmp_path: Path) -> None:
    """Batches whose numbers of terms differ are weighted as the data set's mean is."""
    from landscape.monitoring.transformers import LandscapeCallback

    rows = sequences(6)
    results = []
    for probe in (stacked(rows), [stacked(rows[:1]), stacked(rows[1:])]):
        callback = LandscapeCallback(probe, every=10, budget=None, seed=0)
        trained(language_model(), tmp_path, [callback], steps=1)
        assert callback.monitor is not None
        results.append(callback.monitor.result())
    assert results[0].losses[0] == pytest.approx(results[1].losses[0], rel=1e-5)
    assert results[0].lambda_max[0] == pytest.approx(results[1].lambda_max[0], rel=1e-2)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(input_ids=batch["input_ids"]).logits.square().mean()

    callback = LandscapeCallback(stacked(rows), loss=loss, every=10, budget=None)
    trained(language_model(), tmp_path, [callback], steps=1)
    assert callback.monitor is not None
    assert abs(callback.monitor.result().losses[0] - results[0].losses[0]) > 0.1


def test_a_probe_without_labels_is_an_error_before_the_training(tmp_path: Path) -> None:
    from landscape.monitoring.transformers import LandscapeCallback

    probe = {"input_ids": stacked(sequences(3))["input_ids"]}
    with pytest.raises(landscape.LandscapeError, match="returned no loss"):
        trained(language_model(), tmp_path, [LandscapeCallback(probe)])


@pytest.mark.parametrize(
    ("name", "library"), [("lightning", "lightning.pytorch"), ("transformers", "transformers")]
)
def test_a_library_that_is_missing_is_said(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"landscape.monitoring.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(landscape.LandscapeError, match=rf"pip install 'landscape-diagnostics\[{name}\]'"):
        importlib.import_module(module)
