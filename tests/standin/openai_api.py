"""Port 30000: the part of SGLang 0.5.23's HTTP API that clients, the gateway and the operator use."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.standin.doors import key_middleware
from tests.standin.load import Request
from tests.standin.metrics import exposition
from tests.standin.pod import Pod

VERSION = "0.5.23"
COUNT = re.compile(r"[Cc]ount (?:to|down from) (\d+)")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal(status: int, kind: str, message: str) -> web.Response:
    """An error body as SGLang's OpenAI endpoints write it."""
    headers = {"Retry-After": "5"} if status == 503 else None
    body = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
    return web.json_response(body, status=status, headers=headers)


def engine_app(pod: Pod) -> web.Application:
    app = web.Application(middlewares=[key_middleware(pod.settings.key_file)])
    api = Api(pod)
    app.router.add_get("/metrics", api.metrics)
    for path in ("/health", "/health_generate"):
        app.router.add_get(path, api.health)
    if pod.is_head:
        app.router.add_get("/v1/models", api.models)
        app.router.add_get("/v1/loads", api.loads)
        for path in ("/model_info", "/get_model_info"):
            app.router.add_get(path, api.model_info)
        for path in ("/server_info", "/get_server_info"):
            app.router.add_get(path, api.server_info)
        app.router.add_post("/v1/chat/completions", api.chat)
    return app


class Api:
    """The handlers; every answer comes from the pod's state."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod

    async def metrics(self, _: web.Request) -> web.Response:
        if self.pod.silent:
            return web.Response(status=500, text="injected\n")
        return web.Response(text=exposition(self.pod), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.pod.stage in ("Ready", "Draining") and not self.pod.hung else 503)

    async def models(self, _: web.Request) -> web.Response:
        name, limit = self.pod.settings.served_name, self.pod.settings.kv_tokens_per_rank
        card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "sglang", "root": name}
        return web.json_response({"object": "list", "data": [{**card, "parent": None, "max_model_len": limit}]})

    async def model_info(self, _: web.Request) -> web.Response:
        chosen = self.pod.settings
        return web.json_response(
            {
                "model_path": chosen.model_path,
                "served_model_name": chosen.served_name,
                "tokenizer_path": chosen.model_path,
                "is_generation": True,
                "reasoning_parser": "deepseek-r1",
                "tool_call_parser": None,
                "disaggregation_mode": "null",
                "has_image_understanding": False,
                "has_audio_understanding": False,
                "model_type": "deepseek_v3",
                "architectures": ["DeepseekV3ForCausalLM"],
            }
        )

    async def server_info(self, _: web.Request) -> web.Response:
        chosen = self.pod.settings
        return web.json_response(
            {
                "model_path": chosen.model_path,
                "served_model_name": chosen.served_name,
                "tp_size": chosen.ranks,
                "dp_size": 1,
                "attn_dp_size": chosen.ranks,  # SGLang 0.5.23 leaves dp_size at 1 when --attn-dp-size is given
                "nnodes": chosen.nodes,
                "max_total_num_tokens": chosen.kv_tokens_per_rank,
                "internal_states": [],
                "version": VERSION,
            }
        )

    async def loads(self, request: web.Request) -> web.Response:
        if self.pod.silent:
            return web.Response(status=500, text="injected\n")
        entries = self.pod.loads()
        if "include" in request.query and "all" not in request.query["include"]:
            wanted = {"disagg": "disaggregation", "memory": "memory", "queues": "queues"}
            asked = request.query["include"].split(",")
            for short, section in wanted.items():
                if short not in asked:
                    for entry in entries:
                        del entry[section]
        return web.json_response(
            {
                "timestamp": datetime.now(UTC).isoformat(),
                "version": VERSION,
                "accelerator": None,
                "num_accelerators": 1,
                "loads": entries,
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        pod = self.pod
        if pod.draining:
            return refusal(503, "service_unavailable", "this replica is draining; send the request to another")
        if pod.stage != "Ready":
            return refusal(503, "service_unavailable", "this replica is not ready yet")
        try:
            body = json.loads(await request.text())
            generation = self._generation(body)
            rank = self._rank(request, body)
        except (ValueError, TypeError, KeyError) as error:
            return refusal(400, "BadRequestError", f"{type(error).__name__}: {error}")
        pod.requests += 1
        if pod.refusing:
            pod.failed += 1
            return refusal(500, "InternalServerError", "injected")
        pod.in_flight += 1
        home = pod.submit(generation, rank)
        try:
            if body.get("stream"):
                return await self._stream(request, body, generation)
            async for _ in self._steps(generation):
                pass
            return web.json_response(self._whole(generation))
        finally:
            home.remove(generation)
            pod.in_flight -= 1

    def _rank(self, request: web.Request, body: Mapping[str, Any]) -> int | None:
        asked = body.get("data_parallel_rank", body.get("routed_dp_rank", request.headers.get("X-Data-Parallel-Rank")))
        if asked is None:
            return None
        if not 0 <= int(asked) < self.pod.settings.ranks:
            raise ValueError(f"data_parallel_rank {asked} is not below {self.pod.settings.ranks}")
        return int(asked)

    def _generation(self, body: Mapping[str, Any]) -> Request:
        messages = body["messages"]
        text = " ".join(str(message["content"]) for message in messages)
        prompt = len(text.split()) + 4 * len(messages)
        capacity = self.pod.settings.kv_tokens_per_rank
        if prompt >= capacity:
            raise ValueError(
                f"The input ({prompt} tokens) is longer than the model's context length ({capacity} tokens)"
            )
        counted = COUNT.search(text)
        answer = int(counted.group(1)) if counted else self.pod.settings.answer_tokens
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or capacity
        limit = min(int(limit), capacity - prompt - 1)
        wanted = limit if body.get("ignore_eos") else self.pod.settings.thought_tokens + answer
        return Request(prompt, min(wanted, limit), stuck=self.pod.stuck, truncated=wanted > limit)

    def _word(self, position: int) -> tuple[str, str]:
        """The token at a position, and the field it belongs to."""
        thought = self.pod.settings.thought_tokens
        if position < thought:
            return "reasoning_content", ("Thinking" if position == 0 else f" {position}")
        return "content", ("1" if position == thought else f" {position - thought + 1}")

    async def _steps(self, generation: Request) -> AsyncIterator[range]:
        """Positions of new tokens as they come, until the request is done."""
        sent = 0
        while True:
            if generation.produced > sent:
                yield range(sent, generation.produced)
                sent = generation.produced
            if generation.done:
                return
            async with self.pod.progress:
                await self.pod.progress.wait()

    async def _stream(self, request: web.Request, body: Mapping[str, Any], generation: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        head = self._head("chat.completion.chunk")
        usage = (body.get("stream_options") or {}).get("include_usage")

        async def send(delta: Mapping[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "matched_stop": None}
            await response.write(f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode())

        await send({"role": "assistant", "content": "", "reasoning_content": None})
        async for positions in self._steps(generation):
            for position in positions:
                name, word = self._word(position)
                await send({name: word})
        await send({"content": None, "reasoning_content": None}, "length" if generation.truncated else "stop")
        if usage:
            tail = {**head, "choices": [], "usage": self._usage(generation)}
            await response.write(f"data: {json.dumps(tail)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _whole(self, generation: Request) -> dict[str, Any]:
        texts = {"reasoning_content": "", "content": ""}
        for position in range(generation.produced):
            name, word = self._word(position)
            texts[name] += word
        message = {"role": "assistant", **texts, "tool_calls": None}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "length" if generation.truncated else "stop",
            "logprobs": None,
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(generation)}

    def _head(self, kind: str) -> dict[str, Any]:
        name = self.pod.settings.served_name
        return {"id": uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": name}

    def _usage(self, generation: Request) -> dict[str, Any]:
        thought = min(generation.produced, self.pod.settings.thought_tokens)
        return {
            "prompt_tokens": generation.prompt_tokens,
            "completion_tokens": generation.produced,
            "total_tokens": generation.held,
            "reasoning_tokens": thought,
            "prompt_tokens_details": None,
        }


@asynccontextmanager
async def serving(app: web.Application, address: str, port: int) -> AsyncIterator[None]:
    """Serve an app until the block ends; open connections are cut then."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()
