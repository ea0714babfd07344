"""One small world for all tests here."""

import pytest
from world_reading import WrittenWorld

from l2e.data.builtin import WorldSettings, write_world


@pytest.fixture(scope="session")
def small_settings() -> WorldSettings:
    return WorldSettings(
        documents=1500,
        validation_documents=40,
        items=120,
        known_items=40,
        vocab_size=700,
        passages_per_label=12,
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, small_settings: WorldSettings) -> WrittenWorld:
    folder = tmp_path_factory.mktemp("world") / "small"
    write_world(folder, small_settings)
    return WrittenWorld(folder)
