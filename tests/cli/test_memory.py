"""A command that runs out of memory when it opens a model: one line with the remedy, whatever the library raises."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.crash import processes
from tests.resolved import resolved_yaml
from tests.runs.small_run import do, settings, write_data

from triphase.cli.main import main
from triphase.runs import pipeline

LACKS = {
    "safetensors": MemoryError("Cannot allocate memory (os error 12)"),
    "mmap": RuntimeError("unable to mmap 538090408 bytes from file </m>: Cannot allocate memory (12)"),
    "system": OSError(12, "Cannot allocate memory"),
    "library": ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a policy, and its store."""
    folder = tmp_path_factory.mktemp("memory")
    write_data(folder)
    chosen = settings(folder, method="lora", adapters={"layers": 1, "rank": 4})
    (folder / "run.yaml").write_text(resolved_yaml(chosen))
    return do(chosen, pipeline.run_sft, pipeline.run_sampling).path


def commands(run: Path, folder: Path) -> dict[str, list[str]]:
    return {
        "chat": ["chat", str(run)],
        "export": ["export", str(run), "--to", str(folder / "new")],
        "evaluate": ["evaluate", str(run.parents[1] / "run.yaml")],
        "label sample": ["label", "sample", str(run), "embedded:tiny", "--name", "other"],
        "label score": ["label", "score", str(run)],
    }


@pytest.mark.parametrize("verb", ["chat", "export", "evaluate", "label sample", "label score"])
@pytest.mark.parametrize("lack", LACKS)
def test_a_verb_without_memory_is_one_line(
    verb: str, lack: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def starved(*_: Any, **__: Any) -> None:
        raise LACKS[lack]

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", starved)
    # Verbs that come behind phases which have not been run here look no further.
    monkeypatch.setattr("triphase.cli.label_score.has_left", lambda *_: True)
    monkeypatch.setattr("triphase.runs.evaluation.is_usable", lambda *_: True)
    assert main(commands(run, tmp_path)[verb]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    shown = "evaluation" if verb == "evaluate" else verb
    assert error.startswith(f"error: {shown}: not enough memory (")
    assert "GB peak use" in error
    assert (
        "lower sampling.batch_size" in error if verb == "evaluate" else "close other programs, raise the limit" in error
    )
    assert ("use a smaller model" in error) == (verb in ("chat", "label sample"))
    assert not (tmp_path / "new").exists()


def test_data_that_does_not_fit_is_one_line_too(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def starved(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("triphase.cli.check.survey_data", starved)
    assert main(["check", str(run.parents[1] / "run.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: check: not enough memory (")


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> None:
        raise RuntimeError("shape '[2]' is invalid for input of size 3")

    monkeypatch.setattr("triphase.cli.deferred.conversation_with", wrong)
    with pytest.raises(RuntimeError, match="shape"):
        main(["chat", "embedded:tiny"])


def test_a_process_that_truly_gets_no_memory_says_so(tmp_path: Path) -> None:
    """The address space is limited before the model is opened; its weights, 64 MB of zeros, do not fit into it."""
    from safetensors.torch import load_file, save_file

    from triphase.demo.tiny import tiny_directory

    model, log = tmp_path / "model", tmp_path / "log"
    model.mkdir()
    for file in (tiny_directory() / "model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = load_file(model / "model.safetensors")
    rows, width = 1 << 18, 64
    weights = {name: torch.zeros(rows, width) if "embed" in name else value for name, value in weights.items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": rows, "hidden_size": width}))
    processes.load_libraries()

    def starved() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))
        assert main(["chat", str(model)]) == 2

    assert processes.wait(processes.start(starved, log)) == 0, log.read_text()
    said = log.read_text().splitlines()
    assert len(said) == 1 and said[0].startswith("error: chat: not enough memory ("), said
