"""Sessions whose forks are broken on purpose, by id for a rollout host."""

from __future__ import annotations

from typing import Self

from agentrl.envs.code import SessionEnv
from agentrl.sandbox import shared


class FreshForkSession(SessionEnv):
    """A branch gets a new session with the task's lists, and nothing that its parent did."""

    async def fork(self) -> Self:
        session, self._session = self._session, None
        twin = await super().fork()
        self._session = session
        if session is not None and self._task is not None:
            twin._session = await shared(self.sandbox).open()
            for name, numbers in self._task.data["lists"].items():
                await twin._session.execute(f"{name} = {numbers}")
        return twin
