import dataclasses

import pytest

from domains import orders, users
from orm_core import BaseModel, Domain, RegistryError, Service


class Thing(BaseModel):
    class Meta:
        table_name = "domain_value_things"


class ThingService(Service[Thing]):
    """Things."""


def test_a_domain_has_a_name_models_and_services():
    domain = Domain("things", models=(Thing,), services=(ThingService,))
    assert (domain.name, domain.models, domain.services) == ("things", (Thing,), (ThingService,))


def test_models_and_services_may_be_lists_and_become_tuples():
    domain = Domain("things", models=[Thing], services=[ThingService])
    assert (domain.models, domain.services) == ((Thing,), (ThingService,))


def test_a_domain_may_have_neither_models_nor_services():
    assert (Domain("things").models, Domain("things").services) == ((), ())


def test_a_domain_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Domain("things").name = "others"


def test_domains_of_the_same_content_are_equal_and_hash_alike():
    one, other = (Domain("things", models=(Thing,)) for _ in range(2))
    assert one == other
    assert {one, other} == {one}


def test_domains_of_other_content_differ():
    assert Domain("things", models=(Thing,)) != Domain("things")


def test_the_repr_names_the_domain_its_models_and_services():
    domain = Domain("things", models=(Thing,), services=(ThingService,))
    assert repr(domain) == "<Domain things: Thing; ThingService>"


def test_the_repr_of_an_empty_domain_says_so():
    assert repr(Domain("things")) == "<Domain things: no models; no services>"


@pytest.mark.parametrize("name", ["", "two words", "1st", "a-b", "a.b", "ord\0ers", None, 3])
def test_a_name_that_is_no_identifier_is_refused(name):
    with pytest.raises(RegistryError, match="identifier"):
        Domain(name)


@pytest.mark.parametrize("model", [object, Thing(), "Thing", None, ThingService])
def test_a_model_that_is_no_base_model_class_is_refused(model):
    with pytest.raises(RegistryError, match="Domain things: each model must be a BaseModel"):
        Domain("things", models=(model,))


@pytest.mark.parametrize("service", [object, "ThingService", None, Thing])
def test_a_service_that_is_no_service_class_is_refused(service):
    with pytest.raises(RegistryError, match="Domain things: each service must be a Service"):
        Domain("things", services=(service,))


def test_the_users_domain_offers_its_models_and_services():
    assert users.domain == Domain(
        "users",
        models=(users.User, users.Session),
        services=(users.UsersService, users.SessionService),
    )


def test_the_orders_domain_offers_its_model_and_service():
    assert orders.domain == Domain(
        "orders", models=(orders.Order,), services=(orders.OrdersService,)
    )


@pytest.mark.parametrize("module", [users, orders], ids=["users", "orders"])
def test_each_name_that_a_domain_package_exports_is_there(module):
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
