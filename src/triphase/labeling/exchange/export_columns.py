"""The columns of exports as tables, for an export without rows: no reader opens a file without a header."""

_COMPARISONS = (
    "prompt chosen rejected margin labeler confidence strength purpose campaign submitted_at chosen_model "
    "rejected_model chosen_finished rejected_finished prompt_id kind split"
)
_RANKINGS = (
    "prompt responses places models response_ids finished seeds shown labeler submitted_at seconds purpose campaign "
    "guideline_version strength margin quality ratings rationale rewrites note prompt_id kind split"
)
COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(text.split())
    for name, text in {
        "comparisons": _COMPARISONS,
        "rankings": _RANKINGS,
        "demonstrations": "messages labeler campaign model response_id prompt_id kind split",
        "trl": "prompt chosen rejected",
        "openrlhf": "chosen rejected",
        "argilla": "id fields responses metadata",
    }.items()
}
"""By the name of an export, or the tool whose columns it has; the store, with lines of several kinds, is no table."""
