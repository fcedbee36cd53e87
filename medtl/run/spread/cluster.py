"""Shares done by the workers of a Dask cluster: the same functions, tried again where one fails."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from medtl.errors import RunError
from medtl.run.spread.jobs import Job, do_share, merge
from medtl.storage.parts import Share
from medtl.types import Progress, silent

LOCAL = "local"
"""In place of an address: workers on this machine, one for each core."""

SHARES_PER_WORKER = 4
"""Shares for each thread of the cluster: so much less is lost with a worker."""

RETRIES = 3
"""Times that a share is tried again after it has failed."""


def on_cluster(
    job: Job, address: str, *, shares: int = 0, progress: Progress = silent
) -> list[str]:
    """Do all shares of a job on a cluster, then make one file of them.

    A share whose worker dies is done by another one. Shares that were done before are kept, so the
    command may be repeated after any fault.

    Args:
        job: Whose paths the workers see, too.
        address: Of the scheduler ("tcp://host:8786"), or `LOCAL`.
        shares: Their number; 0 takes `SHARES_PER_WORKER` for each thread of the cluster.
        progress: Told of the shares.

    Returns:
        What there is to say of the result.

    Raises:
        RunError: When the scheduler is not reached, or a share has killed one worker after the
            other.
        MedtlError: As the work itself, when it failed in every try.
    """
    from distributed import KilledWorker, as_completed

    with _client(address) as client:
        threads = sum(client.nthreads().values())
        number = shares or SHARES_PER_WORKER * max(1, threads)
        call = secrets.token_hex(8)
        futures = [
            client.submit(_do, job, Share(n, number), call, pure=False, retries=RETRIES)
            for n in range(1, number + 1)
        ]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress("Shares", done, number)
        except KilledWorker as error:
            raise RunError(
                "workers were killed one after the other at the same share, perhaps for want of "
                "memory",
                fix="Give each worker more memory, or state more --shares",
            ) from error
    return merge(job.out)


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """A connection to a cluster; to a local one, which ends with the block."""
    from distributed import Client, LocalCluster

    if address == LOCAL:
        with (
            LocalCluster(
                n_workers=len(os.sched_getaffinity(0))
                if hasattr(os, "sched_getaffinity")
                else os.cpu_count(),
                threads_per_worker=1,
                dashboard_address=None,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise RunError(
            "the scheduler of the cluster is not reached",
            where=address,
            fix="Start one with `dask scheduler`, or state --dask local",
        ) from error
    with client:
        yield client


def _do(job: Job, share: Share, call: str) -> bool:
    """Do a share in a worker."""
    return do_share(_held(job, call), share, silent)


@lru_cache(maxsize=1)
def _held(job: Job, _call: str) -> Job:
    """The job of this call, whose model and list of cases stay in a worker from share to share."""
    return job
