"""What a visitor is told where something is wrong: a sentence and a status of HTTP, never a stack."""

from __future__ import annotations

__all__ = ['Refusal']


class Refusal(Exception):  # noqa: N818  it is an answer
    """An answer that says why there is no other.

    Attributes:
        status: Of HTTP.
        sentence: For the visitor: what is wrong, and what to do.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
