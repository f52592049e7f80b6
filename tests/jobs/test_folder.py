"""The folder of a job, whatever lies in it."""

from __future__ import annotations

import pytest

from sonoloop.errors import TrainingError
from sonoloop.jobs.folder import Job, is_running, open_job, planned_snapshot
from sonoloop.store.file_index import _store_name


def test_a_job_file_that_is_nested_too_deeply_cannot_be_used(tmp_path):
    job = tmp_path / "job.json"
    job.write_text('{"plan": ' + "[" * 100_000)
    assert not is_running(Job(tmp_path))
    assert planned_snapshot(tmp_path) is None
    assert _store_name(job) is None
    with pytest.raises(TrainingError, match="cannot be used"):
        open_job(tmp_path)
