"""Blocks, transactions, receipts and logs as JSON-RPC shows them: camelCase, everything in hex."""

from __future__ import annotations

from typing import Any

from fabstir_desktop.devnet.answers import quantity, to_hex
from fabstir_desktop.devnet.evm import MinedBlock

Json = dict[str, Any]


def block_json(mined: MinedBlock, *, full: bool) -> Json:
    """Return a block, with whole transactions or their hashes only."""
    header = mined.header
    transactions = mined.block.transactions
    return {
        "number": quantity(header.block_number),
        "hash": to_hex(header.hash),
        "parentHash": to_hex(header.parent_hash),
        "nonce": to_hex(header.nonce),
        "sha3Uncles": to_hex(header.uncles_hash),
        "logsBloom": to_hex(header.bloom.to_bytes(256, "big")),
        "transactionsRoot": to_hex(header.transaction_root),
        "stateRoot": to_hex(header.state_root),
        "receiptsRoot": to_hex(header.receipt_root),
        "withdrawalsRoot": to_hex(header.withdrawals_root),
        "requestsHash": to_hex(header.requests_hash),
        "parentBeaconBlockRoot": to_hex(header.parent_beacon_block_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "miner": to_hex(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "mixHash": to_hex(header.mix_hash),
        "extraData": to_hex(header.extra_data),
        "size": quantity(600 + sum(len(item.encode()) for item in transactions)),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "transactions": [
            transaction_json(item, mined, index) if full else to_hex(item.hash)
            for index, item in enumerate(transactions)
        ],
        "uncles": [],
        "withdrawals": [],
    }


def transaction_json(transaction: Any, mined: MinedBlock | None, index: int) -> Json:
    """Return a transaction; without a block it is pending and its place is null."""
    type_id = _type_of(transaction)
    body: Json = {
        "type": quantity(type_id),
        "hash": to_hex(transaction.hash),
        "nonce": quantity(transaction.nonce),
        "blockHash": to_hex(mined.block.hash) if mined else None,
        "blockNumber": quantity(mined.block.number) if mined else None,
        "transactionIndex": quantity(index) if mined else None,
        "from": to_hex(transaction.sender),
        "to": to_hex(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "gasPrice": quantity(
            effective_gas_price(transaction, mined.header.base_fee_per_gas) if mined else transaction.max_fee_per_gas
        ),
        "input": to_hex(transaction.data),
        "chainId": quantity(transaction.chain_id),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
        "v": quantity(transaction.y_parity if type_id else transaction.v),
    }
    if type_id:
        body["yParity"] = quantity(transaction.y_parity)
        body["accessList"] = [
            {"address": to_hex(address), "storageKeys": [to_hex(key.to_bytes(32, "big")) for key in keys]}
            for address, keys in transaction.access_list
        ]
    if type_id >= 2:
        body["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
        body["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
    if type_id == 4:
        body["authorizationList"] = [_authorization_json(item) for item in transaction.authorization_list]
    return body


def receipt_json(mined: MinedBlock, index: int) -> Json:
    """Return the receipt of a mined transaction."""
    transaction, receipt = mined.block.transactions[index], mined.receipts[index]
    gas_before = mined.receipts[index - 1].gas_used if index else 0
    return {
        "type": quantity(_type_of(transaction)),
        "status": "0x1" if receipt.state_root == b"\x01" else "0x0",
        "transactionHash": to_hex(transaction.hash),
        "transactionIndex": quantity(index),
        "blockHash": to_hex(mined.block.hash),
        "blockNumber": quantity(mined.block.number),
        "from": to_hex(transaction.sender),
        "to": to_hex(transaction.to) if transaction.to else None,
        "contractAddress": None if transaction.to else to_hex(_created_address(transaction)),
        "cumulativeGasUsed": quantity(receipt.gas_used),
        "gasUsed": quantity(receipt.gas_used - gas_before),
        "effectiveGasPrice": quantity(effective_gas_price(transaction, mined.header.base_fee_per_gas)),
        "logs": _transaction_logs(mined, index),
        "logsBloom": to_hex(receipt.bloom.to_bytes(256, "big")),
    }


def block_logs(mined: MinedBlock) -> list[Json]:
    """Return all logs of a block, in order."""
    return [log for index in range(len(mined.receipts)) for log in _transaction_logs(mined, index)]


def effective_gas_price(transaction: Any, base_fee_wei: int) -> int:
    """Return what a unit of gas cost in a block with this base fee."""
    return int(min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + base_fee_wei))


def _transaction_logs(mined: MinedBlock, index: int) -> list[Json]:
    transaction, receipt = mined.block.transactions[index], mined.receipts[index]
    first = sum(len(item.logs) for item in mined.receipts[:index])
    return [
        {
            "address": to_hex(log.address),
            "topics": [to_hex(topic.to_bytes(32, "big")) for topic in log.topics],
            "data": to_hex(log.data),
            "blockNumber": quantity(mined.block.number),
            "blockHash": to_hex(mined.block.hash),
            "blockTimestamp": quantity(mined.header.timestamp),
            "transactionHash": to_hex(transaction.hash),
            "transactionIndex": quantity(index),
            "logIndex": quantity(first + offset),
            "removed": False,
        }
        for offset, log in enumerate(receipt.logs)
    ]


def _authorization_json(item: Any) -> Json:
    return {
        "chainId": quantity(item.chain_id),
        "address": to_hex(item.address),
        "nonce": quantity(item.nonce),
        "yParity": quantity(item.y_parity),
        "r": quantity(item.r),
        "s": quantity(item.s),
    }


def _type_of(transaction: Any) -> int:
    return int(getattr(transaction, "type_id", None) or 0)


def _created_address(transaction: Any) -> bytes:
    from eth._utils.address import generate_contract_address  # noqa: PLC0415  only needed for deployments

    return bytes(generate_contract_address(transaction.sender, transaction.nonce))
