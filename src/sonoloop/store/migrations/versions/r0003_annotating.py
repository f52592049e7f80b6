"""What annotating leaves beside masks: lesion classes, effort, marks, notes, double reading, adjudication."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# REPLACE deletes the old row without firing a DELETE trigger: an INSERT over an existing key is refused too.
_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "adjudications": (("number",), ("revision_id", "original")),
    "assignments": (("number",), ("frame_id", "reader")),
    "frame_marks": (("number",),),
    "notes": (("number",),),
}

# What a withdrawal empties, and to what; every other column must then stay as it is.
_ERASED: dict[str, dict[str, str]] = {
    "frame_marks": {"reason": "= ''"},
    "notes": {"text": "= ''"},
    "revisions": {"mask": "EMPTY", "lesions": "IS NULL", "effort": "IS NULL"},
}
_KEPT: dict[str, tuple[str, ...]] = {
    "frame_marks": ("number", "frame_id", "annotator", "status", "created"),
    "notes": ("number", "frame_id", "annotator", "created"),
    "revisions": (
        "number",
        "id",
        "frame_id",
        "annotator",
        "parent",
        "mask_sha256",
        "label",
        "mask_decision",
        "class_decision",
        "prediction_id",
        "prediction_seen",
        "model",
        "created",
        "seconds",
        "software",
    ),
}


def upgrade() -> None:
    """Add the columns and tables with their guards; let a withdrawal, and nothing else, through them."""
    op.add_column("revisions", sa.Column("lesions", sa.Text, nullable=True))
    op.add_column("revisions", sa.Column("effort", sa.Text, nullable=True))
    # a queue of thousands asks for it; without one every map is read through on the way to the number
    op.create_index(
        "ix_predictions_frame_id_id_expected_dice", "predictions", ["frame_id", "id", "expected_dice"]
    )
    _create_marks_and_notes()
    _create_double_reading()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def _number() -> sa.Column[int]:
    return sa.Column(
        "number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False
    )


def _create_marks_and_notes() -> None:
    op.create_table(
        "frame_marks",
        _number(),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("annotator", sa.String, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_frame_marks"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_frame_marks_frame_id"),
        sa.CheckConstraint("status IN ('flagged', 'skipped', 'excluded', 'open')", name="status"),
    )
    op.create_index("ix_frame_marks_frame_id_number", "frame_marks", ["frame_id", "number"])
    op.create_table(
        "notes",
        _number(),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("annotator", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_notes"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_notes_frame_id"),
    )
    op.create_index("ix_notes_frame_id", "notes", ["frame_id"])


def _create_double_reading() -> None:
    op.create_table(
        "assignments",
        _number(),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("reader", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_assignments"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_assignments_frame_id"),
        sa.UniqueConstraint("frame_id", "reader", name="uq_assignments_frame_id_reader"),
    )
    op.create_table(
        "adjudications",
        _number(),
        sa.Column("revision_id", sa.String(32), nullable=False),
        sa.Column("original", sa.String(32), nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_adjudications"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_adjudications_revision_id"),
        sa.ForeignKeyConstraint(["original"], ["revisions.id"], name="fk_adjudications_original"),
        sa.UniqueConstraint("revision_id", "original", name="uq_adjudications_revision_id_original"),
    )


def _guard_sqlite() -> None:
    for table, keys in _KEYS.items():
        taken = " OR ".join(
            "(" + " AND ".join(f"{column} = NEW.{column}" for column in key) + ")" for key in keys
        )
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
        op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {taken}) {refuse}"
        )
    for table in _ERASED:
        allowed = _allow(table, empty="typeof(NEW.{0}) = 'blob' AND length(NEW.{0}) = 0", same="IS")
        op.execute(f"DROP TRIGGER {table}_no_update")
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} WHEN NOT ({allowed}) "
            f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        )


def _guard_postgresql() -> None:
    for table in _KEYS:
        for event, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
            op.execute(
                f"CREATE TRIGGER {table}_no_{event} BEFORE {event.upper()} ON {table} "
                f"FOR EACH {level} EXECUTE FUNCTION sonoloop_append_only()"
            )
    for table in _ERASED:
        allowed = _allow(table, empty="length(NEW.{0}) = 0", same="IS NOT DISTINCT FROM")
        op.execute(
            f"CREATE OR REPLACE FUNCTION sonoloop_erase_{table}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {allowed} THEN RETURN NEW; END IF; "
            "RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$"
        )
        op.execute(f"DROP TRIGGER {table}_no_update ON {table}")
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION sonoloop_erase_{table}()"
        )


def _allow(table: str, *, empty: str, same: str) -> str:
    """Say in SQL which UPDATE is an erasure of a frame that was withdrawn."""
    return " AND ".join(
        [
            *(
                empty.format(column) if erased == "EMPTY" else f"NEW.{column} {erased}"
                for column, erased in _ERASED[table].items()
            ),
            *(f"NEW.{column} {same} OLD.{column}" for column in _KEPT[table]),
            "EXISTS (SELECT 1 FROM tombstones WHERE tombstones.frame_id = OLD.frame_id)",
        ]
    )
