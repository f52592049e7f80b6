"""Groups, references, settings, snapshots, models, judging, leases and tombstones; a withdrawal may erase."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# REPLACE deletes the old row without firing a DELETE trigger: an INSERT over an existing key is refused too.
_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "looks": (("number",),),
    "marks": (("number",),),
    "models": (("version",),),
    "promotions": (("number",),),
    "snapshot_members": (("snapshot", "revision_id"),),
    "snapshots": (("name",),),
    "test_set_members": (("test_set", "frame_id"),),
    "test_sets": (("number",), ("sha256",)),
    "tombstones": (("number",),),
}

# What a withdrawal empties, and what must then stay as it is.
_ERASED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "predictions": (
        ("lesion", "mask"),
        ("id", "frame_id", "model", "normal", "benign", "malignant", "expected_dice", "threshold"),
    ),
    "revisions": (
        ("mask",),
        (
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
    ),
}


def upgrade() -> None:
    """Create the tables and their guards; let a withdrawal, and nothing else, through the older ones."""
    _create_groups()
    _create_references_and_settings()
    _create_snapshots()
    _create_models()
    _create_judging()
    _create_promotions()
    _create_leases_and_tombstones()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
        _let_withdrawals_pass_sqlite()
    else:
        _guard_postgresql()
        _let_withdrawals_pass_postgresql()


def _number() -> sa.Column[int]:
    return sa.Column(
        "number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False
    )


def _create_groups() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.CheckConstraint("role IN ('train', 'test')", name="role"),
    )
    op.create_table(
        "members",
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("group_id", sa.String(64), nullable=False),
        sa.Column("patient", sa.String(64), nullable=True),
        sa.Column("bridges", sa.Boolean, nullable=False),
        sa.Column("thumbnail", sa.LargeBinary, nullable=False),
        sa.Column("bits", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("frame_id", name="pk_members"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_members_frame_id"),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_members_group_id"),
    )
    op.create_index("ix_members_group_id", "members", ["group_id"])
    op.create_index("ix_members_patient", "members", ["patient"])


def _create_references_and_settings() -> None:
    op.create_table(
        "reference_labels",
        _number(),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("label", sa.String(32), nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_reference_labels"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_reference_labels_frame_id"),
    )
    op.create_index("ix_reference_labels_frame_id", "reference_labels", ["frame_id"])
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_snapshots"),
    )
    op.create_table(
        "snapshot_members",
        sa.Column("snapshot", sa.String(64), nullable=False),
        sa.Column("revision_id", sa.String(32), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("reference", sa.String(32), nullable=True),
        sa.PrimaryKeyConstraint("snapshot", "revision_id", name="pk_snapshot_members"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.name"], name="fk_snapshot_members_snapshot"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_snapshot_members_revision_id"),
        sa.CheckConstraint("role IN ('train', 'test', 'neither')", name="role"),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("parent", sa.String(64), nullable=True),
        sa.Column("snapshot", sa.String(64), nullable=True),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_models"),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshots.name"], name="fk_models_snapshot"),
        sa.CheckConstraint("origin IN ('shipped', 'tuned', 'trained', 'imported')", name="origin"),
    )
    op.create_table(
        "marks",
        _number(),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("mark", sa.String(16), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_marks"),
        sa.ForeignKeyConstraint(["version"], ["models.version"], name="fk_marks_version"),
    )
    op.create_index("ix_marks_version", "marks", ["version"])


def _create_judging() -> None:
    op.create_table(
        "test_sets",
        sa.Column("number", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_test_sets"),
        sa.UniqueConstraint("sha256", name="uq_test_sets_sha256"),
    )
    op.create_table(
        "test_set_members",
        sa.Column("test_set", sa.Integer, nullable=False),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("revision_id", sa.String(32), nullable=False),
        sa.Column("group_id", sa.String(64), nullable=False),
        sa.Column("reference", sa.String(32), nullable=True),
        sa.PrimaryKeyConstraint("test_set", "frame_id", name="pk_test_set_members"),
        sa.ForeignKeyConstraint(["test_set"], ["test_sets.number"], name="fk_test_set_members_test_set"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_test_set_members_frame_id"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_test_set_members_revision_id"),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_test_set_members_group_id"),
    )
    op.create_table(
        "scores",
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("revision_id", sa.String(32), nullable=False),
        sa.Column("score", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("version", "revision_id", name="pk_scores"),
        sa.ForeignKeyConstraint(["version"], ["models.version"], name="fk_scores_version"),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name="fk_scores_revision_id"),
    )
    op.create_table(
        "looks",
        _number(),
        sa.Column("test_set", sa.Integer, nullable=False),
        sa.Column("candidate", sa.String(64), nullable=False),
        sa.Column("incumbent", sa.String(64), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("figures", sa.Text, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_looks"),
        sa.ForeignKeyConstraint(["test_set"], ["test_sets.number"], name="fk_looks_test_set"),
        sa.ForeignKeyConstraint(["candidate"], ["models.version"], name="fk_looks_candidate"),
        sa.ForeignKeyConstraint(["incumbent"], ["models.version"], name="fk_looks_incumbent"),
        sa.CheckConstraint("verdict IN ('promote', 'refuse', 'inconclusive')", name="verdict"),
    )


def _create_promotions() -> None:
    op.create_table(
        "promotions",
        _number(),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("previous", sa.String(64), nullable=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("look", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=True),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_promotions"),
        sa.ForeignKeyConstraint(["version"], ["models.version"], name="fk_promotions_version"),
        sa.ForeignKeyConstraint(["previous"], ["models.version"], name="fk_promotions_previous"),
        sa.ForeignKeyConstraint(["look"], ["looks.number"], name="fk_promotions_look"),
        sa.CheckConstraint("kind IN ('first', 'gate', 'use', 'rollback')", name="kind"),
    )


def _create_leases_and_tombstones() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("taken", sa.String(32), nullable=False),
        sa.Column("renewed", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "tombstones",
        _number(),
        sa.Column("frame_id", sa.String(64), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_tombstones"),
        sa.ForeignKeyConstraint(["frame_id"], ["frames.id"], name="fk_tombstones_frame_id"),
    )
    op.create_index("ix_tombstones_frame_id", "tombstones", ["frame_id"])


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


def _let_withdrawals_pass_sqlite() -> None:
    for table, (erased, kept) in _ERASED.items():
        allowed = " AND ".join(
            [
                *(f"typeof(NEW.{column}) = 'blob' AND length(NEW.{column}) = 0" for column in erased),
                *(f"NEW.{column} IS OLD.{column}" for column in kept),
                "EXISTS (SELECT 1 FROM tombstones WHERE tombstones.frame_id = OLD.frame_id)",
            ]
        )
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


def _let_withdrawals_pass_postgresql() -> None:
    for table, (erased, kept) in _ERASED.items():
        allowed = " AND ".join(
            [
                *(f"length(NEW.{column}) = 0" for column in erased),
                *(f"NEW.{column} IS NOT DISTINCT FROM OLD.{column}" for column in kept),
                "EXISTS (SELECT 1 FROM tombstones WHERE tombstones.frame_id = OLD.frame_id)",
            ]
        )
        op.execute(
            f"CREATE FUNCTION sonoloop_erase_{table}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {allowed} THEN RETURN NEW; END IF; "
            "RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$"
        )
        op.execute(f"DROP TRIGGER {table}_no_update ON {table}")
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION sonoloop_erase_{table}()"
        )
