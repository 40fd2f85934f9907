"""Speaks as much of `vllm serve` as the backend uses, with transformers: because vLLM takes 3 GB and a minute to start.

Which flags and fields the real one has was read in the source of vLLM 0.33.0.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import sys
from typing import Any

import torch
import transformers


class Model:
    """A checkpoint, under an adapter if asked for one, that answers greedily."""

    def __init__(self, asked: argparse.Namespace):
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[asked.dtype]
        self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(asked.model)
        self.models = {"base": transformers.AutoModelForCausalLM.from_pretrained(asked.model, dtype=dtype)}
        for name, _, folder in (item.partition("=") for item in asked.lora_modules):
            import peft

            rank = json.load(open(f"{folder}/adapter_config.json"))["r"]  # noqa: SIM115
            if not asked.enable_lora or rank > asked.max_lora_rank:
                sys.exit(f"an adapter of rank {rank} needs --enable-lora and --max-lora-rank")
            base = transformers.AutoModelForCausalLM.from_pretrained(asked.model, dtype=dtype)
            self.models[name] = peft.PeftModel.from_pretrained(base, folder)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        strange = set(body) - set(FIELDS)
        if strange or body["temperature"] != 0:
            raise ValueError(f"this server only answers greedily, and takes no {strange}")
        ids = torch.tensor([body["prompt"]])
        settings = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=body["max_tokens"], eos_token_id=body["stop_token_ids"], pad_token_id=0
        )
        out = self.models[body["model"]].generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
        new = out[0, ids.shape[1] :].tolist()
        stopped = new[-1] in body["stop_token_ids"]
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        choice = {"index": 0, "text": text, "finish_reason": "stop" if stopped else "length", "token_ids": new}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(new)}
        return {"id": "x", "object": "text_completion", "model": body["model"], "choices": [choice], "usage": usage}


FIELDS = (
    "model", "prompt", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed",
    "stop_token_ids", "return_token_ids",
)  # fmt: skip


def handler(model: Model) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self, code: int, data: Any) -> None:
            text = json.dumps(data).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            if self.path == "/version":
                return self.respond(200, {"version": "stand-in"})
            return self.respond(200 if self.path == "/health" else 404, {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "--die" in sys.argv:
                print("out of memory, it seems", file=sys.stderr, flush=True)
                os._exit(3)
            try:
                self.respond(200, model.answer(body))
            except (KeyError, ValueError) as error:
                self.respond(400, {"error": {"message": str(error)}})

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    for flag in ("--served-model-name", "--host", "--dtype", "--generation-config"):
        parser.add_argument(flag, required=True)
    for flag in ("--port", "--tensor-parallel-size"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--lora-modules", nargs="*", default=[])
    parser.add_argument("--die", action="store_true", help="at the first request")
    options = parser.parse_args()
    torch.set_num_threads(1)
    http.server.ThreadingHTTPServer((options.host, options.port), handler(Model(options))).serve_forever()
