"""report.html: one self-contained page with the results of a run, first for a lead and below for a researcher.

Nothing on it is fetched, and nothing runs but one script of ours that searches and sorts the samples: the content
security policy allows its hash and forbids all else. Every text passes through ``visible`` and is escaped by the
template engine.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from triphase.monitoring.metrics import Row
from triphase.records.files import write_atomically
from triphase.records.visible import visible
from triphase.reports import captions, figures, judgment_figures, score_figures
from triphase.reports.alarm_line import alarm_line
from triphase.reports.answers_over_time import PromptCourse, courses_of
from triphase.reports.contents import RunContents, read_run
from triphase.reports.figure_readouts import percent_reading, reading
from triphase.reports.findings import Findings, find
from triphase.reports.layout import rendered
from triphase.reports.learning_curve import curve_sentences
from triphase.reports.people_wins import PeopleWin, people_wins
from triphase.reports.policy_comparison import Sample
from triphase.reports.policy_verdicts import is_hacked, policy_verdicts
from triphase.reports.rounds import round_rows, rounds_before, rounds_caption, title_of
from triphase.reports.samples import side_by_side
from triphase.reports.score_parts import part_courses
from triphase.reports.scored_by import has_own_scorer, score_of, scorer_of, uses_reward_model
from triphase.reports.sections import sections_of
from triphase.reports.seed_figures import seed_panels
from triphase.reports.starting_point import left_out_of, start_of
from triphase.reports.summary import total_seconds
from triphase.reports.tables import flattened, memory_table, pipeline, policy_name, ppo_parts
from triphase.reports.verdict import verdict_of

FILE_NAME, SCRIPT = "report.html", "report.js"
SHOWN_SAMPLES = 12

PANELS = (
    ("ppo/proxy_score", "Proxy score", False),
    ("ppo/gold_score", "Gold score", False),
    ("ppo/witness_score", "Score of the witness", False),
    ("ppo/reward_disagreement", "Disagreement of the ensemble", False),
    ("ppo/reference_kl", "Reference KL, nats per response", False),
    ("ppo/entropy", "Entropy, nats per token", False),
    ("ppo/mean_length", "Mean length, tokens", False),
    ("ppo/length_score_correlation", "Correlation of length and score", False),
    ("ppo/distinct_2", "Distinct-2", False),
    ("ppo/eos_rate", "EOS rate", True),
    ("ppo/clip_fraction", "Clip fraction", True),
    ("ppo/explained_variance", "Explained variance", False),
)
"""Metric, title, and whether it is a share."""


def write_report(run_directory: Path) -> Path:
    """Writes report.html into the run directory, whole or not at all, from the run's current contents."""
    path = run_directory / FILE_NAME
    write_atomically(path, page_of(read_run(run_directory), courses_of(run_directory), people_wins(run_directory)))
    return path


def page_of(
    run: RunContents,
    courses: Mapping[str, Sequence[PromptCourse]] | None = None,
    people: Sequence[PeopleWin] = (),
    *,
    version: str = "",
    says: str = "",
) -> str:
    """The page as HTML; ``courses`` are responses to the same prompts over the iterations, by PPO run.

    ``version`` and ``says`` are for a page that is served: it requests newer ones from its server.
    """
    found = find(run)
    shown = (run.settings.get("evaluation") or {}).get("shown_samples", SHOWN_SAMPLES)
    start = start_of(run.settings)
    parts, samples = part_courses(run.ppo), side_by_side(run.samples, run.policies, _baselines(run))
    rounds = [] if run.directory is None else round_rows(run.directory, run.seed)
    drawn = _figures(run, found)
    drawn_scores = any(drawn[name] for name in ("scores", "golds", "score_and_length", "ensemble"))
    return rendered(
        "report.html.j2",
        dict(
            run=run,
            version=version,
            says=says,
            found=found,
            contents=sections_of(
                run,
                found,
                scores=drawn_scores,
                parts=bool(parts),
                answers=bool(courses),
                people=bool(people),
                rounds=bool(rounds),
            ),
            rounds=rounds,
            title=title_of(run.directory, run.name),
            is_round=run.directory is not None and bool(rounds_before(run.directory)),
            rounds_caption=rounds_caption(rounds),
            verdict=verdict_of(run, found, people),
            policy_verdicts=policy_verdicts(run, found, judged=bool(people)),
            hacked={name for name in found.policies if is_hacked(found, name)},
            single_values=_single_values(run.ppo),
            pipeline=pipeline(run, found),
            figures=drawn,
            captions=_captions(run, found),
            watched=captions.watched,
            learning_curve=curve_sentences(run.learning_curve),
            runs=list(run.ppo_runs) if run.variants else [],
            samples=samples,
            shown=shown,
            left_out_prompts=len({sample.prompt_id for sample in run.samples}) - len(samples),
            policies=run.policies,
            enumerate_keys=list(enumerate(("score", "gain in score", "length", "KL"))),
            courses=courses or {},
            people=people,
            settings=flattened(run.settings),
            versions=flattened(run.provenance.get("versions") or {}),
            provenance=flattened({key: value for key, value in run.provenance.items() if key != "versions"}),
            seconds=total_seconds(run),
            ppo_parts=ppo_parts(run),
            memory=memory_table(run),
            scorer=scorer_of(run.settings),
            seed_panels=[Markup(svg) for svg in seed_panels(found.seeds)] if found.seeds else [],  # noqa: S704
            part_courses=parts,
            by_reward_model=uses_reward_model(run.settings),
            start=start,
            absent=left_out_of(run.settings),
        ),
        start=start.name,
        script=SCRIPT,
        live=bool(version),
    )


def _figures(run: RunContents, found: Findings) -> dict[str, Markup | list[Markup] | None]:
    reward, lines, start = found.reward, {"log 2, chance": 0.6931}, start_of(run.settings)
    loss, share = ("loss, nats per token", "loss, nats per pair"), "preference accuracy"
    runs = _named(run.ppo_runs)
    panels = [
        figures.iteration_panel(metric.replace("/", "-"), runs, metric, title, share=is_share)
        for metric, title, is_share in PANELS
    ]
    ppo = found.policies.get("ppo")
    rates = {name: each.gold_win_rate for name, each in found.policies.items() if each.gold_win_rate}
    levels = {"noise ceiling": reward.noise_ceiling, "“longer wins”": _of(reward.longer_wins)}
    drawn = {
        "sft_loss": figures.training_curve("sft-loss", run.sft, "sft/loss", "sft/heldout_loss", loss[0]),
        "reward_loss": figures.training_curve(
            "reward-loss", run.reward, "reward/loss", "reward/heldout_loss", loss[1], lines=lines
        ),
        "reward_curve": figures.training_curve(
            "reward-curve",
            run.reward,
            "reward/preference_accuracy",
            "reward/heldout_accuracy",
            share,
            lines=levels,
        ),
        "reward_accuracy": judgment_figures.reward_accuracy(reward),
        "reliability": judgment_figures.reliability_diagram(reward.reliability) if reward.reliability else None,
        "overoptimization": figures.overoptimization(
            _named(found.paths), found.best_of_n, found.gold_scale, start=start.name
        ),
        "alarm_line": alarm_line(found.alarms, {name: rows[-1]["step"] for name, rows in run.ppo_runs.items() if rows}),
        "scores": score_figures.histogram("scores", "Score", _scores(run)),
        "golds": score_figures.histogram("golds", "Gold", _golds(run)),
        "score_and_length": score_figures.score_and_length(runs),
        "ensemble": score_figures.ensemble_band(run.ppo),
        "win_rates": judgment_figures.win_rates(_named(rates), start=start.noun),
        "gain_by_length": judgment_figures.gain_by_length(ppo.length, start=start.name) if ppo and ppo.length else None,
    }
    return {
        **{name: Markup(svg) if svg else None for name, svg in drawn.items()},  # noqa: S704 - text in it is escaped
        "panels": [Markup(svg) for svg in panels if svg],  # noqa: S704
    }


def _baselines(run: RunContents) -> dict[str, Mapping[str, Sequence[float]]]:
    """For policies with their own scorer, its scores of the reference's samples; empty if it scored none."""
    own = [name for name in run.policies if has_own_scorer(run.settings, name)]
    return {**{name: {} for name in own}, **run.baselines}


def _single_values(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The metrics of the panels after the first iteration: a single value is no curve."""
    if len(rows) != 1:
        return []
    shown = [(metric, title, share) for metric, title, share in PANELS if metric in rows[0]]
    return [
        (title, percent_reading(rows[0][metric]) if share else reading(rows[0][metric]))
        for metric, title, share in shown
    ]


def _captions(run: RunContents, found: Findings) -> dict[str, str]:
    ppo = found.policies.get("ppo")
    rates = {policy_name(name): each.gold_win_rate for name, each in found.policies.items() if each.gold_win_rate}
    return {
        "accuracy": captions.accuracy_caption(found.reward),
        "reliability": captions.reliability_caption(found.reward.reliability),
        "win_rates": captions.win_rate_caption(rates, start_of(run.settings).name),
        "scores": captions.histogram_caption(_scores(run), start_of(run.settings).name),
        "golds": captions.histogram_caption(_golds(run), start_of(run.settings).name),
        "score_and_length": captions.score_and_length_caption(_lengths_and_scores(run)),
        "ensemble": captions.ensemble_caption(run.ppo),
        "length": captions.length_caption(ppo.length if ppo else None),
        "course": captions.course_sentences(_named(found.courses)),
        "overoptimization": captions.overoptimization_caption(
            gold=_has_gold(found), best=found.best_of_n, score=score_of(run.settings)
        ),
    }


def _has_gold(found: Findings) -> bool:
    return any(point.gold is not None for path in found.paths.values() for point in path)


def _held_out(run: RunContents, figure: Callable[[Sample], float | None]) -> dict[str, list[float]]:
    """A value of the held-out samples by the policies' names, for those that the run's own scorer has scored."""
    start = start_of(run.settings).name
    values = {
        visible(policy_name(policy, start)): [
            value for sample in run.samples if sample.policy == policy and (value := figure(sample)) is not None
        ]
        for policy in run.policies
        if not has_own_scorer(run.settings, policy)
    }
    return {name: each for name, each in values.items() if each}


def _scores(run: RunContents) -> dict[str, list[float]]:
    return _held_out(run, lambda sample: sample.score)


def _golds(run: RunContents) -> dict[str, list[float]]:
    return _held_out(run, lambda sample: sample.gold)


def _lengths_and_scores(run: RunContents) -> dict[str, tuple[float, float, float, float]]:
    """(length, score) of the first and the last iteration of each run."""
    keys = ("ppo/mean_length", "ppo/proxy_score")
    have = {name: [row for row in rows if all(key in row for key in keys)] for name, rows in run.ppo_runs.items()}
    return _named(
        {
            name: tuple(row[key] for row in (rows[0], rows[-1]) for key in keys)
            for name, rows in have.items()
            if len(rows) > 1
        }
    )


def _named(by_policy: Mapping[str, Any]) -> dict[str, Any]:
    return {visible(policy_name(policy)): value for policy, value in by_policy.items()}


def _of(interval: Any) -> float | None:
    return interval.value if interval else None
