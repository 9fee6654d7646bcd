"""The certificate that clients are shown, as long as the balancer runs."""

from __future__ import annotations

import ssl

from socketcluster_balancer.entrance.tickets import TicketKeys
from socketcluster_balancer.entrance.tls import Loaded, load
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.errors import SettingsError
from socketcluster_runtime.secrets.secret_files import secret_of
from socketcluster_runtime.tls.certificates import summary
from socketcluster_runtime.tls.expiry_watch import ExpiryWatch


class ServerCertificate:
    """What handshakes are made with; it can be read again, and says when it ends.

    Args:
        settings: name its files.

    Raises:
        SettingsError: they name none, or it cannot be used.
    """

    def __init__(self, settings: BalancerSettings) -> None:
        self._settings = settings
        self._tickets = None if settings.tls_ticket_dir is None else TicketKeys(settings.tls_ticket_dir)
        self._expiry = ExpiryWatch("put one that is valid into the file, and send the balancer SIGHUP")
        self.context: ssl.SSLContext = self._load().context
        """What handshakes from now on are made with."""

    @property
    def ends(self) -> float | None:
        """When the first certificate of the chain ends, in seconds since 1970; ``None`` if nobody can tell."""
        return self._expiry.ends

    def reload(self) -> str | None:
        """Read it again, for the handshakes to come; return what it is now, if that is known.

        Raises:
            SettingsError: it cannot be used; the one before stays.
        """
        loaded = self._load()
        self.context = loaded.context
        return summary(loaded.chain)

    def close(self) -> None:
        """Warn no more, and renew no keys of tickets."""
        self._expiry.close()
        if self._tickets is not None:
            self._tickets.close()

    def _load(self) -> Loaded:
        settings = self._settings
        if settings.tls_cert is None:
            raise SettingsError("tls_cert: not set")
        passphrase = secret_of("tls_passphrase", settings.tls_passphrase, settings.tls_passphrase_file)
        loaded = load(settings.tls_cert, settings.tls_key, passphrase)
        self._expiry.take("tls_cert", settings.tls_cert, loaded.chain)
        self._expiry.start()
        if self._tickets is not None:
            self._tickets.use_in(loaded.context)
        return loaded
