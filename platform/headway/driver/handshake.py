"""Why a cluster under mutual TLS and this process do not come together: Ray tries for ever, and does not say."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress

from headway import certificates
from headway.certificates import AUTHORITY, CERTIFICATE, NAMES, SWITCH
from headway.errors import BadInput

PATIENCE_S = 5.0


def why(address: str, said: str, environ: Mapping[str, str] = os.environ) -> BadInput | None:
    """What is wrong between the two sides' certificates; None where that is not what keeps them apart.

    Args:
        address: HOST:PORT that takes connections, and gives Ray no answer.
        said: how it was named.
    """
    host, _, port = address.rpartition(":")
    where = (host.strip("[]"), int(port))
    try:
        theirs = _greets(where)
    except OSError:
        return None
    if not certificates.wanted(environ):
        return _none_here(said) if theirs else None
    if not theirs:
        reason = f"the cluster's links are not under TLS, and {SWITCH}={environ[SWITCH]} here wants them to be"
        return BadInput(said, reason, f"Unset {SWITCH} for this cluster.")
    return _tried(where, said, environ)


def _greets(where: tuple[str, int]) -> bool:
    """Whether what listens there speaks TLS. Raises OSError: it cannot be reached."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(where, timeout=PATIENCE_S) as connection:
        try:
            with anybody.wrap_socket(connection, server_hostname=where[0]):
                return True
        except ssl.SSLError as error:
            return "CERTIFICATE_REQUIRED" in (error.reason or "") or "HANDSHAKE_FAILURE" in (error.reason or "")
        except OSError:  # it hung up, or said nothing
            return False


def _tried(where: tuple[str, int], said: str, environ: Mapping[str, str]) -> BadInput | None:
    """As Ray would, with this process's own certificate."""
    context = certificates.context(server=False, environ=environ)
    assert context is not None
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(where, timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=where[0]) as connection,
        ):
            with suppress(TimeoutError):
                connection.recv(1)  # a refusal of ours comes after the handshake; else its first words do
            return None
    except ssl.SSLCertVerificationError as error:
        return _not_theirs(where[0], said, error, environ)
    except ssl.SSLError as error:
        return _not_ours(said, error, environ)
    except OSError:
        return None


def _none_here(said: str) -> BadInput:
    reason = "the cluster takes only connections that show a certificate of its own, and there is none here"
    remedy = f"Set {SWITCH}=1 and {', '.join(NAMES)} to the files of this machine (`headway cluster certs` makes them)."
    return BadInput(said, reason, remedy)


def _not_theirs(host: str, said: str, error: ssl.SSLCertVerificationError, environ: Mapping[str, str]) -> BadInput:
    """The other side's certificate is refused here."""
    words = error.verify_message or str(error)
    if "expired" in words:
        return BadInput(said, "its certificate has expired", "Renew it there, and start the cluster again.")
    if "valid for" in words:
        remedy = f"Call it by a name of its certificate, or have one made that names {host}: headway cluster certs."
        return BadInput(said, f"its certificate is not for {host} ({words})", remedy)
    reason = f"its certificate is of another authority than {AUTHORITY}={environ[AUTHORITY]} ({words})"
    return BadInput(said, reason, "Use the files of that cluster.")


def _not_ours(said: str, error: ssl.SSLError, environ: Mapping[str, str]) -> BadInput:
    """This side's certificate is refused there."""
    words = (error.reason or str(error)).replace("_", " ").lower()
    reason = f"it does not take {CERTIFICATE}={environ[CERTIFICATE]} ({words})"
    remedy = "Use a certificate that the cluster's own authority issued, and that has not expired."
    return BadInput(said, reason, remedy)
