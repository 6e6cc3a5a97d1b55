"""Texts longer than the model's positions, and more adapted layers than it has, are reported before training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.resolved import resolved_yaml
from tests.runs.small_run import do, settings, write_data
from transformers import LlamaConfig

from triphase.cli.main import main
from triphase.demo.tiny import tiny_directory
from triphase.models.pretrained import notes_on, positions_note
from triphase.runs import pipeline


def yarn(**changes: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4, **changes}


@pytest.mark.parametrize(
    ("config", "length", "told"),
    [
        ({"max_position_embeddings": 32}, 32, None),
        ({"max_position_embeddings": 32}, 33, "= 33 is more than the 32 positions"),
        ({"max_position_embeddings": 32, "rope_parameters": yarn()}, 128, None),
        ({"max_position_embeddings": 32, "rope_parameters": yarn()}, 129, "= 129 is more than the 128 positions"),
        ({"max_position_embeddings": 256, "rope_parameters": yarn()}, 200, None),
    ],
)
def test_rotary_positions_have_an_end_too(config: dict[str, Any], length: int, told: str | None) -> None:
    found = positions_note(LlamaConfig(**config), length)
    assert (found is None) if told is None else (found is not None and told in found)


def test_check_and_run_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    model = tmp_path / "model"
    shutil.copytree(tiny_directory() / "model", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    chosen = settings(tmp_path, method="lora", adapters={"layers": 1, "rank": 4})
    for length, said in ((40, False), (64, True)):
        own = chosen.model_copy(
            update={"model": chosen.model.model_copy(update={"name": str(model), "max_length": length})}
        )
        adapters = chosen.adapters.model_copy(update={"layers": 3 if said else 2})
        own = own.model_copy(update={"name": f"of-{length}", "adapters": adapters})
        path = tmp_path / "run.yaml"
        path.write_text(resolved_yaml(own))
        assert main(["check", str(path)]) == 0
        shown = capsys.readouterr().out
        assert ("more than the 40 positions" in " ".join(shown.split())) == said
        log = (do(own, pipeline.run_sft).path / "log.jsonl").read_text()
        assert ("more than the 40 positions" in log) == said
        for line in (" ".join(log.split()), " ".join(shown.split())):
            assert ("adapters.layers = 3, but the model has 2 layers: all of them are adapted" in line) == said


def test_the_last_layer_and_position_are_within() -> None:
    config = LlamaConfig(num_hidden_layers=3, max_position_embeddings=32)
    assert notes_on(config, layers=3, max_length=32) == notes_on(config, layers="all", max_length=32) == []
    assert len(notes_on(config, layers=4, max_length=33)) == 2
