"""Which licences forbid commercial use, by their names."""

import pytest

from lamdagent.champion.model_card import NON_COMMERCIAL


@pytest.mark.parametrize("name", ["cc-by-nc-4.0", "CC-BY-NC-SA-3.0", "research-only", "Non-Commercial use", "cc_by_nc"])
def test_forbids(name: str) -> None:
    assert NON_COMMERCIAL.search(name)


@pytest.mark.parametrize("name", ["apache-2.0", "CC-BY-SA-3.0", "gemma", "MIT", "ncsa", "bsd-3-clause", "unknown", ""])
def test_allows_as_far_as_its_name_says(name: str) -> None:
    assert not NON_COMMERCIAL.search(name)
