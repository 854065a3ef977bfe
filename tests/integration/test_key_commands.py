"""The key from the command line: into a keystore file where there is no keyring, and into the running app."""

from __future__ import annotations

import secrets
from pathlib import Path

from engine_support import small_model_path
from host_environment import chain_environment
from product_support import Product, running
from secrets_support import canary_key

from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.client import ChainClient, Sender
from fabstir_desktop.devnet.demo import deploy_demo

PASSWORD = "correct horse battery staple"


async def test_without_a_keyring_the_key_lives_in_an_encrypted_file_and_the_running_app_takes_it(
    tmp_path: Path,
) -> None:
    async with EmbeddedChain.start(block_time_s=0.3) as chain:
        world = await deploy_demo(chain, host_key=canary_key())
        settings = {
            **chain_environment(world),
            "MODEL_PATH": str(small_model_path()),
        }
        async with running(tmp_path / "data", settings, wait_for_model=False) as product:
            code, text = await product.command("key", "set", input_text=world.host_key + "\n")
            assert code == 2
            assert "keyring" in text.lower(), "says that there is no keyring, and what to do"
            code, text = await product.command("key", "set", "--file", input_text=f"{world.host_key}\n{PASSWORD}\n")
            assert code == 0, text
            assert world.host_address in text
            code, text = await product.command("key", "unlock", input_text="wrong\n")
            assert code == 2, text
            code, text = await product.command("key", "unlock", input_text=PASSWORD + "\n")
            assert code == 0, text
            status = await product.wait_for(lambda found: found["chain"]["submitting"])
            assert status["wallet"]["address"] == world.host_address
            written = "".join(
                path.read_text(errors="replace")
                for path in tmp_path.rglob("*")
                if path.is_file() and path.suffix != ".db"
            )
            assert world.host_key.removeprefix("0x") not in written
            assert PASSWORD not in written


async def test_a_key_that_is_none_is_refused_without_being_repeated(tmp_path: Path) -> None:
    product = Product(tmp_path / "data", {})
    for wrong in ("0x1234", "g" * 64, secrets.token_hex(31)):
        code, text = await product.command("key", "set", "--file", input_text=f"{wrong}\n{PASSWORD}\n")
        assert code == 2
        assert "64" in text
        assert wrong not in text


async def test_another_key_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    product = Product(tmp_path / "data", {})
    first, second = canary_key(), canary_key()
    assert (await product.command("key", "set", "--file", input_text=f"{first}\n{PASSWORD}\n"))[0] == 0
    code, text = await product.command("key", "set", "--file", input_text=f"{second}\n{PASSWORD}\n")
    assert code == 2, text
    code, text = await product.command("key", "set", "--file", "--replace", input_text=f"{second}\n{PASSWORD}\n")
    assert code == 0, text
    async with ChainClient("http://127.0.0.1:9") as client:
        assert Sender(client, second).address in text
