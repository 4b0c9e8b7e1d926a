"""Names of families: a tenant's own, as many as it may have, and again after a while."""

from marsproxy.core.tenant_families import MAX_FAMILIES, OTHERS, QUIET_S, TenantFamilies


def test_the_same_family_of_two_tenants_has_two_names():
    red, blue = TenantFamilies(), TenantFamilies()
    assert red.own_name("red", "f", 0.0) == red.own_name("red", "f", 1.0) == "red:f"
    assert blue.own_name("blue", "f", 0.0) == "blue:f"


def test_whoever_makes_up_families_has_one_for_the_rest():
    families = TenantFamilies()
    names = {families.own_name("t", str(number), 0.0) for number in range(10 * MAX_FAMILIES)}
    assert len(names) == MAX_FAMILIES + 1
    assert families.own_name("t", "new", 1.0) == f"t:{OTHERS}"
    assert families.own_name("t", "0", 1.0) == "t:0"
    assert len(families.last_used_s) == MAX_FAMILIES


def test_a_quiet_family_makes_room():
    families = TenantFamilies()
    for number in range(MAX_FAMILIES):
        families.own_name("t", str(number), 0.0)
    families.own_name("t", "0", 1.0)
    assert families.own_name("t", "new", QUIET_S) == "t:new"
    assert list(families.last_used_s) == ["0", "new"]
