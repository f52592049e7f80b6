"""The members of a zip file that may be written to disk, none outside the folder it is unpacked to."""

from __future__ import annotations

import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from sonoloop.errors import TrainingError
from sonoloop.imaging.files import SUFFIXES, fold_case

# what of an archive is of use; anything else in it is passed over
TAKEN = SUFFIXES | {".csv", ".json", ".txt"}

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³])(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
# far below a bomb's ratio, and too small to fill a disk
_SMALL = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is unpacked at most.

    Parameters
    ----------
    members : int
        Files, those that are passed over counted too.
    file_bytes, total_bytes : int
        Size unpacked, of one and of all.
    ratio : float
        Size unpacked by size packed, of one file above 1 MB.
    """

    members: int = 10_000
    file_bytes: int = 256_000_000
    total_bytes: int = 4_000_000_000
    ratio: float = 100


def list_members(archive: ZipFile, limits: Limits, name: str) -> list[tuple[ZipInfo, PurePosixPath]]:
    """Return the members to take, and the path of each within the folder that will hold them.

    One folder around everything is taken off. The whole archive is refused for one member that is unsafe.

    Parameters
    ----------
    archive : zipfile.ZipFile
        Open for reading.
    limits : Limits
        Judged by the archive's own table; `read_member` holds the files to it.
    name : str
        What to call the archive in an error.

    Raises
    ------
    TrainingError
        If a member would be written outside the folder or could not be on Windows, is a link or encrypted,
        differs from another in case only, or is above a limit; or if there is nothing to take.
    """
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) > limits.members:
        raise TrainingError(f"{name} has {len(members)} files, more than {limits.members}; is it a dataset?")
    taken: list[tuple[ZipInfo, PurePosixPath]] = []
    seen: set[str] = set()
    for info in members:
        path = check_path(info.filename, name)
        _check_kind(info, name)
        if path.suffix.lower() not in TAKEN or any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        _check_size(info, limits, name)
        key = fold_case(Path(path))
        if key in seen:
            raise TrainingError(f"{name} has {info.filename} twice; pack it again")
        seen.add(key)
        taken.append((info, path))
    if not taken:
        raise TrainingError(f"{name} has no images in it; give the dataset as it was downloaded")
    total = sum(info.file_size for info, _ in taken)
    if total > limits.total_bytes:
        raise TrainingError(
            f"{name} unpacks to {total / 1e9:.1f} GB, more than {limits.total_bytes / 1e9:g} GB"
        )
    if len({path.parts[0] for _, path in taken}) == 1 and all(len(path.parts) > 1 for _, path in taken):
        taken = [(info, PurePosixPath(*path.parts[1:])) for info, path in taken]
    return taken


def read_member(archive: ZipFile, info: ZipInfo, name: str) -> bytes:
    """Read one file.

    Raises
    ------
    TrainingError
        If it is damaged or is not as large as the archive says.
    """
    try:
        with archive.open(info) as file:
            # one byte more than promised would show that the promise was false
            data = file.read(info.file_size + 1)
    except (BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise TrainingError(f"{info.filename} in {name} is damaged ({error}); download it again") from error
    if len(data) != info.file_size:
        raise TrainingError(f"{info.filename} in {name} is damaged (wrong size); download it again")
    return data


def check_path(member: str, name: str) -> PurePosixPath:
    r"""Return a member's path with `/` between its parts.

    Raises
    ------
    TrainingError
        If it is absolute, has a drive or `..`, or a part that Windows cannot write.
    """
    path = PurePosixPath(member.replace("\\", "/"))
    unsafe = path.is_absolute() or not path.parts or ".." in path.parts
    if unsafe or any(_is_unwritable(part) for part in path.parts):
        raise TrainingError(f"{name} has a member {member!r}, whose path is not safe; nothing was unpacked")
    return path


def _is_unwritable(part: str) -> bool:
    return bool(
        _RESERVED.fullmatch(part) or _FORBIDDEN.search(part) or part.endswith((".", " ")) or len(part) > 200
    )


def _check_kind(info: ZipInfo, name: str) -> None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise TrainingError(f"{name} has {info.filename}, which is a link or no file; nothing was unpacked")
    if info.flag_bits & 0x1:
        raise TrainingError(f"{name} is encrypted; unpack it by hand and give the folder")


def _check_size(info: ZipInfo, limits: Limits, name: str) -> None:
    if info.file_size > limits.file_bytes:
        raise TrainingError(
            f"{info.filename} in {name} unpacks to {info.file_size / 1e6:.0f} MB, more than "
            f"{limits.file_bytes / 1e6:.0f} MB; nothing was unpacked"
        )
    if info.file_size > _SMALL and info.file_size > limits.ratio * info.compress_size:
        raise TrainingError(
            f"{info.filename} in {name} unpacks to over {limits.ratio:g} times its size; nothing was unpacked"
        )
