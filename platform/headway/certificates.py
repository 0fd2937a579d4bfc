"""What proves who a machine of a cluster is, where its links are under mutual TLS: read, and judged before it is used.

Ray takes three files from the environment, once, when a process starts: its own certificate, that one's key, and the
authority's. What is wrong with them shows in Ray as a connection that is tried for ever; here it has words.
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import BadInput

SWITCH = "RAY_USE_TLS"
CERTIFICATE, KEY, AUTHORITY = "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"
NAMES = (CERTIFICATE, KEY, AUTHORITY)
SOON_DAYS = 14
"""A certificate that expires sooner is worth a word."""
_REMEDY = "`headway cluster certs` makes and renews them; the processes of the machine are to be started again then."


@dataclass(frozen=True)
class Certificate:
    """A certificate, as far as people care.

    Args:
        name: whom it is for.
        hosts: addresses and names that it is good for.
        by: name of the authority.
        begins, ends: Unix seconds.
        number: its serial number, hexadecimal.
    """

    name: str
    hosts: tuple[str, ...]
    by: str
    begins: float
    ends: float
    number: str

    def days_left(self, now: float) -> float:
        """Negative once it has expired."""
        return (self.ends - now) / 86400


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether links are to be under TLS, by the variable that Ray goes by."""
    return environ.get(SWITCH, "0").lower() in ("1", "true")


def check(now: float, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Look at this process's certificate before Ray does, where there is to be one.

    Args:
        now: Unix seconds.

    Returns:
        What is to be noted: that it expires soon.

    Raises:
        BadInput: Ray could not use it, or nobody would take it.
    """
    if not wanted(environ):
        return []
    absent = [name for name in NAMES if not environ.get(name)]
    if absent:
        reason = f"{' and '.join(absent)} {'names' if len(absent) == 1 else 'name'} no file"
        raise BadInput(f"{SWITCH}=1 asks for TLS", reason, f"Set {', '.join(NAMES)}. {_REMEDY}")
    said = {name: f"{name}={environ[name]}" for name in NAMES}
    content = {name: _bytes(Path(environ[name]), said[name]) for name in NAMES}
    own, authorities = _load(content[CERTIFICATE], said[CERTIFICATE])[0], _load(content[AUTHORITY], said[AUTHORITY])
    _match(own, content[KEY], said)
    _signed(own, authorities, said, now)
    return _times(own, said[CERTIFICATE], now)


def context(server: bool, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """For a connection of ours under this process's certificate; both sides show theirs. None without TLS.

    Args:
        server: whether others connect here.

    Raises:
        BadInput: the files cannot be used; see `check`, which says more.
    """
    if not wanted(environ):
        return None
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_3
    found.verify_mode = ssl.CERT_REQUIRED
    try:
        found.load_cert_chain(environ[CERTIFICATE], environ[KEY])
        found.load_verify_locations(environ[AUTHORITY])
    except KeyError as error:
        raise BadInput(f"{SWITCH}=1 asks for TLS", f"{error.args[0]} names no file", _REMEDY) from None
    except OSError as error:  # ssl.SSLError among them
        reason = error.strerror or str(error)
        raise BadInput("the certificate of this machine cannot be used", reason, _REMEDY) from None
    return found


def read(path: Path) -> Certificate:
    """The first certificate of a file. Raises BadInput."""
    return _told(_load(_bytes(path, str(path)), str(path))[0])


def _bytes(path: Path, said: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{said} cannot be read", error.strerror or str(error), _REMEDY) from None


def _load(content: bytes, said: str) -> list[Any]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise BadInput(f"{said} holds no certificate", "it is not in PEM form, or damaged", _REMEDY) from None


def _match(own: Any, key: bytes, said: Mapping[str, str]) -> None:
    from cryptography.hazmat.primitives import serialization

    try:
        found: Any = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        reason = "it is not in PEM form, damaged, or has a password"
        raise BadInput(f"{said[KEY]} holds no key", reason, _REMEDY) from None
    if found.public_key() != own.public_key():
        raise BadInput(f"{said[KEY]} is of no use", f"it is not the key of {said[CERTIFICATE]}", _REMEDY)


def _signed(own: Any, authorities: list[Any], said: Mapping[str, str], now: float) -> None:
    from cryptography.exceptions import InvalidSignature

    for authority in authorities:
        try:
            own.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        _times(authority, said[AUTHORITY], now)
        return
    reason = f"it was issued by {_name(own.issuer)!r}, which {said[AUTHORITY]} does not hold"
    remedy = "Use the certificate and the authority of one cluster: no machine of another takes it."
    raise BadInput(f"{said[CERTIFICATE]} is of no use", reason, remedy)


def _times(found: Any, said: str, now: float) -> list[str]:
    told = _told(found)
    if now > told.ends:
        raise BadInput(f"{said} has expired", f"it was good until {_day(told.ends)}", f"Renew it. {_REMEDY}")
    if now < told.begins:
        reason = f"it begins at {_day(told.begins)}"
        raise BadInput(f"{said} is not good yet", reason, "See whether this machine's clock is right.")
    left = told.days_left(now)
    return [f"{said} expires in {left:.0f} days, at {_day(told.ends)}. {_REMEDY}"] if left < SOON_DAYS else []


def _told(found: Any) -> Certificate:
    from cryptography import x509

    try:
        names: Any = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [*map(str, names.get_values_for_type(x509.IPAddress)), *names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        hosts = []
    begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return Certificate(
        _name(found.subject), tuple(hosts), _name(found.issuer), begins, ends, f"{found.serial_number:x}"
    )


def _name(name: Any) -> str:
    from cryptography.x509.oid import NameOID

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else str(name.rfc4514_string())


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
