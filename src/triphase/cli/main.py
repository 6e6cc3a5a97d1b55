"""The table of commands, and the handling of mistakes: one line on stderr and exit code 2.

Nothing heavy is imported here: a command's module is imported when the command is run.
"""

import difflib
import errno
import itertools
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from triphase import __version__
from triphase.cli.examples import examples_of
from triphase.cli.extras import missing_package
from triphase.cli.numbers import converted
from triphase.cli.streams import lasting_streams, outlasting_terminal
from triphase.errors import SettingsError, TriphaseError, WaitingForPeople, is_out_of_memory
from triphase.monitoring.log import shown_log, without_secrets
from triphase.monitoring.memory import memory_figures
from triphase.records.visible import visible
from triphase.training.distributed.environment import place_in
from triphase.training.distributed.types import RankLost

DONE, FAILED, MISTAKEN, WAITING, INTERRUPTED = 0, 1, 2, 3, 130

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("demo", "demo:demo", "Run all of RLHF on the embedded model and data."),
    ("init", "init:init", "Write a commented configuration from your data files."),
    ("run", "run:run", "Run every step of a configuration, from data to report."),
    ("check", "check:check", "Check the configuration and every record; loads no model."),
    ("plan", "plan:plan", "Estimate each phase's memory and time, and what to lower."),
    ("sft", "phases:sft", "Phase 1: supervised fine-tuning."),
    ("sample", "phases:sample", "Sample the responses that people rank."),
    ("reward", "phases:reward", "Phase 2: the reward model, from the rankings."),
    ("ppo", "phases:ppo", "Phase 3: PPO against the reward model."),
    ("evaluate", "phases:evaluate", "Compare the policies on held-out prompts."),
    ("branch", "branch:branch", "Create a run that shares the finished phases of another."),
    ("extend", "extend:extend", "Continue a finished PPO run from its last checkpoint."),
    ("sweep", "sweep:sweep", "Run every combination of values of some settings."),
    ("study", "study:study", "Study overoptimization: gold score of variants against √KL."),
    ("report", "report:report", "Write the report of a run, or a page of several runs."),
    ("runs", "runs:runs", "List the runs of a directory with their main metrics."),
    ("diff", "runs:diff", "Show how two runs differ: settings and metrics."),
    ("compare", "compare:compare", "Compare policies on held-out prompts."),
    ("score", "score:score", "Score a file of prompts and responses with a run's reward."),
    ("chat", "chat:chat", "Chat with a run's policy, or with any model."),
    ("export", "export:export", "Write a policy or reward model for other tools."),
    ("push", "push:push", "Upload an exported directory to the hub."),
    ("rollouts", "rollouts:rollouts", "Start a vLLM server for a run's rollouts."),
    ("settings", "settings:settings", "Explain a setting, or list those of a section."),
    ("doctor", "doctor:doctor", "Report what this machine can do and what is missing."),
    ("completion", "completion:completion", "Print the completion script for bash, zsh or fish."),
    ("explain", "explain:explain", "Work through one PPO update, number by number."),
)
LABEL_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("serve", "label:serve", "Serve the page on which people rank responses."),
    ("import", "label:import_file", "Import prompts, responses or comparisons from a file into the store."),
    ("export", "label:export_file", "Write rankings or comparisons from the store to a file."),
    ("stats", "label:stats", "Show progress, agreement and the record of each labeler."),
    ("simulate", "label:simulate", "Let simulated labelers rank what is waiting."),
    ("sample", "label_sample:sample", "Sample responses of any model to the prompts in the store."),
    ("score", "label_score:score", "Score responses with reward models; rank uncertain ones first."),
)
USER_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("add", "label_users:users_add", "Add a labeler or a lead."),
    ("list", "label_users:users_list", "List the accounts, with role and status."),
    ("pause", "label_users:users_pause", "Pause a labeler; keep their rankings."),
    ("reset", "label_users:users_reset", "Give a labeler a new password, and end their sessions."),
)
CAMPAIGN_COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("add", "label_campaigns:campaigns_add", "Add a task next to the main one."),
    ("list", "label_campaigns:campaigns_list", "List the campaigns."),
    ("set", "label_campaigns:campaigns_set", "Change, pause or end a campaign."),
)
_OF_PLACES = {
    getattr(errno, name)
    for name in "ENAMETOOLONG ELOOP EACCES EPERM EROFS ENOSPC EDQUOT ENOTDIR EISDIR EIO EMFILE ENFILE".split()
}
"""Errors of a path or a disk, never of the program."""
_OPTIONS = ("--help", "--version")
_TOGETHER = ("demo", "run", "sft", "sample", "reward", "ppo", "evaluate")
"""Commands that run in several processes (torchrun); those without a phase to share do their work in the first."""
_LASTING = (*_TOGETHER, "branch", "extend", "sweep", "study")
"""Commands that train, and continue when their terminal is closed."""
_RENAMED = {"--arm": "--variant"}
"""Former names of options: still accepted, each with a note."""
_MEANT = {
    "train": "run (every phase), sft, reward or ppo",
    "finetune": "sft",
    "generate": "sample",
    "serve": "label serve",
    "annotate": "label serve",
    "import": "label import",
    "users": "label users",
    "eval": "evaluate",
    "merge": "export",
    "validate": "check",
}
"""Commands of other tools, and the equivalent here."""
_HELP = """RLHF in three phases: supervised fine-tuning, reward model, PPO.

Any setting can follow CONFIG; `triphase settings KEY` explains one:
  triphase init data.jsonl              writes a configuration for your own data
  triphase check my-run.yaml            reads every record of it
  triphase run my-run.yaml --ppo.kl-coefficient 0.02
"""


def application() -> App:
    """The command line as a cyclopts application."""
    app = App(
        name="triphase",
        help=_HELP,
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=(), converter=converted),
    )
    label = App(name="label", help="The human step: page, import, export, stats, campaigns, users.")
    campaigns = App(name="campaigns", help="Tasks next to the main one: add, list, set.")
    users = App(name="users", help="The labelers: add, list, pause, reset.")
    tables = (
        (app, COMMANDS, ""), (label, LABEL_COMMANDS, "label "), (users, USER_COMMANDS, "label users "),
        (campaigns, CAMPAIGN_COMMANDS, "label campaigns "),
    )  # fmt: skip
    for owner, table, before in tables:
        for place, (name, function, meaning) in enumerate(table):
            shown = examples_of(f"{before}{name}")
            owner.command(f"triphase.cli.{function}", name=name, help=meaning, sort_key=place, help_epilogue=shown)
    label.command(users)
    label.command(campaigns)
    app.command(label)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done, 1 done but with a negative result or output that could not be printed, 2 a mistake reported in one line, 3
    waiting for people, 130 interrupted. A defect of the program keeps its traceback.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    given = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_streams() as output, shown_log():
        code = _run(given)
        output.flush()
        if output.failure is not None:
            if not isinstance(output.failure, BrokenPipeError):
                print(f"error: cannot write to standard output ({output.failure})", file=sys.stderr)
            return code or FAILED
        return code


def _run(given: Sequence[str]) -> int:
    if unknown := _unknown_command(given):
        return _mistake(unknown)
    given = [_with_new_name(word) for word in given]
    try:
        _require_alone(given)
        with outlasting_terminal() if given[:1] and given[0] in _LASTING else nullcontext():
            code = application()(given, exit_on_error=False, print_error=False, result_action="return_value")
        return code if isinstance(code, int) else DONE
    except CycloptsError as error:
        return _mistake(f"{_usage(error)}; see triphase {_subcommand(given)}--help")
    except WaitingForPeople as error:
        print(_one_line(str(error)), file=sys.stderr)
        return WAITING
    except RankLost as error:
        _mistake(str(error))
        return FAILED
    except TriphaseError as error:
        return _mistake(str(error))
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        if line := _circumstance(error, _subcommand(given).split()):
            return _mistake(line)
        raise
    except KeyboardInterrupt:
        command = shlex.join(["triphase", *given])
        if not _rank():
            said = f"stopped; finished work is kept. To continue: {without_secrets(command)}"
            print(visible(said), file=sys.stderr)
        return INTERRUPTED


def _usage(error: CycloptsError) -> str:
    """What is wrong with the words of a command line."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        many = "is one word too many" if len(error.unused_tokens) == 1 else "are too many words"
        return f"{shlex.join(error.unused_tokens)}: {many}; put quotes around a name with spaces"
    return str(error).rstrip(".")


def _with_new_name(word: str) -> str:
    """An option under its current name, with a note if it has another one now."""
    option, *value = word.split("=", 1)
    if option not in _RENAMED:
        return word
    new = _RENAMED[option]
    print(f"note: {option} is now {new}; the old name works for one more release", file=sys.stderr)
    return "=".join([new, *value])


def _require_alone(given: Sequence[str]) -> None:
    """Refuse to start a command of one process several times at once.

    Raises:
        SettingsError: torchrun did.
    """
    if given and given[0] not in _TOGETHER and (world := place_in(os.environ).world) > 1:
        raise SettingsError(
            f"{given[0]} runs in one process, but {world} were started (WORLD_SIZE); several are supported by "
            f"{', '.join(_TOGETHER)}"
        )


def _rank() -> str:
    """The rank of this process if it is one of several, other than the first; else empty."""
    return os.environ.get("RANK", "0").removeprefix("0")


def _circumstance(error: Exception, command: Sequence[str]) -> str | None:
    """The message for an error that is not the program's: of memory, of a path, or of a missing package."""
    if is_out_of_memory(error):
        traceback.clear_frames(error.__traceback__)  # releases what they hold before more is allocated
        smaller = ", or use a smaller model" if command[-1:] in (["chat"], ["sample"]) else ""
        return (
            f"{' '.join(command)}: not enough memory ({memory_figures()}); close other programs, raise the limit of "
            f"this process (ulimit -v, or its container's){smaller}"
        )
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.errno in _OF_PLACES:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}; check this path and its permissions"
    return missing_package(error, command)


def _mistake(message: str) -> int:
    print(f"{f'rank {rank}: ' if (rank := _rank()) else ''}error: {_one_line(message)}", file=sys.stderr)
    return MISTAKEN


def _one_line(message: str) -> str:
    return visible(without_secrets(" ".join(message.split())))


def _unknown_command(given: Sequence[str]) -> str | None:
    """The message for an unknown command."""
    known: list[str] = [name for name, _, _ in COMMANDS] + ["label"]
    below = {
        "label": [name for name, _, _ in LABEL_COMMANDS] + ["campaigns", "users"],
        "users": [name for name, _, _ in USER_COMMANDS],
        "campaigns": [name for name, _, _ in CAMPAIGN_COMMANDS],
    }
    before = ""
    for word in given:
        if word.startswith("-"):
            near = difflib.get_close_matches(word, _OPTIONS, n=1)
            if word == given[0] and word not in ("-h", *_OPTIONS) and near:
                return f"{word}: unknown option; did you mean {near[0]}?"
            return None
        if word not in known:
            meant = {**_MEANT, **{name: name for name in known}} if not before else {name: name for name in known}
            near = difflib.get_close_matches(word, meant, n=1)
            hint = f"did you mean {meant[near[0]]}?" if near else f"known are {', '.join(known)}"
            return f"{before}{word}: unknown command; {hint}"
        if word not in below:
            return None
        known, before = below[word], f"{before}{word} "
    return None


def _subcommand(given: Sequence[str]) -> str:
    """The command that was given, for the hint at its help."""
    tables = (*COMMANDS, *LABEL_COMMANDS, *USER_COMMANDS, *CAMPAIGN_COMMANDS)
    names = {name for name, _, _ in tables} | {"label", "users", "campaigns"}
    return "".join(f"{word} " for word in itertools.takewhile(names.__contains__, given))


if __name__ == "__main__":
    sys.exit(main())
