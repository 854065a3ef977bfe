"""What clients reach: frames and session state machine (no IO), admission, the WebSocket and HTTP endpoints."""
