"""The door to the chain: one endpoint's answers translated, several endpoints as one, nothing of a URL shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from secrets_support import RPC_PATH

from fabstir_desktop.errors import CallReverted, RpcRefused, RpcUnreachable, WrongChain
from fabstir_desktop.settlement.chain import RpcEndpoint, endpoint_name
from fabstir_desktop.settlement.chain_client import ChainClient
from fabstir_desktop.settlement.classifier import Answer
from fabstir_desktop.settlement.rpc_pool import RpcPool

Reply = Callable[[dict[str, Any]], web.Response]
SECRET = RPC_PATH


class Node:
    """A JSON-RPC server whose answers the test writes."""

    def __init__(self, chain_id: int = 84532) -> None:
        self.chain_id = chain_id
        self.asked: list[str] = []
        self.reply: Reply = lambda call: result(call, "0x1")
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        call = await request.json()
        self.asked.append(call["method"])
        return result(call, hex(self.chain_id)) if call["method"] == "eth_chainId" else self.reply(call)


def result(call: dict[str, Any], value: Any) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": call["id"], "result": value})


def error(call: dict[str, Any], code: int, message: str, data: Any = None, status: int = 200) -> web.Response:
    fields = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return web.json_response({"jsonrpc": "2.0", "id": call["id"], "error": fields}, status=status)


@pytest.fixture
async def start_node() -> AsyncIterator[Callable[..., Any]]:
    runners = []

    async def start(chain_id: int = 84532) -> Node:
        node = Node(chain_id)
        application = web.Application()
        application.router.add_post(f"/{SECRET}", node.handle)
        runner = web.AppRunner(application)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        node.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/{SECRET}"  # type: ignore[union-attr]
        return node

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def pool_of() -> AsyncIterator[Callable[..., RpcPool]]:
    pools: list[RpcPool] = []

    def make(*urls: str, chain_id: int = 84532) -> RpcPool:
        pools.append(RpcPool([RpcEndpoint(url, timeout_s=2.0) for url in urls], chain_id))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


DEAD = f"http://127.0.0.1:9/{SECRET}"


@pytest.mark.parametrize(
    "reply",
    [
        lambda call: web.Response(text="<html>log in</html>", content_type="text/html"),
        lambda call: web.Response(text='{"jsonrpc":"2.0","id":1,"resu'),
        lambda call: web.json_response({"jsonrpc": "2.0", "id": call["id"]}),
        lambda call: web.json_response([1, 2]),
        lambda call: web.Response(body=b"\xff\xfe"),
    ],
)
async def test_an_answer_that_is_no_json_rpc_counts_as_none(start_node: Any, pool_of: Any, reply: Reply) -> None:
    node = await start_node()
    node.reply = reply
    with pytest.raises(RpcUnreachable):
        await pool_of(node.url).request("eth_blockNumber")


async def test_an_error_keeps_code_text_and_data_and_hides_the_url(start_node: Any, pool_of: Any) -> None:
    node = await start_node()
    node.reply = lambda call: error(call, -32000, f"nonce too low at {node.url}", status=400)
    with pytest.raises(RpcRefused) as caught:
        await pool_of(node.url).request("eth_sendRawTransaction", "0x00")
    assert caught.value.code == -32000
    assert "nonce too low" in caught.value.detail
    assert SECRET not in str(caught.value) + caught.value.detail


async def test_no_error_text_shows_the_path_of_the_url(pool_of: Any) -> None:
    with pytest.raises(RpcUnreachable) as caught:
        await pool_of(DEAD).request("eth_blockNumber")
    assert SECRET not in str(caught.value)
    assert endpoint_name("https://user:pass@rpc.example/key?x=1") == "rpc.example"


async def test_a_node_that_repeats_parts_of_the_url_gives_no_password_away(start_node: Any, pool_of: Any) -> None:
    node = await start_node()
    url = f"{node.url}?apikey=q77-{SECRET}&network=base"
    text = f"project {SECRET} at /{SECRET}?apikey=q77-{SECRET} is over its limit for base"
    node.reply = lambda call: error(call, -32000, text)
    with pytest.raises(RpcRefused) as caught:
        await pool_of(url).request("eth_sendRawTransaction", "0x00")
    assert SECRET not in str(caught.value) + caught.value.detail
    assert "q77" not in caught.value.detail
    assert caught.value.detail.endswith("is over its limit for base"), "words are left in place"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_http_errors_go_on_to_the_next_endpoint(start_node: Any, pool_of: Any, status: int) -> None:
    first, second = await start_node(), await start_node()
    first.reply = lambda call: web.Response(status=status, text="no")
    pool = pool_of(first.url, second.url)
    assert await pool.request("eth_blockNumber") == "0x1"
    assert pool.active_name == endpoint_name(second.url)
    first.asked.clear()
    assert await pool.request("eth_blockNumber") == "0x1"
    assert first.asked == [], "it rests for a while"


async def test_a_revert_is_an_answer_and_not_asked_again_elsewhere(start_node: Any, pool_of: Any) -> None:
    first, second = await start_node(), await start_node()
    data = "0x08c379a0" + (32).to_bytes(32).hex() + (5).to_bytes(32).hex() + b"No job".ljust(32, b"\0").hex()
    data = data.replace((5).to_bytes(32).hex(), (6).to_bytes(32).hex())
    first.reply = lambda call: error(call, 3, "execution reverted: No job", data)
    with pytest.raises(CallReverted) as caught:
        await ChainClient(pool_of(first.url, second.url)).call("0x" + "11" * 20, b"")
    assert caught.value.reason == "No job"
    assert second.asked == []


@pytest.mark.parametrize(
    ("data", "message", "reason"),
    [
        (None, "execution reverted: Not the job's host", "Not the job's host"),
        (None, "execution reverted", "no reason given"),
        ({"data": "0xd93c0665"}, "execution reverted", "error 0xd93c0665"),
        ("Reverted 0xd93c0665", "execution reverted", "error 0xd93c0665"),
        ("0x4e487b71" + (17).to_bytes(32).hex(), "execution reverted", "Panic(0x11)"),
    ],
)
async def test_revert_reasons_are_found_where_nodes_put_them(
    start_node: Any, pool_of: Any, data: Any, message: str, reason: str
) -> None:
    node = await start_node()
    node.reply = lambda call: error(call, 3, message, data)
    with pytest.raises(CallReverted) as caught:
        await ChainClient(pool_of(node.url)).call("0x" + "11" * 20, b"")
    assert caught.value.reason == reason


async def test_an_endpoint_on_another_chain_is_used_for_nothing(start_node: Any, pool_of: Any) -> None:
    wrong, right = await start_node(1), await start_node()
    pool = pool_of(wrong.url, right.url)
    assert await pool.request("eth_blockNumber") == "0x1"
    await pool.send_raw(b"\x02", bytes(32))
    assert set(wrong.asked) == {"eth_chainId"}
    lonely = pool_of(wrong.url)
    with pytest.raises(WrongChain) as caught:
        await lonely.request("eth_blockNumber")
    assert (caught.value.expected, caught.value.found) == (84532, 1)
    wrong.chain_id = 84532
    assert await lonely.request("eth_blockNumber") == "0x1"


async def test_bytes_go_to_every_endpoint_and_another_hash_is_no_success(start_node: Any, pool_of: Any) -> None:
    good, liar = await start_node(), await start_node()
    tx_hash = b"\x05" * 32
    good.reply = lambda call: result(call, "0x" + tx_hash.hex())
    liar.reply = lambda call: result(call, "0x" + "06" * 32)
    answers = await pool_of(good.url, liar.url, DEAD).send_raw(b"\x02", tx_hash)
    assert [answer.answer for answer in answers] == [Answer.SENT, Answer.UNKNOWN, Answer.RETRY]


async def test_a_send_is_handed_over_once(start_node: Any, pool_of: Any) -> None:
    node = await start_node()
    node.reply = lambda call: web.Response(status=503, text="no")
    await pool_of(node.url).send_raw(b"\x02", bytes(32))
    assert node.asked.count("eth_sendRawTransaction") == 1, "no library repeats it behind our back"


async def test_a_null_receipt_and_an_index_in_progress_are_no_information(start_node: Any, pool_of: Any) -> None:
    node = await start_node()
    client = ChainClient(pool_of(node.url))
    node.reply = lambda call: result(call, None)
    assert await client.receipt(bytes(32)) is None
    node.reply = lambda call: error(call, -32000, "transaction indexing is in progress")
    assert await client.receipt(bytes(32)) is None
    node.reply = lambda call: result(call, {"status": "0x1"})
    with pytest.raises(RpcUnreachable):
        await client.receipt(bytes(32))


async def test_after_closing_nothing_is_opened_again(start_node: Any, pool_of: Any) -> None:
    node = await start_node()
    pool = pool_of(node.url)
    assert await pool.request("eth_blockNumber") == "0x1"
    await pool.close()
    with pytest.raises(RpcUnreachable):
        await pool.request("eth_blockNumber")


async def test_an_endpoint_that_lags_is_asked_last_until_it_has_caught_up(start_node: Any, pool_of: Any) -> None:
    late, good = await start_node(), await start_node()
    late.reply, good.reply = (lambda call: result(call, hex(80))), (lambda call: result(call, hex(100)))
    pool = pool_of(late.url, good.url)
    assert await pool.request("eth_blockNumber") == hex(80), "nothing is known of the other one yet"
    await pool.compare_heads()
    assert sorted(pool.lags_blocks.values()) == [0, 20]
    assert await pool.request("eth_blockNumber") == hex(100)
    late.reply = lambda call: result(call, hex(99))
    await pool.compare_heads()
    assert await pool.request("eth_blockNumber") == hex(99)


async def test_a_list_of_logs_is_believed_only_from_a_node_that_has_the_blocks(start_node: Any, pool_of: Any) -> None:
    late, good = await start_node(), await start_node()
    late.reply = lambda call: result(call, hex(95) if call["method"] == "eth_blockNumber" else [])
    good.reply = lambda call: result(call, hex(100) if call["method"] == "eth_blockNumber" else [])
    assert await ChainClient(pool_of(late.url, good.url)).logs("0x" + "11" * 20, [], 1, 100) == []
    assert ("eth_getLogs" in late.asked, "eth_getLogs" in good.asked) == (False, True)
    with pytest.raises(RpcUnreachable, match="block 95"):
        await ChainClient(pool_of(late.url)).logs("0x" + "11" * 20, [], 1, 100)


async def test_who_asks_to_be_left_alone_is_left_alone_for_so_long(start_node: Any) -> None:
    clock = [0.0]
    limited, other = await start_node(), await start_node()
    limited.reply = lambda call: web.Response(status=429, text="slow down", headers={"Retry-After": "40"})
    endpoints = [RpcEndpoint(limited.url, timeout_s=2.0), RpcEndpoint(other.url, timeout_s=2.0)]
    pool = RpcPool(endpoints, 84532, clock=lambda: clock[0])
    assert await pool.request("eth_gasPrice") == "0x1"
    limited.asked.clear()
    for clock[0] in (1.0, 10.0, 31.0):
        await pool.request("eth_gasPrice")
    assert limited.asked == []
    limited.reply = lambda call: result(call, "0x2")
    clock[0] = 50.0
    assert await pool.request("eth_gasPrice") == "0x2"
    await pool.close()


async def test_a_node_that_forgot_an_old_state_is_not_the_last_word(start_node: Any, pool_of: Any) -> None:
    young, archive = await start_node(), await start_node()
    young.reply = lambda call: error(call, -32000, "missing trie node 5f21 (path ) state is not available")
    assert await pool_of(young.url, archive.url).request("eth_getTransactionCount", "0x", "0x1") == "0x1"
    with pytest.raises(RpcUnreachable):
        await pool_of(young.url).request("eth_getTransactionCount", "0x", "0x1")


async def test_two_urls_of_one_host_are_two_endpoints(start_node: Any, pool_of: Any) -> None:
    node = await start_node()
    pool = pool_of(node.url, node.url)
    assert await pool.ask_all("eth_gasPrice") == ["0x1", "0x1"]
    assert len(pool.lags_blocks) == 0
    await pool.compare_heads()
    assert len(pool.lags_blocks) == 2
    assert all(SECRET not in name for name in pool.lags_blocks)
