"""The store's tables as they are now; the migrations lead here, and a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

VERSION_TABLE = "sonoloop_schema"
APPEND_ONLY = ("predictions", "revisions")

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# No file names here: they carry names of people.
FRAMES = Table(
    "frames",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("pixels_hash", String(64), nullable=False, index=True),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    CheckConstraint("height > 0 AND width > 0", name="size"),
)

PREDICTIONS = Table(
    "predictions",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False, index=True),
    Column("model", String, nullable=False),
    Column("lesion", LargeBinary, nullable=False),
    Column("mask", LargeBinary, nullable=False),
    Column("normal", Double, nullable=False),
    Column("benign", Double, nullable=False),
    Column("malignant", Double, nullable=False),
    Column("expected_dice", Double, nullable=False),
    Column("threshold", Double, nullable=False),
)

REVISIONS = Table(
    "revisions",
    METADATA,
    # The order of acceptance: clocks are set back, and those of two machines differ.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False),
    Column("annotator", String, nullable=False),
    Column("parent", String(32), ForeignKey("revisions.id"), nullable=True),
    Column("mask", LargeBinary, nullable=False),
    Column("mask_sha256", String(64), nullable=False),
    Column("label", String(32), nullable=False),
    Column("mask_decision", String(32), nullable=False),
    Column("class_decision", String(32), nullable=False),
    Column("prediction_id", String(64), ForeignKey("predictions.id"), nullable=True),
    Column("prediction_seen", Boolean, nullable=False),
    Column("model", String, nullable=True),
    Column("created", String(32), nullable=False),
    Column("seconds", Double, nullable=True),
    Column("software", String, nullable=False),
    UniqueConstraint("frame_id", "annotator", "id"),
    Index(None, "frame_id", "number"),
)

# A head can only be a revision of that very frame by that very annotator.
HEADS = Table(
    "heads",
    METADATA,
    Column("frame_id", String(64), primary_key=True),
    Column("annotator", String, primary_key=True),
    Column("revision_id", String(32), nullable=False),
    ForeignKeyConstraint(
        ["frame_id", "annotator", "revision_id"],
        ["revisions.frame_id", "revisions.annotator", "revisions.id"],
    ),
)
