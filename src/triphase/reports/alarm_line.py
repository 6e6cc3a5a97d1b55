"""The alarms of a run on a time line: the iteration at which each began, and whether it still held at the end."""

from collections.abc import Mapping, Sequence

from triphase.monitoring.alarms import Alarm
from triphase.records.visible import visible
from triphase.reports.drawing import INK, MUTED, SERIES, drawing, whole_steps
from triphase.reports.figure_readouts import Line, Readout, reading
from triphase.settings.phase_names import variant_of

_LONGEST = 30


def alarm_line(alarms: Mapping[str, Sequence[Alarm]], ends: Mapping[str, int]) -> str | None:
    """One row for each alarm, by run; ``ends`` are the last iterations of the runs.

    None if there was no alarm, or a single one that passed: one dot is no figure.
    """
    rows = [(run, alarm) for run, found in alarms.items() for alarm in found]
    if not rows or (len(rows) == 1 and not rows[0][1].lasting):
        return None
    colors = {run: SERIES[place % len(SERIES)][0] for place, run in enumerate(alarms)}
    height = 90 + 24 * len(rows)
    with drawing("alarm-line", "Alarms over iterations", width=1080, height=height) as canvas:
        axes = canvas.axes
        for place, (run, alarm) in enumerate(rows):
            end = ends.get(run, alarm.iteration) if alarm.lasting else alarm.iteration
            axes.plot([alarm.iteration, end], [place, place], color=colors[run], linewidth=5, solid_capstyle="round")
            axes.plot([alarm.iteration], [place], color=colors[run], marker="o", markersize=7)
            lasting = "to the end" if alarm.lasting else "passed"
            said = [Line("", f"from iteration {alarm.iteration}, {lasting}")]
            said += [Line("", f"{name} {reading(value)}") for name, value in alarm.numbers.items()]
            canvas.readouts.append(Readout(alarm.iteration, place, alarm.name, tuple(said)))
        names = [
            alarm.name if len(alarms) == 1 else f"{alarm.name} · {visible(variant_of(run) or run)[:_LONGEST]}"
            for run, alarm in rows
        ]
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", colors=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, max([*ends.values(), *(alarm.iteration for _, alarm in rows)]) + 1)
        axes.grid(axis="y", visible=False)
        axes.set_title("a dot is where an alarm started, a bar extends to its end", color=MUTED, fontweight="normal")
        whole_steps(axes, "iteration")
    return canvas.svg
