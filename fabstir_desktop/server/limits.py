"""Every limit of the server in one place, with the reason beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. Limits per address do not bind programs on this machine."""

    message_bytes: int = 4 << 20
    """What the transport takes; above 1 MiB the decoder answers INVALID_REQUEST and the connection goes on, as for every frame
    that is malformed; above this RFC 6455 demands close code 1009. What waits to be read counts towards `partial_total`."""
    fragments: int = 64
    control_frames_per_s: int = 20
    receive_queue: int = 4
    write_buffer: int = 32 << 10
    write_buffer_abort: int = 256 << 10
    """websockets answers pings without regard to its own write limit: who pings and does not read is cut off here."""
    partial_total: int = 64 << 20
    """Messages of all connections that are not complete or not read yet; beyond it, those above `partial_share` are cut off."""
    partial_share: int = 256 << 10
    handshake_bytes: int = 64 << 10
    header_lines: int = 32

    connections_per_address: int = 16
    connections_per_s: float = 20.0
    connections_burst: float = 60.0
    """Of one address: each costs a handshake, also if it leaves at once."""
    crowded_share: float = 0.75
    """Of all places; above it those who hold one and ask for nothing give way to who comes."""
    idle_when_crowded_s: float = 2.0
    half_open: int = 64
    """Of more than these, the oldest are cut off after a second."""
    half_open_per_address: int = 16

    open_s: float = 5.0
    close_s: float = 3.0
    message_s: float = 10.0
    """First byte of a message to its last."""
    first_message_s: float = 60.0
    send_s: float = 15.0
    """A reader slower than this loses its connection, and the model its burden."""
    ping_s: float = 20.0

    sessions: int = 4096
    sessions_per_socket: int = 32
    prompts_waiting_per_session: int = 16
    prompts_waiting: int = 32
    """Behind an earlier one of their session, and in the engine's line."""
    prompts_waiting_per_job: int = 2
    """In its other sessions: what one session sends ahead is served in order, and bounded by the other limits."""
    prompts_waiting_per_address: int = 4
    prompts_waiting_s: float = 30.0
    prompts_per_address: int = 16
    """Running and waiting together."""
    prompts_per_minute: float = 240.0
    prompts_burst: float = 60.0
    """Of one address, over all its jobs."""
    job_prompts_per_minute: float = 120.0
    job_prompts_burst: float = 30.0
    frames_per_s: float = 50.0
    frames_burst: float = 200.0
    frame_bytes_per_s: float = 1 << 20
    frame_bytes_burst: float = 8 << 20
    """Of one address, over all its connections: what is read costs the loop's time, however it is cut into frames."""
    frame_cost_bytes: int = 1 << 10
    """What the smallest frame counts as."""

    certificate_check_s: float = 60.0
    """How often the certificate's files are looked at for a renewal."""

    admission_s: float = 30.0
    stall_s: float = 600.0
    """An engine that gives no event for so long is taken for dead; its own watchdog acts long before."""
