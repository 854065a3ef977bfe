"""The product outside its serving hours: paused by itself, with the reason and the end in its sentence."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from product_support import running

from fabstir_desktop.server.control import call_running


async def test_outside_its_hours_a_started_host_pauses_says_why_and_resumes_when_told(tmp_path: Path) -> None:
    opens = datetime.now() + timedelta(hours=3)
    span = f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}"
    environment = {"SERVING_HOURS": span, "RPC_URL": "http://127.0.0.1:9"}
    async with running(tmp_path / "data", environment, wait_for_model=False) as product:
        status = await product.wait_for(lambda status: status["state"] == "paused")
        assert status["sentence"] == f"Paused until {opens:%H:%M}: outside the serving hours"
        await call_running(product.data_dir, "resume", {}, timeout_s=10.0)
        status = await product.wait_for(lambda status: status["state"] == "serving")
        assert "serving hours" not in status["sentence"]
        code, _ = await product.stop()
        assert code == 0
