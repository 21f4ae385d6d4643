"""What the demo sells and who buys it: five plans of all three consumption models, seven customers."""

from dataclasses import dataclass
from typing import Literal

from tallybook.cli.demo.http import Client, Made

Json = dict[str, object]
Model = Literal["metered", "credits", "balance"]


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that is used."""

    code: str
    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A feature on a plan: units included, and what one costs (10000 = $1.00) or takes in credits.

    With a margin (percent) the AI model sets the price.
    """

    code: str
    included: int = 0
    unit_price: int = 0
    credits: int | None = None
    margin: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A monthly plan. `grant` is what a month includes: whole credits, or a balance in rate scale."""

    code: str
    name: str
    model: Model
    price_cents: int
    offers: tuple[Offer, ...]
    grant: int = 0
    is_free: bool = False
    blocks: bool | None = None

    def offer(self, code: str) -> Offer:
        """What the plan says about a feature."""
        return next(offer for offer in self.offers if offer.code == code)


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is billed."""

    code: str
    name: str
    plan: Plan


API_CALLS, STORAGE, IMAGES, THUMBNAILS, CHAT, SCANS = "api_calls", "storage_gb", "images", "thumbnails", "ai_chat", "page_scans"
FEATURES = (
    Feature(API_CALLS, "API calls", "call"),
    Feature(STORAGE, "Storage", "GB"),
    Feature(IMAGES, "Images", "image"),
    Feature(THUMBNAILS, "Thumbnails", "thumbnail"),
    Feature(CHAT, "AI chat", "token"),
    Feature(SCANS, "Page scans", "page"),
)
MARGIN = 20
GROWTH = Plan(
    "growth",
    "Growth",
    "metered",
    49_00,
    (Offer(API_CALLS, included=2_000, unit_price=50), Offer(STORAGE, included=100, unit_price=250)),
)
STARTER = Plan("starter", "Starter", "metered", 0, (Offer(API_CALLS, included=100),), is_free=True)
STUDIO = Plan("studio", "Studio", "credits", 29_00, (Offer(IMAGES, credits=3), Offer(THUMBNAILS, credits=1)), grant=1_000)
_ASSISTANT = (Offer(CHAT, margin=MARGIN), Offer(SCANS, unit_price=40))
ASSISTANT = Plan("assistant", "Assistant", "balance", 30_00, _ASSISTANT, grant=30_0000, blocks=False)
PREPAID = Plan("assistant_prepaid", "Assistant Prepaid", "balance", 5_00, _ASSISTANT, grant=5_0000, blocks=True)
PLANS = (GROWTH, STARTER, STUDIO, ASSISTANT, PREPAID)

ACME = Customer("acme", "Acme Robotics", GROWTH)
BIRCH = Customer("birch", "Birch Analytics", GROWTH)
CEDAR = Customer("cedar", "Cedar Studio", STUDIO)
DELTA = Customer("delta", "Delta Legal", ASSISTANT)
EMBER = Customer("ember", "Ember Health", ASSISTANT)
FJORD = Customer("fjord", "Fjord Labs", PREPAID)
GROVE = Customer("grove", "Grove Hobby", STARTER)
CUSTOMERS = (ACME, BIRCH, CEDAR, DELTA, EMBER, FJORD, GROVE)


@dataclass(frozen=True, slots=True)
class Signed:
    """A customer that has its plan: the ids that the API gave."""

    customer: Customer
    id: str
    subscription_id: str


def make_catalog(client: Client) -> None:
    """Create the features and plans."""
    for feature in FEATURES:
        body: Json = {"code": feature.code, "name": feature.name, "type": "usage", "unitName": feature.unit}
        client.post("/features", body, Made, f"feature-{feature.code}")
    for plan in PLANS:
        client.post("/plans", _plan_body(plan), Made, f"plan-{plan.code}")
        for offer in plan.offers:
            client.post(f"/plans/{plan.code}/features", _offer_body(plan, offer), dict, f"offer-{plan.code}-{offer.code}")
        if not plan.is_free:
            client.post(f"/plans/{plan.code}/prices", _price_body(plan), Made, f"price-{plan.code}")


def sign_up(client: Client, customer: Customer) -> Signed:
    """Create a customer and its subscription."""
    code = customer.code
    body: Json = {"id": code, "email": f"billing@{code}.example", "fullName": customer.name}
    made = client.post("/customers", body, Made, f"customer-{code}")
    order: Json = {"customerId": code, "planCode": customer.plan.code}
    subscription = client.post("/subscriptions", order, Made, f"subscription-{code}")
    return Signed(customer, made.id, subscription.id)


def _plan_body(plan: Plan) -> Json:
    body: Json = {"code": plan.code, "name": plan.name, "consumptionModel": plan.model, "isFree": plan.is_free}
    return body if plan.blocks is None else {**body, "blockOnExhaustion": plan.blocks}


def _offer_body(plan: Plan, offer: Offer) -> Json:
    if offer.margin is not None:
        return {"featureId": offer.code, "pricingMode": "ai_model", "margin": offer.margin}
    if plan.model == "credits":
        return {"featureId": offer.code, "creditsPerUnit": offer.credits}
    if plan.model == "balance":
        return {"featureId": offer.code, "pricingMode": "fixed", "overage": {"enabled": False, "unitPrice": offer.unit_price}}
    overage: Json = {"enabled": not plan.is_free, "unitPrice": offer.unit_price}
    return {"featureId": offer.code, "includedAmount": offer.included, "overage": overage}


def _price_body(plan: Plan) -> Json:
    grants: dict[Model, Json] = {
        "metered": {},
        "credits": {"includedCredits": plan.grant},
        "balance": {"includedBalance": plan.grant},
    }
    return {"billingInterval": "monthly", "price": plan.price_cents, **grants[plan.model]}
