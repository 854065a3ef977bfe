"""TLS for `wss`: the certificate of the settings, read again when its files change."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from fabstir_desktop.errors import EnvironmentFault
from fabstir_desktop.settings import Settings


class Certificate:
    """A certificate with its key, and the TLS context that new connections use."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises EnvironmentFault if they cannot be read or do not belong together. Blocks on disk."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._stamp = self._load()

    def reload_if_changed(self) -> bool:
        """Read the files again if they changed; True if they were. Raises EnvironmentFault; the old one then stays."""
        if self._stamp == self._look():
            return False
        self._stamp = self._load()
        return True

    def _look(self) -> tuple[float, ...]:
        try:
            return tuple(path.stat().st_mtime for path in (self._certificate, self._key))
        except OSError as error:
            raise EnvironmentFault(f"TLS_CERTIFICATE or TLS_KEY cannot be read: {error.strerror}") from error

    def _load(self) -> tuple[float, ...]:
        stamp = self._look()
        try:
            # tried on a second context first: half a renewal must not break the running one
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
                # an encrypted key is refused: without a password given OpenSSL would ask for one on the terminal, and wait
                context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            raise EnvironmentFault(f"TLS_CERTIFICATE and TLS_KEY cannot be used: {reason}") from error
        return stamp


async def certificate_of(settings: Settings) -> Certificate | None:
    """The certificate the settings name, None without TLS. Raises EnvironmentFault."""
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise EnvironmentFault("TLS_CERTIFICATE and TLS_KEY belong together: set both or neither")
    return await asyncio.to_thread(Certificate, settings.tls_certificate, settings.tls_key)
