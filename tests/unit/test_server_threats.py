"""Which test stands for which attack on the port, and for which rule of the protocol; none may be missing.

Attacks are numbered as in the threat list that the code's comments speak of. Two are met otherwise than by a test alone:

- 11, a stranger who names another's job: the protocol carries no proof of who pays, so a job stays with its first client.
- 30, traffic analysis of the stream. Who sees the sizes and times of encrypted frames can guess at the topic of an answer.
  Padding alone would be possible (JSON allows blanks behind the object), but the times and the number of frames would still
  tell; a frame a token is what clients are promised, and batches of 100 ms would be felt at every answer. None of the known
  remedies is complete. Instead the port offers wss, compression (which would add to the leak) is not spoken, and who needs more
  than that puts a VPN or an onion service before the host.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
BYTES, TLS = "faults/test_server_attacks.py", "faults/test_server_attacks_tls.py"
WORDS, DOORS = "faults/test_server_attacks_requests.py", "faults/test_server_attacks_doors.py"
FLOODS, FILES, SIZES = (
    "faults/test_server_floods.py",
    "faults/test_server_descriptors.py",
    "faults/test_server_prompt_bytes.py",
)
HTTP, REQUESTS, SESSIONS = (
    "integration/test_server_http.py",
    "integration/test_server_requests.py",
    "integration/test_server_sessions.py",
)
DECODER, MACHINE, OWNER = (
    "unit/test_server_decoder.py",
    "unit/test_server_protocol.py",
    "integration/test_server_job_owner.py",
)
ENGINE, POISON, DEATH = (
    "integration/test_engine_real_model.py",
    "faults/test_worker_poison.py",
    "faults/test_worker_death.py",
)

Where = dict[str, str]
"""File to names of tests in it, or to what their names begin with (`test_1_`)."""

ATTACKS: dict[int, tuple[str, Where]] = {
    1: ("pings without reading", {BYTES: "test_1_", TLS: "test_1_"}),
    2: ("handshakes that never end", {BYTES: "test_2_", TLS: "test_2_", FLOODS: "test_sockets_that_never_say_a_word"}),
    3: ("messages that never end", {BYTES: "test_3_", TLS: "test_3_", FLOODS: "test_a_message_is_not_slow"}),
    4: (
        "hoarded connections",
        {BYTES: "test_4_", TLS: "test_4_", FILES: "test_4_", FLOODS: "test_who_asks_for_nothing"},
    ),
    5: ("compression bombs", {BYTES: "test_5_"}),
    6: ("messages too large", {BYTES: "test_6_", FLOODS: "test_messages_that_nobody_has_read"}),
    7: ("header floods", {HTTP: "test_a_request_with_too_many_headers"}),
    8: (
        "JSON bombs",
        {
            DECODER: "test_",
            "faults/test_server_fuzz_decoder.py": "test_",
            "faults/test_server_fuzz.py": "test_a_hundred",
        },
    ),
    9: ("values of a wrong type", {DECODER: "test_values_of_a_wrong_type"}),
    10: ("job ids that are numbers only almost", {DECODER: "test_job_ids_", REQUESTS: "test_every_job_id_of_256_bits"}),
    11: (
        "another's job",
        {WORDS: "test_11_", OWNER: "test_a_job_stays_with_its_first_client", HTTP: "test_behind_a_proxy_two"},
    ),
    12: (
        "work beyond the deposit, or for a job that is over",
        {
            REQUESTS: "test_the_answer_ends_where_the_deposit_ends",
            "integration/test_server_job_ends.py": "test_an_answer_ends",
            "integration/test_main_job.py": "test_a_job_of_another_host",
        },
    ),
    13: ("no job at all", {HTTP: "test_free_prompts_"}),
    14: ("the same again", {WORDS: "test_14_", "integration/test_server_replay.py": "test_a_running_request"}),
    15: (
        "tokens that nobody made",
        {
            "unit/test_inference_text.py": "test_accounts_are_exact_in_20000",
            "unit/test_inference_accounting.py": "test_accounts_are_exact_in_20000",
        },
    ),
    16: (
        "limits passed inside a character",
        {ENGINE: "test_max_tokens_is_never_passed", "unit/test_inference_text.py": "test_accounts"},
    ),
    17: ("absurd max_tokens", {DECODER: "test_values_of_a_wrong_type", ENGINE: "test_values_out_of_range"}),
    18: ("absurd temperatures", {DECODER: "test_every_float_as_temperature"}),
    19: (
        "prompts that kill the tokeniser",
        {POISON: "test_poison_", DEATH: "test_a_prompt_that_was", "faults/test_server_poison.py": "test_"},
    ),
    20: ("prompts that are only long", {SIZES: "test_20_", "unit/test_server_prompt_size.py": "test_"}),
    21: (
        "control tokens in a text",
        {ENGINE: "test_control_tokens", "unit/test_inference_templates.py": "test_control_tokens"},
    ),
    22: ("stop strings that cost", {WORDS: "test_22_"}),
    23: ("readers that do not read", {BYTES: "test_23_", TLS: "test_23_"}),
    24: (
        "clients that drop",
        {BYTES: "test_24_", TLS: "test_4_clients_that_come_and_go", FLOODS: "test_an_address_cannot_connect"},
    ),
    25: (
        "a line full of one client",
        {"faults/test_server_fairness.py": "test_", "faults/test_server_full_line.py": "test_"},
    ),
    26: ("forged and flooded logs", {WORDS: "test_26_", "faults/test_server_log_flood.py": "test_"}),
    27: ("paths as a model's name", {WORDS: "test_27_"}),
    28: ("prompts in errors and logs", {WORDS: "test_28_", "integration/test_secrets_hunt.py": "test_"}),
    29: (
        "another's cache",
        {WORDS: "test_29_", "unit/test_inference_scheduler.py": "test_nothing_of_one_conversation"},
    ),
    31: ("forged addresses", {HTTP: "test_forwarded_addresses", "integration/test_server_proxies.py": "test_"}),
    32: ("pages of others", {DOORS: "test_32_", HTTP: "test_web_pages_that_are_not_listed"}),
    33: ("names of others", {DOORS: "test_33_", HTTP: "test_only_our_own_names"}),
    34: ("verbs of control", {DOORS: "test_34_"}),
    35: (
        "open by accident",
        {DOORS: "test_35_", "faults/test_product_health.py": "test_health_follows", "ui/test_exposure.py": "test_"},
    ),
    36: ("listeners on the way", {HTTP: "test_with_a_certificate", "integration/test_server_tls.py": "test_"}),
    37: ("odd HTTP", {DOORS: "test_37_", "faults/test_server_fuzz_guided.py": "test_five_thousand_handshakes"}),
}

WITHOUT_A_TEST = {30}
"""Their reason stands at the top of this file."""

RULES: dict[int, tuple[str, Where]] = {
    1: (
        "ids in every spelling",
        {REQUESTS: "test_every_job_id_of_256_bits", DECODER: "test_session_frames_are_read_in_both"},
    ),
    2: ("unknown types and pings are silence", {SESSIONS: "test_pings_and_unknown_types"}),
    3: (
        "ids are echoed",
        {REQUESTS: "test_the_briefs_request", "integration/test_server_replay.py": "test_the_error_of_a_broken"},
    ),
    4: ("one end, and nothing after it", {REQUESTS: "test_", "integration/test_server_endings.py": "test_"}),
    5: (
        "frames are read while one streams",
        {REQUESTS: "test_two_sessions_on_one_socket", "integration/test_server_early_cancel.py": "test_"},
    ),
    6: (
        "initialising again replaces the job and keeps what was said",
        {SESSIONS: "test_what_was_said", MACHINE: "test_initialising_again"},
    ),
    7: (
        "an error has a code, a message and the same again as error",
        {SESSIONS: "test_a_malformed_frame", REQUESTS: "test_a_job_that_is_refused"},
    ),
    8: (
        "a malformed prompt is told so, with its id",
        {REQUESTS: "test_errors_of_the_engine", SESSIONS: "test_a_malformed_frame"},
    ),
    9: ("usage is what the sampler counted", {REQUESTS: "test_the_briefs_request"}),
    10: (
        "who leaves is not served on, and finds its session for a while",
        {REQUESTS: "test_a_client_that_leaves", SESSIONS: "test_coming_back_within"},
    ),
    11: ("who does not read holds nobody up", {BYTES: "test_23_"}),
    12: ("the acknowledgement waits for nothing", {SESSIONS: "test_the_acknowledgement_does_not_wait"}),
    13: (
        "one size for all messages, as the port's table of differences says",
        {"faults/test_server_conformance.py": "test_a_message_above"},
    ),
}


@cache
def names_in(file: str) -> tuple[str, ...]:
    """The tests of a file."""
    module = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return tuple(node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_attack_and_no_rule_is_left_out() -> None:
    assert set(ATTACKS) | WITHOUT_A_TEST == set(range(1, 38))
    assert not set(ATTACKS) & WITHOUT_A_TEST
    assert set(RULES) == set(range(1, 14))


@pytest.mark.parametrize("number", ATTACKS)
def test_the_tests_of_an_attack_are_there(number: int) -> None:
    title, where = ATTACKS[number]
    for file, beginning in where.items():
        assert any(name.startswith(beginning) for name in names_in(file)), f"{number}, {title}: {file}"


@pytest.mark.parametrize("number", RULES)
def test_the_tests_of_a_rule_are_there(number: int) -> None:
    title, where = RULES[number]
    for file, beginning in where.items():
        assert any(name.startswith(beginning) for name in names_in(file)), f"{number}, {title}: {file}"
