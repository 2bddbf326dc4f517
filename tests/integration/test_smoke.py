from domains.users import User, UsersService


def test_a_user_is_created(rollback_db):
    user = UsersService.create({"email": "a@b.c", "first_name": "A", "provider_account_id": "g"})
    assert User.get_by_id(user.id) == user


def test_the_test_before_left_nothing(rollback_db):
    assert User.select().count() == 0


def test_a_clone_is_empty(clone_db):
    UsersService.create({"email": "a@b.c", "first_name": "A", "provider_account_id": "g"})
    assert User.select().count() == 1
