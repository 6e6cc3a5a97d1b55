"""What commands import late."""

import gc
import sys

import pytest

from triphase.cli import deferred


def test_what_the_libraries_allocate_is_left_out_of_later_collections_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(deferred.worked_step)
    frozen: list[tuple[bool, bool]] = []

    def freeze() -> None:
        frozen.append(("triphase.objectives.worked_step" in sys.modules, gc.isenabled()))

    monkeypatch.setattr(gc, "freeze", freeze)
    monkeypatch.delitem(sys.modules, "triphase.objectives.worked_step")
    for _ in range(2):
        assert callable(deferred.worked_step)
    assert frozen == [(True, False)] and gc.isenabled()
