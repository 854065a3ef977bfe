"""A host that adds the key later, run inside a D-Bus session of its own with a real GNOME Keyring.

`dbus-run-session -- python late_key_scenario.py FOLDER`; the last line is `paid without a restart`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from engine_support import small_model_path
from host_environment import chain_environment
from keyring_scenarios import unlocked_daemon
from product_support import ask_once, brief_request, running
from secrets_support import canary_key

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.demo import deploy_demo

PROMPT = "Write a long story about a lighthouse keeper and an old radio."


async def main(folder: Path) -> None:
    """Count without a key; give the key to the keyring by the command line; see everything paid."""
    unlocked_daemon()
    key = canary_key()
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        world = await deploy_demo(chain, host_key=key)
        environment = {
            **chain_environment(world),
            "MODEL_PATH": str(small_model_path()),
        }
        async with running(folder / "data", environment) as product:
            process = product.process
            await product.wait_for(lambda status: status["wallet"]["state"] == "none")
            answer = await ask_once(product.url, brief_request(world.job_id, PROMPT, 120))
            assert answer.error is None, answer.error
            before = await product.job(world.job_id, lambda job: job["generated"] == answer.chunk_tokens > 0)
            assert before["settled"] == 0
            assert json.loads((await product.command("transactions", "--json"))[1]) == []
            code, text = await product.command("key", "set", input_text=key + "\n")
            assert code == 0, text
            assert "Secret Service" in text, text
            assert key.removeprefix("0x") not in text
            row = await product.job(world.job_id, lambda job: job["settled"] == job["generated"], 60)
            assert row["settled"] == answer.chunk_tokens
            assert product.process is process
            assert process is not None
            assert process.poll() is None
            code, _ = await product.stop()
            assert code == 0, product.output[-3000:]
    print("paid without a restart")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
