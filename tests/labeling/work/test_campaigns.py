"""Several tasks in one store: their questions, assignment, guidelines, end, and whose answers a run reads."""

import json
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.labeling.crowd import PLAIN, people, prepared

from triphase.errors import StoreError
from triphase.labeling.exchange.exporting import export_rows
from triphase.labeling.exchange.importing import Imported, import_file
from triphase.labeling.quality.labeling_statistics import collect, labeler_periods
from triphase.labeling.quality.policy_wins import policy_wins
from triphase.labeling.work import assignment, campaigns, item_plan, submission
from triphase.labeling.work.answer_content import Asks, Submission, places_of_ratings
from triphase.labeling.work.campaign_plan import Campaign, learned_from, missing
from triphase.labeling.work.campaigns import CampaignError
from triphase.labeling.work.conflicts import adjudicate, conflicts
from triphase.labeling.work.submission import AnswerError
from triphase.records.types import Message, Prompt, Ranking, Response
from triphase.store import Store, open_store
from triphase.store.answers import StoredAnswer
from triphase.store.schema import assignments, items, rankings

NOW = 1_760_000_000.0


def add(store: Store, campaign: Campaign, text: str = "") -> int:
    with store.transaction() as connection:
        return campaigns.add_campaign(connection, campaign, text, PLAIN, seed=3, now=NOW, by="lea")


def change(store: Store, name: str, **given: object) -> Campaign:
    with store.transaction() as connection:
        return campaigns.change_campaign(connection, name, now=NOW, by="lea", **given)


def take(store: Store, name: str = "ann") -> assignment.Assignment | None:
    with store.transaction() as connection:
        return assignment.next_assignment(connection, name, PLAIN, seed=1, now=NOW)


def answer(store: Store, taken: assignment.Assignment, name: str = "ann", **given: object) -> str:
    places = given.pop("places", list(range(1, len(taken.order_shown) + 1)))
    with store.transaction() as connection:
        stored = submission.submit(connection, name, taken.id, Submission(places, 9.0, **given), now=NOW)
    return stored.ranking_id


def work(store: Store, count: int, name: str = "ann") -> Counter[str]:
    """Answer so many items in the order of their responses' ids; return how many each campaign gave."""
    given: Counter[str] = Counter()
    for _ in range(count):
        taken = take(store, name)
        if taken is None:
            break
        given[taken.campaign] += 1
        order = sorted(taken.order_shown)
        answer(store, taken, name, places=[order.index(id_) + 1 for id_ in taken.order_shown])
    return given


def test_items_of_each_task(store: Store) -> None:
    prepared(store, PLAIN, 4, "ann")
    assert add(store, Campaign("all")) == 4
    assert add(store, Campaign("pairs", "ab")) == 4
    assert add(store, Campaign("two", most=2, overlap=3)) == 2
    assert add(store, Campaign("duel", "policies", models=("model-3", "model-1"), split="train")) == 4
    with store.reading() as connection:
        rows = connection.execute(select(items.c.campaign, items.c.response_ids, items.c.overlap)).all()
        slots = Counter(connection.execute(select(assignments.c.campaign)).scalars())
    assert slots == {"": 4, "all": 4, "pairs": 4, "two": 6, "duel": 4}
    assert {len(row.response_ids.split(",")) for row in rows if row.campaign == "pairs"} == {2}
    assert all("-3" in row.response_ids and "-1" in row.response_ids for row in rows if row.campaign == "duel")
    assert item_plan.make_items(store, PLAIN, seed=3, now=NOW) == 0, "again adds nothing"
    store.add_prompts([Prompt("late", (Message("user", "Late?"),))])
    store.add_responses(Response(f"late-{k}", "late", f"text {k}", f"model-{k}") for k in range(4))
    assert item_plan.make_items(store, PLAIN, seed=3, now=NOW) == 4, "main, all, pairs, duel; two has its two"


def test_policies_are_compared_by_their_first_responses_on_heldout_prompts(store: Store) -> None:
    asked = [Prompt(f"p{n}", (Message("user", f"{n}?"),), "", "heldout" if n < 4 else "train") for n in range(6)]
    store.add_prompts(asked)
    texts = {"p0": ("a", "b", "c"), "p1": ("a", "b", "c"), "p2": ("same", "same", "other"), "p3": ("a", "b", "c")}
    for prompt in asked:
        old, new, more = texts.get(prompt.id, ("a", "b", "c"))
        store.add_responses(
            Response(f"{prompt.id}-{n}", prompt.id, text, model)
            for n, (text, model) in enumerate([(old, "sft"), (new, "ppo"), (more, "ppo")])
        )
    people(store, "ann", "bob")
    assert add(store, Campaign("duel", "policies", 100, 2, ("ppo", "sft"))) == 3, "of p2 nobody is asked"
    for name, better in (("ann", ("ppo", "ppo", "sft")), ("bob", ("ppo", "tie", "sft"))):
        said = dict(zip(("p0", "p1", "p3"), better, strict=True))
        for _ in range(3):
            taken = take(store, name)
            assert taken is not None and taken.campaign == "duel" and len(taken.order_shown) == 2
            model = {f"{taken.prompt_id}-0": "sft", f"{taken.prompt_id}-1": "ppo"}
            wins = said[taken.prompt_id]
            places = [1 if wins in ("tie", model[id_]) else 2 for id_ in taken.order_shown]
            answer(store, taken, name, places=places)
    (wins,) = policy_wins(store, "duel", ("ppo", "sft"), "heldout", "")
    assert wins.same == 1
    # p0: 1, 1; p1: 1, ½; p3: 0, 0: 3.5 of 6 where they were asked; p2, a quarter of the prompts, ½ by its one text.
    assert (
        wins.rate is not None and wins.rate.value == pytest.approx(1 / 8 + 3 / 4 * 3.5 / 6) and wins.rate.prompts == 3
    )
    with store.reading() as connection:
        assert learned_from(connection, None) == {""}, "what judges policies is not learned from by itself"
        assert learned_from(connection, ["duel", "main"]) == {"duel", ""}
        assert missing(connection, ["main", "duel", "typo"]) == ["typo"]
    assert store.only({""}).ranked_groups("heldout") == []
    assert len(store.only({"duel"}).ranked_groups("heldout")) == 3


def test_labelers_get_each_campaign_by_its_share(store: Store) -> None:
    prepared(store, PLAIN, 300, "ann")
    add(store, Campaign("much", share=50))
    add(store, Campaign("some", share=20))
    given = work(store, 200)
    assert given.total() == 200
    for name, share in (("much", 0.5), ("some", 0.2), ("", 0.3)):
        assert abs(given[name] / 200 - share) < 0.12, given  # over three standard deviations


def test_where_one_has_nothing_more_the_others_give(store: Store) -> None:
    prepared(store, PLAIN, 3, "ann")
    add(store, Campaign("all of it", share=100))
    assert work(store, 10) == {"all of it": 3, "": 3}


def test_paused_and_ended_campaigns_give_nothing_and_keep_what_was_said(store: Store) -> None:
    prepared(store, PLAIN, 6, "ann")
    add(store, Campaign("style", share=100))
    assert work(store, 2) == {"style": 2}
    held = take(store)
    assert held is not None and held.campaign == "style"
    change(store, "style", state="paused")
    assert take(store) == held, "what somebody holds they may finish"
    answer(store, held)
    assert work(store, 2) == {"": 2}
    change(store, "style", state="active")
    assert work(store, 1) == {"style": 1}
    change(store, "style", state="ended")
    assert work(store, 10) == {"": 4}
    assert Counter(one.campaign for one in store.answers()) == {"": 6, "style": 4}
    for given in ({"state": "active"}, {"share": 5}, {"text": "more"}):
        with pytest.raises(CampaignError, match="'style' has ended; make a new one"):
            change(store, "style", **given)


def test_shares_of_active_campaigns_fit_into_a_hundred(store: Store) -> None:
    prepared(store, PLAIN, 2, "ann")
    add(store, Campaign("one", share=70))
    with pytest.raises(CampaignError, match=r"have 70 % .* 40 % do not fit; give 30 at most"):
        add(store, Campaign("two", share=40))
    change(store, "one", state="paused")
    add(store, Campaign("two", share=40))
    with pytest.raises(CampaignError, match="70 % do not fit; give 60 at most"):
        change(store, "one", state="active")
    assert change(store, "one", state="active", share=60).share == 60


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "main"}, "cannot be the name"), ({"name": "a/b"}, "cannot be the name"),
        ({"name": ""}, "cannot be the name"), ({"task": "race"}, "'race' is not a task; it is one of ranking, ab"),
        ({"share": 101}, "share 101: must be 0 to 100"), ({"overlap": 0}, "overlap 0: must be 1 to 20"),
        ({"split": "test"}, "'test' is not a split"), ({"kind": "none"}, "no prompt has the kind 'none'"),
        ({"models": ("gpt",)}, "no response is by the model 'gpt'; there are: model-0, model-1"),
        ({"task": "policies"}, "needs 2 to 9 models; 0 are named"), ({"split": "heldout"}, "no prompt of the chosen"),
        ({"models": ("model-1", "model-1")}, "a model is listed twice"), ({"most": -1}, "-1 prompts at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_campaign_is_refused_and_nothing_is_kept(
    store: Store, wrong: dict[str, object], said: str
) -> None:
    prepared(store, PLAIN, 2, "ann", responses=2)
    with pytest.raises(CampaignError, match=said):
        add(store, Campaign(**{"name": "style", **wrong}))
    with store.reading() as connection:
        assert campaigns.all_campaigns(connection) == []
        assert set(connection.execute(select(items.c.campaign)).scalars()) == {""}


def test_each_answer_keeps_the_version_of_its_campaigns_guidelines(store: Store) -> None:
    prepared(store, PLAIN, 9, "ann")
    with store.transaction() as connection:
        campaigns.add_guidelines(connection, "For all.", now=NOW, by="lea")
    add(store, Campaign("plain", share=0))
    add(store, Campaign("own", share=100), "For this one.")
    first = take(store)
    assert first is not None and first.campaign == "own"
    answer(store, first)
    change(store, "own", text="For this one, newly.")
    change(store, "own", text="For this one, newly.")  # the same again is no new version
    second = take(store)
    assert second is not None
    answer(store, second)
    change(store, "own", share=0)
    change(store, "plain", share=100)
    third = take(store)
    assert third is not None and third.campaign == "plain"
    answer(store, third)
    change(store, "plain", share=0)
    fourth = take(store)
    assert fourth is not None and fourth.campaign == ""
    answer(store, fourth)
    versions = {one.ranking.prompt_id + one.campaign: one.guideline_version for one in store.answers()}
    expected = {first: 2, second: 3, third: 1, fourth: 1}
    assert versions == {taken.prompt_id + taken.campaign: version for taken, version in expected.items()}


def test_overlap_goes_up_and_down_without_losing_an_answer(store: Store) -> None:
    prepared(store, PLAIN, 3, "ann", "bob", "cy")
    add(store, Campaign("style", share=100, overlap=1))
    assert work(store, 2) == {"style": 2}

    def states() -> Counter[str]:
        with store.reading() as connection:
            query = select(assignments.c.state).where(assignments.c.campaign == "style")
            return Counter(connection.execute(query).scalars())

    change(store, "style", overlap=3)
    assert states() == {"done": 2, "open": 7}
    change(store, "style", overlap=2)
    assert states() == {"done": 2, "open": 4, "closed": 3}
    assert work(store, 9, "bob") == {"style": 3, "": 3}
    change(store, "style", overlap=1)
    assert states() == {"done": 5, "closed": 4}, "answers beyond it stay"
    change(store, "style", overlap=3)
    assert states() == {"done": 5, "open": 4}
    assert work(store, 9, "cy")["style"] == 3


def test_ratings_give_the_ranking_and_each_response_needs_one(store: Store) -> None:
    assert places_of_ratings([3, 7, 3, 1]) == [2, 1, 2, 4]
    assert places_of_ratings([3, None]) is None
    prepared(store, PLAIN, 2, "ann", responses=3)
    add(store, Campaign("quality", "rating", share=100))
    taken = take(store)
    assert taken is not None
    for given in ({"places": [1, 2, 3]}, {"places": [1, 2, 3], "quality": [7, 5, None]}):
        with pytest.raises(AnswerError, match="every response needs a rating from 1 to 7"):
            answer(store, taken, **given)
    with pytest.raises(AnswerError, match="the places do not follow from the ratings"):
        answer(store, taken, places=[1, 2, 3], quality=[5, 7, 5])
    identity = answer(store, taken, places=[2, 1, 2], quality=[5, 7, 5])
    wrong = Submission([2, 1, 2], 9.0, None, [6, 6, 2])
    with store.transaction() as connection, pytest.raises(AnswerError, match="do not follow"):
        submission.correct(connection, "ann", identity, wrong, now=NOW, asks=Asks(quality=False))
    (kept,) = store.answers()
    order = kept.ranking.order_shown
    assert dict(kept.ranking.places) == dict(zip(order, [2, 1, 2], strict=True))
    assert dict(kept.quality) == dict(zip(order, [5, 7, 5], strict=True))


def test_a_correction_keeps_what_the_page_asks_no_more(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", responses=2)
    taken = take(store)
    assert taken is not None
    one, other = taken.order_shown
    identity = answer(
        store, taken, strength=3, quality=[6, None], ratings={"honest": [7, 2], "kind": [1, None]},
        rationale="It answers.", rewrites=[None, "Better."],
    )  # fmt: skip
    nothing = Asks(strength=False, quality=False, criteria=("kind",), rationale=False, rewrite=False)
    said = Submission([2, 1], 9.0, ratings={"kind": [None, 5]})
    with store.transaction() as connection:
        first = submission.correct(connection, "ann", identity, said, now=NOW, asks=nothing)
        again = submission.correct(connection, "ann", identity, said, now=NOW, asks=nothing)
    assert first == again, "the same correction again is the same answer"
    (kept,) = store.answers()
    assert dict(kept.ranking.places) == {one: 2, other: 1}
    assert kept.ratings == {"honest": {one: 7, other: 2}, "kind": {other: 5}}, "what is asked was taken away, and is"
    assert (kept.strength, dict(kept.quality), kept.rationale) == (3, {one: 6}, "It answers.")
    assert kept.rewrites == {other: "Better."}


def test_agreement_and_conflicts_are_within_a_campaign(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob", responses=2)
    add(store, Campaign("style", share=100, overlap=2))
    for name, places in (("ann", {"-0": 1, "-1": 2}), ("bob", {"-0": 1, "-1": 2})):
        taken = take(store, name)
        assert taken is not None and taken.campaign == "style"
        answer(store, taken, name, places=[places[id_[-2:]] for id_ in taken.order_shown])
    taken = take(store)
    assert taken is not None and taken.campaign == ""
    answer(store, taken, places=[{"-0": 2, "-1": 1}[id_[-2:]] for id_ in taken.order_shown])
    together, style = collect(store, NOW), collect(store, NOW, "style")
    assert together.agreement.value is not None and together.agreement.value.value == 1.0
    assert (together.rankings, style.rankings, collect(store, NOW, "").rankings) == (3, 2, 1)
    assert (style.progress.filled, style.progress.slots, style.progress.items) == (2, 2, 1)
    assert (together.progress.filled, together.progress.items) == (3, 2)
    assert conflicts(store) == [], "one question is not the other"
    with store.transaction() as connection:
        connection.execute(rankings.update().where(rankings.c.labeler == "bob").values(campaign=""))
    assert [one.campaign for one in conflicts(store)] == [""]


def test_pairs_of_one_text_count_only_among_the_prompts_of_the_campaigns_kind(store: Store) -> None:
    for number, (kind, texts) in enumerate([("math", ("1", "2")), ("math", ("3", "3")), *[("chat", ("4", "4"))] * 5]):
        prompt = f"p{number}"
        store.add_prompts([Prompt(prompt, (Message("user", prompt),), kind, "heldout")])
        store.add_responses(Response(f"{prompt}/{n}", prompt, text, f"m{n}") for n, text in enumerate(texts))
    people(store, "ann")
    assert add(store, Campaign("duel", "policies", 100, models=("m0", "m1"), kind="math")) == 1
    assert work(store, 2) == {"duel": 1}
    (wins,) = policy_wins(store, "duel", ("m0", "m1"), "heldout", "math")
    assert wins.same == 1 and wins.rate is not None and wins.rate.value == 0.75  # 1 and ½, by hand
    (wins,) = policy_wins(store, "duel", ("m0", "m1"), "heldout", "")
    assert wins.same == 6 and wins.rate is not None and wins.rate.value == pytest.approx(4 / 7)


def test_a_win_rate_does_not_depend_on_how_many_have_answered_yet(store: Store) -> None:
    for number, texts in enumerate([("1", "2"), ("3", "4"), ("same", "same"), ("same", "same")]):
        store.add_prompts([Prompt(f"p{number}", (Message("user", "x"),), "", "heldout")])
        store.add_responses(Response(f"p{number}/{n}", f"p{number}", text, f"m{n}") for n, text in enumerate(texts))
    people(store, "ann")
    assert add(store, Campaign("duel", "policies", 100, models=("m0", "m1"))) == 2
    assert policy_wins(store, "duel", ("m0", "m1"), "", "")[0].rate is None, "nobody was asked"
    for asked in (1, 2):  # half of the prompts are ties without asking, and m0 wins the others
        taken = take(store, "ann")
        assert taken is not None
        answer(store, taken, "ann", places=[1 if id_.endswith("/0") else 2 for id_ in taken.order_shown])
        (wins,) = policy_wins(store, "duel", ("m0", "m1"), "", "")
        assert wins.rate is not None and (wins.rate.value, wins.rate.high) == (0.75, 0.75)
        assert wins.rate.low == pytest.approx(0.25 + 0.5 * asked / (asked + 1.96**2), abs=1e-4)


def test_a_prompt_that_became_gold_is_asked_as_gold_alone_whatever_the_overlap(store: Store) -> None:
    prepared(store, PLAIN, 2, "ann")
    add(store, Campaign("style", overlap=2))
    gold, *_ = (prompt.id for prompt in store.prompts())
    places = {response.id: place for place, response in enumerate(store.responses(gold), start=1)}
    with store.transaction() as connection:
        item_plan.add_gold(connection, gold, places, now=NOW, by="lea")
    for overlap in (3, 1, 2):
        change(store, "style", overlap=overlap)
        with store.reading() as connection:
            query = select(assignments.c.state).join(items).where(items.c.prompt_id == gold)
            assert set(connection.execute(query).scalars()) == {"closed"}


def decide(store: Store, prompt: str, places: dict[str, int] | None, campaign: str = "") -> None:
    with store.transaction() as connection:
        adjudicate(connection, prompt, places, "", by="lea", now=NOW, campaign=campaign)


def said(store: Store, name: str, prompt: str, places: dict[str, int], campaign: str = "") -> None:
    ranking = Ranking(f"{name} {prompt} {campaign}", prompt, name, places, (), NOW)
    store.add_answers([StoredAnswer(ranking, campaign=campaign)])


def test_a_decision_is_about_one_campaign_and_leaves_the_others(store: Store) -> None:
    prepared(store, PLAIN, 1, "ann", "bob", "carl", responses=2)
    add(store, Campaign("style"))
    a, b = "p00000-0", "p00000-1"
    for campaign in ("", "style"):
        said(store, "ann", "p00000", {a: 1, b: 2}, campaign)
        said(store, "bob", "p00000", {a: 2, b: 1}, campaign)
    assert [one.campaign for one in conflicts(store)] == ["", "style"]
    decide(store, "p00000", {a: 1, b: 2}, "style")
    assert [one.campaign for one in conflicts(store)] == [""], "the main task's stands open"

    def target(*campaigns: str) -> float:
        (group,) = store.only(campaigns).ranked_groups("train") if campaigns else store.ranked_groups("train")
        (pair,) = group.pairs
        return pair.target if group.responses[pair.first].startswith("answer 0") else 1 - pair.target

    assert (target("style"), target("")) == (1.0, 0.5)
    assert target() == 0.75, "both votes of the one are as decided, those of the other as given"
    decide(store, "p00000", {a: 2, b: 1})
    assert (target("style"), target(""), target()) == (1.0, 0.0, 0.5) and conflicts(store) == []
    decide(store, "p00000", {a: 1, b: 2})
    standing = [one for one in store.answers("p00000") if one.purpose == "adjudication"]
    assert sorted(one.campaign for one in standing) == ["", "style"], "the later one supersedes the main task's alone"
    said(store, "carl", "p00000", {a: 2, b: 1}, "style")
    assert target("style") == 1.0


def test_gold_items_of_a_campaign_are_given_and_counted_in_it_alone(store: Store) -> None:
    prepared(store, PLAIN, 4, "ann", responses=3)
    add(store, Campaign("style", share=50))
    add(store, Campaign("pairs", "ab", share=0))
    known = {"p00001-0": 1, "p00001-1": 2, "p00001-2": 3}
    with store.transaction() as connection:
        assert item_plan.add_gold(connection, "p00001", known, now=NOW, by="lea", campaign="style")
        assert not item_plan.add_gold(connection, "p00001", known, now=NOW, by="lea", campaign="style")
        open_ones = select(items.c.campaign).join(assignments).where(
            items.c.prompt_id == "p00001", assignments.c.state == "open"
        )  # fmt: skip
        assert set(connection.execute(open_ones).scalars()) == {"", "pairs"}, "asked there as before"
        campaigns.require_gold_fits(connection, "style", known)
        with pytest.raises(CampaignError, match="3 responses are ranked, but the items of 'pairs' have 2"):
            campaigns.require_gold_fits(connection, "pairs", known)
        with pytest.raises(StoreError, match="campaign 'styl' is not in the store"):
            item_plan.add_gold(connection, "p00001", known, now=NOW, by="lea", campaign="styl")
    always = PLAIN.model_copy(update={"gold_share": 1.0})
    with store.transaction() as connection:
        taken = assignment.next_assignment(connection, "ann", always, seed=1, now=NOW)
    assert taken is not None and (taken.purpose, taken.campaign, taken.prompt_id) == ("gold", "style", "p00001")
    answer(store, taken, places=[known[id_] for id_ in taken.order_shown])
    for campaign, expected in (("style", 1.0), (None, 1.0), ("", None), ("pairs", None)):
        (record,) = [one for one in collect(store, NOW, campaign).labelers if one.name == "ann"]
        assert (record.gold.value if record.gold else None) == expected
    (period,) = labeler_periods(store, "ann")
    assert period.gold is not None and period.gold.value == 1.0
    assert [one.campaign for one in store.answers()] == [], "no comparison"
    change(store, "style", state="paused")
    with store.transaction() as connection:
        item_plan.add_gold(connection, "p00002", {"p00002-0": 1, "p00002-1": 2}, now=NOW, by="lea", campaign="style")
        taken = assignment.next_assignment(connection, "ann", always, seed=1, now=NOW)
    assert taken is not None and taken.purpose == "label", "a paused campaign gives no gold items either"


def test_known_answers_of_a_file_are_given_in_their_campaign_or_refused_with_their_line(
    store: Store, tmp_path: Path
) -> None:
    prepared(store, PLAIN, 4, "ann", responses=3)
    add(store, Campaign("pairs", "ab", share=50))
    told = {one.id: one for one in store.responses("p00001")}

    def bring(count: int) -> Imported:
        row = {
            "prompt": "Tell a colleague about thing 1.", "prompt_id": "p00001", "gold": True, "campaign": "pairs",
            "responses": [one.text for one in told.values()][:count],
        }  # fmt: skip
        path = tmp_path / "gold.jsonl"
        path.write_text(json.dumps(row) + "\n")
        return import_file(store, path)

    with pytest.raises(StoreError, match=r"gold.jsonl:1: gold answer .* 3 responses are ranked, .* 'pairs' have 2"):
        bring(3)
    assert bring(2).gold == 1 and bring(2).gold == 0
    always = PLAIN.model_copy(update={"gold_share": 1.0})
    with store.transaction() as connection:
        taken = assignment.next_assignment(connection, "ann", always, seed=1, now=NOW)
    assert taken is not None and (taken.purpose, taken.campaign, len(taken.order_shown)) == ("gold", "pairs", 2)
    change(store, "pairs", state="ended")
    with pytest.raises(StoreError, match=r"gold.jsonl:1: .* campaign 'pairs' has ended"):
        bring(2)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in export_rows(store, "store")))
    with open_store(tmp_path / "copy.sqlite") as copy:
        assert import_file(copy, path).gold == 1, "a whole store is copied with the campaigns that have ended"


def test_gold_items_come_by_the_share_of_their_campaign(store: Store) -> None:
    prepared(store, PLAIN, 300, "ann", responses=2)
    add(store, Campaign("style", share=30))
    with store.transaction() as connection:
        for n in range(300):
            known = {f"p{n:05d}-0": 1, f"p{n:05d}-1": 2}
            for campaign in ("", "style"):
                item_plan.add_gold(connection, f"p{n:05d}", known, now=NOW, by="lea", campaign=campaign)
    always = PLAIN.model_copy(update={"gold_share": 1.0})
    given: Counter[str] = Counter()
    for _ in range(150):
        with store.transaction() as connection:
            taken = assignment.next_assignment(connection, "ann", always, seed=1, now=NOW)
        assert taken is not None and taken.purpose == "gold"
        given[taken.campaign] += 1
        answer(store, taken)
    assert abs(given["style"] / 150 - 0.3) < 0.12, given
