"""`TokenSource`: one for each identity in a process, shared by all its sessions and threads.

A token is renewed by one thread at a time while the others wait for it, and by one process at a time where
a store is shared. What it costs to be wrong here: a provider that rotates refresh tokens takes the second use
of one for theft, and revokes them all.
"""

import copy
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.values import ROOT
from mailbridge.deadline import Clock, Deadline
from mailbridge.errors import DeadlineExceeded, MailbridgeError, TokenUnavailable
from mailbridge.logs import Log
from mailbridge.oauth2.request import Ask, as_token_error
from mailbridge.oauth2.store import MemoryTokenStore, TokenStore
from mailbridge.oauth2.token import AccessToken
from mailbridge.process import PerProcess
from mailbridge.secret import Secret, clear_locals

# Failures are remembered so long, doubling from one to the next, that many waiting sends do not make as
# many requests. What a person must mend is asked about seldom.
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
# How long a process waits for another one's request, if nothing else limits it: longer than one may take.
LOCK_SECONDS = 90.0


class _State:
    """What one process knows."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.token: AccessToken | None = None
        self.unsaved: AccessToken | None = None
        self.refused: Secret | None = None
        self.is_renewing = False
        self.renewals = 0
        self.failure: MailbridgeError | None = None
        self.quiet_until = 0.0
        self.pause = SHORTEST_PAUSE


class TokenSource:
    """Gives the access token of one user. Locks are held for decisions only, never while asking.

    `wall_clock` is in seconds since 1970, for when tokens end; `clock` for everything else. A forked child
    begins with nothing but what the store has, and with new locks.
    """

    def __init__(
        self,
        options: OAuth2Options,
        username: str,
        *,
        ask: Ask,
        store: TokenStore,
        wall_clock: Callable[[], float] = time.time,
        clock: Clock = time.monotonic,
    ) -> None:
        self.options = options
        self.username = username
        self._ask = ask
        self._store = store
        self._key = options.fingerprint(username)
        self._wall_clock = wall_clock
        self._clock = clock
        self._states = PerProcess(_State)
        self._forgets = isinstance(store, MemoryTokenStore)
        # Not on a mailer's own logger: all mailers of one user share this source.
        self._log = Log(ROOT, options.server)

    def __repr__(self) -> str:
        return f"<TokenSource for {self.username}: {self.describe()}>"

    def token(self, deadline: Deadline, *, fresh: bool = False) -> tuple[AccessToken, bool]:
        """A token, and whether it was cached: had before, so that a newer one may fare better.

        `fresh`: in the place of one that was refused, which `drop` is told first: the newer one that
        another thread has got meanwhile, or else one that is asked for now. Raises `TokenUnavailable`
        or `ConfigurationError` (stage token), and `DeadlineExceeded` if `deadline` ends while waiting.
        """
        if not self.options.can_renew:
            return self._static(), False
        here = self._states.get()
        with here.changed:
            found = self._await_turn(here, deadline, fresh=fresh)
        return found if found is not None else self._renew(here, deadline, fresh=fresh)

    def drop(self, token: AccessToken) -> None:
        """The server refused `token`: never give it again. A newer one, if there is one, stays."""
        here = self._states.get()
        with here.changed:
            if here.token is None or here.token.value == token.value:
                here.token, here.refused = None, token.value

    def describe(self) -> str:
        """For people: where tokens come from, their scope and end. Never a token."""
        options, token = self.options, self._states.get().token
        if options.supplier is not None:
            name = getattr(options.supplier, "__qualname__", type(options.supplier).__name__)
            said = [f"provider {name}"]
        elif options.grant == "static":
            said, token = ["configured access token"], self._configured()
        else:
            said = [f"{options.grant} at {options.server}"]
        scope = (token.scope if token is not None else "") or options.scope
        if scope:
            said.append(f"scope {scope}")
        if token is not None and token.expires_at is not None:
            left = token.expires_at - self._wall_clock()
            said.append(f"expires in {left:.0f} s" if left > 0 else "has expired")
        elif token is not None:
            said.append("expiry unknown")
        return ", ".join(said)

    def _configured(self) -> AccessToken | None:
        value = self.options.access_token
        return AccessToken(value, self.options.expires, self.options.scope) if value is not None else None

    def _static(self) -> AccessToken:
        token = self._configured()
        if token is None or not token.is_alive(self._wall_clock()):
            raise TokenUnavailable(
                "The configured access token has expired",
                stage="token",
                hint="Configure a grant that renews tokens, or a provider.",
            )
        return token

    def _await_turn(
        self, here: _State, deadline: Deadline, *, fresh: bool
    ) -> tuple[AccessToken, bool] | None:
        """A token that is there or that somebody else gets; None if it is this thread's turn to ask."""
        before = here.renewals
        while True:
            now, token = self._wall_clock(), here.token
            if token is not None and here.renewals != before:
                return token, False
            is_wanted = not fresh or here.refused is not None
            if token is not None and is_wanted and self._will_do(here, token, now):
                return token, True
            if here.failure is not None and self._clock() < here.quiet_until:
                raise self._remembered(here, here.failure)
            if not here.is_renewing:
                here.is_renewing = True
                return None
            if deadline.is_over:
                raise _out_of_time()
            here.changed.wait(deadline.remaining)

    def _will_do(self, here: _State, token: AccessToken, now: float) -> bool:
        """While a token is renewed ahead of its time, or can't be, it is as good as before."""
        is_waited_for = here.is_renewing or self._clock() < here.quiet_until
        return token.is_fresh(now) or (token.is_alive(now) and is_waited_for)

    def _remembered(self, here: _State, failure: MailbridgeError) -> MailbridgeError:
        again = copy.copy(failure)
        left = here.quiet_until - self._clock()
        again.hint = f"{again.hint} The next try is in {left:.0f} s.".strip()
        return again

    def _renew(self, here: _State, deadline: Deadline, *, fresh: bool) -> tuple[AccessToken, bool]:
        """This thread's turn. Errors leave without the frames that saw secrets."""
        outer = sys.exception()
        old = here.token
        try:
            token, is_cached = self._obtain(here, deadline, fresh=fresh)
            self._settle(here, token, None)
            return token, is_cached
        except BaseException as problem:
            clear_locals(problem, outer=outer)
            if not isinstance(problem, (MailbridgeError, OSError)):
                raise
            error = self._judge(here, problem, deadline)
        finally:
            with here.changed:
                here.is_renewing = False
                here.changed.notify_all()
        if old is not None and not fresh and old.is_alive(self._wall_clock()):
            self._log.token_not_renewed(error)
            return old, True
        raise error

    def _judge(self, here: _State, problem: BaseException, deadline: Deadline) -> MailbridgeError:
        """The error to raise; it is remembered for the others unless it is this caller's own impatience."""
        if isinstance(problem, DeadlineExceeded):
            return copy.copy(problem)  # without traceback and causes
        if isinstance(problem, TimeoutError) and deadline.is_over:
            return _out_of_time()
        error = as_token_error(problem, self.options)
        error = copy.copy(error)  # without traceback and causes
        self._settle(here, None, error)
        return error

    def _settle(self, here: _State, token: AccessToken | None, failure: MailbridgeError | None) -> None:
        with here.changed:
            if token is not None:
                # A token without an end that is known, of a callable: it does the caching, not we.
                keeps = self.options.supplier is None or token.expires_at is not None
                here.token = token if keeps else None
                here.renewals += 1
                here.failure, here.quiet_until, here.pause = None, 0.0, SHORTEST_PAUSE
                return
            here.failure = failure
            wanted = getattr(failure, "retry_after", None)
            if failure is not None and not failure.is_transient:
                pause = LONGEST_PAUSE
            else:
                pause = here.pause if wanted is None else wanted
                here.pause = min(here.pause * 2, LONGEST_PAUSE)
            here.quiet_until = self._clock() + min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)

    def _obtain(self, here: _State, deadline: Deadline, *, fresh: bool) -> tuple[AccessToken, bool]:
        if self.options.supplier is not None:
            return self._ask(None, deadline), not fresh
        with ExitStack() as held:
            try:
                held.enter_context(self._store.lock(self._key, _seconds(deadline)))
            except Exception as problem:
                if isinstance(problem, TimeoutError) and deadline.is_over:
                    raise
                raise _store_failed(problem) from None
            return self._obtain_locked(here, deadline, fresh=fresh)

    def _obtain_locked(self, here: _State, deadline: Deadline, *, fresh: bool) -> tuple[AccessToken, bool]:
        """What another process has got meanwhile, or a new one; nobody else asks now."""
        if here.unsaved is not None:
            self._save(here, here.unsaved)
        known = self._load()
        found = known if known is not None else self._configured()
        stale = here.refused
        if stale is None and fresh:
            newest = here.token if here.token is not None else found
            stale = newest.value if newest is not None else None
        if found is not None and found.value != stale and found.is_fresh(self._wall_clock()):
            return found, True
        rotated = known.refresh_token if known is not None else None
        spent = rotated or self.options.refresh_token
        token = self._ask(spent, deadline)
        if token.refresh_token is None and rotated is not None:
            token = AccessToken(token.value, token.expires_at, token.scope, rotated, token.issued_at)
        self._tell(token, spent)
        self._save(here, token)
        return token, False

    def _load(self) -> AccessToken | None:
        try:
            return self._store.load(self._key)
        except Exception as problem:
            raise _store_failed(problem) from None

    def _save(self, here: _State, token: AccessToken) -> None:
        """Nobody uses a token whose refresh token could be lost; until it is saved, none is spent again."""
        here.unsaved = token
        try:
            self._store.save(self._key, token)
        except Exception as problem:
            raise _store_failed(problem) from None
        here.unsaved = None
        if self.options.on_refresh is not None:
            try:
                self.options.on_refresh(token, self.username)
            except Exception as problem:
                self._log.on_refresh_failed(problem)

    def _tell(self, token: AccessToken, spent: Secret | None) -> None:
        left = None if token.expires_at is None else token.expires_at - self._wall_clock()
        self._log.token_obtained(self.username, left)
        if spent is not None and token.refresh_token not in (None, spent) and self._forgets:
            self._forgets = False  # it has been said
            self._log.token_not_kept(self.username)


def _seconds(deadline: Deadline) -> float:
    left = deadline.remaining
    return LOCK_SECONDS if left is None else min(left, LOCK_SECONDS)


def _out_of_time() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The time for this send ran out while an access token was asked for", stage="token"
    )


def _store_failed(problem: Exception) -> TokenUnavailable:
    """Of OSError and ValueError of our own stores the text is safe; of others nobody knows what it quotes."""
    told = str(problem) if isinstance(problem, OSError) or type(problem) is ValueError else ""
    error = TokenUnavailable(
        f"The token store failed: {told or type(problem).__name__}",
        stage="token",
        hint="Nothing was lost if it is mended soon; a token that could not be saved is kept meanwhile.",
    )
    error.transient = True
    return error
