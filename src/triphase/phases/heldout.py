"""When a phase evaluates on its held-out records: at the end of each fifth."""

EVALUATIONS_PER_PHASE = 5


def is_looked_at(step: int, total_steps: int) -> bool:
    """Whether a fifth of the phase ends with this step, counted from 0."""
    return (step + 1) * EVALUATIONS_PER_PHASE // total_steps > step * EVALUATIONS_PER_PHASE // total_steps
