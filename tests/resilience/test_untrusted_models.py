"""A model from outside is data: no pickle is opened, no code of it runs, its chat template is kept in a sandbox."""

import ast
import json
import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.settings_text import settings_from_text
from tests.small import UNKNOWN, random_model, tokenizer

from triphase.errors import ModelError, SettingsError
from triphase.models.loading import load_model
from triphase.records.types import Message
from triphase.settings.schema import ModelSettings
from triphase.tokens.rendering import render
from triphase.tokens.screening import needs_no_guard
from triphase.tokens.template import Template

ROOT = Path(__file__).parent.parent.parent
# What opens pickles or runs text, by the module it belongs to; None where every use of the module does.
FORBIDDEN: dict[str, set[str] | None] = {
    "pickle": None,
    "cPickle": None,
    "_pickle": None,
    "dill": None,
    "cloudpickle": None,
    "joblib": None,
    "shelve": None,
    "marshal": None,
    "jsonpickle": None,
    "torch": {"load", "hub"},
    "numpy": {"load"},
    "pandas": {"read_pickle"},
    "yaml": {"load", "load_all", "unsafe_load", "full_load", "Loader", "UnsafeLoader", "FullLoader", "CLoader"},
}
BUILTIN = {"eval", "exec", "compile", "__import__"}
NAMES = {"np": "numpy", "pd": "pandas"}


def forbidden(source: str) -> list[str]:
    """What of `source` would open a pickle or run text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [alias.name for alias in node.names]
            modules = [module] if module else names
            for name in (part.split(".")[0] for part in modules):
                if name in FORBIDDEN and (FORBIDDEN[name] is None or (module and FORBIDDEN[name] & set(names))):
                    found.append(f"{node.lineno}: import of {name} {names}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = NAMES.get(node.value.id, node.value.id)
            if node.attr in (FORBIDDEN.get(module) or ()):
                found.append(f"{node.lineno}: {module}.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTIN:
            found.append(f"{node.lineno}: {node.func.id}()")
        elif isinstance(node, ast.keyword) and node.arg in ("weights_only", "allow_pickle", "trust_remote_code"):
            if isinstance(node.value, ast.Constant) and node.value.value is (node.arg != "weights_only"):
                found.append(f"{node.lineno}: {node.arg}={node.value.value}")
    return found


@pytest.mark.parametrize("folder", ["src", "benchmarks"])
def test_nothing_in_the_repository_opens_a_pickle_or_runs_text(folder: str) -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := forbidden(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle", "from joblib import load", "import torch\ntorch.load(p)", "from torch import load",
        "import yaml\nyaml.load(t, Loader=L)", "import numpy as np\nnp.load(p)", "eval(text)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)", "load(p, weights_only=False)",
    ],
)  # fmt: skip
def test_a_planted_one_is_found(planted: str) -> None:
    assert forbidden(planted)


class Marker:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(self.path), "w"))  # type: ignore[return-value]


def small_directory(place: Path) -> Path:
    random_model().save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


def refusal(settings: ModelSettings) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(settings)
    line = str(caught.value)
    assert "\n" not in line and line.startswith("model.name: ")
    return line


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "pytorch_model.pt"])
def test_a_model_that_is_a_pickle_is_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    place, marker = small_directory(tmp_path / "model"), tmp_path / "ran"
    (place / "model.safetensors").unlink()
    (place / name).write_bytes(pickle.dumps(Marker(marker)))
    line = refusal(ModelSettings(name=str(place)))
    assert "safetensors" in line and not marker.exists()
    torch.save({"weight": torch.zeros(1)}, place / name)
    refusal(ModelSettings(name=str(place)))


def with_code(place: Path, marker: Path) -> Path:
    """A model directory whose own code makes a file when it is imported."""
    small_directory(place)
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "planted", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (place / "config.json").write_text(json.dumps(config))
    (place / "code.py").write_text(f"open({str(marker)!r}, 'w')\nclass C: pass\nclass M: pass\n")
    for name in ("tokenizer_config.json",):
        values = json.loads((place / name).read_text())
        (place / name).write_text(json.dumps(values | {"auto_map": {"AutoTokenizer": ["code.T", None]}}))
    return place


def test_code_that_comes_with_a_model_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person was asked"))
    place = with_code(tmp_path / "model", tmp_path / "ran")
    refusal(ModelSettings(name=str(place)))
    assert not (tmp_path / "ran").exists()


def test_trust_is_for_the_model_that_it_names(tmp_path: Path) -> None:
    model = "data: {prompts: [{path: p.jsonl}]}\nname: x\nmodel: {name: org/model, trust_remote_code: "
    assert settings_from_text(f"{model}org/model}}").model.trust_remote_code == "org/model"
    assert settings_from_text(f"{model}false}}").model.trust_remote_code is False
    with pytest.raises(SettingsError, match="names 'org/model', but the model is 'other/model'"):
        settings_from_text(f"{model}org/model}}", {"model.name": "other/model"})
    with pytest.raises(SettingsError, match=r"settings:3: model.trust_remote_code: true is not allowed; it must be"):
        settings_from_text(f"{model}true}}")
    (tmp_path / "local").mkdir()
    (tmp_path / "run.yaml").write_text(f"{model.replace('org/model', './local')}./local}}")
    from triphase.settings.loading import load_settings

    assert load_settings(tmp_path / "run.yaml").model.trust_remote_code == str(tmp_path / "local")


REACHING = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch %s') }}",
    "{{ ''['__class__']['__base__']['__subclasses__']() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('%s', 'w') }}",
    "{{ (lipsum or raise_exception).__globals__ }}",
    "{{ ('{0.__class__.__init__.__globals__}').format(messages) }}",
    "{{ messages.append({'role': 'user', 'content': 'planted'}) }}",
]
CIRCLING = [
    "{% set m = range(99999) %}{% for a in m %}{% for b in m %}{% endfor %}{% endfor %}",
    "{% macro again(n) %}{% for a in range(9) %}{{ again(n + 1) if n < 99 }}{% endfor %}{% endmacro %}{{ again(0) }}",
]  # fmt: skip
FAILING = [
    ("{% for a in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ("{{ raise_exception('roles must alternate') }}", "rejects a conversation of user: roles must alternate"),
    ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ("{{ messages[0].content + 1 }}", "TypeError"),
    ("{% for %}", "rejects a conversation"),
    ("{% include '/etc/passwd' %}", "fails|refuses"),
    ("{% import 'os' as os %}", "fails|refuses"),
    ("{{ undefined_thing.attribute }}", "undefined"),
]
# Each is one operation, or a few, which no clock in the same process can end.
OUTLASTING = {
    "a power": "{{ 9 ** (9 ** 9) }}",
    "a power of names": "{% set n = 9 %}{{ n ** (n ** n) }}",
    "a format width": "{{ '%9999999999d' % 1 }}",
    "a format method": "{{ '{:>9999999999}'.format(1) }}",
    "a repeated text": "{{ 'ab' * 9999999999 }}",
    "a repeated list": "{{ (messages * 9999999999) | length }}",
    "a centered text": "{{ 'a'.center(9999999999) }}",
    "an indented text": "{{ messages | tojson(indent=9999999999) }}",
    "joined ranges": "{{ (range(99999) | join) * 99999 }}",
    "tabs": "{{ '\t'.expandtabs(9999999999) }}",
    "doubling in a loop": "{% set ns = namespace(a='ab') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}"
    "{% endfor %}{{ ns.a }}",
    "doubling in line": "{% set a = 'ab' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "doubling of two": "{% set a = 'ab' %}{% set b = 'ab' %}"
    + "{% set a = a + b %}{% set b = b + a %}" * 60
    + "{{ a }}",
    "doubling in a block": "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set a = 'ab' %}" + "{% set a = m(a) %}" * 60,
    "quotes in quotes": "{{ messages" + " | tojson" * 60 + " }}",
    "loops in loops": "{% for a in messages %}" * 40 + "x" + "{% endfor %}" * 40,
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
}
HELLO = [{"role": "user", "content": "oak"}]


@pytest.mark.parametrize("template", REACHING)
def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path, template: str) -> None:
    marker = tmp_path / "reached"
    made = tokenizer(template.replace("%s", str(marker)))
    try:
        text = render(made, HELLO, open_turn=True)
    except ModelError as error:
        assert "\n" not in str(error) and "change chat_template" in str(error)
    else:
        # What the sandbox takes for undefined is written as nothing.
        assert "builtin" not in text and "subprocess" not in text and "object at" not in text
    assert not marker.exists()
    assert HELLO == [{"role": "user", "content": "oak"}]


@pytest.mark.parametrize("template", CIRCLING)
def test_a_template_that_goes_round_in_circles_is_ended(template: str) -> None:
    begin = time.monotonic()
    with pytest.raises(ModelError, match=r"did not end within 0\.3 s; change chat_template in the model's files"):
        render(tokenizer(template), HELLO, open_turn=True, seconds=0.3)
    assert time.monotonic() - begin < 10
    assert render(tokenizer(), HELLO, open_turn=True, seconds=0.3).startswith("<user> oak")


@pytest.mark.parametrize("template", OUTLASTING.values(), ids=OUTLASTING.keys())
def test_a_template_that_takes_for_ever_or_all_memory_in_one_operation_is_ended(template: str) -> None:
    assert not needs_no_guard(template)
    made = tokenizer(template)
    render(tokenizer("{{ 2 ** 3 }}"), HELLO, open_turn=True)  # the process runs
    begin = time.monotonic()
    with pytest.raises(
        ModelError, match=r"did not end within 1 s|Memory|Overflow|Recursion|too large|too many"
    ) as told:
        render(made, [*HELLO, *HELLO], open_turn=True, seconds=1)
    assert time.monotonic() - begin < 5 and "\n" not in str(told.value)
    assert render(tokenizer("{{ 2 ** 3 }}"), HELLO, open_turn=True) == "8"  # and runs again


ORDINARY = {
    "ChatML": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are helpful.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "Llama 2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
        "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>' + system_message + '<</SYS>>' + message['content'] %}{% else %}"
        "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "Zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
        "eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + "
        "eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "Gemma": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] "
        "| trim "
        "+ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
}
DIALOGUE = [*HELLO, {"role": "assistant", "content": "elm"}, *HELLO]


@pytest.mark.parametrize("template", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_templates_need_no_process_of_their_own(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs_no_guard(template)
    made = tokenizer(template, bos_token=UNKNOWN)
    here = render(made, DIALOGUE, open_turn=True)
    monkeypatch.setattr("triphase.tokens.rendering.needs_no_guard", lambda template: False)
    assert render(made, DIALOGUE, open_turn=True) == here == made.apply_chat_template(
        DIALOGUE, tokenize=False, add_generation_prompt=True
    )  # fmt: skip


REPEATING = {
    "the first message for each one": "{% for m in messages %}{{ messages[0].content }}{% endfor %}",
    "all messages for each one": "{% for m in messages %}{{ messages|string }}{% endfor %}",
    "a message many times": "{% for m in messages %}" + "{{ m.content }}" * 300 + "{% endfor %}",
}


@pytest.mark.parametrize("template", REPEATING.values(), ids=REPEATING.keys())
def test_a_plain_template_that_a_long_conversation_makes_write_without_end_is_guarded(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert needs_no_guard(template)
    made = tokenizer(template)
    assert "oak" in render(made, HELLO, open_turn=True)
    monkeypatch.setattr("triphase.tokens.rendering._rendered_here", lambda *_: pytest.fail("rendered without a guard"))
    long = [{"role": "user", "content": "x" * 1_000_000}, *[{"role": "user", "content": "y"}] * 2000]
    with pytest.raises(ModelError, match=r"did not end within 1 s|Memory|no text of a usable length"):
        render(made, long, open_turn=True, seconds=1)


def test_a_forked_process_gets_answers_of_its_own() -> None:
    made = tokenizer("{% for m in messages %}{{ m.content * 2 }}{% endfor %}")
    assert render(made, HELLO, open_turn=True) == "oakoak"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        texts = [f"t{number}" for number in range(20)]
        asked = [pool.submit(render, made, [{"role": "user", "content": text}], open_turn=True) for text in texts]
        assert [answer.result() for answer in asked] == [text * 2 for text in texts]
    assert render(made, HELLO, open_turn=True) == "oakoak"


def test_it_is_ended_in_any_thread_and_no_other_one_is_disturbed() -> None:
    found: list[str] = []

    def work() -> None:
        try:
            render(tokenizer(CIRCLING[0]), HELLO, open_turn=True, seconds=0.3)
        except ModelError as error:
            found.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert render(tokenizer(), HELLO, open_turn=False, seconds=20).startswith("<user> oak")
    assert len(found) == 3 and all("did not end" in line for line in found)


@pytest.mark.parametrize(("template", "problem"), FAILING)
def test_a_template_that_fails_is_one_line(template: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        render(tokenizer(template), HELLO, open_turn=True)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_the_template_refuses_is_one_line() -> None:
    made = Template(
        tokenizer("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}a<end>")
    )
    with pytest.raises(ModelError, match="rejects a conversation of system, user: no system"):
        made.prompt_ids([Message("system", "x"), Message("user", "y")])


DEEP = {
    "sums": "{{ " + " + ".join(["'a'"] * 5000) + " }}",
    "attributes": "{{ messages" + ".a" * 5000 + " }}",
    "filters": "{{ 'a'" + "|trim" * 5000 + " }}",
    "alternatives": "{{ " + " or ".join(["0"] * 5000) + " }}",
    "a break outside of a loop": "{% break %}",
    "an encoding that is none": "{{ 'x'.encode('nosuch') }}",
}


@pytest.mark.parametrize("template", DEEP.values(), ids=DEEP.keys())
def test_a_template_that_raises_what_nobody_thought_of_is_one_line(template: str) -> None:
    try:
        render(tokenizer(template), HELLO, open_turn=True, seconds=20)
    except ModelError as error:
        assert " fails (" in str(error) and "\n" not in str(error)
