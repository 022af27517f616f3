"""`AccessToken`: one token as a value that does not show itself."""

import json
import re
from dataclasses import dataclass
from typing import Any

from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret

# RFC 6750 section 2.1 allows even less; what is refused is all that could end a line or a SASL field.
_TOKEN = re.compile(r"[\x21-\x7e]+")
# RFC 6749 section 5.1 lets servers leave the lifetime out. Most mean an hour; this is a little less.
ASSUMED_LIFETIME = 3000.0
# Renewed so long before the end, that clocks may differ and a slow login still gets through; for tokens
# that live shortly a tenth of their life, or they would be renewed all the time.
LARGEST_SKEW = 300.0


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, when it ends, and what goes with it. `repr`, `str` and pickling mask the secrets.

    `expires_at` and `issued_at` are in seconds since 1970; None means unknown. `value` and
    `refresh_token` may be given as strings. Raises `ConfigurationError` for a value that is empty
    or has spaces, control or other characters than ASCII: no token has them.
    """

    value: Secret
    expires_at: float | None = None
    scope: str = ""
    refresh_token: Secret | None = None
    issued_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "refresh_token"):
            given: object = getattr(self, name)
            if isinstance(given, str):
                object.__setattr__(self, name, Secret(given))
        value: object = self.value
        if not isinstance(value, Secret) or not _TOKEN.fullmatch(value.reveal()):
            raise ConfigurationError(
                "An access token must be a string of visible ASCII characters without spaces", stage="token"
            )

    def is_alive(self, now: float) -> bool:
        """Whether it has not ended yet, as far as is known."""
        return self.expires_at is None or now < self.expires_at

    def is_fresh(self, now: float) -> bool:
        """Whether it is too early to renew it: more than the skew is left."""
        return self.expires_at is None or now < self.expires_at - self._skew

    @property
    def _skew(self) -> float:
        if self.expires_at is None or self.issued_at is None:
            return 0.0
        return max(0.0, min(LARGEST_SKEW, (self.expires_at - self.issued_at) / 10))

    def dump(self) -> str:
        """All of it in JSON, with the secrets in clear: for a `TokenStore`, and never for a log."""
        return json.dumps(
            {
                "access_token": self.value.reveal(),
                "expires_at": self.expires_at,
                "scope": self.scope,
                "refresh_token": self.refresh_token.reveal() if self.refresh_token is not None else None,
                "issued_at": self.issued_at,
            }
        )

    @classmethod
    def parse(cls, text: str) -> "AccessToken":
        """What `dump` wrote. Raises ValueError, which does not show the text."""
        try:
            found: dict[str, Any] = json.loads(text)
            return cls(
                Secret(found["access_token"]),
                found["expires_at"],
                found["scope"],
                Secret(found["refresh_token"]) if found["refresh_token"] is not None else None,
                found["issued_at"],
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = ValueError("This is no token as AccessToken.dump() writes it")
        finally:
            del text
        raise problem
