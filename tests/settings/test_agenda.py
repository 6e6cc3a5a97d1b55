"""What a run leaves out, and the reason that it gives."""

import pytest

from triphase.settings.agenda import reasons_to_leave_out
from triphase.settings.schema import RunSettings


@pytest.mark.parametrize(
    ("model", "reference"),
    [
        ({"name": "org/base"}, "org/base as it is, is the reference"),
        ({"name": "org/base", "adapter": "org/tuned"}, "org/base with org/tuned merged into it, is the reference"),
    ],
)
def test_the_reference_of_a_run_without_sft_is_named_with_its_adapter(model: dict[str, str], reference: str) -> None:
    settings = RunSettings.model_validate(
        {"name": "r", "model": model, "data": {"prompts": [{"path": "p.jsonl"}]}, "sft": {"method": "none"}}
    )
    assert reasons_to_leave_out(settings, by_reward_model=True)["sft"] == f"sft.method is none; {reference}"
