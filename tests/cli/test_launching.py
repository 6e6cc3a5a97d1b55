"""Of the processes of a run that have failed, the one that is the cause is named."""

from pathlib import Path
from typing import Any

import pytest

from triphase.cli import launching


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ((1, -9), "error: rank 1 was ended by SIGKILL"),  # rank 0 has failed at once, since its partner is gone
        ((1, 1, -9), "error: rank 2 was ended by SIGKILL"),
        ((0, 3), "error: rank 1 ended with exit code 3"),
        ((1, 1), ""),  # rank 0 has told why
        ((0, 0), ""),
    ],
)
def test_of_several_that_end_at_once_one_that_a_signal_has_ended_is_the_cause(
    codes: tuple[int, ...],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Ended:
        def __init__(self, command: Any, *, env: dict[str, str], **_: Any) -> None:
            self.returncode = codes[int(env["RANK"])]

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr(launching.subprocess, "Popen", Ended)
    code = launching.launch(["run", "x.yaml"], len(codes), tmp_path)
    assert code == (1 if any(codes) else 0)
    error = capsys.readouterr().err
    assert error.startswith(told) and bool(error) is bool(told)
