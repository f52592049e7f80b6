"""What tests of fine-tuning ask for, and how they look at what came out."""

from __future__ import annotations

import dataclasses

from corrected import Project

from sonoloop.jobs.events import Event, Notice
from sonoloop.jobs.request import FinetuneRequest
from sonoloop_training.finetune.run import finetune

QUICK = (
    "steps=6",
    "epochs=2",
    "batch=4",
    "graph=false",
    "precision=float32",
    "learning_rate=0.003",
    "l2sp=1.0",
)


def request(project: Project, **changes) -> FinetuneRequest:
    asked = FinetuneRequest(store=str(project.url), settings=QUICK, device="cpu", who="anna")
    return dataclasses.replace(asked, **changes)


def tune(project: Project, **changes) -> list[Event]:
    return list(finetune(request(project, **changes), library=project.library))


def only(events, kind):
    (found,) = (event for event in events if isinstance(event, kind))
    return found


def notices(events) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]
