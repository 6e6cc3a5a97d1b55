"""The README.md of an exported reward model: the calls of plain libraries that score with it correctly.

The tests run its Python blocks unchanged.
"""

from transformers import __version__
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

from triphase.models.roles import SharedModel
from triphase.records.visible import as_code
from triphase.training.cards import OPENED, end_token, front, note, question

_SCORED = """with torch.no_grad():
    scores = model(**inputs).logits[:, 0] + ({bias!r})
print(scores)
"""
_SCORED_BY_SEVERAL = """biases = {biases!r}  # of the members, in order
each = []
for name, bias in biases.items():
    if name != "default":
        model.load_adapter(f"{{directory}}/{{name}}", adapter_name=name)
    model.set_adapter(name)
    with torch.no_grad():
        each.append(model(**inputs).logits[:, 0] + bias)
each = torch.stack(each)
scores = ({combined} - ({center!r})) / {scale!r}
print(scores)
"""
_COMBINED = {
    "mean": "each.mean(0)",
    "worst": "each.amin(0)",
    "mean-minus-variance": "each.mean(0) - {penalty!r} * each.var(0, correction=0)",
}
_ELSEWHERE = """TRL takes the directory as it is: `RewardTrainer(model=directory, …)` trains it further,
`GRPOTrainer(reward_funcs=directory, …)` uses it. OpenRLHF's reward loader finds head and bias by `config.json`
(`value_head_prefix`, `mean`, `std`): with its reward normalization on its scores are those above. Both read the score
where this class does; give them texts by this directory's chat template.
"""


def reward_card(shared: SharedModel, base: str, *, cuts: bool) -> str:
    """The card of a reward model; ``cuts``: its chat template already ends at the end of turn."""
    code = (
        "import torch\nfrom peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"{OPENED.format(directory='.')}"
        f"base = AutoModelForSequenceClassification.from_pretrained(\n    {base!r}, num_labels=1, "
        "pad_token_id=tokenizer.pad_token_id\n)\n"
        "model = PeftModel.from_pretrained(base, directory).eval()\n"
        f"{_answers(shared, cuts=cuts)}{_scored(shared)}"
    )
    return (
        f"{front(base, 'reward-model')}# A reward model trained by Triphase\n\n"
        f"{_what(shared, base)}{note(shared)} The score is read at "
        f"{end_token(shared)}, which must be the last token that is not padding: a newline after "
        f"it would be read instead and changes the ranking. {_without_classifier(shared)}"
        + (
            "The chat template of this directory's tokenizer ends there, whatever the base's writes after it. "
            if cuts
            else "So the token ids are built as here. "
        )
        + f"Calibration (mean 0 and deviation 1 on samples of the SFT policy) is already in the "
        f"head; the code adds the head's bias, which the plain class does not have, to its score.{_length(shared)}\n\n"
        f"```python\n{code}```\n"
    )


def whole_reward_card(shared: SharedModel, *, cuts: bool) -> str:
    """The card of a reward model with its own full weights."""
    code = (
        "import torch\nfrom transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"{OPENED.format(directory='.')}"
        "model = AutoModelForSequenceClassification.from_pretrained(directory).eval()\n"
        f"{_answers(shared, cuts=cuts)}{_SCORED.format(bias=shared.score_head.linear.bias.item())}"
    )
    return (
        f"{front(None, 'reward-model')}# A reward model trained by Triphase\n\nThe score is read at "
        f"{end_token(shared)}, which must be the last token that is not padding. The code adds "
        f"the head's bias, which this class does not have, to its score.\n\n```python\n{code}```\n\n{_ELSEWHERE}"
    )


def _what(shared: SharedModel, base: str) -> str:
    witness = " `witness/` is a reward model trained on other comparisons: a second opinion." if shared.witness else ""
    if shared.ensemble is None:
        return f"A LoRA adapter with a score head on {as_code(base)}.{witness}"
    count, how = len(shared.reward_members), shared.ensemble.combination
    return (
        f"An ensemble of {count} reward models on {as_code(base)}: this directory's own LoRA adapter with its score "
        f"head, and those of `member-2` to `member-{count}`. Opened alone, this directory is the first of them; the "
        f"score is that of all ({how.combine}), as below.{witness}"
    )


def _length(shared: SharedModel) -> str:
    """The length correction that a user of the card must apply."""
    if shared.residual is None:
        return ""
    how = shared.residual
    return (
        "\n\nThis score is corrected for length: with n the tokens of the response, its end "
        "token counted, the score is "
        f"`(scores - {how.slope!r} * n - {how.center!r}) / {how.scale!r}`, `scores` as printed below."
    )


def _scored(shared: SharedModel) -> str:
    if shared.ensemble is None:
        return _SCORED.format(bias=shared.score_head.linear.bias.item())
    how, names = shared.ensemble.combination, [f"member-{number + 1}" for number in range(len(shared.reward_members))]
    biases = {
        name: member.head.linear.bias.item()
        for name, member in zip(["default", *names[1:]], shared.reward_members, strict=True)
    }
    combined = _COMBINED[how.combine].format(penalty=how.penalty)
    return _SCORED_BY_SEVERAL.format(biases=biases, combined=combined, center=how.center, scale=how.scale)


def _answers(shared: SharedModel, *, cuts: bool) -> str:
    if cuts:
        return (
            f"prompt = {question(shared)!r}\n"
            'conversations = [[*prompt, {"role": "assistant", "content": text}] for text in ("Well.", "Go away.")]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    conversations, padding=True, return_tensors="pt", return_dict=True\n)\n'
        )
    cut = len(shared.template.appended)
    prompt = 'tokenizer("How are you?").input_ids' + (f"[:-{cut}]" if cut else "")
    if shared.template.is_chat:
        prompt = (
            f"tokenizer.apply_chat_template(\n    {question(shared)!r}, "
            "add_generation_prompt=True, return_dict=False\n)"
        )
    return (
        f"prompt = {prompt}\n"
        'answers = [tokenizer(text, add_special_tokens=False).input_ids for text in ("Well.", "Go away.")]\n'
        f'rows = {{"input_ids": [[*prompt, *answer, {shared.template.end_id}] for answer in answers]}}\n'
        'inputs = tokenizer.pad(rows, return_tensors="pt")\n'
    )


def _without_classifier(shared: SharedModel) -> str:
    """A note if transformers cannot load the base as a classifier; empty if it can."""
    kind = shared.backbone.model.config.model_type
    if kind in KNOWN:
        return ""
    return (
        f"transformers {__version__} has no AutoModelForSequenceClassification for the type "
        f"{kind}, so the code below does not open it; `triphase score` and `triphase.load_reward_model` do. "
    )
