"""Clients choose session ids: two clients with the same one have two sessions, also where tokens are counted."""

from __future__ import annotations

from fabstir_desktop.server.actions import EndSession
from fabstir_desktop.server.decoder import decode_frame
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.protocol import Protocol
from fabstir_desktop.server.session import Peer, Session


def open_session(protocol: Protocol, address: str, job_id: int) -> tuple[int, Session]:
    socket_id, _ = protocol.socket_opened(Peer(address, address, False, False), 0.0)
    frame = decode_frame(
        f'{{"type":"prompt","prompt":"hello","session_id":"session-001","job_id":{job_id},"id":"{job_id}"}}'
    )
    (start,) = protocol.frame_received(socket_id, frame, 1.0)
    request = start.request  # type: ignore[union-attr]
    assert protocol.job_admitted(request)
    protocol.request_ended(request, "hi", 2.0)
    return socket_id, request.session


def test_the_end_of_one_clients_session_names_no_other_clients_session() -> None:
    protocol = Protocol(chain_id=1, version="1", grace_s=0.0, idle_s=100.0, limits=Limits())
    first_socket, first = open_session(protocol, "192.0.2.1", 1)
    _, second = open_session(protocol, "192.0.2.2", 2)
    assert first.session_id == second.session_id == "session-001"
    assert first.account_name != second.account_name
    assert first.account_name == "session-001", "the ledger shows the client's own name wherever it can"
    ended = [action for action in protocol.socket_closed(first_socket, 3.0) if isinstance(action, EndSession)]
    assert [action.session.account_name for action in ended] == [first.account_name]


def test_a_client_that_comes_back_while_another_has_its_name_gets_an_account_of_its_own() -> None:
    protocol = Protocol(chain_id=1, version="1", grace_s=0.0, idle_s=100.0, limits=Limits())
    first_socket, _ = open_session(protocol, "192.0.2.1", 1)
    _, second = open_session(protocol, "192.0.2.2", 2)
    protocol.socket_closed(first_socket, 3.0)
    _, again = open_session(protocol, "192.0.2.1", 1)
    assert again.account_name != second.account_name
