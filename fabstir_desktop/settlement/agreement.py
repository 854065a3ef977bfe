"""Facts that cost money if they are wrong: believed when two endpoints say the same and none says otherwise.

A single endpoint's word is enough for what is checked afterwards (a hash, a simulation). It is not for giving tokens up or
taking them for paid. Where one endpoint is configured its word has to do, and what follows from it is marked *unverified*.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from fabstir_desktop.errors import ChainError, RpcRefused, RpcUnreachable
from fabstir_desktop.settlement.classifier import Answer, classify

WITNESSES = 2
_IS_AGREEING: ContextVar[bool] = ContextVar("rpc answers must agree", default=False)
_NO_TESTIMONY = frozenset({Answer.RETRY, Answer.NO_HISTORY, Answer.NO_INFORMATION})
"""Refusals that say something of the endpoint, not of the chain."""


@contextlib.contextmanager
def agreeing() -> Iterator[None]:
    """Within it every request of a pool is asked of all endpoints and answered as `agreed` says; in this task alone."""
    token = _IS_AGREEING.set(True)
    try:
        yield
    finally:
        _IS_AGREEING.reset(token)


def is_agreeing() -> bool:
    """Whether requests are made within `agreeing`."""
    return _IS_AGREEING.get()


def agreed(answers: Sequence[object], hosts: Sequence[str]) -> object:
    """The one answer of the endpoints, an error among them standing for none; `hosts` are their hosts, in the same order.

    Raises RpcUnreachable if they differ or too few hosts answer, RpcRefused if that is what they agree on.
    """
    witnesses: dict[str, set[str]] = {}
    said: dict[str, object] = {}
    for answer, host in zip(answers, hosts, strict=True):
        word = _word(answer)
        if word is not None:
            witnesses.setdefault(word, set()).add(host)
            said.setdefault(word, answer)
    if len(witnesses) > 1:
        raise RpcUnreachable("the RPCs do not agree; it is asked again")
    needed = min(WITNESSES, len(set(hosts)))
    word, names = next(iter(witnesses.items()), ("", set()))
    if len(names) < needed:
        raise RpcUnreachable(f"{len(names)} of {len(set(hosts))} RPCs answer, and this needs {needed} that agree")
    answer = said[word]
    if isinstance(answer, RpcRefused):
        raise answer
    return answer


def _word(answer: object) -> str | None:
    """What tells two answers apart; None for no answer. Nodes word a revert differently, its data is the same."""
    if isinstance(answer, RpcRefused):
        kind = classify(answer.detail, answer.code)
        return None if kind in _NO_TESTIMONY else f"refused {kind} {answer.data.lower()}"
    if isinstance(answer, ChainError):
        return None
    return json.dumps(answer, sort_keys=True)
