"""Certificates for the machines of a cluster: an authority of the cluster's own, and what it issues.

    FOLDER/ca.crt                 the authority, and the one before while that is still to be taken
    FOLDER/ca.key                 0600: whoever has it can make themselves a machine of the cluster
    FOLDER/nodes/NAME/tls.crt     of one machine, for its addresses
    FOLDER/nodes/NAME/tls.key     0600

A machine gets `ca.crt`, its own two files, and the variables that name them (`environment`). Ray reads them when a
process starts: a renewed certificate counts from then on.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway import certificates, durable
from headway.certificates import AUTHORITY, CERTIFICATE, KEY, SWITCH, Certificate
from headway.errors import BadInput

DAYS, AUTHORITY_DAYS = 90.0, 3650.0
BEFORE = datetime.timedelta(hours=1)
"""A certificate begins so long before it is made: clocks differ."""
ALWAYS = ("127.0.0.1", "localhost")
"""Every machine's Ray speaks to itself by these."""
MOST_HOSTS = 2000
_MARK = " authority "
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"(?=.{1,253}$)(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True)
class Issued:
    """The files of one machine."""

    name: str
    certificate: Path
    key: Path
    authority: Path

    @property
    def environment(self) -> dict[str, str]:
        """What Ray and Headway go by on that machine."""
        files = {CERTIFICATE: self.certificate, KEY: self.key, AUTHORITY: self.authority}
        return {SWITCH: "1", **{name: str(path) for name, path in files.items()}}


@dataclass(frozen=True)
class Authority:
    """That of one cluster, in a folder."""

    folder: Path

    @classmethod
    def begin(cls, folder: Path, cluster: str, days: float = AUTHORITY_DAYS) -> Authority:
        """Make one, unless there is one. Raises BadInput: the folder cannot be used."""
        found = cls(folder)
        if not found.is_there:
            found._make(cluster, days, keep=b"")
        return found

    @property
    def is_there(self) -> bool:
        return self.certificate.is_file() and self._key.is_file()

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def _key(self) -> Path:
        return self.folder / "ca.key"

    def renew(self, days: float = AUTHORITY_DAYS) -> None:
        """Another authority of the same name; `ca.crt` has both, so that machines with certificates of either take each
        other meanwhile. Once all have certificates of the new one, `forget` the old. Raises BadInput."""
        self._make(
            certificates.read(self.certificate).name.rpartition(_MARK)[0],
            days,
            keep=_first(self.certificate.read_bytes()),
        )

    def forget(self) -> None:
        """Take nobody any more whom an earlier authority vouches for: machines that have this `ca.crt` from then on."""
        _write(self.certificate, _first(self.certificate.read_bytes()), 0o644)

    def issue(self, name: str, hosts: Sequence[str] = (), days: float = DAYS) -> Issued:
        """Make, or renew, a machine's certificate.

        Args:
            name: of the machine.
            hosts: its addresses and names, as others call it; a network (10.0.3.0/24) stands for all its addresses, for
                machines whose address is not known before they are there. Those of a certificate that is renewed, where
                none are given.

        Raises:
            BadInput: one of these cannot be, the authority has expired, or the folder cannot be used.
        """
        files = self.files(name)
        if not hosts and files.certificate.is_file():
            hosts = certificates.read(files.certificate).hosts
        names = _alternatives(hosts)
        authority, key = self._load()
        now = datetime.datetime.now(datetime.UTC)
        if authority.not_valid_after_utc < now:
            reason = f"it was good until {authority.not_valid_after_utc:%Y-%m-%d}"
            raise BadInput(f"the authority {self.certificate} has expired", reason, "Make another: --new-authority.")
        until = min(now + datetime.timedelta(days=days), authority.not_valid_after_utc)
        own = _new_key()
        built = _builder(name, authority.subject, own.public_key(), now, until, ca=False).add_extension(names, False)
        built = built.add_extension(_identifier(key), False)
        folder = files.certificate.parent
        self._folder(folder)
        _write(files.key, _key_bytes(own), 0o600)
        _write(files.certificate, _signed(built, key), 0o644)
        return files

    def files(self, name: str) -> Issued:
        """Where a machine's files are, or will be. Raises BadInput: it can be no machine's name."""
        if _NAME.fullmatch(name) is None:
            raise BadInput(f"{name!r} can be no machine's name", "", "Use letters, digits, dots and hyphens.")
        folder = self.folder / "nodes" / name
        return Issued(name, folder / "tls.crt", folder / "tls.key", self.certificate)

    def issued(self) -> list[Certificate]:
        """All certificates of machines that are here, by name."""
        paths = sorted((self.folder / "nodes").glob("*/tls.crt"))
        return [certificates.read(path) for path in paths]

    def _make(self, cluster: str, days: float, keep: bytes) -> None:
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        key, now = _new_key(), datetime.datetime.now(datetime.UTC)
        called = f"{cluster[:40]}{_MARK}{secrets.token_hex(4)}"  # a renewed one is told from the one before by its name
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
        until = now + datetime.timedelta(days=days)
        content = _signed(_builder(called, name, key.public_key(), now, until, ca=True), key)
        self._folder(self.folder)
        _write(self._key, _key_bytes(key), 0o600)
        _write(self.certificate, content + keep, 0o644)

    def _load(self) -> tuple[Any, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        fact = f"the authority in {self.folder} cannot be used"
        try:
            found = x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
            return found, serialization.load_pem_private_key(self._key.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadInput(fact, reason, "Give its folder, or make one: headway cluster certs.") from None

    def _folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BadInput(f"no certificates can be kept in {folder}", error.strerror or str(error), "") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        durable.replace(path, content, mode)
    except OSError as error:
        raise BadInput(f"{path} cannot be written", error.strerror or str(error), "") from None


def demand_usable(name: str, hosts: Sequence[str]) -> None:
    """Raises BadInput: no certificate can be made of these."""
    Authority(Path()).files(name)
    _alternatives(hosts)


def said(found: Certificate, now: float | None = None) -> str:
    """A certificate in a line."""
    left = found.days_left(time.time() if now is None else now)
    how = f"expires in {left:.0f} days" if left >= 0 else f"expired {-left:.0f} days ago"
    hosts = [host for host in found.hosts if host not in ALWAYS]
    more = f" and {len(hosts) - 4} more" if len(hosts) > 4 else ""
    return f"{found.name}: {how}" + (f"; for {', '.join(hosts[:4])}{more}" if hosts else "")


def _alternatives(hosts: Sequence[str]) -> Any:
    from cryptography import x509

    found: dict[str, Any] = {}
    for host in (*ALWAYS, *hosts):
        for each in _addresses(host):
            found[str(each)] = x509.DNSName(each) if isinstance(each, str) else x509.IPAddress(each)
    if len(found) > MOST_HOSTS:
        reason = f"that is {len(found)} addresses in one certificate"
        raise BadInput(f"{', '.join(hosts)} cannot be used", reason, f"Name networks of {MOST_HOSTS} at most.")
    return x509.SubjectAlternativeName(list(found.values()))


def _addresses(host: str) -> Sequence[Any]:
    with suppress(ValueError):
        return [ipaddress.ip_address(host)]
    with suppress(ValueError):
        network = ipaddress.ip_network(host)
        if network.num_addresses <= MOST_HOSTS:
            return list(network.hosts())
        remedy = f"Name networks of {MOST_HOSTS} addresses at most."
        raise BadInput(f"{host} cannot be used", f"it has {network.num_addresses} addresses", remedy)
    if _HOST.fullmatch(host) is None or re.fullmatch(r"[\d.]+", host):
        raise BadInput(f"{host!r} is no address", "", "Give addresses, names, or a network like 10.0.3.0/24.")
    return [host]


def _builder(name: str, issuer: Any, public: Any, now: datetime.datetime, until: datetime.datetime, ca: bool) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - BEFORE)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca, 0 if ca else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(
            x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, decipher_only=False, **usage), True
        )
    )
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return built if ca else built.add_extension(x509.ExtendedKeyUsage(both), False)


def _identifier(key: Any) -> Any:
    """By which an issued certificate names its authority."""
    from cryptography import x509

    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _signed(builder: Any, key: Any) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    found: bytes = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return found


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _key_bytes(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found


def _first(bundle: bytes) -> bytes:
    """The first certificate of a file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    found: bytes = x509.load_pem_x509_certificates(bundle)[0].public_bytes(Encoding.PEM)
    return found
