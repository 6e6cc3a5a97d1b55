"""Which steps of a run have nothing to do, and why: from its settings alone."""

from triphase.settings.schema import RunSettings

STEPS = ("sft", "sampling", "labelling", "reward", "ppo", "evaluation")


def reasons_to_leave_out(settings: RunSettings, *, by_reward_model: bool) -> dict[str, str]:
    """The steps that `triphase run` does not do, each with the reason.

    ``by_reward_model``: whether a reward model scores the main PPO run or a variant of it.
    """
    found: dict[str, str] = {}
    if settings.sft_method == "taken":
        found["sft"] = f"sft.from takes it from {settings.sft.taken_from}"
    elif settings.sft_method == "none":
        why = "sft.method is none" if settings.sft.method == "none" else "data.demonstrations is empty"
        model = settings.model
        start = (
            f"{model.name} as it is" if model.adapter is None else f"{model.name} with {model.adapter} merged into it"
        )
        found["sft"] = f"{why}; {start}, is the reference"
    if has_demonstrations_alone(settings):
        return found | dict.fromkeys(STEPS[1:], "the data is demonstrations alone; data.prompts names none")
    if settings.labeling.source == "none":
        found["sampling"] = "labeling.source is none"
    if settings.reward.taken_from is not None:
        found |= dict.fromkeys(
            ("sampling", "labelling", "reward"), f"reward.from takes it from {settings.reward.taken_from}"
        )
    elif not reward_model_is_wanted(settings, by_reward_model=by_reward_model):
        found["labelling"] = found["reward"] = "PPO is scored by another scorer (ppo.scorer), and nobody ranks"
    if _has_preferences_alone(settings):
        why = "the data is preferences alone; name data.prompts, or run `triphase ppo`, which takes theirs"
        found |= {"ppo": why, "evaluation": "no policy is trained"}
    return found


def reward_model_is_wanted(settings: RunSettings, *, by_reward_model: bool) -> bool:
    """Whether a reward model is trained: not if other scorers score every PPO run and nobody ranks."""
    return by_reward_model or settings.labeling.source != "none" or bool(settings.data.preferences)


def has_demonstrations_alone(settings: RunSettings) -> bool:
    """Whether there is nothing to rank and no prompt for a policy, and no setting requires either."""
    data = settings.data
    return (
        settings.sft_method in ("lora", "full")
        and not data.prompts
        and not data.preferences
        and not _says_more(settings)
    )


def _has_preferences_alone(settings: RunSettings) -> bool:
    """Whether only a reward model can be intended: no setting gives a policy's starting point or its prompts."""
    data = settings.data
    said = settings.sft.method == "none" or _says_more(settings)
    return bool(data.preferences) and not data.prompts and not data.demonstrations and not said


def _says_more(settings: RunSettings) -> bool:
    """Whether the settings mention labelers, variants, a scorer of PPO, or artifacts of earlier phases."""
    taken = settings.sft.taken_from is not None or settings.reward.taken_from is not None
    return (
        taken or settings.labeling.source != "none" or bool(settings.variants) or settings.ppo.scorer.chosen != "model"
    )
