"""gRPC services and clients built from a protobuf descriptor.

A service object implements the methods it knows under their protobuf names; every other method of the service answers
UNIMPLEMENTED, which is how the kubelet finds out what a runtime does not offer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import message_factory  # type: ignore[import-untyped, unused-ignore]


def service_handler(service: Any, implementation: object) -> grpc.GenericRpcHandler:
    """Handler of the protobuf `service` (a ServiceDescriptor) that calls the coroutine methods of `implementation`."""
    handlers = {}
    for method in service.methods:
        behaviour: Callable[..., Any] | None = getattr(implementation, method.name, None)
        if behaviour is None:
            continue
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        handlers[method.name] = make(
            behaviour,
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


class Client:
    """Calls of one protobuf service over a channel: `client.Version(request, timeout=1)`.

    Works on plain and on asyncio channels: the call returns what the channel's multicallable returns.
    """

    def __init__(self, channel: Any, service: Any) -> None:
        for method in service.methods:
            connect = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = connect(
                f"/{service.full_name}/{method.name}",
                request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the service has no method {name}")
