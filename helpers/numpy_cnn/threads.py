"""One piece of work over the images of a batch, shared among threads, with sums that never change.

NumPy lets go of Python's lock inside its matrix products and its elementwise loops, so plain threads run side
by side. Two habits keep the numbers the same on any machine: a batch is always cut into the same shares, however
many threads there are, and what the shares return comes back in their order.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

SHARES = 4  # each costs a little; more of them would let more threads work

T = TypeVar("T")
_blas = ThreadpoolController().select(user_api="blas")
_local = threading.local()
_threads = max([library["num_threads"] for library in _blas.info()], default=1)


def threads() -> int:
    """Return how many threads work on a batch: at first, as many as NumPy's BLAS has (``OMP_NUM_THREADS``)."""
    return _threads


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Work with ``count`` threads inside the ``with`` block; the numbers stay the same, only the time changes."""
    global _threads
    before, _threads = _threads, count
    try:
        yield
    finally:
        _threads = before


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread: ours are busy already, and its own would only push them aside."""
    with _blas.limit(limits=1):
        yield


def over_images(work: Callable[[slice], T], images: int) -> list[T]:
    """Return ``[work(share) for share in shares]``, a share being a slice of ``range(images)``.

    ``work`` runs on several threads at once, so it may write only to its own share of an array; sums over the batch
    are added up afterwards, from the returned list.
    """
    size = -(-images // SHARES)  # ceil
    shares = [slice(start, min(start + size, images)) for start in range(0, images, size)]
    with one_blas_thread():
        # A worker that is free takes the next share, so that one that is held up does not hold up the others.
        return list((map if _threads == 1 else _pool(_threads, os.getpid()).map)(work, shares))


@lru_cache(maxsize=1)
def _pool(workers: int, process: int) -> ThreadPoolExecutor:  # a forked process needs a pool of its own
    return ThreadPoolExecutor(workers, thread_name_prefix="numpy-cnn")


def scratch(slot: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return this thread's array for ``slot``, with whatever it last held; valid until the slot is asked for again.

    All layers work in the same few megabytes, most of which therefore stay in the processor's cache.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = _local.__dict__.get(slot)
    if memory is None or memory.nbytes < size:
        memory = _local.__dict__[slot] = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)
