"""Settings with a secret in them, in every shape that a project may give them."""

from __future__ import annotations

import json
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from mailbridge import Secret

MARK = "hunter" + "Zx81"  # in two halves: pages show source lines
SHAPES = 200


class Pair(NamedTuple):
    first: Any
    second: Any


def urls(rng: random.Random, scheme: str = "") -> str:
    scheme = scheme or rng.choice(["smtp", "smtps", "lmtp", "SMTP"])
    password = rng.choice(
        [MARK, quote(MARK + "/+@:", safe=""), f"{MARK}@x", f"a/{MARK}", f"a?{MARK}", f"#{MARK}"]
    )
    return rng.choice(
        [
            f"{scheme}://user:{password}@127.0.0.1:1",
            f"{scheme}://{password}@127.0.0.1:1/?security=none",
            f"{scheme}://:{password}@localhost:1",
            f"{scheme}://127.0.0.1:1/?username=u&password={password}",
            f"{scheme}://127.0.0.1:1/?oauth2={MARK}",
            f"user:{password}@127.0.0.1",
            f"{scheme}://u:{password}@a.example {scheme}://v:{password}@b.example",
        ]
    )


def proxies(rng: random.Random) -> Any:
    one = [urls(rng, rng.choice(["http", "https", "socks5", "socks5h"])) for _ in range(3)]
    mapping = {"scheme": "http", "host": "127.0.0.1", "port": 1, "username": MARK, "password": MARK}
    return rng.choice([one[0], one, tuple(one), [mapping, one[1]], mapping, {"url": one[0]}, Secret(one[0])])


def oauth2(rng: random.Random) -> Any:
    key = rng.choice(
        ["client_secret", "refresh_token", "access_token", "private_key", "extra_params", "scope"]
    )
    account = {"client_email": "a@b", "private_key": MARK}
    return rng.choice(
        [
            {
                "grant": "refresh_token",
                "client_id": "id",
                key: MARK,
                "token_url": f"https://u:{MARK}@t.example",
            },
            {"provider": "google", "service_account": rng.choice([account, json.dumps(account)])},
            {"extra_params": [("audience", MARK)], "extra_headers": {"Authorization": MARK}},
            f"ya29.{MARK}",
        ]
    )


def dkim(rng: random.Random) -> Any:
    pem = f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n"
    key = {
        "domain": "example.com",
        "selector": "s",
        "private_key": rng.choice([pem, pem.encode(), Secret(pem)]),
    }
    return rng.choice([key, [key, dict(key)], (key,), pem])


def servers(rng: random.Random) -> Any:
    return [
        urls(rng),
        {"url": urls(rng), "priority": 2},
        {"config": rng.choice([urls(rng), {"host": "h", "password": MARK}]), "weight": 3},
        (urls(rng),),
    ]


def wrong(rng: random.Random) -> tuple[str, Any]:
    """Secrets where they do not belong."""
    return rng.choice(
        [
            ("pasword", MARK),
            ("host", f"smtp://u:{MARK}@h"),
            ("servers", urls(rng)),
            ("tls", {"key_password": MARK, "ca_file": "/etc/ssl/ca.pem"}),
            ("tls", MARK),
            ("defaults", {"headers": {"X-Api": MARK}}),
            ("nested", {"deep": [{"deeper": ({"deepest": MARK},)}, Pair(urls(rng), {MARK + "x"})]}),
            ("logger", f"smtp://u:{MARK}@h"),
            ("password", MARK.encode()),
        ]
    )


def options(rng: random.Random) -> dict[str, Any]:
    """One configuration of a mailer with sentinels in several places."""
    found: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "username": "user", "password": MARK}
    for name, make in (("proxy", proxies), ("oauth2", oauth2), ("dkim", dkim)):
        if rng.random() < 0.4:
            found[name] = make(rng)
    if rng.random() < 0.4:
        found = {**found, "servers": servers(rng)}
    if rng.random() < 0.5:
        found = {"url": rng.choice([urls(rng), Secret(urls(rng))]), **(found if rng.random() < 0.3 else {})}
    if rng.random() < 0.4:
        name, value = wrong(rng)
        found[name] = value
    return rng.choice([lambda d: d, OrderedDict, lambda d: d, MappingProxyType])(found)  # type: ignore[no-any-return]


def shapes(make: Callable[[random.Random], Any], count: int = SHAPES) -> Iterator[Any]:
    for number in range(count):
        yield make(random.Random(number))


def plain(value: Any) -> Any:
    """A copy from before anything was masked: dicts and lists are masked in place."""
    if isinstance(value, dict | MappingProxyType):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map(plain, value))
    return value
