"""The rankings that a run reads: all except comparisons of policies, or the campaigns in its settings."""

import json
from pathlib import Path

import pytest

from triphase.errors import SettingsError
from triphase.labeling.work import campaigns
from triphase.labeling.work.campaign_plan import Campaign, learned_from
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.runs import labeling
from triphase.runs.store_contents import require_campaigns
from triphase.settings.schema import LabelingSettings
from triphase.store import open_store
from triphase.store.answers import StoredAnswer


@pytest.mark.parametrize(
    ("named", "read"),
    [(None, {"main", "style"}), (("main",), {"main"}), (("duel", "style"), {"duel", "style"})],
)
def test_a_run_reads_the_campaigns_it_is_told_to(tmp_path: Path, named: tuple[str, ...] | None, read: set[str]) -> None:
    with open_store(tmp_path) as store:
        store.add_prompts([Prompt("p", (Message("user", "a?"),), "", "heldout")])
        store.add_responses(Response(f"r{n}", "p", f"{n}", f"m{n}") for n in range(2))
        with store.transaction() as connection:
            for campaign in (Campaign("style"), Campaign("duel", "policies", models=("m0", "m1"))):
                campaigns.add_campaign(connection, campaign, "", LabelingSettings(), seed=0, now=1.0, by="lea")
        for name in ("", "style", "duel"):
            ranking = Ranking(f"by {name}", "p", name or "ann", {"r0": 1, "r1": 2}, (), 1.0)
            store.add_answers([StoredAnswer(ranking, campaign=name)])
        with store.reading() as connection:
            store.read_campaigns = learned_from(connection, named)
        said = json.loads(json.dumps(labeling._figures("people", store)))
        assert {name for name, each in said["campaigns"].items() if each["read"]} == read
        assert {name: each["answers"] for name, each in said["campaigns"].items()} == dict.fromkeys(
            ("main", "style", "duel"), 1
        )
        assert said["rankings"] == len(read) == len(store.comparisons("heldout"))
        assert sum(len(group.pairs) for group in store.ranked_groups("heldout")) == 1
        with pytest.raises(SettingsError, match="no campaign 'typo' in runs/x; there are: main, duel, style"):
            require_campaigns(Path("runs/x"), store, ("style", "typo"))


def test_a_store_without_campaigns_says_nothing_of_them(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with store.reading() as connection:
            assert learned_from(connection, None) is None
        assert "campaigns" not in labeling._figures("people", store)
