"""Django Channels with channels-redis, for Daphne: ``REDIS_URL=... daphne bench.peers.with_channels:application``."""

from __future__ import annotations

import json
import os
from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

settings.configure(
    SECRET_KEY="of a benchmark",  # noqa: S106  # it signs nothing
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]]},
        }
    },
)
django.setup()


class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # it has no types
    """One client."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take an event."""
        event = json.loads(text_data or "")
        data = event["data"]
        if event["event"] == "say":
            text = json.dumps({"event": "said", "data": data}, separators=(",", ":"))
            await self.channel_layer.group_send(event["room"], {"type": "said", "text": text})
            return
        if event["event"] == "join":
            await self.channel_layer.group_add(data, self.channel_name)
        await self.send(text_data=json.dumps({"rid": event["cid"], "data": data}, separators=(",", ":")))

    async def said(self, message: dict[str, Any]) -> None:
        """Tell this client."""
        await self.send(text_data=message["text"])


application = ProtocolTypeRouter({"websocket": Consumer.as_asgi()})
