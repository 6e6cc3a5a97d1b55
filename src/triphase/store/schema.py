"""The tables of the store. A change here needs a new file in ``migrations/versions``; a test compares the two.

Times are seconds since the epoch, UTC. Columns with JSON are text, so that SQLite and PostgreSQL store the same bytes.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION = "0005"
"""The revision that this program reads and writes: the newest of ``migrations/versions``."""

metadata = MetaData()


def _campaign() -> Column[str]:
    """The campaign of a row, by name; empty for the main task."""
    return Column("campaign", String(60), nullable=False, server_default="")


meta = Table(
    "meta",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about the store itself: the cookie key, the labeling plan."""

prompts = Table(
    "prompts",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("position", Integer, nullable=False, unique=True),
    Column("messages", Text, nullable=False),
    Column("kind", String(80), nullable=False),
    Column("split", String(20), nullable=False),
    CheckConstraint("split IN ('train', 'heldout')", name="prompts_split"),
)
"""Prompts; ``position`` is the order of arrival, ``messages`` a JSON list of [role, content]."""

responses = Table(
    "responses",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("prompt_id", String(200), ForeignKey("prompts.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("model", String(400), nullable=False),
    Column("finished", Boolean, nullable=False),
    Column("seed", BigInteger().with_variant(Integer, "sqlite")),
    UniqueConstraint("prompt_id", "position", name="responses_position"),
)
"""Answers, in the order of their arrival at each prompt."""

scores = Table(
    "scores",
    metadata,
    Column("response_id", String(200), ForeignKey("responses.id"), primary_key=True),
    Column("scorer", String(200), primary_key=True),
    Column("score", Float, nullable=False),
)
"""Scores of reward models, for active selection; several scorers are an ensemble."""

labelers = Table(
    "labelers",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("status", String(20), nullable=False),
    Column("password_hash", Text),
    Column("created_at", Float),
    CheckConstraint("role IN ('lead', 'labeler')", name="labelers_role"),
    CheckConstraint("status IN ('active', 'paused', 'withdrawn')", name="labelers_status"),
)
"""Everyone who ranks or leads; without ``password_hash`` (imported, simulated) they cannot sign in."""

invitations = Table(
    "invitations",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("role", String(20), nullable=False),
    Column("name", String(80)),
    Column("created_by", String(80), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    Column("used_by", String(80)),
)
"""Links that create one account, once; with ``name`` they set a new password for that account."""

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("labeler", String(80), ForeignKey("labelers.name"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("sessions_labeler", "labeler"),
)
"""Who is signed in; the cookie has the token, the store only its hash."""

sign_ins = Table(
    "sign_ins",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(80), nullable=False),
    Column("address", String(80), nullable=False),
    Column("at", Float, nullable=False),
    Index("sign_ins_name", "name", "at"),
    Index("sign_ins_address", "address", "at"),
)
"""Failed attempts to sign in, for the rate limit."""

guidelines = Table(
    "guidelines",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("created_at", Float, nullable=False),
    _campaign(),
)
"""The guidelines of labelers, in Markdown; every answer keeps the version it was given under."""

campaigns = Table(
    "campaigns",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("task", String(20), nullable=False),
    Column("state", String(20), nullable=False),
    Column("share", Integer, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("models", Text, nullable=False),
    Column("split", String(20), nullable=False),
    Column("kind", String(80), nullable=False),
    Column("most", Integer, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint("task IN ('ranking', 'ab', 'rating', 'policies')", name="campaigns_task"),
    CheckConstraint("state IN ('active', 'paused', 'ended')", name="campaigns_state"),
)
"""Tasks next to the main one: ``share`` in percent of what labelers get, ``overlap`` answers to each item. ``models``
(a JSON list), ``split``, ``kind`` and ``most`` select prompts and responses; empty or 0 is no limit."""

items = Table(
    "items",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("prompt_id", String(200), ForeignKey("prompts.id"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("response_ids", Text, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("chosen_by", String(20), nullable=False),
    Column("priority", Float, nullable=False),
    Column("gold_places", Text),
    Column("closed", Boolean, nullable=False, server_default=text("false")),
    _campaign(),
    UniqueConstraint("prompt_id", "kind", "campaign", name="items_prompt"),
    CheckConstraint("kind IN ('label', 'gold')", name="items_kind"),
)
"""What labelers are shown: a prompt and its responses. ``chosen_by`` is random or active; lower priority first."""

assignments = Table(
    "assignments",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("item_id", Integer, ForeignKey("items.id"), nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("seat", String(80), nullable=False),
    Column("priority", Float, nullable=False),
    Column("state", String(20), nullable=False),
    Column("labeler", String(80), ForeignKey("labelers.name")),
    Column("leased_at", Float),
    Column("expires_at", Float),
    Column("order_shown", Text),
    _campaign(),
    UniqueConstraint("item_id", "purpose", "seat", name="assignments_seat"),
    UniqueConstraint("item_id", "purpose", "labeler", name="assignments_labeler"),
    CheckConstraint("purpose IN ('label', 'gold', 'repeat')", name="assignments_purpose"),
    CheckConstraint("state IN ('open', 'leased', 'done', 'closed')", name="assignments_state"),
    Index("assignments_next", "state", "purpose", "campaign", "priority", "id"),
    Index("assignments_expiry", "state", "expires_at"),
    Index("assignments_by_labeler", "labeler", "state"),
    Index("assignments_had", "labeler", "item_id"),
)
"""Slots: one row for each requested answer. Label slots are numbered to the overlap of their item; the slots of gold
items and repeats are named after the labeler. A lease past ``expires_at`` may be taken by anyone."""

drafts = Table(
    "drafts",
    metadata,
    Column("assignment_id", Integer, ForeignKey("assignments.id"), primary_key=True),
    Column("labeler", String(80), ForeignKey("labelers.name"), primary_key=True),
    Column("content", Text, nullable=False),
    Column("updated_at", Float, nullable=False),
)
"""Drafts of answers, saved automatically."""

rankings = Table(
    "rankings",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("prompt_id", String(200), ForeignKey("prompts.id"), nullable=False),
    Column("assignment_id", Integer, ForeignKey("assignments.id")),
    Column("purpose", String(20), nullable=False),
    Column("status", String(20), nullable=False),
    Column("labeler", String(80), ForeignKey("labelers.name"), nullable=False),
    Column("places", Text, nullable=False),
    Column("order_shown", Text, nullable=False),
    Column("submitted_at", Float, nullable=False),
    Column("seconds", Float),
    Column("note", Text, nullable=False),
    Column("guideline_version", Integer),
    Column("strength", Integer),
    Column("margin", Float),
    Column("quality", Text),
    Column("ratings", Text),
    Column("rationale", Text),
    Column("rewrites", Text),
    Column("skip_reason", String(80)),
    _campaign(),
    CheckConstraint("purpose IN ('label', 'gold', 'repeat', 'adjudication')", name="rankings_purpose"),
    CheckConstraint("status IN ('active', 'withdrawn', 'skipped', 'superseded', 'late')", name="rankings_status"),
    Index("rankings_prompt", "prompt_id", "status"),
    Index("rankings_labeler", "labeler", "status", "submitted_at"),
    Index("rankings_assignment", "assignment_id"),
    Index(
        "rankings_one_answer",
        "assignment_id",
        unique=True,
        sqlite_where=text("status = 'active'"),
        postgresql_where=text("status = 'active'"),
    ),
)
"""Answers. Only ``active`` ones of purpose label and adjudication become comparisons; none is ever deleted."""

flags = Table(
    "flags",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("prompt_id", String(200), ForeignKey("prompts.id"), nullable=False),
    Column("response_id", String(200), ForeignKey("responses.id")),
    Column("labeler", String(80), ForeignKey("labelers.name"), nullable=False),
    Column("reason", String(40), nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("resolution", Text),
    Column("resolved_by", String(80)),
    Column("resolved_at", Float),
    Index("flags_open", "resolved_at", "id"),
)
"""What labelers flagged as unsafe, broken or private."""

adjudications = Table(
    "adjudications",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("prompt_id", String(200), ForeignKey("prompts.id"), nullable=False),
    Column("ranking_id", String(200), ForeignKey("rankings.id")),
    Column("decided_by", String(80), ForeignKey("labelers.name"), nullable=False),
    Column("decided_at", Float, nullable=False),
    Column("decision", String(40), nullable=False),
    Column("note", Text, nullable=False),
    _campaign(),
    Index("adjudications_prompt", "prompt_id"),
)
"""The lead's decisions on conflicts: a ranking of their own (which overrules), or that the disagreement remains.

Each is about one campaign's answers, or the main task's."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("who", String(80), nullable=False),
    Column("action", String(80), nullable=False),
    Column("subject", String(240), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Index("audit_subject", "subject"),
)
"""Who did what, when, the old and the new value. The database itself refuses changes and deletions here."""
