"""The rows about the processes themselves: back after a kill, and what memory they take."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time

import psutil
from engine_contestants import Answer, WholeProduct, environment
from engine_support import ready_engine, small_model_path
from engine_table import MEBIBYTE, Field, Line, at_most, story
from product_support import Product
from websockets.asyncio.client import connect

from fabstir_desktop.inference.model_files import inspect_model

# --- after a kill --------------------------------------------------------------------------------------------------------


async def kill(field: Field) -> list[Line]:
    """SIGKILL of the child, a prompt at once, until its first token; and what loading alone takes."""
    recovered, loads = [], []
    window, parallel, threads = field.setup
    for round_ in range(field.rounds):
        started = time.perf_counter()
        engine = await ready_engine(parallel=parallel, context_window=window, threads=threads)
        loads.append(time.perf_counter() - started)
        await engine.stop()
        product = Product(field.folder / f"kill-{round_}", environment(*field.setup))
        try:
            await product.start()
            recovered.append(await first_token_after_kill(product))
        finally:
            product.kill()
    load_s = statistics.median(loads)
    how = f"loading alone {load_s:.2f} s, so the limit is {load_s + 1:.2f} s; worst {max(recovered):.2f} s"
    figure = "SIGKILL of the child to the next request's first token"
    return [at_most(figure, round(load_s + 1, 2), statistics.median(recovered), how, " s")]


async def first_token_after_kill(product: Product) -> float:
    status = await product.wait_for(lambda answer: answer["engine"]["worker_pid"] is not None)
    async with connect(product.url, compression=None) as socket:
        await socket.recv()
        await WholeProduct.ask_on(socket, story(1), 16, 1, Answer(time.perf_counter()), "before")
        killed = Answer(time.perf_counter())
        os.kill(status["engine"]["worker_pid"], signal.SIGKILL)
        for attempt in itertools.count(2):
            # A prompt that reached the dying child is told WORKER_CRASHED, and is not tried again: the client asks another.
            await WholeProduct.ask_on(socket, story(attempt), 4, 1, killed, "after")
            if killed.came_at:
                break
    return killed.first_s


# --- memory ----------------------------------------------------------------------------------------------------------------


async def memory(field: Field) -> list[Line]:
    """What app and child use together, less the model's file and the KV cache of the streams, after many sessions came and
    went: without a window, and as the tray application that most hosts run."""
    lines = [await memory_line(field.product.product, field, "without a window")]
    tray = {**environment(*field.setup), "QT_QPA_PLATFORM": "offscreen", "START_HIDDEN": "true"}
    product = Product(field.folder / "tray", tray, arguments=())
    try:
        await product.start()
        lines.append(await memory_line(product, field, "tray application"))
    finally:
        product.kill()
    return lines


async def memory_line(product: Product, field: Field, kind: str) -> Line:
    visitors = WholeProduct(product)
    for turn in range(0, field.sessions, 8):
        await visitors.run([story(turn + n) for n in range(min(8, field.sessions - turn))], field.tokens)
    await visitors.close()
    assert product.process is not None
    main = psutil.Process(product.process.pid)
    status = await product.wait_for(lambda answer: answer["engine"]["worker_pid"] is not None)
    child = psutil.Process(status["engine"]["worker_pid"])
    window, parallel, _ = field.setup
    model = inspect_model(small_model_path())
    cache = model.kv_bytes_per_token * window * parallel
    mapped = sum(part.rss for part in child.memory_maps() if part.path == str(model.path))
    app, worker = main.memory_info().rss, child.memory_info().rss - mapped - cache
    how = (
        f"app {app / MEBIBYTE:.0f}, child {worker / MEBIBYTE:.0f} MB beyond {mapped / MEBIBYTE:.0f} of the model's file"
    )
    how += f" and {cache / MEBIBYTE:.0f} of KV; after {field.sessions} sessions"
    figure = f"memory of app and child beyond model and KV, {kind}"
    return at_most(figure, 250, (app + worker) / MEBIBYTE, how, " MB", 0)
