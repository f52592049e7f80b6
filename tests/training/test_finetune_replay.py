"""Replay: images that trained the model are shown again, and none that gives a test group away."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from corrected import make_project
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.io import read_frame
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import Finished, Notice, Selected, Started, drain
from sonoloop.jobs.request import FinetuneRequest, PackRequest
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import CLASSES
from sonoloop_training.datasets import find_datasets
from sonoloop_training.datasets.packing import pack
from sonoloop_training.finetune.learn import plan_draws
from sonoloop_training.finetune.replay import choose_replay, read_replay, with_replay, without_classes
from sonoloop_training.finetune.run import finetune
from sonoloop_training.fit.recipe import FitConfig
from sonoloop_training.leakage import read_test_side

NOBODY = frozenset()


def listed(sample) -> dict[str, str]:
    frame, _ = sample.read()
    return {
        "name": f"{sample.dataset}/{sample.name}",
        "group": sample.group,
        "id": frame.id,
        "pixels_hash": frame.pixels_hash,
        "fingerprint": fingerprint(frame.pixels),
    }


@pytest.fixture
def place(datasets, tmp_path):
    """A project whose model was trained on all of the datasets but BUSI's eighth images."""
    trained = [listed(s) for s in find_datasets(datasets) if "(8)" not in s.name]
    return make_project(tmp_path / "project", train=6, test=3, trained=trained)


def choose(project, datasets, *, wanted=100, corrected=NOBODY, config=None, size=64):
    notices = []
    with CorrectionStore(project.url) as store:
        side = read_test_side(store)
        base = project.library.find(project.base.version)
        events = choose_replay(
            datasets, base, side, config or FitConfig(), corrected=corrected, wanted=wanted, size=size
        )
        while True:
            try:
                event = next(events)
                if isinstance(event, Notice):
                    notices.append(event.message)
            except StopIteration as end:
                return end.value, notices


def names(chosen) -> set[str]:
    return {entry.name for _, entry in chosen}


def test_only_images_that_trained_the_model_are_shown_again(place, datasets):
    chosen, notices = choose(place, datasets)
    assert notices == []
    assert len(chosen) == 37
    assert not any("(8)" in name for name in names(chosen))
    few, _ = choose(place, datasets, wanted=10)
    assert len(few) == 10
    # the same for the same seed, another choice for another
    assert [e.name for _, e in choose(place, datasets, wanted=10)[0]] == [e.name for _, e in few]
    other, _ = choose(place, datasets, wanted=10, config=FitConfig(seed=3))
    assert names(other) != names(few)


def test_a_pack_shows_again_what_the_files_do_unless_it_is_too_small(place, datasets, tmp_path):
    file = tmp_path / "a.pack"
    drain(pack(PackRequest(folders=(datasets,), out=file, size=64)))
    names = [[sample.key for sample, _ in choose(place, data)[0]] for data in (datasets, file)]
    assert names[0] == names[1]
    assert names[0]
    with pytest.raises(
        TrainingError, match=r"a\.pack holds images of 64 pixels, and the model learns from 96"
    ):
        choose(place, file, size=96)


def test_weights_say_what_is_shown_again(place, datasets):
    config = FitConfig(weights={"busbra": 0.0, "busi/normal": 500.0})
    chosen, _ = choose(place, datasets, wanted=7, config=config)
    assert sum("normal" in name for name in names(chosen)) >= 6
    everything, _ = choose(place, datasets, config=config)
    assert not any(name.startswith("busbra") for name in names(everything))


def test_what_was_corrected_counts_as_corrected(place, datasets):
    sample = next(s for s in find_datasets(datasets) if s.name == "benign (3)")
    frame, _ = sample.read()
    chosen, _ = choose(place, datasets, corrected={frame.pixels_hash})
    assert "busi/benign (3)" not in names(chosen)
    assert len(chosen) == 36


def keep_for_testing(project, path, *, patient=None):
    with CorrectionStore(project.url) as store:
        return place_frame(store, read_frame(path), role="test", patient=patient)


def test_an_image_that_judges_is_not_shown_again_nor_is_its_group(place, datasets):
    path = datasets / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png"
    assert keep_for_testing(place, path).role == "test"
    chosen, notices = choose(place, datasets)
    # the list of near-duplicates puts the second beside it
    assert not {"busi/benign (1)", "busi/benign (2)"} & names(chosen)
    assert len(chosen) == 35
    assert notices == [
        "2 images are not replayed: they, or near copies of them, are among the images that judge"
    ]


def test_a_near_copy_of_what_judges_is_not_shown_again(place, datasets, tmp_path):
    path = datasets / "Dataset_BUSI_with_GT" / "malignant" / "malignant (4).png"
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda v: v * 9 // 10).save(
        tmp_path / "mirrored.png"
    )
    keep_for_testing(place, tmp_path / "mirrored.png")
    assert "busi/malignant (4)" not in names(choose(place, datasets)[0])


def test_a_crop_is_found_when_its_pixels_are_read(place, datasets, tmp_path):
    path = datasets / "Dataset_BUSI_with_GT" / "malignant" / "malignant (4).png"
    with Image.open(path) as whole:
        whole.crop((16, 6, 128, 90)).resize((224, 168)).save(tmp_path / "crop.png")
    keep_for_testing(place, tmp_path / "crop.png")
    chosen, _ = choose(place, datasets)
    with CorrectionStore(place.url) as store:
        cache = drain(read_replay(chosen, read_test_side(store), size=64))
    assert "busi/malignant (4)" not in cache.names
    assert len(cache) >= 34


def test_other_images_of_a_patient_who_judges_are_not_shown_again(place, datasets, tmp_path):
    made = phantom("benign", seed=777, shape=(96, 128))
    Image.fromarray(made.image).save(tmp_path / "new.png")
    keep_for_testing(place, tmp_path / "new.png", patient="busbra/3")
    left = names(choose(place, datasets)[0])
    assert not {"busbra/bus_0003-l", "busbra/bus_0003-r"} & left
    assert len(left) == 35


def test_those_who_were_withdrawn_are_not_shown_again_nor_are_their_patients(place, datasets, tmp_path):
    path = datasets / "Dataset_BUSI_with_GT" / "benign" / "benign (3).png"
    made = phantom("benign", seed=778, shape=(96, 128))
    Image.fromarray(made.image).save(tmp_path / "new.png")
    with CorrectionStore(place.url) as store:
        same = place_frame(store, read_frame(path), role="train")
        other = place_frame(store, read_frame(tmp_path / "new.png"), role="train", patient="busbra/3")
        for one in (same, other):
            withdraw(store, one.frame_id, why="asked to", who="anna")
    chosen, notices = choose(place, datasets)
    assert not {"busi/benign (3)", "busbra/bus_0003-l", "busbra/bus_0003-r"} & names(chosen)
    (told,) = notices
    assert told.endswith("images are not replayed: they, or their patients, were withdrawn")
    assert len(chosen) == 37 - int(told.split()[0])


def test_an_image_of_the_same_name_that_is_another_is_not_shown_again(place, datasets):
    chosen, _ = choose(place, datasets, wanted=6)
    wrong = [(s, dataclasses.replace(e, id="0" * 64, pixels_hash="0" * 64)) for s, e in chosen[:2]]
    with CorrectionStore(place.url) as store:
        events = list(read_replay([*wrong, *chosen[2:]], read_test_side(store), size=64))
        cache = drain(read_replay([*wrong, *chosen[2:]], read_test_side(store), size=64))
        nothing = drain(read_replay(wrong, read_test_side(store), size=64))
    assert len(cache) == 4
    told = next(e.message for e in events if isinstance(e, Notice))
    assert told.startswith("2 images have the names of")
    assert nothing is None


def test_a_model_that_does_not_say_who_trained_it_replays_nothing(place, datasets):
    (place.library.find(place.base.version) / "split.json").unlink()
    chosen, notices = choose(place, datasets)
    assert chosen == []
    assert "does not say who trained it" in notices[0]


def test_data_of_another_model_replay_nothing(place, tmp_path):
    other = tmp_path / "other"
    for label in CLASSES:
        (other / label).mkdir(parents=True)
        made = phantom(label, seed=7, shape=(96, 128))
        Image.fromarray(made.image).save(other / label / f"{label} (901).png")
        Image.fromarray((made.mask > 0).astype(np.uint8) * 255).save(
            other / label / f"{label} (901)_mask.png"
        )
    (other / "groups.json").write_text('{"groups": []}')
    chosen, notices = choose(place, other)
    assert chosen == []
    assert notices == [f"none of the images in {other} trained the model; nothing is replayed"]


def test_replayed_images_stand_behind_the_corrections_and_teach_fully(place, datasets, tiny_cache):
    chosen, _ = choose(place, datasets, wanted=5)
    with CorrectionStore(place.url) as store:
        replayed = drain(read_replay(chosen, read_test_side(store), size=64))
    weights = torch.full((8, 2), 0.5)
    both = with_replay(dataclasses.replace(tiny_cache(), weights=weights), replayed)
    assert (len(both), both.replayed) == (13, 5)
    assert both.weights.tolist() == [[0.5, 0.5]] * 8 + [[1, 1]] * 5
    assert both.names[8:] == replayed.names
    assert with_replay(tiny_cache(), None).replayed == 0
    # where all are of one class, what is replayed does not teach it either
    assert without_classes(both).weights.tolist() == [[0.5, 0]] * 8 + [[1, 0]] * 5


@pytest.mark.parametrize(
    ("fresh", "replays", "expected"),
    [
        # forty corrections with as many replayed: ten steps an epoch, sixteen epochs
        (40, True, (80, 640)),
        (40, False, (80, 0)),
        (400, True, (800, 1200)),
        # few are shown several times an epoch
        (5, True, (70, 700)),
        (5, False, (65, 0)),
        (100, False, (100, 0)),
    ],
)
def test_few_corrections_are_seen_often_and_many_seldom(fresh, replays, expected):
    config = FitConfig(epochs=3, steps=160, batch=8, replay=1.0)
    assert plan_draws(config, fresh, replays=replays) == expected


def test_a_finetuning_replays_and_says_so(place, datasets):
    asked = FinetuneRequest(
        store=str(place.url),
        settings=("steps=6", "epochs=2", "batch=4", "graph=false", "precision=float32", "replay=0.5"),
        base_data=datasets,
        device="cpu",
        judged=False,
    )
    events = list(finetune(asked, library=place.library))
    (selected,) = (e for e in events if isinstance(e, Selected))
    (started,) = (e for e in events if isinstance(e, Started))
    assert selected.train == 6
    assert selected.replay == started.train - 6 > 0
    (finished,) = (e for e in events if isinstance(e, Finished))
    card = json.loads((place.library.folder / finished.model / "card.json").read_text())
    learned = card["snapshot"]
    assert learned["images"]["replay"] == selected.replay == sum(learned["replay"].values())
    assert set(learned["replay"]) <= {"busi", "busbra"}
    split = json.loads((place.library.folder / finished.model / "split.json").read_text())
    # those that trained the model started from trained this one
    assert len(split["train"]) == 6 + 37
    assert not any(isinstance(e, Notice) and "may forget" in e.message for e in events)


@pytest.mark.parametrize(
    ("changes", "blend", "told"),
    [
        ((), 0.5, "a share of 0.5 of its weights is kept"),
        (("blend_alone=0.0",), 0.0, "may forget some of what it knew"),
        (("blend=0.5",), 0.5, None),
        (("l2sp=1.0",), 0.0, None),
    ],
)
def test_without_the_data_a_share_of_the_start_holds_the_model(place, changes, blend, told):
    quick = ("steps=2", "epochs=1", "batch=4", "graph=false", "precision=float32")
    asked = FinetuneRequest(store=str(place.url), settings=(*quick, *changes), device="cpu", judged=False)
    events = list(finetune(asked, library=place.library))
    warned = [
        e.message for e in events if isinstance(e, Notice) and e.message.startswith("the images that trained")
    ]
    assert len(warned) == (told is not None)
    assert told is None or told in warned[0]
    (finished,) = (e for e in events if isinstance(e, Finished))
    card = json.loads((place.library.folder / finished.model / "card.json").read_text())
    assert card["snapshot"]["recipe"]["fit"]["blend"] == blend
