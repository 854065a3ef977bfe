"""`batching status|on|off`: of the running app, and for its next start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain_support import wait_until
from host_environment import chain_environment
from product_support import Product, running
from secrets_support import canary_key

from fabstir_desktop.__main__ import main
from fabstir_desktop.devnet import EmbeddedChain
from fabstir_desktop.devnet.client import ChainClient
from fabstir_desktop.devnet.demo import deploy_demo
from fabstir_desktop.settings import load_settings
from fabstir_desktop.settlement.batch_contract import BATCH_CONTRACT, OWN_DELEGATION


async def test_the_running_app_is_switched_on_and_off_and_the_account_with_it(tmp_path: Path) -> None:
    async with EmbeddedChain.start(block_time_s=0.3) as chain, ChainClient(chain.rpc_url) as client:
        world = await deploy_demo(chain, host_key=canary_key())
        settings = {
            **chain_environment(world),
            "HOST_PRIVATE_KEY": world.host_key,
        }

        async def code_is(code: bytes) -> None:
            async def look() -> bool:
                found = await client.request("eth_getCode", world.host_address, "latest")
                return bool(found == "0x" + code.hex())

            await wait_until(look, 60)

        async with running(tmp_path / "data", settings, wait_for_model=False) as product:
            await product.wait_for(lambda found: found["chain"]["state"] == "ready")
            assert not (await told(product, "status"))["wanted"]
            assert (await told(product, "on"))["contract"] == BATCH_CONTRACT
            await code_is(OWN_DELEGATION)
            assert load_settings({"data_dir": tmp_path / "data"}).batch_claims
            await wait_until(lambda: is_active(product), 60)
            answer = await told(product, "off")
            assert not answer["wanted"]
            await code_is(b"")
            assert not load_settings({"data_dir": tmp_path / "data"}).batch_claims
            code, text = await product.command("batching")
            assert code == 0
            assert text.startswith(("Off", "Being turned off"))


async def told(product: Product, action: str) -> dict[str, object]:
    code, text = await product.command("batching", action, "--json")
    assert code == 0, text
    answer: dict[str, object] = json.loads(text)
    return answer


async def is_active(product: Product) -> bool:
    return bool((await told(product, "status"))["active"])


def test_without_a_running_app_the_setting_is_stored_and_when_it_takes_effect_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCH_CLAIMS", raising=False)
    folder = ["--data-dir", str(tmp_path)]
    assert main(["batching", "on", *folder]) == 0
    assert "when the app runs next" in capsys.readouterr().out
    assert load_settings({"data_dir": tmp_path}).batch_claims
    assert main(["batching", *folder]) == 0
    assert "The setting is on" in capsys.readouterr().out
    assert main(["batching", "off", "--json", *folder]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert not answer["wanted"]
    assert "taken back then" in answer["sentence"]
    assert not load_settings({"data_dir": tmp_path}).batch_claims


def test_what_the_environment_decides_is_not_stored_in_vain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_CLAIMS", "1")
    assert main(["batching", "off", "--data-dir", str(tmp_path)]) == 2
    assert "BATCH_CLAIMS is set by the environment variable" in capsys.readouterr().err
    assert not (tmp_path / "settings.toml").exists()
