"""Whether a user name and password are right: by a mapping, or by asking the application's function.

Who may do what after a login is not decided here.
"""

from mailbridge.secret import Secret
from mailbridge.server.hooks import Hooks
from mailbridge.server.options import Policy


class Logins:
    """`auth` of a server."""

    def __init__(self, policy: Policy, hooks: Hooks) -> None:
        self._users = policy.users
        self._check = policy.check_login
        self._hooks = hooks

    async def user_of(self, name: bytes, password: Secret) -> str | None:
        """The user whose password this is, or None. Raises what the application's function raises."""
        try:
            user = name.decode()
            password.reveal().encode()
        except UnicodeError:
            return None
        if not user or not password:
            return None
        if self._check is not None:
            return user if await self._hooks.call(self._check, user, password.reveal()) else None
        # Unknown users take as long as known ones: the password, never empty, is compared in any case.
        return user if (self._users or {}).get(user, Secret("")) == password else None
