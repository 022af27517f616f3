"""Calls the functions of the application: coroutines on the loop, others in a bounded pool of threads.

A hook is never interrupted because its client has gone: what it has begun, such as storing a mail, it
may end. What a failure means to the client is decided in `dialogue`.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

Hook = Callable[..., Any]


class Hooks:
    """The hooks that run for one connection. Used within the event loop."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._running: set[asyncio.Task[Any]] = set()

    async def call(self, hook: Hook, *arguments: object) -> Any:
        """What `hook` returns or raises. Cancelling this does not cancel the hook."""
        return await self.finish(self._run(hook, arguments))

    async def finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do this work to its end, even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def wait(self) -> None:
        """Until all have ended."""
        if self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Coroutines end, and what has not begun will not; a thread can't be ended from without."""
        for task in self._running:
            task.cancel()

    async def _run(self, hook: Hook, arguments: tuple[object, ...]) -> Any:
        try:
            if _is_coroutine_function(hook):
                return await hook(*arguments)
            result = await asyncio.get_running_loop().run_in_executor(self._threads, hook, *arguments)
            return await result if inspect.isawaitable(result) else result  # a lambda around a coroutine
        except (SystemExit, KeyboardInterrupt) as error:
            # These would end the event loop, and with it the conversations of everybody else.
            raise RuntimeError(f"The hook raised {type(error).__name__}") from error

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one


def _is_coroutine_function(hook: Hook) -> bool:
    call = getattr(hook, "__call__", None)  # noqa: B004  # not whether, but what
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call)
