"""From a bar to the requests in it: events by adapter, version, key and base model, and by several at once."""

import time

from tests.ui.test_views import api, ready_adapters  # noqa: F401 - a fixture

EVENTS = "/api/v1/usage/events"


def asked(api, **filters):  # noqa: F811
    """The requests there are, once all five are settled."""
    for _ in range(100):
        if len(api.get(EVENTS).json()["data"]) == 5:
            break
        time.sleep(0.02)
    return api.get(EVENTS, params=filters).json()["data"]


def test_events_are_found_by_what_a_bar_stands_for(live, api):  # noqa: F811
    ready_adapters(live, api, ["alpha", "beta"])
    for model in ("alpha", "base", "beta", "alpha", "base"):
        api.say(model)
    whole = asked(api)
    by_name = {event["adapter_name"]: event for event in whole}
    alpha, none = by_name["alpha"], by_name[None]
    assert [e["adapter_name"] for e in whole] == [None, "alpha", "beta", None, "alpha"]
    assert (alpha["version_number"], alpha["key_name"], none["version_number"]) == (1, "test", None)
    for filters in ({"version": alpha["version"]}, {"adapter": alpha["adapter"], "version": alpha["version"]}):
        assert [e["adapter_name"] for e in asked(api, **filters)] == ["alpha", "alpha"]
    assert [e["model"] for e in asked(api, base="base", key=none["key"])] == ["base", "base"]
    assert asked(api, base="alpha") == asked(api, base="base", version=alpha["version"]) == []
    pages = [asked(api, base="base", limit=1)]
    pages.append(asked(api, base="base", limit=1, after=pages[0][0]["request_id"]))
    assert [e["request_id"] for page in pages for e in page] == [e["request_id"] for e in asked(api, base="base")]
    one = api.get(f"{EVENTS}/{alpha['request_id']}").json()
    assert one == alpha
    assert api.get(EVENTS, params={"version": alpha["adapter"]}).status_code == 404
