"""What `sonoloop finetune` tells, from the events alone."""

from __future__ import annotations

from dataclasses import replace

from sonoloop.cli.finetune import FinetuneReport
from sonoloop.jobs.events import Finished, Gate, Job, LeftOut, Promoted, Selected

SELECTED = Selected(
    snapshot="snapshot-3", sha256="0" * 64, base="default-12345678", train=40,
    by_class={"normal": 3, "benign": 20, "malignant": 17, "unsure": 0}, test_groups=21, left_out=[],
    replay=320,
)  # fmt: skip
GATE = Gate(
    verdict="refuse",
    reason="Mean Dice fell.",
    groups=1,
    test_set=1,
    look=1,
    looks=1,
    candidate="",
    incumbent="",
)
FINISHED = Finished(model="ft-00000001", path="models/ft-00000001", minutes=2.4)


def tell(*events) -> FinetuneReport:
    report = FinetuneReport(as_json=False)
    for event in events:
        report.tell(event)
    return report


def test_what_is_learned_from_is_one_line(capsys):
    tell(SELECTED)
    assert capsys.readouterr().err == (
        "default-12345678 learns from 40 corrections (3 normal, 20 benign, 17 malignant) in snapshot-3, with "
        "320 images of those that trained it; 21 groups only judge\n"
    )


def test_what_is_left_out_is_named_and_many_are_counted(capsys):
    left_out = [LeftOut(frame=f"{number:064x}"[::-1], why="a lesion is drawn") for number in range(13)]
    tell(replace(SELECTED, left_out=left_out))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "13 corrections are not learned from:"
    assert lines[2] == "  000000000000: a lesion is drawn"
    assert len(lines) == 13
    assert lines[-1] == "  and 3 more: 3 because a lesion is drawn"


def test_the_verdict_is_told_in_words_with_what_can_be_done(capsys):
    tell(SELECTED, GATE, FINISHED)
    assert capsys.readouterr().out.splitlines() == [
        "ft-00000001 is in models/ft-00000001, made in 2 min",
        "refuse: Mean Dice fell.",
        "the model in use stays; `sonoloop models use ft-00000001 --why ...` uses the new one",
    ]


def test_a_promoted_model_is_in_use(capsys):
    promoted = Promoted(model="ft-00000001", version="")
    tell(replace(GATE, verdict="promote"), promoted, FINISHED)
    assert capsys.readouterr().out.splitlines()[-1] == "ft-00000001 is in use now"


def test_what_was_interrupted_says_how_to_go_on():
    assert tell().stays == ""
    assert tell(Job(folder="jobs/one")).stays == (
        "; sonoloop finetune --job jobs/one goes on from the last epoch"
    )
