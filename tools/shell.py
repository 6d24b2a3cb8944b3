"""The shell tool: bash commands in a sandbox session, which go on where the last one stopped."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from agentrl.core.errors import ToolError
from agentrl.core.tool import Tool
from agentrl.sandbox.base import Limits, RunResult, RunStatus, Session

FOLDER: Final = "task"
"""The folder, below that of the session, in which the first command starts."""

_STATE: Final = ".shell"
_MAX_COMMAND_CHARS: Final = 100_000
_GRACE_SECONDS: Final = 60.0

# The command comes on standard input, which has no limit on its length and is empty for it. It
# stands on the first line, so that bash counts the lines of its errors from 1. Restoring and saving
# say nothing, whatever options the policy has set (`set -x`, `set -u`).
_PROGRAM: Final = 'eval "$1"; eval "$__shell_command"'
_PREAMBLE: Final = r"""
exec 2>&1
IFS= read -r -d '' __shell_command
exec </dev/null
__shell_state=$PWD/STATE
shopt -s expand_aliases
__shell_save() {
    local __shell_code=$? __shell_options __shell_to=$__shell_state
    __shell_options=$(set +o)
    # A substitution does not see this one.
    [[ $- == *e* ]] && __shell_options+=$'\nset -e'
    set +eux
    kill -KILL $(jobs -p)
    unset __shell_command __shell_state
    {
        printf 'cd -- %q\n' "$PWD"
        declare -p
        declare -f
        alias -p
        shopt -p
        printf '%s\n' "$__shell_options"
    } >|"$__shell_to.new" && mv -f -- "$__shell_to.new" "$__shell_to"
    exit "$__shell_code"
}
{
    cd FOLDER
    . "$__shell_state"
    trap '{ __shell_save; } 2>/dev/null' EXIT
    set --
} 2>/dev/null
""".replace("STATE", _STATE).replace("FOLDER", FOLDER)


class Shell:
    """A terminal in a sandbox session.

    As in a terminal, a command sees the folder, variables, functions, aliases and options that
    earlier ones left. Unlike in one, its standard input is empty, its jobs in the background end
    with it, and `exit` ends only the command; one that is ended by a limit leaves no state.

    The state is a file of the session, so that a fork of the session (`fork`) forks the shell.
    `limits` are those of each command; None: those of the session's sandbox. Needs bash.
    """

    def __init__(self, session: Session, *, limits: Limits | None = None) -> None:
        self.session = session
        self.limits = limits
        self._turn = asyncio.Lock()

    async def run(self, command: str) -> RunResult:
        """Run a command; its output and its errors come as one text, in their order.

        Raises:
            ToolError: a command that no shell can be given.
        """
        if "\0" in command:
            raise ToolError("a command cannot hold the character NUL.")
        if len(command) > _MAX_COMMAND_CHARS:
            raise ToolError(
                f"a command may have {_MAX_COMMAND_CHARS} characters, got {len(command)}."
            )
        argv = ["bash", "--noprofile", "--norc", "-c", _PROGRAM, "bash", _PREAMBLE]
        text = command.encode("utf-8", "replace").decode()
        # Two commands of one action share the state, so they wait for each other.
        async with self._turn:
            return await self.session.run(argv, stdin=text, limits=self.limits)

    async def told(self, command: str, limits: Limits) -> str:
        """What the policy is told of a command that ran under `limits`."""
        return told(await self.run(command), limits)

    async def fork(self) -> Self:
        """A shell in the same state, where the session forks by copy."""
        return type(self)(await self.session.fork(), limits=self.limits)


def told(result: RunResult, limits: Limits) -> str:
    """The output of a command, then in brackets how it ended, where that is no success."""
    said = result.stdout.rstrip("\n")
    ends = {
        RunStatus.WALL_LIMIT: f"it ran longer than {limits.wall_seconds:g} s",
        RunStatus.CPU_LIMIT: f"it used more than {limits.cpu_seconds:g} s of processor time",
        RunStatus.MEMORY_LIMIT: f"it used more than {limits.memory_mb} MB of memory",
        RunStatus.OUTPUT_LIMIT: "it would not stop writing",
        RunStatus.KILLED: "by a signal",
    }
    if result.status in ends:
        end = f"[ended: {ends[result.status]}; folder and variables are as before it]"
    elif result.exit_code:
        end = f"[exit code {result.exit_code}]"
    else:
        return said or "[no output]"
    return f"{said}\n{end}" if said else end


def shell_tool(shell: Shell, *, limits: Limits, max_result_chars: int = 16_000) -> Tool:
    """A tool `shell(command)` over `shell`, whose description tells the `limits` of a command.

    An environment that forks builds the tool anew for the fork's shell, or gives a method of its
    own that calls `Shell.told`.
    """

    async def run(command: str) -> str:
        return await shell.told(command, limits)

    run.__doc__ = (
        "Run a bash command. The next one goes on in its folder, with its variables.\n\n"
        f"A command may take {limits.wall_seconds:g} s and {limits.memory_mb} MB of memory, reads "
        f"nothing from standard input, and shows {limits.output_chars} characters; what it starts "
        "in the background ends with it.\n\n"
        "Args:\n    command: One or more lines of bash.\n"
    )
    return Tool.of(
        run,
        name="shell",
        timeout=limits.wall_seconds + _GRACE_SECONDS,
        max_result_chars=max_result_chars,
    )
