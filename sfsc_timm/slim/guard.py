"""Who runs a model: one width for all threads, and evaluation copies that come and go with the forwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, Protocol

__all__ = ['FrozenTensors', 'Guard']


class FrozenTensors(Protocol):
    """What a forward in evaluation runs on."""

    def holds(self) -> bool:
        """Whether nothing happened to what it was made of."""

    def install(self) -> None:
        """Puts it in place."""

    def remove(self) -> None:
        """Takes it away."""


class Guard:
    """Who runs a model, and the frozen tensors it runs on; one for each root.

    A model has one active width, so threads may share it at one width only: a switch during another thread's forward
    or `at_width` block raises. Several widths at a time need a model each: `model.extract(width)`.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._inside: Counter[int] = Counter()  # thread: how many forwards, one in the other
        self._holding: Counter[int] = Counter()  # thread: how many `at_width` blocks
        self._frozen: FrozenTensors | None = None
        self._installed: FrozenTensors | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return Guard()

    def __reduce__(self) -> Any:
        return Guard, ()

    def drop(self) -> None:
        """Forgets the copies; the next evaluation forward makes them afresh."""
        self._frozen = None

    def switch(self) -> None:
        """Makes ready for a switch of width; the caller has the lock.

        Raises:
            RuntimeError: If another thread is in a forward or an `at_width` block.
        """
        if (self._inside.keys() | self._holding.keys()) - {get_ident()}:
            raise RuntimeError(
                'the width must stay as it is while another thread runs the model, got a switch; '
                'give each thread a model of its own: model.extract(width), or a deep copy'
            )
        self._frozen = None
        if self._installed is not None:  # in the middle of a forward of this thread, by a hook, say
            self._installed.remove()
            self._installed = None

    def hold(self) -> None:
        """Keeps other threads from a switch until `release`; the caller has the lock."""
        self._holding[get_ident()] += 1

    def release(self) -> None:
        """Ends what `hold` began."""
        with self.lock:
            _release(self._holding)

    @contextmanager
    def running(self, freeze: Callable[[], FrozenTensors] | None, records: bool = False) -> Iterator[None]:
        """For the length of a forward of the root.

        Args:
            freeze: Makes the copies to run on; None to run on what is there, which is views.
            records: Whether it must not run on copies, as where gradients are recorded.

        Raises:
            RuntimeError: If it must not run on copies, on which another thread is running.
        """
        with self.lock:
            self._enter(freeze, records)
        try:
            yield
        finally:
            with self.lock:
                _release(self._inside)
                if not self._inside and self._installed is not None:
                    self._installed.remove()
                    self._installed = None

    def _enter(self, freeze: Callable[[], FrozenTensors] | None, records: bool) -> None:
        me = get_ident()
        alone = not self._inside
        if me in self._inside:
            pass  # forward_features within forward, which has everything in place
        elif freeze is None:
            if records and self._installed is not None:
                raise RuntimeError(
                    'gradients must not be recorded while another thread evaluates the same model; evaluate under '
                    'torch.inference_mode() in every thread, or give each thread a copy of the model'
                )
        elif alone or self._installed is not None:  # else others run on views, and go on doing so
            if self._frozen is None or not self._frozen.holds():
                self._frozen = freeze()
            if self._frozen is not self._installed:
                if self._installed is not None:
                    self._installed.remove()
                self._frozen.install()
                self._installed = self._frozen
        self._inside[me] += 1


def _release(count: Counter[int]) -> None:
    me = get_ident()
    count[me] -= 1
    if not count[me]:
        del count[me]
