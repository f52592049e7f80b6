"""A job apart from the panel: what is read of it, whether it runs, and that it outlives its starter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fake_training
import psutil
import pytest

from sonoloop.jobs import process as train_start
from sonoloop.jobs.events import Failed, name_event
from sonoloop.jobs.folder import Job, JobReader, ask_to_stop, find_job, is_running, terminate
from sonoloop.jobs.process import start_job
from sonoloop.jobs.request import FinetuneRequest, read_request

FAKE = Path(fake_training.__file__)


@pytest.fixture
def jobs(tmp_path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def start(jobs, monkeypatch):
    """Start the fake training in a mode; what still runs at the end is ended."""
    started = []

    def begin(mode: str, folder: Path | None = None) -> Job:
        def command(_request):
            more = [] if folder is None else [str(folder)]
            return [sys.executable, str(FAKE), "sonoloop_training", str(jobs), mode, *more]

        monkeypatch.setattr(train_start, "_command", command)
        started.append(start_job(jobs, FinetuneRequest(who="anna", job=folder)))
        return started[-1]

    yield begin
    for job in started:
        if job.process.poll() is None:
            job.process.kill()
        job.process.wait(10)


def read_all(reader: JobReader) -> tuple[list[str], object]:
    """Read a job to its end."""
    names = []
    for _ in range(600):
        reading = reader.read()
        names += [name_event(type(event)) for event in reading.events]
        if not reading.alive:
            return names, reading
        time.sleep(0.02)
    raise AssertionError("it never ended")


def write(folder: Path, text: str) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write(text)


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path):
    reader = JobReader(Job(tmp_path))
    write(tmp_path, '{"event": "notice", "message": "one"}\n{"event": "not')
    assert [event.message for event in reader.read().events] == ["one"]
    write(tmp_path, 'ice", "message": "two"}\nno JSON at all\n')
    assert [event.message for event in reader.read().events] == ["two"]
    assert reader.read().events == ()


def test_a_job_is_read_from_its_start_to_its_end(start):
    job = start("done")
    reader = JobReader(job)
    names, last = read_all(reader)
    assert (names.count("epoch_done"), names[-2:]) == (fake_training.EPOCHS, ["gate", "finished"])
    assert reader.job.folder.parent == job.output.parent
    assert not last.stopped


def test_what_fails_before_it_has_a_folder_is_told_in_its_own_words(start):
    _, last = read_all(JobReader(start("fails")))
    assert last.last_words == Failed(error="there are 3 corrections; fine-tuning needs 5: accept more")


def test_output_that_nobody_read_is_deleted_after_a_day(start, jobs):
    jobs.mkdir()
    old, fresh = jobs / ".old.log", jobs / ".fresh.log"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    start("fails")
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_stopped_job_is_found_and_gone_on_with(start, jobs):
    reader = JobReader(start("slow"))
    while reader.job.folder is None:
        reader.read()
    ask_to_stop(reader.job)
    _, last = read_all(reader)
    assert last.stopped
    found = find_job(jobs)
    assert found.folder == reader.job.folder
    assert not is_running(found)
    names, last = read_all(JobReader(start("done", found.folder)))
    assert "finished" in names
    assert not last.stopped


def test_a_job_that_runs_is_found_before_a_later_one_that_ended(start, jobs):
    reader = JobReader(start("slow"))
    while reader.job.folder is None:
        reader.read()
    later = jobs / "99991231-000000-ffff"
    later.mkdir()
    (later / "job.json").write_text(json.dumps({"pid": os.getpid(), "host": "here"}))
    assert find_job(jobs).folder == reader.job.folder
    terminate(reader.job)
    reader.job.process.wait(10)
    assert find_job(jobs).folder == later


def test_another_process_of_the_same_number_is_not_the_job(tmp_path):
    import socket

    (tmp_path / "job.json").write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    assert not is_running(Job(tmp_path))
    terminate(Job(tmp_path))  # or this test would not end


def test_it_outlives_the_program_that_started_it(jobs):
    code = f"""
import sys
from pathlib import Path
from sonoloop.jobs import process as train_start
from sonoloop.jobs.request import FinetuneRequest
line = [sys.executable, {str(FAKE)!r}, "sonoloop_training", {str(jobs)!r}, "slow"]
train_start._command = lambda *_: line
job = train_start.start_job(Path({str(jobs)!r}), FinetuneRequest(who="anna"))
print(job.process.pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    process = psutil.Process(int(done.stdout.split()[-1]))
    try:
        for _ in range(200):
            found = find_job(jobs)
            if found is not None:
                break
            time.sleep(0.05)
        assert is_running(found)
        assert os.name != "posix" or os.getsid(process.pid) != os.getsid(0)
    finally:
        process.kill()


def test_the_command_line_says_what_was_asked_and_no_password(monkeypatch, tmp_path):
    seen = {}

    class Started:
        pid = os.getpid()

    def popen(command, **options):
        seen.update(command=command, **options)
        return Started()

    monkeypatch.setattr(train_start.subprocess, "Popen", popen)
    url = "postgresql://anna:secret@host/study"
    asked = FinetuneRequest(store=url, who="anna", snapshot="first", max_minutes=5, base_data=Path("/data"))
    start_job(tmp_path, asked)
    words = seen["command"]
    assert words[1:5] == ["-m", "sonoloop_training", "finetune", "--request"]
    told = read_request(FinetuneRequest, words[5])
    assert told.store == "postgresql://anna@host/study"
    assert told.threads >= 1
    assert replace(told, store=url, threads=None) == asked
    assert "secret" not in " ".join(words)
    assert seen["env"]["PGPASSWORD"] == "secret"
