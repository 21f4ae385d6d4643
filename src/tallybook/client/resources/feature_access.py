"""What a customer has now."""

from tallybook.client.decoding import reader
from tallybook.client.models import ListOf
from tallybook.client.models_usage import FeatureAccess
from tallybook.client.requests import CustomerResource, Mode, Request, Resource, customer_operation, operation, query
from tallybook.client.resources.pages import page


def get(code: str, *, customer_id: str) -> Request[FeatureAccess]:
    """One feature as the customer has it now."""
    return Request("GET", f"/feature-access/{code}", reader(FeatureAccess), query=query(customer_id=customer_id))


def list_(customer_id: str) -> Request[ListOf[FeatureAccess]]:
    """All features as the customer has them now."""
    return Request("GET", "/feature-access", page(FeatureAccess), query=query(customer_id=customer_id))


def _get_for(customer_id: str, code: str) -> Request[FeatureAccess]:
    """One feature as the customer has it now."""
    return get(code, customer_id=customer_id)


class FeatureAccesses(Resource[Mode]):
    """`tallybook.feature_access`."""

    get = operation(get)
    list = operation(list_)


class CustomerFeatures(CustomerResource[Mode]):
    """`tallybook.customer(…).features`."""

    get = customer_operation(_get_for)
    list = customer_operation(list_)
