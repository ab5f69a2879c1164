"""The mutations match the current source; an outdated mutation proves nothing."""

from .run import read_mutants


def test_every_mutation_matches_one_place_in_the_source_and_lists_existing_tests() -> None:
    mutants = read_mutants()
    assert len({m.name for m in mutants}) == len(mutants) >= 60
    assert [f"{m.name}: {why}" for m in mutants if (why := m.misfit())] == []
