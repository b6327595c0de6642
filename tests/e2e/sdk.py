"""OpenAI's Python SDK against a running gateway. BASE_URL and KEY come from the environment."""

import os

import openai

MODEL = "open-persona/build"
BASE_URL = os.environ["BASE_URL"]


def messages(text):
    return [{"role": "user", "content": text}]


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


client = openai.OpenAI(base_url=BASE_URL, api_key=os.environ["KEY"], max_retries=0, timeout=120)

stream = client.chat.completions.create(
    model=MODEL,
    messages=messages("echo streamed to python"),
    stream=True,
    stream_options={"include_usage": True},
)
text, pieces, finish, usage = "", 0, None, None
for chunk in stream:
    assert chunk.object == "chat.completion.chunk", chunk
    usage = chunk.usage or usage
    for choice in chunk.choices:
        text += choice.delta.content or ""
        pieces += bool(choice.delta.content)
        finish = choice.finish_reason or finish
assert "streamed to python" in text, text
assert pieces > 1, pieces
assert finish == "stop", finish
assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0, usage

whole = client.chat.completions.create(model=MODEL, messages=messages("echo whole to python"))
assert "whole to python" in whole.choices[0].message.content, whole
assert whole.choices[0].finish_reason == "stop", whole
assert whole.usage.total_tokens > 0, whole

assert MODEL in [model.id for model in client.models.list()]
assert client.models.retrieve(MODEL).id == MODEL

error = refused(
    openai.NotFoundError,
    lambda: client.chat.completions.create(model="no-such-model", messages=messages("x")),
)
assert error.code == "model_not_found", error
assert error.param == "model", error
refused(openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=[]))
stranger = openai.OpenAI(base_url=BASE_URL, api_key="not-a-key", max_retries=0)
error = refused(
    openai.AuthenticationError,
    lambda: stranger.chat.completions.create(model=MODEL, messages=messages("x")),
)
assert "not-a-key" not in str(error), error

print("streaming, whole, models, errors: understood")
