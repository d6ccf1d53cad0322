"""Addresses that must be refused before anything is asked of the network, by what is wrong with them.

Plain tables, so that the program that tries them in a network of its own and the test that names each can share them.
"""

from __future__ import annotations

from dataclasses import dataclass

OWN_BUCKET = "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One hostile address: what the DNS would say to its host (None: nobody may ask), and what is opened."""

    address: str
    answers: tuple[str, ...] | None = None
    allow_hosts: tuple[str, ...] = ()


SCHEMES = {
    "nothing": "",
    "file": "file:///etc/passwd",
    "file with a host": "file://localhost/etc/passwd",
    "file in capitals": "FILE:///etc/passwd",
    "path": "/etc/passwd",
    "parent path": "../../conf.ini",
    "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp": "ftp://example.com/a.png",
    "dict": "dict://127.0.0.1:11211/stat",
    "ldap": "ldap://127.0.0.1/",
    "tftp": "tftp://127.0.0.1/a",
    "jar": "jar:http://127.0.0.1!/a.png",
    "php": "php://filter/resource=/etc/passwd",
    "javascript": "javascript:alert(1)",
    "data": "data:image/png;base64,AAAA",
    "unix socket": "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "websocket": "ws://127.0.0.1/",
    "s3a": "s3a://pictures/a.png",
    "no scheme": "//169.254.169.254/latest/meta-data/",
    "no host": "http://",
    "no host but a path": "http:///etc/passwd",
    "no host but a query": "http://?a",
    "one slash": "http:/127.0.0.1/",
    "no slash": "http:127.0.0.1",
    "three slashes": "https:///127.0.0.1/",
    "blank before": " http://127.0.0.1/",
    "tab before": "\thttp://127.0.0.1/",
    "blank in the scheme": "http ://127.0.0.1/",
    "tab in the scheme": "ht\ttp://127.0.0.1/",
    "url within": "url:http://127.0.0.1/",
}

LITERALS = {
    "loopback": "http://127.0.0.1/a.png",
    "loopback by https": "https://127.0.0.1/",
    "loopback with a port": "http://127.0.0.1:8080/",
    "another loopback": "http://127.255.255.254/",
    "one number missing": "http://127.0.1/",
    "two numbers missing": "http://127.1/",
    "decimal": "http://2130706433/",
    "decimal with a dot": "http://2130706433./",
    "octal": "http://017700000001/",
    "octal parts": "http://0177.0.0.1/",
    "hexadecimal": "http://0x7f000001/",
    "hexadecimal in capitals": "http://0X7F000001/",
    "hexadecimal parts": "http://0x7f.0x0.0x0.0x1/",
    "mixed bases": "http://0x7f.0.0.01/",
    "empty hexadecimal": "http://0x/",
    "padded with zeros": "http://127.000.000.001/",
    "overflowing": "http://4294967297/",
    "overflowing part": "http://127.0.0.257/",
    "five numbers": "http://127.0.0.0.1/",
    "loopback with a dot": "http://127.0.0.1./",
    "zero": "http://0/",
    "unspecified": "http://0.0.0.0/",
    "this network": "http://0.1.2.3/",
    "ten": "http://10.0.0.1/",
    "one seven two": "http://172.31.255.254/",
    "one nine two": "http://192.168.0.1/",
    "cgnat": "http://100.64.0.1/",
    "metadata": "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "metadata by https": "https://169.254.169.254/",
    "metadata decimal": "http://2852039166/",
    "metadata hexadecimal": "http://0xa9fea9fe/",
    "metadata octal": "http://0251.0376.0251.0376/",
    "metadata short": "http://169.254.43518/",
    "metadata of containers": "http://169.254.170.2/v2/credentials",
    "metadata of pods": "http://169.254.170.23/v1/credentials",
    "metadata of another cloud": "http://168.63.129.16/",
    "metadata of a third": "http://100.100.100.200/",
    "metadata of a fourth": "http://192.0.0.192/",
    "protocol assignments": "http://192.0.0.1/",
    "relay anycast": "http://192.88.99.1/",
    "benchmarking": "http://198.19.255.255/",
    "documentation 1": "http://192.0.2.1/",
    "documentation 2": "http://198.51.100.1/",
    "documentation 3": "http://203.0.113.1/",
    "multicast": "http://239.255.255.250:1900/",
    "reserved": "http://240.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "ipv6 loopback": "http://[::1]/",
    "ipv6 loopback in full": "http://[0000:0000:0000:0000:0000:0000:0000:0001]:8080/",
    "ipv6 unspecified": "http://[::]/",
    "ipv6 mapped loopback": "http://[::ffff:127.0.0.1]/",
    "ipv6 mapped loopback in hexadecimal": "http://[::ffff:7f00:1]/",
    "ipv6 mapped metadata": "http://[::FFFF:169.254.169.254]/",
    "ipv6 mapped public": "http://[::ffff:8.8.8.8]/",
    "ipv6 compatible loopback": "http://[::127.0.0.1]/",
    "ipv6 compatible metadata": "http://[::a9fe:a9fe]/",
    "ipv6 translated": "http://[::ffff:0:127.0.0.1]/",
    "nat64 metadata": "http://[64:ff9b::169.254.169.254]/",
    "nat64 loopback": "http://[64:ff9b::7f00:1]/",
    "nat64 local": "http://[64:ff9b:1::a9fe:a9fe]/",
    "6to4 loopback": "http://[2002:7f00:1::1]/",
    "teredo": "http://[2001:0:7f00:1::]/",
    "ipv6 metadata": "http://[fd00:ec2::254]/latest/meta-data/",
    "ipv6 unique local": "http://[fc00::1]/",
    "ipv6 link-local": "http://[fe80::1]/",
    "ipv6 site-local": "http://[fec0::1]/",
    "ipv6 multicast": "http://[ff02::1]/",
    "ipv6 documentation": "http://[2001:db8::1]/",
    "ipv6 new documentation": "http://[3fff::1]/",
    "ipv6 benchmarking": "http://[2001:2::1]/",
    "ipv6 discard": "http://[100::1]/",
    "ipv6 segment routing": "http://[5f00::1]/",
    "ipv6 unassigned": "http://[4000::1]/",
    "zone": "http://[fe80::1%eth0]/",
    "zone encoded": "http://[fe80::1%25eth0]/",
    "zone of loopback": "http://[::1%25lo]/",
    "zone of a public address": "http://[2606:4700::1%25eth0]/",
    "ipv6 without brackets": "http://::1/",
    "ipv6 left open": "http://[::1/",
    "ipv6 left open before": "http://::1]/",
    "ipv4 in brackets": "http://[127.0.0.1]/",
    "name in brackets": "http://[localhost]/",
    "future literal": "http://[v1.fe80]/",
    "text after brackets": "http://[2606:4700::1].example.com/",
}

NAMES = {
    "localhost": "http://localhost/",
    "localhost in capitals": "http://LOCALHOST:8080/",
    "localhost with a dot": "http://localhost./",
    "under localhost": "http://a.localhost/",
    "localdomain": "http://localhost.localdomain/",
    "one label": "http://redis:6379/",
    "metadata's one label": "http://metadata/computeMetadata/v1/",
    "metadata's name": "http://metadata.google.internal/",
    "a host of ec2": "http://ip-10-0-0-1.ec2.internal/",
    "a service of a cluster": "http://kubernetes.default.svc.cluster.local/",
    "a router": "http://router.lan/",
    "trailing dot": "http://example.com./",
    "trailing dots": "http://example.com../",
    "leading dot": "http://.example.com/",
    "two dots": "http://example..com/",
    "leading hyphen": "http://-example.com/",
    "long label": f"http://{'a' * 64}.example.com/",
    "long name": f"http://{'a.' * 127}com/",
    "wildcard": "http://*.example.com/",
    "two hosts": "http://example.com,127.0.0.1/",
    "semicolon": "http://example.com;127.0.0.1/",
    "ampersand": "http://127.0.0.1&example.com/",
    "number for a top domain": "http://example.127/",
}

USERS = {
    "user that looks like a host": "http://example.com@127.0.0.1/",
    "host that looks like a user": "http://127.0.0.1@example.com/",
    "user and port": "http://example.com:80@169.254.169.254/",
    "login": "http://ann:secret@example.com/",
    "empty user": "http://@example.com/",
    "two users": "http://a@b@example.com/",
    "user encoded": "http://example.com%40127.0.0.1/",
    "backslash for a slash": "http://example.com\\@127.0.0.1/",
    "backslashes for slashes": "http:\\\\127.0.0.1\\",
    "backslash in the path": "http://example.com/..\\..\\a",
    "backslash in the host": "http://127.0.0.1\\.example.com/",
}

ENCODINGS = {
    "percent digits": "http://%31%32%37.0.0.1/",
    "percent letter": "http://%6cocalhost/",
    "percent dot": "http://127%2e0.0.1/",
    "percent nul": "http://127.0.0.1%00.example.com/",
    "percent twice": "http://%2531%2532%2537.0.0.1/",
    "percent slash": "http://127.0.0.1%2f.example.com/",
    "fullwidth digits": "http://\uff11\uff12\uff17.0.0.1/",
    "fullwidth letters": "http://\uff4c\uff4f\uff43alhost/",
    "circled digits": "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
    "circled letters": "http://\u24db\u24de\u24d2\u24d0lhost/",
    "ideographic full stops": "http://127\u30020\u30020\u30021/",
    "cyrillic letter": "http://ex\u0430mple.com/",
    "fullwidth slash": "http://127.0.0.1\uff0f.example.com/",
    "fullwidth at": "http://example.com\uff20127.0.0.1/",
    "soft hyphen": "http://local\u00adhost/",
    "zero width": "http://local\u200bhost/",
    "written backwards": "http://\u202e1.0.0.721/",
    "arabic digits": "http://\u0661\u0662\u0667.0.0.1/",
    "nul": "http://example.com\x00.127.0.0.1/",
    "line end in the host": "http://127.0.0.1\n.example.com/",
    "line end in the path": "http://example.com/a\r\nHost: 127.0.0.1\r\n\r\n",
    "line end in the query": "http://example.com/?a\nb",
    "tab in the host": "http://127.0\t.0.1/",
    "blank in the host": "http://127.0.0.1 .example.com/",
    "delete": "http://example.com/\x7f",
    "next line": "http://example.com/\x85",
    "half a character": "http://example.com/\ud800",
    "half a character in the host": "http://\udfff.com/",
    "too long": f"http://example.com/{'a' * 8192}",
}

PORTS = {
    "port zero": "http://example.com:0/",
    "port too high": "http://example.com:65536/",
    "port of many digits": "http://example.com:00000000000080/",
    "port below zero": "http://example.com:-1/",
    "port by name": "http://example.com:http/",
    "port missing": "http://example.com:/",
    "two ports": "http://example.com:80:80/",
    "port in hexadecimal": "http://example.com:0x50/",
    "port in fullwidth": "http://example.com:\uff18\uff10/",
    "port with a blank": "http://example.com: 80/",
    "ssh": "http://example.com:22/",
    "smtp": "https://example.com:25/",
    "smtp at an address": "http://8.8.8.8:25/",
    "http's port by https": "https://example.com:80/",
}

S3 = {
    "another bucket": "s3://elsewhere/a.png",
    "bucket that begins so": "s3://pictures-of-others/a.png",
    "bucket in capitals": "s3://PICTURES/a.png",
    "scheme in capitals": "S3://pictures/a.png",
    "no bucket": "s3:///a.png",
    "nothing of s3": "s3://",
    "no key": "s3://pictures",
    "empty key": "s3://pictures/",
    "user of a bucket": "s3://pictures@elsewhere/a.png",
    "port of a bucket": "s3://pictures:443/a.png",
    "bucket encoded": "s3://pictures%2f/a.png",
    "arn": "s3://arn:aws:s3:::elsewhere/a.png",
    "access point": "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/a/b.png",
    "address for a bucket": "s3://169.254.169.254/latest/meta-data",
    "bucket with two dots": "s3://pictures..b/a.png",
    "parent in the key": "s3://pictures/../elsewhere/a.png",
    "parent deep in the key": "s3://pictures/a/b/../../../c.png",
    "dot in the key": "s3://pictures/./a.png",
    "parent at the end of the key": "s3://pictures/a/..",
    "slash before the key": "s3://pictures//a.png",
    "nul in the key": "s3://pictures/a\x00.png",
    "line end in the key": "s3://pictures/a\r\nb.png",
    "backslash in the key": "s3://pictures/..\\a.png",
    "half a character in the key": "s3://pictures/\ud800.png",
    "key too long": f"s3://pictures/{'é' * 513}",
}

PUBLIC = "93.184.216.34"
EVERYTHING = ("0.0.0.0/0", "::/0", "inner.example", "localhost")
ANSWERS = {
    "loopback": ("127.0.0.1",),
    "wildcard service": ("10.0.0.1",),
    "private": ("192.168.7.7",),
    "cgnat": ("100.127.0.1",),
    "metadata": ("169.254.169.254",),
    "unspecified": ("0.0.0.0",),
    "multicast": ("224.0.0.251",),
    "ipv6 loopback": ("::1",),
    "ipv6 unique local": ("fd12:3456::1",),
    "ipv6 metadata": ("fd00:ec2::254",),
    "ipv6 link-local with a zone": ("fe80::1%2",),
    "mapped": ("::ffff:10.0.0.1",),
    "compatible": ("::10.0.0.1",),
    "nat64": ("64:ff9b::a00:1",),
    "nat64 local": ("64:ff9b:1::a00:1",),
    "6to4": ("2002:a00:1::1",),
    "teredo": ("2001:0:4136:e378:8000:63bf:3fff:fdd2",),
    "public and private": (PUBLIC, "10.0.0.1"),
    "private and public": ("127.0.0.1", PUBLIC),
    "public over ipv4 and loopback over ipv6": (PUBLIC, "::1"),
    "no address": ("pictures.example",),
    "decimal": ("2130706433",),
}
OPENED = {
    "another port of an opened address": Case(address="http://10.0.0.5:9001/", allow_hosts=("10.0.0.5:9000",)),
    "another address of an opened network": Case(address="http://10.2.0.1/", allow_hosts=("10.1.0.0/16",)),
    "another port of an opened name": Case(address="http://minio:9001/", allow_hosts=("minio:9000",)),
    "an opened name with a dot": Case(address="http://minio.:9000/", allow_hosts=("minio:9000",)),
    "a name that ends like an opened one": Case(
        address="http://evil-inner.example/", answers=("10.0.0.5",), allow_hosts=("inner.example",)
    ),
    "a name under an opened one": Case(
        address="http://evil.inner.example/", answers=("10.0.0.5",), allow_hosts=("inner.example",)
    ),
    "a name that begins like an opened one": Case(
        address="http://inner.example.evil.example/", answers=("10.0.0.5",), allow_hosts=("inner.example",)
    ),
    "a name with an opened and a closed address": Case(
        address="http://two.example/", answers=("10.0.0.5", "10.0.0.6"), allow_hosts=("10.0.0.5",)
    ),
    "metadata though all is open": Case(address="http://169.254.169.254/", allow_hosts=EVERYTHING),
    "metadata over ipv6 though all is open": Case(address="http://[fd00:ec2::254]/", allow_hosts=EVERYTHING),
    "metadata mapped though all is open": Case(address="http://[::ffff:169.254.169.254]/", allow_hosts=EVERYTHING),
    "metadata by nat64 though all is open": Case(address="http://[64:ff9b::a9fe:a9fe]/", allow_hosts=EVERYTHING),
    "metadata by an opened name": Case(
        address="http://inner.example/", answers=("169.254.169.254",), allow_hosts=EVERYTHING
    ),
    "metadata mapped by an opened name": Case(
        address="http://inner.example/", answers=("::ffff:169.254.169.254",), allow_hosts=EVERYTHING
    ),
    "unspecified though all is open": Case(address="http://0.0.0.0/", allow_hosts=EVERYTHING),
    "multicast though all is open": Case(address="http://224.0.0.1/", allow_hosts=EVERYTHING),
    "decimal though all is open": Case(address="http://2130706433/", allow_hosts=EVERYTHING),
    "user at an opened name": Case(address="http://ann@localhost/", allow_hosts=EVERYTHING),
}

REFUSED: dict[str, Case] = {
    f"{kind}: {what}": Case(address=address)
    for kind, table in {
        "scheme": SCHEMES,
        "address": LITERALS,
        "name": NAMES,
        "user": USERS,
        "encoding": ENCODINGS,
        "port": PORTS,
        "s3": S3,
    }.items()
    for what, address in table.items()
}
REFUSED |= {
    f"dns: {what}": Case(address="http://pictures.example/a.png", answers=answers) for what, answers in ANSWERS.items()
}
REFUSED |= {f"opened: {what}": case for what, case in OPENED.items()}

REACHING = {
    "a name is looked up": Case(address="http://pictures.example/a.png"),
    "a public address is dialled": Case(address=f"http://{PUBLIC}/a.png"),
    "a name is dialled where it was found": Case(address="https://pictures.example/a.png", answers=(PUBLIC,)),
    "an opened address is dialled": Case(address="http://10.0.0.5:22/a.png", allow_hosts=("10.0.0.5:22",)),
    "an opened name is dialled": Case(address="http://minio/a.png", answers=("10.0.0.5",), allow_hosts=("minio",)),
    "a fragment is no host": Case(address=f"http://{PUBLIC}#@127.0.0.1/"),
}
"""What does reach for the network, so that the proof of the others is known to see it."""
