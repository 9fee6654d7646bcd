"""A Django application with a WebSocket of Channels, mounted at /app; needs no project around it."""

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path, reverse


def view(request):
    return JsonResponse(
        {
            "path": request.path,
            "reversed": reverse("view"),
            "client": request.META["REMOTE_ADDR"],
            "method": request.method,
        }
    )


class Echo(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept("two" if "two" in self.scope["subprotocols"] else None)

    async def receive_json(self, content, **_):
        await self.send_json({"echo": content, "session": self.scope["session"].id})


def application():
    if not settings.configured:
        settings.configure(
            SECRET_KEY="of the tests", ROOT_URLCONF=(path("view/", view, name="view"),), ALLOWED_HOSTS=["*"]
        )
        django.setup(set_prefix=False)
    sockets = URLRouter([path("ws/", Echo.as_asgi())])
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})


def run(worker):
    worker.http_server.mount(application(), "/app")
