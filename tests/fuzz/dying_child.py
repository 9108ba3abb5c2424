"""A child that ends in every way there is."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from tests.fuzz.outcome import Outcome, Work


def dying(pipe: Connection, work: Work, mute: frozenset[tuple[int, str]]) -> None:
    """Be a child that a signal ends at input 1, that hangs at 2, whose judge ends it at 3."""
    for index in range(work.first, work.first + work.count):
        pipe.send((index, "reading"))
        if index == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if index == 2:
            time.sleep(60)
        pipe.send((index, "judge ITK"))
        if index == 3 and (3, "ITK") not in mute:
            os.kill(os.getpid(), signal.SIGSEGV)
        pipe.send(Outcome(index, "equal to the original"))
    pipe.send(None)
