"""What a card says of where its model comes from, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sonoloop.models.card import shipped_card
from sonoloop.models.origin import describe_origin, describe_reached


def test_the_shipped_model_names_its_data_and_their_licences():
    told = dict(describe_origin(shipped_card()))
    assert told["Images by site"] == "breast-usg, busbra, busi"
    assert told["Licence of the data"].startswith("breast-usg: CC BY 4.0; busbra: free to use")
    assert told["Images by part"] == "52 test, 2090 train, 34 validation"
    assert told["Limits"] == "not recorded"
    assert describe_reached(shipped_card(), "test").startswith("Dice 0.815 [0.756, 0.864]")


def test_a_tuned_model_tells_all_that_is_recorded():
    snapshot = {
        "by_site": {"busi": 498, "own corrections": 9},
        "by_class": {"normal": 0, "benign": 6, "malignant": 3, "unsure": 0},
        "images": {"train": 9, "validation": 0},
        "licences": {"busi": "CC BY 4.0", "own corrections": "the project's own"},
        "limits": ["no normal image among the own corrections"],
    }
    assert dict(describe_origin(replace(shipped_card(), snapshot=snapshot))) == {
        "Images by site": "498 busi, 9 own corrections",
        "Images by part": "9 train",
        "Own corrections by class": "6 benign, 3 malignant",
        "Licence of the data": "busi: CC BY 4.0; own corrections: the project's own",
        "Limits": "no normal image among the own corrections",
    }


@pytest.mark.parametrize("wrong", [None, 1, "text", [], [None], {"a": "b"}, {"a": {"b": 1}}, {"a": [1]}])
def test_a_card_of_any_other_form_says_that_nothing_is_recorded(wrong):
    names = ("by_site", "by_class", "images", "licences", "limits", "datasets")
    card = shipped_card()
    object.__setattr__(card, "snapshot", dict.fromkeys(names, wrong))
    for _, text in describe_origin(card):
        assert isinstance(text, str)
    assert describe_reached(replace(shipped_card(), metrics={"test": {}}), "test") == "not recorded"
