"""A store on a network share is known by what is mounted where it lies."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from sqlalchemy import make_url

from sonoloop.gui.words import fit_toast
from sonoloop.store import network_share
from sonoloop.store.network_share import find_share, warn_of_share

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="drives are asked for there")

MOUNTED = {
    "/": "ext4",
    "/mnt/clinic": "nfs4",
    "/mnt/clinic/local": "xfs",
    "/mnt/clinic2": "cifs",
    "/media/covered": "nfs",
    "/home/reader/remote": "fuse.sshfs",
    "/run/user/1000/gvfs": "fuse.gvfsd-fuse",
    "/Volumes/study": "smbfs",
}


@pytest.fixture(autouse=True)
def mounted(monkeypatch):
    parts = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in MOUNTED.items()]
    parts.append(SimpleNamespace(mountpoint="/media/covered", fstype="ext4"))
    monkeypatch.setattr(psutil, "disk_partitions", lambda **how: parts if how["all"] else [])
    monkeypatch.setattr(network_share, "_told", set())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/clinic/study.sqlite", "nfs4"),
        ("/mnt/clinic/local/study.sqlite", None),
        ("/mnt/clinic2/deep/er/study.sqlite", "cifs"),
        ("/mnt/clinic3/study.sqlite", None),
        ("/media/covered/study.sqlite", None),
        ("/home/reader/remote/study.sqlite", "sshfs"),
        ("/home/reader/study.sqlite", None),
        ("/run/user/1000/gvfs/smb-share:server=nas/study.sqlite", "gvfsd-fuse"),
        ("/Volumes/study/study.sqlite", "smbfs"),
    ],
)
def test_the_mount_that_is_nearest_tells(path, kind):
    assert find_share(Path(path)) == kind


def test_a_link_onto_a_share_is_followed(tmp_path, monkeypatch):
    parts = [SimpleNamespace(mountpoint=str(tmp_path / "share"), fstype="cifs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: parts)
    (tmp_path / "share").mkdir()
    (tmp_path / "study.sqlite").symlink_to(tmp_path / "share" / "study.sqlite")
    assert find_share(tmp_path / "study.sqlite") == "cifs"


def test_a_system_that_does_not_tell_stops_nobody(monkeypatch):
    def refuse(**_: object) -> list[object]:
        raise PermissionError

    monkeypatch.setattr(psutil, "disk_partitions", refuse)
    assert find_share(Path("/mnt/clinic/study.sqlite")) is None


def test_it_is_told_once_and_says_what_to_do():
    told: list[str] = []
    for path in ("/mnt/clinic/study.sqlite", "/mnt/clinic/study.sqlite", "/home/reader/study.sqlite"):
        warn_of_share(make_url(f"sqlite+pysqlite:///{path}"), told.append)
    warn_of_share(make_url("postgresql+psycopg://server/project"), told.append)
    (only,) = told
    assert fit_toast(only) == (
        "the store is on a network share (nfs4); use PostgreSQL, or a disk of this computer…"
    )
    assert "sonoloop store backup" in only and "/mnt/clinic/study.sqlite" in only
