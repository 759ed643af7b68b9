"""The only package that talks to Kubernetes: client, cache of watched objects, lease, events."""

from r1_operator.cluster.cache import INTERESTS, Cache, Interest
from r1_operator.cluster.client import Client, Listing, gone
from r1_operator.cluster.errors import ApiError
from r1_operator.cluster.events import Events
from r1_operator.cluster.lease import Lease, LeaseLost
from r1_operator.cluster.resources import JsonObject, Resource, key_of, resource_of, version_of
from r1_operator.cluster.store import Change

__all__ = [
    "INTERESTS",
    "ApiError",
    "Cache",
    "Change",
    "Client",
    "Events",
    "Interest",
    "JsonObject",
    "Lease",
    "LeaseLost",
    "Listing",
    "Resource",
    "gone",
    "key_of",
    "resource_of",
    "version_of",
]
