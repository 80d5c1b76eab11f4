"""Many streams at once, each with the content it has alone."""

import asyncio

from assemble import chat
from support import PLAIN, call, openai_async

MANY = 32


def request(number):
    words = ["alpha", "beta", "gamma", "delta", "one", "two", "three", "four"]
    question = " ".join(words[(number * k) % len(words)] for k in (1, 3, 5, 7)) + f" {number}"
    return {
        "model": "tiny", "messages": [{"role": "user", "content": question}], "extra_body": PLAIN,
        "max_tokens": 10 + number % 9, "temperature": 1, "seed": number,
        "stream": True, "stream_options": {"include_usage": True},
    }


async def together(url):
    async with openai_async(url) as client:
        async def one(number):
            return chat([c async for c in await client.chat.completions.create(**request(number))])

        return await asyncio.gather(*(one(n) for n in range(MANY)))


def test_concurrent_streams(direct, proxy):
    alone = [chat(call("openai", "sync", direct, "chat.completions.create", request(n))) for n in range(MANY)]
    assert len({str(a) for a in alone}) == MANY, "every stream should differ, or mixing them up would not show"
    for _ in range(2):
        assert asyncio.run(together(proxy)) == alone
