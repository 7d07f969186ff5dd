"""What `make mutate` takes away stands in the source, so that taking it away is a change."""

from __future__ import annotations

import pytest

from tests.mutation.mutate import GUARDS, Guard, source_of


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_once_in_its_file(guard: Guard) -> None:
    assert source_of(guard).read_text(encoding="utf-8").count(guard.stands) == 1
