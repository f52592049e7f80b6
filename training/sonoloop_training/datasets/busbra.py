"""BUS-BRA: `Images`, `Masks`, `bus_data.csv`, and the folds it was published with.

Gómez-Flores et al., BUS-BRA: A Breast Ultrasound Dataset for Assessing Computer-aided Diagnosis Systems,
Medical Physics 51, 3110-3123, 2024.
"""

from __future__ import annotations

from pathlib import Path

from sonoloop.errors import TrainingError
from sonoloop_training.datasets.groups import FindGroups
from sonoloop_training.datasets.sample import Sample, file_in, parse_class, read_table, subfolder

TABLE = "bus_data.csv"
_FOLDS = ("5-fold", "10-fold")
_FACTS = {"histology": "histology", "birads": "birads", "device": "device", "side": "side", "bbox": "box"}


def is_busbra(root: Path) -> bool:
    """Whether the table of BUS-BRA lies in a folder."""
    return file_in(root, TABLE) is not None


def load_busbra(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List BUS-BRA; a group is a patient, whatever `groups` says.

    The scanner is the column `Device` without the probe's frequencies. Folds are taken from `5-fold-cv.csv`
    and `10-fold-cv.csv` (columns ID and kFold) where they are there, as the facts "5-fold" and "10-fold".
    """
    table = file_in(root, TABLE)
    if table is None:
        raise TrainingError(f"{root} has no {TABLE}; give BUS-BRA's own folder")
    images, masks = subfolder(root, "Images"), subfolder(root, "Masks")
    if images is None or masks is None:
        raise TrainingError(f"{root} has no folder Images or Masks; unpack BUS-BRA again")
    folds = {name: _read_folds(root, name) for name in _FOLDS}
    samples = []
    for row in read_table(table, ("id", "case", "pathology")):
        name = row["id"]
        image = images / f"{name}.png"
        mask = masks / f"{name.replace('bus_', 'mask_', 1)}.png"
        if Path(name).name != name or not (image.is_file() and mask.is_file()):
            raise TrainingError(
                f"{TABLE} names {name}, whose image or mask is missing; unpack BUS-BRA again, or drop the row"
            )
        facts = {fact: row[column] for column, fact in _FACTS.items() if row.get(column)}
        facts |= {fold: number[name] for fold, number in folds.items() if name in number}
        samples.append(
            Sample(
                name=name,
                dataset="busbra",
                image=image,
                masks=(mask,),
                label=parse_class(row["pathology"], table, name),
                group=f"busbra/{row['case']}",
                patient=row["case"],
                scanner=row.get("device", "").split("@")[0].strip(),
                facts=facts,
            )
        )
    return samples


def _read_folds(root: Path, name: str) -> dict[str, str]:
    path = file_in(root, f"{name}-cv.csv")
    if path is None:
        return {}
    return {row["id"]: row["kfold"] for row in read_table(path, ("id", "kfold"))}
