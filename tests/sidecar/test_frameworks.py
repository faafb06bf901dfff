"""Lightning and the Trainer of Hugging Face, the real ones, with tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs
from bottleneck_sidecar.wire import TrainingRank
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .conftest import Inbox  # type: ignore[import-not-found]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


def test_lightning_is_measured_and_its_loader_changed(inbox: Inbox, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from bottleneck_sidecar.lightning import StepCallback

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)
            self.seen: list[float] = []

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            told.extend(inbox.read())  # the socket holds only a few reports
            self.seen += batch[0][:, 0].tolist()
            return self.layer(batch[0]).mean()  # type: ignore[no-any-return]

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.layer(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    told: list[TrainingRank] = []
    data = TensorDataset(torch.arange(40.0).repeat(4, 1).T.contiguous())
    wish = tmp_path / "knobs"
    wish.write_text('{"generation": 1, "dataLoader": {"workers": 1, "persistentWorkers": "on"}}')
    callback = StepCallback(socket=inbox.path, knobs=str(wish))
    trainer = lightning.Trainer(
        max_epochs=2,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
    )
    model = Model()
    trainer.fit(model, callback.loader(DataLoader(data, 4)), DataLoader(data, 20))
    wish.write_text(json.dumps({"generation": 2, "batch": {"micro": 8, "accumulation": 1}}))
    callback.monitor.step()
    callback.monitor.close()
    told.extend(inbox.read())
    last = told[-1]
    assert (last.steps - 1, last.samples) == (10, 80)
    assert model.seen == list(range(40)) * 2
    for phase in ("data", "forward", "backward", "optimizer"):
        assert last.seconds[phase] > 0, phase
    assert last.evaluation_seconds
    assert last.checkpoint_seconds
    assert any(report.loss is not None for report in told)
    assert last.knobs is not None
    assert (last.knobs["dataLoader.workers"], last.knobs["dataLoader.persistentWorkers"]) == (
        1,
        "on",
    )
    assert last.settable == [
        "dataLoader.workers",
        "dataLoader.prefetch",
        "dataLoader.persistentWorkers",
    ]
    assert last.acknowledgement is not None
    assert last.acknowledgement.result == "Refused"
    assert "monitor.optimizer_step(optimizer)" in last.acknowledgement.message
    assert "training_step" not in vars(model)


def test_the_trainer_of_hugging_face_is_measured(inbox: Inbox, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from bottleneck_sidecar.huggingface import StepCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            told.extend(inbox.read())  # the socket holds only a few reports
            output = self.layer(x)
            return {"loss": nn.functional.mse_loss(output, labels), "logits": output}

    told: list[TrainingRank] = []
    data = [{"x": torch.ones(4), "labels": torch.ones(1)} for _ in range(22)]
    wish = tmp_path / "knobs"
    wish.write_text('{"generation": 1, "dataLoader": {"workers": 2}}')
    callback = StepCallback(socket=inbox.path, knobs=str(wish))
    trainer = transformers.Trainer(
        Model(),
        transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            eval_strategy="epoch",
            save_strategy="epoch",
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[callback],
    )
    trainer.train()
    callback.monitor.close()
    last = [*told, *inbox.read()][-1]
    assert (last.steps, last.samples) == (6, 44)
    for phase in ("data", "forward", "backward", "optimizer"):
        assert last.seconds[phase] > 0, phase
    assert last.evaluation_seconds
    assert last.checkpoint_seconds
    assert last.settable == []
    assert last.acknowledgement is not None
    assert last.acknowledgement.result == "Refused"


def test_the_sdk_imports_neither() -> None:
    program = (
        "import sys; import bottleneck_sidecar.training, bottleneck_sidecar.script;"
        "assert not {'lightning', 'transformers', 'accelerate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
