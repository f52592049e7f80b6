"""Packs: what they hold, that they train as the files do, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZIP_LZMA, ZIP_STORED, ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from sonoloop.errors import ImageTruncatedError, SonoloopError, TrainingError
from sonoloop.jobs.events import Notice, Packed, Progress, drain
from sonoloop.jobs.request import PackRequest
from sonoloop_training.datasets import find_datasets
from sonoloop_training.datasets.pack import HEADER, INDEX, describe_packed, image_member, mask_member
from sonoloop_training.datasets.packing import pack, shrink
from sonoloop_training.fit.batches import cache_samples
from sonoloop_training.fit.train import list_members
from sonoloop_training.splits import PARTS, SplitConfig, apply_split


def make(data: Path, out: Path, **options: object) -> list:
    return list(pack(PackRequest(folders=(data,), out=out, **options)))


@pytest.fixture(scope="module")
def packed(datasets, tmp_path_factory) -> Path:
    """The phantoms of BUSI and BUS-BRA, 96 x 128, at half their size."""
    out = tmp_path_factory.mktemp("packed") / "two.pack"
    make(datasets, out, size=64, lossless=True)
    return out


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """A user's own dataset, whose names name people; an image of it is smaller than the pack's size."""
    root = tmp_path_factory.mktemp("own") / "Clinic"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["image,class,patient,scanner,remark"]
    for number, (name, side) in enumerate((("anna", 40), ("anna-2", 100), ("bert", 90))):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (side, 80), dtype=np.uint8)).save(root / f"images/{name}.png")
        mask = np.zeros((side, 80), np.uint8)
        mask[10:30, 20:60] = 255
        Image.fromarray(mask).save(root / f"masks/{name}.png")
        rows.append(f"{name},benign,{name.partition('-')[0]},Acme,told by {name}")
    (root / "table.csv").write_text("\n".join(rows))
    return root


def test_a_pack_tells_what_it_holds(datasets, tmp_path):
    events = make(datasets, tmp_path / "new.pack", size=64)
    assert isinstance(events[0], Progress)
    done = events[-1]
    assert isinstance(done, Packed)
    assert (done.images, done.resized, done.datasets) == (38, 38, {"busbra": 16, "busi": 22})
    assert done.bytes == (tmp_path / "new.pack").stat().st_size
    contents = json.loads(ZipFile(done.path).read(HEADER))
    assert contents["command"] == f"sonoloop data pack {datasets.name} --size 64"
    assert [origin["dataset"] for origin in contents["origins"]] == ["busbra", "busi"]
    assert "10.1016/j.dib.2019.104863" in contents["origins"][1]["terms"]


def test_samples_and_splits_come_out_as_from_the_files(datasets, packed):
    files, ours = find_datasets(datasets), find_datasets(packed)
    told = ("key", "label", "group", "computed", "patient", "scanner", "overlay", "facts")
    for one, other in zip(files, ours, strict=True):
        assert [getattr(one, name) for name in told] == [getattr(other, name) for name in told]
    for config in (
        SplitConfig(validation=0.2, test=0.3),
        SplitConfig(method="folds", folds=2, validation=0.3),
        SplitConfig(method="leave-dataset", left_out="busi", validation=0.3),
    ):
        parts, again = apply_split(config, files), apply_split(config, ours)
        for part in PARTS:
            assert [s.key for s in parts[part]] == [s.key for s in again[part]]
    # what it is known again by is that of the files too, so that leaks are found in either
    assert drain(list_members({p: files if p == "train" else [] for p in PARTS})) == drain(
        list_members({p: ours if p == "train" else [] for p in PARTS})
    )


def test_a_lossless_pack_of_a_networks_size_gives_it_the_very_pixels(datasets, packed, clinic, tmp_path):
    make(clinic, tmp_path / "own.pack", size=64, lossless=True)
    for data, file in ((datasets, packed), (clinic, tmp_path / "own.pack")):
        one, other = (drain(cache_samples(find_datasets(place), size=64)) for place in (data, file))
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)
        assert torch.equal(one.labels, other.labels)


def test_a_network_of_a_smaller_size_sees_it_at_the_very_place(tmp_path):
    # 243 of 320 columns would become 194 of 256, and those of the file become 195
    root = tmp_path / "Clinic"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    Image.fromarray(np.full((500, 380), 200, np.uint8)).save(root / "images" / "a.png")
    Image.fromarray(np.full((500, 380), 255, np.uint8)).save(root / "masks" / "a.png")
    (root / "table.csv").write_text("image,class,patient\na,benign,1\n")
    make(root, tmp_path / "one.pack", size=320)
    one, other = (drain(cache_samples(find_datasets(d), size=256)) for d in (root, tmp_path / "one.pack"))
    assert int(one.masks.sum()) == 256 * 195
    assert torch.equal(one.masks, other.masks)
    assert torch.equal(one.images, other.images)


def test_an_image_that_is_small_already_is_the_same_at_every_size(clinic, tmp_path):
    make(clinic, tmp_path / "own.pack", size=128, lossless=True)
    for one, other in zip(find_datasets(clinic), find_datasets(tmp_path / "own.pack"), strict=True):
        (frame, mask), (packed_frame, packed_mask) = one.read(), other.read()
        assert np.array_equal(frame.pixels, packed_frame.pixels)
        assert np.array_equal(mask, packed_mask)


def test_a_small_image_of_16_bits_stays_as_large_as_it_is():
    pixels = np.linspace(0, 65535, 40 * 30).reshape(40, 30).astype(np.uint16)
    mask = pixels > 30000
    small, drawn = shrink(pixels, mask, 64)
    assert small.dtype == np.uint8
    assert np.array_equal(small, np.rint(pixels / 257))
    assert np.array_equal(drawn, mask)


def test_without_lossless_no_grey_level_is_off_by_more_than_two(packed, datasets, tmp_path):
    make(datasets, tmp_path / "rounded.pack", size=64)
    for one, other in zip(find_datasets(packed), find_datasets(tmp_path / "rounded.pack"), strict=True):
        (exact, mask), (rounded, other_mask) = one.read(), other.read()
        assert np.abs(exact.pixels.astype(int) - rounded.pixels.astype(int)).max() <= 2
        assert np.array_equal(mask, other_mask)
        assert (rounded.pixels[exact.pixels == 0] == 0).all()


def test_the_spacing_is_that_of_the_resized_image(tmp_path):
    root = tmp_path / "BrEaST"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (100, 201), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "case001.png")
    mask = np.zeros((100, 201), np.uint8)
    mask[20:60, 50:120] = 255
    Image.fromarray(mask).save(root / "case001_tumor.png")
    (root / "index.csv").write_text(
        "image,mask,class,patient,pixel_size_cm\ncase001.png,case001_tumor.png,benign,BrEaST-1,0.01\n"
    )
    make(root, tmp_path / "one.pack", size=64)
    frame, mask = find_datasets(tmp_path / "one.pack")[0].read()
    assert frame.shape == (32, 64)
    assert frame.spacing == pytest.approx((0.1 * 100 / 32, 0.1 * 201 / 64))
    # so that an area in square mm stays, to within a pixel's border
    assert mask.sum() * np.prod(frame.spacing) == pytest.approx(40 * 70 * 0.01, rel=0.03)


def test_names_of_a_persons_own_files_stay_here_unless_asked_for(clinic, tmp_path):
    out = tmp_path / "own.pack"
    events = make(clinic, out, size=64)
    assert any("--keep-names keeps names" in e.message for e in events if isinstance(e, Notice))
    with ZipFile(out) as archive:
        text = archive.read(INDEX).decode() + archive.read(HEADER).decode()
    assert "anna" not in text
    assert "bert" not in text
    one, two, three = find_datasets(out)
    # who belongs together is still told, and which scanner
    assert one.group == two.group != three.group
    assert {s.scanner for s in (one, two, three)} == {"Acme"}
    assert not (one.patient or one.facts)
    make(clinic, out, size=64, keep_names=True)
    kept = find_datasets(out)
    assert [s.key for s in kept] == ["clinic/anna", "clinic/anna-2", "clinic/bert"]
    assert kept[0].facts == {"remark": "told by anna"}


def test_packing_again_gives_the_same_bytes_and_replaces_nothing_else(clinic, tmp_path):
    out = tmp_path / "own.pack"
    make(clinic, out, size=64)
    before = out.read_bytes()
    make(clinic, out, size=64)
    assert out.read_bytes() == before
    out.write_text("a letter")
    with pytest.raises(TrainingError, match="is there and is no pack; give another --out"):
        make(clinic, out, size=64)
    assert out.read_text() == "a letter"


def test_a_packing_that_is_cancelled_leaves_nothing_and_keeps_the_earlier_one(clinic, tmp_path):
    for there in (False, True):
        out = tmp_path / f"{there}.pack"
        if there:
            make(clinic, out, size=64)
        before = sorted(path.name for path in tmp_path.iterdir())
        packing = pack(PackRequest(folders=(clinic,), out=out, size=32))
        next(packing)
        assert len(list(tmp_path.iterdir())) == len(before) + 1
        packing.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_cannot_be_packed_is_named(clinic, packed, tmp_path):
    with pytest.raises(TrainingError, match=r"two\.pack is a pack already; give the folders"):
        make(packed, tmp_path / "again.pack")
    with pytest.raises(TrainingError, match="are both 'clinic'"):
        list(pack(PackRequest(folders=(clinic, clinic), out=tmp_path / "twice.pack")))
    with pytest.raises(TrainingError, match=r"there is no folder .*gone; make it"):
        make(clinic, tmp_path / "gone" / "a.pack")
    with pytest.raises(SonoloopError, match="name the folders to pack"):
        PackRequest(out=tmp_path / "a.pack")
    data = shutil.copytree(clinic, tmp_path / "data" / "Clinic")
    mask = np.zeros((100, 80), np.uint8)
    mask[40, 40] = 255
    Image.fromarray(mask).save(data / "masks" / "anna-2.png")
    with pytest.raises(TrainingError, match="the lesion of clinic/anna-2 is too small to be seen at 32"):
        make(data, tmp_path / "small.pack", size=32)
    (data / "masks" / "anna-2.png").write_bytes(b"x")
    with pytest.raises(SonoloopError, match="anna-2"):
        make(data, tmp_path / "small.pack", size=32)
    assert not list(tmp_path.glob("*.pack"))


def rewrite(source: Path, out: Path, change) -> Path:
    """Copy a pack with its members as `change` leaves them."""
    with ZipFile(source) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    change(members)
    with ZipFile(out, "w", ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out


def entry(**changes):
    def change(members):
        lines = members[INDEX].decode().splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | changes)
        members[INDEX] = "".join(f"{line}\n" for line in lines).encode()

    return change


def contents(**changes):
    def change(members):
        members[HEADER] = json.dumps(json.loads(members[HEADER]) | changes).encode()

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.pop(INDEX), "it lacks index.jsonl"),
        (lambda m: m.pop(image_member(1)), "it lacks images/000001.webp, which is busbra/"),
        (lambda m: m.pop(mask_member(1)), "it lacks masks/000001.png"),
        (lambda m: m.update({INDEX: m[INDEX].splitlines()[0] + b"\n"}), "holds 38 images, and lists 1"),
        (lambda m: m.update({INDEX: b"\n" * 9999}), "says that it holds 38 images, and lists 9999"),
        (lambda m: m.update({INDEX: b" " * 10**7}), "index.jsonl has 10,000,000 bytes, more than"),
        (lambda m: m.update({"images/../../x": b""}), "it holds files that it does not list"),
        (lambda m: m.update({INDEX: b"[" * 100_000 + m[INDEX]}), "line 1 of its index: it is nested"),
        (lambda m: m.update({INDEX: m[INDEX].replace(b'"busi"', b'"busbra"')}), "the group"),
        (lambda m: m.update({HEADER: b"\xff"}), "no text in UTF-8"),
        (lambda m: m.update({HEADER: b"[]"}), "no table of values"),
        (contents(format=2), "its format is 2, and this Sonoloop reads 1"),
        (contents(format=True), "format must be a whole number"),
        (contents(size=10**6), "its size is 1000000"),
        (contents(images=10**12), "images, not 1 to"),
        (contents(origins=[]), "it lists other images than it says"),
        (entry(name="../../etc/passwd"), "holds what a name may not"),
        (entry(name="a\\b"), "holds what a name may not"),
        (entry(name="a\u202eb"), "control characters"),
        (entry(name=""), "is empty"),
        (entry(dataset="..", group="../x"), "holds what a name may not"),
        (entry(dataset="phantom", group="phantom/x"), "holds what a name may not"),
        (entry(group="busi/benign (1)"), "is none of busbra"),
        (entry(label="cyst"), "the class 'cyst' is none of"),
        (entry(spacing=[0, 1]), "mm does not exist"),
        (entry(spacing=[1e400, 1]), "no number that JSON may hold"),
        (entry(spacing=[1]), "mm does not exist"),
        (entry(facts={"a": 1}), "1 is no str"),
        (entry(id="x"), "id is no hash"),
        (entry(height=-1), "does not exist"),
        (entry(name=None), "None is no str"),
        (entry(name="bus_0001-r", group="busbra/1"), "twice"),
    ],
)
def test_a_pack_that_lies_is_refused_by_name(packed, tmp_path, change, told):
    lying = rewrite(packed, tmp_path / "lying.pack", change)
    with pytest.raises(TrainingError) as raised:
        find_datasets(lying)
    assert str(raised.value).startswith(f"{lying} cannot be used as a pack: ")
    assert told in str(raised.value)


def test_an_image_of_another_shape_than_the_index_says_is_refused(packed, tmp_path):
    # it would be taught distorted
    for height, width in ((10, 4000), (4000, 10), (1, 10**15), (48, 64)):
        lying = rewrite(packed, tmp_path / "a.pack", entry(height=height, width=width))
        if (height, width) == (48, 64):
            assert find_datasets(lying)[0].read()[0].shape == (48, 64)
        else:
            with pytest.raises(ImageTruncatedError, match=r"it has 64 x 48 pixels, and by the index \d+ x"):
                find_datasets(lying)[0].read()


def test_a_pack_that_is_packed_otherwise_or_holds_a_file_twice_is_refused(packed, tmp_path):
    with ZipFile(packed) as source, ZipFile(tmp_path / "other.pack", "w", ZIP_LZMA) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
    with pytest.raises(TrainingError, match="packed otherwise than usual"):
        find_datasets(tmp_path / "other.pack")
    shutil.copy(packed, tmp_path / "twice.pack")
    with ZipFile(tmp_path / "twice.pack", "a") as out, pytest.warns(UserWarning, match="Duplicate name"):
        out.writestr(INDEX, out.read(INDEX))
    with pytest.raises(TrainingError, match="or one twice"):
        find_datasets(tmp_path / "twice.pack")


def test_a_model_of_a_larger_size_than_the_packs_is_told(packed):
    samples = find_datasets(packed)
    assert len(describe_packed(samples, shown=64)) == 1
    assert (
        "shown images of 96 pixels, and the pack's are enlarged from 64"
        in describe_packed(samples, shown=96)[1]
    )


def test_an_image_that_is_damaged_is_named(packed, tmp_path):
    other = {image_member(0): image_member(1), mask_member(0): mask_member(1)}
    for name, source in other.items():
        swapped = rewrite(packed, tmp_path / "a.pack", lambda m, n=name, s=source: m.update({n: m[s]}))
        with pytest.raises(
            ImageTruncatedError, match=r"bus_0001-l in a\.pack is damaged: its bytes are others"
        ):
            find_datasets(swapped)[0].read()
    # a byte that turned over on the way
    data = bytearray(packed.read_bytes())
    with ZipFile(packed) as archive:
        start = archive.getinfo(image_member(0)).header_offset
    data[start + 200] ^= 1
    (tmp_path / "b.pack").write_bytes(data)
    with pytest.raises(ImageTruncatedError, match=r"bus_0001-l in b\.pack is damaged: Bad CRC-32"):
        find_datasets(tmp_path / "b.pack")[0].read()


def test_a_pack_that_broke_off_is_refused(packed, tmp_path):
    for size in (100, 5000, packed.stat().st_size - 30):
        (tmp_path / "cut.pack").write_bytes(packed.read_bytes()[:size])
        with pytest.raises(TrainingError, match=r"cut\.pack cannot be used as a pack: it cannot be read"):
            find_datasets(tmp_path / "cut.pack")
    (tmp_path / "no.pack").write_bytes(b"x" * 500)
    with pytest.raises(TrainingError, match=r"no\.pack is a file; give the folder .* or a pack of them"):
        find_datasets(tmp_path / "no.pack")
