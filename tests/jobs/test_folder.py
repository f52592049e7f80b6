"""The folder of a job, whatever lies in it."""

from __future__ import annotations

import pytest

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import LeftOut, Notice, Selected
from sonoloop.jobs.folder import EVENTS, Job, JobReader, is_running, open_job, planned_snapshot
from sonoloop.store.file_index import _store_name


def test_a_job_file_that_is_nested_too_deeply_cannot_be_used(tmp_path):
    job = tmp_path / "job.json"
    job.write_text('{"plan": ' + "[" * 100_000)
    assert not is_running(Job(tmp_path))
    assert planned_snapshot(tmp_path) is None
    assert _store_name(job) is None
    with pytest.raises(TrainingError, match="cannot be used"):
        open_job(tmp_path)


def test_a_line_of_more_than_a_megabyte_is_read_when_it_is_whole(tmp_path):
    left_out = [LeftOut(frame=f"{number:064x}", why="its file is gone " * 5) for number in range(8000)]
    selected = Selected(
        snapshot="s", sha256="", base="b", train=1, by_class={}, test_groups=0, left_out=left_out, replay=0
    )
    line = selected.to_json()
    assert len(line) > 1 << 20
    half = len(line) - 10
    reader = JobReader(Job(tmp_path))
    (tmp_path / EVENTS).write_text(line[:half])
    assert reader.read().events == ()
    after = Notice(message="on")
    with (tmp_path / EVENTS).open("a") as file:
        file.write(f"{line[half:]}\n{after.to_json()}\n")
    read = reader.read()
    assert (read.events, read.alive) == ((selected,), True)
    assert reader.read().events == (after,)
