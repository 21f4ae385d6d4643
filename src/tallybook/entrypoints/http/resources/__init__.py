"""The API's resources, one module each."""

from tallybook.entrypoints.http.resources import (
    ai_models,
    ai_models_margin,
    ai_models_news,
    ai_models_own,
    alerts,
    api_keys,
    customers,
    feature_access,
    features,
    invoices,
    plans,
    reports,
    reports_events,
    subscriptions,
    test_clock,
    usage,
    usage_events,
    webhooks,
)
from tallybook.entrypoints.http.routing import Resource

MODULES: tuple[Resource, ...] = (
    api_keys,
    customers,
    features,
    plans,
    subscriptions,
    usage,
    usage_events,
    feature_access,
    invoices,
    reports,
    reports_events,
    test_clock,
    alerts,
    webhooks,
    ai_models_own,
    ai_models_news,
    ai_models_margin,
    ai_models,
)
