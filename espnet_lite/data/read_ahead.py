"""A generator run in a background thread, a few items ahead of its consumer."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.1  # how soon a waiting producer sees that its consumer is gone
_END = object()


def read_ahead(items: Iterable[Item], *, depth: int) -> Iterator[Item]:
    """Yield `items`, produced by a thread up to `depth` ahead; depth 0 produces them in place.

    An exception of the producer is raised here, after the items made before it. When the consumer
    leaves early (break, close, an exception of its own), the thread ends before control returns.
    """
    if depth == 0:
        yield from items
        return
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, ready, stop), name="read_ahead", daemon=True
    )
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _produce(items: Iterable, ready: queue.Queue, stop: threading.Event) -> None:
    """Put (item, None) for every item, then (_END, None), or (None, error)."""
    try:
        for item in items:
            if not _put(ready, (item, None), stop):
                return
        _put(ready, (_END, None), stop)
    except BaseException as error:  # noqa: BLE001  handed over: the consumer raises it
        _put(ready, (None, error), stop)


def _put(ready: queue.Queue, item: tuple, stop: threading.Event) -> bool:
    """Return whether the item was placed before the consumer left."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=_POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False
