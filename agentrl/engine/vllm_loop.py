"""The thread that owns a vLLM engine: it alone adds, steps, aborts and loads."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agentrl.core.errors import EngineError

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

_STOP_SECONDS = 60.0
"""How long the step on its way may take when the engine is to end."""

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A finished request, and how many of its tokens were computed again after new weights."""

    output: RequestOutput
    recomputed: int


@dataclass(slots=True)
class _Request:
    id: str
    token_ids: list[int]
    params: SamplingParams
    future: Future[Answer]
    recomputed: int = 0
    name: str = ""  # vLLM's own for it


@dataclass(frozen=True, slots=True)
class _Load:
    act: Callable[[LLMEngine], None]
    version: int
    future: Future[None]


class EngineLoop:
    """Steps one engine in a thread of its own until `stop`, or until the engine fails.

    Requests are taken in order. A load waits for the step on its way only: vLLM gives up what it
    computed for the requests before, and computes it again from their tokens so far with the new
    weights; vLLM reports which version sampled which token. Only scores, which take a step or two,
    are made by one version: a load waits for those before it. Cancelling a future aborts its
    request.
    """

    def __init__(self, build: Callable[[], LLMEngine], end: Callable[[LLMEngine], None]) -> None:
        self._build = build
        self._end = end
        self._inbox: deque[_Request | _Load] = deque()
        self._aborted: deque[str] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._running: dict[str, _Request] = {}
        self._ids = itertools.count()
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._ready: Future[None] = Future()
        self.version = 0
        self.error: BaseException | None = None

    def start(self) -> Future[None]:
        """Build the engine in the thread; the future is done when it can be asked."""
        self._thread.start()
        return self._ready

    def submit(self, token_ids: list[int], params: SamplingParams) -> Future[Answer]:
        """Queue a request."""
        future: Future[Answer] = Future()
        request = _Request(str(next(self._ids)), token_ids, params, future)
        future.add_done_callback(functools.partial(self._abort_cancelled, request.id))
        self._put(request, future)
        return future

    def load(self, act: Callable[[LLMEngine], None], version: int) -> Future[None]:
        """Queue `act`, which gives the engine the weights of `version`."""
        future: Future[None] = Future()
        self._put(_Load(act, version, future), future)
        return future

    def leave(self) -> None:
        """End the thread after its step, or as soon as the engine is built; nobody waits for it."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def stop(self, *, seconds: float = _STOP_SECONDS) -> None:
        """End the thread and wait for it; requests on the way fail.

        A thread whose step takes longer than `seconds` is left behind with its engine.
        """
        self.leave()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("vllm hangs in a step for %g s: its engine is not freed", seconds)
            self._fail_all()

    def _put(self, item: _Request | _Load, future: Future[Answer] | Future[None]) -> None:
        with self._changed:
            if self._stopping or self.error is not None:
                future.set_exception(self._gone())
                return
            self._inbox.append(item)
            self._changed.notify()

    def _abort_cancelled(self, request_id: str, future: Future[Answer]) -> None:
        if not future.cancelled():
            return
        with self._changed:
            self._aborted.append(request_id)
            self._changed.notify()

    def _run(self) -> None:
        try:
            engine = self._build()
        except BaseException as error:  # handed to whoever waits for the start, an exit too
            self.error = error
            if self._ready.set_running_or_notify_cancel():
                known = isinstance(error, Exception)
                self._ready.set_exception(error if known else EngineError(repr(error)))
            return
        try:
            if self._ready.set_running_or_notify_cancel():
                self._ready.set_result(None)
                while self._turn(engine):
                    pass
        except Exception as error:  # told to every request, and to every later one
            self.error = error
        finally:
            self._fail_all()
            self._end(engine)

    def _turn(self, engine: LLMEngine) -> bool:
        """Take what waits, then step once; False when told to stop."""
        busy = engine.has_unfinished_requests()
        with self._changed:
            while not (busy or self._inbox or self._aborted or self._stopping):
                self._changed.wait()
            if self._stopping:
                return False
            aborted = list(self._aborted)
            self._aborted.clear()
        while self._inbox and (not isinstance(self._inbox[0], _Load) or not self._scores()):
            item = self._inbox.popleft()
            if isinstance(item, _Load):
                self._load(engine, item)
            else:
                self._add(engine, item)
        known = [one for one in aborted if self._running.pop(one, None)]
        if known:
            engine.abort_request(known)
        if engine.has_unfinished_requests():
            for output in engine.step():
                self._answer(output)
        return True

    def _scores(self) -> bool:
        return any(one.params.prompt_logprobs is not None for one in self._running.values())

    def _add(self, engine: LLMEngine, request: _Request) -> None:
        if request.future.cancelled():
            return
        prompt = {"type": "token", "prompt_token_ids": request.token_ids}
        self._running[request.id] = request
        try:
            request.name = engine.add_request(request.id, prompt, request.params)
        except Exception as error:  # vLLM refuses this one; the others go on
            del self._running[request.id]
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(EngineError(f"vllm refused a request: {error}"))

    def _load(self, engine: LLMEngine, item: _Load) -> None:
        if not item.future.set_running_or_notify_cancel():
            return
        try:
            for request in self._running.values():
                state = engine.output_processor.request_states[request.name]
                sampled = state.detokenizer.num_output_tokens()
                request.recomputed += len(request.token_ids) + sampled if sampled else 0
            item.act(engine)
            engine.set_weight_version(str(item.version))
        except Exception as error:
            item.future.set_exception(
                EngineError(f"vllm could not take the weights of version {item.version}: {error}")
            )
            raise  # the engine holds neither the old weights nor the new ones
        self.version = item.version
        item.future.set_result(None)

    def _answer(self, output: RequestOutput) -> None:
        request = self._running.pop(output.request_id, None)
        if request is not None and request.future.set_running_or_notify_cancel():
            request.future.set_result(Answer(output, request.recomputed))

    def _gone(self) -> EngineError:
        cause = f": {type(self.error).__name__}: {self.error}" if self.error else ""
        return EngineError(f"the vllm engine is not running{cause}; call start() for a new one")

    def _fail_all(self) -> None:
        with self._changed:
            self._stopping = True
            waiting = [item.future for item in self._inbox]
            self._inbox.clear()
        for future in (*waiting, *(request.future for request in self._running.values())):
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_exception(self._gone())
        self._running.clear()
