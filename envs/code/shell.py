"""Work in a shell: files to change with bash commands, and a check that the result must pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Self

from agentrl.core.env import Forkable
from agentrl.core.errors import EnvError
from agentrl.core.formats import FormatName
from agentrl.core.tool import Tool
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task
from agentrl.sandbox import AnySandbox, BubblewrapSettings, RunStatus, Session, shared
from agentrl.tools.shell import FOLDER, Shell

from .shell_check import passes, snapshot
from .shell_rows import DONE, Check, own_tasks, read_tasks

_SANDBOX: Final = BubblewrapSettings()
_GRACE_SECONDS: Final = 60.0
# Times of files that a task brings: what `ls -l` says of them must not change from run to run.
_STAMP: Final = "find . -exec touch -h -d '2025-01-01 00:00:00 UTC' {} +"


class ShellEnv(ToolEnv):
    """A folder of files, a bash shell, and something to be done there.

    Observation: the instruction; then what each command printed (output and errors in their
    order), and in brackets its exit code where that is not 0, or the limit that ended it.
    Action: `<shell>command</shell>`, or `<answer>done</answer>` when it is done; a task that asks
    a question wants its answer there. Any other answer gives up.
    Reward: `check`, at the end, 1.0 where the check of the task passes, else 0.0. No answer
    (too many turns) is 0.0.
    Ends: terminated by an answer; truncated after `max_turns` actions.
    Data: `train` and `eval` are files or hub data sets of rows as in `shell_rows`; with neither,
    tasks of our own.

    Commands go on in one shell (`agentrl.tools.shell.Shell`): folder, variables and functions
    stay, jobs in the background end. The check sees only the files of the task's folder, copied
    to a fresh session after the policy's has ended; neither its commands nor what it expects are
    in the sandbox before. Limits of a command are those of `sandbox`.

    Forks by copying the session in bubblewrap, by replay elsewhere. A command that prints times,
    process ids or other chance (`date`, `ls -l` of a new file, `$RANDOM`) does not replay.
    """

    def __init__(
        self,
        *,
        train: str = "",
        eval: str = "",
        sandbox: AnySandbox = _SANDBOX,
        max_turns: int = 12,
        format: FormatName = "xml",
        instructions: bool = False,
    ) -> None:
        super().__init__(format=format, max_turns=max_turns, instructions=instructions)
        self.files = {"train": train, "eval": eval}
        self.sandbox = sandbox
        limits = sandbox.limits
        self.tools = (
            Tool.of(
                self.shell,
                timeout=limits.wall_seconds + _GRACE_SECONDS,
                # The sandbox has cut it already; what is added tells how the command ended.
                max_result_chars=limits.output_chars + 1000,
            ),
        )
        self._shell: Shell | None = None

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """As the sandbox's sessions fork."""
        return "copy" if isinstance(self.sandbox, BubblewrapSettings) else "replay"

    async def shell(self, command: str) -> str:
        """Run a bash command. The next one goes on in its folder, with its variables.

        Args:
            command: One or more lines of bash. Standard input is empty, and jobs in the
                background end with the command.
        """
        if self._shell is None:
            raise EnvError("the shell was used before reset")
        said: str = await self._shell.told(command, self.sandbox.limits)
        return said

    def tasks(self, split: str) -> Sequence[Task]:
        """The rows of the split's file, or our own tasks where neither split has one.

        Raises:
            DataError: the file is missing or malformed.
        """
        if not any(self.files.values()):
            return own_tasks(split)
        source = self.files.get(split, "")
        return read_tasks(source) if source else ()

    async def begin(self, task: Task, *, seed: int) -> None:
        """Open a session with the task's files and prepare them."""
        await self.close()
        files = {f"{FOLDER}/{path}": text.encode() for path, text in task.data["files"].items()}
        session = await shared(self.sandbox).open(files)
        self._shell = Shell(session)
        if not files:
            await session.run(["mkdir", FOLDER])
        for command in (*task.data["setup"], _STAMP):
            await _prepare(session, command, task)

    def prompt(self, task: Task) -> str:
        """The instruction, and how to end."""
        instruction = str(task.data["instruction"]).strip()
        how = f"You work with bash in the folder {FOLDER}. {_how_to_end(_check(task))}"
        return f"{instruction}\n\n{how}"

    async def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        """1.0 where the check passes."""
        check = _check(task)
        passed = False
        if answer is not None and answer.strip().casefold() == check.answer.strip().casefold():
            shell = self._shell
            assert shell is not None
            taken = await snapshot(shell.session)
            # The check's session may need the place of this one.
            await self.close()
            fresh, limits = shared(self.sandbox), self.sandbox.limits
            passed = taken is not None and await passes(check, taken, fresh, limits)
        await self.close()
        return {"check": float(passed)}

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The commands of the row's solution, then the answer."""
        commands = task.data["solution"]
        if not commands or turn > len(commands):
            return None
        if turn < len(commands):
            return self.call_format.call("shell", {"command": commands[turn]})
        return self.call_format.answer(_check(task).answer)

    async def fork(self) -> Self:
        """A copy of this env with a copy of its session."""
        if self.forkable != "copy":
            raise TypeError("sessions of this sandbox fork by replay, not by copy")
        twin = await super().fork()
        twin._shell = None if self._shell is None else await self._shell.fork()
        return twin

    async def close(self) -> None:
        """End the session."""
        shell, self._shell = self._shell, None
        if shell is not None:
            await shell.session.close()


def _check(task: Task) -> Check:
    return Check.model_validate(task.data["check"])


def _how_to_end(check: Check) -> str:
    if check.answer == DONE:
        return f"When all is as asked, answer {DONE}."
    return "When you know the answer, give it, and nothing else."


async def _prepare(session: Session, command: str, task: Task) -> None:
    argv = ["env", "-C", FOLDER, "bash", "--noprofile", "--norc", "-c", command]
    done = await session.run(argv)
    if done.status is not RunStatus.OK:
        raise EnvError(
            f"task {task.id!r}: its setup command {command!r} failed ({done.status}, exit code "
            f"{done.exit_code}): {done.stderr.strip()[-300:]}"
        )
