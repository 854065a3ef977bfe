"""Force a recorded answer through the model and look at each token's place (the replay's child process)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fabstir_desktop.inference.llama import Batch, ContextOptions, LlamaContext, LlamaError, LlamaLog, LlamaModel
from fabstir_desktop.inference.replay import ReplayedToken

__all__ = ["LlamaError", "force"]

_CHUNK_TOKENS = 256


def force(path: str, prompt_ids: Sequence[int], token_ids: Sequence[int], threads: int) -> list[ReplayedToken]:
    """Rank and probability of each of `token_ids`. Raises LlamaError, or ValueError for ids the model does not have."""
    log = LlamaLog()
    model = LlamaModel(path, gpu_layers=0, progress=lambda _: None)
    ids = [*prompt_ids, *token_ids]
    if not all(isinstance(token, int) and 0 <= token < model.vocabulary_size for token in ids):
        raise ValueError("the record holds token ids that this model does not have")
    window = -(-len(ids) // 256) * 256
    if model.trained_window and len(ids) > model.trained_window:
        raise ValueError("the record is longer than this model's window")
    context = LlamaContext(model, ContextOptions(window, 1, threads))
    batch = Batch(_CHUNK_TOKENS)
    first_output = len(prompt_ids) - 1
    report: list[ReplayedToken] = []
    # The last token's own successor is not asked for.
    for start in range(0, len(ids) - 1, _CHUNK_TOKENS):
        part = ids[start : min(start + _CHUNK_TOKENS, len(ids) - 1)]
        batch.clear()
        batch.add(0, start, part, output=True, every=True)
        context.decode(batch)
        wanted = range(max(first_output - start, 0), len(part))
        report.extend(_judge(context.logits(index), ids[start + index + 1]) for index in wanted)
    context.close()
    model.close()
    del log
    return report


def _judge(logits: np.ndarray[tuple[int], np.dtype[np.float32]], token: int) -> ReplayedToken:
    values = logits.astype(np.float64)
    best = float(values.max())
    weights = np.exp(values - best)
    total = float(weights.sum())
    better = values > values[token]
    return ReplayedToken(
        token_id=token,
        rank=int(better.sum()),
        log_probability=float(values[token] - best - np.log(total)),
        gap=float(best - values[token]),
        mass_before=float(weights[better].sum() / total),
    )
