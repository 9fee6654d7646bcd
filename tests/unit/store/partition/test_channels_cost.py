"""What one channel costs does not grow with how many are remembered."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from socketcluster_store.data.channel_rules import ChannelRules
from socketcluster_store.partition.channels import Channels


async def test_what_is_taken_from_the_front_is_found_past_nothing() -> None:
    kept: Any = None
    channels: Channels[Any] = Channels(ChannelRules(()), 300, kept, lambda: 0.0)
    # the first key of a dict is found past all that were taken away before it; no count shows that
    assert isinstance(channels._ids, OrderedDict)
    assert isinstance(channels._idle, OrderedDict)
