"""The other end of `sandbox`: reads one conversation per line, renders it, writes one text per line, until EOF.

``python -P -m triphase.tokens.sandbox_process BYTES``: the templates may use BYTES of memory, and as much time as the
parent allows before it kills this process. Templates still run in the sandbox of transformers.
"""

import json
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any


def main() -> None:
    """Signal readiness, then serve requests."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    from transformers.utils import chat_template_utils

    _limit_memory(int(sys.argv[1]))
    answers = sys.stdout
    sys.stdout = sys.stderr
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        answer = _answer(chat_template_utils, json.loads(line))
        print(json.dumps(answer), file=answers, flush=True)


def _answer(utilities: Any, asked: dict[str, Any]) -> dict[str, str]:
    from jinja2.exceptions import SecurityError, TemplateError

    utilities.datetime = _clock(asked["date"])
    try:
        rendered, _ = utilities.render_jinja_template(
            conversations=[asked["conversation"]],
            chat_template=asked["template"],
            add_generation_prompt=asked["open_turn"],
            **asked["special_tokens"],
        )
        text = rendered[0]
        return {"text": text} if len(text) <= asked["longest"] else {}
    except SecurityError as error:
        return {"forbidden": str(error)}
    except TemplateError as error:
        return {"refused": str(error)}
    except Exception as error:  # a template is third-party code, and may raise anything
        return {"failed": f"{type(error).__name__}: {error}"}


def _clock(date: str | None) -> type[datetime]:
    """``datetime``, whose ``now`` is noon of a date if one is given."""
    if date is None:
        return datetime
    noon = datetime.fromisoformat(f"{date}T12:00:00")

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return noon

    return Fixed


def _limit_memory(more: int) -> None:
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
