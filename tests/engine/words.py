"""The tiny model's words: what a gang of any layout must answer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from tests.engine.gang import TINY_MODEL, Gang


def questions() -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads((TINY_MODEL / "questions.json").read_text())
    return entries


def asked() -> list[dict[str, str]]:
    """All questions but the longest counts, which a CPU engine takes a minute for; one long one stays."""
    return [entry for entry in questions() if len(entry["answer"]) < 400]


def wrong_answers(gang: Gang) -> list[str]:
    """Asks every question at once, so that requests share batches and land on all ranks."""

    def ask(entry: dict[str, str]) -> str | None:
        message = gang.chat(entry["question"], seconds=300, max_tokens=1024)
        said = ((message["reasoning_content"] or "").strip(), (message["content"] or "").strip())
        return None if said == (entry["thought"], entry["answer"]) else f"{entry['question']} -> {said}"

    with ThreadPoolExecutor(8) as pool:
        return [told for told in pool.map(ask, asked()) if told]
