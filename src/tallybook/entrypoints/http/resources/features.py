"""Features of the catalog: create, get, update, list, delete."""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.catalog import actions, model, store
from tallybook.core import clock, cursors
from tallybook.entrypoints.http.routing import Call, Operation, Page

LIST_MAX = 1000
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Description = Annotated[str, msgspec.Meta(max_length=2000)]
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[a-z0-9_]+(?!\n)$")]


class CreateFeature(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A feature to create. Its code is what usage is sent for; lowercase letters, digits and underscores."""

    name: Name
    code: Code
    type: model.FeatureType
    description: Description | None = None
    unit_name: Name | None = None


class UpdateFeature(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change of a feature, at least one; null removes."""

    name: Name | UnsetType = UNSET
    description: Description | None | UnsetType = UNSET
    unit_name: Name | None | UnsetType = UNSET


class CatalogQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which part of the catalog: a list of it is whole unless a limit is given, up to a thousand entries."""

    cursor: Annotated[str, msgspec.Meta(max_length=128, description="nextCursor of the page before")] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_MAX, description="rows of a page")] = LIST_MAX


class Feature(msgspec.Struct, rename="camel", kw_only=True):
    """A capability that plans can include."""

    object: str = "feature"
    id: str
    name: str
    code: str
    type: model.FeatureType
    description: str | None
    unit_name: str | None
    created_at: str
    updated_at: str


class DeletedFeature(msgspec.Struct, rename="camel", kw_only=True):
    """A feature that is no longer in the catalog."""

    object: str = "feature"
    id: str
    deleted: bool = True


async def create(call: Call) -> Feature:
    """Add a feature to the catalog."""
    body: CreateFeature = call.body
    new = model.NewFeature(
        code=body.code, name=body.name, type=body.type, description=body.description, unit_name=body.unit_name
    )
    return _shown(await actions.create_feature(call.connection, call.tenant, call.now, new))


async def get(call: Call) -> Feature:
    """The feature with this code (or `feat_…`)."""
    feature = await store.feature_by_reference(call.connection, call.tenant, call.path["code"])
    if feature is None:
        raise actions.feature_not_found(call.path["code"])
    return _shown(feature)


async def update(call: Call) -> Feature:
    """Change what is given and leave the rest."""
    body: UpdateFeature = call.body
    change = model.FeatureChange(name=body.name, description=body.description, unit_name=body.unit_name)
    return _shown(await actions.update_feature(call.connection, call.tenant, call.now, call.path["code"], change))


async def delete(call: Call) -> DeletedFeature:
    """Take a feature out of the catalog."""
    feature = await actions.delete_feature(call.connection, call.tenant, call.now, call.path["code"])
    return DeletedFeature(id=feature.public_id)


async def list_all(call: Call) -> Page:
    """Features, newest first."""
    query: CatalogQuery = call.query
    before_id = None if query.cursor is None else cursors.decode(query.cursor)
    found = await store.features_page(call.connection, call.tenant, before_id, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda feature: feature.id)
    return Page([_shown(feature) for feature in page], next_cursor)


def _shown(feature: model.Feature) -> Feature:
    return Feature(
        id=feature.public_id,
        name=feature.name,
        code=feature.code,
        type=feature.type,
        description=feature.description,
        unit_name=feature.unit_name,
        created_at=clock.iso(feature.created_at),
        updated_at=clock.iso(feature.updated_at),
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/features",
        id="create-feature",
        summary="Add a feature to the catalog.",
        permission="feature",
        handler=create,
        body=CreateFeature,
        returns=Feature,
        example={"name": "AI chat", "code": "ai_chat", "type": "usage", "unitName": "token"},
    ),
    Operation(
        method="GET",
        path="/features/{code}",
        id="get-feature",
        summary="Get a feature by its code.",
        permission="feature",
        handler=get,
        returns=Feature,
    ),
    Operation(
        method="PATCH",
        path="/features/{code}",
        id="update-feature",
        summary="Change the name, description or unit name of a feature.",
        permission="feature",
        handler=update,
        body=UpdateFeature,
        returns=Feature,
        example={"name": "AI chat (all models)"},
    ),
    Operation(
        method="DELETE",
        path="/features/{code}",
        id="delete-feature",
        summary="Delete a feature that no plan on offer includes.",
        permission="feature",
        handler=delete,
        returns=DeletedFeature,
    ),
    Operation(
        method="GET",
        path="/features",
        id="list-features",
        summary="List the features of the catalog, newest first.",
        permission="feature",
        handler=list_all,
        query=CatalogQuery,
        returns=Feature,
        is_list=True,
    ),
)
