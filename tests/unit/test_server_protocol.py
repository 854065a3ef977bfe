"""The state machine without sockets: what follows from which event, and that no order of events breaks its promises."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fabstir_desktop.jobs.generation import Message
from fabstir_desktop.server.actions import Abandon, Action, Cancel, CloseSocket, EndSession, JobContested, Reply, Start
from fabstir_desktop.server.decoder import decode_frame
from fabstir_desktop.server.limits import Limits
from fabstir_desktop.server.protocol import Protocol
from fabstir_desktop.server.session import CancelReason, Conversation, Peer, PromptRequest, RequestState

LOCAL = Peer("127.0.0.1", "127.0.0.1", True, True)
ALICE = Peer("203.0.113.1", "203.0.113.1", False, False)
BOB = Peer("203.0.113.2", "203.0.113.2", False, False)


def protocol(**changes: Any) -> Protocol:
    options: dict[str, Any] = {"chain_id": 84532, "version": "1", "grace_s": 5.0, "idle_s": 900.0, "limits": Limits()}
    return Protocol(**{**options, **changes})


def feed(machine: Protocol, socket_id: int, now_s: float = 0.0, **frame: Any) -> list[Action]:
    return machine.frame_received(socket_id, decode_frame(json.dumps(frame)), now_s)


def prompt(machine: Protocol, socket_id: int, now_s: float = 0.0, **fields: Any) -> list[Action]:
    return feed(machine, socket_id, now_s, type="prompt", **{"prompt": "x", **fields})


def started(actions: list[Action]) -> PromptRequest:
    [request] = [action.request for action in actions if isinstance(action, Start)]
    return request


def replies(actions: list[Action]) -> list[dict[str, Any]]:
    return [json.loads(action.data) for action in actions if isinstance(action, Reply)]


def opened(machine: Protocol, peer: Peer = LOCAL, now_s: float = 0.0) -> int:
    return machine.socket_opened(peer, now_s)[0]


def test_a_client_is_greeted() -> None:
    _, actions = protocol().socket_opened(LOCAL, 0.0)
    assert replies(actions)[0]["type"] == "connected"


def test_session_init_is_acknowledged_with_what_was_sent() -> None:
    machine = protocol()
    socket = opened(machine)
    [ack] = replies(feed(machine, socket, type="session_init", session_id="s", job_id=5, id="A"))
    assert ack == {
        "type": "session_init_ack",
        "status": "success",
        "session_id": "s",
        "job_id": 5,
        "chain_id": 84532,
        "message": "Session initialised",
        "id": "A",
    }


def test_a_prompt_without_session_belongs_to_the_one_last_initialised_there() -> None:
    machine = protocol()
    socket = opened(machine)
    feed(machine, socket, type="session_init", session_id="first", job_id=1)
    feed(machine, socket, type="session_init", session_id="second", job_id=2)
    request = started(prompt(machine, socket))
    assert (request.session.session_id, request.job_id, request.reply_session_id) == ("second", 2, "second")


def test_a_prompt_without_any_session_gets_the_sockets_own_whose_id_is_not_shown() -> None:
    machine = protocol()
    one, other = opened(machine), opened(machine)
    first, second = started(prompt(machine, one)), started(prompt(machine, other))
    assert first.session is not second.session
    assert first.reply_session_id is None
    machine.request_ended(first, "", 1.0)
    assert started(prompt(machine, one)).session is first.session


def test_initialising_again_replaces_the_job_and_keeps_what_was_said() -> None:
    machine = protocol()
    socket = opened(machine)
    feed(machine, socket, type="session_init", session_id="s", job_id=1)
    machine.request_ended(started(prompt(machine, socket, prompt="Hi")), "Hello", 1.0)
    feed(machine, socket, type="session_init", session_id="s", job_id=2)
    request = started(prompt(machine, socket, prompt="And?"))
    assert request.job_id == 2
    turns = request.session.turns_for(request, 2048)
    assert turns == (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "And?"))


def test_messages_of_the_client_replace_what_was_kept() -> None:
    machine = protocol()
    socket = opened(machine)
    feed(machine, socket, type="session_init", session_id="s")
    machine.request_ended(started(prompt(machine, socket, prompt="Hi")), "Hello", 1.0)
    other = started(feed(machine, socket, type="prompt", messages=[{"role": "user", "content": "New"}]))
    assert other.session.turns_for(other, 2048) == (Message("user", "New"),)
    machine.request_ended(other, "Yes", 2.0)
    last = started(prompt(machine, socket, prompt="Why"))
    assert [turn.content for turn in last.session.turns_for(last, 2048)] == ["New", "Yes", "Why"]


def test_a_session_that_was_only_named_keeps_no_conversation() -> None:
    machine = protocol()
    socket = opened(machine)
    machine.request_ended(started(prompt(machine, socket, session_id="s", prompt="Hi")), "Hello", 1.0)
    request = started(prompt(machine, socket, session_id="s", prompt="And?"))
    assert request.session.turns_for(request, 2048) == (Message("user", "And?"),)


def test_two_clients_with_the_same_session_id_share_nothing() -> None:
    machine = protocol()
    alice, bob = opened(machine, ALICE), opened(machine, BOB)
    feed(machine, alice, type="session_init", session_id="s")
    machine.request_ended(started(prompt(machine, alice, prompt="my secret")), "ok", 1.0)
    feed(machine, bob, type="session_init", session_id="s")
    request = started(prompt(machine, bob, prompt="what did I say?"))
    assert request.session.turns_for(request, 2048) == (Message("user", "what did I say?"),)
    assert feed(machine, bob, type="stream_cancel", session_id="s") != []
    assert started(prompt(machine, alice, session_id="s")).cancelled is None


def test_a_job_is_pinned_to_the_client_that_uses_it_until_its_session_is_over() -> None:
    machine = protocol()
    alice, bob = opened(machine, ALICE), opened(machine, BOB)
    request = started(prompt(machine, alice, session_id="a", job_id=7))
    assert machine.job_admitted(request)
    actions = prompt(machine, bob, session_id="b", job_id=7)
    assert replies(actions)[0]["code"] == "JOB_NOT_VALID"
    assert JobContested(7) in actions
    assert replies(feed(machine, bob, type="session_init", session_id="b", job_id=7))[0]["code"] == "JOB_NOT_VALID"
    machine.request_ended(request, "", 1.0)
    assert [type(action) for action in feed(machine, alice, type="session_end", session_id="a")] == [EndSession]
    assert machine.job_admitted(started(prompt(machine, bob, session_id="b", job_id=7)))


def test_of_two_clients_admitted_at_the_same_time_only_the_first_gets_the_job() -> None:
    machine = protocol()
    first = started(prompt(machine, opened(machine, ALICE), session_id="a", job_id=7))
    second = started(prompt(machine, opened(machine, BOB), session_id="b", job_id=7))
    assert machine.job_admitted(first)
    assert not machine.job_admitted(second)


def test_several_sessions_of_one_client_may_use_one_job() -> None:
    machine = protocol()
    first = started(prompt(machine, opened(machine, ALICE), session_id="a", job_id=7))
    second = started(prompt(machine, opened(machine, ALICE), session_id="b", job_id=7))
    assert machine.job_admitted(first)
    assert machine.job_admitted(second)


def test_a_job_of_another_chain_is_refused() -> None:
    machine = protocol()
    socket = opened(machine)
    [error] = replies(prompt(machine, socket, job_id=1, chain_id=1))
    assert (error["code"], "84532" in error["message"]) == ("JOB_NOT_VALID", True)
    assert started(prompt(machine, socket, job_id=1, chain_id="84532"))


def test_on_a_chain_of_one_machine_the_chain_that_sdks_name_by_default_says_nothing() -> None:
    machine = protocol(chain_id=131277322940537)
    socket = opened(machine)
    [acknowledged] = replies(feed(machine, socket, type="session_init", session_id="s", job_id=1, chain_id=84532))
    assert (acknowledged["type"], acknowledged["chain_id"]) == ("session_init_ack", 131277322940537)
    assert started(prompt(machine, socket, job_id=1, chain_id=84532))
    assert replies(prompt(machine, socket, job_id=2, chain_id=8453))[0]["code"] == "JOB_NOT_VALID"
    real = protocol(chain_id=8453)
    assert replies(prompt(real, opened(real), job_id=1, chain_id=84532))[0]["code"] == "JOB_NOT_VALID"


def test_other_sockets_of_a_session_keep_it_when_one_closes() -> None:
    machine = protocol()
    one, other = opened(machine), opened(machine)
    for socket in (one, other):
        feed(machine, socket, type="session_init", session_id="s", job_id=1)
    request = started(prompt(machine, one))
    machine.job_admitted(request)
    assert [type(action) for action in machine.socket_closed(one, 10.0)] == [Cancel]
    assert request.cancelled is CancelReason.GONE
    assert machine.request_ended(request, None, 10.0) == []
    assert machine.tick(100.0) == []
    assert machine.socket_closed(other, 100.0) == []
    assert machine.tick(104.9) == []
    assert [type(action) for action in machine.tick(105.0)] == [EndSession]
    assert machine.session_count == 0


def test_a_client_that_comes_back_within_the_grace_period_finds_its_session() -> None:
    machine = protocol()
    socket = opened(machine)
    feed(machine, socket, type="session_init", session_id="s", job_id=1)
    request = started(prompt(machine, socket, prompt="Hi"))
    machine.job_admitted(request)
    machine.request_ended(request, "Hello", 1.0)
    machine.socket_closed(socket, 2.0)
    again = opened(machine, now_s=6.0)
    feed(machine, again, 6.0, type="session_init", session_id="s", job_id=1)
    assert machine.tick(60.0) == []
    last = started(prompt(machine, again, 60.0, prompt="And?"))
    assert last.session is request.session
    assert len(last.session.turns_for(last, 2048)) == 3


def test_a_session_ends_only_after_its_last_request_has() -> None:
    machine = protocol()
    socket = opened(machine)
    running = started(prompt(machine, socket, session_id="s", job_id=1, id="r"))
    machine.job_admitted(running)
    prompt(machine, socket, session_id="s", job_id=1, id="w")
    actions = feed(machine, socket, type="session_end", session_id="s")
    assert [type(action) for action in actions] == [Abandon, Cancel]
    after = started(prompt(machine, socket, session_id="s", job_id=1))
    assert after.session is not running.session
    assert [type(action) for action in machine.request_ended(running, "x", 1.0)] == [EndSession]
    assert machine.request_ended(running, "x", 1.0) == []


def test_cancel_means_what_runs_or_the_request_that_is_named() -> None:
    machine = protocol()
    socket = opened(machine)
    running = started(prompt(machine, socket, session_id="s", id="r"))
    prompt(machine, socket, session_id="s", id="w")
    [abandoned] = feed(machine, socket, type="stream_cancel", session_id="s", id="w")
    assert isinstance(abandoned, Abandon)
    assert abandoned.request.prompt.request_id == "w"
    assert feed(machine, socket, type="stream_cancel", session_id="other") == []
    assert feed(machine, socket, type="stream_cancel") == [Cancel(running)]
    assert feed(machine, socket, type="stream_cancel") == []


def test_an_idle_session_is_over_and_its_socket_is_closed() -> None:
    machine = protocol()
    socket = opened(machine)
    request = started(prompt(machine, socket, session_id="s", job_id=1))
    machine.job_admitted(request)
    assert machine.tick(5000.0) == []
    machine.request_ended(request, "", 5000.0)
    assert machine.tick(5899.0) == []
    actions = machine.tick(5900.0)
    assert [type(action) for action in actions] == [EndSession, CloseSocket]


def test_a_socket_that_never_speaks_is_closed() -> None:
    machine = protocol()
    silent, speaking = opened(machine), opened(machine)
    feed(machine, speaking, type="ping")
    assert machine.tick(60.0) == [CloseSocket(silent, 1000, "no request came")]


def test_nothing_is_taken_while_paused_and_all_of_it_afterwards() -> None:
    machine = protocol()
    socket = opened(machine)
    machine.openness.pause()
    [error] = replies(prompt(machine, socket, id="p", session_id="s"))
    assert (error["code"], error["id"], error["session_id"]) == ("SHUTTING_DOWN", "p", "s")
    machine.openness.resume()
    assert started(prompt(machine, socket))


def test_while_jobs_are_finished_open_sessions_go_on_and_no_new_one_is_opened() -> None:
    machine = protocol()
    socket = opened(machine)
    first = started(prompt(machine, socket, session_id="s", job_id=1))
    machine.openness.finish_jobs()
    assert machine.openness.closed_door is not None
    [error] = replies(prompt(machine, socket, session_id="another", id="p"))
    assert (error["code"], error["id"]) == ("BUSY", "p")
    assert error["retry_after_s"] > 0
    [refused] = replies(feed(machine, socket, type="session_init", session_id="third", job_id=2))
    assert refused["code"] == "BUSY"
    machine.request_ended(first, None, 1.0)
    assert started(prompt(machine, socket, 1.0, session_id="s", job_id=1)), "the job of now is served to its end"


def test_while_jobs_are_finished_the_client_of_an_open_session_may_come_back() -> None:
    machine = protocol()
    socket = opened(machine)
    request = started(prompt(machine, socket, session_id="s", job_id=1))
    machine.job_admitted(request)
    machine.request_ended(request, None, 0.5)
    machine.openness.finish_jobs()
    machine.socket_closed(socket, 1.0)
    assert machine.openness.closed_door is None
    again = opened(machine, now_s=2.0)
    assert started(prompt(machine, again, 2.0, session_id="s", job_id=1))


def test_draining_ends_every_session_once() -> None:
    machine = protocol()
    socket = opened(machine)
    running = started(prompt(machine, socket, session_id="s", job_id=1))
    machine.job_admitted(running)
    prompt(machine, socket, session_id="s", job_id=1)
    assert [type(action) for action in machine.drain()] == [Abandon, Cancel]
    assert running.cancelled is CancelReason.STOPPING
    assert [type(action) for action in machine.request_ended(running, None, 1.0)] == [EndSession]
    assert machine.drain() == []
    assert replies(prompt(machine, socket))[0]["code"] == "SHUTTING_DOWN"


def test_too_many_prompts_in_one_session_are_busy() -> None:
    machine = protocol()
    socket = opened(machine)
    for number in range(17):
        prompt(machine, socket, session_id="s", id=number)
    [error] = replies(prompt(machine, socket, session_id="s", id="more"))
    assert (error["code"], error["id"]) == ("BUSY", "more")
    assert error["retry_after_s"] > 0


def test_two_prompts_of_a_job_wait_over_its_sessions_and_one_of_a_third_hears_its_place() -> None:
    machine = protocol()
    socket = opened(machine)
    for session in ("a", "b", "c"):
        machine.job_admitted(started(prompt(machine, socket, session_id=session, job_id=1)))
    for session in ("a", "b"):
        assert prompt(machine, socket, session_id=session, job_id=1, id=session) == []
    [error] = replies(prompt(machine, socket, session_id="c", job_id=1, id="third"))
    assert (error["code"], error["id"], error["position"]) == ("BUSY", "third", 3)
    assert error["retry_after_s"] > 0
    assert machine.waiting_count == 2
    assert started(prompt(machine, socket, session_id="d", job_id=1)), "a session that runs nothing does not wait here"


def test_four_prompts_of_an_address_wait_and_those_of_this_machine_are_not_counted() -> None:
    machine = protocol()
    for peer, expected in ((ALICE, ["BUSY"]), (LOCAL, [])):
        socket = opened(machine, peer)
        codes: list[str] = []
        for number in range(5):
            assert started(prompt(machine, socket, session_id=f"s{number}", job_id=None))
            codes += [reply["code"] for reply in replies(prompt(machine, socket, session_id=f"s{number}", id=number))]
        assert codes == expected


def test_thirty_two_wait_at_most_with_those_in_the_engines_line() -> None:
    machine = protocol()
    machine.waiting.queued = lambda: 30
    socket = opened(machine)
    started(prompt(machine, socket, session_id="s"))
    assert prompt(machine, socket, session_id="s", id=1) == []
    assert prompt(machine, socket, session_id="s", id=2) == []
    [error] = replies(prompt(machine, socket, session_id="s", id=3))
    assert (error["code"], error["position"]) == ("BUSY", 33)


def test_a_prompt_whose_turn_does_not_come_in_thirty_seconds_is_busy_with_its_place() -> None:
    machine = protocol()
    socket = opened(machine)
    running = started(prompt(machine, socket, 0.0, session_id="s"))
    prompt(machine, socket, 1.0, session_id="s", id="early")
    prompt(machine, socket, 2.0, session_id="s", id="late")
    assert machine.tick(30.9) == []
    [error] = replies(machine.tick(31.0))
    assert (error["type"], error["code"], error["id"], error["position"]) == ("error", "BUSY", "early", 1)
    assert machine.waiting_count == 1
    following = started(machine.request_ended(running, None, 31.5))
    assert following.prompt.request_id == "late"
    assert machine.tick(100.0) == [], "one that runs waits no more"


def test_the_end_of_every_session_is_told_once_when_nothing_of_it_runs() -> None:
    machine = protocol()
    over: list[str] = []
    machine.session_over = lambda session: over.append(session.session_id)
    socket = opened(machine)
    running = started(prompt(machine, socket, session_id="s"))
    feed(machine, socket, type="session_end", session_id="s")
    assert over == []
    machine.request_ended(running, None, 1.0)
    assert over == ["s"]
    machine.socket_closed(socket, 2.0)
    assert over == ["s"]


def test_addresses_are_limited_and_this_machine_is_not() -> None:
    machine = protocol()
    socket = opened(machine, ALICE)
    codes = []
    for number in range(70):
        actions = prompt(machine, socket, session_id=f"s{number % 20}", id=number)
        codes += [reply["code"] for reply in replies(actions)]
        for action in actions:
            if isinstance(action, Start):
                machine.request_ended(action.request, "", 0.0)
    assert codes == ["RATE_LIMITED"] * 10
    local = opened(machine)
    for number in range(200):
        request = started(prompt(machine, local, session_id="s", id=number))
        machine.request_ended(request, "", 0.0)


def test_a_job_is_limited_by_itself_and_says_when_to_come_back() -> None:
    machine = protocol()
    socket = opened(machine, ALICE)
    refused = []
    for number in range(40):
        actions = prompt(machine, socket, session_id=f"s{number % 20}", job_id=7, id=number)
        refused += replies(actions)
        for action in actions:
            if isinstance(action, Start):
                machine.request_ended(action.request, "", 0.0)
    assert [reply["code"] for reply in refused] == ["RATE_LIMITED"] * 10
    assert all("job" in reply["message"] and reply["retry_after_s"] == 0.5 for reply in refused)
    assert started(prompt(machine, socket, session_id="s", job_id=8))
    assert started(prompt(machine, socket, 0.5, session_id="t", job_id=7))


def test_sixteen_prompts_of_one_address_at_the_same_time_and_no_more() -> None:
    machine = protocol()
    socket = opened(machine, ALICE)
    for number in range(16):
        assert started(prompt(machine, socket, session_id=f"s{number}"))
    assert replies(prompt(machine, socket, session_id="s16"))[0]["code"] == "BUSY"
    assert started(prompt(machine, opened(machine, BOB), session_id="b"))


def test_every_socket_that_used_a_job_hears_of_its_checkpoints_also_after_the_session() -> None:
    machine = protocol()
    one, other = opened(machine), opened(machine)
    for socket in (one, other):
        feed(machine, socket, type="session_init", session_id="s", job_id=1)
    request = started(prompt(machine, one))
    assert machine.sockets_of_job(1) == frozenset()
    machine.job_admitted(request)
    machine.request_ended(request, "", 0.0)
    assert machine.sockets_of_job(1) == {one, other}
    feed(machine, one, type="session_end", session_id="s")
    assert machine.sockets_of_job(1) == {one, other}
    machine.socket_closed(one, 1.0)
    machine.socket_closed(other, 1.0)
    assert machine.sockets_of_job(1) == frozenset()


def test_a_conversation_forgets_old_turns_before_the_window_is_full() -> None:
    conversation = Conversation()
    for number in range(200):
        conversation.add(f"question {number} " + "x" * 300, f"answer {number} " + "y" * 300)
    assert len(conversation) <= 64
    turns = conversation.before("now", 200, 2048)
    assert turns[0].role == "user"
    assert turns[-1].content.startswith("answer 199")
    assert sum(len(turn.content) for turn in turns) < 2048 * 3
    assert conversation.before("now", 2000, 128) == ()


def test_a_prompt_that_is_a_transcript_gets_no_turns_before_it() -> None:
    conversation = Conversation()
    conversation.add("Hi", "Hello")
    assert conversation.before("<|im_start|>user\nHi<|im_end|>", 10, 2048) == ()


class AnyOrder(RuleBasedStateMachine):
    """Events in any order: each request is started at most once, each session has at most one running, none is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = protocol(grace_s=3.0, idle_s=50.0)
        self.sockets: list[int] = []
        self.running: list[PromptRequest] = []
        self.ended_sessions: list[object] = []
        self.started: set[str] = set()

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                assert action.request.key not in self.started
                assert not any(other.session is action.request.session for other in self.running)
                self.started.add(action.request.key)
                self.running.append(action.request)
            elif isinstance(action, Cancel):
                assert action.request in self.running
            elif isinstance(action, Abandon):
                assert action.request.key not in self.started
                assert action.request.state is RequestState.ENDED
            elif isinstance(action, EndSession):
                assert not any(session is action.session for session in self.ended_sessions)
                assert not any(request.session is action.session for request in self.running)
                self.ended_sessions.append(action.session)
            elif isinstance(action, Reply):
                assert action.socket_id in self.sockets

    @rule(peer=st.sampled_from([LOCAL, ALICE, BOB]))
    def open(self, peer: Peer) -> None:
        socket_id, actions = self.machine.socket_opened(peer, self.now)
        self.sockets.append(socket_id)
        self.act(actions)

    @precondition(lambda self: self.sockets)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        socket_id = data.draw(st.sampled_from(self.sockets))
        self.sockets.remove(socket_id)
        self.act(self.machine.socket_closed(socket_id, self.now))

    @precondition(lambda self: self.sockets)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["prompt", "prompt", "prompt", "session_init", "session_end", "stream_cancel", "ping"]),
        session=st.sampled_from(["a", "b", None]),
        job=st.sampled_from([1, 2, None]),
        request_id=st.sampled_from(["x", "y", None]),
    )
    def frame(self, data: st.DataObject, kind: str, session: str | None, job: int | None, request_id: Any) -> None:
        socket_id = data.draw(st.sampled_from(self.sockets))
        fields = {"session_id": session or ("a" if kind == "session_init" else None), "job_id": job, "id": request_id}
        self.act(feed(self.machine, socket_id, self.now, type=kind, prompt="p", **fields))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        self.machine.job_admitted(data.draw(st.sampled_from(self.running)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answer=st.sampled_from(["text", None]))
    def end(self, data: st.DataObject, answer: str | None) -> None:
        request = data.draw(st.sampled_from(self.running))
        self.running.remove(request)
        self.act(self.machine.request_ended(request, answer, self.now))

    @rule(passed=st.sampled_from([0.5, 2.0, 10.0, 60.0]))
    def tick(self, passed: float) -> None:
        self.now += passed
        self.act([action for action in self.machine.tick(self.now) if not isinstance(action, CloseSocket)])

    @invariant()
    def counts_agree(self) -> None:
        assert self.machine.running_count == len(self.running)

    def teardown(self) -> None:
        self.act(self.machine.drain())
        for socket_id in list(self.sockets):
            self.act(self.machine.socket_closed(socket_id, self.now))
        while self.running:
            self.act(self.machine.request_ended(self.running.pop(), None, self.now))
        assert self.machine.session_count == self.machine.waiting_count == self.machine.running_count == 0
        assert len(self.machine._pins) == 0
        assert self.machine._watchers == {}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
