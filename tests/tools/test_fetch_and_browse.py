from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import threading

import pytest
from web_site import Reply, site

from agentrl.core.errors import ContractError, ToolError
from agentrl.tools.browse import browse_tool, readable, shown_part
from agentrl.tools.fetch import Fetcher, FetchSettings, Page, is_public

HERE = ("127.0.0.1",)
ARTICLE = """<html><head><title>The bridge</title></head><body>
<nav><a href="/a">Home</a><a href="/b">About</a></nav>
<article><h1>The bridge</h1><p>The bridge was built in 1874 by <a href="/ada">Ada Marrow</a>, who
had built none before. It has stood through nine floods since then, as the town is proud to say.</p>
<p>It is closed on Sundays, when the market needs the whole of the road for itself.</p></article>
<footer>Imprint</footer></body></html>"""


def text(body, **headers):
    return Reply(body.encode(), 200, {"content-type": "text/plain", **headers})


def fetcher(**settings):
    return Fetcher(FetchSettings(**{"allow_private": HERE, **settings}))


async def test_a_page_is_shown_as_its_text_with_links_and_without_navigation():
    with site({"/bridge": Reply(ARTICLE.encode())}) as there:
        tool = browse_tool(fetcher(), part_chars=2000)
        said = await tool.call({"url": f"{there.url}/bridge#top"})
    assert "built in 1874" in said and "closed on Sundays" in said
    assert f"[Ada Marrow]({there.url}/ada)" in said
    assert "Imprint" not in said and "About" not in said


async def test_a_long_page_is_shown_in_parts():
    with site({"/long": text("".join(f"{n:04d} " for n in range(100)))}) as there:
        tool = browse_tool(fetcher(), part_chars=200)
        first = await tool.call({"url": f"{there.url}/long"})
        assert first.startswith("0000 ") and first.endswith("\n(part 1 of 3)")
        third = await tool.call({"url": f"{there.url}/long", "part": 3})
        assert third.startswith("0080") and third.endswith("0099\n(part 3 of 3)")
        with pytest.raises(ToolError, match="there is no part 4: the page has 3"):
            await tool.call({"url": f"{there.url}/long", "part": 4})
    assert shown_part("", 1, 100) == ""
    with pytest.raises(ContractError, match="part_chars >= 100"):
        browse_tool(fetcher(), part_chars=5)


async def test_what_is_no_page_of_text_is_refused():
    for media_type in ("image/png", "application/pdf", "application/octet-stream", ""):
        with pytest.raises(ToolError, match="not a page of text"):
            await readable(Page("http://x/y", media_type, "", b"\x00\x01"))
    assert await readable(Page("http://x/y", "application/json", "", b'{"a": 1}')) == '{"a": 1}'
    assert await readable(Page("http://x/y", "text/plain", "no-such", "é".encode())) == "é"
    assert "no text" in await readable(Page("http://x/", "text/html", "", b"<html></html>"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bridge",
        "file:///etc/passwd",
        "ftp://h/x",
        "javascript:alert(1)",
        "http://",
        "//h/x",
        "http://h:99999/",
        "http://[::1",
        "http://user:secret@h/x",
    ],
)
async def test_what_is_no_web_address_is_refused(url):
    with pytest.raises(ToolError):
        await fetcher().get(url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


async def test_private_addresses_are_refused_unless_named():
    with site({"/": text("secret")}) as there:
        strict = fetcher(allow_private=())
        with pytest.raises(ToolError, match="in a private network"):
            await strict.get(there.url)
        local = there.url.replace("127.0.0.1", "localhost")
        for url in (local, there.url.replace("127.0.0.1", "2130706433"), local + "/x"):
            with pytest.raises(ToolError, match="in a private network"):
                await strict.get(url)
        assert not there.asked
        assert (await fetcher().get(there.url)).content == b"secret"


async def test_a_redirect_into_a_private_network_is_refused():
    with site({"/secret": text("secret")}) as inner:
        name = inner.url.replace("127.0.0.1", "localhost")
        out = Reply(b"", 302, {"location": f"{name}/secret"})
        with site({"/": out}) as outer, pytest.raises(ToolError, match="localhost is in a private"):
            await fetcher().get(outer.url)
        assert not inner.asked


async def test_the_address_that_was_checked_is_the_one_that_is_asked(monkeypatch):
    """A name that resolves to a public address first and to a private one afterwards."""
    answers = [["127.0.0.1"], ["8.8.8.8"]]
    asked = []

    async def resolve(self, host, port, **_):
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    with site({"/": text("secret")}) as there:
        url = there.url.replace("127.0.0.1", "rebinding.example")
        page = await fetcher(allow_private=("rebinding.example",), robots=False).get(url)
        assert page.content == b"secret"
        assert there.heard[0]["headers"]["host"].startswith("rebinding.example:")
    # One look-up by name; the second one is of the address itself.
    assert asked[0] == "rebinding.example" and "rebinding.example" not in asked[1:]


async def test_size_time_redirects_and_errors_are_bounded_and_told():
    release = threading.Event()
    replies = {
        "/big": text("x" * 5000),
        "/bomb": Reply(gzip.compress(b"0" * 3_000_000), 200, {"content-encoding": "gzip"}),
        "/slow": Reply(b"", wait=lambda: release.wait(5)),
        "/loop": Reply(b"", 302, {"location": "/loop"}),
        "/hop": Reply(b"", 301, {"location": "/end"}),
        "/end": text("end"),
        "/broken": Reply(b"", 500),
    }
    with site(replies) as there:
        with pytest.raises(ToolError, match=r"did not answer within 0\.5 s"):
            await fetcher(robots=False, timeout=0.5).get(there.url + "/slow")
        get = fetcher(max_bytes=2000, max_redirects=3).get
        for path, said in (
            ("/big", "larger than 2,000 bytes"),
            ("/bomb", "larger than 2,000 bytes"),
            ("/loop", "more than 3 redirects"),
            ("/broken", "500 Internal Server Error"),
            ("/none", "404 Not Found"),
        ):
            with pytest.raises(ToolError, match=said):
                await get(there.url + path)
        release.set()
        page = await get(there.url + "/hop")
        assert (page.url, page.content) == (f"{there.url}/end", b"end")
        assert there.asked["/loop"] == 4
    with pytest.raises(ToolError, match=r"could not be fetched|did not answer"):
        await fetcher(robots=False, timeout=2.0).get(there.url + "/end")
    with pytest.raises(ToolError, match="there is no host"):
        await fetcher(robots=False).get("http://no-such-host.invalid/")


@pytest.mark.parametrize(
    ("robots", "allowed"),
    [
        (text("User-agent: *\nDisallow: /private"), False),
        (text("User-agent: agentrl\nDisallow: /private\n\nUser-agent: *\nDisallow:"), False),
        (text("User-agent: other\nDisallow: /"), True),
        (Reply(b"", 404), True),
        (Reply(b"", 503), False),
        (text("not a robots file \x00"), True),
    ],
)
async def test_robots_txt_is_obeyed(robots, allowed):
    replies = {"/robots.txt": robots, "/private/x": text("page")}
    with site(replies) as there:
        polite = fetcher()
        for _ in range(2):
            if allowed:
                assert (await polite.get(there.url + "/private/x")).content == b"page"
            else:
                with pytest.raises(ToolError, match=r"robots\.txt forbids"):
                    await polite.get(there.url + "/private/x")
        assert there.asked["/robots.txt"] == 1
        rude = fetcher(robots=False)
        assert (await rude.get(there.url + "/private/x")).content == b"page"


async def test_a_page_is_fetched_once_where_there_is_a_cache(tmp_path):
    with site({"/x": [text("one"), text("two")]}) as there:
        for _ in range(2):
            page = await fetcher(cache=str(tmp_path)).get(there.url + "/x#part")
            assert page == Page(there.url + "/x", "text/plain", "", b"one")
        assert there.asked["/x"] == 1
        with pytest.raises(ToolError):
            await fetcher(cache=str(tmp_path)).get(there.url + "/none")
        with pytest.raises(ToolError):
            await fetcher(cache=str(tmp_path)).get(there.url + "/none")
        assert there.asked["/none"] == 2, "a failure is not remembered"


def test_a_fetcher_serves_one_event_loop_after_another():
    with site({"/x": text("one")}) as there:
        shared = fetcher()

        async def once():
            try:
                return (await shared.get(there.url + "/x")).content
            finally:
                await shared.close()
                await shared.close()

        assert [asyncio.run(once()), asyncio.run(once())] == [b"one", b"one"]
