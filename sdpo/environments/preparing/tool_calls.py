"""What is a row of the tool use that the authors of SDPO train on (``datasets/tooluse`` of their repository), for ``tool_use``?

``prompt`` and ``system`` are kept, ``answer`` is written out as calls with JSON objects, which it holds as texts within a text.
"""

from __future__ import annotations

from sdpo.environments.preparing.rows import Kept, Passed, Published, plain
from sdpo.envs.adapters.rows import messages_of
from sdpo.envs.tool_use.calls import golden_calls


def converted(published: Published) -> Kept | Passed:
    """Raises ValueError for a row without a prompt, or without calls that can be read."""
    row = published.row
    system, prompt = row.text_or_none("system"), row.text("prompt")
    messages = messages_of({"prompt": prompt, "system": system}, row.number, prompt="prompt")
    answer = row.values.get("answer", row.values.get("golden_answer"))
    try:
        calls = golden_calls(answer)
    except (ValueError, RecursionError) as error:
        raise row.refused(f"'answer' must hold the right calls; {error}: correct or remove the row") from error
    return Kept(
        question=plain("\n".join(message.content for message in messages)),
        values={
            "idx": row.number,
            "system": system,
            "prompt": prompt,
            "answer": [{"Action": call.name, "Action_Input": dict(call.arguments)} for call in calls],
        },
        split=published.split,
    )
