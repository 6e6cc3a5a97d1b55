"""When a phase looks at its held-out records: at the end of each fifth."""

HELDOUT_LOOKS = 5


def is_looked_at(step: int, total_steps: int) -> bool:
    """Whether a fifth of the phase ends with this step, counted from 0."""
    return (step + 1) * HELDOUT_LOOKS // total_steps > step * HELDOUT_LOOKS // total_steps
