"""Which images are one scene again."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sonoloop.imaging.fingerprints import NEAR, correlate, distance, fingerprint, sketch
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import drain
from sonoloop_training.checking.survey import find_sources
from sonoloop_training.datasets import Sample
from sonoloop_training.datasets.groups import (
    Pair,
    group_pairs,
    match_sketches,
    near_duplicate_groups,
    sketch_sample,
)


@pytest.fixture(scope="module")
def scene():
    return phantom("benign", seed=3, shape=(240, 300)).image


@pytest.fixture(scope="module")
def others():
    return [phantom("benign", seed=seed, shape=(240, 300)).image for seed in range(20, 26)]


def with_callipers(pixels):
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for x, y in ((80, 90), (180, 100), (130, 60), (130, 150)):
        draw.line((x - 5, y, x + 5, y), fill=255)
        draw.line((x, y - 5, x, y + 5), fill=255)
    draw.text((20, 215), "RT BREAST", fill=255)
    return np.asarray(image)


TWINS = {
    "the same": lambda pixels: pixels,
    "mirrored": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
    "cropped left": lambda pixels: pixels[:, 45:],
    "cropped all round": lambda pixels: pixels[15:220, 30:265],
    "with callipers": with_callipers,
    "brighter": lambda pixels: (255 * (pixels / 255) ** 0.7).astype(np.uint8),
    "in 16 bits": lambda pixels: pixels.astype(np.uint16) * 16,
    "half the size": lambda pixels: np.asarray(Image.fromarray(pixels).resize((150, 120))),
    "cropped, mirrored, with callipers": lambda pixels: np.ascontiguousarray(
        with_callipers(pixels)[:, 30:280][:, ::-1]
    ),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_correlates_and_mirroring_is_told(scene, twin):
    correlation, mirrored = correlate(sketch(scene), sketch(TWINS[twin](scene)))
    assert correlation > 0.6
    assert mirrored == ("mirrored" in twin)


def test_other_scenes_do_not_correlate(scene, others):
    highest = max(correlate(sketch(scene), sketch(other))[0] for other in others)
    assert highest < 0.4


def test_fingerprints_of_twins_are_near_and_of_others_far(scene, others):
    mine = fingerprint(scene)
    assert len(mine) == 64 and int(mine, 16) >= 0
    assert distance(mine, fingerprint(scene)) == 0
    for twin in ("mirrored", "with callipers", "brighter", "half the size"):
        assert distance(mine, fingerprint(TWINS[twin](scene))) <= NEAR
    assert all(distance(mine, fingerprint(other)) > NEAR for other in others)


def test_distance_is_symmetric_and_names_what_is_no_fingerprint(scene, others):
    one, other = fingerprint(scene), fingerprint(others[0])
    assert distance(one, other) == distance(other, one)
    with pytest.raises(ValueError, match="a fingerprint has 64 hex digits, got 64 and 2"):
        distance(one, "ab")


def samples_of(folder, images):
    samples = []
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
        samples.append(
            Sample(name=name, dataset="x", image=folder / f"{name}.png", masks=(), label="normal", group=name)
        )
    return samples


def pairs_of(samples):
    return drain(match_sketches([sketch_sample(sample) for sample in samples]))


def test_twins_share_a_group_named_after_the_first(tmp_path, scene, others):
    images = {
        "a": others[0],
        "b": scene,
        "c": TWINS["cropped all round"](scene),
        "d": others[1],
        "e": TWINS["mirrored"](scene),
    }
    samples = samples_of(tmp_path, images)
    assert near_duplicate_groups(samples) == {"a": "a", "b": "b", "c": "b", "d": "d", "e": "b"}
    found = {(pair.one, pair.other): pair.mirrored for pair in pairs_of(samples)}
    assert found == {(1, 2): False, (1, 4): True, (2, 4): True}


def test_what_cannot_be_read_is_alone_and_the_rest_is_grouped(tmp_path, scene):
    samples = samples_of(
        tmp_path, {"a": scene, "b": scene, "c": scene, "flat": np.full((90, 90), 7, np.uint8)}
    )
    (tmp_path / "b.png").write_bytes(b"\x89PNG broken")
    assert near_duplicate_groups(samples) == {"a": "a", "b": "b", "c": "a", "flat": "flat"}
    assert [(pair.one, pair.other) for pair in pairs_of(samples)] == [(0, 2)]


def test_many_copies_of_one_image_are_one_group(tmp_path, scene):
    samples = samples_of(tmp_path, {f"{number:02}": scene for number in range(45)})
    assert set(near_duplicate_groups(samples).values()) == {"00"}


def test_no_images_have_no_duplicates(tmp_path, scene):
    assert near_duplicate_groups([]) == {}
    assert near_duplicate_groups(samples_of(tmp_path, {"a": scene})) == {"a": "a"}


def test_a_chain_of_weak_pairs_does_not_join_unlike_images(scene, others):
    sketches = [sketch(pixels) for pixels in (scene, scene, others[0], others[0])]

    def pair(one, other, correlation):
        return Pair(one=one, other=other, correlation=correlation, mirrored=False)

    strong = [pair(0, 1, 0.99), pair(2, 3, 0.99)]
    assert group_pairs([*strong, pair(1, 2, 0.5)], sketches) == [[0, 1], [2, 3]]
    # what is sure joins whatever else is said
    assert group_pairs([*strong, pair(1, 2, 0.7)], sketches) == [[0, 1, 2, 3]]
    assert group_pairs([pair(0, 1, 0.5)], sketches) == [[0, 1]]


@pytest.mark.data
def test_experts_list_of_busi_is_found_again(data):
    """Every fourth group and 60 images beside them: recall and precision over pairs."""
    source = next(source for source in find_sources(data) if source.dataset == "busi")
    listed = [entry["images"] for entry in json.loads(source.listed.read_text())["groups"]]
    twins = {name for images in listed if len(images) > 1 for name in images[:4]}
    several = [images for images in listed if len(images) > 1][::4]
    kept = {name for images in several for name in images}
    alone = [sample.name for sample in source.samples if sample.name not in twins][:60]
    samples = [sample for sample in source.samples if sample.name in kept.union(alone)]
    groups = near_duplicate_groups(samples)
    found = {frozenset(p) for p in combinations(groups, 2) if groups[p[0]] == groups[p[1]]}
    truth = {frozenset(pair) for images in several for pair in combinations(images, 2)}
    assert len(found & truth) / len(truth) >= 0.95
    assert len(found & truth) / len(found) >= 0.95
