"""The last screen of a command: the results of the run, its directory, and the next step."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triphase.datacheck.agenda import left_out
from triphase.errors import RunError
from triphase.monitoring.wording import counted
from triphase.records.visible import visible
from triphase.reports.rounds import round_after
from triphase.reports.summary_file import FILE_NAME as SUMMARY
from triphase.reports.summary_file import read_summary
from triphase.settings.agenda import has_demonstrations_alone
from triphase.settings.loading import load_settings
from triphase.settings.phase_names import PPO, REWARD, SFT
from triphase.settings.schema import RunSettings
from triphase.training.artifacts import has_left

REPORT = "report.html"
SAMPLES, STORE = "evaluation/samples.jsonl", "labels.sqlite"


def print_result(run: Path) -> None:
    """Print the results of a finished run, or the status of an unfinished one, and the next command."""
    console = Console(highlight=False, soft_wrap=True)
    summary = run / SUMMARY
    if summary.is_file():
        figures = Table.grid(padding=(0, 2))
        for name, text in _lines_of(summary):
            figures.add_row(f"[bold]{name}[/bold]", escape(visible(text)))
        console.print(figures)
    console.print(f"[bold]run[/bold]     {escape(str(run))}")
    for place in (run, *_further_rounds(run)):
        if (place / REPORT).is_file():
            console.print(f"[bold]report[/bold]  {escape(str(place / REPORT))}")
    console.print(f"[bold]next[/bold]    {escape(next_command(run))}")


def _lines_of(summary: Path) -> list[tuple[str, str]]:
    try:
        return list(result_lines(read_summary(summary)))
    except RunError as error:
        return [("summary", str(error))]


def print_place(run: Path | None) -> None:
    """Print the directory and the log of an unfinished run; nothing if no run was started."""
    if run is not None and run.is_dir():  # one that was refused before it did anything is gone
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"[bold]run[/bold]     {escape(str(run))}   (log: {escape(str(run / 'log.jsonl'))})")


def next_command(run: Path) -> str:
    """The command that continues the run; after the last step, the one to try it out."""
    settings, named = load_settings(run), shlex.quote(str(run))
    absent = left_out(settings)
    if "sft" not in absent and not has_left(run, SFT):
        return f"triphase sft {named}"
    if "reward" not in absent and not has_left(run, REWARD):
        return _next_of_reward(run, settings, samples="sampling" not in absent)
    if has_demonstrations_alone(settings):
        return f"triphase chat {named}"
    if not has_left(run, PPO):
        return f"triphase ppo {named}" + ("   (on the prompts of the preferences)" if "ppo" in absent else "")
    if not (run / (SAMPLES if "evaluation" in absent else REPORT)).is_file():
        return f"triphase evaluate {named}"
    further = _further_rounds(run)
    if len(further) < settings.rounds - 1:
        return f"triphase run {named}"
    return f"triphase chat {shlex.quote(str(further[-1]))}" if further else f"triphase chat {named}"


def _further_rounds(run: Path) -> list[Path]:
    """The rounds after the first that have a policy, in their order."""
    found, after = list[Path](), round_after(run)
    while after is not None and has_left(after, PPO):
        found.append(after)
        after = round_after(after)
    return found


def _next_of_reward(run: Path, settings: RunSettings, *, samples: bool) -> str:
    named = shlex.quote(str(run))
    if samples and not (run / STORE).is_file():
        return f"triphase sample {named}"
    people = settings.labeling.source == "people"
    return f"triphase label serve {named}   (then: triphase reward {named})" if people else f"triphase reward {named}"


def result_lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The improvements, in a few lines; an unknown value is left out."""
    labelers, reward, sft, ppo = (summary.get(name) or {} for name in ("labelers", "reward_model", "sft", "ppo"))
    yield from _line("time", _taken(summary))
    yield from _line("labelers", [_percent("agree on {} of the pairs", labelers.get("agreement"))])
    accuracy = _percent("correct on {} of the held-out judgments", reward.get("accuracy"))
    yield from _line(
        "reward model",
        [
            accuracy + _interval(reward, "accuracy") if accuracy else "",
            _percent("noise ceiling {}", reward.get("noise_ceiling")),
            _percent('"longer wins" {}', reward.get("longer_wins")),
            "not shown to be better than chance and length" if reward.get("better_than_chance") is False else "",
        ],
    )
    wins = _percent(f"preferred to {summary.get('start', 'SFT')} in {{}}", ppo.get("gold_win_rate"))
    rounds = [each for each in summary.get("rounds") or () if each.get("ppo")]
    yield from _line(
        "round 1" if rounds else "PPO",
        [
            wins + _interval(ppo, "gold_win_rate") if wins else "",
            _change("gold score {} → {}", sft.get("gold_mean"), ppo.get("gold_mean")),
            _gained(ppo),
            _number(ppo.get("best_iteration"), "past its peak, iteration {:.0f}")
            if ppo.get("fell_from_its_best")
            else "",
        ],
    )
    over = summary.get("seeds") or {}
    rate = ((over.get("policies") or {}).get("ppo") or {}).get("gold_win_rate") or {}
    bounds = {f"wins_{name}": rate.get(name) for name in ("low", "high")}
    told = f"PPO preferred in {{}}{_interval(bounds, 'wins')} over {len(over.get('seeds') or ())} seeds"
    whole = [_percent(told, rate.get("value"))]
    yield from _line("seeds", whole)
    yield from _line(
        "drift",
        [
            _number(ppo.get("reference_kl"), "{:.1f} nats from the reference"),
            _length(ppo.get("mean_length")),
            _percent("{} of them finished", ppo.get("eos_rate")),
        ],
    )
    for name, variant in (summary.get("variants") or {}).items():
        yield from _line(name, _variant(variant, summary.get("start", "SFT")))
    for each in summary.get("rounds") or ():
        yield from _round(each, summary.get("start", "SFT"))


def _variant(found: Mapping[str, Any], start: str) -> list[str]:
    """The results of a variant of the PPO run."""
    wins = _percent(f"preferred to {start} in {{}}", found.get("gold_win_rate"))
    return [
        wins + _interval(found, "gold_win_rate") if wins else "",
        _number(found.get("gold_mean"), "gold score {:.2f}"),
        _gained(found),
        _number(found.get("reference_kl"), "{:.1f} nats from the reference"),
    ]


def _round(found: Mapping[str, Any], start: str) -> Iterator[tuple[str, str]]:
    """The results of a further round; the lines above are of the first."""
    before, after, ppo = (found.get(name) or {} for name in ("accuracy_before", "accuracy_after", "ppo"))
    right = [_percent("{}", each.get("value")) for each in (before, after)]
    wins = _percent(f"preferred to {start} in {{}}", ppo.get("gold_win_rate"))
    yield from _line(
        f"round {found.get('round')}",
        [
            f"reward model correct on {right[0]} before, {right[1]} after it was retrained" if all(right) else "",
            wins + _interval(ppo, "gold_win_rate") if wins else "",
            _gained(ppo),
            _number(ppo.get("reference_kl"), "{:.1f} nats from the reference"),
        ],
    )


def _line(name: str, parts: list[str]) -> Iterator[tuple[str, str]]:
    text = "; ".join(part for part in parts if part)
    if text:
        yield name, text


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _length(tokens: float | None) -> str:
    return "" if tokens is None else f"{counted(round(tokens), 'token')} per response"


def _gained(ppo: Mapping[str, Any]) -> str:
    gain, deviations = ppo.get("proxy_gain"), ppo.get("proxy_gain_deviations")
    told = _number(gain, _scored(ppo.get("scored_by")) + " {:+.2f}")
    low, high = ppo.get("proxy_gain_low"), ppo.get("proxy_gain_high")
    more = ["" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"]
    more.append(_number(deviations, "{:+.2f} of its standard deviations at the start"))
    within = "; ".join(part for part in more if part)
    return f"{told} ({within})" if told and within else told


def _scored(by: str | None) -> str:
    """The name of the proxy score; for a summary of an older version, the reward model's score."""
    if by in (None, "the reward model"):
        return "reward model's score"
    return f"score of {by}".replace("{", "{{").replace("}", "}}")  # an address may contain braces


def _percent(form: str, value: float | None) -> str:
    return "" if value is None else form.format(f"{100 * value:.0f} %")


def _interval(figures: Mapping[str, float | None], name: str) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    return "" if low is None or high is None else f" ({100 * low:.0f}–{100 * high:.0f})"


def _change(form: str, before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else form.format(f"{before:.2f}", f"{after:.2f}")


def _taken(summary: Mapping[str, Any]) -> list[str]:
    """Time and memory of the run, its further rounds included."""
    rounds = [summary, *(summary.get("rounds") or ())]
    seconds, peaks = ([each[key] for each in rounds if each.get(key) is not None] for key in ("seconds", "peak_gb"))
    told = len(rounds) if len(seconds) == len(rounds) else f"{len(seconds)} of {len(rounds)}"
    over = f" over {told} rounds" if len(rounds) > 1 else ""
    peak = _number(max(peaks, default=None), "at most {:.1f} GB of memory")
    return [f"{_minutes(sum(seconds))}{over}" if seconds else "", peak]


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
