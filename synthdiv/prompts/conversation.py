"""Prompts and answers as people record them: texts, lists of samples, conversations, responses of servers."""

from __future__ import annotations

from typing import Any

USER, ASSISTANT = ("user", "human"), ("assistant", "gpt", "model", "bot", "chatgpt")


def answers_of(cell: Any) -> list[str] | None:
    """The answers in a cell, None where it has none: a text; a list of texts, which are samples; a conversation (its
    last answer); or a response of OpenAI's protocol, also as a line of its batch output."""
    if isinstance(cell, str):
        return [cell]
    if isinstance(cell, dict):
        inner = next((cell[name] for name in ("body", "choices", "message") if cell.get(name)), None)
        parts = [item for item in cell.get("output") or () if item.get("type") == "message"]
        return answers_of(inner) if inner else answers_of(parts) if parts else texts_of(cell)
    if not isinstance(cell, list):
        return None
    if roles := roles_of(cell):
        return next((texts_of(turn) for turn, role in roles if role in ASSISTANT), None)
    samples = [answers_of(item) for item in cell]
    return [sample[0] for sample in samples if sample] if all(samples) else None


def prompt_of(cell: Any) -> str | None:
    """The prompt in a cell: a text, or the last turn of the user in a conversation."""
    if isinstance(cell, list):
        texts = next((texts_of(turn) for turn, role in roles_of(cell) if role in USER), None)
        return texts[0] if texts else None
    return None if isinstance(cell, dict) or cell is None else str(cell)


def roles_of(cell: list[Any]) -> list[tuple[dict[str, Any], str]]:
    """The turns of a conversation with their roles, the last first; nothing for another list."""
    turns = [(turn, str(turn.get("role") or turn.get("from") or "")) for turn in cell if isinstance(turn, dict)]
    return turns[::-1] if len(turns) == len(cell) and all(role for _, role in turns) else []


def texts_of(turn: dict[str, Any]) -> list[str] | None:
    """The text of one turn or choice, whose content may be a list of parts."""
    content = next((turn[name] for name in ("content", "value", "text") if turn.get(name) is not None), None)
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return [content] if isinstance(content, str) else None
