"""The peers of the engine's benchmark that need a process of their own: the bare decode loop and llama-cpp-python's `Llama`.

`python engine_peers.py bare|llama MODEL WINDOW PARALLEL THREADS`; each line of standard input is a JSON list of prompts and a
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


class PythonLlama:
    """llama-cpp-python's own class, one stream after the other."""

    def __init__(self, model: str, window: int, _parallel: int, threads: int) -> None:
        from llama_cpp import Llama

        self.model = Llama(
            model, n_ctx=window, n_threads=threads, n_threads_batch=threads, verbose=False, flash_attn=True
        )

    def run(self, prompts: Sequence[str], count: int) -> Outcome:
        started = time.perf_counter()
        firsts, made = [], 0
        for seed, prompt in enumerate(prompts):
            first = 0.0
            stream = self.model.create_chat_completion(
                [{"role": "user", "content": prompt}], max_tokens=count, stream=True, seed=seed, temperature=0.7
            )
            for part in stream:
                if "content" in part["choices"][0]["delta"]:
                    first = first or time.perf_counter() - started
                    made += 1
            firsts.append(first)
        return firsts, time.perf_counter() - started, made


def main() -> None:
    kind, model, window, parallel, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    peer = {"bare": BareLoop, "llama": PythonLlama}[kind](model, window, parallel, threads)
    print("READY", flush=True)
    for line in sys.stdin:
        prompts, count = json.loads(line)
        print(json.dumps(peer.run(prompts, count)), flush=True)


if __name__ == "__main__":
    main()
