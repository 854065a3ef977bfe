"""The peer of the engine's benchmark that needs a process of its own: the bare decode loop.

`python engine_peers.py MODEL WINDOW PARALLEL THREADS`; each line of standard input is a JSON list of prompts and a
number of tokens, each line of output the seconds to each stream's first token, and to the end, and the tokens made.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

Outcome = tuple[list[float], float, int]


class BareLoop:
    """All prompts in one batch, then one token for each stream a step: the least that can be done."""

    def __init__(self, model: str, window: int, parallel: int, threads: int) -> None:
        from fabstir_desktop.inference import llama
        from fabstir_desktop.inference.preparation import Preparer

        self.llama = llama
        self.log = llama.LlamaLog()
        self.model = llama.LlamaModel(model, gpu_layers=0, progress=lambda _: None)
        self.context = llama.LlamaContext(self.model, llama.ContextOptions(window, parallel, threads))
        self.preparer = Preparer(self.model, window)
        self.batch = llama.Batch(2048)

    def run(self, prompts: Sequence[str], count: int) -> Outcome:
        from fabstir_desktop.inference.wire import Sampling

        started = time.perf_counter()
        samplers = [
            self.llama.Sampler(Sampling(0.7, 0.95, 40, 0.05, 1.0, 0.0, 0.0, seed), self.model.vocabulary_size)
            for seed, _ in enumerate(prompts)
        ]
        self.batch.clear()
        outputs, positions = [], []
        for sequence, prompt in enumerate(prompts):
            self.context.cut(sequence, 0)
            ids = self.preparer.tokenise([("user", prompt)])
            outputs.append(self.batch.add(sequence, 0, ids, output=True))
            positions.append(len(ids))
        self.context.decode(self.batch)
        first = 0.0
        for step in range(count):
            tokens = [sampler.sample(self.context, index) for sampler, index in zip(samplers, outputs, strict=True)]
            for token in tokens:
                self.model.piece(token)
            first = first or time.perf_counter() - started
            if step == count - 1:
                break
            self.batch.clear()
            outputs = [
                self.batch.add(sequence, positions[sequence] + step, [token], output=True)
                for sequence, token in enumerate(tokens)
            ]
            self.context.decode(self.batch)
        for sampler in samplers:
            sampler.close()
        return [first] * len(prompts), time.perf_counter() - started, count * len(prompts)


def main() -> None:
    peer = BareLoop(sys.argv[1], *map(int, sys.argv[2:5]))
    print("READY", flush=True)
    for line in sys.stdin:
        prompts, count = json.loads(line)
        print(json.dumps(peer.run(prompts, count)), flush=True)


if __name__ == "__main__":
    main()
