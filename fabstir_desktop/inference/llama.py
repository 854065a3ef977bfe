"""The only door to llama.cpp: model, vocabulary, context and samplers over llama-cpp-python's low-level API.

Lives in the worker process alone; the parent never imports it. The high-level `Llama` class is not used: it serves one
stream at a time and miscounts tokens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import llama_cpp
import llama_cpp._ggml as ggml
import numpy as np

from fabstir_desktop.inference.gpu import Device
from fabstir_desktop.inference.threads import ThreadGovernor
from fabstir_desktop.inference.wire import Sampling

PENALTY_WINDOW_TOKENS = 64
_WARNING = 3  # ggml's log levels: 1 debug, 2 info, 3 warning, 4 error, 5 continued
_GPU_TYPES = (1, 2)  # ggml's kinds of device: 0 processor, 1 GPU, 2 GPU built into the processor
_LETTERS = bytes(range(0x21, 0x7F))
"""ASCII without blanks."""
_NO_LETTERS = bytes(set(range(256)) - set(_LETTERS))
_OFFLOADED = re.compile(rb"offloaded (\d+)/(\d+) layers to GPU")


class LlamaError(Exception):
    """llama.cpp refused. The text holds nothing of a prompt."""


class OutOfMemory(LlamaError):
    """There is not enough memory for what was asked."""


class DecodeError(LlamaError):
    """A decode step failed; the context must be rebuilt."""


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How the KV cache and the computation are laid out. `window` is the tokens of one sequence."""

    window: int
    sequences: int
    threads: int
    yields_cores: bool = False
    """Use fewer threads while other programs want the cores; for models that are computed on the CPU alone."""
    batch_tokens: int = 2048
    unit_tokens: int = 512


class HasHandle(Protocol):
    """A context that llama.cpp knows."""

    handle: Any


class LlamaLog:
    """Pass warnings on to standard error, and read from the load messages how many layers went to the GPU."""

    def __init__(self) -> None:
        self.offloaded_layers = 0
        self._callback = llama_cpp.llama_log_callback(self._take)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _data: object) -> None:
        found = _OFFLOADED.search(text)
        if found:
            self.offloaded_layers = int(found.group(1))
        if level >= _WARNING and level < 5:
            with contextlib.suppress(OSError):
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text[:2000])


class LlamaModel:
    """A loaded model and its vocabulary. `gpu_layers` -1 means all."""

    def __init__(
        self, path: str, *, gpu_layers: int, progress: Callable[[float], None], vocabulary_only: bool = False
    ) -> None:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        parameters.vocab_only = vocabulary_only

        def report(fraction: float, _data: object) -> bool:
            progress(fraction)
            return True

        self._progress = llama_cpp.llama_progress_callback(report)
        parameters.progress_callback = self._progress
        self.handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise LlamaError("llama.cpp cannot load this file, or there is not enough memory for it")
        self.vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self.trained_window = int(llama_cpp.llama_model_n_ctx_train(self.handle))
        self.layer_count = int(llama_cpp.llama_model_n_layer(self.handle))
        self._piece_by_id: dict[int, bytes] = {}
        self._eog = frozenset(i for i in range(self.vocabulary_size) if llama_cpp.llama_vocab_is_eog(self.vocab, i))

    def close(self) -> None:
        """Free the model."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    def new_context(self, options: ContextOptions) -> LlamaContext:
        """An empty cache for this model. Raises LlamaError if there is not enough memory."""
        return LlamaContext(self, options)

    def new_sampler(self, parameters: Sampling) -> Sampler:
        """A sampler for one stream. Raises LlamaError if there is not enough memory."""
        return Sampler(parameters, self.vocabulary_size)

    @property
    def chat_template(self) -> str | None:
        """The template in the file, None if it has none."""
        raw = llama_cpp.llama_model_chat_template(self.handle, None)
        return raw.decode("utf-8", errors="replace") if raw else None

    @property
    def bos_id(self) -> int | None:
        """The token that begins every prompt, if this model wants one."""
        token = int(llama_cpp.llama_vocab_bos(self.vocab))
        return token if token >= 0 and llama_cpp.llama_vocab_get_add_bos(self.vocab) else None

    @property
    def bos_text(self) -> str:
        """The spelling of the beginning token; empty if there is none."""
        return self._spelling(int(llama_cpp.llama_vocab_bos(self.vocab)))

    @property
    def eos_text(self) -> str:
        """The spelling of the end token; empty if there is none."""
        return self._spelling(int(llama_cpp.llama_vocab_eos(self.vocab)))

    def control_texts(self) -> list[str]:
        """The spellings of all control tokens."""
        is_control = llama_cpp.llama_vocab_is_control
        return [self._spelling(token) for token in range(self.vocabulary_size) if is_control(self.vocab, token)]

    def longest_word(self) -> int:
        """Most ASCII letters, digits and signs that one token stands for; 0 where that is not certain.

        It is where each of them ends up in a token: the vocabulary's kind does not rewrite texts, and each has a token of its
        own. Other characters are left out: some vocabularies drop what they do not know, and templates cut off blanks.
        """
        if llama_cpp.llama_vocab_type(self.vocab) not in {
            llama_cpp.LLAMA_VOCAB_TYPE_SPM,
            llama_cpp.LLAMA_VOCAB_TYPE_BPE,
        }:
            return 0
        text_of, vocab = llama_cpp.llama_vocab_get_text, self.vocab
        spellings = [text_of(vocab, token) for token in range(self.vocabulary_size)]
        single = {spelling[0] for spelling in spellings if len(spelling) == 1}
        longest = max(len(spelling.translate(None, _NO_LETTERS)) for spelling in spellings)
        return longest if single.issuperset(_LETTERS) else 0

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (it is not billed)."""
        return token in self._eog

    def tokenise(self, text: str, *, parse_controls: bool) -> list[int]:
        """Token ids of `text`, nothing added. Control tokens' spellings are read as such only with `parse_controls`."""
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 8
        for _ in range(2):
            ids = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, room, False, parse_controls)
            if count >= 0:
                return list(ids[:count])
            room = -count
        raise LlamaError("the text cannot be split into tokens")

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        known = self._piece_by_id.get(token)
        if known is None:
            known = self._piece_by_id[token] = self._render(token, special=False)
        return known

    def _spelling(self, token: int) -> str:
        return self._render(token, special=True).decode("utf-8", errors="replace") if token >= 0 else ""

    def _render(self, token: int, *, special: bool) -> bytes:
        room = 64
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count
        raise LlamaError("a token has no readable text")


class Batch:
    """The input of one decode step, filled through flat arrays (ten times cheaper than through ctypes pointers)."""

    def __init__(self, capacity: int) -> None:
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._counts = np.ones(capacity, dtype=np.int32)
        self._sequences = np.zeros(capacity, dtype=np.int32)
        self._outputs = np.zeros(capacity, dtype=np.int8)
        pointer = ctypes.POINTER(ctypes.c_int32)
        base, width = self._sequences.ctypes.data, self._sequences.itemsize
        self._sequence_pointers = (pointer * capacity)(
            *(ctypes.cast(base + index * width, pointer) for index in range(capacity))
        )
        self.native = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(pointer),
            embd=None,
            pos=self._positions.ctypes.data_as(pointer),
            n_seq_id=self._counts.ctypes.data_as(pointer),
            seq_id=ctypes.cast(self._sequence_pointers, ctypes.POINTER(pointer)),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self.size = 0

    def clear(self) -> None:
        """Begin a new step."""
        self.size = 0

    def add(self, sequence: int, position: int, tokens: Sequence[int], *, output: bool, every: bool = False) -> int:
        """Append tokens of a sequence; returns the index whose logits are computed (with `output`)."""
        start, end = self.size, self.size + len(tokens)
        self._tokens[start:end] = tokens
        self._positions[start:end] = range(position, position + len(tokens))
        self._sequences[start:end] = sequence
        self._outputs[start:end] = every
        if output:
            self._outputs[end - 1] = 1
        self.size = end
        self.native.n_tokens = end
        return end - 1


class LlamaContext:
    """The KV cache and the computation. One decode at a time, from one thread."""

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = options.window * options.sequences
        parameters.n_batch = options.batch_tokens
        parameters.n_ubatch = options.unit_tokens
        parameters.n_seq_max = options.sequences
        parameters.n_threads = options.threads
        parameters.n_threads_batch = options.threads
        # A stream of cells for each sequence: 8 % more tokens a second than one shared pool.
        parameters.kv_unified = False
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        parameters.no_perf = True
        self.handle = llama_cpp.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise OutOfMemory("there is not enough memory for the context")
        self._memory = llama_cpp.llama_get_memory(self.handle)
        self._governor = ThreadGovernor(options.threads) if options.yields_cores else None
        self.window = int(llama_cpp.llama_n_ctx_seq(self.handle))
        self.vocabulary_size = model.vocabulary_size

    def close(self) -> None:
        """Free the cache."""
        if self.handle:
            llama_cpp.llama_free(self.handle)
            self.handle = None

    def decode(self, batch: Batch) -> None:
        """Compute one step. Raises DecodeError."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        code = llama_cpp.llama_decode(self.handle, batch.native)
        if code != 0:
            raise DecodeError(f"llama_decode failed with code {code}")
        if self._governor is not None:
            before = self._governor.threads
            threads = self._governor.note(time.perf_counter() - wall_s, time.process_time() - cpu_s)
            if threads != before:
                llama_cpp.llama_set_n_threads(self.handle, threads, threads)

    def logits(self, index: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """A view of the logits of the batch's token `index`, valid until the next step."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))

    def cut(self, sequence: int, start: int) -> bool:
        """Drop the sequence's cells from `start` on; False if this model cannot drop a part (then nothing was dropped)."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence, start if start > 0 else -1, -1))

    def state_bytes(self, sequence: int) -> int:
        """How large `save` would be."""
        return int(llama_cpp.llama_state_seq_get_size(self.handle, sequence))

    def save(self, sequence: int) -> bytes:
        """The sequence's cells as bytes."""
        size = llama_cpp.llama_state_seq_get_size(self.handle, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = llama_cpp.llama_state_seq_get_data(self.handle, buffer, size, sequence)
        return bytes(memoryview(buffer)[:written])

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put saved cells into an empty sequence; False if there is no room."""
        # The call reads only; a copy of what may be megabytes would cost more than the restoring itself.
        pointer = ctypes.cast(ctypes.c_char_p(state), ctypes.POINTER(ctypes.c_uint8))
        return bool(llama_cpp.llama_state_seq_set_data(self.handle, pointer, len(state), sequence))


class Sampler:
    """How one stream chooses its tokens: penalties, top-k, top-p, min-p, temperature, then a draw with the stream's seed."""

    def __init__(self, parameters: Sampling, vocabulary_size: int) -> None:
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if not self._chain:
            raise LlamaError("no memory for a sampler")
        p = parameters
        if p.repeat_penalty != 1.0 or p.frequency_penalty != 0.0 or p.presence_penalty != 0.0:
            self._add(
                llama_cpp.llama_sampler_init_penalties(
                    vocabulary_size,
                    PENALTY_WINDOW_TOKENS,
                    p.repeat_penalty,
                    p.frequency_penalty,
                    p.presence_penalty,
                )
            )
        if p.temperature <= 0.0:
            self._add(llama_cpp.llama_sampler_init_greedy())
            return
        if p.top_k > 0:
            self._add(llama_cpp.llama_sampler_init_top_k(p.top_k))
        if p.top_p < 1.0:
            self._add(llama_cpp.llama_sampler_init_top_p(p.top_p, 1))
        if p.min_p > 0.0:
            self._add(llama_cpp.llama_sampler_init_min_p(p.min_p, 1))
        self._add(llama_cpp.llama_sampler_init_temp(p.temperature))
        self._add(llama_cpp.llama_sampler_init_dist(p.seed))

    def sample(self, context: HasHandle, index: int) -> int:
        """Choose the token after the batch's token `index`, and remember it for the penalties."""
        return int(llama_cpp.llama_sampler_sample(self._chain, context.handle, index))

    def close(self) -> None:
        """Free the sampler."""
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None

    def _add(self, link: object) -> None:
        if not link:
            raise LlamaError("no memory for a sampler")
        llama_cpp.llama_sampler_chain_add(self._chain, link)


def gpu_devices() -> list[Device]:
    """The GPUs that this build of llama.cpp can put layers on, with what memory they have free now."""
    if not llama_cpp.llama_supports_gpu_offload():
        return []
    llama_cpp.llama_backend_init()
    library = ggml.libggml
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    library.ggml_backend_dev_name.restype = ctypes.c_char_p
    library.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    pointer = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.restype = None
    library.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, pointer, pointer]
    found = []
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        if library.ggml_backend_dev_type(device) not in _GPU_TYPES:
            continue
        free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        name = library.ggml_backend_dev_name(device) or b""
        found.append(Device(name.decode("utf-8", errors="replace"), free.value, total.value))
    return found
