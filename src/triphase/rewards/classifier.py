"""A sequence classifier as a scorer: a public reward model, a sentiment classifier, or our own exported one.

The input is text, not ids: the classifier has its own tokenizer and chat template, so its model may be of another
family than the policy. A directory may be a peft adapter, such as `reward/final` of a run: then its base is opened
under it, and the bias of our score head, for which the plain class has no place, is added.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from triphase.batches.order import microbatches
from triphase.errors import SettingsError, TriphaseError, clipped
from triphase.models.chain import base_of, errors_under
from triphase.models.files import check_classifier_files, read_object
from triphase.models.loading import choose_device
from triphase.models.merging import check_adapter
from triphase.models.places import directory_of
from triphase.models.pretrained import quiet
from triphase.records.hub import bound_hub
from triphase.records.visible import visible
from triphase.rewards.options import options_of
from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores, probe_of
from triphase.settings.base import Positive, Settings
from triphase.settings.phase_names import REWARD
from triphase.tokens.rendering import render
from triphase.training.artifacts import damage_of, has_manifest, name_of
from triphase.training.reward_finals import what_plain_libraries_miss

_log = logging.getLogger(__name__)
_HEAD, _ADAPTER = "score_head.safetensors", "adapter_config.json"
_UNBOUNDED = 1_000_000
_MOST_NAMED = 12


class ClassifierOptions(Settings):
    """The options of kind `classifier`."""

    model: str
    """A directory, relative to the settings file, or a hub id."""
    revision: str | None = None
    """Revision of a hub id."""
    label: str | None = None
    """The label whose score counts; required if there are several."""
    of: Literal["logit", "log-probability"] = "logit"
    """Its logit or its log-probability."""
    reads: Literal["conversation", "response"] | None = None
    """Prompt and response, or the response alone; by default the conversation if there is a chat template."""
    max_length: Positive | None = None
    """Longest text in tokens; by default the model's limit. Longer ones lose their beginning."""


class ClassifierScorer(Scorer):
    """Scores by one label of an ``AutoModelForSequenceClassification``."""

    def __init__(self, context: ScorerContext) -> None:
        self.options = options_of(ClassifierOptions, context)
        self.name = self.options.model
        self._context = context
        self._setting = f"{context.setting}.options"
        self._device = choose_device(context.device)
        bound_hub()
        try:
            with errors_under(f"{self._setting}.model"), quiet(), warnings.catch_warnings(action="ignore"):
                self._tokenizer, self._model, self._bias = self._opened()
                self._label, self._limit = self._label_number(), self._longest()
        except TriphaseError:
            raise
        except Exception as error:  # the many error types of transformers, peft and the hub
            text = clipped(" ".join(visible(str(error)).split()))
            raise SettingsError(
                f"{self._setting}.model: cannot open {self.name} as a sequence classifier ({type(error).__name__}: "
                f"{text}); give a directory or hub id with config.json, tokenizer and safetensors weights"
            ) from None
        self._reads = self.options.reads or ("conversation" if self._tokenizer.chat_template else "response")
        self._cut = 0

    @torch.no_grad()
    def score(self, answers: Sequence[Answer]) -> Scores:
        """See Scorer."""
        rows = [self._encoded(answer) for answer in answers]
        found = torch.zeros(len(rows), dtype=torch.float64)
        pad = self._model.config.pad_token_id
        if pad is None:  # the class can then process only one row at a time
            groups: Sequence[Sequence[int]] = [[row] for row in range(len(rows))]
        else:
            lengths, on_card = [len(row) for row in rows], self._device.type == "cuda"
            groups = microbatches(lengths, max_tokens=self._context.max_tokens, on_card=on_card) if rows else []
        for numbers in groups:
            found[list(numbers)] = self._scores([rows[number] for number in numbers], pad)
        return Scores(tuple(float(score) for score in found))

    def examine(self) -> None:
        """Score two answers."""
        self.score(probe_of(self._context.prompts))

    def close(self) -> None:
        """Log how many texts were cut."""
        if self._cut:
            _log.info("%s: %d texts were longer than %d tokens and were truncated", self.name, self._cut, self._limit)

    def _scores(self, rows: Sequence[Sequence[int]], pad: int | None) -> Tensor:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), pad or 0)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        logits = self._model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).logits.double().cpu()
        if self.options.of == "log-probability":
            several = self._model.config.problem_type != "multi_label_classification" and logits.shape[1] > 1
            logits = logits.log_softmax(1) if several else torch.nn.functional.logsigmoid(logits)
        found: Tensor = logits[:, self._label] + self._bias
        return found

    def _encoded(self, answer: Answer) -> list[int]:
        text, is_rendered = self._text(answer)
        ids = list(self._tokenizer(text, add_special_tokens=not is_rendered).input_ids)
        if len(ids) > self._limit:
            self._cut += 1
            if self._cut == 1:
                _log.warning(
                    "%s: a text has %d tokens, but the limit is %d: its beginning is left out (others are counted)",
                    self.name, len(ids), self._limit,
                )  # fmt: skip
            cut = self._tokenizer(text, add_special_tokens=not is_rendered, truncation=True, max_length=self._limit)
            ids = list(cut.input_ids)
        return ids or [self._tokenizer.eos_token_id or 0]

    def _text(self, answer: Answer) -> tuple[str, bool]:
        """The text that is encoded, and whether it contains its special tokens already."""
        if self._reads == "response":
            return answer.response, False
        messages = [{"role": message.role, "content": message.content} for message in answer.prompt.messages]
        if not self._tokenizer.chat_template:
            return "\n\n".join([*(message["content"] for message in messages), answer.response]), False
        text = render(self._tokenizer, [*messages, {"role": "assistant", "content": answer.response}], open_turn=False)
        if self._is_ours and not answer.finished and answer.response:
            head, found, _ = text.rpartition(answer.response)  # trained on responses without an end token as they are
            text = head + found if found else text
        return text, True

    def _opened(self) -> tuple[Any, Any, float]:
        directory = directory_of(self.options.model) or Path(self.options.model)
        adapter = self._checked(directory)
        self._is_ours = (directory / _HEAD).is_file()
        if missed := what_plain_libraries_miss(directory):
            raise SettingsError(
                f"{self._setting}.model: {self.name} {missed}; use all of it with reward.from, "
                f"or give the directory of a single reward model"
            )
        tokenizer = AutoTokenizer.from_pretrained(str(directory), revision=self.options.revision)
        tokenizer.truncation_side = "left"
        options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
        if self._device.type == "cpu":
            options["dtype"] = torch.float32
        if adapter is None:
            found: Any = AutoModelForSequenceClassification.from_pretrained(
                str(directory), revision=self.options.revision, **options
            )
            model, report = found
            self._require_whole(report["missing_keys"])
            self._require_finite(model)
        else:
            from peft import PeftModel

            if adapter.get("task_type") != "SEQ_CLS":
                raise SettingsError(
                    f"{self._setting}.model: {self.name} is an adapter for "
                    f"{adapter.get('task_type')}, not a classifier; from a run use {name_of(REWARD)}"
                )
            base = self._context.place_of(base_of(directory, scores=True), directory)
            found = AutoModelForSequenceClassification.from_pretrained(
                base, num_labels=1, pad_token_id=tokenizer.pad_token_id, **options
            )
            bare, report = found
            brought = tuple(adapter.get("modules_to_save") or ())
            self._require_whole([name for name in report["missing_keys"] if not name.startswith(brought)])
            check_adapter(bare, directory)
            self._require_finite(bare)
            model = PeftModel.from_pretrained(bare, str(directory))
        if model.config.pad_token_id is None and tokenizer.pad_token_id is not None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return tokenizer, model.eval().requires_grad_(False).to(self._device), self._bias_in(directory)

    def _checked(self, directory: Path) -> dict[str, Any] | None:
        """The configuration of an adapter, or None, after a check of the local files."""
        if has_manifest(directory) and (damage := damage_of(directory)) is not None:
            raise SettingsError(f"{self._setting}.model: {directory} is damaged: {damage}; create it again, or copy it")
        if (directory / _ADAPTER).is_file():
            return read_object(directory / _ADAPTER)
        if directory.is_dir():
            check_classifier_files(directory)
        return None

    def _require_finite(self, model: Any) -> None:
        for name, weight in model.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise SettingsError(f"{self._setting}.model: {self.name}: {name} is not finite; use another copy")

    def _bias_in(self, directory: Path) -> float:
        if not self._is_ours:
            return 0.0
        bias = float(load_file(directory / _HEAD).get("bias", torch.zeros(())))
        if not math.isfinite(bias):
            raise SettingsError(f"{self._setting}.model: {directory / _HEAD}: bias is not finite; use another copy")
        return bias

    def _require_whole(self, missing: Sequence[str]) -> None:
        if missing:
            raise SettingsError(
                f"{self._setting}.model: {self.name} is not a classifier: its files lack "
                f"{sorted(missing)[0]}, which is never initialized at random; use a model that "
                f"was trained to score or classify"
            )

    def _label_number(self) -> int:
        labels = [(str(name), int(number)) for number, name in self._model.config.id2label.items()]
        names, label = dict(labels), self.options.label
        shown = ", ".join(list(names)[:_MOST_NAMED])
        if label is None and len(names) > 1:
            raise SettingsError(f"{self._setting}.label: {self.name} has several labels: {shown}; choose one of them")
        if label is not None and label not in names:
            raise SettingsError(f"{self._setting}.label: {self.name} has no label {label[:40]!r}; it has {shown}")
        if label is not None and [name for name, _ in labels].count(label) > 1:
            raise SettingsError(
                f"{self._setting}.label: {self.name} has several outputs with the label {label!r}; give each its own "
                f"name in id2label of its config.json"
            )
        place = 0 if label is None else names[label]
        if not 0 <= place < self._model.config.num_labels:
            raise SettingsError(
                f"{self._setting}.label: {self.name} has no output {place}, which config.json names {label!r}"
            )
        return place

    def _longest(self) -> int:
        if self.options.max_length is not None:
            return self.options.max_length
        given = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        return min((limit for limit in given if limit and 0 < limit < _UNBOUNDED), default=_UNBOUNDED)


def open_scorer(context: ScorerContext) -> ClassifierScorer:
    """The classifier that the options name."""
    return ClassifierScorer(context)
