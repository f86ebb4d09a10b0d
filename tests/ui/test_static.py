"""What the gateway says about the console's files: nothing from elsewhere runs, and nothing else is served."""

import httpx
import pytest

from tenantry.platform.testing import GatewayThread, cloned_database


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/adapters", "/admin/adapters/support", "/admin/keys"])
def test_every_view_is_the_one_page_under_a_strict_policy(live, path):
    reply = httpx.get(live.url + path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    said = reply.headers["content-security-policy"]
    assert "default-src 'none'" in said
    assert "script-src 'self';" in said
    assert "unsafe" not in said
    nonce = said.partition("'nonce-")[2].partition("'")[0]
    assert f'nonce="{nonce}"' in reply.text
    assert nonce not in httpx.get(live.url + path).text


def test_a_hashed_asset_is_kept_for_ever(live):
    reply = httpx.get(f"{live.url}/admin/assets/index-1a2b3c.js")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        ("gzip, deflate, br, zstd", "br"), ("gzip", "gzip"), ("GZIP;q=0.5, br;q=0", "gzip"), ("identity", None),
        ("", None), ("br;q=0.000, gzip; q=0", None), ("nobr, xgzip", None),
    ],
)  # fmt: skip
def test_an_asset_comes_in_the_smallest_form_that_is_taken(live, console_dir, accepts, encoding):
    with httpx.stream(
        "GET", f"{live.url}/admin/assets/index-1a2b3c.js", headers={"accept-encoding": accepts}
    ) as reply:
        raw = b"".join(reply.iter_raw())
    assert reply.headers.get("content-encoding") == encoding
    assert reply.headers["vary"] == "accept-encoding"
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    name = "index-1a2b3c.js" + {"br": ".br", "gzip": ".gz", None: ""}[encoding]
    assert raw == (console_dir / "assets" / name).read_bytes()


def test_each_form_has_a_tag_of_its_own_by_which_it_is_not_sent_again(live):
    url, forms = f"{live.url}/admin/assets/index-1a2b3c.js", ("br", "gzip", "identity")
    tags = {form: httpx.get(url, headers={"accept-encoding": form}).headers["etag"] for form in forms if form != "br"}
    with httpx.stream("GET", url, headers={"accept-encoding": "br"}) as reply:
        tags["br"] = reply.headers["etag"]
    assert len(set(tags.values())) == len(forms)
    for form, tag in tags.items():
        again = httpx.get(url, headers={"accept-encoding": form, "if-none-match": f'W/"x", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        other = next(one for one in forms if one != form)
        assert (
            httpx.get(url, headers={"accept-encoding": "identity", "if-none-match": tags["gzip"]}).status_code == 200
        )
        assert tags[other] != tag


def test_a_copy_is_no_asset_by_itself_and_what_has_none_goes_as_it_is(live):
    assert httpx.get(f"{live.url}/admin/assets/index-1a2b3c.js.gz").status_code == 404
    reply = httpx.get(f"{live.url}/admin/assets/plain-1a2b3c.css", headers={"accept-encoding": "gzip"})
    assert (reply.headers.get("content-encoding"), reply.text) == (None, "a{}")
    assert reply.headers["content-type"] == "text/css; charset=utf-8"


def test_the_gateways_own_address_leads_to_the_console(live):
    reply = httpx.get(f"{live.url}/")
    assert (reply.status_code, reply.headers["location"]) == (307, "/admin")
    assert httpx.get(f"{live.url}/", follow_redirects=True).headers["content-type"].startswith("text/html")
    assert httpx.post(f"{live.url}/").status_code in (404, 405)
    assert httpx.get(f"{live.url}//").status_code == 404


@pytest.mark.parametrize("name", ["nothing.js", "../secret.txt", "..%2fsecret.txt", ".hidden", "index-1a2b3c.map"])
def test_nothing_but_an_asset_by_its_name_is_served(live, name):
    assert httpx.get(f"{live.url}/admin/assets/{name}").status_code == 404 or (
        "not an asset" not in httpx.get(f"{live.url}/admin/assets/{name}").text
    )


def test_without_a_built_console_the_answer_says_what_to_do(postgres, tmp_path):
    with (
        cloned_database(postgres, "tenantry_template") as dsn,
        GatewayThread(dsn, tmp_path / "data", console_dir=tmp_path) as live,
    ):
        reply = httpx.get(f"{live.url}/admin")
        assert reply.status_code == 404
        assert "make ui" in reply.json()["error"]["message"]
