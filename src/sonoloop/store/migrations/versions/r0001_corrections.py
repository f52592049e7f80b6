"""Frames, predictions, revisions and heads; revisions and predictions can only be added."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# REPLACE deletes the old row without firing a DELETE trigger: an INSERT over an existing key is refused too.
_KEYS = {"predictions": ("id",), "revisions": ("id", "number")}


def upgrade() -> None:
    """Create the tables and the triggers that keep history as it was written."""
    _create_frames_and_predictions()
    _create_revisions_and_heads()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def _create_frames_and_predictions() -> None:
    op.create_table(
        "frames",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("pixels_hash", sa.String(64), nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_frames"),
        sa.CheckConstraint("height > 0 AND width > 0", name="ck_frames_size"),
    )
    op.create_index("ix_frames_pixels_hash", "frames", ["pixels_hash"])
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("lesion", sa.LargeBinary, nullable=False),
        sa.Column("mask", sa.LargeBinary, nullable=False),
        sa.Column("normal", sa.Double, nullable=False),
        sa.Column("benign", sa.Double, nullable=False),
        sa.Column("malignant", sa.Double, nullable=False),
        sa.Column("expected_dice", sa.Double, nullable=False),
        sa.Column("threshold", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_predictions_frame_id"),
    )
    op.create_index("ix_predictions_frame_id", "predictions", ["frame_id"])


def _create_revisions_and_heads() -> None:
    op.create_table(
        "revisions",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("annotator", sa.String, nullable=False),
        sa.Column("parent", sa.String(32), nullable=True),
        sa.Column("mask", sa.LargeBinary, nullable=False),
        sa.Column("mask_sha256", sa.String(64), nullable=False),
        sa.Column("label", sa.String(32), nullable=False),
        sa.Column("mask_decision", sa.String(32), nullable=False),
        sa.Column("class_decision", sa.String(32), nullable=False),
        sa.Column("prediction_id", sa.String(64), nullable=True),
        sa.Column("prediction_seen", sa.Boolean, nullable=False),
        sa.Column("model", sa.String, nullable=True),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("seconds", sa.Double, nullable=True),
        sa.Column("software", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_revisions"),
        sa.UniqueConstraint("id", name="uq_revisions_id"),
        sa.UniqueConstraint("frame_id", "annotator", "id", name="uq_revisions_frame_id_annotator_id"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_revisions_frame_id"),
        sa.ForeignKeyConstraint(["parent"], ["revisions.id"], name="fk_revisions_parent"),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], name="fk_revisions_prediction_id"),
    )
    op.create_index("ix_revisions_frame_id_number", "revisions", ["frame_id", "number"])
    op.create_table(
        "heads",
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("annotator", sa.String, nullable=False),
        sa.Column("revision_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("frame_id", "annotator", name="pk_heads"),
        sa.ForeignKeyConstraint(
            ["frame_id", "annotator", "revision_id"],
            ["revisions.frame_id", "revisions.annotator", "revisions.id"],
            name="fk_heads_frame_id_annotator_revision_id",
        ),
    )


def _guard_sqlite() -> None:
    for table, keys in _KEYS.items():
        taken = " OR ".join(f"{key} = NEW.{key}" for key in keys)
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}")
        op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}")
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {taken}) {refuse}"
        )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION sonoloop_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$"
    )
    for table in _KEYS:
        for event, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
            op.execute(
                f"CREATE TRIGGER {table}_no_{event} BEFORE {event.upper()} ON {table} "
                f"FOR EACH {level} EXECUTE FUNCTION sonoloop_append_only()"
            )
