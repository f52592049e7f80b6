"""The store's tables as they are now; the migrations lead here, and a test compares the two."""

from __future__ import annotations

from typing import Literal

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
    Text,
    UniqueConstraint,
)

GroupRole = Literal["train", "test"]
Role = Literal["train", "test", "neither"]

VERSION_TABLE = "sonoloop_schema"
APPEND_ONLY = (
    "adjudications",
    "assignments",
    "frame_marks",
    "looks",
    "marks",
    "models",
    "notes",
    "predictions",
    "promotions",
    "revisions",
    "snapshot_members",
    "snapshots",
    "test_set_members",
    "test_sets",
    "tombstones",
)

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
    # else every map is read through on the way to the number behind it
    Index(None, "frame_id", "id", "expected_dice"),
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
    # JSON: the class of each lesion by its number, and what it took; both are erased with the mask
    Column("lesions", Text, nullable=True),
    Column("effort", Text, nullable=True),
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

# What became of a frame in its annotator's queue; the last row holds.
FRAME_MARKS = Table(
    "frame_marks",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False),
    Column("annotator", String, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", String(32), nullable=False),
    Index(None, "frame_id", "number"),
    CheckConstraint("status IN ('flagged', 'skipped', 'excluded', 'open')", name="status"),
)

NOTES = Table(
    "notes",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False, index=True),
    Column("annotator", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("created", String(32), nullable=False),
)

# Who is to read a frame without seeing what others said of it.
ASSIGNMENTS = Table(
    "assignments",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False),
    Column("reader", String, nullable=False),
    Column("round", Integer, nullable=False),
    Column("created", String(32), nullable=False),
    UniqueConstraint("frame_id", "reader"),
)

# Which revisions an adjudicated one decided between, and who did.
ADJUDICATIONS = Table(
    "adjudications",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("revision_id", String(32), ForeignKey("revisions.id"), nullable=False),
    Column("original", String(32), ForeignKey("revisions.id"), nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
    UniqueConstraint("revision_id", "original"),
)

# Drawn once, when its first frame enters, and for ever.
GROUPS = Table(
    "groups",
    METADATA,
    # keyed hash of the patient, or of the first frame
    Column("id", String(64), primary_key=True),
    Column("role", String(8), nullable=False),
    Column("created", String(32), nullable=False),
    CheckConstraint("role IN ('train', 'test')", name="role"),
)

# What is kept of a frame to know its near copies again is erased when it is withdrawn.
MEMBERS = Table(
    "members",
    METADATA,
    Column("frame_id", String(64), ForeignKey("frames.id"), primary_key=True),
    Column("group_id", String(64), ForeignKey("groups.id"), nullable=False, index=True),
    Column("patient", String(64), nullable=True, index=True),
    # near copies of it, or its patient, are on the other side: it trains nowhere and judges nothing
    Column("bridges", Boolean, nullable=False),
    Column("thumbnail", LargeBinary, nullable=False),
    Column("bits", LargeBinary, nullable=False),
)

REFERENCES = Table(
    "reference_labels",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False, index=True),
    Column("label", String(32), nullable=False),
    Column("source", String, nullable=False),
    Column("created", String(32), nullable=False),
)

SETTINGS = Table(
    "settings",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
)

SNAPSHOT_MEMBERS = Table(
    "snapshot_members",
    METADATA,
    Column("snapshot", String(64), ForeignKey("snapshots.name"), primary_key=True),
    Column("revision_id", String(32), ForeignKey("revisions.id"), primary_key=True),
    Column("role", String(8), nullable=False),
    # the reference standard as it was known then
    Column("reference", String(32), nullable=True),
    CheckConstraint("role IN ('train', 'test', 'neither')", name="role"),
)

MODELS = Table(
    "models",
    METADATA,
    Column("version", String(64), primary_key=True),
    # what users see: the name and the version's first digits
    Column("model", String, nullable=False),
    Column("parent", String(64), nullable=True),
    Column("snapshot", String(64), ForeignKey("snapshots.name"), nullable=True),
    Column("origin", String(16), nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
    CheckConstraint("origin IN ('shipped', 'tuned', 'trained', 'imported')", name="origin"),
)

# What became of a model: refused, deleted, or found to have trained on a frame that judges.
MARKS = Table(
    "marks",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("version", String(64), ForeignKey("models.version"), nullable=False, index=True),
    Column("mark", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
)

TEST_SETS = Table(
    "test_sets",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created", String(32), nullable=False),
)

TEST_SET_MEMBERS = Table(
    "test_set_members",
    METADATA,
    Column("test_set", Integer, ForeignKey("test_sets.number"), primary_key=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), primary_key=True),
    Column("revision_id", String(32), ForeignKey("revisions.id"), nullable=False),
    Column("group_id", String(64), ForeignKey("groups.id"), nullable=False),
    Column("reference", String(32), nullable=True),
)

# How a model did on one test frame, as corrected; computed once.
SCORES = Table(
    "scores",
    METADATA,
    Column("version", String(64), ForeignKey("models.version"), primary_key=True),
    Column("revision_id", String(32), ForeignKey("revisions.id"), primary_key=True),
    Column("score", Text, nullable=False),
)

LOOKS = Table(
    "looks",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("test_set", Integer, ForeignKey("test_sets.number"), nullable=False),
    Column("candidate", String(64), ForeignKey("models.version"), nullable=False),
    Column("incumbent", String(64), ForeignKey("models.version"), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("figures", Text, nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
    CheckConstraint("verdict IN ('promote', 'refuse', 'inconclusive')", name="verdict"),
)

# The last row is the model in use.
PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("version", String(64), ForeignKey("models.version"), nullable=False),
    Column("previous", String(64), ForeignKey("models.version"), nullable=True),
    Column("kind", String(16), nullable=False),
    Column("look", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("looks.number"), nullable=True),
    Column("why", Text, nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
    CheckConstraint("kind IN ('first', 'gate', 'use', 'rollback')", name="kind"),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("host", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("what", String, nullable=False),
    Column("taken", String(32), nullable=False),
    Column("renewed", String(32), nullable=False),
)

TOMBSTONES = Table(
    "tombstones",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("frame_id", String(64), ForeignKey("frames.id"), nullable=False, index=True),
    Column("why", Text, nullable=False),
    Column("who", String, nullable=False),
    Column("created", String(32), nullable=False),
)
