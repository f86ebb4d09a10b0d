import pytest

from tenantry.adapters.testing import Upload, make_upload


@pytest.fixture
def upload() -> Upload:
    return make_upload()
