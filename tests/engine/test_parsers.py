"""SGLang's own parsers on what the models write: those that the catalogue names put answers where clients read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sglang.srt.entrypoints.openai.protocol import Function, Tool
from sglang.srt.function_call.function_call_parser import FunctionCallParser
from sglang.srt.parser.reasoning_parser import ReasoningParser

CATALOG = Path(__file__).parents[2] / "operator" / "r1_operator" / "planning" / "models" / "catalog.json"
MODELS = {entry["name"]: entry for entry in json.loads(CATALOG.read_text())}
THINKS = [name for name in MODELS if "V3" not in name]
CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
    '{"city": "Bonn"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)


def streamed(parser: str, text: str) -> tuple[str, str]:
    """Thought and answer, token by token."""
    made = ReasoningParser(parser, stream_reasoning=True)
    parts = [made.parse_stream_chunk(text[at : at + 3]) for at in range(0, len(text), 3)]
    return "".join(thought or "" for thought, _ in parts), "".join(answer or "" for _, answer in parts)


@pytest.mark.parametrize("name", THINKS)
def test_a_model_that_thinks_has_its_thoughts_taken_out(name: str) -> None:
    parser = MODELS[name]["reasoningParser"]
    for text in ("I weigh it.</think>42", "<think>I weigh it.</think>42"):
        assert ReasoningParser(parser).parse_non_stream(text) == ("I weigh it.", "42")
        assert streamed(parser, text) == ("I weigh it.", "42")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in THINKS])
def test_a_model_that_does_not_think_answers_in_content(name: str) -> None:
    parser = MODELS[name]["reasoningParser"]
    thought, answer = ReasoningParser(parser).parse_non_stream("42, of course.")
    assert (thought or "", answer) == ("", "42, of course.")
    assert streamed(parser, "42, of course.") == ("", "42, of course.")


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if "toolCallParser" in entry])
def test_tool_calls_are_found(name: str) -> None:
    tool = Tool(type="function", function=Function(name="weather", parameters={"type": "object"}))
    parser = FunctionCallParser([tool], MODELS[name]["toolCallParser"])
    text, calls = parser.parse_non_stream(f"One moment.{CALL}")
    assert (text, [(call.name, json.loads(call.parameters)) for call in calls]) == (
        "One moment.",
        [("weather", {"city": "Bonn"})],
    )
    assert parser.parse_non_stream("No tool is needed.") == ("No tool is needed.", [])
