"""The host tier's accounting."""

from loadgen.engine.host_tier import HostTier


def test_blocks_are_found_from_where_the_accelerator_ends() -> None:
    tier = HostTier(10)
    tier.store("a", 2, 6)
    assert [tier.blocks_from("a", start, 100) for start in (1, 2, 4, 6, 9)] == [0, 4, 2, 0, 0]
    assert tier.blocks_from("a", 2, 5) == 3
    assert tier.blocks_from("b", 0, 5) == 0


def test_the_chain_swapped_out_longest_ago_makes_room() -> None:
    tier = HostTier(10)
    tier.store("a", 0, 4)
    tier.store("b", 0, 4)
    tier.store("a", 0, 5)
    tier.store("c", 0, 4)
    assert tier.used_blocks == 9
    assert [tier.blocks_from(chain, 0, 100) for chain in "abc"] == [5, 0, 4]


def test_a_chain_larger_than_the_tier_keeps_its_beginning() -> None:
    tier = HostTier(3)
    tier.store("a", 5, 20)
    assert (tier.blocks_from("a", 5, 100), tier.used_blocks) == (3, 3)
    tier.drop("a")
    tier.drop("a")
    assert (tier.blocks_from("a", 5, 100), tier.used_blocks) == (0, 0)


def test_no_room_stores_nothing() -> None:
    tier = HostTier(0)
    tier.store("a", 0, 4)
    assert tier.used_blocks == 0
