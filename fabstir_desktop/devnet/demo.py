"""A small world on a test chain: the contract deployed, a host with gas money, a client whose job has a deposit."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from fabstir_desktop.devnet.artifacts import Artifact, contract_address, load_artifact
from fabstir_desktop.devnet.chain import EmbeddedChain
from fabstir_desktop.devnet.client import ChainClient, Sender

DEMO_TOKENS = 100_000
DEMO_PRICE_PER_TOKEN_WEI = 10**13
"""A hundred tokens earn a thousandth of an ETH: some times what their checkpoint costs in gas here."""
HOST_GAS_MONEY_WEI = 10**18
CLIENT_MONEY_WEI = 10**21
_SETUP_GAS = 3_000_000
_CREATE_JOB_GAS = 250_000


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """What `deploy_demo` has set up. The keys are throw-away keys; they are not shown by `repr`."""

    rpc_url: str
    chain_id: int
    contract: str
    host_address: str
    client_address: str
    treasury_address: str
    price_per_token_wei: int
    job_ids: tuple[int, ...]
    host_key: str = field(repr=False)
    client_key: str = field(repr=False)

    @property
    def job_id(self) -> int:
        """The first job."""
        return self.job_ids[0]


async def deploy_demo(
    chain: EmbeddedChain | str,
    *,
    bank_key: str | None = None,
    host_key: str | None = None,
    jobs: int = 1,
    tokens: int = DEMO_TOKENS,
    price_per_token_wei: int = DEMO_PRICE_PER_TOKEN_WEI,
) -> DemoWorld:
    """Deploy ProofSystem, fund a random host and client, and open `jobs` jobs that cover `tokens` tokens each.

    `chain` is an embedded chain, or the RPC URL of another one with `bank_key`, an account that has money there. All
    transactions leave together, so that a chain with a block time needs two blocks for it. Raises RpcFault.
    """
    rpc_url = chain if isinstance(chain, str) else chain.rpc_url
    bank_secret = bank_key or (chain.bank_key if isinstance(chain, EmbeddedChain) else None)
    if bank_secret is None:
        raise ValueError("bank_key is needed for a chain that is not embedded")
    host_secret, client_secret = host_key or _random_key(), _random_key()
    treasury = _random_address()
    async with ChainClient(rpc_url) as client:
        bank, host, payer = (Sender(client, key) for key in (bank_secret, host_secret, client_secret))
        contract = await _deploy_and_fund(client, bank, treasury, host.address, payer.address)
        job_ids = await _open_jobs(
            client, payer, load_artifact("ProofSystem"), contract, host.address, jobs, price_per_token_wei, tokens
        )
        chain_id = await client.number("eth_chainId")
    return DemoWorld(
        rpc_url=rpc_url,
        chain_id=chain_id,
        contract=contract,
        host_address=host.address,
        client_address=payer.address,
        treasury_address=treasury,
        price_per_token_wei=price_per_token_wei,
        job_ids=job_ids,
        host_key=host_secret,
        client_key=client_secret,
    )


async def _deploy_and_fund(client: ChainClient, bank: Sender, treasury: str, host: str, payer: str) -> str:
    """Deploy the contract and give both accounts money, all at once; return the contract's address."""
    contract = contract_address(bank.address, await client.number("eth_getTransactionCount", bank.address, "pending"))
    setup = [
        await bank.send(None, load_artifact("ProofSystem").encode_deployment(treasury), gas=_SETUP_GAS),
        await bank.send(host, value_wei=HOST_GAS_MONEY_WEI, gas=21_000),
        await bank.send(payer, value_wei=CLIENT_MONEY_WEI, gas=21_000),
    ]
    await asyncio.gather(*(client.receipt(tx_hash) for tx_hash in setup))
    return contract


async def create_job(
    world: DemoWorld, *, tokens: int = DEMO_TOKENS, host: str | None = None, price_per_token_wei: int | None = None
) -> int:
    """Open a further job of the world's client, for its host or another one; return its id. Raises RpcFault."""
    price = world.price_per_token_wei if price_per_token_wei is None else price_per_token_wei
    async with ChainClient(world.rpc_url) as client:
        payer = Sender(client, world.client_key)
        artifact = load_artifact("ProofSystem")
        return (
            await _open_jobs(client, payer, artifact, world.contract, host or world.host_address, 1, price, tokens)
        )[0]


async def _open_jobs(
    client: ChainClient,
    payer: Sender,
    artifact: Artifact,
    contract: str,
    host: str,
    count: int,
    price_wei: int,
    tokens: int,
) -> tuple[int, ...]:
    data = artifact.encode_call("createJob", host, price_wei)
    hashes = [await payer.send(contract, data, value_wei=price_wei * tokens, gas=_CREATE_JOB_GAS) for _ in range(count)]
    receipts = await asyncio.gather(*(client.receipt(tx_hash) for tx_hash in hashes))
    created = [artifact.decode_events(receipt["logs"], "JobCreated")[0] for receipt in receipts]
    return tuple(int(event["jobId"]) for event in created)


def _random_address() -> str:
    from eth_utils.address import to_checksum_address  # noqa: PLC0415

    return str(to_checksum_address(secrets.token_bytes(20)))


def _random_key() -> str:
    return "0x" + secrets.token_hex(32)
