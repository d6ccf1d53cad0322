"""Addresses judged: no spelling of a closed one passes, and what passes is public by other judges too."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.domain.destinations import Forbidden, Guard, WebAddress, read_opening, read_s3, shown

SOMEWHERE = WebAddress(scheme="http", host="pictures.example", port=80, target="/")
ips = st.ip_addresses()
inner = st.sampled_from(["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16", "172.16.0.0/12"]).flatmap(
    lambda network: st.ip_addresses(network=network)
)


def passes(ip: str, *allow_hosts: str) -> bool:
    try:
        Guard(allow_hosts).check(SOMEWHERE, ip)
    except Forbidden:
        return False
    return True


@given(ips)
def test_what_passes_is_public_for_the_standard_library_too(ip):
    if passes(str(ip)):
        assert ip.is_global
        assert not any([ip.is_multicast, ip.is_reserved, ip.is_loopback, ip.is_link_local, ip.is_unspecified])


@pytest.mark.parametrize(
    "ip",
    [
        *("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0"),
        *("126.255.255.255", "128.0.0.0", "192.167.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450::1"),
    ],
)
def test_public_addresses_pass(ip):
    assert passes(ip)


@given(inner)
def test_no_way_to_write_an_inner_address_passes(ip):
    number, (a, b, c, d) = int(ip), ip.packed
    carried = f"{a:02x}{b:02x}:{c:02x}{d:02x}"
    for host in (
        *(f"{ip}", f"{ip}.", f"{number}", f"0x{number:x}", f"0X{number:X}", f"0{number:o}", f"{a}.{number & 0xFFFFFF}"),
        *(f"{a}.{b}.{number & 0xFFFF}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        *(
            f"{a:03}.{b:03}.{c:03}.{d:03}",
            f"0x{a:x}.{b}.0{c:o}.{d}",
            f"[::ffff:{ip}]",
            f"[::{ip}]",
            f"[::ffff:{carried}]",
        ),
        *(f"[64:ff9b::{ip}]", f"[64:ff9b:1::{carried}]", f"[2002:{carried}::]", f"[::ffff:0:{carried}]"),
        *(f"[2001:0:{carried}::]", f"[{ip}]", f"ann@{ip}", f"{ip}:80:80", f"{ip}%00", f"{ip}\\", f" {ip}", f"{ip}\t"),
    ):
        for scheme in ("http", "https", "HTTP"):
            with pytest.raises(Forbidden):
                Guard().read(f"{scheme}://{host}/a.png")


def judged(address: str) -> WebAddress | str:
    try:
        return Guard().read(address)
    except Forbidden as error:
        return str(error)


@given(
    st.text(max_size=40), st.sampled_from(["http://", "https://example.com", "http://8.8.8.8", "s3://pictures/", ""])
)
@example("\ud800", "http://")
@example("/\u2028", "https://example.com")
def test_any_text_is_judged_and_what_passes_is_read_alike_by_the_standard_library(text, before):
    where = judged(before + text)
    if isinstance(where, str):
        assert where.isascii()
        assert where.isprintable()
        return
    seen = urlsplit(where.url)
    assert (seen.scheme, seen.hostname, seen.username) == (where.scheme, where.host, None)
    assert (seen.port or {"http": 80, "https": 443}[seen.scheme]) == where.port
    assert where.target.isascii()
    assert where.target.isprintable()
    assert " " not in where.target
    assert judged(where.url) == where


@pytest.mark.parametrize(
    ("address", "url", "authority"),
    [
        ("http://example.com", "http://example.com/", "example.com"),
        ("HTTPS://Example.COM:443/A?b=C#d", "https://example.com/A?b=C", "example.com"),
        ("https://example.com:8443/a b/ä", "https://example.com:8443/a%20b/%C3%A4", "example.com:8443"),
        ("http://example.com/%2e%2e/%zz?next=http://127.0.0.1/@", None, "example.com"),
        ("http://[2606:4700:0::1]:8080/", "http://[2606:4700::1]:8080/", "[2606:4700::1]:8080"),
        ("http://8.8.8.8?a", "http://8.8.8.8/?a", "8.8.8.8"),
        ("http://my_bucket.s3.amazonaws.com/a", None, "my_bucket.s3.amazonaws.com"),
        ("http://xn--bcher-kva.example/", None, "xn--bcher-kva.example"),
    ],
)
def test_a_url_is_taken_apart(address, url, authority):
    where = Guard().read(address)
    assert (where.url, where.authority) == (url or address, authority)


@pytest.mark.parametrize(
    ("text", "opens", "leaves"),
    [
        ("10.0.0.5", ["http://10.0.0.5/", "http://10.0.0.5:9000/", "http://10.0.0.5:22/"], ["http://10.0.0.6/"]),
        ("10.0.0.5:9000", ["http://10.0.0.5:9000/"], ["http://10.0.0.5/", "http://10.0.0.5:9001/"]),
        ("10.1.0.0/16", ["http://10.1.255.255/"], ["http://10.2.0.0/"]),
        ("fd00::/8", ["http://[fd12::1]/"], ["http://[fc00::1]/", "http://[fd00:ec2::254]/"]),
        ("[fd00::1]:9000", ["http://[fd00:0::1]:9000/"], ["http://[fd00::1]/"]),
        ("::1", ["http://[::1]:8080/"], ["http://127.0.0.1/", "http://[::ffff:127.0.0.1]/"]),
        ("minio", ["http://minio/", "http://MINIO:9000/"], ["http://minio.lan/", "http://redis/", "http://minio./"]),
        ("minio:9000", ["http://minio:9000/"], ["http://minio/", "https://minio/"]),
        ("inner.corp", ["https://inner.corp/"], ["https://x.inner.corp/"]),
        ("10.0.0.0/8", ["http://10.0.0.1/"], ["http://167772161/", "http://10.1/", "http://0x0a.0.0.1/"]),
    ],
)
def test_the_allow_list_opens_what_it_names_and_nothing_beside(text, opens, leaves):
    guard = Guard([text])
    for address in opens:
        assert guard.read(address)
    for address in leaves:
        with pytest.raises(Forbidden):
            guard.read(address)


@given(ips.filter(lambda ip: not passes(str(ip), "0.0.0.0/0", "::/0")))
@example(ipaddress.ip_address("::2"))
@example(ipaddress.ip_address("169.254.169.254"))
@example(ipaddress.ip_address("fd00:ec2::254"))
@example(ipaddress.ip_address("::ffff:10.0.0.1"))
def test_what_nothing_opens_cannot_be_listed_either(ip):
    with pytest.raises(ValueError, match="never gone to"):
        read_opening(str(ip))
    Guard(["opened.example"]).read("http://opened.example/")
    with pytest.raises(Forbidden):
        Guard(["pictures.example"]).check(SOMEWHERE, str(ip))


@pytest.mark.parametrize(
    "address", ["s3://pictures/a.png", "s3://pictures/a b/ä?versionId=1#x", "s3://pictures/a..b/%2e%2e"]
)
def test_an_s3_uri_is_taken_at_its_word(address):
    found = read_s3(address, ["other", "pictures"])
    assert f"s3://{found.bucket}/{found.key}" == address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://ann:secret@example.com/a?X-Amz-Signature=secret#secret", "'http://***@example.com/a'"),
        ("http://a@secret@example.com/", "'http://***@example.com/'"),
        ("http://example.com/\n\u202e", "'http://example.com/\\n\\u202e'"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(address, expected):
    assert shown(address) == expected


def test_a_login_is_refused_in_words_that_say_so():
    said = judged("http://ann:secret@example.com/")
    assert said == "'http://***@example.com/' names a user; put no credentials into addresses"


def test_a_long_address_is_shown_short():
    assert len(shown("http://example.com/" + "a" * 9000)) < 120
