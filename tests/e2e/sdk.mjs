// OpenAI's JavaScript SDK against a running gateway. BASE_URL, KEY and NODE_SDK, where the SDK is
// installed, come from the environment.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const OpenAI = createRequire(import.meta.url)(process.env.NODE_SDK).default;
const baseURL = process.env.BASE_URL;
const model = "open-persona/build";
const messages = (content) => [{ role: "user", content }];
const client = new OpenAI({ baseURL, apiKey: process.env.KEY, maxRetries: 0, timeout: 120_000 });

const stream = await client.chat.completions.create({
  model,
  messages: messages("echo streamed to javascript"),
  stream: true,
  stream_options: { include_usage: true },
});
let text = "", pieces = 0, finish, usage;
for await (const chunk of stream) {
  assert.equal(chunk.object, "chat.completion.chunk");
  usage = chunk.usage ?? usage;
  for (const choice of chunk.choices) {
    text += choice.delta.content ?? "";
    pieces += choice.delta.content ? 1 : 0;
    finish = choice.finish_reason ?? finish;
  }
}
assert.match(text, /streamed to javascript/);
assert.ok(pieces > 1, `${pieces} pieces`);
assert.equal(finish, "stop");
assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);

const whole = await client.chat.completions.create({
  model,
  messages: messages("echo whole to javascript"),
});
assert.match(whole.choices[0].message.content, /whole to javascript/);
assert.equal(whole.choices[0].finish_reason, "stop");
assert.ok(whole.usage.total_tokens > 0);

const models = [];
for await (const listed of client.models.list()) models.push(listed.id);
assert.ok(models.includes(model), models.join());
assert.equal((await client.models.retrieve(model)).id, model);

const ask = (who, body) => who.chat.completions.create({ model, messages: messages("x"), ...body });
await assert.rejects(ask(client, { model: "no-such-model" }), (error) => {
  assert.ok(error instanceof OpenAI.NotFoundError, `${error}`);
  assert.equal(error.code, "model_not_found");
  assert.equal(error.param, "model");
  return true;
});
await assert.rejects(ask(client, { messages: [] }), OpenAI.BadRequestError);
const stranger = new OpenAI({ baseURL, apiKey: "not-a-key", maxRetries: 0 });
await assert.rejects(ask(stranger, {}), (error) => {
  assert.ok(error instanceof OpenAI.AuthenticationError, `${error}`);
  assert.ok(!error.message.includes("not-a-key"));
  return true;
});

console.log("streaming, whole, models, errors: understood");
