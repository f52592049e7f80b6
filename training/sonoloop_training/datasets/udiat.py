"""Dataset B, from UDIAT: `original`, `GT` and `DatasetB.xlsx`.

Yap et al., Automated Breast Ultrasound Lesions Detection Using Convolutional Neural Networks, IEEE Journal of
Biomedical and Health Informatics 22, 1218-1226, 2018.
"""

from __future__ import annotations

from pathlib import Path

from sonoloop.errors import TrainingError
from sonoloop_training.datasets.groups import FindGroups, group_samples
from sonoloop_training.datasets.sample import Sample, file_in, images_in, parse_class, read_table, subfolder

TABLES = ("DatasetB.xlsx", "DatasetB.csv")
_SCANNER = "Siemens ACUSON Sequoia C512"


def is_udiat(root: Path) -> bool:
    """Whether a folder holds the folders of Dataset B."""
    return subfolder(root, "original") is not None and subfolder(root, "GT") is not None


def load_udiat(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List Dataset B: `original/000001.png`, `GT/000001.png`, and the table with Image and Type.

    It numbers no patients, so that a group is a set of near-duplicates. The table's other columns become
    facts; "diagnosis" is named "histology".
    """
    originals, masks = subfolder(root, "original"), subfolder(root, "GT")
    if originals is None or masks is None:
        raise TrainingError(f"{root} has no folder original or GT; give Dataset B's own folder")
    table = next((path for name in TABLES if (path := file_in(root, name)) is not None), None)
    if table is None:
        raise TrainingError(f"{root} has no DatasetB.xlsx, which says what is benign; copy it there")
    # Excel drops the leading zeros where the column is a number
    rows = {row["image"].zfill(6): row for row in read_table(table, ("image", "type"))}
    drawn = images_in(masks)
    samples = []
    for name, image in images_in(originals).items():
        if name not in rows:
            raise TrainingError(f"{table.name} has no row for {image.name}; add it, or move the image away")
        if name not in drawn:
            raise TrainingError(f"{image.name} has no mask in {masks}; copy it there, or move the image away")
        row = rows[name]
        facts = {column: text for column, text in row.items() if column not in ("image", "type") and text}
        if "diagnosis" in facts:
            facts["histology"] = facts.pop("diagnosis")
        samples.append(
            Sample(
                name=name,
                dataset="udiat",
                image=image,
                masks=(drawn[name],),
                label=parse_class(row["type"], table, name),
                group=f"udiat/{name}",
                scanner=_SCANNER,
                facts=facts,
            )
        )
    if not samples:
        raise TrainingError(f"{originals} holds no images; unpack Dataset B again")
    return group_samples(samples, root, groups=groups, find_groups=find_groups)
