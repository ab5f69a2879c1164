"""The set of mutations fits the source: what rots unseen proves nothing."""

from .run import read_mutants


def test_every_mutation_changes_one_place_of_the_source_and_names_tests_that_exist() -> None:
    mutants = read_mutants()
    assert len({m.name for m in mutants}) == len(mutants) >= 60
    assert [f"{m.name}: {why}" for m in mutants if (why := m.misfit())] == []
