"""What can be subscribed to. The first list is the wire's; Tallybook sends the part of it that happens here. Pure."""

from typing import Final

ALERT_TRIGGERED: Final = "alert.triggered"
TEST: Final = "webhook.test"
OWN: Final = (ALERT_TRIGGERED, "ai_model.prices_changed")
_BY_FAMILY: Final = {
    "subscription": (
        "created activated reactivated pause_scheduled pause_updated pause_revoked paused resumed resume_failed canceled updated "
        "plan_changed cancellation_scheduled cancellation_revoked plan_change_scheduled plan_change_revoked past_due"
    ),
    "trial": "started converted expired will_end checkout_ready",
    "checkout": "ready",
    "payment": "received failed recovered retry_failed refunded disputed dispute_resolved",
    "payment_link": "created completed failed canceled",
    "invoice": "created voided overdue upcoming",
    "payment_method": "attached updated",
    "customer": "created updated state_changed",
    "plan_grant": "created updated expired revoked",
    "credits": "granted purchased low depleted expired",
    "balance": "topped_up low depleted",
    "quota": "threshold_reached exceeded",
    "seats": "updated limit_reached",
    "addon": "activated deactivated",
    "usage": "recorded",
    "payout": "available created paid failed",
}
KNOWN: Final = frozenset(f"{family}.{what}" for family, every in _BY_FAMILY.items() for what in every.split()) | frozenset(OWN)
"""Names an endpoint can ask for. One that nothing here announces is taken, so that code written for the wire runs unchanged."""

ANNOUNCED: Final = (
    *("subscription.created", "subscription.activated", "subscription.updated", "subscription.canceled"),
    *("subscription.cancellation_scheduled", "subscription.cancellation_revoked", "trial.started", "trial.expired"),
    *("customer.created", "customer.updated", "invoice.created"),
    *("balance.low", "balance.depleted", "credits.low", "credits.depleted", "quota.threshold_reached", "quota.exceeded"),
    *OWN,
)
"""Those of them that happen here."""
