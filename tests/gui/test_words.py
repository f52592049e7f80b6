"""What the command line says, in the words of the panels."""

from __future__ import annotations

import pytest

from sonoloop.gui.words import in_panel_words


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "the files of 2 of 9 corrected images are not there: a (gone); say where they lie now with: "
            "sonoloop store relink FOLDER, or go on without them with --skip-missing",
            "the files of 2 of 9 corrected images are not there: a (gone); open the images again "
            "from where they lie now, or press Go on without them",
        ),
        (
            "it may forget some of what it knew; --base-data shows them again",
            "it may forget some of what it knew; name their folder under Base data in the preferences to "
            "show them again",
        ),
        (
            "out of memory. What is done is kept; go on with: sonoloop finetune --job /a b/jobs/1",
            "out of memory. What is done is kept: press Go on",
        ),
        (
            "the project is locked to a-1: b-2 cannot be used until it is unlocked, as with: sonoloop models "
            "unlock --why REASON",
            "the project is locked to a-1: b-2 cannot be used until it is unlocked: press Unlock in Models",
        ),
        (
            "the model of version 1234 is not on this machine: import it from a zip file or a folder, as in: "
            "sonoloop models import FILE",
            "the model of version 1234 is not on this machine: press Import in Models",
        ),
        (
            "there is no store /x: check --store",
            "there is no store /x: check Correction store in the preferences",
        ),
        ("begin a new fine-tuning, without --job", "begin a new fine-tuning"),
        ("a-1 was judged already; to judge it again: sonoloop gate a-1 --promote", "a-1 was judged already"),
        (
            "cannot write into /x (read-only); choose another folder with --out",
            "cannot write into /x (read-only); choose another folder under Write to",
        ),
        ("nothing to say", "nothing to say"),
    ],
)
def test_a_message_names_the_panels_own_controls(told, said):
    assert in_panel_words(told) == said
