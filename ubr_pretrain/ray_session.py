"""A cluster of Ray for one run: one that is running and joined by its address, or one started here.

Nothing is reported to anyone and there is no dashboard. Free of Ray until it is asked for.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

HERE = "local"
"""The address of a cluster that is started on this machine and ends with the run."""

ANSWER_S = 5.0
"""A cluster that does not take a connection by then is not there; Ray itself waits minutes."""

SETTINGS: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_worker_niceness": "0",  # a run here is as important as one without Ray; 15 is Ray's
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a later Ray's behaviour, without its warning
}


def require_ray(flag: str) -> None:
    """Refuse to go on where Ray is not installed.

    Raises:
        ValueError: naming the extra.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{flag}: needs Ray; pip install 'ct-body-part-transfer[ray]'") from error


@contextmanager
def ray_session(address: str, flag: str) -> Iterator[None]:
    """Be a driver of a cluster until the end of the block.

    Args:
        address: ``HERE``; "auto" for the cluster that this machine belongs to; "HOST:6379".
        flag: that asked for it, for the message.

    Raises:
        ValueError: Ray is not installed, or nothing answers at the address.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    require_ray(flag)
    require_address(address, flag)
    import ray

    here = address == HERE
    try:
        if address not in (HERE, "auto"):
            _knock(address)
        ray.init(
            address=address,
            include_dashboard=False if here else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{flag} {address}: {' '.join(str(error).split())}") from error
    try:
        yield
    finally:
        ray.shutdown()


def require_address(address: str, flag: str) -> None:
    """Refuse what no cluster can have as its address; nobody is asked.

    Args:
        address: see ``ray_session``.
        flag: that gave it, for the message.

    Raises:
        ValueError: neither ``HERE``, "auto" nor HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    is_known = address in (HERE, "auto")
    if not is_known and (not host or "/" in host or not _is_port(port)):
        known = "expected local, auto or HOST:PORT of a machine of the cluster"
        raise ValueError(f"{flag} {address}: {known}")


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65_536


def _knock(address: str) -> None:
    """Knock at ``HOST:PORT``.

    Raises:
        OSError: nothing answers.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
