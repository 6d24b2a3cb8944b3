"""The check of a shell task: in a fresh session that gets nothing but the policy's files."""

from __future__ import annotations

import io
import secrets
import stat
import tarfile
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from agentrl.core.errors import EnvError
from agentrl.sandbox import Limits, RunStatus, Sandbox, Session
from agentrl.tools.shell import FOLDER

from .shell_rows import Check, RunCheck

_TAR: Final = "/bin/tar"
_CHECK_SECONDS: Final = 30.0
"""What all commands of a check may take together: programs that dawdle are no failure of ours."""


class Entry(NamedTuple):
    """What stands at a path: a file's content or a link's target, and its permissions."""

    content: bytes | None
    target: str | None
    mode: int


class Snapshot(NamedTuple):
    """The task's folder as an archive, and as what is at each path (folders left out)."""

    archive: bytes
    entries: Mapping[str, Entry]


async def snapshot(session: Session) -> Snapshot | None:
    """The task's folder; None where the policy has left none that can be read.

    The archive's name cannot be foreseen, and programs of the sandbox cannot be replaced, so that
    nothing which the policy has left takes part but the files themselves.
    """
    name = f"archive-{secrets.token_hex(8)}.tar"
    made = await session.run([_TAR, "--format=pax", "-cf", name, "-C", FOLDER, "."])
    if made.exit_code == 127:
        raise EnvError(f"the sandbox has no {_TAR}, which the check needs: {made.stderr.strip()}")
    if made.status is not RunStatus.OK:
        return None
    try:
        archive = await session.read(name)
        return Snapshot(archive, _entries(archive))
    except (FileNotFoundError, tarfile.TarError, EOFError, UnicodeError):
        return None


def _entries(archive: bytes) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            mode = stat.S_IMODE(member.mode)
            opened = tar.extractfile(member) if member.isreg() or member.islnk() else None
            content = opened.read() if opened is not None else None
            target = member.linkname if member.issym() else None
            entries[member.name.removeprefix("./")] = Entry(content, target, mode)
    return entries


def mismatch(check: Check, entries: Mapping[str, Entry]) -> str:
    """The first thing about the files that is not as `check` wants it, or ""."""
    for path, text in check.expect.items():
        found = entries.get(path)
        if text is None:
            if found is not None:
                return f"{path} is still there"
        elif found is None or found.content != text.encode():
            return f"{path} has not the wanted content"
    for path, mode in check.modes.items():
        if path not in entries or entries[path].mode != int(mode, 8):
            return f"{path} has not the mode {mode}"
    for path, target in check.links.items():
        if path not in entries or entries[path].target != target:
            return f"{path} is no link to {target}"
    if check.listing is not None and set(check.listing) != set(entries):
        return "the files are not the wanted ones"
    return ""


async def passes(check: Check, taken: Snapshot, sandbox: Sandbox, limits: Limits) -> bool:
    """Whether the files and the outcome of every command, under `limits`, are as `check` wants.

    What is expected is compared here and never enters the sandbox. A command runs programs of the
    policy where it names them: those can forge an exit code, and an output only if they know it.
    """
    if mismatch(check, taken.entries):
        return False
    if not check.runs:
        return True
    session = await sandbox.open()
    try:
        name = f"archive-{secrets.token_hex(8)}.tar"
        try:
            await session.write(name, taken.archive)
        except OSError:
            # The policy has left more than there is room for twice.
            return False
        for argv in (["mkdir", FOLDER], [_TAR, "-xpf", name, "-C", FOLDER], ["rm", "-f", name]):
            made = await session.run(argv)
            if made.status is not RunStatus.OK:
                return False
        end = time.monotonic() + _CHECK_SECONDS
        for run in check.runs:
            left = end - time.monotonic()
            if left <= 0:
                return False
            seconds = min(limits.wall_seconds, left)
            bounded = limits.model_copy(update={"wall_seconds": seconds})
            if not await _run(run, session, bounded):
                return False
        return True
    finally:
        await session.close()


async def _run(run: RunCheck, session: Session, limits: Limits) -> bool:
    try:
        for path, text in run.files.items():
            await session.write(f"{FOLDER}/{path}", text.encode())
    except OSError:
        # The policy has put something else in the way of a file.
        return False
    argv = ["env", "-C", FOLDER, "bash", "--noprofile", "--norc", "-c", run.command]
    done = await session.run(argv, stdin=run.stdin, limits=limits)
    if done.status not in (RunStatus.OK, RunStatus.ERROR) or done.exit_code != run.exit:
        return False
    return run.stdout is None or done.stdout.rstrip() == run.stdout.rstrip()
