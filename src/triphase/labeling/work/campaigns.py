"""Creates campaigns, changes their share, overlap and guidelines, and pauses, resumes and ends them."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace

from sqlalchemy import Connection, func, insert, select, update

from triphase.errors import TriphaseError
from triphase.labeling.work import audit, item_plan
from triphase.labeling.work.campaign_plan import (
    MOST_RESPONSES,
    TASKS,
    Campaign,
    all_campaigns,
    campaign_called,
    gold_misfit,
    known_names,
)
from triphase.records.cells import MAIN
from triphase.settings.schema import LabelingSettings
from triphase.store.locking import Lock, one_at_a_time
from triphase.store.record_rows import as_json
from triphase.store.schema import assignments, campaigns, guidelines, items, prompts, responses

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,58}[A-Za-z0-9._-])?")
MOST_OVERLAP = 20
STATES = ("active", "paused", "ended")


class CampaignError(TriphaseError):
    """A campaign that cannot be created or changed this way; shown to the lead unchanged."""


def add_campaign(
    connection: Connection, wanted: Campaign, text: str, settings: LabelingSettings, *, seed: int, now: float, by: str
) -> int:
    """Create a campaign with its guidelines (empty: those of the main task), and its items; return how many."""
    one_at_a_time(connection, Lock.ITEMS)
    wanted = _with_split(wanted)
    _check_new(connection, wanted)
    _check_numbers(connection, wanted)
    row = {**asdict(wanted), "models": as_json(list(wanted.models)), "created_by": by, "created_at": now}
    connection.execute(insert(campaigns), row)
    audit.note(connection, at=now, who=by, action="campaign made", subject=wanted.name, after=asdict(wanted))
    if text:
        add_guidelines(connection, text, campaign=wanted.name, now=now, by=by)
    made = item_plan.add_campaign_items(connection, wanted, settings, seed=seed, now=now)
    if not made:
        raise CampaignError(f"campaign {wanted.name!r}: {_why_empty(wanted)}")
    return made


def change_campaign(
    connection: Connection, name: str, *, now: float, by: str, share: int | None = None, overlap: int | None = None,
    state: str | None = None, text: str | None = None,
) -> Campaign:  # fmt: skip
    """Apply the given changes; an ended campaign is not changed. A different text is a new version of its
    guidelines."""
    one_at_a_time(connection, Lock.ITEMS)
    before = campaign_called(connection, name)
    if before is None:
        raise CampaignError(_unknown(connection, name))
    if state is not None and state not in STATES:
        raise CampaignError(f"{state!r} is not a state; it is {', '.join(STATES)}")
    after = replace(
        before,
        share=before.share if share is None else share,
        overlap=before.overlap if overlap is None else overlap,
        state=state or before.state,
    )
    if before.state == "ended" and (after != before or text is not None):
        raise CampaignError(f"campaign {name!r} has ended; make a new one for more answers")
    _check_numbers(connection, after)
    if after != before:
        changed = {"share": after.share, "overlap": after.overlap, "state": after.state}
        connection.execute(update(campaigns).where(campaigns.c.name == name).values(**changed))
        audit.note(
            connection, at=now, who=by, action="campaign changed", subject=name,
            before={key: getattr(before, key) for key in changed}, after=changed,
        )  # fmt: skip
    if after.overlap != before.overlap:
        _fit_slots(connection, name, after.overlap)
    if text is not None and text != guidelines_of(connection, name)[1]:
        add_guidelines(connection, text, campaign=name, now=now, by=by)
    return after


def guidelines_of(connection: Connection, campaign: str) -> tuple[int, str]:
    """Version and text of a campaign's own newest guidelines, or of the main task's; 0 and empty if there are none."""
    query = select(guidelines.c.version, guidelines.c.text).where(guidelines.c.campaign == campaign)
    row = connection.execute(query.order_by(guidelines.c.version.desc()).limit(1)).first()
    return (0, "") if row is None else (row.version, row.text)


def add_guidelines(connection: Connection, text: str, *, campaign: str = "", now: float, by: str) -> int:
    """A new version of the guidelines of the main task or a campaign; versions are numbered across all of them."""
    version = (connection.execute(select(func.max(guidelines.c.version))).scalar() or 0) + 1
    row = {"version": version, "text": text, "created_by": by, "created_at": now, "campaign": campaign}
    connection.execute(insert(guidelines), row)
    subject = f"version {version}" + (f" of {campaign}" if campaign else "")
    audit.note(connection, at=now, who=by, action="guidelines changed", subject=subject)
    return version


def slots_of(connection: Connection) -> dict[str, tuple[int, int]]:
    """Answers given and requested in each campaign; the main task's name is empty."""
    query = (
        select(assignments.c.campaign, assignments.c.state, func.count())
        .where(assignments.c.purpose == "label", assignments.c.state != "closed")
        .group_by(assignments.c.campaign, assignments.c.state)
    )
    found: dict[str, tuple[int, int]] = {}
    for name, state, count in connection.execute(query):
        done, wanted = found.get(name, (0, 0))
        found[name] = (done + count * (state == "done"), wanted + count)
    return found


def require_known(connection: Connection, name: str) -> str:
    """The name as stored in rows, of imported answers too: empty for ``main``.

    Raises:
        CampaignError: there is no such campaign.
    """
    if name == MAIN:
        return ""
    known = known_names(connection)
    if name not in known:
        raise CampaignError(f"there is no campaign {name!r}; there are: {', '.join(known)}")
    return name


def require_gold_fits(connection: Connection, name: str, places: Mapping[str, int]) -> None:
    """Refuse a known answer that does not fit a campaign's items, or would reveal that it is one.

    Raises:
        CampaignError: the reason.
    """
    campaign = campaign_called(connection, name)
    if campaign is None:
        raise CampaignError(_unknown(connection, name))
    if campaign.state == "ended":
        raise CampaignError(f"campaign {name!r} has ended, so nobody would get the gold item")
    if misfit := gold_misfit(campaign, places):
        raise CampaignError(misfit)


def _unknown(connection: Connection, name: str) -> str:
    known = ", ".join([MAIN, *(one.name for one in all_campaigns(connection))])
    return f"there is no campaign {name!r}; there are: {known}"


def _with_split(wanted: Campaign) -> Campaign:
    """Policies are compared on prompts that were not trained on, unless the settings say otherwise."""
    return replace(wanted, split="heldout") if wanted.task == "policies" and not wanted.split else wanted


def _check_new(connection: Connection, wanted: Campaign) -> None:
    if not NAME.fullmatch(wanted.name) or wanted.name.lower() == MAIN:
        raise CampaignError(
            f"{wanted.name!r} cannot be the name of a campaign: use 1 to 60 letters, digits, spaces, dots, dashes and "
            f"underscores, beginning with a letter or digit, and not {MAIN!r}"
        )
    if campaign_called(connection, wanted.name) is not None:
        raise CampaignError(f"there is a campaign {wanted.name!r} already; choose another name")
    if wanted.task not in TASKS:
        raise CampaignError(f"{wanted.task!r} is not a task; it is one of {', '.join(TASKS)}")
    if wanted.split not in ("", "train", "heldout"):
        raise CampaignError(f"{wanted.split!r} is not a split; it is train or heldout, or empty for both")
    if wanted.most < 0:
        raise CampaignError(f"{wanted.most} prompts at most; give a whole number from 1, or 0 for all")
    known = set(connection.execute(select(responses.c.model).distinct()).scalars())
    unknown = [model for model in wanted.models if model not in known]
    if unknown:
        raise CampaignError(
            f"no response is by the model {unknown[0]!r}; there are: {', '.join(sorted(known)) or 'none'}"
        )
    if len(set(wanted.models)) < len(wanted.models):
        raise CampaignError("a model is listed twice; list each once")
    if wanted.task == "policies" and not 2 <= len(wanted.models) <= MOST_RESPONSES:
        raise CampaignError(
            f"a comparison of policies needs 2 to {MOST_RESPONSES} models; {len(wanted.models)} are named"
        )
    kinds = set(connection.execute(select(prompts.c.kind).distinct()).scalars())
    if wanted.kind and wanted.kind not in kinds:
        raise CampaignError(
            f"no prompt has the kind {wanted.kind!r}; there are: {', '.join(sorted(kinds - {''})) or 'none'}"
        )


def _check_numbers(connection: Connection, wanted: Campaign) -> None:
    if not 0 <= wanted.share <= 100:
        raise CampaignError(f"share {wanted.share}: must be 0 to 100, the percentage of the items that labelers get")
    if not 1 <= wanted.overlap <= MOST_OVERLAP:
        raise CampaignError(
            f"overlap {wanted.overlap}: must be 1 to {MOST_OVERLAP}, the answers wanted for each prompt"
        )
    others = sum(
        one.share for one in all_campaigns(connection) if one.name != wanted.name and one.state == "active"
    )  # fmt: skip
    if wanted.state == "active" and others + wanted.share > 100:
        raise CampaignError(
            f"the other active campaigns have {others} % of what labelers get, so {wanted.share} % do not fit; give "
            f"{100 - others} at most, or lower another one"
        )


def _why_empty(wanted: Campaign) -> str:
    where = " of the chosen split, kind and models" if wanted.split or wanted.kind or wanted.models else ""
    if wanted.task == "policies":
        return f"no prompt{where} has differing responses of all of these models; sample some (triphase label sample)"
    return f"no prompt{where} has two differing responses; import or sample some first"


def _fit_slots(connection: Connection, name: str, overlap: int) -> None:
    """Close surplus slots that nobody has started; open, or create, missing ones.

    Prompts that have become gold items are left alone: their answer is known, and they are used as gold only.
    """
    gold = select(items.c.prompt_id).where(items.c.kind == "gold", ~items.c.closed, items.c.campaign.in_(("", name)))
    query = (
        select(assignments).join(items)
        .where(items.c.campaign == name, items.c.kind == "label", assignments.c.purpose == "label")
        .where(items.c.prompt_id.not_in(gold))
        .order_by(assignments.c.id).with_for_update(of=assignments)
    )  # fmt: skip
    of_item = defaultdict(list)
    for row in connection.execute(query):
        of_item[row.item_id].append(row)
    to_close, to_open, added = list[int](), list[int](), list[dict[str, object]]()
    for item, slots in of_item.items():
        live = [row for row in slots if row.state != "closed"]
        surplus = len(live) - overlap
        to_close += [row.id for row in reversed(live) if row.state == "open"][: max(surplus, 0)]
        again = [row.id for row in slots if row.state == "closed"][: max(-surplus, 0)]
        to_open += again
        added += [
            {
                "item_id": item, "purpose": "label", "seat": str(len(slots) + number), "priority": slots[0].priority,
                "state": "open", "campaign": name,
            }
            for number in range(max(-surplus, 0) - len(again))
        ]  # fmt: skip
    for ids, state in ((to_close, "closed"), (to_open, "open")):
        for start in range(0, len(ids), 500):
            chosen = assignments.c.id.in_(ids[start : start + 500])
            connection.execute(update(assignments).where(chosen).values(state=state))
    if added:
        connection.execute(insert(assignments), added)
    connection.execute(update(items).where(items.c.campaign == name).values(overlap=overlap))
