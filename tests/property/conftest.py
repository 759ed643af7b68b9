"""Busy machines draw slowly, and by chance nearly all of the first wishes cannot come true: neither is a finding."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
settings.load_profile("any-machine")
