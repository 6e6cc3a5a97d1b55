"""Several runs on one self-contained page: verdicts, numbers, settings that differ, curves, samples."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from triphase.monitoring.wording import number, percent
from triphase.records.files import write_atomically
from triphase.records.visible import visible
from triphase.reports import figures
from triphase.reports.contents import RunContents, read_run
from triphase.reports.findings import Findings, PolicyFindings, find
from triphase.reports.interval_wording import percent_interval, signed
from triphase.reports.layout import rendered
from triphase.reports.page import PANELS, SCRIPT
from triphase.reports.people_wins import people_wins
from triphase.reports.policy_comparison import Sample, by_prompt
from triphase.reports.policy_verdicts import PolicyVerdict, policy_verdicts
from triphase.reports.samples import side_by_side
from triphase.reports.sections import Section
from triphase.reports.summary import total_seconds
from triphase.reports.tables import clock, flattened
from triphase.settings.phase_names import policy_of

FILE_NAME = "runs.html"
MOST_RUNS = 5
"""As many as there are colors of curves."""
_NAMES = ("name", "output")
"""Settings that do not describe what a run does."""
_TITLES = (
    "preferred to the start",
    "gold gain",
    "score gain",
    "reward accuracy",
    "KL, nats",
    "tokens",
    "same opening",
    "time",
)
_SECTIONS = (
    Section("verdict", "Verdicts", "Verdicts"),
    Section("figures", "At the end, on held-out prompts", "Figures"),
    Section("settings", "Differences in settings", "Settings"),
    Section("iterations", "PPO, iteration by iteration", "Iterations"),
    Section("samples", "Samples side by side", "Samples"),
)


@dataclass(frozen=True, slots=True)
class RunSide:
    """One run: its name on the page, its verdict in a sentence (None before PPO), and its values as texts."""

    name: str
    verdict: PolicyVerdict | None
    figures: tuple[str, ...]


def write_runs_page(path: Path, directories: Sequence[Path]) -> Path:
    """Write the page of these runs.

    Raises:
        RunError: one of them is not a run, or is damaged.
    """
    names = {name_of(each, directories): each for each in directories}
    judged = {name for name, each in names.items() if people_wins(each)}
    write_atomically(path, runs_page(path.stem, {name: read_run(each) for name, each in names.items()}, judged))
    return path


def name_of(directory: Path, among: Sequence[Path]) -> str:
    """The name of a run's directory, with as many parents as needed to distinguish it from the others."""
    parts = directory.resolve().parts
    for length in range(1, len(parts)):
        if sum(each.resolve().parts[-length:] == parts[-length:] for each in among) == 1:
            return "/".join(parts[-length:])
    return str(directory)


def runs_page(title: str, runs: Mapping[str, RunContents], judged: Collection[str] = ()) -> str:
    """The page as HTML; ``runs`` by their names on it, ``judged`` those whose responses people ranked."""
    found = {name: find(run) for name, run in runs.items()}
    curves = {visible(name): run.ppo for name, run in runs.items()}
    panels = [
        figures.iteration_panel(metric.replace("/", "-"), curves, metric, heading, share=share)
        for metric, heading, share in PANELS
    ]
    samples, policies = merged_samples(runs)
    starts = {policy_of(name): by_prompt(run.samples, "sft", lambda sample: sample.score) for name, run in runs.items()}
    shown = side_by_side(samples, policies, starts)
    return rendered(
        "runs.html.j2",
        dict(
            name=title,
            contents=_SECTIONS,
            sides=[_side(name, run, found[name], judged=name in judged) for name, run in runs.items()],
            titles=_TITLES,
            settings=setting_table(runs),
            panels=[Markup(svg) for svg in panels if svg],  # noqa: S704 - text in it is escaped
            colors=figures.run_colors(len(runs)),
            samples=shown,
            shown=12,
            left_out_prompts=len({sample.prompt_id for sample in samples}) - len(shown),
            policies=policies,
            enumerate_keys=list(enumerate(("score", "gain in score", "length", "KL"))),
            absent={},
        ),
        script=SCRIPT,
    )


def merged_samples(runs: Mapping[str, RunContents]) -> tuple[list[Sample], list[str]]:
    """The newest policy's samples of each run under the run's name, on prompts that all of them have.

    The reference of the first run comes first, as `sft`; scores are those of each run's own scorer.
    """
    newest = {name: "ppo" if "ppo" in run.policies else "sft" for name, run in runs.items()}
    # Ids may be the user's own, and refer to other prompts in other data.
    asked = [{(sample.prompt_id, sample.prompt) for sample in run.samples} for run in runs.values()]
    shared = set.intersection(*asked) if asked else set()
    first = next(iter(runs.values()))
    samples = [
        sample for sample in first.samples if sample.policy == "sft" and (sample.prompt_id, sample.prompt) in shared
    ]
    for name, run in runs.items():
        samples += [
            replace(sample, policy=policy_of(name))
            for sample in run.samples
            if sample.policy == newest[name] and (sample.prompt_id, sample.prompt) in shared
        ]
    have = {sample.policy for sample in samples}
    return samples, [name for name in ("sft", *(policy_of(name) for name in runs)) if name in have]


def setting_table(runs: Mapping[str, RunContents]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) where they differ; "–" if a run's version did not have it."""
    sides = [dict(flattened(run.settings)) for run in runs.values()]
    keys = list(dict.fromkeys(key for side in sides for key in side))
    rows = [(key, [side.get(key, "–") for side in sides]) for key in keys if key not in _NAMES]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _side(name: str, run: RunContents, found: Findings, *, judged: bool) -> RunSide:
    verdict = next((each for each in policy_verdicts(run, found, judged=judged) if each.policy == "ppo"), None)
    ppo: PolicyFindings | None = found.policies.get("ppo")
    alike = ppo.diversity if ppo else None
    return RunSide(
        name,
        verdict,
        (
            percent_interval(ppo.gold_win_rate if ppo else None),
            signed(ppo.gold_gain if ppo else None),
            signed(ppo.proxy_gain if ppo else None),
            percent_interval(found.reward.accuracy),
            number(ppo.reference_kl if ppo else None, 1),
            number(ppo.mean_length if ppo else None, 1),
            f"{percent(alike.share)} “{alike.opening}”" if alike else "–",
            clock(total_seconds(run)),
        ),
    )
